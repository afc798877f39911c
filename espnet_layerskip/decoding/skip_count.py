"""Per-utterance count of skipped frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class SkipCount:
    """Encoder frames of one utterance, and how many of them skipped at least one layer."""

    num_frames: int = 0
    num_skipped: int = 0


def count_skips(encoder: Any, olens: torch.Tensor) -> list[SkipCount]:
    """Return the counts of each utterance of the encoder's last batch.

    Args:
        encoder: A skipping encoder, or any other (nothing skipped there).
        olens: Output lengths of that batch (B,), in encoder frames.
    """
    trace = getattr(encoder, "last_skip", None)
    if trace is not None:
        skipped = (trace.valid_mask & ~trace.keep_mask).sum(-1).tolist()
        frames = trace.valid_mask.sum(-1).tolist()
        return [SkipCount(n, k) for n, k in zip(frames, skipped, strict=True)]
    every = getattr(encoder, "exit_layer", None) is not None  # static exit: all of them
    return [SkipCount(n, n if every else 0) for n in olens.tolist()]
