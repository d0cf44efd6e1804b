"""Labels of a block to slots: each label's number in order of first appearance, found once per run of equal labels.

A run is a stretch of one row with one label. Labels hang together, so runs are fewer than pixels, and everything
else is done run by run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.vector import lowest_bit

RUN = 1024
"""Most pixels of a run: what is done run by run then has buffers of this size."""
SLAB_PIXELS = 32768
"""Most pixels of a slab, whose runs are listed at a time: some rows, or of long rows a part."""
_FIRST_CAPACITY = 4096
_NO_MASK = np.ones((0, 0), bool)


class Slab(NamedTuple):
    """Rows and columns of a region whose runs are listed together, from `first` to before `end`."""

    top: int
    """Row and column of the region's first pixel in the labels."""
    left: int
    first_row: int
    end_row: int
    first_column: int
    end_column: int


def grow(array: np.ndarray, num: int, fill: float | int = 0) -> None:
    """Append rows to an array in place: memory that is moved costs less than memory that is fresh."""
    before = len(array)
    array.resize((before + num, *array.shape[1:]), refcheck=False)
    if fill != 0:
        array[before:] = fill


def with_room(array: np.ndarray, num: int) -> np.ndarray:
    """Return an array with at least so many rows, further ones 0: what is not used is not touched."""
    if num <= len(array):
        return array
    more = np.zeros((max(num, 2 * len(array)), *array.shape[1:]), array.dtype)
    more[: len(array)] = array
    return more


