"""The Python face, and all that the command line calls: load, plan, execute, report."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import report
from pipeline.cluster.allowed import check_allowed
from pipeline.compilation import compile_kernels
from pipeline.config import (
    RESERVED,
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
from pipeline.config.scheduler import THREADS, Cluster
from pipeline.errors import InputError, OutputError, PipelineError, RasterpipeError, RunStopped, UsageError, unknown
from pipeline.execution import Measured, execute
from pipeline.geotiff_file import check_geotiffs, is_geotiff, remove_store, store_path, write_geotiffs
from pipeline.journal import Journal
from pipeline.limits import available_cpus, available_memory_bytes
from pipeline.notes import input_notes, output_notes, reading_notes
from pipeline.operation import Table, find_operation
from pipeline.planning import InputSpec, Plan, Settings, make_plan
from pipeline.progress import Progress
from pipeline.quicklook import check_quicklook_path, draw
from pipeline.raster import RasterSpec
from pipeline.read_limits import ReadLimits
from pipeline.region import Grid, Region
from pipeline.storage.disk import FileSystems
from pipeline.storage.inputs import InputOptions, local_paths, open_input, open_raster
from pipeline.storage.matched import match
from pipeline.storage.matrix import read_matrix
from pipeline.storage.reader import Reader
from pipeline.storage.zarr import configure
from pipeline.store import RunStore
from pipeline.table_file import check_table_files, write_table_files
from pipeline.target import (
    Target,
    check_free_space,
    check_output_path,
    choose_target,
    discard,
    find_unfinished,
    finish_swap,
    grids_from_json,
    is_begun,
    prepare,
)

if TYPE_CHECKING:
    from pipeline.cluster.crew import Crew
    from pipeline.cluster.probe import Capacity

Source = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A pipeline whose inputs are open and whose plan is made."""

    pipeline: Pipeline
    document: Document
    readers: Mapping[str, Reader]
    plan: Plan
    parts: Mapping[str, Any]
    """All that the result depends on, ready for JSON; its hash is the plan hash."""

    @property
    def output(self) -> str:
        """The store that is written; in the work folder where the result is one GeoTIFF."""
        return store_path(self.result)

    @property
    def result(self) -> str:
        """The output as the pipeline file names it."""
        return self.pipeline.output.path


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
    allow_clusters: Sequence[str] = (),
) -> Job:
    """Read a pipeline file (or mapping), open its inputs and plan the run; nothing is written.

    Tables that are given, by step, are not made again. The plan is for this process, or for workers of the capacity.
    """
    config, document = load_pipeline(source, overrides, inputs, output)
    try:
        check_allowed(config.run.scheduler, allow_clusters)
        config = with_matrices(document, config, read_matrix)
        readers = _match(
            config, {name: _open(name, entry, document, _limits(config)) for name, entry in config.inputs.items()}
        )
        specs = {name: _input_spec(name, reader, config.inputs[name]) for name, reader in readers.items()}
        settings = _settings(config, next(iter(specs.values())).spec, grids, capacity)
        settings = dataclasses.replace(settings, economy=economy, tables=tables or {})
        plan = make_plan(config.steps, resolve(config), specs, settings)
    except PipelineError as error:
        if capacity and error.path == ("run", "memory") and config.run.memory is None:
            error = PipelineError(f"{error} (60 % of the limit of the smallest worker is what it may use)", error.path)
        raise PipelineError(locate(document, error), error.path) from None
    notes = (*input_notes(config, readers), *reading_notes(plan), *output_notes(config, plan))
    plan = dataclasses.replace(plan, notes=(*notes, *plan.notes))
    return Job(config, document, readers, plan, _parts(config, readers))


def _open(name: str, entry: Input, document: Document, limits: ReadLimits) -> Reader:
    """Open an input; errors say where the file names it."""
    try:
        return open_input(_input_options(entry, limits))
    except PipelineError as error:
        raise PipelineError(str(error), ("inputs", name, *error.path)) from error.__cause__
    except InputError as error:
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


