"""What was planned, measured and written, gathered from a plan, a job or a reader."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.block.plan import Pass
from pipeline.execution.process import peak_rss_bytes
from pipeline.execution.receipt import Measured
from pipeline.execution.traffic import predict_traffic
from pipeline.model.facts import (
    ArrayFacts,
    InfoFacts,
    InputFacts,
    PassFacts,
    PlanFacts,
    PlannedFileFacts,
    ResultFacts,
    RunFacts,
    TableFacts,
)
from pipeline.model.raster import RasterSpec, json_number
from pipeline.model.stored import StoredArray, StoredLevels
from pipeline.model.version import __version__
from pipeline.operations.base import Reduction
from pipeline.output.address import is_one_raster
from pipeline.output.exports.geotiff import GeoTiffs, tiling_of
from pipeline.output.exports.ome_zarr import OmeZarrs, images_of
from pipeline.output.exports.raster import RasterExport, RasterFile, writing_bytes
from pipeline.output.job import Job
from pipeline.output.levels import levels_of, walk_of
from pipeline.output.provenance import hash_parts, provenance_of
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import Plan
from pipeline.storage.folder.base import Folder
from pipeline.storage.georeference.geotiff import unit_items
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.reader import NO_TRAFFIC, Reader, Traffic
from pipeline.storage.zarr.document import gdal_problem
from pipeline.storage.zarr.store import array_shape_of
from pipeline.verbs.contents import line_of


def describe_plan(job: Job) -> PlanFacts:
    plan, levels = job.plan, levels_of(job)
    traffic = [predict_traffic(planned, job.readers, plan.settings) for planned in plan.passes]
    total = None if None in traffic else sum((each for each in traffic if each), NO_TRAFFIC)
    return PlanFacts(
        output=job.result,
        plan_hash=hash_parts(job.parts),
        version=__version__,
        workers=plan.settings.workers,
        memory_bytes=plan.settings.memory_bytes,
        planned_peak_bytes=_peak_bytes(job),
        blocks=plan.num_blocks,
        tasks=sum(planned.cost.num_tasks for planned in plan.passes),
        read_bytes=sum(planned.cost.read_bytes for planned in plan.passes),
        write_bytes=sum(planned.cost.write_bytes for planned in plan.passes),
        **_asked(total),
        disk_bytes=sum(array.num_bytes for array in plan.arrays) + sum(each.num_bytes for each in levels.values()),
        inputs={name: InputFacts(**_raster(entry.spec), chunk=entry.chunk) for name, entry in plan.inputs.items()},
        passes=tuple(map(_describe_pass, plan.passes, traffic)),
        outputs=tuple(_describe_array(array, levels.get(raster)) for raster, array in plan.kept.items()),
        files=(
            *(_describe_geotiff(job, file) for file in GeoTiffs().rasters(job)),
            *(_describe_ome_zarr(job, file) for file in OmeZarrs().rasters(job)),
        ),
        notes=(*plan.notes, *(() if is_one_raster(job.result) else _gdal_notes(plan))),
    )


def _gdal_notes(plan: Plan) -> Iterator[str]:
    """Yield what a user of QGIS should know of the store, each thing once."""
    found: dict[str, list[str]] = {}
    for raster, array in plan.kept.items():
        if problem := gdal_problem(array.spec.dims, array.shards):
            found.setdefault(problem, []).append(raster)
    yield from (f"{', '.join(rasters)}: {problem}" for problem, rasters in found.items())


def _peak_bytes(job: Job) -> int:
    """Return the memory that a run takes at most: its passes, then its levels, then its files."""
    levels = (walk_of(job, job.plan.kept[raster], each) for raster, each in levels_of(job).items())
    formats: tuple[RasterExport, ...] = (GeoTiffs(), OmeZarrs())
    files = [each.num_bytes(job, file) for each in formats for file in each.rasters(job)]
    files += [writing_bytes(job)] if job.pipeline.output.polygons else []
    return max(job.plan.peak_bytes, BASE_BYTES + max((*(walk.num_bytes for walk in levels), *files), default=0))


def _describe_pass(planned: Pass, traffic: Traffic | None) -> PassFacts:
    halos = {raster: planned.halos[raster] for raster in planned.stored}
    return PassFacts(
        steps=tuple(step.name for step in planned.steps),
        reads=tuple(planned.stored),
        writes=tuple(planned.writes),
        halo=planned.halo,
        halo_pixels={raster: (h.top, h.bottom, h.left, h.right) for raster, h in halos.items()},
        block=planned.grid.largest,
        blocks=len(planned.grid),
        panel_blocks=min(planned.grid.panel, len(planned.grid.columns)),
        tasks=planned.cost.num_tasks,
        in_flight=planned.cost.in_flight,
        block_bytes=planned.cost.block_bytes,
        cache_bytes=planned.cost.cache_bytes,
        planned_peak_bytes=planned.cost.peak_bytes,
        read_bytes=planned.cost.read_bytes,
        read_amplification=round(planned.cost.amplification, 3),
        write_bytes=planned.cost.write_bytes,
        **_asked(traffic),
    )


def _asked(traffic: Traffic | None) -> dict[str, int | None]:
    """Return what is known of requests to object stores."""
    if traffic is None:
        return {"requests": None, "fetch_bytes": None}
    return {"requests": traffic.requests, "fetch_bytes": traffic.num_bytes}


def _raster(spec: RasterSpec) -> dict[str, Any]:
    return {
        "dims": spec.dims,
        "shape": spec.shape,
        "dtype": spec.dtype.name,
        "bands": spec.bands,
        "nodata": json_number(spec.nodata),
    }


def _describe_geotiff(job: Job, file: RasterFile) -> PlannedFileFacts:
    num_bytes = tiling_of(job, file).num_values * file.array.spec.dtype.itemsize
    return PlannedFileFacts(str(file.path), file.array.raster, num_bytes, num_bytes if job.pipeline.output.cog else 0)


def _describe_ome_zarr(job: Job, file: RasterFile) -> PlannedFileFacts:
    pyramids = [image.pyramid for _, image in images_of(job, file)]
    specs = [pyramid.level_spec(level) for pyramid in pyramids for level in range(pyramid.num_levels + 1)]
    num_bytes = sum(spec.region.num_pixels * spec.pixel_bytes for spec in specs)
    return PlannedFileFacts(str(file.path), file.array.raster, num_bytes, 0)


def _describe_array(array: StoredArray, levels: StoredLevels | None) -> ArrayFacts:
    return ArrayFacts(
        path=array.raster,
        **_raster(array.stored),
        chunks=array.chunks,
        shards=array.shards,
        codec=array.codec,
        bytes=array.num_bytes,
        levels=len(levels.arrays) if levels else 0,
    )


def describe_run(
    job: Job,
    provenance: Mapping[str, Any],
    measured: Measured,
    seconds: float,
    compile_seconds: float,
    warnings: Sequence[str],
) -> RunFacts:
    """Return what a run did whose store holds the record `provenance`."""
    plan = job.plan
    return RunFacts(
        output=job.result,
        seconds=round(seconds, 3),
        compile_seconds=round(compile_seconds, 3),
        peak_rss_bytes=peak_rss_bytes(),
        planned_peak_bytes=_peak_bytes(job),
        bytes_read=measured.counts.bytes_read,
        bytes_written=measured.bytes_written,
        blocks=measured.blocks,
        blocks_skipped=measured.blocks_skipped,
        blocks_recomputed=measured.counts.blocks_recomputed,
        retries=measured.counts.retries,
        requests=measured.counts.requests,
        bytes_fetched=measured.counts.bytes_fetched,
        outputs=tuple(_describe_result(array, measured.valid) for array in plan.kept.values()),
        tables=tuple(_describe_tables(job)),
        quality=provenance.get("quality", {}),
        warnings=tuple(warnings),
        plan_hash=hash_parts(job.parts),
        version=__version__,
    )


def describe_finished(job: Job, store: Folder) -> RunFacts:
    """Return what a run did that found its result complete."""
    provenance = provenance_of(store) or {}
    measured = Measured(blocks_skipped=job.plan.num_blocks, valid=provenance.get("valid", {}))
    return describe_run(job, provenance, measured, 0.0, 0.0, [*job.plan.notes, *provenance.get("notes", [])])


def _describe_result(array: StoredArray, valid: Mapping[str, int]) -> ResultFacts:
    count, shape = valid.get(array.raster), array.spec.shape_of(array.region)
    return ResultFacts(
        path=array.raster,
        dtype=array.spec.dtype.name,
        shape=shape,
        bytes=array.num_bytes,
        valid_fraction=None if count is None else count / math.prod(shape),
    )


def _describe_tables(job: Job) -> Iterator[TableFacts]:
    """Yield what the tables of a complete store hold; a GeoTIFF has none."""
    if not job.place.folder.exists("zarr.json"):
        return
    for name, step in job.plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        spec = step.operation.table_spec(step.sources)
        first = next(iter(spec.columns))
        rows = array_shape_of(job.place.folder, f"{name}/{spec.prefix}{first}")[0]
        path = f"{name}/{spec.prefix}".rstrip("/") if spec.prefix else f"{name}/{first}"
        yield TableFacts(path=path, rows=rows, columns=tuple(spec.columns))


def describe_input(path: str, reader: Reader, chosen: Mapping[str, Any] = MappingProxyType({})) -> InfoFacts:
    """Return what a raster is; `chosen` are the keys of an input that pick it."""
    spec, recorded = reader.spec, recorded_of(reader.spec)
    units = {item.band: item.text for item in unit_items(recorded.items)}
    return InfoFacts(
        path=path,
        **_raster(spec),
        size=(spec.height, spec.width),
        num_bands=spec.num_bands,
        bytes=spec.region.num_pixels * spec.pixel_bytes,
        scale=tuple(json_number(value) for value in reader.scale) if reader.scale else None,
        scales=reader.scales if reader.scales and not reader.scale else None,
        chunk=reader.chunk,
        crs=spec.crs,
        transform=spec.transform or None,
        stored=reader.describe(),
        inputs_line=line_of({"path": path, **chosen}),
        units=tuple(units.get(band, "") for band in range(spec.num_bands)) if units else None,
        color_table=len(recorded.colors) // 3 or None,
        pixel_size=spec.transform.pixel_size if spec.unit and spec.transform else None,
        pixel_unit=spec.unit,
    )
