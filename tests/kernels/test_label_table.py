"""Label tables against fractions, and against themselves: no bit depends on the blocks or the order of merging."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.execution.process import peak_rss_bytes, trim_heap
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_block import BlockSums
from pipeline.kernels.label_columns import finish, lookup
from pipeline.kernels.label_geometry import GEOMETRY, MOST_ROWS, SHAPES
from pipeline.kernels.label_runs import SLAB_PIXELS
from pipeline.kernels.label_table import STATISTICS, LabelTable, merge, partial_table
from pipeline.kernels.label_width import merged_bytes, width_of, width_of_dtype
from pipeline.storage.tables import StoredTable, save_table
from pipeline.testing.draws import draws
from tests import harness

ALL = (*STATISTICS, *GEOMETRY, "centroid_weighted")
EDGES = np.array([-1e300, -1.5, 0, 1, 100, 2**31])
DTYPES = ("uint8", "int32", "uint64", "float32", "float64")
"""Each is compiled anew."""
HARD = [0.0, -0.0, 1.0, -1.0, 0.1, 1e10, 1e300, -1e300, 1e-300, 5e-324, 1.7976931348623157e308, np.nan, np.inf, -np.inf]


@st.composite
def rasters(draw: st.DrawFn, dtype: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Draw labels (row, column), values (band, row, column) and a mask."""
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    bands = draw(st.integers(1, 3))
    kind = np.dtype(dtype or draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), min_size=1, max_size=5))
    labels = rng.choice(np.array(names), shape)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            hard = np.array(HARD).astype(kind)
        values = rng.normal(draw(st.sampled_from([0, 1e7])), 1, (bands, *shape)).astype(kind)
        where = rng.random(values.shape) < draw(st.sampled_from([0, 0.2, 1]))
        return labels, np.where(where, rng.choice(hard, values.shape), values), None
    info = np.iinfo(kind)
    values = rng.integers(info.min, info.max, (bands, *shape), kind, endpoint=True)
    values[rng.random(values.shape) < 0.2] = info.max
    return labels, values, rng.random(values.shape) < 0.8 if draw(st.booleans()) else None


def table_of(
    labels: np.ndarray, values: np.ndarray, valid: np.ndarray | None, lanes: bool, **options: Any
) -> LabelTable:
    """Return the table of all pixels, the bands being planes or lanes."""
    bands, height, width = values.shape
    if lanes:
        values = np.ascontiguousarray(np.moveaxis(values, 0, -1)).reshape(1, height, width * bands)
        if valid is not None:
            valid = np.ascontiguousarray(np.moveaxis(valid, 0, -1)).reshape(1, height, width * bands)
    patch = Patch((height, width), lanes=bands if lanes else 1, origin=options.pop("origin", (0, 0)))
    return partial_table(np.ascontiguousarray(labels), values, patch, ALL, valid=valid, edges=EDGES, **options)


def same(first: LabelTable, second: LabelTable) -> None:
    for name in ("labels", "pixels", "count", "lowest", "highest", "geometry"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.counted["histogram"], second.counted["histogram"])
    for name in ("sums", "squares", "moments"):
        a, b = getattr(first, name), getattr(second, name)
        assert a is not None
        assert b is not None
        assert a.low == b.low
        np.testing.assert_array_equal(a.words, b.words)


def test_shapes_are_the_same_anywhere_in_the_largest_raster() -> None:
    """Moments about the mean, of coordinates whose squares fill 53 bits: exact, so the same bits as at the origin."""
    labels = np.random.default_rng(0).integers(0, 3, (40, 1500))
    values = np.zeros((1, 40, 1500), np.uint8)
    near, far = (
        table_of(labels, values, None, lanes=False, origin=origin)
        for origin in ((0, 0), (MOST_ROWS - 40, MOST_ROWS - 1500))
    )
    for name in SHAPES:
        np.testing.assert_array_equal(finish(near, SHAPES)[name], finish(far, SHAPES)[name])


