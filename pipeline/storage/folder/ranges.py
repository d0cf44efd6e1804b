"""Parts of an object in a store, by ranged requests: neighbours in one, some at once, each answer looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.storage.folder.address import RANGE_BYTES, REQUESTS_AT_ONCE, Access
from pipeline.storage.folder.answer import errors_of
from pipeline.storage.folder.base import REQUESTS, RemoteError
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.folder.request import answer_to

GAP_BYTES = 2**16
"""What lies between two ranges that are asked for as one: it comes sooner than a second answer."""
PIECE_BYTES = 2**20
"""Of an answer: it is looked at, and copied, piece by piece."""

Range = tuple[int, int]
"""The first byte, and the one after the last."""
Facts = Mapping[str, Any]
Seen = Callable[[Facts], None]
"""Told what each answer says of the object, before its bytes are taken; raises where it is another one."""


class NoParts(RemoteError):
    """The server sends whole files alone."""


class PastEnd(RemoteError):
    """The file ends before the range begins."""


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in order, neighbours in one as long as that is no longer than `RANGE_BYTES`.

    Examples
    --------
    >>> merge([(0, 10), (5_000_000, 5_000_010), (20, 30)])
    [(0, 30), (5000000, 5000010)]
    """
    merged: list[Range] = []
    for start, stop in sorted(ranges):
        if merged:
            first, last = merged[-1]
            if start - last <= GAP_BYTES and (stop <= last or stop - first <= RANGE_BYTES):
                merged[-1] = first, max(last, stop)
                continue
        merged.append((start, stop))
    return merged


def batches(ranges: Sequence[Range]) -> Iterator[list[Range]]:
    """Yield ranges that are asked for at once: some few, of no more bytes than is planned for, or a single one."""
    batch: list[Range] = []
    for each in ranges:
        num_bytes = sum(stop - start for start, stop in (*batch, each))
        if batch and (len(batch) == REQUESTS_AT_ONCE or num_bytes > REQUESTS_AT_ONCE * RANGE_BYTES):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


class StoredObject:
    """An object in a store."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        self.folder, self.name = folder, name
        self.url = f"{folder.path}/{name}".rstrip("/")

    def get(self, ranges: Sequence[Range], seen: Seen) -> list[memoryview]:
        """Return the bytes of some ranges, asked for at once; one that reaches beyond the end stops there.

        Raises RemoteError where the server fails, or sends something else than was asked for; FileNotFoundError.
        """
        from obstore.exceptions import GenericError, NotSupportedError

        num_bytes = sum(stop - start for start, stop in ranges)
        with errors_of(self.url):
            try:
                found: list[memoryview] = answer_to(self._get_all, ranges, seen, num_bytes=num_bytes)
            except NotSupportedError:
                raise NoParts(f"{self.url}: the server sends no parts of files any more", may_pass=False) from None
            except GenericError as error:
                if "status code: 416" in str(error):
                    raise PastEnd(f"{self.url}: ends before byte {ranges[0][0]:,}", may_pass=False) from None
                raise
        return found

    async def _get_all(self, ranges: Sequence[Range], seen: Seen) -> list[memoryview]:
        tasks = [asyncio.ensure_future(self._get(each, seen)) for each in ranges]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _get(self, wanted: Range, seen: Seen) -> memoryview:
        import obstore

        REQUESTS.add()
        answer = await obstore.get_async(self.folder.objects, self.name, options={"range": wanted})
        seen(answer.meta)
        start, stop = wanted[0], min(wanted[1], answer.meta["size"])
        if tuple(answer.range) != (start, stop):
            first, last = answer.range
            raise RemoteError(
                f"{self.url}: bytes {first} to {last} came, {start} to {stop} were asked for; the server is not to be "
                "trusted with ranges",
                may_pass=False,
            )
        data = memoryview(bytearray(stop - start))
        place = 0
        async for piece in self.pieces(answer, stop - start):
            data[place : place + len(piece)] = piece
            place += len(piece)
        return data

    async def pieces(self, answer: Any, num_bytes: int) -> Any:
        """Yield the body of an answer, which has so many bytes, neither more nor fewer."""
        came = 0
        async for piece in answer.stream(min_chunk_size=PIECE_BYTES):
            came += len(piece)
            REQUESTS.add_bytes(len(piece))
            if came > num_bytes:
                raise RemoteError(
                    f"{self.url}: more bytes came than the {num_bytes:,} that are due; the server is not to be trusted",
                    may_pass=False,
                )
            yield memoryview(piece)
        if came < num_bytes:
            raise RemoteError(f"{self.url}: the answer ended after {came:,} of {num_bytes:,} bytes", may_pass=True)

    def get_whole(self, most: int, take: Callable[[Facts], Callable[[memoryview], None] | None]) -> None:
        """Read all of an object of at most so many bytes, from a server that sends no parts, piece by piece.

        `take` is told what the answer says, and returns what takes the pieces; None: none are wanted.
        """
        with errors_of(self.url):
            answer_to(self._get_whole, most, take, num_bytes=most)

    async def _get_whole(self, most: int, take: Callable[[Facts], Callable[[memoryview], None] | None]) -> None:
        import obstore

        REQUESTS.add()
        answer = await obstore.get_async(self.folder.objects, self.name)
        size = answer.meta["size"]
        if size > most:
            raise RemoteError(
                f"{self.url}: the server sends no parts of files, and of {size:,} bytes at most {most:,} are read "
                "whole; copy the file to a disk, or to a server that answers ranges",
                may_pass=False,
            )
        if (write := take(answer.meta)) is not None:
            async for piece in self.pieces(answer, size):
                write(piece)


def object_at(url: str, access: Access) -> StoredObject:
    """Return the object that lies at a URL."""
    folder = ObjectFolder(url, access)
    if folder.is_unlisted or folder.parent is None:  # an address of the web stays as it is given
        return StoredObject(folder, "")
    around, _, name = folder.path.rpartition("/")
    return StoredObject(ObjectFolder(around, access), name)
