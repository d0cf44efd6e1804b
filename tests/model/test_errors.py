"""Which name a message suggests for one that is not there: one that is near, or none."""

from __future__ import annotations

import time

import pytest

from pipeline.model.errors import did_you_mean, nearest, unknown

FUNCTIONS = ("where", "min", "max", "abs", "sqrt", "exp", "log", "sin", "cos", "tan", "arctan", "floor", "ceil", "clip")


@pytest.mark.parametrize(
    ("word", "names", "meant"),
    [
        ("maen", ("min", "mean", "median"), "mean"),  # two in turn
        ("imag", ("labels", "image"), "image"),
        ("lables", ("image", "labels"), "labels"),
        ("wher", FUNCTIONS, "where"),
        ("sqr", FUNCTIONS, "sqrt"),
        ("rad", ("nir", "red"), "red"),
        ("guassian", ("gradient", "gaussian"), "gaussian"),
        ("colours", ("colors",), "colors"),
        ("flota32", ("float64", "float32"), "float32"),
        ("float23", ("float64", "float32"), "float32"),
        ("IMAGE", ("image",), "image"),  # capitals, separators, zeros before a number
        ("min-valid", ("min_valid",), "min_valid"),
        ("B8", ("B04", "B08", "B8A"), "B08"),
        ("b", ("a", "bb"), "bb"),  # the beginning
        ("gauss", ("gradient", "gaussian"), "gaussian"),
        ("maximum", FUNCTIONS, "max"),
        ("std_dev", ("var", "std"), "std"),
        ("img", ("image",), "image"),  # no vowels
        ("xd", ("dy", "dx"), "dx"),
        ("mean", ("meen", "mean2", "meann"), "meen"),  # of equally near ones the first
    ],
)
def test_a_near_name_is_suggested(word: str, names: tuple[str, ...], meant: str) -> None:
    assert nearest(word, names) == meant
    assert (
        unknown("thing", word, names) == f"unknown thing '{word}'; did you mean '{meant}'? (valid: {', '.join(names)})"
    )


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("mean", FUNCTIONS),  # -> tan
        ("median", FUNCTIONS),  # -> min
        ("power", FUNCTIONS),
        ("otsu", FUNCTIONS),
        ("", FUNCTIONS),
        ("B04", ("B05", "B06", "B8A")),  # another band
        ("b7", ("b1", "b2", "b3")),
        ("p10", ("p90",)),
        ("scene_2024", ("scene_2023",)),
        ("y", ("x",)),
        ("dz", ("dy", "dx")),
        ("size", ("sigma",)),
        ("kernel", ("size", "bands")),
        ("average", ("range", "max")),
        ("red", ("nir", "green")),
        ("mean", ()),
    ],
)
def test_no_hint_is_better_than_one_that_nobody_means(word: str, names: tuple[str, ...]) -> None:
    assert nearest(word, names) is None
    assert did_you_mean(word, names) == ""


def test_many_long_names_take_no_time() -> None:
    started = time.perf_counter()
    assert nearest("x" * 1000, [f"{'y' * 500}{number}" for number in range(20_000)]) is None
    assert time.perf_counter() - started < 10
