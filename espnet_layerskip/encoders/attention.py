"""Self-attention of frames that were taken out of their sequence."""

import math
from typing import Any

import torch

from espnet_layerskip._compat import RelPositionMultiHeadedAttention
from espnet_layerskip.encoders.fast.layout import AttentionBlock
from espnet_layerskip.method.packing import PackedIndex


def slice_pos_emb(attention: Any, pos_emb: torch.Tensor, length: int) -> torch.Tensor:
    """Return the positional embedding of a sequence of ``length`` frames.

    Args:
        attention: ESPnet's attention module, which tells the layout of ``pos_emb``.
        pos_emb: (1, 2T-1, D) around its centre ("latest") or (1, T, D) ("legacy").
        length: At most T.
    """
    if isinstance(attention, RelPositionMultiHeadedAttention):
        centre = pos_emb.size(1) // 2
        return pos_emb[:, centre - length + 1 : centre + length]
    return pos_emb[:, :length]  # the legacy encoding cuts its table from the start as well


def positional_attention(
    attention: Any,
    query: torch.Tensor,
    keys: torch.Tensor,
    pos_emb: torch.Tensor,
    index: PackedIndex,
    mask: torch.Tensor | None,
    full_keys: bool,
) -> torch.Tensor:
    """Relative-position attention (Transformer-XL, section 3.3) at original positions.

    ESPnet's module takes position i of a query from its row; here the rows are the kept
    frames, so the relative terms are looked up by the frames' own positions.

    Args:
        attention: ESPnet's RelPositionMultiHeadedAttention.
        query: Kept frames (B, M, D).
        keys: (B, N, D): the kept frames again (N = M) or all frames (N = T).
        pos_emb: (1, 2T-1, D); column T-1-(i-j) belongs to query i and key j.
        index: Where the kept frames come from.
        mask: (B, 1, N) bool, True = may be attended; None = all.
        full_keys: True if ``keys`` are all frames.

    Returns:
        (B, M, D).
    """
    q, k, v = attention.forward_qkv(query, keys, keys)  # (B, H, M|N, d)
    p = attention.linear_pos(pos_emb).view(1, -1, attention.h, attention.d_k).transpose(1, 2)
    content = torch.matmul(q + attention.pos_bias_u[:, None], k.transpose(-2, -1))
    relative = torch.matmul(q + attention.pos_bias_v[:, None], p.transpose(-2, -1))
    q_pos = index.positions
    k_pos = torch.arange(k.size(2), device=q.device)[None] if full_keys else q_pos
    offset = q_pos[:, :, None] - k_pos[:, None, :]  # (B, M, N)
    column = (pos_emb.size(1) // 2 - offset)[:, None].expand(-1, q.size(1), -1, -1)
    relative = relative.gather(-1, column)
    if attention.zero_triu:
        relative = relative.masked_fill(offset[:, None] < 0, 0.0)
    scores = (content + relative) / math.sqrt(attention.d_k)
    return attention.forward_attention(v, scores, mask)  # type: ignore[no-any-return]


def relative_scores(q: torch.Tensor, table: torch.Tensor, block: AttentionBlock) -> torch.Tensor:
    """Return the relative scores (1, H, queries, keys) of one block.

    Args:
        q: Queries with their positional bias (H, N, d).
        table: Projected positional table (H, d, 2T-1).
        block: Rows and columns.
    """
    centre = table.size(2) // 2
    scores = torch.bmm(q[:, block.queries], table[..., centre + block.low : centre + block.high])
    heads, rows, width = scores.shape
    if block.columns is not None:
        return scores.gather(2, block.columns.expand(heads, -1, -1))[None]
    # row r begins one column before row r - 1: a stride, no copy
    shape = (1, heads, rows, width - rows + 1)
    stride = (heads * rows * width, rows * width, width - 1, 1)
    return scores.as_strided(shape, stride, scores.storage_offset() + rows - 1)
