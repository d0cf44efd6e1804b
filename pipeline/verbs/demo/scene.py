"""Kernels of the synthetic scene: every pixel is a function of its row, column, band and the seed alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.verbs.demo.noise import hash_of, high, low, mix, noise, octaves, ramp, site, stream_of, wave

NUM_COVERS = 6
"""Land covers, the rows of `signature`: water, forest, crop, stubble, soil, built."""

# Streams of random numbers: one number for each field, with room for its octaves.
_TERRAIN, _BEND, _SHIFT, _RIVER, _BLOCK, _PARCEL = 0, 10, 20, 30, 40, 41
_HOUSE, _GRAIN, _PATCHES, _TOWN, _PIXEL = 42, 50, 60, 70, 80

_BLOCK_SIZE = 260.0  # pixels between the sites of the farm blocks, which roads separate

# All lattices have a corner at 0, where every octave is at a hashed value at once and the scene would be extreme.
_ORIGIN_Y, _ORIGIN_X = 4710.5, 8733.5


@kernel
def _terrain(seed: Any, y: float, x: float) -> Any:
    """Return elevation and vegetation, about in [-1, 1], and the light that a sun in the upper left gives."""
    height, growth, light, amplitude, wavelength = 0.0, 0.0, 0.0, 0.7, 900.0
    for octave in range(6):
        a, b, dy, dx = noise(stream_of(seed, _TERRAIN + octave), y / wavelength, x / wavelength)
        height, growth = height + amplitude * a, growth + amplitude * b
        light += amplitude * (dy + dx) / wavelength
        amplitude, wavelength = amplitude * 0.5, wavelength * 0.5
    return height, growth, light


# ---------------------------------------------------------------- regions with edges


@kernel
def _block(stream: Any, y: float, x: float) -> Any:
    """Return the cell of a jittered grid whose site is nearest, and the distance to the cell's edge."""
    center_i, center_j = np.int64(math.floor(y)), np.int64(math.floor(x))
    nearest = second = 1e9
    i = j = 0
    near_y = near_x = next_y = next_x = 0.0
    for row in range(center_i - 1, center_i + 2):
        for column in range(center_j - 1, center_j + 2):
            site_y, site_x = site(stream, row, column, 0.4)
            distance = (y - site_y) * (y - site_y) + (x - site_x) * (x - site_x)
            if distance < nearest:
                second, next_y, next_x = nearest, near_y, near_x
                nearest, near_y, near_x, i, j = distance, site_y, site_x, row, column
            elif distance < second:
                second, next_y, next_x = distance, site_y, site_x
    apart = math.sqrt((near_y - next_y) * (near_y - next_y) + (near_x - next_x) * (near_x - next_x))
    return i, j, (second - nearest) / (2.0 * apart)


@kernel
def _parcel(stream: Any, farm: Any, y: float, x: float) -> Any:
    """Return a field's hash, the pixels to its edge, and the coordinates along and across the farm's direction.

    A farm lays its fields out in stripes of its own direction and depth; the joints of neighbouring stripes are
    staggered, and every joint is moved by a hash.
    """
    h = mix(farm)
    t = 1.2 * high(h) - 0.6
    cosine, sine = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)  # a rotation without sine and cosine
    along, across = cosine * x + sine * y, cosine * y - sine * x
    depth, length = 24.0 + 26.0 * low(h), 45.0 + 60.0 * low(mix(h))
    stripe, edge = _interval(mix(farm ^ stream), across / depth)
    lane = hash_of(stream ^ farm, stripe, 0)
    field, end = _interval(lane, along / length + high(lane))
    return hash_of(lane, field, stripe), min(edge * depth, end * length), along, across


@kernel
def _interval(stream: Any, t: float) -> Any:
    """Return which interval between moved integers holds t, and the distance to its nearer end."""
    base = math.floor(t)
    k = np.int64(base)
    middle = base + 0.3 + 0.4 * high(hash_of(stream, k, 1))
    if t < middle:
        return k - 1, min(middle - t, t - (base - 0.7 + 0.4 * high(hash_of(stream, k - 1, 1))))
    return k, min(t - middle, base + 1.3 + 0.4 * high(hash_of(stream, k + 1, 1)) - t)


# ---------------------------------------------------------------- land covers


