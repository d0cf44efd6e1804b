"""Blocks that fit the memory: the shape, panel width and halo way that are predicted to be fastest."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from pipeline.errors import PipelineError
from pipeline.passes import PassPlan, Slots, StepPlan, plan_slots
from pipeline.planning.plan import PassCost, PlannedPass, Settings, StoredArray, format_bytes
from pipeline.raster import RasterSpec
from pipeline.reduction import PARTIAL_BYTES
from pipeline.region import Axis, Grid, Halo, Region
from pipeline.storage.folder import REQUESTS_AT_ONCE

MIB = 2**20
BASE_BYTES = 336 * MIB
"""Python, libraries and compiled kernels (compiled by another process): measured, see docs/design.md."""
EXCHANGE_BASE_BYTES = 96 * MIB
"""dask.array, which only an exchange of halos imports."""
EXCHANGE_COPIES = 5
"""Of a strip: blocks as read, with rims pasted above and below, with rims all around, and what is not yet freed.

Measured for 64 MB on two workers: 3.2 to 4.8.
"""
STRIP_BLOCKS = 1024
SWEEP_BLOCKS = 64
"""Blocks whose partial tables are saved together, so that a resumed run does not begin the sweep anew."""
SWEEP_STRIPS = 256
TABLE_SHARE = 0.125
MAX_TABLE_BYTES = 1024 * MIB
"""What tables may take of the memory at most; what is larger goes to the disk."""
PARTIAL_COPIES = 3
"""While a partial table is made or merged: its parts and itself."""
TABLES_AT_ONCE = 8
"""Partial tables that wait to be merged, besides those of the blocks in work."""
PANEL_CHUNKS = 5
"""Blocks or chunks, whichever are wider, that a panel spans at most: its margins, decoded twice, then are few."""
DECODE_RATE = 1.7e9
COMPUTE_RATE = 2.5e9
COPY_RATE = 5e9
BLOCK_SECONDS = 2e-3
CALL_SECONDS = 5e-4
EXCHANGE_TASKS = 15
EXCHANGE_SECONDS = 4e-4
EXCHANGE_RATE = 1.7e8
"""Bytes a second and worker: what is exchanged is copied several times, always into fresh memory.

Measured: 5.5 s more for 1.6 GB on two workers than where halos are read with the blocks
(`python -m benchmarks.studies.halo`).
"""
WAITING = 1.1
"""What blocks that wait for I/O cost when no other block is in work meanwhile."""
MEMORY_PENALTY = 1.0 / 2**30
"""Share of the time that a byte is worth: of two plans about as fast, the smaller one.

