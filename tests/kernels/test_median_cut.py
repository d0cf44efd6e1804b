"""Cells, median cut and k-means: the same palette for any blocks, and a better one than Pillow's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.cell_ranges import ranges_of
from pipeline.kernels.color_bins import coarse_bins, crowded_bins, histogram
from pipeline.kernels.color_cells import (
    Cells,
    CellTable,
    cell_bits,
    cells_of,
    count_cells,
    identity_cells,
    merge_cells,
)
from pipeline.kernels.color_counts import count_colors
from pipeline.kernels.color_search import search_of
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_columns import finish
from pipeline.kernels.label_table import merge
from pipeline.kernels.median_cut import assigned_table, median_cut, moved_colors
from pipeline.kernels.occupied_cells import OccupiedCells
from pipeline.testing.draws import draws

NO_LIMIT = 1 << 30


def planes_of(image: np.ndarray) -> tuple[np.ndarray, Patch]:
    """Return (row, column, band) as planes with bands as lanes."""
    height, width, bands = image.shape
    return np.ascontiguousarray(image).reshape(1, height, width * bands), Patch((height, width), lanes=bands)


def cells_by_sweeps(images: list[np.ndarray], bits: int) -> Cells:
    """Return the cells that two sweeps over blocks find."""
    bands = images[0].shape[-1]
    bins = coarse_bins(bands)
    counts = sum(histogram(*planes_of(image), bins) for image in images)
    finer = crowded_bins(counts, bits) if images[0].dtype.itemsize > 2 else None
    if finer is None:
        return cells_of(counts, bins, bits)
    return cells_of(sum(histogram(*planes_of(image), finer) for image in images), finer, bits)


def count(image: np.ndarray, cells: Cells, most: int = NO_LIMIT) -> CellTable:
    return count_cells(*planes_of(image), cells, most)


def same(first: CellTable, second: CellTable) -> None:
    assert first.level == second.level
    np.testing.assert_array_equal(first.table.labels, second.table.labels)
    np.testing.assert_array_equal(first.table.pixels, second.table.pixels)
    assert first.table.sums is not None
    assert second.table.sums is not None
    assert first.table.sums.low == second.table.sums.low
    np.testing.assert_array_equal(first.table.sums.words, second.table.sums.words)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    image = rng.normal(100, draw(st.sampled_from([0, 1, 40])), shape)
    if draw(st.booleans()):
        return image.clip(0, 255).astype(np.uint8)
    image[rng.random(shape) < 0.1] = draw(st.sampled_from([0.0, -0.0, np.nan, np.inf, -1e-30, 1e30]))
    return image.astype(np.float32)


@settings(max_examples=draws(200), deadline=None)
@given(images(), st.sampled_from([1, 3, 20, NO_LIMIT]), st.data())
def test_no_bit_depends_on_the_blocks_or_the_order(image: np.ndarray, most: int, data: st.DataObject) -> None:
    rows = sorted({0, len(image), *data.draw(st.lists(st.integers(0, len(image))))})
    blocks = [image[top:bottom] for top, bottom in itertools.pairwise(rows)]
    cells, whole_cells = cells_by_sweeps(blocks, 4), cells_by_sweeps([image], 4)
    np.testing.assert_array_equal(cells.places, whole_cells.places)
    tables = data.draw(st.permutations([count(block, cells, most) for block in blocks]))
    cut = data.draw(st.integers(0, len(tables) - 1))
    bands = image.shape[-1]
    nested = merge_cells([merge_cells(tables[cut:], bands, most), *tables[:cut]], bands, most)
    whole = count(image, cells, most)
    same(nested, whole)
    same(whole, smallest_level(count(image, cells), bands, most))


def smallest_level(table: CellTable, bands: int, most: int) -> CellTable:
    """Return the cells at the lowest level that has few enough."""
    while len(np.unique(table.table.labels >> table.level * bands)) > most:
        table = CellTable(table.table, table.level + 1)
    return merge_cells([CellTable(table.table, 0)], bands, most)


@pytest.mark.parametrize(("bands", "bits"), [(1, 8), (2, 8), (3, 8), (3, 4), (5, 4), (7, 3)])
@pytest.mark.parametrize("most", [1, 3, 100, 5000, NO_LIMIT])
def test_occupied_cells_are_as_fine_as_their_number_allows(bands: int, bits: int, most: int) -> None:
    numbers = np.random.default_rng(0).integers(-1, 1 << min(bits * bands, 24), (30, 50))
    cells = OccupiedCells(bits * bands, bands, most)
    for part in np.array_split(numbers, 4):
        cells.mark(part)
    levels = [np.unique(numbers[numbers >= 0] >> level * bands) for level in range(bits + 1)]
    assert cells.level == next(level for level, found in enumerate(levels) if len(found) <= most)
    np.testing.assert_array_equal(cells.numbers(), levels[cells.level])
    assert cells.num == len(levels[cells.level])


def test_every_bin_has_a_place_also_those_of_no_value() -> None:
    image = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 10, 3)
    cells = cells_by_sweeps([image], 4)
    assert cells.places.max() == 15
    assert cells.codes.shape == (3, 16)
    assert len(np.unique(cells.codes[0])) == 16


def test_blocks_that_coarsen_on_their_way() -> None:
    """A block with more cells than allowed after its first strip, and fewer after."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (400, 300, 3)).astype(np.uint8)
    cells = identity_cells(3)
    whole = count(image, cells, 5000)
    assert whole.level == 4
    same(whole, merge_cells([count(part, cells, 5000) for part in np.array_split(image, 7)], 3, 5000))
    same(whole, merge_cells([count(image, cells)], 3, 5000))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_each_8_bit_colour_has_its_own_cell(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1, dtype=dtype)
    image = np.stack([values, values[::-1]], axis=-1)[None]
    table = count(image, identity_cells(2)).table
    assert len(table.labels) == 256
    assert (table.pixels == 1).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("most", [10, NO_LIMIT])
