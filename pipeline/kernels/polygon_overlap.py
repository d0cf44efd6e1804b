"""Which polygons have pixels in common, and layers in which none have: row by row, of the whole raster at once.

What is compared are the pixels that `polygon.burn` writes, by the same decisions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel, owning
from pipeline.kernels.polygon import crossing, is_crossed, rows_of, touched, within

_FIRST_CAPACITY = 1024
_LOW = (1 << 32) - 1


def shared_pixels(
    edges: np.ndarray, starts: np.ndarray, labels: np.ndarray, shape: tuple[int, int], all_touched: bool, most: int
) -> np.ndarray | None:
    """Return the pairs of labels that have a pixel of a raster in common; None where they are more than `most`.

    Parameters
    ----------
    edges, starts, all_touched
        As for `polygon.burn`.
    labels
        Of each polygon, from 0 on: polygons of one label count as one.

    The pairs are (pair, 2), the smaller label first, sorted by the larger one, then by the smaller one.
    """
    polygons = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(starts))
    rows = np.empty((len(edges), 2), np.int32)
    _span(edges, shape[0], all_touched, rows)
    order = np.argsort(rows[:, 0], kind="stable").astype(np.int32)
    order = order[rows[order, 0] < rows[order, 1]]
    found = _shared(edges, polygons, labels.astype(np.int32), rows, order, shape, all_touched, most)
    if len(found) > most:
        return None
    found.sort()
    return np.stack([found & _LOW, found >> 32], axis=1)


@kernel
def first_fit(pairs: np.ndarray, num_labels: int) -> np.ndarray:
    """Return a layer for each label, from 0 on: the first in which no label before it has pixels in common with it.

    The pairs are those of `shared_pixels`.
    """
    layers, taken = np.zeros(num_labels, np.int64), np.full(pairs.shape[0] + 2, -1, np.int64)
    k = 0
    while k < pairs.shape[0]:
        label = pairs[k, 1]
        while k < pairs.shape[0] and pairs[k, 1] == label:
            taken[layers[pairs[k, 0]]] = label
            k += 1
        while taken[layers[label]] == label:
            layers[label] += 1
    return layers


@kernel
def _span(edges: Any, height: Any, all_touched: Any, rows: Any) -> None:
    for i in range(edges.shape[0]):
        edge = edges[i, 0], edges[i, 1], edges[i, 2], edges[i, 3]
        rows[i, 0], rows[i, 1] = rows_of(edge, 0, height, all_touched)


@kernel
def _shared(
    edges: Any, polygons: Any, labels: Any, rows: Any, order: Any, shape: Any, all_touched: Any, most: Any
) -> Any:
    """Return a number for each pair, larger label x 2^32 + smaller one; more than `most` of any where there are."""
    height, width = shape
    active = np.empty(order.size, np.int32)
    table, num_pairs = np.zeros(_FIRST_CAPACITY, np.int64), 0
    num_active, following = 0, 0
    for row in range(height):
        num_active = _still_active(active, num_active, rows, row)
        while following < order.size and rows[order[following], 0] <= row:
            active[num_active] = order[following]
            num_active += 1
            following += 1
        if num_active == 0:
            continue
        runs = _runs_of_row(edges, polygons, labels, active[:num_active], row, width, all_touched)
        keys = (runs[:, 0].astype(np.int64) << 32) | np.arange(runs.shape[0])
        keys.sort()
        reaching, num_reaching = np.empty(keys.size, np.int64), 0
        for key in keys:
            run = key & _LOW
            kept = 0
            for j in range(num_reaching):
                other = reaching[j]
                if runs[other, 1] <= runs[run, 0]:
                    continue
                reaching[kept] = other
                kept += 1
                if runs[other, 2] != runs[run, 2]:
                    num_pairs += _insert(table, _pair(runs[other, 2], runs[run, 2]))
                    if num_pairs > most:
                        return np.zeros(num_pairs, np.int64)
                    if 2 * num_pairs > table.size:
                        table = _larger(table)
            reaching[kept] = run
            num_reaching = kept + 1
    return table[table > 0]


@inner
def _still_active(active: Any, num: Any, rows: Any, row: Any) -> Any:
    """Move the edges that reach a row to the front; return how many these are."""
    kept = 0
    for k in range(num):
        if rows[active[k], 1] > row:
            active[kept] = active[k]
            kept += 1
    return kept


@owning
def _runs_of_row(
    edges: Any, polygons: Any, labels: Any, active: Any, row: Any, width: Any, all_touched: Any
) -> np.ndarray:
    """Return the pixels of a row that polygons have: first column, the one behind the last, label."""
    crossed, num = np.empty(active.size, np.int64), 0
    runs, found = np.empty((2 * active.size, 3), np.int32), 0
    for i in active:
        edge = edges[i, 0], edges[i, 1], edges[i, 2], edges[i, 3]
        if is_crossed(edge, row):
            crossed[num] = np.int64(polygons[i]) << 32 | within(crossing(edge, row), width)
            num += 1
        if all_touched:
            low, high = touched(edge, row)
            first, end = within(low, width), within(high, width)
            if first < end:
                runs[found, 0], runs[found, 1], runs[found, 2] = first, end, labels[polygons[i]]
                found += 1
    crossed = crossed[:num]
    crossed.sort()
    for k in range(0, num - 1, 2):  # of a polygon as many crossings lead in as out
        first, end = crossed[k] & _LOW, crossed[k + 1] & _LOW
        if first < end:
            runs[found, 0], runs[found, 1], runs[found, 2] = first, end, labels[crossed[k] >> 32]
            found += 1
    return runs[:found]


@inner
def _pair(a: Any, b: Any) -> Any:
    """Return the number of a pair, which is not 0."""
    return np.int64(max(a, b)) << 32 | np.int64(min(a, b))


@inner
def _insert(table: Any, key: Any) -> Any:
    """Add a number but 0 to a table of a power of two places; return 1 if it was not there, else 0."""
    mask = np.uint64(table.size - 1)
    at = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while table[at] != 0 and table[at] != key:
        at = (at + np.uint64(1)) & mask
    if table[at] == key:
        return 0
    table[at] = key
    return 1


@owning
def _larger(table: Any) -> np.ndarray:
    """Return the numbers of a table in one of twice its places."""
    larger = np.zeros(2 * table.size, np.int64)
    for key in table:
        if key != 0:
            _insert(larger, key)
    return larger
