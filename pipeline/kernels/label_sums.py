"""Statistics of the values under runs of labels: digits of `label_digits`, summed by slot and band."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import add_shifted
from pipeline.kernels.label_digits import (
    NARROW,
    SMALL,
    WIDE,
    all_fit,
    clear,
    drop_outliers,
    fits,
    gather,
    integer_parts,
    mark_usable,
    split_values,
    trailing_zeros,
)
from pipeline.kernels.label_runs import RUN


class Where(NamedTuple):
    """Where runs lie in planes of values."""

    row: int
    """Of the runs' row 0."""
    column: int
    lanes: int


class Digits(NamedTuple):
    """How values become digits."""

    split: int
    unsigned: bool
    outliers: Any
    """By band: whether values that do not fit are left out."""
    scales: Any
    """By band: 2**-unit."""


class RunBuffers(NamedTuple):
    """What the values of a stretch of runs are split in."""

    low: Any
    high: Any
    usable: Any
    values: Any


class Totals(NamedTuple):
    """What is known of the slots, by band; of the last four, empty ones are not computed."""

    found_invalid: Any
    """One number: whether any value is invalid."""
    invalid: Any
    sums: Any
    """(slot, band, digit), as squares."""
    squares: Any
    lowest: Any
    highest: Any


@kernel
def add_slab(values: Any, valid: Any, where: Any, runs: Any, start: Any, digits: Any, buffers: Any, totals: Any) -> Any:
    """Add what lies under the runs, from a run and a band on; return the run and band where values do not fit.

    At the end all runs are done: (number of runs, 0). `values` and `valid` (empty: none) are planes.
    """
    first, first_band = start
    while first < runs.shape[0]:
        last, end = end_of_stretch(runs, first)
        num = end - runs[first, 1]
        for band in range(first_band, digits.scales.size):
            if not add_stretch(values, valid, where, num, runs[first:last], band, digits, buffers, totals):
                return first, band
        first, first_band = last, 0
    return first, 0


@inner
def end_of_stretch(runs: Any, first: Any) -> Any:
    """Return the end of neighbouring runs that are short enough together, and the column where they end."""
    end = runs[first, 1] + runs[first, 2]
    last = first + 1
    while last < runs.shape[0] and runs[last, 0] == runs[first, 0] and runs[last, 1] == end:
        if end + runs[last, 2] - runs[first, 1] > RUN:
            break
        end += runs[last, 2]
        last += 1
    return last, end


