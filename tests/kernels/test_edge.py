"""How halos are filled beyond the raster's edge."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.edge import fill_edges
from pipeline.model.region import Region


def fill(line: list[float], before: int, after: int, rule: str, axis: int) -> list[float]:
    length = len(line)
    values = np.full((1, before + length + after, 5, 2), np.nan)
    values[0, before : before + length] = np.array(line)[:, np.newaxis, np.newaxis]
    raster, need = Region(0, length, 0, 5), Region(-before, length + after, 0, 5)
    origin = (-before, 0)
    if axis == 1:
        values = np.ascontiguousarray(values.swapaxes(1, 2))
        raster, need, origin = Region(0, 5, 0, length), Region(0, 5, -before, length + after), (0, -before)
    fill_edges(values.reshape(1, values.shape[1], -1), 2, origin, need, raster, rule, 0)
    filled = values[0] if axis == 0 else values[0].swapaxes(0, 1)
    assert np.all(filled == filled[:, :1, :1])
    return [float(value) for value in filled[:, 0, 0]]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_linear_edge_continues_the_line(axis: int) -> None:
    assert fill([1.0, 3.0, 4.0], 2, 1, "linear", axis) == [-3, -1, 1, 3, 4, 5]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quadratic_edge_continues_the_parabola(axis: int) -> None:
    parabola = [float(3 * i * i - 5 * i + 2) for i in range(-3, 9)]
    assert fill(parabola[3:9], 3, 3, "quadratic", axis) == parabola


@pytest.mark.parametrize("axis", [0, 1])
def test_short_axes_continue_what_there_is(axis: int) -> None:
    assert fill([2.0], 2, 1, "quadratic", axis) == [2, 2, 2, 2]
    assert fill([2.0], 1, 1, "linear", axis) == [2, 2, 2]
    assert fill([2.0, 5.0], 1, 2, "quadratic", axis) == [-1, 2, 5, 8, 11]


@pytest.mark.parametrize("rule", ["linear", "quadratic"])
def test_infinities_at_the_edge_go_on_without_a_warning(rule: str) -> None:
    values = np.full((1, 6, 6), np.inf)
    fill_edges(values, 1, (-1, -1), Region(-1, 5, -1, 5), Region(0, 4, 0, 4), rule, 0)
    assert not np.isfinite(values).any()


def test_corners_continue_both_ways() -> None:
    rows, columns = np.mgrid[-2:7, -2:6].astype(float)
    surface = 2 * rows * rows - columns * columns + 3 * rows * columns - rows + 4
    values = np.where((rows >= 0) & (rows < 5) & (columns >= 0) & (columns < 4), surface, np.nan)[np.newaxis]
    fill_edges(values, 1, (-2, -2), Region(-2, 7, -2, 6), Region(0, 5, 0, 4), "quadratic", 0)
    np.testing.assert_array_equal(values[0], surface)
