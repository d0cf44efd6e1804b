"""A pass: steps computed in one sweep over the blocks, and what a block of it needs. Arithmetic only.

A raster is known by its id: the name of an input, or ``step/output``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pipeline.block.buffers import NO_SLOTS, Slots
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Grid, Halo, Region
from pipeline.model.stored import StoredArray
from pipeline.model.table import TableSpec
from pipeline.operations.base import Edge, Operation, Reduction, Specs


@dataclass(frozen=True)
class Use:
    """One source of one step: which raster, which of its bands, how much around a block, what beyond the edge."""

    key: str
    raster: str
    spec: RasterSpec
    """The raster as the operation sees it: only the bands it asked for."""
    bands: tuple[int, ...] | None
    halo: Halo
    edge: Edge

    @property
    def periodic(self) -> bool:
        return self.edge.rule == "wrap"


@dataclass(frozen=True)
class StepPlan:
    """A step with everything known of it before a pixel is read."""

    name: str
    operation: Operation
    uses: tuple[Use, ...]
    natural: Mapping[str, RasterSpec]
    """Outputs as the operation computes them."""
    declared: Mapping[str, RasterSpec]
    """Outputs as every reader sees them: after the step's `dtype` and `nodata`."""
    makers: Mapping[str, str] = field(default_factory=dict)
    """key -> the step that makes the table which this reads; a reduction's own is ``self``."""
    table_specs: Mapping[str, TableSpec] = field(default_factory=dict)
    unread: tuple[Use, ...] = ()
    """Sources that only the sweeps of a reduction read, where this paints its table."""

    @property
    def sources(self) -> Specs:
        """What the operation reads, as it sees it."""
        return Specs({use.key: use.spec for use in (*self.uses, *self.unread)}, self.table_specs)

    def raster(self, output: str) -> str:
        return f"{self.name}/{output}"


@dataclass(frozen=True)
class Sweep:
    """One of the sweeps of a reduction."""

    step: StepPlan
    number: int

    @property
    def reduction(self) -> Reduction:
        assert isinstance(self.step.operation, Reduction)
        return self.step.operation


@dataclass(frozen=True)
class Needs:
    """What one block needs: regions in raster coordinates; they may reach over the raster's edge."""

    compute: Mapping[str, Region]
    """step -> the region over which it computes its outputs; inside the raster."""
    use: Mapping[tuple[str, str], Region]
    """(step, source key) -> the region that it is handed at least."""
    extent: Mapping[tuple[str, bool], Region]
    """(raster, periodic) -> the region that its buffer spans."""
    inside: Mapping[str, Region]
    """raster -> the part of the raster that is read or computed."""


@dataclass(frozen=True)
class PassCost:
    """What a pass takes, predicted."""

    block_bytes: int = 0
    """Per block in work: buffers, scratch, codec buffers."""
    in_flight: int = 0
    """Blocks in work at once."""
    cache_bytes: int = 0
    peak_bytes: int = 0
    read_bytes: int = 0
    """Decoded bytes, chunks decoded more than once counted each time."""
    source_bytes: int = 0
    """Decoded bytes if each chunk that is needed were decoded once."""
    write_bytes: int = 0
    table_bytes: int = 0
    """Of partial tables at once, beyond which they go to the disk, and of the tables that are read."""
    num_tasks: int = 0
    seconds: float = 0.0
    """A rough prediction, for comparing plans."""

    @property
    def own_bytes(self) -> int:
        """What the pass takes beside the process itself."""
        return self.in_flight * self.block_bytes + self.cache_bytes + self.table_bytes

    @property
    def amplification(self) -> float:
        return self.read_bytes / self.source_bytes if self.source_bytes else 1.0


