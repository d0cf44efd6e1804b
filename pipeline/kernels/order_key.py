"""Values as unsigned integers in the same order, so that one kernel sorts all dtypes of a width.

The order is total: -0 comes before 0. NaN has no place in it; it is invalid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel

UNSIGNED, SIGNED, FLOAT = range(3)


class Elements(NamedTuple):
    """Elements of rows of a plane, `step` apart: all of them, or one lane."""

    plane: int
    top: int
    left: int
    num_rows: int
    num: int
    step: int


@dataclass(frozen=True, slots=True)
class KeyRule:
    """How the values of a dtype become keys, and back."""

    kind: int
    limits: np.ndarray
    """The sign bit, the bits of infinity (for floats), all bits; in the dtype of the keys."""

    @classmethod
    def of(cls, dtype: np.dtype) -> KeyRule:
        """Return the rule of a dtype.

        Examples
        --------
        >>> KeyRule.of(np.dtype(np.float32)).limits.tolist() == [0x80000000, 0x7F800000, 0xFFFFFFFF]
        True
        """
        unsigned = np.dtype(f"u{dtype.itemsize}")
        every = int(np.iinfo(unsigned).max)
        infinity = int(np.array(np.inf, dtype).view(unsigned)) if dtype.kind == "f" else 0
        kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[dtype.kind]
        return cls(kind, np.array([every // 2 + 1, infinity, every], unsigned))

    @property
    def dtype(self) -> np.dtype:
        return self.limits.dtype


@kernel
def to_keys(bits: Any, valid: Any, kind: Any, limits: Any, source: Any, keys: Any, usable: Any) -> int:
    """Copy elements as keys, into the first of `keys`.

    `usable` becomes 1 or 0 for valid or not; the key of an invalid value is the greatest. Returns the invalid ones.
    """
    plane, top, left, num_rows, num, step = source
    sign, infinity, every = limits
    invalid = 0
    for i in range(num_rows):
        row = bits[plane, top + i, left : left + (num - 1) * step + 1]
        to, ok = keys[i, :num], usable[i, :num]
        copy_row(row, step, to)
        keys_of_row(kind, sign, infinity, to, ok)
        if valid.size:
            mask_row(valid[plane, top + i, left : left + (num - 1) * step + 1], step, ok)
        count = 0
        for c in range(num):
            count += ok[c]
        if count < num:
            invalid += num - count
            for c in range(num):
                to[c] = to[c] if ok[c] else every
    return invalid


# Steps of 1 have loops of their own, of which the compiler makes vectors.


@inner
def copy_row(row: Any, step: Any, out: Any) -> None:
    if step == 1:
        for c in range(out.size):
            out[c] = row[c]
        return
    for c in range(out.size):
        out[c] = row[c * step]


@inner
def keys_of_row(kind: Any, sign: Any, infinity: Any, keys: Any, usable: Any) -> None:
    """Turn the bits of values into keys, in place."""
    if kind == 2:
        for c in range(keys.size):
            value = keys[c]
            keys[c] = ~value if value & sign else value | sign
            usable[c] = (value & ~sign) <= infinity
        return
    flipped = sign if kind == 1 else sign ^ sign
    for c in range(keys.size):
        keys[c] ^= flipped
        usable[c] = 1


@inner
def mask_row(mask: Any, step: Any, usable: Any) -> None:
    if step == 1:
        for c in range(usable.size):
            usable[c] &= mask[c]
        return
    for c in range(usable.size):
        usable[c] &= mask[c * step]


@kernel
def to_bits(kind: Any, limits: Any, keys: Any) -> None:
    """Turn flat keys into the bits of their values, in place."""
    sign = limits[0]
    if kind == 1:
        for c in range(keys.size):
            keys[c] ^= sign
    elif kind == 2:
        for c in range(keys.size):
            keys[c] = keys[c] ^ sign if keys[c] & sign else ~keys[c]
