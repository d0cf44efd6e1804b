"""The kernels of convolve and gaussian against scipy.ndimage, and what the two operations refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pipeline
from pipeline.kernels.convolution import (
    Weights,
    correlate,
    direct,
    gaussian_weights,
    prepare,
    scratch_bytes,
    separable,
)
from pipeline.kernels.frame import Frame
from pipeline.model.errors import PipelineError
from pipeline.model.region import Region
from pipeline.testing.draws import draws
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Raster

RNG = np.random.default_rng(5)
SHAPES = ((1, 1), (3, 3), (1, 7), (9, 1), (5, 13), (31, 21))


def compute(values: np.ndarray, weights: Weights, lanes: int = 1, normalize: bool = False) -> np.ndarray:
    """Correlate what has its support inside of (plane, row, column x lane); the rest of the result is 99."""
    top, bottom, left, right = (max(0, pixels) for pixels in weights.reach)
    _, height, length = values.shape
    out, before = np.full(values.shape, 99, values.dtype), values.copy()
    region = (top, height - bottom, left, length // lanes - right)
    correlate(values, weights, out, Frame(Region(*region), (0, 0), (0, 0), lanes), normalize)
    np.testing.assert_array_equal(values, before)
    rim = np.ones((height, length // lanes, lanes), bool)
    rim[region[0] : region[1], region[2] : region[3]] = False
    assert (out[:, rim.reshape(height, length)] == 99).all()
    return np.ascontiguousarray(
        out.reshape(-1, height, length // lanes, lanes)[:, region[0] : region[1], left : region[3]]
    )


def expected(values: np.ndarray, kernel: np.ndarray, lanes: int = 1) -> np.ndarray:
    rows, columns = (side // 2 for side in kernel.shape)
    pixels = values.reshape(*values.shape[:2], -1, lanes).astype(np.float64)
    result = ndimage.correlate(pixels, kernel[np.newaxis, :, :, np.newaxis])
    return result[:, rows : result.shape[1] - rows, columns : result.shape[2] - columns]


def check(result: np.ndarray, right: np.ndarray, largest: float, size: float) -> None:
    """The contract's bound: 4 eps of the result x the largest value x the sum of the absolute weights."""
    np.testing.assert_allclose(result, right, rtol=0, atol=4 * np.finfo(result.dtype).eps * largest * size)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_direct_sums_are_those_of_scipy(shape: tuple[int, int], dtype: str, lanes: int) -> None:
    values, kernel = RNG.normal(size=(2, 50, 70 * lanes)).astype(dtype), RNG.normal(size=shape)
    right = expected(values, kernel, lanes)
    check(compute(values, direct(kernel), lanes), right, np.abs(values).max(), np.abs(kernel).sum())


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_separable_sums_are_those_of_scipy(shape: tuple[int, int], dtype: str, lanes: int) -> None:
    values, down, across = RNG.random((2, 50, 70 * lanes)).astype(dtype), *(RNG.normal(size=side) for side in shape)
    kernel = np.outer(down, across)
    right = expected(values, kernel, lanes)
    check(compute(values, separable(down, across), lanes), right, np.abs(values).max(), np.abs(kernel).sum())


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.7, 8.0])
def test_gaussian_weights_are_those_of_scipy(sigma: float, order: int) -> None:
    weights = gaussian_weights(sigma, 3.0, order)
    pixel = np.zeros(2 * weights.size + 1)
    pixel[weights.size] = 1
    answer = ndimage.gaussian_filter1d(pixel, sigma, order=order, truncate=3.0, mode="constant")
    start = weights.size - weights.size // 2
    np.testing.assert_array_equal(answer[start : start + weights.size][::-1], weights)
    assert not answer[:start].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [(1.0, 1.0), (2.0, 0.6), (0.0, 3.0), (4.0, 0.0), (0.0, 0.0)])
