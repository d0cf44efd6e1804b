"""Exact sums: superaccumulators (Kulisch 1981; Neal 2015, "Fast exact summation using small and large
superaccumulators") of as many 64-bit words as are needed, in two's complement.

A finite floating-point number is an integer times a power of two, so a sum of them is one as well; kept in as many
words as it needs, no bit is ever lost. Addition of integers is associative and commutative, so the sum does not
depend on the order, nor on how the numbers were divided among blocks: that is the whole proof. `trim` makes the
words themselves unique too.

An entry's value is ``sum(words[i] * 2**(64 * (low + i)))``, the highest word taken as signed. Words are uint64, the
lowest first: an array (entry, word).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel


@dataclass(frozen=True, slots=True)
class ExactSums:
    """One exact number per entry."""

    words: np.ndarray
    """(entry, word) uint64, the lowest word first, C-contiguous."""
    low: int = 0
    """Weight of the lowest word: 2**(64 low)."""

    @property
    def high(self) -> int:
        return self.low + int(self.words.shape[1])

    @property
    def nbytes(self) -> int:
        return int(self.words.nbytes)

    def to_integers(self) -> list[int]:
        """Return each entry as a Python integer in units of 2**(64 low); slow, for tests and small tables."""
        return [int.from_bytes(row.tobytes(), "little", signed=True) for row in self.words.astype("<u8")]


def zeros(num: int, low: int = 0, high: int = 1) -> ExactSums:
    return ExactSums(np.zeros((num, high - low), np.uint64), low)


def widen(sums: ExactSums, low: int, high: int) -> ExactSums:
    """Return the same numbers in words from `low` to `high` at least; the words themselves where they suffice."""
    low, high = min(low, sums.low), max(high, sums.high)
    if (low, high) == (sums.low, sums.high):
        return sums
    words = np.zeros((len(sums.words), high - low), np.uint64)
    words[:, sums.low - low : sums.high - low] = sums.words
    words[:, sums.high - low :] = _sign_words(sums.words)[:, None]
    return ExactSums(words, low)


def trim(sums: ExactSums) -> ExactSums:
    """Return the same numbers in the fewest words that hold all of them: equal numbers then have equal words."""
    first, last = _needed_words(sums.words)
    if first >= last:
        return zeros(len(sums.words))
    if (first, last) == (0, sums.words.shape[1]):
        return sums
    return ExactSums(np.ascontiguousarray(sums.words[:, first:last]), sums.low + first)


def reorder(sums: ExactSums, order: np.ndarray, group: int) -> ExactSums:
    """Return groups of neighbouring entries in this order, trimmed; some groups may be left out."""
    first, last = _needed_words(sums.words)
    if first >= last:
        return zeros(len(order) * group)
    words = np.empty((len(order) * group, last - first), np.uint64)
    _copy_groups(sums.words, first, order, group, words)
    return trim(ExactSums(words, sums.low + first))


@kernel
def _needed_words(words: Any) -> Any:
    """Return the lowest word that is not 0 for all, and the end of those that are not just a sign."""
    first, last = words.shape[1], 0
    for entry in range(words.shape[0]):
        if first == 0 and last == words.shape[1]:
            break
        low = 0
        while low < first and words[entry, low] == 0:
            low += 1
        first = low
        high = words.shape[1]
        while high > last and high > 1 and words[entry, high - 1] == sign_word(words[entry, high - 2]):
            high -= 1
        last = max(last, high)
    return first, max(last, first + 1) if first < words.shape[1] else first


@inner
def sign_word(word: Any) -> Any:
    """Return what stands above a number's highest word."""
    return np.uint64(np.int64(word) >> np.int64(63))


@kernel
def _copy_groups(words: Any, first: Any, order: Any, group: Any, out: Any) -> None:
    for i in range(order.size):
        for j in range(group):
            for k in range(out.shape[1]):
                out[i * group + j, k] = words[order[i] * group + j, first + k]


