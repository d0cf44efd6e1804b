"""Whole numbers in 32-bit limbs (uint64, the lowest first), and their quotients in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner


@inner
def magnitude(words: Any, limbs: Any) -> Any:
    """Write the absolute value in 32-bit limbs, the lowest first; return whether the number is negative."""
    negative = np.int64(words[words.size - 1]) < 0
    flip = np.uint64(0xFFFFFFFF) if negative else np.uint64(0)
    carry = np.uint64(1) if negative else np.uint64(0)
    for i in range(words.size):
        for half in range(2):
            limb = (words[i] >> np.uint64(32 * half)) & np.uint64(0xFFFFFFFF)
            limb = (limb ^ flip) + carry
            carry = limb >> np.uint64(32)
            limbs[2 * i + half] = limb & np.uint64(0xFFFFFFFF)
    return negative


@inner
def float_of_words(words: Any, entry: Any) -> Any:
    """Return an entry of one or two words as float64 and whether it is exact; there may be more that are than it says.

    The number is an integer in units of the lowest word.
    """
    high = np.int64(words[entry, words.shape[1] - 1])
    total = np.float64(high)
    if words.shape[1] == 1:
        return total, abs(total) < 2.0**53
    low = words[entry, 0]
    head, tail = total * 2.0**64, np.float64(low)
    total = head + tail
    tail_is_exact = (low & np.uint64(0x7FF)) == 0 or low < np.uint64(1 << 53)
    return total, abs(head) < 2.0**117 and tail_is_exact and total - head == tail


@inner
def read_limbs(limbs: Any) -> Any:
    """Return (head, tail, exponent): the number is (head + tail) 2**exponent to 100 bits, exact if it has no more."""
    top = limbs.size - 1
    while top > 0 and limbs[top] == 0:
        top -= 1
    last = max(top - 4, 0)
    head, tail = 0.0, 0.0
    for i in range(top, last - 1, -1):
        term = math.ldexp(float(limbs[i]), 32 * (i - last))
        total = head + term
        tail += term - (total - head)  # head is 0 or larger than the term: exact
        head = total
    total = head + tail
    return total, tail - (total - head), 32 * last


@inner
def divide_pair(head: Any, tail: Any, divisor: Any) -> Any:
    """Return (head + tail) / divisor and what rounding left of it, to 93 bits; NaN for a divisor of 0."""
    quotient = head / divisor
    if divisor == 0:
        return np.nan, 0.0
    rest = tail
    if divisor != 1:
        product, error = two_product(quotient, divisor)
        rest = (((head - product) - error) + tail) / divisor
    total = quotient + rest
    return total, rest - (total - quotient)


@inner
def is_near_tie(total: Any, rest: Any) -> Any:
    """Return whether a number and what rounding left of it may lie between two floats, so that less than `rest` knows
    decides which is the nearest."""
    fraction, exponent = math.frexp(total)
    unit = math.ldexp(1.0, exponent - 54)  # half a unit in the last place; below a power of two a quarter
    off = abs(rest)
    return abs(off - unit) <= unit * 2.0**-30 or (abs(fraction) == 0.5 and abs(off - unit / 2) <= unit * 2.0**-30)


@inner
def divide_limbs(limbs: Any, divisor: Any, exponent: Any) -> Any:
    """Return limbs / divisor x 2**exponent, rounded once, half to even: bit by bit. 0 < divisor < 2^63."""
    remainder, bits, num = np.uint64(0), np.uint64(0), 0
    place = 32 * limbs.size
    while num < 62 and place > -128:
        place -= 1
        bit = (limbs[place >> 5] >> np.uint64(place & 31)) & np.uint64(1) if place >= 0 else np.uint64(0)
        remainder = (remainder << np.uint64(1)) | bit
        fits = remainder >= np.uint64(divisor)
        if fits:
            remainder -= np.uint64(divisor)
        bits = (bits << np.uint64(1)) | np.uint64(fits)
        num += bits != 0
    for i in range(place):
        remainder |= (limbs[i >> 5] >> np.uint64(i & 31)) & np.uint64(1)
    bits |= np.uint64(remainder != 0)  # what is dropped breaks ties
    drop = -1074 - (place + exponent)
    if drop <= 62 - 53:  # a normal number: to drop bits first would round twice
        return math.ldexp(float(bits), place + exponent)
    if drop > 63:
        return 0.0
    kept = bits >> np.uint64(drop)
    rest, half = bits - (kept << np.uint64(drop)), np.uint64(1) << np.uint64(drop - 1)
    if rest > half or (rest == half and kept & np.uint64(1)):
        kept += np.uint64(1)
    return math.ldexp(float(kept), -1074)


@inner
def two_product(a: Any, b: Any) -> Any:
    """Return the product and its rounding error (Dekker's)."""
    a_large, a_small = split(a)
    b_large, b_small = split(b)
    product = a * b
    error = ((a_large * b_large - product) + a_large * b_small + a_small * b_large) + a_small * b_small
    return product, error


@inner
def split(a: Any) -> Any:
    scaled = 134217729.0 * a
    large = scaled - (scaled - a)
    return large, a - large


@inner
def multiply(a: Any, b: Any, offset: Any, out: Any) -> None:
    """Write a product of limbs, `offset` limbs higher."""
    out[:] = 0
    for i in range(a.size):
        carry = np.uint64(0)
        for j in range(b.size):
            term = out[offset + i + j] + a[i] * b[j] + carry
            out[offset + i + j] = term & np.uint64(0xFFFFFFFF)
            carry = term >> np.uint64(32)
        out[offset + i + b.size] = carry


@inner
def subtract(a: Any, b: Any) -> None:
    """Subtract limbs in place; the result is not negative."""
    borrow = np.uint64(0)
    for i in range(a.size):
        term = a[i] - b[i] - borrow
        borrow = (term >> np.uint64(32)) & np.uint64(1)
        a[i] = term & np.uint64(0xFFFFFFFF)
