"""The blank gate: from blank posteriors to the frames that go on (Hou et al., 2401.02046)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class GateView:
    """What a gate sees of the frames; float32 and int64, all (B, T).

    Attributes:
        blank_prob: p(blank).
        label: The most probable label; None where no gate asks for it.
        label_prob: Its probability, likewise.
    """

    blank_prob: torch.Tensor
    label: torch.Tensor | None = None
    label_prob: torch.Tensor | None = None


@dataclass(frozen=True)
class BlankGate:
    """Decide per frame whether it runs the upper layers.

    A frame is a *spike* unless ``p(blank) > blank_threshold``. Spikes and their neighbours
    (spike extension) go on, the other frames skip. The decision looks at one utterance
    at a time, so it does not depend on what else is in the batch.

    Repeats (ours, off by default): neighbouring spikes with the same most probable label,
    each with a probability above ``repeat_threshold``, say one thing. Of such a run only
    its peak, the first of its most probable frames (to a thousandth), counts as a spike.

    Safety (ours, not in the paper): a NaN posterior counts as a spike, and an utterance
    with fewer than ``min_spike_ratio`` spikes per real frame runs at full depth, because
    a head that finds next to nothing in an utterance cannot be trusted with it.

    Args:
        blank_threshold: In (0, 1]; 1.0 turns the gate off.
        spike_extension: Frames kept (left of, right of) each spike; integers >= 0.
        min_spike_ratio: In [0, 1]; 0.0 turns the fallback off.
        repeat_threshold: In (0, 1]; 1.0 keeps all repeats, as a gate that is off does.

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
    repeat_threshold: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blank_threshold", check_threshold(self.blank_threshold))
        object.__setattr__(self, "spike_extension", check_extension(self.spike_extension))
        check_threshold(self.repeat_threshold, "repeat_threshold")
        if not 0.0 <= self.min_spike_ratio <= 1.0:
            raise ValueError(f"min_spike_ratio must be in [0, 1], but got {self.min_spike_ratio}")

    @property
    def is_off(self) -> bool:
        """True if no frame can ever be skipped."""
        return self.blank_threshold >= 1.0

    @property
    def drops_repeats(self) -> bool:
        """True if the gate needs the labels of the frames."""
        return self.repeat_threshold < 1.0

    def __call__(self, blank_prob: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Return the frames that go on, by their blank probability alone.

        Args:
            blank_prob: p(blank) of each frame (B, T), float.
            valid_mask: (B, T) bool, True = real frame.

        Returns:
            keep_mask (B, T) bool, True = the frame goes on; False on padding.
        """
        return self._extend(self._spikes(blank_prob, valid_mask), valid_mask)

    def decide(
        self, view: GateView, valid_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the frames that go on, and who speaks for the repeats among the others.

        Args:
            view: What the gate sees, with labels if it drops repeats.
            valid_mask: (B, T) bool, True = real frame.

        Returns:
            keep_mask (B, T) bool, and speaker (B, T) int64: of a dropped repeat the next frame
            towards the peak of its run that goes on, of any other frame itself; None if the
            gate keeps repeats.
        """
        if not self.drops_repeats:
            return self(view.blank_prob, valid_mask), None
        assert view.label is not None
        assert view.label_prob is not None
        spike = self._spikes(view.blank_prob, valid_mask)
        sure = spike & (view.label_prob > self.repeat_threshold)
        peak = run_peaks(view.label, view.label_prob, sure)
        place = torch.arange(spike.size(1), device=spike.device).expand_as(peak)
        keep = self._extend(spike, valid_mask, spike & (peak == place))
        last = place.size(1) - 1
        before = torch.where(keep, place, 0).cummax(1).values
        after = torch.where(keep, place, last).flip(1).cummin(1).values.flip(1)
        towards = torch.where(place < peak, after, before)
        return keep, torch.where(keep | (place == peak), place, towards)

    def _spikes(self, blank_prob: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        return ~(blank_prob > self.blank_threshold) & valid_mask

    def _extend(
        self, spike: torch.Tensor, valid_mask: torch.Tensor, chosen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the ``chosen`` spikes (None = all) with their neighbours, or all frames."""
        chosen = spike if chosen is None else chosen
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


def run_peaks(label: torch.Tensor, prob: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Return for each frame the peak of its run, (B, T) int64.

    A run are neighbouring members with the same label; its peak is the first frame that has
    its highest probability, to a thousandth: sure frames tie, and rounding does not choose.
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


def check_threshold(value: float, name: str = "blank_threshold") -> float:
    """Return ``value`` as a float if it is a valid threshold, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
        raise ValueError(f"{name} must be a number in (0, 1] (1.0 = off), but got {value!r}")
    return float(value)


def check_extension(value: Sequence[int]) -> tuple[int, int]:
    """Return ``value`` as (left, right) if it is a valid spike extension, else raise ValueError."""
    ok = isinstance(value, (list, tuple)) and len(value) == 2
    if not ok or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in value):
        raise ValueError(
            f"spike_extension must be two integers >= 0, [left, right] in frames, but got {value!r}"
        )
    return int(value[0]), int(value[1])