@inner
def add_stretch(
    values: Any,
    valid: Any,
    where: Any,
    num: Any,
    runs: Any,
    band: Any,
    digits: Any,
    buffers: Any,
    totals: Any,
) -> Any:
    """Add one band under neighbouring runs of one row, `num` pixels, or nothing if a value does not fit."""
    row, lanes, split, scale = where.row + runs[0, 0], where.lanes, digits.split, digits.scales[band]
    low, high, usable, gathered = buffers
    sums, squares, begin = totals.sums, totals.squares, runs[0, 1]
    start = (where.column + begin) * lanes + band % lanes
    line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
    if lanes > 1:
        gather(line, lanes, num, gathered)
        line = gathered[:num]
    fitting = sums.size > 0 and split_values(line, split, digits.unsigned, scale, low, high)
    all_valid = fitting and valid.size == 0
    if not all_valid:
        all_valid = mark_usable(line, valid, (band // lanes, row, start, lanes), usable)
    if sums.size:
        if not fitting and not digits.outliers[band] and not all_fit(line, usable, split, scale):
            return False
        if not fitting:
            drop_outliers(line, scale, low, high)
        if not all_valid:
            clear(usable, num, low, high)
        add_sums(runs, begin, band, low, sums, 0)
        if split == WIDE:
            add_sums(runs, begin, band, high, sums, 1)
    if squares.size and split == SMALL:
        add_squares_of_small(runs, begin, band, low, squares)
    elif squares.size and split == NARROW:
        add_squares_of_narrow(runs, begin, band, low, squares)
    elif squares.size:
        add_squares_of_wide(runs, begin, band, low, high, squares)
    if not all_valid:
        totals.found_invalid[0] = True
        add_invalid(runs, begin, band, usable, totals.invalid)
    if totals.lowest.size:
        add_extrema(runs, begin, band, line, usable, all_valid, totals.lowest, totals.highest)
    return True


@inner
def add_sums(runs: Any, begin: Any, band: Any, digits: Any, sums: Any, at: Any) -> None:
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        total = np.int64(0)
        for c in range(start, start + runs[r, 2]):
            total += digits[c]
        sums[runs[r, 3], band, at] += total


@inner
def add_squares_of_small(runs: Any, begin: Any, band: Any, low: Any, squares: Any) -> None:
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        total = np.int64(0)
        for c in range(start, start + runs[r, 2]):
            total += low[c] * low[c]
        squares[runs[r, 3], band, 0] += total


@inner
def add_squares_of_narrow(runs: Any, begin: Any, band: Any, low: Any, squares: Any) -> None:
    mask, bits = np.int64((1 << 20) - 1), np.int64(20)
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        s0, s1, s2 = np.int64(0), np.int64(0), np.int64(0)
        for c in range(start, start + runs[r, 2]):
            a, b = low[c] & mask, low[c] >> bits
            s0 += a * a
            s1 += a * b
            s2 += b * b
        total = squares[runs[r, 3], band]
        total[0] += s0
        total[1] += 2 * s1
        total[2] += s2


@inner
def add_squares_of_wide(runs: Any, begin: Any, band: Any, low: Any, high: Any, squares: Any) -> None:
    mask, bits = np.int64((1 << 20) - 1), np.int64(20)
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        s0, s1, s2, s3, s4, s5, s6 = 0, 0, 0, 0, 0, 0, 0
        for c in range(start, start + runs[r, 2]):
            p, q = low[c] & mask, low[c] >> bits
            u, v = high[c] & mask, high[c] >> bits
            s0 += p * p
            s1 += p * q
            s2 += q * q + 2 * p * u
            s3 += p * v + q * u
            s4 += u * u + 2 * q * v
            s5 += u * v
            s6 += v * v
        total = squares[runs[r, 3], band]
        total[0] += s0
        total[1] += 2 * s1
        total[2] += s2
        total[3] += 2 * s3
        total[4] += s4
        total[5] += 2 * s5
        total[6] += s6


@inner
def add_invalid(runs: Any, begin: Any, band: Any, usable: Any, invalid: Any) -> None:
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        total = np.int64(0)
        for c in range(start, start + runs[r, 2]):
            total += 1 - usable[c]
        invalid[runs[r, 3], band] += total


@inner
def add_extrema(
    runs: Any, begin: Any, band: Any, line: Any, usable: Any, all_valid: Any, lowest: Any, highest: Any
) -> None:
    for r in range(runs.shape[0]):
        start = runs[r, 1] - begin
        small, large = lowest[runs[r, 3], band], highest[runs[r, 3], band]
        for c in range(start, start + runs[r, 2]):
            value = line[c]
            if all_valid or usable[c]:
                small = value if value < small else small
                large = value if value > large else large
        lowest[runs[r, 3], band] = small
        highest[runs[r, 3], band] = large


@kernel
def add_outliers(
    values: Any, where: Any, runs: Any, band: Any, scales: Any, sums: Any, squares: Any, sum_low: Any, square_low: Any
) -> None:
    """Add a band's finite values that do not fit to the words of sums and squares (empty: not wanted)."""
    top, left, lanes = where
    for r in range(runs.shape[0]):
        entry = np.int64(runs[r, 3]) * scales.size + band
        line = values[band // lanes, top + runs[r, 0]]
        for c in range(runs[r, 2]):
            value = line[(left + runs[r, 1] + c) * lanes + band % lanes]
            if value - value != 0 or fits(value, scales[band]):
                continue
            whole, exponent = integer_parts(np.float64(value))
            zeros = trailing_zeros(whole)  # the words reach down to the lowest bit that is set
            whole >>= zeros
            exponent += zeros
            add_shifted(sums, entry, whole, exponent - 64 * sum_low)
            if squares.size:
                add_square(squares, entry, whole, 2 * exponent - 64 * square_low)


@inner
def add_square(words: Any, entry: Any, whole: Any, shift: Any) -> None:
    whole = abs(whole)
    small, large = whole & np.int64((1 << 27) - 1), whole >> np.int64(27)
    add_shifted(words, entry, small * small, shift)
    add_shifted(words, entry, 2 * small * large, shift + 27)
    add_shifted(words, entry, large * large, shift + 54)
