"""Invalid pixels to NaN and back, and casts, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.kernels import validity


def test_nodata_and_nan() -> None:
    values = np.array([1, -9999, np.nan, np.inf, -9999], np.float32)
    nodata = np.float32(-9999)
    assert validity.count_valid(values, nodata) == 2
    validity.nodata_to_nan(values, nodata)
    np.testing.assert_array_equal(values, np.array([1, np.nan, np.nan, np.inf, np.nan], np.float32))
    validity.nan_to_nodata(values, nodata)
    np.testing.assert_array_equal(values, np.array([1, -9999, -9999, np.inf, -9999], np.float32))


def test_integers_as_floats() -> None:
    values, out = np.array([0, 7, 255], np.uint8), np.empty(3, np.float32)
    validity.integers_to_float(values, np.uint8(7), out)
    np.testing.assert_array_equal(out, [0, np.nan, 255])
    assert validity.count_valid(values, np.uint8(7)) == 2


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_floats_become_integers(source: str, dtype: str) -> None:
    """Half to even, saturating; 2^63 and 2^64 do not fit, though the largest integers round to them."""
    info = np.iinfo(dtype)
    pairs: list[tuple[float, int]] = [
        (0.5, 0),
        (1.5, 2),
        (2.5, 2),
        (-0.4, 0),
        (-1e30, info.min),
        (1e30, info.max),
        (-np.inf, info.min),
        (np.inf, info.max),
        (float(info.max), info.max),
        (float(info.min), info.min),
        (np.nan, 99),
        (100.0, 100),
    ]
    out = np.empty(len(pairs), dtype)
    validity.cast(np.array([value for value, _ in pairs], source), out, None, 99)
    assert out.tolist() == [number for _, number in pairs]


@pytest.mark.parametrize(
    ("values", "dtype", "nodata", "fill", "expected"),
    [
        (np.array([-5, 3, 300], np.int16), "uint8", None, None, [0, 3, 255]),
        (np.array([-5, 3, 300], np.int16), "uint8", 3, 7, [0, 7, 255]),
        (np.array([0, 2**64 - 1], np.uint64), "int64", None, None, [0, 2**63 - 1]),
        (np.array([3, 4], np.int16), "float32", 3, None, [np.nan, 4]),
        (np.array([3, np.nan], np.float64), "float32", None, None, [3, np.nan]),
        (np.array([1e300], np.float64), "float32", None, None, [np.inf]),
        (np.array([np.nan, 4], np.float32), "int16", None, None, [0, 4]),
    ],
)
def test_other_casts(values: np.ndarray, dtype: str, nodata: Any, fill: Any, expected: list[Any]) -> None:
    out = np.empty(values.shape, dtype)
    validity.cast(values, out, nodata, fill)
    np.testing.assert_array_equal(out, np.array(expected, dtype))
