"""The nearest palette colour of each pixel: the index a loop over the palette in float64 would find, to the bit.

The distance that counts is the naive one: squares of the differences in float64, summed over the bands in order; of
equal distances the lowest index wins. The search leads there faster:

- The palette is centred, scaled to length 1 and sorted along its principal axis. From the place where a pixel falls,
  32 colours at a time are tried outwards, until their distance along the axis alone exceeds the least one.
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
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.kernels.color_grid import MOST_BANDS, MOST_BYTES, UNSURE, ColorGrid, choose_candidates, color_grid
from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.extreme import SHIFT, TINY
from pipeline.kernels.vector import LANES, UNROLLED, lanes_within, lowest_bit, number_of_bits, squared_distances

TILE = 256
"""Pixels that are converted together."""
LINE = 16
"""float32 numbers of a cache line."""
_BUCKETS = 4096
_UNIT = 2.0**-24
_FAR = 1e17
"""Where places without a colour lie."""
_WIDEST = 1e12
"""Pixels farther out than this many lengths of the palette are compared with all colours."""
FINE = 2.0**-440
"""Of two colours that differ by as much in a band, only one can have a squared distance below `TINY[2]`."""
_DOWN, _UP, _VANISHING = 2.0**-SHIFT, 2.0**SHIFT, TINY[2]
_NO_MASK = np.ones((0, 0, 0), bool)
_NO_BYTES = np.ones((0, 0, 0), np.uint8)
_NO_GRID = ColorGrid(0, np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, MOST_BANDS)))


@dataclass(frozen=True, slots=True)
class ColorSearch:
    """A palette made ready; see `search_of`."""

    colors: np.ndarray
    """The palette (color, band), float64."""
    frame: tuple[np.ndarray, np.ndarray, float, float]
    """Centre; principal axis (float32); scale (0: compare all); largest length after scaling."""
    sorted: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Placed colours (band, place) in float32, their indices and their positions along the axis, sorted by these.

    `LANES` places without a colour come before and after, at least."""
    buckets: tuple[np.ndarray, float, float]
    """First place to try by bucket of positions; position of the first bucket, buckets per unit."""
    is_fine: bool = False
    """Whether colours, or a colour and 0, lie so near each other in a band that the squares of distances vanish."""
    grids: dict[str, ColorGrid] = field(default_factory=dict)
    """Candidates for pixels of 8 bits, by kind of dtype; made when first asked for."""

    def grid(self, dtype: np.dtype) -> ColorGrid:
        if dtype.kind not in self.grids:
            self.grids[dtype.kind] = color_grid(self.colors, dtype)
        return self.grids[dtype.kind]

    @property
    def nbytes(self) -> int:
        return int(sum(array.nbytes for array in (self.colors, *self.sorted, self.buckets[0])))


def search_of(palette: np.ndarray) -> ColorSearch:
    """Prepare a palette (color, band) of finite numbers for `nearest`."""
    colors = np.ascontiguousarray(palette, np.float64)
    # of equal colours the first one wins always
    different, names = np.unique(colors, axis=0, return_index=True)
    with np.errstate(all="ignore"):
        centre = different.mean(axis=0)
        radius = float(np.sqrt(((different - centre) ** 2).sum(axis=1).max()))
    # beyond, naive distances overflow or vanish
    usable = 1e-140 < radius < 1e130
    scale = 2.0 ** -math.frexp(radius)[1] if usable else 0.0  # a power of two: exact
    placed = (different - centre) * scale if usable else np.zeros_like(different)
    axis = np.linalg.eigh(placed.T @ placed)[1][:, -1]
    position = placed @ axis
    order = np.argsort(position, kind="stable")
    largest = float(np.sqrt((placed**2).sum(axis=1).max()))
    rows = _sorted_colors(placed[order], names[order], position[order])
    padded_axis = np.zeros(_padded(len(axis)), np.float32)
    padded_axis[: len(axis)] = axis
    return ColorSearch(
        colors, (centre, padded_axis, scale, largest), rows, _buckets_of(position[order]), _is_fine(colors)
    )


def _is_fine(colors: np.ndarray) -> bool:
    bands = np.sort(np.vstack([colors, np.zeros_like(colors[:1])]), axis=0)
    with np.errstate(over="ignore"):
        gaps = np.diff(bands, axis=0)
    return bool(((gaps > 0) & (gaps < FINE)).any())


