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

    def __add__(self, other: SkipCount) -> SkipCount:
        """Return the count of two parts together."""
        return SkipCount(self.num_frames + other.num_frames, self.num_skipped + other.num_skipped)


def count_skips(encoder: Any, num_frames: int, keep_mask: torch.Tensor | None) -> SkipCount:
    """Return the count of one utterance, or of a part of it.

    Args:
        encoder: A skipping encoder, or any other (nothing skipped there).
        num_frames: T of it.
        keep_mask: (T,) bool, False = the frame skipped at a gate; None = no gate decided.
    """
    if keep_mask is not None:
        return SkipCount(num_frames, int((~keep_mask).sum()))
    every = getattr(encoder, "exit_layer", None) is not None  # static exit: all of them
    return SkipCount(num_frames, num_frames if every else 0)
