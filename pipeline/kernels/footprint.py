"""The pixels of a window, relative to its centre."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Run = tuple[int, int, int]


@dataclass(frozen=True)
class Footprint:
    """Runs of pixels in rows: (row, first column, length), relative to the centre, in reading order.

    Two runs of one row do not touch, so the runs of equal footprints are equal.

    Examples
    --------
    >>> Footprint.disk((3, 5)).runs
    ((-1, 0, 1), (0, -2, 5), (1, 0, 1))
    >>> Footprint.of([[1, 0, 1]]).runs, Footprint.of([[1, 0, 1]]).reach
    (((0, -1, 1), (0, 1, 1)), (0, 0, 1, 1))
    """

    runs: tuple[Run, ...]

    @classmethod
    def rectangle(cls, size: tuple[int, int]) -> Footprint:
        rows, columns = size[0] // 2, size[1] // 2
        return cls(tuple((row, -columns, size[1]) for row in range(-rows, rows + 1)))

    @classmethod
    def disk(cls, size: tuple[int, int]) -> Footprint:
        """Return the pixels with (dy / ry)^2 + (dx / rx)^2 <= 1, reckoned in whole numbers."""
        rows, columns = size[0] // 2, size[1] // 2
        if rows == 0:
            return cls.rectangle(size)
        halves = {row: math.isqrt(columns**2 * (rows**2 - row**2)) // rows for row in range(-rows, rows + 1)}
        return cls(tuple((row, -half, 2 * half + 1) for row, half in halves.items()))

    @classmethod
    def of(cls, matrix: Sequence[Sequence[float]]) -> Footprint:
        """Return the pixels where a matrix with odd sides is not 0."""
        middle, centre = len(matrix) // 2, len(matrix[0]) // 2
        return cls(
            tuple(
                (row - middle, first - centre, length)
                for row, numbers in enumerate(matrix)
                for first, length in _runs(numbers)
            )
        )

    @cached_property
    def num_pixels(self) -> int:
        return sum(length for _, _, length in self.runs)

    @cached_property
    def reach(self) -> tuple[int, int, int, int]:
        """How far the pixels, the centre among them, lie above, below, left and right of the centre."""
        rows = [0, *(row for row, _, _ in self.runs)]
        columns = [0, *(first for _, first, _ in self.runs), *(first + length - 1 for _, first, length in self.runs)]
        return -min(rows), max(rows), -min(columns), max(columns)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of the smallest rectangle that holds the pixels and the centre."""
        above, below, left, right = self.reach
        return above + below + 1, left + right + 1

    @property
    def is_rectangle(self) -> bool:
        """Whether this is a whole rectangle about its centre."""
        above, below, left, right = self.reach
        return above == below and left == right and self.num_pixels == math.prod(self.extent)

    def fewest(self, height: int, width: int) -> int:
        """Return a bound of the pixels that are inside a raster of this size, for whatever centre inside it."""
        own = sum(row == 0 and first <= 0 < first + length for row, first, length in self.runs)
        if height < self.extent[0] or width < self.extent[1]:
            return own
        corners = ((down, right) for down in (-1, 1) for right in (-1, 1))
        return max(own, min(self._quadrant(down, right) for down, right in corners))

    def _quadrant(self, down: int, right: int) -> int:
        """Return the pixels in one quadrant, its axes included: those of a window at a corner of the raster."""
        total = 0
        for row, first, length in self.runs:
            if row * down >= 0:
                low, high = (first, first + length - 1) if right > 0 else (-(first + length - 1), -first)
                total += max(0, high - max(low, 0) + 1)
        return total

    @cached_property
    def mask(self) -> np.ndarray:
        """The pixels as (row, column), from the topmost row and the leftmost column, those of the centre among them."""
        mask = np.zeros(self.extent, bool)
        for row, first, length in self.array:
            mask[row, first : first + length] = True
        return mask

    @cached_property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The rows of the pixels of each column of the mask."""
        return tuple(tuple(np.flatnonzero(column).tolist()) for column in self.mask.T)

    @cached_property
    def array(self) -> np.ndarray:
        """The runs as (run, 3), rows and columns those of the mask."""
        above, _, left, _ = self.reach
        array: np.ndarray = np.array(self.runs, np.int64) + np.array([above, left, 0])
        return array

    @cached_property
    def rims(self) -> tuple[np.ndarray, np.ndarray]:
        """What enters and what leaves when the window moves by one pixel down, and by one to the right.

        The arrays are (pixel, enters or leaves, 2); rows and columns are those of the mask before it moves.
        """
        padded = np.pad(self.mask.astype(np.int8), ((1, 1), (0, 0)))
        change = np.diff(padded, axis=0)
        down = np.stack([np.argwhere(change == -1), np.argwhere(change == 1)], axis=1)
        rows, first, length = self.array.T
        return down, np.stack([np.stack([rows, first + length], axis=1), np.stack([rows, first], axis=1)], axis=1)


def _runs(numbers: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the first index and the length of each run of numbers that are not 0."""
    first = None
    for index, number in enumerate([*numbers, 0]):
        if number and first is None:
            first = index
        elif not number and first is not None:
            yield first, index - first
            first = None