def _sign_words(words: np.ndarray) -> np.ndarray:
    """Return what stands in the words above the highest one."""
    return (words[:, -1].view(np.int64) >> 63).view(np.uint64)


def scatter_add(parts: list[ExactSums], places: list[np.ndarray], num: int, group: int = 1) -> ExactSums:
    """Return `num` groups of sums: group i of a part (neighbouring entries) is added to group ``places[part][i]``.

    Each place is met once a part at most.
    """
    low = min(part.low for part in parts)
    high = max(part.high for part in parts)
    # one addition doubles a number at most
    spare = (len(parts) - 1).bit_length()
    if any(_is_close_to_overflow(part, high, spare) for part in parts):
        high += 1
    total = zeros(num * group, low, high)
    for part, place in zip(parts, places, strict=True):
        _add_entries(part.words, part.low - low, place, group, total.words)
    return trim(total)


def add_groups(sums: ExactSums, places: np.ndarray, num: int, group: int = 1) -> ExactSums:
    """Return `num` groups of sums: group i is added to group ``places[i]``, however many to one (fewer than 2^63)."""
    spare = int(_is_close_to_overflow(sums, sums.high, len(sums.words).bit_length()))
    total = zeros(num * group, sums.low, sums.high + spare)
    _add_entries(sums.words, 0, places, group, total.words)
    return trim(total)


def _is_close_to_overflow(part: ExactSums, high: int, spare: int) -> Any:
    if part.high < high or not len(part.words):
        return False
    limit = 1 << max(0, 62 - spare)
    top = part.words[:, -1].view(np.int64)
    return bool(top.max() >= limit or top.min() < -limit)


@kernel
def _add_entries(words: Any, offset: Any, places: Any, group: Any, out: Any) -> None:
    """Add groups of entries to those at `places`, `offset` words higher."""
    are_singles = offset == 0 and out.shape[1] == 1
    are_pairs = offset == 0 and out.shape[1] == 2 and words.shape[1] == 2  # a loop over words takes 4 times as long
    for i in range(places.size):
        for j in range(group):
            if are_singles:
                out[places[i] * group + j, 0] += words[i * group + j, 0]
            elif are_pairs:
                _add_pair(words, i * group + j, out, places[i] * group + j)
            else:
                _add_entry(words, i * group + j, offset, out, places[i] * group + j)


@inner
def _add_pair(words: Any, entry: Any, out: Any, place: Any) -> None:
    low = out[place, 0] + words[entry, 0]
    out[place, 1] += words[entry, 1] + np.uint64(low < words[entry, 0])
    out[place, 0] = low


@inner
def _add_entry(words: Any, entry: Any, offset: Any, out: Any, place: Any) -> None:
    num = words.shape[1]
    carry = np.uint64(0)
    sign = sign_word(words[entry, num - 1])
    for i in range(offset, out.shape[1]):
        word = words[entry, i - offset] if i - offset < num else sign
        partial = out[place, i] + carry
        carry = np.uint64(partial < carry)
        partial += word
        carry += np.uint64(partial < word)
        out[place, i] = partial


@inner
def add_shifted(words: Any, entry: Any, value: Any, shift: Any) -> None:
    """Add ``value * 2**shift`` (value int64, shift from the lowest word's lowest bit) to an entry, modulo its size."""
    if value == 0:
        return
    at = shift >> 6
    bits = np.int64(shift & 63)
    word = np.uint64(value) << np.uint64(bits)
    sign = value >> np.int64(63)
    following = np.uint64((value >> np.int64(1)) >> (np.int64(63) - bits))
    carry = np.uint64(0)
    while at < words.shape[1]:
        partial = words[entry, at] + carry
        carry = np.uint64(partial < carry)
        partial += word
        carry += np.uint64(partial < word)
        words[entry, at] = partial
        word = following
        following = np.uint64(sign)
        at += 1
