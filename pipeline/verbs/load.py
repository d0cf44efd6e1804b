"""A pipeline made ready: its file read, its inputs opened, its run planned; nothing is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np

from pipeline.config import Changes, Document, Pipeline, RegionConfig, load_pipeline, locating, resolve, with_matrices
from pipeline.config.place import format_path, look_up
from pipeline.config.reference import References
from pipeline.execution.process import available_cpus, default_memory_bytes
from pipeline.model.errors import InputChanged, InputError, PipelineError, RunStopped, unknown
from pipeline.model.errors import cut as shortened
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Grid, Region
from pipeline.model.table import Table
from pipeline.operations.base import Operation
from pipeline.operations.registry import owner_of
from pipeline.operations.traits import matrix_files, table_files
from pipeline.output.address import is_one_raster
from pipeline.output.exports.polygons import polygon_notes
from pipeline.output.exports.raster import FORM
from pipeline.output.job import Job
from pipeline.output.levels import levels_of
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import Capacity, InputSpec, Plan, Settings
from pipeline.storage.compose import Opened, open_input
from pipeline.storage.files import expand
from pipeline.storage.folder.address import is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.input import SOURCES, Input, grid_of
from pipeline.storage.matched import match
from pipeline.storage.reader import Reader
from pipeline.storage.vector.reader import open_polygons
from pipeline.verbs.notes import input_notes, output_notes, reading_notes
from pipeline.verbs.shares import with_shares

Source = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Cut:
    """How a run is cut into blocks, where that is not for the planner to say."""

    grids: tuple[Grid, ...] | None = None
    economy: int | None = None
    """Of the run whose grids they are, see `Settings`."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """step -> its table, which is not made again."""
    capacity: Capacity | None = None
    """What the workers have for whom it is planned. Default: what this process has."""


PLANNED = Cut()


def load(source: Source, *, cut: Cut = PLANNED, in_place: bool = False, **changes: Unpack[Changes]) -> Job:
    """Read a pipeline file (or mapping), open its inputs and plan the run; nothing is written.

    `changes` are those of `load_pipeline`; with `in_place` a store in an object store may be replaced where it lies.
    """
    config, document = load_pipeline(source, **changes)
    files = tuple(path for step in config.steps for path in matrix_files(step).values())
    with locating(document):
        config = with_matrices(document, config)
        named = config.inputs
        config, weighed = with_shares(config)
        config, found = _with_files(config, document)
        references = resolve(config)
        opened: Opened = {}
        readers = _match(config, dict(_open_inputs(config, document, opened, _wide_inputs(config, references))))
        specs = {name: _input_spec(name, reader, config.inputs[name]) for name, reader in readers.items()}
        try:
            plan = make_plan(config.steps, references, specs, _settings(config, readers, cut))
        except PipelineError as error:
            if cut.capacity and error.path == ("run", "memory") and config.run.memory is None:
                text = f"{error} (60 % of the limit of the smallest worker is what it may use)"
                raise PipelineError(text, error.path) from None
            raise
        if is_url(config.output.path):
            _check_remote(config, plan)
        written = (*output_notes(config, plan), *polygon_notes(config.output, plan.kept))
    given = {name: reader for name, reader in readers.items() if name in named}
    notes = (*found, *input_notes(config, given), *weighed, *reading_notes(plan), *written)
    plan = dataclasses.replace(plan, notes=tuple(map(shortened, (*notes, *plan.notes))))
    job = Job(config, document, readers, plan, _parts(config, readers), files, in_place, opened)
    with locating(document):
        levels = {raster: (len(each.arrays), each.resampling) for raster, each in levels_of(job).items()}
    return dataclasses.replace(job, parts={**job.parts, "levels": levels}) if levels else job


def _check_remote(config: Pipeline, plan: Plan) -> None:
    """Refuse what an object store cannot hold."""
    if is_one_raster(config.output.path):
        words = "GeoTIFFs and OME-Zarr images are written to folders; give one, or another name that ends in .zarr"
        raise PipelineError(words, ("output", "path"))
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


def _with_files(config: Pipeline, document: Document) -> tuple[Pipeline, list[str]]:
    """Return the pipeline with the files that its patterns mean, and what the user should know of them."""
    inputs, notes = {}, list[str]()
    for name, entry in config.inputs.items():
        with _located(document, name):
            inputs[name], said = expand(entry)
        notes += [f"input {name}: {text}" for text in said]
    return config.model_copy(update={"inputs": inputs}), notes


@contextmanager
def _located(document: Document, name: str) -> Iterator[None]:
    """Say of errors where the file names the input."""
    try:
        yield
    except PipelineError as error:
        raise PipelineError(str(error), ("inputs", name, *error.path)) from error.__cause__
    except (InputError, RemoteError) as error:
        place = _place_of_input(document, name)
        raise InputError(f"{place}: {error}" if place else str(error)) from error.__cause__


def _open_inputs(
    config: Pipeline, document: Document, opened: Opened, wide: Collection[str] = ()
) -> Iterator[tuple[str, Reader]]:
    """Open the inputs, one after the other, polygons on the grids of rasters; errors say where the file names them."""
    readers: dict[str, Reader] = {}
    for name, entry in sorted(config.inputs.items(), key=lambda item: item[1].vector is not None):
        with _located(document, name):
            if entry.vector is None:
                readers[name] = open_input(entry, config.run.limits, is_wide=name in wide, opened=opened)
            else:
                readers[name] = open_polygons(entry, _grid(name, config, readers), config.run.limits)
    yield from ((name, readers[name]) for name in config.inputs)


def _grid(name: str, config: Pipeline, readers: Mapping[str, Reader]) -> RasterSpec:
    """Return the grid on which polygons are laid."""
    grid = grid_of(name, config.inputs)
    if grid is None:
        raise PipelineError("polygons are laid on the grid of a raster, and no input is one; add it", ("vector",))
    rasters = {other: reader for other, reader in readers.items() if config.inputs[other].vector is None}
    if grid not in rasters:
        raise PipelineError(unknown("raster", grid, list(rasters)), ("match",))
    if config.inputs[grid].match is not None:
        raise PipelineError(f"{grid!r} matches another input itself; match that one", ("match",))
    return rasters[grid].spec


def _place_of_input(document: Document, name: str) -> str:
    """Return where the file, or the option that overrides it, names an input; empty for a mapping from Python."""
    path: tuple[str, ...] = ("inputs", name)
    entry = look_up(document.data, path)
    if isinstance(entry, Mapping):
        path = (*path, next((key for key in SOURCES if key in entry), "path"))
    origin = document.origin(path)
    return f"{origin}: {format_path(path)}" if origin else ""


def _match(config: Pipeline, readers: Mapping[str, Reader]) -> dict[str, Reader]:
    """Return the readers, each on the grid of the input that it is to match."""
    matched = dict(readers)
    for name, entry in config.inputs.items():
        if entry.match is None or entry.vector is not None:
            continue
        path = ("inputs", name, "match")
        if entry.match not in readers or entry.match == name:
            others = [other for other in readers if other != name]
            raise PipelineError(unknown("input", entry.match, others), path)
        if config.inputs[entry.match].vector is not None:
            raise PipelineError(f"{entry.match!r} has polygons, and no grid of its own; match a raster", path)
        if config.inputs[entry.match].match is not None:
            raise PipelineError(f"{entry.match!r} matches another input itself; match that one", path)
        matched[name] = match(readers[name], readers[entry.match].spec, name, entry.match, entry.paths[0])
    return matched


def _input_spec(name: str, reader: Reader, entry: Input) -> InputSpec:
    kind: Literal["tiff", "zarr"] = "zarr" if reader.describe()["format"].startswith("Zarr") else "tiff"
    return InputSpec(name, reader.spec, reader.chunk, kind, entry.paths[0], reader.chunk_bands, reader.compile_decoder)


def _settings(config: Pipeline, readers: Mapping[str, Reader], cut: Cut) -> Settings:
    run, output, capacity = config.run, config.output, cut.capacity
    spec = next(iter(readers.values())).spec
    threads = capacity.threads if capacity else available_cpus()
    return Settings(
        memory_bytes=capacity.grant(run.memory) if capacity else run.memory or default_memory_bytes(),
        workers=min(run.workers or threads, threads) if capacity else run.workers or threads,
        processes=capacity.processes if capacity else 1,
        keep=output.keep,
        region=_region(config.region, spec) if config.region else None,
        chunks=output.chunks,
        shards=output.shards,
        codec=output.codec,
        dims="auto" if output.dims == "auto" else tuple(output.dims.split(",")),
        halo=run.halo,
        grids=cut.grids,
        economy=cut.economy,
        tables=cut.tables,
        is_remote=is_url(output.path),
        remote_inputs=frozenset(name for name, entry in config.inputs.items() if any(map(is_url, entry.paths))),
        library_bytes=max(reader.library_bytes for reader in readers.values()),
        decoder_bytes={name: reader.decoder_bytes for name, reader in readers.items() if reader.decoder_bytes},
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
    grid = spec.transform
    if grid.is_rotated:
        raise PipelineError("the raster is rotated; give rows and columns instead", ("region", "bbox"))
    columns = sorted(((box[0] - grid.c) / grid.a, (box[2] - grid.c) / grid.a))
    rows = sorted(((box[1] - grid.f) / grid.e, (box[3] - grid.f) / grid.e))
    # a box on pixel edges takes no neighbour because of the last bit
    top, left = (int(value + 1e-6) if value > 0 else 0 for value in (rows[0], columns[0]))
    region = Region(top, int(-(-(rows[1] - 1e-6) // 1)), left, int(-(-(columns[1] - 1e-6) // 1)))
    clipped = region.clip(spec.region)
    if not clipped.num_pixels:
        ends = grid.spans(spec.height, spec.width)
        raise PipelineError(
            f"{list(box)} does not meet the raster, which spans x {ends[0][0]:g} to {ends[0][1]:g}, "
            f"y {ends[1][0]:g} to {ends[1][1]:g}",
            ("region", "bbox"),
        )
    return clipped


OF_FILES = ("path", "storage", "geotiff", "ome_zarr", "polygons", "pyramid", *FORM)
"""What the rasters of a store do not depend on."""


def _parts(config: Pipeline, readers: Mapping[str, Reader]) -> dict[str, Any]:
    data = config.to_dict()
    data.pop("run", None)
    for entry in data["inputs"].values():  # how a store is reached is no part of the result
        entry.pop("storage", None)
    for step, entry in zip(config.steps, data["steps"], strict=True):
        for key in table_files(step):  # where a table is written besides is no part of the result
            del entry[key]
    output = {key: value for key, value in data.pop("output").items() if key not in OF_FILES}
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
    opened = {key: reader for key, reader in job.opened.items() if reader.is_untouched}
    try:
        for name, reader in _open_inputs(job.pipeline, job.document, opened):
            if _identify(name, reader) != job.parts["identities"][name]:
                paths = ", ".join(job.pipeline.inputs[name].paths)
                raise InputChanged(f"the input {name} ({paths}) changed while the run read it")
    except InputChanged:
        raise
    except InputError as error:
        words = "all blocks are computed, and --resume ends the run once the input is there"
        raise RunStopped(f"{error}; {words}") from error
