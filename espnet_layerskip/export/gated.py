"""Frames that go on above a gate: the decision, the packing, and rows that keep their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_layerskip.export.graph import Array, Graph
from espnet_layerskip.export.parts import (
    activation,
    depthwise,
    folded,
    joined,
    layer_norm,
    linear,
    plain_norm,
    products,
)
from espnet_layerskip.export.rows import Attention, Positions, key_mask, to_heads, with_mask


def decide(g: Graph, blank_prob: str, real: str, arrived: str, threshold: str) -> str:
    """Return the frames that a gate lets go on, (B, T) bool; see `BlankGate`.

    Args:
        g: The graph; its inputs hold the gate's other settings.
        blank_prob: p(blank) (B, T).
        real: (B, T) bool, False = padding.
        arrived: (B, T) bool, the frames that came to the gate.
        threshold: A number.
    """

    def count(which: str) -> str:
        return g.op("ReduceSum", g.op("Cast", which, to=7), g.ints(1))

    above = g.op("Greater", blank_prob, threshold)
    spike = g.op("And", g.op("Not", above), arrived)
    number = g.op("Cast", spike, to=7)
    length = g.length(spike, 1)
    # spikes up to each frame; the window of a frame is from `right` before it to `left` after it
    sums = g.op("CumSum", g.op("Pad", number, g.ints(0, 1, 0, 0)), g.const(1, np.int64))
    left, right = g.split("spike_extension", [1, 1], axis=0)
    frames = g.range(length)
    first = g.op("Max", g.op("Sub", frames, right), g.ints(0))
    last = g.op("Min", g.op("Add", frames, g.op("Add", left, g.ints(1))), length)
    window = (g.op("Gather", sums, place, axis=1) for place in (last, first))
    near = g.op("Greater", g.op("Sub", *window), g.const(0, np.int64))
    spikes, frames = (g.op("Cast", count(which), to=1) for which in (spike, real))
    unsure = g.op("Less", spikes, g.op("Mul", frames, "min_spike_ratio"))
    keep = g.op("And", g.op("Or", near, unsure), arrived)
    dropped = count(g.op("And", arrived, g.op("Not", keep)))
    few = g.op("Less", dropped, "min_skipped_frames")
    return g.op("Or", keep, g.op("And", arrived, few))


@dataclass(frozen=True)
class Packed:
    """Where the kept frames of a batch are.

    Each utterance has as many slots as the one that keeps most, at least one. A slot too many
    holds the utterance's first kept frame once more; of an utterance that keeps none, its frame 0.

    Attributes:
        length: Slots M of each utterance, a vector of one integer.
        source: Rows (B * M,) of the full length that the slots come from.
        real: (B, M) bool, False = the slot is one too many.
        places: Frames (B, M) that the slots come from.
        kept: (B * M, 1) bool, False = the frame was not kept.
        own: (B * M,) slot whose row counts: of one too many the utterance's first.
    """

    length: str
    source: str
    real: str
    places: str
    kept: str
    own: str

    @classmethod
    def of(cls, g: Graph, keep: str) -> Packed:
        """Pack the frames of ``keep`` (B, T) bool."""
        number, length = g.op("Cast", keep, to=7), g.length(keep, 1)
        counts = g.op("ReduceSum", number, g.ints(1))  # (B, 1)
        most = g.op("Max", g.op("ReduceMax", counts, keepdims=0), g.const(1, np.int64))
        most = g.op("Unsqueeze", most, g.ints(0))
        begin = g.op("Mul", g.range(g.length(keep, 0)), length)
        begin = g.op("Unsqueeze", begin, g.ints(1))  # (B, 1), row of frame 0
        found = g.op("Transpose", g.op("NonZero", keep), perm=[1, 0])  # (N, 2)
        rank = g.op("CumSum", number, g.const(1, np.int64), exclusive=1)
        utterance = g.slice(found, g.ints(0), g.ints(1), axis=1)
        ranks = g.op("Unsqueeze", g.op("GatherND", rank, found), g.ints(1))
        slots = g.op("Concat", utterance, ranks, axis=1)
        stride = g.vector(length, 1)
        rows = g.op("ReduceSum", g.op("Mul", found, stride), g.ints(1), keepdims=0)
        first = g.op("Add", g.op("ArgMax", number, axis=1), begin)
        first = g.op("Expand", first, g.vector(g.length(keep, 0), most))
        source = g.op("ScatterND", first, slots, rows)
        flat, slots = g.reshape(source, -1), g.range(most)
        real = g.op("Less", slots, counts)
        kept = g.op("Unsqueeze", g.op("Gather", g.reshape(keep, -1), flat), g.ints(1))
        origin = g.op("Mul", g.op("Unsqueeze", g.range(g.length(keep, 0)), g.ints(1)), most)
        own = g.op("Add", g.op("Where", real, slots, g.const(0, np.int64)), origin)
        return cls(most, flat, real, g.op("Sub", source, begin), kept, g.reshape(own, -1))

    def gather(self, g: Graph, rows: str) -> str:
        """Return the rows (B * M, C) of the slots out of those of the full length."""
        return g.op("Gather", rows, self.source, axis=0)

    def scatter(self, g: Graph, base: str, rows: str) -> str:
        """Return rows of the full length (B * T, C): ``base``, and ``rows`` for the slots."""
        return g.op("ScatterND", base, g.op("Unsqueeze", self.source, g.ints(1)), rows)


class Gated:
    """Rows of kept frames (B * M, D) that keep their own places; see `Whole`.

    Args:
        g: The graph.
        packed: Where they come from.
        keep: (B, T) bool, those frames.
        real: (B, T) bool, False = padding.
        frozen: States (B * T, D) at the gate, where kept frames see skipped ones; else None.
        positions: Of the encoder, None where frames carry their own.
        layers: Those that follow, up to the next gate.
    """

    def __init__(
        self,
        g: Graph,
        packed: Packed,
        keep: str,
        real: str,
        frozen: str | None,
        positions: Positions | None,
        layers: Sequence[Any],
    ):
        self.g, self.packed, self.queries, self.frozen = g, packed, packed, frozen
        self.batch = g.length(real, 0)
        self.mask = key_mask(g, packed.real if frozen is None else real)
        self.full_length = g.length(real, 1)
        self._known: dict[tuple[int, str], str] = {}
        if frozen is not None:
            self.normed = plain_norm(g, layers[0].attention.norm, frozen)
            if reach := layers[0].reach:  # a convolution reads what the neighbours have computed
                near = g.op("Unsqueeze", g.op("Cast", keep, to=1), g.ints(1))
                size = 2 * reach + 1
                near = g.op("MaxPool", near, kernel_shape=[size], pads=[reach, reach])
                near = g.op("Cast", g.op("Squeeze", near, g.ints(1)), to=9)
                self.queries = Packed.of(g, g.op("And", near, real))
            self._freeze(layers, g.reshape(g.op("Cast", real, to=1), -1, 1))
        if positions is not None:
            self._place(positions)

    def _place(self, positions: Positions) -> None:
        """Make the sines and cosines of queries and keys."""
        g, table = self.g, positions.table
        sines, cosines = table[:, 0::2], table[:, 1::2]

        def of_queries(*parts: Array) -> str:
            known = g.const(np.stack(parts, 1))  # (K, 2, D / 2)
            found = g.op("Gather", known, self.queries.places, axis=0)  # (B, M, 2, D / 2)
            return g.op("Unsqueeze", found, g.ints(2))

        self.same, self.crossed = of_queries(sines, sines), of_queries(cosines, -cosines)
        keys = g.const(np.concatenate((cosines, sines), 1))  # (K, D)
        if self.frozen is None:
            keys = g.op("Gather", keys, self.packed.places, axis=0)
            self.keys = g.op("Unsqueeze", g.op("Transpose", keys, perm=[0, 2, 1]), g.ints(1))
        else:
            keys = g.slice(keys, g.ints(0), self.full_length, axis=0)
            self.keys = g.op("Transpose", keys, perm=[1, 0])

    def _freeze(self, layers: Sequence[Any], real: str) -> None:
        """Compute what the layers see of the frozen states, in products for all of them."""
        g, attentions = self.g, [layer.attention for layer in layers]
        weights = [part for one in attentions for part in (one.key, one.value)]
        rows = linear(g, self.normed, np.concatenate(weights, 1))
        parts = iter(g.split(rows, [weight.shape[1] for weight in weights], axis=1))
        for one in attentions:
            self._known[id(one), "key"], self._known[id(one), "value"] = next(parts), next(parts)
        units = [layer.unit for layer in layers if layer.unit is not None]
        if units:
            made = type(units[0]).together(g, units, self.normed, real)
            for unit, part in zip(units, made, strict=True):
                self._known[id(unit), "in"] = part

    def attend(self, attention: Attention, x: str) -> str:
        """Return the attention's output (R, D) of the queries, for rows (R, D)."""
        g, heads, size = self.g, attention.num_heads, attention.size
        h = plain_norm(g, attention.norm, x)
        queries, keys = [attention.query], [(attention.key, None), (attention.value, None)]
        if attention.relative:
            queries.append(attention.rotated())
        if self.queries is self.packed:
            q, *u, k, v = products(g, h, [*queries, *keys])
        else:
            q, *u = products(g, self.queries_of(h), queries)
            k, v = products(g, h, keys)
        if self.frozen is not None:
            k = self.packed.scatter(g, self._known[id(attention), "key"], k)
            v = self.packed.scatter(g, self._known[id(attention), "value"], v)
        q = to_heads(g, q, self.batch, attention, [0, 2, 1, 3])
        k = to_heads(g, k, self.batch, attention, [0, 2, 3, 1])
        v = to_heads(g, v, self.batch, attention, [0, 2, 1, 3])
        scores = g.op("MatMul", *with_mask(g, q, k, self.mask, heads))
        if attention.relative:
            scores = g.op("Add", scores, self._relative(u[0], attention))
        seen = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        seen = g.reshape(g.op("Transpose", seen, perm=[0, 2, 1, 3]), -1, heads * size)
        return linear(g, seen, attention.out, attention.out_bias)

    def _relative(self, u: str, attention: Attention) -> str:
        """Return the relative scores (B, H, M, N) of rows (B * M, H * D) by `rotated`."""
        g, heads = self.g, attention.num_heads
        half = attention.size * heads // 2
        u = g.reshape(u, self.batch, -1, heads, 2, half)
        crossed = g.op("Gather", u, g.ints(1, 0), axis=3)
        u = g.op("Add", g.op("Mul", u, self.same), g.op("Mul", crossed, self.crossed))
        u = g.op("Transpose", g.reshape(u, 0, 0, 0, 2 * half), perm=[0, 2, 1, 3])
        return g.op("MatMul", u, self.keys)

    def queries_of(self, h: str) -> str:
        """Return the rows of the queries out of rows (R, D) after `plain_norm`."""
        if self.queries is self.packed:
            return h
        return self.queries.gather(self.g, self.packed.scatter(self.g, self.normed, h))

    def convolve(self, unit: Any, weight: Array, bias: Array, h: str) -> str:
        """Return the queries' rows after a depthwise convolution over ``unit(h)``."""
        rows, known = unit(self.g, h), self._known.get((id(unit), "in"))
        return self._convolve(known, self.packed, rows, weight, bias, self.queries)

    def merge(self, weight: Array, bias: Array, rows: str) -> str:
        """Return rows (R, C) after a depthwise convolution over those of the queries."""
        return self._convolve(None, self.queries, rows, weight, bias, self.packed)

    def _convolve(
        self, base: str | None, source: Packed, rows: str, weight: Array, bias: Array, to: Packed
    ) -> str:
        g = self.g
        if base is None:
            number = g.op("Mul", self.batch, self.full_length)
            base = g.op("ConstantOfShape", g.vector(number, len(weight)))
        grid = g.reshape(source.scatter(g, base, rows), self.batch, -1, len(weight))
        return to.gather(g, g.reshape(depthwise(g, weight, bias, grid), -1, len(weight)))


