"""Check a finished output: its record, its files, and its pixels against a computation by another layout.

A GeoTIFF or an OME-Zarr image that a run wrote is an output of one raster: its record stands in it, and there are no
tables.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline.config import is_in_trusted_folder, load_pipeline
from pipeline.execution.progress import Progress
from pipeline.model.errors import InputError, OutputError, PipelineError, UsageError, unknown
from pipeline.model.facts import VerifyFacts
from pipeline.model.raster import RasterSpec
from pipeline.output.address import is_geotiff, is_one_raster
from pipeline.output.color_table import color_table_of
from pipeline.output.exports.raster import RasterFile, file_spec
from pipeline.output.job import Job
from pipeline.output.provenance import NOWHERE, difference, hash_parts, provenance_of, without_places
from pipeline.output.store import RUN_ID
from pipeline.storage.folder.address import is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.input import SOURCES, Input
from pipeline.storage.tiff.writer import tag_differences
from pipeline.storage.zarr.reader import configure
from pipeline.verbs.expectation import Record, count_problems, document_difference, store_problems
from pipeline.verbs.images import image_levels, image_problems
from pipeline.verbs.levels import SAMPLE_LEVEL, Levels, geotiff_levels, level_problems, store_levels
from pipeline.verbs.load import load
from pipeline.verbs.recompute import Findings, Recomputation, open_output

RECORD: Mapping[str, tuple[type, str]] = {
    "config": (dict, "an object"),
    "parts": (dict, "an object"),
    "valid": (dict, "an object"),
    "quality": (dict, "an object"),
    "notes": (list, "a list"),
    "plan_hash": (str, "a text"),
    "run_id": (str, "a text"),
    "version": (str, "a text"),
    "started": (str, "a text"),
    "finished": (str, "a text"),
}
"""What the record of a finished run holds, by type; `raster` besides where it stands in a GeoTIFF or an image."""


@dataclass(frozen=True)
class Extent:
    """How much is computed again."""

    samples: int
    """Regions, at random."""
    everything: bool
    """All, tables too, instead of regions."""
    seed: int | None
    """Of the regions and their layouts; None: another one each time."""


def verify(
    output: str,
    extent: Extent,
    limits: Mapping[str, Any],
    trust: bool | None,
    progress: Progress,
    inputs: Mapping[str, str] | None = None,
) -> VerifyFacts:
    """Check a finished output; see `pipeline.api.verify`.

    `limits` are values of `run` that replace the recorded, `inputs` paths of inputs that do.
    """
    try:
        record = _read_record(output)
        recorded = _recorded_config(output, record)
        if trust is None:  # the record is a mapping, but not one that the user wrote
            trust = not is_url(output) and is_in_trusted_folder(output)
        load_pipeline(record["config"], trust=trust)
        config = _elsewhere(recorded, output)
        config["run"] = {**config["run"], **_scratch(config["run"]), **limits}
        config["inputs"] = _placed(output, config["inputs"], inputs or {})
        load_pipeline(config)  # what is wrong with it now is the caller's
        problems = list(_record_problems(output, record, recorded))
        return _verify(output, record, config, problems, extent, progress)
    except RemoteError as error:
        raise OutputError(str(error)) from error


def _verify(
    output: str, record: Record, config: dict[str, Any], problems: list[str], extent: Extent, progress: Progress
) -> VerifyFacts:
    started = time.monotonic()
    job = _load(output, config)
    if not problems:
        _check_same(output, job, record)
        job = replace(job, parts=record["parts"])  # the same but for places, which are compared as they are recorded
    if is_one_raster(output):
        keep = [record["raster"], *record.get("labels", [])]
        config = {**config, "output": {**config["output"], "keep": keep}}
        job = _load(output, config)
    configure(job.plan.settings.workers)
    if not problems:
        problems += (_file_problems if is_one_raster(output) else store_problems)(output, job, record)
    seed = int.from_bytes(uuid.uuid4().bytes[:4]) if extent.seed is None else extent.seed
    findings, samples = Findings(), 0 if extent.everything else extent.samples
    if not problems:
        again = Recomputation(output, config, job, np.random.default_rng(seed), findings)
        problems += again.whole(record, progress) if extent.everything else ()
        again.samples(samples)
        problems += findings.in_words()
        for levels in _levels_of(output, job, record):
            problems += level_problems(levels, None if extent.everything else samples, again.random)
    return VerifyFacts(
        output=output,
        agrees=not problems,
        problems=tuple(problems),
        everything=extent.everything,
        samples=samples,
        seed=seed,
        pixels_compared=findings.num_pixels,
        pixels=sum(array.region.num_pixels for array in job.plan.kept.values()),
        differing_pixels=sum(d.num_pixels for d in findings.differences),
        not_compared=tuple(_not_compared(output, job, extent.everything)),
        plan_hash=record["plan_hash"],
        version=record["version"],
        seconds=round(time.monotonic() - started, 3),
    )


def _levels_of(output: str, job: Job, record: Record) -> Iterator[Levels]:
    """Yield the rasters in levels of which an output consists."""
    if is_geotiff(output):
        yield geotiff_levels(job, _file_of(output, job, record))
    elif is_one_raster(output):
        yield from image_levels(job, _file_of(output, job, record))
    else:
        yield from store_levels(job, output)


def _file_of(output: str, job: Job, record: Record) -> RasterFile:
    labels = tuple(job.plan.kept[raster] for raster in record.get("labels", []))
    return RasterFile(job.plan.kept[record["raster"]], Path(output), labels)


def _not_compared(output: str, job: Job, everything: bool) -> Iterator[str]:
    """Yield what is not looked at, for the user to know."""
    yield "when, by which version, within which limits and to which paths the run wrote"
    if is_one_raster(output):
        tags = ", and tags beyond place, nodata, metadata and colours" if is_geotiff(output) else ""
        yield f"what the record says of the run's other outputs{tags}"
    if not everything:
        made = ", ".join(job.plan.reductions)
        yield "pixels outside of the regions, and the recorded counts and errors of pixels beyond what they can be"
        if is_one_raster(output):
            yield f"overviews beyond some tiles of levels 1 to {SAMPLE_LEVEL}, and the statistics of the bands"
        yield from [f"the tables of {made}: what is made of them is compared with them as they are stored"] * bool(made)
        yield "--all computes these again"


# --- the record and the files ----------------------------------------------------------------------------------


def _read_record(output: str) -> dict[str, Any]:
    record = provenance_of(folder_at(output))
    if record is None or "complete" not in record:
        raise OutputError(f"{output}: is not an output of rasterpipe; give the store or the GeoTIFF that a run wrote")
    if record["complete"] is not True:
        raise OutputError(f"{output}: is the unfinished output of a run; finish that with --resume first")
    types = {**RECORD, **({"raster": (str, "a text")} if is_one_raster(output) else {})}
    types |= {"labels": (list, "a list")} if "labels" in record else {}
    for key, (kind, words) in types.items():
        if not isinstance(record.get(key), kind):
            got = json.dumps(record[key])[:60] if key in record else "not there"
            raise OutputError(f"{output}: {key!r} in its record is {got}, and must be {words}; {DAMAGED}")
    if not RUN_ID.fullmatch(record["run_id"]) or not isinstance(record["parts"].get("identities"), dict):
        raise OutputError(f"{output}: its record has no run id of 32 digits or no identities of inputs; {DAMAGED}")
    return record


DAMAGED = "copy the output again, or compute it again"


def _recorded_config(output: str, record: Record) -> dict[str, Any]:
    """Return the recorded pipeline as a run records it."""
    try:
        config, _ = load_pipeline(record["config"])
    except PipelineError as error:
        raise OutputError(f"{output}: the pipeline in its record is none: {error}; {DAMAGED}") from error
    data = config.to_dict()
    data["run"].pop("scheduler")
    return dict(json.loads(json.dumps(data)))


def _load(output: str, config: Mapping[str, Any]) -> Job:
    try:
        return load(config)
    except PipelineError as error:
        if error.path[:1] == ("run",):  # memory and workers are the caller's
            raise
        raise OutputError(f"{output}: the pipeline in its record cannot be planned: {error}; {DAMAGED}") from error


def _record_problems(output: str, record: Record, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the record contradicts itself."""
    if hash_parts(record["parts"]) != record["plan_hash"]:
        yield f"{output}: the plan hash is not that of the recorded plan: its record was changed"
    if problem := document_difference(record["config"], config):
        yield f"{output}: in the recorded pipeline, {problem}: its record was changed"


