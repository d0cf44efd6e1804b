"""Kernels of the synthetic scene: every pixel is a function of its row, column, band and the seed alone.

A block of the scene therefore has the same bits wherever the blocks begin and whichever thread computes them.
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

NUM_COVERS = 6
"""Land covers, the rows of `signature`: water, forest, crop, stubble, soil, built."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROW = np.uint64(0xD1B54A32D192ED03)
_COLUMN = np.uint64(0x8CB92BA72F3D8DD7)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = 1.0 / 4294967296.0

# Streams of random numbers: one number for each field, with room for its octaves.
_TERRAIN, _BEND, _SHIFT, _RIVER, _BLOCK, _PARCEL = 0, 10, 20, 30, 40, 41
_HOUSE, _GRAIN, _PATCHES, _TOWN, _PIXEL = 42, 50, 60, 70, 80
_SEGMENT, _SEGMENT_WARP = 90, 91

_BLOCK_SIZE = 260.0  # pixels between the sites of the farm blocks, which roads separate

# All lattices have a corner at 0, where every octave is at a hashed value at once and the scene would be extreme.
_ORIGIN_Y, _ORIGIN_X = 4710.5, 8733.5


# ---------------------------------------------------------------- hashes


@kernel
def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@kernel
def _stream(seed: Any, number: int) -> Any:
    return _mix(seed + np.uint64(number + 1) * _GOLDEN)


@kernel
def _hash(stream: Any, i: Any, j: Any) -> Any:
    return _mix(stream + np.uint64(i) * _ROW + np.uint64(j) * _COLUMN)


@kernel
def _high(h: Any) -> float:
    """Return the upper half of a hash as a number in [0, 1)."""
    return np.int64(h >> np.uint64(32)) * _HALF


@kernel
def _low(h: Any) -> float:
    """Return the lower half of a hash as a number in [0, 1)."""
    return np.int64(h & _LOW) * _HALF


@kernel
def _ramp(value: float, start: float, stop: float) -> float:
    """Return 0 below `start`, 1 above `stop`, linear between."""
    return min(1.0, max(0.0, (value - start) / (stop - start)))


@kernel
def _wave(phase: float) -> float:
    """Return a sine's parabolic likeness: period 1, between -1 and 1."""
    t = phase - math.floor(phase) - 0.5
    return 8.0 * t * (2.0 * abs(t) - 1.0)


# ---------------------------------------------------------------- smooth fields


@kernel
def _noise(stream: Any, y: float, x: float) -> Any:
    """Return two independent fields in [-1, 1] at a point of the lattice, and the slope (dy, dx) of the first."""
    floor_y, floor_x = math.floor(y), math.floor(x)
    i, j = np.int64(floor_y), np.int64(floor_x)
    t, s = y - floor_y, x - floor_x
    v, u = t * t * t * (t * (6.0 * t - 15.0) + 10.0), s * s * s * (s * (6.0 * s - 15.0) + 10.0)
    h00, h01 = _hash(stream, i, j), _hash(stream, i, j + 1)
    h10, h11 = _hash(stream, i + 1, j), _hash(stream, i + 1, j + 1)
    a, b, c = _high(h00), _high(h01) - _high(h00), _high(h10) - _high(h00)
    d = _high(h11) - _high(h10) - b
    first = a + u * b + v * (c + u * d)
    slope_y = 60.0 * t * t * (t - 1.0) * (t - 1.0) * (c + u * d)
    slope_x = 60.0 * s * s * (s - 1.0) * (s - 1.0) * (b + v * d)
    p, q, r = _low(h00), _low(h01) - _low(h00), _low(h10) - _low(h00)
    second = p + u * q + v * (r + u * (_low(h11) - _low(h10) - q))
    return 2.0 * first - 1.0, 2.0 * second - 1.0, slope_y, slope_x


@kernel
def _octaves(seed: Any, number: int, y: float, x: float, wavelength: float, num_octaves: int) -> Any:
    """Return two fields of value noise whose octaves halve in wavelength and in amplitude, about in [-1, 1]."""
    first, second, amplitude = 0.0, 0.0, 0.5
    for octave in range(num_octaves):
        a, b, _, _ = _noise(_stream(seed, number + octave), y / wavelength, x / wavelength)
        first, second = first + amplitude * a, second + amplitude * b
        amplitude, wavelength = amplitude * 0.5, wavelength * 0.5
    return first, second


@kernel
def _terrain(seed: Any, y: float, x: float) -> Any:
    """Return elevation and vegetation, about in [-1, 1], and the light that a sun in the upper left gives."""
    height, growth, light, amplitude, wavelength = 0.0, 0.0, 0.0, 0.7, 900.0
    for octave in range(6):
        a, b, dy, dx = _noise(_stream(seed, _TERRAIN + octave), y / wavelength, x / wavelength)
        height, growth = height + amplitude * a, growth + amplitude * b
        light += amplitude * (dy + dx) / wavelength
        amplitude, wavelength = amplitude * 0.5, wavelength * 0.5
    return height, growth, light


# ---------------------------------------------------------------- regions with edges


