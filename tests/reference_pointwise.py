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


POINTWISE = {"distance": distance, "calc": calc, "cast": cast, "mask": mask, "select": select}
