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


@inner
def _is_alike(values: Any, inside: Any, row: int, column: int, value: Any) -> bool:
    if row < 0 or column < 0 or column >= inside.shape[1]:
        return False
    return bool(inside[row, column] and values[row, column] == value)


@kernel
def _join_pixels(values: Any, inside: Any, diagonal: bool, parents: Any) -> int:
    """Make a forest of the pixels, 0 for those that do not count; return how many trees it has."""
    num, (height, width) = 0, inside.shape
    for row in range(height):
        for column in range(width):
            pixel = row * width + column
            if not inside[row, column]:
                parents[pixel] = 0
                continue
            num += _join_pixel(values, inside, diagonal, parents, row, column)
    return num


@inner
def _join_pixel(values: Any, inside: Any, diagonal: bool, parents: Any, row: int, column: int) -> int:
    """Join a pixel with those before it; return by how many trees there are more.

    Two of its neighbours that touch each other are joined already, so one of them is enough.
    """
    width = inside.shape[1]
    pixel, value = row * width + column, values[row, column]
    above = _is_alike(values, inside, row - 1, column, value)
    if above and diagonal:  # which touches all others
        parents[pixel] = parents[pixel - width]
        return 0
    left = _is_alike(values, inside, row, column - 1, value)
    corner = _is_alike(values, inside, row - 1, column - 1, value)
    if left:
        parents[pixel] = parents[pixel - 1]
    elif above:
        parents[pixel] = parents[pixel - width]
    elif diagonal and corner:
        parents[pixel] = parents[pixel - width - 1]
    else:
        parents[pixel] = pixel + 1
    is_new = parents[pixel] == pixel + 1
    if above and left and not corner:
        return -joined(parents, pixel, pixel - width)
    if diagonal and _is_alike(values, inside, row - 1, column + 1, value):
        return int(is_new) - joined(parents, pixel, pixel - width + 1)
    return int(is_new)


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
