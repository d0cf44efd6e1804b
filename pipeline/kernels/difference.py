"""Finite differences of first and second order, and what follows from them: any subset from one read.

Arrays are planes (`pipeline.kernels.frame`) of one floating-point dtype. For a pixel with the
neighbours up, down, left and right and the spacings sy and sx:

    dy  = (down - up) / (2 sy)                        dx  = (right - left) / (2 sx)
    dyy = ((down - centre) - (centre - up)) / sy^2    dxx = ((right - centre) - (centre - left)) / sx^2
    dxy = ((down right - down left) - (up right - up left)) / (4 sy sx)

These are differenced in float64 and rounded once. Differences of neighbours first: on smooth rasters they are exact,
however large the offset. `magnitude`, `direction`, `laplacian`, `determinant`, `eigen_large` and `eigen_small` are
computed in float64 from the five as rounded, so they agree with what is stored.

The support of an output is its stencil and the pixel itself: where it holds NaN or inf, the output is NaN, and nowhere
else. A pixel's result depends on its neighbours alone, to the bit: not on the block, the lanes or the other outputs.

Examples
--------
>>> import numpy as np
>>> from pipeline.model.region import Region
>>> rows, columns = np.mgrid[0:3, 0:3].astype(float)
>>> values = (rows**2 + 5 * columns)[np.newaxis]
>>> out = {name: np.empty((1, 1, 1)) for name in ("dy", "dx", "dyy", "magnitude")}
>>> differences(values, out, Frame(Region(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1)), Spacings())
>>> {name: round(float(array[0, 0, 0]), 6) for name, array in out.items()}
{'dy': 2.0, 'dx': 5.0, 'dyy': 2.0, 'magnitude': 5.385165}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel, owning
from pipeline.kernels.difference_row import (
    determinants,
    directions,
    eigenvalues,
    first_order,
    laplacians,
    magnitudes,
    second_order,
)
from pipeline.kernels.extreme import Growth, mend
from pipeline.kernels.frame import Frame, Line
from pipeline.kernels.window_part import scratch
from pipeline.model.region import Halo

FIRST = ("dy", "dx", "magnitude", "direction")
SECOND = ("dyy", "dxy", "dxx", "laplacian", "determinant", "eigen_large", "eigen_small")
OUTPUTS = FIRST + SECOND

GROWTH = Growth(dict.fromkeys(OUTPUTS, 1) | {"direction": 0, "determinant": 2})

STRIP_ELEMENTS = 8192
"""Of the strips that rows are cut into: three rows of input and five of output fit the second-level cache."""


@dataclass(frozen=True, slots=True)
class Spacings:
    """Distances of neighbouring pixels, and where pixels beyond the edge lie on a line."""

    y: float = 1.0
    x: float = 1.0
    straight_rows: tuple[int, int] = (-1, -1)
    """Raster rows at which the raster goes on in a straight line: there dyy is 0, though its ghost row is rounded."""
    straight_columns: tuple[int, int] = (-1, -1)
    """Raster columns at which dxx is 0 for the same reason."""


class Stencil(NamedTuple):
    """What a derivative reads, and what it is divided by, for kernels."""

    up: int
    """Rows above and below that are read: 0 or 1."""
    side: int
    """Elements left and right: 0, or the lanes."""
    lanes: int
    by_y: float
    """2 sy, and so on: the divisors of dy, dx, dyy, dxy and dxx."""
    by_x: float
    by_yy: float
    by_xy: float
    by_xx: float
    straight_rows: tuple[int, int]
    """Rows of the region at which dyy is 0."""
    straight_columns: tuple[int, int]
    """Elements from which on `lanes` of them have a dxx of 0."""


def reach(names: Iterable[str]) -> tuple[int, int]:
    """Return the rows and the columns around a pixel that these outputs read.

    Examples
    --------
    >>> reach(["dy"]), reach(["dxx"]), reach(["dy", "magnitude"])
    ((1, 0), (0, 1), (1, 1))
    """
    wanted = set(names)
    return int(not wanted <= {"dx", "dxx"}), int(not wanted <= {"dy", "dyy"})


def differences(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, spacing: Spacings) -> None:
    """Fill any of `OUTPUTS` over the frame's region, in one sweep over the rows of `values`.

    All arrays have one dtype, float32 or float64. The outputs of a gradient and of a Hessian may come together.
    Nothing overflows on the way to a result that does not.
    """
    _differences(values, out, frame, spacing)

    def again(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, factor: float) -> None:
        _differences(values, out, frame, spacing)

    mend(again, values, out, frame, Halo.around(*reach(out)), GROWTH)


def _differences(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, spacing: Spacings) -> None:
    unused = np.empty((0, 0, 0), values.dtype)
    rows, columns = reach(out)
    sy, sx, lanes = spacing.y, spacing.x, frame.lanes
    stencil = Stencil(
        rows,
        columns * lanes,
        lanes,
        2.0 * sy,
        2.0 * sx,
        sy * sy,
        4.0 * sy * sx,
        sx * sx,
        (spacing.straight_rows[0] - frame.region.top, spacing.straight_rows[1] - frame.region.top),
        (
            (spacing.straight_columns[0] - frame.region.left) * lanes,
            (spacing.straight_columns[1] - frame.region.left) * lanes,
        ),
    )
    difference_rows(values, tuple(out.get(name, unused) for name in OUTPUTS), frame.place(), stencil)


def scratch_bytes(width: int, lanes: int) -> int:
    """Return a bound of what `differences` allocates for a region of this width: a row of each derivative."""
    return (5 * (min(width * lanes, STRIP_ELEMENTS) + 512) + 64) * 8


@kernel
def difference_rows(values: Any, outs: Any, place: Any, stencil: Any) -> None:
    """Fill the arrays of `outs`, those that are not empty, in the order of `OUTPUTS`.

    Derivatives that nobody wants, or that only others are made of, go to rows in the cache: one loop that writes
    several streams is faster than one loop a stream.
    """
    up, side = stencil.up, stencil.side
    needs_first, needs_second = wants(outs, 0, 4), wants(outs, 4, 11)
    spare = scratch(5, min(place.num, STRIP_ELEMENTS), values.dtype)
    for plane in range(values.shape[0]):
        for left in range(0, place.num, STRIP_ELEMENTS):
            num = min(STRIP_ELEMENTS, place.num - left)
            start, stop = place.left + left - side, place.left + left + num + side
            for row in range(place.num_rows):
                line = Line(plane, place.out_top + row, place.out_left + left, num)
                above = values[plane, place.top + row - up, start:stop]
                level = values[plane, place.top + row, start:stop]
                below = values[plane, place.top + row + up, start:stop]
                if needs_first:
                    dy, dx = part_or(outs[0], line, spare[0]), part_or(outs[1], line, spare[1])
                    first_order(above, level, below, stencil, dy, dx)
                    derive_first(dy, dx, outs, line)
                if needs_second:
                    dyy, dxy = part_or(outs[4], line, spare[2]), part_or(outs[5], line, spare[3])
                    dxx = part_or(outs[6], line, spare[4])
                    second_order(above, level, below, stencil, dyy, dxy, dxx)
                    if row == stencil.straight_rows[0] or row == stencil.straight_rows[1]:
                        straighten(dyy, 0 * left, num)
                    for column in stencil.straight_columns:
                        straighten(dxx, column - left, stencil.lanes)
                    derive_second(dyy, dxy, dxx, outs, line, spare)


@inner
def wants(outs: Any, begin: Any, end: Any) -> bool:
    """Whether any of these outputs is wanted."""
    found = False
    for k in range(begin, end):
        found |= outs[k].size > 0
    return found


@owning
def part_or(out: Any, line: Any, spare: Any) -> Any:
    """Return the part of a row of an output that is computed now, or of a spare row if nobody wants the output."""
    return part(out, line) if out.size else spare[: line.num]


@owning
def part(out: Any, line: Any) -> Any:
    return out[line.plane, line.row, line.left : line.left + line.num]


@inner
def straighten(out: Any, first: Any, num: Any) -> None:
    """Set the valid ones of these elements to 0, as far as they are in the row."""
    for c in range(max(first, 0), min(first + num, out.size)):
        out[c] = 0 if out[c] == out[c] else out[c]


@owning
def derive_first(dy: Any, dx: Any, outs: Any, line: Any) -> None:
    if outs[2].size:
        magnitudes(dy, dx, part(outs[2], line))
    if outs[3].size:
        directions(dy, dx, part(outs[3], line))


@owning
def derive_second(dyy: Any, dxy: Any, dxx: Any, outs: Any, line: Any, spare: Any) -> None:
    if outs[7].size:
        laplacians(dyy, dxx, part(outs[7], line))
    if outs[8].size:
        determinants(dyy, dxy, dxx, part(outs[8], line))
    if outs[9].size + outs[10].size:  # the spare rows of dy and dx are free again
        large, small = part_or(outs[9], line, spare[0]), part_or(outs[10], line, spare[1])
        eigenvalues(dyy, dxy, dxx, large, small)
