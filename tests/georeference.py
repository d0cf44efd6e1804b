"""Transforms and coordinate systems for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import tifffile

WKT = pyproj.CRS("EPSG:32633").to_wkt()
UTM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)
ROTATED = (8.0, 6.0, 500000.0, 6.0, -8.0, 5000000.0)
UTM_KEYS = (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633))


def geo_text(transform: tuple[float, ...]) -> str:
    a, b, c, d, e, f = transform
    return f"{c} {a} {b} {f} {d} {e}"


def assert_same_crs(*systems: pyproj.CRS) -> None:
    """Compare where they put some points: names do not matter."""
    ways = [pyproj.Transformer.from_crs(system.geodetic_crs, system, always_xy=True) for system in systems]
    first, second = (np.array(way.transform([3.0, 11.0], [41.0, 52.0])) for way in ways)
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-7)


def placed_tiff(
    path: Path, values: np.ndarray, corner: tuple[int, int] = (0, 0), size: float = 10, **options: Any
) -> str:
    """Write a GeoTIFF (band, y, x or y, x) whose first pixel lies at a row and a column of one lattice."""
    nodata = options.pop("nodata", None)
    tags: list[Any] = [
        (33550, 12, 3, (size, size, 0.0)),
        (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0 + corner[1] * size, 5400000.0 - corner[0] * size, 0.0)),
        UTM_KEYS,
    ]
    if nodata is not None:
        tags.append((42113, 2, 0, str(nodata)))
    path.parent.mkdir(parents=True, exist_ok=True)
    planar = {"planarconfig": "separate"} if values.ndim == 3 and len(values) > 1 else {}
    tifffile.imwrite(
        path,
        values,
        photometric="minisblack",
        metadata=None,
        extratags=[(*tag, True) for tag in tags],
        **planar,
        **options,
    )
    return str(path)
