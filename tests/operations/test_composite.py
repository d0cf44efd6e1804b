"""Composites: series by their coordinates against numpy, the best date, periods, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import pipeline
from pipeline import api
from pipeline.kernels.composite import LONGEST_NETWORK
from pipeline.model.errors import PipelineError
from pipeline.testing import layout as runs
from tests import harness
from tests.harness import Layout, Raster

NAMES = ("B04", "B08")
BOTH = [("y", "x", "band"), ("band", "y", "x")]


def times_of(num: int) -> list[str]:
    """Return dates a week apart, of several years where there are many."""
    first = np.datetime64("2023-11-20")
    return [str(first + np.timedelta64(7 * i, "D")) for i in range(num)]


def pixels(num_dates: int, dtype: str = "uint16", shape: tuple[int, int] = (23, 31), cloudy: float = 0.3) -> np.ndarray:
    """Return (date, source band, y, x), 0 or NaN where a date is cloudy in all bands; some pixels never are clear."""
    rng = np.random.default_rng(num_dates)
    values = rng.integers(1, 200, (num_dates, len(NAMES), *shape)).astype(dtype)
    clouds = rng.random((num_dates, *shape)) < cloudy
    clouds[:, :2, :2] = cloudy > 0
    clouds = np.broadcast_to(clouds[:, None], values.shape)
    values[clouds] = np.nan if values.dtype.kind == "f" else 0
    return values


def stored(values: np.ndarray, path: Path, dims: tuple[str, ...] = BOTH[1], times: list[Any] | None = None) -> str:
    """Store (date, source band, y, x), the bands shuffled but for the first: what they are, their coordinates say."""
    num_dates, num_names = values.shape[:2]
    times = times_of(num_dates) if times is None else times
    order = np.r_[0, 1 + np.random.default_rng(1).permutation(num_dates * num_names - 1)]
    planes = values.reshape(-1, *values.shape[2:])[order]
    coordinates = (
        ("time", tuple(times[i // num_names] for i in order)),
        ("source_band", tuple(NAMES[i % num_names] for i in order)),
    )
    array = np.ascontiguousarray(planes if dims[0] == "band" else np.moveaxis(planes, 0, -1))
    nodata = None if values.dtype.kind == "f" or not (values == 0).any() else 0
    chunks = tuple(len(planes) if dim == "band" else 10 for dim in dims)
    return harness.store(Raster(array, dims, nodata, chunks, coordinates=coordinates), path, with_labels=False)


def composite(source: str, folder: Path, **parameters: Any) -> dict[str, np.ndarray]:
    step = {"name": "c", "op": "composite", **parameters}
    layout = Layout(block=(1, 1), chunks=(10, 7), workers=2)
    return {path.removeprefix("c/"): values for path, values in runs.run(source, [step], folder, layout).items()}


def quiet(function: Callable[..., np.ndarray], *arguments: Any, **options: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all-NaN slices
        return function(*arguments, **options)


def valid(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.nan, values.astype(np.float64))


def marked(result: np.ndarray) -> np.ndarray:
    """Return results with NaN where they are invalid."""
    return result if result.dtype.kind == "f" else np.where(result == 0, np.nan, result)


EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda v: quiet(np.nanmedian, v, axis=0),
    "min": lambda v: quiet(np.nanmin, v, axis=0),
    "max": lambda v: quiet(np.nanmax, v, axis=0),
    "p10": lambda v: quiet(np.nanpercentile, v, 10, axis=0),
    "p90": lambda v: quiet(np.nanpercentile, v, 90, axis=0),
    "first": lambda v: np.take_along_axis(v, np.argmax(~np.isnan(v), axis=0)[None], 0)[0],
    "last": lambda v: np.take_along_axis(v[::-1], np.argmax(~np.isnan(v[::-1]), axis=0)[None], 0)[0],
}


@pytest.mark.parametrize("dims", BOTH, ids=",".join)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("num", [1, 6, 33])
def test_statistics_are_those_of_numpy(num: int, dtype: str, dims: tuple[str, ...], tmp_path: Path) -> None:
    values = pixels(num, dtype)
    source = stored(values, tmp_path / "in.zarr", dims)
    names = ["mean", "std", "count", *(name for name in EXACT if name[0] != "p")]
    got = composite(source, tmp_path, statistics=names, percentiles=[10, 90])
    clear = valid(values)
    eps, largest = np.finfo(np.float32).eps, 200
    for name, reference in EXACT.items():
        expected = reference(clear)
        assert got[name].shape == (len(NAMES), *values.shape[2:])
        tolerance = 4 * eps * largest if name in ("p10", "p90") else 0  # ours are rounded to float32
        np.testing.assert_allclose(marked(got[name]), expected, rtol=0, atol=tolerance, err_msg=name)
    np.testing.assert_array_equal(got["count"], (~np.isnan(clear)).sum(axis=0))
    assert got["count"].dtype == np.uint32
    for name, function in (("mean", np.nanmean), ("std", np.nanstd)):
        np.testing.assert_allclose(got[name], quiet(function, clear, axis=0), rtol=eps, atol=eps * largest)
    native = {"min", "max", "first", "last"}
    assert {name: got[name].dtype.name for name in got} == {
        name: dtype if name in native else "uint32" if name == "count" else "float32" for name in got
    }


@pytest.mark.parametrize("cloudy", [0.0, 0.3])
@pytest.mark.parametrize("num", [LONGEST_NETWORK, LONGEST_NETWORK + 1])
def test_long_series_are_sorted(num: int, cloudy: float, tmp_path: Path) -> None:
    """Beyond the longest network by numpy's sort: the same values; an odd number of valid ones keeps the dtype."""
    values = pixels(num, "uint16", (5, 6), cloudy)
    got = composite(stored(values, tmp_path / "in.zarr"), tmp_path, statistics=["median"], percentiles=[2.5])
    clear = valid(values)
    np.testing.assert_array_equal(marked(got["median"]), quiet(np.nanmedian, clear, axis=0))
    expected = quiet(np.nanpercentile, clear, 2.5, axis=0)
    np.testing.assert_allclose(got["p2.5"], expected, rtol=0, atol=4e-5)
    assert got["median"].dtype == ("uint16" if num % 2 and not cloudy else "float32")


