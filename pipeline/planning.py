"""From steps, raster specs and limits to a plan: pure arithmetic; no pixels, no files, no dask.

The plan is frozen before anything runs: passes, their block grids, what is read and written, and how much memory
that takes. The rules stand in docs/design.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from pipeline.config.model import Ref
from pipeline.errors import PipelineError, unknown
from pipeline.operation import Edge, Operation, require_exact
from pipeline.passes import PassPlan, Slots, StepPlan, Use, plan_slots
from pipeline.raster import Dims, RasterSpec, grid_difference, holds
from pipeline.region import Axis, Grid, Halo, Region

MIB = 2**20
BASE_BYTES = 280 * MIB
"""Imports, compiled kernels, thread stacks, heap slack: measured, see docs/design.md."""
MAX_LOCAL_FILES = 20_000
SHARD_BYTES = 64 * MIB
MAX_CHUNK_SIDE = 512
MAX_CHUNK_BYTES = 32 * MIB
STRIP_BLOCKS = 1024


@dataclass(frozen=True)
class InputSpec:
    """An input as the planner sees it: its spec, and the rows and columns that are decoded together."""

    name: str
    spec: RasterSpec
    chunk: tuple[int, int]
    format: Literal["zarr", "tiff"] = "zarr"


@dataclass(frozen=True)
class Settings:
    """Everything else that a plan depends on."""

    memory_bytes: int
    workers: int
    keep: tuple[str, ...] | None = None
    region: Region | None = None
    chunks: tuple[int, ...] | Literal["auto"] = "auto"
    shards: tuple[int, ...] | Literal["auto", "none"] = "auto"
    codec: str = "fast"
    dims: Dims | Literal["auto"] = "auto"
    halo: Literal["auto", "read", "exchange"] = "auto"
    grids: tuple[Grid, ...] | None = None
    """Block grids of a run that is resumed; its finished blocks count only on the same grids."""


@dataclass(frozen=True)
class StoredArray:
    """A raster that a run writes: how it is stored, and whether it belongs to the result or to the run."""

    raster: str
    spec: RasterSpec
    """Over the whole raster; the stored array spans `region` of it."""
    region: Region
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str
    is_kept: bool

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of what is written whole: a shard, else a chunk."""
        sizes = dict(zip(self.spec.dims, self.shards or self.chunks, strict=True))
        return sizes["y"], sizes["x"]

    @property
    def num_bytes(self) -> int:
        return self.region.num_pixels * self.spec.pixel_bytes


@dataclass(frozen=True)
class PassCost:
    """What a pass takes, predicted."""

    worker_bytes: int
    """Per worker thread: block buffers, scratch, codec buffers."""
    cache_bytes: int
    peak_bytes: int
    read_bytes: int
    """Decoded bytes, chunks decoded more than once counted each time."""
    source_bytes: int
    """Decoded bytes if each chunk that is needed were decoded once."""
    write_bytes: int
    num_tasks: int
    seconds: float
    """A rough prediction, for comparing plans."""

    @property
    def amplification(self) -> float:
        return self.read_bytes / self.source_bytes if self.source_bytes else 1.0


@dataclass(frozen=True)
class PlannedPass:
    """A pass with how it will be run."""

    plan: PassPlan
    arrays: Mapping[str, StoredArray]
    """What it writes, by raster id."""
    units: Mapping[str, tuple[int, int]]
    """Rows and columns of each stored raster that are decoded and kept as one."""
    slots: Slots
    cost: PassCost
    halo: Literal["read", "exchange"]
    strip: tuple[int, int]
    """Block rows and block columns of a strip (exchange), or (1, blocks) (read)."""


@dataclass(frozen=True)
class Plan:
    """The whole run, frozen before anything runs."""

    passes: tuple[PlannedPass, ...]
    inputs: Mapping[str, InputSpec]
    settings: Settings
    notes: tuple[str, ...]
    """What the user should know: dtypes that were widened, nodata chosen, guesses made."""

    @property
    def arrays(self) -> dict[str, StoredArray]:
        return {raster: array for p in self.passes for raster, array in p.arrays.items()}

    @property
    def kept(self) -> dict[str, StoredArray]:
        return {raster: array for raster, array in self.arrays.items() if array.is_kept}

    @property
    def peak_bytes(self) -> int:
        return max(p.cost.peak_bytes for p in self.passes)

    @property
    def num_blocks(self) -> int:
        return sum(len(p.plan.grid) for p in self.passes)


