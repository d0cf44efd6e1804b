"""A step computes as wide as the dtype that it declares, and refuses what float64 would round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline import api
from pipeline.model.errors import PipelineError
from tests import harness
from tests.harness import Raster

DIMS = (("y", "x", "band"), ("band", "y", "x"), ("y", "x"))
ODD = 16_777_217
"""2^24 + 1, which float32 does not hold."""


def pixels(dtype: str = "uint16", shape: tuple[int, ...] = (12, 15)) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(0).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("chunks", [None, (1, 2)])
def test_zones_and_classes_do_not_merge(tmp_path: Path, chunks: Any) -> None:
    zones, classes = np.array([[20000, 20001] * 4], np.uint16), np.arange(1, 9, dtype=np.uint16)[np.newaxis]
    paths = {
        name: harness.store(Raster(values, ("y", "x"), None, chunks), tmp_path / name, with_labels=False)
        for name, values in (("z", zones), ("c", classes))
    }
    steps: list[dict[str, Any]] = [
        {
            "name": "id",
            "op": "calc",
            "inputs": {"z": "z", "c": "c"},
            "expression": "z * 1000 + c",
            "dtype": "int32",
        },
        {"name": "zones", "op": "label_stats", "input": "c", "labels": "id", "statistics": ["count"]},
    ]
    output = {"path": str(tmp_path / "out.zarr"), "keep": ["id"]}
    api.run({"inputs": paths, "steps": steps, "output": output})
    expected = zones.astype(np.int64) * 1000 + classes
    np.testing.assert_array_equal(harness.read(tmp_path / "out.zarr", "id/value")[0], expected)
    found = harness.read(tmp_path / "out.zarr", "zones/table/label", is_table=True)
    assert found.tolist() == sorted(expected.ravel().tolist())


WIDE: dict[str, dict[str, Any]] = {
    "mean": {"op": "window", "size": 3, "statistics": ["mean"]},
    "sum": {"op": "window", "size": 3, "statistics": ["sum"]},
    "var": {"op": "window", "size": 3, "statistics": ["var"]},
    "std": {"op": "window", "size": 5, "statistics": ["std"]},
    "disk": {"op": "window", "size": 5, "footprint": "disk", "statistics": ["var"]},
    "p10": {"op": "window", "size": 3, "statistics": [], "percentiles": [10]},
    "median": {"op": "window", "footprint": [[1, 1, 0]], "statistics": ["median"]},
    "gaussian": {"op": "gaussian", "sigma": 1},
    "convolve": {"op": "convolve", "kernel": [[1, 2, 1], [2, 1000, 2], [1, 2, 1]]},
    "weighted mean": {"op": "convolve", "kernel": [[1, 2, 1], [2, 1000, 2], [1, 2, 1]], "normalize": True},
    "dy": {"op": "gradient", "outputs": ["dy"], "spacing": 0.3},
    "dxy": {"op": "hessian", "outputs": ["dxy"], "spacing": 0.3},
    "eigenvalue": {"op": "hessian", "outputs": ["eigen_large"], "spacing": 0.3},
    "gabor": {"op": "gabor", "frequencies": 0.2, "orientations": 30, "sigma": 1},
    "gabor var": {
        "op": "gabor",
        "frequencies": 0.2,
        "orientations": 30,
        "sigma": 1,
        "window": 3,
        "statistics": ["var"],
    },
    "distance": {"op": "quantize", "palette": [[0], [65535]], "outputs": ["distance"]},
    "colour": {"op": "quantize", "palette": [[ODD], [-ODD]], "outputs": ["color"]},
    "ratio": {"op": "calc", "expression": "b1 / (b1 + 3)"},
    "product": {"op": "calc", "expression": "b1 * 65537"},
}


@pytest.mark.parametrize(
    "source", ["uint16", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("int16", "uint8", "float32"))]
)
@pytest.mark.parametrize("case", WIDE)
def test_what_is_declared_wider_is_computed_as_from_a_float64_raster(case: str, source: str) -> None:
    """From float64 pixels everything is computed in float64: the same values, rounded by the step's dtype alone."""
    values = pixels("uint16" if source == "float32" else source).astype(source)
    wide = pipeline.apply(WIDE[case], values.astype(np.float64)).compute()
    assert wide.dtype == np.float64
    np.testing.assert_allclose(
        pipeline.apply({**WIDE[case], "dtype": "float64"}, values).compute(), wide, rtol=1e-14, atol=0
    )
    whole = pipeline.apply({**WIDE[case], "dtype": "int32", "nodata": -7}, values).compute()
    np.testing.assert_array_equal(whole, np.clip(np.rint(wide), -(2**31), 2**31 - 1).astype(np.int32))


