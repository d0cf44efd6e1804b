"""Polygons as pixels: which pixels of a part of a raster lie in them.

Each decision is made of an edge's own two ends and a row's or a column's whole number, never of where the part begins:
parts fit together to the bit, and neighbours that share an edge share no pixel and leave none between them.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.kernels.compile import inner, kernel

CROSSED, TOUCHED = np.uint8(1), np.uint8(2)


@kernel
def burn(
    edges: np.ndarray,
    starts: np.ndarray,
    values: np.ndarray,
    chosen: np.ndarray,
    corner: tuple[int, int],
    out: np.ndarray,
    all_touched: bool,
) -> None:
    """Write the values of polygons into the pixels that lie in them, later ones over earlier ones.

    Parameters
    ----------
    edges
        (edge, 4) float64: column and row of the upper end, then of the lower one, in pixels of the raster; whole
        numbers are edges of pixels. Those of a polygon, holes and parts included, stand together in any order.
    starts
        The first edge of each polygon, and at the end how many there are.
    values
        int64 or float64, of each polygon.
    chosen
        The polygons to write, in this order.
    corner
        Row and column of the raster where `out` begins.
    out
        (row, column) of the dtype of the values.
    all_touched
        Pixels whose inside meets the polygon; else those whose centre lies in it, where a centre on an edge belongs
        to what lies to the right of the edge, on a horizontal one to what lies below it.
    """
    marks = np.zeros((out.shape[0], out.shape[1] + 1), np.uint8)
    _burn(edges, starts, values, chosen, corner, out, all_touched, marks)


@inner
def _burn(
    edges: np.ndarray,
    starts: np.ndarray,
    values: np.ndarray,
    chosen: np.ndarray,
    corner: tuple[int, int],
    out: np.ndarray,
    all_touched: bool,
    marks: np.ndarray,
) -> None:
    height, width = out.shape
    for polygon in chosen:
        upper, lower, left, right = height, 0, width, 0
        for i in range(starts[polygon], starts[polygon + 1]):
            edge = edges[i, 0], edges[i, 1], edges[i, 2], edges[i, 3]
            first, last = rows_of(edge, corner[0], height, all_touched)
            if first >= last:
                continue
            upper, lower = min(upper, first), max(lower, last)
            for row in range(first, last):
                begin, end = _cross(edge, row, corner, width, marks)
                left, right = min(left, begin), max(right, end)
                if all_touched:
                    begin, end = _touch(edge, row, corner, width, marks)
                    left, right = min(left, begin), max(right, end)
        for row in range(upper, lower):
            inside = np.uint8(0)
            for column in range(left, min(right, width)):
                mark = marks[row, column]
                inside ^= mark & CROSSED
                if inside | (mark & TOUCHED):
                    out[row, column] = values[polygon]
                marks[row, column] = 0
            marks[row, width] = 0


@inner
def within(value: float, most: int) -> int:
    """Return a whole number, no less than 0 and no more than the most."""
    return int(min(max(value, 0.0), float(most)))


@inner
def rows_of(edge: tuple[float, float, float, float], top: int, height: int, all_touched: bool) -> tuple[int, int]:
    """Return the rows that an edge may cross, counted from the top: the first, and the one behind the last."""
    if all_touched:
        return within(math.floor(edge[1]) - top, height), within(math.ceil(edge[3]) - top, height)
    return within(math.ceil(edge[1] - 0.5) - top, height), within(math.ceil(edge[3] - 0.5) - top, height)


@inner
def column_at(edge: tuple[float, float, float, float], y: float) -> float:
    """Return where an edge is at a height between those of its ends."""
    x0, y0, x1, y1 = edge
    if y <= y0:
        return x0
    if y >= y1:
        return x1
    return min(max(x0 + (y - y0) * (x1 - x0) / (y1 - y0), min(x0, x1)), max(x0, x1))


@inner
def _cross(
    edge: tuple[float, float, float, float], row: int, corner: tuple[int, int], width: int, marks: np.ndarray
) -> tuple[int, int]:
    """Mark the first pixel of a row whose centre is not left of an edge, where that crosses the line of the centres.

    Return it, and the one behind it.
    """
    if not is_crossed(edge, corner[0] + row):
        return width, 0
    column = within(crossing(edge, corner[0] + row) - corner[1], width)
    marks[row, column] ^= CROSSED
    return column, column + 1


@inner
def is_crossed(edge: tuple[float, float, float, float], row: int) -> bool:
    """Return whether an edge crosses the line of the centres of a row of the raster."""
    return edge[1] <= row + 0.5 and row + 0.5 < edge[3]


@inner
def crossing(edge: tuple[float, float, float, float], row: int) -> float:
    """Return the first column of the raster whose centre is not left of an edge in a row."""
    return math.ceil(column_at(edge, row + 0.5) - 0.5)


@inner
def _touch(
    edge: tuple[float, float, float, float], row: int, corner: tuple[int, int], width: int, marks: np.ndarray
) -> tuple[int, int]:
    """Mark the pixels of a row through whose inside an edge passes; return the first, and the one behind the last."""
    low, high = touched(edge, corner[0] + row)
    first, end = within(low - corner[1], width), within(high - corner[1], width)
    for column in range(first, end):
        marks[row, column] |= TOUCHED
    return (first, end) if first < end else (width, 0)


@inner
def touched(edge: tuple[float, float, float, float], row: int) -> tuple[float, float]:
    """Return the columns of the raster through whose inside an edge passes in a row: the first, and that behind."""
    a, b = column_at(edge, float(row)), column_at(edge, row + 1.0)
    if edge[1] == edge[3]:
        a, b = edge[0], edge[2]
    return math.floor(min(a, b)), math.ceil(max(a, b))


def compile_burn() -> None:
    """Compile the kernel."""
    for dtype in (np.int64, np.float64):
        values, place = np.zeros(1, dtype), np.zeros(2, np.int64)
        burn(np.zeros((1, 4)), place, values, place[:0], (0, 0), np.zeros((1, 1), dtype), False)
