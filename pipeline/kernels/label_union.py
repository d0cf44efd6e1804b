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
    return np.searchsorted(union, part)


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
