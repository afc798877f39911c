"""Where the rows of flat frames lie; all layers of the fast form between two gates share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from espnet_layerskip.encoders.convolution import near_index
from espnet_layerskip.encoders.fast.precision import Op
from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import PackedIndex

BLOCK = 128  # query rows of a block: limits the relative scores that are computed in vain


@dataclass(frozen=True)
class AttentionBlock:
    """Some queries of one utterance and all of its keys.

    The relative score of query position i and key position j is column ``centre + j - i`` of
    the scores over a positional table; a block needs the columns from ``centre + low`` to
    ``centre + high``.

    Attributes:
        queries: Their rows.
        keys: Rows of the keys.
        low: First column, relative to the table's centre.
        high: Last column + 1, relative to the table's centre.
        columns: (queries, keys) int64, column after ``low`` of each pair; None where both
            positions are consecutive: then row r begins at column ``queries - 1 - r``.
    """

    queries: slice
    keys: slice
    low: int
    high: int
    columns: torch.Tensor | None


class Layout:
    """Rows of the active frames, in attention and in convolutions.

    Attributes:
        over_frozen: True if skipped frames are keys and neighbours too (context "full"
            above a gate); keys are then the rows of the full batch (B * T).
        near: Where over_frozen and a ``reach`` is given: the query rows, which are the active
            frames and the skipped ones near them (`convolution.near_index`); else None and the
            queries are the active rows.
        blocks: Which rows attend to which; together they hold every query row once, in order.

    Args:
        frames: Flat frames.
        reach: Neighbours on each side that a convolution over what attention returns needs.
    """

    def __init__(self, frames: Frames, reach: int = 0):
        index, valid_mask = frames.index, frames.valid_mask
        batch, length, _ = frames.shape
        gated = index is not None and index.keep_mask is not valid_mask
        self.over_frozen = gated and frames.context == "full"
        self.near: PackedIndex | None = None
        active = None if index is None else index.kept
        if self.over_frozen and reach:
            self.near = index = near_index(frames, reach)
        lengths = [length] * batch if valid_mask is None else valid_mask.sum(1).tolist()
        counts, positions = lengths, None
        if gated:
            assert index is not None
            counts = index.keep_mask.sum(1).tolist() if batch > 1 else [index.kept.numel()]
            positions = index.positions[0] if frames.context != "packed" else None
        starts = [0, *accumulate(counts)]
        if self.over_frozen:
            keys = [slice(b * length, b * length + n) for b, n in enumerate(lengths)]
        else:
            keys = [slice(*pair) for pair in pairwise(starts)]
        self.blocks = list(_blocks(starts, keys, positions, self.over_frozen))
        self._slots: torch.Tensor | None
        if gated and frames.context == "packed":
            self._grid_shape = batch, max(1, *counts)
            self._slots = _ranks(starts, self._grid_shape[1], frames.x.device)
        else:
            self._grid_shape = batch, length
            self._slots = None if index is None else index.kept
        self._active = self._slots if self.near is None else active
        self._padding = None if valid_mask is None else ~valid_mask[..., None]
        self._grids: dict[int, torch.Tensor] = {}
        self._base: torch.Tensor | None = None

    def to_grid(self, rows: torch.Tensor) -> torch.Tensor:
        """Return query rows (N, C) as (B, W, C) for a convolution, zero where no row belongs."""
        shape = (*self._grid_shape, rows.size(1))
        if self._slots is None or rows.size(0) == shape[0] * shape[1]:
            return rows.view(shape)
        grid = self._grids.get(shape[2])
        if grid is None:  # every layer fills the same slots of it
            grid = self._grids[shape[2]] = rows.new_zeros(shape[0] * shape[1], shape[2])
        return grid.index_copy_(0, self._slots, rows).view(shape)

    def all_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of the full batch (B * T, C) as (B, T, C), zero on padding; in place."""
        grid = rows.view(*self._grid_shape, rows.size(1))
        return grid if self._padding is None else grid.masked_fill_(self._padding, 0.0)

    def from_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the query rows (N, C) from (B, W, C)."""
        return _select(grid.reshape(-1, grid.size(2)), self._slots)

    def active_from_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the rows (N, C) of the active frames from (B, W, C)."""
        return _select(grid.reshape(-1, grid.size(2)), self._active)

    def queries(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the query rows (N, C) out of the rows of the full batch (B * T, C)."""
        return _select(rows, self._slots)

    def fill(
        self, norm: Op, h: torch.Tensor, frames: Frames, same_norm: bool = False
    ) -> torch.Tensor:
        """Return normalised active rows over the normalised frozen states, (B * T, D).

        Args:
            norm: The norm.
            h: Active rows (N, D), normalised.
            frames: Those of this layout.
            same_norm: The norm is the same in all layers: that of the frozen states is kept.
        """
        assert frames.frozen is not None
        assert isinstance(frames.index, PackedIndex)
        base = self._base
        if base is None:
            base = norm(frames.frozen.to(h.dtype)).view(-1, h.size(1))
        if same_norm:
            self._base = base
        return base.index_copy_(0, frames.index.kept, h)


def layout_of(frames: Frames, reach: int = 0) -> Layout:
    """Return the layout of flat frames; made by the first layer that asks."""
    if frames.layout is None:
        frames.layout = Layout(frames, reach)
    found: Layout = frames.layout
    return found


def _select(rows: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """Return the rows in the slots, which are in order; None = all."""
    if slots is None or slots.numel() == rows.size(0):
        return rows
    return rows.index_select(0, slots)


def _ranks(starts: list[int], width: int, device: torch.device) -> torch.Tensor | None:
    """Return the grid slots (N,) of rows that are packed to the left of each grid row."""
    if starts[-1] == (len(starts) - 1) * width:
        return None
    slots = [
        b * width + i
        for b, (start, stop) in enumerate(pairwise(starts))
        for i in range(stop - start)
    ]
    return torch.tensor(slots, dtype=torch.long, device=device)


def _blocks(
    starts: list[int], keys: list[slice], positions: torch.Tensor | None, full_keys: bool
) -> Iterator[AttentionBlock]:
    """Yield the blocks; ``positions`` (N,) of the rows, None = consecutive in each utterance."""
    places = None if positions is None else positions.tolist()
    for (start, stop), key_rows in zip(pairwise(starts), keys, strict=True):
        count = stop - start
        if not count:
            continue
        num_keys = key_rows.stop - key_rows.start
        if places is None or full_keys:
            first_key, last_key = 0, num_keys - 1
        else:
            first_key, last_key = places[start], places[stop - 1]
        step = -(-count // max(1, round(count / BLOCK)))
        for i in range(start, stop, step):
            end = min(i + step, stop)
            if places is None:
                first, last = i - start, end - 1 - start
            else:
                first, last = places[i], places[end - 1]
            low, high = first_key - last, last_key - first + 1
            columns = None
            consecutive = last - first == end - 1 - i and last_key - first_key == num_keys - 1
            if not consecutive:
                assert positions is not None
                if full_keys:
                    key_places = torch.arange(num_keys, device=positions.device)
                else:
                    key_places = positions[start:stop]
                columns = key_places - (positions[i:end, None] + low)
            yield AttentionBlock(slice(i, end), key_rows, low, high, columns)
