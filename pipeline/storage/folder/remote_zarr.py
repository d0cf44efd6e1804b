"""zarr's view of an object store: requests are counted, and what comes is looked at before it is decoded."""

from __future__ import annotations

from typing import Any, Protocol

import obstore
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from pipeline.model.errors import InputError
from pipeline.storage.folder.answer import conflicts, errors_of, object_status, version_of
from pipeline.storage.folder.base import REQUESTS
from pipeline.storage.folder.metadata import METADATA, check_metadata_size, is_plain
from pipeline.storage.folder.request import limited

_METADATA = (*METADATA, ".zgroup", ".zmetadata")


class Guard(Protocol):
    """What looks at chunks before they are decoded."""

    def check_status(self, key: str, status: str | None) -> None: ...

    def check_object_size(self, key: str, num_bytes: int) -> None: ...

    def check_object(self, key: str, data: memoryview, start: int, size: int) -> None: ...


class Objects(Protocol):
    """The folder whose objects are the store."""

    versions: dict[str, Any]

    @property
    def objects(self) -> Any: ...

    def condition(self, name: str) -> dict[str, Any]: ...

    def same_version(self, name: str, data: Any, found: tuple[bytes, Any] | None) -> Any: ...


class CountedStore(ObjectStore[Any]):
    """The objects of a folder as a zarr store."""

    guard: Guard | None = None
    """What checks the chunks of the one array that is read through this store."""

    def __init__(self, folder: Objects, *, read_only: bool = False) -> None:
        super().__init__(folder.objects, read_only=read_only)
        self.folder = folder

    def with_read_only(self, read_only: bool = False) -> CountedStore:
        return CountedStore(self.folder, read_only=read_only)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        url = f"{self.folder}/{key}"
        if not is_plain(key):
            raise InputError(f"{url}: the name leads out of the store; it must be relative, without `..`")
        REQUESTS.add()
        try:
            with errors_of(url):
                answer = await limited(obstore.get_async(self.store, key, options=_options(byte_range)))
                start, stop = answer.range
                self._check_size(key, url, stop - start)
                data = await limited(answer.bytes_async(), stop - start)
                REQUESTS.add_bytes(len(data))
        except FileNotFoundError:
            if self.guard is not None:
                self.guard.check_status(key, None)
            return None
        if self.guard is not None:
            self.guard.check_status(key, object_status(answer.meta))
            self.guard.check_object(key, memoryview(data), start, answer.meta["size"])
        return prototype.buffer.from_bytes(data)  # type: ignore[arg-type]

    def _check_size(self, key: str, url: str, num_bytes: int) -> None:
        if key.rpartition("/")[2] in _METADATA:
            check_metadata_size(url, num_bytes)
        if self.guard is not None:
            self.guard.check_object_size(key, num_bytes)

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        REQUESTS.add()
        folder, data = self.folder, value.as_buffer_like()
        with errors_of(f"{folder}/{key}"):
            try:
                answer = await limited(obstore.put_async(self.store, key, data, **folder.condition(key)), len(data))
                folder.versions[key] = version_of(answer)
            except conflicts():
                found = await self._read_versioned(key)
                folder.versions[key] = folder.same_version(key, data, found)

    async def _read_versioned(self, key: str) -> tuple[bytes, Any] | None:
        try:
            answer = await limited(obstore.get_async(self.store, key))
        except FileNotFoundError:
            return None
        return bytes(await limited(answer.bytes_async(), answer.meta["size"])), version_of(answer.meta)

    async def exists(self, key: str) -> bool:
        REQUESTS.add()
        try:
            with errors_of(f"{self.folder}/{key}"):
                await limited(obstore.head_async(self.store, key))
        except FileNotFoundError:
            return False
        return True


def _options(byte_range: ByteRequest | None) -> Any:
    if byte_range is None:
        return {}
    if isinstance(byte_range, RangeByteRequest):
        return {"range": (byte_range.start, byte_range.end)}
    if isinstance(byte_range, OffsetByteRequest):
        return {"range": {"offset": byte_range.offset}}
    return {"range": {"suffix": byte_range.suffix}}
