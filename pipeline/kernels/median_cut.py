"""A palette by median cut (Heckbert 1982) of counted cells, and its refinement by k-means.

The box whose pixels deviate most is cut, along the band in which they deviate most: at the median or at the mean of
its pixels, whichever leaves less deviation. (Heckbert cuts at the median the box with most pixels, along its longest
side; the error is then some 1.2 to 2 times as large.) Colours are the exact means of the boxes' pixels. All is
computed from the merged cells in their order: the palette is the same for any blocks.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.kernels.color_search import ColorSearch
from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_quotient import mean
from pipeline.kernels.exact_sum import ExactSums, add_groups, scatter_add
from pipeline.kernels.extreme import LARGE, SMALL
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_table import LabelTable, partial_table
from pipeline.kernels.nearest_color import nearest


def median_cut(cells: Iterable[LabelTable], num_colors: int) -> np.ndarray:
    """Return a palette (color, band; float64) of at most `num_colors`: fewer where there are fewer cells.

    The cells come as parts of one table, in their order; they are gone through twice. ValueError where no pixel is
    valid.
    """
    found = [(_means(part), part.pixels) for part in cells if len(part.labels)]
    if not found:
        raise ValueError("there is no valid pixel to take colours from")
    columns, pixels = (np.concatenate(arrays, axis=-1) for arrays in zip(*found, strict=True))
    del found
    groups = _cut_all(columns, pixels.astype(np.float64), num_colors)
    num_bands, num_boxes = len(columns), int(groups.max()) + 1
    counts = np.zeros(num_boxes, np.int64)
    np.add.at(counts, groups, pixels)
    sums = _sums_of_boxes(cells, groups, num_boxes)
    return mean(sums, counts).reshape(num_boxes, num_bands)


def _means(table: LabelTable) -> np.ndarray:
    """Return the mean of each cell's pixels (band, cell)."""
    assert table.sums is not None
    return np.ascontiguousarray(mean(table.sums, table.divisors).reshape(-1, table.num_bands).T)


def _sums_of_boxes(cells: Iterable[LabelTable], groups: np.ndarray, num_boxes: int) -> ExactSums:
    total, first = None, 0
    for part in cells:
        if not len(part.labels):
            continue
        own = groups[first : first + len(part.labels)]
        first += len(own)
        assert part.sums is not None
        sums = add_groups(part.sums, own, num_boxes, part.num_bands)
        every = np.arange(num_boxes)
        total = sums if total is None else scatter_add([total, sums], [every, every], num_boxes, part.num_bands)
    assert total is not None
    return total


def _cut_all(columns: np.ndarray, weights: np.ndarray, num: int) -> np.ndarray:
    """Return the number of each cell's box; `columns` holds the cells' means (band, cell)."""
    largest = float(np.abs(columns).max())
    if largest > LARGE or 0 < largest < SMALL:  # squares would overflow or vanish
        columns = np.ldexp(columns, -math.frexp(largest)[1])
    orders = np.stack([np.argsort(band, kind="stable") for band in columns])
    box = np.zeros(len(weights), np.int64)
    spare = np.empty(len(weights), np.int64)
    bounds = [(0, len(weights))]
    facts = [_spread(columns, weights, orders, *bounds[0])]
    waiting = [(-facts[0][0], 0)]
    while waiting and len(bounds) < num:
        deviation, number = heapq.heappop(waiting)
        if deviation == 0:
            break
        start, stop = bounds[number]
        _, band, centre = facts[number]
        middle = _cut(columns, weights, orders, (start, stop, band), centre, (len(bounds), box, spare))
        bounds[number] = start, middle
        bounds.append((middle, stop))
        facts.append(facts[number])
        for changed in (number, len(bounds) - 1):
            facts[changed] = _spread(columns, weights, orders, *bounds[changed])
            heapq.heappush(waiting, (-facts[changed][0], changed))
    return box


@kernel
def _spread(places: Any, weights: Any, orders: Any, start: Any, stop: Any) -> Any:
    """Return the largest sum of squared deviations of a box, the band where it is, and the mean there."""
    largest, widest, centre = 0.0, 0, 0.0
    for band in range(places.shape[0]):
        order, place = orders[band], places[band]
        total, moment = 0.0, 0.0
        for i in range(start, stop):
            total += weights[order[i]]
            moment += weights[order[i]] * place[order[i]]
        mean = moment / total
        deviation = 0.0
        for i in range(start, stop):
            deviation += weights[order[i]] * (place[order[i]] - mean) ** 2
        # rounding errors of the mean are no reason to cut
        deviation = deviation if place[order[start]] < place[order[stop - 1]] else 0.0
        if deviation > largest:
            largest, widest, centre = deviation, band, mean
    return largest, widest, centre


@kernel
def _cut(places: Any, weights: Any, orders: Any, part: Any, centre: Any, boxes: Any) -> Any:
    """Cut a box, give the upper part its number, and return where it begins in the orders.

    A box is a part of the orders, the same one along every band.
    """
    start, stop, band = part
    number, box, spare = boxes
    order, place = orders[band], places[band]
    total = 0.0
    for i in range(start, stop):
        total += weights[order[i]]
    below, moment = 0.0, 0.0
    nearest, at_median, median_gain = np.inf, start, 0.0
    at_mean, mean_gain = start, 0.0
    for i in range(start, stop - 1):
        below += weights[order[i]]
        moment += weights[order[i]] * (place[order[i]] - centre)
        gain = moment * moment * (1 / below + 1 / (total - below))
        if abs(2 * below - total) < nearest:
            nearest, at_median, median_gain = abs(2 * below - total), i, gain
        if i == start or place[order[i]] <= centre:
            at_mean, mean_gain = i, gain
    middle = (at_median if median_gain >= mean_gain else at_mean) + 1
    for i in range(middle, stop):
        box[order[i]] = number
    for other in range(orders.shape[0]):
        if other != band:
            divide_order(orders[other], start, stop, box, number, spare)
    return middle


@inner
def divide_order(order: Any, start: Any, stop: Any, box: Any, number: Any, spare: Any) -> None:
    """Move the cells of a box behind the others of a part; each keep their order."""
    kept, moved = start, 0
    for i in range(start, stop):
        cell = order[i]
        is_moved = box[cell] == number
        order[kept] = cell  # never ahead of what is read
        spare[moved] = cell
        kept += not is_moved
        moved += is_moved
    for i in range(moved):
        order[kept + i] = spare[i]


def assigned_table(
    values: np.ndarray, patch: Patch, search: ColorSearch, valid: np.ndarray | None = None
) -> LabelTable:
    """Return pixels and exact sums of a region by nearest colour: a sweep of k-means. `merge` joins those of blocks."""
    index = np.empty(patch.shape, np.int32)
    own = Patch(patch.shape, (0, 0), patch.values_at, patch.lanes)
    nearest(values, search, own, index, -1, valid=valid)
    return partial_table(index, values, own, ["mean"], valid=valid, ignore=[-1])


def moved_colors(colors: np.ndarray, tables: Iterable[LabelTable]) -> np.ndarray:
    """Return the palette with each colour at the exact mean of its pixels; a colour without any stays.

    The tables are parts of one.
    """
    moved = np.array(colors, np.float64)
    for table in tables:
        if len(table.labels):
            moved[table.labels] = _means(table).T
    return moved
