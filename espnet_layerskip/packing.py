"""Moving frames: gather the kept ones into a shorter tensor, scatter them back.

Pure functions, ragged in a batch: each utterance keeps its own number of frames and the
packed tensor is as long as the longest of them.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PackedIndex:
    """Where the frames of a packed tensor come from.

    Attributes:
        positions: (B, M) int64, original frame of each packed slot; 0 on padded slots.
        slot_mask: (B, M) bool, True = the slot holds a kept frame.
        keep_mask: (B, T) bool, True = the frame is in the packed tensor.
        slots: (B, T) int64, packed slot of each kept frame (arbitrary elsewhere).
    """

    positions: torch.Tensor
    slot_mask: torch.Tensor
    keep_mask: torch.Tensor
    slots: torch.Tensor

    @property
    def is_padded(self) -> bool:
        """True if some utterance fills fewer slots than the longest one."""
        return not bool(self.slot_mask.all())

    def attention_mask(self) -> torch.Tensor:
        """Return (B, M) bool, True = slot may be attended.

        As ``slot_mask``, but an utterance without any kept frame gets its first slot, so
        that a softmax over its row stays finite (the slot is never scattered back).
        """
        mask = self.slot_mask.clone()
        mask[:, 0] |= ~mask.any(1)
        return mask


def pack_index(keep_mask: torch.Tensor) -> PackedIndex:
    """Build the index of a packed tensor.

    Args:
        keep_mask: (B, T) bool, True = frame goes on. T >= 1.

    Returns:
        PackedIndex with M = max(1, kept frames of the fullest utterance).

    Example:
        >>> index = pack_index(torch.tensor([[False, True, True], [True, False, False]]))
        >>> index.positions.tolist(), index.slot_mask.int().tolist()
        ([[1, 2], [0, 0]], [[1, 1], [1, 0]])
    """
    counts = keep_mask.sum(1)
    width = max(1, int(counts.max()))
    order = torch.arange(width, device=keep_mask.device)
    slot_mask = order < counts[:, None]
    # A stable descending sort puts the kept frames first, in their order in time.
    positions = keep_mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
    positions = positions.masked_fill(~slot_mask, 0)
    slots = (keep_mask.cumsum(1) - 1).clamp(min=0)
    return PackedIndex(positions, slot_mask, keep_mask, slots)


def gather_frames(x: torch.Tensor, index: PackedIndex) -> torch.Tensor:
    """Return the kept frames of ``x`` (B, T, D) as (B, M, D); padded slots repeat frame 0."""
    return x.gather(1, index.positions[..., None].expand(-1, -1, x.size(2)))


def scatter_frames(base: torch.Tensor, packed: torch.Tensor, index: PackedIndex) -> torch.Tensor:
    """Return ``base`` (B, T, D) with the kept frames replaced by those of ``packed`` (B, M, D).

    Out of place and differentiable in both; dtypes may differ (autocast): the result has
    the wider one.
    """
    dtype = torch.promote_types(base.dtype, packed.dtype)
    slots = index.slots[..., None].expand(-1, -1, base.size(2))
    moved = packed.to(dtype).gather(1, slots)
    return torch.where(index.keep_mask[..., None], moved, base.to(dtype))
