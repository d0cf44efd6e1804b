"""Pixels by colour, for values of 8 bits in up to four bands: each colour is a cell of its own.

A colour's number, its cell's, tells its values, so pixels are only counted and sums follow from counts. The counts
lie in a table of words (number above, count below) in which neighbouring numbers share lines of the cache: a pixel of
a photograph takes 10 to 14 ns, where summing by cells took 35 to 59.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import ExactSums, trim
from pipeline.kernels.label_table import LabelTable, Patch

_EMPTY = np.uint64(0)
_NO_MASK = np.ones((0, 0, 0), bool)


def color_codes(num_bands: int, dtype: np.dtype) -> np.ndarray:
    """Return each band's part of a colour's number (band, byte; uint32): the bits of the bands take turns."""
    places = np.arange(256, dtype=np.uint32) ^ np.uint32(128 if dtype.kind == "i" else 0)
    codes = np.zeros((num_bands, 256), np.uint32)
    for band in range(num_bands):
        for bit in range(8):
            codes[band] |= (places >> bit & 1) << np.uint32(bit * num_bands + num_bands - 1 - band)
    return codes


def count_colors(values: np.ndarray, patch: Patch, most: int, valid: np.ndarray | None = None) -> Iterator[LabelTable]:
    """Yield tables of a region's colours by number, with pixels and sums, until each pixel is in one.

    `values` are planes of uint8 or int8, up to four bands. A table has more than `most` colours, by at most a row of
    pixels, or is the last.
    """
    height, width = patch.shape
    num_bands = len(values) * patch.lanes
    codes = color_codes(num_bands, values.dtype)
    counts = np.zeros(1 << (2 * min(height * width, most + width)).bit_length(), np.uint64)
    buffers = np.empty(width, np.uint32), np.empty(width, bool)
    mask = _NO_MASK if valid is None else valid
    row = 0
    while True:
        where = (row, height, width, *patch.values_at, patch.lanes)
        row = _tally(values.view(np.uint8), mask, where, codes, buffers, most, counts)
        yield _table(np.sort(counts[counts != _EMPTY]), num_bands, values.dtype)
        if row >= height:
            return
        counts[:] = _EMPTY


def _table(counts: np.ndarray, num_bands: int, dtype: np.dtype) -> LabelTable:
    sums = np.empty((len(counts) * num_bands, 1), np.int64)
    _sum_colors(counts, num_bands, 128 if dtype.kind == "i" else 0, sums)
    pixels = (counts & np.uint64(0xFFFFFFFF)).astype(np.int64)
    labels = (counts >> np.uint64(32)).astype(np.int64)
    return LabelTable(labels, pixels, num_bands, None, trim(ExactSums(sums.view(np.uint64))))


@kernel
def _tally(values: Any, valid: Any, where: Any, codes: Any, buffers: Any, most: Any, counts: Any) -> Any:
    """Count the colours of rows until there are more than `most`; return the row after the last one."""
    first, height, width, top, left, lanes = where
    numbers, usable = buffers
    found = 0
    for row in range(first, height):
        number_row(values, valid, (top + row, left, width, lanes), codes, numbers, usable)
        for c in range(width):
            if usable[c]:
                found += _add(counts, numbers[c])
        if found > most:
            return row + 1
    return height


@inner
def number_row(values: Any, valid: Any, source: Any, codes: Any, numbers: Any, usable: Any) -> None:
    """Write the numbers of the colours of pixels in a row, and which pixels are valid in every band."""
    row, left, num, lanes = source
    numbers[:num] = 0
    usable[:num] = True
    for band in range(codes.shape[0]):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        code = codes[band]
        for c in range(num):
            numbers[c] |= code[line[c * lanes]]
        if valid.size:
            mask = valid[band // lanes, row, start : start + (num - 1) * lanes + 1]
            for c in range(num):
                usable[c] &= mask[c * lanes]


@inner
def _add(counts: Any, number: Any) -> Any:
    """Count a pixel of a colour; return 1 if it is new."""
    mask = np.uint64(counts.size - 1)
    key = np.uint64(number)
    at = place_of_color(key, mask)
    while counts[at] != 0 and counts[at] >> np.uint64(32) != key:
        at = (at + np.uint64(1)) & mask
    if counts[at] == 0:
        counts[at] = (key << np.uint64(32)) | np.uint64(1)
        return 1
    counts[at] += np.uint64(1)
    return 0


@inner
def place_of_color(key: Any, mask: Any) -> Any:
    """Return where to look for a colour's number (uint64) in a table; eight numbers in a row stay together."""
    mixed = (key >> np.uint64(3)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(29)) & mask & ~np.uint64(7)) | (key & np.uint64(7) & mask)


@kernel
def _sum_colors(counts: Any, num_bands: Any, offset: Any, sums: Any) -> None:
    """Write pixels times values by colour and band."""
    for i in range(counts.size):
        number, pixels = counts[i] >> np.uint64(32), np.int64(counts[i] & np.uint64(0xFFFFFFFF))
        for band in range(num_bands):
            value = np.int64(0)
            for bit in range(8):
                place = np.uint64(bit * num_bands + num_bands - 1 - band)
                value |= np.int64((number >> place) & np.uint64(1)) << np.int64(bit)
            sums[i * num_bands + band, 0] = pixels * (value - offset)
