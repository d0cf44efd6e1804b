"""What a worker does with one block of a pass: read, compute, write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from pipeline.block.buffers import Arena
from pipeline.block.compute import Fetch, Tables, compute_block, cut_from
from pipeline.block.plan import Pass
from pipeline.execution.partials import BlockCollector, Merger, Partials
from pipeline.execution.receipt import BlockDone, Counts, mark_of_block
from pipeline.kernels import validity
from pipeline.model.errors import InputError, OutputError, RunStopped
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Halo, Region, wrap_pieces
from pipeline.storage.cache import CachedReader, ChunkCache
from pipeline.storage.folder.base import REQUESTS
from pipeline.storage.folder.retry import RETRIES, Retry
from pipeline.storage.reader import Reader


class Writer(Protocol):
    """Where the blocks of a raster go."""

    def write(self, region: Region, values: np.ndarray) -> Sequence[int]:
        """Take a region, in rows and columns of the array that is written; return the marks of the files it makes.

        Several threads may do so at once.
        """


class PassWorker:
    """Computes the blocks of one pass; shared by the threads of a process, and sent to other processes."""

    def __init__(
        self,
        planned: Pass,
        readers: Mapping[str, Reader],
        writers: Mapping[str, Writer],
        tables: Tables,
        merger: Merger,
        retries: int = RETRIES,
    ) -> None:
        self.planned = planned
        self.readers, self.writers = readers, writers
        self.tables, self.merger = tables, merger
        self.retry = Retry(retries)
        self._prepare()

    @property
    def stopped(self) -> Callable[[], bool]:
        """Whether the run stops, so that no block begins and none waits to try again."""
        return self.retry.stopped

    @stopped.setter
    def stopped(self, stopped: Callable[[], bool]) -> None:
        self.retry.stopped = stopped  # which does not know the worker: its buffers go with it, at once

    def _prepare(self) -> None:
        self._local = threading.local()
        self._before = REQUESTS.count, REQUESTS.num_bytes
        self._arenas: list[Arena] = []  # of blocks that ended; appending and popping are atomic
        capacity = 0 if self.planned.halo == "exchange" else self.planned.cost.cache_bytes
        self.cache = ChunkCache(capacity, self.retry)
        self._cached = {
            raster: cached_reader(self.planned, raster, self.readers[raster], self.cache)
            for raster in self.planned.stored
        }

    def __getstate__(self) -> dict[str, Any]:
        return {
            "planned": self.planned,
            "readers": self.readers,
            "writers": self.writers,
            "tables": self.tables,
            "merger": self.merger,
            "retries": self.retry.retries,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def bytes_read(self) -> int:
        """Decoded bytes so far."""
        return sum(reader.bytes_read for reader in self._cached.values())

    @property
    def counts(self) -> Counts:
        """What was done so far; the requests are those of this process."""
        requests, num_bytes = self._before
        return Counts(
            self.bytes_read,
            self.retry.count,
            requests=REQUESTS.count - requests,
            bytes_fetched=REQUESTS.num_bytes - num_bytes,
        )

    def run_block(self, number: int) -> tuple[BlockDone, Partials]:
        """Read a block with its halo, compute it, write it; return its partial tables too."""
        return self._run(number, self._fetch)

    def run_exchanged(self, number: int, parts: Mapping[str, np.ndarray]) -> tuple[BlockDone, Partials]:
        """Compute and write a block whose stored rasters, with halo, were handed over by neighbours."""
        return self._run(number, cut_from(self.planned, self.planned.grid.block(number), parts))

    def read_part(self, number: int, raster: str, region: Region) -> np.ndarray:
        """Return a region of a stored raster, for a block, in its dims, also beyond its edges (periodic)."""
        out = np.empty(self.planned.specs[raster].shape_of(region), self.planned.specs[raster].dtype)
        with self._errors_of(number):
            self._fetch(raster, region, out, periodic=True)
        return out

    def _run(self, number: int, fetch: Fetch) -> tuple[BlockDone, Partials]:
        with self._errors_of(number):
            return self._compute(number, fetch)

    @contextmanager
    def _errors_of(self, number: int) -> Iterator[None]:
        """Say in errors of reading and writing which block and which steps they stop; begin none after a stop."""
        if self.stopped():
            raise RunStopped(f"stopped before block {number}")
        try:
            yield
        except (InputError, OutputError, OSError) as error:
            plan = self.planned
            steps = [step.name for step in (*plan.steps, *(sweep.step for sweep in plan.sweeps))]
            word = "step" if len(steps) == 1 else "steps"
            where = f"block {number} of {len(plan.grid)} ({plan.grid.block(number)}; {word} {', '.join(steps)})"
            kind = type(error) if isinstance(error, InputError) else OutputError
            raise kind(f"{where}: {error}") from error

    def _compute(self, number: int, fetch: Fetch) -> tuple[BlockDone, Partials]:
        try:
            arena = self._arenas.pop()
        except IndexError:
            arena = Arena(self.planned.slots)
        arena.begin()
        try:
            return self._compute_in(arena, number, fetch)
        finally:
            self._arenas.append(arena)

    def _compute_in(self, arena: Arena, number: int, fetch: Fetch) -> tuple[BlockDone, Partials]:
        self._local.panel = self.planned.grid.panel_of(number)
        block = self.planned.grid.block(number)
        collector = BlockCollector(self.merger)
        arrays = compute_block(self.planned, block, fetch, arena, tables=self.tables, collector=collector)
        valid, marks = [], list[int]()
        for raster, values in arrays.items():
            array = self.planned.arrays[raster]
            valid.append(count_valid(values, array.spec))
            region = block.shift(-array.region.top, -array.region.left)
            marks += self.retry(self.writers[raster].write, region, values)
        totals = tuple(collector.totals[step] for step in self.planned.measured)
        return BlockDone(self.planned.number, number, mark_of_block(marks), tuple(valid), totals), collector.partials

    def _fetch(self, raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        spec = self.planned.specs[raster]
        panel = getattr(self._local, "panel", None)
        if not periodic or spec.region.contains(region):
            self._cached[raster].read(region, out, panel)
            return
        for piece, source in wrap_pieces(region, spec.height, spec.width):
            part = out[array_slices(spec.dims, piece, (region.top, region.left))]
            self._cached[raster].read(source, part, panel)


def cached_reader(planned: Pass, raster: str, reader: Reader, cache: ChunkCache) -> CachedReader:
    """Return what reads a stored raster for the blocks of a pass."""
    halo = Halo() if planned.halo == "exchange" else planned.halos[raster]  # which reads nothing of its neighbours
    return CachedReader(raster, reader, cache, planned.grid, halo, planned.units[raster])


def count_valid(values: np.ndarray, spec: RasterSpec) -> int:
    """Return how many values of a stored array are valid."""
    if spec.nodata is None:
        return values.size
    if values.dtype == np.float16:
        return int(np.count_nonzero(~(np.isnan(values) | (values == values.dtype.type(spec.nodata)))))
    return int(validity.count_valid(values.reshape(-1), values.dtype.type(spec.nodata)))
