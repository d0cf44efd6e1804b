"""Transforms and coordinate systems for tests."""

from __future__ import annotations

import numpy as np
import pyproj

WKT = pyproj.CRS("EPSG:32633").to_wkt()
UTM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)
ROTATED = (8.0, 6.0, 500000.0, 6.0, -8.0, 5000000.0)


def geo_text(transform: tuple[float, ...]) -> str:
    a, b, c, d, e, f = transform
    return f"{c} {a} {b} {f} {d} {e}"


def assert_same_crs(*systems: pyproj.CRS) -> None:
    """Compare where they put some points: names do not matter."""
    ways = [pyproj.Transformer.from_crs(system.geodetic_crs, system, always_xy=True) for system in systems]
    first, second = (np.array(way.transform([3.0, 11.0], [41.0, 52.0])) for way in ways)
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-7)
