"""Exact sums of value x row and of value x column by label and band, of which weighted centroids are made.

A value is a whole number times a power of two, and so is its product with a coordinate; both go into words of
`exact_sum`, so no bit depends on the blocks. Where the values of a region fit 40 bits beside each other, as most do,
a run's values are summed first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_quotient import to_float
from pipeline.kernels.exact_sum import ExactSums, add_shifted, reorder
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_digits import integer_parts, trailing_zeros
from pipeline.kernels.label_runs import with_room
from pipeline.kernels.label_sums import Where
from pipeline.kernels.label_width import width_of

AXES = 2
"""Sums of each label and band: of value x row, of value x column."""
_MOST_BITS = 40
"""Of values that are summed by runs: times a run's columns, twice, they fit 62 bits."""
_UNITS = (-1000, 900)
"""Units by which values can be scaled without overflow."""
_SMALLEST = 2.0**-960
"""Below, a quotient of numbers that were rounded would have lost digits."""
_NO_MASK = np.ones((1, 1, 0), bool)
"""A part of its one row is empty."""


class MomentSums:
    """Sums (slot, band, axis) of the values of planes times their coordinates in the raster."""

    def __init__(self, values: np.ndarray, valid: np.ndarray | None, patch: Patch) -> None:
        span = width_of(values, patch)
        width = span.moments
        is_short = values.dtype.kind == "f" and span.highest - span.lowest <= _MOST_BITS
        self._by_runs = values.dtype.kind != "f" or (is_short and _UNITS[0] < span.lowest < _UNITS[1])
        self._unit = span.lowest
        self._values, self._valid = values, _NO_MASK if valid is None else valid
        self._where, self._origin = Where(*patch.values_at, patch.lanes), patch.origin
        self._low, self._group = width.low, len(values) * patch.lanes * AXES
        self._words = np.zeros((0, self._group, width.num_words), np.uint64)

    def add(self, runs: np.ndarray, num: int) -> None:
        """Add what lies under runs, which use the first `num` slots."""
        self._words = with_room(self._words, num)
        words = self._words.reshape(-1, self._words.shape[2])
        unit = (self._unit, math.ldexp(1.0, -self._unit) if self._by_runs else 0.0, self._low)
        _add_moments(self._values, self._valid, self._where, runs, self._origin, unit, words)

    def result(self, order: np.ndarray) -> ExactSums:
        words = self._words.reshape(-1, self._words.shape[2])
        return reorder(ExactSums(words, self._low), order, self._group)