def _elsewhere(config: Mapping[str, Any], output: str) -> dict[str, Any]:
    """Return the recorded pipeline for an output that may have been moved."""
    if is_url(output):
        return {**config, "output": {**config["output"], "path": output}}
    return {**config, "output": {**config["output"], "path": str(Path(output).absolute()), "storage": None}}


def _scratch(run: Mapping[str, Any]) -> dict[str, str]:
    """Return where to work instead of a folder that is not there: the run's went with it, or was another machine's."""
    is_gone = run.get("scratch") and not Path(run["scratch"]).is_dir()
    return {"scratch": tempfile.gettempdir()} if is_gone else {}


def _placed(output: str, recorded: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the recorded inputs at the places that are given; refuse those of which no place is known."""
    if strange := [name for name in given if name not in recorded]:
        raise UsageError(f"--input {strange[0]}={given[strange[0]]}: {unknown('input', strange[0], list(recorded))}")
    inputs = {
        name: {**entry, **_at(_recorded_input(output, entry), given.get(name))} for name, entry in recorded.items()
    }
    paths = {name: _recorded_input(output, entry).paths for name, entry in inputs.items()}
    lost = {name: path for name, each in paths.items() for path in each if path.startswith(NOWHERE)}
    if lost:
        asked = " ".join(
            f"--input {name}={path.removeprefix(NOWHERE) if len(paths[name]) == 1 else 'FOLDER'}"
            for name, path in lost.items()
        )
        raise InputError(
            f"{output}: a file tells no folders far from its own; say where {', '.join(lost)} "
            f"{'lies' if len(lost) == 1 else 'lie'}: {asked}"
        )
    return inputs


def _recorded_input(output: str, entry: Any) -> Input:
    try:
        return Input.model_validate(entry)
    except ValidationError:
        raise OutputError(f"{output}: its record has an input that is none; {DAMAGED}") from None


def _at(recorded: Input, path: str | None) -> dict[str, Any]:
    """Return what becomes of an input at a path: of several files, that of the folder where they lie."""
    if path is None:
        return {}
    place = path if is_url(path) else str(Path(path).absolute())
    if recorded.vector is not None:
        return {"vector": place}
    if recorded.path is None:
        recorded = recorded.with_paths(lambda each, _: f"{place}/{each.rpartition('/')[2]}")
        return recorded.model_dump(mode="json", include=set(SOURCES), exclude_none=True)
    return {"path": place}


def _check_same(output: str, job: Job, record: Mapping[str, Any]) -> None:
    """Refuse to compare with another plan than the recorded one."""
    now, then = (without_places(parts) for parts in (json.loads(json.dumps(job.parts)), record["parts"]))
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


def _file_problems(output: str, job: Job, record: Record) -> Iterator[str]:
    """Yield what is wrong with a GeoTIFF or an image without looking at its pixels."""
    yield from count_problems(output, job, record)
    for raster, array in job.plan.kept.items():
        stored = open_output(output, array).spec
        # colours that a run computes are compared when all is computed again
        table = color_table_of(job.plan, raster, {})
        colors = recorded_of(stored).colors if table is None else table.colors
        due = file_spec(array, colors)
        for word, a, b in (("shape", _sizes(stored), _sizes(due)), ("dtype", stored.dtype, due.dtype)):
            if a != b:
                yield f"{output}: the {word} of {raster} is {a}, by its plan {b}"
        yield from (f"{output}: {text}" for text in tag_differences(output, due)) if is_geotiff(output) else ()
    if not is_geotiff(output):
        yield from image_problems(job, _file_of(output, job, record))


def _sizes(spec: RasterSpec) -> str:
    """Return the dims with their sizes in words; one band may have a dim or none (GeoTIFFs have none)."""
    sizes = zip(spec.dims, spec.shape, strict=True)
    return ", ".join(f"{dim} {size}" for dim, size in sizes if (dim, size) != ("band", 1))
