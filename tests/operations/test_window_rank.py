"""Medians, percentiles and footprints: scipy's and numpy's results, every way the same bits, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.config import load_pipeline
from pipeline.kernels import window_selection
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.selection_network import selection_network
from pipeline.kernels.window import WindowRule, extrema, moments
from pipeline.kernels.window_order import order_statistics
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, working_dtype
from pipeline.model.region import Region
from pipeline.testing.draws import draws
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Raster, same_bits
from tests.reference_statistic import order_statistic

CROSS = Footprint.of([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
RING = Footprint.of([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
ASKEW = Footprint.of([[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
ABOVE = Footprint.of([[1, 1, 1], [0, 0, 0], [0, 0, 0]])
SHAPES = [Footprint.rectangle((3, 3)), Footprint.rectangle((5, 1)), Footprint.disk((7, 5)), CROSS, RING, ASKEW, ABOVE]


def frame_of(values: np.ndarray, footprint: Footprint, lanes: int = 1) -> Frame:
    """Return the frame of all windows inside of some planes, outputs of their own size."""
    above, below, left, right = footprint.reach
    rows, columns = values.shape[1] - above - below, values.shape[2] // lanes - left - right
    return Frame(Region(0, rows, 0, columns), (-above, -left), (0, 0), lanes)


def select(
    values: np.ndarray,
    fractions: dict[str, float],
    window: WindowRule,
    lanes: int = 1,
    valid: np.ndarray | None = None,
    dtype: Any = None,
) -> dict[str, np.ndarray]:
    frame = frame_of(values, window.footprint, lanes)
    rows, columns = frame.shape
    shape = (values.shape[0], rows, columns * frame.lanes)
    out = {name: np.empty(shape, dtype or working_dtype(values.dtype)) for name in fractions}
    before = values.copy()
    order_statistics(values, valid, out, fractions, frame, window)
    assert same_bits(values, before)
    return out


def windows_of(values: np.ndarray, footprint: Footprint, lanes: int = 1) -> np.ndarray:
    """Return (plane, row, column x lane, pixel)."""
    planes, rows, length = values.shape
    pixels = values.reshape(planes, rows, length // lanes, lanes)
    cut = sliding_window_view(pixels, footprint.extent, axis=(1, 2))[..., footprint.mask]
    return cut.reshape(planes, cut.shape[1], -1, cut.shape[-1])


def pixels(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw values with ties, and the extremes of the dtype."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = rng.normal(size=shape).round(1).astype(kind)
        for special in (np.inf, -np.inf, -0.0, 0.0, np.finfo(kind).max / 4, np.finfo(kind).tiny):
            values[rng.random(shape) < 0.02] = special
        return values
    info = np.iinfo(kind)
    values = rng.integers(info.min, info.max, shape, kind, endpoint=True)
    values[rng.random(shape) < 0.2] = info.max
    values[rng.random(shape) < 0.2] = info.min
    return values


@pytest.fixture
def ranks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No networks: every window goes the way of large ones."""
    monkeypatch.setattr(window_selection, "LARGEST_NETWORK", 0)
    window_selection._selection.cache_clear()
    yield
    window_selection._selection.cache_clear()


