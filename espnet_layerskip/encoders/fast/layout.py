"""Where the rows of flat frames lie; all layers of the fast form between two gates share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch

from espnet_layerskip.encoders.convolution import near_index
from espnet_layerskip.encoders.fast.depthwise import Depthwise
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
        columns: (queries, keys) int64, column after ``low`` of each pair; None where the keys are
            consecutive.
        begins: (queries,) int64, column after ``low`` at which a row of consecutive keys begins;
            None where the queries are consecutive too: row r begins at ``queries - 1 - r``.
    """

    queries: slice
    keys: slice
    low: int
    high: int
    columns: torch.Tensor | None = None
    begins: torch.Tensor | None = None
    _flat: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def flat_begins(self, heads: int) -> torch.Tensor:
        """Return where rows begin in the flat scores (heads * queries * columns,) of all heads."""
        assert self.begins is not None
        if heads not in self._flat:  # all layers share it
            count = heads * self.begins.numel()
            rows = torch.arange(count, device=self.begins.device) * (self.high - self.low)
            self._flat[heads] = rows + self.begins.repeat(heads)
        return self._flat[heads]


class Layout:
    """Rows of the active frames, in attention and in convolutions.

    Attributes:
        over_frozen: True if skipped frames are keys and neighbours too (context "full"
            above a gate); keys are then the rows of the full batch (B * T), see `keys`.
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
        self._device = frames.x.device
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
        slots: torch.Tensor | None
        if gated and frames.context == "packed":
            self._grid_shape = batch, max(1, *counts)
            slots = _ranks(starts, self._grid_shape[1], self._device)
        else:
            self._grid_shape = batch, length
            slots = None if index is None else index.kept
        self._rows = {"queries": slots, "active": slots}
        self._place: torch.Tensor | None = None
        if self.near is not None:
            assert active is not None
            self._rows["active"] = active
            self._place = torch.searchsorted(self.near.kept, active)
        if self.over_frozen:
            assert index is not None
            rest = ~index.keep_mask if valid_mask is None else valid_mask & ~index.keep_mask
            self._rows["skipped"] = rest.flatten().nonzero().squeeze(1)
        self._padded: dict[tuple[str, int, int], torch.Tensor] = {}
        self._grids: dict[tuple[int, int], torch.Tensor] = {}
        self._keys: dict[int, torch.Tensor] = {}
        self._skipped: torch.Tensor | None = None
        self._near: torch.Tensor | None = None

    def queries(self, norm: Op, h: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return normalised query rows (M, D).

        Args:
            norm: The norm, without weights: it is the same in all layers.
            h: Active rows (N, D), normalised.
            frames: Those of this layout.
        """
        if self.near is None:
            return h
        if self._near is None:
            self._near = norm(_frozen(frames).index_select(0, self.near.kept).to(h.dtype))
        assert self._place is not None
        return self._near.index_copy_(0, self._place, h)

    def skipped(self, norm: Op, frames: Frames, dtype: torch.dtype) -> torch.Tensor:
        """Return the normalised states (S, D) of the frames that are no queries.

        Args:
            norm: The norm, without weights: it is the same in all layers.
            frames: Those of this layout.
            dtype: Of the result.
        """
        if self._skipped is None:
            rows = self._rows["skipped"]
            assert rows is not None
            self._skipped = norm(_frozen(frames).index_select(0, rows).to(dtype))
        return self._skipped

    def keys(self, skipped: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of the full batch (B * T, C), undefined on padding.

        Args:
            skipped: Rows (S, C) of the frames of `skipped`.
            rows: Query rows (M, C).
        """
        found = self._keys.get(rows.size(1))
        if found is None:  # every layer fills the same rows of it
            batch, length = self._grid_shape
            found = self._keys[rows.size(1)] = rows.new_empty(batch * length, rows.size(1))
        for name, part in (("skipped", skipped), ("queries", rows)):
            where = self._rows[name]
            assert where is not None
            found.index_copy_(0, where, part)
        return found

    def convolve(
        self,
        conv: Depthwise,
        rows: torch.Tensor,
        skipped: torch.Tensor | None = None,
        wanted: str = "queries",
    ) -> torch.Tensor:
        """Return a convolution over time, (M, C); silent where no row is.

        Args:
            conv: The convolution.
            rows: Query rows (M, C).
            skipped: Rows (S, C) of the frames of `skipped`; None = silence.
            wanted: "queries", or "active" for the rows of the active frames only.
        """
        batch, width = self._grid_shape
        places = self._rows[wanted]
        total = batch * width
        count = total if places is None else places.numel()
        few = conv.prefers_windows(count, total, rows)
        if not few and skipped is None and rows.size(0) == total:
            out = conv(rows.view(batch, width, -1))
            return _select(out.reshape(total, -1), places)
        reach = conv.reach
        key = rows.size(1), reach
        grid = self._grids.get(key)
        if grid is None:  # every layer fills the same slots of it
            grid = rows.new_zeros(batch * (width + 2 * reach), rows.size(1))
            self._grids[key] = grid
        grid.index_copy_(0, self._in_padded("queries", reach, reach), rows)
        if skipped is not None:
            grid.index_copy_(0, self._in_padded("skipped", reach, reach), skipped)
        if few:  # the window of a frame begins `reach` slots before it
            return conv.windows(grid, self._in_padded(wanted, 0, reach))
        out = conv(grid.view(batch, width + 2 * reach, -1), padding=0)
        return _select(out.reshape(total, -1), places)

    def _in_padded(self, name: str, first: int, reach: int) -> torch.Tensor:
        """Return the slots of some rows in a grid with ``reach`` slots on each side.

        Args:
            name: Of the rows.
            first: Slot of the first frame in a row of the grid.
            reach: Slots added on each side.
        """
        found = self._padded.get((name, first, reach))
        if found is None:
            batch, width = self._grid_shape
            found = self._rows[name]
            if found is None:
                found = torch.arange(batch * width, device=self._device)
            if batch > 1:
                row = found.div(width, rounding_mode="floor")
                found = found + 2 * reach * row
            found = self._padded[name, first, reach] = found + first
        return found


def _frozen(frames: Frames) -> torch.Tensor:
    """Return the frozen states as rows (B * T, D)."""
    assert frames.frozen is not None
    return frames.frozen.view(-1, frames.frozen.size(2))


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
            columns = begins = None
            if last - first != end - 1 - i or last_key - first_key != num_keys - 1:
                assert positions is not None
                if full_keys:
                    begins = -(positions[i:end] + low)
                else:
                    columns = positions[start:stop] - (positions[i:end, None] + low)
            yield AttentionBlock(slice(i, end), key_rows, low, high, columns, begins)
