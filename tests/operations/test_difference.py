"""gradient and hessian: numpy.gradient, polynomials, edges, invalid pixels, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray as xr

import pipeline
from pipeline import api
from pipeline.config import load_pipeline
from pipeline.kernels.difference import FIRST, OUTPUTS, SECOND, Spacings, differences
from pipeline.kernels.difference_row import eigenvalues
from pipeline.kernels.frame import Frame
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Specs
from pipeline.operations.registry import registry
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Raster, same_bits

SPACING = (2.5, 0.7)


def compute(values: np.ndarray, op: str, folder: Path, **settings: Any) -> dict[str, np.ndarray]:
    """Run one step on a raster with dims y, x; return its outputs as (y, x), as stored."""
    step = {"name": "step", "op": op, **settings}
    source = str(folder / f"{len(list(folder.iterdir()))}.zarr")
    harness.store(Raster(values, ("y", "x")), Path(source))
    results = harness.whole(source, [step], folder)
    return {path.removeprefix("step/"): array[0] for path, array in results.items()}


def scene(shape: tuple[int, int], dtype: str = "float64") -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * 100).astype(dtype)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32"])
def test_the_gradient_is_numpys(dtype: str, order: int, tmp_path: Path) -> None:
    values = scene((23, 17), dtype)
    edge = {1: "one_sided", 2: "one_sided_2"}[order]
    got = compute(values, "gradient", tmp_path, edge=edge, spacing=list(SPACING))
    expected = np.gradient(values.astype(np.float64), *SPACING, edge_order=order)
    for name, array, spacing in zip(("dy", "dx"), expected, SPACING, strict=True):
        bound = 4 * np.finfo(got[name].dtype).eps * np.abs(values).max() / spacing
        np.testing.assert_allclose(got[name], array, rtol=0, atol=bound)


@pytest.mark.parametrize("order", [1, 2])
def test_the_mixed_derivative_is_numpys_everywhere(order: int, tmp_path: Path) -> None:
    values = scene((23, 17))
    edge = {1: "one_sided", 2: "one_sided_2"}[order]
    got = compute(values, "hessian", tmp_path, edge=edge, spacing=list(SPACING), outputs=["dxy"])
    dy = np.gradient(values, SPACING[0], axis=0, edge_order=order)
    np.testing.assert_allclose(
        got["dxy"], np.gradient(dy, SPACING[1], axis=1, edge_order=order), rtol=1e-12, atol=1e-11
    )


def test_the_interior_is_the_slices_to_the_bit(tmp_path: Path) -> None:
    a = scene((40, 31))
    sy, sx = SPACING
    up, down, left, right, centre = a[:-2, 1:-1], a[2:, 1:-1], a[1:-1, :-2], a[1:-1, 2:], a[1:-1, 1:-1]
    expected = {
        "dy": (down - up) / (2 * sy),
        "dx": (right - left) / (2 * sx),
        "dyy": ((down - centre) - (centre - up)) / (sy * sy),
        "dxy": ((a[2:, 2:] - a[2:, :-2]) - (a[:-2, 2:] - a[:-2, :-2])) / (4 * sy * sx),
        "dxx": ((right - centre) - (centre - left)) / (sx * sx),
    }
    got = compute(a, "gradient", tmp_path, spacing=[sy, sx]) | compute(a, "hessian", tmp_path, spacing=[sy, sx])
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name][1:-1, 1:-1], array, name)


@pytest.mark.parametrize("shape", [(12, 9), (3, 3), (3, 40)])
@pytest.mark.parametrize("spacing", [(1, 1), (10, 10), (0.5, 30)])
def test_polynomials_of_degree_2_are_exact_at_the_edge_too(
    shape: tuple[int, int], spacing: tuple[float, float], tmp_path: Path
) -> None:
    y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    values = 3 * y * y - 2 * x * x + 5 * x * y + 7 * y - x + 1e6
    first = compute(values, "gradient", tmp_path, edge="one_sided_2", spacing=list(spacing))
    second = compute(values, "hessian", tmp_path, spacing=list(spacing), outputs=list(SECOND))
    np.testing.assert_array_equal(first["dy"], 6 * y + 5 * x + 7)
    np.testing.assert_array_equal(first["dx"], -4 * x + 5 * y - 1)
    for name, value in {"dyy": 6, "dxy": 5, "dxx": -4, "laplacian": 2, "determinant": -49}.items():
        assert (second[name] == value).all(), name
    for name, sign in {"eigen_large": 1, "eigen_small": -1}.items():
        np.testing.assert_allclose(second[name], 1 + sign * np.sqrt(50), rtol=4e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "edge"),
    [((9, 8), "one_sided"), ((2, 2), "one_sided_2"), ((2, 7), "one_sided_2"), ((7, 2), "one_sided_2")],
)
def test_where_a_line_goes_on_the_second_derivative_is_0(
    shape: tuple[int, int], edge: str, dtype: str, tmp_path: Path
) -> None:
    got = compute(scene(shape, dtype), "hessian", tmp_path, edge=edge, outputs=["dyy", "dxx"])
    if edge == "one_sided" or shape[0] == 2:
        assert (got["dyy"][[0, -1]] == 0).all()
    if edge == "one_sided" or shape[1] == 2:
        assert (got["dxx"][:, [0, -1]] == 0).all()
    assert shape == (2, 2) or any((np.abs(array) > 1).any() for array in got.values())


@pytest.mark.parametrize("edge", ["one_sided", "one_sided_2"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 9), (9, 2), (2, 2)])
def test_short_axes_fall_back_to_what_pixels_there_are(shape: tuple[int, int], edge: str, tmp_path: Path) -> None:
    """Two pixels give their difference, whatever the order; one pixel gives 0."""
    values = scene(shape)
    got = compute(values, "gradient", tmp_path, edge=edge)
    for axis, name in enumerate(("dy", "dx")):
        expected = np.zeros(shape)
        if shape[axis] > 1:
            order = 2 if edge == "one_sided_2" and shape[axis] > 2 else 1
            expected = np.gradient(values, axis=axis, edge_order=order)
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("op", "outputs"), [("gradient", FIRST), ("hessian", SECOND)])
def test_a_rim_of_zeros(op: str, outputs: Sequence[str], tmp_path: Path) -> None:
    values = scene((11, 13), "float32")
    got = compute(values, op, tmp_path, edge="zero", outputs=list(outputs))
    reflected = compute(values, op, tmp_path, edge="reflect", outputs=list(outputs))
    for name in outputs:
        expected = np.zeros_like(values)
        expected[1:-1, 1:-1] = reflected[name][1:-1, 1:-1]
        np.testing.assert_array_equal(got[name], expected, name)


def test_shrink_makes_the_rim_invalid_and_declares_it(tmp_path: Path) -> None:
    values = scene((6, 7), "int16")
    got = compute(values, "gradient", tmp_path, edge="shrink")
    assert np.isnan(got["dy"][[0, -1]]).all()
    assert np.isfinite(got["dy"][1:-1]).all()
    assert np.isnan(got["dx"][:, [0, -1]]).all()
    spec = RasterSpec(6, 7, np.dtype("int16"))
    for edge, nodata in (("shrink", True), ("reflect", False)):
        step = registry()["gradient"].model_validate({"name": "s", "op": "gradient", "edge": edge})
        assert all((out.nodata is not None) == nodata for out in step.output_specs({"input": spec}).values())
        assert {out.dtype.name for out in step.output_specs({"input": spec}).values()} == {"float32"}


STENCILS: dict[str, set[tuple[int, int]]] = {
    "dy": {(-1, 0), (0, 0), (1, 0)},
    "dx": {(0, -1), (0, 0), (0, 1)},
    "dyy": {(-1, 0), (0, 0), (1, 0)},
    "dxy": {(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)},
    "dxx": {(0, -1), (0, 0), (0, 1)},
}
CROSS = STENCILS["dy"] | STENCILS["dx"]
SUPPORT = STENCILS | {"magnitude": CROSS, "direction": CROSS, "laplacian": CROSS}
SUPPORT |= dict.fromkeys(("determinant", "eigen_large", "eigen_small"), CROSS | STENCILS["dxy"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_invalid_pixel_spoils_its_supports_and_nothing_else(bad: float, dtype: str) -> None:
    values = scene((9, 9), dtype)
    frame = Frame(Region(1, 8, 1, 8), (0, 0), (1, 1))

    def everything() -> dict[str, np.ndarray]:
        out = {name: np.empty((1, 7, 7), dtype) for name in OUTPUTS}
        differences(values[np.newaxis], out, frame, Spacings())
        return {name: array[0] for name, array in out.items()}

    clean = everything()
    values[4, 4] = bad
    for name, array in everything().items():
        spoiled = {(4 - row, 4 - column) for row, column in SUPPORT[name]}
        assert {(int(i) + 1, int(j) + 1) for i, j in np.argwhere(np.isnan(array))} == spoiled, name
        np.testing.assert_array_equal(array[~np.isnan(array)], clean[name][~np.isnan(array)], name)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_subset_of_the_outputs_has_the_same_bits(dtype: str, lanes: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 12, 4000 * lanes)).astype(dtype)  # longer than a strip
    spacing = Spacings(*SPACING, (10, 19), (-5, 3992))

    def some(names: Sequence[str], origin: tuple[int, int]) -> dict[str, np.ndarray]:
        shape = 2, 20 - origin[0], (3993 - origin[1]) * lanes
        out = {name: np.zeros(shape, dtype) for name in names}
        differences(values, out, Frame(Region(10, 20, -5, 3993), (9, -6), origin, lanes), spacing)
        return {name: array[:, 10 - origin[0] :, (-5 - origin[1]) * lanes :] for name, array in out.items()}

    together = some(OUTPUTS, (10, -5))
    for names in [(name,) for name in OUTPUTS] + [("dy", "dx"), ("dyy", "dxy", "dxx"), ("dx", "eigen_small")]:
        for name, array in some(names, (7, -9)).items():
            assert same_bits(array, together[name]), (name, names)


def all_outputs(values: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> dict[str, np.ndarray]:
    """Return every output in the interior of one band."""
    bottom, right = values.shape[0] - 1, values.shape[1] - 1
    out = {name: np.empty((1, bottom - 1, right - 1), values.dtype) for name in OUTPUTS}
    differences(values[np.newaxis], out, Frame(Region(1, bottom, 1, right), (0, 0), (1, 1)), Spacings(*spacing))
    return {name: array[0].astype(np.float64) for name, array in out.items()}


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e150])
def test_eigenvalues_are_numpys(scale: float) -> None:
    got = all_outputs(scene((50, 60)) * scale, SPACING)
    matrices = np.stack([got["dyy"], got["dxy"], got["dxy"], got["dxx"]], -1).reshape(*got["dyy"].shape, 2, 2)
    expected = np.linalg.eigvalsh(matrices)
    size = np.abs(expected).max(axis=-1)
    assert (got["eigen_large"] >= got["eigen_small"]).all()
    assert (np.abs(got["eigen_small"] - expected[..., 0]) <= 1e-15 * size).all()
    assert (np.abs(got["eigen_large"] - expected[..., 1]) <= 1e-15 * size).all()


@pytest.mark.parametrize(
    ("curvature", "eigenvalues"),
    [((0, 0, 0), (0, 0)), ((2, 0, 2), (2, 2)), ((3, 0, -3), (3, -3)), ((1, 1, 1), (2, 0)), ((-4, 2, -1), (0, -5))],
)
def test_eigenvalues_of_special_matrices(curvature: tuple[int, int, int], eigenvalues: tuple[int, int]) -> None:
    yy, xy, xx = curvature
    y, x = np.mgrid[0:5, 0:5].astype(float)
    got = all_outputs(yy * y * y / 2 + xy * x * y + xx * x * x / 2)
    assert (got["eigen_large"] == eigenvalues[0]).all()
    assert (got["eigen_small"] == eigenvalues[1]).all()


def test_the_small_eigenvalue_keeps_its_digits() -> None:
    large, small = np.empty(2), np.empty(2)
    eigenvalues(np.array([2.0**60, 1.0]), np.array([0.0, 2.0**-30]), np.array([1.0, 2.0**60]), large, small)
    assert large.tolist() == [2.0**60, 2.0**60]
    assert small.tolist() == [1, 1]


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_magnitude_and_direction_are_numpys(scale: float) -> None:
    got = all_outputs(scene((200, 201)) * scale)
    np.testing.assert_allclose(got["magnitude"], np.hypot(got["dy"], got["dx"]), rtol=5e-16)
    np.testing.assert_allclose(got["direction"], np.degrees(np.arctan2(got["dy"], got["dx"])), rtol=5e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_directions_of_the_compass(dtype: str) -> None:
    """From +x towards +y, in (-180, 180]; 0 on flat ground."""
    y, x = np.mgrid[0:3, 0:3].astype(dtype)
    ways = {(0, 1): 0, (1, 1): 45, (1, 0): 90, (1, -1): 135, (0, -1): 180, (-1, -1): -135, (-1, 0): -90, (-1, 1): -45}
    for (dy, dx), angle in (ways | {(0, 0): 0}).items():
        assert all_outputs((dy * y + dx * x).astype(dtype))["direction"][0, 0] == angle
    steep = all_outputs((-1e-12 * y - x * 1e6).astype(dtype))
    assert steep["dy"][0, 0] <= 0
    assert steep["direction"][0, 0] == 180


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("spacing: 0", r"spacing: must be positive .* got 0; try 1"),
        ("spacing: [1, -2]", r"spacing: must be positive .* got -2; try 1"),
        ("spacing: .inf", "spacing: must be positive"),
        ("spacing: [1, 2, 3]", r"must be a number or \[y, x\]"),
        ("outputs: [dz]", "outputs.*dz"),
        ("outputs: []", "must name at least one output"),
        ("outputs: [dy, dx, dy]", "must name each output once, got dy, dx, dy"),
        ("outputs: [dyy]", "outputs.*dyy"),
        ("edge: constant", "edge: constant needs a value; add `cval: 0`, say"),
        ("edge: shrink, cval: 0", "cval is for edge: constant; edge is shrink"),
        ("edge: constant, cval: .nan", "must be finite, got nan"),
        ("edge: round", "edge.*round"),
    ],
)
def test_refusals(settings: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    step = f"{{name: slope, op: gradient, {settings}}}"
    file.write_text(f"inputs: {{image: x.zarr}}\nsteps: [{step}]\noutput: {{path: out.zarr}}\n")
    with pytest.raises(PipelineError, match=message):
        load_pipeline(file)


def test_a_value_beyond_the_edge_fits_the_working_dtype(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"1e\+60 cannot occur in float32 pixels"):
        compute(scene((4, 4), "uint8"), "gradient", tmp_path, edge="constant", cval=1e60)


PLACE = (20.0, 0.0, 5e5, 0.0, -10.0, 6e6)
ROTATED = (20.0, 1.0, 5e5, 1.0, -10.0, 6e6)


@pytest.mark.parametrize("op", ["gradient", "hessian"])
@pytest.mark.parametrize(
    ("transform", "crs", "offer"),
    [
        (
            PLACE,
            "EPSG:32632",
            r"of 10 x 20; .*`spacing: geo` \(per metre; a pixel is 10 x 20 m\), or `spacing: 1`",
        ),
        ((1, 0, 5e5, 0, -1, 6e6), "EPSG:32632", r"`spacing: geo` .*, or `spacing: 1`"),
        ((0.01, 0, 8, 0, -0.01, 47), "EPSG:4326", r"`spacing: geo` \(per metre; a pixel is 1111\.\d+ x 76\d\.\d+ m\)"),
        (PLACE, None, r"`spacing: \[10, 20\]` .*`spacing: geo` is refused: .* no coordinate system.*, or `spacing: 1`"),
        (ROTATED, "EPSG:32632", r"`spacing: \[10\.0498\d*, 20\.0249\d*\]` .*the raster is rotated.*, or `spacing: 1`"),
    ],
)
def test_a_georeferenced_raster_needs_a_spacing(op: str, transform: Any, crs: str | None, offer: str) -> None:
    spec = RasterSpec(6, 7, np.dtype("float32"), transform=transform, crs=crs)
    for given in ({}, {"spacing": None}):
        step = registry()[op].model_validate({"name": "s", "op": op, **given})
        with pytest.raises(
            PipelineError, match=rf"^not given, and the raster is georeferenced, with .*{offer}"
        ) as caught:
            step.placed(Specs({"input": spec}), [])
        assert caught.value.path == ("spacing",)
    assert step.placed(Specs({"input": replace(spec, transform=None)}), []).spacing == (1, 1)
    one = registry()[op].model_validate({"name": "s", "op": op, "spacing": 1})
    notes: list[str] = []
    assert one.placed(Specs({"input": spec}), notes).spacing == (1, 1)
    assert not notes


def test_a_slope_of_one_in_five(tmp_path: Path) -> None:
    """Metres down and across, of a step computed from the raster, too; the angle is 11.3 degrees, not 73.9."""
    heights = (2.0 * np.arange(7) + np.zeros((6, 1))).astype(np.float32)
    source = str(tmp_path / "dem.zarr")
    array = xr.DataArray(
        heights, dims=("y", "x"), coords={"y": 6e6 - 10.0 * np.arange(6), "x": 5e5 + 10.0 * np.arange(7)}, name="dem"
    )
    array.coords["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": pyproj.CRS("EPSG:32632").to_wkt()})
    array.to_dataset().to_zarr(source, zarr_format=3, consolidated=False)
    steps: list[dict[str, Any]] = [
        {"name": "same", "op": "cast", "input": "image", "dtype": "float32"},
        {"name": "s", "op": "gradient", "input": "same", "outputs": ["dx"]},
    ]
    found = {}
    for spacing in ("geo", 1):
        step = {**steps[1], "spacing": spacing}
        api.run(harness.document(source, [steps[0], step], tmp_path / f"{spacing}.zarr"))
        found[spacing] = harness.read(tmp_path / f"{spacing}.zarr", "s/dx")
        lazy = pipeline.apply([steps[0] | {"input": "image"}, step], array)
        assert harness.same_bits(lazy.values[np.newaxis], found[spacing])
    assert np.degrees(np.arctan(found["geo"])).max() == pytest.approx(11.31, abs=0.01)
    assert (found[1] == 2).all()
    message = r"\(s\)\.spacing: not given, and the raster is georeferenced, with pixels of 10 x 10; say"
    with pytest.raises(PipelineError, match=message):
        load(harness.document(source, steps, tmp_path / "x.zarr"))
    with pytest.raises(PipelineError, match=message):
        pipeline.apply(steps, array)


def test_64_bit_integers_are_refused(tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((4, 4), np.int64), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match="floating point holds whole numbers only up to"):
        load(harness.document(source, [{"name": "s", "op": "hessian"}], tmp_path / "out.zarr"))
