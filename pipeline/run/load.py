"""A pipeline made ready: its file read, its inputs opened, its run planned; nothing is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import (
    Document,
    Input,
    Pipeline,
    RegionConfig,
    Scale,
    load_pipeline,
    locate,
    resolve,
    with_matrices,
)
from pipeline.config.place import format_path, look_up
from pipeline.config.reference import References
from pipeline.execution.process import available_cpus, available_memory_bytes
from pipeline.model.errors import InputChanged, InputError, PipelineError, RunStopped, cut, unknown
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Grid, Region
from pipeline.model.table import Table
from pipeline.operations.base import Operation
from pipeline.operations.registry import owner_of
from pipeline.operations.traits import matrix_files, table_files
from pipeline.output.address import is_geotiff
from pipeline.output.job import Job, access_of
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings
from pipeline.run.notes import input_notes, output_notes, reading_notes
from pipeline.storage.folder.address import is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.matched import match
from pipeline.storage.matrix import read_matrix
from pipeline.storage.open import InputOptions, open_input
from pipeline.storage.reader import Reader

if TYPE_CHECKING:
    from pipeline.planning.plan import Capacity

Source = str | os.PathLike[str] | Mapping[str, Any]


def load(
    source: Source,
    *,
    overrides: Sequence[str | tuple[str, str]] = (),
    inputs: Mapping[str, str] | None = None,
    output: str | None = None,
    grids: tuple[Grid, ...] | None = None,
    economy: int | None = None,
    tables: Mapping[str, Table] | None = None,
    capacity: Capacity | None = None,
    trust: bool | None = None,
    in_place: bool = False,
) -> Job:
    """Read a pipeline file (or mapping), open its inputs and plan the run; nothing is written.

    Tables that are given, by step, are not made again. The plan is for this process, or for workers of the capacity.
    With `trust` it may ask for anything, see `load_pipeline`.
    """
    config, document = load_pipeline(source, overrides, inputs, output, trust=trust)
    files = tuple(path for step in config.steps for path in matrix_files(step).values())
    try:
        config = with_matrices(document, config, read_matrix)
        references = resolve(config)
        wide, limits = _wide_inputs(config, references), _limits(config)
        opened: dict[InputOptions, Reader] = {}
        options = {name: _input_options(entry, limits, name in wide) for name, entry in config.inputs.items()}
        readers = _match(config, {name: _open(name, each, document, opened) for name, each in options.items()})
        specs = {name: _input_spec(name, reader, config.inputs[name]) for name, reader in readers.items()}
        settings = _settings(config, next(iter(specs.values())).spec, grids, capacity)
        settings = dataclasses.replace(settings, economy=economy, tables=tables or {})
        plan = make_plan(config.steps, references, specs, settings)
    except PipelineError as error:
        if capacity and error.path == ("run", "memory") and config.run.memory is None:
            error = PipelineError(f"{error} (60 % of the limit of the smallest worker is what it may use)", error.path)
        raise PipelineError(locate(document, error), error.path) from None
    if is_url(config.output.path):
        try:
            _check_remote(config, plan)
        except PipelineError as error:
            raise PipelineError(locate(document, error), error.path) from None
    notes = (*input_notes(config, readers), *reading_notes(plan), *output_notes(config, plan))
    plan = dataclasses.replace(plan, notes=tuple(map(cut, (*notes, *plan.notes))))
    return Job(config, document, readers, plan, _parts(config, readers), files, in_place)


def _check_remote(config: Pipeline, plan: Plan) -> None:
    """Refuse what an object store cannot hold."""
    if is_geotiff(config.output.path):
        raise PipelineError("GeoTIFFs are written to folders; give one, or a .zarr", ("output", "path"))
    if plan.reductions and config.run.scratch is None:
        raise PipelineError(
            f"the tables of {', '.join(plan.reductions)} are made in a folder before they go to an object store; name "
            "one that all workers share: `scratch: FOLDER`",
            ("run", "scratch"),
        )


def _wide_inputs(config: Pipeline, references: References) -> set[str]:
    """Return the inputs that a step reads which computes in float64 whatever the pixels are."""
    narrow = np.dtype(np.uint8)
    return {ref.name for (step, _), ref in references.items() if config.steps[step].working_dtype(narrow) != np.float32}


def _open(name: str, options: InputOptions, document: Document, opened: dict[InputOptions, Reader]) -> Reader:
    """Open an input; errors say where the file names it."""
    try:
        return open_input(options, opened)
    except PipelineError as error:
        raise PipelineError(str(error), ("inputs", name, *error.path)) from error.__cause__
    except (InputError, RemoteError) as error:
        place = _place_of_input(document, name)
        raise InputError(f"{place}: {error}" if place else str(error)) from error.__cause__


def _limits(config: Pipeline) -> ReadLimits:
    return ReadLimits(**config.run.limits.model_dump())


def _place_of_input(document: Document, name: str) -> str:
    """Return where the file, or the option that overrides it, names an input; empty for a mapping from Python."""
    path: tuple[str, ...] = ("inputs", name)
    entry = look_up(document.data, path)
    if isinstance(entry, Mapping):
        path = (*path, "stack" if "stack" in entry else "path")
    origin = document.origin(path)
    return f"{origin}: {format_path(path)}" if origin else ""


def _input_options(entry: Input, limits: ReadLimits, is_wide: bool) -> InputOptions:
    scale = entry.scale
    return InputOptions(
        paths=entry.paths,
        arrays=entry.arrays or (entry.array,),
        at=tuple(entry.at.items()),
        dims=entry.dim_names,
        bands=entry.bands,
        nodata=entry.nodata,
        scale=(scale.factor, scale.offset) if isinstance(scale, Scale) else scale,
        is_wide=is_wide,
        limits=limits,
        series=entry.series,
        level=entry.level,
        access=access_of(entry.storage),
        missing=entry.missing,
    )


def _match(config: Pipeline, readers: Mapping[str, Reader]) -> dict[str, Reader]:
    """Return the readers, each on the grid of the input that it is to match."""
    matched = dict(readers)
    for name, entry in config.inputs.items():
        if entry.match is None:
            continue
        path = ("inputs", name, "match")
        if entry.match not in readers or entry.match == name:
            others = [other for other in readers if other != name]
            raise PipelineError(unknown("input", entry.match, others), path)
        if config.inputs[entry.match].match is not None:
            raise PipelineError(f"{entry.match!r} matches another input itself; match that one", path)
        matched[name] = match(readers[name], readers[entry.match].spec, name, entry.match, entry.paths[0])
    return matched


def _input_spec(name: str, reader: Reader, entry: Input) -> InputSpec:
    facts = reader.describe()
    path, codec = entry.paths[0], facts["codec"]
    if "TIFF" in facts["format"]:
        return InputSpec(name, reader.spec, reader.chunk, "tiff", path, codec)
    return InputSpec(name, reader.spec, reader.chunk, "zarr", path)


def _settings(
    config: Pipeline, spec: RasterSpec, grids: tuple[Grid, ...] | None, capacity: Capacity | None
) -> Settings:
    run, output = config.run, config.output
    threads = capacity.threads if capacity else available_cpus()
    return Settings(
        memory_bytes=capacity.grant(run.memory) if capacity else run.memory or available_memory_bytes() // 2,
        workers=min(run.workers or threads, threads) if capacity else run.workers or threads,
        processes=capacity.processes if capacity else 1,
        keep=output.keep,
        region=_region(config.region, spec) if config.region else None,
        chunks=output.chunks,
        shards=output.shards,
        codec=output.codec,
        dims="auto" if output.dims == "auto" else tuple(output.dims.split(",")),
        halo=run.halo,
        grids=grids,
        is_remote=is_url(output.path),
        remote_inputs=frozenset(name for name, entry in config.inputs.items() if any(map(is_url, entry.paths))),
    )


def _region(region: RegionConfig, spec: RasterSpec) -> Region:
    if region.bbox is not None:
        return _region_of_box(region.bbox, spec)
    (top, bottom), (left, right) = region.rows or (0, spec.height), region.columns or (0, spec.width)
    return Region(top, bottom, left, right)


def _region_of_box(box: Sequence[float], spec: RasterSpec) -> Region:
    """Return the pixels that a box in the raster's coordinates touches."""
    if spec.transform is None:
        raise PipelineError("the raster has no georeference; give rows and columns instead", ("region", "bbox"))
    a, b, c, d, e, f = spec.transform
    if b or d:
        raise PipelineError("the raster is rotated; give rows and columns instead", ("region", "bbox"))
    columns = sorted(((box[0] - c) / a, (box[2] - c) / a))
    rows = sorted(((box[1] - f) / e, (box[3] - f) / e))
    # a box on pixel edges takes no neighbour because of the last bit
    top, left = (int(value + 1e-6) if value > 0 else 0 for value in (rows[0], columns[0]))
    region = Region(top, int(-(-(rows[1] - 1e-6) // 1)), left, int(-(-(columns[1] - 1e-6) // 1)))
    clipped = region.clip(spec.region)
    if not clipped.num_pixels:
        ends = sorted((c, c + a * spec.width)), sorted((f, f + e * spec.height))
        raise PipelineError(
            f"{list(box)} does not meet the raster, which spans x {ends[0][0]:g} to {ends[0][1]:g}, "
            f"y {ends[1][0]:g} to {ends[1][1]:g}",
            ("region", "bbox"),
        )
    return clipped


def _parts(config: Pipeline, readers: Mapping[str, Reader]) -> dict[str, Any]:
    data = config.to_dict()
    data.pop("run", None)
    for entry in data["inputs"].values():  # how a store is reached is no part of the result
        entry.pop("storage", None)
    for step, entry in zip(config.steps, data["steps"], strict=True):
        for field in table_files(step):  # where a table is written besides is no part of the result
            del entry[field]
    output = {key: value for key, value in data.pop("output").items() if key not in ("path", "geotiff", "storage")}
    return {
        **data,
        "output": output,
        "operations": {step.op: _version_of(type(step)) for step in config.steps},
        "identities": {name: _identify(name, reader) for name, reader in readers.items()},
    }


def _version_of(operation: type[Operation]) -> int | dict[str, Any]:
    """Return what results depend on of an operation: of another package's also the version of that."""
    owner = owner_of(operation)
    return {"version": operation.version, owner.name: owner.version} if owner else operation.version


def _identify(name: str, reader: Reader) -> dict[str, Any]:
    try:
        return reader.identity()
    except OSError as error:
        raise InputError(f"the input {name} cannot be read: {error}") from error


def check_inputs_unchanged(job: Job) -> None:
    """Refuse to call a result complete whose inputs were changed while the run read them."""
    opened: dict[InputOptions, Reader] = {}
    limits = _limits(job.pipeline)
    for name, entry in job.pipeline.inputs.items():
        try:
            identity = _identify(name, _open(name, _input_options(entry, limits, is_wide=False), job.document, opened))
        except InputError as error:
            words = "all blocks are computed, and --resume ends the run once the input is there"
            raise RunStopped(f"{error}; {words}") from error
        if identity != job.parts["identities"][name]:
            raise InputChanged(f"the input {name} ({', '.join(entry.paths)}) changed while the run read it")
