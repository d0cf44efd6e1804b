"""Finite differences of first and second order, and what follows from them: any subset from one read.

All arrays are "planes" (plane, row, column x lanes), C-contiguous, of one floating-point dtype. For a pixel with the
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
>>> rows, columns = np.mgrid[0:3, 0:3].astype(float)
>>> values = (rows**2 + 5 * columns)[np.newaxis]
>>> out = {name: (np.empty((1, 1, 1)), (1, 1)) for name in ("dy", "dx", "dyy", "magnitude")}
>>> differences(values, out, Frame(region=(1, 2, 1, 2), origin=(0, 0)))
>>> {name: round(float(array[0, 0, 0]), 6) for name, (array, _) in out.items()}
{'dy': 2.0, 'dx': 5.0, 'dyy': 2.0, 'magnitude': 5.385165}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from pipeline.kernels.extreme import Extent, Growth, Target, mend
from pipeline.kernels.window_sum import scratch
from pipeline.model.region import Halo, Region

FIRST = ("dy", "dx", "magnitude", "direction")
SECOND = ("dyy", "dxy", "dxx", "laplacian", "determinant", "eigen_large", "eigen_small")
OUTPUTS = FIRST + SECOND

GROWTH = Growth(dict.fromkeys(OUTPUTS, 1) | {"direction": 0, "determinant": 2})

STRIP = 8192
"""Elements of the strips that rows are cut into: three rows of input and five of output fit the second-level cache."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where to differentiate, in raster coordinates, and how."""

    region: tuple[int, int, int, int]
    """Pixels to compute: top, bottom, left, right. `values` holds what `reach` says around it."""
    origin: tuple[int, int]
    """Raster row and column of ``values[:, 0, 0]``."""
    lanes: int = 1
    """Neighbouring elements that belong to one pixel."""
    spacing: tuple[float, float] = (1.0, 1.0)
    """Distance of neighbouring pixels along y and x."""
    straight_rows: tuple[int, int] = (-1, -1)
    """Raster rows at which the raster goes on in a straight line: there dyy is 0, though its ghost row is rounded."""
    straight_columns: tuple[int, int] = (-1, -1)
    """Raster columns at which dxx is 0 for the same reason."""


def reach(names: Iterable[str]) -> tuple[int, int]:
    """Return the rows and the columns around a pixel that these outputs read.

    Examples
    --------
    >>> reach(["dy"]), reach(["dxx"]), reach(["dy", "magnitude"])
    ((1, 0), (0, 1), (1, 1))
    """
    wanted = set(names)
    return int(not wanted <= {"dx", "dxx"}), int(not wanted <= {"dy", "dyy"})


def differences(values: np.ndarray, out: Mapping[str, Target], frame: Frame) -> None:
    """Fill any of `OUTPUTS` over the frame's region, in one sweep over the rows of `values`.

    All arrays have one dtype, float32 or float64. The outputs of a gradient and of a Hessian may come together.
    Nothing overflows on the way to a result that does not.
    """
    _differences(values, out, frame)

    def again(values: np.ndarray, targets: Mapping[str, Target], extent: Extent, factor: float) -> None:
        region = extent.region
        sides = (region.top, region.bottom, region.left, region.right)
        _differences(values, targets, replace(frame, region=sides, origin=extent.origin))

    top, bottom, left, right = frame.region
    extent = Extent(Region(top, bottom, left, right), frame.origin, Halo.around(*reach(out)), frame.lanes)
    mend(again, values, out, extent, GROWTH)


def _differences(values: np.ndarray, out: Mapping[str, Target], frame: Frame) -> None:
    top, bottom, left, right = frame.region
    row, column = frame.origin
    unused = np.empty((0, 0, 0), values.dtype), (top, left)
    targets = [out.get(name, unused) for name in OUTPUTS]
    sy, sx = frame.spacing
    difference_rows(
        values,
        tuple(array for array, _ in targets),
        tuple((top - origin[0], (left - origin[1]) * frame.lanes) for _, origin in targets),
        (top - row, (left - column) * frame.lanes, bottom - top, (right - left) * frame.lanes),
        (*reach(out), frame.lanes),
        (2.0 * sy, 2.0 * sx, sy * sy, 4.0 * sy * sx, sx * sx),
        tuple(at - top for at in frame.straight_rows),
        tuple((at - left) * frame.lanes for at in frame.straight_columns),
    )


