"""Naive references: one entry per operation, on the whole raster in float64. An operation's author writes only this.

A reference takes the step, and the source as (band, y, x) with invalid pixels as NaN (float64, or an integer array
with a mask); it returns output -> (values as float64 with NaN where invalid, bound on the absolute error or None
for exact).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from pipeline.operations.base import Operation
from pipeline.testing.reference import Expected, pad
from tests.reference_composite import composite
from tests.reference_pointwise import POINTWISE
from tests.reference_reduction import REDUCTIONS
from tests.reference_statistic import order_statistic, statistic_of
from tests.reference_terrain import relief, terrain


def footprint_of(step: Any) -> np.ndarray:
    """The pixels of a window as a matrix with odd sides."""
    if not isinstance(step.footprint, str):
        return np.array(step.footprint) != 0
    height, width = step.size
    if step.footprint == "rectangle":
        return np.ones(step.size, bool)
    rows, columns = np.mgrid[-(height // 2) : height // 2 + 1, -(width // 2) : width // 2 + 1]
    return (rows * (width // 2)) ** 2 + (columns * (height // 2)) ** 2 <= (height // 2 * (width // 2)) ** 2


def window(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """Every window cut out and reduced by numpy's nan-functions."""
    footprint = footprint_of(step)
    height, width = footprint.shape
    eps = np.finfo(step.working_dtype(dtype)).eps
    percents = {"median": 50.0} | {f"p{percent:g}": percent for percent in step.percentiles}
    names = (*step.statistics, *(f"p{percent:g}" for percent in step.percentiles))
    results: dict[str, list[np.ndarray]] = {name: [] for name in names}
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for plane in planes:
        padded = pad(plane, height // 2, width // 2, step.boundary, step.cval)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width))[..., footprint]
        finite = np.where(np.isfinite(windows), windows, np.nan)
        for name in names:
            with_infinities = name in ("min", "max") or name in percents
            if name in percents:
                value, bound = order_statistic(windows, percents[name] / 100), np.zeros(())
            else:
                value, bound = statistic_of(name, windows, finite, float(eps))
            usable = windows if with_infinities else finite
            centre = plane if with_infinities else np.where(np.isfinite(plane), plane, np.nan)
            too_few = np.sum(~np.isnan(usable), axis=-1) < step.min_valid
            if name != "count":
                value = np.where(too_few | (np.isnan(centre) & (not step.fill_invalid)), np.nan, value)
            results[name].append(value)
            bounds[name].append(bound)
    exact = ("min", "max", "range", "count", *percents)
    return {name: (np.stack(results[name]), None if name in exact else np.stack(bounds[name])) for name in names}


def difference(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """Slices of the padded band; a bound is 4 eps x the largest pixel of the support x the weights of the stencil."""
    eps = float(np.finfo(step.working_dtype(dtype)).eps)
    results: dict[str, list[np.ndarray]] = {name: [] for name in step.outputs}
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in step.outputs}
    for plane in planes:
        with np.errstate(all="ignore"):
            derivatives = _derivatives(np.where(np.isfinite(plane), plane, np.nan), step, eps)
        for name in step.outputs:
            value, bound = _difference_output(name, *derivatives)
            if step.edge == "zero":
                rim = np.pad(np.zeros(np.maximum(np.array(plane.shape) - 2, 0), bool), 1, constant_values=True)
                value = np.where(rim[: plane.shape[0], : plane.shape[1]] & ~np.isnan(value), 0, value)
            results[name].append(value)
            bounds[name].append(bound)
    return {name: (np.stack(results[name]), np.stack(bounds[name])) for name in step.outputs}


def _derivatives(plane: np.ndarray, step: Any, eps: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the five derivatives and the bounds on their errors."""
    sy, sx = step.spacing or (1, 1)
    height, width = plane.shape
    values = _continue(
        plane, step, lambda nodes, weights: sum(w * node for w, node in zip(weights, nodes, strict=True))
    )
    sizes = _continue(np.abs(plane), step, lambda nodes, weights: np.maximum.reduce(nodes))

    def at(padded: np.ndarray, row: int, column: int) -> np.ndarray:
        return padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    def largest(*offsets: tuple[int, int]) -> np.ndarray:
        return np.nan_to_num(np.maximum.reduce([at(sizes, *offset) for offset in (*offsets, (0, 0))]))

    def a(row: int, column: int) -> np.ndarray:
        return at(values, row, column)

    centre = a(0, 0)
    corners = (1, 1), (1, -1), (-1, 1), (-1, -1)
    first_y = _first_weights(height, step.edge)[:, np.newaxis] / sy
    first_x = _first_weights(width, step.edge) / sx
    derivatives = {
        "dy": (a(1, 0) - a(-1, 0)) / (2 * sy) + 0 * centre,
        "dx": (a(0, 1) - a(0, -1)) / (2 * sx) + 0 * centre,
        "dyy": (a(1, 0) - 2 * centre + a(-1, 0)) / sy**2,
        "dxy": (a(1, 1) - a(1, -1) - a(-1, 1) + a(-1, -1)) / (4 * sy * sx) + 0 * centre,
        "dxx": (a(0, 1) - 2 * centre + a(0, -1)) / sx**2,
    }
    bounds = {
        "dy": largest((1, 0), (-1, 0)) * first_y,
        "dx": largest((0, 1), (0, -1)) * first_x,
        "dyy": largest((1, 0), (-1, 0)) * 4 / sy**2,
        "dxy": largest(*corners) * first_y * first_x,
        "dxx": largest((0, 1), (0, -1)) * 4 / sx**2,
    }
    return derivatives, {name: 4 * eps * bound for name, bound in bounds.items()}


def _continue(plane: np.ndarray, step: Any, combine: Callable[[list[np.ndarray], Any], np.ndarray]) -> np.ndarray:
    """Pad by one pixel; `combine` makes those beyond a one-sided edge of the 2 or 3 pixels next to it."""
    num = {"one_sided": 2, "one_sided_2": 3}.get(step.edge)
    if num is None:
        return pad(plane, 1, 1, "nearest" if step.edge == "zero" else step.edge, step.cval)
    for axis in (1, 0):
        length = plane.shape[axis]
        weights = ((1,), (2, -1), (3, -3, 1))[min(num, length) - 1]
        before = combine([plane.take([k], axis) for k in range(len(weights))], weights)
        after = combine([plane.take([length - 1 - k], axis) for k in range(len(weights))], weights)
        plane = np.concatenate([before, plane, after], axis)
    return plane


def _first_weights(length: int, edge: str) -> np.ndarray:
    """Return the sum of the absolute weights of a first difference, for spacing 1: more at a one-sided edge."""
    weights = np.ones(length)
    num = min({"one_sided": 2, "one_sided_2": 3}.get(edge, 1), length)
    weights[[0, -1]] = (1, 2, 4)[num - 1]
    return weights


def _difference_output(name: str, d: dict[str, np.ndarray], e: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return an output and the bound on its error, from the derivatives `d` and the bounds `e` on theirs."""
    if name in d:
        return d[name], e[name]
    if name in ("magnitude", "direction"):
        magnitude, error = np.hypot(d["dy"], d["dx"]), np.hypot(e["dy"], e["dx"])
        if name == "magnitude":
            return magnitude, 2 * error
        direction = np.where(magnitude == 0, 0, np.degrees(np.arctan2(d["dy"], d["dx"])))
        turn = np.degrees(2 * error / np.maximum(magnitude, 1e-300)) + 360 * error / np.maximum(
            error + magnitude, 1e-300
        )
        around = (error >= magnitude) | (180 - np.abs(direction) <= turn)  # -180 and 180 are the same direction
        return direction, np.where(around & (error > 0), 360, turn)
    yy, xy, xx = d["dyy"], d["dxy"], d["dxx"]
    if name == "laplacian":
        return yy + xx, e["dyy"] + e["dxx"]
    if name == "determinant":
        error = (np.abs(yy) + e["dyy"]) * e["dxx"] + np.abs(xx) * e["dyy"] + (2 * np.abs(xy) + e["dxy"]) * e["dxy"]
        return yy * xx - xy * xy, error
    invalid = np.isnan(yy + xy + xx)
    matrices = np.nan_to_num(np.stack([yy, xy, xy, xx], -1)).reshape(*yy.shape, 2, 2)
    value = np.linalg.eigvalsh(matrices)[..., 1 if name == "eigen_large" else 0]
    return np.where(invalid, np.nan, value), e["dyy"] + e["dxy"] + e["dxx"]


def convolve(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """The kernel's pixels shifted and added, one by one."""
    kernel = np.array(step.kernel) if step.correlate else np.array(step.kernel)[::-1, ::-1]
    return _correlate(step, planes, dtype, kernel, kernel)


def gaussian(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """The same for the kernel by which scipy answers to a single pixel."""
    factors = []
    for sigma, order in zip(step.sigma, step.order, strict=True):
        radius = int(step.truncate * sigma + 0.5)
        pixel = np.zeros(2 * radius + 1)
        pixel[radius] = 1
        if sigma > 0:
            pixel = gaussian_filter1d(pixel, sigma, order=order, mode="constant", truncate=step.truncate)
        factors.append(pixel[::-1])
    kernel = np.outer(*factors)
    return _correlate(step, planes, dtype, kernel, np.ones(kernel.shape))


def _correlate(step: Any, planes: np.ndarray, dtype: np.dtype, kernel: np.ndarray, support: np.ndarray) -> Expected:
    """Sum in extended precision where `support` is not 0.

    The bound is the contract's 4 eps x the largest pixel of the support x the sum of the absolute weights.
    """
    rows, columns = (side // 2 for side in kernel.shape)
    eps = 4 * np.finfo(step.working_dtype(dtype)).eps
    values, bounds = [], []
    for plane in planes:
        padded = pad(plane, rows, columns, step.boundary, step.cval)
        valid = np.isfinite(padded)
        total, mass, size = (np.zeros(plane.shape, np.longdouble) for _ in range(3))
        largest, some_invalid = np.zeros(plane.shape), np.zeros(plane.shape, bool)
        for i, j in zip(*np.nonzero(support), strict=True):
            window = np.s_[i : i + plane.shape[0], j : j + plane.shape[1]]
            pixels = np.where(valid[window], padded[window], 0)
            total += np.longdouble(kernel[i, j]) * pixels
            mass += np.longdouble(kernel[i, j]) * valid[window]
            size += abs(kernel[i, j]) * valid[window]
            largest = np.maximum(largest, np.abs(pixels))
            some_invalid |= ~valid[window]
        if step.normalize:
            none = np.abs(mass) <= 1e-12 * np.abs(kernel).sum() * (kernel.min() < 0 < kernel.max())
            invalid = ~np.isfinite(plane) | none
            mass[invalid] = 1
            total, size = total / mass, size / np.abs(mass)
        else:
            invalid = some_invalid
        values.append(np.where(invalid, np.nan, total.astype(np.float64)))
        bounds.append((eps * largest * size).astype(np.float64))
    return {"value": (np.stack(values), np.stack(bounds))}


def gabor(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """scikit-image's kernels, every product of the convolution, and the window of each response by numpy."""
    from skimage.filters import gabor_kernel

    eps = float(np.finfo(step.working_dtype(dtype)).eps)
    names = ("response",) if step.window is None else step.statistics or ("mean",)
    results: dict[str, list[np.ndarray]] = {name: [] for name in names}
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for plane in planes:
        for frequency in step.frequencies:
            for orientation in step.orientations:
                along, across = (step.sigma.along, step.sigma.across) if step.sigma else (None, None)
                theta, offset = np.deg2rad(orientation), np.deg2rad(step.offset)
                kernel = gabor_kernel(frequency, theta, step.bandwidth or 1, along, across, step.n_stds, offset)
                response, scale = _gabor_response(step, np.where(np.isfinite(plane), plane, np.nan), kernel)
                for name in names:
                    value, bound = _gabor_statistic(name, step, response, scale, eps)
                    results[name].append(value)
                    bounds[name].append(bound)
    return {name: (np.stack(results[name]), np.stack(bounds[name])) for name in names}


def _gabor_response(step: Any, plane: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the response, and max|input in the support| x sum|kernel|."""
    parts = {"real": [kernel.real], "imag": [kernel.imag], "magnitude": [kernel.real, kernel.imag]}[step.response]
    padded = pad(plane, kernel.shape[0] // 2, kernel.shape[1] // 2, step.boundary, step.cval)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    found = [np.einsum("yxij,ij->yx", windows, part[::-1, ::-1]) for part in parts]
    largest = np.lib.stride_tricks.sliding_window_view(np.nan_to_num(np.abs(padded)), kernel.shape).max((-2, -1))
    return found[0] if len(found) == 1 else np.hypot(*found), largest * sum(np.abs(part).sum() for part in parts)


def _gabor_statistic(
    name: str, step: Any, response: np.ndarray, scale: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    if name == "response":
        return response, 4 * eps * scale
    import warnings

    rows, columns = step.window[0] // 2, step.window[1] // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        pad(response, rows, columns, step.boundary, step.cval), step.window
    )
    scales = np.lib.stride_tricks.sliding_window_view(
        pad(scale, rows, columns, step.boundary, abs(step.cval or 0)), step.window
    )
    largest = np.nanmax(scales, axis=(-2, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all-NaN windows
        value = {"mean": np.nanmean, "var": np.nanvar, "std": np.nanstd}[name](windows, axis=(-2, -1))
    value = np.where(np.isnan(response), np.nan, value)
    if name == "mean":
        return value, 4 * eps * largest
    error = 4 * eps * largest**2
    if name == "var":
        return value, error
    return value, np.minimum(np.sqrt(error), error / np.maximum(value, 1e-300)) + 4 * eps * value


REFERENCES: dict[str, Callable[[Operation, np.ndarray, np.dtype], Expected]] = {
    "composite": composite,
    "convolve": convolve,
    "gabor": gabor,
    "gaussian": gaussian,
    "gradient": difference,
    "hessian": difference,
    **REDUCTIONS,
    "relief": relief,
    "terrain": terrain,
    **POINTWISE,
    "window": window,
}
