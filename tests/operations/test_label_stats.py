"""label_stats as its users run it: tables in the store and as files, refusals, resumed runs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.execution import partials
from pipeline.execution import run as execution
from pipeline.model.errors import InputError, OutputError, PipelineError, RunStopped
from pipeline.model.region import Region
from pipeline.storage.tables import table_bytes
from pipeline.verbs.load import load
from tests import harness
from tests.georeference import placed_tiff
from tests.harness import Raster


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return a pipeline over a raster of 2 bands and labels scattered over all blocks, cut into 30 blocks."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (120, 100, 2)).astype(np.uint16)
    labels = rng.integers(0, 50, (120, 100)).astype(np.uint32) * 1000
    source = harness.store(Raster(image, ("y", "x", "band"), chunks=(20, 20, 2)), tmp_path / "image.zarr")
    zones = harness.store(Raster(labels, ("y", "x"), chunks=(20, 20)), tmp_path / "zones.zarr")
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "marks", "recolor": ["mean"]}
    return {
        "inputs": {"image": source, "marks": zones},
        "steps": [step],
        "output": {"path": str(tmp_path / "out.zarr"), "chunks": [20, 20]},
        "run": {"workers": 2, "memory": "1 GiB"},
    }


def naive(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One mask per label: the labels, their means, and the image painted with them."""
    image = zarr.open_array(tmp_path / "image.zarr")[...].astype(np.float64)
    labels = zarr.open_array(tmp_path / "zones.zarr")[...]
    painted = np.zeros(image.shape)
    found = np.unique(labels)
    means = np.zeros((len(found), 2))
    for row, label in enumerate(found):
        mask = labels == label
        means[row] = image[mask].mean(axis=0)
        painted[mask] = means[row]
    return found, means, painted


def test_means_and_recolouring(config: dict[str, Any], tmp_path: Path) -> None:
    facts = pipeline.run(config)
    assert facts["tables"] == [{"path": "zones/table", "rows": 50, "columns": ["label", "pixels", "mean"]}]
    labels, means, painted = naive(tmp_path)
    store = zarr.open_group(config["output"]["path"], mode="r")
    np.testing.assert_array_equal(store["zones/table/label"][...], labels)
    np.testing.assert_allclose(store["zones/table/mean"][...], means, rtol=1e-15)
    np.testing.assert_array_equal(store["zones/mean"][...], painted.astype(np.float32))
    assert store["zones/table/mean"].metadata.dimension_names == ("label", "band")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_table_as_a_file(config: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    config["steps"][0]["table"] = str(path)
    facts = pipeline.run(config)
    assert facts["table_files"] == [str(path)]
    labels, _, _ = naive(tmp_path)
    if suffix == "csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["label", "pixels", "mean_b1", "mean_b2"]
        got = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        got = {name: column.to_numpy() for name, column in zip(*_columns(parquet.read_table(path)), strict=True)}
    np.testing.assert_array_equal(got["label"], labels)
    np.testing.assert_array_equal(got["mean_b2"], zarr.open_array(tmp_path / "out.zarr", path="zones/table/mean")[:, 1])
    with pytest.raises(OutputError, match="exists; --overwrite replaces it"):
        pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "other.zarr")}})
    assert not (tmp_path / "other.zarr").exists()
    path.unlink()
    assert pipeline.run(config, resume=True)["blocks"] == 0  # the finished store has all that the file needs
    assert path.exists()


def test_what_a_table_file_must_not_replace(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    config["steps"][0]["table"] = str(path)
    twice = {**config, "steps": [*config["steps"], {**config["steps"][0], "name": "again"}]}
    with pytest.raises(OutputError, match="the table of step 'zones' and the table of step 'again' would both be"):
        pipeline.run(twice)
    path.write_text("somebody else's")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match="exists and is not a table of rasterpipe"):
            pipeline.run(config, **options)
    assert path.read_text() == "somebody else's"
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        pipeline.run(config, overwrite=True)
    assert not (tmp_path / "out.zarr").exists()


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


