"""Which rows a layer works on, and what they see: attention and convolution in every context.

`Whole` rows stand one beside the other: all frames of the batch, or above a gate the kept ones in
context "packed". `Gated` rows are the kept frames at their own places: among each other
("packed_original") or with the frozen states of the skipped frames between them ("full").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet_layerskip._compat import RelPositionMultiHeadedAttention
from espnet_layerskip.export.graph import Array, Graph
from espnet_layerskip.export.parts import (
    array,
    depthwise,
    folded,
    linear,
    plain_norm,
    products,
)

BLOCK = 64  # query rows of a block, so that its scores stay in the cache
MASKED = -1.0e9


class Positions:
    """The sinusoids of ESPnet's relative positions up to a longest length.

    Args:
        g: The graph.
        module: ESPnet's positional encoding.
        longest: Encoder frames.
    """

    def __init__(self, g: Graph, module: Any, longest: int):
        self.longest = longest + 2 * BLOCK  # blocks are filled up
        module.extend_pe(torch.zeros(1, self.longest))
        pe = module.pe[0]
        centre = pe.size(0) // 2
        self.size = pe.size(1)
        # of the distances 0, 1, ...: those below are mirrored, with the other sign in the sines
        self.table = array(pe[centre - self.longest + 1 : centre + 1].flip(0))  # (K, D)
        half = g.const(self.table.T)
        sign = g.const(np.tile([[-1.0], [1.0]], (self.size // 2, 1)))
        below = g.slice(g.op("Mul", half, sign), g.ints(1), g.ints(self.longest), axis=1)
        above = g.slice(half, g.ints(-1), g.ints(-self.longest - 1), axis=1, step=-1)
        # constant as a whole: onnxruntime computes it, and its projections, when it loads
        self.both = g.op("Concat", above, below, axis=1)  # (D, 2K - 1)


class Attention:
    """The weights of an attention module after its norm.

    Key and value need no bias: that of the keys adds the same to all scores of a query, that of
    the values goes through to the output.

    Args:
        norm: The LayerNorm in front.
        module: ESPnet's RelPositionMultiHeadedAttention or MultiHeadedAttention.
    """

    def __init__(self, norm: Any, module: Any):
        self.norm, self.module = norm, module
        self.num_heads, self.size = module.h, module.d_k
        scale = module.d_k**-0.5
        bias = module.linear_q.bias
        self.relative = isinstance(module, RelPositionMultiHeadedAttention)
        if self.relative:
            bias = bias + module.pos_bias_u.flatten()
            self.shift = array(scale * (module.pos_bias_v - module.pos_bias_u))  # (H, d)
        self.query = folded(norm, scale * module.linear_q.weight, scale * bias)
        self.key = folded(norm, module.linear_k.weight, None)[0]
        self.value, offset = folded(norm, module.linear_v.weight, module.linear_v.bias)
        out = module.linear_out
        self.out = array(out.weight.t())
        self.out_bias = array(out.bias + out.weight @ torch.from_numpy(offset))

    def rotated(self) -> tuple[Array, Array]:
        """Return the map (D, H * D) and bias from a row to its sine and cosine parts.

        The relative score of a query at i and a key at j is a sum over sines and cosines of
        ``(i - j) w``. Taken apart, it is a product of a vector that depends on the query and i
        with the sines and cosines of ``j w``. Each head has the sine parts first.
        """
        heads = self.module.linear_pos.weight.detach().view(self.num_heads, self.size, -1)
        heads = torch.cat((heads[..., 0::2], heads[..., 1::2]), -1).double()  # (H, d, D)
        weight, bias = (torch.from_numpy(part).double() for part in self.query)
        shifted = bias.view(self.num_heads, self.size) + torch.from_numpy(self.shift)
        weight = torch.einsum("ihd,hdk->ihk", weight.view(-1, self.num_heads, self.size), heads)
        return array(weight.flatten(1)), array(torch.einsum("hd,hdk->hk", shifted, heads).flatten())


class Whole:
    """All rows of a batch (B * M, D), each beside its neighbours.

    Args:
        g: The graph.
        length: M, a vector of one integer.
        real: (B, M) bool, False = padding.
        positions: Of the encoder, None where frames carry their own.
    """

    def __init__(self, g: Graph, length: str, real: str, positions: Positions | None):
        self.g, self.length, self.positions = g, length, positions
        self.batch = g.length(real, 0)
        self.mask = key_mask(g, real)
        self.grid_mask = g.op("Unsqueeze", g.op("Cast", real, to=1), g.ints(2))
        # of about BLOCK rows, as equal as can be
        one, half = g.ints(1), g.ints(BLOCK // 2)
        count = g.op("Max", g.op("Div", g.op("Add", length, half), g.ints(BLOCK)), one)
        self.step = self._up(length, count)
        blocks = self._up(length, self.step)
        self.count = g.op("Squeeze", blocks)
        more = g.op("Sub", g.op("Mul", blocks, self.step), length)
        self.more_rows = g.vector(0, 0, 0, 0, 0, 0, more, 0)
        self.more_rows_and_one = g.vector(0, 0, 0, 0, 0, 0, more, 1)
        # row r of a block begins step - 1 - r columns after the first; with one column more than
        # these need, no length is ever 0
        self.before, self.width = g.op("Sub", self.step, one), g.op("Add", length, self.step)
        shorter = g.op("Sub", self.width, one)
        self.stop = g.op("Add", self.before, g.op("Mul", self.step, shorter))
        self.sheared = g.vector(0, 0, self.step, shorter)

    def _up(self, number: str, by: str) -> str:
        g = self.g
        return g.op("Div", g.op("Sub", g.op("Add", number, by), g.ints(1)), by)

    def attend(self, attention: Attention, x: str) -> str:
        """Return the attention's output (R, D) of rows (R, D)."""
        g, heads, size = self.g, attention.num_heads, attention.size
        h = plain_norm(g, attention.norm, x)
        q, k, v = products(g, h, [attention.query, (attention.key, None), (attention.value, None)])
        q = to_heads(g, q, self.batch, attention, [0, 2, 1, 3])
        k = to_heads(g, k, self.batch, attention, [0, 2, 3, 1])
        v = to_heads(g, v, self.batch, attention, [0, 2, 1, 3])
        shifted = table = None
        if attention.relative:
            assert self.positions is not None
            shifted = g.op("Add", q, g.const(attention.shift[:, None]))
            shifted = g.op("Pad", shifted, self.more_rows)
            weight = array(attention.module.linear_pos.weight)
            table = g.op("MatMul", g.const(weight), self.positions.both)
            table = g.reshape(table, 1, heads, size, -1)
        q, k = with_mask(g, q, k, self.mask, heads, self.more_rows_and_one)
        with g.loop(self.count, rank=4) as block:
            start = g.op("Mul", block.turn, self.step)
            stop = g.op("Add", start, self.step)
            scores = g.op("MatMul", g.slice(q, start, stop, axis=2), k)
            if shifted is not None and table is not None:
                part = g.slice(shifted, start, stop, axis=2)
                scores = g.op("Add", scores, self._relative(part, table, stop))
            block.value = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)  # (B, H, step, d)
        out = g.op("Transpose", block.stacked, perm=[1, 0, 3, 2, 4])
        out = g.reshape(out, self.batch, -1, heads * size)
        out = g.reshape(g.slice(out, g.ints(0), self.length, axis=1), -1, heads * size)
        return linear(g, out, attention.out, attention.out_bias)

    def _relative(self, q: str, table: str, stop: str) -> str:
        """Return the relative scores (B, H, step, M) of a block of queries that ends at stop."""
        g = self.g
        assert self.positions is not None
        first = g.op("Sub", g.ints(self.positions.longest), stop)
        columns = g.slice(table, first, g.op("Add", first, self.width), axis=3)
        scores = g.reshape(g.op("MatMul", q, columns), 0, 0, -1)
        scores = g.op("Reshape", g.slice(scores, self.before, self.stop, axis=2), self.sheared)
        return g.slice(scores, g.ints(0), self.length, axis=3)

    def queries_of(self, h: str) -> str:
        """Return h: every row is a query."""
        return h

    def convolve(self, unit: Any, weight: Array, bias: Array, h: str) -> str:
        """Return rows after a depthwise convolution over ``unit(h)``; see `depthwise`."""
        return self.merge(weight, bias, unit(self.g, h))

    def merge(self, weight: Array, bias: Array, rows: str) -> str:
        """Return rows (R, C) after a depthwise convolution."""
        g = self.g
        grid = g.reshape(rows, self.batch, -1, len(weight))
        grid = depthwise(g, weight, bias, g.op("Mul", grid, self.grid_mask))
        return g.reshape(grid, -1, len(weight))


