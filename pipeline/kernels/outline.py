"""Outlines of labels along the edges of pixels, row by row, in memory for what is not complete alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.components import roots
from pipeline.kernels.outline_row import (
    FREE,
    NEXT,
    NO,
    NUM_CLOSED,
    NUM_FREE,
    NUM_PARTS,
    count_vertices,
    take_walks,
    trace,
)


@dataclass(frozen=True)
class Rings:
    """Simple rings around the pixels of labels, holes among them."""

    keys: np.ndarray
    """Vertices, ring after ring: row x (width + 1) + column of corners of pixels; only corners at which it turns."""
    count: np.ndarray
    """Vertices of each."""
    label: np.ndarray
    part: np.ndarray
    """Which connected pixels it belongs to: a number for `Outliner.parts`."""
    area: np.ndarray
    """Pixels within; of a hole, less than 0."""


@dataclass
class Outliner:
    """Outlines of a raster whose rows come from the top to the bottom."""

    width: int
    nodata: int | None
    """The label that is none."""
    num_rows: int = 0
    """So far."""
    _above: np.ndarray = field(init=False)
    _below: np.ndarray = field(init=False)
    _nodes: np.ndarray = field(init=False)
    _parents: np.ndarray = field(init=False)
    _closed: np.ndarray = field(init=False)
    _state: np.ndarray = field(default_factory=lambda: np.array([NO, 0, 0, 0, 0]))

    def __post_init__(self) -> None:
        self._above, self._below = np.empty((2, 7, self.width), np.int64)
        self._nodes, self._parents = np.empty((3, 0), np.int64), np.empty(0, np.int64)
        self._closed = np.empty((3, 4 * self.width + 8), np.int64)

    @property
    def num_bytes(self) -> int:
        return self._above.nbytes * 2 + self._closed.nbytes + self._nodes.nbytes + self._parents.nbytes

    def add(self, labels: np.ndarray) -> list[Rings]:
        """Take in rows of labels (row, column) of int64; return the rings that are complete."""
        found, row = [], 0
        while row < len(labels):
            self._make_room()
            nodata = 0 if self.nodata is None else self.nodata
            tables = self._above, self._below, self._nodes, self._parents, self._closed
            row = trace(labels, row, self.num_rows, self.nodata is not None, nodata, *tables, self._state)
            found.append(self._take())
        self.num_rows += len(labels)
        return found

    def finish(self) -> list[Rings]:
        """Return the rings that end at the lower edge of the raster."""
        return self.add(np.empty((1, 0), np.int64))

    def parts(self) -> np.ndarray:
        """Return the first of those numbers of parts that stand for the same connected pixels, for each."""
        return roots(self._parents[: self._state[NUM_PARTS]])

    def _make_room(self) -> None:
        """Make room for what a row may need."""
        have, num_free = self._nodes.shape[1], int(self._state[NUM_FREE])
        if num_free < 4 * self.width + 8:
            more = max(have // 2, 8 * self.width + 16)
            grown = np.empty((3, have + more), np.int64)
            grown[:, :have] = self._nodes
            grown[NEXT, have:] = np.arange(have + 1, have + more + 1)
            grown[NEXT, -1] = self._state[FREE]
            self._nodes, self._state[FREE], self._state[NUM_FREE] = grown, have, num_free + more
        if self._state[NUM_PARTS] + self.width > len(self._parents):
            more = max(len(self._parents) // 2, 2 * self.width)
            self._parents = np.concatenate([self._parents, np.empty(more, np.int64)])

    def _take(self) -> Rings:
        """Return the walks that are closed as rings, and have their nodes back."""
        num, self._state[NUM_CLOSED] = int(self._state[NUM_CLOSED]), 0
        heads, label, part = self._closed[:, :num].copy()
        count = np.empty(num, np.int64)
        count_vertices(self._nodes, heads, count)
        keys = np.empty(count.sum(), np.int64)
        take_walks(self._nodes, heads, keys, self._state)
        walk = np.repeat(np.arange(num), count)
        keys, count, of = _split(keys, walk, count)
        return Rings(keys, count, label[of], part[of], _areas(keys, count, self.width + 1))


def _split(keys: np.ndarray, walk: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return simple rings, their numbers of vertices and walks: a walk that meets itself at a vertex is several.

    Where it does so again and again, its rings lie in each other or beside each other: pixels that touch at a corner
    are kept apart, so what it closes lies outside of them.
    """
    partner = _partners(keys, walk, count)
    out, sizes, of = np.empty_like(keys), np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    num = _take_apart(keys, partner, np.cumsum(count), np.empty_like(keys), out, sizes, of)
    return out, sizes[:num].copy(), of[:num].copy()


def _partners(keys: np.ndarray, walk: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return for each vertex where its walk was at it before, -1 where it was not."""
    partner = np.full(len(keys), NO)
    long = np.flatnonzero((count >= 8)[walk])  # shorter ones do not meet themselves
    order = long[np.argsort(keys[long], kind="stable")]
    for shift in (1, 2, 3):  # four pixels have a corner in common
        before, after = order[:-shift], order[shift:]
        same = (keys[before] == keys[after]) & (walk[before] == walk[after])
        partner[after[same]] = before[same]
    return partner


def _areas(keys: np.ndarray, count: np.ndarray, stride: int) -> np.ndarray:
    """Return what rings enclose, by the sum of Gauss: > 0 where pixels lie on the right."""
    if not len(count):
        return np.empty(0, np.int64)
    first = np.cumsum(count) - count
    following = np.arange(1, len(keys) + 1)
    following[first + count - 1] = first
    row, column = np.divmod(keys, stride)
    found: np.ndarray = np.add.reduceat(column * row[following] - column[following] * row, first) // 2
    return found


@kernel
def _take_apart(keys: Any, partner: Any, ends: Any, stack: Any, out: Any, sizes: Any, of: Any) -> int:
    """Write walks as simple rings; return how many these are."""
    num, written, begin = 0, 0, 0
    for walk in range(ends.size):
        depth = 0
        for i in range(begin, ends[walk] + 1):
            # back at a vertex, or at the end of the walk: all since then is a ring
            low = 0 if i == ends[walk] else depth
            if i < ends[walk] and partner[i] != NO:
                low = depth - 1
                while stack[low] != partner[i]:
                    low -= 1
            if low < depth:
                for k in range(low, depth):
                    out[written] = keys[stack[k]]
                    written += 1
                sizes[num], of[num] = depth - low, walk
                num += 1
                depth = low
            if i < ends[walk]:
                stack[depth] = i
                depth += 1
        begin = ends[walk]
    return num
