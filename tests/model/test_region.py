"""Geometry: plain algebra, every pixel exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.region import Axis, Grid, Halo, Region, wrap_pieces

small = st.integers(1, 30)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    top, left = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    rows = Axis(top, top + draw(small), draw(small), draw(st.integers(1, 10)))
    columns = Axis(left, left + draw(small), draw(small), draw(st.integers(1, 10)))
    return Grid(rows, columns, draw(st.integers(1, 5)))


@given(grids())
def test_blocks_hold_every_pixel_exactly_once(grid: Grid) -> None:
    region = grid.region
    counts = np.zeros(region.shape, int)
    for number in range(len(grid)):
        counts[grid.block(number).slices((region.top, region.left))] += 1
    assert np.all(counts == 1)


@given(grids())
def test_no_block_exceeds_the_largest_and_remainders_join_their_neighbour(grid: Grid) -> None:
    heights = [grid.block(n).height for n in range(len(grid))]
    widths = [grid.block(n).width for n in range(len(grid))]
    assert (max(heights), max(widths)) == grid.largest
    if len(grid.rows) > 1:
        assert min(heights) >= min(grid.rows.shortest, grid.rows.step)


@given(grids())
def test_numbers_and_positions_are_inverse(grid: Grid) -> None:
    assert [grid.number(*grid.position(n)) for n in range(len(grid))] == list(range(len(grid)))


@given(grids())
def test_blocks_come_row_by_row_within_panels(grid: Grid) -> None:
    positions = [grid.position(n) for n in range(len(grid))]
    assert positions == sorted(positions, key=lambda p: (p[1] // grid.panel, p[0], p[1]))


def test_a_block_that_does_not_exist() -> None:
    grid = Grid(Axis(0, 10, 5), Axis(0, 10, 5), 1)
    with pytest.raises(IndexError, match="block 4 of 4"):
        grid.block(4)


@given(grids(), st.integers(-40, 60), st.integers(1, 40))
def test_locate_finds_the_intervals_that_meet(grid: Grid, first: int, length: int) -> None:
    axis = grid.rows
    low, high = axis.locate(first, first + length)
    meeting = [i for i in range(len(axis)) if axis.interval(i)[0] < first + length and first < axis.interval(i)[1]]
    assert meeting == list(range(low, high)) or not meeting


@given(st.integers(-30, 30), small, st.integers(-30, 30), small, small, small)
def test_wrapped_pieces_hold_every_pixel_once_and_repeat_the_raster(
    top: int, rows: int, left: int, columns: int, height: int, width: int
) -> None:
    region = Region(top, top + rows, left, left + columns)
    raster = np.arange(height * width).reshape(height, width)
    result = np.full(region.shape, -1)
    for piece, source in wrap_pieces(region, height, width):
        assert raster[source.slices()].shape == piece.shape
        assert np.all(result[piece.slices((top, left))] == -1)
        result[piece.slices((top, left))] = raster[source.slices()]
    y, x = np.mgrid[top : top + rows, left : left + columns]
    np.testing.assert_array_equal(result, raster[y % height, x % width])


def test_region_algebra() -> None:
    region = Region(10, 20, 30, 50)
    assert region.grow(Halo(1, 2, 3, 4)) == Region(9, 22, 27, 54)
    assert region.clip(Region(0, 15, 0, 40)) == Region(10, 15, 30, 40)
    assert region.clip(Region(0, 5, 0, 5)).num_pixels == 0
    assert region.hull(Region(0, 1, 0, 1)) == Region(0, 20, 0, 50)
    assert region.shift(-10, 5) == Region(0, 10, 35, 55)
    assert region.contains(Region(10, 20, 30, 50))
    assert not region.contains(Region(10, 20, 30, 51))
    assert str(region) == "rows 10:20, columns 30:50"


def test_halo_algebra() -> None:
    assert Halo(1, 2, 3, 4) + Halo.around(1, 2) == Halo(2, 3, 5, 6)
    assert Halo(1, 2, 3, 4) | Halo(4, 3, 2, 1) == Halo(4, 3, 3, 4)
    assert not Halo()
    assert Halo(bottom=1)
