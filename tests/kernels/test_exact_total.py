"""Totals against Python's fractions."""

from __future__ import annotations

import functools
import math
import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.exact_total import total_of
from pipeline.model.total import Total
from pipeline.testing.draws import draws

NUMBERS = st.floats() | st.sampled_from([0.1, 1.0, -1.0, 1e300, 5e-324, 1.7976931348623157e308, 1e-20, 65025.0])


def exact(total: Total) -> Fraction:
    return total.sum * Fraction(2) ** total.exponent


def naive(values: np.ndarray) -> Fraction:
    return sum((Fraction(value) for value in values.reshape(-1).tolist() if math.isfinite(value)), Fraction(0))


@settings(max_examples=draws(300), deadline=None)
@given(st.lists(NUMBERS, max_size=40), st.integers(1, 3))
def test_a_total_is_the_sum_of_fractions_kernel(numbers: list[float], rows: int) -> None:
    values = np.array(numbers * rows, np.float64).reshape(rows, -1)
    total = total_of(values)
    assert exact(total) == naive(values)
    assert total.count == np.isfinite(values).sum()


@pytest.mark.parametrize("spread", [0, 1, 20, 200])
def test_many_numbers_of_many_sizes_kernel(spread: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 700)) * 2.0 ** rng.integers(-spread, spread + 1, (3, 700))
    assert exact(total_of(values)) == naive(values)
    assert total_of(values).mean(3) == float(naive(values) / (3 * values.size))


@settings(max_examples=draws(100), deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=4), min_size=1, max_size=5), st.randoms())
def test_totals_add_up_in_any_order_kernel(parts: list[list[float]], random: object) -> None:
    totals = [total_of(np.array([part])) for part in parts]
    whole = total_of(np.array([[number for part in parts for number in part]]))
    random.shuffle(totals)  # type: ignore[attr-defined]
    added = functools.reduce(operator.add, totals, Total())
    assert (added.count, exact(added)) == (whole.count, exact(whole))
    nested = functools.reduce(lambda a, b: b + a, totals)
    assert nested.mean() == added.mean() == whole.mean() or not whole.count


def test_no_numbers_have_no_mean() -> None:
    assert math.isnan(total_of(np.full((2, 2), np.nan)).mean())
