"""GDAL as the judge of what we write: stores opened by its own Zarr driver, and TIFFs there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest

from pipeline import api
from tests.georeference import assert_same_crs

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
transform = pytest.importorskip("rasterio.transform")

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}") for text in ("Dataset has no geotransform", "Use `@` matmul")
]
SMALL = [("run.memory", "600 MiB", "--memory"), ("run.workers", 2, "--workers")]
GDAL = tuple(int(number) for number in rasterio.__gdal_version__.split(".")[:2])
needs_zarr = pytest.mark.skipif(
    GDAL < (3, 12), reason=f"GDAL {rasterio.__gdal_version__} does not read Zarr v3 as written here; 3.12 does"
)

NORTH_UP = transform.Affine(10.1, 0, 500_000.3, 0, -9.7, 6_000_000.7)
DEGREES = transform.Affine(0.001, 0, 5, 0, -0.0007, 50)
SPHERE = "+proj=laea +lat_0=40 +lon_0=-100 +ellps=sphere +units=m"
OBLIQUE = "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +k=0.99 +gamma=53.1 +datum=WGS84"
BESSEL = "+proj=utm +zone=33 +ellps=bessel +towgs84=598,73,418,0.2,0.04,-2.4,6.7"


def make(path: Path, **case: Any) -> None:
    """Write a file by GDAL; `case` are its options, and what is set once it is open."""
    options = {"height": 40, "width": 60, "count": 1, "dtype": "uint8", "crs": "EPSG:32632", "transform": NORTH_UP}
    options |= case
    then = {key: options.pop(key, None) for key in ("colormap", "tags", "band_tags", "told", "gcps")}
    dtype, shape = np.dtype(options["dtype"]), (options["count"], options["height"], options["width"])
    rng = np.random.default_rng(1)
    values = (rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 100, shape)).astype(dtype)
    if dtype.kind == "f":
        values.flat[:4] = np.nan, -0.0, np.inf, options.get("nodata") or 0
    with rasterio.open(path, "w", driver="GTiff", **{key: v for key, v in options.items() if v is not None}) as file:
        file.write(values)
        if then["colormap"]:
            file.write_colormap(1, {value: (value, 255 - value, value // 2, 255) for value in range(256)})
        file.update_tags(**(then["tags"] or {}))
        for key, value in (then["told"] or {}).items():
            setattr(file, key, value)
        if then["gcps"]:
            file.gcps = then["gcps"]


FACTS = ("crs", "transform", "nodata", "descriptions", "scales", "offsets", "units", "colorinterp", "dtypes", "shape")


def facts_of(path: Path | str) -> dict[str, Any]:
    with rasterio.open(path) as file:
        facts = {fact: getattr(file, fact) for fact in FACTS}
        facts["tags"] = {key: text for key, text in file.tags().items() if not key.startswith("TIFFTAG_")}
        points, system = file.gcps
        facts["gcps"] = [(point.row, point.col, point.x, point.y, point.z) for point in points], system
        facts["colormap"] = file.colormap(1) if file.colorinterp[0].name == "palette" else None
        facts["bits"] = file.read().tobytes()
        return {fact: repr(value) if fact == "nodata" else value for fact, value in facts.items()}  # NaN != NaN


POINTS = [(0, 0, 1, 2), (0, 60, 9, 2.5), (40, 0, 1, 7)]
TOLD = {"descriptions": ("nämé",), "scales": (0.1,), "offsets": (2.0,), "units": ("m",)}
CASES: dict[str, dict[str, Any]] = {
    **{dtype: {"dtype": dtype} for dtype in ("int8", "int64")},
    "geographic": {"crs": "EPSG:4326", "transform": DEGREES},
    "feet": {"crs": "EPSG:2263"},
    "a vertical system": {"crs": "EPSG:32632+5773"},
    "a zone on a datum of its own": {"crs": BESSEL},
    "a system that we do not read": {"crs": OBLIQUE},
    "rotated": {"transform": transform.Affine(10, 1.3, 5e5, 1.1, -10, 6e6)},
    "south up": {"transform": transform.Affine(10, 0, 5e5, 0, 10, 6e6)},
    "pixel is point": {"tags": {"AREA_OR_POINT": "Point"}},
    "no place": {"crs": None, "transform": None},
    "control points": {"transform": None, "gcps": True},
    "the lowest is nodata": {"dtype": "float32", "nodata": -3.4028234663852886e38},
    "a colour table": {"colormap": True},
    "metadata": {"tags": {"FOO": "bar ü <&>"}, "told": TOLD},
    "RGB and alpha": {"count": 4, "photometric": "rgb", "alpha": "yes"},
    "200 bands, separate": {"count": 200, "interleave": "band", "dtype": "uint16"},
    "tiled, LZW, predictor": {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 32},
    "Zstandard, floating point": {"compress": "zstd", "predictor": 3, "dtype": "float64", "count": 2},
    "BigTIFF, big-endian": {"bigtiff": "yes", "ENDIANNESS": "BIG", "dtype": "int16"},
}


@pytest.mark.parametrize("name", CASES)
def test_gdal_sees_the_same_after_a_round_trip(tmp_path: Path, name: str) -> None:
    case = dict(CASES[name])
    if case.get("gcps"):
        points = [rasterio.control.GroundControlPoint(*point) for point in POINTS]
        case["gcps"] = points, rasterio.crs.CRS.from_epsg(4326)
    make(tmp_path / "a.tif", **case)
    api.convert(tmp_path / "a.tif", tmp_path / "a.zarr", limits=SMALL)
    api.convert(tmp_path / "a.zarr", tmp_path / "b.tif", limits=SMALL)
    assert facts_of(tmp_path / "b.tif") == facts_of(tmp_path / "a.tif")


STORES: dict[str, dict[str, Any]] = {
    "one band": {},
    "bands": {"count": 3, "dtype": "float32", "nodata": -9999},
    "geographic": {"crs": "EPSG:4326", "transform": DEGREES, "count": 2},
    "user-defined": {"crs": SPHERE},
    "south up": {"transform": transform.Affine(10, 0, 5e5, 0, 10, 6e6)},
}


@needs_zarr
@pytest.mark.parametrize("name", STORES)
def test_gdal_opens_a_store_georeferenced(tmp_path: Path, name: str) -> None:
    make(tmp_path / "a.tif", **STORES[name])
    api.convert(tmp_path / "a.tif", tmp_path / "a.zarr", output={"chunks": [16, 16]}, limits=SMALL)
    for path in (str(tmp_path / "a.zarr"), f'ZARR:"{tmp_path / "a.zarr"}":/raster/value'):
        with rasterio.open(tmp_path / "a.tif") as first, rasterio.open(path) as second:
            assert (second.driver, second.dtypes) == ("Zarr", first.dtypes)
            assert first.nodata in (None, second.nodata)  # where there is none, GDAL takes the fill value for it
            assert_same_crs(*(pyproj.CRS(each.crs.to_wkt()) for each in (second, first)))
            # GDAL takes it from the coordinates of pixel centres: differences of these are rounded
            assert tuple(second.transform) == pytest.approx(tuple(first.transform), rel=1e-9)
            np.testing.assert_array_equal(second.read(), first.read())


@needs_zarr
def test_gdal_opens_each_raster_of_a_run(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", dtype="float32")
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean", "max"]}
    document = {"inputs": {"image": str(tmp_path / "a.tif")}, "steps": [step]}
    api.run(document | {"output": {"path": str(tmp_path / "a.zarr"), "geotiff": str(tmp_path)}})
    for name in ("mean", "max"):
        path = f'ZARR:"{tmp_path / "a.zarr"}":/smooth/{name}'
        with rasterio.open(path) as store, rasterio.open(tmp_path / f"smooth_{name}.tif") as file:
            assert store.crs == file.crs
            assert tuple(store.transform) == pytest.approx(tuple(file.transform), rel=1e-9)
            np.testing.assert_array_equal(store.read(), file.read())