def make_plan(
    steps: Sequence[Operation],
    references: Mapping[tuple[int, str], Ref],
    inputs: Mapping[str, InputSpec],
    settings: Settings,
) -> Plan:
    """Plan a run.

    Parameters
    ----------
    references
        (step index, source key) -> what it reads.

    Raises
    ------
    PipelineError
        Where a step does not fit its inputs, or the run cannot stay below the memory; `path` says where.
    """
    _check_grids(inputs)
    graph = _bind(steps, references, inputs)
    region = settings.region or graph.region
    _check_region(region, graph.region)
    keep = _resolve_keep(settings.keep, graph)
    passes = [
        _plan_pass(number, targets, graph, settings, region)
        for number, targets in enumerate(_split_into_passes(graph, keep, region))
    ]
    return Plan(tuple(passes), dict(inputs), settings, tuple(graph.notes))


# --- steps and specs -------------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """Steps bound to what they read: raster ids and specs, in the order of the file."""

    steps: dict[str, Operation]
    index: dict[str, int]
    sources: dict[str, dict[str, str]]
    """step -> source key -> raster id"""
    specs: dict[str, RasterSpec]
    """raster id -> spec as every reader sees it"""
    plans: dict[str, StepPlan]
    inputs: Mapping[str, InputSpec]
    notes: list[str]

    @property
    def region(self) -> Region:
        return next(iter(self.specs.values())).region

    def producer(self, raster: str) -> str | None:
        """Return the step that computes a raster; None for an input."""
        name = raster.partition("/")[0]
        return name if name in self.steps else None

    def bind(self, name: str, specs: Mapping[str, RasterSpec]) -> StepPlan:
        return bind_step(self.steps[name], self.sources[name], specs)


def _bind(
    steps: Sequence[Operation], references: Mapping[tuple[int, str], Ref], inputs: Mapping[str, InputSpec]
) -> _Graph:
    notes: list[str] = []
    specs = {name: _input_spec(entry) for name, entry in inputs.items()}
    graph = _Graph({}, {}, {}, specs, {}, inputs, notes)
    for number, step in enumerate(steps):
        try:
            graph.sources[step.name] = {
                key: _resolve(references[number, key], graph) for key in step.sources()
            }
            graph.steps[step.name], graph.index[step.name] = step, number
            plan = graph.bind(step.name, specs)
        except PipelineError as error:
            raise PipelineError(str(error), ("steps", number, *error.path)) from None
        graph.plans[step.name] = plan
        specs.update({plan.raster(output): spec for output, spec in plan.declared.items()})
        notes.extend(_notes(plan))
    return graph


def _input_spec(entry: InputSpec) -> RasterSpec:
    """Return an input's spec; a floating-point raster can always hold NaN."""
    spec = entry.spec
    if spec.dtype.kind == "f" and spec.nodata is None:
        return replace(spec, nodata=float("nan"))
    return spec


def _resolve(reference: Ref, graph: _Graph) -> str:
    if reference.name in graph.inputs:
        if reference.output is not None:
            raise PipelineError(f"{reference.name!r} is an input; it has no output {reference.output!r}", ("input",))
        return reference.name
    outputs = tuple(graph.plans[reference.name].declared)
    if reference.output is None and len(outputs) > 1:
        listed = ", ".join(f"{reference.name}/{output}" for output in outputs)
        raise PipelineError(f"{reference.name!r} has several outputs; name one: {listed}", ("input",))
    if reference.output is not None and reference.output not in outputs:
        raise PipelineError(unknown(f"output of {reference.name!r}", reference.output, outputs), ("input",))
    return f"{reference.name}/{reference.output or outputs[0]}"


