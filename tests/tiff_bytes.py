"""TIFF files made by hand, byte by byte: what no library writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMATS = {1: "B", 2: "c", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}
"""TIFF's types of numbers; text is given as bytes."""
Entry = tuple[int, Sequence[Any] | bytes]
Page = tuple[dict[int, Entry | None], Sequence[bytes]]
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS = 273, 277, 278, 279
PLANAR, PREDICTOR, FORMAT = 284, 317, 339


def write_tiff(path: Path, width: int, height: int, strips: Sequence[bytes], order: str = "<", **tags: Any) -> str:
    """Write one page of strips; `tags` are entries by code (``t317=(3, [2])``), None leaves one out."""
    return write_pages(path, [page(width, height, strips, tags)], order)


def page(width: int, height: int, strips: Sequence[bytes], tags: Mapping[str, Entry | None]) -> Page:
    """Return the tags of a page, but for the offsets of its strips, and the strips."""
    entries: dict[int, Entry | None] = {
        WIDTH: (4, [width]),
        HEIGHT: (4, [height]),
        BITS: (3, [8]),
        COMPRESSION: (3, [1]),
        PHOTOMETRIC: (3, [1]),
        OFFSETS: (4, [0] * len(strips)),
        SAMPLES: (3, [1]),
        ROWS: (4, [-(-height // max(1, len(strips)))]),
        COUNTS: (4, [len(strip) for strip in strips]),
    }
    entries |= {int(code.removeprefix("t")): entry for code, entry in tags.items()}
    return entries, strips


def write_pages(path: Path, pages: Sequence[Page], order: str = "<") -> str:
    data = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    link = 4
    for entries, strips in pages:
        offsets = []
        for strip in strips:
            offsets.append(len(data))
            data += strip + b"\0" * (len(strip) % 2)
        directory = []
        for code, entry in sorted(entries.items()):
            if entry is None:
                continue
            kind, values = entry
            if code == OFFSETS and not any(values):
                values = offsets[: len(values)]
            raw = (
                bytes(values)
                if isinstance(values, bytes)
                else struct.pack(f"{order}{len(values)}{FORMATS[kind]}", *values)
            )
            count = len(values) // (2 if kind == 5 else 1)
            if len(raw) > 4:
                place = struct.pack(order + "I", len(data))
                data += raw + b"\0" * (len(raw) % 2)
            else:
                place = raw.ljust(4, b"\0")
            directory.append(struct.pack(order + "HHI", code, kind, count) + place)
        struct.pack_into(order + "I", data, link, len(data))
        data += struct.pack(order + "H", len(directory)) + b"".join(directory)
        link = len(data)
        data += b"\0\0\0\0"
    path.write_bytes(data)
    return str(path)
