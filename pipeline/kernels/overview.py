"""Levels of a pyramid: each pixel stands for 2 x 2 pixels of the level above, at an edge for 2 or 1.

A level is made of the *state* of the level above, not of its pixels, so that nothing is rounded twice. The pixel of
level k at (i, j) stands for rows i 2^k to (i + 1) 2^k and columns j 2^k to (j + 1) 2^k, as far as the raster goes:

- **average**: the sum of its valid pixels over their number, in float64, rounded once to the dtype (integers half to
  even; a mean that would be the nodata value takes the next number on its side). The sum is that of the four below it,
  (upper left + lower left) + (upper right + lower right), whatever the blocks.
- **min**, **max**: of its valid pixels.
- **nearest**: the upper left pixel, valid or not.
- **mode**: the most frequent of the four modes below it, of valid ones; of equally frequent ones the first row by row.

A pixel without a valid one below it is nodata. Arrays are in the dims of a raster; `axis` is that of its rows, and
columns follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.model.raster import Number, is_nan

Resampling = Literal["average", "nearest", "mode", "min", "max"]
State = tuple[np.ndarray, ...]
"""What a level is made of: sums and counts, or values and which of them are valid, or values alone."""
STRIP_BYTES = 2**19
"""Of pixels in float64 that are summed at once: the processor's own memory holds them."""