@pytest.mark.parametrize("stop_after", [3, 29, 45, 75])
def test_stopped_in_the_middle_and_resumed(
    config: dict[str, Any], tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["steps"][0]["statistics"] = ["mean", "median"]  # a sweep more
    pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])  # 30 blocks a pass
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr("pipeline.planning.fitting.SWEEP_BLOCKS", 4)
    monkeypatch.setattr("pipeline.planning.fitting.SWEEP_STRIPS", 1000)
    calls = []
    run_block = execution.PassWorker.run_block

    def failing(self: Any, number: int) -> Any:
        calls.append(number)
        if len(calls) > stop_after:
            raise OSError("the power is gone")
        return run_block(self, number)

    monkeypatch.setattr(execution.PassWorker, "run_block", failing)
    with pytest.raises(RunStopped):
        pipeline.run(config)
    monkeypatch.setattr(execution.PassWorker, "run_block", run_block)
    facts = pipeline.run(config, resume=True)
    assert facts["blocks_skipped"] > 0 or stop_after == 3
    whole, resumed = (zarr.open_group(tmp_path / name, mode="r") for name in ("whole.zarr", "out.zarr"))
    for path in ("zones/mean", "zones/table/label", "zones/table/pixels", "zones/table/mean", "zones/table/median"):
        np.testing.assert_array_equal(whole[path][...], resumed[path][...])
    assert not (tmp_path / "out.zarr.work").exists()


