"""Number, extremes, mean and variance of the valid pixels of each band, merged part by part.

Sums are made in an order that the shape of a part alone gives.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from pipeline.kernels.overview import Overview

STRIP_VALUES = 2**16
"""Of a tile at once: the processor's own memory holds them."""
FEW = 64
"""Pixels of all bands that are summed one after the other."""


class Statistics(NamedTuple):
    """Of each band; extremes in the dtype of the pixels, of bands without a valid pixel of no meaning."""

    number: np.ndarray
    """Of valid pixels."""
    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    """The sum of the squares of what pixels differ from the mean."""

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of the population."""
        deviations: np.ndarray = np.sqrt(self.squares / np.maximum(self.number, 1))
        return deviations


def of_pixels(values: np.ndarray, overview: Overview, num_bands: int) -> Statistics:
    """Return the statistics of a tile, in the dims of the raster; `num_bands` are those of the whole raster."""
    axis = overview.axis
    rows = max(1, STRIP_VALUES // (values.shape[axis + 1] * num_bands))
    strips = (values[(slice(None),) * axis + (slice(top, top + rows),)] for top in range(0, values.shape[axis], rows))
    return reduce(merge, (_of_strip(strip, overview) for strip in strips))


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Return the statistics of two parts together (Chan, Golub, LeVeque 1983)."""
    number = a.number + b.number
    share = b.number / np.maximum(number, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = np.where((a.number > 0) & (b.number > 0), b.mean - a.mean, 0.0)
        mean = np.where(a.number > 0, a.mean + delta * share, b.mean)
        squares = a.squares + b.squares + delta * delta * (a.number * share)
    minimum = np.where(a.number == 0, b.minimum, np.where(b.number == 0, a.minimum, np.minimum(a.minimum, b.minimum)))
    maximum = np.where(a.number == 0, b.maximum, np.where(b.number == 0, a.maximum, np.maximum(a.maximum, b.maximum)))
    return Statistics(number, minimum, maximum, mean, squares)


def _of_strip(strip: np.ndarray, overview: Overview) -> Statistics:
    values = _flat(strip, overview.axis)
    along = 1 if overview.axis or strip.ndim == 2 else 0
    is_valid = overview.is_valid(values)
    exact = values.astype(np.float64)
    lowest = highest = values
    if is_valid is None:
        number = np.full(values.shape[1 - along], values.shape[along])
    else:
        number = is_valid.sum(axis=along)
        exact[~is_valid] = 0
        info = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
        lowest, highest = np.where(is_valid, values, info.max), np.where(is_valid, values, info.min)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = _combine(np.add, exact, along) / np.maximum(number, 1)
        exact -= np.expand_dims(mean, along)
        if is_valid is not None:
            exact[~is_valid] = 0
        np.square(exact, out=exact)
        squares = _combine(np.add, exact, along)
    return Statistics(number, _combine(np.minimum, lowest, along), _combine(np.maximum, highest, along), mean, squares)


def _flat(strip: np.ndarray, axis: int) -> np.ndarray:
    """Return a strip as (band, pixel) where bands come first or there is one, else as (pixel, band)."""
    whole = np.ascontiguousarray(strip)
    if strip.ndim == 2:
        return whole.reshape(1, -1)
    return whole.reshape(len(strip), -1) if axis else whole.reshape(-1, strip.shape[2])


def _combine(operation: np.ufunc, values: np.ndarray, along: int) -> np.ndarray:
    """Return the sum, or an extreme, of each band: halves upon each other, which is fast and keeps sums exact."""
    while not along and len(values) > FEW:
        half = len(values) // 2
        folded = operation(values[:half], values[half : 2 * half])
        if len(values) % 2:
            folded[0] = operation(folded[0], values[-1])
        values = folded
    result: np.ndarray = operation.reduce(values, axis=along)
    return result
