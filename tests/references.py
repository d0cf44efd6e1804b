"""Naive references: one entry per operation, on the whole raster in float64. An operation's author writes only this.

A reference takes the step, and the source as (band, y, x) with invalid pixels as NaN (float64, or an integer array
with a mask); it returns output -> (values as float64 with NaN where invalid, bound on the absolute error or None
for exact).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.operation import Operation
from pipeline.raster import working_dtype

NUMPY_MODES = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap"}

Expected = Mapping[str, tuple[np.ndarray, np.ndarray | None]]


def pad(plane: np.ndarray, rows: int, columns: int, boundary: str, cval: float | None) -> np.ndarray:
    """Pad one band by a boundary rule; beyond `shrink` is NaN."""
    widths = ((rows, rows), (columns, columns))
    if boundary in ("constant", "shrink"):
        return np.pad(plane, widths, constant_values=np.nan if boundary == "shrink" else cval)
    if boundary == "mirror":  # numpy cannot mirror an axis of one pixel; scipy repeats it
        for axis, width in enumerate(widths):
            mode = "edge" if plane.shape[axis] == 1 else "reflect"
            plane = np.pad(plane, [width if i == axis else (0, 0) for i in range(2)], mode=mode)
        return plane
    return np.pad(plane, widths, mode=NUMPY_MODES[boundary])


def window(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """Every window cut out and reduced by numpy's nan-functions."""
    height, width = step.size
    eps = np.finfo(working_dtype(dtype)).eps
    results: dict[str, list[np.ndarray]] = {name: [] for name in step.statistics}
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in step.statistics}
    for plane in planes:
        padded = pad(plane, height // 2, width // 2, step.boundary, step.cval)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width)).reshape(*plane.shape, -1)
        finite = np.where(np.isfinite(windows), windows, np.nan)
        for name in step.statistics:
            value, bound = _window_statistic(name, windows, finite, float(eps))
            usable = windows if name in ("min", "max") else finite
            centre = plane if name in ("min", "max") else np.where(np.isfinite(plane), plane, np.nan)
            too_few = np.sum(~np.isnan(usable), axis=-1) < step.min_valid
            if name != "count":
                value = np.where(too_few | (np.isnan(centre) & (not step.fill_invalid)), np.nan, value)
            results[name].append(value)
            bounds[name].append(bound)
    exact = ("min", "max", "range", "count")
    return {
        name: (np.stack(results[name]), None if name in exact else np.stack(bounds[name])) for name in step.statistics
    }


def _window_statistic(name: str, windows: np.ndarray, finite: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    import warnings

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # all-NaN windows
        count = np.sum(~np.isnan(finite), axis=-1)
        largest = np.nan_to_num(np.nanmax(np.abs(finite), axis=-1, initial=0))
        if name == "count":
            return count.astype(np.float64), largest
        if name == "sum":
            return np.nansum(finite, axis=-1), 4 * eps * largest * count
        if name == "mean":
            return np.nanmean(finite, axis=-1), 4 * eps * largest
        if name == "var":
            return np.nanvar(finite, axis=-1), 4 * eps * largest**2
        if name == "std":
            # an error e of the variance is one of e / (2 std), and never more than sqrt(e)
            std, error = np.nanstd(finite, axis=-1), 4 * eps * largest**2
            return std, np.minimum(np.sqrt(error), error / np.maximum(std, 1e-300)) + 4 * eps * std
        if name == "min":
            return np.nanmin(windows, axis=-1), largest
        if name == "max":
            return np.nanmax(windows, axis=-1), largest
        return np.nanmax(finite, axis=-1) - np.nanmin(finite, axis=-1), largest


REFERENCES: dict[str, Callable[[Operation, np.ndarray, np.dtype], Expected]] = {"window": window}
