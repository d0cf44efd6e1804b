"""The Python face, and all that the command line calls: plan, validate, run, verify, convert, info."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import RESERVED, Pipeline, load_pipeline
from pipeline.config.scheduler import THREADS, Cluster
from pipeline.execution.progress import Progress
from pipeline.model.errors import UsageError
from pipeline.operations.registry import find_operation
from pipeline.output.job import Job
from pipeline.planning.plan import UNKNOWN
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.verbs.facts import describe_input, describe_plan
from pipeline.verbs.load import Source, load
from pipeline.verbs.run import Ways, executor_of, located, run_job


def plan(source: Source, **options: Any) -> dict[str, Any]:
    """Return what a run would do: passes, blocks, memory, bytes read and written (see `load` for the options)."""
    job = load(source, **options)
    scheduler = job.pipeline.run.scheduler
    notes: tuple[str, ...] = ()
    if isinstance(scheduler, Cluster):
        notes = ("what the workers of a cluster have is known when they are there; planned for this machine",)
    elif scheduler != THREADS:
        with executor_of(job, Progress(quiet=True)) as executor, located(job):
            capacity = executor.probe(job.evidence, [], None, job.plan.distributions)
        job = load(source, **options, capacity=capacity)
    return describe_plan(dataclasses.replace(job.plan, notes=(*job.plan.notes, *notes)), job.result, job.parts)


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
    picture, page = (None if path is None else os.fspath(path) for path in (quicklook, performance_report))
    job = _load_roughly(source, **options)
    if page is not None:
        _check_reportable(job)
    ways = Ways(Progress(quiet=quiet), resume, overwrite, picture, page)
    return run_job(job, lambda **cut: load(source, **{**options, **cut}), ways)


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
    return load(source, **{**options, "capacity": UNKNOWN})


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
    """Check a finished output, computing parts of it again (see `pipeline.verbs.verify.verify` for the options)."""
    from pipeline.verbs import verify as verification

    return verification.verify(str(output), **options)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    limits: Sequence[tuple[str, str]] = (),
    resume: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    quiet: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Convert a raster between Zarr and GeoTIFF.

    Parameters
    ----------
    limits
        Overrides of `run`, each with the option that messages name.
    resume, overwrite, in_place, quiet
        As for `run`.
    options
        What the result is to be: see `pipeline.verbs.convert.conversion`.
    """
    from pipeline.verbs.convert import conversion

    document, overrides = conversion(str(source), str(target), **options)
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "in_place": in_place, "quiet": quiet}
    return run(document, overrides=[*overrides, *limits], **how)


def info(path: str | os.PathLike[str], array: str | None = None) -> dict[str, Any]:
    """Return what a raster file or store is: dims, bands, dtype, nodata, chunks, CRS, and how to name it as input."""
    return describe_input(str(path), open_raster(str(path), Choice(array)), array)
