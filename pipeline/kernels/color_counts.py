"""Pixels by colour, for values of 8 bits in up to four bands: each colour is a cell of its own.

A colour's number, its cell's in Morton order, tells its values, so pixels are only counted and sums follow from
counts. The counts lie in a table of words (number above, count below) in which neighbouring numbers share lines of the
cache: a pixel of a photograph takes 10 to 14 ns, where summing by cells took 35 to 59.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import ExactSums, trim
from pipeline.kernels.frame import Patch, Pixels
from pipeline.kernels.label_table import LabelTable

_EMPTY = np.uint64(0)
_NO_MASK = np.ones((0, 0, 0), bool)


def _masks(num_bands: int) -> tuple[np.uint32, np.uint32, np.uint32]:
    """Return the bits that a value's have after each step of `spread_bits`: by fours, by twos, one by one."""
    wholes = (sum(((1 << size) - 1) << (size * num_bands * i) for i in range(8 // size)) for size in (4, 2, 1))
    by_fours, by_twos, single = (np.uint32(whole) for whole in wholes)
    return by_fours, by_twos, single


def count_colors(values: np.ndarray, patch: Patch, most: int, valid: np.ndarray | None = None) -> Iterator[LabelTable]:
    """Yield tables of a region's colours by number, with pixels and sums, until each pixel is in one.

    `values` are planes of uint8 or int8, up to four bands. A table has more than `most` colours, by at most a row of
    pixels, or is the last.
    """
    height, width = patch.shape
    num_bands = len(values) * patch.lanes
    flip = 128 if values.dtype.kind == "i" else 0
    counts = np.zeros(1 << (3 * min(height * width, most + width) // 2).bit_length(), np.uint64)
    buffers = np.empty(width, np.uint32), np.empty(width, bool)
    mask = _NO_MASK if valid is None else valid
    row = 0
    while True:
        row = _tally(values.view(np.uint8), mask, patch, row, (_masks(num_bands), flip), buffers, most, counts)
        yield _table(np.sort(counts[counts != _EMPTY]), num_bands, values.dtype)
        if row >= height:
            return
        counts[:] = _EMPTY


def _table(counts: np.ndarray, num_bands: int, dtype: np.dtype) -> LabelTable:
    sums = np.empty((len(counts) * num_bands, 1), np.int64)
    _sum_colors(counts, num_bands, _masks(num_bands), 128 if dtype.kind == "i" else 0, sums)
    pixels = (counts & np.uint64(0xFFFFFFFF)).astype(np.int64)
    labels = (counts >> np.uint64(32)).astype(np.int64)
    return LabelTable(labels, pixels, num_bands, None, trim(ExactSums(sums.view(np.uint64))))


@kernel
def _tally(values: Any, valid: Any, patch: Any, first: Any, coding: Any, buffers: Any, most: Any, counts: Any) -> Any:
    """Count the colours of rows until there are more than `most`; return the row after the last one."""
    (height, width), (top, left) = patch.shape, patch.values_at
    numbers, usable = buffers
    found = 0
    for row in range(first, height):
        number_row(values, valid, Pixels(top + row, left, width, patch.lanes), coding, numbers, usable)
        for c in range(width):
            if usable[c]:
                found += _add(counts, numbers[c])
        if found > most:
            return row + 1
    return height


@inner
def number_row(values: Any, valid: Any, pixels: Any, coding: Any, numbers: Any, usable: Any) -> None:
    """Write the numbers of the colours of pixels in a row, and which pixels are valid in every band."""
    row, left, num, lanes = pixels
    numbers[:num] = 0
    usable[:num] = True
    for band in range(values.shape[0] * lanes):
        start = left * lanes + band % lanes
        line = values[band // lanes, row, start : start + (num - 1) * lanes + 1]
        if lanes == 3:  # said outright, it is a vectorised loop: 2 ns a pixel less
            add_codes(line, 3, values.shape[0] * 3, coding, numbers[:num])
        else:
            add_codes(line, lanes, values.shape[0] * lanes, coding, numbers[:num])
        if valid.size:
            mask = valid[band // lanes, row, start : start + (num - 1) * lanes + 1]
            for c in range(num):
                usable[c] &= mask[c * lanes]


@inner
def add_codes(line: Any, lanes: Any, num_bands: Any, coding: Any, numbers: Any) -> None:
    """Append a band's values to Morton numbers: the bits of the bands take turns, the first band's come first."""
    masks, flip = coding
    for c in range(numbers.size):
        value = np.uint32(line[c * lanes]) ^ np.uint32(flip)
        numbers[c] = (numbers[c] << np.uint32(1)) | spread_bits(value, num_bands, masks)


@inner
def spread_bits(value: Any, num_bands: Any, masks: Any) -> Any:
    """Return 8 bits (uint32) with room between them for those of the other bands: one band of a Morton number."""
    gap = np.uint32(num_bands - 1)
    value = (value | (value << (np.uint32(4) * gap))) & masks[0]
    value = (value | (value << (np.uint32(2) * gap))) & masks[1]
    return (value | (value << gap)) & masks[2]


@inner
def gather_bits(number: Any, num_bands: Any, masks: Any) -> Any:
    """Return the 8 bits (uint32) that `spread_bits` put there; other bits are dropped."""
    gap = np.uint32(num_bands - 1)
    number &= masks[2]
    number = (number | (number >> gap)) & masks[1]
    number = (number | (number >> (np.uint32(2) * gap))) & masks[0]
    return (number | (number >> (np.uint32(4) * gap))) & np.uint32(255)


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
def _sum_colors(counts: Any, num_bands: Any, masks: Any, flip: Any, sums: Any) -> None:
    """Write pixels times values by colour and band."""
    for i in range(counts.size):
        number, pixels = np.uint32(counts[i] >> np.uint64(32)), np.int64(counts[i] & np.uint64(0xFFFFFFFF))
        for band in range(num_bands):
            value = gather_bits(number >> np.uint32(num_bands - 1 - band), num_bands, masks)
            sums[i * num_bands + band, 0] = pixels * (np.int64(value) - flip)
