"""Tiles of what is being written, as they come: kept on the disk, so that no killed run makes them again.

Beside the tiles lies an index, one entry a tile, which is written after the tile: level, number in the level, offset,
count, CRC-32. What a crash has torn ends the index when it is read again.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

ENTRY = struct.Struct("<IQQQI")
KEY_BYTES = 32
COPY_BYTES = 2**22
HEADER_BYTES = 16
"""Room for the header of a file, at the beginning of the tiles."""


class Spool:
    """The tiles of a file, in the order in which they were made."""

    def __init__(self, target: Path, token: str, key: bytes, num_tiles: Sequence[int]) -> None:
        """Open the tiles of a target that a run with this token has made.

        `key` (32 bytes) stands for all that they depend on; `num_tiles` are those of each level.
        """
        self.target = target
        self.path = target.with_name(f".{target.name}.{token}.tiles")
        self.offsets = [np.zeros(number, np.uint64) for number in num_tiles]
        self.counts = [np.zeros(number, np.uint64) for number in num_tiles]
        _remove_of_others(target, token)
        self._tiles = _open(self.path)
        self._index = _open(self.path.with_suffix(".index"))
        self._end = HEADER_BYTES
        if self._index.read(KEY_BYTES) == key:
            self._read()
        else:
            self._index.seek(0)
            self._index.truncate()
            self._index.write(key)
        self._tiles.truncate(self._end)

    def _read(self) -> None:
        """Take in the entries whose tiles are there as they were written."""
        place = KEY_BYTES
        while len(entry := self._index.read(ENTRY.size)) == ENTRY.size:
            level, number, offset, count, crc = ENTRY.unpack(entry)
            is_known = level < len(self.counts) and number < len(self.counts[level]) and offset == self._end
            if not is_known or zlib.crc32(self.read(offset, count)) != crc:
                break
            self.offsets[level][number], self.counts[level][number] = offset, count
            self._end = offset + count
            place += ENTRY.size
        self._index.seek(place)
        self._index.truncate()

    def has(self, level: int, number: int) -> bool:
        return bool(self.counts[level][number])

    def add(self, level: int, number: int, data: bytes) -> None:
        """Append a tile; a short write raises OSError."""
        self._tiles.seek(self._end)
        _write(self._tiles, data)
        _write(self._index, ENTRY.pack(level, number, self._end, len(data), zlib.crc32(data)))
        self.offsets[level][number], self.counts[level][number] = self._end, len(data)
        self._end += len(data)

    def tile(self, level: int, number: int) -> bytes:
        """Return a tile; nothing where it is not there."""
        return self.read(int(self.offsets[level][number]), int(self.counts[level][number]))

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._tiles.fileno(), count, offset)

    def copy(self, level: int, numbers: range, target: int, places: np.ndarray) -> None:
        """Copy some tiles of a level to their places in another file; threads may do so at once."""
        for number in numbers:
            offset, left, place = (int(each[number]) for each in (self.offsets[level], self.counts[level], places))
            while left:
                data = self.read(offset, min(left, COPY_BYTES))
                if not data:
                    raise OSError(errno.EIO, f"{self.path} was cut off")
                written = os.pwrite(target, data, place)
                offset, place, left = offset + written, place + written, left - written

    def finish(self, header: bytes, directories: bytes) -> None:
        """Make a file of the tiles where they lie: a header before them, directories behind."""
        self._tiles.seek(0)
        _write(self._tiles, header)
        self._tiles.seek(self.end)
        _write(self._tiles, directories)

    @property
    def end(self) -> int:
        """Where what comes after the tiles may begin: at an even place."""
        return self._end + self._end % 2

    def remove(self) -> None:
        """Remove tiles and index: the file is there."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".index").unlink(missing_ok=True)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tiles.close()
        self._index.close()


def _open(path: Path) -> BinaryIO:
    """Open a file of our own for reading and writing, unbuffered: what is written outlives the process."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    return os.fdopen(number, "r+b", buffering=0)


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _remove_of_others(target: Path, token: str) -> None:
    """Remove what killed runs that nobody continued have left of the same file."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{32}})\.(tiles|index|partial)")
    for path in target.parent.iterdir():
        if (found := ours.fullmatch(path.name)) and found[1] != token:
            path.unlink(missing_ok=True)
