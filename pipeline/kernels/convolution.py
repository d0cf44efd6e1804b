"""Weighted sums of the neighbours of each pixel: kernels, their factors, and the driver.

Arrays are planes (`pipeline.kernels.frame`). ``correlate(values, weights, out, frame)`` fills `out` over
``frame.region`` with

    out[y, x] = sum over i, j of kernel[i, j] values[y + i - rows // 2, x + j - columns // 2]

which is correlation: flip a kernel (``kernel[::-1, ::-1]``) for a true convolution. `weights` says how the sum is
done: ``direct(kernel)`` tap by tap, or ``separable(down, across)`` along the rows and then down;
``prepare(kernel, dtype)`` takes the cheaper of those that are exact.

Invariants, tested in ``tests/operations/test_convolution.py``:

- A pixel's result is one expression of the values in its support (the pixels of nonzero weight, or of the whole kernel
  where this is asked for): not of the block, not of the lanes, not of invalid pixels elsewhere. Sums are float64,
  rounded once to the dtype of `out`.
- NaN and inf are invalid: a result whose support holds one is NaN, all others are untouched by it. With
  ``normalize=True`` they are skipped instead, and the sum is divided by that of the weights used.
- `values` are only read.

Examples
--------
>>> import numpy as np
>>> from pipeline.model.region import Region
>>> values, out = np.arange(9.0).reshape(1, 3, 3), np.empty((1, 1, 1))
>>> frame = Frame(Region(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1))
>>> correlate(values, direct(np.array([[0, 0, 1], [0, -1, 0], [0, 0, 0]])), out, frame)
>>> float(out[0, 0, 0])
-2.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.correlation import Taps, correlate_planes, correlate_valid_planes
from pipeline.kernels.extreme import Growth, mend
from pipeline.kernels.frame import Frame
from pipeline.model.region import Halo

RING_ELEMENTS = 2**17
"""Elements of a kernel's rows together: they fit the second-level cache, and the longer the rows the better."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A kernel as the compiled loops take it; made by `direct`, `separable` and `prepare`."""

    reach: tuple[int, int, int, int]
    """Pixels from the centre to the end of the support: above, below, left, right. Negative where it ends before."""
    taps: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Row and column of each tap, from 0 at the upper left of the support, and its weight."""
    across: tuple[np.ndarray, np.ndarray]
    """Column and weight of the taps that each row is summed by before; none for a direct sum."""

    @property
    def size(self) -> float:
        """The sum of the absolute weights."""
        _, factors = self.across
        return float(np.abs(self.taps[2]).sum() * (np.abs(factors).sum() if factors.size else 1))

    @property
    def halo(self) -> Halo:
        return Halo(*(max(0, pixels) for pixels in self.reach))

    @property
    def height(self) -> int:
        return self.reach[0] + self.reach[1] + 1

    @property
    def width(self) -> int:
        return self.reach[2] + self.reach[3] + 1


def direct(kernel: np.ndarray, zeros: bool = False) -> Weights:
    """Return the weights of a kernel (rows, columns), both odd, summed tap by tap in the order of the rows.

    Taps of weight 0 are left out unless `zeros` asks for them: then the support is the whole kernel. Else a kernel of
    zeros alone is one tap of weight 0 at the centre.
    """
    kernel = np.asarray(kernel, np.float64)
    rows, columns = np.nonzero(np.ones(kernel.shape) if zeros else kernel)
    if rows.size == 0:
        rows, columns = (np.array([side // 2]) for side in kernel.shape)
    taps = kernel[rows, columns]
    return Weights(
        reach=(*_reach(rows, kernel.shape[0]), *_reach(columns, kernel.shape[1])),
        taps=(rows - rows.min(), columns - columns.min(), taps),
        across=(np.empty(0, np.int64), np.empty(0)),
    )


def separable(down: np.ndarray, across: np.ndarray, zeros: bool = False) -> Weights:
    """Return the weights of the kernel outer(down, across), vectors of odd length: rows are summed across first.

    Taps of weight 0 are left out unless `zeros` asks for them, as in `direct`.
    """
    rows, columns = (np.nonzero(np.ones(vector.size) if zeros else vector)[0] for vector in (down, across))
    if 1 in (down.size, across.size) or 0 in (rows.size, columns.size):
        return direct(np.outer(down, across), zeros)
    u, v = np.asarray(down, np.float64)[rows], np.asarray(across, np.float64)[columns]
    return Weights(
        reach=(*_reach(rows, down.size), *_reach(columns, across.size)),
        taps=(rows - rows.min(), np.zeros_like(rows), u),
        across=(columns - columns.min(), v),
    )


def prepare(kernel: np.ndarray, dtype: np.dtype) -> Weights:
    """Return the weights by which a kernel is summed at the least cost, for pixels of this dtype.

    Where the kernel is a product of two vectors but for |kernel - outer(down, across)| of 1e-12 of its absolute sum
    (one epsilon for float64 pixels), it is summed as such: along the rows, then down.
    """
    kernel = np.asarray(kernel, np.float64)
    row, column = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    if kernel[row, column] == 0:
        return direct(kernel)
    down, across = kernel[:, column] / kernel[row, column], kernel[row]
    lengths = np.count_nonzero(down), np.count_nonzero(across)
    product = np.outer(down, across)
    tolerance = 1e-12 if dtype == np.float32 else np.finfo(np.float64).eps
    exact = np.abs(kernel - product).sum() <= tolerance * np.abs(kernel).sum()
    same_support = np.array_equal(kernel != 0, product != 0)
    pays = lengths[0] * lengths[1] > 2 * sum(lengths)  # a second way over the row costs as much as some taps
    return separable(down, across) if exact and same_support and pays else direct(kernel)


def gaussian_radius(sigma: float, truncate: float = 4.0) -> int:
    """Return the taps of a Gaussian kernel on each side of its centre."""
    return int(truncate * sigma + 0.5)


def gaussian_weights(sigma: float, truncate: float = 4.0, order: int = 0) -> np.ndarray:
    """Return scipy.ndimage's Gaussian kernel, or a derivative of it, as it is correlated with pixels.

    `sigma` is in pixels. Weights of order 0 sum to 1; each differentiation turns the polynomial q before the Gaussian
    into q' - q x / sigma^2. Weights are as for a correlation: those of order 1 are positive on the right. The kernel
    of a sigma too small for any neighbour is the pixel itself.

    Examples
    --------
    >>> gaussian_weights(0.5).round(3).tolist()
    [0.0, 0.106, 0.787, 0.106, 0.0]
    """
    radius = gaussian_radius(sigma, truncate)
    if radius == 0:
        return np.ones(1)
    x = np.arange(-radius, radius + 1)
    phi = np.exp(-0.5 / (sigma * sigma) * x**2)
    phi /= phi.sum()
    if order == 0:
        return np.asarray(phi)
    polynomial = np.zeros(order + 1)
    polynomial[0] = 1
    step = np.diag(np.arange(1.0, order + 1), 1) + np.diag(np.full(order, -1 / (sigma * sigma)), -1)
    for _ in range(order):
        polynomial = step @ polynomial
    return np.asarray(((x[:, np.newaxis] ** np.arange(order + 1)) @ polynomial) * phi)[::-1]


def _reach(indices: np.ndarray, length: int) -> tuple[int, int]:
    return length // 2 - int(indices.min()), int(indices.max()) - length // 2


def correlate(values: np.ndarray, weights: Weights, out: np.ndarray, frame: Frame, normalize: bool = False) -> None:
    """Fill `out` over the frame's region; both arrays are float32 or float64.

    With `normalize`, for weights of one sign, sum(w v) / sum(w) over the valid pixels; NaN where the centre is invalid
    or no pixel under the weights is valid. Sums do not overflow where their result does not.
    """
    _correlate(values, weights, out, frame, normalize)

    def again(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, factor: float) -> None:
        _correlate(values, weights, out["value"], frame, normalize)

    mend(again, values, {"value": out}, frame, weights.halo, Growth({"value": 1}))


def _correlate(values: np.ndarray, weights: Weights, out: np.ndarray, frame: Frame, normalize: bool) -> None:
    above, _, before, _ = weights.reach
    lanes, place = frame.lanes, frame.place(above, before)
    rows, columns, taps = weights.taps
    offsets, factors = weights.across
    down = Taps(rows, columns * lanes, taps, _block(taps.size))
    across = Taps(np.zeros_like(offsets), offsets * lanes, factors, _block(factors.size))
    size = weights.height, (weights.width - 1) * lanes
    strip = _strip(weights.height)
    if normalize:
        correlate_valid_planes(values, out, across, down, place, size, strip, (above, before * lanes))
    else:
        correlate_planes(values, out, across, down, place, size, strip)


def _block(num_taps: int) -> int:
    """Return how many taps are summed before they are added to the others: about the root of their number in eights."""
    return 8 * max(8, math.ceil(math.sqrt(num_taps / 8)))


def _strip(height: int) -> int:
    """Return the elements of a strip."""
    return max(1024, min(8192, RING_ELEMENTS // height))


def scratch_bytes(shape: tuple[int, int], weights: Weights, lanes: int) -> int:
    """Return a bound of what `correlate` allocates for a region of `shape`, whatever the number of planes."""
    num = min(shape[1] * lanes, _strip(weights.height))
    line = num + (weights.width - 1) * lanes
    row = num if weights.across[0].size else line
    taps = weights.taps[0].size + weights.across[0].size
    return 8 * (2 * weights.height * (row + 512) + 8 * (line + 512) + 8 * taps)
