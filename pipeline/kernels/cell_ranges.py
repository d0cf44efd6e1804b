"""Tables of cells, or of colours, that do not fit the memory together: merged range by range of their labels.

Exact sums of a few values far from all others are many words wide, in every row: what such tables hold together has
no bound but the memory. How many rows the merged table has is bounded (`max_cells`), and so is what a range takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.color_cells import coarsened
from pipeline.kernels.label_table import LabelTable, merge
from pipeline.kernels.label_width import row_bytes

Columns = Mapping[str, np.ndarray]
"""A table as `LabelTable.to_columns` gives it, with its `level` if it is one of cells; on the disk, it may be."""


@dataclass(frozen=True)
class CellRanges:
    """The merged table of many, part after part; it can be gone through several times."""

    tables: Sequence[Columns]
    num_bands: int
    level: int
    bounds: Sequence[int]
    """The first label of each part, and one beyond the last."""
    limit_bytes: int
    """What is read may have before it is merged."""

    def __iter__(self) -> Iterator[LabelTable]:
        for first, last in zip(self.bounds, self.bounds[1:], strict=False):
            yield self._part(first, last)

    def _part(self, first: int, last: int) -> LabelTable:
        waiting: list[LabelTable] = []
        for table in self.tables:
            shift = (self.level - _level(table)) * self.num_bands
            start = int(np.searchsorted(table["label"], first << shift))
            stop = int(np.searchsorted(table["label"], (last << shift) - 1, side="right"))
            if start < stop:
                waiting.append(self._read(table, start, stop, shift))
            if sum(part.nbytes for part in waiting) > self.limit_bytes:
                waiting = [merge(waiting)]
        return merge(waiting)

    def _read(self, table: Columns, start: int, stop: int, shift: int) -> LabelTable:
        rows = {name: np.array(table[name][start:stop]) for name in table if name != "level"}
        return coarsened(LabelTable.from_columns(rows, self.num_bands), shift)


def ranges_of(tables: Sequence[Columns], num_bands: int, max_cells: int, limit_bytes: int) -> CellRanges:
    """Return the merged table in parts of which each takes about `limit_bytes` while it is merged.

    Its level is that of `merge_cells`: the lowest with no more than `max_cells` labels, none below those of the tables.
    """
    tables = [table for table in tables if len(table["label"])]
    level, labels = 0, np.zeros(0, np.int64)
    for table in tables:
        other = np.array(table["label"]) >> max(0, level - _level(table)) * num_bands
        labels >>= max(0, _level(table) - level) * num_bands
        level, labels = max(level, _level(table)), np.union1d(labels, other)
        while len(labels) > max(1, max_cells):
            level, labels = level + 1, np.unique(labels >> num_bands)
    size = max(1, limit_bytes // (4 * row_bytes(tables))) if tables else 1
    bounds = [*labels[::size].tolist(), int(labels[-1]) + 1] if tables else []
    return CellRanges(tables, num_bands, level, bounds, limit_bytes // 4)


def _level(table: Columns) -> int:
    return int(table["level"]) if "level" in table else 0
