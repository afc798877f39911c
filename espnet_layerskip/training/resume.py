"""Trainings that can be stopped at any moment: whole files only, and a check before going on."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from espnet_layerskip.files import read_lines, read_yaml, some, write_bytes

PARTIAL = ".partial"
_SAVE = torch.save
EPOCHS = ("train_one_epoch", "validate_one_epoch")  # of ESPnet's trainer


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Make ``torch.save`` write by `save_whole` inside the block.

    ESPnet's trainer saves with ``torch.save`` and has no seam for another way. For a process that
    trains and does nothing else.
    """
    torch.save = save_whole
    try:
        yield
    finally:
        torch.save = _SAVE


class _Target:
    """A file that remembers why it could not be written: PyTorch says "unexpected pos" only."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write some bytes."""
        try:
            return self.file.write(content)
        except OSError as err:
            self.error = err
            raise

    def flush(self) -> None:
        """Write what is held back."""
        self.file.flush()


def save_whole(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    """Write beside the file, then rename: a reader sees the old or the new.

    Args:
        obj: As of ``torch.save``, like the others.
        f: Path; anything else is written to as it is.
        args: Of ``torch.save``.
        kwargs: Of ``torch.save``.

    Raises:
        OSError: If it cannot be written; says why.
    """
    if not isinstance(f, (str, os.PathLike)):
        _SAVE(obj, f, *args, **kwargs)
        return
    partial = Path(f"{os.fspath(f)}.{os.getpid()}{PARTIAL}")
    why = None
    try:
        with partial.open("wb") as file:
            target: Any = _Target(file)
            try:
                _SAVE(obj, target, *args, **kwargs)
            except RuntimeError:
                if (why := target.error) is None:
                    raise
        if why is not None:
            raise why
        os.replace(partial, f)
    except OSError as err:
        if err.errno:  # a full disk does not say where
            err.filename = err.filename or os.fspath(f)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def going_on(exp: Path | None) -> Iterator[None]:
    """Train in one process: mend an experiment that is gone on with, and write whole files.

    Args:
        exp: Its folder; None = the training starts anew.
    """
    if exp is not None:
        tidy(exp)
        mend(exp)
    with whole_files():
        yield


def tidy(exp: Path) -> None:
    """Remove what trainings that were killed have half written; call it before the only one.

    Args:
        exp: The experiment's folder; need not be there.
    """
    for partial in exp.glob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def mend(exp: Path) -> None:
    """Make an interrupted training fit to go on.

    ESPnet writes checkpoint.pth before the parameters of the epoch, which it averages at the end:
    where it was stopped in between, they are taken from the checkpoint.

    Args:
        exp: The experiment's folder; one without checkpoint.pth is left as it is.

    Raises:
        ValueError: If checkpoint.pth cannot be read; says what to do.
    """
    checkpoint = exp / "checkpoint.pth"
    if not checkpoint.is_file():
        return
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=False)
        epoch, parameters = int(state["reporter"]["epoch"]), state["model"]
    except Exception as e:
        raise ValueError(
            f"{checkpoint} cannot be read ({type(e).__name__}: {e}): was the disk full, or the "
            f"training stopped while it was written? To train from the first epoch: rm -r {exp}"
        ) from e
    file = exp / f"{epoch}epoch.pth"
    if not file.exists():
        save_whole(parameters, file)


def check_tokens(exp: Path, token_list: str | Sequence[str] | None) -> None:
    """Refuse to go on with other tokens: of as many, the weights would fit and be wrong.

    Args:
        exp: The experiment's folder; one without checkpoint.pth is not gone on with.
        token_list: The tokens, or the file that has one a line.

    Raises:
        ValueError: Names the first token that differs.
    """
    config = exp / "config.yaml"
    if token_list is None or not (config.is_file() and (exp / "checkpoint.pth").is_file()):
        return
    if isinstance(token_list, str):
        token_list = [line for _, line in read_lines(token_list)]
    before = read_yaml(config).get("token_list")
    if not isinstance(before, list):
        return
    for number, (old, new) in enumerate(zip(before, token_list, strict=False)):
        if str(old).strip() != new.strip():
            raise ValueError(
                f"{exp} was trained with other tokens (token {number} is {new.strip()!r}, was "
                f"{str(old).strip()!r}): train into another directory (asr.sh: --asr_tag), or with "
                "the token list of before"
            )


def leads(args: argparse.Namespace) -> bool:
    """Tell whether this process of a training writes its files."""
    rank = getattr(args, "dist_rank", None)
    if rank is None and getattr(args, "distributed", False):
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
    return int(rank or 0) == 0


@contextlib.contextmanager
def own_config(output_dir: str | None) -> Iterator[None]:
    """Put back config.yaml where the block has not trained: ESPnet writes it first.

    So it describes the model of checkpoint.pth, also if somebody goes on with other options.
    """
    config, checkpoint = (
        Path(output_dir or ".", name) for name in ("config.yaml", "checkpoint.pth")
    )
    old = config.read_bytes() if config.is_file() and checkpoint.is_file() else None
    trained = old is not None and checkpoint.stat().st_mtime_ns
    try:
        yield
    finally:
        if old is not None and checkpoint.stat().st_mtime_ns == trained:
            if config.read_bytes() != old:
                logging.warning("nothing was trained: %s stays that of %s", config, checkpoint.name)
            write_bytes(config, old)


def _number(value: object) -> bool:
    """Tell whether this is a number as text."""
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


@contextlib.contextmanager
def told_plainly(args: argparse.Namespace) -> Iterator[None]:
    """Raise ValueError for what PyTorch, Python and ESPnet's assertions say of wrong options.

    An assertion that fails within an epoch keeps its traceback, and so does a wrong type.
    """
    try:
        yield
    except RuntimeError as e:
        what, first, *_ = [*str(e).splitlines(), "", ""]
        if "loading state_dict" not in what:
            raise
        raise ValueError(
            f"the weights to start from ({args.output_dir}/checkpoint.pth or --init_param) are of "
            f"another model: {first.strip()[:200]}; train it into another directory (asr.sh: "
            "--asr_tag), or with the options of before"
        ) from e
    except Exception as e:
        frames = traceback.extract_tb(e.__traceback__)
        of_type = isinstance(e, TypeError) or type(e).__name__ == "TypeCheckError"  # typeguard's
        if not of_type and not isinstance(e, AssertionError):
            raise
        confs = {k: v or {} for k, v in vars(args).items() if k.endswith("_conf")}
        if "unexpected keyword argument" in str(e):
            where = [k for k, v in confs.items() if any(repr(name) in str(e) for name in v)]
            raise ValueError(f"there is no such option: {e} ({some(where)})") from e
        if any(frame.name in EPOCHS for frame in frames):  # no matter of options
            raise
        texts = [f"{k}: {n}: {v!r}" for k, c in confs.items() for n, v in c.items() if _number(v)]
        if of_type and not texts:
            raise
        if texts:
            raise ValueError(
                f"numbers that YAML takes for text ('1e-1'; 1.0e-1 is a number): {some(texts)}; {e}"
            ) from e
        why = str(e) or frames[-1].line
        raise ValueError(f"the options do not fit one another: {why}") from e