@pytest.mark.parametrize("dims", DIMS, ids=",".join)
def test_recoloured_statistics_are_those_of_the_table(tmp_path: Path, dims: tuple[str, ...]) -> None:
    values = pixels(shape={2: (12, 15), 3: (12, 15, 2)}[len(dims)])
    values = np.moveaxis(values, -1, 0) if dims[0] == "band" else values
    source = harness.store(Raster(np.ascontiguousarray(values), dims), tmp_path / "in.zarr")
    statistics = ["mean", "var", "std"]
    step = {"name": "s", "op": "label_stats", "labels": "labels", "statistics": statistics, "recolor": statistics}
    got = harness.whole(source, [{**step, "dtype": "float64"}], tmp_path)
    labels, table = harness.labels(12, 15), got["s/table/label"].tolist()
    rows = [table.index(label) for label in labels.ravel().tolist()]
    for name in statistics:
        expected = np.moveaxis(got[f"s/table/{name}"][rows].reshape(12, 15, -1), -1, 0)
        assert harness.same_bits(got[f"s/{name}"], expected), name


@pytest.mark.parametrize("dtype", ["float64", "int32", "float32"])
def test_pixels_are_scaled_as_wide_as_a_step_asks(tmp_path: Path, dtype: str) -> None:
    values = pixels()
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr", with_labels=False)
    inputs = {"image": {"path": source, "scale": {"factor": 1000, "offset": 1}}}
    for op in ({"op": "calc", "expression": "b1"}, {"op": "cast"}, {"op": "select", "bands": [1]}):
        steps = [{"name": "s", "dtype": dtype, "nodata": -9, **op}]
        config = {"inputs": inputs, "steps": steps, "output": {"path": str(tmp_path / f"{op['op']}.zarr")}}
        api.run(config)
        scaled = values * np.float64(1000) + 1
        expected = scaled.astype("float32") if dtype == "float32" else scaled
        np.testing.assert_array_equal(harness.read(tmp_path / f"{op['op']}.zarr", "s/value")[0], expected.astype(dtype))


RANGES = [
    *[("int8", wide, 255) for wide in ("int16", "uint8", "uint32", "int64", "float32", "float64")],
    *[("int8", "int8", 127), ("int16", "uint16", 65535), ("int16", "float32", 65535), ("int16", "int16", 32767)],
    *[("int16", "uint8", 255), ("int32", "uint32", 2**32 - 1), ("int32", "float64", 2**32 - 1)],
    *[("int32", "int32", 2**31 - 1), ("int32", "uint64", 2**32 - 1), ("int64", "uint64", 2**64 - 1)],
    *[("int64", "int64", 2**63 - 1), ("uint64", "int64", 2**63 - 1), ("uint64", "uint64", 2**64 - 1)],
]


