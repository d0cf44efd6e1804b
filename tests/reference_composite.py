"""The naive reference of composites; see `tests.references`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.testing.raster import dates
from pipeline.testing.reference import Expected
from tests.reference_statistic import order_statistic, statistic_of

ROUNDED = ("mean", "std")


def composite(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """numpy's nan-functions over the bands of each group, as `dates` has them."""
    known, eps = dict(dates(len(planes))), float(np.finfo(step.working_dtype(dtype)).eps)
    names = {f"p{percent:g}": percent for percent in step.percentiles}
    results: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for bands in _groups(step, known, len(planes)):
        series = np.moveaxis(planes[bands], 0, -1)
        finite = np.where(np.isfinite(series), series, np.nan)
        for name in (*step.chosen, *names):
            if name == "median" or name in names:
                value = order_statistic(series, names.get(name, 50) / 100), np.zeros(())
            elif name in ("first", "last"):
                value = _first_valid(series if name == "first" else series[..., ::-1]), np.zeros(())
            else:
                value = statistic_of(name, series, finite, eps)
            results.setdefault(name, []).append(value)
        if step.best:  # over all bands: each is a date
            score = BEST[step.best.by](series) * (1 if step.best.pick == "max" else -1)
            date = np.where(np.isnan(score).all(axis=-1), np.nan, np.argmax(np.nan_to_num(score, nan=-np.inf), axis=-1))
            first = np.argmax(~np.isnan(score) & (score == -np.inf), axis=-1)  # of what is -inf alone
            date = np.where(np.isnan(date) | (np.nanmax(score, axis=-1, initial=-np.inf) > -np.inf), date, first)
            picked = np.take_along_axis(series, np.nan_to_num(date).astype(int)[..., None], -1)[..., 0]
            results["value"] = [(np.where(np.isnan(date), np.nan, picked), np.zeros(()))]
            results["date"] = [(date, np.zeros(()))]
    return {
        name: (
            np.stack([value for value, _ in found]),
            None if name not in ("mean", "std") else np.stack([b for _, b in found]),
        )
        for name, found in results.items()
    }


BEST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "input": lambda p: p,
    "b1 % 7": lambda p: p % 7,
    "-abs(input)": lambda p: -np.abs(p),
}


def _groups(step: Any, known: Any, num_bands: int) -> list[list[int]]:
    """The bands of each result, by the definition."""
    if step.over == "band":
        return [list(range(num_bands))]
    months = {"month": 7, "year": 4, "16 days": 0, None: 0}[step.window]
    times = known["time"]
    cells = [time[:months] for time in times]
    if step.window == "16 days":
        days = np.array(times, "M8[D]")
        cells = [f"{number:05}" for number in (days - days.min()).astype(int) // 16]
    found: dict[tuple[str, str], list[int]] = {}
    for band in np.argsort(times, kind="stable").tolist():
        found.setdefault((cells[band], known["source_band"][band]), []).append(band)
    order = list(dict.fromkeys(known["source_band"]))
    return [found[key] for key in sorted(found, key=lambda key: (key[0], order.index(key[1])))]


def _first_valid(series: np.ndarray) -> np.ndarray:
    first = np.argmax(~np.isnan(series), axis=-1)
    result: np.ndarray = np.take_along_axis(series, first[..., None], -1)[..., 0]
    return result
