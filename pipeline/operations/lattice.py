"""The lattice of rows and columns along which a table knows what each pixel belongs to, in runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.model.region import Region

LATTICE = 64
"""Rows and columns at whole multiples of this make the lattice."""


def lines_of(first: int, end: int) -> np.ndarray:
    """Return the rows (or columns) of a part along which its runs are kept: the outermost, and those of the lattice."""
    inner = np.arange(-(-first // LATTICE) * LATTICE, end, LATTICE)
    return np.unique(np.concatenate([inner, [first, end - 1]]))


def hull(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the least region around two, each as top, bottom, left, right."""
    found = Region(*first.tolist()).hull(Region(*second.tolist()))
    return np.array([found.top, found.bottom, found.left, found.right])


def on_lattice(start: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which runs lie on the lattice: first those of rows, then those of columns."""
    line = np.where(start < height * width, start // width, (start - height * width) // height)
    found: np.ndarray = line % LATTICE == 0
    return found


def joined_runs(start: np.ndarray, last: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return runs less those that go on with the one before, whatever block they came from."""
    goes_on = np.zeros(len(start), bool)
    goes_on[1:] = (start[1:] == last[:-1] + 1) & (label[1:] == label[:-1])
    return start[~goes_on], label[~goes_on]


def window_around(region: Region) -> Region:
    """Return a region grown to the next lines of the lattice, these included."""
    top, left = region.top // LATTICE * LATTICE, region.left // LATTICE * LATTICE
    bottom, right = (-(-(end - 1) // LATTICE) * LATTICE + 1 for end in (region.bottom, region.right))
    return Region(top, bottom, left, right)


def rim(window: Region, extent: Region, raster: Region) -> Iterator[tuple[Any, int]]:
    """Yield the sides beyond which the objects go on: which pixels of the window, the first as a run's."""
    for row in _ends(window.top, window.bottom, extent.top, extent.bottom):
        yield np.s_[row - window.top], row * raster.width + window.left
    for column in _ends(window.left, window.right, extent.left, extent.right):
        yield np.s_[:, column - window.left], raster.num_pixels + column * raster.height + window.top


def _ends(first: int, end: int, whole_first: int, whole_end: int) -> list[int]:
    """Return the outermost lines of a part beyond which the whole goes on."""
    return [*([first] if first > whole_first else []), *([end - 1] if end < whole_end else [])]


def seen_on(
    labels: np.ndarray, table: Mapping[str, Any], sides: Sequence[tuple[Any, int]]
) -> Iterator[tuple[Any, Any]]:
    """Yield what lies on each side of a window's rim, by the labels in it, and the labels that the table has for it."""
    for line, start in sides:
        seen, at = np.unique(labels[line], return_index=True)
        at, seen = at[seen > 0], seen[seen > 0]
        if len(seen):
            yield seen, table["run_label"][np.searchsorted(table["run"], start + at, side="right") - 1]


def labels_of(first: np.ndarray, table: Mapping[str, np.ndarray], window: Region, width: int) -> np.ndarray:
    """Return the numbers of objects by their first pixels, 0 where none that is kept begins."""
    rows = slice(*np.searchsorted(table["row"], [window.top, window.bottom]).tolist())
    known = np.asarray(table["row"][rows]) * width + table["column"][rows]
    at = np.searchsorted(known, first)
    found = np.append(known, -1)[at] == first
    labels = np.where(found, rows.start + 1 + at, 0)
    if "given" in table:
        at = np.searchsorted(table["given"], first)
        found = np.append(table["given"], -1)[at] == first
        labels[found] = np.asarray(table["given_label"])[at[found]]
    return labels
