"""A pass: steps computed in one sweep over the blocks, and how one block of it is computed.

`compute_block` is the one block function: both halo ways, the warm-up, the lazy Python face and (later) workers
of a cluster call it; they differ only in how `fetch` gets stored pixels. A raster is known by its id: the name of
an input, or ``step/output``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pipeline.kernels import validity
from pipeline.kernels.edge import fill_edges
from pipeline.kernels.exact_total import Total
from pipeline.operation import Block, Edge, Operation, Reduction, Specs, Table, TableSpec
from pipeline.raster import Number, RasterSpec, array_shape, array_slices, is_nan
from pipeline.region import Grid, Halo, Region


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
class PassPlan:
    """Steps in the order in which they are computed, the stored rasters they read, the rasters they write."""

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

    @cached_property
    def halos(self) -> dict[str, Halo]:
        """For every raster, the longest sum of halos along the chains from it to what is written."""
        halos = dict.fromkeys(self.writes, Halo())
        halos.update({use.raster: Halo() for sweep in self.sweeps for use in sweep.step.uses})
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
            inside[use.raster] = extent[use.raster, False] = region
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


# --- buffers ---------------------------------------------------------------------------------------------------


class Buffers(Protocol):
    """Where a block's arrays come from."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray: ...

    def give(self, array: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Slots:
    """The buffers that a worker thread keeps: their sizes, and which of them serves the k-th request of a block."""

    sizes: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes)


class SlotPlanner:
    """Assigns the requests of the largest block to slots; an array it hands out occupies no memory."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._order: list[int] = []
        self._free: list[int] = []
        self._held: dict[int, tuple[int, np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape)) * dtype.itemsize
        fitting = [slot for slot in self._free if self._sizes[slot] >= size]
        if fitting:
            slot = min(fitting, key=lambda slot: self._sizes[slot])
            self._free.remove(slot)
        elif self._free:
            slot = max(self._free, key=lambda slot: self._sizes[slot])
            self._free.remove(slot)
            self._sizes[slot] = size
        else:
            slot = len(self._sizes)
            self._sizes.append(size)
        self._order.append(slot)
        array = np.broadcast_to(np.empty((), dtype), shape)
        self._held[id(array)] = (slot, array)
        return array

    def give(self, array: np.ndarray) -> None:
        self._free.append(self._held.pop(id(array))[0])

    @property
    def slots(self) -> Slots:
        return Slots(tuple(self._sizes), tuple(self._order))


class Arena:
    """The buffers of one worker thread, reused block after block.

    Fresh buffers would be page-faulted in by the kernel for every block and would fragment the heap.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._buffers: list[np.ndarray | None] = [None] * len(slots.sizes)
        self._next = 0

    def begin(self) -> None:
        """Start a block: all buffers are free."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        slot = self._slots.order[self._next]
        self._next += 1
        if (buffer := self._buffers[slot]) is None:
            buffer = self._buffers[slot] = _aligned(self._slots.sizes[slot])
        size = int(np.prod(shape)) * dtype.itemsize
        return buffer[:size].view(dtype).reshape(shape)

    def give(self, array: np.ndarray) -> None:
        """Do nothing: the plan knows when a buffer is free again."""


class Fresh:
    """Plain allocation, where there is no plan for buffers (the lazy Python face, tests)."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def give(self, array: np.ndarray) -> None:
        """Do nothing: Python frees the array."""


def _aligned(size: int, alignment: int = 64) -> np.ndarray:
    buffer = np.empty(size + alignment, np.uint8)
    offset = -buffer.ctypes.data % alignment
    return buffer[offset : offset + size]


# --- computing a block -----------------------------------------------------------------------------------------


class Fetch(Protocol):
    """How stored pixels come: read from a store, or cut from what a neighbour's task handed over."""

    def __call__(self, raster: str, region: Region, out: np.ndarray, periodic: bool) -> None: ...


def cut_from(plan: PassPlan, block: Region, parts: Mapping[str, np.ndarray]) -> Fetch:
    """Return a fetch from arrays that hold what the block needs of each stored raster, in its dims."""

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        extent = plan.extent(raster, block)
        np.copyto(out, parts[raster][array_slices(plan.specs[raster].dims, region, (extent.top, extent.left))])

    return fetch