def _input_options(entry: Input, limits: ReadLimits) -> InputOptions:
    scale = entry.scale
    return InputOptions(
        paths=entry.paths,
        arrays=entry.arrays or (entry.array,),
        at=tuple(entry.at.items()),
        dims=entry.dim_names,
        bands=entry.bands,
        nodata=entry.nodata,
        scale=(scale.factor, scale.offset) if isinstance(scale, Scale) else scale,
        limits=limits,
        series=entry.series,
        level=entry.level,
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
    return InputSpec(name, reader.spec, reader.chunk, "tiff" if "TIFF" in facts["format"] else "zarr", entry.paths[0])


def _settings(
    config: Pipeline, spec: RasterSpec, grids: tuple[Grid, ...] | None, capacity: Capacity | None
) -> Settings:
    run, output = config.run, config.output
    if capacity is not None:
        capacity.check(run.memory)
    threads = capacity.threads if capacity else available_cpus()
    return Settings(
        memory_bytes=run.memory or (capacity.memory_bytes if capacity else available_memory_bytes() // 2),
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
    for step, entry in zip(config.steps, data["steps"], strict=True):
        for field in step.table_files():  # where a table is written besides is no part of the result
            del entry[field]
    output = {key: value for key, value in data.pop("output").items() if key not in ("path", "geotiff")}
    return {
        **data,
        "output": output,
        "operations": {step.op: type(step).version for step in config.steps},
        "identities": {name: _identify(name, reader) for name, reader in readers.items()},
    }


def _identify(name: str, reader: Reader) -> dict[str, Any]:
    try:
        return reader.identity()
    except OSError as error:
        raise InputError(f"the input {name} cannot be read: {error}") from error


def plan(source: Source, **options: Any) -> dict[str, Any]:
    """Return what a run would do: passes, blocks, memory, bytes read and written (see `load` for the options)."""
    job = load(source, **options)
    scheduler = job.pipeline.run.scheduler
    notes: tuple[str, ...] = ()
    if isinstance(scheduler, Cluster):
        notes = ("what the workers of a cluster have is known when they are there; planned for this machine",)
    elif scheduler != THREADS:
        with _crew(job) as crew:
            assert crew is not None
            job = load(source, **options, capacity=_probe(job, crew, []))
    return report.describe_plan(dataclasses.replace(job.plan, notes=(*job.plan.notes, *notes)), job.result, job.parts)


def validate(source: Source, *, check_inputs: bool = True, **options: Any) -> dict[str, Any]:
    """Check a pipeline file; with `check_inputs`, also that it fits its inputs (only their metadata are read)."""
    if check_inputs:
        return {"valid": True, "steps": len(load(source, **options).pipeline.steps), "inputs_checked": True}
    config, document = load_pipeline(source, options.get("overrides", ()), options.get("inputs"), options.get("output"))
    with _located(document):
        check_allowed(config.run.scheduler, options.get("allow_clusters", ()))
    return {"valid": True, "steps": len(config.steps), "inputs_checked": False}


def run(
    source: Source,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
    quicklook: str | os.PathLike[str] | None = None,
    performance_report: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run a pipeline; return what it did (the facts of `run --json`).

    Parameters
    ----------
    source
        Path of a pipeline file, or the same as a mapping.
    resume, overwrite
        What to do with an unfinished or existing output.
    quicklook
        A PNG to draw of input and outputs, small.
    performance_report
        An HTML file for dask's report of a run on a cluster.
    options
        As for `load`: overrides, inputs, output, allow_clusters.

    Raises
    ------
    RasterpipeError
        PipelineError, InputError or OutputError before anything is written; RunStopped after, see errors.
    """
    if quicklook is not None:
        check_quicklook_path(str(quicklook))
    job = _load_roughly(source, **options)
    if performance_report is not None:
        _check_reportable(job)
    ways = _Ways(resume, overwrite, Progress(quiet=quiet), performance_report)
    try:
        facts = _run_or_resume(job, lambda **cut: load(source, **{**options, **cut}), ways)
    except OutputError as error:  # the user knows of one output
        raise OutputError(str(error).replace(job.output, job.result)) from error
    facts["output"] = job.result
    facts["table_files"] = write_table_files(job) if Path(job.output).exists() else []
    if quicklook is not None:
        facts["quicklook"] = draw(job, str(quicklook))
    remove_store(job)
    return facts


@dataclass(frozen=True)
class _Ways:
    """How a run is to be done, beside what the pipeline says."""

    resume: bool
    overwrite: bool
    progress: Progress
    performance_report: str | os.PathLike[str] | None


def _check_reportable(job: Job) -> None:
    if job.pipeline.run.scheduler == THREADS:
        raise UsageError("a performance report is made by a dask cluster; give --scheduler, or leave it out")
    if importlib.util.find_spec("bokeh") is None:
        raise UsageError("a performance report needs bokeh, which is not installed; pip install 'rasterpipe[cluster]'")


def _load_roughly(source: Source, **options: Any) -> Job:
    """Return the job with all complaints that do not need a cluster; a run on one is planned again for its workers."""
    config, _ = load_pipeline(source, options.get("overrides", ()), options.get("inputs"), options.get("output"))
    if config.run.scheduler == THREADS:
        return load(source, **options)
    from pipeline.cluster.probe import UNKNOWN

    return load(source, **{**options, "capacity": UNKNOWN})


def _local_inputs(job: Job) -> list[str]:
    return [path for reader in job.readers.values() for path in local_paths(reader)]


@contextmanager
def _located(document: Document) -> Iterator[None]:
    """Give the errors of what a file names their place in it."""
    try:
        yield
    except PipelineError as error:
        raise PipelineError(locate(document, error)) from error.__cause__


@contextmanager
def _crew(job: Job) -> Iterator[Crew | None]:
    """Connect to the cluster that the pipeline names, or start it; None for threads."""
    if job.pipeline.run.scheduler == THREADS:
        yield None
        return
    from pipeline.cluster.connection import connect

    with ExitStack() as stack:
        with _located(job.document):
            crew = stack.enter_context(connect(job.pipeline.run.scheduler))
        yield crew


def _probe(job: Job, crew: Crew, folders: Sequence[Path]) -> Capacity:
    with _located(job.document):
        return crew.probe(_local_inputs(job), folders)


def _run_or_resume(job: Job, reload: Callable[..., Job], ways: _Ways) -> dict[str, Any]:
    sources = [path for entry in job.pipeline.inputs.values() for path in entry.paths]
    sources += _local_inputs(job)
    is_there = check_geotiffs(job, sources, resume=ways.resume, overwrite=ways.overwrite)
    if is_there and is_geotiff(job.result):
        return _describe_geotiff(job)
    check_output_path(job.output, sources)
    check_table_files(job, overwrite=ways.overwrite, resume=ways.resume)
    choose = partial(choose_target, job.output, job.parts, resume=ways.resume, overwrite=ways.overwrite)
    if not is_begun(job.output):  # a refusal leaves nothing behind, not even a journal
        target = choose(None)
        if target.action == "finished" and is_there:
            return report.describe_finished(job, target) | {"geotiffs": write_geotiffs(job, ways.progress)}
        _check_room(job)
    with closing(Journal(job.output)) as journal:
        try:
            finish_swap(job.output, journal.header)
            target = choose(journal)
            if target.action == "finished":
                RunStore(job, target, journal.folder).tidy()
                facts = report.describe_finished(job, target)
                facts["geotiffs"] = write_geotiffs(job, ways.progress)
                if journal.header is None or find_unfinished(job.output, journal.header) is None:
                    journal.remove()
                return facts
            return _run_with(job, reload, target, journal, ways)
        except RasterpipeError:
            if journal.header is None:  # nothing has begun
                journal.remove()
            raise


def _describe_geotiff(job: Job) -> dict[str, Any]:
    """Return the facts of a run whose one GeoTIFF is there."""
    target = Target("finished", Path(job.result), "", replaces=False)
    return report.describe_finished(job, target)


def _run_with(job: Job, reload: Callable[..., Job], target: Target, journal: Journal, ways: _Ways) -> dict[str, Any]:
    """Run a job where it is to run, planned for what is there and by the grids of the run that it continues."""
    cut: dict[str, Any] = {}
    if target.action == "continue":
        assert journal.header is not None
        cut = {"grids": grids_from_json(journal.header["grids"]), "economy": journal.header.get("economy")}
    with _crew(job) as crew:
        if crew is not None:
            ways.progress.say(crew.description)
            scratch = job.pipeline.run.scratch
            folders = [journal.folder, *([Path(scratch)] if scratch else [])]
            cut["capacity"] = _probe(job, crew, folders)
        if cut:
            job = reload(**cut)
        return _run(job, target, journal, ways, crew)


def _check_room(job: Job) -> str | None:
    return check_free_space(job.output, sum(array.num_bytes for array in job.plan.arrays))


def _run(job: Job, target: Target, journal: Journal, ways: _Ways, crew: Crew | None) -> dict[str, Any]:
    """Run a planned job into its target, on threads or with a crew; the journal says what is done already."""
    progress = ways.progress
    warning = _check_room(job) if target.action == "start" else None
    warnings = [*job.plan.notes, *(text for text in (warning, crew.warning if crew else None) if text)]
    for text in warnings:
        progress.say(f"note: {text}")
    store = RunStore(job, target, journal.folder)
    configure(job.plan.settings.workers)
    if target.action == "start":
        given_up = journal.header
        _begin(job, target, journal, store)
        store.remove_given_up(given_up)
    else:
        store.check_continued()
    options = job.pipeline.run
    with FileSystems(store.folders if options.durable else []) as disks:
        with progress, journal.checkpoints(disks):
            compile_seconds = crew.prepare(job.plan) if crew else compile_kernels(job.plan)
            started = time.monotonic()
            with crew.report(ways.performance_report) if crew else nullcontext():
                measured = execute(
                    job.plan,
                    store.open_reader,
                    store.open_writer,
                    journal,
                    progress,
                    options.retries,
                    crew.run_strips if crew else None,
                )
        _check_inputs_unchanged(job)
        seconds = _finish(store, measured, journal, disks) - started
    for text in store.provenance["notes"]:
        progress.say(f"note: {text}")
    warnings += store.provenance["notes"]
    files = write_geotiffs(job, progress)
    facts = report.describe_run(job, store.provenance, measured, seconds, compile_seconds, warnings)
    journal.remove()
    facts |= {"geotiffs": files}
    return crew.add_facts(facts) if crew else facts


def _finish(store: RunStore, measured: Measured, journal: Journal, disks: FileSystems) -> float:
    """Complete a store and put it in its place; return when it was complete."""
    try:
        store.complete(measured, partial(journal.checkpoint, disks))
        completed = time.monotonic()
        store.publish()
    except OSError as error:
        raise RunStopped(f"{error}; the run stopped, and --resume continues it once that is mended") from error
    return completed


def _begin(job: Job, target: Target, journal: Journal, store: RunStore) -> None:
    try:
        prepare(target, job.output)
        store.create()
        journal.start(store.journal_header())
    except OSError as error:
        discard(target)
        raise OutputError(f"{job.output}: cannot be written: {error}") from error


def _check_inputs_unchanged(job: Job) -> None:
    """Refuse to call a result complete whose inputs were changed while the run read them."""
    for name, entry in job.pipeline.inputs.items():
        if _identify(name, _open(name, entry, job.document, _limits(job.pipeline))) != job.parts["identities"][name]:
            raise InputError(
                f"the input {name} ({', '.join(entry.paths)}) changed while the run read it; "
                f"the result stays incomplete: run again with --overwrite"
            )


def apply_operation(
    operation: str,
    parameters: Mapping[str, str],
    source: str,
    target: str,
    *,
    limits: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> dict[str, Any]:
    """Run one operation from a raster to a store, without a pipeline file.

    Parameters
    ----------
    parameters
        Of the operation; the values are YAML.
    limits
        Overrides of `run`, each with the option that messages name.
    options
        As for `run`: resume, overwrite, quiet.
    """
    find_operation(operation)
    name = "result" if operation in RESERVED else operation
    document = {
        "inputs": {"source": source},
        "steps": [{"name": name, "op": operation}],
        "output": {"path": target},
    }
    overrides = [(f"steps.{name}.{key}={value}", f"{key}={value}") for key, value in parameters.items()]
    return run(document, overrides=[*overrides, *limits], **options)


def verify(output: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Check a finished output, computing parts of it again (see `pipeline.verification.verify` for the options)."""
    from pipeline.verification import verify as check

    return check(str(output), **options)


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Convert a raster between Zarr and GeoTIFF (see `pipeline.conversion.convert` for the options)."""
    from pipeline.conversion import convert as convert_raster

    return convert_raster(str(source), str(target), **options)


def info(path: str | os.PathLike[str], array: str | None = None) -> dict[str, Any]:
    """Return what a raster file or store is: dims, bands, dtype, nodata, chunks, CRS, and how to name it as input."""
    return report.describe_input(str(path), open_raster(str(path), array), array)
