"""Candidates for the nearest colour, by cells of 8-bit values: what a pixel of the cell can have as the nearest.

Every band is divided into cells of equal width, 64 for three bands. A colour is left out of a cell where another one
is nearer to all of it: the difference of two squared distances is linear, so its least value over a box is a sum of
those of the bands. What is left out is farther by more than rounding errors of the naive distances, so that the
naive search among the others (2 of 256 in a photograph, the lowest index first) finds what it finds among all.
Cells are halved from one that is everything: children choose among the candidates of their parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel

MOST_BANDS = 4
_BITS = (0, 8, 7, 6, 4)
"""Most bits of a cell's place in a band, by number of bands; a grid of 64 x 64 x 64 is made in 15 ms."""
_MOST_IDS = 1 << 20
"""Candidates of all cells together; where smaller cells have more, larger ones serve."""
_MOST_CANDIDATES = 24
"""Of a cell; where there are more, other searches are faster."""
UNSURE = -1
"""Found where nothing is certain."""
_LARGEST = 1e100
"""Colours farther out are not looked for here: their squares may be infinite."""
_MARGIN = 1e-12
"""Relative to squared distances, whose rounding errors are some 1e-15."""

MOST_BYTES = 4 * (3 * _MOST_IDS + 2**19)
"""Of a grid while it is made."""


@dataclass(frozen=True, slots=True)
class ColorGrid:
    """Candidates by cell; the bands' places make a cell's number, the first band's highest."""

    bits: int
    starts: np.ndarray
    """int32: cell i has ``ids[starts[i]:starts[i + 1]]``."""
    ids: np.ndarray
    """int32, ascending in a cell."""
    colors: np.ndarray
    """The colours (color, `MOST_BANDS`), 0 in bands that they do not have."""


class GridRows(NamedTuple):
    """Values as bytes, a grid, and what is known of the pixels of a row."""

    codes: Any
    """Planes of uint8."""
    bits: int
    flip: int
    """128 for signed values, whose bits are flipped so that they are ordered; else 0."""
    starts: Any
    ids: Any
    colors: Any
    cells: Any
    """By pixel, as the following."""
    values: Any
    """(band, pixel)."""
    usable: Any
    unknown: Any
    """The pixels whose cells have too many candidates."""
    new: Any
    """The colours found for these."""


def color_grid(colors: np.ndarray, dtype: np.dtype) -> ColorGrid:
    """Return the candidates among colours (color, band; float64) for pixels of an 8-bit dtype, up to four bands."""
    num_bands = colors.shape[1]
    lowest = -128.0 if dtype.kind == "i" else 0.0
    starts, ids = np.array([0, len(colors)], np.int32), np.arange(len(colors), dtype=np.int32)
    bits, own = 0, np.empty(_MOST_IDS, np.int32)
    while bits < _BITS[num_bands] and np.abs(colors).max() < _LARGEST:
        parts = np.zeros((1 << (bits + 1) * num_bands) + 1, np.int32)
        if not _choose(colors, lowest, bits + 1, (starts, ids), np.empty((2, num_bands)), parts, own):
            break
        bits, starts, ids = bits + 1, parts, own[: parts[-1]].copy()
    padded = np.zeros((len(colors), MOST_BANDS))
    padded[:, :num_bands] = colors
    return ColorGrid(bits, starts, ids, padded)


@kernel
def _choose(colors: Any, lowest: Any, bits: Any, parents: Any, box: Any, starts: Any, ids: Any) -> Any:
    """Write the candidates of cells with so many bits a band; return whether there is room for all."""
    parent_starts, parent_ids = parents
    bands = colors.shape[1]
    width = 256 >> bits
    used = 0
    for cell in range(starts.size - 1):
        parent = 0
        for band in range(bands):
            place = (cell >> (bits * (bands - 1 - band))) & ((1 << bits) - 1)
            parent = (parent << (bits - 1)) | (place >> 1)
            box[0, band] = lowest + place * width
            box[1, band] = box[0, band] + (width - 1)
        first, last = parent_starts[parent], parent_starts[parent + 1]
        if used + last - first > ids.size:
            return False
        champion = nearest_to_middle(colors, parent_ids[first:last], box) if last > first + 1 else np.int64(-1)
        for i in range(first, last):
            if parent_ids[i] == champion or champion < 0 or not is_beaten(colors, parent_ids[i], champion, box):
                ids[used] = parent_ids[i]
                used += 1
        starts[cell + 1] = used
    return True


