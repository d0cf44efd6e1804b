"""From steps, raster specs and limits to a plan: pure arithmetic; no pixels, no files, no dask.

The plan is frozen before anything runs: passes, their block grids, what is read and written, and how much memory
that takes. The rules stand in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.config.model import Ref
from pipeline.errors import PipelineError, unknown
from pipeline.operation import Operation
from pipeline.passes import PassPlan
from pipeline.planning.binding import Graph, bind, check_grids
from pipeline.planning.fitting import Fitter
from pipeline.planning.layout import plan_arrays, stored_chunk, stored_spec
from pipeline.planning.plan import InputSpec, PassCost, Plan, PlannedPass, Settings, StoredArray, format_bytes
from pipeline.region import Grid, Region

__all__ = [
    "InputSpec",
    "PassCost",
    "Plan",
    "PlannedPass",
    "Settings",
    "StoredArray",
    "format_bytes",
    "make_plan",
]


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
    check_grids(inputs)
    graph = bind(steps, references, inputs)
    region = settings.region or graph.region
    _check_region(region, graph.region)
    keep = _resolve_keep(settings.keep, graph)
    passes = [
        _plan_pass(number, targets, graph, settings)
        for number, targets in enumerate(_split_into_passes(graph, keep, region))
    ]
    return Plan(tuple(passes), dict(inputs), settings, tuple(graph.notes))


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
        if output and output not in plan.declared:
            raise PipelineError(unknown(f"output of {name!r}", output, plan.declared), ("output", "keep", number))
        kept.update({plan.raster(output)} if output else {plan.raster(each) for each in plan.declared})
    return [
        plan.raster(output) for plan in graph.plans.values() for output in plan.declared if plan.raster(output) in kept
    ]


@dataclass(frozen=True)
class _Targets:
    """What a pass writes, and the rasters that are stored when it begins."""

    writes: tuple[str, ...]
    kept: frozenset[str]
    region: Region
    available: frozenset[str]


def _split_into_passes(graph: Graph, keep: Sequence[str], region: Region) -> list[_Targets]:
    """Group what is written by the pass in which it can be.

    A step that wraps reads the far side of its source, which no block holds: the source must be stored before.
    """
    level: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    stored: list[str] = []
    for plan in graph.plans.values():
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
                mine = frozenset(kept if part == region else ())
                passes.append(_Targets(tuple(writes), mine, part, frozenset(available)))
                done.update(writes if part == graph.region else [])
        available |= done
    return passes


def _needed(graph: Graph, keep: Sequence[str]) -> set[str]:
    """Return all rasters that what is kept depends on."""
    needed, todo = set(), list(keep)
    while todo:
        raster = todo.pop()
        if raster not in needed:
            needed.add(raster)
            if (name := graph.producer(raster)) is not None:
                todo.extend(graph.sources[name].values())
    return needed


def _plan_pass(number: int, targets: _Targets, graph: Graph, settings: Settings) -> PlannedPass:
    names = _steps_of(targets, graph)
    read = {raster for name in names for raster in graph.sources[name].values()}
    stored = tuple(raster for raster in graph.specs if raster in read and raster in targets.available)
    specs = {
        raster: graph.specs[raster] if raster in graph.inputs else stored_spec(raster, settings, graph)
        for raster in stored
    }
    steps = []
    for name in names:  # bound again: a source that was stored may come back in other dims
        plan = graph.bind(name, specs)
        steps.append(plan)
        specs.update({plan.raster(output): spec for output, spec in plan.declared.items()})
    wanted = {
        plan.name: tuple(o for o in plan.declared if plan.raster(o) in read or plan.raster(o) in targets.writes)
        for plan in steps
    }
    dims = {raster: stored_spec(raster, settings, graph).dims for raster in targets.writes}

    def build(grid: Grid) -> PassPlan:
        return PassPlan(number, tuple(steps), specs, stored, targets.writes, grid, wanted, dims)

    def fit(settings: Settings) -> PlannedPass:
        arrays = plan_arrays(targets.writes, targets.kept, targets.region, graph, settings)
        return Fitter(build, arrays, chunks, settings, targets.region).fit(number)

    chunks = {raster: stored_chunk(raster, settings, graph) for raster in stored}
    try:
        return fit(settings)
    except PipelineError:
        if settings.shards != "auto":
            raise
        return fit(replace(settings, shards="none"))  # many files rather than none


def _steps_of(targets: _Targets, graph: Graph) -> list[str]:
    """Return the steps that a pass computes: what its targets need and no store holds, in order."""
    names, todo = set(), list(targets.writes)
    while todo:
        name = graph.producer(todo.pop())
        assert name is not None
        if name not in names:
            names.add(name)
            todo.extend(raster for raster in graph.sources[name].values() if raster not in targets.available)
    return sorted(names, key=graph.index.__getitem__)