@kernel
def _farmland(field: Any, edge: float, along: float, across: float, patch: float) -> Any:
    """Return the covers (crop, stubble, soil) of a field, its brightness, and whether it is a hedge."""
    kind, vigour = high(field), low(field)
    crop, stubble = 0.0, 0.0
    if kind < 0.42:
        crop, stubble = 0.55 + 0.45 * vigour, 0.1
    elif kind < 0.62:
        crop, stubble = 0.25 + 0.3 * vigour, 0.2
    elif kind < 0.82:
        crop, stubble = 0.1 * vigour, 0.6 + 0.3 * vigour
    else:
        crop, stubble = 0.05 * vigour, 0.1
    crop = min(1.0 - stubble, max(0.0, crop + 0.12 * patch))
    shape = mix(field)
    frequency, strength = 0.1 + 0.25 * high(shape), 0.09 * low(shape) * low(shape)
    rows = across if low(mix(shape)) < 0.8 else along
    bright = 0.88 + 0.24 * high(mix(shape)) + strength * wave(frequency * rows)
    hedge = 1.0 - ramp(edge, 0.4, 1.4) if kind < 0.7 else 0.0
    return crop, stubble, 1.0 - crop - stubble, bright, hedge


@kernel
def _houses(stream: Any, farm: Any, along: float, across: float) -> Any:
    """Return how much of a pixel is roof or street, and how bright it is, in a town of rows of lots."""
    y, x = across / 9.0, along / 7.0
    i, j = math.floor(y), math.floor(x)
    h = hash_of(stream ^ farm, np.int64(i), np.int64(j))
    inside = min(min(y - i, i + 1.0 - y) * 9.0, min(x - j, j + 1.0 - x) * 7.0)
    if np.int64(i) % 3 == 0 and y - i < 0.3:
        return 1.0, 0.55  # a street
    if inside > 1.3 and high(h) < 0.75:
        return 1.0, 0.6 + 0.9 * low(h)
    return 0.25, 0.85


@kernel
def _blend(under: Any, cover: int, weight: float) -> Any:
    """Lay `weight` of one cover over the others."""
    rest = 1.0 - weight
    return (
        under[0] * rest + (weight if cover == 0 else 0.0),
        under[1] * rest + (weight if cover == 1 else 0.0),
        under[2] * rest + (weight if cover == 2 else 0.0),
        under[3] * rest + (weight if cover == 3 else 0.0),
        under[4] * rest + (weight if cover == 4 else 0.0),
        under[5] * rest + (weight if cover == 5 else 0.0),
    )


@kernel
def _farm(seed: Any, y: float, x: float, shift_y: float, shift_x: float) -> Any:
    """Return the farm's and the field's hash, the pixels to their edges, and the place along and across the farm."""
    blocks = stream_of(seed, _BLOCK)
    i, j, edge = _block(blocks, y / _BLOCK_SIZE, x / _BLOCK_SIZE)
    farm = mix(hash_of(blocks, i, j))
    field, end, along, across = _parcel(stream_of(seed, _PARCEL), farm, y + 1.2 * shift_y, x + 1.2 * shift_x)
    return farm, edge * _BLOCK_SIZE, field, end, along, across


@kernel
def _water_depth(seed: Any, y: float, x: float, height: float) -> Any:
    """Return the depth below the water's surface: rivers along the zero line of a field, lakes on the lowest ground."""
    river, _ = octaves(seed, _RIVER, y, x, 1100.0, 2)
    return max(0.0052 - abs(river), 0.35 * (-0.5 - height))