def scratch_bytes(width: int, lanes: int) -> int:
    """Return a bound of what `differences` allocates for a region of this width: a row of each derivative."""
    return (5 * (min(width * lanes, STRIP) + 512) + 64) * 8


@kernel
def difference_rows(
    values: Any, outs: Any, starts: Any, place: Any, around: Any, divisors: Any, rows_0: Any, columns_0: Any
) -> None:
    """Fill the arrays of `outs`, those that are not empty, in the order of `OUTPUTS`.

    `starts` are the row and element of `outs` at which the region begins, `place` those of `values` and the rows and
    elements of the region. Derivatives that nobody wants, or that only others are made of, go to rows in the cache:
    one loop that writes several streams is faster than one loop a stream.
    """
    first, begin, num_rows, length = place
    up, side, lanes = around[0], around[1] * around[2], around[2]
    needs_first, needs_second = wants(outs, 0, 4), wants(outs, 4, 11)
    spare = scratch(5, min(length, STRIP), values.dtype)
    for plane in range(values.shape[0]):
        for left in range(0, length, STRIP):
            num = min(STRIP, length - left)
            start, stop = begin + left - side, begin + left + num + side
            for row in range(num_rows):
                at = (plane, row, left, num)
                above = values[plane, first + row - up, start:stop]
                level = values[plane, first + row, start:stop]
                below = values[plane, first + row + up, start:stop]
                if needs_first:
                    dy, dx = target(outs[0], starts[0], at, spare[0]), target(outs[1], starts[1], at, spare[1])
                    first_order(above, level, below, side, divisors, dy, dx)
                    derive_first(dy, dx, outs, starts, at)
                if needs_second:
                    dyy, dxy = target(outs[4], starts[4], at, spare[2]), target(outs[5], starts[5], at, spare[3])
                    dxx = target(outs[6], starts[6], at, spare[4])
                    second_order(above, level, below, side, divisors, dyy, dxy, dxx)
                    if row == rows_0[0] or row == rows_0[1]:
                        straighten(dyy, 0 * left, num)
                    for column in columns_0:
                        straighten(dxx, column - left, lanes)
                    derive_second(dyy, dxy, dxx, outs, starts, at, spare)


@inner
def wants(outs: Any, begin: Any, end: Any) -> bool:
    """Whether any of these outputs is wanted."""
    found = False
    for k in range(begin, end):
        found |= outs[k].size > 0
    return found


@owning
def target(out: Any, start: Any, at: Any, spare: Any) -> Any:
    """Return the part of a row of an output that is computed now, or of a spare row if nobody wants the output."""
    return part(out, start, at) if out.size else spare[: at[3]]


@owning
def part(out: Any, start: Any, at: Any) -> Any:
    plane, row, left, num = at
    return out[plane, start[0] + row, start[1] + left : start[1] + left + num]


@inner
def straighten(out: Any, first: Any, num: Any) -> None:
    """Set the valid ones of these elements to 0, as far as they are in the row."""
    for c in range(max(first, 0), min(first + num, out.size)):
        out[c] = 0 if out[c] == out[c] else out[c]


@owning
def derive_first(dy: Any, dx: Any, outs: Any, starts: Any, at: Any) -> None:
    if outs[2].size:
        magnitudes(dy, dx, part(outs[2], starts[2], at))
    if outs[3].size:
        directions(dy, dx, part(outs[3], starts[3], at))


@owning
def derive_second(dyy: Any, dxy: Any, dxx: Any, outs: Any, starts: Any, at: Any, spare: Any) -> None:
    if outs[7].size:
        laplacians(dyy, dxx, part(outs[7], starts[7], at))
    if outs[8].size:
        determinants(dyy, dxy, dxx, part(outs[8], starts[8], at))
    if outs[9].size + outs[10].size:  # the spare rows of dy and dx are free again
        large, small = target(outs[9], starts[9], at, spare[0]), target(outs[10], starts[10], at, spare[1])
        eigenvalues(dyy, dxy, dxx, large, small)
