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
    """Return (head + tail) / divisor rounded once; NaN for a divisor of 0."""
    quotient = head / divisor
    if divisor == 0 or divisor == 1:
        return head + tail if divisor == 1 else np.nan
    product, error = two_product(quotient, divisor)
    return quotient + (((head - product) - error) + tail) / divisor


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