@kernel
def _pixel(seed: Any, y: float, x: float) -> Any:
    """Return the shares of the covers in a pixel, its brightness, and the hash of the patch that it belongs to."""
    height, growth, light = _terrain(seed, y, x)
    bend_y, bend_x = octaves(seed, _BEND, y, x, 400.0, 2)
    shift_y, shift_x = octaves(seed, _SHIFT, y, x, 40.0, 2)
    patch, wood = octaves(seed, _PATCHES, y, x, 28.0, 3)
    grain, fine, _, _ = noise(stream_of(seed, _GRAIN), y / 2.7, x / 2.7)
    town, _ = octaves(seed, _TOWN, y, x, 800.0, 3)
    farm, edge, field, end, along, across = _farm(seed, y + 55.0 * bend_y, x + 55.0 * bend_x, shift_y, shift_x)
    crop, stubble, soil, bright, hedge = _farmland(field, end, along, across, patch)
    covers = _blend((0.0, 0.0, crop, stubble, soil, 0.0), 1, 0.8 * hedge)
    bright = bright * (1.0 + 0.03 * fine + 0.05 * patch)

    # Woods stand where growth and height are high; the small field `wood` frays their edges.
    woods = ramp(growth + 0.35 * height + 0.22 * wood, 0.24, 0.27)
    covers = _blend(covers, 1, woods)
    bright += woods * (1.0 + 0.24 * grain + 0.12 * patch - bright)

    # The farm's own number lets a town end at a road, more often than not.
    if town + 0.3 * (high(farm) - 0.5) > 0.34 and woods < 0.5:
        built, shine = _houses(stream_of(seed, _HOUSE), farm, along, across)
        covers, bright = _blend(covers, 5, built), shine * (1.0 + 0.05 * fine)

    road = 1.0 - ramp(edge, 0.6, 1.7)
    covers, bright = _blend(covers, 5, road), bright + road * (0.95 - bright)

    river_y, river_x = y + 25.0 * bend_y + 2.0 * shift_y, x + 25.0 * bend_x + 2.0 * shift_x
    depth = _water_depth(seed, river_y, river_x, height + 0.06 * patch)
    water = ramp(depth, -0.0006, 0.0006)
    covers = _blend(covers, 0, water)
    bright += water * (1.25 - 0.3 * ramp(depth, 0.0, 0.05) + 0.03 * fine - bright)

    # Plains are flat and hills are rough, so the sun shades the hills.
    relief = 25.0 + 80.0 * ramp(height + 0.5 * growth, -0.1, 0.5)
    bright *= max(0.5, min(1.6, 1.0 + relief * light * (1.0 - water)))
    if woods >= 0.5:
        field = farm
    if water >= 0.5:
        field = stream_of(seed, _RIVER)
    return covers, bright, field


# ---------------------------------------------------------------- entry points


@kernel
def _fill_bands(values: Any, band: int, covers: Any, bright: float, keys: Any, signature: Any, scale: Any) -> None:
    """Write the bands of one pixel: covers times spectra, a tint for the patch, a sensor's noise, whole numbers.

    Everything is 32 bit wide, so that the loop over the bands becomes vector instructions.
    """
    patch, pixel = keys
    water, forest, crop = np.float32(covers[0]), np.float32(covers[1]), np.float32(covers[2])
    stubble, soil, built = np.float32(covers[3]), np.float32(covers[4]), np.float32(covers[5])
    light = np.float32(bright)
    for b in range(values.size):
        spectrum = (
            water * signature[0, b]
            + forest * signature[1, b]
            + crop * signature[2, b]
            + stubble * signature[3, b]
            + soil * signature[4, b]
            + built * signature[5, b]
        )
        step = np.uint32(np.uint32(band + b) * np.uint32(0x9E3779B9))
        tint = np.float32(np.int32(_mix32(np.uint32(patch ^ step)))) * np.float32(0.05 / 2147483648.0)
        h = _mix32(np.uint32(pixel ^ step))
        noise = np.float32(np.int32((h & np.uint32(0xFFFF)) + (h >> np.uint32(16))) - np.int32(65535))
        value = spectrum * light * (np.float32(1.0) + tint)
        value += noise * (np.float32(60.0) + np.float32(0.02) * value) * np.float32(1.0 / 65536.0)
        value = min(np.float32(10000.0), max(np.float32(0.0), value))
        values[b] = np.float32(np.int32(value * scale + np.float32(0.5)))


@kernel
def _mix32(x: Any) -> Any:
    """Return a 32-bit hash (the constants are Wellons' "lowbias32")."""
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@kernel
def scene(out: Any, row: int, column: int, band: int, seed: Any, signature: Any, scale: Any) -> None:
    """Fill a block of the scene whose first value is at `row`, `column`, `band`.

    Parameters
    ----------
    out
        float32 (rows, columns, bands); receives whole numbers from 0 to 10000 * `scale`.
    seed
        uint64.
    signature
        float32 (`NUM_COVERS`, bands): what each cover returns in each band, from 0 to 10000.
    scale
        float32; counts of the output for one count of the signature.
    """
    pixels = stream_of(seed, _PIXEL)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            covers, bright, patch = _pixel(seed, row + i + _ORIGIN_Y, column + j + _ORIGIN_X)
            keys = (np.uint32(patch >> np.uint64(32)), np.uint32(hash_of(pixels, row + i, column + j) >> np.uint64(32)))
            _fill_bands(out[i, j], band, covers, bright, keys, signature, scale)
