"""Thresholds between two classes of values, from their histogram, by integers: no rounding decides between two.

Otsu, "A threshold selection method from gray-level histograms" (1979); Zack, Rogers & Latt, "Automatic measurement of
sister chromatid exchange frequency" (1977); Li & Tam, "An iterative algorithm for minimum cross entropy thresholding"
(1998).
"""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 0.5
"""Of the iteration by Li & Tam, on whole numbers."""


def otsu(counts: np.ndarray, centres: list[float]) -> int:
    """Return the last bin of the lower class, where the variance between the classes is largest; the first of equals.

    Parameters
    ----------
    counts
        Pixels by bin; the first and the last bin have some.
    centres
        Of the bins: whole numbers, or floating-point numbers, which are fractions of powers of two.
    """
    number, values = counts.tolist(), _whole(centres)
    total, mass = sum(number), sum(n * value for n, value in zip(number, values, strict=True))
    below = lower_mass = 0
    best, best_square, best_weight = 0, -1, 1
    for place, n in enumerate(number[:-1]):
        below, lower_mass = below + n, lower_mass + n * values[place]
        # the variance between, times total^3
        square, weight = (total * lower_mass - below * mass) ** 2, below * (total - below)
        if square * best_weight > best_square * weight:
            best, best_square, best_weight = place, square, weight
    return best


def _whole(centres: list[float]) -> list[int]:
    """Return numbers as multiples of one power of two."""
    ratios = [centre.as_integer_ratio() for centre in centres]
    common = max(below for _, below in ratios)
    return [above * (common // below) for above, below in ratios]


def triangle(counts: np.ndarray) -> int:
    """Return the bin farthest below the line from the peak to the end of the longer tail; the first from that end."""
    number = counts.tolist()
    peak = number.index(max(number))
    flip = peak < len(number) - 1 - peak
    if flip:
        number, peak = number[::-1], len(number) - 1 - peak
    depths = [number[peak] * place - peak * number[place] for place in range(peak)]  # whose origin is the tail's end
    found = depths.index(max(depths)) if depths else 0
    return len(number) - 1 - found if flip else found


def li(counts: np.ndarray) -> float:
    """Return the place among the bins at which the cross entropy is least, by Li & Tam's iteration from the mean."""
    places = np.arange(len(counts))
    threshold, before = _mean(counts, places), -2 * TOLERANCE
    while abs(threshold - before) > TOLERANCE:
        before = threshold
        lower, upper = (_mean(counts[part], places[part]) for part in (places <= before, places > before))
        if lower == 0:
            break
        threshold = (lower - upper) / (math.log(lower) - math.log(upper))
    return threshold


def _mean(counts: np.ndarray, places: np.ndarray) -> float:
    mass: int = sum(n * place for n, place in zip(counts.tolist(), places.tolist(), strict=True))
    return mass / int(counts.sum())
