"""GeoTIFFs out: what a file says comes back to the bit, and nothing half-finished is taken for a result."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import pipeline
from pipeline import api
from pipeline.cli.main import main
from pipeline.model.alignment import spacing_metres
from pipeline.model.errors import OutputError, PipelineError, RunInterrupted, RunStopped
from pipeline.model.raster import RasterSpec
from pipeline.output.provenance import provenance_of
from pipeline.storage.folder import disk
from pipeline.storage.georeference import geokeys, geokeys_format, geokeys_parse
from pipeline.storage.georeference.geotiff_format import spell
from pipeline.storage.open import open_raster
from pipeline.storage.tiff import writer as tiff_writer
from pipeline.storage.tiff.reader import TiffReader
from pipeline.storage.tiff.tiling import plan_tiles
from pipeline.verbs import run as run_module
from tests import harness
from tests.georeference import assert_same_crs
from tests.sources import SHARED

SMALL = [("run.memory", "600 MiB", "--memory"), ("run.workers", 2, "--workers")]
PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
KEPT = (*PLACE, 42112, 42113, 320, 262, 338)

SYSTEMS = (
    "EPSG:32632",
    "EPSG:4326",
    "EPSG:3035",
    "+proj=laea +lat_0=40 +lon_0=-100 +ellps=sphere +units=m",
    "+proj=tmerc +lat_0=10 +lon_0=9.5 +k=0.9993 +x_0=500000 +y_0=10 +datum=WGS84 +units=m",
    "+proj=lcc +lat_1=40 +lat_2=50 +lat_0=45 +lon_0=9 +x_0=100 +y_0=50 +datum=WGS84 +units=us-ft",
    "+proj=lcc +lat_1=40 +lat_0=40 +lon_0=9 +k_0=0.999 +datum=NAD83",
    "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +datum=NAD83",
    "+proj=sinu +lon_0=0 +R=6371007.181 +units=m",
    "+proj=stere +lat_0=90 +lat_ts=71 +lon_0=-45 +datum=WGS84",
    "+proj=stere +lat_0=-90 +k=0.994 +lon_0=10 +datum=WGS84",
    "+proj=stere +lat_0=50 +lon_0=10 +k=0.9 +datum=WGS84",
    "+proj=merc +lon_0=10 +k=0.9 +datum=WGS84",
    "+proj=merc +lat_ts=20 +lon_0=10 +datum=WGS84",
    "+proj=longlat +ellps=bessel",
    "+proj=eqc +lat_ts=10 +lon_0=5 +datum=WGS84",
    "+proj=aeqd +lat_0=50 +lon_0=5 +datum=WGS84",
    "+proj=sterea +lat_0=50 +lon_0=5 +k=.9 +datum=WGS84",
    "+proj=cea +lat_ts=30 +datum=WGS84",
    "+proj=robin +datum=WGS84",
    "+proj=cass +lat_0=5 +lon_0=3 +ellps=bessel",
    "+proj=poly +lat_0=5 +lon_0=3 +datum=WGS84",
    "+proj=utm +zone=32 +ellps=bessel",
    "+proj=eqdc +lat_1=20 +lat_2=60 +lat_0=40 +lon_0=-96 +datum=WGS84",
)
BEYOND = (
    "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +k=0.99 +x_0=0 +y_0=0 +gamma=53.1 +datum=WGS84",
    "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84",
    "EPSG:32632+5773",
)
"""What geokeys, or ours, cannot say."""


# --- coordinate systems ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SYSTEMS)
def test_geokeys_say_the_coordinate_system(text: str) -> None:
    system = pyproj.CRS(text)
    keys, is_whole = geokeys_format.format_crs(system.to_wkt())
    assert is_whole
    messages: list[str] = []
    again = geokeys_parse.parse_crs(geokeys.to_tags(keys), messages)
    assert messages == []
    assert again is not None
    assert_same_crs(pyproj.CRS(again), system)


@pytest.mark.parametrize("text", BEYOND)
def test_what_geokeys_cannot_say_stands_in_the_metadata(tmp_path: Path, text: str) -> None:
    wkt = pyproj.CRS(text).to_wkt()
    assert not geokeys_format.format_crs(wkt)[1]
    store = make_store(tmp_path / "a.zarr", crs_wkt=wkt, geo_transform="0 10 0 0 0 -10")
    facts = api.convert(store, tmp_path / "a.tif", limits=SMALL)
    assert any("more than geokeys can say" in line for line in facts["geotiffs"][0]["warnings"])
    assert pyproj.CRS(TiffReader.open(tmp_path / "a.tif").spec.crs).equals(pyproj.CRS(wkt))


def test_a_projection_given_by_its_code() -> None:
    """What GDAL writes for a zone of UTM on a datum of its own."""
    directory = (1, 1, 0, 4, 1024, 0, 1, 1, 2048, 0, 1, 4314, 3072, 0, 1, 32767, 3074, 0, 1, 16033)
    messages: list[str] = []
    crs = geokeys_parse.parse_crs({34735: directory}, messages)
    assert messages == []
    assert crs is not None
    assert_same_crs(pyproj.CRS(crs), pyproj.CRS("+proj=utm +zone=33 +ellps=bessel"))
    assert pyproj.CRS(crs).geodetic_crs.to_epsg() == 4314


def test_unknown_systems_leave_the_keys_out() -> None:
    assert geokeys_format.format_crs("nonsense") == ({}, False)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (-0.5, "-0.5"), (1e30, "1e+30"), (math.inf, "inf")])
def test_numbers_are_spelled_short(value: float, text: str) -> None:
    assert spell(value) == text


# --- round trips -------------------------------------------------------------------------------------------------


def make_store(path: Path, crs_wkt: str = "", geo_transform: str = "", dtype: str = "uint8", bands: int = 1) -> Path:
    """Write a store as others write it: CF's grid mapping, nothing of ours."""
    group = zarr.create_group(path)
    shape, dims = ((20, 30), ("y", "x")) if bands == 1 else ((bands, 20, 30), ("band", "y", "x"))
    values = np.arange(math.prod(shape)).reshape(shape) % 99
    array = group.create_array("image", data=values.astype(dtype), dimension_names=dims)
    array.attrs["grid_mapping"] = "crs"
    mapping = group.create_array("crs", shape=(), dtype="int64")
    mapping.attrs.update({"crs_wkt": crs_wkt, "GeoTransform": geo_transform})
    return path


def tag(code: int, *values: Any) -> tuple[int, int, int, Any, bool]:
    if isinstance(values[0], str):
        return code, 2, 0, values[0], True
    return code, 3 if code == 34735 else 12, len(values), values, True


