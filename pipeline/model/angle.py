"""Sine and cosine in arithmetic alone: the same bits on every machine, which no library's promise."""

from __future__ import annotations

import math

import numpy as np

RADIANS = math.pi / 180
_FACTORIALS = tuple(1.0 / math.factorial(k) for k in range(20))


def sine(degrees: np.ndarray | float) -> np.ndarray:
    """Return the sine of angles in degrees, to some 2e-16; exact at multiples of 90.

    Taylor's series of the angle's distance from the nearest multiple of 90, at most 45 degrees.

    Examples
    --------
    >>> sine([0, 90, 180, 270, 720]).tolist(), round(float(sine(30)), 15)
    ([0.0, 1.0, 0.0, -1.0, 0.0], 0.5)
    """
    angle = np.fmod(np.asarray(degrees, np.float64), 360.0)  # exact, as are the differences below
    angle = np.where(angle > 180, angle - 360, np.where(angle < -180, angle + 360, angle))
    angle = np.where(angle > 90, 180 - angle, np.where(angle < -90, -180 - angle, angle))
    size = np.abs(angle)
    steep = size > 45
    x = np.where(steep, 90 - size, size) * RADIANS
    found: np.ndarray = np.where(steep, _series(x * x, 0), x * _series(x * x, 1))
    return np.where(angle < 0, -found, found)


def cosine(degrees: np.ndarray | float) -> np.ndarray:
    """Return the cosine of angles in degrees, as `sine`."""
    return sine(90 - np.abs(np.fmod(np.asarray(degrees, np.float64), 360.0)))


def _series(square: np.ndarray, first: int) -> np.ndarray:
    """Return the series of the cosine (first 0), or of the sine divided by the angle (first 1)."""
    total = np.zeros_like(square)
    for k in range(18 + first, first - 1, -2):
        sign = -1.0 if (k - first) % 4 else 1.0
        total = total * square + sign * _FACTORIALS[k]
    return total
