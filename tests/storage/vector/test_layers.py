"""Polygons that overlap: read as layers in which each has all its pixels, or the last of the file alone."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.input import Input
from pipeline.storage.vector.reader import PolygonReader, open_polygons

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyogrio")

from tests import harness  # noqa: E402
from tests.georeference import placed_tiff  # noqa: E402
from tests.vector_files import star, write  # noqa: E402
from tests.zarr_files import pixels, read  # noqa: E402

SHAPE = (60, 50)
GRID = RasterSpec(*SHAPE, np.dtype(np.uint8))
COVERS = ("centre", "all_touched", "fraction")


def opened(path: Path, limits: ReadLimits | None = None, **entry: Any) -> PolygonReader:
    return open_polygons(Input(vector=str(path), **entry), GRID, limits)


def shapes_of(seed: int, number: int = 12) -> list[Any]:
    random = np.random.default_rng(seed)
    return [star(random, 50) for _ in range(number)]


def squares() -> Any:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return shapely.box(x, y, x + 1, y + 1)


def pixels_of(shape: Any, cover: str) -> np.ndarray:
    """Return which pixels a polygon has, by shapely, pixel by pixel."""
    if cover == "centre":
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
        return np.asarray(shapely.contains_xy(shape, x, y))
    if cover == "fraction":
        return np.asarray(shapely.area(shapely.intersection(shape, squares())) > 1e-12)
    return np.asarray(shapely.relate_pattern(squares(), shape, "T********"))


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("seed", range(4))
def test_each_polygon_has_all_its_pixels_in_one_of_few_layers(tmp_path: Path, cover: str, seed: int) -> None:
    shapes = shapes_of(seed)
    path = write(tmp_path / "a.gpkg", shapes, crs=None)
    reader = opened(path, cover=cover)
    bands = read(reader)
    assert reader.spec.bands == tuple(f"layer{k + 1}" for k in range(len(bands)))
    owned = [pixels_of(shape, cover) for shape in shapes]
    for i, own in enumerate(owned, 1):
        assert sum(bool((band == i).any()) for band in bands) == int(own.any())
        np.testing.assert_array_equal((bands == i).any(axis=0), own)
    pairs = [(a + 1, b + 1) for a, b in itertools.combinations(range(12), 2) if (owned[a] & owned[b]).any()]
    said = next(text for text in reader.describe()["warnings"] if "in common" in text)
    assert said.startswith(f"{len(pairs)} pairs of polygons have pixels in common (")
    assert len(bands) <= 1 + max(sum(i in pair for pair in pairs) for i in range(1, 13))
    last = read(opened(path, cover=cover, overlap="last"))
    expected = np.zeros(SHAPE, np.int64)
    for i, own in enumerate(owned, 1):
        expected[own] = i
    np.testing.assert_array_equal(last, expected)


def test_bands_are_read_in_any_order_and_part(tmp_path: Path) -> None:
    reader = opened(write(tmp_path / "a.gpkg", shapes_of(5), crs=None))
    whole = read(reader)
    assert len(whole) > 1
    part = Region(7, 44, 13, 50)
    found = read(reader, part, bands=[1, 0])
    np.testing.assert_array_equal(found, whole[[1, 0], 7:44, 13:50])


def test_neighbours_are_one_layer_and_a_chain_is_two(tmp_path: Path) -> None:
    tiles = [shapely.box(x, y, x + 10.5, y + 7.25) for y in np.arange(0, 58, 7.25) for x in np.arange(0, 42, 10.5)]
    path = write(tmp_path / "a.gpkg", tiles, crs=None)
    reader = opened(path)
    assert reader.spec.dims == ("y", "x")
    assert not [text for text in reader.describe()["warnings"] if "in common" in text]
    assert opened(path, cover="all_touched").spec.num_bands == 4  # at the corner of four all have the pixel
    chain = [shapely.box(x, 0, x + 3, 5) for x in range(0, 48, 2)]
    assert opened(write(tmp_path / "b.gpkg", chain, crs=None)).spec.num_bands == 2


def test_polygons_of_one_id_are_one_label(tmp_path: Path) -> None:
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(5, 5, 15, 15), shapely.box(8, 8, 20, 20)]
    reader = opened(write(tmp_path / "a.gpkg", shapes, {"key": [4, 4, 9]}, crs=None), id="key")
    bands = read(reader)
    assert (bands == 4).sum() == 175
    assert ((bands == 4).any(axis=(1, 2))).sum() == 1
    assert (bands == 9).sum() == 144


def test_polygons_that_lie_too_deep_are_refused_and_read_as_the_last(tmp_path: Path) -> None:
    nest = [shapely.box(0, 0, 50 - i / 30, 50) for i in range(300)]
    path = write(tmp_path / "a.gpkg", nest, crs=None)
    with pytest.raises(
        InputError, match=r"300 above each other, the most are 256; keep some by `where`, or .* `overlap"
    ):
        opened(path)
    assert read(opened(path, overlap="last"))[5, 5] == 300
    few = ReadLimits.model_construct(allocation_bytes=1_000_000)
    with pytest.raises(InputError, match="more than 25,000 pairs of polygons have pixels in common"):
        opened(path, few)


def test_what_takes_too_long_to_look_for_is_refused_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_CROSSINGS", "FEW_CROSSINGS"):
        monkeypatch.setattr(f"pipeline.storage.vector.reader.{name}", 39)
    path = write(tmp_path / "a.gpkg", [shapely.box(0, 0, 10, 10), shapely.box(5, 5, 15, 15)], crs=None)
    with pytest.raises(InputError, match="edges cross 40 rows of pixels, too many to see which polygons have"):
        opened(path)
    reader = opened(path, overlap="last")
    assert read(reader)[7, 7] == 2
    assert reader.describe()["warnings"][-1].startswith("its edges cross 40 rows of pixels, too many")
    monkeypatch.setattr("pipeline.storage.vector.reader.MOST_CROSSINGS", 40)
    layers = opened(path)  # those of the same file, looked for longer
    assert layers.polygons is reader.polygons
    assert layers.spec.num_bands == 2


# --- in a pipeline --------------------------------------------------------------------------------------------


def document(folder: Path, fields: dict[str, Any], **step: Any) -> dict[str, Any]:
    if not (folder / "image.tif").exists():
        placed_tiff(folder / "image.tif", pixels(SHAPE, "uint16"))
    base = {"name": "zones", "op": "label_stats", "input": "image", "labels": "fields", "statistics": ["count", "sum"]}
    return {
        "inputs": {"image": str(folder / "image.tif"), "fields": fields},
        "steps": [base | step],
        "output": {"path": str(folder / "out.zarr")},
    }


def table_of(path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: harness.read(Path(path), f"zones/table/{name}", is_table=True) for name in names}


def test_label_stats_of_polygons_that_overlap_in_any_layout(tmp_path: Path) -> None:
    shapes = [shapely.transform(each, lambda xy: xy * [10, -10] + [500000, 5400000]) for each in shapes_of(1)]
    path, image = write(tmp_path / "a.gpkg", shapes), pixels(SHAPE, "uint16").astype(np.int64)
    owned = [pixels_of(shape, "centre") for shape in shapes_of(1)]
    names = ("label", "pixels", "count", "sum", "median", "variety", "bbox_top", "bbox_bottom")
    found: list[dict[str, np.ndarray]] = []
    for number, run in enumerate(({}, {"workers": 3, "memory": "700 MiB"})):
        config = document(tmp_path, {"vector": str(path)}, geometry=["bbox"])
        config["steps"][0]["statistics"] += ["median", "variety"]
        config["steps"][0]["table"] = str(tmp_path / f"{number}.csv")
        config["output"] = {"path": str(tmp_path / f"{number}.zarr"), "chunks": [16 + number, 32]}
        api.run({**config, "run": run})
        assert api.verify(config["output"]["path"]).agrees
        found.append(table_of(config["output"]["path"], names))
    for name in names:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    there = [i for i, own in enumerate(owned) if own.any()]
    table = found[0]
    assert table["label"].tolist() == [i + 1 for i in there]
    assert table["pixels"].tolist() == [owned[i].sum() for i in there]
    assert table["sum"][:, 0].tolist() == [image[owned[i]].sum() for i in there]
    assert table["median"][:, 0].tolist() == [np.median(image[owned[i]]) for i in there]
    assert table["variety"][:, 0].tolist() == [len(np.unique(image[owned[i]])) for i in there]
    assert table["bbox_top"].tolist() == [np.flatnonzero(owned[i].any(axis=1))[0] for i in there]
    assert len((tmp_path / "0.csv").read_text().splitlines()) == 13  # a row each, those without a pixel too


def test_layers_are_not_painted_and_other_bands_are_no_layers(tmp_path: Path) -> None:
    shapes = [shapely.box(500000, 5399800, 500200, 5400000), shapely.box(500100, 5399700, 500400, 5399900)]
    fields = {"vector": str(write(tmp_path / "a.gpkg", shapes))}
    with pytest.raises(PipelineError, match="'fields' overlap in 2 layers; take one of each pixel"):
        api.plan(document(tmp_path, fields, recolor=["sum"]))
    api.plan(document(tmp_path, {**fields, "overlap": "last"}, recolor=["sum"]))
    placed_tiff(tmp_path / "two.tif", pixels((2, *SHAPE), "uint8"))
    with pytest.raises(PipelineError, match="a label raster has one band, 'fields' has 2"):
        api.plan(document(tmp_path, {"path": str(tmp_path / "two.tif")}))


def test_layers_pass_through_other_steps(tmp_path: Path) -> None:
    shapes = [shapely.box(500000, 5399800, 500200, 5400000), shapely.box(500100, 5399700, 500400, 5399900)]
    config = document(tmp_path, {"vector": str(write(tmp_path / "a.gpkg", shapes))}, labels="some")
    some = {"name": "some", "op": "mask", "input": "fields", "inputs": {"a": "image"}, "where": "a > 50"}
    config["steps"].insert(0, some)
    api.run(config)
    image = pixels(SHAPE, "uint16")
    pixel_counts = [(image[:20, :20] > 50).sum(), (image[10:30, 10:40] > 50).sum()]
    assert table_of(config["output"]["path"], ("pixels",))["pixels"].tolist() == pixel_counts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"overlap": "first"}, "`overlap: first` is of a mosaic; of polygons it is layers, last or sum"),
        ({"overlap": "sum"}, "`overlap: sum` adds shares; say `value: coverage`"),
        ({"value": "coverage", "cover": "centre"}, "`value: coverage` is of `cover: fraction`"),
        ({"value": "nam"}, "`value`: unknown field 'nam'"),
        ({"value": "name"}, "`value: name` is to be a field of numbers"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "a.gpkg", [shapely.box(500000, 5399800, 500200, 5400000)])
    with pytest.raises((PipelineError, InputError), match=words):
        api.plan(document(tmp_path, {"vector": str(path), **fields}))
    with pytest.raises(PipelineError, match="`overlap: layers` is of polygons; of a mosaic it is first, last or"):
        api.plan(document(tmp_path, {"mosaic": [str(tmp_path / "image.tif")], "overlap": "layers"}))


def test_layers_go_with_no_other_bands(tmp_path: Path) -> None:
    shapes = [shapely.box(500000, 5399800, 500200, 5400000), shapely.box(500100, 5399700, 500400, 5399900)]
    fields = {"vector": str(write(tmp_path / "a.gpkg", shapes))}
    for bands in (1, 2):
        config = document(tmp_path, fields)
        config["inputs"]["image"] = placed_tiff(tmp_path / "some.tif", pixels((bands, *SHAPE), "uint8"))
        config["steps"] = [
            {"name": "cut", "op": "mask", "input": "image", "inputs": {"f": "fields"}, "where": "f == 1"}
        ]
        with pytest.raises(PipelineError, match=r"the bands of f are labels that overlap; take the last of each pixel"):
            api.plan(config)
    config["steps"] = [{"name": "sum", "op": "calc", "inputs": {"a": "image", "f": "fields"}, "expression": "a + f"}]
    with pytest.raises(PipelineError, match=r"the bands of f are labels that overlap; take the last of each pixel"):
        api.plan(config)
    config["inputs"]["fields"]["overlap"] = "last"
    api.plan(config)


RUN = """
import json, sys
import pipeline
print(json.dumps(pipeline.run(json.loads(sys.argv[1])).to_dict()))
"""


@pytest.mark.long
def test_a_million_polygons_within_2_gib(tmp_path: Path) -> None:
    """By their shares, with their geometries in the table; some two minutes on two shared cores."""
    side, random = 10_000, np.random.default_rng(0)
    rows = random.integers(0, 4000, 2 * side).astype(np.uint16)
    placed_tiff(tmp_path / "image.tif", np.lib.stride_tricks.sliding_window_view(rows, side)[:side], tile=(512, 512))
    y, x = np.mgrid[:1000, :1000]
    left, top, edges = 500000.0 + 100 * x.ravel(), 5400000.0 - 100 * y.ravel(), random.uniform(0, 15, (4, 1_000_000))
    shapes = shapely.box(left + edges[0], top - 95 + edges[1], left + 85 + edges[2], top - edges[3])
    path = write(tmp_path / "a.gpkg", shapes, {"key": np.arange(1, 1_000_001)})
    config = document(
        tmp_path, {"vector": str(path), "id": "key", "cover": "fraction"}, table=str(tmp_path / "a.parquet")
    )
    command = [sys.executable, "-c", RUN, json.dumps(config | {"run": {"memory": "2 GiB", "workers": 2}})]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 2 * 2**30
    table = table_of(config["output"]["path"], ("label", "count"))
    assert table["label"].tolist() == list(range(1, 1_000_001))
    np.testing.assert_allclose(table["count"][:, 0], shapely.area(shapes) / 100, rtol=1e-9)
