"""Convolution over time of frames that were taken out of their sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import (
    PackedIndex,
    gather_frames,
    pack_index,
    scatter_frames,
)

Skipped = Callable[[torch.Tensor], torch.Tensor]


def convolve(
    conv: Any, z: torch.Tensor, frames: Frames, skipped: Skipped | None = None
) -> torch.Tensor:
    """Return a convolution of the active frames with their neighbours, (B, C, M).

    In context "packed" the neighbours are the kept frames before and after. In the others each
    frame is in its own place, and the skipped frames between are silent ("packed_original") or
    what ``skipped`` makes of them ("full"). Padding is silent.

    Args:
        conv: torch.nn.Conv1d that keeps the length.
        z: Input of active frames (B, M, C).
        frames: Where they are from.
        skipped: Makes the input (B, T, C) of frozen states (B, T, D); None = silence.
    """
    index = frames.index
    if index is None or frames.context == "packed":
        mask = frames.mask()
        z = z if mask is None else z.masked_fill(~mask[..., None], 0.0)
        return conv(z.transpose(1, 2))  # type: ignore[no-any-return]
    assert frames.frozen is not None
    if frames.context == "full" and skipped is not None:
        base = skipped(frames.frozen)
        if frames.valid_mask is not None:
            base = base.masked_fill(~frames.valid_mask[..., None], 0.0)
    else:
        base = frames.frozen.new_zeros(*frames.frozen.shape[:2], z.size(2))
    z = conv(scatter_frames(base, z, index).transpose(1, 2))
    return gather_frames(z.transpose(1, 2), index).transpose(1, 2)


def gated_mlp(module: Any, norm: Any, h: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return the output (B, M, D) of a cgMLP branch on active frames in their context.

    Args:
        module: ESPnet's ConvolutionalGatingMLP.
        norm: What comes before it, for the states of skipped frames.
        h: Active frames (B, M, D), normalised.
        frames: Where they are from.
    """
    unit = module.csgu

    def skipped(frozen: torch.Tensor) -> torch.Tensor:
        return unit.norm(module.channel_proj1(norm(frozen)).chunk(2, dim=-1)[1])  # type: ignore[no-any-return]

    x, gate = module.channel_proj1(h).chunk(2, dim=-1)
    gate = convolve(unit.conv, unit.norm(gate), frames, skipped).transpose(1, 2)
    if unit.linear is not None:
        gate = unit.linear(gate)
    return module.channel_proj2(unit.dropout(x * unit.act(gate)))  # type: ignore[no-any-return]


def with_border(frames: Frames, x: torch.Tensor, reach: int) -> Frames:
    """Return the active frames and the skipped ones near them, in context "full".

    A convolution over what a layer has computed needs that of the neighbours too, and skipped
    ones have none: it has to be computed from their frozen states.

    Args:
        frames: With a gate behind them.
        x: States of the active frames (B, M, D).
        reach: Number of neighbours on each side.
    """
    assert frames.index is not None
    assert frames.frozen is not None
    if frames.layout is None:
        frames.layout = near_index(frames, reach)
    index = frames.layout
    assert isinstance(index, PackedIndex)
    states = gather_frames(scatter_frames(frames.frozen, x, frames.index), index)
    return Frames(states, frames.pos_emb, frames.valid_mask, index, frames.frozen, "full")


def near_index(frames: Frames, reach: int) -> PackedIndex:
    """Return where the active frames and ``reach`` neighbours on each side of them sit."""
    assert frames.index is not None
    keep = frames.index.keep_mask
    near = F.max_pool1d(keep[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0
    mask = near if frames.valid_mask is None else near & frames.valid_mask
    return pack_index(mask, frames.flat)


def without_border(near: Frames, z: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return the rows (B, M, C) of the active frames out of ``z``, that of `with_border`."""
    assert near.index is not None
    assert frames.index is not None
    base = z.new_zeros(*frames.index.keep_mask.shape, z.size(2))
    return gather_frames(scatter_frames(base, z, near.index), frames.index)


def reads_neighbours(layer: Any) -> bool:
    """Return whether the feed-forward of an ESPnet layer is a convolution over time."""
    parts = (getattr(layer, name, None) for name in ("feed_forward", "feed_forward_macaron"))
    convolutions = (
        module
        for part in parts
        if isinstance(part, torch.nn.Module)
        for module in part.modules()
        if isinstance(module, torch.nn.Conv1d)
    )
    return any(module.kernel_size != (1,) for module in convolutions)
