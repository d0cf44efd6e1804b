"""Distances to the nearest pixel that is set, up to a radius: down the columns by counting, then along the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel


def reach(radius: float, side: float) -> int:
    """Return how many pixels of this side are within a radius, by the squares that are compared."""
    num = int(radius / side)
    while (num + 1) * side * ((num + 1) * side) <= radius * radius:
        num += 1
    while num * side * (num * side) > radius * radius:
        num -= 1
    return num


def distances(inside: np.ndarray, sides: tuple[float, float], radius: float, out: np.ndarray) -> None:
    """Fill `out` (row, column) with distances to the nearest set pixel, NaN beyond the radius.

    The square of a distance is (rows x height)^2 + (columns x width)^2 in float64, the least of those within the
    radius: the same number whatever lies around.

    Parameters
    ----------
    inside
        Which pixels are set; of `out` and, on each side, `reach` rows and columns more.
    sides
        Height and width of a pixel.
    """
    rows, columns = (reach(radius, side) for side in sides)
    down = np.append(_squares(rows, sides[0]), np.inf)
    across = _squares(columns, sides[1])
    nearest = np.empty((out.shape[0], inside.shape[1]), np.int32)
    _count_rows(inside, rows, np.empty(inside.shape[1], np.int32), nearest)
    _fill(nearest, down, across, radius * radius, out)


def scratch_bytes(shape: tuple[int, int], columns: int) -> int:
    """Return what `distances` allocates for a block of this shape."""
    return 4 * (shape[0] + 1) * (shape[1] + 2 * columns)


def _squares(num: int, side: float) -> np.ndarray:
    lengths = np.arange(num + 1) * side
    return lengths * lengths


@kernel
def _count_rows(inside: Any, rows: int, since: Any, nearest: Any) -> None:
    """Count how many rows the nearest set pixel of a column is away, rows + 1 for more than `rows`."""
    height, width = inside.shape
    since[:] = rows + 1
    for row in range(height):
        for column in range(width):
            since[column] = 0 if inside[row, column] else min(since[column] + 1, rows + 1)
        if rows <= row < height - rows:
            nearest[row - rows] = since
    since[:] = rows + 1
    for row in range(height - 1, rows - 1, -1):
        for column in range(width):
            since[column] = 0 if inside[row, column] else min(since[column] + 1, rows + 1)
        if row < height - rows:
            for column in range(width):
                nearest[row - rows, column] = min(nearest[row - rows, column], since[column])


@kernel
def _fill(nearest: Any, down: Any, across: Any, limit: float, out: Any) -> None:
    """Go from each pixel to both sides, until the columns alone are farther than what is found."""
    reach = across.size - 1
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            best = np.inf
            for step in range(reach + 1):
                if across[step] >= best:
                    break
                left, right = nearest[row, column + reach - step], nearest[row, column + reach + step]
                best = min(best, across[step] + down[min(left, right)])
            out[row, column] = np.sqrt(best) if best <= limit else np.nan