@lru_cache(maxsize=4)
def _search_of_bytes(colors: bytes, shape: tuple[int, int]) -> ColorSearch:
    return search_of(np.frombuffer(colors).reshape(shape))


def cached_search(palette: np.ndarray) -> ColorSearch:
    """Return the search of a palette, made ready once for all its blocks."""
    return _search_of_bytes(np.ascontiguousarray(palette, np.float64).tobytes(), palette.shape)


def _sorted_colors(
    placed: np.ndarray, names: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num, bands = placed.shape
    size = (num + 2 * LANES + LINE) // LINE * LINE
    size += LINE if size % 256 == 0 else 0  # rows at distances of 4 KiB would share few places in the cache
    inside = slice(LANES, LANES + num)
    colors = _aligned(_padded(bands), size)
    colors[:] = _FAR
    colors[bands:] = 0
    colors[:bands, inside] = placed.T
    ids = np.full(size, -1, np.int32)
    ids[inside] = names
    positions = np.full(size, np.inf)
    positions[:LANES] = -np.inf
    positions[inside] = position
    return colors, ids, positions


def _padded(bands: int) -> int:
    return -(-bands // UNROLLED) * UNROLLED


def _aligned(rows: int, size: int) -> np.ndarray:
    """Return an empty float32 array whose rows begin at cache lines (size: a multiple of `LINE`)."""
    buffer = np.empty((rows * size + LINE) * 4, np.uint8)
    start = -buffer.ctypes.data % (4 * LINE)
    return buffer[start : start + 4 * rows * size].view(np.float32).reshape(rows, size)


def _buckets_of(position: np.ndarray) -> tuple[np.ndarray, float, float]:
    first, last = float(position[0]), float(position[-1])
    per_unit = _BUCKETS / (last - first) if last > first else 0.0
    middles = first + (np.arange(_BUCKETS) + 0.5) / per_unit if per_unit else np.full(_BUCKETS, first)
    start = np.searchsorted(position, middles) + LANES - LANES // 2 + LINE // 2
    start = np.clip(start, LANES, max(LANES, len(position))) // LINE * LINE
    return start.astype(np.int32), first, per_unit


@dataclass(frozen=True, slots=True)
class Place:
    """A region within planes (plane, row, column x lane) of values and (row, column) of results."""

    shape: tuple[int, int]
    values_at: tuple[int, int] = (0, 0)
    out_at: tuple[int, int] = (0, 0)
    lanes: int = 1


def nearest(
    values: np.ndarray,
    search: ColorSearch,
    place: Place,
    index: np.ndarray,
    sentinel: int,
    *,
    valid: np.ndarray | None = None,
    squared: np.ndarray | None = None,
) -> None:
    """Fill `index` (row, column) with the nearest colour's index, and `squared` (float64) with its squared distance.

    `values` are planes of any dtype with as many bands as the palette (64-bit integers are rounded to float64). A
    pixel with a band that is NaN, infinite or False in `valid` (planes like `values`) gets `sentinel` and NaN.
    """
    if values.dtype == np.float16:  # numba has no arithmetic for it
        values = values.astype(np.float32)
    bands = search.colors.shape[1]
    buffers = (
        np.zeros((_padded(bands), TILE), np.float32),
        np.zeros((4, TILE), np.float32),
        np.zeros(TILE, np.int64),
        np.zeros(bands),
        np.zeros(search.sorted[0].shape[1], np.float32),
        np.zeros(TILE, values.dtype),
        np.zeros(TILE, np.int64),
    )
    where = (*place.shape, *place.values_at, *place.out_at, place.lanes)
    mask = _NO_MASK if valid is None else valid
    far = np.empty((0, 0)) if squared is None else squared
    palette = (search.colors, (*search.frame, search.is_fine), search.sorted, search.buckets)
    _nearest(values, mask, where, palette, buffers, _grid_for(values, search), index, far, sentinel)


def grid_bytes(dtype: np.dtype, num_bands: int) -> int:
    """Return what the candidates for pixels of a dtype take at most."""
    return MOST_BYTES if _has_grid(dtype, num_bands) else 0


def _has_grid(dtype: np.dtype, num_bands: int) -> bool:
    return dtype.itemsize == 1 and num_bands <= MOST_BANDS


def _grid_for(values: np.ndarray, search: ColorSearch) -> tuple[Any, ...]:
    """Return values as bytes, the candidates (none where they are not for these values), and buffers."""
    is_used = _has_grid(values.dtype, search.colors.shape[1]) and search.frame[2] > 0 and not search.is_fine
    grid = search.grid(values.dtype) if is_used else _NO_GRID
    return (
        values.view(np.uint8) if is_used else _NO_BYTES,
        grid.bits,
        128 if values.dtype.kind == "i" else 0,
        grid.starts,
        grid.ids,
        grid.colors,
        np.zeros(TILE, np.uint32),
        np.zeros((MOST_BANDS, TILE)),
        np.zeros(TILE, bool),
        np.zeros(TILE + 1, np.int64),
    )


@kernel
def _nearest(
    values: Any,
    valid: Any,
    where: Any,
    palette: Any,
    buffers: Any,
    grid: Any,
    index: Any,
    squared: Any,
    sentinel: Any,
) -> None:
    height, width, top, left, out_top, out_left, lanes = where
    colors, frame, ranked, buckets = palette
    tile, facts, found, pixel, scores, gathered, _ = buffers
    for i in range(height):
        for begin in range(0, width, TILE):
            num = min(TILE, width - begin)
            source = (top + i, left + begin, num, lanes)
            if grid[3].size:
                choose_candidates(valid, source, grid, facts, found)
                find_unknown(values, source, palette, grid, buffers)
            else:
                found[:num] = UNSURE
                convert(values, valid, source, frame, tile, facts, gathered)
                search_tile(tile, num, facts, frame, ranked, buckets, scores, found)
                for c in range(num):
                    if found[c] == UNSURE and facts[2, c] == 0:
                        take_pixel(values, source, c, pixel)
                        found[c] = decide(pixel, tile, c, facts, colors, ranked, scores, frame[4])
            row = index[out_top + i, out_left + begin : out_left + begin + num]
            for c in range(num):
                row[c] = found[c] if facts[2, c] == 0 else sentinel
            if squared.size:
                line = squared[out_top + i, out_left + begin : out_left + begin + num]
                measure_tile(values, source, facts, colors, found, line)


@inner
def find_unknown(values: Any, source: Any, palette: Any, grid: Any, buffers: Any) -> None:
    """Search the nearest colours of the pixels with too many candidates, side by side."""
    colors, frame, ranked, buckets = palette
    tile, facts, found, pixel, scores, _, new = buffers
    unknown = grid[9]
    centre, axis, scale, _, _ = frame
    missing = unknown[TILE]
    new[:missing] = UNSURE
    for k in range(missing):
        take_pixel(values, source, unknown[k], pixel)
        length, position = np.float32(0), np.float32(0)
        for band in range(centre.size):
            placed = np.float32((pixel[band] - centre[band]) * scale)
            tile[band, k] = placed
            length += placed * placed
            position += placed * axis[band]
        facts[0, k], facts[1, k] = length, position
    search_tile(tile, missing, facts, frame, ranked, buckets, scores, new)
    for k in range(missing):
        if new[k] == UNSURE:
            take_pixel(values, source, unknown[k], pixel)
            new[k] = decide(pixel, tile, k, facts, colors, ranked, scores, frame[4])
        found[unknown[k]] = new[k]


@inner
def convert(values: Any, valid: Any, source: Any, frame: Any, tile: Any, facts: Any, gathered: Any) -> None:
    """Place pixels as the palette is; facts become squared lengths, positions along the axis, and 0 for valid."""
    row, left, num, lanes = source
    centre, axis, scale, _, _ = frame
    squared, position, invalid = facts[0, :num], facts[1, :num], facts[2, :num]
    facts[:, :num] = 0
    for band in range(centre.size):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        if lanes > 1:
            for c in range(num):
                gathered[c] = line[c * lanes]
            line = gathered[:num]
        placed = tile[band, :num]
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
def search_tile(
    tile: Any, num: Any, facts: Any, frame: Any, ranked: Any, buckets: Any, scores: Any, found: Any
) -> None:
    """Write the indices of the nearest colours of pixels; what is not certain stays `UNSURE`.

    Facts 3 become the limits of squared distances in float32: colours beyond are not the nearest.
    """
    colors, ids, positions = ranked
    starts, lowest, per_unit = buckets
    for pixel in range(num):
        facts[3, pixel] = np.inf
        error = _UNIT * (math.sqrt(np.float64(facts[0, pixel])) + frame[3])
        if frame[2] == 0 or not error < _UNIT * _WIDEST:
            continue
        position = np.float64(facts[1, pixel])
        aside = (tile.shape[0] + 4) * error
        slack = 4096 * error * error
        start = np.int64(starts[np.int64(min(max((position - lowest) * per_unit, 0.0), _BUCKETS - 1.0))])
        stop = start + LANES
        least = squared_distances(tile, pixel, colors, start, scores)
        while is_near(positions[stop] - position - aside, 1.01 * least + slack):
            least = min(least, squared_distances(tile, pixel, colors, stop, scores))
            stop += LANES
        while is_near(position - positions[start - 1] - aside, 1.01 * least + slack):
            start -= LANES
            least = min(least, squared_distances(tile, pixel, colors, start, scores))
        bound = 1.01 * least + slack
        spread = (tile.shape[0] + 4) * _UNIT * bound + 2 * math.sqrt(bound) * error + error * error
        limit = np.float32(least + 2.2 * spread)
        facts[3, pixel] = limit
        count, name = 0, 0
        for place in range(start, stop, LANES):
            lanes = lanes_within(scores, place, limit)
            count += number_of_bits(lanes)
            name = ids[place + lowest_bit(lanes)] if lanes != 0 else name
        found[pixel] = name if count == 1 else UNSURE


@inner
def is_near(gap: Any, bound: Any) -> Any:
    return gap <= 0 or gap * gap <= bound


@inner
def decide(pixel: Any, tile: Any, c: Any, facts: Any, colors: Any, ranked: Any, scores: Any, is_fine: Any) -> Any:
    """Return the index of the nearest colour by the naive distance, among those within the limit."""
    best, found = nearest_of(pixel, tile, c, facts, colors, ranked, scores, 1.0, 1.0)
    if best == np.inf:
        best, found = nearest_of(pixel, tile, c, facts, colors, ranked, scores, _DOWN, 1.0)
    elif is_fine and best < _VANISHING:
        best, found = nearest_of(pixel, tile, c, facts, colors, ranked, scores, 1.0, _UP)
    return found


@inner
def nearest_of(
    pixel: Any, tile: Any, c: Any, facts: Any, colors: Any, ranked: Any, scores: Any, before: Any, after: Any
) -> Any:
    """Return the least naive distance of differences between numbers times `before`, times `after`; and its index."""
    placed, ids, _ = ranked
    limit = facts[3, c]
    best, found = np.inf, np.int64(2**31)
    for start in range(LANES, ids.size - LANES, LANES):
        if limit < np.inf:
            squared_distances(tile, c, placed, start, scores)
        for place in range(start, start + LANES):
            color = np.int64(ids[place])
            if color < 0 or (limit < np.inf and scores[place] > limit):
                continue
            distance = naive_distance(pixel, colors, color, before, after)
            if distance < best or (distance == best and color < found):
                best, found = distance, color
    return best, found


@inner
def measure_tile(values: Any, source: Any, facts: Any, colors: Any, found: Any, squared: Any) -> None:
    """Write the naive distances of the colours found, squared; NaN where a pixel is invalid."""
    row, left, num, lanes = source
    squared[:] = 0
    for c in range(num):
        found[c] = found[c] if facts[2, c] == 0 else 0
    for band in range(colors.shape[1]):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        for c in range(num):
            difference = line[c * lanes] - colors[np.uint64(found[c]), band]
            squared[c] += difference * difference
    for c in range(num):
        squared[c] = squared[c] if facts[2, c] == 0 else np.nan


@inner
def take_pixel(values: Any, source: Any, c: Any, pixel: Any) -> None:
    row, left, _, lanes = source
    for band in range(pixel.size):
        pixel[band] = values[band // lanes, row, (left + c) * lanes + band % lanes]


@inner
def naive_distance(pixel: Any, colors: Any, color: Any, before: Any, after: Any) -> Any:
    total = 0.0
    for band in range(pixel.size):
        difference = (pixel[band] * before - colors[color, band] * before) * after
        total += difference * difference
    return total