@pytest.mark.parametrize(
    "footprint", ["rectangle", pytest.param([[1, 1, 0], [1, 0, 1], [0, 1, 1]], marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(
    ("source", "dtype", "expected"),
    [RANGES[0], *(pytest.param(*case, marks=pytest.mark.thorough) for case in RANGES[1:])],
)
def test_a_range_is_as_wide_as_its_dtype(source: str, dtype: str, expected: int, footprint: Any) -> None:
    info = np.iinfo(source)
    values = np.full((3, 4), info.min, source)
    values[1, 1] = info.max
    size = {"size": 3} if footprint == "rectangle" else {}
    step = {"op": "window", **size, "footprint": footprint, "statistics": ["range", "max"], "dtype": dtype}
    got = pipeline.apply(step, values)
    assert int(got["step0/range"].compute()[1, 0]) == expected
    highest = int(info.max) if dtype[0] == "f" else min(int(info.max), int(np.iinfo(dtype).max))
    assert int(got["step0/max"].compute()[1, 0]) == highest
    masked = pipeline.apply({**step, "min_valid": 6, "nodata": 7}, np.pad(values, 3, constant_values=5), nodata=5)
    masked = {name: lazy.compute() for name, lazy in masked.items()}
    assert int(masked["step0/range"][4, 5]) == expected
    for array in masked.values():
        assert array[3, 3] == 7


def test_a_saturating_range_is_said(tmp_path: Path) -> None:
    source = harness.store(Raster(pixels("int8"), ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "s", "op": "window", "size": 3, "statistics": ["range"]}
    notes = api.plan(harness.document(source, [step], tmp_path / "x.zarr"))["notes"]
    assert "s: a range beyond 127 is written as 127, the largest int8; `dtype: int16` holds all" in notes
    notes = api.plan(harness.document(source, [{**step, "dtype": "int16"}], tmp_path / "x.zarr"))["notes"]
    assert not [note for note in notes if "range" in note]


ROUNDED: dict[str, tuple[str, dict[str, Any], str]] = {
    "product": ("uint32", {"op": "calc", "expression": "b1 * 4294967296"}, "int64"),
    "square": ("uint32", {"op": "calc", "expression": "b1 ** 2"}, "uint64"),
    "power": ("uint16", {"op": "calc", "expression": "b1 ** 99"}, "uint64"),
    "variance": ("int32", {"op": "window", "size": 3, "statistics": ["var"]}, "int64"),
    "sum": ("uint32", {"op": "window", "size": 2001, "statistics": ["sum"]}, "int64"),
    "kernel": ("uint32", {"op": "convolve", "kernel": [[1e7]]}, "int64"),
    "determinant": ("int32", {"op": "hessian", "outputs": ["determinant"]}, "int64"),
    "cast": ("uint32", {"op": "cast", "scale": 2.0**32}, "uint64"),
    "select": ("int64", {"op": "select", "bands": [1]}, "float64"),
    "minimum": ("uint64", {"op": "window", "size": 3, "statistics": ["min"]}, "float32"),
    "range": ("int64", {"op": "window", "size": 3, "statistics": ["range"]}, "float64"),
    "mean": ("int64", {"op": "window", "size": 3, "statistics": ["mean"]}, "int64"),
}


@pytest.mark.parametrize("case", ROUNDED)
def test_what_float64_does_not_hold_is_refused_unless_allowed(case: str) -> None:
    source, step, dtype = ROUNDED[case]
    values = pixels(source)
    with pytest.raises(PipelineError, match=r"holds? whole numbers only up to 2\^53.*`?allow_inexact: true`? where"):
        pipeline.apply({**step, "dtype": dtype}, values)
    pipeline.apply({**step, "dtype": dtype, "allow_inexact": True}, values).compute()


FITTING: dict[str, tuple[str, dict[str, Any], np.ndarray]] = {
    "kernel": ("uint32", {"op": "convolve", "kernel": [[1, 0, 1000]], "correlate": True}, np.array([1, 0, 1000])),
    "window": ("uint32", {"op": "window", "size": [1, 3], "statistics": ["sum"]}, np.array([1, 1, 1])),
    "terms": ("uint32", {"op": "calc", "expression": "b1 * 1000 + 7"}, np.array([0, 1000, 0])),
}


@pytest.mark.parametrize("case", FITTING)
def test_sums_that_float64_holds_are_exact_in_int64(case: str) -> None:
    source, step, weights = FITTING[case]
    values = pixels(source)
    got = pipeline.apply({**step, "dtype": "int64"}, values).compute()
    padded = np.pad(values.astype(object), ((0, 0), (1, 1)), mode="symmetric")
    expected = sum(int(w) * padded[:, i : i + values.shape[1]] for i, w in enumerate(weights)) + 7 * (case == "terms")
    np.testing.assert_array_equal(got, expected.astype(np.int64))


def test_scaling_64_bit_integers_is_refused(tmp_path: Path) -> None:
    source = harness.store(Raster(pixels("int64"), ("y", "x")), tmp_path / "in.zarr", with_labels=False)
    inputs = {"image": {"path": source, "scale": {"factor": 0.5, "offset": 0.25}}}
    step = {"name": "s", "op": "select", "bands": [1]}
    with pytest.raises(
        PipelineError, match=r"image\.scale: the raster is int64.*op: cast, dtype: float64, scale: 0\.5"
    ):
        api.plan({"inputs": inputs, "steps": [step], "output": {"path": str(tmp_path / "x.zarr")}})
