"""Exact sums: two's complement integers of several 64-bit words, on a grid of powers of two that is the same for all.

A finite floating-point number is an integer times a power of two, so a sum of them is one as well; kept in as many
words as it needs, no bit is ever lost. Addition of integers is associative and commutative, so the sum does not
depend on the order, nor on how the numbers were divided among blocks: that is the whole proof. `trim` makes the
words themselves unique too.

An entry's value is ``sum(words[i] * 2**(64 * (low + i)))``, the highest word taken as signed. Words are uint64, the
lowest first: an array (entry, word).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.limbs import (
    divide_limbs,
    divide_pair,
    float_of_words,
    is_near_tie,
    magnitude,
    multiply,
    read_limbs,
    subtract,
)

_SMALLEST_NORMAL = 2.0**-1022
_MODERATE = 512
"""Exponents of sums whose quotients are normal numbers, whatever the count."""


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


def to_float(sums: ExactSums) -> np.ndarray:
    """Return the numbers as float64, rounded once, half to even."""
    return mean(sums, np.ones(min(1, len(sums.words)), np.int64))


def mean(sums: ExactSums, counts: np.ndarray) -> np.ndarray:
    """Return sum / count as float64, rounded once as `to_float`; NaN where the count is 0.

    A count is that of as many neighbouring entries as there are entries for a count.
    """
    out = np.empty(len(sums.words))
    group = len(out) // max(1, len(counts))
    _divide(sums.words, 64 * sums.low, counts, group, out)
    return out


def variance(sums: ExactSums, squares: ExactSums, counts: np.ndarray, root: bool = False) -> np.ndarray:
    """Return the population's variance (n S2 - S1^2) / n^2 as float64, or its root; NaN where the count is 0.

    The numerator is computed exactly, so the relative error is that of three roundings, whatever the offset of the
    values; of equal values the variance is 0. The root is one also where the variance overflows or vanishes.
    """
    out = np.empty(len(sums.words))
    counts = np.repeat(counts, len(out) // max(1, len(counts)))
    low = min(2 * sums.low, squares.low)
    shift_sum, shift_square = 4 * sums.low - 2 * low, 2 * (squares.low - low)
    _variance(sums.words, shift_sum, squares.words, shift_square, 64 * low, counts, root, out)
    return out


@kernel
def _divide(words: Any, exponent: Any, counts: Any, group: Any, out: Any) -> None:
    """Divide as `mean` does: where the sum is a float64, by one division, 5 ns instead of 35."""
    limbs = np.empty(2 * words.shape[1], np.uint64)
    is_moderate = abs(exponent) <= _MODERATE and words.shape[1] <= 2
    scale = math.ldexp(1.0, exponent) if is_moderate else 1.0
    for place in range(counts.size):
        count = counts[place]
        for entry in range(place * group, (place + 1) * group):
            total, is_exact = float_of_words(words, entry) if is_moderate else (0.0, False)
            if is_exact and 0 < count < 1 << 53:
                out[entry] = total / float(count) * scale
            else:
                out[entry] = _divide_words(words[entry], limbs, exponent, count)


@inner
def _divide_words(words: Any, limbs: Any, exponent: Any, count: Any) -> Any:
    negative = magnitude(words, limbs)
    head, tail, scale = read_limbs(limbs)
    total, rest = divide_pair(head, tail, float(count))
    quotient = math.ldexp(total, exponent + scale)
    if is_near_tie(total, rest) or (total > 0 and quotient < _SMALLEST_NORMAL):
        quotient = divide_limbs(limbs, count, exponent)
    return -quotient if negative else quotient


@kernel
def _variance(
    sums: Any, shift_sum: Any, squares: Any, shift_square: Any, exponent: Any, counts: Any, root: Any, out: Any
) -> None:
    sum_limbs = np.empty(2 * sums.shape[1], np.uint64)
    square_limbs = np.empty(2 * squares.shape[1], np.uint64)
    count_limbs = np.empty(2, np.uint64)
    size = max(2 * sum_limbs.size + shift_sum, square_limbs.size + 2 + shift_square)
    minuend = np.empty(size, np.uint64)
    subtrahend = np.empty(size, np.uint64)
    for entry in range(sums.shape[0]):
        magnitude(sums[entry], sum_limbs)
        magnitude(squares[entry], square_limbs)
        count = np.uint64(counts[entry])
        count_limbs[0] = count & np.uint64(0xFFFFFFFF)
        count_limbs[1] = count >> np.uint64(32)
        multiply(square_limbs, count_limbs, shift_square, minuend)
        multiply(sum_limbs, sum_limbs, shift_sum, subtrahend)
        subtract(minuend, subtrahend)
        head, tail, scale = read_limbs(minuend)
        divisor = float(counts[entry])
        once, _ = divide_pair(head, tail, divisor)
        twice, _ = divide_pair(once, 0.0, divisor)
        if root:
            odd = (exponent + scale) & 1
            out[entry] = math.ldexp(math.sqrt(math.ldexp(twice, odd)), (exponent + scale - odd) // 2)
        else:
            out[entry] = math.ldexp(twice, exponent + scale)
