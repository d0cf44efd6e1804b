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
from pipeline.compilation import compile_kernels
from pipeline.config import (
    RESERVED,
    Document,
    Pipeline,
    load_pipeline,
    locate,
)
from pipeline.config.scheduler import THREADS, Cluster
from pipeline.errors import (
    InputChanged,
    OutputError,
    PipelineError,
    RasterpipeError,
    RunInterrupted,
    RunStopped,
    UsageError,
    interruption,
)
from pipeline.execution import Measured, execute
from pipeline.geotiff_file import check_geotiffs, geotiffs, is_geotiff, remove_store, write_geotiffs
from pipeline.job import Job, Source, check_inputs_unchanged, load
from pipeline.journal import Journal
from pipeline.limits import peak_rss_bytes
from pipeline.operation import find_operation
from pipeline.progress import Progress
from pipeline.quicklook import check_quicklook, draw, needed_bytes
from pipeline.storage.disk import FileSystems
from pipeline.storage.folder import Folder, LocalFolder, RemoteError, is_url
from pipeline.storage.inputs import local_paths, open_raster
from pipeline.storage.zarr import configure
from pipeline.store import RunStore
from pipeline.table_file import check_tables, table_files, write_table_files
from pipeline.target import Target, grids_from_json
from pipeline.writes import check_writes

if TYPE_CHECKING:
    from pipeline.cluster.crew import Crew
    from pipeline.cluster.probe import Capacity


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
    config = _load_config(source, **options)
    return {"valid": True, "steps": len(config.steps), "inputs_checked": False}


