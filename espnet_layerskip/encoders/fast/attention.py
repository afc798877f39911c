"""Self-attention of flat frames; with relative positions (Transformer-XL, 3.3) or without.

Exact up to rounding are: one projection for query, key and value with the scale and the
positional biases folded in; projected positional tables kept from call to call; relative scores
of one block of queries at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import MultiHeadedAttention, RelPositionMultiHeadedAttention
from espnet_layerskip.encoders.fast.layout import AttentionBlock, Layout
from espnet_layerskip.encoders.fast.parts import folded, plain_norm
from espnet_layerskip.encoders.fast.precision import float_dtype, linear
from espnet_layerskip.method.frames import Frames

SMALL = 2**15  # up to so many scores of a head three products are faster than PyTorch's one


def unsupported_attention(module: Any) -> str | None:
    """Return why an attention module of ESPnet has no fast form; None if it has one."""
    name = type(module).__name__
    if type(module) not in (RelPositionMultiHeadedAttention, MultiHeadedAttention):
        return f"the attention is {name}" + (
            " (rel_pos_type: legacy)" if name.startswith("Legacy") else ""
        )
    if getattr(module, "zero_triu", False):
        return "zero_triu: true"
    if not isinstance(module.q_norm, torch.nn.Identity):
        return "qk_norm: true"
    return None


def projections(module: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return weights (D, D) and biases (D,) of query, key and value.

    The query has the scale of the scores in it, and the bias u of relative positions.
    """
    linears = [module.linear_q, module.linear_k, module.linear_v]
    weights, biases = [m.weight.detach() for m in linears], [m.bias.detach() for m in linears]
    scale = module.d_k**-0.5
    weights[0], biases[0] = scale * weights[0], scale * biases[0]
    if isinstance(module, RelPositionMultiHeadedAttention):
        biases[0] = biases[0] + scale * module.pos_bias_u.detach().flatten()
    return weights, biases


class Scores:
    """From queries, keys and values to what the output projection takes.

    Args:
        module: ESPnet's attention module; the queries come from its `projections`.
        precision: One of PRECISIONS.
    """

    def __init__(self, module: Any, precision: str):
        self.dtype = float_dtype(precision)
        self.num_heads = module.h
        self.linear_pos, self.shift = None, None
        if isinstance(module, RelPositionMultiHeadedAttention):
            # q + u comes out of the projection; q + v is `shift` away from it
            self.linear_pos = module.linear_pos.weight.detach()
            shift = module.d_k**-0.5 * (module.pos_bias_v - module.pos_bias_u).detach()
            self.shift = shift[:, None].to(self.dtype)
        self._table: torch.Tensor | None = None

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pos_emb: torch.Tensor | None,
        layout: Layout,
    ) -> torch.Tensor:
        """Return (N, D).

        Args:
            q: (H, N, d).
            k: (H, M, d); M = N unless the layout says that keys are over frozen frames.
            v: (H, M, d).
            pos_emb: ESPnet's positional embedding (1, 2T-1, D), or None.
            layout: Which rows attend to which.
        """
        q_pos, table = q, None
        if self.shift is not None:
            q_pos, table = q + self.shift, self._positions(pos_emb)
        outs = []
        for block in layout.blocks:
            bias = None if table is None else relative_scores(q_pos, table, block)
            keys, values = _part(k, block.keys), _part(v, block.keys)
            out = attend(_part(q, block.queries), keys, values, bias)
            outs.append(out.transpose(0, 1))
        joined = outs[0] if len(outs) == 1 else torch.cat(outs)
        return joined.reshape(q.size(1), -1)

    def heads(self, y: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """Split (N, parts * D) into ``parts`` tensors (H, N, d)."""
        return y.view(y.size(0), parts, self.num_heads, -1).permute(1, 2, 0, 3).unbind(0)

    def _positions(self, pos_emb: torch.Tensor | None) -> torch.Tensor:
        """Return the projected positional table (H, d, 2T-1), of the longest T so far."""
        assert pos_emb is not None
        assert self.linear_pos is not None
        found = self._table  # read once: another thread may put a shorter one there
        if found is None or found.size(2) < pos_emb.size(1):
            table = self.linear_pos @ pos_emb[0].to(self.linear_pos.dtype).t()
            found = table.view(self.num_heads, -1, table.size(1)).to(self.dtype)
            self._table = found
        return found


class Attention:
    """Self-attention of ``norm(x)``."""

    def __init__(self, norm: Any, module: Any, precision: str):
        self.norm, self.scores = plain_norm(norm), Scores(module, precision)
        maps = [folded(norm, *one) for one in zip(*projections(module), strict=True)]
        weights, biases = zip(*maps, strict=True)
        self.size = weights[0].size(0)
        self.qkv = linear(torch.cat(weights), torch.cat(biases), precision)
        self.key_value = linear(torch.cat(weights[1:]), torch.cat(biases[1:]), precision)
        self.out = linear(module.linear_out.weight, module.linear_out.bias, precision)

    def __call__(self, x: torch.Tensor, frames: Frames, layout: Layout) -> torch.Tensor:
        """Return (N, D) of rows (N, D)."""
        y, heads = self.qkv(self.norm(x)), self.scores.heads
        if layout.over_frozen:
            skipped = self.key_value(layout.skipped(self.norm, frames, y.dtype))
            [q] = heads(y[:, : self.size], 1)
            k, v = heads(layout.keys(skipped, y[:, self.size :]), 2)
        else:
            q, k, v = heads(y, 3)
        return self.out(self.scores(q, k, v, frames.pos_emb, layout))


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return (H, N, d), the attention of queries (H, N, d) to keys and values (H, M, d).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        bias: (H, N, M), added to the scores; None = nothing.
    """
    if q.size(1) * k.size(1) > SMALL or q.is_cuda or q.dtype != torch.float32:
        mask = None if bias is None else bias[None]
        return F.scaled_dot_product_attention(q[None], k[None], v[None], mask, scale=1.0)[0]
    scores = torch.bmm(q, k.transpose(1, 2))
    if bias is not None:
        scores.add_(bias)
    return torch.bmm(scores.softmax(-1), v)


def relative_scores(q: torch.Tensor, table: torch.Tensor, block: AttentionBlock) -> torch.Tensor:
    """Return the relative scores (H, queries, keys) of one block.

    Args:
        q: Queries with their positional bias (H, N, d).
        table: Projected positional table (H, d, 2T-1).
        block: Rows and columns.
    """
    centre = table.size(2) // 2
    scores = torch.bmm(
        _part(q, block.queries), table[..., centre + block.low : centre + block.high]
    )
    heads, rows, width = scores.shape
    if block.columns is not None:
        return scores.gather(2, block.columns.expand(heads, -1, -1))
    if block.begins is not None:  # one window of the flat scores for each row, copied as a whole
        keys = block.keys.stop - block.keys.start
        windows = scores.as_strided((scores.numel() - keys + 1, keys), (1, 1))
        return windows.index_select(0, block.flat_begins(heads)).view(heads, rows, keys)
    # row r begins one column before row r - 1: a stride, no copy
    shape = (heads, rows, width - rows + 1)
    stride = (rows * width, width - 1, 1)
    return scores.as_strided(shape, stride, scores.storage_offset() + rows - 1)


def _part(rows: torch.Tensor, part: slice) -> torch.Tensor:
    """Return some rows of (H, N, d); no operation where these are all."""
    return rows if part.stop - part.start == rows.size(1) else rows[:, part]
