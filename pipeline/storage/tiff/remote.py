"""A TIFF file in an object store: its directories through a few windows, its tiles by ranged requests.

Every answer is compared with the first one (size, ETag, time of change), so that no pixel is of another file. A server
that sends no parts of files is asked for the whole, once, up to a limit.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.address import Access
from pipeline.storage.folder.answer import object_status, tag_of
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.listing import away, changed
from pipeline.storage.folder.ranges import Facts, NoParts, PastEnd, Range, batches, merge, object_at
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Traffic
from pipeline.storage.tiff.descriptor import Descriptor
from pipeline.storage.tiff.header import FIRST_BYTES, Header
from pipeline.storage.tiff.part import Part
from pipeline.storage.tiff.source import Data, Source

WHOLE_BYTES = 2**28
"""Of a file that is read whole, since its server sends no parts."""


class RemoteFile(Source):
    """A file in an object store."""

    is_local = False

    def __init__(self, url: str, access: Access, limits: ReadLimits) -> None:
        """Ask for the beginning of the file.

        Raises InputError where it cannot be had, with a cause that tells whether that may pass; FileNotFoundError.
        """
        self.path = url
        self._limits, self._object = limits, object_at(url, access)
        self._facts: Facts | None = None
        self._whole: _Spool | None = None
        self.head = b""
        """How the file begins."""
        try:
            self.head = self._begin()
        except RemoteError as error:
            raise InputError(str(error)) from error
        assert self._facts is not None
        self.size, self.status = int(self._facts["size"]), object_status(self._facts)
        if not self.size:
            raise InputError(f"{url}: is empty (0 bytes); copy it again")
        self.notes = tuple(self._notes(self._facts))

    def _begin(self) -> bytes:
        """Return how the file begins, and know from then on which file it is, and how it is read."""
        try:
            return bytes(self._object.get([(0, FIRST_BYTES)], self._see)[0])
        except PastEnd:
            raise InputError(f"{self.path}: is empty (0 bytes); copy it again") from None
        except NoParts:
            self._object.get_whole(WHOLE_BYTES, self._spool)
        assert self._whole is not None
        assert self._facts is not None
        _SPOOLS[self.path, object_status(self._facts)] = self._whole
        return self._whole.read(0, FIRST_BYTES)

    def _notes(self, facts: Facts) -> Iterator[str]:
        if self._whole is not None:
            yield f"the server sends no parts of files, so all {self.size:,} bytes of it are read into a temporary file"
        if not tag_of(facts) and not facts["last_modified"].timestamp():
            yield (
                "the server says neither ETag nor Last-Modified of the file: that it was replaced is seen only where "
                "its size or its directories are others"
            )

    def _see(self, facts: Facts) -> None:
        """Look at what an answer says of the file; the first one says which file is meant."""
        if self._facts is None:
            self._facts = dict(facts)
        elif object_status(facts) != object_status(self._facts):
            raise changed(self.path)

    def _spool(self, facts: Facts) -> Callable[[memoryview], None] | None:
        self._see(facts)
        self._whole = _SPOOLS.get((self.path, object_status(facts)))
        if self._whole is not None:  # read before, and still the same file
            return None
        self._whole = _Spool()
        return self._whole.write

    def open(self) -> BinaryIO:
        return cast(BinaryIO, Header(self.size, self.head, self._fetch, self.path, self._limits))

    def _fetch(self, start: int, stop: int) -> bytes:
        if self._whole is not None:
            return self._whole.read(start, stop)
        return bytes(self._get([(start, stop)])[0])

    def _get(self, ranges: list[Range]) -> list[memoryview]:
        """Return the bytes of ranges of the file as it was when it was opened."""
        try:
            return self._object.get(ranges, self._see)
        except FileNotFoundError:
            raise away(self.path) from None
        except PastEnd as error:
            raise changed(self.path) from error
        except RemoteError as error:
            raise InputError(str(error)) from error

    def identity(self) -> dict[str, Any]:
        assert self._facts is not None
        known = {"etag": tag} if (tag := tag_of(self._facts)) else {"modified": str(self._facts["last_modified"])}
        return {"path": self.path, "size": self.size} | known

    def evidence(self) -> Evidence:
        return Evidence(self.path, self._object.folder, (), (self._object.name,))

    def read(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Data]]:
        ordered = sorted(parts, key=lambda part: part.offset)
        if self._whole is not None:
            for part in ordered:
                yield part, self._whole.read(part.offset, part.offset + part.count)
            return
        done = 0
        for batch in batches(merge(map(_range_of, ordered))):
            for (start, stop), data in zip(batch, self._get(batch), strict=True):
                while done < len(ordered) and _range_of(ordered[done])[1] <= stop:
                    part = ordered[done]
                    yield part, data[part.offset - start : part.offset - start + part.count]
                    done += 1

    def traffic(self, parts: Iterable[Part]) -> Traffic:
        if self._whole is not None:
            return NO_TRAFFIC
        ranges = merge(map(_range_of, parts))
        return Traffic(len(ranges), sum(stop - start for start, stop in ranges))


def _range_of(part: Part) -> Range:
    return part.offset, part.offset + part.count


class _Spool:
    """A whole file, in a temporary one that has no name; it is closed when nobody reads it."""

    def __init__(self) -> None:
        number, path = tempfile.mkstemp(prefix="rasterpipe-")
        os.unlink(path)
        self._file = Descriptor(number)

    def write(self, piece: memoryview) -> None:
        while piece:
            piece = piece[os.write(self._file.number, piece) :]

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._file.number, stop - start, start)


_SPOOLS: weakref.WeakValueDictionary[tuple[str, str], _Spool] = weakref.WeakValueDictionary()
"""By URL and status: those that a reader of this process holds."""
