"""Steps bound to what they read: specs folded through the steps, so that all is known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.block.plan import StepPlan, Use
from pipeline.config.reference import Ref
from pipeline.model.alignment import remedy
from pipeline.model.errors import PipelineError, unknown
from pipeline.model.raster import RasterSpec, grid_difference, holds
from pipeline.model.region import Halo, Region
from pipeline.model.table import TableSpec
from pipeline.operations.base import Edge, Operation, Reduction, Specs
from pipeline.operations.exact import require_exact
from pipeline.operations.traits import HasUnits, KeepsValues, NeedsGrid
from pipeline.planning.plan import InputSpec
from pipeline.storage.georeference.geotiff import with_units
from pipeline.storage.georeference.recorded import recorded_of


@dataclass
class Graph:
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
    tables: dict[str, TableSpec] = field(default_factory=dict)
    """step -> the table that it makes"""
    known: frozenset[str] = frozenset()
    """Steps whose tables are known already."""

    def num_sweeps(self, name: str) -> int:
        """Return how often a step sweeps over what it reads before its table is there."""
        operation, known = self.steps[name], name in self.known
        return 0 if known or not isinstance(operation, Reduction) else operation.num_sweeps(self.plans[name].sources)

    @property
    def region(self) -> Region:
        return next(iter(self.specs.values())).region

    def producer(self, raster: str) -> str | None:
        """Return the step that computes a raster; None for an input."""
        name = raster.partition("/")[0]
        return name if name in self.steps else None

    def bind(self, name: str, specs: Mapping[str, RasterSpec]) -> StepPlan:
        return bind_step(self.steps[name], self.sources[name], specs, self.tables)

    def applied(self, name: str) -> dict[str, str]:
        """Return the sources that a step's rasters are computed from: of a reduction not all that it sweeps over."""
        operation = self.steps[name]
        keys = operation.painted_from if isinstance(operation, Reduction) else None
        return {key: raster for key, raster in self.sources[name].items() if keys is None or key in keys}

    def bind_applied(self, name: str, specs: Mapping[str, RasterSpec]) -> StepPlan:
        """Return a step as its rasters are computed; `specs` need not have what only its sweeps read."""
        plan, keys = self.bind(name, {**self.specs, **specs}), self.applied(name)
        read = tuple(use for use in plan.uses if use.key in keys)
        return replace(plan, uses=read, unread=tuple(use for use in plan.uses if use.key not in keys))

    def bind_swept(self, name: str, specs: Mapping[str, RasterSpec]) -> StepPlan:
        """Return a reduction as it sweeps over what it reads."""
        plan = self.bind(name, specs)
        assert isinstance(plan.operation, Reduction)
        halos = plan.operation.sweep_halo(plan.sources)
        return replace(plan, uses=tuple(replace(use, halo=halos.get(use.key, Halo())) for use in plan.uses))


def bind(
    steps: Sequence[Operation], references: Mapping[tuple[int, str], Ref], inputs: Mapping[str, InputSpec]
) -> Graph:
    notes: list[str] = []
    specs = {name: _input_spec(entry) for name, entry in inputs.items()}
    graph = Graph({}, {}, {}, specs, {}, inputs, notes)
    for number, step in enumerate(steps):
        try:
            found = {key: references[number, key] for key in step.sources()}
            graph.sources[step.name] = {key: _resolve(step, key, found[key], graph) for key in found}
            sources = Specs({key: specs[raster] for key, raster in graph.sources[step.name].items()}, {})
            graph.steps[step.name], graph.index[step.name] = _placed(_with_input(step, found), sources, notes), number
            plan = graph.bind(step.name, specs)
            if isinstance(step, Reduction):
                graph.tables[step.name] = step.table_spec(plan.sources)
        except PipelineError as error:
            raise PipelineError(str(error), ("steps", number, *error.path)) from None
        graph.plans[step.name] = plan
        specs.update({plan.raster(output): spec for output, spec in plan.declared.items()})
        notes.extend(_notes(plan))
    return graph


def _with_input(step: Operation, references: Mapping[str, Ref]) -> Operation:
    """Return a step that names its input, also where that is the default: an expression may call it by its name."""
    if step.input is not None or "input" not in references:
        return step
    return step.model_copy(update={"input": str(references["input"])})


def _placed(step: Operation, sources: Specs, notes: list[str]) -> Operation:
    return step.placed(sources, notes) if isinstance(step, NeedsGrid) else step


def _input_spec(entry: InputSpec) -> RasterSpec:
    """Return an input's spec; a floating-point raster can always hold NaN."""
    spec = entry.spec
    if spec.dtype.kind == "f" and spec.nodata is None:
        return replace(spec, nodata=float("nan"))
    return spec


def _resolve(step: Operation, key: str, reference: Ref, graph: Graph) -> str:
    path = step.source_path(key)
    if reference.name in graph.inputs:
        if reference.output is not None:
            raise PipelineError(f"{reference.name!r} is an input; it has no output {reference.output!r}", path)
        return reference.name
    outputs = tuple(graph.plans[reference.name].declared)
    if reference.output is None and len(outputs) > 1:
        listed = ", ".join(f"{reference.name}/{output}" for output in outputs)
        raise PipelineError(f"{reference.name!r} has several outputs; name one: {listed}", path)
    if reference.output is not None and reference.output not in outputs:
        raise PipelineError(unknown(f"output of {reference.name!r}", reference.output, outputs), path)
    return f"{reference.name}/{reference.output or outputs[0]}"


