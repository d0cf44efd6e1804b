"""The sorted union of sorted labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel


def union_of(labels: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the sorted union of sorted labels, and the place of each one in it."""
    union = labels[0]
    for other in labels[1:]:
        merged = np.empty(len(union) + len(other), np.int64)
        union = merged[: _merge_labels(union, other, merged)]
    return union, [_places(union, part) for part in labels]


def _places(union: np.ndarray, part: np.ndarray) -> np.ndarray:
    if len(part) == len(union):
        return np.arange(len(union))
    return places_among(part, union)[0]


def places_among(labels: np.ndarray, sorted_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of labels among sorted ones (one at least), and which of them are not there.

    As numpy's searchsorted, a few times as fast where labels that follow each other are near each other.
    """
    at, absent = np.empty(len(labels), np.int64), np.empty(len(labels), bool)
    _find_places(labels, sorted_labels, at, absent)
    return at, absent


@kernel
def _find_places(labels: Any, sorted_labels: Any, at: Any, absent: Any) -> None:
    """Search from the last place on, in steps that double."""
    place, last = 0, sorted_labels.size - 1
    for i in range(labels.size):
        label, step = labels[i], 1
        low, high = place, place
        while low > 0 and sorted_labels[low] > label:
            low, high, step = max(low - step, 0), low, 2 * step
        while high < last and sorted_labels[high] < label:
            low, high, step = high, min(high + step, last), 2 * step
        while low < high:
            middle = (low + high) >> 1
            if sorted_labels[middle] < label:
                low = middle + 1
            else:
                high = middle
        place = low
        at[i] = place
        absent[i] = sorted_labels[place] != label


@kernel
def _merge_labels(first: Any, second: Any, out: Any) -> int:
    i, j, num = 0, 0, 0
    while i < first.size or j < second.size:
        label = first[i] if j == second.size or (i < first.size and first[i] <= second[j]) else second[j]
        i += i < first.size and first[i] == label
        j += j < second.size and second[j] == label
        out[num] = label
        num += 1
    return num
