"""Self-attention of frames that were taken out of their sequence."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from espnet_layerskip._compat import (
    FastSelfAttention,
    MultiHeadedAttention,
    RelPositionMultiHeadedAttention,
)
from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import PackedIndex, gather_frames, scatter_frames

Norm = Callable[[torch.Tensor], torch.Tensor]


def attend(attention: Any, norm: Norm, h: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return the self-attention of the active frames in their context, (B, M, D).

    Args:
        attention: ESPnet's attention module.
        norm: The norm before it, for the states of skipped frames; identity if there is none.
        h: Active frames (B, M, D), normalised.
        frames: Where these come from.
    """
    attention, index = own_copy(attention), frames.index
    mask, keys = frames.mask(), h
    full_keys = index is not None and frames.context == "full"
    if full_keys:
        mask, keys = frames.valid_mask, over_frozen(norm, h, frames)
    mask = None if mask is None else mask[:, None, :]
    if isinstance(attention, FastSelfAttention):  # sums over all frames that it is given
        out = attention(keys, mask)
        return out if keys is h or index is None else gather_frames(out, index)
    watchers = {} if index is None else attention._forward_hooks  # ESPnet's attention plots
    if watchers:
        attention._forward_hooks = OrderedDict()
    if frames.pos_emb is None:
        out = attention(h, keys, keys, mask)
    elif index is None or frames.context == "packed":
        pos_emb = slice_pos_emb(attention, frames.pos_emb, h.size(1))
        out = attention(h, h, h, pos_emb, mask)
    else:
        out = positional_attention(attention, h, keys, frames.pos_emb, index, mask, full_keys)
    if watchers:
        attention.attn = at_full_length(attention.attn, frames, full_keys)
        for watch in watchers.values():
            watch(attention, (), out)
    return out  # type: ignore[no-any-return]


def own_copy(attention: Any) -> Any:
    """Return a copy of ESPnet's attention module, with the same parameters, for one call.

    ESPnet's module stores its weights (B, H, M, M): those of a copy go when the call ends. Flash
    attention, which needs a mask and as many keys as queries, is off; ESPnet gives a module that
    was built for it no dropout, so that the copy gets one.
    """
    attention = copy.copy(attention)
    if getattr(attention, "use_flash_attn", False):
        attention.use_flash_attn = False
        dropout = torch.nn.Dropout(attention.dropout_rate).train(attention.training)
        attention._modules = {**attention._modules, "dropout": dropout}
    return attention


def at_full_length(weights: torch.Tensor, frames: Frames, full_keys: bool) -> torch.Tensor:
    """Return attention weights of the active frames at full length, to be looked at.

    Args:
        weights: (B, H, M, N) of the kept frames (N = M) or of all keys (N = T).
        frames: Where the active frames come from.
        full_keys: True if the keys are all frames.

    Returns:
        (B, H, T, T); 0 where a frame was skipped.
    """
    index = frames.index
    assert index is not None

    def spread(x: torch.Tensor) -> torch.Tensor:  # (B, M, ...) -> (B, T, ...)
        base = x.new_zeros(x.size(0), frames.shape[1], x.size(2) * x.size(3))
        return scatter_frames(base, x.flatten(2), index).view(*base.shape[:2], *x.shape[2:])

    queries = spread(weights.permute(0, 2, 1, 3))  # (B, T, H, N)
    if full_keys:
        return queries.transpose(1, 2)
    return spread(queries.permute(0, 3, 1, 2)).permute(0, 3, 2, 1)


def over_frozen(norm: Norm, h: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return ``h`` (B, M, D) at full length (B, T, D), with skipped frames' states between."""
    assert frames.frozen is not None
    assert frames.index is not None
    return scatter_frames(norm(frames.frozen), h, frames.index)


def is_invariant(attention: Any) -> bool:
    """Return whether an output is independent of padding; ESPnet's "legacy" one is not."""
    known = (RelPositionMultiHeadedAttention, MultiHeadedAttention, FastSelfAttention)
    return attention is None or type(attention) in known


def check_context(attention: Any, context: str) -> None:
    """Raise ValueError if an attention type cannot leave gaps between frames."""
    if context != "packed" and not is_invariant(attention):
        raise ValueError(
            f"skip_context: {context} needs rel_pos_type: latest or selfattention_layer_type: "
            f"selfattn, but the attention is {type(attention).__name__}; "
            "use skip_context: packed"
        )


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