def key_mask(g: Graph, real: str) -> str:
    """Return what is added to scores for keys of which (B, N) bool are real, (B, 1, 1, N)."""
    mask = g.op("Where", real, g.const(0.0), g.const(MASKED))
    return g.op("Unsqueeze", mask, g.ints(1, 2))


def with_mask(
    g: Graph, q: str, k: str, mask: str, num_heads: int, padding: str | None = None
) -> tuple[str, str]:
    """Return queries and keys whose products have the mask added.

    Both get one dimension more, with ones in the queries: cheaper than an addition to all scores.

    Args:
        g: The graph.
        q: (B, H, M, d).
        k: (B, H, d, N).
        mask: (B, 1, 1, N).
        num_heads: H.
        padding: Of q, as of the operator Pad; None = by that dimension.
    """
    ones = padding or g.ints(0, 0, 0, 0, 0, 0, 0, 1)
    k = g.op("Concat", k, g.op("Expand", mask, g.ints(1, num_heads, 1, 1)), axis=2)
    return g.op("Pad", q, ones, g.const(1.0)), k


def to_heads(g: Graph, rows: str, batch: str, attention: Attention, perm: list[int]) -> str:
    """Return rows (B * M, D) as (B, M, H, d) transposed."""
    split = g.reshape(rows, batch, -1, attention.num_heads, attention.size)
    return g.op("Transpose", split, perm=perm)
