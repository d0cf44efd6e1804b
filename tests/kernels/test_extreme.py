"""The ends of float64's range: what holds for numbers near 1 holds there, too, times a power of two."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.kernels.exact_sum import ExactSums
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_columns import finish
from pipeline.kernels.label_table import LabelTable, partial_table
from pipeline.kernels.median_cut import median_cut
from pipeline.model.total import Total
from tests import harness
from tests.harness import Raster, same_bits

LARGEST = 1.7e308
MOMENTS = ["mean", "sum", "var", "std", "median", "min", "max"]
FOOTPRINT = [[1, 0, 1], [0, 1, 1], [1, 1, 0]]
FIRST = ["dy", "dx", "magnitude", "direction"]
SECOND = ["dyy", "dxy", "dxx", "laplacian", "determinant", "eigen_large", "eigen_small"]
BANK = {"op": "gabor", "frequencies": [0.2, 0.3], "orientations": [0, 30], "sigma": 1.5}

STEPS: dict[str, dict[str, Any]] = {
    "window": {"op": "window", "size": [3, 5], "statistics": MOMENTS, "percentiles": [10, 80]},
    "large window": {"op": "window", "size": 13, "statistics": MOMENTS, "boundary": "wrap"},
    "footprint": {"op": "window", "footprint": FOOTPRINT, "statistics": MOMENTS, "boundary": "shrink", "min_valid": 3},
    "filled": {"op": "window", "size": 3, "statistics": MOMENTS, "fill_invalid": True, "boundary": "mirror"},
    "constant": {"op": "window", "size": 5, "statistics": MOMENTS, "boundary": "constant", "cval": 1.5},
    "convolve": {"op": "convolve", "kernel": [[1, -2, 3], [0.5, 4, 0], [-1, 1, 1]]},
    "product": {"op": "convolve", "kernel": np.outer([1, -2, 3, 4, 5], [1, 0.3, 1, 1, -2]).tolist()},
    "weighted": {"op": "convolve", "kernel": [[0, 1, 2], [0, 3, 1], [1, 1, 1]], "normalize": True},
    "gaussian": {"op": "gaussian", "sigma": 1.2, "boundary": "wrap"},
    "gradient": {"op": "gradient", "outputs": FIRST, "spacing": [0.3, 2], "edge": "nearest"},
    "hessian": {"op": "hessian", "outputs": SECOND, "spacing": [0.3, 2], "edge": "reflect"},
    "gabor": BANK,
    "magnitude": {**BANK, "response": "magnitude", "boundary": "constant", "cval": 1.5},
    "exact": {**BANK, "response": "magnitude", "exact": True},
    "texture": {**BANK, "window": 5, "statistics": ["mean", "var", "std"], "boundary": "constant", "cval": 1.5},
    "energy": {**BANK, "window": 5, "statistics": ["mean", "std"], "response": "magnitude"},
}
POWERS = {"var": 2, "determinant": 2, "direction": 0}


def pixels(shape: tuple[int, ...] = (24, 21)) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape)
    values[rng.random(shape) < 0.03] = np.nan
    values[5:9, 5:12] = 0.7
    return values


def apply(step: dict[str, Any], values: np.ndarray, factor: float = 1.0, **options: Any) -> dict[str, np.ndarray]:
    scaled = {**step, **({"cval": step["cval"] * factor} if "cval" in step else {}), "name": "s"}
    got = pipeline.apply(scaled, values, **options)
    got = got if isinstance(got, dict) else {"s/value": got}
    return {name.partition("/")[2]: array.compute(scheduler="synchronous") for name, array in got.items()}


@pytest.mark.parametrize(
    "exponent", [660, *(pytest.param(exponent, marks=pytest.mark.thorough) for exponent in (-660, 1020))]
)
@pytest.mark.parametrize("dims", ["y,x,band", pytest.param("y,x", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("case", STEPS)
def test_results_grow_with_the_values_to_the_bit(case: str, dims: str, exponent: int) -> None:
    step, values = STEPS[case], pixels((24, 21, 2)[: dims.count(",") + 1])
    names = list(apply(step, values, dims=dims))
    with np.errstate(over="ignore", under="ignore"):
        plain = apply(step, values, dims=dims)
        scaled = apply(step, np.ldexp(values, exponent), 2.0**exponent, dims=dims)
        for name in names:
            power = POWERS.get(name, 1) if len(names) > 1 or name != "value" else 1
            expected = np.ldexp(plain[name], power * exponent)
            assert same_bits(scaled[name] + 0, expected + 0), name  # a square that vanishes has no sign


def test_numbers_of_the_issue() -> None:
    values = np.array([[LARGEST, -LARGEST, LARGEST * 0.4, LARGEST]])
    got = apply({"op": "window", "footprint": [[1, 1, 0]], "statistics": ["mean", "median"]}, values)
    np.testing.assert_allclose(got["mean"], [[LARGEST, 0, -0.3 * LARGEST, 0.7 * LARGEST]], rtol=1e-15)
    np.testing.assert_allclose(got["median"], got["mean"], rtol=1e-15)
    ends = apply({"op": "window", "size": [1, 3], "statistics": [], "percentiles": [0, 5, 95, 100]}, values)
    assert all(np.isfinite(array).all() for array in ends.values())
    spread = apply({"op": "window", "size": [1, 3], "statistics": ["std", "max"]}, values)["std"]
    expected = np.std([[1, 1, -1], [1, -1, 0.4]], axis=1)
    np.testing.assert_allclose(spread[0, :2] / LARGEST, expected, rtol=1e-14)


@pytest.mark.parametrize("exponent", [660, -660, 1019])
def test_colours_are_found_at_any_scale(tmp_path: Path, exponent: int) -> None:
    values = pixels((24, 21, 2))
    colors = np.array([[0, 0], [1, 1], [-1.5, 0.2], [0.7, 0.7], [2, -2]])
    outputs = ["index", "color", "distance"]
    plain, scaled = (
        harness.whole(
            harness.store(Raster(np.ldexp(values, e), ("y", "x", "band")), tmp_path / f"{e}.zarr"),
            [{"name": "s", "op": "quantize", "palette": np.ldexp(colors, e).tolist(), "outputs": outputs}],
            tmp_path,
        )
        for e in (0, exponent)
    )
    assert same_bits(scaled["s/index"], plain["s/index"])
    assert len(np.unique(scaled["s/index"])) == 6
    for name in ("s/color", "s/distance"):
        assert same_bits(scaled[name], np.ldexp(plain[name], exponent))
    error, psnr, peak = plain["s/quality"].tolist()
    with np.errstate(over="ignore"):
        assert scaled["s/quality"][0] == np.ldexp(error, 2 * exponent)
    assert scaled["s/quality"][1] == pytest.approx(psnr, abs=1e-9)
    assert scaled["s/quality"][2] == math.ldexp(peak, exponent)


def test_colours_among_others_far_away_and_near() -> None:
    """What is far from all colours is as far from each; what is near is told apart, however near."""
    step = {"op": "quantize", "palette": [[1e-200], [0], [255], [3e-200]], "outputs": ["index", "distance"]}
    values = np.array([[0, 1.2e-200, 2.9e-200, 1e-190, 1e200, -1e300, 254, np.nan]])
    got = apply(step, values)
    assert got["index"].tolist() == [[1, 0, 3, 3, 0, 0, 2, 255]]
    expected = [0, 0.2e-200, 0.1e-200, 1e-190 - 3e-200, 1e200, 1e300, 1]
    np.testing.assert_allclose(got["distance"][0, :-1], expected, rtol=1e-14)
    bytes_ = apply({**step, "palette": [[1e-200], [0], [1e200]]}, np.array([[0, 9]], np.uint8))
    assert bytes_["index"].tolist() == [[1, 0]]


def test_the_mean_of_a_total_that_float64_does_not_hold() -> None:
    total = Total(4, 3, 1400) + Total(2, 1, -1400)
    assert (total.count, total.mean()) == (6, math.inf)
    assert total.decibels(500) == pytest.approx(10_000 - 10 * (1400 * math.log10(2) + math.log10(0.5)), abs=1e-9)
    assert Total(3, 0, 5).decibels(2) == math.inf
    assert Total(2, 1, -1400).decibels(0) == pytest.approx(10 * (1400 * math.log10(2) + math.log10(2)), abs=1e-9)


@pytest.mark.parametrize("exponent", [0, 660, -660])
def test_a_quality_that_float64_does_not_hold_is_verified(tmp_path: Path, exponent: int) -> None:
    source = harness.store(Raster(np.ldexp(pixels(), exponent), ("y", "x")), tmp_path / "in.zarr")
    colors = np.ldexp([[0], [1], [-2]], exponent).tolist()
    step = {"name": "s", "op": "quantize", "palette": colors}
    pipeline.run(harness.document(source, [step], tmp_path / "out.zarr"))
    for everything in (False, True):
        facts = pipeline.verify(str(tmp_path / "out.zarr"), everything=everything)
        assert facts["agrees"], facts["problems"]


@pytest.mark.parametrize("exponent", [660, -660])
def test_label_statistics(exponent: int) -> None:
    values = pixels()[np.newaxis]
    labels = np.random.default_rng(1).integers(0, 4, values.shape[1:])
    names = ["mean", "std", "sum", "min", "max"]
    plain, scaled = (
        finish(partial_table(labels, np.ldexp(values, e), Patch(labels.shape), names), names) for e in (0, exponent)
    )
    for name in names:
        np.testing.assert_array_equal(scaled[name], np.ldexp(plain[name], exponent))


@pytest.mark.parametrize("exponent", [660, -660, 1020])
def test_boxes_are_cut_at_any_scale(exponent: int) -> None:
    means = np.random.default_rng(2).normal(size=(60, 2))

    def cells(shift: int) -> LabelTable:
        whole = [int(Fraction(float(mean)) * 2**60) << (1200 + shift) for mean in means.reshape(-1)]
        words = np.array([[(number >> (64 * i)) & (2**64 - 1) for i in range(40)] for number in whole], np.uint64)
        return LabelTable(np.arange(60), np.ones(60, np.int64), 2, None, ExactSums(words, -20))

    plain, scaled = (median_cut([cells(shift)], 7) for shift in (0, exponent))
    assert len(plain) == 7
    np.testing.assert_array_equal(scaled, np.ldexp(plain, exponent))
