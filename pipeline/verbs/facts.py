"""What was planned, measured and written: as facts for JSON, and as text for a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.block.plan import Pass
from pipeline.execution.process import peak_rss_bytes
from pipeline.execution.receipt import Measured
from pipeline.model.raster import json_number
from pipeline.model.stored import StoredArray
from pipeline.model.version import __version__
from pipeline.operations.base import Reduction
from pipeline.output.job import Job
from pipeline.output.provenance import hash_parts, provenance_of
from pipeline.planning.plan import Plan, format_bytes
from pipeline.storage.folder.base import Folder
from pipeline.storage.reader import Reader
from pipeline.storage.zarr.store import array_shape_of

Facts = dict[str, Any]


def describe_plan(plan: Plan, output: str, parts: Mapping[str, Any]) -> Facts:
    """Return the facts of `plan --json`."""
    return {
        "output": output,
        "plan_hash": hash_parts(parts),
        "version": __version__,
        "workers": plan.settings.workers,
        "memory_bytes": plan.settings.memory_bytes,
        "planned_peak_bytes": plan.peak_bytes,
        "blocks": plan.num_blocks,
        "tasks": sum(planned.cost.num_tasks for planned in plan.passes),
        "read_bytes": sum(planned.cost.read_bytes for planned in plan.passes),
        "write_bytes": sum(planned.cost.write_bytes for planned in plan.passes),
        "disk_bytes": sum(array.num_bytes for array in plan.arrays),
        "inputs": {
            name: _describe_spec(entry.spec) | {"chunk": list(entry.chunk)} for name, entry in plan.inputs.items()
        },
        "passes": [_describe_pass(planned) for planned in plan.passes],
        "outputs": [_describe_array(array) for array in plan.kept.values()],
        "notes": list(plan.notes),
    }


def _describe_pass(planned: Pass) -> Facts:
    height, width = planned.grid.largest
    halos = {raster: planned.halos[raster] for raster in planned.stored}
    return {
        "steps": [step.name for step in planned.steps],
        "reads": list(planned.stored),
        "writes": list(planned.writes),
        "halo": planned.halo,
        "halo_pixels": {raster: [h.top, h.bottom, h.left, h.right] for raster, h in halos.items()},
        "block": [height, width],
        "blocks": len(planned.grid),
        "panel_blocks": min(planned.grid.panel, len(planned.grid.columns)),
        "tasks": planned.cost.num_tasks,
        "in_flight": planned.cost.in_flight,
        "block_bytes": planned.cost.block_bytes,
        "cache_bytes": planned.cost.cache_bytes,
        "planned_peak_bytes": planned.cost.peak_bytes,
        "read_bytes": planned.cost.read_bytes,
        "read_amplification": round(planned.cost.amplification, 3),
        "write_bytes": planned.cost.write_bytes,
    }


def _describe_spec(spec: Any) -> Facts:
    return {
        "dims": list(spec.dims),
        "shape": list(spec.shape),
        "dtype": spec.dtype.name,
        "bands": list(spec.bands),
        "nodata": json_number(spec.nodata),
    }


def _describe_array(array: StoredArray) -> Facts:
    return {
        "path": array.raster,
        **_describe_spec(array.spec),
        "shape": list(array.spec.shape_of(array.region)),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "codec": array.codec,
        "bytes": array.num_bytes,
    }


def describe_run(
    job: Job,
    provenance: Mapping[str, Any],
    measured: Measured,
    seconds: float,
    compile_seconds: float,
    warnings: list[str],
) -> Facts:
    """Return the facts of `run --json`."""
    plan = job.plan
    return {
        "output": job.output,
        "seconds": round(seconds, 3),
        "compile_seconds": round(compile_seconds, 3),
        "peak_rss_bytes": peak_rss_bytes(),
        "planned_peak_bytes": plan.peak_bytes,
        "bytes_read": measured.counts.bytes_read,
        "bytes_written": measured.bytes_written,
        "blocks": measured.blocks,
        "blocks_skipped": measured.blocks_skipped,
        "blocks_recomputed": measured.counts.blocks_recomputed,
        "retries": measured.counts.retries,
        "requests": measured.counts.requests,
        "outputs": [_describe_result(array, measured.valid) for array in plan.kept.values()],
        "tables": list(_describe_tables(job)),
        "quality": provenance["quality"],
        "warnings": warnings,
        "plan_hash": provenance["plan_hash"],
        "version": __version__,
    }


def _describe_result(array: StoredArray, valid: Mapping[str, int]) -> Facts:
    count = valid.get(array.raster)
    return {
        "path": array.raster,
        "dtype": array.spec.dtype.name,
        "shape": list(array.spec.shape_of(array.region)),
        "bytes": array.num_bytes,
        "valid_fraction": None if count is None else count / (array.region.num_pixels * array.spec.num_bands),
    }


def _describe_tables(job: Job) -> Iterator[Facts]:
    """Yield what the tables of a complete store hold; a GeoTIFF has none."""
    if not job.place.folder.exists("zarr.json"):
        return
    for name, step in job.plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        spec = step.operation.table_spec(step.sources)
        first = next(iter(spec.columns))
        rows = array_shape_of(job.place.folder, f"{name}/{spec.prefix}{first}")[0]
        path = f"{name}/{spec.prefix}".rstrip("/") if spec.prefix else f"{name}/{first}"
        yield {"path": path, "rows": rows, "columns": list(spec.columns)}


def describe_finished(job: Job, store: Folder) -> Facts:
    """Return the facts of a run that found its result complete."""
    plan = job.plan
    provenance = provenance_of(store) or {}
    return {
        "output": job.output,
        "seconds": 0.0,
        "compile_seconds": 0.0,
        "peak_rss_bytes": peak_rss_bytes(),
        "planned_peak_bytes": plan.peak_bytes,
        "bytes_read": 0,
        "bytes_written": 0,
        "blocks": 0,
        "blocks_skipped": plan.num_blocks,
        "blocks_recomputed": 0,
        "retries": 0,
        "requests": 0,
        "outputs": [_describe_result(array, provenance.get("valid", {})) for array in plan.kept.values()],
        "tables": list(_describe_tables(job)),
        "quality": provenance.get("quality", {}),
        "warnings": [*plan.notes, *provenance.get("notes", [])],
        "plan_hash": hash_parts(job.parts),
        "version": __version__,
    }


def describe_input(path: str, reader: Reader, array: str | None = None) -> Facts:
    """Return the facts of `info --json`."""
    spec, further = reader.spec, reader.describe()
    return {
        "path": path,
        **_describe_spec(spec),
        "size": [spec.height, spec.width],
        "num_bands": spec.num_bands,
        "bytes": spec.region.num_pixels * spec.pixel_bytes,
        "scale": [json_number(value) for value in reader.scale] if reader.scale else None,
        "scales": [list(pair) for pair in reader.scales] if reader.scales and not reader.scale else None,
        "chunk": list(reader.chunk),
        "crs": spec.crs,
        "transform": list(spec.transform) if spec.transform else None,
        **further,
        "inputs_line": f"  image: {{path: {path}, array: {array}}}" if array else f"  image: {path}",
    }


# --- for a person ----------------------------------------------------------------------------------------------


def format_plan(facts: Facts) -> Iterator[str]:
    """Yield the lines of `plan`."""
    for name, entry in facts["inputs"].items():
        yield f"input {name}: {_format_raster(entry)}, chunks of {entry['chunk'][0]} x {entry['chunk'][1]}"
    for number, entry in enumerate(facts["passes"], start=1):
        height, width = entry["block"]
        yield f"pass {number}: {', '.join(entry['steps'])}"
        halos = ", ".join(f"{raster} {max(pixels)}" for raster, pixels in entry["halo_pixels"].items())
        way = "read with each block" if entry["halo"] == "read" else "exchanged between blocks"
        yield f"  {_count(entry['blocks'], 'block')} of {height} x {width}; pixels around a block: {halos}, {way}"
        yield (
            f"  reads {format_bytes(entry['read_bytes'])} decoded ({entry['read_amplification']:.2f} x what is "
            f"needed), writes {format_bytes(entry['write_bytes'])}"
        )
        yield (
            f"  memory: {format_bytes(entry['planned_peak_bytes'])} = base + {_count(entry['in_flight'], 'block')} x "
            f"{format_bytes(entry['block_bytes'])} + {format_bytes(entry['cache_bytes'])} shared"
        )
    for entry in facts["outputs"]:
        shards = f" in shards {_sides(entry['shards'])}" if entry["shards"] else ""
        stored = f"chunks {_sides(entry['chunks'])}{shards}"
        yield f"output {entry['path']}: {_format_raster(entry)}, {stored}, codec {entry['codec']}"
    yield f"store: {facts['output']}, up to {format_bytes(facts['disk_bytes'])}"
    yield (
        f"peak memory {format_bytes(facts['planned_peak_bytes'])} of {format_bytes(facts['memory_bytes'])}, "
        f"{_count(facts['blocks'], 'block')}, {_count(facts['tasks'], 'task')}"
    )
    for note in facts["notes"]:
        yield f"note: {note}"


def _format_raster(entry: Mapping[str, Any]) -> str:
    nodata = "" if entry["nodata"] is None else f", nodata {entry['nodata']}"
    return f"{' x '.join(str(n) for n in entry['shape'])} ({','.join(entry['dims'])}) {entry['dtype']}{nodata}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sides(sides: list[int]) -> str:
    return " x ".join(str(side) for side in sides)


def format_run(facts: Facts) -> Iterator[str]:
    """Yield the lines that `run` ends with."""
    if not facts["blocks"] and facts["blocks_skipped"]:
        yield f"{facts['output']}: complete; all {facts['blocks_skipped']} blocks were done before"
        return
    skipped = f", {facts['blocks_skipped']} done before" if facts["blocks_skipped"] else ""
    workers = facts.get("workers", ())
    peak = max((worker["peak_rss_bytes"] for worker in workers), default=facts["peak_rss_bytes"])
    yield (
        f"{_count(facts['blocks'], 'block')} in {facts['seconds']:.2f} s{skipped} "
        f"(and {facts['compile_seconds']:.1f} s to compile); "
        f"read {format_bytes(facts['bytes_read'])}, wrote {format_bytes(facts['bytes_written'])}; "
        f"peak memory {'of a worker ' if workers else ''}{format_bytes(peak)} "
        f"(planned {format_bytes(facts['planned_peak_bytes'])})"
    )
    if facts["blocks_recomputed"]:
        yield f"{_count(facts['blocks_recomputed'], 'block')} begun or done on workers that were lost, computed again"
    if facts["retries"]:
        yield f"{_count(facts['retries'], 'attempt')} to read or write repeated after errors that passed"
    if facts["requests"]:
        per_block = facts["requests"] / facts["blocks"]
        yield f"{_count(facts['requests'], 'request')} to object stores, {per_block:.1f} a block"
    for entry in facts["outputs"]:
        shape = " x ".join(str(n) for n in entry["shape"])
        yield f"  {entry['path']}: {shape} {entry['dtype']}, {100 * entry['valid_fraction']:.2f} % valid"
    for step, quality in facts["quality"].items():
        yield f"  {step}: {_format_quality(quality)}"
    for table in facts["tables"]:
        yield f"  {table['path']}: {_count(table['rows'], 'row')} of {', '.join(table['columns'])}"
    for path in facts.get("table_files", []):
        yield f"table: {path}"
    for entry in facts.get("geotiffs", []):
        if entry["path"] != facts["output"]:
            yield f"geotiff: {entry['path']}"
    yield f"result: {facts['output']}"


def _format_quality(quality: Mapping[str, Any]) -> str:
    error, psnr, peak = (quality[key] for key in ("mean_squared_error", "psnr", "peak"))
    if error is None:
        return "no valid pixel to measure"
    ratio = "" if psnr is None else f", PSNR {float(psnr):.2f} dB (peak {peak:g})"
    return f"mean squared error {error:.6g}{ratio}"


def format_verify(facts: Facts) -> Iterator[str]:
    """Yield the lines of `verify` for an output that agrees; what does not is an error."""
    if facts["agrees"]:
        what = "all of it" if facts["everything"] else f"{_count(facts['samples'], 'region')} (seed {facts['seed']})"
        yield (
            f"{facts['output']}: agrees; {what} computed again by another layout, "
            f"{facts['pixels_compared']:,} of {facts['pixels']:,} pixels, in {facts['seconds']:.1f} s"
        )
        yield "not compared:"
        yield from (f"  {text}" for text in facts["not_compared"])


def format_info(facts: Facts) -> Iterator[str]:
    """Yield the lines of `info`."""
    yield f"{facts['path']}: {facts['format']}, {format_bytes(facts['bytes'])} of pixels"
    skip = {"path", "format", "bytes", "inputs_line", "size", "num_bands", "warnings"}
    for key, value in facts.items():
        if key in skip or value is None:
            continue
        if key == "crs":
            value = _crs_name(value)
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        yield f"  {key}: {value}"
    for warning in facts.get("warnings", []):
        yield f"  note: {warning}"
    yield "to use it:"
    yield "inputs:"
    yield facts["inputs_line"]


def _crs_name(crs: str) -> str:
    """Return the name of a CRS given as WKT, with its EPSG code where it ends in one; other text as it is.

    Examples
    --------
    >>> _crs_name('GEOGCRS["WGS 84",DATUM["World Geodetic System 1984"],ID["EPSG",4326]]')
    'WGS 84 (EPSG:4326)'
    """
    name = re.match(r'\w+\["([^"]+)"', crs)
    code = re.search(r'(?:ID|AUTHORITY)\["EPSG","?(\d+)"?\]\]\s*$', crs)
    return crs if not name else f"{name[1]} (EPSG:{code[1]})" if code else name[1]
