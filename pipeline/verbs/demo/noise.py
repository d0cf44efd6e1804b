"""Random numbers and smooth fields for every point: the same bits wherever blocks begin, whichever thread computes.

Only additions, multiplications, divisions, square roots and integer hashes are used, which IEEE 754 fixes to the
bit: no sine, no power, nothing that differs between versions of a mathematics library.

Random numbers are hashes of lattice points (the finaliser of splitmix64; Steele, Lea and Flood 2014). Smooth fields
are value noise: quintic interpolation between the hashed corners of a lattice, summed over octaves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROW = np.uint64(0xD1B54A32D192ED03)
_COLUMN = np.uint64(0x8CB92BA72F3D8DD7)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = 1.0 / 4294967296.0


@kernel
def mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@kernel
def stream_of(seed: Any, number: int) -> Any:
    return mix(seed + np.uint64(number + 1) * _GOLDEN)


@kernel
def hash_of(stream: Any, i: Any, j: Any) -> Any:
    return mix(stream + np.uint64(i) * _ROW + np.uint64(j) * _COLUMN)


@kernel
def high(h: Any) -> float:
    """Return the upper half of a hash as a number in [0, 1)."""
    return np.int64(h >> np.uint64(32)) * _HALF


@kernel
def low(h: Any) -> float:
    """Return the lower half of a hash as a number in [0, 1)."""
    return np.int64(h & _LOW) * _HALF


@kernel
def ramp(value: float, start: float, stop: float) -> float:
    """Return 0 below `start`, 1 above `stop`, linear between."""
    return min(1.0, max(0.0, (value - start) / (stop - start)))


@kernel
def wave(phase: float) -> float:
    """Return a sine's parabolic likeness: period 1, between -1 and 1."""
    t = phase - math.floor(phase) - 0.5
    return 8.0 * t * (2.0 * abs(t) - 1.0)


@kernel
def noise(stream: Any, y: float, x: float) -> Any:
    """Return two independent fields in [-1, 1] at a point of the lattice, and the slope (dy, dx) of the first."""
    floor_y, floor_x = math.floor(y), math.floor(x)
    i, j = np.int64(floor_y), np.int64(floor_x)
    t, s = y - floor_y, x - floor_x
    v, u = t * t * t * (t * (6.0 * t - 15.0) + 10.0), s * s * s * (s * (6.0 * s - 15.0) + 10.0)
    h00, h01 = hash_of(stream, i, j), hash_of(stream, i, j + 1)
    h10, h11 = hash_of(stream, i + 1, j), hash_of(stream, i + 1, j + 1)
    a, b, c = high(h00), high(h01) - high(h00), high(h10) - high(h00)
    d = high(h11) - high(h10) - b
    first = a + u * b + v * (c + u * d)
    slope_y = 60.0 * t * t * (t - 1.0) * (t - 1.0) * (c + u * d)
    slope_x = 60.0 * s * s * (s - 1.0) * (s - 1.0) * (b + v * d)
    p, q, r = low(h00), low(h01) - low(h00), low(h10) - low(h00)
    second = p + u * q + v * (r + u * (low(h11) - low(h10) - q))
    return 2.0 * first - 1.0, 2.0 * second - 1.0, slope_y, slope_x


@kernel
def octaves(seed: Any, number: int, y: float, x: float, wavelength: float, num_octaves: int) -> Any:
    """Return two fields of value noise whose octaves halve in wavelength and in amplitude, about in [-1, 1]."""
    first, second, amplitude = 0.0, 0.0, 0.5
    for octave in range(num_octaves):
        a, b, _, _ = noise(stream_of(seed, number + octave), y / wavelength, x / wavelength)
        first, second = first + amplitude * a, second + amplitude * b
        amplitude, wavelength = amplitude * 0.5, wavelength * 0.5
    return first, second


@kernel
def site(stream: Any, i: int, j: int, jitter: float) -> Any:
    h = hash_of(stream, i, j)
    return i + 0.5 + jitter * (2.0 * high(h) - 1.0), j + 0.5 + jitter * (2.0 * low(h) - 1.0)
