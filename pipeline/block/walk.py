"""The way through one block: which buffers are taken, what is done to them, when they are free again.

An actor does what is done to pixels. The planner sends one that does nothing through a block of the largest size, and
so knows every buffer that a block takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.block.buffers import Buffers, SlotPlanner, Slots
from pipeline.block.plan import Needs, Pass, StepPlan, Sweep, Use, compute_dtype, needs_mask, view_dtype
from pipeline.model.raster import RasterSpec, array_shape, is_nan
from pipeline.model.region import Region
from pipeline.operations.base import Block


class Actor:
    """Does nothing to the pixels of a block; its heirs do."""

    def fetch(self, raster: str, region: Region, block: Block, periodic: bool) -> None:
        """Bring the stored pixels of a region into a block, as every reader sees them."""

    def apply(self, step: StepPlan, blocks: Mapping[str, Block], out: Mapping[str, Block]) -> None:
        """Compute the outputs of a step."""

    def declare(self, block: Block, target: Block, natural: RasterSpec, declared: RasterSpec) -> None:
        """Bring an output into its declared dtype and nodata; the target may be the block itself."""

    def view(self, source: Block, block: Block, use: Use) -> None:
        """Copy a raster into a block as an operation wants it: its bands, its dtype."""

    def mark_valid(self, block: Block, spec: RasterSpec) -> None:
        """Fill the mask of a block of integers."""

    def collect(self, sweep: Sweep, blocks: Mapping[str, Block], region: Region) -> None:
        """Make the partial table of a sweep over a region."""

    def mark_nodata(self, block: Block, spec: RasterSpec) -> None:
        """Turn NaN into the nodata value of a stored raster."""

    def store(self, block: Block, out: np.ndarray, region: Region, axes: tuple[int, ...]) -> None:
        """Copy a region of a block into an array whose axes are in another order."""


def walk(
    plan: Pass, region: Region, buffers: Buffers, actor: Actor, needs: Needs | None = None
) -> dict[str, np.ndarray]:
    """Go through a block of a pass; return the stored form of each written raster over `region`.

    The arrays belong to `buffers`: they hold until the next block begins.
    """
    way = _Walk(plan, needs or plan.needs(region), buffers, actor)
    for step in plan.steps:
        way.run(step)
    for sweep in plan.sweeps:
        way.sweep(sweep, region)
    return {raster: way.finish(raster, region) for raster in plan.writes}


def plan_slots(plan: Pass) -> Slots:
    """Return the buffers that a thread needs for the largest block of a pass."""
    height, width = plan.grid.largest
    first = plan.grid.region
    planner = SlotPlanner()
    region = Region(first.top, first.top + height, first.left, first.left + width)
    walk(plan, region, planner, Actor(), plan.needs(region, everywhere=True))
    return planner.slots


class _Walk:
    """The blocks of one region while it is computed: rasters as declared, and views of them for operations."""

    def __init__(self, plan: Pass, needs: Needs, buffers: Buffers, actor: Actor) -> None:
        self.plan, self.needs, self.buffers, self.actor = plan, needs, buffers, actor
        self.raster = next(iter(plan.specs.values())).region
        self.blocks: dict[tuple[str, bool], Block] = {}
        self.views: dict[Any, Block] = {}
        self.left: Counter[Any] = Counter()
        for step in (*plan.steps, *(sweep.step for sweep in plan.sweeps)):
            for use in step.uses:
                self.left[use.raster, use.periodic] += 1
                self.left[_view_key(step, use)] += 1
        for raster in plan.writes:
            self.left[raster, False] += 1

    def run(self, step: StepPlan) -> None:
        blocks = {use.key: self.view(step, use) for use in step.uses}
        natural: dict[str, Block] = {}
        for output in self.plan.wanted[step.name]:
            raster, spec = step.raster(output), step.natural[output]
            natural[output] = self.new_block(raster, compute_dtype(spec.dtype), spec)
            natural[output].fill = spec.nodata
        self.actor.apply(step, blocks, natural)
        for output, block in natural.items():
            self.blocks[step.raster(output), False] = self.declare(step, output, block)
        for use in step.uses:
            self.release(step, use)

    def sweep(self, sweep: Sweep, region: Region) -> None:
        swept = self.plan.grid.region
        blocks = {use.key: replace(self.view(sweep.step, use), raster=swept) for use in sweep.step.uses}
        self.actor.collect(sweep, blocks, region)
        for use in sweep.step.uses:
            self.release(sweep.step, use)

    def new_block(self, raster: str, dtype: np.dtype, spec: RasterSpec, periodic: bool = False) -> Block:
        extent = self.needs.extent[raster, periodic]
        values = self.buffers.take(array_shape(spec.dims, extent, spec.num_bands), dtype)
        return Block(values, (extent.top, extent.left), spec.dims, raster=self.raster)

    # --- a stored raster, or an output, as every reader sees it: NaN in floats, nodata in integers

    def load(self, raster: str, periodic: bool) -> Block:
        if (raster, periodic) in self.blocks:
            return self.blocks[raster, periodic]
        spec = self.plan.specs[raster]
        block = self.new_block(raster, spec.dtype, spec, periodic)
        wanted = self.needs.extent[raster, True] if periodic else self.needs.inside[raster]
        self.actor.fetch(raster, wanted, block, periodic)
        self.blocks[raster, periodic] = block
        return block

    def declare(self, step: StepPlan, output: str, block: Block) -> Block:
        """Return the output rounded to its declared dtype: what a reader would get from a store."""
        natural, declared = step.natural[output], step.declared[output]
        same_nodata = natural.nodata == declared.nodata or declared.dtype.kind == "f"
        if block.values.dtype == declared.dtype and same_nodata:
            self.actor.declare(block, block, natural, declared)
            return block
        target = self.new_block(step.raster(output), declared.dtype, declared)
        self.actor.declare(block, target, natural, declared)
        self.buffers.give(block.values)
        return target

    # --- a raster as an operation wants it: its bands, its dtype, a mask

    def view(self, step: StepPlan, use: Use) -> Block:
        key = _view_key(step, use)
        if key in self.views:
            return self.views[key]
        source = self.load(use.raster, use.periodic)
        dtype = view_dtype(use.spec, step.operation)
        block = Block(source.values, source.origin, source.dims, raster=self.raster)
        if dtype != source.values.dtype or use.bands is not None:
            block = self.new_block(use.raster, dtype, use.spec, use.periodic)
            self.actor.view(source, block, use)
        if needs_mask(use, step.operation.domain):
            block.valid = self.buffers.take(block.values.shape, np.dtype(bool))
            self.actor.mark_valid(block, use.spec)
        block.bands, block.band_coordinates = use.spec.bands, use.spec.band_coordinates
        self.views[key] = block
        return block

    def release(self, step: StepPlan, use: Use) -> None:
        key = _view_key(step, use)
        self.left[key] -= 1
        if not self.left[key]:
            view = self.views.pop(key)
            if view.valid is not None:
                self.buffers.give(view.valid)
            if view.values is not self.blocks[use.raster, use.periodic].values:
                self.buffers.give(view.values)
        self.left[use.raster, use.periodic] -= 1
        if not self.left[use.raster, use.periodic]:
            self.buffers.give(self.blocks.pop((use.raster, use.periodic)).values)

    def finish(self, raster: str, region: Region) -> np.ndarray:
        """Return the stored form of a written raster over the block, contiguous, in the dims of the store."""
        spec = self.plan.specs[raster]
        block = self.blocks[raster, False]
        if spec.dtype.kind == "f" and spec.nodata is not None and not is_nan(spec.nodata):
            self.actor.mark_nodata(block, spec)
        dims = self.plan.stored_dims.get(raster, spec.dims)
        if raster in self.plan.exact and dims == spec.dims:
            return block.values
        exact = self.buffers.take(array_shape(dims, region, spec.num_bands), spec.dtype)
        self.actor.store(block, exact, region, tuple(spec.dims.index(dim) for dim in dims))
        return exact


def _view_key(step: StepPlan, use: Use) -> Any:
    masked = needs_mask(use, step.operation.domain)
    return ("view", use.raster, use.periodic, use.bands, view_dtype(use.spec, step.operation), masked)
