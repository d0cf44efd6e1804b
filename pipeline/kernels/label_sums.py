"""Statistics of the values under runs of labels, exact: integer digits per slot and band.

A value is ``(low + high * 2**40) * 2**unit``: floating-point values are scaled by a power of two so that no bit of a
strip's values is below 1, integers have unit 0. 8 and 16-bit integers are one digit and their squares too; *narrow*
values (up to 40 bits: most float32, int32) have no high digit; *wide* ones up to 80 bits. Squares are summed from
digits of 20 bits, three sums for narrow values and seven for wide ones. Integer addition does not care for order, so
the compiler may vectorise it, and no bit depends on the block.

Floating-point values that span more than 80 bits within a band (1e-30 beside 1) are added one by one where they do
not fit (`add_outliers`), to words that reach down to their lowest bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import add_shifted
from pipeline.kernels.label_runs import RUN

SMALL, NARROW, WIDE = 1, 2, 4
"""How values are split: one digit for value and square, 40 bits, 80 bits."""
NUM_SUMS = {SMALL: 1, NARROW: 1, WIDE: 2}
NUM_SQUARES = {SMALL: 1, NARROW: 3, WIDE: 7}
SUM_SHIFTS = (0, 40)
SQUARE_SHIFTS = tuple(range(0, 140, 20))
MOST_PIXELS = {SMALL: 1 << 30, NARROW: 1 << 22, WIDE: 1 << 20}
"""Pixels that the digits can take before they are carried over: no digit then reaches 2^63."""
SPAN = {SMALL: 32, NARROW: 39, WIDE: 79}
"""Bits above the unit that a value may have."""
NO_BITS = (1 << 20, -(1 << 20))
"""Lowest and highest bit of zeros."""


@kernel
def add_strip(
    values: Any, valid: Any, where: Any, runs: Any, start: Any, kind: Any, scales: Any, buffers: Any, totals: Any
) -> Any:
    """Add what lies under the runs, from a run and a band on; return the run and band where values do not fit.

    `values` and `valid` (empty: none) are planes; `where` their first row and column and the lanes; `kind` the split,
    whether the values are unsigned, and by band whether values that do not fit are left out; `scales` 2**-unit by band.
    `buffers` are low, high, usable and one of values; `totals` are count, sums, squares (slot, band, digit), lowest, highest: those
    that are empty are not computed. At the end all runs are done: (number of runs, 0).
    """
    first, first_band = start
    while first < runs.shape[0]:
        last, end = end_of_stretch(runs, first)
        num = end - runs[first, 1]
        for band in range(first_band, scales.size):
            stretch = (runs[first, 0], runs[first, 1], num)
            if not add_stretch(values, valid, where, stretch, runs[first:last], band, kind, scales, buffers, totals):
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
    stretch: Any,
    runs: Any,
    band: Any,
    kind: Any,
    scales: Any,
    buffers: Any,
    totals: Any,
) -> bool:
    """Add one band under neighbouring runs of one row, or nothing if a value does not fit."""
    top, left, lanes = where
    row, begin, num = stretch
    split, unsigned, outliers = kind
    low, high, usable, gathered = buffers
    count, sums, squares, lowest, highest = totals
    start = (left + begin) * lanes + band % lanes
    stop = start + (num - 1) * lanes + 1
    line = values[band // lanes, top + row, start:stop]
    if lanes > 1:
        gather(line, lanes, num, gathered)
        line = gathered[:num]
    if valid.size:
        all_valid = mark_masked(valid[band // lanes, top + row, start:stop], lanes, num, usable)
    else:
        all_valid = mark_finite(line, usable)
    if sums.size:
        fitting = split_values(line, split, unsigned, scales[band], low, high)
        if not fitting and not outliers[band]:
            return False
        if not fitting:
            drop_outliers(line, scales[band], low, high)
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
    add_counts(runs, begin, band, usable, all_valid, count)
    if lowest.size:
        add_extrema(runs, begin, band, line, usable, all_valid, lowest, highest)
    return True


@inner
def gather(line: Any, lanes: Any, num: Any, out: Any) -> None:
    for c in range(num):
        out[c] = line[c * lanes]


@inner
def mark_finite(line: Any, usable: Any) -> bool:
    """Write which values are finite where not all are; return whether all are."""
    invalid = False
    for c in range(line.size):
        invalid |= line[c] - line[c] != 0
    if invalid:
        for c in range(line.size):
            usable[c] = line[c] - line[c] == 0
    return not invalid


@inner
def mark_masked(mask: Any, lanes: Any, num: Any, usable: Any) -> bool:
    invalid = False
    for c in range(num):
        usable[c] = mask[c * lanes]
        invalid |= not mask[c * lanes]
    return not invalid


@inner
def split_values(line: Any, split: Any, unsigned: Any, scale: Any, low: Any, high: Any) -> bool:
    """Write the digits of values; return whether all finite ones fit (the digits of others have no meaning)."""
    if line.dtype.type(0.5) == 0:
        split_integers(line, split, unsigned, low, high)
        return True
    misfit = False
    if split == WIDE:
        for c in range(line.size):
            scaled = np.float64(line[c]) * scale
            large = np.rint(scaled * 2.0**-40)
            small = scaled - large * 2.0**40
            high[c] = np.int64(large)
            low[c] = np.int64(small)
            whole = (np.rint(small) == small) & (abs(large) <= 2.0**39) & ((scaled != 0) | (line[c] == 0))
            misfit |= (not whole) & (line[c] - line[c] == 0)
    else:
        for c in range(line.size):
            scaled = np.float64(line[c]) * scale
            low[c] = np.int64(scaled)
            whole = (np.rint(scaled) == scaled) & (abs(scaled) <= 2.0**39) & ((scaled != 0) | (line[c] == 0))
            misfit |= (not whole) & (line[c] - line[c] == 0)
    return not misfit


@inner
def split_integers(line: Any, split: Any, unsigned: Any, low: Any, high: Any) -> None:
    if split == WIDE:
        for c in range(line.size):
            value = np.int64(line[c])
            low[c] = value & np.int64((1 << 40) - 1)
            high[c] = np.int64(np.uint64(value) >> np.uint64(40)) if unsigned else value >> np.int64(40)
    else:
        for c in range(line.size):
            low[c] = np.int64(line[c])


@inner
def clear(usable: Any, num: Any, low: Any, high: Any) -> None:
    for c in range(num):
        low[c] = low[c] if usable[c] else 0
        high[c] = high[c] if usable[c] else 0


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
def add_counts(runs: Any, begin: Any, band: Any, usable: Any, all_valid: Any, count: Any) -> None:
    for r in range(runs.shape[0]):
        if all_valid:
            count[runs[r, 3], band] += runs[r, 2]
            continue
        start = runs[r, 1] - begin
        total = np.int64(0)
        for c in range(start, start + runs[r, 2]):
            total += usable[c]
        count[runs[r, 3], band] += total


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


@inner
def fits(value: Any, scale: Any) -> bool:
    """Whether a finite value has two digits at this scale."""
    scaled = np.float64(value) * scale
    large = np.rint(scaled * 2.0**-40)
    small = scaled - large * 2.0**40
    return (np.rint(small) == small) & (abs(large) <= 2.0**39) & ((scaled != 0) | (value == 0))


@inner
def drop_outliers(line: Any, scale: Any, low: Any, high: Any) -> None:
    for c in range(line.size):
        if not fits(line[c], scale):
            low[c] = 0
            high[c] = 0


@kernel
def strip_bits(values: Any, where: Any, runs: Any, band: Any, bits: Any) -> None:
    """Widen the lowest and highest bit (exponents) to a band's finite values under the runs."""
    top, left, lanes = where
    lowest, highest = bits[0], bits[1]
    for r in range(runs.shape[0]):
        line = values[band // lanes, top + runs[r, 0]]
        for c in range(runs[r, 2]):
            value = np.float64(line[(left + runs[r, 1] + c) * lanes + band % lanes])
            if value != 0 and value - value == 0:
                whole, exponent = integer_parts(value)
                highest = max(highest, exponent + 53)
                lowest = min(lowest, exponent + trailing_zeros(whole))
    bits[0] = lowest
    bits[1] = highest


@inner
def trailing_zeros(whole: Any) -> int:
    """Return how many of the lowest bits of an integer other than 0 are not set."""
    return np.int64(math.frexp(np.float64(whole & -whole))[1]) - 1


@inner
def integer_parts(value: Any) -> Any:
    """Return (whole, exponent): a finite value is whole x 2**exponent, whole an int64 of at most 53 bits."""
    mantissa, exponent = math.frexp(value)
    return np.int64(mantissa * 2.0**53), np.int64(exponent) - 53


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
