"""Exact sums against Python's fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.kernels.digit_sum import fold, fold_in_order
from pipeline.kernels.exact_quotient import mean, to_float, variance
from pipeline.kernels.exact_sum import (
    ExactSums,
    add_groups,
    scatter_add,
    trim,
    widen,
)
from pipeline.testing.draws import draws

SPECIAL = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


@st.composite
def sums(draw: st.DrawFn, num: int = 5) -> ExactSums:
    size = draw(st.integers(1, 4))
    word = st.sampled_from(SPECIAL) | st.integers(0, 2**64 - 1)
    words = [[draw(word) for _ in range(size)] for _ in range(num)]
    return ExactSums(np.array(words, np.uint64), draw(st.integers(-3, 2)))


def exact(sums: ExactSums) -> list[Fraction]:
    return [number * Fraction(2) ** (64 * sums.low) for number in sums.to_integers()]


def from_fraction(number: Fraction, low: int, size: int) -> ExactSums:
    whole = number / Fraction(2) ** (64 * low)
    assert whole.denominator == 1
    return ExactSums(np.frombuffer(int(whole).to_bytes(8 * size, "little", signed=True), np.uint64)[None].copy(), low)


@settings(max_examples=draws(100), deadline=None)
@given(sums())
def test_trimming_and_widening_keep_the_numbers(number: ExactSums) -> None:
    trimmed = trim(number)
    assert exact(trimmed) == exact(number)
    wide = widen(number, number.low - 2, number.high + 1)
    assert exact(wide) == exact(number)
    again = trim(wide)
    assert again.low == trimmed.low
    np.testing.assert_array_equal(again.words, trimmed.words)


@settings(max_examples=draws(100), deadline=None)
@given(sums(), st.lists(st.integers(1, 2**40), min_size=5, max_size=5))
def test_sums_and_means_are_rounded_once(number: ExactSums, counts: list[int]) -> None:
    assert to_float(number).tolist() == [float(value) for value in exact(number)]
    expected = [float(value / count) for value, count in zip(exact(number), counts, strict=True)]
    assert mean(number, np.array(counts)).tolist() == expected


@settings(max_examples=draws(100), deadline=None)
@given(
    st.integers(2**52, 2**53 - 1),
    st.sampled_from([-1, 0, 1]),
    st.integers(1, 2**62) | st.integers(1, 9),
    st.integers(-1100, 900),
    st.integers(1, 500),
)
@example(2**52 + 1, -1, 1, -1067, 23)  # normal by a few bits: rounded once all the same
@example(2**52, -1, 72340172838076673, 0, 1)  # a count that is no float64
def test_what_is_far_below_breaks_ties(digits: int, rest: int, count: int, exponent: int, below: int) -> None:
    """Between two floats, or a tiny bit beside: where the result is normal, and where it is subnormal."""
    middle = Fraction(2 * digits + 1) * Fraction(2) ** exponent
    number = from_fraction(
        (middle + rest * middle / 2**60 / 2**below) * count * 2**1700 // 1 / Fraction(2**1700), -27, 64
    )
    assert mean(number, np.array([count]))[0] == float(exact(number)[0] / count)


@settings(max_examples=draws(100), deadline=None)
@given(st.integers(-5, 5), st.sampled_from([52, 53, 54, 62]), st.integers(-3, 3), st.integers(0, 70))
def test_means_of_sums_about_the_size_of_a_float(offset: int, bits: int, count: int, shift: int) -> None:
    whole = (2**bits + offset) << shift
    number = from_fraction(Fraction(-whole if count < 0 else whole), 0, 1 if whole < 2**63 else 3)
    for size in {len(number.words[0]), 3}:
        wide = trim(widen(number, 0, size))
        assert mean(wide, np.array([abs(count) + 1])).tolist() == [
            float(Fraction(-whole if count < 0 else whole) / (abs(count) + 1))
        ]


def test_the_mean_of_nothing_is_nan() -> None:
    assert np.isnan(mean(ExactSums(np.zeros((1, 1), np.uint64)), np.zeros(1, np.int64))[0])


@settings(max_examples=draws(100), deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 2**40))
def test_the_mean_of_equal_values_is_that_value(value: float, count: int) -> None:
    total = from_fraction(Fraction(value) * count, -18, 36)
    assert mean(total, np.array([count]))[0] == value


@settings(max_examples=draws(100), deadline=None)
@given(sums(), sums(3), st.permutations(range(5)))
def test_scattered_sums_add_up(first: ExactSums, second: ExactSums, places: list[int]) -> None:
    total = scatter_add([first, second], [np.array(places), np.arange(3)], 5)
    expected = [Fraction(0)] * 5
    for place, value in zip(places, exact(first), strict=True):
        expected[place] += value
    for place, value in enumerate(exact(second)):
        expected[place] += value
    assert exact(total) == expected


def test_many_parts_do_not_overflow() -> None:
    largest = ExactSums(np.array([[2**62 - 1]], np.uint64))
    total = scatter_add([largest] * 9, [np.zeros(1, np.int64)] * 9, 1)
    assert exact(total) == [9 * (2**62 - 1)]


@settings(max_examples=draws(100), deadline=None)
@given(sums())
def test_groups_add_up(number: ExactSums) -> None:
    values = exact(number)
    total = add_groups(number, np.array([1, 0, 1, 1, 3]), 4)
    assert exact(total) == [values[1], values[0] + values[2] + values[3], 0, values[4]]


@settings(max_examples=draws(100), deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4), st.lists(st.integers(0, 150), min_size=4))
def test_digits_are_carried_over(values: list[int], shifts: list[int]) -> None:
    digits, weights = np.array(values).reshape(1, 2, 2), np.array(shifts[:4]).reshape(2, 2)
    words = np.zeros((2, 4), np.uint64)
    at_once = fold_in_order(digits, weights - 70, np.zeros(1, np.int64))
    fold(digits, weights, words)
    expected = [sum(v << s for v, s in zip(values[i : i + 2], shifts[i : i + 2], strict=True)) for i in (0, 2)]
    assert exact(at_once) == [Fraction(number, 2**70) for number in expected]
    assert ExactSums(words).to_integers() == expected
    assert not digits.any()


@pytest.mark.parametrize("offset", [0, 1e7, 1e15])
@settings(max_examples=draws(100), deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_the_variance_has_three_roundings(values: list[float], offset: float) -> None:
    numbers = [Fraction(value + offset) for value in values]
    total = from_fraction(Fraction(sum(numbers)), -18, 36)
    squares = from_fraction(Fraction(sum(number**2 for number in numbers)), -34, 70)
    (got,) = variance(total, squares, np.array([len(numbers)]))
    average = sum(numbers) / len(numbers)
    expected = sum((number - average) ** 2 for number in numbers) / len(numbers)
    assert abs(Fraction(float(got)) - expected) <= expected * Fraction(2) ** -51 + Fraction(2) ** -1074