def test_gaussian_smoothing_is_that_of_scipy(sigma: tuple[float, float], dtype: str) -> None:
    values = RNG.random((1, 80, 90)).astype(dtype)
    factors = [gaussian_weights(side) for side in sigma]
    right = ndimage.gaussian_filter(values[0].astype(np.float64), sigma)
    rows, columns = (factor.size // 2 for factor in factors)
    result = compute(values, separable(*factors))[0, :, :, 0]
    check(result, right[rows : 80 - rows, columns : 90 - columns], 1, 1)


def test_ten_thousand_weights_of_one_sign_keep_the_bound_in_float64() -> None:
    values = (1 + RNG.random((1, 140, 160))).astype(np.float64)
    kernel = RNG.random((101, 101))
    weights = direct(kernel)
    result, place = compute(values, weights)[0, :, :, 0], np.s_[3:143:7]
    window = np.lib.stride_tricks.sliding_window_view(values[0], kernel.shape)
    right = np.einsum("ijkl,kl->ij", window[place].astype(np.longdouble), kernel.astype(np.longdouble))
    check(result[place], right.astype(np.float64), 2, kernel.sum())


@settings(max_examples=draws(60), deadline=None)
@given(data=st.data())
def test_no_bit_depends_on_the_block_or_on_pixels_outside_the_support(data: st.DataObject) -> None:
    """A part computed alone, from an array with NaN and inf just beyond its support, has the bits of the whole."""
    lanes, normalize = data.draw(st.sampled_from([1, 3])), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    down, across = (np.abs(rng.normal(size=2 * data.draw(st.integers(0, 5)) + 1)) for _ in range(2))
    weights = separable(down, across) if data.draw(st.booleans()) else direct(np.outer(down, across))
    rows, columns = down.size // 2, across.size // 2
    values = rng.normal(size=(2, 40, 60 * lanes)).astype(data.draw(st.sampled_from(["float32", "float64"])))
    values[rng.random(values.shape) < data.draw(st.sampled_from([0.0, 0.02]))] = np.nan
    whole = compute(values, weights, lanes, normalize)
    top, left = data.draw(st.integers(rows, 39 - rows)), data.draw(st.integers(columns, 59 - columns))
    bottom, right = data.draw(st.integers(top + 1, 40 - rows)), data.draw(st.integers(left + 1, 60 - columns))
    part = np.full(values.shape, np.inf, values.dtype)
    inside = np.s_[:, top - rows : bottom + rows, (left - columns) * lanes : (right + columns) * lanes]
    part[inside] = values[inside]
    out = np.empty((2, bottom - top, (right - left) * lanes), values.dtype)
    frame = Frame(Region(top, bottom, left, right), (0, 0), (top, left), lanes)
    correlate(part, weights, out, frame, normalize)
    alone = whole[:, top - rows : bottom - rows, left - columns : right - columns].reshape(out.shape)
    assert out.tobytes() == np.ascontiguousarray(alone).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("way", [direct, lambda kernel: prepare(kernel, np.dtype(np.float32))])
def test_an_invalid_pixel_reaches_as_far_as_the_weights_that_are_not_zero(way: Any, value: float) -> None:
    across = np.array([0, 1.0, 0, 2, 1, 0, 1])
    kernel = np.outer([1.0, 2, 0, 1, 3], across)
    values = np.ones((1, 30, 30), np.float32)
    values[0, 14, 15] = value
    result = compute(values, way(kernel))[0, :, :, 0]
    holes = np.zeros((30, 30))
    holes[14, 15] = 1
    reached = ndimage.correlate(holes, (kernel != 0).astype(np.float64))
    top, _, left, _ = way(kernel).reach
    height, width = result.shape
    np.testing.assert_array_equal(np.isnan(result), reached[top : top + height, left : left + width] > 0)
    assert np.isfinite(result[~np.isnan(result)]).all()


def test_an_invalid_pixel_reaches_as_far_as_in_scipy_for_derivatives_of_a_gaussian(tmp_path: Path) -> None:
    values = RNG.random((30, 30))
    values[14, 15] = np.nan
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    for order in ([0, 1], [1, 1], [2, 3]):
        result = harness.whole(source, [GAUSSIAN | {"order": order}], tmp_path)["step/value"][0]
        right = ndimage.gaussian_filter(values, 1, order=order)
        assert np.isnan(right).sum() == 81
        np.testing.assert_array_equal(np.isnan(result), np.isnan(right))


def test_sums_of_finite_pixels_may_overflow() -> None:
    result = compute(np.full((1, 5, 5), 3e38, np.float32), direct(np.ones((3, 3))))
    assert (result == np.inf).all()


@pytest.mark.parametrize("way", [direct, lambda kernel: prepare(kernel, np.dtype(np.float64))])
def test_normalized_sums_are_weighted_means_of_the_valid_pixels(way: Any) -> None:
    kernel = np.outer(RNG.random(7), RNG.random(5))
    values = RNG.normal(size=(1, 40, 40))
    values[RNG.random(values.shape) < 0.3] = np.nan
    values[0, :20, 30:] = np.inf
    result = compute(values, way(kernel), normalize=True)[0, :, :, 0]
    valid = np.isfinite(values[0])
    total = ndimage.correlate(np.where(valid, values[0], 0), kernel)
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(valid, total / ndimage.correlate(valid.astype(np.float64), kernel), np.nan)
    np.testing.assert_allclose(result, right[3:-3, 2:-2], rtol=0, atol=1e-14)


def test_supports_may_lie_beside_the_centre() -> None:
    kernel = np.zeros((7, 5))
    kernel[5, 4] = 2
    weights = direct(kernel)
    assert weights.reach == (-2, 2, -2, 2)
    values = RNG.normal(size=(1, 10, 10)).astype(np.float32)
    result = compute(values, weights)[0, :, :, 0]
    np.testing.assert_array_equal(result, 2 * values[0, 2:, 2:])
    values[0, 3, 3] = np.nan
    marked = compute(values, weights, normalize=True)[0, :, :, 0]
    assert np.isnan(marked[3, 3])  # the centre
    assert np.isnan(marked[1, 1])  # the only pixel of the support
    assert np.isfinite(np.delete(marked.reshape(-1), [1 * 8 + 1, 3 * 8 + 3])).all()


def test_kernels_that_are_products_are_summed_as_such_where_that_is_exact_and_cheaper() -> None:
    bell = gaussian_weights(2.0)
    product = np.outer(bell, bell)
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        assert prepare(product, dtype).across[0].size == bell.size
        assert prepare(np.ones((3, 3)), dtype).across[0].size == 0
        assert prepare(RNG.random((9, 9)), dtype).across[0].size == 0
    nearly = product * (1 + 1e-14 * RNG.normal(size=product.shape))
    assert prepare(nearly, np.dtype(np.float32)).across[0].size
    assert not prepare(nearly, np.dtype(np.float64)).across[0].size
    holes = product.copy()
    holes[0, 0] = 0  # its pixels are not in the support
    assert not prepare(holes, np.dtype(np.float32)).across[0].size


def test_weights_of_zero_alone_are_one_at_the_centre() -> None:
    zero = direct(np.zeros((5, 3)))
    assert zero.reach == (0, 0, 0, 0)
    assert not compute(np.ones((1, 4, 4), np.float32), zero).any()


def test_scratch_grows_with_the_kernel_and_not_with_the_block() -> None:
    weights = direct(np.ones((9, 9)))
    assert scratch_bytes((500, 20_000), weights, 1) == scratch_bytes((5_000, 40_000), weights, 1)
    assert scratch_bytes((500, 500), replace(weights, reach=(9, 9, 4, 4)), 1) > scratch_bytes((500, 500), weights, 1)


CONVOLVE = {"name": "step", "op": "convolve", "input": "image", "kernel": [[1, 1, 1]]}
GAUSSIAN = {"name": "step", "op": "gaussian", "input": "image", "sigma": 1}


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (CONVOLVE, {"kernel": [[1, 1], [1, 1]]}, "must have odd sides, got 2 x 2; pad it with a row of zeros"),
        (CONVOLVE, {"kernel": [[1, 1]]}, "must have odd sides, got 1 x 2; pad it with a column of zeros"),
        (CONVOLVE, {"kernel": [[0, 0, 0]]}, "must have a weight that is not 0"),
        (CONVOLVE, {"kernel": [[1, float("nan"), 1]]}, "must hold finite numbers, got nan"),
        (CONVOLVE, {"kernel": [[-1, 0, 1]], "normalize": True}, "weights of both signs"),
        (CONVOLVE, {"boundary": "constant"}, "needs a value; add `cval: 0`"),
        (CONVOLVE, {"cval": 1}, "cval is for boundary: constant; boundary is reflect"),
        (CONVOLVE, {"boundary": "constant", "cval": float("inf")}, "must be finite, got inf"),
        (CONVOLVE, {"boundary": "constant", "cval": 1e300}, "cannot occur in float32 pixels"),
        (GAUSSIAN, {"sigma": -1}, "must be at least 0"),
        (GAUSSIAN, {"sigma": [1, 2, 3]}, "must be a number or [y, x]"),
        (GAUSSIAN, {"order": 4}, "must be at most 3, got 4"),
        (GAUSSIAN, {"order": 1.5}, "must be a whole number, got 1.5"),
        (GAUSSIAN, {"truncate": 0}, "must be more than 0"),
        (GAUSSIAN, {"sigma": [0, 1], "order": 1}, "a derivative along y needs neighbours"),
        (GAUSSIAN, {"order": [0, 1], "normalize": True}, "is for smoothing"),
    ],
)
def test_what_is_refused(step: dict[str, Any], change: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((8, 8), np.float32), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError) as raised:
        load(harness.document(source, [step | change], tmp_path / "out.zarr"))
    assert words in str(raised.value)


