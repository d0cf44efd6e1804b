"""Where a region lies in the arrays of a block: in raster coordinates, and in rows and elements as kernels count.

Arrays are "planes" (plane, row, column x lane), C-contiguous: the bands of ``band, y, x`` are planes, those of
``y, x, band`` are **lanes**, neighbouring elements of one pixel. One kernel serves both orders without a copy.
A **strip** is a stretch of elements of every row that a kernel goes down at a time, so that rows stay in a cache; a
**tile** is a rectangle of pixels that is computed at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.kernels.compile import inner
from pipeline.model.region import Halo, Region


class Place(NamedTuple):
    """A region in planes of values and of results, for kernels."""

    top: int
    """First row of values that is read: of the support of the region's first row."""
    left: int
    """First element of a row that is read."""
    num_rows: int
    """Rows of the region."""
    num: int
    """Elements of a row of the region."""
    out_top: int
    """The region's first row in the results."""
    out_left: int
    """Its first element there."""
    phase: int = 0
    """Where the first row lies in its group of rows, of those that begin at multiples of their number."""


class Source(NamedTuple):
    """A part of a plane that is read."""

    top: int
    left: int
    num_rows: int
    num: int


class Line(NamedTuple):
    """A part of a row of results."""

    plane: int
    row: int
    left: int
    num: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Which pixels are computed, and where they lie in the planes of values and of results, in raster coordinates."""

    region: Region
    """`values` holds as many pixels more on each side as the operation reads."""
    origin: tuple[int, int]
    """Raster row and column of ``values[:, 0, 0]``."""
    out_origin: tuple[int, int]
    """Raster row and column of the first pixel of the results, all of one extent."""
    lanes: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.region.shape

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the region's first pixel in the values."""
        return self.region.top - self.origin[0], self.region.left - self.origin[1]

    @property
    def out_offset(self) -> tuple[int, int]:
        """Row and column of the region's first pixel in the results."""
        return self.region.top - self.out_origin[0], self.region.left - self.out_origin[1]

    def place(self, above: int = 0, left: int = 0, phase: int = 0) -> Place:
        """Return the place of the region, of whose pixels each reads so many rows above and columns left of it."""
        (row, column), (out_row, out_column) = self.offset, self.out_offset
        num_rows, num_columns = self.shape
        return Place(
            row - above,
            (column - left) * self.lanes,
            num_rows,
            num_columns * self.lanes,
            out_row,
            out_column * self.lanes,
            phase,
        )

    def slices(self, halo: Halo) -> tuple[slice, slice, slice]:
        """Return what selects the region's values with a halo."""
        return _slices(self.region.grow(halo), self.origin, self.lanes)

    @property
    def out_slices(self) -> tuple[slice, slice, slice]:
        """Return what selects the region's results."""
        return _slices(self.region, self.out_origin, self.lanes)


def _slices(region: Region, origin: tuple[int, int], lanes: int) -> tuple[slice, slice, slice]:
    rows, columns = region.slices(origin)
    return slice(None), rows, slice(columns.start * lanes, columns.stop * lanes)


class Pixels(NamedTuple):
    """Pixels of a row of values, with all their lanes."""

    row: int
    column: int
    num: int
    lanes: int


class Patch(NamedTuple):
    """A region within an array of labels (row, column), or of indices, and planes of values; for kernels as well."""

    shape: tuple[int, int]
    """Rows and columns."""
    labels_at: tuple[int, int] = (0, 0)
    """Its first pixel in the labels (row, column)."""
    values_at: tuple[int, int] = (0, 0)
    """Its first pixel in the planes of values (plane, row, column x lane)."""
    lanes: int = 1
    """Neighbouring elements of the planes that belong to one pixel."""
    origin: tuple[int, int] = (0, 0)
    """Raster row and column of its first pixel."""


@inner
def num_parts(place: Any, group: Any, strip: Any) -> Any:
    """Return how many parts a place has: strips of `strip` elements, and in each groups of `group` rows."""
    return -(-(place.phase + place.num_rows) // group) * -(-place.num // strip)


@inner
def part_of(place: Any, k: Any, group: Any, strip: Any) -> Any:
    """Return part k of a place: down the first strip, then down the next. No row of it lies in another group."""
    num_groups = -(-(place.phase + place.num_rows) // group)
    start, left = k % num_groups * group - place.phase, k // num_groups * strip
    top = max(start, 0)
    return Place(
        place.top + top,
        place.left + left,
        min(start + group, place.num_rows) - top,
        min(strip, place.num - left),
        place.out_top + top,
        place.out_left + left,
        top - start,
    )
