"""Moving frames: gather the kept ones into a shorter tensor, scatter them back.

Pure functions. Each utterance of a batch keeps its own number of frames, and the packed tensor
is as long as the longest one. Whole rows are copied; a row's number is its place in the batch
laid end to end. A flat index drops padding as well: the kept frames of all
utterances follow one another in a single row of the packed tensor.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PackedIndex:
    """Where the frames of a packed tensor come from.

    Attributes:
        keep_mask: (B, T) bool, True = the frame is in the packed tensor.
        slot_mask: (B, M) bool, True = the slot holds a kept frame.
        positions: (B, M) int64, original frame of each packed slot; 0 on padded slots.
        source: (B * M,) int64, row of the original batch that each slot copies.
        kept: (N,) int64, rows of the original batch that are kept, in order.
        slots: (N,) int64, row of the packed batch where each of them is; None = in order.
    """

    keep_mask: torch.Tensor
    slot_mask: torch.Tensor
    positions: torch.Tensor
    source: torch.Tensor
    kept: torch.Tensor
    slots: torch.Tensor | None

    @property
    def is_padded(self) -> bool:
        """True if some utterance fills fewer slots than the longest one."""
        return self.slots is not None

    def attention_mask(self) -> torch.Tensor:
        """Return (B, M) bool, True = slot may be attended.

        As ``slot_mask``, but an utterance without any kept frame gets its first slot, so
        that a softmax over its row stays finite (the slot is never scattered back).
        """
        mask = self.slot_mask.clone()
        mask[:, 0] |= ~mask.any(1)
        return mask


def pack_index(keep_mask: torch.Tensor, flat: bool = False) -> PackedIndex:
    """Build the index of a packed tensor.

    Args:
        keep_mask: (B, T) bool, True = frame goes on. T >= 1.
        flat: One row of N slots, utterance after utterance, instead of one row each.

    Returns:
        PackedIndex with M = max(1, kept frames of the fullest utterance); flat: the
        packed tensor is (1, N, D), N may be 0.

    Example:
        >>> index = pack_index(torch.tensor([[False, True, True], [True, False, False]]))
        >>> index.positions.tolist(), index.slot_mask.int().tolist()
        ([[1, 2], [0, 0]], [[1, 1], [1, 0]])
    """
    batch, length = keep_mask.shape
    if flat:
        kept = keep_mask.flatten().nonzero().squeeze(1)
        positions = (kept % length if batch > 1 else kept)[None]
        return PackedIndex(
            keep_mask, torch.ones_like(positions).bool(), positions, kept, kept, None
        )
    counts = keep_mask.sum(1)
    width = max(1, int(counts.max()))
    kept = keep_mask.flatten().nonzero().squeeze(1)
    slot_mask = torch.arange(width, device=keep_mask.device) < counts[:, None]
    if kept.numel() == batch * width:
        source, slots = kept, None
    else:
        slots = slot_mask.flatten().nonzero().squeeze(1)
        first = torch.arange(batch, device=keep_mask.device) * length
        source = first[:, None].expand(-1, width).flatten()
        source = source.index_copy(0, slots, kept)
    positions = (source % length).view(batch, width)
    return PackedIndex(keep_mask, slot_mask, positions, source, kept, slots)


def gather_frames(x: torch.Tensor, index: PackedIndex) -> torch.Tensor:
    """Return the kept frames of ``x`` (B, T, D) as (B, M, D); padded slots repeat frame 0."""
    rows = x.reshape(-1, x.size(2)).index_select(0, index.source)
    return rows.view(*index.slot_mask.shape, x.size(2))


def scatter_frames(base: torch.Tensor, packed: torch.Tensor, index: PackedIndex) -> torch.Tensor:
    """Return ``base`` (B, T, D) with the kept frames replaced by those of ``packed`` (B, M, D).

    Out of place and differentiable in both; dtypes may differ (autocast): the result has
    the wider one.
    """
    dtype = torch.promote_types(base.dtype, packed.dtype)
    rows = packed.reshape(-1, packed.size(2)).to(dtype)
    if index.slots is not None:
        rows = rows.index_select(0, index.slots)
    flat = base.reshape(-1, base.size(2)).to(dtype)
    return flat.index_copy(0, index.kept, rows).view(base.shape)
