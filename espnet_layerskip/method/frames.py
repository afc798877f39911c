"""The frames of a batch on their way through the layers, and the result of a pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip.method.ctc import head_argmax, head_log_softmax
from espnet_layerskip.method.packing import PackedIndex, gather_frames, pack_index, scatter_frames
from espnet_layerskip.method.trace import GateTrace, SkipTrace


@dataclass
class Frames:
    """The frames that a layer works on.

    Attributes:
        x: Active frames (B, M, D); M = T until a gate has dropped frames.
        pos_emb: ESPnet's positional embedding of the full length, or None.
        valid_mask: (B, T) bool, or None where nothing is padded.
        index: Where the active frames sit in the full length; None = all are active.
        frozen: (B, T, D) states at the last gate, which skipped frames keep; None before one.
        context: What a kept frame sees of the others: packed, packed_original or full.
        flat: The active frames are one row (1, N, D), utterance after utterance and without
            padding, as the layers of the fast form take them.
        layout: The fast form's own notes about the rows, set and read by its layers.
    """

    x: torch.Tensor
    pos_emb: torch.Tensor | None
    valid_mask: torch.Tensor | None
    index: PackedIndex | None = None
    frozen: torch.Tensor | None = None
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
        return self.valid_mask if self.index is None else self._mask

    def full(self) -> torch.Tensor:
        """Return the states at full length (B, T, D); skipped frames as they were frozen."""
        if self.index is None:
            return self.x.view(self.shape)
        assert self.frozen is not None
        return scatter_frames(self.frozen, self.x, self.index)

    def widen(self, values: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """Return ``base`` (B, T) with the active frames' ``values`` (B, M) in their places."""
        if self.index is None:
            return values.view(base.shape)
        return scatter_frames(base[..., None], values[..., None], self.index).squeeze(-1)

    def row_of(self) -> torch.Tensor:
        """Return which active row each frame is, (B * T,) int64; 0 for frames that are none."""
        rows = torch.arange(self.x.size(0) * self.x.size(1), device=self.x.device)
        rows = rows.view(self.x.shape[:2])
        base = torch.zeros(self.shape[:2], dtype=torch.long, device=self.x.device)
        return self.widen(rows, base).flatten()

    def keep(self, keep_mask: torch.Tensor) -> None:
        """Freeze the current states and continue with the frames of ``keep_mask`` (B, T)."""
        self.frozen = self.full()
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
        layers: All layers of the encoder, in the form that the frames have (see `Frames.flat`).
        layer_idx: Layers run so far: the 1-based number of the last one.
        gates: What the gates on the way decided.
    """

    frames: Frames
    valid_mask: torch.Tensor
    layers: Sequence[Any]
    layer_idx: int = 0
    gates: list[GateTrace] = field(default_factory=list)

    def drop(self, trace: GateTrace) -> None:
        """Let a gate's decision take effect."""
        before = self.gates[-1].keep_mask if self.gates else self.valid_mask
        if not bool((trace.keep_mask == before).all()):
            self.frames.keep(trace.keep_mask)
        self.gates.append(trace)

    def full(self) -> torch.Tensor:
        """Return the states at full length (B, T, D); a repeat has its speaker's."""
        states = self.frames.full()
        speaker = self.gates[-1].speaker if self.gates else None
        if speaker is None:
            return states
        return states.gather(1, speaker[..., None].expand_as(states))

    def fork(self) -> LayerState:
        """Return a copy that can continue differently; tensors are shared, never changed."""
        frames, gates = copy.copy(self.frames), list(self.gates)
        return LayerState(frames, self.valid_mask, self.layers, self.layer_idx, gates)

    def trace(self) -> SkipTrace | None:
        """Return what was skipped so far; None where no gate decided."""
        return SkipTrace(self.valid_mask, tuple(self.gates)) if self.gates else None


@dataclass(frozen=True)
class Encoded:
    """The result of an encoder pass, at full length: a skipped frame has its state at the gate.

    Attributes:
        out: Normalised states (B, T', D).
        lens: Their lengths (B,) int64.
        intermediates: (layer_idx, normalised states (B, T', D)) of intermediate layers.
        trace: What the gates decided; None where none did.
        exit_layer: Layer after which every frame stopped; None = the last one.
    """

    out: torch.Tensor
    lens: torch.Tensor
    intermediates: tuple[tuple[int, torch.Tensor], ...] = ()
    trace: SkipTrace | None = None
    exit_layer: int | None = None

    @property
    def keep_mask(self) -> torch.Tensor | None:
        """(B, T') bool, False = the frame skipped at a gate; None where no gate decided."""
        return None if self.trace is None else self.trace.keep_mask

    def depth(self, num_layers: int) -> torch.Tensor:
        """Return how many of the layers each frame ran, (B, T') int64; 0 on padding."""
        if self.trace is not None:
            return self.trace.depth(num_layers)
        run = num_layers if self.exit_layer is None else self.exit_layer
        place = torch.arange(self.out.size(1), device=self.out.device)
        return run * (place < self.lens.to(place.device)[:, None]).long()

    def for_espnet(self) -> Any:
        """Return the first value of an ESPnet encoder: ``out`` or ``(out, intermediates)``."""
        return (self.out, list(self.intermediates)) if self.intermediates else self.out

    def log_softmax(self, ctc: Any) -> torch.Tensor:
        """Return log-probabilities (B, T', V) by a CTC head, ours or ESPnet's.

        With our head, frames that skipped keep the gate's blank decision. After an early exit
        the head of that layer is used.
        """
        return head_log_softmax(ctc, self.out, self.exit_layer, self.trace)

    def argmax(self, ctc: Any) -> torch.Tensor:
        """Return the most probable tokens (B, T') int64; see `log_softmax`."""
        return head_argmax(ctc, self.out, self.exit_layer, self.trace)


def join(parts: Sequence[Encoded]) -> Encoded:
    """Return utterances that were encoded one at a time, (1, T_i, D), as one padded batch."""

    def rows(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return pad_sequence([t[0] for t in tensors], batch_first=True)

    def gate(gates: Sequence[GateTrace]) -> GateTrace:
        speaker = None
        if gates[0].speaker is not None:
            speaker = rows([g.speaker for g in gates if g.speaker is not None])
        masks, probs = [g.keep_mask for g in gates], [g.blank_prob for g in gates]
        return GateTrace(gates[0].layer_idx, rows(masks), rows(probs), speaker)

    trace = None
    if found := next((part.trace for part in parts if part.trace is not None), None):
        traces = [part.trace or _undecided(part, found) for part in parts]
        by_gate = zip(*(t.gates for t in traces), strict=True)
        trace = SkipTrace(rows([t.valid_mask for t in traces]), tuple(gate(g) for g in by_gate))
    states = zip(*(part.intermediates for part in parts), strict=True)
    return Encoded(
        rows([part.out for part in parts]),
        torch.cat([part.lens for part in parts]),
        tuple((same[0][0], rows([h for _, h in same])) for same in states),
        trace,
        parts[0].exit_layer,
    )


def _undecided(part: Encoded, other: SkipTrace) -> SkipTrace:
    """Return the trace of an utterance (1, T, D) whose gates did not look: all frames went on."""
    valid = torch.ones(part.out.shape[:2], dtype=torch.bool, device=part.out.device)
    place = torch.arange(valid.size(1), device=valid.device)[None]
    return SkipTrace(
        valid,
        tuple(
            GateTrace(g.layer_idx, valid, valid.float() * 0.0, None if g.speaker is None else place)
            for g in other.gates
        ),
    )
