"""Counts of values by label, band and bin, as numpy.histogram has them.

A bin has its left edge and not its right one; the last has both. Values beyond the edges count in none, nor do NaN
and inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.label_runs import with_room
from pipeline.kernels.label_sums import Where

_NO_MASK = np.ones((0, 0, 0), bool)


class BinCounts:
    """Counts (slot, band x bin) of the values of planes."""

    def __init__(self, values: np.ndarray, valid: np.ndarray | None, where: Where, edges: np.ndarray) -> None:
        """`edges`: float64, ascending, one more than bins. Values: integers of up to 32 bits, or floating point."""
        self._values, self._valid = values, _NO_MASK if valid is None else valid
        self._where, self._edges = where, edges
        self._counts = np.zeros((0, len(values) * where.lanes * (len(edges) - 1)), np.int64)

    def add(self, runs: np.ndarray, num: int) -> None:
        """Add what lies under runs, which use the first `num` slots."""
        self._counts = with_room(self._counts, num)
        _count_bins(self._values, self._valid, self._where, runs, self._edges, self._counts)

    def result(self, order: np.ndarray) -> np.ndarray:
        counts: np.ndarray = self._counts[order]
        return counts


@kernel
def _count_bins(values: Any, valid: Any, where: Any, runs: Any, edges: Any, counts: Any) -> None:
    top, left, lanes = where
    num_bins = edges.size - 1
    for r in range(runs.shape[0]):
        row, first = top + runs[r, 0], left + runs[r, 1]
        for band in range(values.shape[0] * lanes):
            plane, lane = band // lanes, band % lanes
            for column in range(first, first + runs[r, 2]):
                at = column * lanes + lane
                value = np.float64(values[plane, row, at])
                if (valid.size == 0 or valid[plane, row, at]) and edges[0] <= value <= edges[num_bins]:
                    counts[runs[r, 3], band * num_bins + bin_of(edges, value)] += 1


@inner
def bin_of(edges: Any, value: Any) -> Any:
    """Return the last bin whose left edge is not above a value."""
    low, high = 0, edges.size - 1
    while low + 1 < high:
        middle = (low + high) >> 1
        if edges[middle] <= value:
            low = middle
        else:
            high = middle
    return low
