"""Outlines of kept labels as files of polygons: GeoParquet, GeoPackage, GeoJSON, made of the complete store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.config.model import Output
from pipeline.execution.process import trim_heap
from pipeline.execution.progress import Progress
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.stored import StoredArray
from pipeline.output.exports.base import Export, Written, register
from pipeline.output.exports.raster import writing_bytes
from pipeline.output.exports.table import replacing, require_pyarrow, write_parquet
from pipeline.output.job import Job
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.vector.file import pyogrio_for
from pipeline.storage.vector.outlines import Outlines, least_bytes
from pipeline.storage.vector.write import geoparquet_metadata, write_features
from pipeline.storage.zarr.reader import open_written

Columns = Mapping[str, np.ndarray]


@register
class PolygonFiles(Export):
    """The outlines of labels, one feature a label."""

    name = "polygon_files"

    def files(self, job: Job) -> list[Written]:
        return [
            Written(path, f"the polygons of {raster}", "table")
            for raster, path in outlined(job.pipeline.output, job.plan.kept).items()
        ]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        for raster, path in outlined(job.pipeline.output, job.plan.kept).items():
            try:
                pyogrio_for(path)
            except InputError as error:
                raise PipelineError(str(error), ("output", "polygons")) from error
            if path.endswith(".parquet"):
                require_pyarrow(path)
            need, have = 2 * least_bytes(job.plan.kept[raster].stored), 2 * writing_bytes(job)
            if need > have:
                raise PipelineError(
                    f"{path}: outlines of rows this wide take {format_bytes(BASE_BYTES + need)}, the run may use "
                    f"{format_bytes(BASE_BYTES + have)}",
                    ("run", "memory"),
                )

    def write(self, job: Job, progress: Progress) -> tuple[str, ...]:
        found = outlined(job.pipeline.output, job.plan.kept)
        for raster, path in found.items():
            _write(job, raster, Path(path), progress)
        return tuple(found.values())


def outlined(output: Output, kept: Mapping[str, StoredArray]) -> dict[str, str]:
    """Return which kept rasters are outlined, and in which files.

    Raises PipelineError where one is not kept, or is no raster of labels.
    """
    if output.polygons is None:
        return {}
    if isinstance(output.polygons, str):
        names = [raster for raster, array in kept.items() if not _why_not(array.stored)]
        if len(names) != 1:
            told = "none is kept; add one to `keep`"
            if names:
                one = f"`polygons: {{STEP: {Path(output.polygons).name}}}`"
                told = f"{len(names)} are kept ({', '.join(names)}); say which: {one}"
            raise PipelineError(
                f"outlines one raster of whole numbers with one band, and {told}", ("output", "polygons")
            )
        return {_checked(kept, names[0], output.polygons): output.polygons}
    return {_checked(kept, name, path): path for name, path in output.polygons.items()}


def _checked(kept: Mapping[str, StoredArray], name: str, path: str) -> str:
    """Return the kept raster that a name means."""
    place = ("output", "polygons")
    found = [raster for raster in kept if name in (raster, raster.partition("/")[0])]
    if len(found) != 1:
        told = f"keeps {', '.join(found)}; name one" if found else f"is not kept; kept are {', '.join(kept) or 'none'}"
        raise PipelineError(f"{name!r} {told}", place)
    spec = kept[found[0]].stored
    if why := _why_not(spec):
        raise PipelineError(f"{found[0]} {why}, and outlines are of whole numbers in one band", place)
    if path.endswith(".geojson") and spec.crs is None:
        raise PipelineError(
            f"a GeoJSON has degrees of WGS 84, and {found[0]} has no coordinate system; write a .gpkg or .parquet",
            place,
        )
    return found[0]


def _why_not(spec: RasterSpec) -> str:
    if spec.dtype.kind not in "iu":
        return f"is of {spec.dtype.name}"
    return "" if spec.num_bands == 1 else f"has {spec.num_bands} bands"


def polygon_notes(output: Output, kept: Mapping[str, StoredArray]) -> Iterator[str]:
    """Yield what is not known of the outlines that are asked for."""
    for raster, path in outlined(output, kept).items():
        if kept[raster].stored.transform is None:
            yield f"output.polygons: {raster} has no place, so {Path(path).name} has columns and rows as coordinates"


def _write(job: Job, raster: str, path: Path, progress: Progress) -> None:
    trim_heap()  # of what the blocks left
    reader = open_written(job.place.folder, raster)
    with (
        replacing(path, "the polygons", job) as building,
        tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}.", buffering=0) as file,
        progress,
    ):
        outlines = Outlines(reader, file, writing_bytes(job))
        progress.start(len(outlines.strips), what=f"rows of chunks of {path.name}")
        found = outlines.trace(progress.advance)
        if path.suffix == ".parquet":
            rows = ({"label": each.labels, "pixels": each.pixels, "geometry": each.wkb} for each in found)
            write_parquet(building, rows, geoparquet_metadata(reader.spec.crs))
        else:
            parts = (
                ({"label": _told(each.labels, outlines.largest), "pixels": each.pixels}, each.wkb) for each in found
            )
            write_features(building, path.suffix, parts, reader.spec.crs)


def _told(labels: np.ndarray, largest: int) -> np.ndarray:
    """Return labels as GDAL has such: as texts, all of them, where one is beyond 64 bits with a sign."""
    return labels.astype(str).astype(object) if largest >= 2**63 else labels