@dataclass(frozen=True)
class Pass:
    """Steps in the order in which they are computed, the stored rasters they read, the rasters they write, and how."""

    number: int
    steps: tuple[StepPlan, ...]
    specs: Mapping[str, RasterSpec]
    """All rasters of the pass, as stored or declared."""
    stored: tuple[str, ...]
    """Rasters that are read from a store."""
    writes: tuple[str, ...]
    """Rasters that are written."""
    grid: Grid
    wanted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """step -> its outputs that are written or read here; the others are not computed."""
    stored_dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Dims of the written rasters in the store, where they differ from those in which they are computed."""
    sweeps: tuple[Sweep, ...] = ()
    """Sweeps of reductions over what is read or computed here."""
    bands: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """stored raster -> the bands that are read of it, where some are not; its spec here has only these."""
    measured: tuple[str, ...] = ()
    """Steps that make a total of each block."""
    arrays: Mapping[str, StoredArray] = field(default_factory=dict)
    """What it writes, by raster id."""
    units: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Rows and columns of each stored raster that are decoded and kept as one."""
    halo: Literal["read", "exchange"] = "read"
    """How blocks come by what lies around them."""
    strip: tuple[int, int] = (1, 1)
    """Block rows and block columns of a strip (exchange), or (1, blocks) (read)."""
    slots: Slots = NO_SLOTS
    cost: PassCost = PassCost()

    def bytes_written(self, block: int) -> int:
        """Return the bytes of a block, before compression."""
        return self.grid.block(block).num_pixels * sum(array.spec.pixel_bytes for array in self.arrays.values())

    @cached_property
    def halos(self) -> dict[str, Halo]:
        """For every raster, the longest sum of halos along the chains from it to what is written."""
        halos = dict.fromkeys(self.writes, Halo())
        for use in (use for sweep in self.sweeps for use in sweep.step.uses):
            halos[use.raster] = halos.get(use.raster, Halo()) | use.halo
        for step in reversed(self.steps):
            own = Halo()
            for output in self.wanted[step.name]:
                own |= halos.get(step.raster(output), Halo())
            for use in step.uses:
                halos[use.raster] = halos.get(use.raster, Halo()) | (own + use.halo)
        return halos

    @cached_property
    def exact(self) -> frozenset[str]:
        """The written rasters whose buffers never span more than the block.

        Told by the plan, not by the block: every block must ask for the same buffers in the same order.
        """
        return frozenset(
            step.raster(output)
            for step in self.steps
            if not any(self.halos.get(step.raster(each)) for each in self.wanted[step.name])
            for output in self.wanted[step.name]
        )

    @property
    def periodic(self) -> frozenset[str]:
        """The stored rasters that are read beyond their edges as if they repeated."""
        return frozenset(use.raster for step in self.steps for use in step.uses if use.periodic)

    def extent(self, raster: str, region: Region) -> Region:
        """Return what a block or strip needs of a stored raster; beyond the edge only where it wraps."""
        grown = region.grow(self.halos[raster])
        return grown if raster in self.periodic else grown.clip(self.specs[raster].region)

    def needs(self, region: Region, *, everywhere: bool = False) -> Needs:
        """Return what a block needs, from what is written back to what is read.

        With `everywhere`, as if the raster had no edge: no block of this size needs more.
        """
        inside = dict.fromkeys(self.writes, region)
        extent = {(raster, False): region for raster in self.writes}
        compute: dict[str, Region] = {}
        used: dict[tuple[str, str], Region] = {}
        for use in (use for sweep in self.sweeps for use in sweep.step.uses):
            need = region.grow(use.halo)
            extent[use.raster, False] = need.hull(extent.get((use.raster, False), need))
            clipped = need if everywhere else need.clip(self.specs[use.raster].region)
            inside[use.raster] = clipped.hull(inside.get(use.raster, clipped))
        for step in reversed(self.steps):
            rasters = [step.raster(output) for output in self.wanted[step.name]]
            compute[step.name] = _hull(inside[raster] for raster in rasters if raster in inside)
            for use in step.uses:
                need = compute[step.name].grow(use.halo)
                used[step.name, use.key] = need
                key = (use.raster, use.periodic)
                extent[key] = need.hull(extent.get(key, need))
                if not use.periodic:
                    clipped = need if everywhere else need.clip(self.specs[use.raster].region)
                    inside[use.raster] = clipped.hull(inside.get(use.raster, clipped))
        for step in self.steps:  # all outputs of a step are computed over one region, in buffers of one extent
            rasters = [step.raster(output) for output in self.wanted[step.name]]
            own = compute[step.name]
            common = _hull([own, *(extent[raster, False] for raster in rasters if (raster, False) in extent)])
            inside.update(dict.fromkeys(rasters, own))
            extent.update({(raster, False): common for raster in rasters})
        return Needs(compute, used, extent, inside)


def _hull(regions: Any) -> Region:
    first, *rest = regions
    for region in rest:
        first = first.hull(region)
    result: Region = first
    return result


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype in which an output is computed: its own, but float32 for float16, which no kernel knows."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def view_dtype(spec: RasterSpec, operation: Operation) -> np.dtype:
    return operation.working_dtype(spec.dtype) if operation.domain == "float" else compute_dtype(spec.dtype)


def needs_mask(use: Use, domain: str) -> bool:
    """Return whether an operation is handed a mask: integers, of which some pixels can be invalid."""
    is_integer = use.spec.dtype.kind != "f"
    return domain == "native" and is_integer and (use.spec.nodata is not None or use.edge.rule == "invalid")
