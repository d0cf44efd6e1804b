"""The window kernels against references written out, and against themselves: no bit depends on the block."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.window import Frame, WindowRule, extrema, moments
from pipeline.model.raster import working_dtype
from pipeline.model.region import Region
from pipeline.testing.draws import draws

MOMENTS = ("mean", "sum", "var", "std", "count")
EXTREMA = ("min", "max", "range")
DTYPES = ("int16", "float32", "float64")
"""Each is compiled anew, some 8 s."""
FILL = 77

Result = dict[str, np.ndarray]


@dataclass(frozen=True)
class Windows:
    """Where rectangular windows lie, and their rule."""

    region: tuple[int, int, int, int]
    origin: tuple[int, int]
    out_origin: tuple[int, int]
    size: tuple[int, int]
    lanes: int = 1
    min_valid: int = 1
    fill_invalid: bool = False
    fill: int = 0

    @property
    def frame(self) -> Frame:
        return Frame(Region(*self.region), self.origin, self.out_origin, self.lanes)

    @property
    def rule(self) -> WindowRule:
        return WindowRule(Footprint.rectangle(self.size), self.min_valid, self.fill_invalid, self.fill)


def integer_limits(dtype: Any) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def output_dtype(name: str, dtype: np.dtype) -> np.dtype:
    if name == "count":
        return np.dtype(np.uint32)
    if name in EXTREMA:
        return dtype
    if name == "sum" and dtype.kind != "f":
        return np.dtype(np.float64)
    return working_dtype(dtype)


def compute(
    values: np.ndarray, valid: np.ndarray | None, windows: Windows, names: tuple[str, ...] = MOMENTS + EXTREMA
) -> Result:
    """Run the kernels into arrays somewhat larger than the region; what lies outside must stay."""
    top, bottom, left, right = windows.region
    row, column = windows.out_origin
    shape = (values.shape[0], bottom - row + 1, (right - column + 1) * windows.lanes)
    out = {name: np.full(shape, 99, output_dtype(name, values.dtype)) for name in names}
    before = values.copy()
    moments(values, valid, {name: out[name] for name in names if name in MOMENTS}, windows.frame, windows.rule)
    extrema(values, valid, {name: out[name] for name in names if name in EXTREMA}, windows.frame, windows.rule)
    np.testing.assert_array_equal(values, before)
    inside = np.s_[:, top - row : bottom - row, (left - column) * windows.lanes : (right - column) * windows.lanes]
    for array in out.values():
        rim = np.ones(shape, bool)
        rim[inside] = False
        assert (array[rim] == 99).all()
    return {name: np.ascontiguousarray(array[inside]) for name, array in out.items()}


def reference(values: np.ndarray, valid: np.ndarray | None, windows: Windows) -> Result:
    """The same for the whole array less its halo, naively; invalid is NaN, also in integer results."""
    height, width = windows.size
    planes, rows, _ = values.shape
    pixels = values.reshape(planes, rows, -1, windows.lanes)
    mask = np.ones(pixels.shape, bool) if valid is None else valid.reshape(pixels.shape)
    shape = (planes, rows - height + 1, (pixels.shape[2] - width + 1), windows.lanes)
    result = {name: np.full(shape, np.nan) for name in MOMENTS + EXTREMA}
    for place in np.ndindex(shape):
        plane, row, column, lane = place
        window = np.s_[plane, row : row + height, column : column + width, lane]
        centre = (plane, row + height // 2, column + width // 2, lane)
        known = [v for v, ok in zip(pixels[window].flat, mask[window].flat, strict=True) if ok and not np.isnan(v)]
        finite = [int(v) if values.dtype.kind != "f" else float(v) for v in known if np.isfinite(v)]
        result["count"][place] = len(finite)
        ok = bool(mask[centre]) and not np.isnan(pixels[centre])
        if len(known) >= max(1, windows.min_valid) and (ok or windows.fill_invalid):
            result["min"][place], result["max"][place] = min(known), max(known)
        ok = ok and bool(np.isfinite(pixels[centre]))
        if len(finite) >= max(1, windows.min_valid) and (ok or windows.fill_invalid):
            mean = math.fsum(finite) / len(finite)
            var = math.fsum((v - mean) ** 2 for v in finite) / len(finite)
            result["sum"][place], result["mean"][place] = math.fsum(finite), mean
            result["var"][place], result["std"][place] = var, math.sqrt(var)
            result["range"][place] = max(finite) - min(finite)
    return {name: array.reshape(*shape[:2], -1) for name, array in result.items()}


def largest(values: np.ndarray, valid: np.ndarray | None, windows: Windows) -> np.ndarray:
    """The greatest finite |value| in each window."""
    planes, rows, _ = values.shape
    pixels = np.abs(values.astype(np.float64)).reshape(planes, rows, -1, windows.lanes)
    pixels = np.where(np.isfinite(pixels), pixels, 0)
    if valid is not None:
        pixels = np.where(valid.reshape(pixels.shape), pixels, 0)
    found: np.ndarray = sliding_window_view(pixels, windows.size, axis=(1, 2)).max(axis=(-2, -1))
    return found.reshape(*found.shape[:2], -1)


def check(
    values: np.ndarray, valid: np.ndarray | None, windows: Windows, names: tuple[str, ...] = MOMENTS + EXTREMA
) -> None:
    """Compare with the reference, within the bounds of the exactness contract."""
    got, expected, size = (
        compute(values, valid, windows, names),
        reference(values, valid, windows),
        largest(values, valid, windows),
    )
    num = windows.size[0] * windows.size[1]
    variance_error = (64 * 2.0**-52 * size) ** 2
    eps = {name: float(np.finfo(got[name].dtype).eps) for name in ("mean", "sum") if name in got}
    bounds = {
        "mean": 4 * eps.get("mean", 0) * size,
        "sum": 4 * eps.get("sum", 0) * size * num,
        "var": 1e-6 * expected["var"] + variance_error,
        "std": 1e-6 * expected["std"] + np.sqrt(variance_error),
    }
    for name in names:
        want = expected[name]
        if name in bounds:
            np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(want))
            assert np.nanmax(np.abs(got[name] - want) - bounds[name], initial=-1) <= 0, name
            continue
        if got[name].dtype.kind == "f":
            with np.errstate(over="ignore"):
                want = want.astype(values.dtype)
        elif name != "count":
            want = np.where(np.isnan(want), windows.fill, np.minimum(want, integer_limits(values.dtype)[1]))
        np.testing.assert_array_equal(got[name], want, name)


sizes = st.tuples(*[st.integers(0, 6).map(lambda half: 2 * half + 1)] * 2)
densities = st.sampled_from([0.0, 0.02, 0.3, 0.97])


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES) -> tuple[np.ndarray, np.ndarray | None, Windows]:
    """Draw values with exactly the halo around a region, a mask for integers, and the windows."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    size, lanes, planes = draw(sizes), draw(st.integers(1, 5)), draw(st.integers(1, 2))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    top, left = draw(st.integers(-20, 20)), draw(st.integers(-20, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (planes, rows + size[0] - 1, (columns + size[1] - 1) * lanes)
    valid = None
    if dtype.kind == "f":
        offset = draw(st.sampled_from([0, 1000, -1e7]))
        values = (rng.normal(size=shape) + offset).astype(dtype)
        for special in (np.nan, np.inf, -np.inf):
            values[rng.random(shape) < draw(densities) / 2] = special
    else:
        values = rng.integers(*integer_limits(dtype), shape, dtype, endpoint=True)
        if draw(st.booleans()):
            valid = rng.random(shape) >= draw(densities)
    windows = Windows(
        region=(top, top + rows, left, left + columns),
        origin=(top - size[0] // 2, left - size[1] // 2),
        out_origin=(top - draw(st.integers(0, 2)), left - draw(st.integers(0, 2))),
        size=size,
        lanes=lanes,
        min_valid=draw(st.integers(0, size[0] * size[1] + 1)),
        fill_invalid=draw(st.booleans()),
        fill=FILL,
    )
    return values, valid, windows


@settings(max_examples=draws(200), deadline=None)
@given(cases())
def test_agrees_with_the_naive_reference(case: tuple[np.ndarray, np.ndarray | None, Windows]) -> None:
    check(*case)


@pytest.mark.parametrize(
    ("dtype", "names"), [("int32", ("mean", "sum", "count")), ("uint64", ("mean",)), ("uint8", ("range",))]
)
def test_other_integers(dtype: str, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(5)
    lowest, highest = integer_limits(dtype)
    values = rng.integers(lowest, min(highest, 2**53), (1, 12, 14), dtype)
    windows = Windows(region=(2, 10, 3, 11), origin=(0, 0), out_origin=(2, 3), size=(5, 7), fill=FILL)
    check(values, rng.random(values.shape) < 0.7, windows, names)


def scene(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 1e3 + rng.normal(size=shape) ** 5 + 1e5).astype(dtype)
    return rng.integers(0, integer_limits(dtype)[1], shape).astype(dtype)


def part(values: np.ndarray | None, region: tuple[int, int, int, int], windows: Windows) -> Any:
    """Cut a region of raster coordinates out of planes that begin at an origin."""
    if values is None:
        return None
    row, column = windows.origin
    top, bottom, left, right = region
    cut = values[:, top - row : bottom - row, (left - column) * windows.lanes : (right - column) * windows.lanes]
    return np.ascontiguousarray(cut)


@settings(max_examples=draws(60), deadline=None)
@given(st.data())
def test_bits_do_not_depend_on_the_block(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from(["float32", "float64", "int16"]))
    size = data.draw(sizes)
    reach = (size[0] // 2, size[1] // 2)
    lanes, rows, columns = data.draw(st.integers(1, 4)), 40, 30
    values = scene(rng, dtype, (1, rows + 2 * reach[0], (columns + 2 * reach[1]) * lanes))
    valid = None
    if data.draw(st.booleans()):
        valid = rng.random(values.shape) > 0.02
        if values.dtype.kind == "f":
            values[~valid], valid = np.nan, None
    row, column = data.draw(st.integers(-60, 60)), data.draw(st.integers(-60, 60))
    whole = Windows(
        region=(row, row + rows, column, column + columns),
        origin=(row - reach[0], column - reach[1]),
        out_origin=(row, column),
        size=size,
        lanes=lanes,
        fill=FILL,
    )
    expected = compute(values, valid, whole)
    for _ in range(4):
        top, left = data.draw(st.integers(row, row + rows - 1)), data.draw(st.integers(column, column + columns - 1))
        bottom = data.draw(st.integers(top + 1, row + rows))
        right = data.draw(st.integers(left + 1, column + columns))
        more = [data.draw(st.integers(0, 6)) for _ in range(4)]
        extent = (
            max(row - reach[0], top - reach[0] - more[0]),
            min(row + rows + reach[0], bottom + reach[0] + more[1]),
            max(column - reach[1], left - reach[1] - more[2]),
            min(column + columns + reach[1], right + reach[1] + more[3]),
        )
        block = replace(whole, region=(top, bottom, left, right), origin=(extent[0], extent[2]), out_origin=(top, left))
        got = compute(part(values, extent, whole), part(valid, extent, whole), block)
        for name, array in got.items():
            inner = replace(whole, origin=(row, column))
            np.testing.assert_array_equal(
                array.view(np.uint8), part(expected[name], (top, bottom, left, right), inner).view(np.uint8), name
            )


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("size", [(3, 3), (5, 3), (31, 3), (5, 9)])
def test_bits_do_not_depend_on_what_else_is_computed(size: tuple[int, int], dtype: str) -> None:
    """Means alone of three columns take a way of their own."""
    values = scene(np.random.default_rng(8), dtype, (1, 21 + size[0] - 1, 3 * (19 + size[1] - 1)))
    origin = (-7 - size[0] // 2, 4 - size[1] // 2)
    windows = Windows(region=(-7, 14, 4, 23), origin=origin, out_origin=(-7, 4), size=size, lanes=3, fill=FILL)
    together = compute(values, None, windows)
    for name, array in together.items():
        np.testing.assert_array_equal(compute(values, None, windows, (name,))[name], array, name)


@pytest.mark.parametrize("density", [0, 0.05])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 7), (15, 15), (101, 51)])
def test_bits_do_not_depend_on_the_lanes(size: tuple[int, int], dtype: str, density: float) -> None:
    rng = np.random.default_rng(1)
    lanes = 3
    pixels = scene(rng, dtype, (33 + size[0] - 1, 29 + size[1] - 1, lanes))
    pixels[rng.random(pixels.shape) < density] = np.nan
    origin = (-7 - size[0] // 2, 4 - size[1] // 2)
    windows = Windows(region=(-7, 26, 4, 33), origin=origin, out_origin=(-7, 4), size=size, lanes=lanes)
    last = compute(pixels.reshape(1, pixels.shape[0], -1), None, windows)
    first = compute(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), None, replace(windows, lanes=1))
    for name, array in last.items():
        np.testing.assert_array_equal(np.moveaxis(array.reshape(33, 29, lanes), 2, 0), first[name], name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 9), (15, 15), (31, 5)])