def test_moments_neither_overflow_nor_drift(tmp_path: Path) -> None:
    """Of constants, of the ends of float64's range, of small deviations at a large offset."""
    rng = np.random.default_rng(0)
    rows = np.array(
        [
            np.full(49, 0.1),
            rng.choice([1.7e308, -1.7e308], 49),
            np.full(49, 1.7e308),
            1e9 + rng.random(49),
            rng.random(49) * 1e-200,
        ]
    )
    values = np.repeat(rows.T[:, None, :, None], 2, axis=1)
    got = composite(stored(values, tmp_path / "in.zarr"), tmp_path, statistics=["mean", "std"])
    wide = rows.astype(np.longdouble)
    mean, std = wide.mean(axis=1), wide.std(axis=1)
    eps = np.finfo(np.float64).eps
    for band in range(2):
        assert (np.abs(got["mean"][band, :, 0] - mean) <= eps * np.abs(mean)).all()
        assert got["std"][band, 0, 0] == got["std"][band, 2, 0] == 0
        assert (np.abs(got["std"][band, :, 0] - std) <= 4 * eps * std).all()


def test_infinity_is_a_value_to_ranks_and_none_to_moments(tmp_path: Path) -> None:
    values = np.array([1.0, np.inf, 3.0, np.nan, -np.inf], "float32")[:, None, None, None]
    values = np.repeat(values, 2, axis=1)
    names = ["mean", "count", "min", "max", "median", "first", "last"]
    got = {
        name: v[0, 0, 0] for name, v in composite(stored(values, tmp_path / "in"), tmp_path, statistics=names).items()
    }
    assert got == {"mean": 2, "count": 2, "min": -np.inf, "max": np.inf, "median": 2, "first": 1, "last": -np.inf}


@pytest.mark.parametrize("dims", BOTH, ids=",".join)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("pick", ["max", "min"])
def test_the_best_date_brings_all_its_bands(pick: str, dtype: str, dims: tuple[str, ...], tmp_path: Path) -> None:
    """Ties go to the earliest; a date at which the expression is invalid does not count."""
    values = pixels(9, dtype)
    values[:, 1] //= 20  # ties
    values[3, 0, 5:9] = np.nan if dtype == "float32" else 0  # B04 alone is invalid: so is the expression
    values[5, 1, 12:15] = np.nan if dtype == "float32" else 0
    by = {"by": "B04 // 20 - B08", "pick": pick}
    got = composite(stored(values, tmp_path / "in.zarr", dims), tmp_path, best=by)
    clear = valid(values) if dtype == "uint16" else values.astype(np.float64)
    score = clear[:, 0] // 20 - clear[:, 1]
    never = np.isnan(score).all(axis=0)
    worst = -np.inf if pick == "max" else np.inf
    date = (np.argmax if pick == "max" else np.argmin)(np.where(np.isnan(score), worst, score), axis=0)
    assert set(got) == {"value", "date"}
    np.testing.assert_array_equal(got["date"][0], np.where(never, 255, date))
    assert got["date"].dtype == np.uint8
    for band in range(2):
        expected = np.take_along_axis(clear[:, band], date[None], 0)[0]
        np.testing.assert_array_equal(marked(got["value"][band]), np.where(never, np.nan, expected))
    assert got["value"].dtype == dtype


