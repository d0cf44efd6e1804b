"""Histograms of labels: numpy's, with the same bits by any blocks; in the store and in files, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.model.errors import PipelineError
from pipeline.model.table import TableSpec
from pipeline.operations.label_checks import check_fields
from pipeline.storage.tables import TableWriter
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Layout, Raster

STEP: dict[str, Any] = {"name": "s", "op": "label_stats", "labels": "labels", "statistics": ["count"]}
RAGGED = {"edges": [-3, 0, 5, 5.5, 100, 250]}
EQUAL = {"bins": 7, "range": [0.1, 99.7]}


def source_of(dtype: str, tmp_path: Path, shape: tuple[int, int] = (43, 52)) -> tuple[str, np.ndarray]:
    values = (np.random.default_rng(0).normal(size=(2, *shape)) * 60).astype(dtype)
    values[0, 1], values[1, 2] = 5, 100  # edges: of the next bin, and of the last one
    values[:, :, 3] = 9
    if values.dtype.kind == "f":
        values[0, 3:9, 4:30], values[1, 7, 5:40] = np.nan, np.inf
        values[:, 4] = np.histogram_bin_edges(np.zeros(0, dtype), 7, (0.1, 99.7))[3]
    return harness.store(Raster(values, ("band", "y", "x"), 9, (1, 20, 20)), tmp_path / "in.zarr"), values


@pytest.mark.parametrize("dims", ["y,x,band", "band,y,x"])
@pytest.mark.parametrize("histogram", [RAGGED, EQUAL, "auto"], ids=["edges", "bins", "auto"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float32", "float64"])
def test_counts_are_those_of_numpy(tmp_path: Path, dtype: str, histogram: Any, dims: str) -> None:
    if histogram == "auto" and np.dtype(dtype).itemsize > 2:
        pytest.skip("automatic bins are for 8 and 16 bits")
    source, values = source_of(dtype, tmp_path)
    labels = harness.labels(43, 52)
    bins: Any = RAGGED["edges"] if histogram is RAGGED else 7
    options: dict[str, Any] = {} if histogram is RAGGED else {"range": (0.1, 99.7)}
    if histogram == "auto":
        info = np.iinfo(dtype)
        bins, options = 256, {"range": (int(info.min), int(info.max) + 1)}
    layout = Layout(block=(1, 2), chunks=(20, 20), dims=tuple(dims.split(",")), workers=2)
    got = harness.run(source, [STEP | {"histogram": histogram}], tmp_path, layout)
    for row, label in enumerate(got["s/table/label"].tolist()):
        for band in range(2):
            picked = values[band][labels == label]
            picked = picked[np.isfinite(picked) & (picked != 9)]
            expected = np.histogram(picked, bins, **options)[0]
            np.testing.assert_array_equal(got["s/table/histogram"][row, band], expected)


def test_the_bins_stand_beside_the_counts(tmp_path: Path) -> None:
    source, _ = source_of("uint8", tmp_path)
    path = tmp_path / "t.csv"
    config = harness.document(source, [STEP | {"histogram": RAGGED, "table": str(path)}], tmp_path / "out.zarr")
    pipeline.run(config)
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    assert table["histogram"].metadata.dimension_names == ("label", "band", "bin")
    assert (table["bin_left"][...].tolist(), table["bin_right"][...].tolist()) == (
        RAGGED["edges"][:-1],
        RAGGED["edges"][1:],
    )
    assert table["bin_left"].metadata.dimension_names == ("bin",)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    names = [f"histogram_{band}_{edge}" for band in ("b1", "b2") for edge in ("-3", "0", "5", "5.5", "100")]
    assert header == ["label", "pixels", "count_b1", "count_b2", *names]
    counts = np.array([row[4:] for row in rows], np.int64)
    np.testing.assert_array_equal(counts, table["histogram"][...].reshape(len(rows), 10))
    assert not pipeline.verify(str(tmp_path / "out.zarr"), everything=True).problems


def test_histograms_larger_than_the_memory_for_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved and merged range by range: the same counts; those that numpy has."""
    source, values = source_of("uint8", tmp_path, (60, 60))
    labels = np.arange(3600).reshape(60, 60) // 7
    step = STEP | {"histogram": "auto", "statistics": ["median"], "labels": "cells"}
    config = harness.document(source, [step], tmp_path / "out.zarr")
    config["inputs"]["cells"] = harness.store(Raster(labels, ("y", "x"), chunks=(20, 20)), tmp_path / "cells")
    monkeypatch.setattr("pipeline.planning.cost.MAX_TABLE_BYTES", 2**19)
    parts = []
    append = TableWriter.append
    monkeypatch.setattr(TableWriter, "append", lambda self, part: parts.append(part) or append(self, part))
    pipeline.run(config)
    assert len(parts) > 4
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    expected = np.zeros((515, 2, 256), np.int64)
    for band in range(2):
        valid = values[band] != 9
        np.add.at(expected[:, band], (labels[valid], values[band][valid]), 1)
    np.testing.assert_array_equal(table["histogram"][...], expected)


@pytest.mark.parametrize(
    ("dtype", "change", "words"),
    [
        ("uint8", {"histogram": {"edges": [0, 5, 5]}}, "edges must ascend, got 5 before 5$"),
        ("uint8", {"histogram": {"bins": 5}}, r"give \{edges: \[0, 10, 20\]\}, or \{bins: 20, range: \[0, 100\]\}$"),
        ("uint8", {"histogram": {"bins": 5, "range": [3, 3]}}, "edges must ascend, got 3 before 3$"),
        ("float32", {"histogram": "auto"}, "automatic bins are for 8 and 16 bits, the input is float32; say which"),
        ("int64", {"histogram": RAGGED}, "histograms are of up to 32 bits and of floating point, the input is int64"),
        (
            "float32",
            {"histogram": {"bins": 9, "range": [1e9, 1e9 + 100]}},
            r"9 bins from 1e\+09 to 1\.0000001e\+09 have no edges",
        ),
        (
            "uint16",
            {"histogram": {"bins": 2000, "range": [0, 1]}, "table": "t.gpkg"},
            "columns .* a .gpkg up to 1,900",
        ),
        ("uint8", {"statistics": []}, "or there must be `percentiles:`, `histogram:`"),
    ],
)
def test_what_does_not_fit_is_refused(dtype: str, change: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((5, 5), dtype), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match=words):
        load(harness.document(source, [STEP | change], tmp_path / "out.zarr"))


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (("Red", "red"), "columns of a .gpkg differ by more than capitals, and mean_Red, mean_red do not"),
        (tuple(f"b{k}" for k in range(950)), r"the table has 1,901 columns \(950 bands\), and a .gpkg up to 1,900"),
    ],
)
def test_columns_that_a_geopackage_cannot_have_are_refused(bands: tuple[str, ...], words: str) -> None:
    spec = TableSpec({"label": ("label",), "mean": ("label", "band"), "std": ("label", "band")}, bands)
    with pytest.raises(PipelineError, match=words):
        check_fields(spec, "t.gpkg")
    check_fields(spec, "t.parquet")
