"""Trainings that can be stopped at any moment: whole files only, and a check before going on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

PARTIAL = ".partial"
_SAVE = torch.save


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
            raise OSError(why.errno, why.strerror, os.fspath(f))
        os.replace(partial, f)
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