MOST_COLUMNS = 2**16
"""Of a region of which a partial table is made."""

Act = Callable[..., Any]


def do(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def skip(function: Callable[..., Any], *args: Any) -> None:
    """Stand in for `do` where only the requests for buffers matter."""


def plan_slots(plan: PassPlan) -> Slots:
    """Return the buffers that a thread needs for the largest block of a pass."""
    height, width = plan.grid.largest
    first = plan.grid.region
    planner = SlotPlanner()
    region = Region(first.top, first.top + height, first.left, first.left + width)
    compute_block(plan, region, None, planner, skip, plan.needs(region, everywhere=True))
    return planner.slots


class Collector(Protocol):
    """Where the partial tables and the totals of a block go."""

    @property
    def limit_bytes(self) -> int:
        """What a partial table may have."""

    def add(self, sweep: int, table: Table) -> None: ...

    def add_total(self, step: str, total: Total) -> None: ...


Tables = Mapping[str, Table]
"""step -> its table, or the state of its reduction while that sweeps"""


def compute_block(
    plan: PassPlan,
    region: Region,
    fetch: Fetch | None,
    buffers: Buffers,
    act: Act = do,
    needs: Needs | None = None,
    tables: Tables | None = None,
    collector: Collector | None = None,
) -> dict[str, np.ndarray]:
    """Compute one block of a pass; return the stored form of each written raster over `region`.

    The arrays belong to `buffers`: they hold until the next block begins. The partial tables of sweeps, and the
    totals of steps that are measured, go to the collector; without one, no step is measured.
    """
    needs = needs or plan.needs(region)
    work = _Work(plan, region, needs, fetch, buffers, act, tables or {}, collector)
    for step in plan.steps:
        work.run(step)
    for number in range(len(plan.sweeps)):
        work.sweep(number)
    return {raster: work.finish(raster, region) for raster in plan.writes}


class _Work:
    """The blocks of one region while it is computed: rasters as declared, and views of them for operations."""

    def __init__(
        self,
        plan: PassPlan,
        region: Region,
        needs: Needs,
        fetch: Fetch | None,
        buffers: Buffers,
        act: Act,
        tables: Tables,
        collector: Collector | None,
    ) -> None:
        self.plan, self.region, self.needs, self.fetch = plan, region, needs, fetch
        self.buffers, self.act, self.tables, self.collector = buffers, act, tables, collector
        self.raster = next(iter(plan.specs.values())).region
        self.blocks: dict[tuple[str, bool], Block] = {}
        self.views: dict[Any, Block] = {}
        self.left: Counter[Any] = Counter()
        for step in (*plan.steps, *(sweep.step for sweep in plan.sweeps)):
            for use in step.uses:
                self.left[use.raster, use.periodic] += 1
                self.left[self.view_key(step, use)] += 1
        for raster in plan.writes:
            self.left[raster, False] += 1

    def run(self, step: StepPlan) -> None:
        blocks = {use.key: self.view(step, use) for use in step.uses}
        natural: dict[str, Block] = {}
        for output in self.plan.wanted[step.name]:
            raster, spec = step.raster(output), step.natural[output]
            natural[output] = self.new_block(raster, compute_dtype(spec.dtype), spec.dims, spec.num_bands)
            natural[output].fill = spec.nodata
        self.act(self.apply, step, blocks, natural)
        for output, block in natural.items():
            self.blocks[step.raster(output), False] = self.declare(step, output, block)
        for use in step.uses:
            self.release(step, use)

    def apply(self, step: StepPlan, blocks: Mapping[str, Block], out: Mapping[str, Block]) -> None:
        """Call the operation, each source with its edges filled by this step's rule."""
        for use in step.uses:
            fill_block_edges(blocks[use.key], self.needs.use[step.name, use.key], use)
        region = self.needs.compute[step.name]
        tables = {key: self.tables[maker] for key, maker in step.makers.items()}
        if self.collector is not None and step.name in self.plan.measured:
            self.collector.add_total(step.name, step.operation.apply_measured(blocks, tables, out, region, self.region))
        else:
            step.operation.apply(blocks, tables, out, region)
        if border := step.operation.border():
            for block in out.values():
                clear_border(block, region, border)

    def sweep(self, number: int) -> None:
        """Make the partial tables of a reduction over the block."""
        sweep = self.plan.sweeps[number]
        blocks = {use.key: self.view(sweep.step, use) for use in sweep.step.uses}
        self.act(self.collect, sweep, blocks, self.region)
        for use in sweep.step.uses:
            self.release(sweep.step, use)

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

    def new_block(
        self, raster: str, dtype: np.dtype, dims: tuple[str, ...], num_bands: int, periodic: bool = False
    ) -> Block:
        extent = self.needs.extent[raster, periodic]
        values = self.buffers.take(array_shape(dims, extent, num_bands), dtype)
        return Block(values, (extent.top, extent.left), dims, raster=self.raster)

    # --- a stored raster, or an output, as every reader sees it: NaN in floats, nodata in integers

    def load(self, raster: str, periodic: bool) -> Block:
        if (raster, periodic) in self.blocks:
            return self.blocks[raster, periodic]
        spec = self.plan.specs[raster]
        block = self.new_block(raster, spec.dtype, spec.dims, spec.num_bands, periodic)
        wanted = self.needs.extent[raster, True] if periodic else self.needs.inside[raster]
        self.act(self.fetch_into, raster, wanted, block, periodic)
        self.blocks[raster, periodic] = block
        return block

    def fetch_into(self, raster: str, region: Region, block: Block, periodic: bool) -> None:
        assert self.fetch is not None
        self.fetch(raster, region, block.values[array_slices(block.dims, region, block.origin)], periodic)
        mark_nan(block.values, self.plan.specs[raster])

    def declare(self, step: StepPlan, output: str, block: Block) -> Block:
        """Return the output rounded to its declared dtype: what a reader would get from a store."""
        natural, declared = step.natural[output], step.declared[output]
        if block.values.dtype == declared.dtype and natural.nodata == declared.nodata:
            self.act(mark_nan, block.values, declared)
            return block
        if block.values.dtype == declared.dtype and declared.dtype.kind == "f":
            self.act(mark_nan, block.values, declared)
            return block
        target = self.new_block(step.raster(output), declared.dtype, declared.dims, declared.num_bands)
        self.act(validity.cast, block.values, target.values, natural.nodata, declared.nodata)
        self.act(mark_nan, target.values, declared)
        self.buffers.give(block.values)
        return target

    # --- a raster as an operation wants it: its bands, its dtype, a mask

    def view_key(self, step: StepPlan, use: Use) -> Any:
        masked = needs_mask(use, step.operation.domain)
        return ("view", use.raster, use.periodic, use.bands, view_dtype(use.spec, step.operation), masked)

    def view(self, step: StepPlan, use: Use) -> Block:
        key = self.view_key(step, use)
        if key in self.views:
            return self.views[key]
        source = self.load(use.raster, use.periodic)
        dtype = view_dtype(use.spec, step.operation)
        block = Block(source.values, source.origin, source.dims, raster=self.raster)
        if dtype != source.values.dtype or use.bands is not None:
            block = self.new_block(use.raster, dtype, use.spec.dims, use.spec.num_bands, use.periodic)
            self.act(convert, source.values, block, use)
        if needs_mask(use, step.operation.domain):
            block.valid = self.buffers.take(block.values.shape, np.dtype(bool))
            self.act(mark_valid, block, use.spec)
        block.bands = use.spec.bands
        self.views[key] = block
        return block

    def release(self, step: StepPlan, use: Use) -> None:
        key = self.view_key(step, use)
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
            self.act(mark_nodata, block.values, spec.nodata)
        dims = self.plan.stored_dims.get(raster, spec.dims)
        if raster in self.plan.exact and dims == spec.dims:
            return block.values
        exact = self.buffers.take(array_shape(dims, region, spec.num_bands), spec.dtype)
        self.act(copy_part, exact, block, region, tuple(spec.dims.index(dim) for dim in dims))
        return exact


def copy_part(out: np.ndarray, block: Block, region: Region, axes: tuple[int, ...]) -> None:
    """Copy a region of a block into an array whose axes are in another order."""
    np.copyto(out, block.values[array_slices(block.dims, region, block.origin)].transpose(axes))


def clear_border(block: Block, region: Region, border: int) -> None:
    """Set the valid pixels of `region` that lie in the raster's rim to 0."""
    raster = block.raster
    top, bottom = min(raster.top + border, raster.bottom), max(raster.bottom - border, raster.top)
    left, right = min(raster.left + border, raster.right), max(raster.right - border, raster.left)
    for rim in (
        replace(raster, bottom=top),
        replace(raster, top=bottom),
        replace(raster, right=left),
        replace(raster, left=right),
    ):
        part = block.values[array_slices(block.dims, rim.clip(region), block.origin)]
        np.copyto(part, 0, where=~np.isnan(part))


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype in which an output is computed: its own, but float32 for float16, which no kernel knows."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def view_dtype(spec: RasterSpec, operation: Operation) -> np.dtype:
    return operation.working_dtype(spec.dtype) if operation.domain == "float" else compute_dtype(spec.dtype)


def needs_mask(use: Use, domain: str) -> bool:
    """Return whether an operation is handed a mask: integers, of which some pixels can be invalid."""
    is_integer = use.spec.dtype.kind != "f"
    return domain == "native" and is_integer and (use.spec.nodata is not None or use.edge.rule == "invalid")


def mark_nan(values: np.ndarray, spec: RasterSpec) -> None:
    """Turn the nodata of a floating-point raster into NaN, in place."""
    if spec.dtype.kind == "f" and spec.nodata is not None and not is_nan(spec.nodata):
        if values.dtype == np.float16:
            values[values == values.dtype.type(spec.nodata)] = np.nan
        else:
            validity.nodata_to_nan(values.reshape(-1), values.dtype.type(spec.nodata))


def mark_nodata(values: np.ndarray, nodata: Number) -> None:
    """Turn NaN into nodata, in place."""
    if values.dtype == np.float16:  # no kernel knows it
        values[np.isnan(values)] = nodata
    else:
        validity.nan_to_nodata(values.reshape(-1), values.dtype.type(nodata))


def mark_valid(block: Block, spec: RasterSpec) -> None:
    assert block.valid is not None
    if spec.nodata is None:
        block.valid.fill(True)
    else:
        np.not_equal(block.values, block.values.dtype.type(spec.nodata), out=block.valid)


def convert(values: np.ndarray, block: Block, use: Use) -> None:
    """Copy a raster into a block: the bands asked for, in the dtype asked for, invalid integers as NaN."""
    if use.bands is not None and "band" in block.dims:
        axis, same = block.dims.index("band"), values.dtype == block.values.dtype
        values = np.take(values, use.bands, axis=axis, out=block.values if same else None, mode="clip")
        if same:
            return
    nodata = use.spec.nodata
    if values.dtype.kind != "f" and block.values.dtype.kind == "f" and nodata is not None:
        validity.integers_to_float(
            np.ascontiguousarray(values).reshape(-1), values.dtype.type(nodata), block.values.reshape(-1)
        )
    else:
        with np.errstate(invalid="ignore"):  # beyond the raster lies what was in memory
            np.copyto(block.values, values, casting="unsafe")


def fill_block_edges(block: Block, need: Region, use: Use) -> None:
    """Fill what a step needs beyond the raster's edge by the step's own rule."""
    raster, rule = use.spec.region, use.edge.rule
    if raster.contains(need) or rule == "wrap":  # what wraps was fetched from the far side
        return
    value: float | int = use.edge.cval
    if rule == "invalid":
        value = float("nan") if block.values.dtype.kind == "f" else 0
    fill = "constant" if rule in ("constant", "invalid") else rule
    fill_edges(block.planes(), block.lanes, block.origin, need, raster, fill, value)
    if block.valid is not None:
        masked = rule != "invalid"
        fill_edges(block.planes(block.valid), block.lanes, block.origin, need, raster, fill, masked)
