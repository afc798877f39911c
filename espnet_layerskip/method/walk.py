"""The walk of a batch over the layers of an encoder: run a layer, let a gate decide, go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from espnet_layerskip.method.ctc import head_softmax
from espnet_layerskip.method.frames import Frames, LayerState
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.trace import GateTrace


class Walker(Protocol):
    """What the walk needs from an encoder; names as in ESPnet's encoders."""

    interctc_layer_idx: list[int]
    interctc_use_conditioning: bool
    conditioning_layer: Any

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after a layer."""

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Return states (B, M, D) as the CTC head takes them."""


def advance(
    encoder: Walker,
    state: LayerState,
    gates: Mapping[int, BlankGate],
    ctc: Any,
    stop: int | None = None,
    note: Callable[[LayerState], None] | None = None,
) -> None:
    """Advance a state in place: the gate after its layer decides, then the next layers run.

    Args:
        encoder: The encoder whose layers run.
        state: Where the batch stands.
        gates: Gates by layer.
        ctc: The CTC head; its blank probability drives the gates.
        stop: Last layer to run (its gate does not decide); None = all.
        note: Is called after each layer.
    """
    frames = state.frames
    for layer in state.layers[state.layer_idx : stop]:
        layer_idx = state.layer_idx
        conditions = encoder.interctc_use_conditioning and layer_idx in encoder.interctc_layer_idx
        probs = None
        if layer_idx in gates:
            gate, head, row_of = gates[layer_idx], ctc, None
            if conditions and ctc is not None and not torch.is_grad_enabled():
                probs = head_softmax(ctc, encoder.normalised(frames.x), layer_idx)
                head, row_of = Said(probs), frames.row_of()
            before = frames.index
            state.drop(decide(gate, state, look(encoder, gate, state, head)))
            if probs is not None and frames.index is not before:
                assert row_of is not None
                assert frames.index is not None
                rows = row_of.index_select(0, frames.index.source)
                shape = (*frames.x.shape[:2], probs.size(-1))
                probs = probs.flatten(0, 1).index_select(0, rows).view(shape)
        if conditions:
            if probs is None:
                probs = head_softmax(ctc, encoder.normalised(frames.x), layer_idx)
            frames.x = frames.x + encoder.conditioning_layer(probs)
        frames.x = layer(frames) if frames.flat else encoder.run_layer(layer, frames)
        state.layer_idx += 1
        if note is not None:
            note(state)


class Said:
    """A head that has been asked already: both the gate and self-conditioning want to know.

    Args:
        probs: Token probabilities of the active frames (B, M, V).
    """

    def __init__(self, probs: torch.Tensor):
        self.probs = probs

    def softmax(self, h: torch.Tensor) -> torch.Tensor:
        """Return what it said of the active frames, as ESPnet's head does of their states."""
        return self.probs


def look(encoder: Walker, gate: BlankGate, state: LayerState, ctc: Any) -> tuple[torch.Tensor, ...]:
    """Return what a gate after the state's layer sees of all frames, each (B, T).

    A frame that was dropped before keeps the p(blank) which that gate saw.

    Raises:
        ValueError: If ``ctc`` is None.
    """
    if ctc is None:
        raise ValueError(
            "skipping needs the CTC head: call the encoder with ctc=model.ctc (ESPnet's "
            "model.encode does), or set blank_threshold to 1.0"
        )
    with torch.no_grad():
        seen = gate.look(ctc, encoder.normalised(state.frames.x), state.layer_idx)
        # before the first gate only padding is inactive; False is 0.0 there
        nothing = state.valid_mask
        blank = state.gates[-1].blank_prob if state.gates else nothing
        bases = (blank, *(nothing for _ in seen[1:]))
        return tuple(state.frames.widen(s, b) for s, b in zip(seen, bases, strict=True))


def decide(gate: BlankGate, state: LayerState, seen: tuple[torch.Tensor, ...]) -> GateTrace:
    """Return what a gate after the state's layer decides from what it has seen."""
    before = state.gates[-1] if state.gates else None
    return gate.decide(state.layer_idx, seen, state.valid_mask, before)
