"""Weighted label tables against fractions: exact, and the same bits however the pixels are divided."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.exact_sum import ExactSums
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_columns import finish
from pipeline.kernels.label_table import LabelTable, merge
from pipeline.kernels.label_weights import weighted_table
from pipeline.kernels.label_width import merged_bytes
from pipeline.kernels.weighted_quotient import weighted_mean, weighted_variance
from pipeline.testing.draws import draws

STATISTICS = ("count", "sum", "mean", "var", "std", "min", "max", "range")
SHAPE = (9, 11)


def weighted(
    labels: np.ndarray, values: np.ndarray, weights: np.ndarray, cuts: list[int], lanes: bool, names: Any = STATISTICS
) -> dict[str, np.ndarray]:
    """Return the statistics of (band, row, column) cut into strips of rows that are merged backwards."""
    planes, num = values, 1
    if lanes:
        planes = np.ascontiguousarray(np.moveaxis(values, 0, -1)).reshape(1, SHAPE[0], -1)
        num = len(values)
    ends = [*cuts, SHAPE[0]]
    tables = [
        weighted_table(labels, planes, Patch((end - top, SHAPE[1]), (top, 0), (top, 0), num), names, weights[top:end])
        for top, end in zip([0, *cuts], ends, strict=True)
    ]
    tables = [LabelTable.from_columns(table.to_columns(), len(values)) for table in tables]
    whole = merge(tables[::-1])
    assert whole.nbytes <= merged_bytes([table.to_columns() for table in tables])
    return {"label": whole.labels, "pixels": whole.pixels, **finish(whole, names)}


def root_of(variance: Fraction) -> float:
    """Return the root rounded once, from a whole number of 300 bits more."""
    if not variance:
        return 0.0
    whole = math.isqrt((variance.numerator << 600) // variance.denominator)
    return float(Fraction(whole, 2**300))


def expected(values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Return the statistics of the valid values of a label and band that weigh something."""
    pairs = [
        (Fraction(float(w)), Fraction(float(v)))
        for w, v in zip(weights, values, strict=True)
        if math.isfinite(w) and w > 0 and math.isfinite(v)
    ]
    weight, total = sum((w for w, _ in pairs), Fraction()), sum((w * v for w, v in pairs), Fraction())
    found = {"count": float(weight), "sum": float(total)}
    if not pairs:
        return found | dict.fromkeys(STATISTICS[2:], math.nan)
    mean, numbers = total / weight, [float(v) for _, v in pairs]
    variance = sum(w * (v - mean) ** 2 for w, v in pairs) / weight
    found |= {"mean": float(mean), "var": float(variance), "std": root_of(variance)}
    return found | {"min": min(numbers), "max": max(numbers), "range": max(numbers) - min(numbers)}


@settings(max_examples=draws(60), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(["uint8", "int32", "float32", "float64"]),
    weighing=st.sampled_from(["float64", "float32", "uint8"]),
    lanes=st.booleans(),
    cuts=st.sets(st.integers(1, 8), max_size=4),
)
def test_statistics_are_those_of_fractions_for_any_cut(
    seed: int, dtype: str, weighing: str, lanes: bool, cuts: set[int]
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, SHAPE).astype(np.int16)
    values = (rng.normal(100, 10.0 ** rng.integers(-3, 6), (2, *SHAPE))).astype(dtype if dtype != "uint8" else "int8")
    values = np.abs(values).astype(dtype)
    weights = rng.random(SHAPE) if weighing != "uint8" else rng.integers(0, 4, SHAPE)
    weights = weights.astype(weighing)
    weights[rng.random(SHAPE) < 0.2] = 0
    if values.dtype.kind == "f":
        values[rng.random(values.shape) < 0.1] = rng.choice([np.nan, np.inf, 0.0])
    if weights.dtype.kind == "f":
        weights[rng.random(SHAPE) < 0.1] = rng.choice([np.nan, np.inf])
    whole = weighted(labels, values, weights, [], lanes)
    parts = weighted(labels, values, weights, sorted(cuts), lanes)
    for name, column in whole.items():
        assert column.tobytes() == parts[name].tobytes(), name
    for row, label in enumerate(whole["label"]):
        assert whole["pixels"][row] == (labels == label).sum()
        for band in range(2):
            wanted = expected(values[band][labels == label], weights[labels == label])
            got = {name: float(whole[name][row, band]) for name in STATISTICS}
            np.testing.assert_equal(got, wanted)


def test_weights_of_one_are_no_weights_and_equal_values_do_not_vary() -> None:
    labels, values = np.zeros(SHAPE, np.int32), np.full((1, *SHAPE), 0.1)
    weights = np.random.default_rng(0).random(SHAPE)
    found = weighted(labels, values, weights, [3], False)
    assert found["mean"][0, 0] == 0.1
    assert found["var"][0, 0] == found["std"][0, 0] == 0
    ones = weighted(labels, np.arange(99.0).reshape(1, *SHAPE), np.ones(SHAPE, np.uint8), [], False)
    assert ones["count"].tolist() == [[99.0]]
    assert ones["mean"].tolist() == [[49.0]]
    assert ones["var"].tolist() == [[(99**2 - 1) / 12]]


@pytest.mark.parametrize(("value", "weight"), [(1e300, 1e10), (1e-290, 1.0), (1e200, 1.0)])
def test_what_float64_does_not_hold_is_refused(value: float, weight: float) -> None:
    labels, values, weights = np.zeros(SHAPE, np.int32), np.full((1, *SHAPE), value), np.full(SHAPE, weight)
    with pytest.raises(OverflowError):
        weighted(labels, values, weights, [], False)
    assert weighted(labels, values, weights, [], False, ["count", "max"])["max"][0, 0] == value


def test_quotients_are_rounded_once_whatever_their_scale() -> None:
    def exact(number: int, low: int) -> ExactSums:
        return ExactSums(np.frombuffer(number.to_bytes(24, "little", signed=True), np.uint64).reshape(1, 3), low)

    assert weighted_mean(exact(1, 0), exact(3, -1))[0] == float(Fraction(2**64, 3))
    assert weighted_mean(exact(-1, -16), exact(3, 0))[0] == float(Fraction(-1, 3 * 2**1024))
    assert weighted_mean(exact(1, 16), exact(1, 0))[0] == math.inf
    assert math.isnan(weighted_mean(exact(0, 0), exact(0, 0))[0])
    third = weighted_variance(exact(1, 0), exact(1, 0), exact(3, 0), root=False)[0]
    assert third == float(Fraction(2, 9))
    assert weighted_variance(exact(1, 0), exact(1, 0), exact(3, 0), root=True)[0] == root_of(Fraction(2, 9))