def bind_step(
    operation: Operation,
    sources: Mapping[str, str],
    specs: Mapping[str, RasterSpec],
    tables: Mapping[str, TableSpec],
) -> StepPlan:
    """Fold the specs of a step's sources through its operation."""
    selected = Specs({}, {key: tables[maker] for key, maker in operation.tables().items()})
    bands = {}
    for key, raster in sources.items():
        keys = operation.bands if key == "input" else None
        selected[key], indices = specs[raster].select(keys)
        bands[key] = indices if selected[key] is not specs[raster] else None
        if operation.domain == "float":
            require_exact(operation, selected[key], key)
    natural = {output: _recorded(operation, output, spec) for output, spec in operation.output_specs(selected).items()}
    halos, edges = operation.halo(selected), operation.edges(selected)
    uses = tuple(
        Use(key, raster, selected[key], bands[key], _within_reach(halos.get(key, Halo()), edge), edge)
        for key, raster in sources.items()
        for edge in (edges.get(key, Edge()),)
    )
    invalid = [output for output, spec in natural.items() if spec.can_be_invalid] or list(natural)
    declared = {output: _declare(operation, output, spec, output in invalid) for output, spec in natural.items()}
    if operation.dtype and not operation.allow_inexact:
        limits = operation.limits(selected)
        for output, spec in natural.items():
            _check_exact(output, spec, declared[output].dtype, limits.get(output, 0))
    makers, read = operation.tables(), dict(selected.tables)
    if isinstance(operation, Reduction) and natural:
        makers, read = makers | {"self": operation.name}, read | {"self": operation.table_spec(selected)}
    return StepPlan(operation.name, operation, uses, natural, declared, makers, read)


def _within_reach(halo: Halo, edge: Edge) -> Halo:
    """Return a halo that holds what lies beyond the raster, too: beyond a mirrored edge, pixels of the other side."""
    if edge.rule not in ("reflect", "mirror"):
        return halo
    return Halo.around(max(halo.top, halo.bottom), max(halo.left, halo.right))


def _recorded(operation: Operation, output: str, spec: RasterSpec) -> RasterSpec:
    """Return a spec without what a file said of values that are others now; place and known units stay."""
    if isinstance(operation, KeepsValues):
        return spec
    if spec.recorded is not None and spec.recorded.carried is not None:
        raise PipelineError(
            "`nodata: carry` hands pixels on as they are, which `select` does and this operation does not; leave it out"
        )
    unit = operation.units().get(output) if isinstance(operation, HasUnits) else None
    return replace(spec, recorded=with_units(recorded_of(spec), unit, spec.num_bands))


def check_grids(inputs: Mapping[str, InputSpec]) -> None:
    (first, entry), *others = inputs.items()
    for name, other in others:
        if words := grid_difference(entry.spec, other.spec):
            mend = remedy(name, other.spec, other.path, first, entry.spec)
            raise PipelineError(f"{first!r} and {name!r} lie on different grids: {words}; {mend}", ("inputs", name))


def _declare(operation: Operation, output: str, spec: RasterSpec, is_marked: bool) -> RasterSpec:
    """Return the spec of an output after the step's own `dtype` and, where it `is_marked`, `nodata`.

    That are the outputs that can be invalid; where none can, all of them: from there on, the value means nodata.
    """
    dtype = np.dtype(operation.dtype) if operation.dtype else spec.dtype
    nodata = spec.nodata
    if operation.nodata is not None and is_marked:
        if not holds(dtype, operation.nodata):
            raise PipelineError(
                f"{operation.nodata} cannot occur in {dtype.name} ({output}); give a value that can", ("nodata",)
            )
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


WHOLE_LIMIT = 2.0**53
"""Up to which float64 holds all whole numbers."""


def _check_exact(output: str, spec: RasterSpec, dtype: np.dtype, limit: float) -> None:
    """Refuse a dtype by which 64-bit integers would be rounded to floating point, or have been where it is one."""
    is_long = spec.dtype.kind != "f" and spec.dtype.itemsize == 8
    if dtype.kind == "f" and is_long:
        what = f"{output} is {spec.dtype.name}, and {dtype.name} holds whole numbers only up to 2^53"
    elif dtype.kind != "f" and dtype.itemsize == 8 and WHOLE_LIMIT < limit < math.inf:
        what = f"{output} can reach {limit:.3g}; it is computed in float64, which holds whole numbers only up to 2^53"
    else:
        return
    raise PipelineError(f"{what}; set `allow_inexact: true` where rounding does no harm", ("dtype",))


def _notes(plan: StepPlan) -> Iterator[str]:
    for text in plan.operation.notes(plan.sources):
        yield f"{plan.name}: {text}"
    if not plan.uses:
        return
    source = plan.uses[0].spec
    for output, spec in plan.declared.items():
        if (
            output not in plan.operation.never_nodata
            and source.dtype.kind != "f"
            and spec.dtype.kind != "f"
            and spec.nodata is not None
            and spec.nodata == source.nodata
            and plan.operation.nodata is None
        ):
            yield (
                f"{plan.raster(output)}: invalid pixels are {spec.nodata}, as in the input; a result of {spec.nodata} "
                "counts as invalid too (`nodata:` chooses another value)"
            )
