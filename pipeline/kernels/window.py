"""Statistics of the values in a window around each pixel: the drivers of the kernels.

Arrays are planes (`pipeline.kernels.frame`). Two functions fill whatever statistics they are asked for, over
`Frame.region`:

- ``moments(values, valid, out, frame, window)``: any of ``mean, sum, var, std, count`` in `out`;
- ``extrema(values, valid, out, frame, window)``: any of ``min, max, range`` in `out`.

Medians and percentiles are in `window_order`. `valid` is None where all pixels are valid, and for floating-point
values, whose invalid pixels are NaN. Windows have an odd height and width. The outputs have the dtypes of the design:
``count`` uint32, ``sum`` float64 for integers, ``mean, sum, var, std`` else the working dtype, ``min, max, range``
that of `values`.

Invariants, tested in ``tests/kernels/test_window.py``:

- A pixel's result is a function of the values in its window and of its raster row alone, to the bit: not of the
  block, not of the lanes, not of invalid pixels elsewhere. No running sums: down the rows, each window is a suffix
  and a prefix of segments anchored at raster row 0 (the scheme of van Herk and of Gil & Werman, applied to sums as
  well); across the columns it is a sum of blocks of 4^k columns (pairs, for the variance), the same for every column.
  Windows that are no whole rectangle are sums of their runs of pixels, in one order: see `window_footprint`.
- NaN and inf do not leak beyond the windows that hold them. Parts of a block without invalid pixels take a short
  way that does not count; the long way repeats its operations in the same order and so gives the same bits.
- A constant window has exactly this mean, and variance 0. Variances are never negative.
- `values` and `valid` are only read.

Examples
--------
>>> import numpy as np
>>> from pipeline.model.region import Region
>>> values = np.arange(9.0).reshape(1, 3, 3)
>>> out = {"mean": np.empty((1, 1, 1)), "var": np.empty((1, 1, 1))}
>>> frame = Frame(Region(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1))
>>> moments(values, None, out, frame, WindowRule(Footprint.rectangle((3, 3))))
>>> float(out["mean"][0, 0, 0]), round(float(out["var"][0, 0, 0]), 12)
(4.0, 6.666666666667)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.extreme import Growth, mend
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame, Place
from pipeline.kernels.window_extremum import Extrema, Limits, extremum_windows
from pipeline.kernels.window_footprint import PART_ROWS, extremum_footprint, sum_footprint
from pipeline.kernels.window_part import L1_ELEMENTS, Rule
from pipeline.kernels.window_power import STRIP_ELEMENTS, are_exact, power_windows
from pipeline.kernels.window_row import Moments, Sums
from pipeline.kernels.window_sum import DIRECT_ROWS, strip_for, sum_windows
from pipeline.kernels.window_variance import variance_windows
from pipeline.model.region import Halo

L2_ELEMENTS = 4096
"""Least elements of the strips that a block is cut into: the rows of a part then fit the second-level cache."""
GROWTH = Growth({"mean": 1, "sum": 1, "std": 1, "var": 2}, frozenset({"std", "var"}))
_ALL_VALID = np.ones((0, 0, 0), bool)


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Which pixels a window has, and how invalid ones are treated."""

    footprint: Footprint
    min_valid: int = 1
    """A window with fewer valid pixels has an invalid result."""
    fill_invalid: bool = False
    """Whether an invalid pixel gets a result from its valid neighbours."""
    fill: int | float = 0
    """What an invalid result is written as in integer outputs; in floating-point ones it is NaN."""

    @property
    def halo(self) -> Halo:
        return Halo(*self.footprint.reach)

    def place(self, frame: Frame) -> Place:
        """Return the place of the frame's region; the windows of a rectangle lie in segments of its height."""
        above, _, left, _ = self.footprint.reach
        height, _ = self.footprint.extent
        is_segmented = self.footprint.is_rectangle
        return frame.place(above, left, (frame.region.top - above) % height if is_segmented else 0)

    def rule(self, lanes: int) -> Rule:
        above, _, left, _ = self.footprint.reach
        return Rule(*self.footprint.extent, above, left, lanes, max(1, self.min_valid), self.fill_invalid)


def strip_of(frame: Frame, window: WindowRule, least: int) -> int:
    """Return the elements of a strip; neighbours sum their margins twice, so not too few."""
    _, width = window.footprint.extent
    return min(frame.region.width * frame.lanes, max(least, 8 * (width - 1) * frame.lanes))


def moments(
    values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame, window: WindowRule
) -> None:
    """Fill any of ``mean, sum, var, std, count`` over the frame's region.

    Only finite values count. mean, sum, var and std are floating-point and NaN where the result is invalid; count
    is unsigned and defined everywhere, also at invalid pixels. mean, var and std have one dtype.

    Everything is summed in float64. The mean is sum / count, but for 64-bit input, where sums would be rounded, the
    merged mean of the variance. The variance is the population's: of integers of 8 and 16 bits from exact sums of
    squares, where these fit and the window has more than 9 pixels; else by merging (count, mean, squares about the
    mean): its error does not grow with the offset of the values. Neither overflows where its result does not.
    """
    _moments(values, valid, out, frame, window)

    def again(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, factor: float) -> None:
        _moments(values, None, out, frame, window)

    mend(again, values, {name: array for name, array in out.items() if name != "count"}, frame, window.halo, GROWTH)