@dataclass(frozen=True)
class Overview:
    """How levels of one raster are made."""

    resampling: Resampling
    dtype: np.dtype
    nodata: Number | None
    """The value of invalid pixels; NaN is invalid in floating point besides."""
    axis: int

    def state_bytes(self, num_values: int) -> int:
        """Return the bytes of a state of so many values."""
        per_value = {"average": 16, "nearest": self.dtype.itemsize}.get(self.resampling, self.dtype.itemsize + 1)
        return num_values * per_value

    def room(self, shape: tuple[int, ...], take: Callable[[str, int], np.ndarray] | None = None) -> State:
        """Return room for a state: fresh, or of the bytes that are taken under a name."""
        values = np.dtype(np.float64) if self.resampling == "average" else self.dtype
        dtypes = {"average": (values, values), "nearest": (values,)}.get(self.resampling, (values, np.dtype(bool)))
        if take is None:
            return tuple(np.empty(shape, dtype) for dtype in dtypes)
        size = math.prod(shape)
        return tuple(
            take(str(part), size * dtype.itemsize).view(dtype).reshape(shape) for part, dtype in enumerate(dtypes)
        )

    def first(self, values: np.ndarray, out: State) -> None:
        """Make the state of level 1 of pixels as they are stored: of level 0."""
        if self.resampling == "nearest":
            np.copyto(out[0], self._part(values, 0, 0))
        elif self.resampling == "average":
            self._first_sums(values, *out)
        else:
            is_valid = self.is_valid(values)
            self.halve((values, np.ones(values.shape, bool) if is_valid is None else is_valid), out)

    def _first_sums(self, values: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> None:
        """Make sums and counts of pixels, some rows at once, which stay near the processor."""
        rows = max(1, self._strip_rows(values) // 2)
        counts[...] = self._sizes(values)
        for top in range(0, sums.shape[self.axis], rows):
            strip = self._rows(values, 2 * top, 2 * (top + rows))
            is_valid = self.is_valid(strip)
            exact = strip.astype(np.float64, order="C")
            if is_valid is not None:
                exact[~is_valid] = 0
                self._sum(is_valid.view(np.uint8), self._rows(counts, top, top + rows))
            self._sum(exact, self._rows(sums, top, top + rows))

    def _sizes(self, values: np.ndarray) -> np.ndarray:
        """Return how many pixels each of the next level stands for: 4, at an edge 2 or 1."""
        height, width = (
            np.minimum(2, size - np.arange(0, size, 2)) for size in values.shape[self.axis : self.axis + 2]
        )
        sizes: np.ndarray = np.multiply.outer(height, width)
        return sizes if self.axis or values.ndim == 2 else sizes[..., np.newaxis]

    def halve(self, state: State, out: State) -> None:
        """Make the state of the level below this one."""
        if self.resampling == "average":
            for part, target in zip(state, out, strict=True):
                self._sum(part, target)
        elif self.resampling == "nearest":
            np.copyto(out[0], self._part(state[0], 0, 0))
        elif self.resampling == "mode":
            self._mode(state, out)
        else:
            choose = np.minimum if self.resampling == "min" else np.maximum
            values, is_valid = state
            for axis in (self.axis, self.axis + 1):
                values, is_valid = _extreme(choose, values, is_valid, axis)
            np.copyto(out[0], values)
            np.copyto(out[1], is_valid)

    def pixels(self, state: State) -> np.ndarray:
        """Return the pixels of a level as they are stored."""
        if self.resampling == "nearest":
            return state[0]
        if self.resampling != "average":
            values, is_valid = state
            return values if is_valid.all() else np.where(is_valid, values, self.dtype.type(self._nodata()))
        pixels, rows = np.empty(state[0].shape, self.dtype), self._strip_rows(state[0])
        for top in range(0, pixels.shape[self.axis], rows):
            sums, counts = (self._rows(part, top, top + rows) for part in state)
            self._rows(pixels, top, top + rows)[...] = self._means(sums, counts)
        return pixels

    def _means(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        empty = counts == 0
        is_any_empty = bool(empty.any())
        with np.errstate(invalid="ignore", over="ignore"):
            means = sums / np.maximum(counts, 1) if is_any_empty else sums / counts
            values = means.astype(self.dtype) if self.dtype.kind == "f" else _to_integers(means, self.dtype)
        if self.nodata is not None:
            values = self._beside(values, means)
            if is_any_empty:
                values[empty] = self.nodata
        elif is_any_empty:
            values[empty] = math.nan
        return values

    def _strip_rows(self, values: np.ndarray) -> int:
        """Return how many rows of float64 stay near the processor."""
        return max(1, STRIP_BYTES * int(values.shape[self.axis]) // (8 * values.size))

    def _nodata(self) -> Number:
        return math.nan if self.nodata is None else self.nodata

    def is_valid(self, values: np.ndarray) -> np.ndarray | None:
        """Return which pixels are valid; None: all of them."""
        found = np.isnan(values) if self.dtype.kind == "f" else None
        if self.nodata is not None and not is_nan(self.nodata):
            is_nodata = values == self.dtype.type(self.nodata)
            found = is_nodata if found is None else found | is_nodata
        return None if found is None or not found.any() else ~found

    def _beside(self, values: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Return values of which none is the nodata value: those take the next one, on the side of the mean."""
        if self.nodata is None:
            return values
        nodata = self.dtype.type(self.nodata)
        clash = values == nodata
        if clash.any():
            above, below = _next(nodata, +1), _next(nodata, -1)
            values[clash] = np.where(means[clash] < self.nodata, below, above)
        return values

    def _rows(self, values: np.ndarray, first: int, stop: int) -> np.ndarray:
        return values[(slice(None),) * self.axis + (slice(first, stop),)]

    def _part(self, values: np.ndarray, row: int, column: int) -> np.ndarray:
        return values[(slice(None),) * self.axis + (slice(row, None, 2), slice(column, None, 2))]

    def _sum(self, values: np.ndarray, out: np.ndarray) -> None:
        """Make the sums of every 2 x 2; at an edge of 2 or 1."""
        with np.errstate(invalid="ignore"):  # infinities of both signs have no sum
            rows = _paired(values, self.axis)
            _paired(rows, self.axis + 1, out)

    def _mode(self, state: State, out: State) -> None:
        """Make the most frequent of each 2 x 2, and whether one of them is valid."""
        values, is_valid = state
        best, votes = out[0], np.zeros(out[0].shape, np.int8)
        fours, valid = np.zeros((4, *best.shape), self.dtype), np.zeros((4, *best.shape), bool)
        for i, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            part = self._part(values, row, column)
            inside = tuple(slice(0, n) for n in part.shape)
            fours[i][inside], valid[i][inside] = part, self._part(is_valid, row, column)
        np.copyto(best, fours[0])
        for i in range(4):
            found = sum((valid[j] & (fours[j] == fours[i])).astype(np.int8) for j in range(4)) * valid[i]
            is_more = found > votes
            best[is_more] = fours[i][is_more]
            votes = np.maximum(votes, found)
        np.copyto(out[1], votes > 0)


def _paired(values: np.ndarray, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    """Return the sums of every two neighbours along an axis; the last of an odd number stays alone."""
    before = (slice(None),) * axis
    first, second = values[(*before, slice(0, None, 2))], values[(*before, slice(1, None, 2))]
    if first.shape == second.shape:
        summed: np.ndarray = np.add(first, second, out=out)
        return summed
    result = np.empty(first.shape, values.dtype) if out is None else out
    pairs = (*before, slice(0, second.shape[axis]))
    np.copyto(result, first)
    np.add(result[pairs], second, out=result[pairs])
    return result


def _extreme(
    choose: Callable[..., np.ndarray], values: np.ndarray, is_valid: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the extremes of every two neighbours along an axis, of valid ones, and where there is one."""
    before = (slice(None),) * axis
    first, second = (slice(0, None, 2), slice(1, None, 2))
    result, is_any = values[(*before, first)].copy(), is_valid[(*before, first)].copy()
    other, is_other = values[(*before, second)], is_valid[(*before, second)]
    pairs = (*before, slice(0, other.shape[axis]))
    chosen = np.where(is_any[pairs], choose(result[pairs], other), other)
    result[pairs] = np.where(is_other, chosen, result[pairs])
    is_any[pairs] |= is_other
    return result, is_any


def _to_integers(means: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return means rounded half to even; 2^63 and 2^64, to which float64 rounds the largest ones, as the largest."""
    rounded: np.ndarray = np.rint(means)
    values: np.ndarray = rounded.astype(dtype)
    if dtype.itemsize == 8:
        most = np.iinfo(dtype).max
        values[rounded >= float(most)] = most
    return values


def _next(value: Any, step: int) -> Any:
    """Return the next number above or below; at the end of the range the one on the other side."""
    dtype = value.dtype
    if dtype.kind == "f":
        found = np.nextafter(value, dtype.type(step * math.inf))
        return found if np.isfinite(found) else np.nextafter(value, dtype.type(-step * math.inf))
    limits = np.iinfo(dtype)
    number = int(value) + step
    return dtype.type(number if limits.min <= number <= limits.max else int(value) - step)