A share, so that a larger raster gets the blocks of a smaller one; bytes and seconds as measured, see docs/design.md.
"""


@dataclass(frozen=True)
class _Candidate:
    plan: PassPlan
    slots: Slots
    cost: PassCost
    halo: Literal["read", "exchange"]
    strip: tuple[int, int]


SAMPLED_BLOCKS = 2**16
"""Along an axis: of more, the first ones are counted."""
REMOTE_BYTES = 64 * 2**20
"""What the libraries of object stores take, and what is on its way."""
BLOCK_LIMIT = 2**24
"""Of a pass: planning and the journal take some hundred bytes for each."""


class TooLittleMemory(PipelineError):
    """A pass does not fit the memory, whatever its blocks."""

    def __init__(self, message: str, need_bytes: int) -> None:
        super().__init__(message, ("run", "memory"))
        self.need_bytes = need_bytes


class Fitter:
    """Chooses block shape, panel width and halo way of one pass by predicted cost, within the memory."""

    def __init__(
        self,
        build: Callable[[Grid], PassPlan],
        arrays: Mapping[str, StoredArray],
        chunks: Mapping[str, tuple[int, int]],
        pixel_bytes: Mapping[str, int],
        settings: Settings,
        region: Region,
    ) -> None:
        """`pixel_bytes` are those of all bands of the stored rasters, also where only some are read."""
        self.build, self.arrays, self.settings, self.region = build, arrays, settings, region
        self.pixel_bytes = pixel_bytes
        self.probe = build(Grid(Axis(region.top, region.bottom, 1), Axis(region.left, region.right, 1), 1))
        self.units = {
            raster: _coarse_unit(chunk, self.probe.specs[raster].region, pixel_bytes[raster])
            for raster, chunk in chunks.items()
        }
        self.block_unit = _block_unit(arrays, self.units, region)

    def fit(self, number: int) -> PlannedPass:
        if self.settings.grids is not None:
            candidates = list(self.candidates_of(self.settings.grids[number]))
        else:
            candidates = [c for grid in self.grids() for c in self.candidates_of(grid)]
        if not candidates and not any(self.grids()):
            height, width = self.region.shape
            raise PipelineError(
                f"{height:,} x {width:,} pixels take more than {BLOCK_LIMIT:,} blocks that fit the memory; "
                "compute a `region` of it, or raise run.memory",
                ("run", "memory"),
            )
        if not candidates:
            raise PipelineError(
                "`exchange` needs blocks no thinner than the halo, and none fits the memory; use `halo: read`",
                ("run", "halo"),
            )
        fitting = [c for c in candidates if c.cost.peak_bytes <= self.settings.memory_bytes]
        if not fitting:
            self.refuse(min(candidates, key=lambda c: c.cost.peak_bytes))
        best = min(fitting, key=lambda c: c.cost.seconds * (1 + c.cost.peak_bytes * MEMORY_PENALTY))
        return PlannedPass(best.plan, self.arrays, self.units, best.slots, best.cost, best.halo, best.strip)

    def grids(self) -> Iterator[Grid]:
        """Yield block grids worth looking at: whole units, up to a quarter of the memory per block."""
        height, width = self.region.shape
        rows = _multiples(self.block_unit[0], height)
        columns = _multiples(self.block_unit[1], width)
        rasters = [array.spec for array in self.arrays.values()] or [self.probe.specs[r] for r in self.probe.stored]
        pixel = max(spec.pixel_bytes for spec in rasters)
        for block_rows, block_columns in product(rows, columns):
            if -(-height // block_rows) * -(-width // block_columns) > BLOCK_LIMIT:
                continue
            small = block_rows == rows[0] and block_columns == columns[0]
            if small or block_rows * block_columns * pixel <= self.settings.memory_bytes / 4:
                yield self.grid(block_rows, block_columns)

    def grid(self, rows: int, columns: int) -> Grid:
        region = self.region
        return Grid(
            Axis(region.top, region.bottom, rows, max(1, rows // 4)),
            Axis(region.left, region.right, columns, max(1, columns // 4)),
            panel=2**31,
        )

    def candidates_of(self, grid: Grid) -> Iterator[_Candidate]:
        ways = ("read", "exchange") if self.settings.halo == "auto" else (self.settings.halo,)
        if "read" in ways:
            slots = plan_slots(self.build(grid))
            panels = self.panels(grid) if self.settings.grids is None else [grid.panel]
            for panel, in_flight in product(panels, self.in_flight(grid)):
                yield self.read_candidate(replace(grid, panel=panel), slots, in_flight)
        if "exchange" in ways:
            yield from self.exchange_candidates(grid)

    def panels(self, grid: Grid) -> list[int]:
        """Return how many blocks wide a panel may be: the cache of a wider one would grow with the raster."""
        widest = max([grid.columns.step, *(columns for _, columns in self.units.values())])
        return [1, *(n for n in _multiples(1, len(grid.columns)) if 1 < n <= PANEL_CHUNKS * widest / grid.columns.step)]

    def in_flight(self, grid: Grid) -> set[int]:
        """Return how many blocks may be in work at once: one a worker, or one more to overlap I/O and computing."""
        workers = self.settings.workers
        return {min(n, len(grid)) for n in ((1,) if workers == 1 else (workers, workers + 1))}

    def read_candidate(self, grid: Grid, slots: Slots, in_flight: int) -> _Candidate:
        """Each block reads itself and its halo; a cache holds the chunks that neighbours share."""
        plan = self.build(grid)
        height, width = grid.largest
        cache = read = source = calls = 0
        for raster in plan.stored:
            spec, unit, halo = plan.specs[raster], self.units[raster], plan.halos[raster]
            touch = _Touches(grid, unit, halo, spec)
            pixel = unit[0] * unit[1] * spec.pixel_bytes
            cache += touch.cached_chunks * pixel
            read += touch.decoded * pixel
            source += touch.distinct * pixel
            calls += touch.decoded
        worker = slots.num_bytes + self.scratch_bytes(plan, (height, width)) + self.codec_bytes(plan)
        cost = self.cost(plan, worker, cache, read, source, len(grid), calls * CALL_SECONDS, in_flight)
        strip = STRIP_BLOCKS if not plan.sweeps else max(SWEEP_BLOCKS, -(-len(grid) // SWEEP_STRIPS))
        return _Candidate(plan, slots, cost, "read", (1, min(len(grid), strip)))

    def exchange_candidates(self, grid: Grid) -> Iterator[_Candidate]:
        """Blocks are read once and exchange their rims through map_overlap, a strip of blocks at a time."""
        halo = Halo()
        for raster in self.probe.stored:
            halo |= self.probe.halos[raster]
        around = max(halo.top, halo.bottom), max(halo.left, halo.right)
        if self.settings.grids is None:  # a block hands its rim to its neighbours, so none may be thinner
            tall, wide = (
                replace(axis, shortest=max(axis.shortest, most))
                for axis, most in zip((grid.rows, grid.columns), around, strict=True)
            )
            grid = replace(grid, rows=tall, columns=wide)
        if any(
            len(axis) > 1 and axis.thinnest < most for axis, most in zip((grid.rows, grid.columns), around, strict=True)
        ):
            return
        plan = self.build(grid)
        slots = plan_slots(plan)
        height, width = grid.largest
        pixel = sum(plan.specs[raster].pixel_bytes for raster in plan.stored)
        worker = slots.num_bytes + self.scratch_bytes(plan, (height, width)) + self.codec_bytes(plan)
        for side in _multiples(1, max(len(grid.rows), len(grid.columns))):
            strip = min(side, len(grid.rows)), min(side, len(grid.columns))
            rows = strip[0] * height + halo.top + halo.bottom
            columns = strip[1] * width + halo.left + halo.right
            live = EXCHANGE_BASE_BYTES + EXCHANGE_COPIES * rows * columns * pixel
            rim = rows * columns / (strip[0] * height * strip[1] * width)
            source = self.region.num_pixels * pixel
            seconds = len(grid) * EXCHANGE_TASKS * EXCHANGE_SECONDS
            seconds += source * rim / EXCHANGE_RATE / self.settings.workers
            num_tasks, in_flight = len(grid) * EXCHANGE_TASKS, min(self.settings.workers, len(grid))
            cost = self.cost(plan, worker, live, int(source * rim), source, num_tasks, seconds, in_flight)
            yield _Candidate(plan, slots, cost, "exchange", strip)

    def cost(
        self,
        plan: PassPlan,
        worker: int,
        shared: int,
        read: int,
        source: int,
        num_tasks: int,
        seconds: float,
        in_flight: int,
    ) -> PassCost:
        workers = min(self.settings.workers * self.settings.processes, len(plan.grid))
        written = sum(array.num_bytes for array in self.arrays.values())
        height, width = plan.grid.largest
        grown = max(
            ((height + h.top + h.bottom) * (width + h.left + h.right) / (height * width)) for h in plan.halos.values()
        )
        busy = read / DECODE_RATE + read / COPY_RATE + (source + written) * grown / COMPUTE_RATE
        busy *= WAITING if 1 < in_flight <= self.settings.workers else 1
        rounds = -(-len(plan.grid) // workers)
        idle = rounds * workers / len(plan.grid)
        total = (busy * idle + len(plan.grid) * BLOCK_SECONDS) / workers + seconds
        tables = self.table_bytes(plan)
        peak = BASE_BYTES + remote_bytes(self.settings) + in_flight * worker + shared + tables
        return PassCost(worker, in_flight, shared, peak, read, source, written, tables, num_tasks, total)

    def table_bytes(self, plan: PassPlan) -> int:
        """Return what partial tables that wait to be merged, and tables that are read, may hold in memory."""
        share = min(MAX_TABLE_BYTES, int(self.settings.memory_bytes * TABLE_SHARE))
        read = [spec.num_bytes for step in plan.steps for spec in step.table_specs.values()]
        swept = [
            TABLES_AT_ONCE * sweep.reduction.partial_bytes(sweep.step.sources, self.region.num_pixels)
            for sweep in plan.sweeps
        ]
        return sum(min(share, share if size is None else size) for size in (*read, *swept))

    def scratch_bytes(self, plan: PassPlan, shape: tuple[int, int]) -> int:
        needs = plan.needs(Region(0, shape[0], 0, shape[1]), everywhere=True)
        scratch = [step.operation.scratch_bytes(step.sources, needs.compute[step.name].shape) for step in plan.steps]
        return max(scratch, default=0) + self.partial_bytes(plan, shape[0] * shape[1])

    def partial_bytes(self, plan: PassPlan, num_pixels: int) -> int:
        """Return what the partial tables of a block hold; larger ones are made in parts, but no pixel is divided."""
        limit, total = min(self.table_bytes(plan) // TABLES_AT_ONCE, PARTIAL_BYTES), 0
        for sweep in plan.sweeps:
            whole, least = (sweep.reduction.partial_bytes(sweep.step.sources, num) for num in (num_pixels, 1))
            total += PARTIAL_COPIES * max(least, min(limit, whole))
        return total

    def codec_bytes(self, plan: PassPlan) -> int:
        """Return what encoding or decoding holds beside the block: a chunk as it is, encoded, and as read of it."""
        copies = 2 + (self.settings.is_remote or not self.settings.remote_inputs.isdisjoint(plan.stored))
        read = [
            (copies + (raster in plan.bands)) * math.prod(self.units[raster]) * self.pixel_bytes[raster]
            for raster in plan.stored
        ]
        written = [self.encoding_bytes(array, plan.grid.largest) for array in self.arrays.values()]
        return max(read + written, default=0)

    def encoding_bytes(self, array: StoredArray, block: tuple[int, int]) -> int:
        """Return what writing a block of an array holds: a chunk or shard as it is, and encoded.

        To an object store, several go at once, each as it is sent besides.
        """
        sizes = array.shards or array.chunks
        num_bytes = math.prod(sizes) * array.spec.dtype.itemsize
        if not self.settings.is_remote:
            return 2 * num_bytes
        count = math.prod(-(-n // size) for n, size in zip(array.spec.shape_of(_region(block)), sizes, strict=True))
        return 3 * min(REQUESTS_AT_ONCE, count) * num_bytes

    def refuse(self, smallest: _Candidate) -> None:
        steps = (*smallest.plan.steps, *(sweep.step for sweep in smallest.plan.sweeps))
        step = max(steps, key=lambda step: _step_bytes(smallest.plan, step))
        need, have = self.needed_bytes(smallest.plan.grid), self.settings.memory_bytes
        height, width = smallest.plan.grid.largest
        busy = smallest.cost.in_flight
        workers, fewer = ("1 worker", "") if busy == 1 else (f"{busy} workers", ", use fewer workers")
        if self.settings.grids is None:
            needs = f"the run may use {format_bytes(have)}, but needs at least {format_bytes(need)}"
            remedy = f"set it to {format_bytes(need, up=True)} or more{fewer}, or smaller output chunks"
        else:
            needs = f"the unfinished run's blocks need at least {format_bytes(need)}, and may use {format_bytes(have)}"
            remedy = f"give `--memory {format_bytes(need, up=True)}` or more{fewer.replace(', use', ', or')}"
        largest = f"{workers} with blocks of {height} x {width}, of which step {step.name!r} takes most"
        raise TooLittleMemory(f"{needs}: {largest}; {remedy}", need)

    def needed_bytes(self, grid: Grid) -> int:
        """Return the memory that blocks fit: tables may take a share of it, so of more memory more is needed."""
        fitter, need = copy.copy(self), self.settings.memory_bytes
        while True:
            fitter.settings = replace(self.settings, memory_bytes=need)
            peak = min(candidate.cost.peak_bytes for candidate in fitter.candidates_of(grid))
            if peak <= need:
                return need
            need = peak


def _region(shape: tuple[int, int]) -> Region:
    return Region(0, shape[0], 0, shape[1])


def remote_bytes(settings: Settings) -> int:
    return REMOTE_BYTES if settings.is_remote or settings.remote_inputs else 0


def _step_bytes(plan: PassPlan, step: StepPlan) -> int:
    return sum(use.spec.pixel_bytes for use in step.uses) + sum(spec.pixel_bytes for spec in step.natural.values())


def _block_unit(
    arrays: Mapping[str, StoredArray], units: Mapping[str, tuple[int, int]], region: Region
) -> tuple[int, int]:
    """Return the rows and columns that every block is a multiple of: whole chunks of all that a pass writes.

    A pass that only sweeps takes whole chunks of what it reads, of the largest chunks where they differ.
    """
    rows, columns = [array.unit[0] for array in arrays.values()], [array.unit[1] for array in arrays.values()]
    if not arrays:
        rows, columns = [max(unit[0] for unit in units.values())], [max(unit[1] for unit in units.values())]
    height, width = region.shape
    return math.lcm(*(min(n, height) for n in rows)), math.lcm(*(min(n, width) for n in columns))


def _coarse_unit(chunk: tuple[int, int], raster: Region, pixel_bytes: int) -> tuple[int, int]:
    """Return rows and columns to read at once: whole chunks, several where they are below 1 MiB."""
    rows, columns = chunk
    height, width = raster.shape
    while rows * columns * pixel_bytes < MIB and (rows < height or columns < width):
        if (rows <= columns and rows < height) or columns >= width:
            rows *= 2
        else:
            columns *= 2
    return rows, columns


def _multiples(unit: int, size: int) -> list[int]:
    """Return multiples of a unit up to the first that spans the size: all small ones, then ever coarser."""
    factors = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    most = -(-size // unit)
    return [unit * factor for factor in factors if factor < most] + [unit * most]


class _Touches:
    """How often chunks are decoded: blocks against the chunks that they and their halos meet."""

    def __init__(self, grid: Grid, unit: tuple[int, int], halo: Halo, spec: RasterSpec) -> None:
        rows = _intervals(_first_blocks(grid.rows), halo.top, halo.bottom, unit[0], spec.height)
        columns = _intervals(_first_blocks(grid.columns), halo.left, halo.right, unit[1], spec.width)
        num_rows, num_columns = len(rows[0]), len(columns[0])
        share = num_rows * num_columns / len(grid)
        starts = np.arange(0, num_columns, min(grid.panel, num_columns))
        ends = np.minimum(starts + grid.panel, num_columns)
        panels = columns[0][starts], columns[1][ends - 1]
        self.distinct = int((rows[1][-1] - rows[0][0]) * (columns[1][-1] - columns[0][0]) / share)
        panel_columns = int((panels[1] - panels[0]).sum())
        self.decoded = int(int(rows[1][-1] - rows[0][0]) * panel_columns / share)
        shared_rows = int(np.max(rows[1][:-1] - rows[0][1:], initial=0))
        shared_columns = int(np.max(columns[1][:-1] - columns[0][1:], initial=0))
        widest = int(np.max(panels[1] - panels[0]))
        # the rows of chunks that the next row of blocks needs again, and around the blocks in work what
        # their neighbours to the left and right share
        high = int(np.max(rows[1] - rows[0]))
        wide = int(np.max(columns[1] - columns[0]))
        self.cached_chunks = shared_rows * widest + (
            (high * wide if shared_rows else high * shared_columns) if shared_rows or shared_columns else 0
        )


def _first_blocks(axis: Axis) -> Axis:
    """Return the first blocks of an axis with very many: how they meet chunks comes again and again."""
    return replace(axis, stop=min(axis.stop, axis.start + SAMPLED_BLOCKS * axis.step))


def _intervals(axis: Axis, before: int, after: int, unit: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each interval of an axis, with its halo, the first chunk that it meets and the one after its last."""
    index = np.arange(len(axis))
    start = axis.start + index * axis.step
    stop = np.append(start[1:], axis.stop)
    return np.maximum(start - before, 0) // unit, -(-np.minimum(stop + after, size) // unit)
