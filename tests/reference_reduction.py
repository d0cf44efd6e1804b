"""Naive references of the reductions: label statistics by masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import filters
from skimage.measure import perimeter

from pipeline.testing.reference import Expected
from tests import harness
from tests.reference_pointwise import POINTWISE
from tests.reference_statistic import order_statistic

KEPT = ("count", "variety", "min", "max", "mode")
"""Painted with values that no dtype of theirs rounds."""


def label_stats(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """The pixels of each label picked out by a mask and reduced by numpy, sums by math.fsum."""
    labels = harness.labels(*planes.shape[1:])
    found = np.array([label for label in np.unique(labels) if int(label) not in step.ignore], np.int64)
    finite = np.where(np.isfinite(planes), planes, np.nan)
    names = (*step.statistics, *(f"p{percent:g}" for percent in step.percentiles))
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for label in found:
        picked = [plane[labels == label] for plane in finite]
        picked = [values[~np.isnan(values)] for values in picked]
        for name in names:
            columns[name].append([_label_statistic(name, values) for values in picked])
    result: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "table/label": (found.astype(np.float64), None),
        "table/pixels": (np.array([np.sum(labels == label) for label in found], np.float64), None),
    }
    eps = np.finfo(np.float64).eps
    for name in names:
        values = np.array(columns[name], np.float64).reshape(len(found), len(planes))
        is_rounded = name in ("sum", "mean", "var", "std")
        result[f"table/{name}"] = values, 8 * eps * np.abs(values) if is_rounded else None
    result |= _label_geometry(step, labels, found) | _label_weights(step, labels, found, finite)
    if step.histogram is not None:
        result["table/histogram"] = _label_histogram(step, labels, found, finite, dtype), None
    for name in step.recolor:
        raster = np.full(planes.shape, 0.0 if name in ("count", "variety") else np.nan)
        for row, label in enumerate(found):
            raster[:, labels == label] = result[f"table/{name}"][0][row][:, np.newaxis]
        working = np.finfo(np.float64 if name == "sum" and dtype.kind != "f" else step.working_dtype(dtype)).eps
        result[name] = raster, None if name in KEPT else 4 * float(working) * np.abs(raster)
    return result


def _label_statistic(name: str, values: np.ndarray) -> float:
    if name in ("count", "variety"):
        return float(values.size if name == "count" else np.unique(values).size)
    if name == "sum":
        return math.fsum(values)
    if not values.size:
        return math.nan
    if name in ("min", "max"):
        return float(values.min() if name == "min" else values.max())
    if name == "median" or name.startswith("p"):
        return float(order_statistic(values, 0.5 if name == "median" else float(name[1:]) / 100))
    if name == "mode":
        different, counts = np.unique(values, return_counts=True)
        return float(different[counts.argmax()])
    if name == "range":
        return float(values.max() - values.min())
    mean = math.fsum(values) / values.size
    if name == "mean":
        return mean
    exact = [Fraction(float(value)) for value in values]
    centre = sum(exact) / len(exact)
    variance = float(sum((value - centre) ** 2 for value in exact) / len(exact))
    return variance if name == "var" else math.sqrt(variance)


def _label_histogram(
    step: Any, labels: np.ndarray, found: np.ndarray, planes: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    bins: Any = step.histogram.bins or step.histogram.edges
    picked = [[plane[(labels == label) & ~np.isnan(plane)] for plane in planes] for label in found]
    of_dtype = np.dtype(np.float32) if dtype == np.float16 else dtype
    counts = [[np.histogram(v.astype(of_dtype), bins, step.histogram.range)[0] for v in bands] for bands in picked]
    return np.array(counts, np.float64).reshape(len(found), len(planes), -1)


def _label_weights(
    step: Any, labels: np.ndarray, found: np.ndarray, planes: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Return perimeters by scikit-image, and exact weighted means of coordinates."""
    result: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    if "perimeter" in step.geometry:
        lengths = np.array([perimeter(labels == label, 4) for label in found])
        result["table/perimeter"] = lengths, 1e-12 * lengths
    for axis, name in enumerate("yx" if "centroid_weighted" in step.geometry else ""):
        centres = [[_weighted_mean(plane, labels == label, axis) for plane in planes] for label in found]
        values = np.array(centres).reshape(len(found), len(planes))
        result[f"table/centroid_weighted_{name}"] = values, 1e-14 * np.abs(values)
    return result


def _weighted_mean(plane: np.ndarray, mask: np.ndarray, axis: int) -> float:
    places = np.nonzero(mask & ~np.isnan(plane))
    weights = [Fraction(value) for value in plane[places].tolist()]
    total = sum(weights, Fraction(0))
    moment = sum((w * int(at) for w, at in zip(weights, places[axis], strict=True)), Fraction(0))
    return float(moment / total) if total else math.nan


