"""Blocks that fit the memory: the shape, panel width and halo way that are predicted to be fastest."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from pipeline.block.buffers import Slots
from pipeline.block.plan import Pass, StepPlan
from pipeline.block.walk import plan_slots
from pipeline.model.errors import PipelineError
from pipeline.model.region import Axis, Grid, Halo, Region
from pipeline.model.stored import StoredArray
from pipeline.planning.cost import (
    CALL_SECONDS,
    EXCHANGE_BASE_BYTES,
    EXCHANGE_COPIES,
    EXCHANGE_RATE,
    EXCHANGE_SECONDS,
    EXCHANGE_TASKS,
    MIB,
    CostModel,
    Traffic,
)
from pipeline.planning.plan import Settings, format_bytes
from pipeline.planning.touches import Touches

STRIP_BLOCKS = 1024
SWEEP_BLOCKS = 64
"""Blocks whose partial tables are saved together, so that a resumed run does not begin the sweep anew."""
SWEEP_STRIPS = 256
PANEL_CHUNKS = 5
"""Blocks or chunks, whichever are wider, that a panel spans at most: its margins, decoded twice, then are few."""
MEMORY_PENALTY = 1.0 / 2**30
"""Share of the time that a byte is worth: of two plans about as fast, the smaller one.

A share, so that a larger raster gets the blocks of a smaller one; bytes and seconds as measured, see docs/design.md.
"""


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
        build: Callable[[Grid], Pass],
        arrays: Mapping[str, StoredArray],
        chunks: Mapping[str, tuple[int, int]],
        pixel_bytes: Mapping[str, int],
        decoded_bytes: Mapping[str, int],
        settings: Settings,
        region: Region,
    ) -> None:
        """`pixel_bytes` are those of all bands of the stored rasters, also where only some are read; `decoded_bytes` of
        those that are decoded at once."""
        self.build, self.arrays, self.settings, self.region = build, arrays, settings, region
        self.probe = build(Grid(Axis(region.top, region.bottom, 1), Axis(region.left, region.right, 1), 1))
        self.units = {
            raster: _coarse_unit(chunk, self.probe.specs[raster].region, pixel_bytes[raster])
            for raster, chunk in chunks.items()
        }
        self.block_unit = _block_unit(arrays, self.units, region)
        self.costs = CostModel(arrays, self.units, decoded_bytes, settings, region)

    def fit(self, number: int) -> Pass:
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
        return replace(best, arrays=self.arrays, units=self.units)

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

    def candidates_of(self, grid: Grid) -> Iterator[Pass]:
        ways = ("read", "exchange") if self.settings.halo == "auto" else (self.settings.halo,)
        if "read" in ways:
            slots = plan_slots(self.build(grid))
            panels = self.panels(grid) if self.settings.grids is None else [grid.panel]
            for panel, in_flight in product(panels, self.in_flight(grid)):
                yield self.read_candidate(replace(grid, panel=panel), slots, in_flight)
        # without a halo there is nothing to exchange
        if "exchange" in ways and (any(self.probe.halos.values()) or self.settings.halo == "exchange"):
            yield from self.exchange_candidates(grid)

    def panels(self, grid: Grid) -> list[int]:
        """Return how many blocks wide a panel may be: the cache of a wider one would grow with the raster."""
        widest = max([grid.columns.step, *(columns for _, columns in self.units.values())])
        return [1, *(n for n in _multiples(1, len(grid.columns)) if 1 < n <= PANEL_CHUNKS * widest / grid.columns.step)]

    def in_flight(self, grid: Grid) -> set[int]:
        """Return how many blocks may be in work at once: one a worker, or one more to overlap I/O and computing."""
        workers = self.settings.workers
        return {min(n, len(grid)) for n in ((1,) if workers == 1 else (workers, workers + 1))}

    def read_candidate(self, grid: Grid, slots: Slots, in_flight: int) -> Pass:
        """Each block reads itself and its halo; a cache holds the chunks that neighbours share."""
        plan = replace(self.build(grid), slots=slots)
        cache = read = source = calls = 0
        for raster in plan.stored:
            spec, unit, halo = plan.specs[raster], self.units[raster], plan.halos[raster]
            touch = Touches(grid, unit, halo, spec)
            pixel = unit[0] * unit[1] * spec.pixel_bytes
            cache += touch.cached_chunks * pixel
            read += touch.decoded * pixel
            source += touch.distinct * pixel
            calls += touch.decoded
        traffic = Traffic(cache, read, source, len(grid), calls * CALL_SECONDS, in_flight)
        strip = STRIP_BLOCKS if not plan.sweeps else max(SWEEP_BLOCKS, -(-len(grid) // SWEEP_STRIPS))
        return replace(plan, cost=self.costs.of(plan, traffic), strip=(1, min(len(grid), strip)))

    def exchange_candidates(self, grid: Grid) -> Iterator[Pass]:
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
        plan = replace(plan, slots=plan_slots(plan))
        height, width = grid.largest
        pixel = sum(plan.specs[raster].pixel_bytes for raster in plan.stored)
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
            traffic = Traffic(live, int(source * rim), source, num_tasks, seconds, in_flight)
            yield replace(plan, cost=self.costs.of(plan, traffic), halo="exchange", strip=strip)

    def refuse(self, smallest: Pass) -> None:
        steps = (*smallest.steps, *(sweep.step for sweep in smallest.sweeps))
        step = max(steps, key=lambda step: _step_bytes(smallest, step))
        need, have = self.needed_bytes(smallest.grid), self.settings.memory_bytes
        height, width = smallest.grid.largest
        busy = smallest.cost.in_flight
        workers, fewer = ("1 worker", "") if busy == 1 else (f"{busy} workers", ", use fewer workers")
        if self.settings.grids is None:
            needs = f"the run may use {format_bytes(have)}, but needs at least {format_bytes(need)}"
            smaller = ", or smaller output chunks" if smallest.writes else ""
            remedy = f"set it to {format_bytes(need, up=True)} or more{fewer}{smaller}"
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
            fitter.costs = replace(self.costs, settings=fitter.settings)
            peak = min(candidate.cost.peak_bytes for candidate in fitter.candidates_of(grid))
            if peak <= need:
                return need
            need = peak


def _step_bytes(plan: Pass, step: StepPlan) -> int:
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
