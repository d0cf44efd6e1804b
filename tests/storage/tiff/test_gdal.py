"""GDAL as the judge of what we write: stores opened by its own Zarr driver, and TIFFs there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest

from pipeline import api
from tests.gdal_files import CASES, DEGREES, SPHERE, make, transform
from tests.georeference import assert_same_crs

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}") for text in ("Dataset has no geotransform", "Use `@` matmul")
]
SMALL = [("run.memory", "600 MiB", "--memory"), ("run.workers", 2, "--workers")]
GDAL = tuple(int(number) for number in rasterio.__gdal_version__.split(".")[:2])
needs_zarr = pytest.mark.skipif(
    GDAL < (3, 12), reason=f"GDAL {rasterio.__gdal_version__} does not read Zarr v3 as written here; 3.12 does"
)

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


@pytest.mark.parametrize("name", CASES)
def test_gdal_sees_the_same_after_a_round_trip(tmp_path: Path, name: str) -> None:
    make(tmp_path / "a.tif", **CASES[name])
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
