"""Cells that pixels occupy, a bit each in Morton order: how coarse cells have to be is known before anything is summed.

The number of bits set below a cell's is its rank among the occupied ones: no table of numbers has to
be searched, nor sorted at the end. 5000 x 5000 pixels of three bands take 1.1 s instead of 3.7, and 2.3 instead of 7.1
in smaller blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.label_runs import Slab, find_runs, keep_run
from pipeline.kernels.vector import lowest_bit, number_of_bits

MOST_BITS = 24
"""Of a cell's number: 2 MiB of bits."""
_NO_MASK = np.ones((0, 0), bool)


class OccupiedCells:
    """The cells met so far, at the lowest level where they are no more than `most`.

    Cells of level l are those of level 0 with the last l bits of every band dropped, l x bands of their numbers.
    """

    def __init__(self, bits: int, num_bands: int, most: int) -> None:
        self.num_bands, self.most = num_bands, max(1, most)
        self.num, self.level = 0, 0
        self._words = np.zeros(max(1, (1 << bits) // 64), np.uint64)

    def mark(self, numbers: np.ndarray) -> None:
        """Add the cells with these numbers of level 0 (int64; below 0: none)."""
        self.num += _mark(numbers, self.level * self.num_bands, self._words)
        while self.num > self.most:
            occupied = _is_any_set(self._words.view(np.uint8), 1 << self.num_bands)
            self.num = int(np.count_nonzero(occupied))
            self._words = _packed(occupied)
            self.level += 1

    def numbers(self) -> np.ndarray:
        """Return the numbers of the cells, ascending."""
        numbers = np.empty(self.num, np.int64)
        _list(self._words, numbers)
        return numbers

    def counts_before(self) -> np.ndarray:
        """Return for each word how many cells come before it."""
        before = np.empty(len(self._words), np.int32)
        _count_before(self._words, before)
        return before

    def runs(self, numbers: np.ndarray, before: np.ndarray, buffers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return runs of equal numbers, of this level, in rows: row, column, pixels, rank among the cells.

        The array is used again for the next. All numbers have been marked.
        """
        flags, names, runs = buffers
        height, width = numbers.shape
        found = find_runs(numbers, _NO_MASK, Slab(0, 0, 0, height, 0, width), flags, names, runs)
        return runs[: _find_ranks(names[:found], self._words, before, runs)]


def run_buffers(rows: int, width: int) -> tuple[np.ndarray, ...]:
    """Return what `OccupiedCells.runs` needs for so many rows."""
    flags = np.zeros(-(-width // 8) * 8, np.uint8)
    return flags, np.empty(rows * width, np.int64), np.empty((rows * width, 4), np.int32)


@kernel
def _mark(numbers: Any, drop: Any, words: Any) -> Any:
    """Set the bits of numbers; return how many were not set."""
    more = np.int64(0)
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            number = numbers[i, j] >> np.int64(drop)
            if number >= 0:
                word, bit = number >> np.int64(6), np.uint64(1) << np.uint64(number & np.int64(63))
                more += np.int64(words[word] & bit == 0)
                words[word] |= bit
    return more


def _is_any_set(parts: np.ndarray, size: int) -> np.ndarray:
    """Return for each `size` bits in a row (of bytes, the lowest bit first; a power of two) whether one is set."""
    if size < 8:
        groups = np.unpackbits(parts, bitorder="little").reshape(-1, size)
    else:
        num = size // 8
        groups = np.pad(parts, (0, -len(parts) % num)).reshape(-1, num)
    is_set: np.ndarray = np.logical_or.reduce(groups, axis=1)
    return is_set


def _packed(bits: np.ndarray) -> np.ndarray:
    """Return bits in words of 64."""
    words = np.zeros(-(-len(bits) // 64), np.uint64)
    packed = np.packbits(bits, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    return words


@kernel
def _list(words: Any, numbers: Any) -> None:
    num = np.int64(0)
    for w in range(words.size):
        word = np.int64(words[w])
        while word != 0:
            numbers[num] = 64 * w + lowest_bit(word)
            num += 1
            word &= word - 1


@kernel
def _count_before(words: Any, before: Any) -> None:
    num = np.int64(0)
    for w in range(words.size):
        before[w] = num
        num += number_of_bits(np.int64(words[w]))


@kernel
def _find_ranks(names: Any, words: Any, before: Any, runs: Any) -> Any:
    """Write the ranks of the runs' numbers, without those below 0; return how many runs are left."""
    found = 0
    for r in range(names.size):
        if names[r] >= 0:
            keep_run(runs, r, rank_of(names[r], words, before), found)
            found += 1
    return found


@inner
def rank_of(number: Any, words: Any, before: Any) -> Any:
    word = number >> np.int64(6)
    below = (np.uint64(1) << np.uint64(number & np.int64(63))) - np.uint64(1)
    return before[word] + number_of_bits(np.int64(words[word] & below))
