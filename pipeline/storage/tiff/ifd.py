"""Image file directories, written: tags to bytes, as TIFF 6.0 and BigTIFF lay them out (little endian)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ASCII, SHORT, LONG, DOUBLE, LONG8 = 2, 3, 4, 12, 16
DTYPES: dict[int, np.dtype] = {
    SHORT: np.dtype("<u2"),
    LONG: np.dtype("<u4"),
    DOUBLE: np.dtype("<f8"),
    LONG8: np.dtype("<u8"),
}


@dataclass(frozen=True)
class Value:
    """The value of a tag: TIFF's type, and numbers or text."""

    kind: int
    data: bytes

    @property
    def count(self) -> int:
        return len(self.data) // (DTYPES[self.kind].itemsize if self.kind in DTYPES else 1)


def shorts(*numbers: int) -> Value:
    return Value(SHORT, np.asarray(numbers, DTYPES[SHORT]).tobytes())


def longs(numbers: Any) -> Value:
    return Value(LONG, np.asarray(numbers, DTYPES[LONG]).tobytes())


def offsets(numbers: Any, *, is_big: bool) -> Value:
    """Return places in the file: 64 bits in BigTIFF."""
    kind = LONG8 if is_big else LONG
    return Value(kind, np.asarray(numbers, DTYPES[kind]).tobytes())


def text(words: str) -> Value:
    return Value(ASCII, words.encode() + b"\0")


def of_tag(value: Any) -> Value:
    """Return a tag as `format_tags` gives it: text, doubles, or the directory of geokeys in 16 bits."""
    if isinstance(value, str):
        return text(value)
    if all(isinstance(number, int) for number in value):
        return shorts(*value)
    return Value(DOUBLE, np.asarray(value, DTYPES[DOUBLE]).tobytes())


Directory = Mapping[int, Value]
Tags = Mapping[int, Any]
"""As `format_tags` gives them."""


@dataclass(frozen=True)
class Form:
    """How classic TIFF and BigTIFF differ."""

    is_big: bool

    @property
    def header_bytes(self) -> int:
        return 16 if self.is_big else 8

    def header(self, first: int) -> bytes:
        """Return the beginning of a file whose first directory stands at an offset."""
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if self.is_big else struct.pack("<2sHI", b"II", 42, first)

    def encode(self, directories: Sequence[Directory], start: int) -> bytes:
        """Return directories, each with its values behind it, that stand at an offset one after the other."""
        places = [start]
        for directory in directories:
            places.append(places[-1] + self.num_bytes(directory))
        ends = [*places[1:-1], 0]
        parts = zip(directories, places, ends, strict=False)
        return b"".join(self._encode(directory, place, after) for directory, place, after in parts)

    def num_bytes(self, directory: Directory) -> int:
        return self._table_bytes(directory) + sum(map(self._outside, directory.values()))

    def _table_bytes(self, directory: Directory) -> int:
        count, entry, offset = (8, 20, 8) if self.is_big else (2, 12, 4)
        return count + entry * len(directory) + offset

    def _outside(self, value: Value) -> int:
        """Return the bytes that a value takes behind its directory; a short one stands in it."""
        return 0 if len(value.data) <= (8 if self.is_big else 4) else len(value.data) + len(value.data) % 2

    def _encode(self, directory: Directory, place: int, after: int) -> bytes:
        offset = "Q" if self.is_big else "I"
        table = [struct.pack("<Q" if self.is_big else "<H", len(directory))]
        behind, at = list[bytes](), place + self._table_bytes(directory)
        for code, value in sorted(directory.items()):
            table.append(struct.pack(f"<HH{offset}", code, value.kind, value.count))
            if room := self._outside(value):
                table.append(struct.pack(f"<{offset}", at))
                behind.append(value.data.ljust(room, b"\0"))
                at += room
            else:
                table.append(value.data.ljust(8 if self.is_big else 4, b"\0"))
        table.append(struct.pack(f"<{offset}", after))
        return b"".join([*table, *behind])
