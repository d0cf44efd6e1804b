"""Levels of pyramids: a naive loop over the pixels that each stands for; and statistics against exact sums."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.overview import Overview
from pipeline.kernels.statistics import merge, of_pixels
from pipeline.testing.draws import draws

DTYPES = ("uint8", "int8", "uint16", "int32", "uint64", "int64", "float16", "float32", "float64")


def level(pixels: np.ndarray, overview: Overview, number: int) -> np.ndarray:
    """Return a level below full resolution as the kernel makes it."""
    state = made = overview.room(halved(pixels.shape, overview.axis))
    overview.first(pixels, state)
    for _ in range(number - 1):
        made = overview.room(halved(state[0].shape, overview.axis))
        overview.halve(state, made)
        state = made
    return overview.pixels(state)


def halved(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(-(-n // 2) if i in (axis, axis + 1) else n for i, n in enumerate(shape))


def naive(plane: np.ndarray, nodata: Any, number: int, resampling: str) -> np.ndarray:
    """Return a level of one band by what its rule says, box by box; mode level by level."""
    if resampling == "mode" and number > 1:
        plane, number = naive(plane, nodata, number - 1, "mode"), 1
    size, dtype = 1 << number, plane.dtype
    out = np.empty([-(-n // size) for n in plane.shape], dtype)
    for row, column in np.ndindex(*out.shape):
        box = plane[row * size : (row + 1) * size, column * size : (column + 1) * size]
        valid = [v for v in box.ravel() if not (v != v or (nodata is not None and v == dtype.type(nodata)))]
        out[row, column] = (
            box[0, 0]
            if resampling == "nearest"
            else one(valid, nodata, dtype, resampling)
            if valid
            else invalid(nodata)
        )
    return out


def invalid(nodata: Any) -> Any:
    return math.nan if nodata is None else nodata


def one(valid: list[Any], nodata: Any, dtype: np.dtype, resampling: str) -> Any:
    if resampling in ("min", "max"):
        return (min if resampling == "min" else max)(valid)
    if resampling == "mode":
        return max(valid, key=lambda value: (valid.count(value), -valid.index(value)))
    mean = sum((Fraction(float(v)) for v in valid), Fraction(0)) / len(valid)
    value = dtype.type(float(mean)) if dtype.kind == "f" else dtype.type(round(mean))
    if nodata is not None and value == dtype.type(nodata):
        if dtype.kind == "f":
            return np.nextafter(value, dtype.type(-math.inf if mean < nodata else math.inf))
        step = -1 if mean < nodata else 1
        return nodata + step if np.iinfo(dtype).min <= nodata + step <= np.iinfo(dtype).max else nodata - step
    return value


@settings(max_examples=draws(150), deadline=None)
@given(data=st.data())
def test_levels_are_those_of_the_naive_loop(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(st.integers(1, 23)), data.draw(st.integers(1, 23))
    # whole numbers below 100: every sum is exact, so that the naive mean is the kernel's to the bit
    pixels = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, data.draw(st.sampled_from([3, 90])), shape)
    plane = pixels.astype(dtype)
    nodata = data.draw(st.sampled_from([None, 0, 1, 2]))
    if dtype.kind == "f" and data.draw(st.booleans()):
        plane[::2, ::3] = np.nan
    resampling = data.draw(st.sampled_from(["average", "nearest", "mode", "min", "max"]))
    for values, axis in ((plane, 0), (np.stack([plane] * 2), 1), (np.stack([plane] * 3, axis=-1), 0)):
        overview = Overview(resampling, dtype, nodata, axis)
        for number in (1, 2, 3):
            found, due = level(values, overview, number), naive(plane, nodata, number, resampling)
            assert found.dtype == dtype
            for band in (found,) if values.ndim == 2 else np.moveaxis(found, 0 if axis else -1, 0):
                np.testing.assert_array_equal(band, due)


@pytest.mark.parametrize(
    ("pixels", "dtype", "nodata", "expected"),
    [
        ([[1, 2], [2, 2]], "uint8", None, 2),  # 1.75
        ([[1, 2], [1, 2]], "uint8", None, 2),  # 1.5, half to even
        ([[2, 3], [2, 3]], "uint8", None, 2),  # 2.5
        ([[4, 6], [5, 5]], "uint8", 5, 6),  # two valid ones, whose mean is nodata
        ([[4, 5], [5, 5]], "uint8", 5, 4),
        ([[0, 0], [0, 1]], "int16", 0, 1),
        ([[254, 256], [254, 256]], "uint16", 255, 256),
        ([[2**64 - 1] * 2] * 2, "uint64", None, 2**64 - 1),
        ([[2**63 - 1] * 2] * 2, "int64", None, 2**63 - 1),
        ([[-(2**63)] * 2] * 2, "int64", None, -(2**63)),
        ([[math.inf, 1], [1, 1]], "float32", None, math.inf),
        ([[math.inf, -math.inf], [1, 1]], "float32", None, math.nan),
        ([[3.4e38, 3.4e38], [3.4e38, 3.4e38]], "float32", None, np.float32(3.4e38)),
        ([[math.nan, math.nan], [math.nan, 7]], "float64", None, 7.0),
        ([[math.nan, -9999], [-9999, math.nan]], "float32", -9999.0, -9999.0),
    ],
)
def test_means_that_are_known(pixels: Any, dtype: str, nodata: Any, expected: Any) -> None:
    overview = Overview("average", np.dtype(dtype), nodata, 0)
    np.testing.assert_array_equal(level(np.array(pixels, dtype), overview, 1), np.array([[expected]], dtype))


def test_a_mean_is_rounded_once() -> None:
    """0, 0, 0, 1 | 1, 1, 1, 1 ...: rounded level by level, 0.4375 would become 0.5 and so 0 or 1 by accident."""
    pixels = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]], np.float32)
    overview = Overview("average", np.dtype("uint8"), None, 0)
    assert level((pixels * 3).astype(np.uint8), overview, 2).item() == round(pixels.sum() * 3 / 16)


@settings(max_examples=draws(80), deadline=None)
@given(data=st.data())
def test_statistics_are_those_of_exact_sums(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    plane = rng.integers(0, 100, shape).astype(dtype)
    if dtype.kind == "f":
        plane = (1000 + rng.normal(size=shape)).astype(dtype)
        plane[::3] = np.nan
    nodata = data.draw(st.sampled_from([None, 7, 1000]))
    nodata = nodata if nodata is None or dtype.kind == "f" or nodata < 100 else None
    overview = Overview("average", dtype, nodata, 0)
    cut = data.draw(st.integers(0, shape[0]))
    parts = [of_pixels(part, overview, 1) for part in (plane[:cut], plane[cut:]) if part.size]
    found = parts[0] if len(parts) == 1 else merge(*parts)
    is_valid = ~np.isnan(plane.astype(float)) & (True if nodata is None else plane != dtype.type(nodata))
    valid = [Fraction(v.item()) for v in plane[is_valid]]
    assert found.number.item() == len(valid)
    if valid:
        mean = sum(valid) / len(valid)
        variance = sum((v - mean) ** 2 for v in valid) / len(valid)
        assert (found.minimum.item(), found.maximum.item()) == (min(valid), max(valid))
        assert found.mean.item() == pytest.approx(float(mean), rel=1e-14, abs=1e-14)
        assert found.std.item() == pytest.approx(math.sqrt(variance), rel=1e-11, abs=1e-11)
