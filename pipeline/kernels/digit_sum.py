"""Sums of digits become exact sums: each digit is an integer with a weight of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.exact_sum import ExactSums, add_shifted, trim


@kernel
def fold(digits: Any, shifts: Any, words: Any) -> None:
    """Add digits (slot, band, digit) of weight ``2**shifts[band, digit]`` to the words of entry slot x bands + band.

    The digits become 0. Shifts count from the lowest bit of the lowest word.
    """
    bands, num = digits.shape[1], digits.shape[2]
    for slot in range(digits.shape[0]):
        for band in range(bands):
            for digit in range(num):
                add_shifted(words, slot * bands + band, digits[slot, band, digit], shifts[band, digit])
                digits[slot, band, digit] = 0


def fold_in_order(digits: np.ndarray, shifts: np.ndarray, order: np.ndarray) -> ExactSums:
    """Return the sums that digits (as `fold`) are, trimmed, slots in this order; shifts count from 2**0.

    The words are written once, where `fold`, `reorder` and memory touched for the first time take three times as long.
    """
    low, high = _words_of(digits, shifts)
    words = np.empty((len(order) * digits.shape[1], high - low), np.uint64)
    _fold_in_order(digits, shifts - 64 * low, order, words)
    return trim(ExactSums(words, low))


def _words_of(digits: np.ndarray, shifts: np.ndarray) -> tuple[int, int]:
    """Return the first word and the end of those that hold all sums of digits."""
    used, sizes = np.zeros((2, *shifts.shape), np.int64)
    _collect_bits(digits, used, sizes)
    bits = [(int(u), int(s), int(shift)) for u, s, shift in zip(used.flat, sizes.flat, shifts.flat, strict=True) if u]
    if not bits:
        return 0, 1
    lowest = min(shift + (u & -u).bit_length() - 1 for u, _, shift in bits)
    # with the sign, and what sums of several digits have more
    highest = max(shift + s.bit_length() + 1 for _, s, shift in bits) + (shifts.shape[1] - 1).bit_length()
    return lowest // 64, -(-highest // 64)


@kernel
def _collect_bits(digits: Any, used: Any, sizes: Any) -> None:
    """Add the bits of digits to those in use, and those of their magnitudes (by band and digit)."""
    for slot in range(digits.shape[0]):
        for band in range(digits.shape[1]):
            for digit in range(digits.shape[2]):
                value = digits[slot, band, digit]
                used[band, digit] |= value
                sizes[band, digit] |= value ^ (value >> np.int64(63))


@kernel
def _fold_in_order(digits: Any, shifts: Any, order: Any, words: Any) -> None:
    bands, num = digits.shape[1], digits.shape[2]
    for i in range(order.size):
        for band in range(bands):
            entry = i * bands + band
            put_shifted(words, entry, digits[order[i], band, 0], shifts[band, 0])
            for digit in range(1, num):
                add_shifted(words, entry, digits[order[i], band, digit], shifts[band, digit])


@inner
def put_shifted(words: Any, entry: Any, value: Any, shift: Any) -> None:
    """Write ``value * 2**shift`` to an entry, as `add_shifted` would make it of 0; no bit may fall below it."""
    at, bits = shift >> 6, np.int64(shift & 63)
    for i in range(words.shape[1]):
        word = value << bits if i == at else value >> np.int64(63)
        word = (value >> np.int64(1)) >> (np.int64(63) - bits) if i == at + 1 else word
        words[entry, i] = np.uint64(word if i >= at else np.int64(0))
