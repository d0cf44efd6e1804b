"""GeoTIFFs of what a run keeps: streamed from its store once that is complete, each beside its place, then renamed.

The store is the truth: a run that is stopped here has lost no block, and `--resume` writes the files that lack. Every
file carries the provenance of the run, so that it is known for ours and for this run's. Where the output itself is a
.tif, the store lies in the work folder and goes when the file is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.errors import OutputError, PipelineError, RunStopped
from pipeline.journal import remove_work_folder, work_folder
from pipeline.planning import BASE_BYTES, StoredArray, format_bytes
from pipeline.progress import Progress
from pipeline.raster import RasterSpec, default_names
from pipeline.storage.disk import replacing_file
from pipeline.storage.folder import is_url
from pipeline.storage.zarr import open_written
from pipeline.storage.zarr_store import root_attributes, with_region
from pipeline.target import beside, check_may_rebuild, hash_parts, provenance_of

if TYPE_CHECKING:
    from pipeline.job import Job

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class GeoTiff:
    """A file to be written: of which raster, and where."""

    array: StoredArray
    path: Path


def is_geotiff(path: str) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def store_path(output: str) -> str:
    """Return where the store of a run lies: at the output, or in its work folder where the output is one GeoTIFF."""
    return str(work_folder(output) / "store.zarr") if is_geotiff(output) else output


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
        folder, names = Path(output.geotiff), [array.raster.replace("/", "_") + ".tif" for array in kept]
        found += [GeoTiff(array, folder / name) for array, name in zip(kept, names, strict=True)]
    return found


def check_geotiffs(job: Job, *, resume: bool, overwrite: bool) -> bool:
    """Refuse to replace files of other runs unasked, before anything is written; return whether all are there."""
    files = geotiffs(job)
    for file in files:
        _check_memory(job, file)
        if str(file.path) == job.pipeline.output.path:
            _check_not_begun(job, resume=resume, overwrite=overwrite)
        here = provenance_of(file.path)
        continues = resume and _is_begun(job)
        if here is not None and not overwrite and not continues and not (resume and _is_of(here, job.parts)):
            check_may_rebuild(str(file.path), here, job.parts, resume)
    return resume and bool(files) and all(_is_of(provenance_of(file.path), job.parts) for file in files)


def _is_begun(job: Job) -> bool:
    return job.place.is_begun() if is_url(job.output) else work_folder(job.result).exists()


def _check_not_begun(job: Job, *, resume: bool, overwrite: bool) -> None:
    is_complete = (root_attributes(job.place.folder) or {}).get("complete") is True
    if is_complete and not (resume or overwrite or Path(job.result).exists()):
        raise OutputError(
            f"{job.result}: a run stopped before it had written the file; --resume writes it, --overwrite starts anew"
        )


def _is_of(here: Mapping[str, Any] | None, parts: Mapping[str, Any]) -> bool:
    return here is not None and here.get("plan_hash") == hash_parts(parts)


def _check_memory(job: Job, file: GeoTiff) -> None:
    need = BASE_BYTES + _layout(job, file.array).num_bytes(job.plan.settings.workers)
    if need > job.plan.settings.memory_bytes:
        raise PipelineError(
            f"{file.path}: writing it takes {format_bytes(need)}, the run may use "
            f"{format_bytes(job.plan.settings.memory_bytes)}; set it to {format_bytes(need, up=True)} or more",
            ("run", "memory"),
        )


def file_spec(array: StoredArray) -> RasterSpec:
    """Return the spec of a raster as its file has it: bands that have names are those of this output.

    A store tells the mean of a band from its standard deviation by the array's name, a file by its bands' alone.
    """
    spec = with_region(array.spec, array.region)
    output = array.raster.partition("/")[2]
    plain = (*default_names(spec.num_bands), output)
    bands = tuple(band if output == "value" or band in plain else f"{band} {output}" for band in spec.bands)
    return replace(spec, bands=bands)


def _layout(job: Job, array: StoredArray) -> Any:
    from pipeline.storage.tiff_writer import plan_tiles

    spec = file_spec(array)
    settings = job.plan.settings
    # half of the memory: the heap still holds what the blocks left
    return plan_tiles(spec, array.unit, settings.workers, (settings.memory_bytes - BASE_BYTES) // 2)


def write_geotiffs(job: Job, progress: Progress) -> list[dict[str, Any]]:
    """Write the files of a complete store that are not there yet; return the facts of each.

    Raises
    ------
    RunStopped
        Where a file cannot be written; the store is complete, and `--resume` writes what lacks.
    """
    facts = []
    for file in geotiffs(job):
        record = root_attributes(job.place.folder) or {}
        here = provenance_of(file.path)
        is_there = here is not None and here.get("run_id") == record.get("run_id")
        warnings = [] if is_there else _write(job, file, record)
        for warning in warnings:
            progress.say(f"note: {file.path}: {warning}")
        num_bytes = file.path.stat().st_size
        facts.append(
            {"path": str(file.path), "raster": file.array.raster, "file_bytes": num_bytes, "warnings": warnings}
        )
    return facts


def _write(job: Job, file: GeoTiff, record: Mapping[str, Any]) -> list[str]:
    from pipeline.storage.tiff_writer import write_geotiff

    reader = open_written(job.place.folder, file.array.raster)
    shown = json.dumps({"rasterpipe": beside(file.path, {**record, "raster": file.array.raster})})
    software = f"rasterpipe {pipeline.__version__}"
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        layout, workers = _layout(job, file.array), job.plan.settings.workers
        with replacing_file(file.path, str(record.get("run_id"))) as building:
            warnings = write_geotiff(building, reader, layout, file.array.codec, shown, workers, software)
    except OSError as error:
        raise RunStopped(
            f"{file.path}: cannot be written: {error.strerror or error}; the store {job.output} is complete, and "
            "--resume writes the file once that is mended"
        ) from error
    return warnings


def remove_store(job: Job) -> str | None:
    """Remove the store that a GeoTIFF was made of, where the file is the output; return what could not be, in words."""
    output = job.pipeline.output.path
    return remove_work_folder(work_folder(output)) if is_geotiff(output) else None