def _label_geometry(
    step: Any, labels: np.ndarray, found: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    places = [np.nonzero(labels == label) for label in found]
    result: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for axis, name in enumerate("yx"):
        if "centroid" in step.geometry:
            means = np.array([place[axis].mean() for place in places])
            result[f"table/centroid_{name}"] = means, 1e-14 * np.abs(means)
        if "bbox" in step.geometry:
            first, last = (("top", "bottom"), ("left", "right"))[axis]
            result[f"table/bbox_{first}"] = np.array([float(place[axis].min()) for place in places]), None
            result[f"table/bbox_{last}"] = np.array([place[axis].max() + 1.0 for place in places]), None
    shapes = [_shape(*place) for place in places]
    for name in set(step.geometry) - {"centroid", "centroid_weighted", "bbox", "perimeter"}:
        values, bounds = np.array([shape[name] for shape in shapes]).reshape(-1, 2).T
        result[f"table/{name}"] = values, bounds
    return result


def _shape(rows: np.ndarray, columns: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return what scikit-image's regionprops defines, of exact moments, and how far each may be off."""
    eps, num = float(np.finfo(np.float64).eps), len(rows)
    y, x = ([Fraction(int(place)) - Fraction(int(axis.sum()), num) for place in axis] for axis in (rows, columns))
    down, across = (sum((place**2 for place in axis), Fraction(0)) / num for axis in (y, x))
    along = sum((a * b for a, b in zip(y, x, strict=True)), Fraction(0)) / num
    half = math.sqrt((down - across) ** 2 / 4 + along**2)
    large = float((down + across) / 2) + half
    small = float(down * across - along**2) / large if large else 0.0
    eccentricity = math.sqrt(2 * half / large) if large else 0.0
    orientation = math.copysign(math.pi / 4, along or -1)
    if down != across:
        orientation = 0.5 * math.atan2(2 * along, down - across)
    turn = 8 * eps * (1 + large / half) if half else 0.0
    found = {"major_axis": 4 * math.sqrt(large), "minor_axis": 4 * math.sqrt(small)}
    found["equivalent_diameter"] = math.sqrt(4 * num / math.pi)
    known = {name: (value, 16 * eps * value) for name, value in found.items()}
    known |= {"area": (float(num), 0.0), "orientation": (orientation, turn)}
    # what is wrong by e in the square is wrong by e / (2 root), and never by more than sqrt(e)
    return known | {"eccentricity": (eccentricity, min(4 * eps**0.5, 16 * eps / (eccentricity or eps)))}


def quantize(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """All colours tried for every pixel: squares summed over the bands in order, the first of equals."""
    palette = np.array(step.palette, np.float64)
    planes = planes[:1] if step.bands else planes
    squared = np.zeros((len(palette), *planes.shape[1:]))
    for band, plane in enumerate(planes):
        squared += (palette[:, band, np.newaxis, np.newaxis] - plane) ** 2
    invalid = ~np.isfinite(planes).all(axis=0)
    index = np.where(invalid, 0, squared.argmin(axis=0))
    color = np.where(invalid, np.nan, np.moveaxis(palette[index], -1, 0))
    distance = np.where(invalid, np.nan, np.sqrt(np.take_along_axis(squared, index[np.newaxis], axis=0)[0]))
    bound = 4 * float(np.finfo(step.working_dtype(dtype)).eps) * np.abs(distance)[np.newaxis]
    known: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "index": (np.where(invalid, np.nan, index)[np.newaxis], None),
        "color": (color, None),
        "distance": (distance[np.newaxis], bound),
    }
    return {name: known[name] for name in step.outputs} | {"quality": _quality(color, planes, palette, dtype)}


def _quality(
    color: np.ndarray, planes: np.ndarray, palette: np.ndarray, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error, PSNR and its peak by numpy's sums."""
    valid = np.isfinite(color)
    peak = float(np.iinfo(dtype).max) if dtype.kind != "f" else palette.max() - palette.min()
    if not valid.any():
        return np.array([np.nan, np.nan, peak]), np.zeros(3)
    error = float(np.mean((color - planes)[valid] ** 2))
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(peak**2 / np.float64(error)) if peak else np.nan
    return np.array([error, psnr, peak]), np.array([1e-12 * error, 1e-9, 0])


def palette(step: Any, planes: np.ndarray, dtype: np.dtype) -> Mapping[str, Any]:
    """The colours themselves where they are given; what median cut chooses: tests/kernels/test_median_cut.py."""
    given = None if step.values is None else np.array(step.values, np.float64)
    return {"palette": (given, None)}


def components(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """scipy's labels of each value by itself, numbered by the first pixels of all."""
    if step.where is None:
        values = planes[0] if step.bands else planes.reshape(planes.shape[-2:])
        inside = ~np.isnan(values) & (values != (step.background or 0))
    else:
        values = np.nan_to_num(POINTWISE["mask"](step, planes[:1], dtype)["value"][0][0] * 0 + 1)
        inside = values == 1
    structure = ndimage.generate_binary_structure(2, 2 if step.connectivity == 8 else 1)
    if step.fill_holes:
        values, inside = _without_holes(values, inside, step.fill_holes, 3 - step.connectivity // 4)
    objects = []
    for value in np.unique(values[inside]):
        found, num = ndimage.label(inside & (values == value), structure)
        objects += [np.flatnonzero(found == number) for number in range(1, num + 1)]
    kept = [pixels for pixels in objects if (step.min_size or 1) <= len(pixels) <= (step.max_size or np.inf)]
    kept.sort(key=lambda pixels: pixels[0])
    labels = np.full(values.size, np.nan)
    for number, pixels in enumerate(kept):
        labels[pixels] = number + 1
    row, column = np.divmod(np.array([pixels[0] for pixels in kept], np.int64), values.shape[1])
    if step.removed == "largest_neighbour":
        small = [pixels for pixels in objects if len(pixels) < step.min_size]
        for pixels, number in [(pixels, _largest_beside(pixels, labels.reshape(values.shape))) for pixels in small]:
            labels[pixels] = number
    num_pixels = np.bincount(labels[~np.isnan(labels)].astype(int), minlength=len(kept) + 1)[1:]
    columns = {"label": range(1, len(kept) + 1), "pixels": num_pixels, "row": row, "column": column}
    table = {name: (np.array([*array], np.float64), None) for name, array in columns.items()}
    internal = ("run", "run_label", "extent", *(("given", "given_label") if step.removed != "drop" else ()))
    table |= dict.fromkeys(internal, (None, None))  # which painting reads
    return {"labels": (labels.reshape(1, *values.shape), None)} | {f"table/{name}": table[name] for name in table}


def _without_holes(values: np.ndarray, inside: np.ndarray, size: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Give regions without objects the value around them, where that is one."""
    values, filled = values.copy(), inside.copy()
    holes, num = ndimage.label(~inside, ndimage.generate_binary_structure(2, rank))
    outside = set(np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])))
    for number in range(1, num + 1):
        hole = holes == number
        around = np.unique(values[ndimage.binary_dilation(hole) & inside])
        if number not in outside and np.count_nonzero(hole) < size and len(around) == 1:
            values[hole], filled[hole] = around[0], True
    return values, filled


def _largest_beside(pixels: np.ndarray, labels: np.ndarray) -> float:
    """Return the label of the largest object beside some pixels, of equals the first; NaN where there is none."""
    of = np.zeros(labels.size, bool)
    of[pixels] = True
    beside = ndimage.binary_dilation(of.reshape(labels.shape)) & ~of.reshape(labels.shape) & ~np.isnan(labels)
    found = np.unique(labels[beside])
    return min(found, key=lambda label: (-np.count_nonzero(labels == label), label), default=np.nan)


def threshold(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """Every value (or every bin of numpy's histogram) tried; li is scikit-image's."""
    found = []
    for plane in planes:
        values = plane[np.isfinite(plane)].astype(dtype)
        is_known = values.size or step.value is not None  # what is given needs no pixel
        found.append(_threshold(step, values) if is_known else math.nan)
    thresholds = np.array(found)[:, np.newaxis, np.newaxis]
    if step.value is None and dtype.kind == "f":
        thresholds = thresholds.astype(dtype)
    mask = np.where(np.isnan(planes), np.nan, planes > thresholds)
    bound = 1e-9 * np.abs(np.array([found])) if step.method == "li" else None
    return {"mask": (mask, None), "table/threshold": (np.array([found], np.float64), bound)}


def _threshold(step: Any, values: np.ndarray) -> float:
    if step.value is not None or values.min() == values.max():
        return float(values.min() if step.value is None else step.value)
    if step.method == "li":
        return float(filters.threshold_li(values))
    if values.dtype.kind == "f":
        halved = not np.isfinite(float(values.max()) - float(values.min()))
        counts, edges = np.histogram(values / 2 if halved else values, 256)
        centres = (edges[:-1] + edges[1:]) / 2 * (2 if halved else 1)
    else:
        centres = np.arange(int(values.min()), int(values.max()) + 1)
        counts = np.bincount(values.astype(np.int64) - int(values.min()))
    if step.method == "triangle":
        return float(centres[_triangle(counts)])
    number, exact = counts.tolist(), [Fraction(centre) for centre in centres.tolist()]
    total, mass = sum(number), sum(n * centre for n, centre in zip(number, exact, strict=True))
    best, below, lower, place = Fraction(-1), 0, Fraction(0), 0
    for i in np.flatnonzero(counts[:-1]).tolist():
        below, lower = below + number[i], lower + number[i] * exact[i]
        variance = below * (total - below) * (lower / below - (mass - lower) / (total - below)) ** 2
        if variance > best:
            best, place = variance, i
    return float(centres[place])


def _triangle(counts: np.ndarray) -> int:
    peak, end = int(counts.argmax()), len(counts) - 1
    flip = peak < end - peak
    heights = (counts[::-1] if flip else counts).astype(object)
    top = end - peak if flip else peak
    place = int(np.argmax([heights[top] * i - top * heights[i] for i in range(top)])) if top else 0
    return end - place if flip else place


REDUCTIONS = {
    "threshold": threshold,
    "components": components,
    "label_stats": label_stats,
    "palette": palette,
    "quantize": quantize,
}
