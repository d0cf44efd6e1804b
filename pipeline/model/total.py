"""An exact sum that blocks add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Total:
    """An exact sum of numbers, ``sum * 2**exponent``, and how many they are; `+` is exact, so in any order."""

    count: int = 0
    sum: int = 0
    exponent: int = 0

    def __add__(self, other: Total) -> Total:
        exponent = min(self.exponent, other.exponent)
        shifted = (part.sum << part.exponent - exponent for part in (self, other))
        return Total(self.count + other.count, sum(shifted), exponent)

    def mean(self, per: int = 1) -> float:
        """Return sum / (count x per) as float64, rounded once; NaN of no numbers, infinity beyond the largest number.

        Examples
        --------
        >>> (Total(2, 3, -1) + Total(1, 5)).mean()
        2.1666666666666665
        """
        if not self.count:
            return math.nan
        numerator, divisor = self.sum, self.count * per
        try:
            if self.exponent < 0:
                return numerator / (divisor << -self.exponent)
            return (numerator << self.exponent) / divisor
        except OverflowError:
            return math.inf if numerator > 0 else -math.inf

    def decibels(self, level: float, per: int = 1) -> float:
        """Return how far the mean, none below 0, lies below the square of a level, which is given by its logarithm.

        Also where float64 does not hold the mean; infinity where that is 0.
        """
        mean = self.mean(per)
        if 0 < mean < math.inf:
            return 20 * level - 10 * math.log10(mean)
        if not self.sum:
            return math.inf
        return 20 * level - 10 * (math.log10(self.sum) + self.exponent * math.log10(2) - math.log10(self.count * per))
