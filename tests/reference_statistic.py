"""Statistics of the last axis of an array, naively: of the values in windows and in series; see `tests.references`."""

from __future__ import annotations

import numpy as np


def order_statistic(values: np.ndarray, fraction: float) -> np.ndarray:
    """numpy's linear interpolation between the sorted values that are not NaN; infinite beside an infinity."""
    ordered = np.sort(values, axis=-1)  # NaN comes last
    count = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    position = np.maximum(count - 1, 0) * fraction
    rank = position.astype(int)
    low = np.take_along_axis(ordered, rank, -1)
    high = np.take_along_axis(ordered, np.minimum(rank + 1, np.maximum(count - 1, 0)), -1)
    t = position - rank
    with np.errstate(invalid="ignore"):
        between = np.where(t < 0.5, low + (high - low) * t, high - (high - low) * (1 - t))
        between = np.where(np.isinf(low) | np.isinf(high), low + high, between)
    result: np.ndarray = np.where((t == 0) | (low == high), low, between)[..., 0]
    return result


def statistic_of(name: str, windows: np.ndarray, finite: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
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
