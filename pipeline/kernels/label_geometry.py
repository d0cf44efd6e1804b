"""Where the pixels of each label lie: exact sums of coordinates and of their products, boxes, and shapes made of them.

A tally is (label, 12) int64: sums of rows and of columns, first and last row, first and last column; then the sums of
row^2, column^2 and row x column as two numbers each, what is left of 2^32 and how many times 2^32, which are exact for
rasters of up to `MOST_ROWS` rows and columns. Tallies merge to the same bits in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel

PLACES = ("centroid", "bbox")
SHAPES = ("area", "major_axis", "minor_axis", "orientation", "eccentricity", "equivalent_diameter")
GEOMETRY = (*PLACES, *SHAPES)
"""By label: mean row and column; first and last row, first and last column; shapes as scikit-image's regionprops."""
MOST_ROWS = 2**26
"""Beyond, products of the coordinates of a run of pixels do not fit 64 bits."""
_ROWS, _COLUMNS, _TOP, _BOTTOM, _LEFT, _RIGHT, _MOMENTS = range(7)
_LOW_BITS = 32
_AT_ONCE = 4096
"""Labels whose moments are computed at a time: whole numbers of any size are objects."""


def empty_tally(num: int) -> np.ndarray:
    """Return the tally of so many labels without pixels."""
    tally = np.zeros((num, _MOMENTS + 6), np.int64)
    tally[:, [_TOP, _LEFT]] = np.iinfo(np.int64).max
    tally[:, [_BOTTOM, _RIGHT]] = -1
    return tally


@kernel
def tally_runs(runs: Any, origin: Any, pixels: Any, tally: Any) -> None:
    """Add runs (row, column, pixels, slot) to the pixels of their slots, and to the tally unless it is empty."""
    for r in range(runs.shape[0]):
        pixels[runs[r, 3]] += runs[r, 2]
    for r in range(runs.shape[0] if tally.size else 0):
        row, column = np.int64(runs[r, 0]) + origin[0], np.int64(runs[r, 1]) + origin[1]
        num = np.int64(runs[r, 2])
        entry = tally[runs[r, 3]]
        steps = num * (num - 1) // 2
        columns = column * num + steps
        entry[0] += row * num
        entry[1] += columns
        entry[2] = min(entry[2], row)
        entry[3] = max(entry[3], row)
        entry[4] = min(entry[4], column)
        entry[5] = max(entry[5], column + num - 1)
        add_wide(entry, 6, row * row * num)
        add_wide(entry, 8, column * (columns + steps) + steps * (2 * num - 1) // 3)
        add_wide(entry, 10, row * columns)


@inner
def add_wide(entry: Any, at: Any, number: Any) -> None:
    entry[at] += number & np.int64(0xFFFFFFFF)
    entry[at + 1] += number >> np.int64(32)


def carried(tally: np.ndarray) -> np.ndarray:
    """Return a tally whose low numbers are below 2^32, so that equal sums have equal bits."""
    low, high = tally[:, _MOMENTS::2], tally[:, _MOMENTS + 1 :: 2]
    high += low >> _LOW_BITS
    low &= 2**_LOW_BITS - 1
    return tally


def merge_tallies(parts: list[np.ndarray | None], places: list[np.ndarray], num: int) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    merged = empty_tally(num)
    for part, place in zip(known, places, strict=True):
        for sums in (slice(_ROWS, _COLUMNS + 1), slice(_MOMENTS, None)):
            merged[place, sums] += part[:, sums]
        for column, ufunc in ((_TOP, np.minimum), (_BOTTOM, np.maximum), (_LEFT, np.minimum), (_RIGHT, np.maximum)):
            merged[place, column] = ufunc(merged[place, column], part[:, column])
    return carried(merged)


def geometry_columns(
    tally: np.ndarray, pixels: np.ndarray, names: Iterable[str], sides: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Return the geometry by label: `sides` are the height and width of a pixel, which shapes are measured in.

    Centroids are rows and columns, boxes int64; shapes are float64, of moments that are exact until they are divided.
    """
    names, columns = set(names), {}
    if "centroid" in names:
        columns["centroid"] = tally[:, :_TOP] / pixels[:, None]
    if "bbox" in names:
        columns["bbox"] = tally[:, _TOP:_MOMENTS]
    if names & set(SHAPES):
        columns |= _shapes(tally, pixels, sides)
    return {name: column for name, column in columns.items() if name in names}


def _shapes(tally: np.ndarray, pixels: np.ndarray, sides: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return what an ellipse with the same second moments has: whole numbers of any size, then floating point."""
    height, width = sides
    area = pixels * (height * width)
    down, across, along, determinant = _central_moments(tally, pixels)
    down, across, along = down * height**2, across * width**2, along * (height * width)
    half = np.hypot((down - across) / 2, along)  # of the difference of the roots
    large = (down + across) / 2 + half
    with np.errstate(invalid="ignore", divide="ignore"):
        # by the exact determinant: a difference of the roots would lose the digits of thin shapes
        small = np.where(large > 0, np.minimum(determinant * (height * width) ** 2 / large, large), 0.0)
        eccentricity = np.where(large > 0, np.sqrt(np.minimum(2 * half / large, 1)), 0.0)
    tilted = np.where(along > 0, math.pi / 4, -math.pi / 4)
    return {
        "area": area,
        "major_axis": 4 * np.sqrt(large),
        "minor_axis": 4 * np.sqrt(small),
        "orientation": np.where(down == across, tilted, 0.5 * np.arctan2(2 * along, down - across)),
        "eccentricity": eccentricity,
        "equivalent_diameter": np.sqrt(4 * area / math.pi),
    }


def _central_moments(tally: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the variances of rows and columns, their covariance, and the determinant of these; each rounded once."""
    moments = np.empty((4, len(pixels)))
    for first in range(0, len(pixels), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        moments[:, part] = _exact_moments(tally[part], pixels[part])
    return moments


def _exact_moments(tally: np.ndarray, pixels: np.ndarray) -> list[np.ndarray]:
    exact = tally.astype(object)
    num, rows, columns = pixels.astype(object), exact[:, _ROWS], exact[:, _COLUMNS]
    squares = [exact[:, at] + exact[:, at + 1] * 2**_LOW_BITS for at in range(_MOMENTS, _MOMENTS + 6, 2)]
    products = (rows * rows, columns * columns, rows * columns)
    down, across, along = (num * square - product for square, product in zip(squares, products, strict=True))
    numerators = (down, across, along, down * across - along * along)
    divisors = (num**2, num**2, num**2, num**4)
    return [(n / d).astype(np.float64) for n, d in zip(numerators, divisors, strict=True)]
