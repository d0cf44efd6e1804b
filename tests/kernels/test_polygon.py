"""Polygons as pixels, against shapely (each centre, each pixel's inside) and GDAL; parts fit together."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pipeline.kernels.polygon import burn
from pipeline.model.affine import Affine
from pipeline.model.read_limits import TRUSTED
from pipeline.storage.vector.polygons import Polygons, parse_polygons

shapely = pytest.importorskip("shapely")
features = pytest.importorskip("rasterio.features")

from tests.vector_files import star  # noqa: E402

SIDE = 40


def parsed(shapes: list[Any]) -> Polygons:
    wkb = np.array([shapely.to_wkb(each) for each in shapes], object)
    return parse_polygons(wkb, np.arange(1, len(shapes) + 1), (lambda xy: xy, lambda xy: xy), "shapes", TRUSTED, [])


def burned(found: Polygons, top: int, bottom: int, left: int, right: int, all_touched: bool = False) -> np.ndarray:
    out = np.zeros((bottom - top, right - left), np.int64)
    burn(found.edges, found.starts, found.ids, np.arange(len(found.ids)), (top, left), out, all_touched)
    return out


@pytest.mark.parametrize("all_touched", [False, True])
def test_pixels_are_those_of_shapely_and_of_gdal_in_parts_and_whole(all_touched: bool) -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    for seed in range(40):
        random = np.random.default_rng(seed)
        shapes = [star(random, SIDE) for _ in range(4)]
        found = parsed(shapes)
        whole = burned(found, 0, SIDE, 0, SIDE, all_touched)
        cuts, sides = [0, *sorted(random.integers(1, SIDE, 2)), SIDE], [0, int(random.integers(1, SIDE)), SIDE]
        rows = [
            np.hstack([burned(found, top, bottom, a, b, all_touched) for a, b in itertools.pairwise(sides)])
            for top, bottom in itertools.pairwise(cuts)
        ]
        np.testing.assert_array_equal(np.vstack(rows), whole)
        expected = np.zeros_like(whole)
        for i, shape in enumerate(shapes):
            squares = shapely.box(x, y, x + 1, y + 1)
            inside = shapely.contains_xy(shape, x + 0.5, y + 0.5)
            expected[shapely.relate_pattern(squares, shape, "T********") if all_touched else inside] = i + 1
        np.testing.assert_array_equal(whole, expected)
        there = [(shape, i + 1) for i, shape in enumerate(shapes) if not shape.is_empty]
        gdal = features.rasterize(there, (SIDE, SIDE), transform=Affine(1, 0, 0, 0, 1, 0), all_touched=all_touched)
        np.testing.assert_array_equal(whole, gdal)


def test_a_centre_on_an_edge_belongs_to_what_is_right_of_it_and_below() -> None:
    assert burned(parsed([shapely.box(0.5, 0.5, 2.5, 3.5)]), 0, 5, 0, 5).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    lower = shapely.Polygon([(0, 0), (6, 6), (0, 6)])
    upper = shapely.Polygon([(0, 0), (6, 6), (6, 0)])
    pixels = burned(parsed([lower, upper]), 0, 6, 0, 6)
    assert (pixels == np.where(np.tri(6, k=-1), 1, 2)).all()


def test_neighbours_leave_no_pixel_between_them_and_share_none() -> None:
    random = np.random.default_rng(5)
    points = shapely.MultiPoint(random.uniform(0, SIDE, (60, 2)))
    cells = list(shapely.get_parts(shapely.voronoi_polygons(points, extend_to=shapely.box(-1, -1, SIDE + 1, SIDE + 1))))
    found = parsed(cells)
    alone = [burned(parsed([cell]), 0, SIDE, 0, SIDE) for cell in cells]
    assert (sum(alone) == 1).all()
    np.testing.assert_array_equal(burned(found, 0, SIDE, 0, SIDE), sum((i + 1) * each for i, each in enumerate(alone)))


def test_pixels_that_are_met_at_an_edge_alone_are_not_touched() -> None:
    shapes = [shapely.box(1, 1, 3, 2), shapely.box(3.25, 3.25, 3.5, 3.75)]
    expected = np.zeros((5, 5), int)
    expected[1, 1:3], expected[3, 3] = 1, 2
    np.testing.assert_array_equal(burned(parsed(shapes), 0, 5, 0, 5, all_touched=True), expected)


def test_far_and_thin_polygons_are_burned_where_they_are() -> None:
    shapes = [shapely.box(-1e15, 1.2, 1e15, 1.3), shapely.box(-1e9, 2, 1e9, 3), shapely.box(7, 7, 9, 9)]
    expected = np.zeros((5, 5), int)
    expected[2] = 2
    np.testing.assert_array_equal(burned(parsed(shapes), 0, 5, 0, 5), expected)
