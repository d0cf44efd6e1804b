"""Polygons as an input: every format, systems and repairs, what is refused, and pixels against GDAL's."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.affine import Affine
from pipeline.model.errors import InputChanged, InputError, PipelineError, RasterpipeError
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.input import Input

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyogrio")
from pipeline.storage.vector.reader import PolygonReader, open_polygons  # noqa: E402
from tests import harness  # noqa: E402
from tests.georeference import ROTATED, placed_tiff  # noqa: E402
from tests.vector_files import UTM, star, write  # noqa: E402
from tests.zarr_files import pixels, read  # noqa: E402

NORTH_UP = (10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0)
GRID = RasterSpec(60, 50, np.dtype(np.uint8), transform=Affine(*NORTH_UP), crs=UTM)
SQUARE = shapely.box(500100.0, 5399800.0, 500200.0, 5399900.0)
"""Rows and columns 10 to 20."""


def placed(shape: Any) -> Any:
    """Return a shape in pixels at its place by the grid."""
    return shapely.transform(shape, lambda xy: xy * [10, -10] + [500000, 5400000])


def stars(number: int = 12) -> list[Any]:
    random = np.random.default_rng(2)
    return [placed(star(random, 50)) for _ in range(number)]


def reader_of(path: Path, grid: RasterSpec = GRID, limits: ReadLimits | None = None, **entry: Any) -> PolygonReader:
    return open_polygons(Input(vector=str(path), **entry), grid, limits)


def message(path: Path, grid: RasterSpec = GRID, limits: ReadLimits | None = None, **entry: Any) -> str:
    with pytest.raises(InputError) as caught:
        reader_of(path, grid, limits, **entry)
    return str(caught.value)


def gdal(shapes: list[Any], ids: list[int], **options: Any) -> np.ndarray:
    features = pytest.importorskip("rasterio.features")
    return features.rasterize(list(zip(shapes, ids, strict=True)), GRID.shape, transform=GRID.transform, **options)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb", ".parquet"])
def test_every_format_gives_the_pixels_of_gdal(tmp_path: Path, suffix: str) -> None:
    shapes, ids = stars(), [7 * i - 20 for i in range(12)]
    path = write(tmp_path / f"a{suffix}", shapes, {"key": ids})
    reader = reader_of(path, id="key", overlap="last")
    assert reader.spec.dtype == np.int32
    assert reader.spec.nodata == 0
    assert reader.spec.crs == UTM
    np.testing.assert_array_equal(read(reader), gdal(shapes, ids))
    np.testing.assert_array_equal(read(reader_of(path, overlap="last")), gdal(shapes, list(range(1, 13))))
    touched = read(reader_of(path, cover="all_touched", overlap="last"))
    np.testing.assert_array_equal(touched, gdal(shapes, list(range(1, 13)), all_touched=True))


def test_parts_threads_and_pickles_read_the_same(tmp_path: Path) -> None:
    reader = reader_of(write(tmp_path / "a.gpkg", stars()), overlap="last")
    whole, copy = read(reader), pickle.loads(pickle.dumps(reader))
    parts = [
        Region(top, top + 7, left, left + 9).clip(GRID.region) for top in range(0, 60, 7) for left in range(0, 50, 9)
    ]

    def at(part: Region) -> np.ndarray:
        out = np.full(part.shape, -1, np.int32)
        copy.read(part, out)
        return out

    with ThreadPoolExecutor(4) as pool:
        for part, found in zip(parts, pool.map(at, parts), strict=True):
            np.testing.assert_array_equal(found, whole[part.slices((0, 0))])


def test_ids_beyond_32_bits_are_int64(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [SQUARE], {"key": [2**40 + 1]})
    reader = reader_of(path, id="key")
    assert reader.spec.dtype == np.int64
    assert read(reader)[15, 15] == 2**40 + 1


def test_where_and_layer_choose(tmp_path: Path) -> None:
    shapes = [SQUARE, shapely.transform(SQUARE, lambda xy: np.add(xy, [150, 0]))]
    path = write(tmp_path / "a.gpkg", shapes, {"key": [5, 6], "crop": ["wheat", "maize"]}, layer="fields")
    write(path, [SQUARE], {"key": [9]}, layer="others", append=True)
    found = read(reader_of(path, layer="fields", where="crop = 'maize'", id="key"))
    assert set(np.unique(found)) == {0, 6}
    assert (found == 6).sum() == 100
    assert set(np.unique(read(reader_of(path, layer="others", id="key")))) == {0, 9}
    assert "has 2 layers: fields, others; name one: `layer: fields`" in message(path)
    assert "unknown layer 'field'" in message(path, layer="field")
    assert "no feature is there for `where`" in message(path, layer="fields", where="crop = 'rye'")
    assert "cannot be read" in message(path, layer="fields", where="crop ==== 'rye'")


def test_other_systems_are_brought_to_the_rasters_with_edges_that_stay_straight_in_theirs(tmp_path: Path) -> None:
    pyproj = pytest.importorskip("pyproj")
    # a box of degrees: its upper edge is an arc on this grid, 14 km long and 5 m high
    box = shapely.box(15.0, 59.9, 15.25, 60.0)
    grid = RasterSpec(1300, 1500, np.dtype(np.uint8), transform=Affine(10, 0, 500000, 0, -10, 6652000), crs=UTM)
    found = read(reader_of(write(tmp_path / "a.geojson", [box], crs="EPSG:4326"), grid))
    y, x = np.mgrid[:1300, :1500]
    back = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    lon, lat = back.transform(500000 + 10 * (x + 0.5), 6652000 - 10 * (y + 0.5))
    expected = (lon > 15) & (lon < 15.25) & (lat > 59.9) & (lat < 60)
    differ = (found != 0) != expected
    near = np.minimum(np.abs(lon - 15.25) * 55_000, np.minimum(np.abs(lat - 59.9), np.abs(lat - 60)) * 111_000) < 0.2
    near |= np.abs(lon - 15) * 55_000 < 0.2
    assert not (differ & ~near).any()
    assert expected.sum() > 500_000
    plain = shapely.transform(box, lambda xy: np.stack(back.transform(*xy.T, direction="INVERSE"), axis=1))
    chord = read(reader_of(write(tmp_path / "b.gpkg", [plain]), grid))
    assert (chord != found).sum() > 200  # what edges that are not halved would give


def test_rotated_and_unplaced_rasters(tmp_path: Path) -> None:
    shape = star(np.random.default_rng(4), 50)
    a, b, c, d, e, f = ROTATED
    there = shapely.transform(shape, lambda xy: np.stack([xy @ [a, b] + c, xy @ [d, e] + f], axis=1))
    rotated = reader_of(
        write(tmp_path / "a.gpkg", [there]), RasterSpec(60, 50, np.dtype("u1"), transform=Affine(*ROTATED), crs=UTM)
    )
    in_pixels = reader_of(write(tmp_path / "b.geojson", [shape], crs=None), RasterSpec(60, 50, np.dtype("u1")))
    assert read(rotated).any()
    np.testing.assert_array_equal(read(rotated), read(in_pixels))
    assert "coordinates are taken as columns and rows" in in_pixels.describe()["warnings"][0]
    nameless = reader_of(write(tmp_path / "c.gpkg", [SQUARE], crs=None))
    assert "the polygons name no coordinate system" in nameless.describe()["warnings"][0]


def test_what_is_odd_is_said_and_has_its_place(tmp_path: Path) -> None:
    bow = shapely.Polygon([(500000, 5400000), (500100, 5399900), (500100, 5400000), (500000, 5399900)])
    sliver, outside = shapely.box(500004, 5399600, 500004.5, 5399900), shapely.box(0, 0, 10, 10)
    shapes = [bow, None, sliver, outside, SQUARE, shapely.buffer(SQUARE, -20), shapely.Polygon()]
    reader = reader_of(write(tmp_path / "a.gpkg", shapes), overlap="last")
    assert set(np.unique(read(reader))) == {0, 1, 5, 6}
    assert (read(reader) == 6).sum() == 36
    assert reader.describe()["warnings"] == [
        "1 invalid polygon is repaired: 1",
        "2 features have no geometry, and so no pixel",
        "1 of 7 polygons lies outside the raster, and has no pixel",
        "1 pair of polygons has pixels in common (5 and 6): such a pixel is of the last in the file",
    ]
    far = reader_of(write(tmp_path / "c.gpkg", [outside]))
    assert "none of the polygons meets the raster" in far.describe()["warnings"][0]
    twice = reader_of(write(tmp_path / "b.gpkg", [SQUARE, sliver], {"key": [3, 3]}), id="key")
    assert "`id: key` is no key: 3 stands at several" in twice.describe()["warnings"][0]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "a.gpkg", [SQUARE, SQUARE], {"key": [1, 0], "name": ["x", "y"], "part": [1.5, 2.0]})
    assert "unknown field 'kez'" in message(good, id="kez")
    assert "is 0 for some features" in message(good, id="key")
    assert "field of whole numbers, and the file has" in message(good, id="name")
    assert "field of whole numbers" in message(good, id="part")
    few = ReadLimits.model_construct(allocation_bytes=500)
    assert "2 features: 512 bytes in memory, the limit is 500" in message(good, limits=few)
    line = write(tmp_path / "l.gpkg", [shapely.LineString([(0, 0), (1, 1)])])
    assert "feature 1 is a LineString; only polygons are zones" in message(line)
    endless = write(tmp_path / "n.gpkg", [shapely.Polygon([(0, 0), (1, float("inf")), (1, 1)])])
    assert "polygon 1 has coordinates that are no numbers" in message(endless)
    pole = write(tmp_path / "p.geojson", [shapely.box(100, 80, 200, 95)], crs="EPSG:4326")
    assert "polygon 1 has no place in the raster's system" in message(pole)
    far = write(tmp_path / "f.gpkg", [SQUARE, shapely.box(0, 0, 1e300, 10)])
    for cover in ("centre", "all_touched", "fraction"):
        assert "polygon 2 has no place in the raster's system" in message(far, cover=cover)
    assert "no such file" in message(tmp_path / "b.gpkg")
    assert "polygons are read from .gpkg, .geojson" in message(tmp_path / "b.kml")
    with pytest.raises(InputError, match="files on this machine"):
        open_polygons(Input(vector="https://example.com/a.gpkg"), GRID)


def test_files_that_are_something_else_are_not_let_at_gdal(tmp_path: Path) -> None:
    recipe = tmp_path / "a.gpkg"
    recipe.write_text(
        "<OGRVRTDataSource><OGRVRTLayer name='x'><SrcDataSource>/etc</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    assert "is no GPKG, by how it begins" in message(recipe)
    for name in ("b.geojson", "b.fgb", "b.shp", "b.parquet"):
        (tmp_path / name).write_bytes(b"\0" * 200)
        assert "by how it begins" in message(tmp_path / name)
    for name, head in (
        ("c.fgb", b"fgb\x03fgb\0"),
        ("c.parquet", b"PAR1"),
        ("c.geojson", b"{"),
        ("c.gpkg", b"SQLite format 3\0"),
    ):
        (tmp_path / name).write_bytes(head + b"\x7f" * 300)
        message(tmp_path / name)
    esri = tmp_path / "d.geojson"
    esri.write_text('{"displayFieldName": "", "geometryType": "esriGeometryPolygon", "fields": [], "features": []}')
    message(esri)
    for cut in (100, 3000, 60_000):
        whole = write(tmp_path / f"whole{cut}.gpkg", stars()).read_bytes()
        (tmp_path / f"cut{cut}.gpkg").write_bytes(whole[:cut])
        message(tmp_path / f"cut{cut}.gpkg")


def test_a_geojson_does_not_make_gdal_ask_a_server(tmp_path: Path) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        path = tmp_path / "a.geojson"
        where = {"href": f"http://127.0.0.1:{server.server_port}/crs", "type": "ogcwkt"}
        feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(SQUARE))}
        crs = {"type": "link", "properties": where}
        path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
        with suppress(InputError):
            reader_of(path)
        assert not asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_that_is_changed_is_another_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.shp", [SQUARE], {"key": [4]})
    reader = reader_of(path, id="key")
    sent, known = pickle.dumps(reader), reader.identity()
    assert reader_of(path).identity() != known
    assert reader_of(path, id="key").identity() == known
    write(path, [SQUARE], {"key": [5]})  # the shapes are as they were
    assert reader_of(path, id="key").identity() != known
    with pytest.raises(InputChanged):
        pickle.loads(sent)


# --- in a pipeline --------------------------------------------------------------------------------------------


def pipeline(folder: Path, fields: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    placed_tiff(folder / "image.tif", pixels((60, 50), "uint16"))
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "fields", "statistics": ["count", "sum"]}
    return {
        "inputs": {"image": str(folder / "image.tif"), "fields": fields, **inputs},
        "steps": [step],
        "output": {"path": str(folder / "out.zarr")},
    }


def test_label_stats_mask_and_calc_read_polygons_in_any_layout(tmp_path: Path) -> None:
    shapes = stars()
    document = pipeline(tmp_path, {"vector": str(write(tmp_path / "a.gpkg", shapes)), "overlap": "last"})
    document["steps"] += [
        {"name": "cut", "op": "mask", "input": "image", "inputs": {"f": "fields"}, "where": "f > 3"},
        {"name": "more", "op": "calc", "inputs": {"a": "image", "f": "fields"}, "expression": "a + 1000 * f"},
    ]
    labels, image = gdal(shapes, list(range(1, 13))).astype(np.int64), pixels((60, 50), "uint16").astype(np.int64)
    ids = np.unique(labels[labels > 0])
    for number, run in enumerate(({}, {"workers": 3, "memory": "700 MiB"})):
        document["output"] = {"path": str(tmp_path / f"{number}.zarr"), "chunks": [16 + number, 32]}
        facts = api.run({**document, "run": run})
        assert any("such a pixel is of the last" in note for note in facts.warnings)
        out = Path(document["output"]["path"])
        cut, more = (harness.read(out, f"{name}/value")[0] for name in ("cut", "more"))
        assert (cut[labels > 3] == image[labels > 3]).all()
        np.testing.assert_array_equal(more, np.where(labels > 0, image + 1000.0 * labels, np.nan))
        table = {name: harness.read(out, f"zones/table/{name}", is_table=True) for name in ("label", "pixels", "sum")}
        np.testing.assert_array_equal(table["label"], ids)
        np.testing.assert_array_equal(table["pixels"], [(labels == i).sum() for i in ids])
        np.testing.assert_array_equal(table["sum"][:, 0], [image[labels == i].sum() for i in ids])
        assert api.verify(out).agrees


@pytest.mark.parametrize(
    ("fields", "inputs", "words"),
    [
        ({"bands": [1]}, {}, "`bands` is of rasters; polygons take layer, where, id, value, cover, overlap and match"),
        ({"match": "imag"}, {}, "unknown raster 'imag'"),
        ({"vector": None, "path": "a.tif", "layer": "x"}, {}, "`layer` is of polygons, and there is no `vector: FILE`"),
    ],
)
def test_fields_that_do_not_go_together(
    tmp_path: Path, fields: dict[str, Any], inputs: dict[str, Any], words: str
) -> None:
    entry = {"vector": str(write(tmp_path / "a.gpkg", [SQUARE]))} | fields
    with pytest.raises(RasterpipeError, match=words):
        api.plan(pipeline(tmp_path, {k: v for k, v in entry.items() if v is not None}, **inputs))


def test_polygons_need_a_raster(tmp_path: Path) -> None:
    document = pipeline(tmp_path, {"vector": str(write(tmp_path / "a.gpkg", [SQUARE]))})
    document["inputs"]["image"] = {"vector": document["inputs"]["fields"]["vector"]}
    with pytest.raises(PipelineError, match="no input is one; add it"):
        api.plan(document)
