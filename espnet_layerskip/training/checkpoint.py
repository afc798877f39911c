"""Loading of checkpoints: tensors only, across ESPnet versions, nothing silently random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

# The Linear of ESPnet's subsampling: 202511 names it embed.out.0, 202611 embed.out.
_EMBED_OUT = ("encoder.embed.out.0.", "encoder.embed.out.")


def load_checkpoint(model: torch.nn.Module, path: Path | str) -> None:
    """Load a checkpoint into ``model``; every key must fit.

    Args:
        model: ESPnet model.
        path: A ``.pth`` file with a state dict; ``{"model": state_dict}`` (ESPnet's
            checkpoint.pth) is accepted.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read as tensors, or if keys are missing, unexpected or
            of another shape; the message names them.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise ValueError(f"{path} cannot be read as a file of tensors: {e}") from e
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in state.values()
    ):
        raise ValueError(f"{path} does not hold a state dict (a mapping of names to tensors)")
    load_state(model, state, str(path))


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load a state dict into ``model``, mapping names between ESPnet versions.

    Args:
        model: ESPnet model, or an encoder of one.
        state: Names and tensors.
        source: What to call the state dict in an error.

    Raises:
        ValueError: If keys are missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    state = {_rename(key, wanted): value for key, value in state.items()}
    problems = []
    if missing := sorted(wanted.keys() - state.keys()):
        problems.append(f"missing: {_few(missing)}")
    if unexpected := sorted(state.keys() - wanted.keys()):
        problems.append(f"unexpected: {_few(unexpected)}")
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model needs {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    if shapes:
        problems.append("other shape: " + _few(shapes))
    if any(key.startswith("ctc.") for key in shapes):
        problems.append("the vocabulary of the checkpoint is not that of the token list")
    if problems:
        raise ValueError(
            f"{source} does not fit the model ({'; '.join(problems)}). Use the config.yaml and "
            "the token list which it was trained with"
        )
    model.load_state_dict(state)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _rename(key: str, wanted: Mapping[str, torch.Tensor]) -> str:
    """Return the name that the running ESPnet version gives to ``key``."""
    if key in wanted:
        return key
    for old, new in (_EMBED_OUT, _EMBED_OUT[::-1]):
        for prefix_old, prefix_new in ((old, new), (old[8:], new[8:])):  # model or encoder
            if key.startswith(prefix_old):
                renamed = prefix_new + key[len(prefix_old) :]
                if renamed in wanted:
                    return renamed
    return key


def _few(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
