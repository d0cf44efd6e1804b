"""Means and variances of weighted values from exact sums: quotients of whole numbers, each rounded once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pipeline.kernels.exact_sum import ExactSums

_ROOT_BITS = 128
"""Bits of the number whose root is taken: its root has more than a float64."""


def weighted_mean(sums: ExactSums, weights: ExactSums) -> np.ndarray:
    """Return sum / weight as float64, rounded once, half to even; NaN where there is no weight."""
    shift = 64 * (sums.low - weights.low)
    pairs = zip(sums.to_integers(), weights.to_integers(), strict=True)
    return np.array([_quotient(total, weight, shift) for total, weight in pairs], np.float64)


def weighted_variance(sums: ExactSums, squares: ExactSums, weights: ExactSums, root: bool) -> np.ndarray:
    """Return the population's variance (W S2 - S1^2) / W^2 as float64, or its root, rounded once; NaN without weight.

    Of equal values it is 0.
    """
    divide = _root if root else _quotient
    return np.array([divide(*each) for each in _variances(sums, squares, weights)], np.float64)


def _variances(sums: ExactSums, squares: ExactSums, weights: ExactSums) -> Iterator[tuple[int, int, int]]:
    """Yield whole numbers whose quotients, times 2 to the power of the third, are the variances."""
    first, second = 64 * (weights.low + squares.low), 128 * sums.low
    low = min(first, second)
    entries = zip(sums.to_integers(), squares.to_integers(), weights.to_integers(), strict=True)
    for total, square, weight in entries:
        yield (
            (weight * square << first - low) - (total * total << second - low),
            weight * weight,
            low - 128 * weights.low,
        )


def _quotient(number: int, divisor: int, shift: int) -> float:
    """Return number / divisor x 2^shift."""
    if not divisor:
        return math.nan
    try:
        return (number << max(shift, 0)) / (divisor << max(-shift, 0))
    except OverflowError:
        return math.copysign(math.inf, number)


def _root(number: int, divisor: int, shift: int) -> float:
    """Return the root of number / divisor x 2^shift."""
    if not divisor or not number:
        return math.nan if not divisor else 0.0
    more = max(0, _ROOT_BITS + divisor.bit_length() - number.bit_length())
    more += (more + shift) % 2
    whole, rest = divmod(number << more, divisor)
    root = math.isqrt(whole)
    root |= int(rest > 0 or root * root != whole)  # what is below its last bit decides between neighbours
    return math.ldexp(float(root), (shift - more) // 2) if root.bit_length() < 1024 else math.inf