@kernel
def _site(stream: Any, i: int, j: int, jitter: float) -> Any:
    h = _hash(stream, i, j)
    return i + 0.5 + jitter * (2.0 * _high(h) - 1.0), j + 0.5 + jitter * (2.0 * _low(h) - 1.0)


@kernel
def _block(stream: Any, y: float, x: float) -> Any:
    """Return the cell of a jittered grid whose site is nearest, and the distance to the cell's edge."""
    center_i, center_j = np.int64(math.floor(y)), np.int64(math.floor(x))
    nearest = second = 1e9
    i = j = 0
    near_y = near_x = next_y = next_x = 0.0
    for row in range(center_i - 1, center_i + 2):
        for column in range(center_j - 1, center_j + 2):
            site_y, site_x = _site(stream, row, column, 0.4)
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
    h = _mix(farm)
    t = 1.2 * _high(h) - 0.6
    cosine, sine = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)  # a rotation without sine and cosine
    along, across = cosine * x + sine * y, cosine * y - sine * x
    depth, length = 24.0 + 26.0 * _low(h), 45.0 + 60.0 * _low(_mix(h))
    stripe, edge = _interval(_mix(farm ^ stream), across / depth)
    lane = _hash(stream ^ farm, stripe, 0)
    field, end = _interval(lane, along / length + _high(lane))
    return _hash(lane, field, stripe), min(edge * depth, end * length), along, across


@kernel
def _interval(stream: Any, t: float) -> Any:
    """Return which interval between moved integers holds t, and the distance to its nearer end."""
    base = math.floor(t)
    k = np.int64(base)
    middle = base + 0.3 + 0.4 * _high(_hash(stream, k, 1))
    if t < middle:
        return k - 1, min(middle - t, t - (base - 0.7 + 0.4 * _high(_hash(stream, k - 1, 1))))
    return k, min(t - middle, base + 1.3 + 0.4 * _high(_hash(stream, k + 1, 1)) - t)


# ---------------------------------------------------------------- land covers


@kernel
def _farmland(field: Any, edge: float, along: float, across: float, patch: float) -> Any:
    """Return the covers (crop, stubble, soil) of a field, its brightness, and whether it is a hedge."""
    kind, vigour = _high(field), _low(field)
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
    shape = _mix(field)
    frequency, strength = 0.1 + 0.25 * _high(shape), 0.09 * _low(shape) * _low(shape)
    rows = across if _low(_mix(shape)) < 0.8 else along
    bright = 0.88 + 0.24 * _high(_mix(shape)) + strength * _wave(frequency * rows)
    hedge = 1.0 - _ramp(edge, 0.4, 1.4) if kind < 0.7 else 0.0
    return crop, stubble, 1.0 - crop - stubble, bright, hedge


@kernel
def _houses(stream: Any, farm: Any, along: float, across: float) -> Any:
    """Return how much of a pixel is roof or street, and how bright it is, in a town of rows of lots."""
    y, x = across / 9.0, along / 7.0
    i, j = math.floor(y), math.floor(x)
    h = _hash(stream ^ farm, np.int64(i), np.int64(j))
    inside = min(min(y - i, i + 1.0 - y) * 9.0, min(x - j, j + 1.0 - x) * 7.0)
    if np.int64(i) % 3 == 0 and y - i < 0.3:
        return 1.0, 0.55  # a street
    if inside > 1.3 and _high(h) < 0.75:
        return 1.0, 0.6 + 0.9 * _low(h)
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
    blocks = _stream(seed, _BLOCK)
    i, j, edge = _block(blocks, y / _BLOCK_SIZE, x / _BLOCK_SIZE)
    farm = _mix(_hash(blocks, i, j))
    field, end, along, across = _parcel(_stream(seed, _PARCEL), farm, y + 1.2 * shift_y, x + 1.2 * shift_x)
    return farm, edge * _BLOCK_SIZE, field, end, along, across


@kernel
def _water_depth(seed: Any, y: float, x: float, height: float) -> Any:
    """Return the depth below the water's surface: rivers along the zero line of a field, lakes on the lowest ground."""
    river, _ = _octaves(seed, _RIVER, y, x, 1100.0, 2)
    return max(0.0052 - abs(river), 0.35 * (-0.5 - height))


