"""TIFFs that GDAL writes, of many kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
transform = pytest.importorskip("rasterio.transform")

NORTH_UP = transform.Affine(10.1, 0, 500_000.3, 0, -9.7, 6_000_000.7)
DEGREES = transform.Affine(0.001, 0, 5, 0, -0.0007, 50)
SPHERE = "+proj=laea +lat_0=40 +lon_0=-100 +ellps=sphere +units=m"
OBLIQUE = "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +k=0.99 +gamma=53.1 +datum=WGS84"
BESSEL = "+proj=utm +zone=33 +ellps=bessel +towgs84=598,73,418,0.2,0.04,-2.4,6.7"


def make(path: Path, **case: Any) -> None:
    """Write a file by GDAL; `case` are its options, and what is set once it is open."""
    if case.get("gcps") is True:
        points = [rasterio.control.GroundControlPoint(*point) for point in POINTS]
        case["gcps"] = points, rasterio.crs.CRS.from_epsg(4326)
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
    "metadata": {"tags": {"FOO": "bar ü <&> &lt;"}, "told": TOLD},
    "RGB and alpha": {"count": 4, "photometric": "rgb", "alpha": "yes"},
    "200 bands, separate": {"count": 200, "interleave": "band", "dtype": "uint16"},
    "tiled, LZW, predictor": {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 32},
    "Zstandard, floating point": {"compress": "zstd", "predictor": 3, "dtype": "float64", "count": 2},
    "BigTIFF, big-endian": {"bigtiff": "yes", "ENDIANNESS": "BIG", "dtype": "int16"},
}
