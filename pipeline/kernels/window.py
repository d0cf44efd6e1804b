"""Statistics of the values in a window around each pixel: the drivers of the kernels.

All arrays are "planes" (plane, row, column x lanes), C-contiguous: the bands of ``y, x, band`` are lanes, those of
``band, y, x`` are planes. Two functions fill whatever statistics they are asked for, over `Frame.region`:

- ``moments(values, valid, out, frame)``: any of ``mean, sum, var, std, count`` in `out`;
- ``extrema(values, valid, out, frame)``: any of ``min, max, range`` in `out`.

Medians and percentiles are in `window_order`. `valid` is None where all pixels are valid, and for floating-point
values, whose invalid pixels are NaN. Windows have an odd height and width. The outputs have the dtypes of the design:
``count`` uint32, ``sum`` float64 for integers, ``mean, sum, var, std`` else the working dtype, ``min, max, range``
that of `values`.

Invariants, tested in ``tests/test_window_kernel.py``:

- A pixel's result is a function of the values in its window and of its raster row alone, to the bit: not of the
  block, not of the lanes, not of invalid pixels elsewhere. No running sums: down the rows, each window is a suffix
  and a prefix of segments anchored at raster row 0 (van Herk's scheme, applied to sums as well); across the columns
  it is a sum of blocks of 4^k columns (pairs, for the variance), the same for every column. Windows that are no
  whole rectangle (`Frame.footprint`) are sums of their runs of pixels, in one order: see `window_footprint`.
- NaN and inf do not leak beyond the windows that hold them. Parts of a block without invalid pixels take a short
  way that does not count; the long way repeats its operations in the same order and so gives the same bits.
- A constant window has exactly this mean, and variance 0. Variances are never negative.
- `values` and `valid` are only read.

Examples
--------
>>> import numpy as np
>>> values = np.arange(9.0).reshape(1, 3, 3)
>>> out = {"mean": np.empty((1, 1, 1)), "var": np.empty((1, 1, 1))}
>>> moments(values, None, out, Frame(region=(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1), size=(3, 3)))
>>> float(out["mean"][0, 0, 0]), round(float(out["var"][0, 0, 0]), 12)
(4.0, 6.666666666667)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.kernels.extreme import Extent, Growth, Target, mend
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.window_extremum import extremum_windows
from pipeline.kernels.window_footprint import GROUP, extremum_footprint, sum_footprint
from pipeline.kernels.window_sum import DIRECT_ROWS, sum_windows
from pipeline.kernels.window_variance import variance_windows
from pipeline.model.region import Halo, Region

Place = tuple[int, int, int, int, int, int, int]
Rule = tuple[int, int, int, int, bool]

STRIP = 4096
"""Least elements of the strips that a block is cut into: a group's rows then fit the second-level cache."""
TILE = 1024
"""Elements that are summed down at a time: a few rows of them fit the first-level cache."""
GROWTH = Growth({"mean": 1, "sum": 1, "std": 1, "var": 2}, frozenset({"std", "var"}))
_ALL_VALID = np.ones((0, 0, 0), bool)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the windows lie, in raster coordinates, and how they treat invalid pixels."""

    region: tuple[int, int, int, int]
    """Pixels to compute: top, bottom, left, right. `values` holds size // 2 more on each side."""
    origin: tuple[int, int]
    """Raster row and column of ``values[:, 0, 0]``."""
    out_origin: tuple[int, int]
    """Raster row and column of ``out[name][:, 0, 0]``."""
    size: tuple[int, int]
    """Height and width of the window."""
    lanes: int = 1
    """Neighbouring elements that belong to one pixel."""
    min_valid: int = 1
    """A window with fewer valid pixels has an invalid result."""
    fill_invalid: bool = False
    """Whether an invalid pixel gets a result from its valid neighbours."""
    fill: int | float = 0
    """What an invalid result is written as in integer outputs; in floating-point ones it is NaN."""
    footprint: Footprint | None = None
    """The window's pixels where they are no whole rectangle; `size` does not count then."""

    @property
    def pixels(self) -> Footprint:
        return self.footprint or Footprint.rectangle(self.size)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the region."""
        top, bottom, left, right = self.region
        return bottom - top, right - left

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the region's first pixel in `values`."""
        return self.region[0] - self.origin[0], self.region[2] - self.origin[1]

    @property
    def out_offset(self) -> tuple[int, int]:
        """Row and column of the region's first pixel in the outputs."""
        return self.region[0] - self.out_origin[0], self.region[2] - self.out_origin[1]

    @property
    def place(self) -> Place:
        """First row and its position in its segment, rows, first element of a row, elements, row and element in out."""
        top, bottom, left, right = self.region
        height, width = self.size
        first = top - height // 2
        return (
            first - self.origin[0],
            first % height,
            bottom - top,
            (left - width // 2 - self.origin[1]) * self.lanes,
            (right - left) * self.lanes,
            top - self.out_origin[0],
            (left - self.out_origin[1]) * self.lanes,
        )

    @property
    def shaped(self) -> tuple[Place, tuple[int, int, int, int, int, int, bool]]:
        """The place of windows of `footprint`, and their rule.

        First row, first element, rows, elements, row and element in out, elements of a strip; height, width, row and
        column of the centre, lanes, least number of valid pixels, whether invalid centres are filled.
        """
        above, _, left, _ = self.pixels.reach
        height, width = self.pixels.extent
        (row, column), (out_row, out_column), (rows, columns) = self.offset, self.out_offset, self.shape
        strip = min(columns * self.lanes, max(TILE, 8 * (width - 1) * self.lanes))
        place = (row - above, (column - left) * self.lanes, rows, columns * self.lanes)
        return (
            (*place, out_row, out_column * self.lanes, strip),
            (height, width, above, left, self.lanes, max(1, self.min_valid), self.fill_invalid),
        )

    @property
    def rule(self) -> Rule:
        return (*self.size, self.lanes, max(1, self.min_valid), self.fill_invalid)

    @property
    def tiles(self) -> tuple[int, int]:
        """Elements of a strip (neighbours sum their margins twice, so not too few) and of a tile."""
        _, _, left, right = self.region
        return min((right - left) * self.lanes, max(STRIP, 8 * (self.size[1] - 1) * self.lanes)), TILE


def moments(values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame) -> None:
    """Fill any of ``mean, sum, var, std, count`` over the frame's region.

    Only finite values count. mean, sum, var and std are floating-point and NaN where the result is invalid; count
    is unsigned and defined everywhere, also at invalid pixels. mean, var and std have one dtype.

    Everything is summed in float64. The mean is sum / count, but for 64-bit input, where sums would be rounded, the
    merged mean of the variance. The variance is the population's, by merging (count, mean, squares about the mean):
    its error does not grow with the offset of the values. Neither overflows where its result does not.
    """
    _moments(values, valid, out, frame)

    def again(values: np.ndarray, targets: Mapping[str, Target], extent: Extent, factor: float) -> None:
        region = extent.region
        sides, corner = (region.top, region.bottom, region.left, region.right), (region.top, region.left)
        own = replace(frame, region=sides, origin=extent.origin, out_origin=corner)
        _moments(values, None, {name: array for name, (array, _) in targets.items()}, own)

    sums = {name: (array, frame.out_origin) for name, array in out.items() if name != "count"}
    top, bottom, left, right = frame.region
    extent = Extent(Region(top, bottom, left, right), frame.origin, Halo(*frame.pixels.reach), frame.lanes)
    mend(again, values, sums, extent, GROWTH)


def _moments(values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame) -> None:
    if values.dtype == np.float16:  # numba has no arithmetic for it
        values = values.astype(np.float32)
    exact = values.dtype.itemsize < 8
    working = next((out[name].dtype for name in ("mean", "var", "std") if name in out), np.dtype(np.float64))
    summed = {"sum", "count"} | ({"mean"} if exact else set())
    mask = _ALL_VALID if valid is None else valid
    unused = np.empty((0, 0, 0), working)
    total = np.empty((0, 0, 0), _sum_dtype(values.dtype))
    if frame.footprint:
        mean = out.get("mean", unused)
        sum_footprint(
            values,
            mask,
            mean if exact else unused,
            unused if exact else mean,
            out.get("sum", total),
            out.get("count", np.empty((0, 0, 0), np.uint32)),
            out.get("var", unused),
            out.get("std", unused),
            frame.footprint.array,
            frame.shaped,
        )
        return
    if summed & out.keys():
        sum_windows(
            values,
            mask,
            out.get("mean", unused) if exact else unused,
            out.get("sum", total),
            out.get("count", np.empty((0, 0, 0), np.uint32)),
            frame.place,
            frame.rule,
            frame.tiles,
        )
    if out.keys() - summed:
        variance_windows(
            values,
            mask,
            unused if exact else out.get("mean", unused),
            out.get("var", unused),
            out.get("std", unused),
            frame.place,
            frame.rule,
            frame.tiles,
        )


def extrema(values: np.ndarray, valid: np.ndarray | None, out: Mapping[str, np.ndarray], frame: Frame) -> None:
    """Fill any of ``min, max, range`` over the frame's region, in the dtype of `values`.

    Infinities are values for min and max; the range is that of the finite values. Where a range does not fit a
    signed integer dtype (200 in int8) it is the largest value of this dtype; it may have another dtype instead that
    holds all differences.
    """
    if values.dtype == np.float16:  # numba has no arithmetic for it; comparing in float32 is exact
        wide = {name: array.astype(np.float32) for name, array in out.items()}
        extrema(values.astype(np.float32), valid, wide, frame)
        with np.errstate(over="ignore"):
            for name, array in out.items():
                array[...] = wide[name]
        return
    mask = _ALL_VALID if valid is None else valid
    unused = np.empty((0, 0, 0), values.dtype)
    floating = values.dtype.kind == "f"
    lowest, highest, span = (out.get(name, unused) for name in ("min", "max", "range"))
    info = None if floating else np.iinfo(values.dtype)
    ends = np.array([-np.inf, np.inf] if info is None else [info.min, info.max], values.dtype)
    fills = tuple(np.array([np.nan if floating else frame.fill], array.dtype) for array in (lowest, span))
    limits = (ends, fills, span.dtype != values.dtype)

    def fold(low: np.ndarray, high: np.ndarray, between: np.ndarray, finite: bool) -> None:
        if frame.footprint:
            runs = frame.footprint.array
            extremum_footprint(values, mask, low, high, between, limits, finite, runs, frame.shaped)
        else:
            extremum_windows(values, mask, low, high, between, limits, finite, frame.place, frame.rule, frame.tiles)

    if not floating:
        if out:
            fold(lowest, highest, span, True)
        return
    if out.keys() & {"min", "max"}:
        fold(lowest, highest, unused, False)
    if "range" in out:
        fold(unused, unused, span, True)


def scratch_bytes(
    shape: tuple[int, int], size: tuple[int, int], lanes: int, itemsize: int, footprint: Footprint | None = None
) -> int:
    """Return a bound of what `moments` and `extrema` allocate for a region of `shape`, whatever the number of planes.

    Rows of sums for a strip of columns, and of cleaned values and counts where pixels are invalid; 16-bit floats are
    widened besides (not counted here).
    """
    reach = (size[1] - 1) * lanes
    if footprint:
        strip = min(shape[1] * lanes, max(TILE, 8 * reach))
        rows = GROUP + size[0] - 1
        return (strip + reach + 512) * (rows * (8 + 4) + 5 * (8 + 4) + 2 * GROUP * 8 + 4 * 8)
    group = max(size[0], DIRECT_ROWS)
    strip = min(shape[1] * lanes, max(STRIP, 8 * reach))
    return (strip + reach + 512) * (20 * (group + 7) + (group + size[0]) * (max(4, itemsize) + 4))


def _sum_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)
