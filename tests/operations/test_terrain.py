"""terrain: gdaldem's results, planes and domes, pixels on the ellipsoid, units, refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

import pipeline
from pipeline import api
from pipeline.kernels.terrain import OUTPUTS
from pipeline.model.errors import PipelineError
from pipeline.model.ground import ground_of
from pipeline.model.raster import RasterSpec
from pipeline.operations.registry import registry
from tests import harness, zarr_files
from tests.reference_terrain import terrain_of

UTM = Affine(10, 0, 500000, 0, -10, 5000000)
SQUARE, NODATA = "EPSG:32632", -9999


def write(path: Path, heights: np.ndarray, transform: Affine = UTM, crs: str = SQUARE, **options: Any) -> str:
    height, width = heights.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, 1, crs, transform, heights.dtype, options.pop("nodata", None), **options
    ) as file:
        file.write(heights, 1)
    return str(path)


def compute(source: str, folder: Path, **parameters: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the outputs of a step (y, x), nodata as NaN, and what the run says."""
    output = folder / f"{len(list(folder.iterdir()))}.zarr"
    step = {"name": "step", "op": "terrain", **parameters}
    facts = api.run({"inputs": {"image": source}, "steps": [step], "output": {"path": str(output)}})
    found = {name: harness.read(output, f"step/{name}")[0].astype(float) for name in parameters["outputs"]}
    if "hillshade" in found:
        found["hillshade"][found["hillshade"] == 0] = np.nan
    return found, facts.warnings


def hills(dtype: str = "float32") -> np.ndarray:
    rough = gaussian_filter(np.random.default_rng(0).normal(size=(90, 120)), 5) * 2500 + 500
    return np.rint(rough).astype(dtype) if np.dtype(dtype).kind == "i" else rough.astype(dtype)


