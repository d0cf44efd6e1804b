"""GeoTIFFs of what a run keeps: streamed from its store once that is complete, each beside its place, then renamed.

The store is the truth: a run that is stopped here has lost no block, and `--resume` writes the files that lack. Every
file carries the provenance of the run, so that it is known for ours and for this run's. Where the output itself is a
.tif, the store lies in the work folder and goes when the file is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.execution.progress import Progress
from pipeline.model.errors import OutputError, PipelineError, RunStopped
from pipeline.model.facts import GeoTiffFacts
from pipeline.model.raster import RasterSpec, default_names
from pipeline.model.stored import StoredArray, with_region
from pipeline.output.address import is_geotiff
from pipeline.output.color_table import with_colors
from pipeline.output.decision import check_file
from pipeline.output.exports.base import Export, Written, register
from pipeline.output.job import Job
from pipeline.output.levels import resampling_of
from pipeline.output.provenance import beside, hash_parts, provenance_of
from pipeline.output.work_folder import remove_work_folder, work_folder
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.address import is_url
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.tiff.tiling import Tiling, plan_tiles
from pipeline.storage.zarr.reader import open_written
from pipeline.storage.zarr.store import root_attributes

FORM = ("cog", "overviews", "resampling")
"""The settings of an output that its files depend on, and its store does not."""
ONLY = "value"
"""The output of operations that have one: its name says nothing."""


@dataclass(frozen=True)
class GeoTiff:
    """A file to be written: of which raster, and where."""

    array: StoredArray
    path: Path


def geotiffs(job: Job) -> list[GeoTiff]:
    """Return the files that a run writes beside its store, or in its place."""
    kept, output = list(job.plan.kept.values()), job.pipeline.output
    found = []
    if is_geotiff(output.path):
        if len(kept) != 1:
            listed = ", ".join(array.raster for array in kept) or "none"
            raise PipelineError(
                f"a .tif holds one raster, and {len(kept)} are kept ({listed}); `keep` one of them, or write a .zarr "
                "and `geotiff: FOLDER/`",
                ("output", "path"),
            )
        found.append(GeoTiff(kept[0], Path(output.path)))
    if output.geotiff is not None:
        found += [GeoTiff(array, Path(output.geotiff, name)) for name, array in _named(kept).items()]
    return found


def _named(kept: Sequence[StoredArray]) -> dict[str, StoredArray]:
    """Return rasters by the names of their files: smooth_mean.tif; of a step's only result, the step's name alone."""
    named: dict[str, StoredArray] = {}
    taken: dict[str, str] = {}
    for array in kept:
        name = array.raster.removesuffix(f"/{ONLY}").replace("/", "_") + ".tif"
        if other := taken.get(name.casefold()):  # some file systems take both for one
            raise PipelineError(
                f"{other} and {array.raster} would both be written as {name}; rename one of the steps",
                ("output", "geotiff"),
            )
        taken[name.casefold()], named[name] = array.raster, array
    return named


@register
class GeoTiffs(Export):
    """GeoTIFFs of what a run keeps, beside its store, or in its place."""

    name = "geotiffs"

    def files(self, job: Job) -> list[Written]:
        return [Written(str(file.path), f"the GeoTIFF of {file.array.raster}", "GeoTIFF") for file in geotiffs(job)]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        continues = resume and _is_begun(job)
        for file in geotiffs(job):
            _check_memory(job, file)
            if str(file.path) == job.result:
                _check_not_begun(job, resume=resume, overwrite=overwrite)
            if not continues:
                check_file(str(file.path), provenance_of(file.path), job.parts, resume=resume, overwrite=overwrite)

    def is_complete(self, job: Job) -> bool:
        return all(_is_of(provenance_of(file.path), job) for file in geotiffs(job))

    def write(self, job: Job, progress: Progress) -> tuple[GeoTiffFacts, ...]:
        return tuple(_write_missing(job, file, progress) for file in geotiffs(job))


def _is_begun(job: Job) -> bool:
    return job.place.is_begun() if is_url(job.output) else work_folder(job.result).exists()


def _check_not_begun(job: Job, *, resume: bool, overwrite: bool) -> None:
    is_complete = (root_attributes(job.place.folder) or {}).get("complete") is True
    if is_complete and not (resume or overwrite or Path(job.result).exists()):
        raise OutputError(
            f"{job.result}: a run stopped before it had written the file; --resume writes it, --overwrite starts anew"
        )


def _is_of(here: Mapping[str, Any] | None, job: Job) -> bool:
    return here is not None and here.get("plan_hash") == hash_parts(job.parts) and here.get("form") == _form(job)


def _form(job: Job) -> dict[str, Any]:
    return {key: getattr(job.pipeline.output, key) for key in FORM}


def _check_memory(job: Job, file: GeoTiff) -> None:
    need = BASE_BYTES + tiling_of(job, file).num_bytes
    if need > job.plan.settings.memory_bytes:
        raise PipelineError(
            f"{file.path}: writing it takes {format_bytes(need)}, the run may use "
            f"{format_bytes(job.plan.settings.memory_bytes)}; set it to {format_bytes(need, up=True)} or more",
            ("run", "memory"),
        )


def file_spec(array: StoredArray, colors: tuple[int, ...] = ()) -> RasterSpec:
    """Return the spec of a raster as its file has it: its bands are those of this output.

    A store tells the mean of a band from its standard deviation by the array's name, a file by its bands' alone:
    `B08 mean`, `b2 mean`; one band without a name is the `mean`. `colors` are those of indices, see `color_table`.
    """
    spec = with_colors(with_region(array.spec, array.region), colors)
    output = array.raster.partition("/")[2]
    if output == ONLY or spec.bands == (output,):
        return spec
    if spec.bands == default_names(1):
        return replace(spec, bands=(output,))
    return replace(spec, bands=tuple(f"{band} {output}" for band in spec.bands))


def tiling_of(job: Job, file: GeoTiff, colors: tuple[int, ...] = ()) -> Tiling:
    """Return how a file is cut into tiles and overviews; `colors` as for `file_spec`."""
    output, settings = job.pipeline.output, job.plan.settings
    array = file.array
    resampling = None if output.overviews == "none" else resampling_of(job, array)
    # half of the memory: the heap still holds what the blocks left
    memory = (settings.memory_bytes - BASE_BYTES) // 2
    return plan_tiles(file_spec(array, colors), array.unit, settings.workers, memory, resampling)


def _write_missing(job: Job, file: GeoTiff, progress: Progress) -> GeoTiffFacts:
    """Write a file, unless it is there; return its facts."""
    record = root_attributes(job.place.folder) or {}
    here = provenance_of(file.path)
    is_there = here is not None and _is_of(here, job) and here.get("run_id") == record.get("run_id")
    warnings = [] if is_there else _write(job, file, record, progress)
    for warning in warnings:
        progress.say(f"note: {file.path}: {warning}")
    return GeoTiffFacts(str(file.path), file.array.raster, file.path.stat().st_size, tuple(warnings))


def _write(job: Job, file: GeoTiff, record: Mapping[str, Any], progress: Progress) -> list[str]:
    from pipeline.storage.tiff.writer import GeoTiffForm, write_geotiff

    reader = open_written(job.place.folder, file.array.raster)
    shown = json.dumps({"rasterpipe": beside(file.path, {**record, "raster": file.array.raster, "form": _form(job)})})
    form = GeoTiffForm(file.array.codec, shown, job.pipeline.output.cog)
    tiling = tiling_of(job, file, recorded_of(reader.spec).colors)
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with progress:
            read = tiling.walk.through_cache(reader, reader.chunk)
            return write_geotiff(file.path, str(record.get("run_id")), read, tiling, form, progress)
    except OSError as error:
        raise RunStopped(
            f"{file.path}: cannot be written: {error.strerror or error}; the store {job.output} is complete, and "
            "--resume writes the file once that is mended"
        ) from error


def remove_store(job: Job) -> str | None:
    """Remove the store that a GeoTIFF was made of, where the file is the output; return what could not be, in words."""
    output = job.pipeline.output.path
    return remove_work_folder(work_folder(output)) if is_geotiff(output) else None