def run(
    source: Source,
    *,
    resume: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
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
    resume, overwrite, in_place
        What to do with an unfinished or existing output; one in an object store is replaced in place alone.
    quicklook
        A PNG to draw of input and outputs, small.
    performance_report
        An HTML file for dask's report of a run on a cluster.
    options
        As for `load`: overrides, inputs, output, trust.

    Raises
    ------
    RasterpipeError
        PipelineError, InputError or OutputError before anything is written; RunStopped after, see errors.
    """
    if in_place and not overwrite:
        raise UsageError("--in-place says how to overwrite; give --overwrite too")
    options["in_place"] = in_place
    if quicklook is not None:
        check_quicklook(str(quicklook))
    job = _load_roughly(source, **options)
    if performance_report is not None:
        _check_reportable(job)
    if quicklook is not None:
        with _located(job.document):
            needed = needed_bytes(job)
    ways = _Ways(resume, overwrite, Progress(quiet=quiet), quicklook, performance_report)
    try:
        facts = _run_or_resume(job, lambda **cut: load(source, **{**options, **cut}), ways)
        facts["output"] = job.result
        if quicklook is not None:
            facts["quicklook"] = draw(job, str(quicklook))
            facts["planned_peak_bytes"] = max(facts["planned_peak_bytes"], needed)
            facts["peak_rss_bytes"] = max(facts["peak_rss_bytes"], peak_rss_bytes())
        _warn(remove_store(job), facts["warnings"], ways.progress)
    except KeyboardInterrupt as error:  # while it waits for blocks, compiles, or writes the files of a complete store
        name, code = interruption(error)
        raise RunInterrupted(f"stopped by {name}; --resume continues the run", code) from None
    except OutputError as error:  # the user knows of one output
        raise OutputError(str(error).replace(job.output, job.result)) from error
    except RemoteError as error:  # before the run began, or after it ended
        raise OutputError(str(error)) from error
    return facts


@dataclass(frozen=True)
class _Ways:
    """How a run is to be done, beside what the pipeline says."""

    resume: bool
    overwrite: bool
    progress: Progress
    quicklook: str | os.PathLike[str] | None
    performance_report: str | os.PathLike[str] | None


def _check_reportable(job: Job) -> None:
    if job.pipeline.run.scheduler == THREADS:
        raise UsageError("a performance report is made by a dask cluster; give --scheduler, or leave it out")
    if importlib.util.find_spec("bokeh") is None:
        raise UsageError("a performance report needs bokeh, which is not installed; pip install 'rasterpipe[cluster]'")


def _load_config(source: Source, **options: Any) -> Pipeline:
    """Return the pipeline with nothing of it opened; options that are not about the file are ignored."""
    kept = {key: options[key] for key in ("overrides", "inputs", "output", "trust") if key in options}
    return load_pipeline(source, **kept)[0]


def _load_roughly(source: Source, **options: Any) -> Job:
    """Return the job with all complaints that do not need a cluster; a run on one is planned again for its workers."""
    if _load_config(source, **options).run.scheduler == THREADS:
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


def _probe(job: Job, crew: Crew, folders: Sequence[Path], work: Folder | None = None) -> Capacity:
    with _located(job.document):
        return crew.probe(job.evidence, folders, work)


def _run_or_resume(job: Job, reload: Callable[..., Job], ways: _Ways) -> dict[str, Any]:
    sources = [path for entry in job.pipeline.inputs.values() for path in entry.paths]
    sources += _local_inputs(job)
    check_tables(job)
    job.place.check(sources)
    pages = [None if path is None else os.fspath(path) for path in (ways.quicklook, ways.performance_report)]
    check_writes(job, sources, *pages, overwrite=ways.overwrite, resume=ways.resume)
    is_there = check_geotiffs(job, resume=ways.resume, overwrite=ways.overwrite)
    if is_there and is_geotiff(job.result):
        return _describe_geotiff(job)
    place = job.place
    choose = partial(place.choose, job.parts, resume=ways.resume, overwrite=ways.overwrite)
    if not place.is_begun():  # a refusal leaves nothing behind, not even a journal
        target = choose(None)
        if target.action == "finished" and (is_there or not geotiffs(job)) and not table_files(job):
            return report.describe_finished(job, target) | _export(job, ways.progress)
        if target.action == "start":
            _check_room(job)
    with closing(place.open_journal()) as journal:
        try:
            _finish_swap(job, journal)
            target = choose(journal)
            if target.action == "finished":
                RunStore(job, target).tidy()
                facts = report.describe_finished(job, target) | _export(job, ways.progress)
                if journal.header is None or place.find_unfinished(journal.header) is None:
                    _warn(journal.remove(), facts["warnings"], ways.progress)
                return facts
            return _run_with(job, reload, target, journal, ways)
        except RasterpipeError:
            if journal.header is None:  # nothing has begun
                journal.remove()
            raise


def _finish_swap(job: Job, journal: Journal) -> None:
    try:
        job.place.finish_swap(journal)
    except OSError as error:
        raise OutputError(
            f"{job.result}: the result of a run that was killed cannot be put in its place: {error}; mend that, or "
            "choose another output path"
        ) from error


def _export(job: Job, progress: Progress) -> dict[str, Any]:
    """Write the files that are made of a complete store; the journal must be locked, for other runs write them too."""
    return {"geotiffs": write_geotiffs(job, progress), "table_files": write_table_files(job)}


def _warn(words: str | None, warnings: list[str], progress: Progress) -> None:
    """Say what went wrong after a result was complete."""
    if words:
        warnings.append(words)
        progress.say(f"note: {words}")


def _describe_geotiff(job: Job) -> dict[str, Any]:
    """Return the facts of a run whose one GeoTIFF is there."""
    target = Target("finished", LocalFolder(job.result), "")
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
            is_remote = is_url(job.output)
            folders = [*([] if is_remote else [journal.folder]), *([Path(scratch)] if scratch else [])]
            cut["capacity"] = _probe(job, crew, folders, job.place.work if is_remote else None)
        if cut:
            job = reload(**cut)
        return _run(job, target, journal, ways, crew)


def _check_room(job: Job) -> str | None:
    return job.place.check_room(sum(array.num_bytes for array in job.plan.arrays))


def _run(job: Job, target: Target, journal: Journal, ways: _Ways, crew: Crew | None) -> dict[str, Any]:
    """Run a planned job into its target, on threads or with a crew; the journal says what is done already."""
    progress = ways.progress
    warning = _check_room(job) if target.action == "start" else None
    warnings = [*job.plan.notes, *(text for text in (warning, crew.warning if crew else None) if text)]
    for text in warnings:
        progress.say(f"note: {text}")
    store = RunStore(job, target)
    configure(job.plan.settings.workers)
    lost = 0
    if target.action == "start":
        given_up = journal.header
        _begin(job, target, journal, store)
        store.remove_given_up(given_up)
    else:
        lost = store.take_over(journal)
    options = job.pipeline.run
    with FileSystems(store.folders if options.durable else []) as disks:
        with _spoiling(journal), progress, journal.checkpoints(disks):
            compile_seconds = (
                crew.prepare(job.plan, store.evidence()) if crew else compile_kernels(job.plan, progress.say)
            )
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
                    partial(store.take_back_lost, journal),
                )
            measured.blocks_recomputed += lost
            check_inputs_unchanged(job)
        seconds = _finish(store, measured, journal, disks) - started
    for text in store.provenance["notes"]:
        progress.say(f"note: {text}")
    warnings += store.provenance["notes"]
    files = _export(job, progress)
    facts = report.describe_run(job, store.provenance, measured, seconds, compile_seconds, warnings) | files
    _warn(journal.remove(), warnings, progress)
    return crew.add_facts(facts) if crew else facts


@contextmanager
def _spoiling(journal: Journal) -> Iterator[None]:
    """Let nobody continue a run whose input was another one for a while, even if it is as it was again."""
    try:
        yield
    except InputChanged as error:
        journal.spoil(str(error))
        raise InputChanged(f"{error}; what is computed cannot be continued: --overwrite starts anew") from error


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
        job.place.prepare(target)
        store.create()
        journal.start(store.journal_header())
    except OSError as error:
        job.place.discard(target)
        raise OutputError(f"{job.output}: cannot be written: {error}") from error


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
