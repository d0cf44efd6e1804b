"""OME-Zarr images of what a run keeps: made of its store once that is complete, each beside its place, then renamed.

Every kept raster is an image of its own; integers that are labels (the indices of `quantize`) lie under `labels/` of
the image that they were made of, where that is kept too. The record of the run stands in the attributes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.block.plan import StepPlan
from pipeline.config.output_name import OME_ZARR
from pipeline.execution.progress import Progress, WatchedProgress
from pipeline.model.facts import OmeZarrFacts
from pipeline.model.read_limits import TRUSTED
from pipeline.model.stored import StoredArray
from pipeline.output.address import is_ome_zarr
from pipeline.output.exports.base import Kind, register
from pipeline.output.exports.raster import (
    RasterExport,
    RasterFile,
    file_name,
    file_spec,
)
from pipeline.output.job import Job
from pipeline.output.levels import resampling_of
from pipeline.output.provenance import beside, provenance_of
from pipeline.planning.cost import BASE_BYTES
from pipeline.storage.folder.disk import FileSystems, replacing_folder
from pipeline.storage.input import Choice
from pipeline.storage.reader import Reader
from pipeline.storage.zarr.ome import (
    OmeForm,
    OmeImage,
    Sides,
    finish_group,
    finish_labels,
    plan_image,
    sides_of,
    write_image,
)
from pipeline.storage.zarr.reader import ZarrReader, open_written


@register
class OmeZarrs(RasterExport):
    """OME-Zarr images of what a run keeps, beside its store, or in its place."""

    name = "ome_zarrs"
    kind: Kind = "OME-Zarr"
    suffix = OME_ZARR
    key = "ome_zarr"
    form = ("ome_version", "resampling")

    def rasters(self, job: Job) -> list[RasterFile]:
        kept, output = job.plan.kept, job.pipeline.output
        if output.ome_zarr is None and not is_ome_zarr(output.path):
            return []
        owners = {raster: owner for raster in kept if (owner := _owner_of(job, raster)) is not None}
        images = [array for raster, array in kept.items() if raster not in owners]
        return [
            RasterFile(array, path, tuple(kept[label] for label, owner in owners.items() if owner == array.raster))
            for array, path in self.placed(job, images, is_ome_zarr)
        ]

    def num_bytes(self, job: Job, file: RasterFile) -> int:
        return max(image.num_bytes for _, image in images_of(job, file))

    def make(self, job: Job, file: RasterFile, record: Mapping[str, Any], progress: Progress) -> Sequence[str]:
        images, version = images_of(job, file), job.pipeline.output.ome_version
        told = WatchedProgress(progress, self.num_bytes(job, file), job.plan.settings.memory_bytes)
        with replacing_folder(file.path, str(record.get("run_id"))) as building:
            told.start(sum(image.num_tiles for _, image in images), what=f"tiles of {file.path.name}")
            for (array, image), folder in zip(images, folders_of(file, building), strict=True):
                reader = open_written(job.place.folder, array.raster)
                attributes = write_image(folder, image, reader, told.advance)
                if array is file.array:
                    attributes["rasterpipe"] = beside(file.path, record)
                finish_group(folder, attributes, version)
            if file.labels:
                finish_labels(building, [file_name(array) for array in file.labels], version)
            with FileSystems([building] if job.pipeline.run.durable else []) as disks:
                disks.sync()
        return ()

    def facts(self, file: RasterFile, warnings: Sequence[str]) -> OmeZarrFacts:
        labels = tuple(array.raster for array in file.labels)
        return OmeZarrFacts(str(file.path), file.array.raster, labels)


def images_of(job: Job, file: RasterFile, stored: Sides | None = None) -> list[tuple[StoredArray, OmeImage]]:
    """Return the image of a file and its labels, all cut into the same chunks and levels; `stored` are those of one.

    Labels are never averaged, whatever is asked for.
    """
    output, settings = job.pipeline.output, job.plan.settings
    chunk, tile = stored or sides_of(file.array, output.ome_version, asked=output.chunks != "auto")
    found = []
    for array in (file.array, *file.labels):
        name, is_label = file.path.name[: -len(OME_ZARR)], array is not file.array
        resampling = resampling_of(job, array)
        if is_label:
            name, resampling = file_name(array), resampling if resampling == "mode" else "nearest"
        form = OmeForm(name, output.ome_version, resampling, array.codec, chunk, tile, is_label)
        room = settings.memory_bytes - BASE_BYTES
        found.append((array, plan_image(file_spec(array), form, array, settings.workers, room)))
    return found


def folders_of(file: RasterFile, folder: Path) -> list[Path]:
    """Return where the image and its labels lie that `images_of` returns, where the image lies in `folder`."""
    return [folder, *(folder / "labels" / file_name(array) for array in file.labels)]


def open_level(path: Path, array: StoredArray, level: int = 0) -> Reader:
    """Open a level of an image that a run wrote, or of its labels."""
    is_label = (provenance_of(path) or {}).get("raster") != array.raster
    folder = path / "labels" / file_name(array) if is_label else path
    return ZarrReader(str(folder), Choice(level=level), TRUSTED, "lost")


def _owner_of(job: Job, raster: str) -> str | None:
    """Return the kept image that labels were made of, back from step to step; None for what has none."""
    steps, kept = {step.name: step for planned in job.plan.passes for step in planned.steps}, job.plan.kept
    spec, source = kept[raster].spec, raster
    if not _stands_for(steps, raster) or spec.dtype.kind not in "iu" or "band" in spec.dims:
        return None
    while step := steps.get(source.partition("/")[0]):
        source = next((use.raster for use in step.uses if use.key == "input"), "")
        if source in kept and not _stands_for(steps, source):
            return source
    return None


def _stands_for(steps: Mapping[str, StepPlan], raster: str) -> bool:
    """Return whether the pixels of a raster stand for something, as labels and masks do."""
    name, _, output = raster.partition("/")
    return output in steps[name].operation.not_averaged
