"""The nearest palette colour of each pixel: the index a loop over the palette in float64 would find, to the bit.

The distance that counts is the naive one: squares of the differences in float64, summed over the bands in order; of
equal distances the lowest index wins. The search leads there faster:

- The palette is centred, scaled to length 1 and sorted along its principal axis (`color_search`). From the place where
  a pixel falls, 32 colours at a time are tried outwards, until their distance along the axis alone exceeds the least
  one: a partial distance search (Cheng & Gersho 1984) in the order of a projection.
- Squared distances D are computed in float32. With u = 2^-24, n bands and e = u (|x| + max |c|) for the rounded
  coordinates, the error is at most f(D) = (n + 4) u D + 2 sqrt(D) e + e^2; places along the axis are off by (n + 4) e.
- If only one D is within 2 f of the least, it is the answer; else all that are within it are compared by the naive
  distance.
- Where all squares overflow, or some vanish that should not (`ColorSearch.is_fine`), the naive distances are those of
  differences times a power of two.
- For 8-bit values in up to four bands, the few colours that can be the nearest are known by cells (`color_grid`), and
  are compared by the naive distance at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.color_grid import (
    MOST_BANDS,
    MOST_BYTES,
    UNSURE,
    ColorGrid,
    GridRows,
    choose_candidates,
)
from pipeline.kernels.color_search import NUM_BUCKETS, ColorSearch, padded
from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.extreme import SHIFT, TINY
from pipeline.kernels.frame import Patch, Pixels
from pipeline.kernels.vector import VECTOR, bits_within, lowest_bit, number_of_bits, squared_distances

BATCH = 256
"""Pixels that are converted together."""
_UNIT = 2.0**-24
_WIDEST = 1e12
"""Pixels farther out than this many lengths of the palette are compared with all colours."""
_DOWN, _UP, _VANISHING = 2.0**-SHIFT, 2.0**SHIFT, TINY[2]
_NO_MASK = np.ones((0, 0, 0), bool)
_NO_BYTES = np.ones((0, 0, 0), np.uint8)
_NO_GRID = ColorGrid(0, np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, MOST_BANDS)))


class Batch(NamedTuple):
    """Pixels of a row that are searched together, and what is known of them."""

    placed: Any
    """(band, pixel) float32, as the palette is placed."""
    squared: Any
    """Squared lengths, float32 as the next three."""
    position: Any
    """Positions along the axis."""
    invalid: Any
    """0 for valid."""
    limit: Any
    """Colours beyond these squared distances are not the nearest."""
    found: Any
    """int64: indices of colours, or `UNSURE`."""
    pixel: Any
    """(band,) float64: one of them."""
    scores: Any
    """float32: squared distances of one of them by place of the colour."""
    gathered: Any
    """Values of one band."""


def nearest(
    values: np.ndarray,
    search: ColorSearch,
    patch: Patch,
    index: np.ndarray,
    sentinel: int,
    *,
    valid: np.ndarray | None = None,
    squared: np.ndarray | None = None,
) -> None:
    """Fill `index` (row, column) with the nearest colour's index, and `squared` (float64) with its squared distance.

    `values` are planes with as many bands as the palette (64-bit integers are rounded to float64); `index` lies as
    labels do in a patch. A pixel with a band that is NaN, infinite or False in `valid` (planes like `values`) gets
    `sentinel` and NaN.
    """
    bands = search.colors.shape[1]
    squared_lengths, position, invalid, limit = np.zeros((4, BATCH), np.float32)
    batch = Batch(
        np.zeros((padded(bands), BATCH), np.float32),
        squared_lengths,
        position,
        invalid,
        limit,
        np.zeros(BATCH, np.int64),
        np.zeros(bands),
        np.zeros(search.arrays.ranked.colors.shape[1], np.float32),
        np.zeros(BATCH, values.dtype),
    )
    mask = _NO_MASK if valid is None else valid
    far = np.empty((0, 0)) if squared is None else squared
    _nearest(values, mask, patch, search.arrays, batch, _grid_for(values, search), index, far, sentinel)


def grid_bytes(dtype: np.dtype, num_bands: int) -> int:
    """Return what the candidates for pixels of a dtype take at most."""
    return MOST_BYTES if _has_grid(dtype, num_bands) else 0


def _has_grid(dtype: np.dtype, num_bands: int) -> bool:
    return dtype.itemsize == 1 and num_bands <= MOST_BANDS


def _grid_for(values: np.ndarray, search: ColorSearch) -> GridRows:
    """Return values as bytes, the candidates (none where they are not for these values), and buffers."""
    is_placed = search.arrays.placing.scale > 0 and not search.is_fine
    is_used = is_placed and _has_grid(values.dtype, search.colors.shape[1])
    grid = search.grid(values.dtype) if is_used else _NO_GRID
    return GridRows(
        values.view(np.uint8) if is_used else _NO_BYTES,
        grid.bits,
        128 if values.dtype.kind == "i" else 0,
        grid.starts,
        grid.ids,
        grid.colors,
        np.zeros(BATCH, np.uint32),
        np.zeros((MOST_BANDS, BATCH)),
        np.zeros(BATCH, bool),
        np.zeros(BATCH, np.int64),
        np.zeros(BATCH, np.int64),
    )


@kernel
def _nearest(
    values: Any,
    valid: Any,
    patch: Any,
    search: Any,
    batch: Any,
    grid: Any,
    index: Any,
    squared: Any,
    sentinel: Any,
) -> None:
    (height, width), (out_top, out_left), (top, left) = patch.shape, patch.labels_at, patch.values_at
    for i in range(height):
        for begin in range(0, width, BATCH):
            num = min(BATCH, width - begin)
            pixels = Pixels(top + i, left + begin, num, patch.lanes)
            start = out_left + begin
            row = index[out_top + i, start : start + num]
            line = squared[out_top + i, start : start + num] if squared.size else squared[0:0].reshape(-1)
            find_batch(values, valid, pixels, search, batch, grid)
            write(values, pixels, search.colors, batch, sentinel, row, line)


@inner
def find_batch(values: Any, valid: Any, pixels: Any, search: Any, batch: Any, grid: Any) -> None:
    """Find the nearest colours of pixels, and which are valid."""
    if grid.starts.size:
        num_unknown = choose_candidates(valid, pixels, grid, batch.invalid, batch.found)
        find_unknown(values, pixels, num_unknown, search, batch, grid)
        return
    batch.found[: pixels.num] = UNSURE
    convert(values, valid, pixels, search.placing, batch)
    search_batch(pixels.num, search, batch, batch.found)
    for c in range(pixels.num):
        if batch.found[c] == UNSURE and batch.invalid[c] == 0:
            take_pixel(values, pixels, c, batch.pixel)
            batch.found[c] = decide(c, search, batch)


@inner
def find_unknown(values: Any, pixels: Any, num: Any, search: Any, batch: Any, grid: Any) -> None:
    """Search the nearest colours of the pixels with too many candidates, side by side."""
    centre, axis, scale, _ = search.placing
    grid.new[:num] = UNSURE
    for k in range(num):
        take_pixel(values, pixels, grid.unknown[k], batch.pixel)
        length, position = np.float32(0), np.float32(0)
        for band in range(centre.size):
            placed = np.float32((batch.pixel[band] - centre[band]) * scale)
            batch.placed[band, k] = placed
            length += placed * placed
            position += placed * axis[band]
        batch.squared[k], batch.position[k] = length, position
    search_batch(num, search, batch, grid.new)
    for k in range(num):
        if grid.new[k] == UNSURE:
            take_pixel(values, pixels, grid.unknown[k], batch.pixel)
            grid.new[k] = decide(k, search, batch)
        batch.found[grid.unknown[k]] = grid.new[k]


@inner
def convert(values: Any, valid: Any, pixels: Any, placing: Any, batch: Any) -> None:
    """Place pixels as the palette is; write their squared lengths, positions along the axis, and 0 for valid."""
    row, left, num, lanes = pixels
    centre, axis, scale, _ = placing
    squared, position, invalid = batch.squared[:num], batch.position[:num], batch.invalid[:num]
    squared[:] = 0
    position[:] = 0
    invalid[:] = 0
    for band in range(centre.size):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        if lanes > 1:
            for c in range(num):
                batch.gathered[c] = line[c * lanes]
            line = batch.gathered[:num]
        placed = batch.placed[band, :num]
        shift, weight = centre[band], axis[band]
        for c in range(num):
            placed[c] = np.float32((np.float64(line[c]) - shift) * scale)
            invalid[c] += np.float32(line[c] - line[c])  # NaN for NaN and inf
            squared[c] += placed[c] * placed[c]
            position[c] += placed[c] * weight
        if valid.size:
            mask = valid[band // lanes, row, start : start + (num - 1) * lanes + 1]
            for c in range(num):
                invalid[c] += np.float32(not mask[c * lanes])


@inner
def search_batch(num: Any, search: Any, batch: Any, found: Any) -> None:
    """Write the indices of the nearest colours of placed pixels, and limits; what is not certain stays `UNSURE`."""
    colors, ids, positions = search.ranked
    starts, lowest, per_unit = search.buckets
    placed, scores, largest = batch.placed, batch.scores, search.placing.largest
    for pixel in range(num):
        batch.limit[pixel] = np.inf
        error = _UNIT * (math.sqrt(np.float64(batch.squared[pixel])) + largest)
        if search.placing.scale == 0 or not error < _UNIT * _WIDEST:
            continue
        position = np.float64(batch.position[pixel])
        aside = (placed.shape[0] + 4) * error
        slack = 4096 * error * error
        start = np.int64(starts[np.int64(min(max((position - lowest) * per_unit, 0.0), NUM_BUCKETS - 1.0))])
        stop = start + VECTOR
        least = squared_distances(placed, pixel, colors, start, scores)
        while is_near(positions[stop] - position - aside, 1.01 * least + slack):
            least = min(least, squared_distances(placed, pixel, colors, stop, scores))
            stop += VECTOR
        while is_near(position - positions[start - 1] - aside, 1.01 * least + slack):
            start -= VECTOR
            least = min(least, squared_distances(placed, pixel, colors, start, scores))
        bound = 1.01 * least + slack
        spread = (placed.shape[0] + 4) * _UNIT * bound + 2 * math.sqrt(bound) * error + error * error
        limit = np.float32(least + 2.2 * spread)
        batch.limit[pixel] = limit
        count, name = 0, 0
        for place in range(start, stop, VECTOR):
            bits = bits_within(scores, place, limit)
            count += number_of_bits(bits)
            name = ids[place + lowest_bit(bits)] if bits != 0 else name
        found[pixel] = name if count == 1 else UNSURE


@inner
def is_near(gap: Any, bound: Any) -> Any:
    return gap <= 0 or gap * gap <= bound


@inner
def decide(c: Any, search: Any, batch: Any) -> Any:
    """Return the index of the nearest colour of `batch.pixel`, which is placed pixel c, by the naive distance."""
    best, found = nearest_of(c, search, batch, 1.0, 1.0)
    if best == np.inf:
        best, found = nearest_of(c, search, batch, _DOWN, 1.0)
    elif search.is_fine and best < _VANISHING:
        best, found = nearest_of(c, search, batch, 1.0, _UP)
    return found


@inner
def nearest_of(c: Any, search: Any, batch: Any, before: Any, after: Any) -> Any:
    """Return the least naive distance within the limit, and its index.

    Of differences between numbers times `before`, times `after`.
    """
    placed, ids, _ = search.ranked
    limit, scores = batch.limit[c], batch.scores
    best, found = np.inf, np.int64(2**31)
    for start in range(VECTOR, ids.size - VECTOR, VECTOR):
        if limit < np.inf:
            squared_distances(batch.placed, c, placed, start, scores)
        for place in range(start, start + VECTOR):
            color = np.int64(ids[place])
            if color < 0 or (limit < np.inf and scores[place] > limit):
                continue
            distance = naive_distance(batch.pixel, search.colors, color, before, after)
            if distance < best or (distance == best and color < found):
                best, found = distance, color
    return best, found


@inner
def write(values: Any, pixels: Any, colors: Any, batch: Any, sentinel: Any, index: Any, squared: Any) -> None:
    """Write the colours found, and their squared naive distances; `sentinel` and NaN where a pixel is invalid."""
    row, left, num, lanes = pixels
    found, invalid = batch.found, batch.invalid
    for c in range(num):
        index[c] = found[c] if invalid[c] == 0 else sentinel
    if squared.size == 0:
        return
    squared[:] = 0
    for c in range(num):
        found[c] = found[c] if invalid[c] == 0 else 0
    for band in range(colors.shape[1]):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        for c in range(num):
            difference = line[c * lanes] - colors[np.uint64(found[c]), band]
            squared[c] += difference * difference
    for c in range(num):
        squared[c] = squared[c] if invalid[c] == 0 else np.nan


@inner
def take_pixel(values: Any, pixels: Any, c: Any, pixel: Any) -> None:
    row, left, _, lanes = pixels
    for band in range(pixel.size):
        pixel[band] = values[band // lanes, row, (left + c) * lanes + band % lanes]


@inner
def naive_distance(pixel: Any, colors: Any, color: Any, before: Any, after: Any) -> Any:
    total = 0.0
    for band in range(pixel.size):
        difference = (pixel[band] * before - colors[color, band] * before) * after
        total += difference * difference
    return total