@pytest.mark.thorough
def test_tables_too_large_for_the_memory_go_to_the_disk(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for 64 KiB of tables everything is divided, saved and merged range by range: the same bits."""
    image = zarr.open_array(tmp_path / "image.zarr")[...].astype(np.float32) / 7
    config["inputs"]["image"] = harness.store(
        Raster(image, ("y", "x", "band"), chunks=(20, 20, 2)), tmp_path / "f.zarr"
    )
    config["steps"][0] |= {"statistics": ["mean", "median"], "percentiles": [3], "geometry": ["major_axis"]}
    pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr("pipeline.planning.cost.MAX_TABLE_BYTES", 2**16)
    saved = []
    save_table = partials.fold

    def watched(sweep: Any, folders: Any, *rest: Any) -> None:
        saved.extend(folders)
        save_table(sweep, folders, *rest)

    monkeypatch.setattr(partials, "fold", watched)
    pipeline.run(config)
    assert len(saved) > 10
    whole, divided = (zarr.open_group(tmp_path / name, mode="r") for name in ("whole.zarr", "out.zarr"))
    columns = ("label", "pixels", "mean", "median", "p3", "major_axis")
    for path in ("zones/mean", *(f"zones/table/{column}" for column in columns)):
        np.testing.assert_array_equal(whole[path][...], divided[path][...])


def test_wide_sums_go_to_the_disk_before_they_fill_the_memory(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few values far from all others widen the sums of all labels: no table in memory exceeds its limit."""
    image = np.random.default_rng(1).normal(size=(120, 100, 2))
    image[5, 5], image[70, 9] = 1e300, 1e-300
    config["inputs"]["image"] = harness.store(Raster(image, ("y", "x", "band"), chunks=(20, 20, 2)), tmp_path / "wide")
    config["steps"][0]["statistics"] = ["mean", "var"]
    pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr("pipeline.planning.cost.MAX_TABLE_BYTES", 2**17)
    sizes, folders = [], []
    join = partials.Merger.join

    def watched(self: Any, *partials: Any) -> Any:
        joined = join(self, *partials)
        sizes.extend(table_bytes(table) / self.limit_bytes for table in joined.tables if table is not None)
        folders.extend(joined.folders[0])
        return joined

    monkeypatch.setattr(partials.Merger, "join", watched)
    pipeline.run(config)
    assert max(sizes) <= 1
    assert folders
    whole, divided = (zarr.open_group(tmp_path / name, mode="r") for name in ("whole.zarr", "out.zarr"))
    for path in ("zones/mean", "zones/table/label", "zones/table/mean", "zones/table/var"):
        np.testing.assert_array_equal(whole[path][...], divided[path][...])


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x")], ids=",".join)
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_extrema_of_64_bit_integers_are_exact(tmp_path: Path, dtype: str, dims: tuple[str, ...]) -> None:
    """Also the largest and the smallest, and beside labels without a valid pixel, whose extrema are nodata."""
    info, labels = np.iinfo(dtype), harness.labels(13, 17)
    values = np.random.default_rng(0).integers(2**60, 2**62, (2, 13, 17)).astype(dtype) + np.array(1, dtype)
    names = np.unique(labels)
    values[0][labels == names[0]] = 5
    values[1, labels == names[1]] = info.max
    values[1, labels == names[2]] = info.min
    stored = values if dims[0] == "band" else np.moveaxis(values, 0, -1)
    raster = Raster(np.ascontiguousarray(stored), dims, 5, tuple(4 if dim != "band" else 1 for dim in dims))
    source = harness.store(raster, tmp_path / "in.zarr")
    statistics = ["min", "max"]
    step = {"name": "s", "op": "label_stats", "labels": "labels", "statistics": statistics, "recolor": statistics}
    for nodata in (5, 9):
        got = harness.run(source, [step | ({"nodata": nodata} if nodata == 9 else {})], tmp_path)
        for name, extremum in (("min", np.min), ("max", np.max)):
            assert got[f"s/{name}"].dtype == got[f"s/table/{name}"].dtype == dtype
            for row, label in enumerate(got["s/table/label"].tolist()):
                for band in range(2):
                    valid = values[band][(labels == label) & (values[band] != 5)]
                    expected = int(extremum(valid)) if valid.size else nodata
                    assert int(got[f"s/table/{name}"][row, band]) == expected
                    assert set(got[f"s/{name}"][band][labels == label].tolist()) == {expected}


def test_extrema_of_64_bit_integers_are_not_painted_as_floating_point_without_a_word(tmp_path: Path) -> None:
    """Where the raster has no nodata value, a pixel without a label has none."""
    values = np.full((13, 17), 2**60 + 1, np.int64)
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "s", "op": "label_stats", "labels": "labels", "statistics": ["min"], "recolor": ["min"]}
    with pytest.raises(PipelineError, match=r"int64 has no value; set one that cannot occur, such as `nodata: -92"):
        load(harness.document(source, [step], tmp_path / "x.zarr"))
    marked = harness.whole(source, [{**step, "nodata": -1, "ignore": [-3, 0]}], tmp_path)
    assert set(marked["s/min"].ravel().tolist()) <= {2**60 + 1, -1}
    rounded = harness.whole(source, [{**step, "allow_inexact": True}], tmp_path)
    assert rounded["s/min"].dtype == np.float64
    assert harness.whole(source, [{**step, "recolor": []}], tmp_path)["s/table/min"][0, 0] == 2**60 + 1


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x")], ids=",".join)
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float32", "float64"])
def test_percentiles_modes_and_varieties_are_numpys(tmp_path: Path, dtype: str, dims: tuple[str, ...]) -> None:
    """Selected over one to four sweeps; painted, too. Invalid pixels do not count, the zeros are one value."""
    values = (np.random.default_rng(0).normal(size=(2, 43, 52)) * 40).astype(dtype)
    if values.dtype.kind == "f":
        values[0, 3:9, 4:30], values[1, 7, 5:40], values[:, 20, ::2] = np.nan, np.inf, -0.0
        values[1, 30:33] = np.nextafter(values.dtype.type(1), values.dtype.type(2))  # beside 1: the last digit decides
        values[1, 33:36] = 1
    values[:, 0] = 5
    stored = np.ascontiguousarray(values if dims[0] == "band" else np.moveaxis(values, 0, -1))
    raster = Raster(stored, dims, 5, tuple(20 if dim != "band" else 2 for dim in dims))
    source, labels = harness.store(raster, tmp_path / "in.zarr"), harness.labels(43, 52)
    counted = ["mode", "variety"] if values.dtype.itemsize <= 2 else []
    step = {"name": "s", "op": "label_stats", "labels": "labels", "statistics": ["median", *counted]}
    step |= {"percentiles": [0, 10, 97.5], "recolor": ["p10", *counted]}
    got = harness.run(source, [step], tmp_path, harness.Layout(block=(1, 2), chunks=(20, 20)))
    for row, label in enumerate(got["s/table/label"].tolist()):
        for band in range(2):
            picked = values[band][labels == label]
            picked = picked[np.isfinite(picked) & (picked != 5)].astype(np.float64)
            for name, percent in (("median", 50), ("p0", 0), ("p10", 10), ("p97.5", 97.5)):
                assert got[f"s/table/{name}"][row, band] == np.percentile(picked, percent), (name, label)
            p10 = got["s/p10"].dtype.type(np.percentile(picked, 10))
            assert set(got["s/p10"][band][labels == label].tolist()) == {float(p10)}
            if counted:
                different, counts = np.unique(picked, return_counts=True)
                assert set(got["s/mode"][band][labels == label].tolist()) == {different[counts.argmax()]}
                assert got["s/table/variety"][row, band] == len(different)


