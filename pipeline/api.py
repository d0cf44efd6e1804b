"""The Python face, and all that the command line calls: plan, validate, run, verify, convert, info."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from pipeline.config import RESERVED, Changes, Setting, load_pipeline, locating
from pipeline.config.scheduler import THREADS, Cluster
from pipeline.execution.compilation import compile_kernels
from pipeline.execution.progress import Progress
from pipeline.model.errors import SeveralRasters, UsageError
from pipeline.model.facts import ContentsFacts, InfoFacts, PlanFacts, RunFacts, ValidateFacts, VerifyFacts
from pipeline.operations.registry import find_operation
from pipeline.output.job import Job
from pipeline.planning.plan import UNKNOWN
from pipeline.storage.driver import parse_driver
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.vector.file import is_vector
from pipeline.verbs.contents import describe_folder, describe_polygons, describe_several, is_plain_folder
from pipeline.verbs.convert import SOURCE, Chosen, Part, Read, Wanted, conversion, entry_of, part_settings
from pipeline.verbs.facts import describe_input, describe_plan
from pipeline.verbs.load import PLANNED, Cut, Source, load
from pipeline.verbs.run import Ways, executor_of, run_job
from pipeline.verbs.show import show as show
from pipeline.verbs.warm import warm_everything

AnyPath = str | os.PathLike[str]


class Existing(TypedDict, total=False):
    """What to do with an output that is there, and whether to be quiet: see `run`."""

    resume: bool
    overwrite: bool
    in_place: bool
    quiet: bool


def plan(source: Source, *, cut: Cut = PLANNED, **changes: Unpack[Changes]) -> PlanFacts:
    """Return what a run would do: passes, blocks, memory, bytes read and written (`cut`, `changes` as for `run`)."""
    job = load(source, cut=cut, **changes)
    scheduler = job.pipeline.run.scheduler
    notes: tuple[str, ...] = ()
    if isinstance(scheduler, Cluster):
        notes = ("what the workers of a cluster have is known when they are there; planned for this machine",)
    elif scheduler != THREADS:
        with executor_of(job, Progress(quiet=True)) as executor, locating(job.document):
            capacity = executor.probe(job.evidence, [], None, job.plan.distributions)
        job = load(source, cut=dataclasses.replace(cut, capacity=capacity), **changes)
    return describe_plan(dataclasses.replace(job, plan=dataclasses.replace(job.plan, notes=(*job.plan.notes, *notes))))


def validate(source: Source, *, check_inputs: bool = True, **changes: Unpack[Changes]) -> ValidateFacts:
    """Check a pipeline file; with `check_inputs`, also that it fits its inputs (only their metadata are read)."""
    config = load(source, **changes).pipeline if check_inputs else load_pipeline(source, **changes)[0]
    return ValidateFacts(valid=True, steps=len(config.steps), inputs_checked=check_inputs)


def run(
    source: Source,
    *,
    resume: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    quiet: bool = True,
    quicklook: AnyPath | None = None,
    performance_report: AnyPath | None = None,
    cut: Cut = PLANNED,
    **changes: Unpack[Changes],
) -> RunFacts:
    """Run a pipeline (a file, or the same as a mapping); return what it did.

    PipelineError, InputError or OutputError is raised before anything is written; RunStopped after, see `errors`.

    Parameters
    ----------
    resume, overwrite, in_place
        What to do with an unfinished or existing output; one in an object store is replaced in place alone.
    quicklook, performance_report
        A PNG to draw of input and outputs, small; an HTML file for dask's report of a run on a cluster.
    cut
        How it is cut into blocks. Default: as is best.
    changes
        As for `load_pipeline`: overrides, inputs, output, trust.
    """
    if in_place and not overwrite:
        raise UsageError("--in-place says how to overwrite; give --overwrite too")

    def load_cut(cut: Cut) -> Job:
        return load(source, cut=cut, in_place=in_place, **changes)

    # on a cluster first what needs no workers; it is planned again for them
    on_threads = load_pipeline(source, **changes)[0].run.scheduler == THREADS
    job = load_cut(cut if on_threads else dataclasses.replace(cut, capacity=UNKNOWN))
    picture, page = (None if path is None else os.fspath(path) for path in (quicklook, performance_report))
    if page is not None:
        _check_reportable(job)
    return run_job(job, load_cut, Ways(Progress(quiet=quiet), resume, overwrite, picture, page, cut))


def _check_reportable(job: Job) -> None:
    if job.pipeline.run.scheduler == THREADS:
        raise UsageError("a performance report is made by a dask cluster; give --scheduler, or leave it out")
    if importlib.util.find_spec("bokeh") is None:
        raise UsageError("a performance report needs bokeh, which is not installed; pip install 'rasterpipe[cluster]'")


def apply_operation(
    operation: str,
    parameters: Mapping[str, object],
    source: str,
    target: str,
    *,
    limits: Sequence[Setting] = (),
    part: Part | None = None,
    **existing: Unpack[Existing],
) -> RunFacts:
    """Run one operation from a raster to a store, without a pipeline file.

    Parameters
    ----------
    parameters
        Of the operation; a text is YAML.
    limits
        Settings of `run`, each with the option that messages name.
    part
        The part of the raster to compute: see `pipeline.verbs.convert.part_settings`.
    existing
        As for `run`.
    """
    find_operation(operation)
    name = "result" if operation in RESERVED else operation
    document = {
        "inputs": {SOURCE: entry_of(source)},
        "steps": [{"name": name, "op": operation}],
        "output": {"path": target},
    }
    settings = [(f"steps.{name}.{key}", value, f"{key}={value}") for key, value in parameters.items()]
    return run(document, overrides=[*settings, *part_settings(**(part or {})), *limits], **existing)


def warm(source: Source | None = None, *, quiet: bool = True, **changes: Unpack[Changes]) -> float:
    """Compile the kernels that a pipeline needs, so that its runs begin at once; return the seconds that it took.

    Without a pipeline, those of every operation for rasters of 8 and 16-bit integers and float32.
    """
    progress = Progress(quiet=quiet)
    if source is None:
        return warm_everything(progress)
    return compile_kernels(load(source, **changes).plan, progress)


def verify(
    output: AnyPath,
    *,
    samples: int = 8,
    everything: bool = False,
    seed: int | None = None,
    memory: str | None = None,
    workers: int | None = None,
    inputs: Mapping[str, str] | None = None,
    trust: bool | None = None,
    quiet: bool = True,
) -> VerifyFacts:
    """Check a finished output, computing parts of it again; what does not agree is among the facts.

    Parameters
    ----------
    samples, everything
        How many regions to compute again, at random; or all of it, tables too.
    seed
        Of the regions and their layouts. Default: another one each time.
    memory, workers
        As `run.memory` and `run.workers`. Default: as the run was told.
    inputs
        Where inputs lie now, by name; of a stack, the folder of its files. Default: where the record says.
    trust
        Whether the recorded pipeline may ask for anything, as of `run`.

    Raises
    ------
    OutputError
        Where there is no finished output, or it was made by other versions of the operations; and where regions of a
        GeoTIFF depend on tables, which it does not hold.
    PipelineError
        Where the record asks for what takes the user's word.
    InputError
        Where an input is gone, is not the one that the output was made of, or lay so far from a GeoTIFF that this
        does not tell where.
    """
    from pipeline.verbs import verify as verification

    extent = verification.Extent(samples, everything, seed)
    limits = {key: value for key, value in (("memory", memory), ("workers", workers)) if value is not None}
    return verification.verify(os.fspath(output), extent, limits, trust, Progress(quiet=quiet), inputs)


def convert(
    source: AnyPath,
    target: AnyPath,
    *,
    limits: Sequence[Setting] = (),
    resume: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    quiet: bool = True,
    **wanted: Unpack[Wanted],
) -> RunFacts:
    """Convert a raster, or a part of it, between Zarr and GeoTIFF.

    Parameters
    ----------
    limits
        Settings of `run`, each with the option that messages name.
    resume, overwrite, in_place, quiet
        As for `run`.
    wanted
        What the result is to be: see `pipeline.verbs.convert.conversion`.
    """
    document, settings = conversion(str(source), str(target), **wanted)
    existing = Existing(resume=resume, overwrite=overwrite, in_place=in_place, quiet=quiet)
    return run(document, overrides=[*settings, *limits], **existing)


def view(
    results: AnyPath | Sequence[AnyPath],
    *,
    port: int = 0,
    browser: bool = True,
    chosen: Chosen | None = None,
    started: Callable[[str], None] = print,
) -> None:
    """Serve a map of rasters to the browser, on this machine alone, until the process is interrupted.

    Parameters
    ----------
    results
        As for `show`.
    port
        Of 127.0.0.1; 0: one that is free.
    browser
        Whether to open a page in it.
    chosen
        Which raster of each is meant: see `info`.
    started
        Is called with the URL once it answers.
    """
    from pipeline.verbs.view.view import view as serve

    paths = [results] if isinstance(results, str | os.PathLike) else results
    names = [os.fspath(path) for path in paths]
    serve(names, port=port, browser=browser, chosen=chosen, started=lambda server: started(server.url))


def info(path: AnyPath, array: str | None = None, **read: Unpack[Read]) -> InfoFacts | ContentsFacts:
    """Return what a raster file or store is: dims, bands, dtype, nodata, chunks, CRS, and how to name it as input.

    Of a folder, of what holds several rasters of which none is meant, and of a file of polygons, what there is.
    """
    path = os.fspath(path)
    if is_plain_folder(path):
        return describe_folder(path)
    if is_vector(path):
        return describe_polygons(path)
    given: dict[str, Any] = {key: value for key, value in {"array": array, **read}.items() if value is not None}
    try:
        given |= {"driver": parse_driver(read["driver"])} if "driver" in given else {}
    except ValueError as error:
        raise UsageError(f"--driver {given['driver']}: {error}") from error
    try:
        return describe_input(path, open_raster(path, Choice(**given)), given)
    except SeveralRasters as error:
        return describe_several(path, error)