def cast_once(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else -float("inf")


@settings(max_examples=draws(300), deadline=None)
@given(rasters())
def test_the_columns_are_those_of_exact_arithmetic(raster: Any) -> None:
    labels, values, valid = raster
    table = table_of(labels, values, valid, lanes=False)
    columns = finish(table, ALL)
    assert table.labels.tolist() == sorted(set(labels.reshape(-1).tolist()))
    for i, label in enumerate(table.labels):
        rows, cols = np.nonzero(labels == label)
        assert table.pixels[i] == len(rows)
        assert columns["centroid"][i].tolist() == [rows.sum() / len(rows), cols.sum() / len(rows)]
        assert columns["bbox"][i].tolist() == [rows.min(), rows.max(), cols.min(), cols.max()]
        for band, plane in enumerate(values):
            usable = (labels == label) & (np.isfinite(plane) if valid is None else valid[band])
            check({name: columns[name][i, band] for name in STATISTICS}, plane[usable].tolist())
            check_centre(columns["centroid_weighted"][i, band], plane, usable)
            expected = np.histogram(plane[usable].astype(np.float64), EDGES)[0]
            assert columns["histogram"][i, band].tolist() == expected.tolist()


def check_centre(got: np.ndarray, plane: np.ndarray, usable: np.ndarray) -> None:
    weights = [Fraction(value) for value in plane[usable].tolist()]
    total = sum(weights, Fraction(0))
    for axis, places in enumerate(np.nonzero(usable)):
        moment = sum((w * int(place) for w, place in zip(weights, places, strict=True)), Fraction(0))
        expected = cast_once(moment / total) if total else np.nan
        if np.isfinite(expected):
            bound = abs(Fraction(expected)) * Fraction(2) ** -51 + Fraction(2) ** -100
            assert abs(Fraction(got[axis].item()) - Fraction(expected)) <= bound
        else:
            np.testing.assert_equal(got[axis], expected)


def check(got: dict[str, float], values: list[Any]) -> None:
    numbers = [Fraction(value) for value in values]
    assert got["count"] == len(numbers)
    assert got["sum"] == cast_once(sum(numbers, Fraction(0)))
    if not numbers:
        assert all(np.isnan(got[name]) for name in ("mean", "var", "std"))
        assert all(got[name] == 0 if got[name].dtype.kind in "iu" else np.isnan(got[name]) for name in ("min", "max"))
        return
    average = sum(numbers, Fraction(0)) / len(numbers)
    assert got["mean"] == float(average)
    assert (Fraction(got["min"].item()), Fraction(got["max"].item())) == (min(numbers), max(numbers))
    assert got["range"] == cast_once(max(numbers) - min(numbers))
    expected = sum((number - average) ** 2 for number in numbers) / len(numbers)
    if expected >= Fraction(1.7e308):
        assert got["var"] > 1.6e308
        return
    assert abs(Fraction(float(got["var"])) - expected) <= expected * Fraction(2) ** -51 + Fraction(2) ** -1074
    if 0 < expected < Fraction(2) ** -1022:  # the root is one also where the variance vanishes
        root, least = Fraction(float(got["std"])), Fraction(2) ** -1074  # of which a float64 is a multiple
        assert max(root - least, 0) ** 2 <= expected * (1 + Fraction(2) ** -50)
        assert (root + least) ** 2 >= expected * (1 - Fraction(2) ** -50)
        return
    assert got["std"] == np.sqrt(got["var"])


@settings(max_examples=draws(300), deadline=None)
@given(rasters(), st.data())
def test_no_bit_depends_on_the_blocks_or_the_order(raster: Any, data: st.DataObject) -> None:
    labels, values, valid = raster
    height, width = labels.shape
    rows = sorted({0, height, *data.draw(st.lists(st.integers(0, height)))})
    cols = sorted({0, width, *data.draw(st.lists(st.integers(0, width)))})
    tables = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(cols):
            part = np.s_[top:bottom, left:right]
            mask = None if valid is None else np.ascontiguousarray(valid[:, *part])
            planes = np.ascontiguousarray(values[:, *part])
            lanes = data.draw(st.booleans())
            tables.append(table_of(labels[part], planes, mask, lanes, origin=(top, left)))
    tables = data.draw(st.permutations(tables))
    cut = data.draw(st.integers(0, len(tables) - 1))
    nested = merge([merge(tables[cut:]), *tables[:cut]])
    same(nested, table_of(labels, values, valid, lanes=False))


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_a_strip_that_does_not_fit_changes_nothing(dtype: str) -> None:
    """Values whose scale changes down the raster, in blocks of several strips."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, (300, 400)) * 10**12
    values = rng.integers(0, 1000, (2, 300, 400)).astype(dtype)
    if dtype != "int32":
        values[0, 100:] *= 0.1
        values[1, 150:] *= 1e-30
        values[1, 250, ::7] = 1e30
    whole = table_of(labels, values, None, lanes=True)
    parts = [table_of(labels[i : i + 1], values[:, i : i + 1], None, False, origin=(i, 0)) for i in range(300)]
    same(whole, merge(parts[::-1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("later", [[1.5e-3], [2.0**-9, 2.0**-12], [1e6], [1e-4, 1e30], [1e-20], [1e-37, 1.0, 1e37]])
def test_later_strips_may_need_other_units(dtype: str, later: list[float]) -> None:
    """Digits are shifted to a lower unit, or carried over: the table is that of strips on their own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, (32 * (len(later) + 1), 1024))
    values = rng.normal(100, 10, (2, *labels.shape)).astype(dtype)
    for i, value in enumerate(later):
        values[1, 32 * (i + 1) + 5, ::3] = value
    tables = [
        table_of(labels[row : row + 32], np.ascontiguousarray(values[:, row : row + 32]), None, False, origin=(row, 0))
        for row in range(0, len(labels), 32)
    ]
    same(table_of(labels, values, None, lanes=False), merge(tables))