COMMANDS: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("slope", {"outputs": ["slope"]}, 1e-3),
    ("slope -p", {"outputs": ["slope"], "slope_unit": "percent"}, 2e-3),
    ("slope -alg ZevenbergenThorne", {"outputs": ["slope"], "method": "zevenbergen_thorne"}, 1e-3),
    ("aspect", {"outputs": ["aspect"]}, 0.1),
    ("aspect -alg ZevenbergenThorne", {"outputs": ["aspect"], "method": "zevenbergen_thorne"}, 0.1),
    ("hillshade", {"outputs": ["hillshade"]}, 1),
    (
        "hillshade -z 3 -az 70 -alt 20",
        {"outputs": ["hillshade"], "z_factor": 3, "azimuth": 70, "altitude": 20},
        1,
    ),
    ("hillshade -multidirectional", {"outputs": ["hillshade"], "shading": "multidirectional"}, 1),
    ("hillshade -combined", {"outputs": ["hillshade"], "shading": "combined"}, 1),
    ("roughness", {"outputs": ["roughness"]}, 1e-3),
    ("TPI", {"outputs": ["tpi"]}, 1e-3),
    ("TRI -alg Riley", {"outputs": ["tri"]}, 1e-3),
    ("TRI -alg Wilson", {"outputs": ["tri"], "tri_method": "wilson"}, 1e-3),
)
"""gdaldem's, and how far it may be off: it adds in float32, and shades with an approximate root."""


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="gdaldem (Debian's gdal-bin) is not installed")
@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(("command", "parameters", "bound"), COMMANDS, ids=[each[0] for each in COMMANDS])
def test_it_is_gdaldems(command: str, parameters: dict[str, Any], bound: float, dtype: str, tmp_path: Path) -> None:
    """All pixels but the four corners of compute_edges, where gdaldem repeats columns; invalid where gdaldem's are."""
    heights = hills(dtype)
    heights[np.random.default_rng(1).random(heights.shape) < 0.02] = NODATA
    source = write(tmp_path / "dem.tif", heights, nodata=NODATA)
    mode, *options = command.split()
    for edges in ([], ["-compute_edges"]):
        line = ["gdaldem", mode, source, str(tmp_path / "gdal.tif"), *options, *edges, "-q"]
        subprocess.run(line, check=True, capture_output=True)
        with rasterio.open(tmp_path / "gdal.tif") as file:
            expected = np.where(file.read(1) == file.nodata, np.nan, file.read(1).astype(float))
        found, _ = compute(source, tmp_path, **parameters, compute_edges=bool(edges))
        got = found[parameters["outputs"][0]]
        apart = np.abs(got - expected)
        apart = np.minimum(apart, 360 - apart) if mode == "aspect" else apart
        if edges:
            for array in (apart, got, expected):
                array[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        assert np.nanmax(apart) <= (bound if dtype == "float32" or mode == "hillshade" else 1e-4)
        assert mode != "hillshade" or np.nanmean(apart) < 1e-3


def test_a_plane_has_one_slope_and_one_aspect_up_to_the_edge(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:20, :30].astype(np.float32)
    source = write(tmp_path / "dem.tif", 100 - 10 * columns + 10 * rows)  # falls to the north-east
    outputs = ["slope", "aspect", "roughness", "tpi", "mean_curvature", "hillshade"]
    found, _ = compute(source, tmp_path, outputs=outputs, compute_edges=True, azimuth=45)
    np.testing.assert_allclose(found["slope"], np.degrees(np.arctan(np.sqrt(2))), rtol=1e-6)
    assert np.all(found["aspect"] == 45)
    assert np.all(found["roughness"] == 40)
    assert not found["tpi"].any()
    assert not found["mean_curvature"].any()
    lit = np.cos(np.radians(45) - np.arctan(np.sqrt(2)))
    assert np.all(found["hillshade"] == np.floor(1.5 + 254 * lit))
    inner, _ = compute(source, tmp_path, outputs=["slope"])
    assert np.isnan(inner["slope"][[0, -1]]).all()
    assert np.isnan(inner["slope"][:, [0, -1]]).all()
    assert np.array_equal(inner["slope"][1:-1, 1:-1], found["slope"][1:-1, 1:-1])


@pytest.mark.parametrize(("flat", "expected"), [({}, np.nan), ({"flat": -1}, -1)])
def test_level_ground_has_no_aspect(flat: dict[str, Any], expected: float, tmp_path: Path) -> None:
    source = write(tmp_path / "dem.tif", np.full((5, 6), 12, np.int16))
    found, _ = compute(source, tmp_path, outputs=["slope", "aspect", "hillshade"], **flat)
    np.testing.assert_array_equal(found["aspect"][1:-1, 1:-1], expected)
    assert not found["slope"][1:-1, 1:-1].any()
    assert np.all(found["hillshade"][1:-1, 1:-1] == np.floor(1.5 + 254 * np.sqrt(0.5)))


def test_a_dome_is_convex_and_a_valley_concave_across(tmp_path: Path) -> None:
    rows, columns = np.mgrid[-10:11, -10:11].astype(float)
    outputs = ["profile_curvature", "plan_curvature", "mean_curvature"]
    dome, _ = compute(write(tmp_path / "dome.tif", -(rows**2 + columns**2)), tmp_path, outputs=outputs, spacing=1)
    for name in outputs:
        np.testing.assert_allclose(dome[name][1:-1, 1:-1], 2, rtol=1e-12)  # of z = -r^2, in every direction
    valley, _ = compute(write(tmp_path / "valley.tif", columns**2 + rows), tmp_path, outputs=outputs, spacing=1)
    np.testing.assert_allclose(valley["profile_curvature"][1:-1, 10], 0, atol=1e-12)  # down the bottom line
    np.testing.assert_allclose(valley["plan_curvature"][1:-1, 10], -2, rtol=1e-12)
    np.testing.assert_allclose(valley["mean_curvature"][1:-1, 1:-1], -1, rtol=1e-12)


def test_tpi_takes_the_mean_of_a_ring(tmp_path: Path) -> None:
    heights = hills()
    found, _ = compute(write(tmp_path / "dem.tif", heights), tmp_path, outputs=["tpi"], ring=[3, 5])
    rows, columns = np.mgrid[-5:6, -5:6]
    chosen = (np.hypot(rows, columns) >= 3) & (np.hypot(rows, columns) <= 5)
    windows = np.lib.stride_tricks.sliding_window_view(heights.astype(float), (11, 11))[..., chosen]
    np.testing.assert_allclose(found["tpi"][5:-5, 5:-5], heights[5:-5, 5:-5] - windows.mean(-1), atol=1e-4)
    assert np.isnan(found["tpi"][:5]).all()


@pytest.mark.parametrize("north_up", [True, False])
def test_rows_may_go_north_and_columns_west(north_up: bool, tmp_path: Path) -> None:
    heights, outputs = hills(), ["slope", "aspect", "hillshade", "plan_curvature"]
    expected, _ = compute(write(tmp_path / "dem.tif", heights), tmp_path, outputs=outputs)
    flip = np.s_[::-1] if not north_up else np.s_[:, ::-1]
    turned = Affine(-10, 0, 501200, 0, -10, 5000000) if north_up else Affine(10, 0, 500000, 0, 10, 4999100)
    found, _ = compute(write(tmp_path / "other.tif", heights[flip], turned), tmp_path, outputs=outputs)
    for name in outputs:
        np.testing.assert_allclose(found[name][flip], expected[name], rtol=1e-6, atol=1e-6)


def test_degrees_from_pole_to_pole(tmp_path: Path) -> None:
    """No refusal; where a pixel has no width there is no slope, and the rest is computed, the last row too."""
    heights = (np.random.default_rng(0).normal(size=(181, 40)) * 2e4).astype(np.float32)
    source = write(tmp_path / "dem.tif", heights, Affine(1, 0, 0, 0, -1, 90.5), "EPSG:4326")
    outputs = ["slope", "aspect", "tpi", "tri"]
    found, warnings = compute(source, tmp_path, outputs=outputs, compute_edges=True)
    assert any("heights are in m" in text for text in warnings)
    for name in ("slope", "aspect"):
        assert np.isnan(found[name][[0, -1]]).all()
        assert not np.isnan(found[name][1:-1]).any()
    assert not np.isnan(found["tpi"]).any()
    spec = RasterSpec(181, 40, np.dtype("f4"), transform=(1, 0, 0, 0, -1, 90.5), crs="EPSG:4326")  # type: ignore[arg-type]
    sides = [side[:, np.newaxis] for side in ground_of(spec)[0].sides(0, 181)]
    step = registry()["terrain"].model_validate(
        {"name": "s", "op": "terrain", "outputs": ["slope"], "compute_edges": True}
    )
    value, bound = terrain_of(step, heights.astype(float), (sides[0], sides[1]), float(np.finfo("f4").eps))["slope"]
    assert np.all(np.abs(found["slope"] - value)[1:-1] <= bound[1:-1])
    half = {"region": {"rows": [90, 140], "columns": [0, 40]}}
    config = {"inputs": {"image": source}, "steps": [{"name": "s", "op": "terrain", "outputs": ["slope"]}], **half}
    api.run({**config, "output": {"path": str(tmp_path / "half.zarr")}})
    part = harness.read(tmp_path / "half.zarr", "s/slope")[0]
    assert np.array_equal(part[:, 1:-1], found["slope"][90:140, 1:-1].astype(np.float32))  # rows are the raster's


def test_feet_are_told(tmp_path: Path) -> None:
    heights = hills()
    metres, _ = compute(write(tmp_path / "m.tif", heights), tmp_path, outputs=["slope"])
    feet = Affine(10 / (1200 / 3937), 0, 1e6, 0, -10 / (1200 / 3937), 2e5)
    source = write(tmp_path / "ft.tif", heights, feet, "EPSG:2263")
    with pytest.raises(PipelineError, match=r"height_unit: not given.*US survey foot.*`height_unit: us-ft`, or.*: m`"):
        compute(source, tmp_path, outputs=["slope"])
    found, _ = compute(source, tmp_path, outputs=["slope"], height_unit="m")
    np.testing.assert_allclose(found["slope"], metres["slope"], rtol=1e-6)
    found, warnings = compute(source, tmp_path, outputs=["slope"], height_unit="us-ft", slope_unit="percent")
    np.testing.assert_allclose(found["slope"], 100 * np.tan(np.radians(metres["slope"])) * 1200 / 3937, rtol=1e-6)
    assert any("a pixel is 10 m high and 10 m wide; heights are in us-ft" in text for text in warnings)


def test_what_depends_on_no_side_needs_none(tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "dem.zarr", hills("int16"))
    found, _ = compute(source, tmp_path, outputs=["roughness", "tpi", "tri"])
    assert np.isfinite(found["tri"][1:-1, 1:-1]).all()
    with pytest.raises(PipelineError, match=r"spacing: needed, as the raster has no georeference.*`spacing: 30`"):
        compute(source, tmp_path, outputs=["slope"])
    without_crs = write(tmp_path / "dem.tif", hills("int16"), crs="")
    with pytest.raises(PipelineError, match=r"spacing: needed, as the raster has no coordinate system.*`spacing: 30`"):
        compute(without_crs, tmp_path, outputs=["slope"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"outputs": ["slope"], "azimuth": 10},
            "azimuth: is for hillshade, .* are slope; leave it out, or add such an output",
        ),
        ({"outputs": ["tri"], "spacing": 3}, "spacing: is for aspect, hillshade, mean_curvature, .* leave it out"),
        ({"outputs": ["slope"], "flat": -1}, "flat: is for aspect"),
        ({"outputs": ["tpi"], "ring": [3, 5], "compute_edges": True}, "compute_edges: is for windows of 3 x 3"),
        ({"outputs": ["tpi"], "ring": [3, 2]}, r"ring: must be two radii in pixels, 0 < inner <= outer <= 100"),
        ({"outputs": ["tpi"], "ring": [1.1, 1.2]}, r"ring: no pixel is at a distance from 1\.1 to 1\.2 pixels"),
        ({"outputs": ["slope"], "spacing": 10, "height_unit": "ft"}, "height_unit: is for spacing: geo"),
        ({"outputs": ["slope"], "spacing": 0}, "spacing: must be positive"),
        ({"outputs": ["hillshade"], "shading": "multidirectional", "azimuth": 0}, "azimuth: multidirectional has"),
        ({"outputs": ["slope", "slope"]}, "outputs: must name each output once"),
    ],
)
def test_what_does_not_fit_is_refused(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message):
        compute(write(tmp_path / "dem.tif", hills()), tmp_path, **parameters)


