"""The files of a Zarr array, looked at before their chunks are decoded: what they would fill the memory with."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ShardingCodec

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits, allowed_bytes
from pipeline.storage.folder.listing import Expected, file_status
from pipeline.storage.folder.metadata import METADATA
from pipeline.storage.zarr.codec import (
    Chain,
    Piece,
    ReadAt,
    bound,
    codec_name,
    file_reader,
    memory_reader,
    num_texts,
    parse_chain,
)

ABSENT = 2**64 - 1
"""Offset and size of a chunk that a shard leaves out."""
INDEX_CODECS = (["bytes"], ["bytes", "crc32c"])

Span = tuple[int, int]
"""First element and the one after the last, along one axis."""


class ChunkGuard:
    """Knows how large a chunk of an array may be, stored and decoded, and checks those that are about to be read.

    Raises InputError where the codecs are not read, or a chunk is larger than `run.limits` allows.
    """

    def __init__(self, array: zarr.Array[Any], path: str, limits: ReadLimits, expected: Expected | None = None) -> None:
        self.path, self.limits, self.expected = path, limits, expected
        self._objects: Any = array.store if hasattr(array.store, "guard") else None
        self._array_path = array.path
        self._metadata = array.metadata
        self._chunks, self._shards = tuple(array.chunks), array.shards
        sizes = _impossible_sizes(array)
        if sizes is not None:
            raise InputError(f"{path}: the array {array.path} has chunks of {sizes}; copy the store again")
        codecs: Sequence[Any] = _codecs(array)
        self._index_at_start = False
        if self._shards is not None:
            codecs, self._index_at_start = self._open_shards(codecs)
        self._chain: Chain = parse_chain(codecs, path)
        self._decoded = math.prod(self._chunks) * array.dtype.itemsize
        limits.check_tile(
            f"{path}: chunks of {' x '.join(map(str, self._chunks))} {array.dtype}",
            self._decoded,
            "write the array with smaller chunks",
        )
        self._allowed = self._most_bytes(array.dtype)

    @property
    def _holds_texts(self) -> bool:
        return any(name.startswith("vlen") for name in self._chain.filters)

    def _check_texts(self, piece: Piece, what: str) -> None:
        try:
            count = num_texts(piece, self._chain.compressor)
        except ValueError as error:
            raise InputError(f"{self.path}: {what} is damaged: {error}; copy it again") from error
        if count > math.prod(self._chunks):
            raise InputError(
                f"{self.path}: {what} claims {count:,} texts, {math.prod(self._chunks):,} are due; it is damaged or a "
                "trap: copy it again"
            )

    def _most_bytes(self, dtype: np.dtype) -> int:
        """Return what a chunk may take on its way from the file to the array."""
        if self._holds_texts:
            return self.limits.allocation_bytes
        widest = max(dtype.itemsize, 8 if "astype" in self._chain.filters else 0)
        return allowed_bytes(math.prod(self._chunks) * widest)

    def _open_shards(self, codecs: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """Return the codecs of the chunks in a shard, and whether its index comes first."""
        (sharding,) = codecs  # an array that says it has shards has no other codec
        assert isinstance(sharding, ShardingCodec)
        if any(isinstance(codec, ShardingCodec) for codec in sharding.codecs):
            raise InputError(f"{self.path}: shards inside of shards are not read; write the array with one kind")
        names = [codec_name(codec) for codec in sharding.index_codecs]
        if names not in INDEX_CODECS:
            raise InputError(f"{self.path}: an index of shards in the codecs {names} is not read; write the array anew")
        self._index_suffix = 4 * (len(names) - 1)
        endian = getattr(sharding.index_codecs[0], "endian", None)
        self._index_dtype = ">u8" if getattr(endian, "value", endian) == "big" else "<u8"
        self.limits.check_allocation(f"{self.path}: the index of a shard", self._index_bytes)
        location = sharding.index_location  # an enumeration before zarr 3.4, then its text
        return sharding.codecs, getattr(location, "value", location) == "start"

    @property
    def _per_shard(self) -> tuple[int, ...]:
        assert self._shards is not None
        return tuple(shard // chunk for shard, chunk in zip(self._shards, self._chunks, strict=True))

    @property
    def _index_bytes(self) -> int:
        return 16 * math.prod(self._per_shard) + self._index_suffix

    def check(self, spans: Sequence[Span]) -> None:
        """Check all chunks that meet a part of the array; those that are not there are left to the reader.

        Objects of a remote store are checked as they come.
        """
        if self._objects is not None:
            self._objects.guard = self
            return
        for index in _cells(spans, self._shards or self._chunks):
            key = self._key(index)
            try:
                descriptor = os.open(os.path.join(self.path, key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                self.check_status(key, None)
                continue
            try:
                self._check_file(descriptor, key, index, spans)
            finally:
                os.close(descriptor)

    def check_again(self, spans: Sequence[Span]) -> None:
        """Check that the files that were read are still those that `check` has seen; objects come with their status."""
        if self._objects is not None or self.expected is None:
            return
        for index in _cells(spans, self._shards or self._chunks):
            key = self._key(index)
            try:
                status = file_status(os.stat(os.path.join(self.path, key)))
            except (FileNotFoundError, NotADirectoryError):
                status = None
            self.check_status(key, status)

    def check_status(self, key: str, status: str | None) -> None:
        """Compare a chunk that is about to be read, or is not there (None), with what is known of it."""
        if self.expected is not None and not _is_metadata(key):
            self.expected.check(key.removeprefix(f"{self._array_path}/"), status)

    def _key(self, index: tuple[int, ...]) -> str:
        return os.path.join(self._array_path, self._metadata.encode_chunk_key(index))

    def _check_file(self, descriptor: int, key: str, index: tuple[int, ...], spans: Sequence[Span]) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{self.path}: chunk {key} is not a file; copy the store again")
        self.check_status(key, file_status(status))
        read_at, size = file_reader(descriptor), status.st_size
        if self._shards is None:
            self._check_piece(Piece(read_at, 0, size), f"chunk {key}")
            return
        self._check_shard(read_at, size, key, self._inside(index, spans))

    def check_object_size(self, key: str, num_bytes: int) -> None:
        """Check what is about to come from an object store."""
        count = math.prod(self._per_shard) if self._shards is not None else 1
        most = count * (self._allowed + self._chain.suffix) + (self._index_bytes if self._shards is not None else 0)
        if not _is_metadata(key) and num_bytes > most:
            raise InputError(
                f"{self.path}: {key} has {num_bytes:,} bytes, at most {most:,} are due; it is no such chunk: "
                "copy it again"
            )

    def check_object(self, key: str, data: memoryview, start: int, size: int) -> None:
        """Check bytes, from `start` on, of a chunk or shard of `size` bytes that came from an object store."""
        if _is_metadata(key):
            return
        read_at = memory_reader(data, start)
        if self._shards is None:
            self._check_piece(Piece(read_at, start, len(data)), f"chunk {key}")
        elif start == 0 and len(data) == size:
            self._check_shard(read_at, size, key, [(0, count) for count in self._per_shard])
        elif (start, len(data)) == (self._index_start(size), self._index_bytes):
            self._read_index(read_at, size, key)
        else:
            self._check_piece(Piece(read_at, start, len(data)), f"a chunk of shard {key}")

    def _inside(self, index: tuple[int, ...], spans: Sequence[Span]) -> list[Span]:
        """Return the chunks of a shard, along each axis, that meet a part of the array."""
        assert self._shards is not None
        shard = zip(spans, index, self._shards, self._chunks, strict=True)
        inside = [(max(a, i * n) - i * n, min(b, (i + 1) * n) - i * n, step) for (a, b), i, n, step in shard]
        return [(first // step, -(-last // step)) for first, last, step in inside]

    def _check_shard(self, read_at: ReadAt, size: int, key: str, places: Sequence[Span]) -> None:
        table = self._read_index(read_at, size, key)
        for place in product(*(range(*span) for span in places)):
            offset, count = (int(value) for value in table[place])
            if (offset, count) != (ABSENT, ABSENT):
                self._check_piece(Piece(read_at, offset, count), f"chunk {place} of shard {key}")

    def _index_start(self, size: int) -> int:
        return 0 if self._index_at_start else size - self._index_bytes

    def _read_index(self, read_at: ReadAt, size: int, key: str) -> np.ndarray:
        """Return offset and size of the chunks of a shard, which all lie in it and beside its index."""
        count = self._index_bytes
        if count > size:
            raise InputError(f"{self.path}: shard {key} has {size} bytes, its index takes {count}; copy it again")
        data = read_at(count, self._index_start(size))
        table = np.frombuffer(data[: count - self._index_suffix], self._index_dtype).astype("<u8")
        table = table.reshape(*self._per_shard, 2)
        first, last = (
            np.uint64(count if self._index_at_start else 0),
            np.uint64(size if self._index_at_start else size - count),
        )
        offsets, sizes = table[..., 0], table[..., 1]
        outside = (offsets < first) | (offsets > last) | (sizes > last - np.minimum(offsets, last))
        wrong = np.argwhere(outside & (table != ABSENT).any(axis=-1))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            offset, num_bytes = (int(value) for value in table[place])
            raise InputError(
                f"{self.path}: chunk {place} of shard {key} starts at byte {offset} and ends at byte "
                f"{offset + num_bytes}, the file at byte {size}, {count} of them the index; copy it again"
            )
        return table

    def _check_piece(self, piece: Piece, what: str) -> None:
        allowed = self._allowed
        if piece.size > allowed + self._chain.suffix:
            raise InputError(
                f"{self.path}: {what} has {piece.size:,} bytes, and decoded it has {self._decoded:,}; "
                "it is no such chunk: copy it again"
            )
        piece.size = max(0, piece.size - self._chain.suffix)
        try:
            most = bound(piece, self._chain.compressor, allowed)
        except ValueError as error:
            raise InputError(f"{self.path}: {what} is damaged: {error}; copy it again") from error
        if most > allowed:
            raise InputError(
                f"{self.path}: {what} claims or decodes to {most:,} bytes or more, {self._decoded:,} are due; "
                "it is damaged or a trap: copy it again"
            )
        if self._holds_texts:
            self._check_texts(piece, what)
        if self._chain.compressor is not None:
            self.limits.check_ratio(f"{self.path}: {what}", self._decoded, piece.size)


def _impossible_sizes(array: zarr.Array[Any]) -> tuple[Any, ...] | None:
    """Return the sizes of chunks or shards of no pixels, where the array has such."""
    # zarr 3.4 and later read a size of 0 as another one, and keep the metadata that gave it.
    stored = getattr(array.metadata, "_stored_document", None)
    if stored is not None:
        grid = stored.get("chunk_grid") or {"configuration": {"chunk_shape": stored.get("chunks")}}
        return tuple(grid["configuration"]["chunk_shape"])
    return next((sizes for sizes in (array.chunks, array.shards) if sizes is not None and not all(sizes)), None)


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] in METADATA


def _codecs(array: zarr.Array[Any]) -> list[Any]:
    """Return the codecs of an array in the order in which they encode."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 3:
        return list(metadata.codecs)
    return [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor is not None else [])]


def _cells(spans: Sequence[Span], sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the cells of a regular grid that meet a box."""
    return product(*(range(start // size, -(-stop // size)) for (start, stop), size in zip(spans, sizes, strict=True)))