def test_ignored_and_invalid_labels_belong_to_none() -> None:
    labels = np.array([[0, 0, 1, 2, 2, 0]], np.uint8)
    values = np.array([[[1e30, -1e-30, 1.0, 2.0, 3.0, np.nan]]])
    valid = np.array([[True, True, True, True, False, True]])
    table = table_of(labels, values, None, False, labels_valid=valid, ignore=[0, 7])
    assert table.labels.tolist() == [1, 2]
    assert table.pixels.tolist() == [1, 1]
    assert table.count is None
    assert finish(table, ["sum"])["sum"].tolist() == [[1.0], [2.0]]


def test_a_region_within_larger_arrays() -> None:
    rng = np.random.default_rng(3)
    labels, values = rng.integers(0, 4, (9, 11)), rng.normal(size=(9, 11, 3)).astype(np.float32)
    patch = Patch((4, 5), labels_at=(2, 3), values_at=(5, 6), lanes=3, origin=(102, 203))
    table = partial_table(labels, values.reshape(1, 9, 33), patch, ALL, edges=EDGES)
    expected = table_of(labels[2:6, 3:8], np.moveaxis(values[5:9, 6:11], -1, 0).copy(), None, False, origin=(102, 203))
    same(table, expected)
    out = np.full((1, 9, 33), 9.0, np.float32)
    means = finish(table, ["mean"])["mean"]
    lookup(labels, table.labels, means, out, patch, np.nan)
    view = out.reshape(9, 11, 3)
    np.testing.assert_array_equal(view[5:9, 6:11], means[labels[2:6, 3:8]].astype(np.float32))
    assert (view[:5] == 9).all()
    assert (view[5:, :6] == 9).all()


def test_many_labels_far_apart() -> None:
    rng = np.random.default_rng(4)
    names = np.unique(rng.integers(-(2**62), 2**62, 30_000))
    index = rng.integers(0, len(names), (200, 300))
    values = rng.integers(0, 200, (1, 200, 300)).astype(np.uint8)
    table = table_of(names[index], values, None, False)
    used = np.unique(index)
    np.testing.assert_array_equal(table.labels, names[used])
    sums = np.bincount(index.reshape(-1), values.reshape(-1))[used]
    np.testing.assert_array_equal(finish(table, ["sum"])["sum"][:, 0], sums)


