"""Outlines of labels: against GDAL's polygonize, valid, with the pixels of the labels, the same for every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pipeline import api
from pipeline.model.errors import OutputError, PipelineError, RunStopped
from pipeline.output.exports import polygons
from pipeline.storage.vector import outlines
from tests import harness
from tests.georeference import placed_tiff

shapely = pytest.importorskip("shapely")
raw = pytest.importorskip("pyogrio.raw")
parquet = pytest.importorskip("pyarrow.parquet")
features = pytest.importorskip("rasterio.features")

TRANSFORM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0)
"""Of `placed_tiff`."""


def scene(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "noise":
        return rng.integers(0, 3, (61, 47)).astype(np.uint16)
    if kind == "checkerboard":
        return (np.indices((30, 33)).sum(axis=0) % 2).astype(np.uint16)
    if kind == "one":
        return np.full((20, 30), 7, np.uint16)
    smooth = ndimage.gaussian_filter(rng.normal(size=(90, 110)), 2)
    if kind == "blobs":
        return ndimage.label(smooth > 0.02)[0].astype(np.uint16)
    return np.digitize(smooth, [-0.1, 0, 0.05]).astype(np.uint16)


def config(folder: Path, labels: np.ndarray, file: str, **output: Any) -> dict[str, Any]:
    placed_tiff(folder / "labels.tif", labels[np.newaxis])
    return {
        "inputs": {"image": {"path": str(folder / "labels.tif"), "nodata": 0}},
        "steps": [{"name": "same", "op": "select", "input": "image", "bands": [1]}],
        "output": {"path": str(folder / "out.zarr"), "polygons": str(folder / file)} | output,
    }


def read(path: Path) -> dict[int, Any]:
    """Return label -> (pixels, polygon), in the order of the file."""
    if path.suffix == ".parquet":
        table = parquet.read_table(path).to_pydict()
        columns: Any = table["label"], table["pixels"], table["geometry"]
    else:
        _, _, wkb, (label, pixels) = raw.read(path)
        columns = label.tolist(), pixels.tolist(), wkb
    return {label: (pixels, shapely.from_wkb(geometry)) for label, pixels, geometry in zip(*columns, strict=True)}


def gdal(labels: np.ndarray, transform: tuple[float, ...] = TRANSFORM) -> dict[int, Any]:
    """Return label -> what GDAL outlines, dissolved."""
    found: dict[int, list[Any]] = {}
    for shape, value in features.shapes(labels, labels != 0, transform=transform):
        found.setdefault(int(value), []).append(shapely.make_valid(shapely.geometry.shape(shape)))
    return {value: shapely.union_all(shapes) for value, shapes in found.items()}


@pytest.mark.parametrize("kind", ["noise", "checkerboard", "one", "blobs", "classes"])
@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_outlines_are_those_of_gdal(kind: str, suffix: str, tmp_path: Path) -> None:
    labels = scene(kind)
    api.run(config(tmp_path, labels, f"cells{suffix}"))
    found, expected = read(tmp_path / f"cells{suffix}"), gdal(labels)
    assert list(found) == sorted(expected)
    for label, (pixels, shape) in found.items():
        assert shapely.is_valid(shape)
        assert pixels == np.count_nonzero(labels == label) == shape.area / 100
        assert shapely.equals(shape, expected[label])
        parts = shapely.get_parts(shape)
        assert len(parts) == ndimage.label(labels == label)[1]
        assert shape.geom_type == ("Polygon" if len(parts) == 1 else "MultiPolygon")
        assert all(part.exterior.is_ccw and not any(hole.is_ccw for hole in part.interiors) for part in parts)
        corners = [len(ring.coords) for part in parts for ring in (part.exterior, *part.interiors)]
        assert sum(corners) == shapely.get_num_coordinates(shapely.simplify(shape, 0))


def test_a_part_lies_where_it_is_and_a_geotiff_has_outlines_too(tmp_path: Path) -> None:
    labels = scene("blobs")
    document = config(tmp_path, labels, "cells.gpkg", path=str(tmp_path / "part.tif"))
    document["region"] = {"rows": [13, 71], "columns": [20, 95]}
    api.run(document)
    assert (tmp_path / "part.tif").exists()
    expected = gdal(labels[13:71, 20:95], (10.0, 0.0, 500200.0, 0.0, -10.0, 5399870.0))
    found = read(tmp_path / "cells.gpkg")
    assert list(found) == sorted(expected)
    assert all(shapely.equals(found[label][1], expected[label]) for label in expected)


@pytest.mark.parametrize("suffix", [".parquet", ".geojson", ".gpkg"])
def test_every_layout_writes_the_same(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By strips of rows, in batches of few vertices, too."""
    labels, found = scene("blobs"), []
    for number, (chunks, vertices) in enumerate([([512, 512], 2**19), ([7, 9], 40), ([16, 110], 2**19)]):
        monkeypatch.setattr(outlines, "BATCH_VERTICES", vertices)
        folder = tmp_path / str(number)
        folder.mkdir()
        api.run(config(folder, labels, f"cells{suffix}", chunks=chunks))
        path = folder / f"cells{suffix}"
        found.append(path.read_bytes() if suffix == ".geojson" else read(path))
    assert found[0] == found[1] == found[2]
    assert found[0]


def test_a_geojson_is_in_degrees(tmp_path: Path) -> None:
    labels = scene("classes")
    api.run(config(tmp_path, labels, "cells.geojson"))
    found = json.loads((tmp_path / "cells.geojson").read_text())
    assert [each["properties"]["label"] for each in found["features"]] == [1, 2, 3]
    longitudes, latitudes = np.array(found["features"][0]["geometry"]["coordinates"][0][0]).T
    assert ((longitudes > 14.99) & (longitudes < 15.1) & (latitudes > 48.6) & (latitudes < 48.8)).all()