def _moments(
    values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame, window: WindowRule
) -> None:
    exact = values.dtype.itemsize < 8
    working = next((out[name].dtype for name in ("mean", "var", "std") if name in out), np.dtype(np.float64))
    mask = _ALL_VALID if valid is None else valid
    unused = np.empty((0, 0, 0), working)
    mean, total = out.get("mean", unused), out.get("sum", np.empty((0, 0, 0), _sum_dtype(values.dtype)))
    sums = Sums(mean if exact else unused, total, out.get("count", np.empty((0, 0, 0), np.uint32)))
    merged = Moments(unused if exact else mean, out.get("var", unused), out.get("std", unused))
    place, rule = window.place(frame), window.rule(frame.lanes)
    num_pixels = rule.height * rule.width
    by_powers = window.footprint.is_rectangle and num_pixels > 9 and are_exact(values.dtype, num_pixels)
    if by_powers and working == np.float32 and (merged.var.size or merged.std.size):
        strip = strip_of(frame, window, STRIP_ELEMENTS)
        power_windows(values, mask, merged._replace(mean=mean), place, rule, strip)
        sums, merged = sums._replace(mean=unused), Moments(unused, unused, unused)
    if not window.footprint.is_rectangle:
        strip, runs = strip_of(frame, window, L1_ELEMENTS), window.footprint.array
        sum_footprint(values, mask, sums, merged, runs, place, rule, strip)
        return
    strip = strip_of(frame, window, L2_ELEMENTS)
    if any(array.size for array in sums):
        direct = place._replace(phase=0) if rule.height == 3 else place
        sum_windows(values, mask, sums, direct, rule, strip_for(values, rule, strip))
    if any(array.size for array in merged):
        variance_windows(values, mask, merged, place, rule, strip)


def power_moments(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, window: WindowRule) -> None:
    """Fill any of ``mean, var, std`` (float32) over the frame's region from float32 planes; NaN and inf are skipped.

    The window is a rectangle. The error of a variance is some 2^-51 of the largest square in the window.
    """
    unused = np.empty((0, 0, 0), np.float32)
    results = Moments(*(out.get(name, unused) for name in Moments._fields))
    strip = strip_of(frame, window, STRIP_ELEMENTS)
    power_windows(values, _ALL_VALID, results, window.place(frame), window.rule(frame.lanes), strip)


def extrema(
    values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame, window: WindowRule
) -> None:
    """Fill any of ``min, max, range`` over the frame's region, in the dtype of `values`.

    Infinities are values for min and max; the range is that of the finite values. Where a range does not fit a
    signed integer dtype (200 in int8) it is the largest value of this dtype; it may have another dtype instead that
    holds all differences.
    """
    floating = values.dtype.kind == "f"
    unused = np.empty((0, 0, 0), values.dtype)
    lowest, highest, span = (out.get(name, unused) for name in ("min", "max", "range"))
    if not floating:
        _extrema(values, valid, Extrema(lowest, highest, span), True, frame, window)
        return
    _extrema(values, valid, Extrema(lowest, highest, unused), False, frame, window)
    _extrema(values, valid, Extrema(unused, unused, span), True, frame, window)


def _extrema(
    values: np.ndarray, valid: np.ndarray | None, out: Extrema, finite: bool, frame: Frame, window: WindowRule
) -> None:
    if not any(array.size for array in out):
        return
    floating = values.dtype.kind == "f"
    info = None if floating else np.iinfo(values.dtype)
    ends = np.array([-np.inf, np.inf] if info is None else [info.min, info.max], values.dtype)
    fills = ((out.lowest, out.lowest.size or out.highest.size), (out.span, out.span.size))
    fill, span_fill = (  # what is not asked for is of the pixels' dtype, which may not hold the fill
        np.array([np.nan if floating else window.fill if is_used else 0], array.dtype) for array, is_used in fills
    )
    limits = Limits(ends, fill, span_fill, out.span.dtype != values.dtype, finite)
    mask = _ALL_VALID if valid is None else valid
    place, rule = window.place(frame), window.rule(frame.lanes)
    if window.footprint.is_rectangle:
        extremum_windows(values, mask, out, limits, place, rule, strip_of(frame, window, L2_ELEMENTS))
    else:
        runs, strip = window.footprint.array, strip_of(frame, window, L1_ELEMENTS)
        extremum_footprint(values, mask, out, limits, runs, place, rule, strip)


def scratch_bytes(shape: tuple[int, int], footprint: Footprint, lanes: int, itemsize: int) -> int:
    """Return a bound of what `moments` and `extrema` allocate for a region of `shape`, whatever the number of planes.

    Rows of sums for a strip of columns, and of cleaned values and counts where pixels are invalid.
    """
    height, width = footprint.extent
    reach = (width - 1) * lanes
    if not footprint.is_rectangle:
        strip = min(shape[1] * lanes, max(L1_ELEMENTS, 8 * reach))
        rows = PART_ROWS + height - 1
        return (strip + reach + 512) * (rows * (8 + 4) + 5 * (8 + 4) + 2 * PART_ROWS * 8 + 4 * 8)
    group = max(height, DIRECT_ROWS)
    strip = min(shape[1] * lanes, max(L2_ELEMENTS, 8 * reach))
    return (strip + reach + 512) * (20 * (group + 7) + (group + height) * (max(4, itemsize) + 4))


def _sum_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)