def test_runs_longer_than_the_buffers() -> None:
    values = np.ones((1, 1, 5000), np.float32)
    table = table_of(np.zeros((1, 5000), np.int16), values, None, False)
    assert finish(table, ["sum", "bbox"])["sum"].tolist() == [[5000.0]]
    assert table.sums is not None
    assert table.sums.words.tolist() == [[5000]]


@pytest.mark.parametrize("width", [1, 8, SLAB_PIXELS - 1, SLAB_PIXELS, SLAB_PIXELS + 1, 3 * SLAB_PIXELS + 1029])
@pytest.mark.parametrize("lanes", [False, True])
def test_rows_longer_than_a_strip(width: int, lanes: bool) -> None:
    """Strips are parts of rows; where they end, nothing begins anew but a run."""
    rng = np.random.default_rng(width)
    labels = np.repeat(rng.integers(-2, 5, (2, width // 300 + 1)), 300, axis=1)[:, :width].astype(np.int16)
    values, valid = rng.integers(0, 2**32, (2, 2, width), np.uint32), rng.random((2, 2, width)) < 0.9
    whole = table_of(labels, values, valid, lanes, ignore=[3])
    parts = []
    for left in range(0, width, 7000):
        cut = np.s_[..., left : left + 7000]
        parts.append(table_of(labels[cut], values[cut], valid[cut], lanes, ignore=[3], origin=(0, left)))
    same(whole, merge(parts))
    count = finish(whole, ["count"])["count"]
    out = np.zeros((2, 2, width), np.int64)
    usable = rng.random((2, width)) < 0.9
    lookup(labels, whole.labels, count, out, Patch((2, width)), -1, labels_valid=usable, ignore=[3])
    rows = np.minimum(np.searchsorted(whole.labels, labels), len(count) - 1)
    expected = np.moveaxis(np.where((usable & (labels != 3))[..., None], count[rows], -1), -1, 0)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("dtype", "most"), [("int64", 2**40 - 1), ("uint32", 2**32 - 1), ("float64", 2.0**79)])
def test_sums_of_a_row_of_millions_of_pixels(dtype: str, most: float) -> None:
    """Of one label, more than the digits of a sum or of squares can take; in strips whose buffers stay small."""
    num = 9_000_000
    values = np.full((1, 1, num), most, dtype)
    values[..., ::2] -= values.dtype.type(1 if dtype != "float64" else 2.0**70)
    labels = np.ones((1, num), np.int8)
    partial_table(labels[:, :9], values[..., :9], Patch((1, 9)), ALL)  # compiles
    trim_heap()
    before = harness.reset_peak_bytes()
    table = partial_table(labels, values, Patch((1, num)), ALL)
    assert peak_rss_bytes() - before < 8 * 2**20
    found = finish(table, ALL)
    numbers = [Fraction(values[0, 0, i].item()) for i in (0, 1)]
    average, half = sum(numbers) / 2, (numbers[1] - numbers[0]) / 2
    assert found["count"].tolist() == [[num]]
    assert found["sum"].tolist() == [[float(average * num)]]
    assert found["mean"].tolist() == [[float(average)]]
    assert found["var"].tolist() == [[float(half**2)]]


def test_there_is_room_for_labels_however_their_number_grows() -> None:
    """Kernels write by slot: an array that lags behind the others would be written beyond its end."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        sums = BlockSums(np.dtype("float32"), 2, 2, True)
        for num in np.cumsum(rng.integers(1, 4000, 20)).tolist():
            sums._reserve(num)
            arrays = (sums.invalid, sums.sums, sums.squares, sums.low, sums.high)
            assert num <= len(sums.invalid)
            assert {len(array) for array in arrays} == {len(sums.invalid)}


def test_labels_that_come_strip_by_strip() -> None:
    """Some more of them in each strip, so that tables grow while they are filled."""
    rng = np.random.default_rng(1)
    for per_strip in (130, 377, 610):
        rows, width = 320, 1024
        strip = np.arange(rows) // 32
        labels = (strip[:, None] * per_strip + rng.integers(0, per_strip, (rows, width))).astype(np.int32)
        values = rng.normal(100, 20, (1, rows, width)).astype(np.float32)
        table = partial_table(labels, values, Patch((rows, width)), ["mean"])
        count = np.bincount(labels.reshape(-1))
        expected = np.bincount(labels.reshape(-1), values.reshape(-1)) / count
        np.testing.assert_allclose(finish(table, ["mean"])["mean"][:, 0], expected[table.labels], rtol=1e-12)


def test_labels_that_the_table_lacks_are_filled() -> None:
    labels = np.array([[5, 6, 7, 0]], np.int64)
    means = np.array([[50.0], [np.nan]])
    for dtype, fill in (("float32", np.nan), ("int16", -9)):
        out = np.zeros((1, 1, 4), dtype)
        lookup(labels, np.array([5, 7]), means, out, Patch((1, 4)), fill, ignore=[0])
        np.testing.assert_array_equal(out[0, 0], np.array([50, fill, fill, fill], dtype))
    lookup(labels, np.array([], np.int64), np.empty((0, 1)), out, Patch((1, 4)), 3)
    assert out.tolist() == [[[3, 3, 3, 3]]]


def test_a_table_of_no_pixels_merges() -> None:
    labels, values = np.array([[1, 2]]), np.ones((2, 1, 2))
    none = table_of(labels, values, None, False, ignore=[1, 2])
    assert len(none.labels) == 0
    some = table_of(labels, values, None, False)
    same(merge([none, some]), some)
    same(merge([none, none]), none)


def test_a_table_is_no_larger_than_its_width_says_kernel() -> None:
    """Also where a few values are far from all others, which makes every sum as wide."""
    rng = np.random.default_rng(8)
    for dtype, outliers in itertools.product(DTYPES, ([], [1e30], [1e-30], [np.inf, np.nan], [5e-324, 1e308])):
        values = rng.integers(0, 200, (2, 30, 40)).astype(dtype)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values[:, 7, : len(outliers)] = np.array(outliers).astype(dtype)
        table = table_of(rng.integers(0, 90, (30, 40)), values, None, lanes=False)
        width = width_of(values, Patch((30, 40)))
        assert table.sums is not None
        assert table.squares is not None
        assert 8 * table.sums.words.shape[1] <= width.sum_bytes <= width_of_dtype(values.dtype).sum_bytes
        assert 8 * table.squares.words.shape[1] <= width.square_bytes <= width_of_dtype(values.dtype).square_bytes
        if dtype in ("float32", "float64") and not outliers:
            assert width.sum_bytes <= 24  # what nearly all rasters need


@settings(max_examples=draws(100), deadline=None)
@given(st.lists(rasters("float64"), min_size=2, max_size=3))
def test_a_merge_is_no_larger_than_predicted_kernel(drawn: Any) -> None:
    drawn = [raster for raster in drawn if len(raster[1]) == len(drawn[0][1])]
    tables = [table_of(labels, values, valid, lanes=False) for labels, values, valid in drawn]
    merged = merge(tables).to_columns()
    assert sum(column.nbytes for column in merged.values()) <= merged_bytes([table.to_columns() for table in tables])


@settings(deadline=None, max_examples=draws(50))
@given(st.sets(st.integers(-40, 40), min_size=1), st.sets(st.integers(-50, 50)), st.sampled_from([1, 48, 4096]))
def test_rows_are_selected_from_the_disk(labels: set[int], wanted: set[int], stripe: int) -> None:
    table = {"label": np.array(sorted(labels)), "mean": np.array(sorted(labels))[:, None] * [0.5, 2]}
    with harness.workspace() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.storage.tables.STRIPE_BYTES", stripe)
        save_table(folder / "table", table)
        found = StoredTable(folder / "table").select("label", np.array(sorted(wanted), np.int64), ["mean"])
    rows = [row for row, label in enumerate(table["label"]) if label in wanted]
    assert found.keys() == {"label", "mean"}
    for name, column in found.items():
        np.testing.assert_array_equal(column, table[name][rows])