def bind_step(operation: Operation, sources: Mapping[str, str], specs: Mapping[str, RasterSpec]) -> StepPlan:
    """Fold the specs of a step's sources through its operation."""
    selected, bands = {}, {}
    for key, raster in sources.items():
        keys = operation.bands if key == "input" else None
        selected[key], indices = specs[raster].select(keys)
        bands[key] = indices if keys is not None else None
        if operation.domain == "float":
            require_exact(operation, selected[key])
    natural = operation.outputs(selected)
    halos, edges = operation.halo(selected), operation.edges(selected)
    uses = tuple(
        Use(key, raster, selected[key], bands[key], halos.get(key, Halo()), edges.get(key, Edge()))
        for key, raster in sources.items()
    )
    declared = {output: _declare(operation, output, spec) for output, spec in natural.items()}
    return StepPlan(operation.name, operation, uses, natural, declared)


def _check_grids(inputs: Mapping[str, InputSpec]) -> None:
    (first, entry), *others = inputs.items()
    for name, other in others:
        if words := grid_difference(entry.spec, other.spec):
            raise PipelineError(f"{first!r} and {name!r} lie on different grids: {words}", ("inputs", name))


def _declare(operation: Operation, output: str, spec: RasterSpec) -> RasterSpec:
    """Return the spec of an output after the step's own `dtype` and `nodata`."""
    dtype = np.dtype(operation.dtype) if operation.dtype else spec.dtype
    nodata = spec.nodata
    if operation.nodata is not None:
        if not holds(dtype, operation.nodata):
            raise PipelineError(f"{operation.nodata} cannot occur in {dtype.name} ({output})", ("nodata",))
        nodata = operation.nodata if dtype.kind == "f" else int(operation.nodata)
    elif nodata is not None and dtype.kind == "f":
        nodata = float("nan") if spec.dtype.kind != "f" else nodata
    elif nodata is not None and not holds(dtype, nodata):
        raise PipelineError(
            f"{output} can have invalid pixels, and {dtype.name} has no value for them; "
            "say which with `nodata:`, or leave `dtype` out",
            ("dtype",),
        )
    return replace(spec, dtype=dtype, nodata=nodata)


def _notes(plan: StepPlan) -> Iterator[str]:
    source = plan.uses[0].spec
    for output, spec in plan.declared.items():
        if source.dtype.kind != "f" and spec.dtype.kind != "f" and spec.nodata is not None and plan.operation.nodata is None:
            yield f"{plan.raster(output)}: invalid pixels are {spec.nodata}, as in the input"


def _check_region(region: Region, raster: Region) -> None:
    if region.num_pixels == 0 or not raster.contains(region):
        raise PipelineError(
            f"{region} is not a part of the raster, which has rows 0:{raster.bottom}, columns 0:{raster.right}",
            ("region",),
        )


def _resolve_keep(keep: Sequence[str] | None, graph: _Graph) -> list[str]:
    """Return the ids of the kept rasters, in the order of the steps."""
    if keep is None:
        read = {graph.producer(raster) for sources in graph.sources.values() for raster in sources.values()}
        keep = [name for name in graph.steps if name not in read]
    kept: set[str] = set()
    for number, entry in enumerate(keep):
        name, _, output = entry.partition("/")
        if name not in graph.steps:
            raise PipelineError(unknown("step", name, graph.steps), ("output", "keep", number))
        plan = graph.plans[name]
        if output and output not in plan.declared:
            raise PipelineError(
                unknown(f"output of {name!r}", output, plan.declared), ("output", "keep", number)
            )
        kept.update({plan.raster(output)} if output else {plan.raster(each) for each in plan.declared})
    return [plan.raster(output) for plan in graph.plans.values() for output in plan.declared if plan.raster(output) in kept]


# --- passes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Targets:
    """What a pass writes, and the rasters that are stored when it begins."""

    writes: tuple[str, ...]
    kept: frozenset[str]
    region: Region
    available: frozenset[str]


def _split_into_passes(graph: _Graph, keep: Sequence[str], region: Region) -> list[_Targets]:
    """Group what is written by the pass in which it can be.

    A step that wraps reads the far side of its source, which no block holds: the source must be stored before.
    """
    level: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    stored: list[str] = []
    for name, plan in graph.plans.items():
        own = 0
        for use in plan.uses:
            wraps = use.periodic and graph.producer(use.raster) is not None
            own = max(own, level[use.raster] + wraps)
            if wraps and not (use.raster in keep and region == graph.region):
                stored.append(use.raster)
        level.update(dict.fromkeys((plan.raster(output) for output in plan.declared), own))
    needed = _needed(graph, keep)
    stored = [raster for raster in dict.fromkeys(stored) if raster in needed]
    passes: list[_Targets] = []
    available = set(graph.inputs)
    for number in range(max(level.values(), default=0) + 1):
        groups = {graph.region: [r for r in stored if level[r] == number]}
        kept = [raster for raster in keep if level[raster] == number]
        groups[region] = groups.get(region, []) + [raster for raster in kept if raster not in groups.get(region, [])]
        done = set()
        for part, writes in groups.items():
            if writes:
                passes.append(_Targets(tuple(writes), frozenset(kept) & set(writes), part, frozenset(available)))
                done.update(writes if part == graph.region else [])
        available |= done
    return passes


