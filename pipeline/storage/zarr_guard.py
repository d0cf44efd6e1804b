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

from pipeline.errors import InputError
from pipeline.read_limits import ReadLimits, allowed_bytes
from pipeline.storage.zarr_codec import Chain, Piece, bound, codec_name, parse_chain

ABSENT = 2**64 - 1
"""Offset and size of a chunk that a shard leaves out."""
INDEX_CODECS = (["bytes"], ["bytes", "crc32c"])

Span = tuple[int, int]
"""First element and the one after the last, along one axis."""


class ChunkGuard:
    """Knows how large a chunk of an array may be, stored and decoded, and checks those that are about to be read.

    Raises InputError where the codecs are not read, or a chunk is larger than `run.limits` allows.
    """

    def __init__(self, array: zarr.Array[Any], path: str, limits: ReadLimits) -> None:
        self.path, self.limits = path, limits
        self._array_path = array.path
        self._metadata = array.metadata
        self._chunks, self._shards = tuple(array.chunks), array.shards
        if not all(self._chunks):
            raise InputError(f"{path}: the array {array.path} has chunks of {self._chunks}; copy the store again")
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

    def _most_bytes(self, dtype: np.dtype) -> int:
        """Return what a chunk may take on its way from the file to the array."""
        if any(name.startswith("vlen") for name in self._chain.filters):
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
        """Check all chunks that meet a part of the array; those that are not there are left to the reader."""
        for index in _cells(spans, self._shards or self._chunks):
            key = os.path.join(self._array_path, self._metadata.encode_chunk_key(index))
            try:
                descriptor = os.open(os.path.join(self.path, key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                self._check_file(descriptor, key, index, spans)
            finally:
                os.close(descriptor)

    def _check_file(self, descriptor: int, key: str, index: tuple[int, ...], spans: Sequence[Span]) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{self.path}: chunk {key} is not a file; copy the store again")
        if self._shards is None:
            self._check_piece(Piece(descriptor, 0, status.st_size), f"chunk {key}")
            return
        for place, offset, size in self._entries(descriptor, status.st_size, key, index, spans):
            self._check_piece(Piece(descriptor, offset, size), f"chunk {place} of shard {key}")

    def _entries(
        self, descriptor: int, file_size: int, key: str, index: tuple[int, ...], spans: Sequence[Span]
    ) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Yield place, offset and size of the chunks of a shard that meet a part of the array."""
        count = self._index_bytes
        if count > file_size:
            raise InputError(f"{self.path}: shard {key} has {file_size} bytes, its index takes {count}; copy it again")
        data = os.pread(descriptor, count, 0 if self._index_at_start else file_size - count)
        table = np.frombuffer(data[: count - self._index_suffix], "<u8").reshape(*self._per_shard, 2)
        assert self._shards is not None
        inside = [
            (max(start, i * size) - i * size, min(stop, (i + 1) * size) - i * size)
            for (start, stop), i, size in zip(spans, index, self._shards, strict=True)
        ]
        for place in _cells(inside, self._chunks):
            offset, size = (int(value) for value in table[place])
            if offset == ABSENT and size == ABSENT:
                continue
            if offset + size > file_size:
                raise InputError(
                    f"{self.path}: chunk {place} of shard {key} ends at byte {offset + size}, the file at byte "
                    f"{file_size}; copy it again"
                )
            yield place, offset, size

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
        if self._chain.compressor is not None:
            self.limits.check_ratio(f"{self.path}: {what}", self._decoded, piece.size)


def _codecs(array: zarr.Array[Any]) -> list[Any]:
    """Return the codecs of an array in the order in which they encode."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 3:
        return list(metadata.codecs)
    return [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor is not None else [])]


def _cells(spans: Sequence[Span], sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the cells of a regular grid that meet a box."""
    return product(*(range(start // size, -(-stop // size)) for (start, stop), size in zip(spans, sizes, strict=True)))
