"""Shares of pixels against shapely and exactextract; fields and coverage as rasters."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.affine import Affine
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.storage.input import Input
from pipeline.storage.vector.reader import PolygonReader, open_polygons

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyogrio")

from tests import harness  # noqa: E402
from tests.georeference import placed_tiff  # noqa: E402
from tests.vector_files import UTM, star, write  # noqa: E402
from tests.zarr_files import pixels, read  # noqa: E402

SHAPE = (60, 50)
GRID = RasterSpec(*SHAPE, np.dtype(np.uint8))


def opened(path: Path, **entry: Any) -> PolygonReader:
    return open_polygons(Input(vector=str(path), **entry), GRID)


def odd_shapes(seed: int) -> list[Any]:
    """Return polygons at random, nested ones, slivers, one of parts, one within a pixel, and one outside."""
    random = np.random.default_rng(seed)
    drawn = [star(random, 50) for _ in range(6)]
    x, y = random.uniform(5, 40, 2)
    return [
        *drawn,
        shapely.box(10, 10, 30, 40).difference(shapely.box(15.5, 15.25, 20, 30)),
        shapely.box(12, 12, 14, 14),
        shapely.Polygon([(x, y), (x + 9, y + 3), (x + 9, y + 3.0001)]),
        shapely.box(x, y, x + 1e-3, y + 20),
        shapely.MultiPolygon([shapely.box(1, 1, 2.5, 3), shapely.box(40.25, 50, 49.75, 58.125)]),
        shapely.box(x, y, x + 0.01, y + 0.01),
        shapely.box(-20, 3, 4.5, 5.5),
        shapely.box(500, 500, 510, 510),
    ]


def areas(shape: Any) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray(shapely.area(shapely.intersection(shape, shapely.box(x, y, x + 1, y + 1))))


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_the_areas_of_shapely_and_parts_have_the_same_bits(tmp_path: Path, seed: int) -> None:
    shapes = odd_shapes(seed)
    path = write(tmp_path / "a.gpkg", shapes, crs=None)
    ids, shares = opened(path, cover="fraction"), opened(path, value="coverage", overlap="layers")
    assert ids.polygons is shares.polygons  # read once
    labels, found = read(ids), read(shares)
    for i, shape in enumerate(shapes, 1):
        np.testing.assert_allclose(np.where(labels == i, found, 0).sum(axis=0), areas(shape), rtol=0, atol=2e-14)
    assert found[labels != 0].min() >= 2**-40
    total = read(opened(path, value="coverage"))
    np.testing.assert_allclose(total, sum(map(areas, shapes)), rtol=0, atol=1e-13)
    random = np.random.default_rng(seed)
    for _ in range(25):
        (top, bottom), (left, right) = (np.sort(random.choice(side + 1, 2, replace=False)) for side in SHAPE)
        part = Region(int(top), int(bottom), int(left), int(right))
        assert harness.same_bits(read(shares, part), np.ascontiguousarray(found[:, top:bottom, left:right]))


def test_shares_of_neighbours_are_one_together_and_inside_exactly_one(tmp_path: Path) -> None:
    points = np.random.default_rng(3).uniform(-10, 70, (200, 2))
    cells = shapely.voronoi_polygons(shapely.MultiPoint(points), extend_to=shapely.box(-50, -50, 120, 120))
    cells = [cell for cell in cells.geoms if cell.intersects(shapely.box(0, 0, 50, 60))]
    path = write(tmp_path / "a.gpkg", cells, crs=None)
    np.testing.assert_allclose(read(opened(path, value="coverage")), 1, rtol=0, atol=1e-14)
    found = read(opened(path, value="coverage", overlap="layers"))
    assert len(found) <= 6
    inside = np.isclose(found, 1, rtol=0, atol=1e-12)
    assert inside.sum() > 1000
    assert (found[inside] == 1).all()


def test_upside_down_and_rotated_rasters_have_the_shares_of_their_pixels(tmp_path: Path) -> None:
    shapes = odd_shapes(7)[:8]
    straight = read(opened(write(tmp_path / "a.gpkg", shapes, crs=None), value="coverage"))
    for number, (a, b, c, d, e, f) in enumerate([(2, 0, 0, 0, -2, 0), (0, 3, 7, 3, 0, 5), (1.5, -2, 0, 2, 1.5, 0)]):
        there = [
            shapely.transform(each, lambda xy: np.stack([xy @ [a, b] + c, xy @ [d, e] + f], axis=1))  # noqa: B023
            for each in shapes
        ]
        path = write(tmp_path / f"{number}.gpkg", there)
        grid = RasterSpec(*SHAPE, np.dtype(np.uint8), transform=(a, b, c, d, e, f))  # type: ignore[arg-type]
        found = read(open_polygons(Input(vector=str(path), value="coverage"), grid))
        np.testing.assert_allclose(found, straight, rtol=0, atol=1e-12)


def test_shares_of_polygons_in_another_system(tmp_path: Path) -> None:
    pyproj = pytest.importorskip("pyproj")
    there = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    shapes = odd_shapes(3)[:8]
    fine = [shapely.segmentize(placed(shape), 0.5) for shape in shapes]  # their edges are straight in both
    moved = [shapely.transform(each, lambda xy: np.stack(there.transform(*xy.T), axis=1)) for each in fine]
    grid = RasterSpec(*SHAPE, np.dtype(np.uint8), transform=Affine(10, 0, 500000, 0, -10, 5400000), crs=UTM)
    path = write(tmp_path / "a.gpkg", moved, crs="EPSG:4326")
    found = read(open_polygons(Input(vector=str(path), value="coverage"), grid))
    np.testing.assert_allclose(found, sum(map(areas, shapes)), rtol=0, atol=1e-6)


def test_a_field_as_a_raster_and_what_is_no_number(tmp_path: Path) -> None:
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(5, 5, 20, 20), shapely.box(30, 30, 40, 40)]
    columns = {"dose": [1.5, np.nan, -3.0], "rank": [1, 2, 3], "long": [2**60 + 1, 1, 1], "coverage": [1, 2, 3]}
    path = write(tmp_path / "a.gpkg", shapes, columns, crs=None)
    found = read(opened(path, value="dose"))
    assert found.dtype == np.float64
    assert np.isnan(found[:5, 20:]).all()
    assert (found[:5, :5] == 1.5).all()
    assert np.isnan(found[5:20, 5:20]).all()  # the last in the file, which has none
    assert (found[30:40, 30:40] == -3).all()
    layers = read(opened(path, value="rank", overlap="layers"))
    assert (layers[0, :10, :10] == 1).all()
    assert (layers[1, 5:20, 5:20] == 2).all()
    assert (read(opened(path, value="rank", cover="fraction"))[:5, :5] == 1).all()
    with pytest.raises(InputError, match=r"`value: long` goes beyond 2\^53"):
        opened(path, value="long")
    with pytest.raises(InputError, match="`value: coverage` is the share of pixels, and a field is called so"):
        opened(path, value="coverage")


# --- in a pipeline --------------------------------------------------------------------------------------------


def placed(shape: Any) -> Any:
    return shapely.transform(shape, lambda xy: xy * [10, -10] + [500000, 5400000])


def document(folder: Path, image: np.ndarray, fields: dict[str, Any], **step: Any) -> dict[str, Any]:
    placed_tiff(folder / "image.tif", image)
    base = {"name": "zones", "op": "label_stats", "input": "image", "labels": "fields", "statistics": ["count", "mean"]}
    return {
        "inputs": {"image": str(folder / "image.tif"), "fields": fields},
        "steps": [base | step],
        "output": {"path": str(folder / "out.zarr")},
    }


def test_label_stats_of_fractions_in_any_layout(tmp_path: Path) -> None:
    shapes, image = odd_shapes(1), pixels(SHAPE, "float32", seed=4)
    image += np.random.default_rng(0).random(SHAPE).astype(np.float32)
    path, names = write(tmp_path / "a.gpkg", list(map(placed, shapes)), {"key": range(14)}), ["count", "mean", "sum"]
    names += ["var", "std", "min", "max"]
    tables = []
    for number, run in enumerate(({}, {"workers": 3, "memory": "700 MiB"})):
        fields = {"vector": str(path), "cover": "fraction"}
        config = document(tmp_path, image, fields, statistics=names, table=str(tmp_path / f"{number}.csv"))
        config["output"] = {"path": str(tmp_path / f"{number}.zarr"), "chunks": [16 + number, 32]}
        facts = api.run({**config, "run": run})
        assert len([note for note in facts.warnings if "in common" in note]) == 1
        assert (
            "step zones: values count by the share of their pixel that fields have (fields_coverage)" in facts.warnings
        )
        assert api.verify(config["output"]["path"]).agrees
        tables.append((tmp_path / f"{number}.csv").read_text())
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert len(rows) == 14
    values = image.astype(np.float64)
    for row, shape in zip(rows, shapes, strict=True):
        share = areas(shape)
        assert float(row["count_b1"]) == pytest.approx(share.sum(), rel=1e-9, abs=1e-9)
        if not share.any():
            assert [row[f"{name}_b1"] for name in ("count", "sum", "mean", "min")] == ["0.0", "0.0", "", ""]
        elif share.sum() > 0.1:  # the coordinates of slivers are rounded by more
            mean = (share * values).sum() / share.sum()
            assert float(row["mean_b1"]) == pytest.approx(mean, rel=1e-9)
            variance = (share * (values - mean) ** 2).sum() / share.sum()
            assert float(row["var_b1"]) == pytest.approx(variance, rel=1e-9)
            assert float(row["std_b1"]) == pytest.approx(np.sqrt(variance), rel=1e-9)
            assert float(row["min_b1"]) == values[share > 1e-9].min()
            assert float(row["max_b1"]) == values[share > 1e-9].max()


def test_shares_are_those_of_exactextract_which_rounds_them_to_float32(tmp_path: Path) -> None:
    exactextract = pytest.importorskip("exactextract")
    shapes, image = odd_shapes(1), pixels(SHAPE, "float32", seed=4)
    placed_tiff(tmp_path / "image.tif", image)
    path = write(tmp_path / "a.gpkg", list(map(placed, shapes)))
    grid = RasterSpec(*SHAPE, np.dtype(np.uint8), transform=Affine(10, 0, 500000, 0, -10, 5400000), crs=UTM)
    labels, found = (
        read(open_polygons(Input(vector=str(path), cover="fraction", overlap="layers", value=value), grid))
        for value in (None, "coverage")
    )
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(placed(shape))), "properties": {}}
        for shape in shapes
    ]
    theirs = exactextract.exact_extract(str(tmp_path / "image.tif"), features, ["count", "sum", "coverage", "cell_id"])
    for i, feature in enumerate(theirs, 1):
        values, share = feature["properties"], np.where(labels == i, found, 0).sum(axis=0)
        cover = np.zeros(share.size)
        cover[np.asarray(values["cell_id"], np.int64)] = values["coverage"]
        np.testing.assert_allclose(cover.reshape(SHAPE), share, rtol=0, atol=2.0**-24)
        rounded = share.astype(np.float32).astype(np.float64)
        assert values["count"] == pytest.approx(rounded.sum(), rel=1e-9, abs=1e-9)
        assert values["sum"] == pytest.approx((rounded * image).sum(), rel=1e-9, abs=1e-7)


def test_coverage_and_fields_are_rasters_of_mask_and_calc(tmp_path: Path) -> None:
    shapes, image = odd_shapes(2), pixels(SHAPE, "uint16")
    path = write(tmp_path / "a.gpkg", list(map(placed, shapes)), {"dose": np.arange(14) / 4})
    config = document(tmp_path, image, {"vector": str(path), "value": "coverage"})
    config["inputs"]["dose"] = {"vector": str(path), "value": "dose"}
    config["steps"] = [
        {"name": "most", "op": "mask", "input": "image", "inputs": {"s": "fields"}, "where": "s >= 0.5"},
        {"name": "spread", "op": "calc", "inputs": {"d": "dose", "a": "image"}, "expression": "d * a"},
    ]
    api.run(config)
    out, total = Path(config["output"]["path"]), sum(map(areas, shapes))
    sure = np.abs(total - 0.5) > 1e-6
    most = harness.read(out, "most/value")[0]
    assert (most[sure & (total > 0.5)] == image[sure & (total > 0.5)]).all()
    dose = np.full(SHAPE, np.nan)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    for i, shape in enumerate(shapes):
        dose[shapely.contains_xy(shape, x, y)] = i / 4
    np.testing.assert_array_equal(harness.read(out, "spread/value")[0], dose * image)


def test_weights_that_are_named_are_taken_and_names_are_free(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [placed(shapely.box(2.5, 2, 6, 6))])
    image = np.full(SHAPE, 2, np.uint8)
    config = document(tmp_path, image, {"vector": str(path), "cover": "fraction"}, name="fields_coverage")
    api.run(config)
    out = Path(config["output"]["path"])
    assert harness.read(out, "fields_coverage/table/count", is_table=True).tolist() == [[14.0]]
    assert harness.read(out, "fields_coverage/table/pixels", is_table=True).tolist() == [16]
    config |= {"output": {"path": str(tmp_path / "b.zarr")}}
    config["steps"][0] |= {"weights": "image", "name": "zones"}
    api.run(config)
    assert harness.read(tmp_path / "b.zarr", "zones/table/count", is_table=True).tolist() == [[32.0]]
    with pytest.raises(PipelineError, match="with weights there is no median; leave that out"):
        api.plan(document(tmp_path, image, {"vector": str(path), "cover": "fraction"}, statistics=["mean", "median"]))
