"""How large label tables can become: exact sums have as many words as their widest number needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.frame import Patch

_COUNT_BITS = 34
"""Bits that a sum may have more than its values, the sign among them."""
_COORDINATE_BITS = 26


@dataclass(frozen=True, slots=True)
class Width:
    """Bits of which values are made: multiples of ``2**lowest``, below ``2**highest``."""

    lowest: int
    highest: int

    @property
    def sum_bytes(self) -> int:
        """Bytes of an exact sum of such values."""
        return 8 * self.num_words

    @property
    def num_words(self) -> int:
        return -(-(self.highest + _COUNT_BITS) // 64) - self.low

    @property
    def low(self) -> int:
        """The weight of a sum's lowest word."""
        return self.lowest // 64

    def __mul__(self, other: Width) -> Width:
        """Return the width of products."""
        return Width(self.lowest + other.lowest, self.highest + other.highest)

    @property
    def square_bytes(self) -> int:
        """Bytes of an exact sum of their squares."""
        return (self * self).sum_bytes

    @property
    def moments(self) -> Width:
        """The width of such values times a coordinate."""
        return Width(self.lowest, self.highest + _COORDINATE_BITS)


def width_of_dtype(dtype: np.dtype) -> Width:
    """Return the width of any values of a dtype."""
    if dtype.kind != "f":
        return Width(0, 8 * dtype.itemsize)
    info = np.finfo(dtype)
    return Width(int(info.minexp) - int(info.nmant), int(info.maxexp))


def width_of(values: np.ndarray, patch: Patch) -> Width:
    """Return a width of the finite values of a region of planes; for integers that of their dtype."""
    if values.dtype.kind != "f":
        return width_of_dtype(values.dtype)
    info = np.finfo(values.dtype)
    top, left = patch.values_at
    rows, columns = slice(top, top + patch.shape[0]), slice(left * patch.lanes, (left + patch.shape[1]) * patch.lanes)
    bits = values.view(f"u{values.dtype.itemsize}")[:, rows, columns]
    lowest, highest = _exponents(bits, np.uint64(info.nmant), np.uint64(2**info.nexp - 1))
    least = int(info.minexp) - 1
    return Width(least + max(int(lowest), 1) - int(info.nmant), least + max(int(highest), int(lowest), 1) + 1)


@kernel
def _exponents(bits: Any, shift: Any, mask: Any) -> Any:
    """Return the lowest and the highest biased exponent of all numbers but zeros, NaN and the infinities."""
    mantissa = (np.uint64(1) << shift) - np.uint64(1)
    lowest, highest = mask, np.uint64(0)
    for plane in range(bits.shape[0]):
        for row in range(bits.shape[1]):
            for column in range(bits.shape[2]):
                number = np.uint64(bits[plane, row, column])
                exponent = (number >> shift) & mask
                is_zero = exponent == 0 and number & mantissa == 0
                lowest = min(lowest, mask if is_zero else exponent)
                highest = max(highest, exponent if exponent < mask else np.uint64(0))
    return lowest, highest


def row_bytes(tables: Sequence[Mapping[str, np.ndarray]]) -> int:
    """Return a bound of the bytes that one row has in the merge of tables, none of them empty."""
    rows = [{name: table[name][:1] for name in table if table[name].ndim} for table in tables]
    return merged_bytes(rows) // len(rows)


def merged_bytes(tables: Sequence[Mapping[str, np.ndarray]]) -> int:
    """Return a bound of the bytes of the merge of tables, as `LabelTable.to_columns` gives them."""
    size = sum(column.nbytes for table in tables for column in table.values())
    for name, numbers in (("sums", 1), ("squares", 1), ("moments", 2), ("weights", 1)):
        parts = [table for table in tables if name in table and len(table[name])]
        if parts:
            lows = [int(part[f"{name}_low"][0]) for part in parts]
            words = [part[name].shape[1] // (numbers * int(part["bands"][0])) for part in parts]
            width = max(low + num for low, num in zip(lows, words, strict=True)) - min(lows) + 1
            size += sum(8 * (width * numbers * int(p["bands"][0]) - p[name].shape[1]) * len(p[name]) for p in parts)
    return size
