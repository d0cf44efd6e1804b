"""Check a finished output: its record, its files, and its pixels against a computation by another layout.

A GeoTIFF that a run wrote is an output of one raster: its record stands in the file, and there are no tables.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import is_in_trusted_folder
from pipeline.errors import InputError, OutputError
from pipeline.geotiff_file import is_geotiff
from pipeline.job import Job, load
from pipeline.progress import Progress
from pipeline.raster import RasterSpec
from pipeline.recomputation import Findings, Recomputation, open_output, table_specs
from pipeline.storage.folder import folder_at, is_url
from pipeline.storage.zarr_store import group_attributes, missing_chunks, with_region
from pipeline.target import difference, hash_parts, provenance_of

SAMPLES = 8
LISTED = 5
"""Missing files that are named."""


def verify(
    output: str,
    *,
    samples: int = SAMPLES,
    everything: bool = False,
    seed: int | None = None,
    memory: str | None = None,
    workers: int | None = None,
    trust: bool | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Check a finished output; return the facts of `verify --json`, `agrees` among them.

    Parameters
    ----------
    samples
        How many regions to compute again, at random.
    everything
        Compute all of it again, tables too.
    seed
        Of the regions and their layouts. Default: another one each time; it is among the facts.
    memory, workers
        As `run.memory` and `run.workers`. Default: as the run was told.
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
        Where an input is gone, or is not the one that the output was made of.
    """
    started = time.monotonic()
    record = _read_record(output)
    raster = record.get("raster")
    limits = {key: value for key, value in (("memory", memory), ("workers", workers)) if value is not None}
    config = {**record["config"], "run": {**record["config"].get("run", {}), **limits}}
    problems = list(_check_record(output, record))
    if trust is None:  # the record is a mapping, but not one that the user wrote
        trust = not is_url(output) and is_in_trusted_folder(output)
    job = load(_elsewhere(config, output), trust=trust)
    _check_same(output, job, record)
    if raster is not None:
        config = {**config, "output": {**config["output"], "keep": [raster]}}
        job = load(config)
    problems += _check_files(output, job)
    findings, seed = Findings(), int.from_bytes(uuid.uuid4().bytes[:4]) if seed is None else seed
    if not problems:
        again = Recomputation(output, config, job, np.random.default_rng(seed), findings)
        problems += again.whole(Progress(quiet=quiet)) if everything else ()
        again.samples(0 if everything else samples)
        problems += findings.in_words()
    return {
        "output": output,
        "agrees": not problems,
        "problems": problems,
        "everything": everything,
        "samples": 0 if everything else samples,
        "seed": seed,
        "pixels_compared": findings.num_pixels,
        "pixels": sum(array.region.num_pixels for array in job.plan.kept.values()),
        "differing_pixels": sum(d.num_pixels for d in findings.differences),
        "plan_hash": record["plan_hash"],
        "version": record["version"],
        "seconds": round(time.monotonic() - started, 3),
    }


# --- the record and the files ----------------------------------------------------------------------------------


def _read_record(output: str) -> dict[str, Any]:
    record = provenance_of(folder_at(output))
    if record is None or not {"config", "parts", "plan_hash", "run_id", "complete"} <= set(record):
        raise OutputError(f"{output}: is not an output of rasterpipe; give the store or the GeoTIFF that a run wrote")
    if record["complete"] is not True:
        raise OutputError(f"{output}: is the unfinished output of a run; finish that with --resume first")
    return record


def _check_record(output: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the record contradicts itself."""
    parts = record["parts"]
    if hash_parts(parts) != record["plan_hash"]:
        yield f"{output}: the plan hash is not that of the recorded plan: its record was changed"
    steps = {raster.partition("/")[0] for raster in record.get("valid", {})} if "raster" not in record else set()
    for step in sorted(steps):
        group = group_attributes(output, step)
        for key in ("run_id", "plan_hash", "complete"):
            if group.get(key) != record[key]:
                yield f"{output}: {key} of {step} is {group.get(key)!r}, that of the store {record[key]!r}"


def _elsewhere(config: Mapping[str, Any], output: str) -> dict[str, Any]:
    """Return the recorded pipeline for an output that may have been moved."""
    return {**config, "output": {**config["output"], "path": str(Path(output).absolute())}}


def _check_same(output: str, job: Job, record: Mapping[str, Any]) -> None:
    """Refuse to compare with another plan than the recorded one."""
    now, then = json.loads(json.dumps(job.parts)), record["parts"]
    for name, identity in now["identities"].items():
        if identity != (old := then["identities"].get(name)):
            raise InputError(
                f"{output}: the input {name} is not the one that it was made of: {difference(old, identity, name)}; "
                "verify needs that one"
            )
    if now != then:
        raise OutputError(
            f"{output}: was made by another version (rasterpipe {record.get('version')}): {difference(then, now)}; "
            "verify it with that version, or compute it again"
        )


def _check_files(output: str, job: Job) -> Iterator[str]:
    """Yield what is wrong with the arrays of a store without looking at their pixels."""
    for raster, array in job.plan.kept.items():
        try:
            stored = open_output(output, raster).spec
        except InputError as error:
            yield str(error)
            continue
        due = with_region(array.spec, array.region)
        for word, a, b in (("shape", _sizes(stored), _sizes(due)), ("dtype", stored.dtype, due.dtype)):
            if a != b:
                yield f"{output}: the {word} of {raster} is {a}, by its plan {b}"
        if is_geotiff(output):
            return
        yield from _missing(output, raster)
    for name, spec in table_specs(job).items():
        for column in spec.columns:
            yield from _missing(output, f"{name}/{spec.prefix}{column}")


def _sizes(spec: RasterSpec) -> str:
    """Return the dims with their sizes in words; one band may have a dim or none (GeoTIFFs have none)."""
    sizes = zip(spec.dims, spec.shape, strict=True)
    return ", ".join(f"{dim} {size}" for dim, size in sizes if (dim, size) != ("band", 1))


def _missing(output: str, array: str) -> Iterator[str]:
    try:
        missing = list(islice(missing_chunks(output, array), LISTED + 1))
    except FileNotFoundError:
        missing = [array]
    if missing:
        more = ", ..." if len(missing) > LISTED else ""
        yield f"{output}: lacks what a finished run has written: {', '.join(missing[:LISTED])}{more}"