def weighted_centroids(moments: ExactSums, sums: ExactSums) -> np.ndarray:
    """Return sums of products over sums, by entry of `sums` and axis; NaN where the sum is 0.

    Both are rounded to float64 before they are divided, or divided exactly where one is beyond its range.
    """
    products, totals = to_float(moments).reshape(-1, AXES), to_float(sums)[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.where(totals != 0, products / totals, np.nan)
    beyond = np.isinf(products).any(axis=1) | np.isinf(totals[:, 0])
    rest = beyond | (np.abs(totals[:, 0]) < _SMALLEST)
    for entry in np.flatnonzero(rest).tolist():
        divisor = ExactSums(sums.words[entry : entry + 1]).to_integers()[0]
        parts = ExactSums(moments.words[AXES * entry : AXES * (entry + 1)]).to_integers()
        for axis, part in enumerate(parts):
            found[entry, axis] = _quotient(part, divisor, 64 * (moments.low - sums.low))
    return found


def _quotient(part: int, divisor: int, shift: int) -> float:
    if divisor == 0:
        return math.nan
    try:
        return part / divisor if not shift else (part << max(shift, 0)) / (divisor << max(-shift, 0))
    except OverflowError:
        return math.copysign(math.inf, part) * math.copysign(1, divisor)


@kernel
def _add_moments(values: Any, valid: Any, where: Any, runs: Any, origin: Any, unit: Any, words: Any) -> None:
    top, left, lanes = where
    lowest, scale, low = unit
    bands, masked = values.shape[0] * lanes, np.int64(valid.size > 0)
    for r in range(runs.shape[0]):
        row, column = np.int64(runs[r, 0]) + origin[0], np.int64(runs[r, 1]) + origin[1]
        first = (left + runs[r, 1]) * lanes
        last = first + runs[r, 2] * lanes
        for band in range(bands):
            plane, line = band // lanes, top + runs[r, 0]
            entry = AXES * (np.int64(runs[r, 3]) * bands + band)
            numbers = values[plane, line, first + band % lanes : last]
            mask = valid[plane * masked, line * masked, first + band % lanes : last]
            if values.dtype.type(0.5) == 0:
                add_integers(numbers, mask, lanes, row, column, words, entry)
            elif scale > 0:
                add_short(numbers, mask, lanes, row, column, scale, words, entry, lowest - 64 * low)
            else:
                add_any(numbers, mask, lanes, row, column, words, entry, low)


@inner
def add_integers(numbers: Any, mask: Any, lanes: Any, row: Any, column: Any, words: Any, entry: Any) -> None:
    """Add the lower and the higher 32 bits of a run's integers."""
    low, high, low_moment, high_moment = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    unsigned = numbers.dtype.type(-1) > 0
    for c in range((numbers.size + lanes - 1) // lanes):
        if mask.size == 0 or mask[c * lanes]:
            value = np.int64(numbers[c * lanes])
            small = value & np.int64(0xFFFFFFFF)
            large = np.int64(np.uint64(value) >> np.uint64(32)) if unsigned else value >> np.int64(32)
            low += small
            high += large
            low_moment += c * small
            high_moment += c * large
    add_run(words, entry, row, column, low, low_moment, 0)
    add_run(words, entry, row, column, high, high_moment, 32)


@inner
def add_short(
    numbers: Any, mask: Any, lanes: Any, row: Any, column: Any, scale: Any, words: Any, entry: Any, shift: Any
) -> None:
    """Add the finite numbers of a run, whole numbers once they are scaled."""
    total, moment = np.int64(0), np.int64(0)
    for c in range((numbers.size + lanes - 1) // lanes):
        value = numbers[c * lanes]
        if (mask.size == 0 or mask[c * lanes]) and value - value == 0:
            whole = np.int64(np.float64(value) * scale)
            total += whole
            moment += c * whole
    add_run(words, entry, row, column, total, moment, shift)


@inner
def add_any(numbers: Any, mask: Any, lanes: Any, row: Any, column: Any, words: Any, entry: Any, low: Any) -> None:
    """Add the finite numbers of a run one by one."""
    for c in range((numbers.size + lanes - 1) // lanes):
        value = np.float64(numbers[c * lanes])
        if (mask.size == 0 or mask[c * lanes]) and value - value == 0 and value != 0:
            whole, exponent = integer_parts(value)
            zeros = trailing_zeros(whole)  # the words reach down to the lowest bit that is set
            shift = exponent + zeros - 64 * low
            add_run(words, entry, row, column + c, whole >> zeros, np.int64(0), shift)


@inner
def add_run(words: Any, entry: Any, row: Any, column: Any, total: Any, moment: Any, shift: Any) -> None:
    """Add a total x row, and the total x column + moment of the run's own columns, in units of 2**shift."""
    add_product(words, entry, total, row, shift)
    add_product(words, entry + 1, total, column, shift)
    add_shifted(words, entry + 1, moment, shift)


@inner
def add_product(words: Any, entry: Any, number: Any, coordinate: Any, shift: Any) -> None:
    """Add a product of an int64 and a coordinate below 2^30."""
    add_shifted(words, entry, (number & np.int64(0xFFFFFFFF)) * coordinate, shift)
    add_shifted(words, entry, (number >> np.int64(32)) * coordinate, shift + 32)
