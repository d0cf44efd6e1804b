"""Polygons as shares of pixels: which part of each pixel's area lies in them.

An edge cuts a pixel in what lies left of it and what lies right; what lies right, over the heights that the edge spans
there, is added where the polygon lies on that side, and taken off where it does not (signed areas, as renderers of
fonts accumulate them). Heights and areas are whole multiples of 2^-52 of a pixel, so that no order of the edges and no
block changes a bit, and a pixel within a polygon has a share of exactly 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.polygon import column_at, rows_of, within

UNIT = 2**52
"""Of a whole pixel."""
LEAST = 2**12
"""Shares below this, 2^-40, are what rounding leaves, and count as none."""
VALUE, SHARE, SUM = 0, 1, 2


class Outlines(NamedTuple):
    """Polygons: `edges` and `starts` are those of `polygon.burn`."""

    edges: Any
    sides: Any
    """int8, of each edge: 1 where the polygon lies to the right of it, -1 where to the left."""
    starts: Any


@kernel
def burn_shares(
    outlines: Outlines, values: np.ndarray, chosen: np.ndarray, corner: tuple[int, int], out: np.ndarray, what: int
) -> None:
    """Write polygons into the pixels of which they have a share, later ones over earlier ones.

    `values`, `chosen`, `corner` and `out` are those of `polygon.burn`. `what` is written: VALUE, the SHARE (0 to 1), or
    the SUM of the shares, as `out` has it, in this order.
    """
    work = np.zeros((out.shape[0], out.shape[1] + 1), np.int64)
    _burn(outlines, values, chosen, corner, out, what, work)


@inner
def _burn(outlines: Any, values: Any, chosen: Any, corner: Any, out: Any, what: Any, work: Any) -> None:
    height, width = out.shape
    edges, sides, starts = outlines
    for polygon in chosen:
        upper, lower, begin, end = height, 0, width, 0
        for i in range(starts[polygon], starts[polygon + 1]):
            edge = edges[i, 0], edges[i, 1], edges[i, 2], edges[i, 3]
            first, last = rows_of(edge, corner[0], height, True)
            if first >= last:
                continue
            upper, lower = min(upper, first), max(lower, last)
            begin = min(begin, within(math.floor(min(edge[0], edge[2])) - corner[1], width))
            end = max(end, within(math.floor(max(edge[0], edge[2])) + 1 - corner[1], width))
            for row in range(first, last):
                _add_edge(edge, np.int64(sides[i]), corner[0] + row, corner[1], work[row])
        for row in range(upper, lower):
            total = np.int64(0)
            for column in range(begin, width):
                if column >= end and total == 0:
                    break
                total += work[row, column]
                work[row, column] = 0
                if total >= LEAST:
                    share = min(total, UNIT) / UNIT
                    if what == VALUE:
                        out[row, column] = values[polygon]
                    elif what == SHARE:
                        out[row, column] = share
                    else:
                        out[row, column] += share
            work[row, end] = 0
            work[row, width] = 0


@inner
def _add_edge(edge: Any, side: Any, row: Any, left: Any, line: Any) -> None:
    """Add what lies right of an edge in a row of the raster to areas of pixels from a column on.

    Those of a pixel are its own and all before it. What lies left of the first column counts there.
    """
    top, bottom = max(edge[1], float(row)), min(edge[3], row + 1.0)
    x0, x1 = column_at(edge, top), column_at(edge, bottom)
    h0, h1 = _height(top - row), _height(bottom - row)
    if x0 > x1:
        x0, x1, h0, h1 = x1, x0, h1, h0
    x, h = x0, h0
    if x < left:
        following = _height_at(x0, x1, h0, h1, float(left))
        line[0] += side * abs(following - h)
        x, h = float(left), following
    column = int(min(math.floor(x), left + line.size - 1.0))
    while column < left + line.size - 1 and (column <= x1) and h != h1:
        end = min(x1, column + 1.0)
        following = _height_at(x0, x1, h0, h1, column + 1.0)
        whole = abs(following - h)
        area = np.int64(np.rint(whole * (1.0 - ((x - column) + (end - column)) * 0.5)))
        line[column - left] += side * area
        line[column - left + 1] += side * (whole - area)
        x, h = end, following
        column += 1


@inner
def _height(y: Any) -> Any:
    return np.int64(np.rint(y * UNIT))


@inner
def _height_at(x0: Any, x1: Any, h0: Any, h1: Any, x: Any) -> Any:
    """Return the height at a column of what goes from (x0, h0) to (x1, h1), to the right or upright."""
    if x >= x1:
        return h1
    return h0 + np.int64(np.rint((x - x0) / (x1 - x0) * np.float64(h1 - h0)))


def compile_burn_shares() -> None:
    """Compile the kernel."""
    outlines = Outlines(np.zeros((1, 4)), np.zeros(1, np.int8), np.zeros(2, np.int64))
    for dtype in (np.int64, np.float64):
        values = np.zeros(1, dtype)
        burn_shares(outlines, values, np.zeros(0, np.int64), (0, 0), np.zeros((1, 1), dtype), VALUE)
