"""Naive references of the pointwise operations, and what some expressions mean; see `tests.references`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from pipeline.testing.reference import Expected


def calc(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """The expression as numpy says it in float64, every name standing for the one raster."""
    eps = float(np.finfo(step.working_dtype(dtype)).eps)
    with np.errstate(all="ignore"):
        value, terms = EXPRESSIONS[step.expression](planes.copy())
        return {"value": (value, None if terms is None else 4 * eps * np.nan_to_num(terms))}


def mask(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    with np.errstate(all="ignore"):
        condition = EXPRESSIONS[step.where](planes)[0]
    return {"value": (np.where(~np.isnan(condition) & (condition != 0), planes, np.nan), None)}


def _known(value: np.ndarray, *operands: np.ndarray) -> np.ndarray:
    """Return a condition as numbers, NaN where an operand is."""
    return np.where(np.any([np.isnan(operand) for operand in operands], axis=0), np.nan, value)


def _ratio(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = (p - 7) / np.where(p + 7 == 0, np.nan, p + 7)
    return value, np.abs(value)


def _first(p: np.ndarray) -> np.ndarray:
    return np.broadcast_to(p[:1], p.shape)


EXPRESSIONS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]] = {
    "input * 0.5 + 3": lambda p: (p * 0.5 + 3, np.abs(p) + 3),
    "(input - 7) / (input + 7)": _ratio,
    "input - input.b1": lambda p: (p - _first(p), np.abs(p) + np.abs(_first(p))),
    "max(input, 3, -input)": lambda p: (_known(np.maximum(np.abs(p), 3), p), None),
    "input // 7 + input % 7": lambda p: (p // 7 + p % 7, np.abs(p) + 7),
    "input ** 2": lambda p: (p**2, p**2),
    "sqrt(input) - log(input)": lambda p: (
        np.sqrt(p) - np.log(np.where(p == 0, np.nan, p)),
        np.sqrt(p) + np.abs(np.log(p)) + 1,
    ),
    "exp(-abs(input) / 100)": lambda p: (np.exp(-np.abs(p) / 100), 1 + 0 * p),
    "arctan2(input, 3) / pi": lambda p: (np.arctan2(p, 3) / np.pi, 2 + 0 * p),
    "clip(round(input / 8), -5, 20)": lambda p: (np.clip(np.rint(p / 8), -5, 20), None),
    "floor(input / 2) + ceil(input / 2)": lambda p: (np.floor(p / 2) + np.ceil(p / 2), np.abs(p) + 1),
    "coalesce(input, -1)": lambda p: (np.where(np.isnan(p), -1, p), None),
    "median(input, 7, -input)": lambda p: (_known(np.median([p, 0 * p + 7, -p], axis=0), p), None),
    "mean(input, input.b1)": lambda p: ((p + _first(p)) / 2, np.abs(p) + np.abs(_first(p))),
    "where(isvalid(input), input, -1)": lambda p: (np.where(np.isnan(p), -1, p), None),
    "where(input > 5, input, -input)": lambda p: (np.where(p > 5, p, -p), None),
    "-3 < input <= 50 or input == 7": lambda p: (_known((p > -3) & (p <= 50) | (p == 7), p), None),
    "(input > 3) & ~(input.b1 > 50)": lambda p: (_known((p > 3) & ~(_first(p) > 50), p, _first(p)), None),
    "not input": lambda p: (_known(p == 0, p), None),
    "a * 3 - b": lambda p: (p * 3 - p, 4 * np.abs(p)),
    "where(m != 0, a.b1, b)": lambda p: (_known(np.where(p != 0, _first(p), p), p), None),
    "m.b1 > 3 and input < 100": lambda p: (_known((_first(p) > 3) & (p < 100), p, _first(p)), None),
    "m.b1 > 3": lambda p: (_known(p[:1] > 3, p[:1]), None),
}
"""Expression -> what it means for (band, y, x), and the size of its terms (None: exact)."""


def select(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    return {"value": (planes[[band - 1 for band in step.bands]], None)}


def cast(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    value = planes * step.scale + step.offset
    if step.clip is not None:
        value = np.clip(value, *step.clip)
    if np.dtype(step.dtype).kind != "f":
        value = {"half_even": np.rint, "floor": np.floor, "ceil": np.ceil, "truncate": np.trunc}[step.rounding](value)
    return {"value": (value, None)}


def distance(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """scipy's distance transform of the whole raster."""
    plane = planes[0] if step.where is None else EXPRESSIONS[step.where](planes[:1])[0][0]
    found = np.nan_to_num(plane) != 0
    away = distance_transform_edt(~found, sampling=step.spacing) if found.any() else np.full(found.shape, np.inf)
    eps = float(np.finfo(step.working_dtype(dtype)).eps)
    value = np.where(away <= step.radius * (1 + 1e-12), away, np.nan)
    return {"value": (value[np.newaxis], 4 * eps * np.nan_to_num(value)[np.newaxis])}


class Bounded:
    """Values, and a bound on the error with which a dtype computes them."""

    def __init__(self, value: Any, error: Any, eps: float) -> None:
        self.value, self.error, self.eps = value, error, eps

    def _of(self, other: Any) -> Bounded:
        return other if isinstance(other, Bounded) else Bounded(float(other), abs(other) * self.eps, self.eps)

    def _rounded(self, value: Any, error: Any) -> Bounded:
        return Bounded(value, error + self.eps * np.abs(value), self.eps)

    def __add__(self, other: Any) -> Bounded:
        other = self._of(other)
        return self._rounded(self.value + other.value, self.error + other.error)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.eps)

    def __sub__(self, other: Any) -> Bounded:
        return self + -self._of(other)

    def __rsub__(self, other: Any) -> Bounded:
        return -self + other

    def __mul__(self, other: Any) -> Bounded:
        a, b = self, self._of(other)
        error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error
        return self._rounded(a.value * b.value, error)

    def __truediv__(self, other: Any) -> Bounded:
        a, b = self, self._of(other)
        value = a.value / np.where(b.value == 0, np.nan, b.value)
        rest = np.abs(b.value) - b.error
        error = (a.error + np.abs(value) * b.error) / np.where(rest > 0, rest, np.nan)
        return self._rounded(value, np.where(rest > 0, error, np.inf))

    __radd__, __rmul__ = __add__, __mul__


INDICES: dict[str, Callable[..., Bounded]] = {
    "ndvi": lambda red, nir: (nir - red) / (nir + red),
    "evi": lambda red, nir, blue: 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
    "evi2": lambda red, nir: 2.5 * (nir - red) / (nir + 2.4 * red + 1),
    "savi": lambda red, nir: 1.5 * (nir - red) / (nir + red + 0.5),
    "arvi": lambda red, nir, blue: (nir - (2 * red - blue)) / (nir + (2 * red - blue)),
    "cig": lambda green, nir: nir / green - 1,
}
"""Some of the indices, naively."""


def index(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """The formula in float64, with the errors of each operation added up."""
    eps, expected = float(np.finfo(step.working_dtype(dtype)).eps), {}
    for name in step.indices:
        needed = INDICES[name].__code__.co_varnames
        bands = {common: Bounded(planes[[step.names[common] - 1]], 0.0, eps) for common in needed}
        if step.scale is not None:
            bands = {common: band * step.scale + (step.offset or 0.0) for common, band in bands.items()}
        with np.errstate(all="ignore"):
            found = INDICES[name](**bands)
        expected[name] = (found.value, np.nan_to_num(found.error, posinf=np.inf))
    return expected


POINTWISE = {"distance": distance, "calc": calc, "cast": cast, "index": index, "mask": mask, "select": select}