def test_invalid_pixels_change_no_other_windows(size: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(2)
    shape = (1, 60 + size[0] - 1, 50 + size[1] - 1)
    values = scene(rng, dtype, shape)
    windows = Windows(
        region=(0, 60, 0, 50), origin=(-(size[0] // 2), -(size[1] // 2)), out_origin=(0, 0), size=size, fill=FILL
    )
    clean = compute(values, None, windows)
    valid = np.ones(shape, bool)
    valid[0, rng.integers(0, shape[1], 5), rng.integers(0, shape[2], 5)] = False
    if values.dtype.kind == "f":
        values[~valid] = [np.nan, np.inf, -np.inf, np.nan, np.nan][: (~valid).sum()]
    dirty = compute(values, valid if values.dtype.kind != "f" else None, windows)
    whole = dirty["count"] == size[0] * size[1]
    assert whole.any()
    if size != (1, 1):
        assert not whole.all()
    for name, array in clean.items():
        np.testing.assert_array_equal(array[whole], dirty[name][whole], name)


@pytest.mark.parametrize("invalid", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (5, 5), (7, 3), (15, 15), (51, 101)])
@pytest.mark.parametrize("constant", [0.1, -12345.678, 1 / 3, 1e7 + 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_window_is_exact(dtype: str, constant: float, size: tuple[int, int], invalid: bool) -> None:
    values = np.full((1, 40 + size[0] - 1, 17 + size[1] - 1), constant, dtype)
    if invalid:
        values[np.random.default_rng(3).random(values.shape) < 0.3] = np.nan
    windows = Windows(
        region=(-3, 37, 8, 25),
        origin=(-3 - size[0] // 2, 8 - size[1] // 2),
        out_origin=(-3, 8),
        size=size,
        fill_invalid=True,
    )
    got = compute(values, None, windows)
    known = got["count"] > 0
    assert (got["mean"][known] == values.dtype.type(constant)).all()
    assert (got["var"][known] == 0).all()
    assert (got["std"][known] == 0).all()
    assert (got["range"][known] == 0).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(5, 3), (37, 39), (39, 39)])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
def test_variances_of_small_integers_are_the_exact_ones_rounded(
    dtype: str, size: tuple[int, int], masked: bool
) -> None:
    """Whose sums of squares hold 1448 pixels of 16 bits: 37 x 39, but not 39 x 39, where variances are merged."""
    rng, low, high = np.random.default_rng(5), *integer_limits(dtype)
    values = rng.choice([low, low + 1, high, high - 1], (1, 6 + size[0] - 1, 7 + size[1] - 1)).astype(dtype)
    valid = rng.random(values.shape) < 0.7 if masked else np.ones(values.shape, bool)
    origin = (-(size[0] // 2), -(size[1] // 2))
    windows = Windows(region=(0, 6, 0, 7), origin=origin, out_origin=(0, 0), size=size, fill_invalid=True)
    got = compute(values, valid if masked else None, windows, ("mean", "var", "std"))
    parts = [np.where(valid[0], values[0].astype(np.int64) ** power, 0) for power in range(3)]
    num, total, power = (sliding_window_view(part, size).sum(axis=(2, 3)) for part in parts)
    expected = (num * power - total * total) / (num * num)
    if size == (39, 39) and dtype != "uint8":
        np.testing.assert_allclose(got["var"][0], expected, rtol=2e-7)
        return
    np.testing.assert_array_equal(got["var"][0], expected.astype(np.float32))
    np.testing.assert_array_equal(got["std"][0], np.sqrt(expected).astype(np.float32))


@pytest.mark.parametrize("size", [(3, 3), (181, 181), (183, 183), (257, 257), (259, 259)])
@pytest.mark.parametrize(("dtype", "extreme"), [("uint16", 2**16 - 1), ("int16", -(2**15)), ("uint8", 255)])
def test_the_largest_sums_of_small_integers_are_exact(dtype: str, extreme: int, size: tuple[int, int]) -> None:
    """32-bit sums hold 181 x 181 values of 16 bits, and no 183 x 183."""
    values = np.full((1, 4 + size[0] - 1, 5 + size[1] - 1), extreme, dtype)
    values[0, :2, :3] = 1
    windows = Windows(region=(0, 4, 0, 5), origin=(-(size[0] // 2), -(size[1] // 2)), out_origin=(0, 0), size=size)
    got = compute(values, None, windows, ("mean", "sum"))
    expected = sliding_window_view(values[0].astype(np.int64), size).sum(axis=(2, 3))
    np.testing.assert_array_equal(got["sum"][0], expected)
    np.testing.assert_array_equal(got["mean"][0], (expected * (1 / (size[0] * size[1]))).astype(np.float32))


@pytest.mark.parametrize("size", [(3, 3), (15, 15), (101, 101)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_variance_is_stable_at_large_offsets(size: tuple[int, int], dtype: str) -> None:
    offset = 1e7
    rng = np.random.default_rng(4)
    values = (rng.normal(size=(1, 12 + size[0] - 1, 12 + size[1] - 1)) + offset).astype(dtype)
    windows = Windows(region=(0, 12, 0, 12), origin=(-(size[0] // 2), -(size[1] // 2)), out_origin=(0, 0), size=size)
    got = compute(values, None, windows, ("var",))["var"]
    expected = sliding_window_view(values[0].astype(np.float64) - offset, size).var(axis=(-2, -1))
    np.testing.assert_allclose(got[0], expected, rtol=1e-6)
    assert (got >= 0).all()


def test_variance_is_never_negative() -> None:
    rng = np.random.default_rng(6)
    values = (1e9 + 1e-6 * rng.integers(0, 2, (1, 80, 80))).astype(np.float64)
    windows = Windows(region=(0, 66, 0, 66), origin=(-7, -7), out_origin=(0, 0), size=(15, 15))
    got = compute(values, None, windows, ("var", "std"))
    assert (got["var"] >= 0).all()
    np.testing.assert_array_equal(got["std"], np.sqrt(got["var"]))
