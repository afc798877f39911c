"""The blank gate: from blank posteriors to the frames that go on (Hou et al., 2401.02046)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BlankGate:
    """Decide per frame whether it runs the upper layers.

    A frame is a *spike* unless ``p(blank) > blank_threshold``. Spikes and their neighbours
    (spike extension) go on, the other frames skip. The decision looks at one utterance
    at a time, so it does not depend on what else is in the batch.

    Safety (ours, not in the paper): a NaN posterior counts as a spike, and an utterance
    with fewer than ``min_spike_ratio`` spikes per real frame runs at full depth, because
    a head that finds next to nothing in an utterance cannot be trusted with it.

    Args:
        blank_threshold: In (0, 1]; 1.0 turns the gate off.
        spike_extension: Frames kept (left of, right of) each spike; integers >= 0.
        min_spike_ratio: In [0, 1]; 0.0 turns the fallback off.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> gate = BlankGate(0.9, (0, 1))
        >>> p = torch.tensor([[0.99, 0.2, 0.99, 0.99, 0.99]])
        >>> gate(p, torch.ones(1, 5, dtype=torch.bool)).int().tolist()
        [[0, 1, 1, 0, 0]]
    """

    blank_threshold: float = 0.9
    spike_extension: tuple[int, int] = (1, 1)
    min_spike_ratio: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "blank_threshold", check_threshold(self.blank_threshold))
        object.__setattr__(self, "spike_extension", check_extension(self.spike_extension))
        if not 0.0 <= self.min_spike_ratio <= 1.0:
            raise ValueError(f"min_spike_ratio must be in [0, 1], but got {self.min_spike_ratio}")

    @property
    def is_off(self) -> bool:
        """True if no frame can ever be skipped."""
        return self.blank_threshold >= 1.0

    def __call__(self, blank_prob: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Return the frames that go on.

        Args:
            blank_prob: p(blank) of each frame (B, T), float.
            valid_mask: (B, T) bool, True = real frame.

        Returns:
            keep_mask (B, T) bool, True = the frame goes on; False on padding.
        """
        spike = ~(blank_prob > self.blank_threshold) & valid_mask
        keep = spike.clone()
        left, right = self.spike_extension
        length = spike.size(1)
        for shift in range(1, min(left, length - 1) + 1):
            keep[:, :-shift] |= spike[:, shift:]
        for shift in range(1, min(right, length - 1) + 1):
            keep[:, shift:] |= spike[:, :-shift]
        if self.min_spike_ratio > 0.0:
            unsure = spike.sum(1) < self.min_spike_ratio * valid_mask.sum(1)
            keep |= unsure[:, None]
        return keep & valid_mask


def check_threshold(value: float) -> float:
    """Return ``value`` as a float if it is a valid blank threshold, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
        raise ValueError(
            f"blank_threshold must be a number in (0, 1] (1.0 = no skipping), but got {value!r}"
        )
    return float(value)


def check_extension(value: Sequence[int]) -> tuple[int, int]:
    """Return ``value`` as (left, right) if it is a valid spike extension, else raise ValueError."""
    ok = isinstance(value, (list, tuple)) and len(value) == 2
    if not ok or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in value):
        raise ValueError(
            f"spike_extension must be two integers >= 0, [left, right] in frames, but got {value!r}"
        )
    return int(value[0]), int(value[1])
