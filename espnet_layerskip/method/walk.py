"""The walk over the layers of an encoder with blank gates: shared by all encoders.

An encoder mixes :class:`LayerSkipMixin` in and implements ``run_layer``; the mixin decides
which frames each layer sees, moves them, and records what was skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from espnet_layerskip.method.frames import Frames, GateTrace, LayerState, SkipTrace
from espnet_layerskip.method.gate import BlankGate, GateView, check_extension, check_threshold

SKIP_CONTEXTS = ("packed", "packed_original", "full")


class LayerSkipMixin:
    """Options, gates and the walk over the layers.

    The host encoder has ``encoders`` (layers), ``after_norm``/``normalize_before``,
    ``interctc_layer_idx``, ``interctc_use_conditioning`` and ``conditioning_layer`` as
    ESPnet's encoders do, and implements ``run_layer(layer, frames) -> x``.
    """

    # of the host encoder
    encoders: Any
    after_norm: Any
    conditioning_layer: Any
    interctc_layer_idx: list[int]
    interctc_use_conditioning: bool
    normalize_before: bool
    training: bool
    # of the mixin
    gate_layer_idx: list[int]
    last_skip: SkipTrace | None

    def init_skipping(
        self,
        num_blocks: int,
        gate_layer_idx: Sequence[int],
        blank_threshold: float,
        spike_extension: Sequence[int],
        skip_context: str,
        min_spike_ratio: float,
        train_skip_prob: float,
        train_spike_extensions: Sequence[Sequence[int]],
        repeat_threshold: float = 1.0,
    ) -> None:
        """Check and store the options; see the encoder's docstring for their meaning."""
        if any(isinstance(i, bool) or not isinstance(i, int) for i in gate_layer_idx) or any(
            not 0 < i < num_blocks for i in gate_layer_idx
        ):
            raise ValueError(
                f"gate_layer_idx must hold layers between 1 and {num_blocks - 1} (1-based; a gate "
                f"after the last layer {num_blocks} saves nothing), but got {list(gate_layer_idx)}"
            )
        if not 0.0 <= train_skip_prob <= 1.0:
            raise ValueError(f"train_skip_prob must be in [0, 1], but got {train_skip_prob}")
        self.gate_layer_idx = sorted(set(gate_layer_idx))
        self.min_spike_ratio = min_spike_ratio
        self.repeat_threshold = repeat_threshold
        self.train_skip_prob = train_skip_prob
        self.train_spike_extensions = [check_extension(e) for e in train_spike_extensions]
        self._collect = False
        self._skip: bool | None = None
        self._exit_layer: int | None = None
        self._states: list[LayerState] | None = None
        self.last_skip = None
        self.gates_in_use = self.gate_layer_idx
        self.blank_threshold = blank_threshold
        self.spike_extension = spike_extension  # type: ignore[assignment]
        self.skip_context = skip_context
        self.gate()  # checks the options

    @property
    def blank_threshold(self) -> float:
        """A frame is skipped where p(blank) > this; in (0, 1], 1.0 = off."""
        return self._blank_threshold

    @blank_threshold.setter
    def blank_threshold(self, value: float) -> None:
        self._blank_threshold = check_threshold(value)

    @property
    def spike_extension(self) -> tuple[int, int]:
        """Frames (left, right) of each spike that run too."""
        return self._spike_extension

    @spike_extension.setter
    def spike_extension(self, value: Sequence[int]) -> None:
        self._spike_extension = check_extension(value)

    @property
    def skip_context(self) -> str:
        """What a kept frame sees of the others in the upper layers."""
        return self._skip_context

    @skip_context.setter
    def skip_context(self, value: str) -> None:
        if value not in SKIP_CONTEXTS:
            raise ValueError(f"skip_context must be one of {SKIP_CONTEXTS}, but got {value!r}")
        self.check_context(value)
        self._skip_context = value

    @property
    def exit_layer(self) -> int | None:
        """Static early exit: every frame stops after this gate layer; None = no exit."""
        return self._exit_layer

    @exit_layer.setter
    def exit_layer(self, value: int | None) -> None:
        if value is not None and value not in self.gate_layer_idx:
            raise ValueError(
                f"exit_layer must be None or one of the gate layers {self.gate_layer_idx}, "
                f"which have a trained head, but got {value!r}"
            )
        self._exit_layer = value

    @property
    def gates_in_use(self) -> list[int]:
        """Gate layers that decide; all of ``gate_layer_idx`` unless set to fewer."""
        return self._gates_in_use

    @gates_in_use.setter
    def gates_in_use(self, value: Sequence[int]) -> None:
        if not set(value) <= set(self.gate_layer_idx) or (self.gate_layer_idx and not value):
            raise ValueError(
                f"gates_in_use must be some of the gate layers {self.gate_layer_idx}, at least "
                f"one (blank_threshold 1.0 turns all off), but got {list(value)}"
            )
        self._gates_in_use = sorted(set(value))

    def check_context(self, context: str) -> None:
        """Raise ValueError if this encoder cannot run ``context``; for encoders to override."""

    @contextmanager
    def mode(self, skip: bool | None = None, intermediates: bool = False) -> Iterator[None]:
        """Inside the block: force skipping on or off, return the intermediate outputs.

        Args:
            skip: True/False = on/off whatever the mode; None = on in evaluation and with
                probability ``train_skip_prob`` a batch in training.
            intermediates: Return ``(out, [(layer_idx, h), ...])`` in evaluation too.
        """
        previous = self._skip, self._collect
        self._skip, self._collect = skip, intermediates
        try:
            yield
        finally:
            self._skip, self._collect = previous

    @contextmanager
    def stopped_at(self, layer_idx: int) -> Iterator[list[LayerState]]:
        """Inside the block a forward stops after a gate layer, before the gate decides.

        The states are collected in the list that the block gets; ``run_from`` goes on from
        them, as often as wanted.
        """
        previous = self._exit_layer, self._states
        self.exit_layer = layer_idx
        states: list[LayerState] = []
        self._states = states
        try:
            yield states
        finally:
            self._exit_layer, self._states = previous

    def gate(
        self,
        threshold: float | None = None,
        extension: tuple[int, int] | None = None,
        repeats: float | None = None,
    ) -> BlankGate:
        """Return a gate with the encoder's options, or with others in their place."""
        return BlankGate(
            self.blank_threshold if threshold is None else threshold,
            self.spike_extension if extension is None else extension,
            self.min_spike_ratio,
            self.repeat_threshold if repeats is None else repeats,
        )

    def active_gates(self) -> dict[int, BlankGate]:
        """Return the gates of this forward by layer; draws at random in training."""
        skip = self._skip
        if skip is None:
            skip = not self.training or bool(
                of_first_process(torch.rand(())) < self.train_skip_prob
            )
        extension = self.spike_extension
        if self.training and self.train_spike_extensions:
            draw = int(of_first_process(torch.randint(len(self.train_spike_extensions), ())))
            extension = self.train_spike_extensions[draw]
        gate = self.gate(extension=extension)
        if not skip or gate.is_off or self._exit_layer is not None:
            return {}
        return dict.fromkeys(self.gates_in_use, gate)

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one layer."""
        raise NotImplementedError(f"{type(self).__name__} must implement run_layer")

    def fast_layers(self) -> Sequence[Any] | None:
        """Return layers that run in place of ``encoders`` on flat frames, or None."""
        return None

    def run_layers(
        self,
        x: torch.Tensor,
        pos_emb: torch.Tensor | None,
        valid_mask: torch.Tensor,
        ctc: Any,
        return_all_hs: bool = False,
    ) -> tuple[torch.Tensor, list[Any]]:
        """Run all layers, dropping frames at the gates.

        Args:
            x: Subsampled features (B, T, D).
            pos_emb: ESPnet's positional embedding, or None.
            valid_mask: (B, T) bool, True = real frame.
            ctc: The CTC head; its blank probability drives the gates.
            return_all_hs: Return the states of every layer (full length), ungated.

        Returns:
            (B, T, D) states before ``after_norm``, and the intermediate outputs: a list of
            (layer_idx, normalised states (B, T, D)), or of states with ``return_all_hs``.
        """
        frames = Frames(
            x,
            pos_emb,
            None if bool(valid_mask.all()) else valid_mask,
            context=self.skip_context,
            flat=self.fast_layers() is not None,
        )
        state = LayerState(frames, valid_mask)
        gates = {} if return_all_hs else self.active_gates()
        self.last_skip = None
        outs = self.run_from(state, gates, ctc, self._exit_layer, return_all_hs)
        if self._states is not None:
            self._states.append(state)
        self._leave_trace(state)
        return frames.full(), outs

    def run_from(
        self,
        state: LayerState,
        gates: Mapping[int, BlankGate],
        ctc: Any,
        stop: int | None = None,
        return_all_hs: bool = False,
    ) -> list[Any]:
        """Go on from a state, in place: decide at its layer's gate, then run the next layers.

        Args:
            state: Where the batch stands.
            gates: Gates by layer.
            ctc: The CTC head.
            stop: Last layer to run (its gate does not decide); None = all.
            return_all_hs: As in ``run_layers``.

        Returns:
            The intermediate outputs of the layers run, as ``run_layers`` returns them.
        """
        wanted, layers = self._wanted_layers(), self.fast_layers() or self.encoders
        frames = state.frames
        outs: list[Any] = []
        while state.layer_idx < (stop or len(layers)):
            layer_idx = state.layer_idx
            if layer_idx in gates:
                gate = gates[layer_idx]
                state.drop(self.decide(gate, state, self.view(gate, state, ctc)))
            if self.interctc_use_conditioning and layer_idx in self.interctc_layer_idx:
                frames.x = frames.x + self._condition(frames.x, layer_idx, ctc)
            frames.x = self.run_layer(layers[layer_idx], frames)
            state.layer_idx = layer_idx = layer_idx + 1
            if return_all_hs:
                outs.append(frames.full())
            elif layer_idx in wanted:
                outs.append((layer_idx, self._normalised(frames.full())))
        return outs

    def output(self, state: LayerState) -> torch.Tensor:
        """Return what a forward returns that ends in this state, (B, T, D); sets ``last_skip``."""
        self._leave_trace(state)
        return self._normalised(state.frames.full())

    def view(self, gate: BlankGate, state: LayerState, ctc: Any) -> GateView:
        """Return what a gate after the state's layer sees of the frames.

        A frame that was dropped before keeps the p(blank) which that gate saw.

        Raises:
            ValueError: If ``ctc`` is None.
        """
        if ctc is None:
            raise ValueError(
                "skipping needs the CTC head: call the encoder with ctc=model.ctc (ESPnet's "
                "model.encode does), or set blank_threshold to 1.0"
            )
        frames, label, label_prob = state.frames, None, None
        with torch.no_grad():
            h = self._normalised(frames.x)
            if gate.drops_repeats:
                probs = head_softmax(ctc, h, state.layer_idx).float()
                blank, best = probs[..., 0], probs[..., 1:].max(-1)
                label = frames.widen(best.indices + 1, state.valid_mask)
                label_prob = frames.widen(best.values, state.valid_mask)
            else:
                blank = head_blank_prob(ctc, h, state.layer_idx)
            # without a gate before, only padding is not among the active frames: False is 0.0
            seen = state.traces[-1].blank_prob if state.traces else state.valid_mask
            return GateView(frames.widen(blank, seen), label, label_prob)

    def decide(self, gate: BlankGate, state: LayerState, view: GateView) -> GateTrace:
        """Return what a gate decides; a frame that was dropped before stays so."""
        blank, before = view.blank_prob, None
        if state.traces and gate.drops_repeats:  # a repeat that is gone is no spike
            before = state.traces[-1].speaker
            view = replace(view, blank_prob=blank.masked_fill(~state.keep_mask, 1.0))
        keep, speaker = gate.decide(view, state.valid_mask)
        if before is not None:
            assert speaker is not None
            speaker = speaker.gather(1, before)
        return GateTrace(state.layer_idx, keep & state.keep_mask, blank, speaker)

    def _leave_trace(self, state: LayerState) -> None:
        self.last_skip = SkipTrace(state.valid_mask, state.traces) if state.traces else None

    def _wanted_layers(self) -> set[int]:
        if not (self.training or self._collect):
            return set()
        return {*self.interctc_layer_idx, *self.gate_layer_idx}

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        if not self.normalize_before:
            return x
        normed: torch.Tensor = self.after_norm(x.to(self.after_norm.weight.dtype))
        return normed

    def _condition(self, x: torch.Tensor, layer_idx: int, ctc: Any) -> torch.Tensor:
        """Return the self-conditioning term (B, M, D) of an intermediate CTC layer."""
        term: torch.Tensor = self.conditioning_layer(
            head_softmax(ctc, self._normalised(x), layer_idx)
        )
        return term


def of_first_process(drawn: torch.Tensor) -> torch.Tensor:
    """Return what the first process of a distributed training drew, else what was drawn here.

    All must gate the same batches: a gated batch has other losses and statistics, which ESPnet
    averages over the processes by name.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return drawn
    shared = drawn.cuda() if torch.distributed.get_backend() == "nccl" else drawn.clone()
    torch.distributed.broadcast(shared, src=0)
    return shared.cpu()


def head_blank_prob(ctc: Any, h: torch.Tensor, layer_idx: int) -> torch.Tensor:
    """Return p(blank) (B, T) float32 by our head or by ESPnet's own."""
    if hasattr(ctc, "blank_prob"):
        prob: torch.Tensor = ctc.blank_prob(h, layer_idx)
        return prob
    return ctc.softmax(h)[..., 0].float()  # type: ignore[no-any-return]


def head_softmax(ctc: Any, h: torch.Tensor, layer_idx: int) -> torch.Tensor:
    """Return the token probabilities (B, T, V) by our head or by ESPnet's own."""
    if hasattr(ctc, "layer"):
        with ctc.layer(layer_idx):
            return ctc.softmax(h)  # type: ignore[no-any-return]
    return ctc.softmax(h)  # type: ignore[no-any-return]
