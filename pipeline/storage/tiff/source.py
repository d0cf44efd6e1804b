"""Where the bytes of a TIFF file are: on a disk, or (`remote.py`) in an object store; the reader is the same."""

from __future__ import annotations

import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from pipeline.model.errors import InputError
from pipeline.storage.folder.listing import away, changed, check_status, file_status
from pipeline.storage.folder.local import LocalFolder, sample_of
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Traffic
from pipeline.storage.tiff.descriptor import DESCRIPTORS, Descriptor
from pipeline.storage.tiff.file import input_errors
from pipeline.storage.tiff.part import Part

Data = bytes | memoryview


class Source(ABC):
    """The bytes of a file, as they were when it was opened first: it raises InputChanged where they are others now."""

    path: str
    """Absolute, or a URL."""
    size: int
    status: str
    """What tells that the file was replaced or touched."""
    is_local: bool
    notes: tuple[str, ...] = ()
    """What is to be said of how it is read."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Open the file for its directories."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what tells this file from a changed one, ready for JSON."""

    @abstractmethod
    def evidence(self) -> Evidence:
        """Return what tells workers whether they see the same file."""

    @abstractmethod
    def read(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Data]]:
        """Yield each part with its bytes, in whatever order is best.

        Raises InputError where they cannot be read, with a cause that tells whether that may pass.
        """

    def traffic(self, parts: Iterable[Part]) -> Traffic:
        """Return what `read` asks of an object store."""
        return NO_TRAFFIC

    @property
    def is_untouched(self) -> bool:
        """Whether it is known, at no cost, that the file is as it was when it was opened."""
        return False

    def check(self, known: str) -> None:
        """Raise InputChanged where the file that was opened now is not the one that was opened first."""
        if self.status != known:
            raise changed(self.path)


class LocalFile(Source):
    """A file on a disk, read with `os.pread`."""

    is_local = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        status = os.stat(self.path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{self.path}: is not a file; give the path of one TIFF file")
        if status.st_size == 0:
            raise InputError(f"{self.path}: is empty (0 bytes); copy it again")
        self.size, self.status, self._changed_ns = status.st_size, file_status(status), status.st_mtime_ns
        weakref.finalize(self, DESCRIPTORS.drop, id(self))

    def open(self) -> BinaryIO:
        return open(self.path, "rb")

    @property
    def is_untouched(self) -> bool:
        try:
            return file_status(os.stat(self.path)) == self.status
        except OSError:
            return False

    def identity(self) -> dict[str, Any]:
        known = {"path": self.path, "size": self.size, "mtime_ns": self._changed_ns}
        with self.open() as file:
            return known | {"sample": sample_of(file, self.size)}

    def evidence(self) -> Evidence:
        folder, name = os.path.split(self.path)
        return Evidence(self.path, LocalFolder(folder), (), (name,))

    def read(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Data]]:
        file = self._file()
        for part in parts:
            yield part, self._pread(file, part.offset, part.count, part.name)

    def pread(self, offset: int, count: int) -> bytes:
        """Return some bytes of the file; fewer than asked for are an error."""
        return self._pread(self._file(), offset, count, f"{count:,} bytes from {offset:,} on")

    def _pread(self, file: Descriptor, offset: int, count: int, name: str) -> bytes:
        pieces = []
        while count > 0:
            try:
                piece = os.pread(file.number, count, offset)
            except OSError as error:
                raise InputError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
            if not piece:
                check_status(self.path, file.number, self.status)
                raise InputError(f"{self.path}: {name} ends beyond the end of the file: it is truncated; copy it again")
            pieces.append(piece)
            count, offset = count - len(piece), offset + len(piece)
        check_status(self.path, file.number, self.status)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _file(self) -> Descriptor:
        """Return the file, open."""
        return DESCRIPTORS.get(id(self), self._open_number)

    def _open_number(self) -> Descriptor:
        with input_errors(self.path):
            try:
                number = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except (FileNotFoundError, NotADirectoryError):
                raise away(self.path) from None
        try:
            check_status(self.path, number, self.status)
        except BaseException:
            os.close(number)
            raise
        return Descriptor(number)
