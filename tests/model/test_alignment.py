"""Grids that differ: read on the finer one, or refused in words; and the size of a pixel in metres."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline import api
from pipeline.model.alignment import SCALE_ERROR, TRUE_TO_SCALE, remedy, repetition, spacing_metres
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Region
from pipeline.storage.matched import Matched
from pipeline.storage.open import open_raster
from pipeline.testing.draws import draws
from pipeline.verbs.load import load
from pipeline.verbs.notes import reading_notes

UTM = (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632), True)


def write(
    path: Path, array: np.ndarray, pixel: float, corner: tuple[float, float] = (5e5, 6e6), **options: Any
) -> Path:
    tags = [(33550, 12, 3, (pixel, pixel, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, *corner, 0.0), True), UTM]
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None, extratags=tags, **options)
    return path


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 200, shape).astype("uint16")


@settings(max_examples=draws(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_pixel_is_repeated(tmp_path: Path, data: st.DataObject) -> None:
    planes = data.draw(st.sampled_from(["one", "separate", "contig"]))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    down, across = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    array = pixels(*{"one": (height, width), "separate": (3, height, width), "contig": (height, width, 3)}[planes])
    path = write(tmp_path / "a.tif", array, 20, **({} if planes == "one" else {"planarconfig": planes}))
    coarse = open_raster(str(path))
    lost = data.draw(st.integers(0, down - 1)), data.draw(st.integers(0, across - 1))
    grid = replace(coarse.spec, height=height * down - lost[0], width=width * across - lost[1])
    reader = Matched(coarse, grid, (down, across))
    y, x = coarse.spec.dims.index("y"), coarse.spec.dims.index("x")
    whole = np.repeat(np.repeat(array, down, y), across, x)[array_slices(coarse.spec.dims, grid.region)]
    rows = sorted(data.draw(st.lists(st.integers(0, grid.height), min_size=2, max_size=2, unique=True)))
    columns = sorted(data.draw(st.lists(st.integers(0, grid.width), min_size=2, max_size=2, unique=True)))
    region = Region(*rows, *columns)
    out = np.empty(reader.spec.shape_of(region), np.uint16)
    reader.read(region, out)
    np.testing.assert_array_equal(out, whole[array_slices(reader.spec.dims, region)])


@pytest.mark.parametrize("output", [{"chunks": [16, 16]}, {"chunks": [40, 48]}])
def test_a_window_over_a_matched_input_is_that_over_the_repeated_one(tmp_path: Path, output: dict[str, Any]) -> None:
    """Halos count pixels of the finer grid, also across the edges of blocks."""
    fine, coarse = pixels(40, 48), pixels(20, 24)
    write(tmp_path / "fine.tif", fine, 10)
    write(tmp_path / "coarse.tif", coarse, 20, tile=(16, 16))
    write(tmp_path / "repeated.tif", np.repeat(np.repeat(coarse, 2, 0), 2, 1), 10)
    found = {}
    for name, entry in (
        ("matched", {"path": str(tmp_path / "coarse.tif"), "match": "image"}),
        ("repeated", {"path": str(tmp_path / "repeated.tif")}),
    ):
        document = {
            "inputs": {"image": str(tmp_path / "fine.tif"), "scl": entry},
            "steps": [
                {"name": "smooth", "op": "window", "input": "scl", "size": 5, "statistics": ["mean"]},
                {"name": "sum", "op": "calc", "inputs": {"a": "image", "b": "smooth"}, "expression": "a + b"},
            ],
            "output": {"path": str(tmp_path / f"{name}_sum.tif"), **output},
            "run": {"memory": "600 MiB", "workers": 2},
        }
        pipeline.run(document)
        found[name] = tifffile.imread(tmp_path / f"{name}_sum.tif")
    assert found["matched"].tobytes() == found["repeated"].tobytes()


@pytest.mark.parametrize(
    ("pixel", "corner", "shape", "message"),
    [
        (15, (5e5, 6e6), (20, 24), r"pixels of 10 x -10 against 15 x -15.*gdalwarp -t_srs EPSG:32632 -te 500000\.0"),
        (20, (5e5 + 5, 6e6), (20, 24), r"upper left corner at \(500000, 6000000\) against \(500005, 6000000\)"),
        (20, (5e5, 6e6), (19, 24), r"40 x 48 pixels against 19 x 24.*-ts 48 40 -r near"),
    ],
)
def test_other_grids_are_refused(tmp_path: Path, pixel: float, corner: Any, shape: Any, message: str) -> None:
    write(tmp_path / "fine.tif", pixels(40, 48), 10)
    write(tmp_path / "coarse.tif", pixels(*shape), pixel, corner)
    with pytest.raises(PipelineError, match=message) as caught:
        api.plan(document_of(tmp_path, match="image"))
    assert "inputs.scl.match" in str(caught.value)


def document_of(folder: Path, **options: Any) -> dict[str, Any]:
    step = {"name": "sum", "op": "calc", "inputs": {"a": "image", "b": "scl"}, "expression": "a + b"}
    inputs = {"image": str(folder / "fine.tif"), "scl": {"path": str(folder / "coarse.tif"), **options}}
    return {"inputs": inputs, "steps": [step], "output": {"path": str(folder / "b.zarr")}}


def test_a_coarser_grid_is_told_of_match(tmp_path: Path) -> None:
    write(tmp_path / "fine.tif", pixels(40, 48), 10)
    write(tmp_path / "coarse.tif", pixels(20, 24), 20)
    with pytest.raises(PipelineError, match=r"different grids.*say `match: image` at 'scl'"):
        api.plan(document_of(tmp_path))
    with pytest.raises(PipelineError, match=r"unknown input 'img'; did you mean 'image'\?"):
        api.plan(document_of(tmp_path, match="img"))


def test_without_a_georeference_sizes_must_be_multiples() -> None:
    fine, coarse = (RasterSpec(n, n, np.dtype("uint8")) for n in (30, 10))
    assert repetition(coarse, fine) == (3, 3)
    assert repetition(fine, coarse) is None
    assert repetition(replace(coarse, width=8), fine) is None


# --- what a layout costs -----------------------------------------------------------------------------------------


def test_a_bad_layout_is_said_with_its_remedy(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", pixels(600, 700), 10, rowsperstrip=600, compression="zlib")
    document = {
        "inputs": {"image": str(tmp_path / "a.tif")},
        "steps": [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}],
        "output": {"path": str(tmp_path / "b.zarr"), "chunks": [100, 100]},
    }
    plan = load(document).plan
    assert reading_notes(plan) == []
    [planned] = plan.passes
    grid = replace(planned.grid, rows=replace(planned.grid.rows, step=100))
    cost = replace(planned.cost, read_bytes=6 * planned.cost.source_bytes)
    slow = replace(planned, grid=grid, cost=cost)
    [note] = reading_notes(replace(plan, passes=(slow,)))
    assert "parts of 600 x 700 pixels can only be decoded whole" in note
    assert f"6.0 times what it reads; convert it once: rasterpipe convert {tmp_path}/a.tif image.zarr" in note


# --- metres ------------------------------------------------------------------------------------------------------


def spec(transform: Any, crs: str | None, size: int = 100) -> RasterSpec:
    return RasterSpec(size, size, np.dtype("float32"), transform=transform, crs=crs)


def test_metres_of_a_pixel() -> None:
    assert spacing_metres(spec((10, 0, 0, 0, -20, 0), "EPSG:32632")) == ((20, 10), 0)
    feet, _ = spacing_metres(spec((10, 0, 0, 0, -10, 0), "EPSG:2263"))
    assert feet == pytest.approx((3.048006, 3.048006), rel=1e-6)
    (height, width), off = spacing_metres(spec((0.001, 0, 8, 0, -0.001, 47), "EPSG:4326"))
    assert (height, width) == pytest.approx((111.17, 76.13), rel=1e-3)
    assert 0 < off < 0.002


def around(crs: str, longitude: float, latitude: float, sides: tuple[float, float], size: int = 20) -> RasterSpec:
    """Return a raster of so many pixels down and across, of these sides in metres of the CRS, around a place."""
    x, y = pyproj.Transformer.from_crs(pyproj.CRS(crs).geodetic_crs, crs, always_xy=True).transform(longitude, latitude)
    height, width = sides
    return spec((width, 0, x - width * size / 2, 0, -height, y + height * size / 2), crs, size)


@pytest.mark.parametrize(
    ("crs", "latitude", "expected"),
    [
        ("EPSG:3857", 60, (5.00417, 5.01260)),  # a cos(latitude) on a sphere, on the ellipsoid M and N cos(latitude)
        ("EPSG:3857", -60, (5.00417, 5.01260)),
        ("EPSG:3395", 60, (5.01260, 5.01260)),
        ("EPSG:6933", 59.2112630814359, (16.8910, 5.92031)),
        ("EPSG:32632", 50, (10, 10)),
    ],
)
def test_metres_in_projections_that_are_not_true_to_scale(
    crs: str, latitude: float, expected: tuple[float, float]
) -> None:
    found, off = spacing_metres(around(crs, 9, latitude, (10, 10)))
    assert found == pytest.approx(expected, rel=1e-5)
    assert off < 1e-4


@given(
    st.sampled_from(("EPSG:3395", "EPSG:6933", "EPSG:3035", "EPSG:3413", "EPSG:2154", "EPSG:32632", "EPSG:5070")),
    st.floats(-30, 40),
    st.floats(35, 75),
    st.tuples(st.floats(1, 100), st.floats(1, 100)),
)
@settings(max_examples=draws(100), deadline=None)
def test_metres_are_those_of_the_scale_factors_of_proj(
    crs: str, longitude: float, latitude: float, sides: tuple[float, float]
) -> None:
    """The inverse of the derivatives of x and y by longitude and latitude, in metres on the ellipsoid."""
    ellipsoid = pyproj.CRS(crs).ellipsoid
    factors = pyproj.Proj(crs).get_factors(longitude, latitude)
    e2 = 1 - (ellipsoid.semi_minor_metre / ellipsoid.semi_major_metre) ** 2
    root = math.sqrt(1 - e2 * math.sin(math.radians(latitude)) ** 2)
    parallel, meridian = math.cos(math.radians(latitude)) / root, (1 - e2) / root**3
    forward = [
        [factors.dx_dlam / parallel, factors.dx_dphi / meridian],
        [factors.dy_dlam / parallel, factors.dy_dphi / meridian],
    ]
    across, down = np.linalg.inv(forward).T * np.array([[sides[1]], [sides[0]]])
    height, width = np.hypot(*down), np.hypot(*across)
    skew = abs(across @ down) / (height * width)
    assume(abs(skew - SCALE_ERROR) > 0.002)
    raster = around(crs, longitude, latitude, sides)
    if skew > SCALE_ERROR:
        with pytest.raises(PipelineError, match="degrees off a right angle; reproject"):
            spacing_metres(raster)
        return
    found, off = spacing_metres(raster)
    if off:
        assert found == pytest.approx((height, width), rel=1e-4)
        assert skew <= off + 1e-3 <= SCALE_ERROR + 1e-3
    else:
        assert found == sides
        assert sides == pytest.approx((height, width), rel=TRUE_TO_SCALE)


@pytest.mark.parametrize(
    ("transform", "crs", "message"),
    [
        (
            (10_000, 0, 0, 0, -10_000, 8.9e6),
            "EPSG:3857",
            r"4680 to 5360 m wide between latitudes 57\.\d+ and 62\.\d+; reproject",
        ),
        ((400, 0, 2e6, 0, -400, 6e6), "+proj=sinu +R=6371007.181 +units=m", "degrees off a right angle; reproject"),
        ((3000, 0, -5.5e6, 0, -3000, 5.5e6), "+proj=geos +h=35785831", "its projection is not defined; give numbers"),
        (None, "EPSG:32632", "no georeference"),
        ((10, 0, 0, 0, -10, 0), None, "no coordinate system"),
        ((10, 1, 0, 1, -10, 0), "EPSG:32632", r"rotated.*\[10\.04987562, 10\.04987562\]"),
        ((0.5, 0, 0, 0, -0.5, 80), "EPSG:4326", "m wide between latitudes 30 and 80; reproject"),
        ((1, 0, 0, 0, -1, 95), "EPSG:4326", "spans latitudes"),
        ((0.0001, 0, 0, 0, -0.0001, 90), "EPSG:4326", "0 to .* m wide between latitudes 89.99 and 90, its sides up to"),
        ((0.0001, 0, 0, 0, 0.0001, -90), "EPSG:4326", "0 to .* m wide between latitudes -90 and -89.99"),
        ((10, 0, 0, 0, -10, 0), "no such system", "the CRS cannot be read"),
    ],
)
def test_where_metres_are_not_defined(transform: Any, crs: str | None, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        spacing_metres(spec(transform, crs))


def test_spacing_geo_is_that_of_the_transform(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", pixels(40, 48), 12.5)
    found = []
    for spacing in ("geo", 12.5):
        document = {
            "inputs": {"image": str(tmp_path / "a.tif")},
            "steps": [{"name": "slope", "op": "gradient", "spacing": spacing, "outputs": ["dy"]}],
            "output": {"path": str(tmp_path / "b.tif")},
        }
        facts = pipeline.run(document, overwrite=True)
        found.append(tifffile.imread(tmp_path / "b.tif"))
        assert any("12.5 m high" in note for note in facts["warnings"]) == (spacing == "geo")
    assert found[0].tobytes() == found[1].tobytes()


def test_a_word_that_is_no_spacing() -> None:
    document = {
        "inputs": {"image": "a.tif"},
        "steps": [{"name": "slope", "op": "gradient", "spacing": "metres"}],
        "output": {"path": "b.zarr"},
    }
    with pytest.raises(PipelineError, match=r"spacing: must be a number or \[y, x\], got 'metres'"):
        api.validate(document, check_inputs=False)


def test_a_tile_beside_is_not_warped_onto_the_first(tmp_path: Path) -> None:
    first = RasterSpec(20, 24, np.dtype("u1"), transform=(10, 0, 5e5, 0, -10, 6e6), crs="EPSG:32632")
    beside = replace(first, transform=(10, 0, 5e5 + 240, 0, -10, 6e6))
    half = replace(first, transform=(10, 0, 5e5 + 120, 0, -10, 6e6))
    larger = replace(first, height=60, width=72, transform=(10, 0, 5e5 - 100, 0, -10, 6e6 + 100))
    assert "lies beside 'a', not on it: tiles of one band are merged first" in remedy("b", beside, "b.tif", "a", first)
    assert "gdalwarp" in remedy("b", half, "b.tif", "a", first)
    assert remedy("b", half, "b.tif", "a", first).endswith("; it lies on 50 % of 'a', the rest becomes nodata")
    assert remedy("b", larger, "b.tif", "a", first).endswith(" b.tif b_matched.tif")
