"""A whole model as a graph: samples to log-probabilities, with gates, without, or stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.export.frontend import features, normalised, unsupported_frontend, valid
from espnet_layerskip.export.gated import Gated, Packed, decide
from espnet_layerskip.export.graph import Graph
from espnet_layerskip.export.layers import LAYERS
from espnet_layerskip.export.parts import (
    apply,
    array,
    layer_norm,
    subsampled,
    unsupported_activation,
    unsupported_stem,
)
from espnet_layerskip.export.rows import Positions, Whole
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import SkipSettings


def encoder_name(encoder: Any) -> str:
    """Return the name of an encoder of ours in a configuration; "" for others."""
    return next((name for name, kind in ENCODERS.items() if type(encoder) is kind), "")


def check_exportable(model: Any, settings: SkipSettings) -> None:
    """Raise ValueError if a model cannot be exported; names each part and the reason.

    Args:
        model: ESPnet ASR model with an encoder of ours.
        settings: How it is to skip, a whole record.
    """
    encoder = model.encoder
    name = encoder_name(encoder)
    reasons = unsupported_frontend(model)
    if name not in LAYERS:
        known = ", ".join(sorted(kind.removeprefix("layerskip_") for kind in LAYERS))
        reasons.append(f"the encoder is {type(encoder).__name__}; {known} can be exported")
    else:
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(encoder.encoders, 1):
            reason = encoder.FAST.unsupported(layer) or unsupported_activation(layer)
            if reason is not None:
                found.setdefault(reason, []).append(i)
        reasons += [f"layers {', '.join(map(str, i))}: {why}" for why, i in found.items()]
        if reason := unsupported_stem(encoder.embed):
            reasons.append(reason)
    if getattr(encoder, "interctc_use_conditioning", False):
        reasons.append("the encoder conditions itself on its CTC output")
    if settings.repeat_threshold not in (None, 1.0):
        reasons.append("its gates drop repeats (repeat_threshold)")
    if reasons:
        raise ValueError("this model cannot be exported: " + "; ".join(reasons))


class Exporter:
    """Makes the graphs of one model.

    Args:
        model: ESPnet ASR model in evaluation mode, for which `check_exportable` finds nothing.
        settings: How it skips, a whole record.
        longest: Encoder frames of the longest input.
    """

    def __init__(self, model: Any, settings: SkipSettings, longest: int):
        self.model, self.settings, self.longest = model, settings, longest
        encoder = model.encoder
        make = LAYERS[encoder_name(encoder)]
        with torch.no_grad():
            self.layers = [make(layer) for layer in encoder.encoders]
        self.gates = settings.thresholds(getattr(encoder, "gate_layer_idx", ()))

    @torch.no_grad()
    def graph(
        self, gates: Sequence[int] = (), stop: int | None = None, from_features: bool = False
    ) -> Graph:
        """Return a graph.

        Args:
            gates: Layers after which a gate decides.
            stop: Last layer to run; None = all.
            from_features: Take features (B, T, F) of the frontend instead of samples.
        """
        g, encoder = Graph(), self.model.encoder
        if from_features:
            size = self.model.frontend.output_size()
            feats = g.add_input("features", np.float32, ["batch", "feature_frames", size])
            lens = _lengths(g, "feature_lengths", feats)
            feats = g.op("Transpose", feats, perm=[0, 2, 1])
        else:
            speech = g.add_input("speech", np.float32, ["batch", "samples"])
            lens = _lengths(g, "speech_lengths", speech)
            feats, lens = features(g, self.model, speech, lens)
        if gates:
            g.add_input("blank_threshold", np.float32, [len(gates)], [self.gates[k] for k in gates])
            g.add_input("spike_extension", np.int64, [2], self.settings.spike_extension)
            g.add_input("min_spike_ratio", np.float32, [], self.settings.min_spike_ratio)
            g.add_input("min_skipped_frames", np.int64, [], self.settings.min_skipped_frames or 0)
        feats = normalised(g, self.model.normalize, feats, lens)
        x, lens = subsampled(g, encoder.embed, feats, lens)
        length = g.length(x, 1)
        lens = g.op("Min", g.op("Max", lens, g.ints(0)), length)
        positions, x = self._positions(g, x, length)
        x, real = g.reshape(x, -1, x_size(encoder)), valid(g, length, lens)
        rows: Whole | Gated = Whole(g, length, real, positions)
        state = State(g, real)
        for i, layer in enumerate(self.layers[:stop]):
            if i in gates:
                threshold = g.op("Gather", "blank_threshold", g.const(gates.index(i), np.int64))
                x = state.gate(self, i, x, threshold)
                following = self.layers[i : next((k for k in gates if k > i), None)]
                rows = self._rows(g, state, positions, following)
            x = layer(g, x, rows)
        log_probs = state.log_probs(self, x, stop)
        shape: list[Any] = ["batch", "frames"]
        log_probs = g.reshape(log_probs, g.length(real, 0), -1, self.vocab_size)
        g.add_output("log_probs", log_probs, np.float32, [*shape, self.vocab_size])
        g.add_output("lengths", lens, np.int64, ["batch"])
        if gates:
            g.add_output("depth", state.depth(len(self.layers)), np.int64, shape)
        return g

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return len(self.model.token_list)

    def _positions(self, g: Graph, x: str, length: str) -> tuple[Positions | None, str]:
        """Return relative positions, or None and x (B, T, D) with absolute ones added."""
        module = _positional(self.model.encoder.embed)
        if self.layers[0].attention.relative:
            return Positions(g, module, self.longest), x
        module.extend_pe(torch.zeros(1, self.longest))
        table = g.const(array(module.pe[0, : self.longest]))
        return None, g.op("Add", x, g.slice(table, g.ints(0), length, axis=0))

    def _rows(
        self, g: Graph, state: State, positions: Positions | None, following: Sequence[Any]
    ) -> Whole | Gated:
        """Return what the rows of the layers after a gate see."""
        packed, context = state.packed, self.settings.skip_context
        assert packed is not None
        if context == "packed":
            return Whole(g, packed.length, packed.real, positions)
        frozen = state.frozen if context == "full" else None
        keep = state.keeps[-1][1]
        return Gated(g, packed, keep, state.real, frozen, positions, following)

    def normalised(self, g: Graph, x: str, last: bool) -> str:
        """Return rows of the last layer, or of one before it, as the CTC head takes them."""
        encoder = self.model.encoder
        if not encoder.normalize_before or not (last or self.layers[0].normed):
            return x
        return layer_norm(g, encoder.after_norm, x)

    def head(self, layer_idx: int | None) -> tuple[Any, bool]:
        """Return the projection of a layer, and whether it is of a factorized head."""
        ctc = self.model.ctc
        if isinstance(ctc, LayerSkipCTC):
            return ctc.projection(layer_idx), ctc.head_type == "factorized"
        return ctc.ctc_lo, False


class State:
    """What the gates have decided on the way.

    Args:
        g: The graph.
        real: (B, T) bool, False = padding.
    """

    def __init__(self, g: Graph, real: str):
        self.g, self.real = g, real
        self.frozen: str | None = None
        self.packed: Packed | None = None
        self.blank_prob: str | None = None  # (B * T, 1)
        self.keeps: list[tuple[int, str]] = []

    def gate(self, exporter: Exporter, layer_idx: int, x: str, threshold: str) -> str:
        """Let the gate after a layer decide; return the rows that go on."""
        g, before = self.g, self.packed
        rows = exporter.normalised(g, x, last=False)
        projection, factorized = exporter.head(layer_idx)
        if factorized:
            weight, bias = array(projection.weight[:1].t()), array(projection.bias[:1])
            prob = g.op("Sigmoid", g.op("Gemm", rows, g.const(weight), g.const(bias)))
        else:
            probs = g.op("Softmax", apply(g, projection, rows), axis=-1)
            prob = g.slice(probs, g.ints(0), g.ints(1), axis=1)
        if before is not None:
            assert self.blank_prob is not None
            assert self.frozen is not None
            prob = self._widen(self.blank_prob, prob)
            x = self._widen(self.frozen, x)
        self.blank_prob, self.frozen = prob, x
        grid = g.op("Reshape", prob, g.op("Shape", self.real))
        arrived = self.keeps[-1][1] if self.keeps else self.real
        keep = decide(g, grid, self.real, arrived, threshold)
        self.keeps.append((layer_idx, keep))
        self.packed = Packed.of(g, keep)
        return self.packed.gather(g, x)

    def _widen(self, base: str, rows: str) -> str:
        """Return rows of the full length: those of the kept frames, else ``base``."""
        g = self.g
        assert self.packed is not None
        rows = g.op("Gather", rows, self.packed.own, axis=0)
        rows = g.op("Where", self.packed.kept, rows, self.packed.gather(g, base))
        return self.packed.scatter(g, base, rows)

    def log_probs(self, exporter: Exporter, x: str, layer_idx: int | None) -> str:
        """Return log-probabilities (B * T, V) of the last rows."""
        g = self.g
        projection, factorized = exporter.head(layer_idx)

        def score(rows: str, last: bool) -> str:
            logits = apply(g, projection, exporter.normalised(g, rows, last))
            if not factorized:
                return g.op("LogSoftmax", logits, axis=-1)
            blank, labels = g.split(logits, [1, exporter.vocab_size - 1], axis=1)
            label = g.op("Neg", g.op("Softplus", blank))
            labels = g.op("Add", label, g.op("LogSoftmax", labels, axis=-1))
            return g.op("Concat", g.op("Neg", g.op("Softplus", g.op("Neg", blank))), labels, axis=1)

        if self.packed is None:
            return score(x, layer_idx is None)
        if isinstance(exporter.model.ctc, LayerSkipCTC):
            base = self._decision(exporter.vocab_size)
        else:
            assert self.frozen is not None
            base = score(self.frozen, False)
        return self._widen(base, score(x, True))

    def _decision(self, vocab_size: int) -> str:
        """Return log-probabilities (B * T, V) as the gates have decided; see `LayerSkipCTC`."""
        g = self.g
        assert self.blank_prob is not None
        blank = g.op("Min", self.blank_prob, g.const(1.0 - 1e-6))
        rest = g.op("Div", g.op("Sub", g.const(1.0), blank), g.const(vocab_size - 1.0))
        rest = g.op("Expand", g.op("Log", rest), g.ints(1, vocab_size - 1))
        return g.op("Concat", g.op("Log", blank), rest, axis=1)

    def depth(self, num_layers: int) -> str:
        """Return how many layers each frame ran, (B, T) int64; 0 on padding."""
        g = self.g
        depth = g.const(num_layers, np.int64)
        for layer_idx, keep in reversed(self.keeps):
            depth = g.op("Where", keep, depth, g.const(layer_idx, np.int64))
        return g.op("Where", self.real, depth, g.const(0, np.int64))


def _lengths(g: Graph, name: str, x: str) -> str:
    """Return an input with the lengths of x (B, N, ...); where none is given, all have N."""
    given = g.add_input(name, np.int64, ["lengths"], [np.iinfo(np.int32).max])
    return g.op("Expand", g.op("Min", given, g.length(x, 1)), g.length(x, 0))


def x_size(encoder: Any) -> int:
    """Return the encoder's dimension D."""
    return int(encoder.output_size())


def _positional(embed: Any) -> Any:
    from espnet_layerskip.encoders.stem import own_copy, projection_of

    return own_copy(projection_of(embed)[1])
