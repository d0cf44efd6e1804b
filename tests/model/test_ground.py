"""Pixels on the ellipsoid against geodesics, and the sine against numpy's in extended precision."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest

from pipeline.model.affine import Affine
from pipeline.model.angle import cosine, sine
from pipeline.model.errors import PipelineError
from pipeline.model.ground import Ground, ground_of
from pipeline.model.raster import RasterSpec


def test_sine_and_cosine() -> None:
    angles = np.concatenate([np.random.default_rng(0).uniform(-800, 800, 10**5), np.arange(-720, 721, 15)])
    radians = np.deg2rad(angles.astype(np.longdouble))
    assert np.abs(sine(angles) - np.sin(radians)).max() < 2.3e-16
    assert np.abs(cosine(angles) - np.cos(radians)).max() < 2.3e-16
    assert cosine([0, 90, 180, 270, -90, 450]).tolist() == [1, 0, -1, 0, 0, 0]
    near = np.random.default_rng(0).uniform(89, 90, 10**4)  # near a pole a width is small, and no less exact
    exact = np.sin(np.deg2rad((90 - near).astype(np.longdouble)))
    np.testing.assert_allclose(cosine(near).astype(np.longdouble), exact, rtol=4e-16)


@pytest.mark.parametrize(("crs", "size"), [("EPSG:4326", 1.0), ("EPSG:4258", 1 / 1200), ("EPSG:4807", 0.01)])
def test_pixels_in_degrees_are_measured_row_by_row(crs: str, size: float) -> None:
    """Against geodesics over a hundredth of a pixel, where the chord is the parallel; one system is in grads."""
    top = 47.0 if size < 0.1 else 90.5
    spec = RasterSpec(181, 60, np.dtype("f4"), transform=Affine(size, 0, 8, 0, -size, top), crs=crs)
    system = pyproj.CRS(crs)
    unit = np.degrees(system.axis_info[0].unit_conversion_factor)
    geod = system.get_geod()
    assert geod is not None
    ground, words = ground_of(spec)
    heights, widths = ground.sides(0, 181)
    latitudes = (top - size * (np.arange(181) + 0.5)) * unit
    inside, zero = slice(1, -1), np.zeros(179)
    middle, small = latitudes[inside], size * unit / 100
    down = np.array(geod.inv(zero, middle - small / 2, zero, middle + small / 2)[2])
    np.testing.assert_allclose(heights[inside], 100 * down, rtol=1e-8)
    across = np.array(geod.inv(zero, middle, zero + small, middle)[2])
    np.testing.assert_allclose(widths[inside], 100 * across, rtol=1e-6)
    assert "row by row" in words
    if size == 1:
        assert np.isnan(widths[[0, -1]]).all()
        assert "of no width (the pole) at latitude 90" in words


def test_ground_of_projections_and_in_other_units() -> None:
    spec = RasterSpec(9, 9, np.dtype("f4"), transform=Affine(10, 0, 5e5, 0, -20, 0), crs="EPSG:32632")
    ground, words = ground_of(spec)
    assert (ground, words) == (Ground(20.0, 10.0), "a pixel is 20 m high and 10 m wide")
    assert ground.per(0.5) == Ground(40.0, 20.0)
    south_up = RasterSpec(9, 9, np.dtype("f4"), transform=Affine(10, 0, 5e5, 0, 20, 0), crs="EPSG:32632")
    assert ground_of(south_up)[0] == Ground(-20.0, 10.0)
    degrees = RasterSpec(9, 9, np.dtype("f4"), transform=Affine(1, 0, 8, 0, -1, 50), crs="EPSG:4326")
    metres, feet = ground_of(degrees)[0], ground_of(degrees)[0].per(0.3048)
    for first, second in zip(metres.sides(0, 9), feet.sides(0, 9), strict=True):
        np.testing.assert_allclose(second, first / 0.3048, rtol=1e-15)


@pytest.mark.parametrize(
    ("transform", "crs", "message"),
    [
        (Affine(1, 0, 0, 0, -1, 95), "EPSG:4326", "reach from latitude 86.5 to 94.5; correct its transform"),
        (Affine(1, 0, 0, 0, -1, 9), None, "the raster has no coordinate system; give numbers"),
        (Affine(1, 0.1, 0, 0, -1, 9), "EPSG:4326", "the raster is rotated"),
        (Affine(1e5, 0, 0, 0, -1e6, 9e6), "EPSG:3857", "reproject the raster"),
    ],
)
def test_what_has_no_ground_is_refused(transform: Affine, crs: str | None, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        ground_of(RasterSpec(9, 9, np.dtype("f4"), transform=transform, crs=crs))