@pytest.mark.parametrize(
    ("window", "cells"),
    [
        ("month", ["2023-11-01", "2023-12-01", "2024-01-01"]),
        ("year", ["2023-01-01", "2024-01-01"]),
        ("16 days", ["2023-11-20", "2023-12-06", "2023-12-22", "2024-01-07", "2024-01-23"]),
    ],
)
def test_a_composite_for_each_period(window: str, cells: list[str], tmp_path: Path) -> None:
    values = pixels(11)
    source = stored(values, tmp_path / "in.zarr")
    config = {
        "inputs": {"image": source},
        "steps": [
            {"name": "c", "op": "composite", "window": window, "statistics": ["max"], "best": {"by": "B08"}},
        ],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    api.run(config)
    result = xr.open_zarr(tmp_path / "out.zarr", group="c", mask_and_scale=False)
    assert result.time.values.tolist() == [cell for cell in cells for _ in NAMES]
    assert result.source_band.values.tolist() == [*NAMES] * len(cells)
    assert result.band.values.tolist() == [f"{name} {cell}" for cell in cells for name in NAMES]
    days = np.array(times_of(11), "M8[D]")
    ends = [*np.array(cells[1:], "M8[D]"), np.datetime64("2099-01-01")]
    clear = valid(values)
    for number, (begin, end) in enumerate(zip(np.array(cells, "M8[D]"), ends, strict=True)):
        inside = np.flatnonzero((days >= begin) & (days < end))
        never = np.isnan(clear[inside, 1]).all(axis=0)
        date = inside[np.argmax(np.nan_to_num(clear[inside, 1], nan=-1), axis=0)]
        for place in range(2):
            band = 2 * number + place
            expected = quiet(np.nanmax, clear[inside, place], axis=0)
            np.testing.assert_array_equal(marked(result["max"].values[band]), expected)
            np.testing.assert_array_equal(result.date.values[band], np.where(never, 255, date))
            picked = np.take_along_axis(clear[:, place], date[None], 0)[0]
            np.testing.assert_array_equal(marked(result.value.values[band]), np.where(never, np.nan, picked))


def test_periods_without_a_date_are_left_out_and_said(tmp_path: Path) -> None:
    source = stored(pixels(3), tmp_path / "in.zarr", times=["2024-01-31", "2024-02-01T10:00:31Z", "2024-07-01"])
    step = {"name": "c", "op": "composite", "window": "month"}
    facts = api.plan({"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "o.zarr")}})
    said = "c: 4 of the periods from 2024-01-01 to 2024-07-01 have no date and are left out (window)"
    assert said in facts.notes
    assert composite(source, tmp_path, window="month")["median"].shape[0] == 3 * len(NAMES)


def test_dates_that_are_stored_as_numbers(tmp_path: Path) -> None:
    """As xarray writes them: CF's days since a date, in an array of its own."""
    values = pixels(4)[:, 0]
    times = np.array(["2024-03-01", "2024-01-01", "2024-02-01", "2024-01-15"], "M8[ns]")
    array = xr.DataArray(values, dims=("band", "y", "x"), coords={"time": ("band", times)}, name="v")
    array.to_dataset().to_zarr(tmp_path / "in.zarr", zarr_format=3, consolidated=False)
    got = composite(str(tmp_path / "in.zarr"), tmp_path, statistics=["first"])
    order = np.argsort(times)
    series = values[order]
    filled = np.take_along_axis(series, np.argmax(series != 0, axis=0)[None], 0)[0]
    assert (values == 0).any()
    plain = series[0]  # no nodata is recorded: 0 is a value
    np.testing.assert_array_equal(got["first"][0], plain)
    assert not np.array_equal(plain, filled)
    lazy = pipeline.apply({"op": "composite", "statistics": ["first"]}, array)
    np.testing.assert_array_equal(lazy.values[0], plain)


@pytest.mark.parametrize(("over", "kept"), [("z", "source_band"), ("source_band", "z")])
def test_any_coordinate_in_its_order(over: str, kept: str, tmp_path: Path) -> None:
    """Numbers by size, names in the order of the bands; what tells the bands apart besides makes the results."""
    values = np.random.default_rng(0).integers(0, 99, (6, 9, 8)).astype("uint16")
    coordinates = (("z", (10, 2.5, -1, 10, 2.5, -1)), ("source_band", ("g", "g", "g", "a", "a", "a")))
    source = harness.store(
        Raster(values, ("band", "y", "x"), coordinates=(*coordinates, ("wavelength", (1, 1, 1, 2, 2, 2)))),
        tmp_path / "in.zarr",
        with_labels=False,
    )
    step = {"name": "c", "op": "composite", "over": over, "statistics": ["max", "first"]}
    api.run({"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}})
    result = xr.open_zarr(tmp_path / "out.zarr", group="c", mask_and_scale=False)
    groups = [[2, 1, 0], [5, 4, 3]] if over == "z" else [[0, 3], [1, 4], [2, 5]]
    np.testing.assert_array_equal(result["max"], [values[group].max(axis=0) for group in groups])
    np.testing.assert_array_equal(result["first"], [values[group[0]] for group in groups])
    assert result[kept].values.tolist() == (["g", "a"] if over == "z" else [10, 2.5, -1])
    assert ("wavelength" in result.coords) == (over == "z")


def test_a_bank_of_filters_over_dates(tmp_path: Path) -> None:
    """Bands of a bank are still those of their source band, whatever the date."""
    values = pixels(3, "float32", cloudy=0.0)
    steps = [
        {"name": "g", "op": "gabor", "input": "image", "frequencies": [0.3], "orientations": [0, 90], "sigma": 1},
        {"name": "c", "op": "composite", "statistics": ["max"]},
    ]
    got = runs.run(stored(values, tmp_path / "in.zarr"), steps, tmp_path, keep=["g", "c"])
    assert got["c/max"].shape[0] == len(NAMES) * 2
    np.testing.assert_array_equal(np.sort(got["c/max"].max(axis=0)), np.sort(got["g/response"].max(axis=0)))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "coordinate": (
        {"over": "tyme"},
        r"over: unknown coordinate 'tyme'; did you mean 'time'\? \(the raster's bands have",
    ),
    "key": ({"dim": "time"}, "unknown key 'dim'; here it is called 'over'"),
    "operation": ({"op": "temporal_median"}, "unknown operation 'temporal_median'; here it is called 'composite'"),
    "window": ({"window": "2 weeks"}, "window: must be month, year or a number of days such as '16 days', got '2 week"),
    "no dates": ({"over": "source_band", "window": "year"}, "`window` divides dates, and the source_band of the bands"),
    "nothing": ({"statistics": []}, "statistics: must name a statistic, or there must be `percentiles:` or `best:`"),
    "twice": ({"statistics": ["max", "max"]}, "must name each statistic once, got max, max"),
    "name": ({"best": {"by": "B05 - B04"}}, r"best\.by: unknown name 'B05'"),
    "all bands": ({"best": {"by": "input"}}, "best.by: has a value for each of the 2 bands of a date; name bands"),
    "syntax": ({"best": {"by": "B04 +"}}, "best.by: cannot read"),
    "pick": ({"best": {"by": "B04", "pick": "largest"}}, r"best\.pick: unknown pick 'largest' \(valid: max, min\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    parameters, message = REFUSED[case]
    source = stored(pixels(2), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match=message):
        composite(source, tmp_path, **parameters)


def refused(tmp_path: Path, coordinates: Any, **parameters: Any) -> str:
    values = np.ones((4, 5, 6), "uint8")
    raster = Raster(values, ("band", "y", "x"), coordinates=coordinates)
    source = harness.store(raster, tmp_path / "in.zarr", with_labels=False)
    with pytest.raises(PipelineError) as caught:
        composite(source, tmp_path, **parameters)
    return str(caught.value)


def test_series_that_are_none(tmp_path: Path) -> None:
    best = {"by": "b1"}
    assert "the raster's bands have none; `over: band` is all bands in their order)" in refused(tmp_path / "a", ())
    odd = (("time", ("2024-01-01", "2024-02-01", "spring", "2024-03-01")),)
    assert "time is 'spring' for a band; it must be a date such as 2024-06-01" in refused(tmp_path / "b", odd)
    twice = (("time", ("2024-01-01", "2024-02-01", "2024-01-01T00:00:00", "2024-03-01")),)
    assert "has b1 twice; `best` takes all bands of one entry" in refused(tmp_path / "c", twice, best=best)
    lacking = (*twice, ("source_band", ("r", "r", "n", "n")))
    assert "time 2024-02-01 has no band n; `best` takes" in refused(tmp_path / "d", lacking, best={"by": "r"})
    hole = (("z", (1.0, 2.0, float("nan"), 4.0)),)
    assert "z is nan for a band; every band needs a number" in refused(tmp_path / "e", hole, over="z")


def test_which_date_is_which_is_said(tmp_path: Path) -> None:
    step = {"name": "c", "op": "composite", "best": {"by": "B08"}}
    source = stored(pixels(9), tmp_path / "in.zarr")
    facts = api.plan({"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "o.zarr")}})
    times = times_of(9)
    shown = f"0 is {times[0]}, 1 is {times[1]}, 2 is {times[2]}, ..., 8 is {times[8]}"
    assert f"c: date counts from 0: {shown}" in facts.notes
