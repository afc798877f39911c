"""A gate that also drops repeats: of a run of frames with one label only the peak goes on.

Ours, not in the paper, and off by default. It pays where labels are held for several frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip.method.ctc import head_softmax
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.method.trace import GateTrace


@dataclass(frozen=True)
class RepeatGate(BlankGate):
    """A blank gate that does not count the repeats of a label as spikes.

    Neighbouring spikes with the same most probable label, each with a probability above
    ``repeat_threshold``, stand for one label. Of such a run only the peak counts as a spike:
    the first frame with the highest probability, rounded to a thousandth. The output of each
    other frame is a copy of that of its *speaker*: the next frame towards the peak that goes
    on.

    Args:
        repeat_threshold: In (0, 1).

    Raises:
        ValueError: If an argument is out of its range.
    """

    repeat_threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        SkipSettings(repeat_threshold=self.repeat_threshold)

    def look(self, ctc: Any, h: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, ...]:
        """Return p(blank), the most probable label and its probability, each (B, M)."""
        probs = head_softmax(ctc, h, layer_idx).float()
        best = probs[..., 1:].max(-1)
        return probs[..., 0], best.indices + 1, best.values

    def decide(
        self,
        layer_idx: int,
        seen: tuple[torch.Tensor, ...],
        valid_mask: torch.Tensor,
        before: GateTrace | None,
    ) -> GateTrace:
        """Decide for every frame; see `BlankGate`. The trace has the speakers."""
        blank, label, label_prob = seen
        arrived = valid_mask if before is None else before.keep_mask
        spike = self.spikes(blank, arrived)  # as in `BlankGate`
        sure = spike & (label_prob > self.repeat_threshold)
        peak = run_peaks(label, label_prob, sure)
        place = torch.arange(spike.size(1), device=spike.device).expand_as(peak)
        keep = self.extend(spike & (peak == place), spike, valid_mask)
        last = place.size(1) - 1
        earlier = torch.where(keep, place, 0).cummax(1).values
        later = torch.where(keep, place, last).flip(1).cummin(1).values.flip(1)
        towards = torch.where(place < peak, later, earlier)
        speaker = torch.where(keep | (place == peak), place, towards)
        keep = keep & arrived
        worth = self.worth(keep, arrived, valid_mask)
        if worth is not keep:
            speaker = torch.where((worth & ~keep).any(1, keepdim=True), place, speaker)
        if before is not None and before.speaker is not None:
            speaker = speaker.gather(1, before.speaker)
        return GateTrace(layer_idx, worth, blank, speaker)


def make_gate(
    settings: SkipSettings,
    spike_extension: tuple[int, int],
    min_skipped_frames: int,
    blank_threshold: float,
) -> BlankGate:
    """Return the gate that a whole record asks for, with these values in the place of its own."""
    ratio, repeats = settings.min_spike_ratio, settings.repeat_threshold
    assert ratio is not None
    args = blank_threshold, spike_extension, ratio
    if repeats in (None, 1.0):
        return BlankGate(*args, min_skipped_frames=min_skipped_frames)
    return RepeatGate(*args, repeats, min_skipped_frames=min_skipped_frames)


def run_peaks(label: torch.Tensor, prob: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Return for each frame the peak of its run, (B, T) int64.

    A run is neighbouring members with the same label. Its peak is the first frame that has
    its highest probability, rounded to a thousandth: confident frames tie, and the first
    wins, not the rounding error.
    A frame that is no member is its own peak.

    Args:
        label: (B, T) int64.
        prob: (B, T) float; not NaN where ``member``.
        member: (B, T) bool.

    Example:
        >>> label, prob = torch.tensor([[7, 7, 7, 2]]), torch.tensor([[0.6, 0.9, 0.8, 0.7]])
        >>> run_peaks(label, prob, torch.tensor([[True, True, True, True]])).tolist()
        [[1, 1, 1, 3]]
    """
    goes_on = member[:, 1:] & member[:, :-1] & (label[:, 1:] == label[:, :-1])
    run = F.pad((~goes_on).long().cumsum(1), (1, 0))
    place = torch.arange(label.size(1), device=label.device).expand_as(label)
    prob = (1000.0 * prob).round()
    highest = torch.zeros_like(prob).scatter_reduce(1, run, prob, "amax", include_self=False)
    at_peak = torch.where(prob == highest.gather(1, run), place, label.size(1))
    first = torch.full_like(place, label.size(1)).scatter_reduce(1, run, at_peak, "amin")
    return torch.where(member, first.gather(1, run), place)