@inner
def nearest_to_middle(colors: Any, ids: Any, box: Any) -> Any:
    best, found = np.inf, np.int64(0)
    for i in range(ids.size):
        total = 0.0
        for band in range(colors.shape[1]):
            total += ((box[0, band] + box[1, band]) * 0.5 - colors[ids[i], band]) ** 2
        if total < best:
            best, found = total, np.int64(ids[i])
    return found


@inner
def is_beaten(colors: Any, color: Any, champion: Any, box: Any) -> Any:
    """Whether a colour is farther than the champion from all of a box (lowest and highest by band), beyond doubt."""
    least, size = 0.0, 0.0
    for band in range(colors.shape[1]):
        own, other = colors[color, band], colors[champion, band]
        low, high = box[0, band], box[1, band]
        slope = 2 * (other - own)
        least += slope * ((low if slope > 0 else high) - (own + other) * 0.5)
        size += max(abs(low), abs(high)) ** 2 + own * own + other * other
    return least > _MARGIN * 8 * size


@inner
def choose_candidates(valid: Any, pixels: Any, grid: Any, invalid: Any, found: Any) -> Any:
    """Write the nearest of the candidates of pixels, and 0 for valid; return how many pixels are unknown."""
    starts, ids, colors, cells, values = grid.starts, grid.ids, grid.colors, grid.cells, grid.values
    cells_of_row(valid, pixels, grid)
    missing: Any = 0
    for c in range(pixels.num):
        first, last = np.uint32(starts[cells[c]]), np.uint32(starts[cells[c] + np.uint32(1)])
        are_many = last - first > _MOST_CANDIDATES
        last = first if are_many else last
        winner, best = np.uint32(0), np.inf
        for i in range(first, last):
            color = np.uint32(ids[i])
            # in the order of the bands; a band that there is not adds 0
            d0, d1 = values[0, c] - colors[color, 0], values[1, c] - colors[color, 1]
            d2, d3 = values[2, c] - colors[color, 2], values[3, c] - colors[color, 3]
            distance = d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3
            winner = color if distance < best else winner
            best = distance if distance < best else best
        found[c] = UNSURE if are_many else np.int64(winner)
        invalid[c] = np.float32(not grid.usable[c])
        grid.unknown[missing] = c
        missing += grid.usable[c] and are_many
    return missing


@inner
def cells_of_row(valid: Any, pixels: Any, grid: Any) -> None:
    """Write the cells of pixels in a row, their values (band, pixel), and which pixels are valid in every band."""
    row, left, num, lanes = pixels
    codes, bits, flip, cells, usable = grid.codes, grid.bits, grid.flip, grid.cells, grid.usable
    cells[:num] = 0
    usable[:num] = True
    shift = np.uint32(8 - bits)
    for band in range(codes.shape[0] * lanes):
        start = left * lanes + band % lanes
        line = codes[band // lanes, row, start : start + (num - 1) * lanes + 1]
        if lanes == 3:  # said outright, it is a vectorised loop: 2 ns a pixel less
            place_values(line, 3, num, flip, shift, bits, grid.values[band], cells)
        else:
            place_values(line, lanes, num, flip, shift, bits, grid.values[band], cells)
        if valid.size:
            mask = valid[band // lanes, row, start : start + (num - 1) * lanes + 1]
            for c in range(num):
                usable[c] &= mask[c * lanes]


@inner
def place_values(line: Any, lanes: Any, num: Any, flip: Any, shift: Any, bits: Any, values: Any, cells: Any) -> None:
    for c in range(num):
        place = np.uint32(line[c * lanes]) ^ np.uint32(flip)
        values[c] = np.float64(np.int32(place) - np.int32(flip))
        cells[c] = (cells[c] << np.uint32(bits)) | (place >> shift)
