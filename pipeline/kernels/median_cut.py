"""A palette by median cut (Heckbert 1982) of counted cells, and its refinement by k-means.

The box whose pixels deviate most is cut, along the band in which they deviate most: at the median or at the mean of
its pixels, whichever leaves less deviation. (Heckbert cuts at the median the box with most pixels, along its longest
side; the error is then some 1.2 to 2 times as large.) Colours are the exact means of the boxes' pixels. All is
computed from the merged cells in their order: the palette is the same for any blocks.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.color_cells import CellTable
from pipeline.kernels.exact_sum import add_groups, mean
from pipeline.kernels.label_table import LabelTable, Patch, partial_table
from pipeline.kernels.nearest_color import ColorSearch, Place, nearest


@dataclass(frozen=True, slots=True)
class _Box:
    cells: np.ndarray
    """Their numbers."""
    deviation: float
    """Sum of squared deviations from the mean along the band."""
    band: int
    mean: float


def median_cut(cells: CellTable, num_colors: int) -> np.ndarray:
    """Return a palette (color, band; float64) of at most `num_colors`: fewer where there are fewer cells.

    ValueError where no pixel is valid.
    """
    table = cells.table
    if not len(table.labels) or table.sums is None:
        raise ValueError("there is no valid pixel to take colours from")
    places = mean(table.sums, table.counts.reshape(-1)).reshape(-1, table.num_bands)
    weights = table.pixels.astype(np.float64)
    groups = np.empty(len(places), np.int64)
    boxes = _cut_all(places, weights, num_colors)
    for number, box in enumerate(boxes):
        groups[box.cells] = number
    entries = (groups[:, None] * table.num_bands + np.arange(table.num_bands)).reshape(-1)
    sums = add_groups(table.sums, entries, len(boxes) * table.num_bands)
    pixels = np.zeros(len(boxes), np.int64)
    np.add.at(pixels, groups, table.pixels)
    return mean(sums, np.repeat(pixels, table.num_bands)).reshape(len(boxes), table.num_bands)


def _cut_all(places: np.ndarray, weights: np.ndarray, num: int) -> list[_Box]:
    boxes = [_box_of(np.arange(len(places)), places, weights)]
    waiting = [(-boxes[0].deviation, 0)]
    while waiting and len(boxes) < num:
        deviation, number = heapq.heappop(waiting)
        if deviation == 0:
            break
        first, second = _cut(boxes[number], places, weights)
        boxes[number] = _box_of(first, places, weights)
        boxes.append(_box_of(second, places, weights))
        for changed in (number, len(boxes) - 1):
            heapq.heappush(waiting, (-boxes[changed].deviation, changed))
    return boxes


def _box_of(cells: np.ndarray, places: np.ndarray, weights: np.ndarray) -> _Box:
    inside, weight = places[cells], weights[cells, None]
    centre = (inside * weight).sum(axis=0) / weight.sum()
    deviations = ((inside - centre) ** 2 * weight).sum(axis=0)
    band = int(deviations.argmax())
    # rounding errors of the centre are no reason to cut
    extent = inside[:, band].max() - inside[:, band].min()
    return _Box(cells, float(deviations[band]) if extent > 0 else 0.0, band, float(centre[band]))


def _cut(box: _Box, places: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = box.cells[np.argsort(places[box.cells, box.band], kind="stable")]
    offset = places[cells, box.band] - box.mean
    below = np.cumsum(weights[cells])
    total = below[-1]
    moment = np.cumsum(weights[cells] * offset)
    at_median = int(np.abs(2 * below[:-1] - total).argmin())
    at_mean = min(max(int(np.searchsorted(offset, 0.0, side="right")) - 1, 0), len(cells) - 2)

    def gain(last: int) -> float:
        return float(moment[last] ** 2 * (1 / below[last] + 1 / (total - below[last])))

    last = at_median if gain(at_median) >= gain(at_mean) else at_mean
    return cells[: last + 1], cells[last + 1 :]


def assigned_table(
    values: np.ndarray, patch: Patch, search: ColorSearch, valid: np.ndarray | None = None
) -> LabelTable:
    """Return pixels and exact sums of a region by nearest colour: a sweep of k-means. `merge` joins those of blocks."""
    index = np.empty(patch.shape, np.int32)
    nearest(values, search, Place(patch.shape, patch.values_at, (0, 0), patch.lanes), index, -1, valid=valid)
    own = Patch(patch.shape, (0, 0), patch.values_at, patch.lanes)
    return partial_table(index, values, own, ["mean"], valid=valid, ignore=[-1])


def moved_colors(colors: np.ndarray, table: LabelTable) -> np.ndarray:
    """Return the palette with each colour at the exact mean of its pixels; a colour without any stays."""
    moved = np.array(colors, np.float64)
    if table.sums is not None and len(table.labels):
        moved[table.labels] = mean(table.sums, table.counts.reshape(-1)).reshape(-1, table.num_bands)
    return moved
