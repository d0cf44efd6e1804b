"""Cells of colours, for palettes out of core: how many pixels have about this colour, and their exact sum.

A band's values are divided into up to 256 cells of about equal population (64 from five bands on, fewer from eleven
on; the values themselves where there are no more), a colour's cell being one of each band. The populations come from
the bins of a first sweep (`color_bins`), so the cells are the same for any blocks.

A cell's number is its place in Morton order (Morton 1966; Z-order): the bits of its places in the bands take turns, so
that dropping the last bit of all bands is one shift: what `merge_cells` does until the raster has no more than
`max_cells` occupied cells. A block may be coarsened early, for the whole raster occupies as many cells as the block at
least: the result is the same for any blocks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.kernels.color_bins import NO_MASK, Bins, RowBuffers, find_bins, mark_usable
from pipeline.kernels.color_counts import count_colors
from pipeline.kernels.compile import kernel
from pipeline.kernels.exact_sum import add_groups
from pipeline.kernels.frame import Patch, Pixels
from pipeline.kernels.label_runs import SLAB_PIXELS, LabelSlots, hashed_slots, slabs
from pipeline.kernels.label_sums import Where
from pipeline.kernels.label_table import LabelTable, TableBuilder, merge
from pipeline.kernels.occupied_cells import MOST_BITS, OccupiedCells, run_buffers

MOST_BANDS = 63
"""A cell's number has one bit a band at least."""


@dataclass(frozen=True, slots=True)
class Cells:
    """How values become cells."""

    bins: Bins
    places: np.ndarray
    """(band, bin) uint8: the band's place."""
    bits: int
    """Bits of a place in a band."""
    one_each: bool = False
    """Whether each value of 8 bits has a cell of its own, in any raster."""

    @property
    def num_bands(self) -> int:
        return len(self.places)

    @property
    def codes(self) -> np.ndarray:
        """(band, place) int64: the bits that a place sets in the Morton number of a cell."""
        place, codes = np.arange(1 << self.bits), np.zeros((self.num_bands, 1 << self.bits), np.int64)
        for band in range(self.num_bands):
            for bit in range(self.bits):
                codes[band] |= (place >> bit & 1) << (bit * self.num_bands + self.num_bands - 1 - band)
        return codes


@dataclass(frozen=True, slots=True)
class CellTable:
    """Pixels and sums by cell; cells are `level` times halved in number along every band."""

    table: LabelTable
    level: int = 0


