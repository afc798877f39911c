"""The numbers of every epoch of a training: from its checkpoint, or from its log."""

from __future__ import annotations

import datetime
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_layerskip.evaluation.training_log import parse_log

# train.log is of the last start, train.1.log of the one before it, and so on.
LOG_NAMES = ("train.log", *(f"train.{i}.log" for i in range(1, 100)))

# Beside tensors and plain types: what ESPnet's reporter keeps its statistics in.
_ALLOWED: list[Any] = [
    datetime.timedelta,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    (np.float64(0.0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0.0).__reduce__()[0], "numpy.core.multiarray.scalar"),
]


@dataclass(frozen=True)
class History:
    """Statistics by epoch.

    Attributes:
        curves: {"train" or "valid": {name: {epoch: value}}}; numbers that are not finite are
            left out.
        source: File that they come from, in words.
        max_epoch: Epochs that the training was to have; None = not known.
    """

    curves: dict[str, dict[str, dict[int, float]]]
    source: str
    max_epoch: int | None = None

    @property
    def last_epoch(self) -> int:
        """Last epoch with numbers; 0 = there is none."""
        return max((e for c in self.curves.values() for n in c.values() for e in n), default=0)

    @property
    def incomplete(self) -> str:
        """Say that the training is not at its end; empty if it is, or there is nothing."""
        if self.max_epoch is None or not 0 < self.last_epoch < self.max_epoch:
            return ""
        return (
            f"The training stopped after epoch {self.last_epoch} of {self.max_epoch}: start stage "
            "11 again and it goes on from there."
        )


def load_history(exp: Path, max_epoch: int | None = None, others: Sequence[Path] = ()) -> History:
    """Return the history of an experiment; without curves if nothing can be read.

    The reporter's state in ``checkpoint.pth`` comes first: it has every epoch however often
    the training was started. Logs (every one that the starts left) are for experiments
    whose checkpoint was removed.

    Args:
        exp: The experiment.
        max_epoch: Epochs that it was to have; None = not known.
        others: Experiments beside it, of which the first with numbers stands in for one without
            (a retrofitted model has the training of its stock model).
    """
    own = _history(exp, max_epoch)
    if own.last_epoch:
        return own
    for other in others:
        if (found := _history(other, None)).last_epoch:
            whose = f"{found.source} of {other.name}, since {exp.name} has none of its own"
            return replace(found, source=whose)
    return own


def _history(exp: Path, max_epoch: int | None) -> History:
    stats = _reporter_stats(exp / "checkpoint.pth")
    if stats:
        return History(_curves(stats), "checkpoint.pth", max_epoch)
    stats = {}
    for name in reversed(LOG_NAMES):  # the oldest first: a later start wins
        if (exp / name).is_file():
            text = (exp / name).read_text(encoding="utf-8", errors="replace")
            stats |= parse_log(text).results
    return History(_curves(stats), "train.log", max_epoch)


def _reporter_stats(checkpoint: Path) -> Mapping[int, Any]:
    """Return the reporter's statistics; nothing if the file is missing, damaged or refused."""
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            state = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
        stats: Mapping[int, Any] = state["reporter"]["stats"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
        return {}
    return stats


def _curves(stats: Mapping[int, Any]) -> dict[str, dict[str, dict[int, float]]]:
    curves: dict[str, dict[str, dict[int, float]]] = {"train": {}, "valid": {}}
    for epoch in sorted(stats):
        for part, by_name in curves.items():
            for name, value in (stats[epoch].get(part) or {}).items():
                if isinstance(value, int | float | np.number) and math.isfinite(value):
                    by_name.setdefault(name, {})[int(epoch)] = float(value)
    return curves