@kernel
def _pixel(seed: Any, y: float, x: float) -> Any:
    """Return the shares of the covers in a pixel, its brightness, and the hash of the patch that it belongs to."""
    height, growth, light = _terrain(seed, y, x)
    bend_y, bend_x = _octaves(seed, _BEND, y, x, 400.0, 2)
    shift_y, shift_x = _octaves(seed, _SHIFT, y, x, 40.0, 2)
    patch, wood = _octaves(seed, _PATCHES, y, x, 28.0, 3)
    grain, fine, _, _ = _noise(_stream(seed, _GRAIN), y / 2.7, x / 2.7)
    town, _ = _octaves(seed, _TOWN, y, x, 800.0, 3)
    farm, edge, field, end, along, across = _farm(seed, y + 55.0 * bend_y, x + 55.0 * bend_x, shift_y, shift_x)

    crop, stubble, soil, bright, hedge = _farmland(field, end, along, across, patch)
    covers = _blend((0.0, 0.0, crop, stubble, soil, 0.0), 1, 0.8 * hedge)
    bright = bright * (1.0 + 0.03 * fine + 0.05 * patch)

    # Woods stand where growth and height are high; the small field `wood` frays their edges.
    woods = _ramp(growth + 0.35 * height + 0.22 * wood, 0.24, 0.27)
    covers = _blend(covers, 1, woods)
    bright += woods * (1.0 + 0.24 * grain + 0.12 * patch - bright)

    # The farm's own number lets a town end at a road, more often than not.
    if town + 0.3 * (_high(farm) - 0.5) > 0.34 and woods < 0.5:
        built, shine = _houses(_stream(seed, _HOUSE), farm, along, across)
        covers, bright = _blend(covers, 5, built), shine * (1.0 + 0.05 * fine)

    road = 1.0 - _ramp(edge, 0.6, 1.7)
    covers, bright = _blend(covers, 5, road), bright + road * (0.95 - bright)

    depth = _water_depth(
        seed, y + 25.0 * bend_y + 2.0 * shift_y, x + 25.0 * bend_x + 2.0 * shift_x, height + 0.06 * patch
    )
    water = _ramp(depth, -0.0006, 0.0006)
    covers = _blend(covers, 0, water)
    bright += water * (1.25 - 0.3 * _ramp(depth, 0.0, 0.05) + 0.03 * fine - bright)

    # Plains are flat and hills are rough, so the sun shades the hills.
    relief = 25.0 + 80.0 * _ramp(height + 0.5 * growth, -0.1, 0.5)
    bright *= max(0.5, min(1.6, 1.0 + relief * light * (1.0 - water)))
    if woods >= 0.5:
        field = farm
    if water >= 0.5:
        field = _stream(seed, _RIVER)
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
    pixels = _stream(seed, _PIXEL)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            covers, bright, patch = _pixel(seed, row + i + _ORIGIN_Y, column + j + _ORIGIN_X)
            keys = (np.uint32(patch >> np.uint64(32)), np.uint32(_hash(pixels, row + i, column + j) >> np.uint64(32)))
            _fill_bands(out[i, j], band, covers, bright, keys, signature, scale)


@kernel
def segments(out: Any, row: int, column: int, size: Any, cells: Any, seed: Any) -> None:
    """Fill a block of labels 1..K, row by row of the lattice, whose first pixel is at `row`, `column`.

    A label is the warped Voronoi cell of one site of a jittered lattice over the whole raster. The jitter of 0.32
    makes the search among 3 x 3 sites exact, because (0.5 + 0.32) * sqrt(2) < 1.5 - 0.32. The warp moves a point by
    at most 0.3 cells and (all but) never folds, so that segments stay whole, and no site leaves the raster. Both
    shrink as the cells come near to the pixels' size, so that every label keeps a pixel.

    Parameters
    ----------
    out
        int32 (rows, columns).
    size
        Rows and columns of the raster.
    cells
        Rows and columns of the lattice; K is their product.
    seed
        uint64.
    """
    pitch_y, pitch_x = size[0] / cells[0], size[1] / cells[1]
    looseness = _ramp(min(pitch_y, pitch_x), 1.5, 12.0)
    sites, jitter = _stream(seed, _SEGMENT), 0.32 * looseness
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x = (row + i + 0.5) / pitch_y, (column + j + 0.5) / pitch_x
            y, x = _warp(seed, y, x, looseness)
            out[i, j] = _nearest_cell(sites, y, x, cells, jitter)


@kernel
def _warp(seed: Any, y: float, x: float, amount: float) -> Any:
    a, b, _, _ = _noise(_stream(seed, _SEGMENT_WARP), y / 1.7, x / 1.7)
    c, d, _, _ = _noise(_stream(seed, _SEGMENT_WARP + 1), y / 0.45, x / 0.45)
    e, f, _, _ = _noise(_stream(seed, _SEGMENT_WARP + 2), y / 0.17, x / 0.17)
    shift_y, shift_x = 0.18 * a + 0.09 * c + 0.03 * e, 0.18 * b + 0.09 * d + 0.03 * f
    return y + amount * shift_y, x + amount * shift_x


@kernel
def _nearest_cell(sites: Any, y: float, x: float, cells: Any, jitter: float) -> Any:
    """Return the number from 1 of the nearest site; sites exist inside the lattice only."""
    center_i = min(cells[0] - 1, max(0, np.int64(math.floor(y))))
    center_j = min(cells[1] - 1, max(0, np.int64(math.floor(x))))
    nearest, number = 1e9, 0
    for i in range(max(0, center_i - 1), min(cells[0], center_i + 2)):
        for j in range(max(0, center_j - 1), min(cells[1], center_j + 2)):
            site_y, site_x = _site(sites, i, j, jitter)
            distance = (y - site_y) * (y - site_y) + (x - site_x) * (x - site_x)
            if distance < nearest:
                nearest, number = distance, i * cells[1] + j + 1
    return number
