"""Trainings that can be stopped at any moment: whole files only, and a check before going on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_SAVE = torch.save
_WHOLE = threading.local()
_INSIDE: list[int] = []  # threads in a block; the last one out puts torch.save back
_LOCK = threading.Lock()


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Make ``torch.save`` write beside the file, then rename: a reader sees the old or the new.

    ESPnet's trainer saves with ``torch.save`` and has no seam for another way. Only what this
    thread saves inside the block is changed.
    """
    before = getattr(_WHOLE, "on", False)
    with _LOCK:
        _INSIDE.append(threading.get_ident())
        torch.save = _save
    _WHOLE.on = True
    try:
        yield
    finally:
        _WHOLE.on = before
        with _LOCK:
            _INSIDE.remove(threading.get_ident())
            if not _INSIDE:
                torch.save = _SAVE


def _save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    if not getattr(_WHOLE, "on", False) or not isinstance(f, (str, os.PathLike)):
        _SAVE(obj, f, *args, **kwargs)
        return
    partial = f"{os.fspath(f)}.{os.getpid()}.partial"
    _SAVE(obj, partial, *args, **kwargs)
    os.replace(partial, f)


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
        with whole_files():
            torch.save(parameters, file)
