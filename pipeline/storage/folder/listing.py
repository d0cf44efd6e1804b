"""The files of an input as they were when a run began, and what is read compared with them.

A store may be away for a while, or a chunk of it be replaced and put back: Zarr then reads fill values, or other
pixels, without a word. So the files are listed once, and each that is opened is compared with the list.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.model.errors import ChunkAway, InputChanged, InputError
from pipeline.storage.folder.metadata import METADATA

SAMPLES = 8
"""Files of which the beginning is a part of what tells an input from another one."""


class Entry(NamedTuple):
    """A file below a folder."""

    name: str
    num_bytes: int
    identity: str
    """What its pixels are known by, also in a copy of it elsewhere."""
    status: str
    """What tells that it was touched, as long as it stays where it is."""


class Expected(Protocol):
    """What is known of the files of an array before they are read."""

    def check(self, name: str, status: str | None) -> None:
        """Raise InputError where a file that is read is not as it should be; None: it is not there."""


def mark_of(text: str) -> int:
    """Return 64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest())


class Listing:
    """The files of a folder and of those below at one moment, in 16 bytes each; it pickles.

    `digest` is another one where a file was changed, added or taken away; `num_files` are those that hold pixels.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        names, marks, total = list[int](), list[int](), 0
        self.num_bytes = self.num_files = 0
        samples: list[tuple[int, str]] = []
        for entry in entries:  # there may be millions: none is kept, and their order does not matter
            names.append(mark_of(entry.name))
            marks.append(mark_of(entry.status))
            total += int.from_bytes(
                hashlib.sha256(f"{entry.name}\0{entry.identity}".encode(errors="surrogateescape")).digest()
            )
            self.num_bytes += entry.num_bytes
            if entry.name.rpartition("/")[2] not in METADATA:
                self.num_files += 1
                (heapq.heappush if len(samples) < SAMPLES else heapq.heappushpop)(samples, (-names[-1], entry.name))
        self.digest = f"{total % 2**256:064x}"
        self.samples = tuple(sorted(name for _, name in samples))
        """Names of some files, the same ones for the same names."""
        order = np.argsort(found := np.array(names, np.uint64))
        self._names, self._marks = found[order], np.array(marks, np.uint64)[order]

    def find(self, name: str) -> int | None:
        """Return the mark of a file's status; None where it was not there."""
        wanted = np.uint64(mark_of(name))
        place = int(np.searchsorted(self._names, wanted))
        found = place < len(self._names) and self._names[place] == wanted
        return int(self._marks[place]) if found else None

    def check(self, name: str, status: str | None) -> None:
        """Raise ChunkAway for a file that was there and is not, InputChanged for one that is another one."""
        listed = self.find(name)
        if status is None:
            if listed is not None:
                raise ChunkAway(f"{name} was there when the run began, and is not now")
        elif listed is None:
            raise InputChanged(f"{name} was not there when the run began, and is now")
        elif mark_of(status) != listed:
            raise InputChanged(f"{name} is not as it was when the run began: it was replaced or touched")


class Whole:
    """Of an array that a run has written: all its files are there."""

    def check(self, name: str, status: str | None) -> None:
        if status is None:
            raise InputError(f"{name} is lost, which the run has written")


class Unlisted:
    """Of a server that does not list what it has."""

    def __init__(self, *, fills: bool) -> None:
        self.fills = fills
        """Whether what is missing is known to be empty."""

    def check(self, name: str, status: str | None) -> None:
        if status is None and not self.fills:
            raise ChunkAway(
                f"{name} is not found; the server lists nothing, so whether the chunk is empty or away cannot be "
                "known: `missing: fill` at the input reads such chunks as the fill value"
            )


def file_status(status: os.stat_result) -> str:
    """Return what tells a file that was touched. Other clients of a file server may see times less exactly."""
    return f"{status.st_size} {status.st_mtime_ns // 1000} {status.st_ctime_ns // 1000}"


def check_status(path: str, file: int | str, known: str) -> None:
    """Raise InputChanged where a file is another one than it was, or was touched; ChunkAway where it was moved away."""
    try:
        status = file_status(os.stat(file))
    except (FileNotFoundError, NotADirectoryError):
        status = None
    if status != known:
        raise changed(path) if os.path.exists(path) else away(path)


def changed(path: str) -> InputChanged:
    return InputChanged(f"{path}: is not as it was when the run began: it was replaced or touched")


def away(path: str) -> ChunkAway:
    return ChunkAway(f"{path}: was there when the run began, and is not now")