def cell_bits(num_bands: int) -> int:
    """Return the bits of a place in one of so many bands; ValueError for more than `MOST_BANDS`."""
    if num_bands > MOST_BANDS:
        raise ValueError(f"median cut takes at most {MOST_BANDS} bands, got {num_bands}; choose some with `bands`")
    return 8 if num_bands <= 4 else min(6, 63 // num_bands)


def cells_of(counts: np.ndarray, bins: Bins, bits: int) -> Cells:
    """Return cells of about equal population, from the counts of the whole raster's last sweep."""
    places = np.stack([_places_of_equal_population(count, 1 << bits) for count in counts])
    return Cells(bins, places.astype(np.uint8), bits)


def _places_of_equal_population(count: np.ndarray, num: int) -> np.ndarray:
    occupied = count > 0
    if np.count_nonzero(occupied) <= num:
        ranks: np.ndarray = np.maximum(np.cumsum(occupied) - 1, 0)
        return ranks
    total = int(count.sum())
    before = np.cumsum(count) - count
    # beyond the last value, where NaN has its bin, all are before
    places: np.ndarray = np.minimum(before * num // total, num - 1)
    return places


def identity_cells(num_bands: int) -> Cells:
    """Return the cells of 8-bit values of up to four bands, one each; they need no sweep."""
    none = np.empty((num_bands, 0), np.uint8)
    return Cells(Bins(none.astype(np.int32), none, 0), none, 8, one_each=True)


def count_cells(
    values: np.ndarray, patch: Patch, cells: Cells, max_cells: int, valid: np.ndarray | None = None
) -> CellTable:
    """Return the occupied cells of a region with their pixels and exact sums, no more than `max_cells`."""
    if cells.one_each:
        counted: list[CellTable] = []
        for colors in count_colors(values, patch, max_cells, valid):
            counted = [merge_cells([*counted, CellTable(colors)], cells.num_bands, max_cells)]
        return counted[0]
    if cells.bits * cells.num_bands <= MOST_BITS:
        return _count_in_order(values, patch, cells, max_cells, valid)
    return _count_as_met(values, patch, cells, max_cells, valid)


def num_cells(
    values: np.ndarray, patch: Patch, cells: Cells, max_cells: int, valid: np.ndarray | None = None
) -> int | None:
    """Return how many cells `count_cells` will find; None where that is not known before they are counted."""
    if cells.one_each or cells.bits * cells.num_bands > MOST_BITS:
        return None
    return _occupied(_Numbers(values, patch, cells, valid), cells, max_cells).num


class _Numbers:
    """Finds the Morton numbers of the cells of pixels, slab by slab, in one array that is used again."""

    def __init__(self, values: np.ndarray, patch: Patch, cells: Cells, valid: np.ndarray | None) -> None:
        self.values, self.mask = values, NO_MASK if valid is None else valid
        self.patch, self.bins, self.places, self.codes = patch, cells.bins, cells.places, cells.codes
        height, width = patch.shape
        self.rows = max(1, min(height, SLAB_PIXELS // max(1, width)))
        self._out = np.empty((self.rows, width), np.int64)
        self._buffers = RowBuffers.of(width)

    def slabs(self, level: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row of each slab, and the numbers of its pixels at a level; -1 for none."""
        for start in range(0, self.patch.shape[0], self.rows):
            yield start, self.find(start, level)

    def find(self, start: int, level: int) -> np.ndarray:
        height, width = self.patch.shape
        num, (top, left) = min(self.rows, height - start), self.patch.values_at
        slab = Patch((num, width), (0, 0), (top + start, left), self.patch.lanes)
        cells = (self.bins.first, self.bins.shift, self.places, self.codes)
        _find_numbers(self.values, self.mask, slab, cells, level * len(self.codes), self._buffers, self._out)
        return self._out[:num]


def _count_in_order(
    values: np.ndarray, patch: Patch, cells: Cells, max_cells: int, valid: np.ndarray | None
) -> CellTable:
    """Count cells whose numbers are short: first which are occupied, then what lies in them."""
    numbers = _Numbers(values, patch, cells, valid)
    builder = _new_builder(numbers.values, cells)
    occupied = _occupied(numbers, cells, max_cells)
    before, buffers = occupied.counts_before(), run_buffers(numbers.rows, patch.shape[1])
    for start, slab in numbers.slabs(occupied.level):
        runs = occupied.runs(slab, before, buffers)
        if len(runs):
            where = Where(patch.values_at[0] + start, patch.values_at[1], patch.lanes)
            builder.add(numbers.values, valid, where, runs, occupied.num, (start, 0))
    return CellTable(builder.table(occupied.numbers()), occupied.level)


def _occupied(numbers: _Numbers, cells: Cells, max_cells: int) -> OccupiedCells:
    occupied = OccupiedCells(cells.bits * cells.num_bands, cells.num_bands, max_cells)
    for _, slab in numbers.slabs(0):
        occupied.mark(slab)
    return occupied


def _count_as_met(
    values: np.ndarray, patch: Patch, cells: Cells, max_cells: int, valid: np.ndarray | None
) -> CellTable:
    """Count cells of any numbers, coarser ones from where there are too many."""
    numbers, num_bands = _Numbers(values, patch, cells, valid), cells.num_bands
    tables: list[CellTable] = []
    level, slots, builder = 0, _new_slots(), _new_builder(numbers.values, cells)
    for start in range(0, patch.shape[0], numbers.rows):
        slab = numbers.find(start, level)
        where = Where(patch.values_at[0] + start, patch.values_at[1], patch.lanes)
        for runs in slabs(slab, None, (0, 0), slab.shape, slots):
            builder.add(numbers.values, valid, where, runs, slots.num, (start, 0))
        if slots.num > max_cells:
            done = CellTable(builder.table(slots.labels[: slots.num]), level)
            tables = [merge_cells([*tables, done], num_bands, max_cells)]
            level, slots, builder = tables[0].level, _new_slots(), _new_builder(numbers.values, cells)
    done = CellTable(builder.table(slots.labels[: slots.num]), level)
    return merge_cells([*tables, done], num_bands, max_cells)


def _new_slots() -> LabelSlots:
    return hashed_slots(np.array([-1]))


def _new_builder(values: np.ndarray, cells: Cells) -> TableBuilder:
    return TableBuilder(values.dtype, cells.num_bands, ["sum"])


def merge_cells(tables: Sequence[CellTable], num_bands: int, max_cells: int) -> CellTable:
    """Return one table of all, as coarse as needed; associative and commutative to the bit."""
    level = max(table.level for table in tables)
    merged = merge([coarsened(table.table, (level - table.level) * num_bands) for table in tables])
    while len(merged.labels) > max(1, max_cells):
        merged = coarsened(merged, num_bands)
        level += 1
    return CellTable(merged, level)


def coarsened(table: LabelTable, shift: int) -> LabelTable:
    """Return a table of cells with as many bits dropped from their numbers."""
    if shift == 0 or not len(table.labels):
        return table
    labels = table.labels >> shift
    first = np.concatenate([[True], labels[1:] != labels[:-1]])
    group = np.cumsum(first) - 1
    num = int(group[-1]) + 1
    pixels = np.add.reduceat(table.pixels, np.flatnonzero(first))
    bands = table.num_bands
    sums = None if table.sums is None else add_groups(table.sums, group, num, bands)
    return LabelTable(labels[first], pixels, bands, None, sums)


@kernel
def _find_numbers(values: Any, valid: Any, patch: Any, cells: Any, drop: Any, buffers: Any, out: Any) -> None:
    """Write the Morton numbers of the cells of pixels, -1 where one is not valid."""
    (height, width), (top, left) = patch.shape, patch.values_at
    first, shift, places, codes = cells
    keys, rounded, usable = buffers
    for i in range(height):
        pixels = Pixels(top + i, left, width, patch.lanes)
        mark_usable(values, valid, pixels, usable)
        row = out[i]
        row[:] = 0
        for band in range(codes.shape[0]):
            find_bins(values, pixels, band, first[band], shift[band], rounded, keys)
            for c in range(width):
                row[c] |= codes[band, places[band, keys[c]]]
        for c in range(width):
            row[c] = row[c] >> np.int64(drop) if usable[c] else -1