def test_kernels_come_from_files_and_are_flipped_unless_correlated(tmp_path: Path) -> None:
    values = RNG.integers(0, 255, (20, 30)).astype(np.uint8)
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    kernel = RNG.normal(size=(3, 5))
    np.save(tmp_path / "kernel.npy", kernel)
    step = CONVOLVE | {"kernel": str(tmp_path / "kernel.npy")}
    for way, flag in ((ndimage.convolve, False), (ndimage.correlate, True)):
        result = harness.whole(source, [step | {"correlate": flag}], tmp_path)["step/value"]
        assert result.dtype == np.float32
        check(result[0], way(values.astype(np.float64), kernel), 255, np.abs(kernel).sum())


def test_weights_of_both_signs_in_a_file_are_refused_too(tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((8, 8)), ("y", "x")), tmp_path / "in.zarr")
    (tmp_path / "kernel.csv").write_text("1,-2,1\n")
    step = CONVOLVE | {"kernel": str(tmp_path / "kernel.csv"), "normalize": True}
    with pytest.raises(PipelineError, match="weights of both signs"):
        load(harness.document(source, [step], tmp_path / "out.zarr"))


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap"])
def test_gaussian_is_that_of_scipy_at_the_edges_of_a_raster(mode: str, tmp_path: Path) -> None:
    values = RNG.random((23, 31))
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    step = GAUSSIAN | {"sigma": [2, 1.3], "order": [0, 1], "boundary": mode}
    result = harness.run(source, [step], tmp_path, harness.Layout(chunks=(7, 9), block=(1, 1)))["step/value"][0]
    right = ndimage.gaussian_filter(values, (2, 1.3), order=(0, 1), mode=mode)
    check(result, right, 1, np.abs(gaussian_weights(1.3, 4.0, 1)).sum())


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("boundary", ["reflect", "mirror", "nearest", "wrap"])
@pytest.mark.parametrize("kernel", [[0, 0, 1], [2, 1, 0], [0, 0, 0, 1, 2, 3, 4], [3, 0, 0, 0, 0]])
def test_weights_on_one_side_see_beyond_the_edge_in_every_block(kernel: list[int], boundary: str, width: int) -> None:
    """Beyond a mirrored edge lie pixels of the other side, which a block as thin as a pixel does not hold."""
    values = np.arange(1.0, width + 1)[np.newaxis].astype(np.float32)
    step = {"op": "convolve", "kernel": [kernel], "correlate": True, "boundary": boundary}
    expected = ndimage.correlate1d(values.astype(np.float64), kernel, axis=1, mode=boundary)
    for chunks in (1, 2, width):
        lazy = pipeline.apply(step, da.from_array(values, chunks=(1, chunks)))
        np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected.astype(np.float32))
    turned = pipeline.apply({**step, "kernel": [[weight] for weight in kernel]}, da.from_array(values.T, chunks=1))
    np.testing.assert_array_equal(turned.compute(scheduler="synchronous").T, expected.astype(np.float32))
