"""The frames of a batch on their way through the layers, and the trace of what was skipped."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from espnet_layerskip.method.packing import PackedIndex, gather_frames, pack_index, scatter_frames


@dataclass(frozen=True)
class GateTrace:
    """What one gate saw and decided.

    Attributes:
        layer_idx: 1-based layer after which the gate sits.
        keep_mask: (B, T) bool, True = the frame went on.
        blank_prob: (B, T) float32, p(blank); a frame dropped by an earlier gate keeps the
            value which that gate saw.
        speaker: (B, T) int64, the frame whose state each frame gets in the end: of a repeat
            that was dropped, here or before, one of its run that went on, of any other frame
            itself; None = the gate keeps repeats.
    """

    layer_idx: int
    keep_mask: torch.Tensor
    blank_prob: torch.Tensor
    speaker: torch.Tensor | None = None


@dataclass(frozen=True)
class SkipTrace:
    """Which frames of a batch skipped layers, in encoder frames.

    Attributes:
        valid_mask: (B, T) bool, True = real frame.
        gates: One GateTrace a gate, from the lowest layer up; at least one.
    """

    valid_mask: torch.Tensor
    gates: list[GateTrace]

    @property
    def keep_mask(self) -> torch.Tensor:
        """(B, T) bool, True = the frame went through every layer."""
        return self.gates[-1].keep_mask

    @property
    def spoken_mask(self) -> torch.Tensor:
        """(B, T) bool, True = the frame's output is that of a frame which ran every layer."""
        speaker = self.gates[-1].speaker
        return self.keep_mask if speaker is None else self.keep_mask.gather(1, speaker)

    def blank_prob(self) -> torch.Tensor:
        """Return p(blank) (B, T) that the last gate to see each frame gave it, float32.

        That of a dropped repeat is that of its speaker.
        """
        gate = self.gates[-1]
        return gate.blank_prob if gate.speaker is None else gate.blank_prob.gather(1, gate.speaker)

    def depth(self, num_layers: int) -> torch.Tensor:
        """Return how many layers each frame ran, (B, T) int64; 0 on padding."""
        depth = torch.full_like(self.keep_mask, num_layers, dtype=torch.long)
        for gate in reversed(self.gates):
            depth = depth.masked_fill(~gate.keep_mask, gate.layer_idx)
        return depth.masked_fill(~self.valid_mask, 0)

    def num_frames(self) -> int:
        """Return the number of real frames."""
        return int(self.valid_mask.sum())

    def num_skipped(self) -> int:
        """Return the number of real frames that skipped at least one layer."""
        return int((self.valid_mask & ~self.keep_mask).sum())

    def skip_ratio(self) -> float:
        """Return the share of real frames that skipped at least one layer."""
        return self.num_skipped() / max(1, self.num_frames())

    def utterance(self, row: int) -> SkipTrace:
        """Return the trace of one utterance, cut to its own length: (1, T_row)."""
        cut = (slice(row, row + 1), slice(0, int(self.valid_mask[row].sum())))
        gates = [
            GateTrace(
                g.layer_idx,
                g.keep_mask[cut],
                g.blank_prob[cut],
                None if g.speaker is None else g.speaker[cut],
            )
            for g in self.gates
        ]
        return SkipTrace(self.valid_mask[cut], gates)


@dataclass
class Frames:
    """The frames that a layer works on.

    Attributes:
        x: Active frames (B, M, D); M = T until a gate has dropped frames.
        pos_emb: ESPnet's positional embedding of the full length, or None.
        valid_mask: (B, T) bool, or None where nothing is padded.
        index: Where the active frames sit in the full length; None = all are active.
        frozen: (B, T, D) states at the last gate, which skipped frames keep; None before.
        speaker: As in GateTrace, of the last gate.
        context: What a kept frame sees of the others: packed, packed_original or full.
        flat: The active frames are one row (1, N, D), utterance after utterance and
            without padding, as the layers of the fast path take them.
        layout: What the fast path knows of the rows; for its layers to set and to read.
    """

    x: torch.Tensor
    pos_emb: torch.Tensor | None
    valid_mask: torch.Tensor | None
    index: PackedIndex | None = None
    frozen: torch.Tensor | None = None
    speaker: torch.Tensor | None = None
    context: str = "packed"
    flat: bool = False
    layout: Any = field(default=None, repr=False)
    _mask: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.shape = self.x.shape
        if self.flat and self.valid_mask is not None:
            self.keep(self.valid_mask)
        elif self.flat:
            self.x = self.x.reshape(1, -1, self.x.size(2))

    def mask(self) -> torch.Tensor | None:
        """Return (B, M) bool of the active frames, True = may be attended; None = all."""
        if self.index is None:
            return self.valid_mask
        return self._mask

    def full(self) -> torch.Tensor:
        """Return the states at full length (B, T, D).

        Skipped frames as they were frozen, but for repeats: they have the state of their speaker.
        """
        states = self._unpacked()
        if self.speaker is None:
            return states
        return states.gather(1, self.speaker[..., None].expand_as(states))

    def _unpacked(self) -> torch.Tensor:
        if self.index is None:
            return self.x.view(self.shape)
        assert self.frozen is not None
        return scatter_frames(self.frozen, self.x, self.index)

    def widen(self, values: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """Return ``base`` (B, T) with the active frames' ``values`` (B, M) in their places."""
        if self.index is None:
            return values.view(base.shape)
        return scatter_frames(base[..., None], values[..., None], self.index).squeeze(-1)

    def keep(self, keep_mask: torch.Tensor, speaker: torch.Tensor | None = None) -> None:
        """Freeze the present states and go on with the frames of ``keep_mask`` (B, T)."""
        self.frozen = self._unpacked()
        self.speaker = speaker
        self.index = pack_index(keep_mask, self.flat)
        self.layout = None
        self.x = gather_frames(self.frozen, self.index)
        self._mask = self.index.attention_mask() if self.index.is_padded else None


@dataclass
class LayerState:
    """Where a batch stands on its way: after a layer, before the gate there has decided.

    Attributes:
        frames: The frames that go on.
        valid_mask: (B, T) bool, True = real frame.
        layer_idx: Layers run so far: the 1-based number of the last one.
        traces: What the gates on the way decided.
    """

    frames: Frames
    valid_mask: torch.Tensor
    layer_idx: int = 0
    traces: list[GateTrace] = field(default_factory=list)

    @property
    def keep_mask(self) -> torch.Tensor:
        """(B, T) bool, True = the frame is still on its way."""
        return self.traces[-1].keep_mask if self.traces else self.valid_mask

    def drop(self, trace: GateTrace) -> None:
        """Let a gate's decision take effect."""
        if not bool((trace.keep_mask == self.keep_mask).all()):
            self.frames.keep(trace.keep_mask, trace.speaker)
        self.traces.append(trace)

    def fork(self) -> LayerState:
        """Return a copy that can go another way; no tensor is copied or changed."""
        return LayerState(
            copy.copy(self.frames), self.valid_mask, self.layer_idx, list(self.traces)
        )