def test_colours_are_counted_as_numpy_does(dtype: str, bands: int, lanes: bool, most: int) -> None:
    rng = np.random.default_rng(bands)
    image = np.repeat(rng.integers(-4, 5, (40, 50, bands)), 3, axis=1).astype(dtype)
    valid = rng.random(image.shape) < 0.9
    height, width, _ = image.shape

    def planes(array: np.ndarray) -> np.ndarray:
        return array.reshape(1, height, -1) if lanes else np.ascontiguousarray(np.moveaxis(array, -1, 0))

    patch = Patch((30, width - 5), (0, 0), (4, 5), bands if lanes else 1)
    tables = list(count_colors(planes(image), patch, most, planes(valid)))
    assert len(tables) == (30 if most == 10 and bands > 1 else 1)
    inside = np.s_[4:34, 5:]
    colors, pixels = np.unique(image[inside][valid[inside].all(axis=-1)], axis=0, return_counts=True)
    table = merge(tables)
    assert table.sums is not None
    assert table.sums.words.shape == (colors.size, 1)
    sums = table.sums.words.view(np.int64).reshape(-1, bands)
    found = np.column_stack([sums // table.pixels[:, None], table.pixels])
    np.testing.assert_array_equal(found[np.lexsort(found.T[-2::-1])], np.column_stack([colors, pixels]))
    assert (sums % table.pixels[:, None] == 0).all()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("offset", [0, 10_000])
def test_cells_have_about_equal_population_and_keep_the_order(dtype: str, offset: float) -> None:
    values = np.random.default_rng(1).normal(offset, 300, (200, 200, 1)).astype(dtype)
    cells = cells_by_sweeps([values], 8)
    table = count(values, cells).table
    assert 200 < len(table.labels) <= 256
    assert table.pixels.max() < 3 * values.size / 256 + np.unique(values, return_counts=True)[1].max()
    means = finish(table, ["mean"])["mean"][:, 0]
    assert (np.diff(means) > 0).all()


def test_a_pixel_counts_where_all_its_bands_are_valid() -> None:
    image = np.array([[[1, np.nan], [np.inf, 2], [3, 4], [5, 6]]], np.float32)
    planes, patch = planes_of(image)
    valid = np.array([[[True, True, True, True, True, True, True, False]]])
    bins = coarse_bins(2)
    assert histogram(planes, patch, bins, valid).sum(axis=1).tolist() == [1, 1]
    cells = cells_of(histogram(planes, patch, bins, valid), bins, 8)
    table = count_cells(planes, patch, cells, NO_LIMIT, valid).table
    assert median_cut([table], 4).tolist() == [[3.0, 4.0]]


def test_nothing_to_cut() -> None:
    image = np.full((2, 3, 1), np.nan, np.float32)
    with pytest.raises(ValueError, match="no valid pixel"):
        median_cut([count(image, cells_by_sweeps([image], 8)).table], 4)


def test_the_bands_that_fit() -> None:
    assert [cell_bits(bands) for bands in (1, 4, 5, 10, 11, 16, 63)] == [8, 8, 6, 6, 5, 3, 1]
    with pytest.raises(ValueError, match="at most 63 bands, got 64"):
        cell_bits(64)
    image = np.random.default_rng(0).normal(size=(20, 30, 63)).astype(np.float32)
    table = count(image, cells_by_sweeps([image], cell_bits(63)), 100)
    assert len(table.table.labels) <= 100


def test_fewer_colours_than_asked_for() -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 3]], np.uint8)
    image = colors[np.random.default_rng(0).integers(0, 3, (9, 9))]
    palette = median_cut([count(image, identity_cells(3)).table], 256)
    assert sorted(palette.tolist()) == sorted(colors.astype(float).tolist())


