"""Which connected pixels share sides of pixels with which others."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.components import joined

CONTACT_BYTES = 96
"""What `contacts` allocates of a pixel at most."""


def contacts(labels: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of different labels that share a side, sorted: of 1 to `num`, 0 counts for nothing."""
    first, second = all_contacts(labels)
    keys = np.sort(first * (num + 1) + second)  # np.unique takes ten times as long
    first, second = np.divmod(keys[np.diff(keys, prepend=-1) > 0], num + 1)
    return first, second


def all_contacts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of different labels but 0 that share a side, the smaller first, some several times."""
    none = np.empty((2, 0), np.int64)
    found = np.empty((2, _find_contacts(labels, none)), np.int64)
    _find_contacts(labels, found)
    return found[0], found[1]


def run_contacts(start: np.ndarray, last: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of runs that share a side: of neighbouring lines, or one after the other on a line.

    Runs are sorted and apart from each other; they hold line x `side` + place on the line.
    """
    begin = np.searchsorted(last, start + side)
    number = np.searchsorted(start, last + side, side="right") - begin
    upper = np.repeat(np.arange(len(start)), number)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(begin, number)
    follows = np.flatnonzero((start[1:] == last[:-1] + 1) & (start[1:] % side > 0))
    return np.concatenate([upper, follows]), np.concatenate([lower, follows + 1])


def join_pairs(first: np.ndarray, second: np.ndarray, parents: np.ndarray) -> None:
    """Join pairs in a forest, as `roots` has it."""
    _join_pairs(first, second, parents)


@kernel
def _find_contacts(labels: Any, found: Any) -> int:
    """Write pairs of neighbours while there is room, and return how many there are; a pair again only after others."""
    num, (height, width) = 0, labels.shape
    for row in range(height):
        a, b = 0, 0
        for column in range(width):
            label = labels[row, column]
            if column > 0:
                num += _add(found, num, label, labels[row, column - 1])
            if row > 0 and not (label == a and labels[row - 1, column] == b):
                a, b = label, labels[row - 1, column]
                num += _add(found, num, a, b)
    return num


@inner
def _add(found: Any, num: int, a: int, b: int) -> int:
    if a == b or a == 0 or b == 0:
        return 0
    if num < found.shape[1]:
        found[0, num], found[1, num] = min(a, b), max(a, b)
    return 1


@kernel
def _join_pairs(first: Any, second: Any, parents: Any) -> None:
    for i in range(first.size):
        joined(parents, first[i], second[i])
