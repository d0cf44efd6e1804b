"""Decoded chunks shared by neighbouring blocks, so that a halo does not decode every chunk several times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from pipeline.model.raster import array_slices
from pipeline.model.region import Grid, Halo, Region
from pipeline.storage.folder.retry import Retry
from pipeline.storage.reader import Reader

Key = tuple[str, int, int, int]


@dataclass
class _Entry:
    """A decoded chunk, or one that a thread is decoding."""

    decoded: Future[np.ndarray] = field(default_factory=Future)
    users: int = 0
    """Threads that wait for it or copy from it; it is not dropped meanwhile."""
    blocks_left: int = 0
    """Blocks that have not read it yet."""


class ChunkCache:
    """At most `capacity` bytes of decoded chunks, for all threads of one process and all rasters of a pass.

    A chunk is dropped when the last block that needs it has read it, or, if the blocks come in another order than
    planned, when it was used longest ago and room is needed. Whoever needs a chunk first decodes it; others wait.
    """

    def __init__(self, capacity: int, retry: Retry | None = None) -> None:
        """`retry` reads again after errors that may pass; default: nothing is tried twice."""
        self.capacity, self.retry = capacity, retry or Retry(0)
        self.peak_bytes = 0
        self._bytes = 0
        self.lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._spare: list[np.ndarray] = []

    def acquire(self, key: Key, num_blocks: int) -> tuple[_Entry, bool]:
        """Return the entry and whether the caller has to decode it."""
        with self.lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(blocks_left=num_blocks)
            self._entries.move_to_end(key)
            entry.users += 1
            return entry, entry.users == 1 and not entry.decoded.done()

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return room for a decoded chunk: a dropped chunk's, where one of its size is at hand."""
        size = int(np.prod(shape)) * dtype.itemsize
        with self.lock:
            self._make_room(size)
            for i, spare in enumerate(self._spare):
                if spare.nbytes == size:
                    return self._spare.pop(i).view(dtype).reshape(shape)
            self._bytes += size
            self.peak_bytes = max(self.peak_bytes, self._bytes)
        return np.empty(size, np.uint8).view(dtype).reshape(shape)

    def give_back(self, values: np.ndarray) -> None:
        """Take back the room of a chunk that could not be decoded."""
        with self.lock:
            self._spare.append(values.reshape(-1).view(np.uint8))

    def release(self, key: Key, entry: _Entry) -> None:
        with self.lock:
            entry.users -= 1
            entry.blocks_left -= 1
            if entry.users == 0 and (entry.blocks_left <= 0 or not _is_good(entry)):
                self._drop(key)

    def _make_room(self, size: int) -> None:
        if any(spare.nbytes == size for spare in self._spare):
            return
        while self._spare and self._bytes + size > self.capacity:
            self._bytes -= self._spare.pop().nbytes
        for key, entry in list(self._entries.items()):
            if self._bytes + size <= self.capacity:
                return
            if entry.users == 0:
                self._drop(key)
                self._bytes -= self._spare.pop().nbytes

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and _is_good(entry):
            self._spare.append(entry.decoded.result().reshape(-1).view(np.uint8))


def _is_good(entry: _Entry) -> bool:
    return entry.decoded.done() and entry.decoded.exception() is None


class CachedReader:
    """Reads regions of one raster for the blocks of one pass, through the cache where chunks are shared."""

    def __init__(
        self,
        name: str,
        reader: Reader,
        cache: ChunkCache,
        grid: Grid,
        halo: Halo,
        unit: tuple[int, int],
    ) -> None:
        self.name, self.reader, self.cache, self.grid, self.halo = name, reader, cache, grid, halo
        self.unit = unit
        """Rows and columns kept as one: whole chunks, several where they are small."""
        self.bytes_read = 0
        """Decoded bytes so far."""

    def read(self, region: Region, out: np.ndarray, panel: tuple[int, int] | None = None) -> None:
        """Read a region inside the raster into `out`.

        `panel` are the block columns (first, end) whose blocks share chunks: those of another panel come too late to
        keep a chunk for. Default: all.
        """
        for part, key, num_blocks in self.pieces(region, panel or (0, len(self.grid.columns))):
            if key is None:
                self._read(part, out[array_slices(self.reader.spec.dims, part, (region.top, region.left))])
            else:
                self._read_shared(key, num_blocks, part, region, out)

    def pieces(self, region: Region, panel: tuple[int, int]) -> Iterator[tuple[Region, Key | None, int]]:
        """Yield what is read for a region: parts of it, which no other block needs, then chunks that are shared.

        Of a chunk: under which key it is kept, and how many blocks need it.
        """
        height, width = self.unit
        rows = range(region.top // height, -(-region.bottom // height))
        columns = range(region.left // width, -(-region.right // width))
        own_rows = [row for row in rows if self.num_block_rows(row) == 1]
        own_columns = [column for column in columns if self.num_block_columns(column, panel) == 1]
        own = Region(0, 0, 0, 0)
        if own_rows and own_columns:  # no other block needs these: straight into the block's buffer
            own = Region(
                own_rows[0] * height, (own_rows[-1] + 1) * height, own_columns[0] * width, (own_columns[-1] + 1) * width
            ).clip(region)
            for row in range(own_rows[0], own_rows[-1] + 1):  # one by one: parts of an array are read through a copy
                yield Region(row * height, (row + 1) * height, own.left, own.right).clip(own), None, 1
        for row in rows:
            for column in columns:
                chunk = Region(row * height, (row + 1) * height, column * width, (column + 1) * width)
                if not own.num_pixels or not own.contains(chunk.clip(region)):
                    key = (self.name, row, column, panel[0])
                    num_blocks = self.num_block_rows(row) * self.num_block_columns(column, panel)
                    yield chunk.clip(self.reader.spec.region), key, num_blocks

    def _read(self, region: Region, out: np.ndarray) -> None:
        self.cache.retry(self.reader.read, region, out)
        with self.cache.lock:
            self.bytes_read += out.nbytes

    def num_block_rows(self, row: int) -> int:
        """Return how many rows of blocks need a row of chunks."""
        height = self.unit[0]
        first, last = self.grid.rows.locate(row * height - self.halo.bottom, (row + 1) * height + self.halo.top)
        return last - first

    def num_block_columns(self, column: int, panel: tuple[int, int]) -> int:
        """Return how many columns of blocks of a panel need a column of chunks."""
        width = self.unit[1]
        first, last = self.grid.columns.locate(column * width - self.halo.right, (column + 1) * width + self.halo.left)
        return max(1, min(last, panel[1]) - max(first, panel[0]))

    def _read_shared(self, key: Key, num_blocks: int, chunk: Region, region: Region, out: np.ndarray) -> None:
        entry, mine = self.cache.acquire(key, num_blocks)
        try:
            if mine:
                self._decode(chunk, entry)
            part, dims = chunk.clip(region), self.reader.spec.dims
            values = entry.decoded.result()[array_slices(dims, part, (chunk.top, chunk.left))]
            np.copyto(out[array_slices(dims, part, (region.top, region.left))], values)
        finally:
            self.cache.release(key, entry)

    def _decode(self, chunk: Region, entry: _Entry) -> None:
        values = None
        try:
            values = self.cache.buffer(self.reader.spec.shape_of(chunk), self.reader.spec.dtype)
            self._read(chunk, values)
        except BaseException as error:
            if values is not None:
                self.cache.give_back(values)
            entry.decoded.set_exception(error)
            raise
        entry.decoded.set_result(values)