UTM = tag(34735, 1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
POINT = tag(34735, 1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32632)
SCALE, TIE = tag(33550, 10.1, 9.7, 0.0), tag(33922, 0.0, 0.0, 0.0, 500000.3, 6e6 + 0.7, 0.0)
ROTATED = tag(34264, 10.0, 1.3, 0.0, 5e5, 1.1, -10.0, 0.0, 6e6, *[0.0] * 7, 1.0)
SOUTH = tag(34264, 10.0, 0.0, 0.0, 5e5, 0.0, 10.0, 0.0, 6e6, *[0.0] * 7, 1.0)
CUSTOM = [tag(code, *((value,) if isinstance(value, str) else value)) for code, value in geokeys.to_tags(
    geokeys_format.format_crs(pyproj.CRS(SYSTEMS[3]).to_wkt())[0]
).items()]  # fmt: skip
UNREAD = tag(34735, 1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32767, 3075, 0, 1, 9999)
CONTROL = tag(33922, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 30.0, 20.0, 0.0, 9.0, 2.5, 0.0, 0.0, 20.0, 0.0, 1.0, 7.0, 0.0)
DESCRIBED = (
    '<GDALMetadata>\n  <Item name="FOO">bar</Item>\n  <Item name="OFFSET" sample="0" role="offset">1</Item>\n'
    '  <Item name="SCALE" sample="0" role="scale">0.1</Item>\n'
    '  <Item name="UNITTYPE" sample="0" role="unittype">m</Item>\n'
    '  <Item name="DESCRIPTION" sample="0" role="description">ü&amp;lt;&amp;amp;&amp;gt;</Item>\n'
    '  <Item name="y" domain="NS">2</Item>\n</GDALMetadata>\n'
)

CASES: dict[str, dict[str, Any]] = {
    "an EPSG code": {"extratags": [UTM, SCALE, TIE]},
    "a system of its own": {"extratags": [*CUSTOM, SCALE, TIE]},
    "a system nobody reads": {"extratags": [UNREAD, SCALE, TIE]},
    "rotated": {"extratags": [UTM, ROTATED]},
    "south up": {"extratags": [UTM, SOUTH]},
    "pixel is point": {"extratags": [POINT, SCALE, TIE]},
    "pixel is point, rotated": {"extratags": [POINT, ROTATED]},
    "one row": {"extratags": [UTM, SCALE, TIE], "shape": (1, 30)},
    "one column": {"extratags": [UTM, SCALE, TIE], "shape": (20, 1)},
    "NaN is nodata": {"extratags": [tag(42113, "nan")], "dtype": "float32"},
    "a number is nodata": {"extratags": [tag(42113, "-9999")], "dtype": "float32"},
    "zero is nodata": {"extratags": [tag(42113, "0")], "dtype": "float64"},
    "nothing is nodata": {"dtype": "float32"},
    "nodata that no byte can be": {"extratags": [tag(42113, "-9999")]},
    "nodata beyond float32": {"extratags": [tag(42113, "-1.7976931348623157e+308")], "dtype": "float32"},
    "nodata with many digits": {"extratags": [tag(42113, "-3.39999999999999996e+38")], "dtype": "float32"},
    "no place at all": {},
    "a transform alone": {"extratags": [SCALE, TIE]},
    "control points": {"extratags": [UTM, CONTROL]},
    "a colour table": {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
    "names, scale, units": {"extratags": [tag(42112, DESCRIBED)], "dtype": "int16"},
    "int8": {"dtype": "int8"},
    "uint16": {"dtype": "uint16", "tile": (16, 16)},
    "int32": {"dtype": "int32"},
    "uint64": {"dtype": "uint64"},
    "float64": {"dtype": "float64"},
    "3 bands, contiguous": {"shape": (20, 30, 3), "planarconfig": "contig", "photometric": "rgb"},
    "4 bands, separate": {"shape": (4, 20, 30), "planarconfig": "separate", "photometric": "rgb", "extrasamples": (2,)},
    "200 bands, contiguous": {"shape": (20, 30, 200), "planarconfig": "contig"},
    "200 bands, separate": {"shape": (200, 20, 30), "planarconfig": "separate", "dtype": "float32"},
}


def tags_of(path: Path) -> dict[int, str]:
    """Return what a file says of its raster, but for the statistics of its pixels."""
    with tifffile.TiffFile(path) as tif:
        found = {code: str(tif.pages.first.tags.valueof(code)) for code in KEPT}
    return found | {42112: without_statistics(found[42112])}


def without_statistics(text: str) -> str:
    left = re.sub(r' *<Item name="STATISTICS_[^>]*>[^<]*</Item>\n', "", text)
    return "None" if left.split() == ["<GDALMetadata>", "</GDALMetadata>"] else left


def make_tiff(path: Path, case: dict[str, Any]) -> np.ndarray:
    options = {"photometric": "minisblack", "metadata": None, "dtype": "uint8", "shape": (20, 30)} | case
    shape, dtype = options.pop("shape"), np.dtype(options.pop("dtype"))
    rng = np.random.default_rng(3)
    values = (rng.integers(0, 100, shape) if dtype.kind != "f" else rng.normal(size=shape)).astype(dtype)
    if dtype.kind == "f":
        values.flat[:4] = np.nan, -9999, -0.0, np.inf
    options["extratags"] = [
        (code, kind, len(data := value.encode() + b"\0"), data, once) if isinstance(value, str) else each
        for each in options.get("extratags", ())
        for code, kind, _, value, once in [each]
    ]
    tifffile.imwrite(path, values, **options)
    return values


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(tmp_path: Path, name: str) -> None:
    values = make_tiff(tmp_path / "a.tif", CASES[name])
    api.convert(tmp_path / "a.tif", tmp_path / "a.zarr", limits=SMALL)
    facts = api.convert(tmp_path / "a.zarr", tmp_path / "b.tif", limits=SMALL)
    again = tifffile.imread(tmp_path / "b.tif")
    assert again.dtype == values.dtype
    if CASES[name].get("planarconfig") == "contig":  # bands come first in a store that is made of a TIFF
        again = np.moveaxis(again, 0, -1)
    assert again.reshape(values.shape).tobytes() == values.tobytes()
    assert tags_of(tmp_path / "b.tif") == tags_of(tmp_path / "a.tif")
    assert facts["output"] == str(tmp_path / "b.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.zarr", "b.tif"]


@pytest.mark.parametrize("code", [3, 999])
def test_a_meaning_of_a_band_that_tiff_does_not_know_is_none(tmp_path: Path, code: int) -> None:
    """What tifffile refuses to write would end a run whose store is complete."""
    values = make_tiff(tmp_path / "a.tif", {"shape": (20, 30, 4), "photometric": "rgb", "extrasamples": (2,)})
    data, alpha = (tmp_path / "a.tif").read_bytes(), struct.pack("<HHIH", 338, 3, 1, 2)
    assert data.count(alpha) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(alpha, alpha[:-2] + struct.pack("<H", code)))
    api.convert(tmp_path / "a.tif", tmp_path / "b.tif", limits=SMALL)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert list(tif.pages.first.extrasamples) == [0]
    np.testing.assert_array_equal(np.moveaxis(tifffile.imread(tmp_path / "b.tif"), 0, -1), values)


@pytest.mark.parametrize("name", ["RGB.byte.tif", "float_raster_with_nodata.tif"])
def test_real_files_there_and_back(tmp_path: Path, name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the shared data file {path}, which is absent")
    api.convert(path, tmp_path / "a.zarr", limits=SMALL)
    api.convert(tmp_path / "a.zarr", tmp_path / "b.tif", limits=SMALL)
    bands = TiffReader.open(path).spec.num_bands
    values, again = tifffile.imread(path), tifffile.imread(tmp_path / "b.tif")
    assert (again if bands == 1 else np.moveaxis(again, 0, -1)).tobytes() == values.tobytes()
    places = [{code: tags_of(each)[code] for code in (*PLACE, 42113)} for each in (path, tmp_path / "b.tif")]
    assert places[0] == places[1]


def test_a_part_has_its_own_place(tmp_path: Path) -> None:
    make_tiff(tmp_path / "a.tif", {"extratags": [POINT, SCALE, TIE]})
    whole = TiffReader.open(tmp_path / "a.tif").spec
    assert whole.transform is not None
    document = pipeline_of(tmp_path / "a.tif", tmp_path / "b.tif", {"name": "few", "op": "select", "bands": [1]})
    pipeline.run(document | {"region": {"rows": [3, 9], "columns": [2, 30]}})
    part = TiffReader.open(tmp_path / "b.tif").spec
    a, _, c, _, e, f = whole.transform
    assert part.transform == pytest.approx((a, 0, c + 2 * a, 0, e, f + 3 * e), rel=1e-15)
    assert tags_of(tmp_path / "b.tif")[34735] == tags_of(tmp_path / "a.tif")[34735]


def test_control_points_and_coefficients_of_a_part_move_along(tmp_path: Path) -> None:
    """A part whose points all lie inside was once given those of the whole."""
    tied = (5.0, 6.5, 0.0, 1.0, 2.0, 3.0, 9.0, 7.0, 0.0, 9.0, 2.5, 0.0, 8.0, 12.0, 0.0, 1.0, 7.0, 0.0)
    make_tiff(tmp_path / "a.tif", {"extratags": [UTM, tag(33922, *tied), tag(50844, *map(float, range(92)))]})
    for target in ("b.tif", "b.zarr", "c.tif"):
        source = tmp_path / ("b.zarr" if target == "c.tif" else "a.tif")
        part = {} if target == "c.tif" else {"region": {"rows": [3, 20], "columns": [2, 30]}}
        api.convert(source, tmp_path / target, limits=SMALL, **part)
    for target in ("b.tif", "c.tif"):
        with tifffile.TiffFile(tmp_path / target) as tif:
            moved, rpc = (tif.pages.first.tags.valueof(code) for code in (33922, 50844))
        assert moved == tuple(value - {0: 2, 1: 3}.get(i % 6, 0) for i, value in enumerate(tied))
        assert rpc == tuple(value - {2: 3, 3: 2}.get(i, 0) for i, value in enumerate(map(float, range(92))))


def test_computed_values_have_no_colour_table_and_no_scale(tmp_path: Path) -> None:
    make_tiff(
        tmp_path / "a.tif", CASES["names, scale, units"] | {"extratags": [tag(42112, DESCRIBED), UTM, SCALE, TIE]}
    )
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["var"]}
    pipeline.run(pipeline_of(tmp_path / "a.tif", tmp_path / "b.tif", step))
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        text = str(tif.pages.first.tags.valueof(42112))
    assert "DESCRIPTION" in text
    assert "SCALE" not in text
    assert TiffReader.open(tmp_path / "b.tif").spec.crs == "EPSG:32632"


@pytest.mark.parametrize("dims", ["y,x,band", "band,y,x"])
def test_stores_of_others(tmp_path: Path, dims: str) -> None:
    store = make_store(tmp_path / "a.zarr", pyproj.CRS(3035).to_wkt(), "5 10 0 7 0 -10", bands=5)
    api.convert(store, tmp_path / "b.zarr", output={"dims": dims, "chunks": [7, 9], "codec": "small"}, limits=SMALL)
    api.convert(tmp_path / "b.zarr", tmp_path / "b.tif", limits=SMALL)
    spec = TiffReader.open(tmp_path / "b.tif").spec
    assert pyproj.CRS(spec.crs) == pyproj.CRS(3035)
    assert (spec.transform, spec.num_bands, ",".join(spec.dims)) == ((10, 0, 5, 0, -10, 7), 5, dims)
    expected = zarr.open_array(store, path="image")[...]
    found = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(found if dims == "band,y,x" else np.moveaxis(found, -1, 0), expected)


def test_rasterio_reads_and_writes_the_same(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    values = np.random.default_rng(0).integers(0, 200, (3, 50, 70)).astype("uint16")
    options = {"driver": "GTiff", "height": 50, "width": 70, "count": 3, "dtype": "uint16", "nodata": 7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transform = rasterio.transform.from_origin(500000, 6000000, 10, 20)
        with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:25833", transform=transform, **options) as file:
            file.write(values)
            file.descriptions = ("red", "green", "nir")
            file.scales, file.units = (0.1,) * 3, ("m",) * 3
        api.convert(tmp_path / "a.tif", tmp_path / "a.zarr", limits=SMALL)
        api.convert(tmp_path / "a.zarr", tmp_path / "b.tif", limits=SMALL)
        with rasterio.open(tmp_path / "a.tif") as first, rasterio.open(tmp_path / "b.tif") as second:
            np.testing.assert_array_equal(second.read(), values)
            for fact in ("crs", "transform", "nodata", "descriptions", "scales", "offsets", "units", "colorinterp"):
                assert getattr(first, fact) == getattr(second, fact), fact


@pytest.mark.parametrize("crs", ["EPSG:25833", SYSTEMS[3]])
def test_rioxarray_opens_the_store_georeferenced(tmp_path: Path, crs: str) -> None:
    pytest.importorskip("rioxarray", reason="rioxarray is not installed")
    import xarray

    keys = geokeys.to_tags(geokeys_format.format_crs(pyproj.CRS(crs).to_wkt())[0])
    place = [tag(code, *((value,) if isinstance(value, str) else value)) for code, value in keys.items()]
    make_tiff(tmp_path / "a.tif", {"extratags": [*place, SCALE, TIE, tag(42113, "7")]})
    api.convert(tmp_path / "a.tif", tmp_path / "a.zarr", limits=SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"group": "raster", "decode_coords": "all", "mask_and_scale": False}
        with xarray.open_zarr(tmp_path / "a.zarr", **options) as opened:
            raster = opened["value"]
            assert_same_crs(pyproj.CRS(raster.rio.crs.to_wkt()), pyproj.CRS(crs))
            assert tuple(raster.rio.transform())[:6] == TiffReader.open(tmp_path / "a.tif").spec.transform
            assert raster.rio.nodata == 7
            assert raster.x.values[0] == pytest.approx(500000.3 + 10.1 / 2)


def test_dtype_and_nodata(tmp_path: Path) -> None:
    make_tiff(tmp_path / "a.tif", {"extratags": [tag(42113, "5"), UTM, SCALE, TIE]})
    api.convert(tmp_path / "a.tif", tmp_path / "b.tif", dtype="float32", limits=SMALL)
    spec = TiffReader.open(tmp_path / "b.tif").spec
    assert (spec.dtype, str(spec.nodata)) == (np.float32, "nan")
    values, again = tifffile.imread(tmp_path / "a.tif").astype("float32"), tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(again, np.where(values == 5, np.nan, values))
    api.convert(tmp_path / "a.tif", tmp_path / "c.tif", nodata=255, limits=SMALL)
    assert (tifffile.imread(tmp_path / "c.tif") == 255).sum() == (values == 5).sum() > 0


# --- damaged headers ---------------------------------------------------------------------------------------------


def directory(*entries: tuple[int, int, int, int], version: int = 1, count: int | None = None) -> Any:
    numbers = (number for entry in entries for number in entry)
    return tag(34735, version, 1, 0, len(entries) if count is None else count, *numbers)


MODEL, AREA, ZONE = (1024, 0, 1, 1), (1025, 0, 1, 1), (3072, 0, 1, 32632)
DAMAGED: dict[str, tuple[list[Any], str, bool, bool]] = {
    "no tiepoint": ([UTM, SCALE], r"a part of it is missing: .* ModelTiepoint \(6\) absent", False, True),
    "no pixel scale": ([UTM, TIE], r"a part of it is missing: ModelPixelScale .* absent", False, True),
    "a scale of zero": ([UTM, tag(33550, 0.0, 10.0, 0.0), TIE], "a part of it is missing", False, True),
    "half a matrix": ([UTM, tag(34264, *[1.0] * 8)], "a part of it is missing", False, True),
    "not a number": ([UTM, tag(33550, math.nan, 10.0, 0.0), TIE], "cannot be inverted", False, True),
    "another version": ([directory(MODEL, AREA, ZONE, version=7), SCALE, TIE], "its header is", True, True),
    "fewer keys than said": ([directory(MODEL, AREA, ZONE, count=9), SCALE, TIE], "has 3 whole entries", True, True),
    "keys out of order": ([directory(AREA, MODEL, ZONE), SCALE, TIE], "not in their order", True, True),
    "text that is not there": (
        [directory(MODEL, AREA, (1026, 34737, 9, 50), ZONE), tag(34737, "WGS 84|"), SCALE, TIE],
        r"what its keys \[1026\] refer to is not there",
        True,
        True,
    ),
    "a raster type that is none": ([directory(MODEL, (1025, 0, 1, 9), ZONE), SCALE, TIE], "raster type", True, True),
    "no directory": ([tag(34737, "WGS 84|"), SCALE, TIE], "it is missing", True, False),
    "a code that is none": ([directory(MODEL, AREA, (3072, 0, 1, 30000)), SCALE, TIE], "EPSG:30000 is in", True, False),
    "another unit": (
        [directory(MODEL, AREA, ZONE, (3076, 0, 1, 9003)), SCALE, TIE],
        r"units of EPSG:9003 \(key 3076\), those of EPSG:32632 are 1 m",
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_said(tmp_path: Path, name: str) -> None:
    tags, message, is_placed, has_crs = DAMAGED[name]
    make_tiff(tmp_path / "a.tif", {"extratags": tags})
    reader = TiffReader.open(tmp_path / "a.tif")
    assert any(re.search(message, line) for line in reader.describe()["warnings"]), reader.describe()["warnings"]
    assert (reader.spec.transform is not None, reader.spec.crs is not None) == (is_placed, has_crs)


@pytest.mark.parametrize("name", CASES)
def test_what_is_whole_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    make_tiff(tmp_path / "a.tif", CASES[name])
    said = " ".join(TiffReader.open(tmp_path / "a.tif").describe()["warnings"])
    assert not re.search("damaged|missing|cannot be inverted", said)


def test_the_unit_of_a_code_may_stand_beside_it(tmp_path: Path) -> None:
    feet = directory(MODEL, AREA, (3072, 0, 1, 2263), (3076, 0, 1, 9003))
    make_tiff(tmp_path / "a.tif", {"extratags": [feet, SCALE, TIE]})
    reader = TiffReader.open(tmp_path / "a.tif")
    assert (reader.spec.crs, reader.describe()["warnings"]) == ("EPSG:2263", [])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.tif.aux.xml", "<PAMDataset><SRS>x</SRS><GeoTransform>1</GeoTransform></PAMDataset>", "GeoTransform, SRS"),
        ("a.tfw", "10\n0\n0\n-10\n0\n0\n", "a.tfw beside it holds one"),
        ("a.wld", "10\n0\n0\n-10\n0\n0\n", "a.wld beside it holds one"),
    ],
)
def test_what_lies_beside_a_file_is_said(tmp_path: Path, name: str, text: str, words: str) -> None:
    make_tiff(tmp_path / "a.tif", {})
    (tmp_path / name).write_text(text)
    warnings = TiffReader.open(tmp_path / "a.tif").describe()["warnings"]
    assert len(warnings) == 1
    assert words in warnings[0]


def test_statistics_and_needless_world_files_are_not_said(tmp_path: Path) -> None:
    make_tiff(tmp_path / "a.tif", {"extratags": [UTM, SCALE, TIE]})
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n0\n0\n")
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI>1</MDI></Metadata></PAMDataset>")
    assert TiffReader.open(tmp_path / "a.tif").describe()["warnings"] == []


# --- the files of a run ------------------------------------------------------------------------------------------


def pipeline_of(source: Path, output: Path, *steps: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": str(source)},
        "steps": list(steps),
        "output": {"path": str(output), **options},
        "run": {"memory": "600 MiB", "workers": 2},
    }


TWO = {"name": "part", "op": "window", "size": 3, "statistics": ["min", "max"]}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    make_tiff(tmp_path / "a.tif", {"extratags": [UTM, SCALE, TIE], "shape": (200, 300)})
    return tmp_path / "a.tif"


def test_each_kept_raster_is_a_file(scene: Path, tmp_path: Path) -> None:
    document = pipeline_of(scene, tmp_path / "out.zarr", TWO, geotiff=str(tmp_path / "maps"))
    facts = pipeline.run(document)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["part_max.tif", "part_min.tif"]
    assert [Path(entry["path"]).name for entry in facts["geotiffs"]] == ["part_min.tif", "part_max.tif"]
    for name in ("min", "max"):
        stored = zarr.open_array(tmp_path / "out.zarr", path=f"part/{name}")[...]
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"maps/part_{name}.tif"), stored)
    with pytest.raises(OutputError, match=r"exists; --overwrite replaces it"):
        pipeline.run(document)
    assert pipeline.run(document, resume=True)["blocks"] == 0
    (tmp_path / "maps/part_max.tif").unlink()
    assert pipeline.run(document, resume=True)["blocks"] == 0
    assert (tmp_path / "maps/part_max.tif").exists()
    assert not (tmp_path / "out.zarr.work").exists()


def test_files_of_others_are_never_replaced(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/part_min.tif").write_bytes(scene.read_bytes())
    document = pipeline_of(scene, tmp_path / "out.zarr", TWO, geotiff=str(tmp_path / "maps"))
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"part_min\.tif: exists and is not an output of rasterpipe"):
            pipeline.run(document, **flags)
    assert (tmp_path / "maps/part_min.tif").read_bytes() == scene.read_bytes()
    assert not (tmp_path / "out.zarr").exists()


def test_another_plan_does_not_replace_a_file(scene: Path, tmp_path: Path) -> None:
    def with_size(size: int) -> dict[str, Any]:
        step = {"name": "smooth", "op": "window", "size": size, "statistics": ["mean"]}
        return pipeline_of(scene, tmp_path / "b.tif", step)

    pipeline.run(with_size(3))
    before = (tmp_path / "b.tif").read_bytes()
    with pytest.raises(OutputError, match=r"exists; --overwrite replaces it"):
        pipeline.run(with_size(5))
    with pytest.raises(OutputError, match=r"of another plan: steps\[0\]\.size\[0\] was 3, is 5"):
        pipeline.run(with_size(5), resume=True)
    assert (tmp_path / "b.tif").read_bytes() == before
    pipeline.run(with_size(5), overwrite=True)
    assert (tmp_path / "b.tif").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("single", [True, False])
def test_what_stops_the_writing_loses_nothing(
    scene: Path, tmp_path: Path, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TWO | {"statistics": ["min"]}
    document = pipeline_of(scene, tmp_path / "b.tif", step)
    if not single:
        document = pipeline_of(scene, tmp_path / "b.zarr", step, geotiff=str(tmp_path))
    target = tmp_path / ("b.tif" if single else "part_min.tif")
    real: Callable[..., Any] = tiff_writer._encode
    calls = []

    def fail(*arguments: Any) -> bytes:
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return bytes(real(*arguments))

    monkeypatch.setattr(tiff_writer, "_encode", fail)
    with pytest.raises(RunStopped, match=r"No space left on device; the store .* is complete"):
        pipeline.run(document)
    monkeypatch.undo()
    assert not target.exists()
    assert not list(tmp_path.rglob("*partial*"))
    facts = pipeline.run(document, resume=True)
    assert facts["blocks"] == 0
    assert TiffReader.open(target).spec.shape == (200, 300)
    assert not list(tmp_path.glob("*.work"))


def test_what_was_killed_is_never_taken_for_whole(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The death of the process, at each step of putting a file in its place."""
    document = pipeline_of(scene, tmp_path / "b.tif", TWO | {"statistics": ["min"]})
    for name in ("sync_path", "remove_store"):
        with monkeypatch.context() as patch:
            if name == "sync_path":  # before the file is renamed; what is left is as a killed process leaves it
                patch.setattr(Path, "unlink", lambda *_, **__: None)
                patch.setattr(disk, "sync_path", lambda path: die() if path.name.startswith(".b.tif") else None)
            patch.setattr(run_module, "remove_store", die)
            with pytest.raises(RunInterrupted):
                pipeline.run(document, resume=True)
        assert (tmp_path / "b.tif").exists() == (name == "remove_store")
        assert len(list(tmp_path.glob(".b.tif.*.partial"))) == (name == "sync_path")
    assert pipeline.run(document, resume=True)["blocks"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def die(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_tif_holds_one_raster(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"a \.tif holds one raster, and 2 are kept \(part/min, part/max\)"):
        pipeline.run(pipeline_of(scene, tmp_path / "b.tif", TWO))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif"]


def test_an_input_is_never_the_output(scene: Path) -> None:
    before = scene.read_bytes()
    for flags in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match="is also an input"):
            pipeline.run(pipeline_of(scene, scene, TWO | {"statistics": ["min"]}), **flags)
    assert scene.read_bytes() == before


def test_provenance(scene: Path, tmp_path: Path) -> None:
    facts = pipeline.run(pipeline_of(scene, tmp_path / "b.tif", TWO | {"statistics": ["min"]}))
    record = json.loads(tiff_writer.read_description(tmp_path / "b.tif") or "")["rasterpipe"]
    assert (record["plan_hash"], record["complete"], record["raster"]) == (facts["plan_hash"], True, "part/min")
    assert record["config"]["steps"][0]["size"] == [3, 3] or record["config"]["steps"][0]["size"] == 3


def test_the_record_of_a_file_publishes_no_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data" / "a.tif", np.arange(600, dtype="uint8").reshape(20, 30), metadata=None)
    (tmp_path / "kernel.csv").write_text("1,2,1\n")
    document = {
        "inputs": {"image": str(tmp_path / "data" / "a.tif"), "pair": {"stack": [str(tmp_path / "data" / "a.tif")]}},
        "steps": [
            {"name": "a", "op": "convolve", "input": "image", "kernel": str(tmp_path / "kernel.csv")},
            {"name": "b", "op": "calc", "inputs": {"x": "a", "y": "pair"}, "expression": "x + y"},
        ],
        "output": {"path": str(tmp_path / "out.zarr"), "geotiff": str(tmp_path / "maps"), "keep": ["b"]},
        "run": {"scratch": str(tmp_path / "data")},
    }
    pipeline.run(document, quiet=True)
    path = tmp_path / "maps" / "b.tif"
    text = tiff_writer.read_description(path) or ""
    assert str(tmp_path) not in text
    assert json.loads(text)["rasterpipe"]["config"]["inputs"]["image"]["path"] == "${file}/../data/a.tif"
    (tmp_path / "link").symlink_to(tmp_path / "maps")
    for place in (path, tmp_path / "link" / "b.tif"):
        record = provenance_of(place)
        assert record is not None
        assert record["config"]["inputs"]["image"]["path"] == str(tmp_path / "data" / "a.tif")
        assert api.verify(str(place))["agrees"]
    shutil.rmtree(tmp_path / "out.zarr")
    shutil.move(tmp_path, moved := tmp_path.with_name("moved"))  # a project goes elsewhere, as a whole
    assert api.verify(str(moved / "maps" / "b.tif"))["agrees"]


POSTER = {"outputs": ["index", "color"]}


def test_bands_are_described_by_what_they_are(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", bands=2)
    zarr.open_group(store)["image"].attrs["long_name"] = ["red", "nir"]
    plain, alone = (make_store(tmp_path / f"{bands}.zarr", bands=bands) for bands in (2, 1))
    texture = {"op": "window", "size": 3, "statistics": ["mean", "std"]}
    steps = [
        {"name": "ndvi", "op": "calc", "input": "image", "expression": "(nir - red) / (nir + red)"},
        {"name": "texture", "input": "ndvi", **texture},
        {"name": "slope", "op": "gradient", "input": "image", "spacing": 1, "outputs": ["dy"]},
        {"name": "one", "op": "select", "input": "image", "bands": ["nir"]},
        {"name": "half", "op": "calc", "input": "one", "expression": "one / 2"},
        {"name": "both", "op": "calc", "input": "image", "expression": "image / 2"},
        {"name": "soft", "op": "gaussian", "input": "image", "sigma": 1},
        {
            "name": "poster",
            "op": "quantize",
            "input": "image",
            "palette": [[0, 0], [9, 9]],
            "outputs": ["index", "color"],
        },
        {"name": "plain_texture", "input": "plain", **texture},
        {"name": "plain_soft", "op": "gaussian", "input": "plain", "sigma": 1},
        {"name": "alone_texture", "input": "alone", **texture},
        {"name": "alone_half", "op": "calc", "input": "alone", "expression": "b1 / 2"},
        {"name": "bank", "op": "gabor", "input": "alone", "frequencies": [0.2], "orientations": [0, 45]},
    ]
    output = {"path": str(tmp_path / "b.zarr"), "geotiff": str(tmp_path / "maps")}
    output["keep"] = [step["name"] for step in steps]  # type: ignore[assignment]
    inputs = {"image": str(store), "plain": str(plain), "alone": str(alone)}
    pipeline.run({"inputs": inputs, "steps": steps, "output": output}, quiet=True)
    due = {
        "ndvi": ("ndvi",),
        "texture_mean": ("ndvi mean",),
        "texture_std": ("ndvi std",),
        "slope_dy": ("red dy", "nir dy"),
        "one": ("nir",),
        "half": ("half",),
        "both": ("red", "nir"),
        "soft": ("red", "nir"),
        "poster_index": ("index",),
        "poster_color": ("red color", "nir color"),
        "plain_texture_mean": ("b1 mean", "b2 mean"),
        "plain_texture_std": ("b1 std", "b2 std"),
        "plain_soft": (None, None),
        "alone_texture_mean": ("mean",),
        "alone_texture_std": ("std",),
        "alone_half": ("alone_half",),
        "bank_response": ("b1 f=0.2 o=0 response", "b1 f=0.2 o=45 response"),
    }
    assert sorted(path.stem for path in (tmp_path / "maps").iterdir()) == sorted(due)
    for name, names in due.items():
        path = tmp_path / "maps" / f"{name}.tif"
        with tifffile.TiffFile(path) as tif:
            items = re.findall(r'sample="(\d)" role="description">(.*?)<', str(tif.pages.first.tags.valueof(42112)))
        assert items == [(str(band), text) for band, text in enumerate(names) if text], name
        assert api.verify(str(path), samples=1)["agrees"]
    assert zarr.open_group(tmp_path / "b.zarr")["alone_half/value"].attrs["geotiff"] == {"band": "alone_half"}


SAME, NONE = ("m", "K"), ("", "")
STATISTICS = ["mean", "sum", "var", "std", "min", "max", "range", "count", "median"]
UNITS: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "window": (
        {"size": 3, "statistics": STATISTICS, "percentiles": [10]},
        {**dict.fromkeys([*STATISTICS, "p10"], SAME), "var": NONE, "count": NONE},
    ),
    "gaussian": ({"sigma": 1}, {"value": SAME}),
    "gaussian ": ({"sigma": 1, "order": [0, 1]}, {"value": NONE}),
    "convolve": ({"kernel": [[1, 2, 1]]}, {"value": NONE}),
    "convolve ": ({"kernel": [[1, 2, 1]], "normalize": True}, {"value": SAME}),
    "cast": ({"dtype": "float64"}, {"value": SAME}),
    "cast ": ({"dtype": "float64", "scale": 2}, {"value": NONE}),
    "select": ({"bands": [2, 1]}, {"value": ("K", "m")}),
    "mask": ({"where": "input > 5"}, {"value": SAME}),
    "calc": ({"expression": "input * 2"}, {"value": NONE}),
    "gradient": (
        {"spacing": 1, "outputs": ["dy", "direction"]},
        {"dy": NONE, "direction": ("degree", "degree")},
    ),
    "hessian": ({"spacing": 1, "outputs": ["dyy"]}, {"dyy": NONE}),
    "terrain": (
        {"spacing": 1, "outputs": ["slope", "tri", "hillshade"]},
        {"slope": ("degree", "degree"), "tri": SAME, "hillshade": NONE},
    ),
    "gabor": ({"frequencies": 0.2, "orientations": 0}, {"response": NONE}),
    "label_stats": (
        {"labels": "labels", "statistics": ["mean", "var", "count"], "recolor": ["mean", "var", "count"]},
        {"mean": SAME, "var": NONE, "count": NONE},
    ),
    "quantize": (
        {"palette": [[0, 0], [9, 9]], "outputs": ["index", "color", "distance"]},
        {"index": ("",), "color": SAME, "distance": ("",)},
    ),
}


def make_measured(tmp_path: Path, scale: str = "") -> Path:
    text = "".join(f'<Item name="UNITTYPE" sample="{i}" role="unittype">{unit}</Item>' for i, unit in enumerate(SAME))
    tags = [tag(42112, f"<GDALMetadata>{text}{scale}</GDALMetadata>")]
    make_tiff(tmp_path / "a.tif", {"shape": (2, 20, 30), "planarconfig": "separate", "extratags": tags})
    make_tiff(tmp_path / "labels.tif", {"dtype": "int16"})
    return tmp_path / "a.tif"


def units_of(path: Path) -> tuple[str, ...]:
    facts = api.info(path)
    return tuple(facts.units or NONE[: facts.num_bands])


@pytest.mark.parametrize("name", UNITS)
def test_units_are_those_of_the_values(tmp_path: Path, name: str) -> None:
    options, due = UNITS[name]
    step = {"name": "s", "op": name.strip(), "input": "image", **options}
    document = pipeline_of(make_measured(tmp_path), tmp_path / "b.zarr", step, geotiff=str(tmp_path / "maps"))
    document["inputs"] |= {"labels": str(tmp_path / "labels.tif")} if name == "label_stats" else {}
    pipeline.run(document)
    for output, units in due.items():
        path = tmp_path / "maps" / ("s.tif" if output == "value" else f"s_{output}.tif")
        assert units_of(path) == units
        assert units_of(tmp_path / "b.zarr" / "s" / output) == units


def test_units_of_scaled_values(tmp_path: Path) -> None:
    """Values of which a tenth is in metres are not in metres."""
    source = make_measured(tmp_path, '<Item name="SCALE" sample="0" role="scale">0.1</Item>')
    step = {"name": "s", "op": "window", "size": 3, "statistics": ["mean"]}
    for number, (scale, due) in enumerate((("ignore", NONE), ("apply", SAME), ({"factor": 0.1}, NONE))):
        document = pipeline_of(source, tmp_path / f"{number}.tif", step)
        document["inputs"]["image"] = {"path": str(source), "scale": scale}
        pipeline.run(document)
        assert units_of(tmp_path / f"{number}.tif") == due
    api.convert(source, tmp_path / "c.tif", limits=SMALL)
    assert units_of(tmp_path / "c.tif") == SAME  # beside the scale


@pytest.mark.parametrize("names", [("a_b", "a"), ("A_B", "a")])
def test_two_rasters_of_one_file_name_are_refused(scene: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    steps = [
        {"name": names[0].replace("b", "mean").replace("B", "MEAN"), "op": "gaussian", "input": "image", "sigma": 1},
        {"name": names[1], "op": "window", "input": "image", "size": 3, "statistics": ["mean"]},
    ]
    document = pipeline_of(scene, tmp_path / "out.zarr", *steps, geotiff=str(tmp_path / "maps"))
    with pytest.raises(PipelineError, match=r"[aA]_(mean|MEAN)/value and a/mean would both be written as a_mean\.tif;"):
        pipeline.run(document)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif"]


def test_big_files_are_bigtiff(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_writer, "CLASSIC_BYTES", 200 * 300 - 1)
    api.convert(scene, tmp_path / "b.tif", limits=SMALL)
    assert TiffReader.open(tmp_path / "b.tif").describe()["format"] == "BigTIFF"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(scene))


def test_too_little_memory_is_refused(tmp_path: Path) -> None:
    spec = RasterSpec(20000, 20000, np.dtype("float64"), ("y", "x", "band"), tuple(f"b{i}" for i in range(3000)))
    tiling = plan_tiles(spec, (512, 512), 2, 0)
    assert (tiling.side, tiling.walk.piece_level) == (64, 0)
    assert tiling.num_bytes > 3 * 64 * 64 * spec.pixel_bytes


def test_bands_that_do_not_fit_together_are_read_in_groups() -> None:
    spec = RasterSpec(600, 600, np.dtype("float64"), ("band", "y", "x"), tuple(f"b{i}" for i in range(100)))
    tiling = plan_tiles(spec, (512, 512), 2, 100 * 2**20)
    assert tiling.num_bytes <= 100 * 2**20
    assert max(map(len, tiling.walk.groups)) < 100
    assert sum(tiling.walk.groups, ()) == tuple(range(100))


# --- the command -------------------------------------------------------------------------------------------------


def test_convert_on_the_command_line(tmp_path: Path) -> None:
    make_tiff(tmp_path / "a.tif", {"shape": (3, 40, 50), "planarconfig": "separate", "extratags": [UTM, SCALE, TIE]})
    source, target = str(tmp_path / "a.tif"), str(tmp_path / "b.zarr")
    sides = ["--chunks", "[20, 30]", "--dims", "y,x,band", "--bands", "[3, 1]", "--memory", "600 MiB"]
    done = CliRunner().invoke(main, ["convert", source, target, *sides, "--json", "-q"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [40, 50, 2]
    stored = zarr.open_array(target, path="raster/value")
    assert stored.chunks == (20, 30, 2)
    np.testing.assert_array_equal(np.moveaxis(stored[...], -1, 0), tifffile.imread(source)[[2, 0]])
    wrong = CliRunner().invoke(main, ["convert", source, str(tmp_path / "c.zarr"), "--chunks", "[0]"])
    assert wrong.exit_code == 3
    assert "--chunks [0]" in wrong.stderr
    missing = CliRunner().invoke(main, ["convert", str(tmp_path / "none.tif"), str(tmp_path / "c.zarr")])
    assert missing.exit_code == 4


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("recorded", [None, 7])
@pytest.mark.parametrize("target", ["a.tif", "a.zarr"])
def test_nodata_of_a_conversion(tmp_path: Path, dtype: str, recorded: int | None, target: str) -> None:
    values = np.arange(24, dtype=dtype).reshape(4, 6)
    tags = [] if recorded is None else [(42113, 2, 2, str(recorded), True)]
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack", metadata=None, extratags=tags)
    for nodata, due in ((0, 0), ("none", None)):
        for cast in (None, "int32", "float64") if dtype != "float32" else (None, "float64"):  # NaN is no integer
            facts = api.convert(tmp_path / "in.tif", tmp_path / target, nodata=nodata, dtype=cast, overwrite=True)
            floating = np.dtype(cast or dtype).kind == "f"
            path = tmp_path / target
            found = api.info(path)["nodata"]
            assert found == due or (due is None and floating and found == "nan"), facts
            reader = open_raster(str(path))
            out = np.empty(reader.spec.shape, reader.spec.dtype)
            reader.read(reader.spec.region, out)
            marked = np.where(values == recorded, 0, values) if nodata == 0 else values
            np.testing.assert_array_equal(out, marked)


# --- what others write of coordinate systems ----------------------------------------------------------------------


def parse_keys(**keys: Any) -> tuple[str | None, list[str]]:
    """Return the CRS of geokeys given by their numbers (``k1024=1``), and what is said of it."""
    messages: list[str] = []
    tags = geokeys.to_tags({int(key.removeprefix("k")): value for key, value in keys.items()})
    return geokeys_parse.parse_crs(tags, messages), messages


WEB_MERCATOR = (
    'PROJCS["WGS_1984_Web_Mercator_Auxiliary_Sphere",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",'
    '6378137.0,298.257223563]],PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],PROJECTION['
    '"Mercator_Auxiliary_Sphere"],PARAMETER["False_Easting",0.0],PARAMETER["False_Northing",0.0],PARAMETER['
    '"Central_Meridian",0.0],PARAMETER["Standard_Parallel_1",0.0],PARAMETER["Auxiliary_Sphere_Type",0.0],'
    'UNIT["Meter",1.0]]'
)
MERCATOR_KEYS = {"k2048": 4326, "k3074": 32767, "k3075": 7, "k3076": 9001, "k3080": 0.0, "k3082": 0.0, "k3083": 0.0}


@pytest.mark.parametrize("keys", [{}, MERCATOR_KEYS])
@pytest.mark.parametrize("place", ["k1026", "k3073"])
def test_web_mercator_of_arcgis(place: str, keys: dict[str, Any]) -> None:
    crs, messages = parse_keys(k1024=1, k3072=32767, **keys, **{place: f"ESRI PE String = {WEB_MERCATOR}"})
    assert (crs, messages) == ("EPSG:3857", [])


@pytest.mark.parametrize("code", [5070, 2056, 27700, 3395, 102001])
def test_pe_strings_of_projected_systems(code: int) -> None:
    system = pyproj.CRS(code if code < 100_000 else f"ESRI:{code}")
    crs, messages = parse_keys(k1024=1, k3072=32767, k1026="x", k3073="ESRI PE String = " + system.to_wkt("WKT1_ESRI"))
    assert messages == []
    assert_same_crs(pyproj.CRS(crs), system)


def test_pe_strings_of_geographic_systems_and_nonsense() -> None:
    text = pyproj.CRS(4267).to_wkt("WKT1_ESRI")
    assert parse_keys(k1024=2, k2048=32767, k2049=f"ESRI PE String = {text}") == ("EPSG:4267", [])
    crs, messages = parse_keys(k1024=2, k2048=32767, k2050=6267, k2049=f"ESRI PE String = {text[:50]}")
    assert crs is not None
    assert "the ESRI PE string is ignored: it cannot be read" in messages[0]


@pytest.mark.parametrize("keys", [{"k3072": 26917}, {"k3072": 32767, "k2048": 4269, "k3074": 16017}])
@pytest.mark.parametrize(
    ("word", "fits"), [("meters", True), ("international_FeeT", False), ("us_survey_feet", False), ("feet", False)]
)
def test_units_in_citations_of_imagine(keys: dict[str, Any], word: str, fits: bool) -> None:
    citation = f"IMAGINE GeoTIFF Support\nCopyright 1991\nProjection Name = UTM\nUnits = {word}\nGeoTIFF Units = x"
    for place in ("k1026", "k3073"):
        crs, messages = parse_keys(k1024=1, **keys, **{place: citation})
        assert (crs is not None, messages == []) == (fits, fits)
        assert fits or f"its citation says lengths in {word}" in messages[0]


@pytest.mark.parametrize(("unit", "degrees"), [(9101, 180 / math.pi), (9103, 1 / 60), (9104, 1 / 3600), (9105, 0.9)])
def test_angles_of_user_defined_systems(tmp_path: Path, unit: int, degrees: float) -> None:
    crs, messages = parse_keys(k1024=2, k2048=32767, k2049="x", k2050=6326, k2054=unit)
    assert messages == []
    assert pyproj.CRS(crs).axis_info[0].unit_conversion_factor == pytest.approx(math.radians(degrees), rel=1e-12)
    keys, is_whole = geokeys_format.format_crs(crs or "")
    assert (keys[2054], is_whole) == (unit, True)
    assert parse_keys(k1024=2, k2048=32767, k2050=6326, k2054=32767, k2055=math.radians(degrees))[0] is not None
    assert "angles are in units of" in parse_keys(k1024=2, k2048=4326, k2054=unit)[1][0]
    assert parse_keys(k1024=2, k2048=4326, k2054=9122) == ("EPSG:4326", [])
    place = RasterSpec(9, 9, np.dtype("u1"), transform=(0.001, 0, 10, 0, -0.001, 50), crs="EPSG:4326")
    other = (0.001 / degrees, 0, 10 / degrees, 0, -0.001 / degrees, 50 / degrees)
    np.testing.assert_allclose(
        spacing_metres(replace(place, transform=other, crs=crs))[0], spacing_metres(place)[0], rtol=1e-6
    )


@pytest.mark.parametrize("text", ["+proj=utm +zone=32 +datum=WGS84 +units=km", "+proj=laea +lat_0=52 +units=km"])
def test_lengths_in_kilometres(text: str) -> None:
    keys, is_whole = geokeys_format.format_crs(pyproj.CRS(text).to_wkt())
    assert (keys[3076], is_whole) == (9036, True)
    crs, messages = parse_keys(k1024=1, k3072=32767, k2048=4326, k3074=16032, k3076=9036)
    assert messages == []
    assert_same_crs(pyproj.CRS(crs), pyproj.CRS("+proj=utm +zone=32 +datum=WGS84 +units=km"))


def test_a_finished_file_and_its_table_are_not_made_again(tmp_path: Path) -> None:
    raster = harness.Raster(np.arange(64, dtype=np.uint8).reshape(8, 8), ("y", "x"))
    source = harness.store(raster, tmp_path / "in.zarr")
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]}
    document = {
        "inputs": {"image": source, "labels": f"{source}{harness.LABELS}"},
        "steps": [{**step, "table": str(tmp_path / "zones.csv")}],
        "output": {"path": str(tmp_path / "out.tif")},
    }
    api.run(document)
    facts = api.run(document, resume=True)
    assert (facts.blocks, facts.blocks_skipped) == (0, 2)
    (tmp_path / "zones.csv").unlink()
    assert api.run(document, resume=True).blocks == 2  # the store is gone that the table was made of
    assert (tmp_path / "zones.csv").exists()
