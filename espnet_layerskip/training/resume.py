"""Trainings that can be stopped at any moment: whole files only, and a check before going on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Make ``torch.save`` write beside the file, then rename: a reader sees the old or the new."""
    save = torch.save

    def save_in_one_step(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            save(obj, f, *args, **kwargs)
            return
        partial = f"{os.fspath(f)}.{os.getpid()}.partial"
        save(obj, partial, *args, **kwargs)
        os.replace(partial, f)

    torch.save = save_in_one_step
    try:
        yield
    finally:
        torch.save = save


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