@dataclass(slots=True)
class LabelSlots:
    """The labels met so far, and where to find their slots.

    Labels that span a small range are looked up in a table over that range, others in a hash table.
    """

    base: int
    """Lowest label of the range; only for the direct table."""
    direct: bool
    slots: np.ndarray
    """int32, -1 where there is none: by label - base. Empty if not direct."""
    entries: np.ndarray
    """The hash table: (place, 2) int64, label and slot, -1 where there is none. Empty if direct."""
    labels: np.ndarray
    """int64, by slot; only the first `num` are in use."""
    num: int = 0
    ignore: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Labels that count as none."""

    def reserve(self, num: int) -> None:
        """Make room for `num` more labels."""
        need = self.num + num
        if need > self.labels.size:
            grow(self.labels, max(num, self.labels.size))
        if not self.direct and 2 * need > len(self.entries):
            self.entries = np.full((1 << (2 * need - 1).bit_length(), 2), -1, np.int64)
            _refill(self.labels, self.num, self.entries)


def label_slots(labels: np.ndarray, corner: tuple[int, int], shape: tuple[int, int], ignore: np.ndarray) -> LabelSlots:
    """Return empty slots for the labels of a region (its first pixel's row and column, its shape)."""
    part = labels[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    lowest, highest = (int(part.min()), int(part.max())) if part.size else (0, 0)
    span = highest - lowest + 1
    if span > max(part.size, _FIRST_CAPACITY):
        return hashed_slots(ignore)
    names = np.empty(_FIRST_CAPACITY, np.int64)
    slots = np.full(span, -1, np.int32)
    return LabelSlots(lowest, True, slots, np.empty((0, 2), np.int64), names, 0, ignore)


def hashed_slots(ignore: np.ndarray) -> LabelSlots:
    """Return empty slots for any labels."""
    entries, labels = np.empty((0, 2), np.int64), np.empty(_FIRST_CAPACITY, np.int64)
    slots = LabelSlots(0, False, np.empty(0, np.int32), entries, labels, 0, ignore)
    slots.reserve(_FIRST_CAPACITY)
    return slots


def slabs(
    labels: np.ndarray, valid: np.ndarray | None, corner: tuple[int, int], shape: tuple[int, int], slots: LabelSlots
) -> Iterator[np.ndarray]:
    """Yield the runs (row and column within the region, pixels, slot) of slabs; new labels join `slots`.

    The array is used again for the next one. Pixels with an ignored or invalid
    label belong to no run.
    """
    height, width = shape
    mask = _NO_MASK if valid is None else valid
    columns = min(width, SLAB_PIXELS)
    rows = max(1, min(height, SLAB_PIXELS // max(1, columns)))
    runs = np.empty((rows * columns, 4), np.int32)
    names = np.empty(rows * columns, np.int64)
    flags = np.zeros(-(-columns // 8) * 8, np.uint8)
    for row, column in ((row, column) for row in range(0, height, rows) for column in range(0, width, SLAB_PIXELS)):
        slab = Slab(*corner, row, min(row + rows, height), column, min(column + columns, width))
        found = find_runs(labels, mask, slab, flags, names, runs)
        slots.reserve(found)
        if slots.entries.size:
            found, slots.num = hash_slots(names[:found], slots.ignore, slots.entries, slots.labels, slots.num, runs)
        else:
            table = (slots.base, slots.slots)
            found, slots.num = look_up_slots(names[:found], slots.ignore, table, slots.labels, slots.num, runs)
        if found:
            yield runs[:found]


@kernel
def find_runs(labels: Any, valid: Any, slab: Any, flags: Any, names: Any, runs: Any) -> Any:
    """List the runs of rows (row, column, pixels) and their labels; return how many there are."""
    top, left, first, stop, begin, end_column = slab
    width = end_column - begin
    words = flags.view(np.uint64)[: (width + 7) // 8]
    flags[width : 8 * words.size] = 0
    found = 0
    for row in range(first, stop):
        line = labels[top + row, left + begin : left + end_column]
        mask = valid[top + row, left + begin : left + end_column] if valid.size else valid[0:0].reshape(-1)
        flag_starts(line, mask, flags)
        start = 0
        for w in range(words.size):
            word = words[w]
            while word != 0 or (w == words.size - 1 and start < width):
                end = 8 * w + (lowest_bit(np.int64(word)) >> 3) if word != 0 else width
                word &= word - np.uint64(1) if word != 0 else word
                if mask.size == 0 or mask[start]:
                    names[found] = np.int64(line[start])
                    runs[found, 0] = row
                    runs[found, 1] = begin + start
                    runs[found, 2] = end - start
                    found += 1
                start = end
    return found


@inner
def flag_starts(line: Any, mask: Any, flags: Any) -> None:
    """Write 1 where a run begins, but for the first: a byte each, so that a word tells of eight pixels."""
    for c in range(1, line.size):
        flags[c] = line[c] != line[c - 1]
    if mask.size:
        for c in range(1, line.size):
            flags[c] |= mask[c] != mask[c - 1]
    for c in range(RUN, line.size, RUN):
        flags[c] = 1


@inner
def keep_run(runs: Any, r: Any, slot: Any, to: Any) -> None:
    """Move run r to a place before it, and write its slot."""
    for k in range(3):
        runs[to, k] = runs[r, k]
    runs[to, 3] = slot


@kernel
def look_up_slots(names: Any, ignore: Any, table: Any, labels: Any, num: Any, runs: Any) -> Any:
    """Write the slots of runs, without those to ignore; return the numbers of runs and slots."""
    base, slots = table
    found = 0
    for r in range(names.size):
        name = names[r]
        if ignore.size and is_among(ignore, name):
            continue
        slot = np.int64(slots[name - base])
        if slot < 0:
            slot = num
            slots[name - base] = slot
            labels[slot] = name
            num += 1
        keep_run(runs, r, slot, found)
        found += 1
    return found, num


@kernel
def hash_slots(names: Any, ignore: Any, entries: Any, labels: Any, num: Any, runs: Any) -> Any:
    """Write the slots of runs as `look_up_slots` does.

    Labels that follow each other stay together in the table: pixels side by side often bear them.
    """
    found = 0
    mask = np.int64(entries.shape[0] - 1)
    for r in range(names.size):
        name = names[r]
        if ignore.size and is_among(ignore, name):
            continue
        at = first_place(name, mask)
        while entries[at, 1] >= 0 and entries[at, 0] != name:
            at = (at + 1) & mask
        slot = entries[at, 1]
        if slot < 0:
            slot = num
            entries[at, 0] = name
            entries[at, 1] = slot
            labels[slot] = name
            num += 1
        keep_run(runs, r, slot, found)
        found += 1
    return found, num


@inner
def is_among(values: Any, value: Any) -> Any:
    found = False
    for i in range(values.size):
        found |= values[i] == value
    return found


@inner
def first_place(name: Any, mask: Any) -> Any:
    mixed = np.uint64(name >> np.int64(5)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask)) ^ (name & np.int64(31))


@kernel
def _refill(labels: Any, num: Any, entries: Any) -> None:
    mask = np.int64(entries.shape[0] - 1)
    for slot in range(num):
        at = first_place(labels[slot], mask)
        while entries[at, 1] >= 0:
            at = (at + 1) & mask
        entries[at, 0] = labels[slot]
        entries[at, 1] = slot
