"""Nearest colours against the naive loop in float64: the same index for every pixel, ties and near-ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import color_grid
from pipeline.kernels.color_search import search_of
from pipeline.kernels.frame import Patch
from pipeline.kernels.nearest_color import nearest
from pipeline.testing.draws import draws

DTYPES = ("uint8", "float32", "float64")
"""Each is compiled anew."""
SENTINEL = 99_999


def naive(values: np.ndarray, valid: np.ndarray | None, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return index and distance for values (band, row, column)."""
    pixels = values.astype(np.float64)
    total = np.zeros((len(palette), *values.shape[1:]))
    with np.errstate(all="ignore"):
        for band, plane in enumerate(pixels):
            difference = plane - palette[:, band, None, None]
            total += difference * difference
        usable = np.isfinite(pixels).all(axis=0)
        if valid is not None:
            usable &= valid.all(axis=0)
        index = np.where(usable, np.nan_to_num(total, nan=np.inf, posinf=np.inf).argmin(axis=0), SENTINEL)
        return index, np.where(usable, np.sqrt(total.min(axis=0)), np.nan)


def compute(
    values: np.ndarray, valid: np.ndarray | None, palette: np.ndarray, lanes: bool
) -> tuple[np.ndarray, np.ndarray]:
    bands, height, width = values.shape

    def planes(array: np.ndarray) -> np.ndarray:
        if not lanes:
            return np.ascontiguousarray(array)
        return np.ascontiguousarray(np.moveaxis(array, 0, -1)).reshape(1, height, width * bands)

    index, squared = np.zeros((height, width), np.int32), np.zeros((height, width))
    patch = Patch((height, width), lanes=bands if lanes else 1)
    mask = None if valid is None else planes(valid)
    nearest(planes(values), search_of(palette), patch, index, SENTINEL, valid=mask, squared=squared)
    return index, np.sqrt(squared)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    bands, num = draw(st.integers(1, 7)), draw(st.sampled_from([1, 2, 3, 17, 32, 33, 65, 256]))
    shape = bands, draw(st.integers(1, 3)), draw(st.sampled_from([1, 5, 256, 300]))
    scale = draw(st.sampled_from([0, 3, 100, 1e9])) if dtype.itemsize > 1 else 100
    palette = rng.normal(100, scale, (num, bands))
    if draw(st.booleans()):
        palette = np.rint(palette / draw(st.sampled_from([1, 16])))  # many colours are equal, many pixels between
    if dtype.kind == "f":
        values = (rng.normal(100, scale, shape) + draw(st.sampled_from([0, 1e7]))).astype(dtype)
        if draw(st.booleans()):
            values = np.rint(values)
        extreme = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-40], dtype)
        where = rng.random(shape) < draw(st.sampled_from([0, 0.1]))
        return np.where(where, rng.choice(extreme, shape), values), None, palette
    info = np.iinfo(dtype)
    values = np.clip(rng.normal(100, scale, shape), info.min, info.max).astype(dtype)
    return values, rng.random(shape) < 0.9 if draw(st.booleans()) else None, palette


@settings(max_examples=draws(400), deadline=None)
@given(cases(), st.booleans())
def test_the_index_is_that_of_the_naive_loop(case: Any, lanes: bool) -> None:
    check(*case, lanes)


def check(values: np.ndarray, valid: np.ndarray | None, palette: np.ndarray, lanes: bool) -> None:
    index, distance = compute(values, valid, palette, lanes)
    expected, expected_distance = naive(values, valid, palette)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(distance, expected_distance)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-150, 1e-138, 1e-30, 1e30, 1e128, 1e131, 1e160, 1e300])
def test_palettes_whose_squares_vanish_or_overflow(scale: float) -> None:
    rng = np.random.default_rng(1)
    palette = rng.normal(size=(40, 3)) * scale
    for factor in (1e-10, 1, 1e6):
        values = rng.normal(size=(3, 2, 50)) * scale * factor
        index, _ = compute(values, None, palette, lanes=True)
        shift = -int(np.frexp(scale)[1])  # near 1, squares are numbers
        np.testing.assert_array_equal(index, naive(np.ldexp(values, shift), None, np.ldexp(palette, shift))[0])


def test_pixels_in_the_middle_between_colours_take_the_lowest_index() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0.0, 256, 32)] * 3, indexing="ij"), -1).reshape(-1, 3)
    palette = np.random.default_rng(2).permutation(grid)
    values = np.random.default_rng(3).integers(0, 16, (3, 64, 64)).astype(np.uint8) * 16
    np.testing.assert_array_equal(compute(values, None, palette, lanes=True)[0], naive(values, None, palette)[0])


def test_nearly_equal_colours_far_from_zero() -> None:
    """Where |x|^2 - 2 x c + |c|^2 in float32 would see no difference."""
    rng = np.random.default_rng(4)
    palette = 1e6 + rng.normal(size=(300, 4)) * 1e-4
    values = 1e6 + rng.normal(size=(4, 20, 30)) * 1e-4
    np.testing.assert_array_equal(compute(values, None, palette, lanes=False)[0], naive(values, None, palette)[0])


def test_colours_that_take_each_others_place_in_the_memory() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(-128, 128, (4, 30, 300)).astype(np.int8)
    values[:, :, 1::3] = values[:, :, ::3]  # each is met again, some after others took its place
    valid = rng.random(values.shape) < 0.95
    check(values, valid, rng.normal(0, 60, (40, 4)), False)
    check(values, valid, rng.normal(0, 60, (40, 4)), True)


def test_many_colours() -> None:
    rng = np.random.default_rng(5)
    palette = rng.integers(0, 256, (65_536, 3)) + rng.choice([0, 0.25], (65_536, 3))
    values = rng.integers(0, 256, (3, 1, 100)).astype(np.uint8)
    np.testing.assert_array_equal(compute(values, None, palette, lanes=True)[0], naive(values, None, palette)[0])


def test_a_region_within_larger_arrays() -> None:
    rng = np.random.default_rng(6)
    palette, values = rng.normal(size=(50, 3)), rng.normal(size=(3, 9, 11)).astype(np.float32)
    index = np.full((8, 9), 77, np.uint8)
    patch = Patch((4, 5), values_at=(3, 2), labels_at=(1, 3))
    nearest(values, search_of(palette), patch, index, 255)
    np.testing.assert_array_equal(index[1:5, 3:8], naive(values[:, 3:7, 2:7], None, palette)[0])
    rim = np.ones(index.shape, bool)
    rim[1:5, 3:8] = False
    assert (index[rim] == 77).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["spread", "crowded", "far", "twice"])
@pytest.mark.parametrize("most", [1 << 20, 2000])
def test_candidates_of_cells_hold_the_nearest(
    dtype: str, bands: int, kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a cell has too many, and where there is no room for those of small cells."""
    monkeypatch.setattr(color_grid, "_MOST_IDS", most)
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, (bands, 10, 300), dtype, endpoint=True)
    palette = {
        "spread": rng.normal(100, 60, (300, bands)),
        "crowded": 50 + rng.random((300, bands)),
        "far": rng.normal(1e6, 1, (40, bands)),
        "twice": np.repeat(rng.integers(-128, 256, (60, bands)) + 0.5, 2, axis=0),
    }[kind]
    index, distance = compute(values, None, palette, lanes=True)
    expected, expected_distance = naive(values, None, palette)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(distance, expected_distance)
