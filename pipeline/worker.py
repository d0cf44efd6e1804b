"""What a worker does with one block of a pass: read, compute, write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.errors import InputError, OutputError, RunStopped
from pipeline.kernels import validity
from pipeline.kernels.exact_total import Total
from pipeline.passes import Arena, Fetch, Tables, compute_block, cut_from
from pipeline.planning import PlannedPass
from pipeline.raster import RasterSpec, array_slices
from pipeline.reduction import BlockCollector, Merger, Partials
from pipeline.region import Halo, Region, wrap_pieces
from pipeline.storage.cache import CachedReader, ChunkCache
from pipeline.storage.folder import REQUESTS
from pipeline.storage.listing import mark_of
from pipeline.storage.reader import Reader
from pipeline.storage.retry import RETRIES, Retry


@dataclass(frozen=True, slots=True)
class BlockDone:
    """The receipt for a block whose data are written."""

    pass_number: int
    block: int
    written: int
    """Stands for the files of the block, as they were written."""
    valid: tuple[int, ...]
    """Valid values per written raster, in the order of the pass."""
    totals: tuple[Total, ...] = ()
    """Of the steps that are measured, in the order of the pass."""


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
        planned: PlannedPass,
        readers: Mapping[str, Reader],
        writers: Mapping[str, Writer],
        tables: Tables,
        merger: Merger,
        retries: int = RETRIES,
    ) -> None:
        self.planned, self.plan = planned, planned.plan
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
        self._requests_before = REQUESTS.count
        self._arenas: list[Arena] = []  # of blocks that ended; appending and popping are atomic
        # blocks that exchange their rims read nothing of their neighbours'
        exchanges = self.planned.halo == "exchange"
        self.cache = ChunkCache(0 if exchanges else self.planned.cost.cache_bytes)
        self._cached = {
            raster: CachedReader(
                raster,
                self.readers[raster],
                self.cache,
                self.plan.grid,
                Halo() if exchanges else self.plan.halos[raster],
                self.planned.units[raster],
                self.retry,
            )
            for raster in self.plan.stored
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
    def requests(self) -> int:
        """Requests of this process to object stores so far."""
        return REQUESTS.count - self._requests_before

    def run_block(self, number: int) -> tuple[BlockDone, Partials]:
        """Read a block with its halo, compute it, write it; return its partial tables too."""
        return self._run(number, self._fetch)

    def run_exchanged(self, number: int, parts: Mapping[str, np.ndarray]) -> tuple[BlockDone, Partials]:
        """Compute and write a block whose stored rasters, with halo, were handed over by neighbours."""
        return self._run(number, cut_from(self.plan, self.plan.grid.block(number), parts))

    def read_part(self, number: int, raster: str, region: Region) -> np.ndarray:
        """Return a region of a stored raster, for a block, in its dims, also beyond its edges (periodic)."""
        out = np.empty(self.plan.specs[raster].shape_of(region), self.plan.specs[raster].dtype)
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
            plan = self.plan
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
        self._local.panel = self.plan.grid.panel_of(number)
        block = self.plan.grid.block(number)
        collector = BlockCollector(self.merger)
        arrays = compute_block(self.plan, block, fetch, arena, tables=self.tables, collector=collector)
        valid, marks = [], list[int]()
        for raster, values in arrays.items():
            array = self.planned.arrays[raster]
            valid.append(count_valid(values, array.spec))
            region = block.shift(-array.region.top, -array.region.left)
            marks += self.retry(self.writers[raster].write, region, values)
        totals = tuple(collector.totals[step] for step in self.plan.measured)
        return BlockDone(self.plan.number, number, mark_of_block(marks), tuple(valid), totals), collector.partials

    def _fetch(self, raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        spec = self.plan.specs[raster]
        panel = getattr(self._local, "panel", None)
        if not periodic or spec.region.contains(region):
            self._cached[raster].read(region, out, panel)
            return
        for piece, source in wrap_pieces(region, spec.height, spec.width):
            part = out[array_slices(spec.dims, piece, (region.top, region.left))]
            self._cached[raster].read(source, part, panel)


def mark_of_block(marks: Sequence[int]) -> int:
    """Return what stands for the files of a block, from the marks of each."""
    return mark_of(" ".join(map(str, marks)))


def count_valid(values: np.ndarray, spec: RasterSpec) -> int:
    """Return how many values of a stored array are valid."""
    if spec.nodata is None:
        return values.size
    if values.dtype == np.float16:
        return int(np.count_nonzero(~(np.isnan(values) | (values == values.dtype.type(spec.nodata)))))
    return int(validity.count_valid(values.reshape(-1), values.dtype.type(spec.nodata)))