def test_a_label_without_valid_pixels_has_no_percentile(tmp_path: Path) -> None:
    """Nor a mode; its variety is 0. It has a row in every sweep."""
    labels = harness.labels(13, 17)
    values = np.where(labels == labels[0, 0], 5, 7).astype(np.uint8)
    source = harness.store(Raster(values, ("y", "x"), 5, (4, 4)), tmp_path / "in.zarr")
    step = {"name": "s", "op": "label_stats", "labels": "labels", "percentiles": [30], "recolor": ["mode"]}
    got = harness.run(source, [step | {"statistics": ["mode", "variety", "range"]}], tmp_path)
    row = got["s/table/label"].tolist().index(labels[0, 0])
    for name, none, others in (("p30", np.nan, 7), ("mode", np.nan, 7), ("variety", 0, 1), ("range", np.nan, 0)):
        expected = np.full(len(got["s/table/label"]), others, np.float64)
        expected[row] = none
        np.testing.assert_array_equal(got[f"s/table/{name}"][:, 0], expected)
    np.testing.assert_array_equal(got["s/mode"][0], values)


@pytest.mark.parametrize("spacing", [None, [2.0, 0.5]])
def test_shapes_are_those_of_regionprops(tmp_path: Path, spacing: list[float] | None) -> None:
    from skimage.measure import regionprops

    rows, columns = np.mgrid[:90, :110]
    centres = np.random.default_rng(1).uniform(0, 90, (12, 2))
    labels = 1 + np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres], axis=0)
    labels[5, 7:40], labels[60:80, 3], labels[2, 2] = 13, 14, 15  # a row, a column, a pixel
    inputs = {
        "image": harness.store(Raster(rows.astype(np.float32), ("y", "x")), tmp_path / "in", with_labels=False),
        "labels": harness.store(Raster(labels, ("y", "x"), chunks=(30, 30)), tmp_path / "labels", with_labels=False),
    }
    names = {
        "area": "area",
        "major_axis": "axis_major_length",
        "minor_axis": "axis_minor_length",
        "orientation": "orientation",
        "eccentricity": "eccentricity",
        "equivalent_diameter": "equivalent_diameter_area",
    }
    step = {"name": "s", "op": "label_stats", "input": "image", "labels": "labels", "geometry": list(names)}
    document = {"inputs": inputs, "steps": [step | ({"spacing": spacing} if spacing else {})]}
    pipeline.run({**document, "output": {"path": str(tmp_path / "out.zarr"), "chunks": [30, 30]}})
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    regions = regionprops(labels, spacing=spacing)
    assert table["label"][...].tolist() == [region.label for region in regions]
    for column, name in names.items():
        expected = [region[name] for region in regions]
        np.testing.assert_allclose(table[column][...], expected, rtol=1e-9, atol=1e-9, err_msg=column)