def test_footprints() -> None:
    assert Footprint.disk((3, 3)) == CROSS
    assert Footprint.of([[1, 1, 1]] * 3) == Footprint.rectangle((3, 3))
    assert Footprint.rectangle((5, 3)).is_rectangle
    assert not RING.is_rectangle
    assert not Footprint.of([[0, 1, 1]]).is_rectangle  # it is not about its centre
    assert (ASKEW.reach, ASKEW.extent, ASKEW.num_pixels) == ((0, 1, 2, 1), (2, 4), 3)
    assert ASKEW.columns == ((0,), (1,), (), (0,))
    for size in ((1, 1), (1, 9), (7, 1), (9, 9), (11, 25)):
        rows, columns = np.mgrid[-(size[0] // 2) : size[0] // 2 + 1, -(size[1] // 2) : size[1] // 2 + 1]
        ry, rx = max(size[0] // 2, 1e-9), max(size[1] // 2, 1e-9)
        inside = (rows / ry) ** 2 + (columns / rx) ** 2 <= 1 + 1e-12
        np.testing.assert_array_equal(Footprint.disk(size).mask, inside)


@pytest.mark.parametrize("footprint", SHAPES)
@pytest.mark.parametrize("shape", [(9, 9), (2, 3), (1, 1)])
def test_fewest_bounds_the_pixels_inside(footprint: Footprint, shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, int)
    for dy, first, length in footprint.runs:
        for dx in range(first, first + length):
            inside += (rows + dy >= 0) & (rows + dy < shape[0]) & (columns + dx >= 0) & (columns + dx < shape[1])
    assert footprint.fewest(*shape) <= inside.min()
    if shape == (9, 9):
        assert footprint.fewest(*shape) == inside.min()


@pytest.mark.parametrize(("side", "cost"), [(3, 22), (5, 90), (7, 238), (9, 404)])
def test_networks_of_medians_are_small(side: int, cost: int) -> None:
    assert selection_network(Footprint.rectangle((side, side)).columns, (side * side // 2,), side).cost == cost


@given(data=st.data())
@settings(deadline=None, max_examples=draws(100))
def test_networks_select_by_rank(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    matrix = rng.random((3, 5)) < data.draw(st.sampled_from([0.3, 0.7, 1.0]))
    matrix[data.draw(st.integers(0, 2)), data.draw(st.integers(0, 4))] = True  # the centre need not be among them
    footprint = Footprint.of(matrix.tolist())
    num = footprint.num_pixels
    ranks = tuple(sorted(data.draw(st.sets(st.integers(0, num - 1), min_size=1, max_size=num))))
    network = selection_network(footprint.columns, ranks, footprint.extent[0])
    width = footprint.extent[1]
    image = rng.integers(0, 9, (footprint.extent[0], width + 4))
    rows = np.full((network.num_rows, image.shape[1]), -1)
    rows[: network.num_inputs] = image[: network.num_inputs]
    for a, a_shift, b, b_shift, low, high, further in network.steps:
        assert not {low, high} & {a, b, *range(network.num_inputs)}
        length = 5 + further
        x, y = rows[a, a_shift : a_shift + length], rows[b, b_shift : b_shift + length]
        for row, value in ((low, np.minimum(x, y)), (high, np.maximum(x, y))):
            if row >= 0:
                rows[row, :length] = value
    for rank, (row, shift) in zip(ranks, network.results, strict=True):
        expected = np.sort(windows_of(image[np.newaxis], footprint), axis=-1)[0, 0, :, rank]
        np.testing.assert_array_equal(rows[row, shift : shift + 5], expected)


DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")


@pytest.mark.parametrize("density", [0, 0.02, 0.5, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("footprint", [*SHAPES, Footprint.rectangle((9, 13)), Footprint.disk((15, 15))])
def test_equals_the_sorted_windows(footprint: Footprint, dtype: str, density: float) -> None:
    rng = np.random.default_rng(5)
    lanes, fractions = 3, {"median": 0.5, "p2.5": 0.025, "p0": 0.0, "p100": 1.0}
    values = pixels(rng, dtype, (2, 30, 23 * lanes))
    invalid = rng.random(values.shape) < density
    valid = None if values.dtype.kind == "f" or not density else ~invalid
    if values.dtype.kind == "f":
        values[invalid] = np.nan
    window = WindowRule(footprint, fill_invalid=True, min_valid=2 if footprint.num_pixels > 1 else 1)
    got = select(values, fractions, window, lanes, valid)
    known = np.where(invalid, np.nan, values.astype(np.float64)) if density else values.astype(np.float64)
    cut = windows_of(known, footprint, lanes)
    for name, fraction in fractions.items():
        expected = order_statistic(cut, fraction)
        expected = np.where(np.sum(~np.isnan(cut), axis=-1) < window.min_valid, np.nan, expected)
        np.testing.assert_array_equal(got[name], expected.astype(got[name].dtype), name)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("footprint", [Footprint.rectangle((5, 5)), Footprint.disk((9, 5)), RING])
def test_every_way_gives_the_same_bits(
    footprint: Footprint, dtype: str, ranks_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks, networks for invalid pixels, and ranks, also for -0, which is not less than 0 to minima."""
    rng = np.random.default_rng(6)
    values = pixels(rng, dtype, (1, 60, 70))
    if values.dtype.kind == "f":
        values[rng.random(values.shape) < 0.5] = 0.0
        values[rng.random(values.shape) < 0.3] = -0.0
    fractions = {"median": 0.5, "p30": 0.3}
    window = WindowRule(footprint)
    by_rank = select(values, fractions, window)
    monkeypatch.undo()
    window_selection._selection.cache_clear()
    assert window_selection.Selection.of(footprint, (0.5, 0.3), values.itemsize).network
    by_network = select(values, fractions, window)
    wide = np.pad(values, ((0, 0), (0, 40), (0, 0)), constant_values=1)
    mask = np.ones(wide.shape, bool)
    mask[0, -1, 5] = False  # far from all windows of the others, but in their tile
    if values.dtype.kind == "f":
        wide[~mask] = np.nan
    dirty = select(wide, fractions, window, 1, None if values.dtype.kind == "f" else mask)
    for name, expected in by_rank.items():
        assert same_bits(by_network[name], expected)
        assert same_bits(np.ascontiguousarray(dirty[name][:, : expected.shape[1]]), expected)


@pytest.mark.parametrize("size", [(3, 3), (5, 7), (15, 15), (41, 21)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_medians_are_scipys(dtype: str, size: tuple[int, int]) -> None:
    values = pixels(np.random.default_rng(7), dtype, (1, 130, 140))
    footprint = Footprint.rectangle(size)
    got = select(values, {"median": 0.5}, WindowRule(footprint), dtype=values.dtype)
    expected = scipy.ndimage.median_filter(values[0], size)
    rows, columns = size[0] // 2, size[1] // 2
    np.testing.assert_array_equal(got["median"][0], expected[rows:-rows, columns:-columns])


@pytest.mark.parametrize("footprint", [Footprint.disk((9, 9)), CROSS, RING])
def test_percentiles_are_numpys(footprint: Footprint) -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(size=(1, 40, 41))
    values[rng.random(values.shape) < 0.1] = np.nan
    got = select(values, {"p10": 0.1, "p97.5": 0.975, "median": 0.5}, WindowRule(footprint, fill_invalid=True))
    cut = windows_of(values, footprint)
    np.testing.assert_array_equal(got["p10"], np.nanpercentile(cut, 10, axis=-1))
    np.testing.assert_array_equal(got["p97.5"], np.nanpercentile(cut, 97.5, axis=-1))
    np.testing.assert_allclose(got["median"], np.nanmedian(cut, axis=-1), rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
@pytest.mark.parametrize("footprint", [Footprint.disk((9, 7)), CROSS, RING, ASKEW])
def test_other_statistics_of_footprints_are_scipys(footprint: Footprint, dtype: str) -> None:
    rng = np.random.default_rng(9)
    values = rng.integers(-3000, 3000, (2, 50, 40)).astype(dtype)
    frame, window = frame_of(values, footprint), WindowRule(footprint, fill_invalid=True)
    shape = (2, *frame.shape)
    names = {"mean": working_dtype(values.dtype), "var": working_dtype(values.dtype), "count": np.uint32}
    names |= {"sum": np.float32 if dtype == "float32" else np.float64, "std": working_dtype(values.dtype)}
    out = {name: np.empty(shape, kind) for name, kind in names.items()}
    moments(values, None, out, frame, window)
    out |= {name: np.empty(shape, dtype) for name in ("min", "max", "range")}
    extrema(values, None, {name: out[name] for name in ("min", "max", "range")}, frame, window)
    above, _, left, _ = footprint.reach
    shift = (above - footprint.extent[0] // 2, left - footprint.extent[1] // 2)
    inside = np.s_[above : above + frame.shape[0], left : left + frame.shape[1]]
    for name, function in (("mean", np.mean), ("var", np.var), ("std", np.std), ("sum", np.sum)):
        for plane, got in zip(values.astype(np.float64), out[name], strict=True):
            expected = scipy.ndimage.generic_filter(plane, function, footprint=footprint.mask, origin=shift)
            np.testing.assert_allclose(got, expected[inside], rtol=4 * np.finfo(got.dtype).eps, atol=1e-9)
    for name, filter_ in (("min", scipy.ndimage.minimum_filter), ("max", scipy.ndimage.maximum_filter)):
        expected = np.stack([filter_(plane, footprint=footprint.mask, origin=shift)[inside] for plane in values])
        np.testing.assert_array_equal(out[name], expected)
    np.testing.assert_array_equal(out["range"], out["max"] - out["min"])
    assert (out["count"] == footprint.num_pixels).all()


@pytest.mark.parametrize("constant", [0.1, -12345.678, 1e7 + 0.1])
def test_a_constant_window_of_any_shape_is_exact(constant: float) -> None:
    values = np.full((1, 40, 30), constant)
    values[np.random.default_rng(10).random(values.shape) < 0.3] = np.nan
    window = WindowRule(Footprint.disk((15, 11)), fill_invalid=True)
    frame = frame_of(values, window.footprint)
    out = {name: np.empty((1, *frame.shape)) for name in ("mean", "var", "std")}
    moments(values, None, out, frame, window)
    assert (out["mean"] == constant).all()
    assert (out["var"] == 0).all()
    assert (out["std"] == 0).all()


def spec(dtype: str, nodata: float | None = None) -> RasterSpec:
    return RasterSpec(20, 30, np.dtype(dtype), nodata=nodata)


def operation(**settings: Any) -> Any:
    steps = [{"name": "step", "op": "window", **settings}]
    config, _ = load_pipeline({"inputs": {"image": "x.zarr"}, "steps": steps, "output": {"path": "y.zarr"}})
    return config.steps[0]


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        (spec("uint16"), {}, "uint16"),
        (spec("uint16"), {"min_valid": 9}, "uint16"),
        (spec("uint16", 0), {}, "float32"),  # with a pixel less a window has an even number
        (spec("int32", 0), {}, "float64"),
        (spec("uint16"), {"boundary": "shrink"}, "float32"),
        (spec("uint16"), {"footprint": "disk"}, "uint16"),
        (spec("uint16"), {"size": None, "footprint": [[1, 0, 1]]}, "float32"),
        (spec("float32", float("nan")), {}, "float32"),
        (spec("float16", float("nan")), {}, "float32"),
        (spec("int64"), {}, "int64"),
    ],
)
def test_the_dtype_of_a_median(source: RasterSpec, settings: dict[str, Any], expected: str) -> None:
    step = operation(**{"size": 3, "statistics": ["median"], **settings})
    assert step.output_specs({"input": source})["median"].dtype == expected


def test_percentiles_are_outputs_by_name(tmp_path: Path) -> None:
    values = np.random.default_rng(11).integers(0, 100, (12, 15)).astype(np.uint8)
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "s", "op": "window", "size": 3, "statistics": [], "percentiles": [10, 2.5]}
    later = {"name": "t", "op": "window", "size": 1, "statistics": ["max"], "input": "s/p2.5"}
    got = harness.run(source, [step, later], tmp_path, keep=["s", "t"])
    assert list(got) == ["s/p10", "s/p2.5", "t/max"]
    expected = scipy.ndimage.generic_filter(values.astype(float), lambda window: np.percentile(window, 2.5), 3)
    np.testing.assert_array_equal(got["s/p2.5"][0], expected.astype(np.float32))
    assert same_bits(got["t/max"], got["s/p2.5"])


def test_64_bit_integers_have_medians_but_no_percentiles() -> None:
    with pytest.raises(PipelineError, match="int64"):
        operation(size=3, percentiles=[50], statistics=[]).output_specs({"input": spec("int64")})
    with pytest.raises(PipelineError, match="int64"):
        operation(size=3, statistics=["median"]).output_specs({"input": spec("int64", 0)})


@pytest.mark.parametrize("name", ["k.npy", "k.csv"])
def test_a_footprint_from_a_file(name: str, tmp_path: Path) -> None:
    matrix = [[0, 1, 0], [1, 0, 1], [0, 1, 1]]
    if name.endswith(".npy"):
        np.save(tmp_path / name, np.array(matrix))
    else:
        (tmp_path / name).write_text("\n".join(",".join(map(str, row)) for row in matrix))
    values = np.random.default_rng(12).normal(size=(20, 30))
    source = harness.store(Raster(values, ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "s", "op": "window", "statistics": ["median", "mean", "max"]}
    got = harness.whole(source, [{**step, "footprint": str(tmp_path / name)}], tmp_path)
    expected = harness.whole(source, [{**step, "footprint": matrix}], tmp_path)
    assert all(same_bits(got[path], expected[path]) for path in expected)
    expected_max = scipy.ndimage.maximum_filter(values, footprint=np.array(matrix))
    np.testing.assert_array_equal(got["s/max"][0], expected_max)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "missing; add `size: 3`"),
        ({"footprint": "disk"}, "missing; add `size: 3`"),
        ({"size": 3, "footprint": "dsik"}, "unknown footprint 'dsik'; did you mean 'disk'"),
        ({"size": 3, "footprint": 5}, "must be rectangle or disk, rows of 0 and 1, or a file that holds them, got 5"),
        ({"footprint": [[1, 1]]}, "must have odd sides, got 1 x 2; add a row or column of 0"),
        ({"footprint": [[0]]}, "must hold a 1"),
        ({"footprint": [[1, 2, 0]]}, "must hold 0 and 1, got 2"),
        ({"footprint": [[1, 1, 1], [1]]}, "must have rows of one length"),
        ({"footprint": [[1, 0, 1]], "size": 3}, "the footprint is 1 x 3; leave size out"),
        ({"footprint": [[1, 0, 1]], "min_valid": 3}, "must be at most the 2 pixels of the window, got 3"),
        ({"size": 5, "footprint": "disk", "min_valid": 14}, "must be at most the 13 pixels of the window, got 14"),
        ({"size": 3, "statistics": []}, "must name a statistic, or there must be `percentiles:`"),
        ({"size": 3, "percentiles": [10, 10.0]}, "must name each percentile once, got p10, p10"),
        ({"size": 3, "percentiles": [101]}, "must be at most 100"),
        ({"size": 3, "percentiles": [True]}, "must be a number"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        operation(**settings)
    assert message in str(caught.value)


def test_a_file_that_holds_no_footprint_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("1,0\n")
    source = harness.store(Raster(np.zeros((4, 4)), ("y", "x")), tmp_path / "in.zarr")
    step = {"name": "s", "op": "window", "footprint": str(tmp_path / "k.csv")}
    with pytest.raises(PipelineError, match=r"must have odd sides, got 1 x 2.*k\.csv"):
        load(harness.document(source, [step], tmp_path / "out.zarr"))
