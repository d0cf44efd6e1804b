"""Connected pixels: numbered in a part of a raster, and joined along the lines at which parts meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel


@dataclass(frozen=True)
class Numbered:
    """The connected pixels of a part: 1, 2, 3, ... in the order of their first pixels, row by row; 0 elsewhere."""

    labels: np.ndarray
    """(row, column)"""
    first: np.ndarray
    """Of each, its first pixel as row x width + column of the part."""
    pixels: np.ndarray
    """Of each, how many pixels it has."""


def number(values: np.ndarray, inside: np.ndarray, diagonal: bool) -> Numbered:
    """Number the connected pixels of equal value (C-contiguous, as `inside`, which says which pixels count)."""
    labels = np.empty(inside.shape, np.int32 if inside.size < 2**31 else np.int64)
    flat = labels.reshape(-1)
    num = _join_pixels(values, inside, diagonal, flat)
    first, pixels = np.empty(num, np.int64), np.zeros(num, np.int64)
    _number_pixels(flat, first, pixels)
    return Numbered(labels, first, pixels)


def number_bytes(num_pixels: int) -> int:
    """Return what `number` allocates at most."""
    return (20 if num_pixels < 2**31 else 24) * num_pixels


@dataclass(frozen=True)
class Runs:
    """Pixels of one object that follow each other on some lines of a part."""

    line: np.ndarray
    """Which of the lines."""
    start: np.ndarray
    last: np.ndarray
    """The places of the first and of the last pixel on the line."""


def runs_of(labels: np.ndarray) -> Runs:
    """Return the runs of equal labels but 0 of lines (line, place), in their order."""
    padded = np.pad(labels, ((0, 0), (1, 1)))
    changes = padded[:, 1:] != padded[:, :-1]
    line, start = np.nonzero(changes[:, :-1] & (labels != 0))
    return Runs(line, start, np.nonzero(changes[:, 1:] & (labels != 0))[1])


def join_runs(
    start: np.ndarray, last: np.ndarray, value: np.ndarray, part: np.ndarray, side: int, diagonal: bool, parents: Any
) -> None:
    """Join the parts whose runs touch on neighbouring lines and are of equal value.

    Parameters
    ----------
    start, last
        Runs, sorted: line x `side` + place on the line.
    part
        Of each run, its place in `parents`, a forest as `roots` has it.
    """
    _join_runs(start, last, value, part, side, int(diagonal), parents)


def forest(num: int) -> np.ndarray:
    """Return parents of which each is its own."""
    return np.arange(1, num + 1)


def roots(parents: np.ndarray) -> np.ndarray:
    """Return the first of those joined with each."""
    found = parents - 1
    _flatten(found)
    return found


@inner
def root(parents: Any, at: Any) -> Any:
    """Follow the parents, which are counted from 1 and never come after their child; shorten the way."""
    while parents[at] != at + 1:
        above = parents[at] - 1
        parents[at] = parents[above]
        at = above
    return at


@inner
def joined(parents: Any, a: Any, b: Any) -> int:
    """Join two; return 1 where they were not."""
    a, b = root(parents, a), root(parents, b)
    if a == b:
        return 0
    parents[max(a, b)] = min(a, b) + 1
    return 1


@kernel
def _join_pixels(values: Any, inside: Any, diagonal: bool, parents: Any) -> int:
    """Make a forest of the pixels, 0 for those that do not count; return how many trees it has."""
    num, (height, width) = 0, inside.shape
    for row in range(height):
        column = 0
        while column < width:
            start = column
            column += 1
            if not inside[row, start]:
                parents[row * width + start] = 0
                continue
            while column < width and inside[row, column] and values[row, column] == values[row, start]:
                column += 1
            num += _join_run(values, inside, diagonal, parents, row, start, column)
    return num


@inner
def _join_run(values: Any, inside: Any, diagonal: bool, parents: Any, row: int, start: int, end: int) -> int:
    """Join a run of alike pixels with those of the row above that touch it; return by how many trees there are more."""
    width, reach, num = inside.shape[1], int(diagonal), 1
    parent, seen = 0, 0
    for column in range(max(start - reach, 0), min(end + reach, width) if row > 0 else 0):
        if inside[row - 1, column] and values[row - 1, column] == values[row, start]:
            above = parents[(row - 1) * width + column]
            if parent == 0:
                parent, num = above, 0
            elif above != seen:
                num -= joined(parents, parent - 1, above - 1)
            seen = above
    if parent == 0:
        parent = row * width + start + 1
    for column in range(start, end):
        parents[row * width + column] = parent
    return num


@kernel
def _number_pixels(labels: Any, first: Any, pixels: Any) -> None:
    """Turn a forest of pixels into numbers: parents come before their children, and so have theirs."""
    num = 0
    for pixel in range(labels.size):
        parent = labels[pixel]
        if parent == 0:
            continue
        if parent == pixel + 1:
            first[num] = pixel
            num += 1
            labels[pixel] = num
        else:
            labels[pixel] = labels[parent - 1]
        pixels[labels[pixel] - 1] += 1


@kernel
def paint(labels: Any, names: Any, out: Any) -> None:
    """Give each pixel of a part the name of its object, which stands at its number."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = names[labels[row, column]]


@kernel
def _join_runs(start: Any, last: Any, value: Any, part: Any, side: int, reach: int, parents: Any) -> None:
    """Go along the runs, and beside them along those of the next line."""
    low = 0
    for i in range(start.size):
        line, begin, end = start[i] // side, start[i] + side - reach, last[i] + side + reach
        while low < start.size and last[low] < begin:
            low += 1
        j = low
        while j < start.size and start[j] <= end:
            if start[j] // side == line + 1 and value[j] == value[i]:
                joined(parents, part[i], part[j])
            j += 1


@kernel
def _flatten(parents: Any) -> None:
    for i in range(parents.size):
        parents[i] = parents[parents[i]]