def test_shapes_in_metres(tmp_path: Path) -> None:
    """Rows of four pixels of 20 m."""
    labels = np.repeat(np.arange(1, 4, dtype=np.int32)[:, None], 4, axis=1)
    inputs = {name: placed_tiff(tmp_path / f"{name}.tif", labels, size=20) for name in ("image", "labels")}
    step = {"name": "s", "op": "label_stats", "input": "image", "labels": "labels", "spacing": "geo"}
    step["geometry"] = ["area", "major_axis", "minor_axis"]
    pipeline.run({"inputs": inputs, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}})
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    assert table["area"][...].tolist() == [1600.0] * 3
    np.testing.assert_allclose(table["major_axis"][...], [4 * np.sqrt(1.25) * 20] * 3, rtol=1e-15)
    assert table["minor_axis"][...].tolist() == [0.0] * 3


@pytest.mark.parametrize("nodata", [2**64 - 1, 2**63, 0])
def test_labels_of_64_bits_are_looked_at_where_they_are_valid(tmp_path: Path, nodata: int) -> None:
    """Neither the invalid ones, nor what lies in a block beyond the raster or beyond the region."""
    labels = np.random.default_rng(0).integers(1, 4, (12, 10), np.uint64) * np.uint64(2**61)
    labels[3:5, 2:9] = nodata
    labels[11] = 2**64 - 5  # valid, beyond the region
    values = np.random.default_rng(1).normal(size=(12, 10)).astype(np.float32)
    inputs = {
        "image": harness.store(Raster(values, ("y", "x")), tmp_path / "in", with_labels=False),
        "labels": harness.store(Raster(labels, ("y", "x"), nodata), tmp_path / "labels", with_labels=False),
    }
    steps = [
        {"name": "s", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]},
        {"name": "w", "op": "window", "input": "labels", "size": 3, "statistics": ["max"]},
    ]
    document = {"inputs": inputs, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}
    document["region"] = {"rows": [0, 11], "columns": [0, 10]}
    whole = harness.compute(load(document), lambda planned: [(planned.grid.region, harness.Dirty())])
    rows = harness.compute(
        load(document), lambda planned: [(Region(i, i + 1, 0, 10), harness.Dirty()) for i in range(11)]
    )
    valid = labels[:11] != nodata
    assert whole["s/table/label"].tolist() == np.unique(labels[:11][valid]).tolist()
    for label, mean in zip(whole["s/table/label"].tolist(), whole["s/table/mean"][:, 0].tolist(), strict=True):
        assert set(whole["s/mean"][0][labels[:11] == label].tolist()) == {float(np.float32(mean))}
    assert np.isnan(whole["s/mean"][0][~valid]).all()
    for path, found in whole.items():
        assert harness.same_bits(found, rows[path]), path
    document["region"] = {"rows": [4, 12], "columns": [0, 10]}
    with pytest.raises(InputError, match="labels of step 's' reach 18446744073709551611; labels go up to"):
        harness.compute(load(document), lambda planned: [(planned.grid.region, harness.Dirty())])


def test_painting_reads_labels_alone(config: dict[str, Any], tmp_path: Path) -> None:
    """Nor is what the statistics are of computed again for it: here a ratio, whose means are painted."""
    config["steps"].insert(0, {"name": "ratio", "op": "calc", "input": "image", "expression": "b1 / (b2 + 1)"})
    config["steps"][1] |= {"input": "ratio"}
    swept, painted = load(config).plan.passes
    assert [step.name for step in swept.steps] == ["ratio"]
    assert [step.name for step in painted.steps] == ["zones"]
    assert painted.stored == ("marks",)
    pipeline.run(config)
    image = zarr.open_array(tmp_path / "image.zarr")[...].astype(np.float32)
    ratio, labels = image[..., 0] / (image[..., 1] + 1), zarr.open_array(tmp_path / "zones.zarr")[...]
    expected = np.zeros(labels.shape, np.float32)
    for label in np.unique(labels):
        expected[labels == label] = ratio[labels == label].mean(dtype=np.float64)
    found = zarr.open_array(tmp_path / "out.zarr", path="zones/mean")[...]
    np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-6)