def _needed(graph: _Graph, keep: Sequence[str]) -> set[str]:
    """Return all rasters that what is kept depends on."""
    needed, todo = set(), list(keep)
    while todo:
        raster = todo.pop()
        if raster not in needed:
            needed.add(raster)
            if (name := graph.producer(raster)) is not None:
                todo.extend(graph.sources[name].values())
    return needed


def _plan_pass(number: int, targets: _Targets, graph: _Graph, settings: Settings, region: Region) -> PlannedPass:
    names = _steps_of(targets, graph)
    read = {raster for name in names for raster in graph.sources[name].values()}
    stored = tuple(raster for raster in graph.specs if raster in read and raster in targets.available)
    arrays = _plan_arrays(targets, graph, settings)
    specs: dict[str, RasterSpec] = {}
    for raster in stored:
        spec = graph.specs[raster]
        specs[raster] = spec if raster in graph.inputs else replace(spec, dims=_stored_dims(spec, settings, graph))
    steps = []
    for name in names:
        plan = graph.bind(name, specs)
        steps.append(plan)
        specs.update({plan.raster(output): spec for output, spec in plan.declared.items()})
    wanted = {
        plan.name: tuple(o for o in plan.declared if plan.raster(o) in read or plan.raster(o) in targets.writes)
        for plan in steps
    }
    dims = {raster: arrays[raster].spec.dims for raster in targets.writes}

    def build(grid: Grid) -> PassPlan:
        return PassPlan(number, tuple(steps), specs, stored, targets.writes, grid, wanted, dims)

    chunks = {raster: _chunk_of(raster, graph, settings, targets) for raster in stored}
    return _Fitter(build, arrays, chunks, settings, targets.region).fit(number)


def _steps_of(targets: _Targets, graph: _Graph) -> list[str]:
    """Return the steps that a pass computes: what its targets need and no store holds, in order."""
    names, todo = set(), [raster for raster in targets.writes]
    while todo:
        name = graph.producer(todo.pop())
        assert name is not None
        if name not in names:
            names.add(name)
            todo.extend(raster for raster in graph.sources[name].values() if raster not in targets.available)
    return sorted(names, key=graph.index.__getitem__)


def _chunk_of(raster: str, graph: _Graph, settings: Settings, targets: _Targets) -> tuple[int, int]:
    if raster in graph.inputs:
        return graph.inputs[raster].chunk
    chunks = _chunk_shape(replace(graph.specs[raster], dims=_stored_dims(graph.specs[raster], settings, graph)), settings, graph)
    sizes = dict(zip(_stored_dims(graph.specs[raster], settings, graph), chunks, strict=True))
    return sizes["y"], sizes["x"]


# --- how rasters are stored ------------------------------------------------------------------------------------


