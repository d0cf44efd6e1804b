"""Networks of minima and maxima that select values of given ranks from the pixels of a window.

A network is data: `window_network` applies each of its steps to a whole row of pixels at once. The columns of the
window are sorted, each once for all windows that hold it; neighbouring columns are merged to blocks, each once for
all windows that hold it; a value that cannot be one of those asked for is dropped on the way, and what only led to
it is never computed. (Batcher's odd-even merging, 1968; the idea to share the sorted columns is of "Fast median
filters using separable sorting networks", Adams 2021.) A median of 5 x 5 takes 90 minima and maxima a pixel, one of
9 x 9 takes 404.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Columns = tuple[tuple[int, ...], ...]
Shifted = tuple[int, int]
"""A value, and the columns by which the window that it belongs to lies right of the first."""
Comparison = tuple[Shifted, Shifted, int, int]
"""Two values, and those that are their minimum and maximum."""
Sorted = tuple[list[Shifted], int]
"""Values in ascending order, and how many smaller ones were dropped."""


@dataclass(frozen=True)
class Network:
    """The steps that select the values of some ranks.

    Rows 0 to `num_inputs` - 1 are the pixels below each other, from the topmost row of the window; the others, up
    to `num_rows`, are scratch. Element c of a row belongs to the window or block of columns that begins at c.
    """

    steps: np.ndarray
    """(step, 7): row a, shift a, row b, shift b, row of the minimum, row of the maximum, further columns.

    Shifts are in columns. A row of -1 is not needed. No step writes a row that it reads.
    """
    results: np.ndarray
    """(rank, 2): row and shift of the value of each rank asked for."""
    num_inputs: int
    num_rows: int

    @property
    def cost(self) -> int:
        """Minima and maxima a pixel."""
        return int(np.sum(self.steps[:, 4:6] >= 0))


@lru_cache(maxsize=64)
def selection_network(columns: Columns, ranks: tuple[int, ...], height: int) -> Network:
    """Return a network for a window that holds these rows of each of its columns; ranks count from 0, ascending."""
    builder = _Builder(columns, ranks)
    return _allocate(builder, builder.select(), height)


class _Builder:
    """Comparisons of values, each the minimum or maximum of two others, without saying where they are kept."""

    def __init__(self, columns: Columns, ranks: tuple[int, ...]) -> None:
        self.columns, self.ranks = columns, ranks
        self.num_pixels = sum(map(len, columns))
        self.widths: list[int] = []
        """Columns that a value comes from."""
        self.comparisons: list[Comparison] = []
        self.inputs: dict[int, int] = {}
        """Row of the window -> value."""
        self._blocks: dict[Columns, Sorted] = {}

    def select(self) -> list[Shifted]:
        """Return the values of the ranks: the last column is merged with all others for these ranks alone."""
        if len(self.columns) == 1:
            values, dropped = self._block(self.columns)
            return [values[rank - dropped] for rank in self.ranks]
        cut = len(self.columns) - 1
        (left, left_dropped), (right, right_dropped) = self._block(self.columns[:cut]), self._block(self.columns[cut:])
        right = _moved(right, cut)
        return [self._of_rank(left, right, rank - left_dropped - right_dropped) for rank in self.ranks]

    def _block(self, columns: Columns) -> Sorted:
        """Sort some columns side by side; the same columns elsewhere in the window are the same values, shifted."""
        if columns not in self._blocks:
            if len(columns) == 1:
                values, dropped = self._sort([(self._input(row), 0) for row in columns[0]]), 0
            else:
                cut = (len(columns) + 1) // 2
                (left, a), (right, b) = self._block(columns[:cut]), self._block(columns[cut:])
                values, dropped = self._merge(left, _moved(right, cut)), a + b
            self._blocks[columns] = self._trim(values, dropped, sum(map(len, columns)))
        return self._blocks[columns]

    def _trim(self, values: list[Shifted], dropped: int, size: int) -> Sorted:
        """Drop what cannot have one of the ranks: of value i, i are smaller here, and the others may be anywhere."""
        low = max(0, min(self.ranks) - (self.num_pixels - size) - dropped)
        return values[low : max(self.ranks) + 1 - dropped], dropped + low

    def _sort(self, values: list[Shifted]) -> list[Shifted]:
        if len(values) < 2:
            return values
        half = len(values) // 2
        return self._merge(self._sort(values[:half]), self._sort(values[half:]))

    def _merge(self, a: list[Shifted], b: list[Shifted]) -> list[Shifted]:
        """Merge ascending values (Batcher's odd-even merge, for any two lengths)."""
        if not a or not b:
            return a + b
        if len(a) == len(b) == 1:
            return list(self._compare(a[0], b[0]))
        even, odd = self._merge(a[0::2], b[0::2]), self._merge(a[1::2], b[1::2])
        merged = [even[0]]
        for low, high in zip(odd, even[1:], strict=False):
            merged += self._compare(low, high)
        paired = min(len(odd), len(even) - 1)
        return merged + odd[paired:] + even[1 + paired :]

    def _of_rank(self, a: list[Shifted], b: list[Shifted], rank: int) -> Shifted:
        """Return the value of a rank in the union of ascending values: min over i of max(a[i - 1], b[rank - i])."""
        best: Shifted | None = None
        for i in range(max(0, rank + 1 - len(b)), min(len(a), rank + 1) + 1):
            below = [a[i - 1]] if i > 0 else []
            below += [b[rank - i]] if i <= rank else []
            value = below[0] if len(below) == 1 else self._compare(*below)[1]
            best = value if best is None else self._compare(best, value)[0]
        if best is None:
            raise IndexError(f"rank {rank} of {len(a)} + {len(b)} values")
        return best

    def _input(self, row: int) -> int:
        if row not in self.inputs:
            self.inputs[row] = self._new(1)
        return self.inputs[row]

    def _new(self, width: int) -> int:
        self.widths.append(width)
        return len(self.widths) - 1

    def _compare(self, a: Shifted, b: Shifted) -> tuple[Shifted, Shifted]:
        """Return minimum and maximum."""
        shift = min(a[1], b[1])
        width = max(self.widths[value] + at for value, at in (a, b)) - shift
        low, high = self._new(width), self._new(width)
        self.comparisons.append(((a[0], a[1] - shift), (b[0], b[1] - shift), low, high))
        return (low, shift), (high, shift)


def _moved(values: list[Shifted], columns: int) -> list[Shifted]:
    return [(value, shift + columns) for value, shift in values]


def _allocate(builder: _Builder, results: list[Shifted], num_inputs: int) -> Network:
    """Leave out what is not needed, and give each value a row; rows are used again once their value is read."""
    comparisons = _needed(builder.comparisons, {value for value, _ in results})
    last = {value: number for number, (a, b, _, _) in enumerate(comparisons) for value in (a[0], b[0])}
    last |= {value: len(comparisons) for value, _ in results}
    rows = {value: row for row, value in builder.inputs.items()}
    num_rows = num_inputs
    free: list[int] = []
    steps = []
    for number, (a, b, *outcomes) in enumerate(comparisons):
        kept = [value for value in outcomes if value >= 0]
        for value in kept:
            if not free:
                free.append(num_rows)
                num_rows += 1
            rows[value] = free.pop()
        further = len(builder.columns) - builder.widths[kept[0]]
        steps.append((rows[a[0]], a[1], rows[b[0]], b[1], *(rows.get(value, -1) for value in outcomes), further))
        free += [rows[value] for value in {a[0], b[0]} if last[value] == number and rows[value] >= num_inputs]
    places = [(rows[value], shift) for value, shift in results]
    return Network(
        np.array(steps, np.int64).reshape(-1, 7), np.array(places, np.int64).reshape(-1, 2), num_inputs, num_rows
    )


def _needed(comparisons: list[Comparison], needed: set[int]) -> list[Comparison]:
    """Return the comparisons that lead to the values needed, with -1 for an outcome that leads nowhere."""
    kept = []
    for a, b, low, high in reversed(comparisons):
        if low in needed or high in needed:
            kept.append((a, b, low if low in needed else -1, high if high in needed else -1))
            needed |= {a[0], b[0]}
    return kept[::-1]
