"""Bins of the values of each band, for cells of about equal population (`color_cells`).

A histogram of keys of 32 bits that are ordered as the values, by their upper 16 bits; for values that crowd in few
bins, a second sweep with the crowded bins divided (`crowded_bins`). All are counts of integers, so they are the same
for any blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import Patch, Pixels

NO_MASK = np.ones((0, 0, 0), bool)
_COARSE = 16
_FINE = 12
"""Bits by which a crowded bin is divided."""


class RowBuffers(NamedTuple):
    """What a row of pixels is sorted into bins in."""

    bins: np.ndarray
    rounded: np.ndarray
    usable: np.ndarray

    @classmethod
    def of(cls, width: int) -> RowBuffers:
        return cls(np.empty(width, np.int64), np.empty(width, np.float32), np.empty(width, bool))


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins of the 32-bit keys of each band: the bin of a key is ``first[key >> 16] + ((key & 0xffff) >> shift)``."""

    first: np.ndarray
    """(band, 65536) int32."""
    shift: np.ndarray
    """(band, 65536) uint8."""
    num: int
    """Bins of the band with most."""


def coarse_bins(num_bands: int) -> Bins:
    """Return the bins of the first sweep: 8 and 16-bit values have one each, others share their upper 16 bits."""
    first = np.tile(np.arange(1 << _COARSE, dtype=np.int32), (num_bands, 1))
    return Bins(first, np.full(first.shape, 32 - _COARSE, np.uint8), 1 << _COARSE)


def crowded_bins(counts: np.ndarray, bits: int) -> Bins | None:
    """Return the coarse bins with the crowded ones divided, None where none is.

    A bin is crowded that holds more pixels than a cell should. Only for dtypes of more than 16 bits; `counts` are
    those of the first sweep.
    """
    crowded = counts > np.maximum(counts.sum(axis=1, keepdims=True) >> bits, 1)
    if not crowded.any():
        return None
    sizes = np.where(crowded, 1 << _FINE, 1)
    ends = np.cumsum(sizes, axis=1)
    shift = np.where(crowded, _COARSE - _FINE, 32 - _COARSE).astype(np.uint8)
    return Bins((ends - sizes).astype(np.int32), shift, int(ends[:, -1].max()))


def histogram(values: np.ndarray, patch: Patch, bins: Bins, valid: np.ndarray | None = None) -> np.ndarray:
    """Return the counts (band, bin; int64) of a region's pixels that are valid in every band; add those of blocks."""
    counts = np.zeros((len(bins.first), bins.num), np.int64)
    mask = NO_MASK if valid is None else valid
    _count_bins(values, mask, patch, (bins.first, bins.shift), RowBuffers.of(patch.shape[1]), counts)
    return counts


@kernel
def _count_bins(values: Any, valid: Any, patch: Any, bins: Any, buffers: Any, counts: Any) -> None:
    (height, width), (top, left) = patch.shape, patch.values_at
    first, shift = bins
    keys, rounded, usable = buffers
    for i in range(height):
        pixels = Pixels(top + i, left, width, patch.lanes)
        mark_usable(values, valid, pixels, usable)
        for band in range(counts.shape[0]):
            find_bins(values, pixels, band, first[band], shift[band], rounded, keys)
            for c in range(width):
                counts[band, keys[c]] += usable[c]


@inner
def mark_usable(values: Any, valid: Any, pixels: Any, usable: Any) -> None:
    """Write which pixels are valid in every band."""
    row, left, num, lanes = pixels
    usable[:num] = True
    for plane in range(values.shape[0]):
        for lane in range(lanes):
            line = values[plane, row, left * lanes + lane :]
            for c in range(num):
                usable[c] &= line[c * lanes] - line[c * lanes] == 0
            if valid.size:
                mask = valid[plane, row, left * lanes + lane :]
                for c in range(num):
                    usable[c] &= mask[c * lanes]


@inner
def find_bins(values: Any, pixels: Any, band: Any, first: Any, shift: Any, rounded: Any, bins: Any) -> None:
    """Write the bins of a band's values: small integers are keys themselves, others ordered as float32."""
    row, left, num, lanes = pixels
    line = values[band // lanes, row, left * lanes + band % lanes :]
    if line.itemsize <= 2:
        # the bit of a signed dtype's -1 is set
        offset = np.int64(1 << 15) if line.dtype.type(0) - line.dtype.type(1) < 0 else np.int64(0)
        for c in range(num):
            bins[c] = first[np.int64(line[c * lanes]) + offset]
        return
    for c in range(num):
        rounded[c] = np.float32(line[c * lanes]) + np.float32(0)  # + 0: there is one zero only
    bits = rounded.view(np.uint32)
    for c in range(num):
        sign = np.uint32(0x80000000)
        key = np.int64(bits[c] ^ np.uint32(0xFFFFFFFF)) if bits[c] & sign else np.int64(bits[c] | sign)
        upper = key >> np.int64(16)
        bins[c] = first[upper] + ((key & np.int64(0xFFFF)) >> np.int64(shift[upper]))
