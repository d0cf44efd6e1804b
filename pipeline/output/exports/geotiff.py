"""GeoTIFFs of what a run keeps: streamed from its store once that is complete, each beside its place, then renamed.

The store is the truth: a run that is stopped here has lost no block, and `--resume` writes the files that lack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.execution.progress import Progress, WatchedProgress
from pipeline.model.facts import GeoTiffFacts
from pipeline.output.address import is_geotiff
from pipeline.output.exports.base import Kind, register
from pipeline.output.exports.raster import RasterExport, RasterFile, file_spec, writing_bytes
from pipeline.output.job import Job
from pipeline.output.levels import resampling_of
from pipeline.output.provenance import beside
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.tiff.tiling import Tiling, plan_tiles
from pipeline.storage.zarr.reader import open_written


@register
class GeoTiffs(RasterExport):
    """GeoTIFFs of what a run keeps, beside its store, or in its place."""

    name = "geotiffs"
    kind: Kind = "GeoTIFF"
    suffix = ".tif"
    key = "geotiff"
    form = ("cog", "overviews", "resampling")

    def rasters(self, job: Job) -> list[RasterFile]:
        places = self.placed(job, list(job.plan.kept.values()), is_geotiff)
        return [RasterFile(array, path) for array, path in places]

    def num_bytes(self, job: Job, file: RasterFile) -> int:
        return tiling_of(job, file).num_bytes

    def make(self, job: Job, file: RasterFile, record: Mapping[str, Any], progress: Progress) -> Sequence[str]:
        from pipeline.storage.tiff.writer import GeoTiffForm, write_geotiff

        reader = open_written(job.place.folder, file.array.raster)
        shown = json.dumps({"rasterpipe": beside(file.path, record)})
        form = GeoTiffForm(file.array.codec, shown, job.pipeline.output.cog)
        tiling = tiling_of(job, file, recorded_of(reader.spec).colors)
        read = tiling.walk.through_cache(reader, reader.chunk)
        told = WatchedProgress(progress, tiling.num_bytes, job.plan.settings.memory_bytes)
        return write_geotiff(file.path, str(record.get("run_id")), read, tiling, form, told)

    def facts(self, file: RasterFile, warnings: Sequence[str]) -> GeoTiffFacts:
        return GeoTiffFacts(str(file.path), file.array.raster, file.path.stat().st_size, tuple(warnings))


def tiling_of(job: Job, file: RasterFile, colors: tuple[int, ...] = ()) -> Tiling:
    """Return how a file is cut into tiles and overviews; `colors` as for `file_spec`."""
    resampling = None if job.pipeline.output.overviews == "none" else resampling_of(job, file.array)
    spec, workers = file_spec(file.array, colors), job.plan.settings.workers
    return plan_tiles(spec, file.array.unit, workers, writing_bytes(job), resampling)