def test_colours_are_the_exact_means_of_their_boxes() -> None:
    image = np.array([[[0.1], [0.3], [10.0], [10.7]]] * 3, np.float32)
    palette = median_cut([count(image, cells_by_sweeps([image], 8)).table], 2)
    exact = [image[0, :2].astype(np.float64).mean(), image[0, 2:].astype(np.float64).mean()]
    assert sorted(palette[:, 0].tolist()) == exact


def error(image: np.ndarray, palette: np.ndarray) -> float:
    """Return the mean squared distance of the pixels from their nearest colours."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(palette).query(image.reshape(-1, image.shape[-1]))
    return float(np.mean(distance**2))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("sweeps", [False, True])
def test_the_error_is_three_quarters_of_pillows_at_most(name: str, sweeps: bool) -> None:
    pillow = pytest.importorskip("PIL.Image")
    images = pytest.importorskip("skimage.data")
    photo: Callable[[], np.ndarray] = getattr(images, name)
    image = np.ascontiguousarray(photo())
    quantized = pillow.fromarray(image).quantize(256, method=pillow.Quantize.MEDIANCUT)
    theirs = np.array(quantized.getpalette(), np.float64).reshape(-1, 3)[:256]
    source = image.astype(np.float32) if sweeps else image
    cells = cells_by_sweeps([source], 8) if sweeps else identity_cells(3)
    ours = median_cut([count(source, cells).table], 256)
    assert len(ours) == 256
    assert error(image, ours) <= 0.75 * error(image, theirs)


def test_k_means_lowers_the_error_and_does_not_depend_on_the_blocks() -> None:
    rng = np.random.default_rng(7)
    image = (rng.normal(size=(60, 70, 5)) @ rng.normal(size=(5, 5)) * 10).astype(np.float32)
    colors = median_cut([count(image, cells_by_sweeps([image], cell_bits(5))).table], 40)
    colors = np.concatenate([colors, [[1e6] * 5]])  # no pixel is near
    errors = [error(image, colors)]
    for _ in range(3):
        search = search_of(colors)
        parts: list[Any] = [assigned_table(*planes_of(part), search) for part in np.array_split(image, 4)]
        whole = moved_colors(colors, [assigned_table(*planes_of(image), search)])
        colors = moved_colors(colors, [merge(parts[::-1])])
        np.testing.assert_array_equal(colors, whole)
        errors.append(error(image, colors))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.95 * errors[0]
    assert colors[-1].tolist() == [1e6] * 5


@pytest.mark.parametrize("most", [1, 40, 300, NO_LIMIT])
def test_tables_that_do_not_fit_are_merged_in_ranges_to_the_same_bits(most: int) -> None:
    """Tables of several levels and widths, in parts of a few rows each."""
    rng = np.random.default_rng(9)
    image = rng.normal(size=(60, 50, 5)) * 2.0 ** rng.integers(-400, 400, (60, 50, 1))
    image[:20] = image[0, 0]  # few cells: a table that is not coarsened, of one width
    cells = cells_by_sweeps([image], cell_bits(5))
    tables = [count(part, cells, most) for part in np.array_split(image, 6)]
    whole = merge_cells(tables, 5, most)
    stored = [table.table.to_columns() | {"level": np.array(table.level)} for table in tables]
    ranges = ranges_of(stored, 5, most, 2**16)
    parts = list(ranges)
    assert len(parts) > (len(whole.table.labels) > 100)
    assert max(part.nbytes for part in parts) <= 2**16
    same(CellTable(merge(parts), ranges.level), whole)
    np.testing.assert_array_equal(median_cut(ranges, 16), median_cut([whole.table], 16))
