"""Integer geometry of rasters: regions, halos, and the block grid of a pass.

Everything is in raster coordinates: row and column of a pixel of the raster, counted from its upper left corner.
A coordinate may be negative or beyond the raster: that is a halo that reaches over the raster's edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Halo:
    """Rows and columns that a block needs around it."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __add__(self, other: Halo) -> Halo:
        """Return the halo of a chain: first one operation, then the other."""
        return Halo(self.top + other.top, self.bottom + other.bottom, self.left + other.left, self.right + other.right)

    def __or__(self, other: Halo) -> Halo:
        """Return the smallest halo that holds both."""
        return Halo(
            max(self.top, other.top),
            max(self.bottom, other.bottom),
            max(self.left, other.left),
            max(self.right, other.right),
        )

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)

    @classmethod
    def around(cls, rows: int, columns: int) -> Halo:
        """Return a halo of `rows` above and below and `columns` left and right."""
        return cls(rows, rows, columns, columns)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of rows ``[top, bottom)`` and columns ``[left, right)``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def num_pixels(self) -> int:
        return max(0, self.height) * max(0, self.width)

    def grow(self, halo: Halo) -> Region:
        """Return the region with a halo around it, clipped by nothing."""
        return Region(self.top - halo.top, self.bottom + halo.bottom, self.left - halo.left, self.right + halo.right)

    def clip(self, other: Region) -> Region:
        """Return the part inside `other`; empty, at a corner of `other`, if there is none."""
        top, left = min(max(self.top, other.top), other.bottom), min(max(self.left, other.left), other.right)
        return Region(
            top,
            max(top, min(self.bottom, other.bottom)),
            left,
            max(left, min(self.right, other.right)),
        )

    def hull(self, other: Region) -> Region:
        """Return the smallest region that holds both."""
        return Region(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def contains(self, other: Region) -> bool:
        return (
            self.top <= other.top
            and other.bottom <= self.bottom
            and self.left <= other.left
            and other.right <= self.right
        )

    def halves(self) -> tuple[Region, Region]:
        """Return the upper and the lower half; of a single row, the left and the right one."""
        if self.height > 1:
            middle = (self.top + self.bottom) // 2
            return replace(self, bottom=middle), replace(self, top=middle)
        middle = (self.left + self.right) // 2
        return replace(self, right=middle), replace(self, left=middle)

    def shift(self, rows: int, columns: int) -> Region:
        return Region(self.top + rows, self.bottom + rows, self.left + columns, self.right + columns)

    def slices(self, origin: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Return the row and column slices into an array whose first pixel lies at `origin`.

        Examples
        --------
        >>> Region(10, 20, 30, 50).slices(origin=(10, 25))
        (slice(0, 10, None), slice(5, 25, None))
        """
        row, column = origin
        return slice(self.top - row, self.bottom - row), slice(self.left - column, self.right - column)

    def __str__(self) -> str:
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"


def wrap_pieces(region: Region, height: int, width: int) -> Iterator[tuple[Region, Region]]:
    """Split a region of the periodic plane into pairs (piece of the region, the raster's region it repeats).

    Every pixel of `region` is in exactly one piece.

    Examples
    --------
    >>> [(str(piece), str(source)) for piece, source in wrap_pieces(Region(-1, 1, 0, 2), 4, 2)]
    [('rows -1:0, columns 0:2', 'rows 3:4, columns 0:2'), ('rows 0:1, columns 0:2', 'rows 0:1, columns 0:2')]
    """
    for top, bottom, row in _wrap_spans(region.top, region.bottom, height):
        for left, right, column in _wrap_spans(region.left, region.right, width):
            piece = Region(top, bottom, left, right)
            yield piece, Region(row, row + piece.height, column, column + piece.width)


def _wrap_spans(start: int, stop: int, length: int) -> Iterator[tuple[int, int, int]]:
    while start < stop:
        source = start % length
        end = min(stop, start + length - source)
        yield start, end, source
        start = end


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis cut into intervals of `step`; a last interval shorter than `shortest` joins its neighbour.

    Invariant: the intervals cover ``[start, stop)``, each coordinate exactly once, and all of them start at
    ``start + k * step``, so that a step of whole chunks gives intervals of whole chunks.
    """

    start: int
    stop: int
    step: int
    shortest: int = 1

    def __len__(self) -> int:
        length = self.stop - self.start
        count = -(-length // self.step)
        if count > 1 and length - (count - 1) * self.step < self.shortest:
            count -= 1
        return max(1, count)

    def interval(self, index: int) -> tuple[int, int]:
        first = self.start + index * self.step
        return first, self.stop if index == len(self) - 1 else first + self.step

    def locate(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of intervals that meet coordinates ``[first, last)``."""
        top = len(self) - 1
        low = min(top, max(0, (first - self.start) // self.step))
        high = min(top, max(0, (last - 1 - self.start) // self.step))
        return low, high + 1

    @property
    def longest(self) -> int:
        last = self.interval(len(self) - 1)
        return max(min(self.step, self.stop - self.start), last[1] - last[0])

    @property
    def thinnest(self) -> int:
        last = self.interval(len(self) - 1)
        return min(self.step, last[1] - last[0])


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of a pass, in the order in which they are computed.

    The order is row by row within panels of `panel` block columns: what a block reads around it was then read
    by neighbours not long ago, and a cache of a few rows of one panel holds it.
    """

    rows: Axis
    columns: Axis
    panel: int

    @property
    def region(self) -> Region:
        return Region(self.rows.start, self.rows.stop, self.columns.start, self.columns.stop)

    @property
    def largest(self) -> tuple[int, int]:
        """The height and width that no block exceeds."""
        return self.rows.longest, self.columns.longest

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def position(self, number: int) -> tuple[int, int]:
        """Return the block row and block column of the block with this number."""
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        num_rows, num_columns = len(self.rows), len(self.columns)
        panel, rest = divmod(number, self.panel * num_rows)
        first = panel * self.panel
        row, column = divmod(rest, min(self.panel, num_columns - first))
        return row, first + column

    def number(self, row: int, column: int) -> int:
        """Return the number of the block at a block row and block column."""
        first = column // self.panel * self.panel
        width = min(self.panel, len(self.columns) - first)
        return first * len(self.rows) + row * width + column - first

    def panel_of(self, number: int) -> tuple[int, int]:
        """Return the first block column of a block's panel, and the one after its last."""
        first = self.position(number)[1] // self.panel * self.panel
        return first, min(first + self.panel, len(self.columns))

    def block(self, number: int) -> Region:
        row, column = self.position(number)
        return Region(*self.rows.interval(row), *self.columns.interval(column))
