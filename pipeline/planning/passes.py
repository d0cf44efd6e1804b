"""From steps, raster specs and limits to a plan: pure arithmetic; no pixels, no files, no dask.

The plan is frozen before anything runs: passes, their block grids, what is read and written, and how much memory
that takes. The rules stand in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.block.plan import Pass, StepPlan, Sweep, Use
from pipeline.config.reference import Ref
from pipeline.model.errors import PipelineError, unknown
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Grid, Region
from pipeline.operations.base import Operation, Reduction
from pipeline.operations.traits import IsMeasured
from pipeline.planning.binding import Graph, bind, check_grids
from pipeline.planning.fitting import Fitter, TooLittleMemory
from pipeline.planning.layout import plan_arrays, stored_chunk, stored_spec
from pipeline.planning.plan import ECONOMIES, InputSpec, Plan, Settings

MANY_SWEEPS = 3
"""Sweeps over a computed raster from which on it is stored rather than computed for each."""


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
    economies = range(len(ECONOMIES)) if settings.economy is None else [settings.economy]
    for economy in economies:
        try:
            return _make_plan(steps, references, inputs, replace(settings, economy=economy))
        except PipelineError as error:
            if error.path != ("run", "memory") or economy == economies[-1]:
                raise
    raise AssertionError("the last economy returns or raises")


def _make_plan(
    steps: Sequence[Operation],
    references: Mapping[tuple[int, str], Ref],
    inputs: Mapping[str, InputSpec],
    settings: Settings,
) -> Plan:
    check_grids(inputs)
    graph = bind(steps, references, inputs)
    graph.known = frozenset(settings.tables)
    region = settings.region or graph.region
    _check_region(region, graph.region)
    keep = _resolve_keep(settings.keep, graph)
    passes, refused = [], []
    for number, targets in enumerate(_split_into_passes(graph, keep, region)):
        try:
            passes.append(_plan_pass(number, targets, graph, settings))
        except TooLittleMemory as error:
            refused.append(error)
    if refused:  # so that with the memory that the message asks for, all of them fit
        raise max(refused, key=lambda error: error.need_bytes)
    return Plan(
        tuple(passes), dict(inputs), settings, tuple(graph.notes), {name: graph.plans[name] for name in graph.tables}
    )


def _check_region(region: Region, raster: Region) -> None:
    if region.num_pixels == 0 or not raster.contains(region):
        raise PipelineError(
            f"{region} is not a part of the raster, which has rows 0:{raster.bottom}, columns 0:{raster.right}",
            ("region",),
        )


def _resolve_keep(keep: Sequence[str] | None, graph: Graph) -> list[str]:
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
        if name in graph.tables and output in ("table", "palette"):
            continue  # tables are always kept
        if output and output not in plan.declared:
            raise PipelineError(unknown(f"output of {name!r}", output, plan.declared), ("output", "keep", number))
        kept.update({plan.raster(output)} if output else {plan.raster(each) for each in plan.declared})
    return [
        plan.raster(output) for plan in graph.plans.values() for output in plan.declared if plan.raster(output) in kept
    ]


@dataclass(frozen=True)
class _Targets:
    """What a pass writes and sweeps, and the rasters that are stored when it begins."""

    writes: tuple[str, ...]
    kept: frozenset[str]
    region: Region
    available: frozenset[str]
    sweeps: tuple[tuple[str, int], ...] = ()
    """(reduction, which of its sweeps)"""


@dataclass(frozen=True)
class _Levels:
    """The passes in which things can be done, counted from 0."""

    rasters: dict[str, int]
    """raster -> the pass that can compute it"""
    sweeps: dict[str, int]
    """reduction -> the pass of its first sweep"""
    stored: tuple[str, ...]
    """Computed rasters that must be stored for a later pass, kept or not."""


def _levels(graph: Graph, keep: Sequence[str], region: Region) -> _Levels:
    """Say in which pass each raster can be computed and each reduction can begin.

    A step that wraps reads the far side of its source, which no block holds: the source must be stored before. A
    table is there after the last sweep of its reduction; what it reads is computed again for every sweep, but stored
    for three sweeps or more.
    """
    rasters: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    tables: dict[str, int] = {}
    sweeps: dict[str, int] = {}
    stored: list[str] = []
    for plan in graph.plans.values():
        own = max((tables[maker] for key, maker in plan.makers.items() if key != "self"), default=0)
        num_sweeps = graph.num_sweeps(plan.name)
        for use in plan.uses:
            computed = graph.producer(use.raster) is not None
            wraps = use.periodic and computed
            own = max(own, rasters[use.raster] + wraps)
            if (wraps and not (use.raster in keep and region == graph.region)) or (
                computed and num_sweeps >= MANY_SWEEPS and use.raster not in keep
            ):
                stored.append(use.raster)
        if isinstance(plan.operation, Reduction):
            sweeps[plan.name], tables[plan.name] = own, own + num_sweeps
        rasters.update(dict.fromkeys((plan.raster(output) for output in plan.declared), own + num_sweeps))
    return _Levels(rasters, sweeps, tuple(dict.fromkeys(stored)))


def _split_into_passes(graph: Graph, keep: Sequence[str], region: Region) -> list[_Targets]:
    """Group what is written and swept by the pass in which it can be."""
    levels = _levels(graph, keep, region)
    needed = _needed(graph, keep)
    stored = [raster for raster in levels.stored if raster in needed]
    last = max([*levels.rasters.values(), *(first + graph.num_sweeps(n) - 1 for n, first in levels.sweeps.items())])
    passes: list[_Targets] = []
    available = set(graph.inputs)
    for number in range(last + 1):
        groups = {graph.region: [r for r in stored if levels.rasters[r] == number]}
        kept = [raster for raster in keep if levels.rasters[raster] == number]
        groups[region] = groups.get(region, []) + [raster for raster in kept if raster not in groups.get(region, [])]
        sweeps = tuple(
            (name, number - first)
            for name, first in levels.sweeps.items()
            if first <= number < first + graph.num_sweeps(name)
        )
        done = set()
        for part, writes in groups.items():
            swept = sweeps if part == region else ()
            if writes or swept:
                mine = frozenset(kept if part == region else ())
                passes.append(_Targets(tuple(writes), mine, part, frozenset(available), swept))
                done.update(writes if part == graph.region else [])
        available |= done
    return passes


def _needed(graph: Graph, keep: Sequence[str]) -> set[str]:
    """Return all rasters that what is kept depends on; tables are always kept."""
    needed: set[str] = set()
    makers = [name for name in graph.tables if name not in graph.known]
    todo = [*keep, *(raster for name in makers for raster in graph.sources[name].values())]
    while todo:
        raster = todo.pop()
        if raster not in needed:
            needed.add(raster)
            if (name := graph.producer(raster)) is not None:
                todo.extend(graph.sources[name].values())
    return needed


def _plan_pass(number: int, targets: _Targets, graph: Graph, settings: Settings) -> Pass:
    names = _steps_of(targets, graph)
    read = {raster for name in names for raster in graph.applied(name).values()}
    read |= {raster for name, _ in targets.sweeps for raster in graph.sources[name].values()}
    stored = tuple(raster for raster in graph.specs if raster in read and raster in targets.available)
    specs = {
        raster: graph.specs[raster] if raster in graph.inputs else stored_spec(raster, settings, graph)
        for raster in stored
    }
    steps = []
    for name in names:  # bound again: a source that was stored may come back in other dims
        plan = graph.bind_applied(name, specs)
        steps.append(plan)
        specs.update({plan.raster(output): spec for output, spec in plan.declared.items()})
    sweeps = tuple(Sweep(graph.bind_swept(name, specs), sweep) for name, sweep in targets.sweeps)
    taken = read.union(targets.writes)
    wanted = {plan.name: tuple(o for o in plan.declared if plan.raster(o) in taken) for plan in steps}
    dims = {raster: stored_spec(raster, settings, graph).dims for raster in targets.writes}
    bands = _read_bands([*steps, *(sweep.step for sweep in sweeps)], {raster: specs[raster] for raster in stored})
    pixel_bytes = {raster: specs[raster].pixel_bytes for raster in stored}
    decoded_bytes = {raster: _decoded_bytes(specs[raster], graph.inputs.get(raster), settings) for raster in stored}
    specs.update({raster: specs[raster].pick(read) for raster, read in bands.items()})
    steps = [_narrow(step, bands) for step in steps]
    sweeps = tuple(replace(sweep, step=_narrow(sweep.step, bands)) for sweep in sweeps)

    kept = {graph.producer(raster) for raster in targets.kept}
    measured = tuple(step.name for step in steps if isinstance(step.operation, IsMeasured) and step.name in kept)

    def build(grid: Grid) -> Pass:
        return Pass(number, tuple(steps), specs, stored, targets.writes, grid, wanted, dims, sweeps, bands, measured)

    chunks = {raster: stored_chunk(raster, settings, graph) for raster in stored}
    arrays = plan_arrays(targets.writes, targets.kept, targets.region, graph, settings)
    return Fitter(build, arrays, chunks, pixel_bytes, decoded_bytes, settings, targets.region).fit(number)


def _decoded_bytes(spec: RasterSpec, entry: InputSpec | None, settings: Settings) -> int:
    """Return the bytes of a pixel with the bands that are decoded at once: each worker decodes a chunk."""
    num = spec.num_bands if entry is None or entry.chunk_bands is None else entry.chunk_bands * settings.workers
    return min(num, spec.num_bands) * spec.dtype.itemsize


def _read_bands(steps: Sequence[StepPlan], stored: Mapping[str, RasterSpec]) -> dict[str, tuple[int, ...]]:
    """Return the bands that steps use of stored rasters, where they do not use all."""
    used: dict[str, set[int]] = {}
    for use in (use for step in steps for use in step.uses if use.raster in stored):
        bands = range(stored[use.raster].num_bands) if use.bands is None else use.bands
        used.setdefault(use.raster, set()).update(bands)
    return {raster: tuple(sorted(bands)) for raster, bands in used.items() if len(bands) < stored[raster].num_bands}


def _narrow(step: StepPlan, bands: Mapping[str, tuple[int, ...]]) -> StepPlan:
    """Return a step that finds its bands among those that are read."""

    def places(use: Use) -> tuple[int, ...] | None:
        read = bands[use.raster]
        found = tuple(read.index(band) for band in use.bands or ())
        return None if found == tuple(range(len(read))) else found

    return replace(
        step, uses=tuple(replace(use, bands=places(use)) if use.raster in bands else use for use in step.uses)
    )


def _steps_of(targets: _Targets, graph: Graph) -> list[str]:
    """Return the steps that a pass computes: what its targets need and no store holds, in order."""
    names: set[str] = set()
    todo = list(targets.writes)
    for sweeping, _ in targets.sweeps:
        todo += [raster for raster in graph.sources[sweeping].values() if raster not in targets.available]
    while todo:
        name = graph.producer(todo.pop())
        assert name is not None
        if name not in names:
            names.add(name)
            todo.extend(raster for raster in graph.applied(name).values() if raster not in targets.available)
    return sorted(names, key=graph.index.__getitem__)
