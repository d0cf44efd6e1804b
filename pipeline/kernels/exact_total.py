"""The exact sum of all numbers of an array: a total that blocks add up to, whatever they are.

Numbers are taken in batches. Within a batch, rounding each to a grid that is coarse enough for all sums of the batch
to be on it, too, gives a part that ordinary additions sum exactly; what the rounding left is again such a batch on a
finer grid (Rump, Ogita & Oishi 2008, "Accurate floating-point summation"). After two grids, what is left, of numbers
2^-80 of the batch's largest, is added one by one. Batches go to a superaccumulator (`exact_sum`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import ExactSums, add_shifted, trim
from pipeline.model.total import Total

BATCH = 1024
"""Numbers that are rounded to one grid."""
NUM_SUMS = 32
"""Sums side by side, of which the compiler makes vectors."""
_BATCH_BITS = 10
_LOW, _HIGH = -18, 18
"""Words that hold the sum of any 2^63 float64 numbers."""
_MAGNITUDE = np.int64(2**63 - 1)
_SMALLEST, _LARGEST = -850, 1000
"""Exponents of batches whose grids are of normal numbers."""


def total_of(values: np.ndarray) -> Total:
    """Return the total of the finite numbers of a C-contiguous array (row, column) of float64."""
    words = np.zeros((1, _HIGH - _LOW), np.uint64)
    count = int(_add_rows(values, (np.empty(BATCH), np.empty(NUM_SUMS)), words))
    total = trim(ExactSums(words, _LOW))
    return Total(count, total.to_integers()[0], 64 * total.low)


@kernel
def _add_rows(values: Any, buffers: Any, words: Any) -> Any:
    """Add all finite numbers to entry 0 of words, whose lowest bit is 2**(64 _LOW); return how many they are."""
    count = 0
    rest, sums = buffers
    for row in range(values.shape[0]):
        for begin in range(0, values.shape[1], BATCH):
            line = values[row, begin : min(begin + BATCH, values.shape[1])]
            count += take_finite(line, rest)
            exponent = largest_exponent(rest)
            if _SMALLEST < exponent < _LARGEST:
                for _ in range(2):
                    unit = exponent + _BATCH_BITS - 52
                    add_number(words, round_to(rest, unit, sums))
                    exponent = unit  # what is left is at most half of it
            if largest_exponent(rest) > -1023:
                for i in range(BATCH):
                    add_number(words, rest[i])
    return count


@inner
def take_finite(line: Any, rest: Any) -> Any:
    """Copy a line, 0 for what is not finite and beyond its end; return how many are finite."""
    count = 0
    for i in range(line.size):
        finite = line[i] - line[i] == 0
        rest[i] = line[i] if finite else 0.0
        count += finite
    rest[line.size :] = 0
    return count


@inner
def largest_exponent(rest: Any) -> Any:
    """Return e where all numbers are below 2**e: -1023 where all are 0, -1022 where none is a normal number."""
    bits = rest.view(np.int64)  # magnitudes are ordered as their bits, which a vectorised loop compares
    largest = np.int64(0)
    for i in range(BATCH):
        largest = max(largest, bits[i] & _MAGNITUDE)
    return (largest >> 52) - 1022 if largest else np.int64(-1023)


@inner
def round_to(rest: Any, unit: Any, sums: Any) -> Any:
    """Return the exact sum of the numbers rounded to multiples of 2**unit; `rest` becomes what that leaves of them.

    No sum of some of them needs a bit below the unit, nor more than 53: all are exact, in any order.
    """
    shift = math.ldexp(1.5, unit + 52)
    sums[:] = 0
    for first in range(0, BATCH, NUM_SUMS):
        for k in range(NUM_SUMS):
            rounded = (rest[first + k] + shift) - shift
            rest[first + k] -= rounded
            sums[k] += rounded
    total = 0.0
    for k in range(NUM_SUMS):
        total += sums[k]
    return total


@inner
def add_number(words: Any, value: Any) -> None:
    if value != 0:
        mantissa, exponent = math.frexp(value)
        add_shifted(words, 0, np.int64(math.ldexp(mantissa, 53)), exponent - 53 - 64 * _LOW)
