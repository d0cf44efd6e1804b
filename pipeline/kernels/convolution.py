"""Weighted sums of the neighbours of each pixel: kernels, their factors, and the driver.

All arrays are "planes" (plane, row, column x lanes), C-contiguous: the bands of ``y, x, band`` are lanes, those of
``band, y, x`` are planes. ``correlate(values, weights, out, frame)`` fills `out` over ``frame.region`` with

    out[y, x] = sum over i, j of kernel[i, j] values[y + i - rows // 2, x + j - columns // 2]

which is correlation: flip a kernel (``kernel[::-1, ::-1]``) for a true convolution. `weights` says how the sum is
done: ``direct(kernel)`` tap by tap, or ``separable((down, across), ...)`` as a sum of products of two vectors;
``prepare(kernel, dtype)`` takes the cheaper of those that are exact.

Invariants, tested in ``tests/test_convolution.py``:

- A pixel's result is one expression of the values in its support, the pixels of nonzero weight: not of the block, not
  of the lanes, not of invalid pixels elsewhere. Sums are float64, rounded once to the dtype of `out`.
- NaN and inf are invalid: a result whose support holds one is NaN, all others are untouched by it. With
  ``normalize=True`` they are skipped instead, and the sum is divided by that of the weights used.
- `values` are only read.

Examples
--------
>>> import numpy as np
>>> values, out = np.arange(9.0).reshape(1, 3, 3), np.empty((1, 1, 1))
>>> frame = Frame(region=(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1))
>>> correlate(values, direct(np.array([[0, 0, 1], [0, -1, 0], [0, 0, 0]])), out, frame)
>>> float(out[0, 0, 0])
-2.0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.correlation import correlate_planes, correlate_valid_planes

TILE = 512
"""Elements of a row that are summed at a time, so that the rows of a kernel stay in the first two levels of cache."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the pixels lie, in raster coordinates."""

    region: tuple[int, int, int, int]
    """Pixels to compute: top, bottom, left, right. `values` holds `Weights.reach` more on each side."""
    origin: tuple[int, int]
    """Raster row and column of ``values[:, 0, 0]``."""
    out_origin: tuple[int, int]
    """Raster row and column of ``out[:, 0, 0]``."""
    lanes: int = 1
    """Neighbouring elements that belong to one pixel."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A kernel as the compiled loops take it; made by `direct`, `separable` and `prepare`."""

    reach: tuple[int, int, int, int]
    """Pixels from the centre to the end of the support, above, below, left and right; negative where it ends before."""
    size: float
    """Sum of the absolute weights."""
    positive: bool
    """Whether no weight has another sign than the others."""
    starts: np.ndarray
    """Begin of each factor along the rows in `columns`, and the end; empty for a direct sum."""
    columns: np.ndarray
    """Columns of the factors' taps, from 0 at the left end of the support."""
    across: np.ndarray
    """Their weights."""
    taps: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Factor, row and column of each tap of an output row, from 0 at the upper left of the support."""
    down: np.ndarray
    """Their weights."""

    @property
    def height(self) -> int:
        return self.reach[0] + self.reach[1] + 1

    @property
    def width(self) -> int:
        return self.reach[2] + self.reach[3] + 1

    @property
    def layers(self) -> int:
        """Rows that are kept of each source row."""
        return max(self.starts.size - 1, 1)


def direct(kernel: np.ndarray) -> Weights:
    """Return the weights of a kernel (rows, columns), both odd, summed tap by tap in the order of the rows.

    Taps of weight 0 are left out. A kernel of zeros alone is one tap of weight 0 at the centre.
    """
    kernel = np.asarray(kernel, np.float64)
    rows, columns = np.nonzero(kernel)
    if rows.size == 0:
        rows, columns = np.array([[kernel.shape[0] // 2], [kernel.shape[1] // 2]])
    taps = kernel[rows, columns]
    return Weights(
        reach=(*_reach(rows, kernel.shape[0]), *_reach(columns, kernel.shape[1])),
        size=float(np.abs(taps).sum()),
        positive=bool((taps >= 0).all() or (taps <= 0).all()),
        starts=np.empty(0, np.int64),
        columns=np.empty(0, np.int64),
        across=np.empty(0),
        taps=(np.zeros_like(rows), rows - rows.min(), columns - columns.min()),
        down=taps,
    )


def separable(*factors: tuple[np.ndarray, np.ndarray]) -> Weights:
    """Return the weights of the kernel sum of outer(down, across) over `factors`: vectors of odd lengths.

    Each row is summed across first, then the sums are summed down. All `down` have one length, and all `across`.
    """
    downs, acrosses = (np.array([np.asarray(pair[i], np.float64) for pair in factors]) for i in (0, 1))
    layers, rows = np.nonzero(downs)
    which, columns = np.nonzero(acrosses)
    kernel = np.einsum("ki,kj->ij", downs, acrosses)
    if len(factors) == 1 and (rows.size == 0 or columns.size == 0):
        return direct(kernel)
    return Weights(
        reach=(*_reach(rows, downs.shape[1]), *_reach(columns, acrosses.shape[1])),
        size=float((np.abs(downs).sum(1) * np.abs(acrosses).sum(1)).sum()),
        positive=bool((kernel >= 0).all() or (kernel <= 0).all()),
        starts=np.searchsorted(which, np.arange(len(factors) + 1)),
        columns=columns - columns.min(),
        across=acrosses[which, columns],
        taps=(layers, rows - rows.min(), np.zeros_like(rows)),
        down=downs[layers, rows],
    )


def _reach(indices: np.ndarray, length: int) -> tuple[int, int]:
    return length // 2 - int(indices.min()), int(indices.max()) - length // 2


def correlate(values: np.ndarray, weights: Weights, out: np.ndarray, frame: Frame, normalize: bool = False) -> None:
    """Fill `out` over the frame's region; both arrays are float32 or float64.

    With `normalize`, sum(w v) / sum(w) over the valid pixels, NaN where the centre is invalid or where these weights
    sum to 0 (to rounding, for kernels of mixed signs).
    """
    top, bottom, left, right = frame.region
    row, column = frame.origin
    above, _, before, _ = weights.reach
    lanes = frame.lanes
    place = (
        top - above - row,
        (left - before - column) * lanes,
        bottom - top,
        (right - left) * lanes,
        top - frame.out_origin[0],
        (left - frame.out_origin[1]) * lanes,
    )
    across = (weights.starts, weights.columns * lanes, weights.across, _block(weights.across.size))
    factor, rows, columns = weights.taps
    down = (factor, rows, columns * lanes, weights.down, _block(weights.down.size))
    rule = (weights.height, (weights.width - 1) * lanes, TILE)
    if not normalize:
        correlate_planes(values, out, across, down, place, rule)
        return
    least = 0.0 if weights.positive else 1e-12 * weights.size
    correlate_valid_planes(values, out, across, down, place, rule, (above, before * lanes, least))


def _block(num_taps: int) -> int:
    """Return the taps to sum before adding to the whole: groups of eight, about the square root of their number."""
    return 8 * math.ceil(math.sqrt(num_taps / 8) + 1e-9)


def scratch_bytes(shape: tuple[int, int], weights: Weights, lanes: int) -> int:
    """Return a bound of what `correlate` allocates for a region of `shape`, whatever the number of planes."""
    span = min(shape[1] * lanes, TILE) + (weights.width - 1) * lanes + 512
    taps = weights.down.size + weights.across.size
    return 8 * (span * (2 * weights.layers * weights.height + 8) + 8 * taps + 64 * 8)
