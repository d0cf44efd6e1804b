"""Values as integer digits, so that their sums and the sums of their squares are exact.

A value is ``(low + high * 2**40) * 2**unit``: floating-point values are scaled by a power of two so that no bit of a
slab's values is below 1, integers have unit 0. 8 and 16-bit integers are one digit and their squares too; *narrow*
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

SMALL, NARROW, WIDE = 1, 2, 4
"""How values are split: one digit for value and square, 40 bits, 80 bits."""
NUM_SUMS = {SMALL: 1, NARROW: 1, WIDE: 2}
NUM_SQUARES = {SMALL: 1, NARROW: 3, WIDE: 7}
SUM_SHIFTS = (0, 40)
SQUARE_SHIFTS = tuple(range(0, 140, 20))
MOST_PIXELS = {SMALL: 1 << 30, NARROW: 1 << 22, WIDE: 1 << 20}
"""Pixels that the digits can take before they are carried over: no digit then reaches 2^63. A slab has fewer."""
SPAN = {SMALL: 32, NARROW: 39, WIDE: 79}
"""Bits above the unit that a value may have."""
NO_BITS = (1 << 20, -(1 << 20))
"""Lowest and highest bit of zeros."""


@inner
def gather(line: Any, lanes: Any, num: Any, out: Any) -> None:
    for c in range(num):
        out[c] = line[c * lanes]


@inner
def mark_usable(line: Any, valid: Any, source: Any, usable: Any) -> Any:
    """Write which values are finite and not masked; return whether all are."""
    all_valid = True
    for c in range(line.size):
        usable[c] = line[c] - line[c] == 0
    if valid.size:
        plane, row, start, lanes = source
        mask = valid[plane, row, start : start + (line.size - 1) * lanes + 1]
        for c in range(line.size):
            usable[c] &= mask[c * lanes]
    for c in range(line.size):
        all_valid &= usable[c] != 0
    return all_valid


@inner
def split_values(line: Any, split: Any, unsigned: Any, scale: Any, low: Any, high: Any) -> Any:
    """Write the digits of values; return whether all are finite and fit (the digits of others have no meaning)."""
    if line.dtype.type(0.5) == 0:
        split_integers(line, split, unsigned, low, high)
        return True
    inverse = 1 / scale
    misfit = False
    if split == WIDE:
        for c in range(line.size):
            value = np.float64(line[c])
            scaled = value * scale
            large = np.rint(scaled * 2.0**-40)
            small = np.int64(scaled - large * 2.0**40)
            high[c] = np.int64(large)
            low[c] = small
            # rounded at most where the digits do not hold the value
            misfit |= ((large * 2.0**40 + np.float64(small)) * inverse != value) | (abs(large) > 2.0**39)
    else:
        for c in range(line.size):
            value = np.float64(line[c])
            scaled = value * scale
            whole = np.int64(scaled)
            low[c] = whole
            misfit |= (np.float64(whole) * inverse != value) | (abs(scaled) > 2.0**39)
    return not misfit


@inner
def all_fit(line: Any, usable: Any, split: Any, scale: Any) -> Any:
    """Whether all usable values have digits at this scale."""
    fitting = True
    for c in range(line.size):
        narrow = split == WIDE or abs(np.float64(line[c]) * scale) <= 2.0**39
        whole = split == WIDE or np.rint(np.float64(line[c]) * scale) == np.float64(line[c]) * scale
        fitting &= usable[c] == 0 or (narrow and whole and fits(line[c], scale))
    return fitting


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
def fits(value: Any, scale: Any) -> Any:
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
def widen_bits(values: Any, where: Any, runs: Any, band: Any, bits: Any) -> None:
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


@kernel
def shift_digits(sums: Any, squares: Any, band: Any, shift: Any) -> Any:
    """Let a band's digits count units of ``2**-shift``; return whether they can, nothing is changed if not.

    They leave a bit for the sign and as much again as digits take before they are carried over.
    """
    bits = np.int64(0)
    for slot in range(sums.shape[0]):
        for digit in range(sums.shape[2]):
            value = sums[slot, band, digit]
            bits |= value ^ (value >> np.int64(63))
    square_bits = np.int64(0)
    for slot in range(squares.shape[0]):
        for digit in range(squares.shape[2]):
            value = squares[slot, band, digit]
            square_bits |= value ^ (value >> np.int64(63))
    if shift < 0 or shift > 30 or bits >> np.int64(60 - shift) != 0 or square_bits >> np.int64(60 - 2 * shift) != 0:
        return False
    for slot in range(sums.shape[0]):
        for digit in range(sums.shape[2]):
            sums[slot, band, digit] <<= shift
    for slot in range(squares.shape[0]):
        for digit in range(squares.shape[2]):
            squares[slot, band, digit] <<= 2 * shift
    return True


@inner
def trailing_zeros(whole: Any) -> Any:
    """Return how many of the lowest bits of an integer other than 0 are not set."""
    return np.int64(math.frexp(np.float64(whole & -whole))[1]) - 1


@inner
def integer_parts(value: Any) -> Any:
    """Return (whole, exponent): a finite value is whole x 2**exponent, whole an int64 of at most 53 bits."""
    mantissa, exponent = math.frexp(value)
    return np.int64(mantissa * 2.0**53), np.int64(exponent) - 53