class Glu:
    """The gated linear unit in front of a convolution, after `plain_norm`.

    Args:
        norm: The LayerNorm in front.
        weight: (2 * C, D).
        bias: (2 * C,).
    """

    def __init__(self, norm: Any, weight: Any, bias: Any):
        self.channels = len(weight) // 2
        both, offset = folded(norm, weight, bias)
        self.maps = [
            (both[:, half], offset[half])
            for half in (slice(self.channels), slice(self.channels, None))
        ]

    def __call__(self, g: Graph, h: str) -> str:
        """Return rows (R, C) of rows (R, D)."""
        content, gate = products(g, h, self.maps)
        return g.op("Mul", content, g.op("Sigmoid", gate))

    @staticmethod
    def together(g: Graph, units: Sequence[Glu], h: str, real: str) -> list[str]:
        """Return the rows of several units, zero where ``real`` (R, 1) is."""
        wide = [joined([unit.maps[i] for unit in units]) for i in (0, 1)]
        content, gate = (linear(g, h, *both) for both in wide)
        rows = g.op("Mul", g.op("Mul", content, g.op("Sigmoid", gate)), real)
        return g.split(rows, [unit.channels for unit in units], axis=1)


class SpatialGate:
    """What the gate of a convolutional gating MLP (cgMLP) convolves, after `plain_norm`.

    Args:
        norm: The LayerNorm in front of the cgMLP.
        module: ESPnet's ConvolutionalGatingMLP.
    """

    def __init__(self, norm: Any, module: Any):
        first, self.activation = module.channel_proj1
        self.norm, half = module.csgu.norm, len(first.weight) // 2
        self.content = folded(norm, first.weight[:half], first.bias[:half])
        self.map = folded(norm, first.weight[half:], first.bias[half:])

    def __call__(self, g: Graph, h: str) -> str:
        """Return rows (R, C) of rows (R, D)."""
        return self._after(g, linear(g, h, *self.map))

    def _after(self, g: Graph, rows: str) -> str:
        return layer_norm(g, self.norm, activation(g, self.activation, rows))

    @staticmethod
    def together(g: Graph, units: Sequence[SpatialGate], h: str, real: str) -> list[str]:
        """Return the rows of several units, zero where ``real`` (R, 1) is."""
        rows = products(g, h, [unit.map for unit in units])
        return [
            g.op("Mul", unit._after(g, row), real) for unit, row in zip(units, rows, strict=True)
        ]
