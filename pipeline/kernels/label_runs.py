"""Labels of a block to slots: each label's number in order of first appearance, found once per run of equal labels.

A run is a stretch of one row with one label. Labels hang together, so runs are fewer than pixels, and everything
else is done run by run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel

RUN = 1024
"""Most pixels of a run: what is done run by run then has buffers of this size."""
STRIP = 32768
"""Pixels whose runs are listed at a time (at least a row)."""
_FIRST_CAPACITY = 4096
_NO_MASK = np.ones((0, 0), bool)

Place = tuple[int, int]


@dataclass(slots=True)
class LabelSlots:
    """The labels met so far, and where to find their slots.

    Labels that span a small range are looked up in a table over that range, others in a hash table.
    """

    base: int
    """Lowest label of the range; only for the direct table."""
    direct: bool
    keys: np.ndarray
    """Labels by place in the hash table; empty for the direct table."""
    slots: np.ndarray
    """int32; -1 where there is none."""
    labels: np.ndarray
    """int64, by slot; only the first `num` are in use."""
    num: int = 0
    ignore: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Labels that count as none."""

    def reserve(self, num: int) -> None:
        """Make room for `num` more labels."""
        need = self.num + num
        if need > self.labels.size:
            self.labels = np.resize(self.labels, max(need, 2 * self.labels.size))
        if not self.direct and 2 * need > self.slots.size:
            size = 1 << (2 * need - 1).bit_length() + 1
            self.keys, self.slots = np.empty(size, np.int64), np.full(size, -1, np.int32)
            _refill(self.labels, self.num, self.keys, self.slots)


def label_slots(labels: np.ndarray, place: Place, shape: tuple[int, int], ignore: np.ndarray) -> LabelSlots:
    """Return empty slots for the labels of a region (its first pixel's row and column, its shape)."""
    part = labels[place[0] : place[0] + shape[0], place[1] : place[1] + shape[1]]
    lowest, highest = (int(part.min()), int(part.max())) if part.size else (0, 0)
    span = highest - lowest + 1
    direct = span <= max(part.size, _FIRST_CAPACITY)
    size = span if direct else 2 * _FIRST_CAPACITY
    keys = np.empty(0 if direct else size, np.int64)
    names = np.empty(_FIRST_CAPACITY, np.int64)
    return LabelSlots(lowest, direct, keys, np.full(size, -1, np.int32), names, 0, ignore)


def strips(
    labels: np.ndarray, valid: np.ndarray | None, place: Place, shape: tuple[int, int], slots: LabelSlots
) -> Iterator[np.ndarray]:
    """Yield the runs (row and column within the region, pixels, slot) of strips of rows; new labels join `slots`.

    The array is used again for the next strip. Pixels with an ignored or invalid label belong to no run.
    """
    height, width = shape
    mask = _NO_MASK if valid is None else valid
    rows = max(1, min(height, STRIP // max(1, width)))
    runs = np.empty((rows * width, 4), np.int32)
    row = 0
    while row < height and width:
        stop = min(row + rows, height)
        slots.reserve(width)
        found, slots.num, row = find_runs(
            labels,
            mask,
            slots.ignore,
            (*place, width, row, stop),
            (slots.direct, slots.base),
            slots.keys,
            slots.slots,
            slots.labels,
            slots.num,
            runs,
        )
        if found:
            yield runs[:found]


@kernel
def find_runs(
    labels: Any, valid: Any, ignore: Any, place: Any, kind: Any, keys: Any, slots: Any, names: Any, num: Any, runs: Any
) -> Any:
    """List the runs of rows until the last, or until the labels might not have room; return the counts and next row."""
    top, left, width, row, stop = place
    found = 0
    while row < stop:
        if num + width > names.size or (keys.size and 2 * (num + width) > keys.size):
            break
        line = labels[top + row, left : left + width]
        start = 0
        while start < width:
            label = line[start]
            end = start + 1
            if valid.size and not valid[top + row, left + start]:
                start = end
                continue
            limit = min(width, start + RUN)
            while end < limit and line[end] == label and (valid.size == 0 or valid[top + row, left + end]):
                end += 1
            name = np.int64(label)
            if not is_among(ignore, name):
                slot, num = find_slot(name, kind, keys, slots, names, num)
                runs[found, 0] = row
                runs[found, 1] = start
                runs[found, 2] = end - start
                runs[found, 3] = slot
                found += 1
            start = end
        row += 1
    return found, num, row


@inner
def is_among(values: Any, value: Any) -> bool:
    found = False
    for i in range(values.size):
        found |= values[i] == value
    return found


@inner
def find_slot(name: Any, kind: Any, keys: Any, slots: Any, names: Any, num: Any) -> Any:
    """Return the slot of a label, a new one where it has none, and the number of slots."""
    direct, base = kind
    if direct:
        at = name - base
    else:
        at = place_of(name, keys, slots)
        keys[at] = name
    slot = np.int64(slots[at])
    if slot < 0:
        slot = num
        slots[at] = slot
        names[slot] = name
        num += 1
    return slot, num


@inner
def place_of(name: Any, keys: Any, slots: Any) -> int:
    """Return where a label stands in the hash table, or the free place where it belongs."""
    mask = np.int64(keys.size - 1)
    mixed = np.uint64(name) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))
    while slots[at] >= 0 and keys[at] != name:
        at = (at + 1) & mask
    return at


@kernel
def _refill(names: Any, num: Any, keys: Any, slots: Any) -> None:
    for slot in range(num):
        at = place_of(names[slot], keys, slots)
        keys[at] = names[slot]
        slots[at] = slot
