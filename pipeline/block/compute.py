"""How one block of a pass is computed.

`compute_block` is the one block function: threads, exchanges of halos, workers of a cluster and the lazy Python face
call it; they differ only in how `fetch` gets stored pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from pipeline.block import pixels
from pipeline.block.buffers import Buffers
from pipeline.block.plan import Pass, StepPlan, Sweep, Use
from pipeline.block.walk import Actor, walk
from pipeline.kernels import validity
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Region
from pipeline.model.table import Table
from pipeline.model.total import Total
from pipeline.operations.base import Block
from pipeline.operations.traits import HasBorder, IsMeasured

MOST_COLUMNS = 2**16
"""Of a region of which a partial table is made."""

Tables = Mapping[str, Table]
"""step -> its table, or the state of its reduction while that sweeps"""


class Fetch(Protocol):
    """How stored pixels come: read from a store, or cut from what a neighbour's task handed over."""

    def __call__(self, raster: str, region: Region, out: np.ndarray, periodic: bool) -> None: ...


def cut_from(plan: Pass, block: Region, parts: Mapping[str, np.ndarray]) -> Fetch:
    """Return a fetch from arrays that hold what the block needs of each stored raster, in its dims."""

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        extent = plan.extent(raster, block)
        np.copyto(out, parts[raster][array_slices(plan.specs[raster].dims, region, (extent.top, extent.left))])

    return fetch


class Collector(Protocol):
    """Where the partial tables and the totals of a block go."""

    @property
    def limit_bytes(self) -> int:
        """What a partial table may have."""

    def add(self, sweep: int, table: Table) -> None: ...

    def add_total(self, step: str, total: Total) -> None: ...


def compute_block(
    plan: Pass,
    region: Region,
    fetch: Fetch,
    buffers: Buffers,
    tables: Tables | None = None,
    collector: Collector | None = None,
) -> dict[str, np.ndarray]:
    """Compute one block of a pass; return the stored form of each written raster over `region`.

    The arrays belong to `buffers`: they hold until the next block begins. The partial tables of sweeps, and the
    totals of steps that are measured, go to the collector; without one, no step is measured.
    """
    return walk(plan, region, buffers, Computation(plan, region, fetch, tables or {}, collector))


class Computation(Actor):
    """Computes the pixels of one block."""

    def __init__(self, plan: Pass, region: Region, fetch: Fetch, tables: Tables, collector: Collector | None) -> None:
        self.plan, self.region, self.needs = plan, region, plan.needs(region)
        self.bring, self.tables, self.collector = fetch, tables, collector

    def fetch(self, raster: str, region: Region, block: Block, periodic: bool) -> None:
        self.bring(raster, region, block.values[array_slices(block.dims, region, block.origin)], periodic)
        pixels.mark_nan(block.values, self.plan.specs[raster])

    def apply(self, step: StepPlan, blocks: Mapping[str, Block], out: Mapping[str, Block]) -> None:
        """Call the operation, each source with its edges filled by this step's rule."""
        for use in step.uses:
            pixels.fill_block_edges(blocks[use.key], self.needs.use[step.name, use.key], use)
        region = self.needs.compute[step.name]
        tables = {key: self.tables[maker] for key, maker in step.makers.items()}
        operation = step.operation
        if self.collector is not None and isinstance(operation, IsMeasured) and step.name in self.plan.measured:
            self.collector.add_total(step.name, operation.apply_measured(blocks, tables, out, region, self.region))
        else:
            operation.apply(blocks, tables, out, region)
        if isinstance(operation, HasBorder) and (border := operation.border()):
            for block in out.values():
                pixels.clear_border(block, region, border)

    def declare(self, block: Block, target: Block, natural: RasterSpec, declared: RasterSpec) -> None:
        if target is not block:
            validity.cast(block.values, target.values, natural.nodata, declared.nodata)
        pixels.mark_nan(target.values, declared)

    def view(self, source: Block, block: Block, use: Use) -> None:
        pixels.convert(source.values, block, use)

    def mark_valid(self, block: Block, spec: RasterSpec) -> None:
        pixels.mark_valid(block, spec)

    def collect(self, sweep: Sweep, blocks: Mapping[str, Block], region: Region) -> None:
        """Hand over the partial table of a region, or of its halves where it could be too large.

        Where rows are very long, of some columns after the other: rows are buffers there, and sums of one are digits.
        """
        collector = self.collector
        assert collector is not None
        if region.width > MOST_COLUMNS:
            for left in range(region.left, region.right, MOST_COLUMNS):
                right = min(left + MOST_COLUMNS, region.right)
                self.collect(sweep, blocks, replace(region, left=left, right=right))
            return
        state = self.tables.get(sweep.step.name, {})
        most_bytes = sweep.reduction.most_bytes(blocks, state, sweep.number, region)
        if region.num_pixels > 1 and most_bytes > collector.limit_bytes:
            for half in region.halves():
                self.collect(sweep, blocks, half)
            return
        collector.add(self.plan.sweeps.index(sweep), sweep.reduction.partial(blocks, state, sweep.number, region))

    def mark_nodata(self, block: Block, spec: RasterSpec) -> None:
        assert spec.nodata is not None
        pixels.mark_nodata(block.values, spec.nodata)

    def store(self, block: Block, out: np.ndarray, region: Region, axes: tuple[int, ...]) -> None:
        pixels.copy_part(out, block, region, axes)
