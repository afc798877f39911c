"""Loading of checkpoints: tensors only, across ESPnet versions, nothing silently random."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_layerskip.encoders.loading import PROJECTION
from espnet_layerskip.files import read_yaml, some

# What training programs put a state dict under (ESPnet's checkpoint.pth; deepspeed; Lightning)
# and in front of its names (Lightning; data parallel).
_WRAPPERS = ("model", "module", "state_dict")
_PREFIXES = ("model.", "module.")


def load_checkpoint(model: torch.nn.Module, path: Path | str) -> None:
    """Load a checkpoint into ``model``; every key must fit.

    Args:
        model: ESPnet model.
        path: File with a state dict, alone or under ``model`` (ESPnet's checkpoint.pth),
            ``module`` (deepspeed) or ``state_dict`` (Lightning's ``.ckpt``, as in ESPnet3), its
            names with ``model.`` in front or without.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read as tensors, if some are not finite, or if keys are
            missing, unexpected or of another shape; the message names them.
    """
    path = Path(path)
    state = read_tensors(path)
    while isinstance(state, Mapping):
        inner = next((state[k] for k in _WRAPPERS if isinstance(state.get(k), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ValueError(f"{path} does not hold a state dict (a mapping of names to tensors)")
    load_state(model, state, str(path))


def read_tensors(path: Path | str) -> Any:
    """Read a checkpoint as tensors only: no code in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else, or cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        why = " ".join(str(e).split())[:500]  # PyTorch's advice how to run the code comes later
        raise ValueError(f"{path} cannot be read as a file of tensors: {why}") from e


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load a state dict into ``model``, mapping names between ESPnet versions.

    Args:
        model: ESPnet model, or an encoder of one.
        state: Names and tensors.
        source: What to call the state dict in an error.

    Raises:
        ValueError: If keys are missing, unexpected, of another shape or not finite.
    """
    wanted = model.state_dict()
    for prefix in _PREFIXES:
        if state and all(k.startswith(prefix) and k not in wanted for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    state = {_rename(key, wanted): value for key, value in state.items()}
    problems = []
    if missing := wanted.keys() - state.keys():
        problems.append(f"missing: {some(missing)}")
    if unexpected := state.keys() - wanted.keys():
        problems.append(f"unexpected: {some(unexpected)}")
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model needs {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    if shapes:
        problems.append("other shape: " + some(shapes))
    kinds = [
        k
        for k in sorted(wanted.keys() & state.keys())
        if state[k].is_floating_point() != wanted[k].is_floating_point()
    ]
    if kinds:
        problems.append(f"whole numbers in the place of others: {some(kinds)}")
    if any(key.startswith("ctc.") for key in shapes):
        problems.append("the vocabulary of the checkpoint is not that of the token list")
    if problems:
        raise ValueError(
            f"{source} does not fit the model ({'; '.join(problems)}). Use the config.yaml and "
            "the token list which it was trained with"
        )
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(
            f"{source} holds weights that are not finite ({some(broken)}): its training diverged, "
            "or the file is damaged: take another checkpoint"
        )
    model.load_state_dict(state)


@contextmanager
def config_without_init(config_file: Path | str) -> Iterator[Path]:
    """Give the configuration of a model whose weights are about to be loaded.

    ``init`` says how to fill the parameters before training. ESPnet applies it all the same, and
    202611 has no longer what older models name there (``chainer``).

    Args:
        config_file: config.yaml of a training.

    Yields:
        The file itself, or where it sets ``init`` a copy without it for the block.
    """
    config = read_yaml(config_file)
    if config.get("init") is None:
        yield Path(config_file)
        return
    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as directory:
        changed = Path(directory) / "config.yaml"
        changed.write_text(yaml.safe_dump({**config, "init": None}, allow_unicode=True), "utf-8")
        yield changed


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _rename(key: str, wanted: Mapping[str, torch.Tensor]) -> str:
    """Return the name that the running ESPnet version gives to ``key``."""
    if key not in wanted:
        for there, here in (PROJECTION, PROJECTION[::-1]):
            stem, found, part = key.rpartition(f"embed.{there}")
            if found and f"{stem}embed.{here}{part}" in wanted:
                return f"{stem}embed.{here}{part}"
    return key
