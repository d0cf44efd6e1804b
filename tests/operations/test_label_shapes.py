"""Perimeters and weighted centroids of labels: equal to scikit-image's, with the same bits by any blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from skimage.measure import regionprops

import pipeline
from pipeline.model.errors import PipelineError
from pipeline.model.region import Region
from pipeline.verbs.load import load
from tests import harness
from tests.georeference import placed_tiff
from tests.harness import Raster

STEP: dict[str, Any] = {"name": "s", "op": "label_stats", "geometry": ["perimeter", "centroid_weighted"]}


def ragged_labels(height: int = 61, width: int = 47) -> np.ndarray:
    """Return labels that touch each other, with holes, single pixels, lines and corners that meet."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:height, :width]
    centres = rng.uniform(0, height, (9, 2))
    labels = 1 + np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres], axis=0)
    labels[rng.random(labels.shape) < 0.15] = 10
    labels[5, 7:40], labels[20:50, 3], labels[2, 2] = 11, 12, 13
    labels[30:36, 30:36] = np.where(np.eye(6, dtype=bool), 14, labels[30:36, 30:36])
    return labels.astype(np.int32)


def document(tmp_path: Path, labels: np.ndarray, values: np.ndarray, **step: Any) -> dict[str, Any]:
    dims = ("band", "y", "x") if values.ndim == 3 else ("y", "x")
    chunks = tuple(16 if dim != "band" else 1 for dim in dims)
    inputs = {
        "image": harness.store(Raster(values, dims, chunks=chunks), tmp_path / "in", with_labels=False),
        "labels": harness.store(Raster(labels, ("y", "x"), 10, (16, 16)), tmp_path / "labels", with_labels=False),
    }
    steps = [STEP | {"input": "image", "labels": "labels"} | step]
    return {"inputs": inputs, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}


@pytest.mark.parametrize("region", [None, {"rows": [9, 44], "columns": [5, 40]}])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_perimeters_and_weighted_centroids_are_those_of_regionprops(
    tmp_path: Path, dtype: str, region: dict[str, Any] | None
) -> None:
    """Pixels of another label, invalid ones, and those beyond the raster or the region are outside."""
    labels = ragged_labels()
    values = np.random.default_rng(1).uniform(1, 250, (2, *labels.shape)).astype(dtype)
    config = document(tmp_path, labels, values) | ({"region": region} if region else {})
    whole = load(config)
    area = whole.plan.settings.region or Region(0, *labels.shape[:1], 0, labels.shape[1])
    found = harness.compute(whole, lambda planned: [(planned.grid.region, harness.Dirty())])
    for side in (1, 7, 16):
        tiles = [
            (Region(top, min(top + side, area.bottom), left, min(left + 13, area.right)), harness.Dirty())
            for top in range(area.top, area.bottom, side)
            for left in range(area.left, area.right, 13)
        ]
        parts = harness.compute(load(config), lambda planned, tiles=tiles: tiles)
        for path, column in found.items():
            assert harness.same_bits(column, parts[path]), (path, side)
    kept = labels[area.slices()]
    image = np.moveaxis(values[:, *area.slices()], 0, -1).astype(np.float64)
    regions = [each for each in regionprops(kept, image) if each.label != 10]
    assert found["s/table/label"].tolist() == [each.label for each in regions]
    expected = [each.perimeter for each in regions]
    np.testing.assert_allclose(found["s/table/perimeter"], expected, rtol=1e-13)
    centres = np.array([each.centroid_weighted for each in regions])  # (label, axis, band)
    for axis, (name, first) in enumerate((("y", area.top), ("x", area.left))):
        column = found[f"s/table/centroid_weighted_{name}"]
        np.testing.assert_allclose(column, centres[:, axis].reshape(column.shape) + first, rtol=1e-12)


@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_the_neighbours_of_blocks_are_known_in_runs(tmp_path: Path, halo: str) -> None:
    """Also of labels that the same pass computes, and keeps."""
    labels = ragged_labels()
    config = document(tmp_path, labels, labels.astype(np.float32))
    more = {"name": "more", "op": "calc", "input": "labels", "expression": "labels + 1", "dtype": "int32", "nodata": 11}
    config["steps"] = [more, config["steps"][0] | {"labels": "more"}]
    config["run"] = {"halo": halo, "workers": 2}
    config["output"] |= {"chunks": [16, 16], "keep": ["more"]}
    pipeline.run(config)
    table = zarr.open_group(tmp_path / "out.zarr", path="s/table", mode="r")
    regions = [each for each in regionprops(labels + 1) if each.label != 11]
    np.testing.assert_allclose(table["perimeter"][...], [each.perimeter for each in regions], rtol=1e-13)


def test_values_far_from_all_others_are_weighed_exactly(tmp_path: Path) -> None:
    """Sums beyond float64 and below it; a sum of 0 has no centre, nor has a label without valid values."""
    labels = np.repeat(np.arange(1, 7, dtype=np.int32)[:, None], 4, axis=1)
    values = np.array(
        [[1e308] * 4, [5e-324] * 4, [1, -1, 2, -2], [np.nan] * 4, [1e300, 0, 0, 1e-300], [3, 0, 0, 1]], np.float64
    )
    config = document(tmp_path, labels, values)
    found = harness.compute(load(config), lambda planned: [(planned.grid.region, harness.Dirty())])
    rows, columns = (found[f"s/table/centroid_weighted_{axis}"][:, 0] for axis in "yx")
    np.testing.assert_array_equal(rows, [0, 1, np.nan, np.nan, 4, 5])
    np.testing.assert_array_equal(columns, [1.5, 1.5, np.nan, np.nan, 0, 0.75])


def test_perimeters_in_metres(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[2:6, 2:6] = 1
    inputs = {name: placed_tiff(tmp_path / f"{name}.tif", labels, size=20) for name in ("image", "labels")}
    step = STEP | {"input": "image", "labels": "labels", "spacing": "geo", "geometry": ["perimeter"]}
    pipeline.run({"inputs": inputs, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}})
    assert harness.read(tmp_path / "out.zarr", "s/table/perimeter", is_table=True)[-1] == 12 * 20


def test_oblong_pixels_have_no_perimeter(tmp_path: Path) -> None:
    config = document(tmp_path, ragged_labels(), np.zeros((61, 47), np.uint8), spacing=[2, 0.5])
    with pytest.raises(PipelineError, match=r"is for square pixels, and these are 2\.0 x 0\.5; leave `spacing`"):
        load(config)


def test_the_table_file_has_weighted_centroids_by_band(tmp_path: Path) -> None:
    labels = ragged_labels()
    config = document(tmp_path, labels, np.ones((2, *labels.shape), np.uint8), table=str(tmp_path / "t.csv"))
    pipeline.run(config)
    header = (tmp_path / "t.csv").read_text().splitlines()[0].split(",")
    centres = [f"centroid_weighted_{axis}_{band}" for axis in "yx" for band in ("b1", "b2")]
    assert header == ["label", "pixels", "mean_b1", "mean_b2", "perimeter", *centres]