def test_lazy_arrays_and_verify(tmp_path: Path) -> None:
    source = write(tmp_path / "dem.tif", hills(), Affine(0.01, 0, 8, 0, -0.01, 88), "EPSG:4326")
    outputs = ["slope", "hillshade"]
    step = {"name": "t", "op": "terrain", "outputs": outputs}
    api.run({"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}})
    assert api.verify(tmp_path / "out.zarr").agrees
    rows, columns = np.arange(90), np.arange(120)
    array = xr.DataArray(
        hills(), dims=("y", "x"), coords={"y": 88 - 0.01 * (rows + 0.5), "x": 8 + 0.01 * (columns + 0.5)}
    )
    array = array.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": pyproj.CRS(4326).to_wkt()}))
    array.attrs["grid_mapping"] = "spatial_ref"
    found = pipeline.apply([step], array)
    for name in outputs:
        expected = harness.read(tmp_path / "out.zarr", f"t/{name}")[0]
        assert harness.same_bits(np.asarray(found[f"t/{name}"]).reshape(expected.shape), expected)


def test_every_output_at_once_has_the_bits_of_each(tmp_path: Path) -> None:
    source = write(tmp_path / "dem.tif", hills())
    together, _ = compute(source, tmp_path, outputs=list(OUTPUTS))
    for name in OUTPUTS:
        alone, _ = compute(source, tmp_path, outputs=[name])
        assert harness.same_bits(alone[name], together[name])
