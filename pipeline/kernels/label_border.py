"""The pixels at the border of each label, counted by what lies around them: of them perimeters are made.

A border pixel has a side that it shares with no pixel of its label. It counts by which of its eight neighbours are
border pixels of the label, too (Benkrid and Crookes 2000, "Design and FPGA implementation of a perimeter estimator"):
where the border goes straight on, as 1, over a corner as sqrt(2), and between the two as their mean. These are
scikit-image's weights (`skimage.measure.perimeter`, neighbourhood 4). Counts are whole numbers, weighed at the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_runs import with_room
from pipeline.model.region import Region

REACH = 2
"""Pixels around a region that are looked at: whether a neighbour is a border pixel, its neighbours tell."""
STRAIGHT = np.array([5, 7, 15, 17, 25, 27])
DIAGONAL = np.array([21, 33])
MIXED = np.array([13, 23])
"""Of a border pixel, 1 + 2 x border pixels that share a side with it + 10 x those that share a corner."""
_CLASSES = np.full(50, -1, np.int64)
for _column, _codes in enumerate((STRAIGHT, DIAGONAL, MIXED)):
    _CLASSES[_codes] = _column
WEIGHTS = (1.0, math.sqrt(2), (1 + math.sqrt(2)) / 2)
_NO_MASK = np.ones((0, 0), bool)


class BorderCounts:
    """Counts of border pixels (slot, weight) of the labels of a region."""

    def __init__(self, labels: np.ndarray, valid: np.ndarray | None, patch: Patch, within: Region) -> None:
        """`within`: the rows and columns of the labels' array that count; beyond is no label.

        The array holds `REACH` pixels around the region, as far as they count.
        """
        self._labels, self._valid = labels, _NO_MASK if valid is None else valid
        self._corner = patch.labels_at
        self._within = within.top, within.bottom, within.left, within.right
        self._counts = np.zeros((0, len(WEIGHTS)), np.int64)

    def add(self, runs: np.ndarray, num: int) -> None:
        """Add the pixels of runs, which use the first `num` slots."""
        self._counts = with_room(self._counts, num)
        _count_border(self._labels, self._valid, self._corner, self._within, runs, _CLASSES, self._counts)

    def result(self, order: np.ndarray) -> np.ndarray:
        counts: np.ndarray = self._counts[order]
        return counts


def perimeters(counts: np.ndarray, side: float) -> np.ndarray:
    """Return the perimeters of labels (label, weight) whose pixels have sides of this length."""
    straight, diagonal, mixed = counts.T * np.array(WEIGHTS)[:, None]
    lengths: np.ndarray = (straight + diagonal + mixed) * side
    return lengths


@kernel
def _count_border(labels: Any, valid: Any, corner: Any, within: Any, runs: Any, classes: Any, counts: Any) -> None:
    for r in range(runs.shape[0]):
        row, first = corner[0] + runs[r, 0], corner[1] + runs[r, 1]
        for column in range(first, first + runs[r, 2]):
            name = labels[row, column]
            if not is_border(labels, valid, within, row, column, name):
                continue
            code = 1
            for down in range(-1, 2):
                for across in range(-1, 2):
                    if (down != 0 or across != 0) and is_border(
                        labels, valid, within, row + down, column + across, name
                    ):
                        code += 10 if down != 0 and across != 0 else 2
            if classes[code] >= 0:
                counts[runs[r, 3], classes[code]] += 1


@inner
def is_border(labels: Any, valid: Any, within: Any, row: Any, column: Any, name: Any) -> Any:
    """Whether a pixel bears a label, and not all of those that share a side with it do."""
    return bears(labels, valid, within, row, column, name) and not (
        bears(labels, valid, within, row - 1, column, name)
        and bears(labels, valid, within, row + 1, column, name)
        and bears(labels, valid, within, row, column - 1, name)
        and bears(labels, valid, within, row, column + 1, name)
    )


@inner
def bears(labels: Any, valid: Any, within: Any, row: Any, column: Any, name: Any) -> Any:
    top, bottom, left, right = within
    if row < top or row >= bottom or column < left or column >= right:
        return False
    return labels[row, column] == name and (valid.size == 0 or valid[row, column])
