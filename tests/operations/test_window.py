"""The operation `window`: the parameters it refuses, and integers that have no value for an invalid pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.model.errors import PipelineError
from tests import harness


def run(values: np.ndarray, tmp_path: Path, **step: Any) -> None:
    source = harness.store(harness.Raster(values, ("y", "x")), tmp_path / "in.zarr")
    steps = [{"name": "smooth", "op": "window", "size": 3, **step}]
    pipeline.run({"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}})


@pytest.mark.parametrize("nodata", [None, -1])
def test_half_precision_with_nodata(nodata: int | None, tmp_path: Path) -> None:
    values = np.random.default_rng(4).normal(size=(20, 30)).astype(np.float16)
    values[3:6, 4:9] = -9999
    source = harness.store(harness.Raster(values, ("y", "x"), nodata=-9999), tmp_path / "in.zarr")
    steps = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean", "max"], "nodata": nodata}]
    facts = pipeline.run({"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}})
    assert [entry["valid_fraction"] for entry in facts["outputs"]] == [1 - 15 / 600] * 2
    floats = np.where(values == -9999, np.nan, values.astype(float))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(floats, 1, mode="symmetric"), (3, 3))
    expected = np.where(
        np.isnan(floats), np.nan if nodata is None else nodata, np.nanmax(windows, axis=(2, 3), initial=-np.inf)
    )
    np.testing.assert_array_equal(harness.read(tmp_path / "out.zarr", "smooth/max")[0], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistics": ["mean", "max", "mean"]}, r"statistics: must name each statistic once, got mean, max, mean$"),
        ({"boundary": "constant"}, r"boundary: boundary: constant needs a value; add `cval: 0`, say$"),
        ({"cval": 5}, r"cval: cval is for boundary: constant; boundary is reflect$"),
        ({"size": [3, 5], "min_valid": 16}, r"min_valid: must be at most the 15 pixels of the window, got 16$"),
        ({"boundary": "constant", "cval": -1}, r"cval: -1 cannot occur in uint8 pixels$"),
    ],
)
def test_parameters_that_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message):
        run(np.zeros((6, 6), np.uint8), tmp_path, **settings)
    assert not (tmp_path / "out.zarr").exists()


def test_integers_without_a_value_for_invalid_pixels_become_floats(tmp_path: Path) -> None:
    """At the corners of a shrinking window are 4 pixels of the 6 wanted."""
    values = np.random.default_rng(3).integers(0, 255, (7, 9), np.uint8)
    run(values, tmp_path, statistics=["min", "max", "range"], boundary="shrink", min_valid=6)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values.astype(float), 1, constant_values=np.nan), (3, 3))
    expected = {"min": np.nanmin(windows, axis=(2, 3)), "max": np.nanmax(windows, axis=(2, 3))}
    expected["range"] = expected["max"] - expected["min"]
    for name, array in expected.items():
        array[[0, 0, -1, -1], [0, -1, 0, -1]] = np.nan
        got = harness.read(tmp_path / "out.zarr", f"smooth/{name}")[0]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, array)


def test_wide_integers_that_would_become_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PipelineError,
        match=r"results can be invalid here, for which int64 has no value; set one .* `nodata: -9223372036854775808`",
    ):
        run(np.zeros((7, 9), np.int64), tmp_path, statistics=["min"], boundary="shrink", min_valid=6)


def test_a_range_whose_nodata_the_pixels_cannot_have(tmp_path: Path) -> None:
    values = np.array([[1, 2, 9], [4, 255, 6], [7, 8, 3]], np.uint8)
    source = harness.store(harness.Raster(values, ("y", "x"), nodata=255), tmp_path / "in.zarr", with_labels=False)
    step = {"name": "s", "op": "window", "size": 3, "statistics": ["range"], "dtype": "int64", "nodata": -(2**63)}
    pipeline.run({"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}})
    assert harness.read(tmp_path / "out.zarr", "s/range")[0].tolist() == [[3, 8, 7], [7, -(2**63), 7], [4, 5, 5]]
