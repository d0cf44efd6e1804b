"""Gabor filters against scikit-image and scipy, and how a bank is computed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import skimage.filters as skimage_filters
import yaml
import zarr

from pipeline import api
from pipeline.config import load_pipeline
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.gabor import Group, factor_bank, gabor_kernel
from pipeline.kernels.gabor_bank import Band, responses
from pipeline.kernels.window import WindowRule, moments, power_moments
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Halo, Region
from pipeline.operations.registry import registry
from pipeline.verbs.load import load
from tests.harness import Raster, document, same_bits, store, whole

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
EPS = {SINGLE: float(np.finfo(SINGLE).eps), DOUBLE: float(np.finfo(DOUBLE).eps)}


def gabor_step(**parameters: Any) -> dict[str, Any]:
    return {"name": "texture", "op": "gabor", "frequencies": [0.15], "orientations": [90], "sigma": 5, **parameters}


def operation(**parameters: Any) -> Any:
    return registry()["gabor"].model_validate(gabor_step(**parameters))


def compute(values: np.ndarray, folder: Path, *steps: dict[str, Any], dims: tuple[str, ...] = ("y", "x")) -> Any:
    return whole(store(Raster(values, dims), folder / "in.zarr"), steps, folder)


def brick() -> np.ndarray:
    from skimage.data import brick

    return np.asarray(brick())


def component(group: Group, row: int) -> np.ndarray:
    """Return the kernel that a group computes for a component, not flipped."""
    rows, columns = group.size
    downs = group.down.astype(np.float64)[group.columns, :rows]
    return np.einsum("t,ti,tj->ij", group.signs[row], downs, group.across[:, :columns])[::-1, ::-1]


@pytest.mark.parametrize("orientation", [0, 30, 45, 90, 117.5, 180, -60])
@pytest.mark.parametrize(("frequency", "sigma"), [(0.15, (5, 5)), (0.4, (1.4, 0.3)), (0.05, (3, 9.5))])
@pytest.mark.parametrize(("n_stds", "offset"), [(3, 0), (2.5, 0.7)])
def test_kernels_are_those_of_scikit_image(
    frequency: float, orientation: float, sigma: tuple[float, float], n_stds: float, offset: float
) -> None:
    theta = math.radians(orientation)
    expected = skimage_filters.gabor_kernel(frequency, theta, 1, *sigma, n_stds, offset)
    np.testing.assert_array_equal(gabor_kernel(frequency, theta, sigma, n_stds, offset), expected)


@pytest.mark.parametrize("bandwidth", [None, 0.7, 2])
def test_the_bandwidth_is_that_of_scikit_image(bandwidth: float | None) -> None:
    step = operation(sigma=None, bandwidth=bandwidth, frequencies=[0.1, 0.3], offset=30)
    for filter_, frequency in zip(step.filters, [0.1, 0.3], strict=True):
        expected = skimage_filters.gabor_kernel(frequency, np.pi / 2, bandwidth or 1, offset=np.pi / 6)
        np.testing.assert_allclose(gabor_kernel(*filter_), expected, rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("boundary", ["reflect", "nearest", "mirror", "constant", "wrap"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_brick_is_what_scipy_makes_of_it(dtype: str, boundary: str, tmp_path: Path) -> None:
    """The question as it was first posed: mean and variance of the response in 15 x 15 pixels, both stages padded."""
    values = brick()[:200, :150].astype(dtype)
    mode = {"reflect": "reflect", "nearest": "nearest", "mirror": "mirror", "constant": "constant", "wrap": "wrap"}
    cval = {"cval": 3} if boundary == "constant" else {}
    step = gabor_step(window=15, statistics=["mean", "var", "std"], boundary=boundary, **cval)
    kernel = skimage_filters.gabor_kernel(0.15, np.pi / 2, sigma_x=5, sigma_y=5).real
    rule = {"mode": mode[boundary], **cval}
    response = scipy.ndimage.convolve(values.astype(np.float64), kernel, **rule)
    mean = scipy.ndimage.uniform_filter(response, 15, **rule)
    around = scipy.ndimage.uniform_filter(response**2, 15, mode=rule["mode"], cval=cval.get("cval", 0) ** 2)
    result = compute(values, tmp_path, step)
    eps = EPS[result["texture/mean"].dtype]
    size = 255 * np.abs(kernel).sum()
    np.testing.assert_allclose(result["texture/mean"][0], mean, rtol=0, atol=4 * eps * size)
    np.testing.assert_allclose(result["texture/var"][0], around - mean**2, rtol=0, atol=4 * eps * size**2)
    np.testing.assert_allclose(result["texture/std"][0] ** 2, result["texture/var"][0], rtol=4 * eps, atol=eps)


@pytest.mark.parametrize("response", ["real", "imag", "magnitude"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("sigma", [3, {"along": 2, "across": 6}, {"along": 9, "across": 4}], ids=str)
def test_responses_are_true_convolutions(response: str, exact: bool, sigma: Any, tmp_path: Path) -> None:
    values = brick()[:120, :130].astype(np.float32)
    step = gabor_step(orientations=[20, 160], sigma=sigma, response=response, exact=exact, offset=25)
    along, across = (sigma["along"], sigma["across"]) if isinstance(sigma, dict) else (sigma, sigma)
    (result,) = compute(values, tmp_path, step).values()
    for plane, orientation in zip(result, [20, 160], strict=True):
        kernel = skimage_filters.gabor_kernel(0.15, np.deg2rad(orientation), 1, along, across, offset=np.deg2rad(25))
        parts = [scipy.ndimage.convolve(values.astype(np.float64), part) for part in (kernel.real, kernel.imag)]
        expected = {"real": parts[0], "imag": parts[1], "magnitude": np.hypot(*parts)}[response]
        size = 255 * np.abs(kernel).sum()
        np.testing.assert_allclose(plane, expected, rtol=0, atol=4 * EPS[SINGLE] * size)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("sigma", [(5, 5), (1.4, 1.4), (12, 12), (5, 15)])
@pytest.mark.parametrize("offset", [0, 0.7])
def test_products_make_the_kernel(sigma: tuple[float, float], offset: float, dtype: np.dtype) -> None:
    kernels = [gabor_kernel(0.1, math.radians(o), sigma, 3, offset) for o in range(0, 360, 15)]
    groups = factor_bank([(kernel.real, kernel.imag) for kernel in kernels], dtype, exact=False)
    assert sorted(filter_ for group in groups for filter_ in group.filters) == list(range(24))
    tolerance = 1e-7 if dtype == SINGLE else 8 * EPS[DOUBLE]
    for group in groups:
        if group.direct:
            assert sigma == (5, 15)
            continue
        for number, filter_ in enumerate(group.filters):
            for part, kernel in enumerate((kernels[filter_].real, kernels[filter_].imag)):
                error = np.abs(component(group, 2 * number + part) - kernel).sum()
                assert error <= tolerance * np.abs(kernel).sum()


def test_filters_share_what_they_have_in_common() -> None:
    def factor(orientations: list[float], *parts: str) -> tuple[Group, ...]:
        kernels = [gabor_kernel(0.15, math.radians(o), (5, 5)) for o in orientations]
        return factor_bank([tuple(getattr(kernel, part) for part in parts) for kernel in kernels], SINGLE, exact=False)

    (along,) = factor([90], "real")
    assert (len(along.down), len(along.across)) == (1, 1)
    (oblique,) = factor([30, 150], "real")
    assert oblique.filters == (0, 1)
    assert (len(oblique.down), len(oblique.across)) == (2, 2)
    (magnitude,) = factor([30, 150], "real", "imag")
    assert (len(magnitude.down), len(magnitude.across)) == (2, 4)


@pytest.mark.parametrize("orientation", [0, 20, 45, 90])
@pytest.mark.parametrize("sigma", [1.0, 5.0, 20.0])
def test_sums_hold_their_bound(orientation: float, sigma: float) -> None:
    """Values whose signs are those of the kernel, large offsets, values that are hard to round."""
    kernel = gabor_kernel(0.15, math.radians(orientation), (sigma, sigma)).real
    (group,) = factor_bank([(kernel,)], SINGLE, exact=False)
    height, width = kernel.shape
    rng = np.random.default_rng(0)
    raster = Region(0, 30, 0, 40)
    signs = np.sign(np.pad(kernel[::-1, ::-1], ((0, 29), (0, 39)), mode="wrap"))
    fields = (
        signs * (2 - 2.0**-23),
        signs * rng.uniform(1, 2, signs.shape),
        1e4 + rng.normal(size=signs.shape),
        np.full(signs.shape, 1 + 2.0**-23),
    )
    for values in fields:
        plane = values.astype(np.float32)
        band = Band(plane, (-(height // 2), -(width // 2)), raster, "reflect", 0, None)
        got = responses(group, band, raster)[0]
        windows = np.lib.stride_tricks.sliding_window_view(plane.astype(np.float64), kernel.shape)
        expected = np.einsum("yxij,ij->yx", windows, kernel[::-1, ::-1])
        bound = 4 * EPS[SINGLE] * np.abs(plane).max() * np.abs(kernel).sum()
        assert np.abs(got - expected).max() <= bound / 4  # far below the bound that is proved


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("reach", [(2, 2), (3, 9), (15, 4)])
def test_bits_do_not_depend_on_the_tile(reach: tuple[int, int], dtype: np.dtype) -> None:
    """Also of tiles narrower or lower than the vectors that they are computed by."""
    rng = np.random.default_rng(0)
    rows, columns = reach
    kernel = np.outer(rng.normal(size=2 * rows + 1), rng.normal(size=2 * columns + 1))
    group = factor_bank([(kernel,)], dtype, exact=False)[0]
    assert not group.direct
    raster = Region(0, 30, 0, 90)
    values = rng.normal(size=(30 + 2 * rows, 90 + 2 * columns)).astype(dtype)
    band = Band(values, (-rows, -columns), raster, "reflect", 0, None)
    whole = responses(group, band, raster)
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float64), kernel.shape)
    expected = np.einsum("yxij,ij->yx", windows, kernel[::-1, ::-1])
    size = np.abs(values).max() * np.abs(kernel).sum()
    np.testing.assert_allclose(whole[0], expected, rtol=0, atol=4 * EPS[dtype] * size)
    for _ in range(60):
        (top, bottom), (left, right) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in (30, 90))
        tile = Region(int(top), int(bottom), int(left), min(int(right), int(left) + int(rng.integers(1, 80))))
        around = tile.grow(Halo.around(rows, columns))
        own = np.ascontiguousarray(values[around.slices(band.origin)])
        cut = Band(own, (around.top, around.left), raster, "reflect", 0, None)
        np.testing.assert_array_equal(responses(group, band, tile), whole[(slice(None), *tile.slices((0, 0)))])
        np.testing.assert_array_equal(responses(group, cut, tile), responses(group, band, tile))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("response", ["real", "imag"])
@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_an_invalid_pixel_takes_the_rectangle_of_the_kernel(
    invalid: float, response: str, exact: bool, tmp_path: Path
) -> None:
    """Also where a weight is 0; the window skips these responses and leaves their pixels invalid."""
    values = brick()[:80, :90].astype(np.float32)
    values[40, 50] = invalid
    step = gabor_step(sigma=2, response=response, exact=exact)
    (plain,) = compute(values, tmp_path, step).values()
    expected = np.zeros(values.shape, bool)
    expected[34:47, 44:57] = True
    np.testing.assert_array_equal(np.isnan(plain[0]), expected)
    windows = compute(values, tmp_path / "w", {**step, "window": 9, "statistics": ["mean", "var"]})
    for array in windows.values():
        np.testing.assert_array_equal(np.isnan(array[0]), expected)


@pytest.mark.parametrize("boundary", ["reflect", "mirror", "constant", "wrap", "shrink"])
@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_the_window_is_that_of_op_window(dtype: str, boundary: str, tmp_path: Path) -> None:
    values = (brick()[:90, :70].astype(np.float64) * 200).astype(dtype)
    common: dict[str, Any] = {"boundary": boundary} | ({"cval": 9} if boundary == "constant" else {})
    statistics = ["mean", "var"]
    fused = gabor_step(sigma=2, orientations=[30], window=[5, 9], statistics=statistics, **common)
    response = {**gabor_step(sigma=2, orientations=[30], **common), "name": "response"}
    window = {"name": "after", "op": "window", "size": [5, 9], "statistics": statistics, "input": "response", **common}
    result = compute(values, tmp_path, {**fused, "input": "image"}, {**response, "input": "image"}, window)
    assert same_bits(result["texture/mean"], result["after/mean"])
    np.testing.assert_allclose(result["texture/var"], result["after/var"], rtol=1e-6, atol=1e-9)
    if boundary == "shrink":
        assert np.isnan(result["texture/mean"][0, :6]).all()
        assert np.isfinite(result["texture/mean"][0, 6:-6, 6:-6]).all()


@pytest.mark.parametrize("dims", [("y", "x"), ("y", "x", "band"), ("band", "y", "x")], ids=",".join)
def test_a_bank_multiplies_the_bands(dims: tuple[str, ...], tmp_path: Path) -> None:
    """Bands outermost, then frequencies, then orientations, whatever the dims."""
    image = np.random.default_rng(0).normal(size=(40, 35, 3)).astype(np.float32)
    values = {2: image[:, :, 0], 3: image if dims[0] == "y" else np.moveaxis(image, -1, 0).copy()}[len(dims)]
    step = gabor_step(frequencies=[0.2, 0.3], orientations=[0, 45, 90], sigma=2, window=3)
    (result,) = compute(values, tmp_path, step, dims=dims).values()
    names = ("b1", "b2", "b3") if len(dims) == 3 else ("b1",)
    spec = next(iter(load(document(str(tmp_path / "in.zarr"), [step], tmp_path / "x.zarr")).plan.kept.values())).spec
    pairs = [(f, o) for f in (0.2, 0.3) for o in (0, 45, 90)]
    assert spec.dims == (dims if len(dims) == 3 else ("band", "y", "x"))
    assert spec.bands == tuple(f"{name} f={f} o={o}" for name in names for f, o in pairs)
    assert dict(spec.band_coordinates) == {
        "frequency": tuple(f for _ in names for f, _ in pairs),
        "orientation": tuple(o for _ in names for _, o in pairs),
        "source_band": tuple(name for name in names for _ in pairs),
    }
    for number in range(len(names)):
        for position, (f, o) in enumerate(pairs):
            one = gabor_step(frequencies=[f], orientations=[o], sigma=2, window=3)
            (alone,) = compute(image[:, :, number].copy(), tmp_path / f"{number}-{position}", one).values()
            assert same_bits(result[number * len(pairs) + position], alone[0])


def test_one_filter_leaves_the_dims_and_stores_its_coordinates(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    source = store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    api.run(document(source, [gabor_step(sigma=1)], tmp_path / "one.zarr"))
    assert zarr.open_array(str(tmp_path / "one.zarr"), path="texture/response").metadata.dimension_names == ("y", "x")
    api.run(document(source, [gabor_step(sigma=1, orientations=[0, 22.5])], tmp_path / "two.zarr"))
    group = zarr.open_group(str(tmp_path / "two.zarr"), path="texture")
    assert group["orientation"][...].tolist() == [0, 22.5]
    assert group["frequency"][...].tolist() == [0.15, 0.15]


def test_a_large_bank_on_many_bands_fits_into_little_memory(tmp_path: Path) -> None:
    zarr.create_array(
        str(tmp_path / "in.zarr"),
        shape=(5000, 5000, 16),
        chunks=(500, 500, 16),
        dtype="float32",
        dimension_names=("y", "x", "band"),
    )[0, 0, 0] = 1
    step = gabor_step(frequencies=[0.1, 0.15, 0.2, 0.25], orientations=[0, 30, 60, 90, 120, 150], window=15)
    step["statistics"] = ["mean", "var"]
    work = document(str(tmp_path / "in.zarr"), [step], tmp_path / "x.zarr", chunks=[250, 250])
    job = load({**work, "run": {"memory": "2 GiB", "workers": 2}})
    assert job.plan.kept["texture/mean"].spec.num_bands == 384
    spec = RasterSpec(5000, 5000, SINGLE, ("y", "x", "band"), tuple(f"b{i}" for i in range(16)))
    assert operation(**step).scratch_bytes({"input": spec}, (5000, 5000)) < 40e6


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("size", [(15, 15), (1, 1), (4 * 8 + 1, 3)])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_sums_of_squares_give_the_variances_that_merging_gives(
    offset: float, size: tuple[int, int], holes: bool
) -> None:
    values = (np.random.default_rng(0).normal(size=(1, 90, 700)) + offset).astype(np.float32)
    if holes:
        values[0, 40, 300] = np.nan
        values[0, 70:, 600:] = np.inf
    top, left = size[0] // 2, size[1] // 2
    frame = Frame(Region(3, 90 - 2 * top, 5, 700 - 2 * left), (-top, -left), (3, 5))
    window = WindowRule(Footprint.rectangle(size))
    shape = (1, 90 - 2 * top - 3, 700 - 2 * left - 5)
    got, expected = ({name: np.empty(shape, np.float32) for name in ("mean", "var", "std")} for _ in range(2))
    power_moments(values, got, frame, window)
    moments(values, None, expected, frame, window)
    assert same_bits(got["mean"], expected["mean"])
    largest = float(np.abs(values[np.isfinite(values)]).max())
    for name, power in (("var", 1), ("std", 0.5)):
        atol = (2.0**-50 * largest**2) ** power
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=atol)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"frequencies": [0]}, "must be at least 1e-06"),
        ({"frequencies": []}, "at least 1"),
        ({"frequencies": [0.1, 0.1]}, "once, got 0.1, 0.1"),
        ({"orientations": [45, 45.0]}, "once, got 45, 45"),
        ({"orientations": [math.nan]}, "finite"),
        ({"sigma": 5, "bandwidth": 1}, "give one of the two"),
        ({"sigma": {"along": 3}}, "across"),
        ({"sigma": 0}, "must be at least 1e-06"),
        ({"window": 14}, "must be odd, got 14; try 13 or 15"),
        ({"statistics": ["mean"]}, "add `window: 15`"),
        ({"window": 15, "statistics": ["mean", "mean"]}, "once, got mean, mean"),
        ({"window": 15, "statistics": ["median"]}, "median"),
        ({"boundary": "constant"}, "needs a value"),
        ({"cval": 3}, "boundary is reflect"),
        ({"sigma": 400}, "2401 rows or columns"),
        ({"sigma": None, "frequencies": [0.3, 0.001]}, "kernel of frequency 0.001"),
    ],
    ids=str,
)
def test_refusals(parameters: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = store(Raster(np.zeros((9, 9), np.uint8), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError) as caught:
        load(document(source, [gabor_step(**parameters)], tmp_path / "x.zarr"))
    assert words in str(caught.value)


def test_waves_faster_than_half_a_cycle_are_told() -> None:
    assert "frequency 0.7" in next(operation(frequencies=[0.2, 0.7]).notes({}))
    assert not list(operation().notes({}))


GABOR = [
    ("bandwidth: 2000", "bandwidth: must be at most 100.0, got 2000"),
    ("bandwidth: 1e-17", "bandwidth: must be at least 1e-06, got 1e-17"),
    ("frequencies: [1e-320]", "frequencies[0]: must be at least 1e-06, got 1e-320"),
    ("sigma: 1e308", "sigma: must be at most 1000000.0, got 1e+308"),
    ("sigma: 5e-324", "sigma: must be at least 1e-06"),
    ("n_stds: 1e308", "n_stds: must be at most 100.0"),
    ("bandwidth: 1e-6", "rows or columns, and at most 1001 can be computed"),
]


@pytest.mark.parametrize(("setting", "words"), GABOR)
def test_settings_of_gabor_that_no_pixel_shows(setting: str, words: str) -> None:
    frequencies = "" if "frequencies" in setting else "frequencies: [0.2], "
    step = f"{{name: g, op: gabor, {frequencies}orientations: [0], {setting}}}"
    text = f"inputs: {{image: a.zarr}}\nsteps: [{step}]\noutput: {{path: out.zarr}}\n"
    with pytest.raises(PipelineError, match=re.escape(words)):
        load_pipeline(yaml.safe_load(text.replace("1e-", "1.0e-").replace("5e-", "5.0e-").replace("1e308", "1.0e+308")))