def _plan_arrays(targets: _Targets, graph: _Graph, settings: Settings) -> dict[str, StoredArray]:
    arrays = {}
    for raster in targets.writes:
        spec = graph.specs[raster]
        spec = replace(spec, dims=_stored_dims(spec, settings, graph))
        chunks = _chunk_shape(spec, settings, graph)
        chunks = tuple(min(c, n) for c, n in zip(chunks, spec.shape_of(targets.region), strict=True))
        arrays[raster] = StoredArray(
            raster, spec, targets.region, chunks, None, settings.codec, raster in targets.kept
        )
    num_files = sum(math.prod(-(-n // c) for n, c in zip(a.spec.shape_of(a.region), a.chunks, strict=True)) for a in arrays.values())
    return {raster: replace(array, shards=_shard_shape(array, settings, num_files)) for raster, array in arrays.items()}


def _stored_dims(spec: RasterSpec, settings: Settings, graph: _Graph) -> Dims:
    """Return the dims of an output: as asked, or as a Zarr input has them; from TIFFs band, y, x."""
    if "band" not in spec.dims:
        return spec.dims
    if settings.dims != "auto":
        return settings.dims
    is_tiff = all(entry.format == "tiff" for entry in graph.inputs.values())
    return ("band", "y", "x") if is_tiff else spec.dims


def _chunk_shape(spec: RasterSpec, settings: Settings, graph: _Graph) -> tuple[int, ...]:
    """Return the chunk shape of an output in its dims: as asked, as the input's, or at most 512 x 512."""
    if settings.chunks != "auto":
        sizes = dict(zip(("y", "x", "band"), settings.chunks, strict=False))
        sizes.setdefault("band", _band_group(spec, sizes["y"] * sizes["x"]))
    else:
        rows, columns = next((e.chunk for e in graph.inputs.values() if _is_sound_chunk(e)), (0, 0))
        rows, columns = rows or _even_part(spec.height), columns or _even_part(spec.width)
        sizes = {"y": rows, "x": columns, "band": _band_group(spec, rows * columns)}
    limits = {"y": spec.height, "x": spec.width, "band": spec.num_bands}
    return tuple(min(sizes[dim], limits[dim]) for dim in spec.dims)


def _is_sound_chunk(entry: InputSpec) -> bool:
    """Return whether an input's chunks are worth keeping: tiles of a sensible size, not strips."""
    rows, columns = entry.chunk
    num_bytes = rows * columns * entry.spec.pixel_bytes
    return min(rows, columns) >= 64 and max(rows, columns) <= 2048 and MIB // 16 <= num_bytes <= MAX_CHUNK_BYTES


def _even_part(size: int) -> int:
    return -(-size // -(-size // MAX_CHUNK_SIDE))


def _band_group(spec: RasterSpec, num_pixels: int) -> int:
    """Return the bands of a chunk: one where bands come first, else all, if that is not too many."""
    if spec.dims[0] == "band":
        return 1
    most = max(1, MAX_CHUNK_BYTES // (num_pixels * spec.dtype.itemsize))
    return spec.num_bands if spec.num_bands <= most else -(-spec.num_bands // -(-spec.num_bands // most))


def _shard_shape(array: StoredArray, settings: Settings, num_files: int) -> tuple[int, ...] | None:
    if settings.shards == "none" or (settings.shards == "auto" and num_files <= MAX_LOCAL_FILES):
        return None
    if settings.shards != "auto":
        sizes = dict(zip(("y", "x", "band"), settings.shards, strict=False))
        limits = array.spec.shape_of(array.region)
        shards = tuple(
            chunk if chunk >= limit else sizes.get(dim, chunk)
            for dim, chunk, limit in zip(array.spec.dims, array.chunks, limits, strict=True)
        )
        if any(shard % chunk for shard, chunk in zip(shards, array.chunks, strict=True)):
            raise PipelineError(
                f"a shard of {shards} is not whole chunks of {array.chunks} ({array.raster})", ("output", "shards")
            )
        return shards
    chunk_bytes = math.prod(array.chunks) * array.spec.dtype.itemsize
    side = max(1, math.isqrt(SHARD_BYTES // max(1, chunk_bytes)))
    return tuple(chunk * (side if dim != "band" else 1) for dim, chunk in zip(array.spec.dims, array.chunks, strict=True))


# --- blocks that fit the memory --------------------------------------------------------------------------------

DECODE_RATE = 1.7e9
COMPUTE_RATE = 2.5e9
COPY_RATE = 5e9
BLOCK_SECONDS = 2e-3
CALL_SECONDS = 5e-4
EXCHANGE_TASKS = 15
EXCHANGE_SECONDS = 4e-4
MEMORY_PENALTY = 0.05 / 2**30
"""Seconds per byte: of two plans about as fast, the smaller one; bytes and seconds as measured, see docs/design.md."""


@dataclass(frozen=True)
class _Candidate:
    plan: PassPlan
    slots: Slots
    cost: PassCost
    halo: Literal["read", "exchange"]
    strip: tuple[int, int]


class _Fitter:
    """Chooses block shape, panel width and halo way of one pass by predicted cost, within the memory."""

    def __init__(
        self,
        build: Callable[[Grid], PassPlan],
        arrays: Mapping[str, StoredArray],
        chunks: Mapping[str, tuple[int, int]],
        settings: Settings,
        region: Region,
    ) -> None:
        self.build, self.arrays, self.settings, self.region = build, arrays, settings, region
        self.probe = build(Grid(Axis(region.top, region.bottom, 1), Axis(region.left, region.right, 1), 1))
        self.units = {raster: _coarse_unit(chunk, self.probe.specs[raster]) for raster, chunk in chunks.items()}
        self.block_unit = tuple(
            math.lcm(*(min(array.unit[axis], region.shape[axis]) for array in arrays.values())) for axis in (0, 1)
        )

    def fit(self, number: int) -> PlannedPass:
        if self.settings.grids is not None:
            candidates = list(self.candidates_of(self.settings.grids[number]))
        else:
            candidates = [c for grid in self.grids() for c in self.candidates_of(grid)]
        if not candidates:
            raise PipelineError(
                "`exchange` needs blocks no thinner than the halo, and within the memory there are none; use `halo: read`",
                ("run", "halo"),
            )
        fitting = [c for c in candidates if c.cost.peak_bytes <= self.settings.memory_bytes]
        if not fitting:
            self.refuse(min(candidates, key=lambda c: c.cost.peak_bytes))
        best = min(fitting, key=lambda c: c.cost.seconds + c.cost.peak_bytes * MEMORY_PENALTY)
        return PlannedPass(best.plan, self.arrays, self.units, best.slots, best.cost, best.halo, best.strip)

    def grids(self) -> Iterator[Grid]:
        """Yield block grids worth looking at: whole units, up to a quarter of the memory per block."""
        height, width = self.region.shape
        rows = _multiples(self.block_unit[0], height)
        columns = _multiples(self.block_unit[1], width)
        pixel = max(array.spec.pixel_bytes for array in self.arrays.values())
        for block_rows, block_columns in product(rows, columns):
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
            panels = _multiples(1, len(grid.columns)) if self.settings.grids is None else [grid.panel]
            for panel in panels:
                yield self.read_candidate(replace(grid, panel=panel), slots)
        if "exchange" in ways:
            yield from self.exchange_candidates(replace(grid, panel=len(grid.columns)))

    def read_candidate(self, grid: Grid, slots: Slots) -> _Candidate:
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
        cost = self.cost(plan, worker, cache, read, source, len(grid), calls * CALL_SECONDS)
        return _Candidate(plan, slots, cost, "read", (1, min(len(grid), STRIP_BLOCKS)))

    def exchange_candidates(self, grid: Grid) -> Iterator[_Candidate]:
        """Blocks are read once and exchange their rims through map_overlap, a strip of blocks at a time."""
        halo = Halo()
        for raster in self.probe.stored:
            halo |= self.probe.halos[raster]
        around = max(halo.top, halo.bottom), max(halo.left, halo.right)
        if self.settings.grids is None:  # a block hands its rim to its neighbours, so none may be thinner
            rows, columns = (
                replace(axis, shortest=max(axis.shortest, most))
                for axis, most in zip((grid.rows, grid.columns), around, strict=True)
            )
            grid = replace(grid, rows=rows, columns=columns)
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
            # dask keeps the blocks as read, their rims cut out, and the blocks with rims pasted
            live = int(2.2 * rows * columns * pixel)
            rim = rows * columns / (strip[0] * height * strip[1] * width)
            source = self.region.num_pixels * pixel
            seconds = len(grid) * EXCHANGE_TASKS * EXCHANGE_SECONDS + 3 * source / COPY_RATE / self.settings.workers
            cost = self.cost(plan, worker, live, int(source * rim), source, len(grid) * EXCHANGE_TASKS, seconds)
            yield _Candidate(plan, slots, cost, "exchange", strip)

    def cost(
        self, plan: PassPlan, worker: int, shared: int, read: int, source: int, num_tasks: int, seconds: float
    ) -> PassCost:
        workers = min(self.settings.workers, len(plan.grid))
        written = sum(array.num_bytes for array in self.arrays.values())
        height, width = plan.grid.largest
        grown = max(((height + h.top + h.bottom) * (width + h.left + h.right) / (height * width)) for h in plan.halos.values())
        busy = read / DECODE_RATE + read / COPY_RATE + (source + written) * grown / COMPUTE_RATE
        rounds = -(-len(plan.grid) // workers)
        idle = rounds * workers / len(plan.grid)
        total = (busy * idle + len(plan.grid) * BLOCK_SECONDS) / workers + seconds
        peak = BASE_BYTES + workers * worker + shared
        return PassCost(worker, shared, peak, read, source, written, num_tasks, total)

    def scratch_bytes(self, plan: PassPlan, shape: tuple[int, int]) -> int:
        needs = plan.needs(Region(0, shape[0], 0, shape[1]), everywhere=True)
        return max(
            step.operation.scratch_bytes({use.key: use.spec for use in step.uses}, needs.compute[step.name].shape)
            for step in plan.steps
        )

    def codec_bytes(self, plan: PassPlan) -> int:
        """Return what encoding or decoding holds beside the block: a chunk as it is, and encoded."""
        read = [2 * math.prod(self.units[raster]) * plan.specs[raster].pixel_bytes for raster in plan.stored]
        written = [
            2 * math.prod(array.shards or array.chunks) * array.spec.dtype.itemsize for array in self.arrays.values()
        ]
        return max(read + written)

    def refuse(self, smallest: _Candidate) -> None:
        step = max(smallest.plan.steps, key=lambda step: _step_bytes(smallest.plan, step))
        need, have = smallest.cost.peak_bytes, self.settings.memory_bytes
        height, width = smallest.plan.grid.largest
        busy = min(self.settings.workers, len(smallest.plan.grid))
        workers = "1 worker" if busy == 1 else f"{busy} workers"
        raise PipelineError(
            f"the run may use {format_bytes(have)}, but needs at least {format_bytes(need)}: "
            f"{workers} with blocks of {height} x {width}, of which step {step.name!r} takes most; "
            f"set it to {format_bytes(need, up=True)} or more, use fewer workers, or smaller output chunks",
            ("run", "memory"),
        )


def _step_bytes(plan: PassPlan, step: StepPlan) -> int:
    return sum(use.spec.pixel_bytes for use in step.uses) + sum(spec.pixel_bytes for spec in step.natural.values())


def _coarse_unit(chunk: tuple[int, int], spec: RasterSpec) -> tuple[int, int]:
    """Return rows and columns to read at once: whole chunks, several where they are below 1 MiB."""
    rows, columns = chunk
    while rows * columns * spec.pixel_bytes < MIB and (rows < spec.height or columns < spec.width):
        if (rows <= columns and rows < spec.height) or columns >= spec.width:
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
        rows = _intervals(grid.rows, halo.top, halo.bottom, unit[0], spec.height)
        columns = _intervals(grid.columns, halo.left, halo.right, unit[1], spec.width)
        starts = np.arange(0, len(grid.columns), min(grid.panel, len(grid.columns)))
        ends = np.minimum(starts + grid.panel, len(grid.columns))
        panels = columns[0][starts], columns[1][ends - 1]
        self.distinct = int((rows[1][-1] - rows[0][0]) * (columns[1][-1] - columns[0][0]))
        panel_columns = int((panels[1] - panels[0]).sum())
        self.decoded = int(rows[1][-1] - rows[0][0]) * panel_columns
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


def _intervals(axis: Axis, before: int, after: int, unit: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each interval of an axis, with its halo, the first chunk that it meets and the one after its last."""
    index = np.arange(len(axis))
    start = axis.start + index * axis.step
    stop = np.append(start[1:], axis.stop)
    return np.maximum(start - before, 0) // unit, -(-np.minimum(stop + after, size) // unit)


def format_bytes(count: float, *, up: bool = False) -> str:
    """Return bytes in the unit a person would choose.

    Examples
    --------
    >>> format_bytes(3 * 2**30), format_bytes(1536), format_bytes(2**20 + 1, up=True)
    ('3.0 GiB', '1.5 KiB', '1.1 MiB')
    """
    unit, size = next(
        ((u, s) for u, s in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)) if count >= s), ("bytes", 1)
    )
    if unit == "bytes":
        return f"{int(count)} bytes"
    tenths = math.ceil(count / size * 10) if up else round(count / size * 10)
    return f"{tenths / 10:.1f} {unit}"