def test_recolor1(config: dict[str, Any], tmp_path: Path) -> None:
    """The naive way of the question: a mask per label, here a million pixels and a thousand labels."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (1000, 1000, 3)).astype(np.uint8)
    labels = rng.integers(0, 1000, (1000, 1000)).astype(np.int32)
    config["inputs"] = {
        "image": harness.store(Raster(image, ("y", "x", "band")), tmp_path / "large.zarr"),
        "marks": harness.store(Raster(labels, ("y", "x"), chunks=(250, 250)), tmp_path / "marks.zarr"),
    }
    config["output"]["chunks"] = [300, 200]
    pipeline.run(config)
    recolored = np.empty(image.shape, np.float32)
    for label in range(1000):
        mask = labels == label
        recolored[mask] = image[mask].mean(axis=0)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr", path="zones/mean")[...], recolored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recolor": ["var"]}, "var is not among the statistics"),
        ({"recolor": ["p10"], "percentiles": [20]}, r"p10 is not among the statistics \(mean, p20\)"),
        ({"statistics": [], "recolor": []}, "must name a statistic, or there must be `percentiles:`"),
        ({"statistics": ["mode"], "recolor": [], "input": "ratio"}, "mode is for 8 and 16 bits, the input is float32"),
        ({"statistics": ["median"], "recolor": [], "input": "long"}, "floating point holds whole numbers only up to"),
        ({"statistics": ["range"], "recolor": ["range"], "input": "long"}, "floating point holds whole numbers only"),
        ({"spacing": [2, 2], "geometry": ["bbox"]}, "spacing.*is for `geometry:` area, major_axis"),
        ({"table": "table.xlsx"}, r"must end in .parquet, .csv, .gpkg or .geojson, got 'table.xlsx'"),
        ({"labels": "image"}, "a label raster has one band, 'image' has 2"),
        ({"labels": "ratio"}, "labels are whole numbers, 'ratio' is float32"),
    ],
)
def test_refusals(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    config["steps"].insert(0, {"name": "ratio", "op": "calc", "input": "image", "expression": "b1 / b2"})
    config["steps"].insert(1, {"name": "long", "op": "cast", "input": "image", "dtype": "int64"})
    config["steps"][2] |= change
    config["steps"].append({"name": "read", "op": "window", "input": "marks", "size": 3})
    with pytest.raises(PipelineError, match=message):
        pipeline.plan(config)


def test_labels_of_another_shape_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    config["inputs"]["marks"] = harness.store(Raster(np.zeros((60, 50), np.int32), ("y", "x")), tmp_path / "small.zarr")
    with pytest.raises(PipelineError, match="120 x 100 pixels against 60 x 50"):
        pipeline.plan(config)


LABELS, BANDS, SIDE = 10_000_000, 16, 4000
RUN = """
import json, sys
import pipeline
print(json.dumps(pipeline.run(json.loads(sys.argv[1])).to_dict()))
"""


@pytest.mark.long
def test_ten_million_labels_of_sixteen_bands_within_2_gib(tmp_path: Path) -> None:
    """Each label in one or two pixels anywhere: partial tables of 5 GB go to the disk and are merged there.

    The run takes some 3 minutes on two shared cores, and 8 GB of disk.
    """
    write_scattered(tmp_path)
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]}
    document = {
        "inputs": {name: str(tmp_path / f"{name}.zarr") for name in ("image", "labels")},
        "steps": [step],
        "output": {"path": str(tmp_path / "out.zarr")},
        "run": {"memory": "2 GiB", "workers": 2},
    }
    command = [sys.executable, "-c", RUN, json.dumps(document)]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 2 * 2**30
    table = zarr.open_group(tmp_path / "out.zarr", path="zones/table", mode="r")
    assert table["label"].shape == (LABELS,)
    for first in range(0, LABELS, 500_000):
        part = slice(first, first + 500_000)
        labels = np.arange(first, first + 500_000)
        np.testing.assert_array_equal(table["label"][part], labels)
        np.testing.assert_array_equal(table["pixels"][part], np.where(labels < SIDE * SIDE - LABELS, 2, 1))
        np.testing.assert_array_equal(table["mean"][part], values_of(labels))
    image, painted = zarr.open_array(tmp_path / "image.zarr"), zarr.open_array(tmp_path / "out.zarr", path="zones/mean")
    for top in range(0, SIDE, 500):  # the pixels of a label are alike
        np.testing.assert_array_equal(painted[top : top + 500], image[top : top + 500])


@pytest.mark.long
def test_percentiles_of_a_million_labels_within_2_gib(tmp_path: Path) -> None:
    """Of float32, so over three sweeps: labels of 4 x 4 pixels; some 30 s on two shared cores."""
    image = np.random.default_rng(0).normal(100, 20, (SIDE, SIDE)).astype(np.float32)
    cells = np.arange(SIDE) // 4
    labels = (cells[:, None] * (SIDE // 4) + cells).astype(np.int32)
    rasters = {"image": Raster(image, ("y", "x"), chunks=(500, 500)), "labels": Raster(labels, ("y", "x"))}
    step = {"name": "s", "op": "label_stats", "input": "image", "labels": "labels", "statistics": ["median"]}
    document = {
        "inputs": {name: harness.store(raster, tmp_path / name, with_labels=False) for name, raster in rasters.items()},
        "steps": [step | {"percentiles": [10, 90], "recolor": ["median"], "geometry": ["major_axis"]}],
        "output": {"path": str(tmp_path / "out.zarr")},
        "run": {"memory": "2 GiB", "workers": 2},
    }
    command = [sys.executable, "-c", RUN, json.dumps(document)]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 2 * 2**30
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    pixels = image.reshape(SIDE // 4, 4, SIDE // 4, 4).swapaxes(1, 2).reshape(-1, 16).astype(np.float64)
    for name, percent in (("median", 50), ("p10", 10), ("p90", 90)):
        np.testing.assert_array_equal(table[name][:, 0], np.percentile(pixels, percent, axis=1))


def values_of(labels: np.ndarray) -> np.ndarray:
    """Return what the pixels of a label hold: (..., band), different for each label."""
    return (labels[..., None] % 9973 + np.arange(BANDS) * 0.5 + labels[..., None] // 9973 * 2.0**-10).astype(np.float32)


def write_scattered(folder: Path) -> None:
    """Store labels that are scattered over all blocks, and an image whose pixels tell their label."""
    names = {"shards": None, "config": {"write_empty_chunks": True}}
    image = zarr.create_array(
        folder / "image.zarr",
        shape=(SIDE, SIDE, BANDS),
        chunks=(500, 500, BANDS),
        dtype="f4",
        dimension_names=("y", "x", "band"),
        **names,
    )
    labels = zarr.create_array(
        folder / "labels.zarr",
        shape=(SIDE, SIDE),
        chunks=(500, 500),
        dtype="i4",
        dimension_names=("y", "x"),
        **names,
    )
    for top in range(0, SIDE, 500):
        pixels = np.arange(top * SIDE, (top + 500) * SIDE).reshape(500, SIDE)
        part = pixels * 7_919_387 % (SIDE * SIDE) % LABELS  # a permutation of the pixels, folded over
        labels[top : top + 500] = part.astype(np.int32)
        image[top : top + 500] = values_of(part)