def test_without_a_place_coordinates_are_columns_and_rows(tmp_path: Path) -> None:
    """Without a nodata, every value is a label; those of 64 bits are told exactly."""
    labels = np.array([[0, 0, 5], [2**63 + 1, 0, 5]], np.uint64)
    source = harness.store(harness.Raster(labels, ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "same", "op": "select", "input": "image", "bands": [1]}
    document = harness.document(source, [step], tmp_path / "out.zarr", polygons={"same": str(tmp_path / "a.parquet")})
    facts = api.run(document)
    assert facts.polygon_files == (str(tmp_path / "a.parquet"),)
    assert any("same/value has no place, so a.parquet has columns and rows" in note for note in facts.warnings)
    found = read(tmp_path / "a.parquet")
    assert list(found) == [0, 5, 2**63 + 1]
    assert shapely.equals(found[5][1], shapely.box(2, 0, 3, 2))
    assert found[5][0] == 2
    assert shapely.equals(found[0][1], shapely.Polygon([(0, 0), (2, 0), (2, 2), (1, 2), (1, 1), (0, 1)]))


def test_labels_beyond_63_bits_are_texts_in_a_geopackage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "BATCH_VERTICES", 4)
    for largest, expected in ((2**63 - 1, [5, 2**63 - 1]), (2**63, ["5", str(2**63)])):
        labels = np.array([[5, largest]], np.uint64)
        source = harness.store(harness.Raster(labels, ("y", "x")), tmp_path / f"{largest}.zarr")
        step = {"name": "same", "op": "select", "input": "image", "bands": [1]}
        path = tmp_path / f"{largest}.gpkg"
        api.run(harness.document(source, [step], tmp_path / f"{largest}-out.zarr", polygons=str(path)))
        assert list(read(path)) == expected


def test_a_raster_of_nodata_has_no_feature(tmp_path: Path) -> None:
    for suffix in (".parquet", ".gpkg", ".geojson"):
        document = config(tmp_path, np.zeros((9, 9), np.uint16), f"cells{suffix}")
        api.run(document, overwrite=True)
        api.run(document, overwrite=True)  # over a file without features
    assert read(tmp_path / "cells.parquet") == read(tmp_path / "cells.gpkg") == {}
    assert json.loads((tmp_path / "cells.geojson").read_text())["features"] == []


def test_an_existing_file_is_replaced_only_by_overwrite(tmp_path: Path) -> None:
    document = config(tmp_path, scene("one"), "cells.gpkg")
    api.run(document)
    with pytest.raises(OutputError, match="exists"):
        api.run(document)
    api.run(document, overwrite=True)
    (tmp_path / "cells.gpkg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not a table of rasterpipe"):
        api.run(document, overwrite=True)
    assert (tmp_path / "cells.gpkg").read_bytes() == b"mine"


def test_a_run_that_stops_while_it_writes_leaves_nothing_half_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = config(tmp_path, scene("noise"), "cells.gpkg")
    with monkeypatch.context() as patch:
        patch.setattr(polygons, "writing_bytes", lambda job: 80_000)
        with pytest.raises(RunStopped, match=r"outlines take .* MiB at once.*--resume writes the file"):
            api.run(document)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "out.zarr.work") == [
        "labels.tif",
        "out.zarr",
    ]
    run_id = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())["attributes"]["rasterpipe"]["run_id"]
    (tmp_path / f".cells.gpkg.{run_id}.partial.gpkg").write_bytes(b"SQLite format 3\0")  # of a run that was killed
    api.run(document, resume=True)
    assert list(read(tmp_path / "cells.gpkg")) == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} <= {"labels.tif", "out.zarr", "out.zarr.work", "cells.gpkg"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"polygons": "a.shp"}, r"must be a file that ends in \.parquet, \.gpkg, \.geojson"),
        ({"polygons": {"same": 3}}, "must be a file that ends in"),
        ({"polygons": {"other": "a.gpkg"}}, "'other' is not kept; kept are same/value"),
        ({"polygons": {}}, "must be a file that ends in"),
    ],
)
def test_what_is_no_file_of_polygons_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    document = config(tmp_path, scene("one"), "a.gpkg")
    document["output"] |= change
    with pytest.raises(PipelineError, match=words):
        api.run(document)
    assert not (tmp_path / "out.zarr").exists()


def test_what_is_no_raster_of_labels_is_refused(tmp_path: Path) -> None:
    document = config(tmp_path, scene("one"), "a.gpkg")
    document["steps"] = [{"name": "smooth", "op": "gaussian", "input": "image", "sigma": 1}]
    with pytest.raises(PipelineError, match="outlines one raster of whole numbers with one band, and none is kept"):
        api.run(document)
    document["output"]["polygons"] = {"smooth": "a.gpkg"}
    with pytest.raises(PipelineError, match="smooth/value is of float32"):
        api.run(document)
    document["inputs"]["image"] = harness.store(
        harness.Raster(np.zeros((5, 5, 3), np.uint8), ("y", "x", "band")), tmp_path / "in.zarr"
    )
    document["steps"] = [{"name": "same", "op": "select", "input": "image", "bands": [1, 2, 3]}]
    document["output"]["polygons"] = {"same": "a.geojson"}
    with pytest.raises(PipelineError, match="same/value has 3 bands"):
        api.run(document)
    document["steps"] = [{"name": "same", "op": "select", "input": "image", "bands": [1]}]
    with pytest.raises(PipelineError, match="a GeoJSON has degrees of WGS 84, and same/value has no coordinate system"):
        api.run(document)
