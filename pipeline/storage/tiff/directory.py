"""The directories of a TIFF file, walked before they are parsed: how much there is to parse."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits

TAG_LIMIT = 2**19
"""Tags of all directories: so many take some three seconds to parse."""
TAGS_PER_DIRECTORY = 4096
"""tifffile takes a directory with more for damaged."""
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
NUMBER_BYTES = 40
"""What a number of a table takes in Python."""
TAG_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Form:
    """How classic TIFF and BigTIFF differ."""

    order: str
    first: int
    """Where the offset of the first directory stands."""
    count: str
    tag: str
    offset: str


def check_directories(file: BinaryIO, file_size: int, path: str, limits: ReadLimits) -> None:
    """Raise InputError where all directories together hold too much; what is no TIFF file passes."""
    form = _parse_form(file.read(8))
    if form is None:
        return
    num_bytes = num_tags = 0
    for tags in _directories(file, form):
        num_tags += len(tags)
        num_bytes += sum(TAG_BYTES + _value_bytes(kind, count, file_size) for kind, count in tags)
        if num_tags > TAG_LIMIT:
            raise InputError(f"{path}: its directories hold more than {TAG_LIMIT:,} tags; split the file")
        limits.check_allocation(f"{path}: the tags of its directories", num_bytes)


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins so is a TIFF."""
    return _parse_form(head[:8]) is not None


def _parse_form(head: bytes) -> _Form | None:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    version = struct.unpack(order + "H", head[2:4])[0]
    if version == 42:
        return _Form(order, 4, order + "H", order + "HHI4x", order + "I")
    return _Form(order, 8, order + "Q", order + "HHQ8x", order + "Q") if version == 43 else None


def _directories(file: BinaryIO, form: _Form) -> Iterator[list[tuple[int, int]]]:
    """Yield type and count of the tags of each directory of the chain, until it ends or leads back."""
    known: set[int] = set()
    offset = _unpack(file, form.first, form.offset)
    while offset and offset not in known:
        known.add(offset)
        count = _unpack(file, offset, form.count)
        if count is None or count > TAGS_PER_DIRECTORY:
            return
        start, size = offset + struct.calcsize(form.count), struct.calcsize(form.tag)
        file.seek(start)
        data = file.read(count * size)
        yield [(kind, number) for _, kind, number in struct.iter_unpack(form.tag, data[: len(data) // size * size])]
        offset = _unpack(file, start + count * size, form.offset)


def _unpack(file: BinaryIO, offset: int, form: str) -> int | None:
    if offset >= 2**63:
        return None
    file.seek(offset)
    data = file.read(struct.calcsize(form))
    return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else None


def _value_bytes(kind: int, count: int, file_size: int) -> int:
    """Return what a tag's value takes in memory; one that cannot be in the file is not read."""
    width = TYPE_BYTES.get(kind, 0)
    if count * width > file_size:
        return 0
    return count * (1 if width == 1 else NUMBER_BYTES)
