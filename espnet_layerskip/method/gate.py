"""The blank gate: from blank posteriors to the frames that go on (Hou et al., 2401.02046)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from espnet_layerskip.method.ctc import head_blank_prob
from espnet_layerskip.method.settings import SkipSettings, is_short
from espnet_layerskip.method.trace import GateTrace


@dataclass(frozen=True)
class BlankGate:
    """Decide per frame whether it runs the upper layers.

    A frame is a *spike* unless ``p(blank) > blank_threshold``. Spikes and their neighbours
    (spike extension) go on; the other frames skip. The decision looks at one utterance at a
    time, so it does not depend on what else is in the batch.

    Safety (ours, not in the paper): a NaN posterior counts as a spike. An utterance with fewer
    than ``min_spike_ratio`` spikes per real frame runs at full depth: a head that finds almost
    no label in an utterance cannot be trusted to gate it.

    Args:
        blank_threshold: In (0, 1]; 1.0 turns the gate off.
        spike_extension: Frames kept (left of, right of) each spike; integers >= 0.
        min_spike_ratio: In [0, 1]; 0.0 turns the fallback off.
        min_skipped_frames: An utterance with fewer frames to drop goes on whole (ours): so few
            do not pay. So does one of which they would be more than 4 of 5; 0 = no rule.

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
    min_skipped_frames: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        SkipSettings(
            blank_threshold=self.blank_threshold,
            spike_extension=self.spike_extension,
            min_spike_ratio=self.min_spike_ratio,
            min_skipped_frames=self.min_skipped_frames,
        )

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
        spike = self.spikes(blank_prob, valid_mask)
        return self.extend(spike, spike, valid_mask)

    def look(self, ctc: Any, h: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, ...]:
        """Return what the gate needs to know about the active frames.

        Args:
            ctc: The CTC head.
            h: Normalised states (B, M, D) after the gate's layer.
            layer_idx: 1-based number of that layer.

        Returns:
            Tensors (B, M), p(blank) float32 first. A gate that needs more returns further ones.
        """
        return (head_blank_prob(ctc, h, layer_idx),)

    def decide(
        self,
        layer_idx: int,
        seen: tuple[torch.Tensor, ...],
        valid_mask: torch.Tensor,
        before: GateTrace | None,
    ) -> GateTrace:
        """Decide for every frame; one that an earlier gate dropped stays dropped.

        Args:
            layer_idx: Layer after which the gate sits.
            seen: What ``look`` returned, at full length (B, T).
            valid_mask: (B, T) bool, True = real frame.
            before: What the gate before this one decided; None = there was none.
        """
        blank_prob, arrived = seen[0], valid_mask
        if before is not None:
            arrived = before.keep_mask
            blank_prob = blank_prob.masked_fill(~arrived, torch.inf)  # what is gone is no spike
        keep = self(blank_prob, valid_mask) & arrived
        return GateTrace(layer_idx, self.worth(keep, arrived, valid_mask), seen[0])

    def worth(
        self, keep: torch.Tensor, arrived: torch.Tensor, valid_mask: torch.Tensor
    ) -> torch.Tensor:
        """Return the frames that go on: all that arrived where too few would be dropped.

        Args:
            keep: Frames that the gate wants to go on (B, T) bool.
            arrived: Frames that came to it (B, T) bool.
            valid_mask: (B, T) bool, True = real frame.
        """
        least = self.min_skipped_frames
        if least == 0:
            return keep
        few = (arrived & ~keep).sum(1) < least
        few |= is_short(valid_mask.sum(1), least)
        return keep | (arrived & few[:, None])

    def spikes(self, blank_prob: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Return the spikes, (B, T) bool."""
        return ~(blank_prob > self.blank_threshold) & valid_mask

    def extend(
        self, chosen: torch.Tensor, spike: torch.Tensor, valid_mask: torch.Tensor
    ) -> torch.Tensor:
        """Return the chosen frames and their neighbours; all frames where spikes are too few.

        Args:
            chosen: Frames to keep (B, T) bool: the spikes, or some of them.
            spike: All spikes (B, T) bool.
            valid_mask: (B, T) bool, True = real frame.
        """
        keep = chosen.clone()
        left, right = self.spike_extension
        length = spike.size(1)
        for shift in range(1, min(left, length - 1) + 1):
            keep[:, :-shift] |= chosen[:, shift:]
        for shift in range(1, min(right, length - 1) + 1):
            keep[:, shift:] |= chosen[:, :-shift]
        if self.min_spike_ratio > 0.0:
            unsure = spike.sum(1) < self.min_spike_ratio * valid_mask.sum(1)
            keep |= unsure[:, None]
        return keep & valid_mask
