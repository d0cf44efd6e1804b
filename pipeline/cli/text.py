"""What the commands tell a person: the lines of each, from its facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.model.facts import (
    ContentsFacts,
    InfoFacts,
    PassFacts,
    PlanFacts,
    PlannedFileFacts,
    RasterFacts,
    RunFacts,
    ValidateFacts,
    VerifyFacts,
)
from pipeline.planning.plan import format_bytes


def format_plan(facts: PlanFacts) -> Iterator[str]:
    """Yield the lines of `plan`."""
    for name, entry in facts.inputs.items():
        yield f"input {name}: {_format_raster(entry)}, chunks of {entry.chunk[0]} x {entry.chunk[1]}"
    for number, planned in enumerate(facts.passes, start=1):
        yield f"pass {number}: {', '.join(planned.steps)}"
        yield from _format_pass(planned)
    for array in facts.outputs:
        shards = f" in shards {_sides(array.shards)}" if array.shards else ""
        stored = f"chunks {_sides(array.chunks)}{shards}"
        levels = f", {_count(array.levels, 'level')}" if array.levels else ""
        yield f"output {array.path}: {_format_raster(array)}, {stored}, codec {array.codec}{levels}"
    yield from map(_format_file, facts.files)
    yield f"store: {facts.output}, up to {format_bytes(facts.disk_bytes)}"
    yield (
        f"peak memory {format_bytes(facts.planned_peak_bytes)} of {format_bytes(facts.memory_bytes)}, "
        f"{_count(facts.blocks, 'block')}, {_count(facts.tasks, 'task')}"
    )
    yield from (f"note: {note}" for note in facts.notes)


def _format_file(file: PlannedFileFacts) -> str:
    scratch = ", and as much beside it while it is written" if file.scratch_bytes else ""
    return f"file {file.path}: {file.raster}, up to {format_bytes(file.bytes)}{scratch}"


def _format_pass(planned: PassFacts) -> Iterator[str]:
    halos = ", ".join(f"{raster} {max(pixels)}" for raster, pixels in planned.halo_pixels.items())
    way = "read with each block" if planned.halo == "read" else "exchanged between blocks"
    blocks = f"{_count(planned.blocks, 'block')} of {_sides(planned.block)}"
    yield f"  {blocks}; pixels around a block: {halos}, {way}"
    yield (
        f"  reads {format_bytes(planned.read_bytes)} decoded ({planned.read_amplification:.2f} x what is "
        f"needed), writes {format_bytes(planned.write_bytes)}"
    )
    if planned.requests:
        fetched = format_bytes(planned.fetch_bytes or 0)
        yield f"  asks object stores: {_count(planned.requests, 'request')} for {fetched} as stored"
    yield (
        f"  memory: {format_bytes(planned.planned_peak_bytes)} = base + {_count(planned.in_flight, 'block')} x "
        f"{format_bytes(planned.block_bytes)} + {format_bytes(planned.cache_bytes)} shared"
    )


def _format_raster(raster: RasterFacts) -> str:
    nodata = "" if raster.nodata is None else f", nodata {raster.nodata}"
    return f"{_sides(raster.shape)} ({','.join(raster.dims)}) {raster.dtype}{nodata}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sides(sides: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in sides)


def format_validate(facts: ValidateFacts, file: str) -> Iterator[str]:
    """Yield the line of `validate`."""
    yield f"{file}: valid, {_count(facts.steps, 'step')}{'' if facts.inputs_checked else ' (inputs not opened)'}"


def format_run(facts: RunFacts) -> Iterator[str]:
    """Yield the lines that `run` ends with."""
    if not facts.blocks and facts.blocks_skipped:
        yield f"{facts.output}: complete; all {facts.blocks_skipped} blocks were done before"
        return
    skipped = f", {facts.blocks_skipped} done before" if facts.blocks_skipped else ""
    workers = facts.workers or ()
    peak = max((worker.peak_rss_bytes for worker in workers), default=facts.peak_rss_bytes)
    yield (
        f"{_count(facts.blocks, 'block')} in {facts.seconds:.2f} s{skipped} "
        f"(and {facts.compile_seconds:.1f} s for kernels); "
        f"read {format_bytes(facts.bytes_read)}, wrote {format_bytes(facts.bytes_written)}; "
        f"peak memory {'of a worker ' if workers else ''}{format_bytes(peak)} "
        f"(planned {format_bytes(facts.planned_peak_bytes)})"
    )
    if facts.blocks_recomputed:
        yield f"{_count(facts.blocks_recomputed, 'block')} begun or done on workers that were lost, computed again"
    if facts.retries:
        yield f"{_count(facts.retries, 'attempt')} to read or write repeated after errors that passed"
    if facts.requests:
        per_block = facts.requests / facts.blocks
        fetched = f"; {format_bytes(facts.bytes_fetched)} came, as stored" if facts.bytes_fetched else ""
        yield f"{_count(facts.requests, 'request')} to object stores, {per_block:.1f} a block{fetched}"
    for result in facts.outputs:
        valid = "" if result.valid_fraction is None else f", {100 * result.valid_fraction:.2f} % valid"
        yield f"  {result.path}: {_sides(result.shape)} {result.dtype}{valid}"
    for step, quality in facts.quality.items():
        yield f"  {step}: {_format_quality(quality)}"
    for table in facts.tables:
        yield f"  {table.path}: {_count(table.rows, 'row')} of {', '.join(table.columns)}"
    yield from (f"table: {path}" for path in facts.table_files)
    yield from (f"polygons: {path}" for path in facts.polygon_files)
    yield from (f"geotiff: {file.path}" for file in facts.geotiffs if file.path != facts.output)
    yield from (f"ome-zarr: {file.path}" for file in facts.ome_zarrs if file.path != facts.output)
    yield f"result: {facts.output}"


def _format_quality(quality: Mapping[str, Any]) -> str:
    error, psnr, peak = (quality[key] for key in ("mean_squared_error", "psnr", "peak"))
    if error is None:
        return "no valid pixel to measure"
    ratio = "" if psnr is None else f", PSNR {float(psnr):.2f} dB (peak {peak:g})"
    return f"mean squared error {error:.6g}{ratio}"


def format_verify(facts: VerifyFacts) -> Iterator[str]:
    """Yield the lines of `verify` for an output that agrees; what does not is an error."""
    if facts.agrees:
        what = "all of it" if facts.everything else f"{_count(facts.samples, 'region')} (seed {facts.seed})"
        yield (
            f"{facts.output}: agrees; {what} computed again by another layout, "
            f"{facts.pixels_compared:,} of {facts.pixels:,} pixels, in {facts.seconds:.1f} s"
        )
        yield "not compared:"
        yield from (f"  {text}" for text in facts.not_compared)


def format_info(facts: InfoFacts) -> Iterator[str]:
    """Yield the lines of `info`."""
    yield f"{facts.path}: {facts.stored['format']}, {format_bytes(facts.bytes)} of pixels"
    skip = {"path", "format", "bytes", "inputs_line", "size", "num_bands", "warnings", "pixel_unit"}
    for key, value in facts.to_dict().items():
        if key in skip or value is None:
            continue
        if key == "crs":
            value = _crs_name(value)
        if key == "units":
            value = value[:1] if len(set(value)) == 1 else [unit or "unknown" for unit in value]
        if key == "color_table":
            value = f"{value} colours"
        if key == "pixel_size":
            value = f"{value[0]:.10g} x {value[1]:.10g} {facts.pixel_unit}"
        if isinstance(value, dict):
            value = [f"{name} {item}" for name, item in value.items()]
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        yield f"  {key}: {value}"
    yield from (f"  note: {warning}" for warning in facts.stored.get("warnings", ()))
    yield "to use it:"
    yield "inputs:"
    yield facts.inputs_line


def format_contents(facts: ContentsFacts) -> Iterator[str]:
    """Yield the lines of `info` of what is no single raster."""
    yield f"{facts.path}: {facts.what}"
    width = max((len(each.name) for each in facts.members), default=0)
    yield from (f"  {each.name:{width}}  {each.what}" for each in facts.members)
    yield from (f"  note: {note}" for note in facts.notes)
    if facts.inputs_lines:
        yield "to use it, one of these:" if len(facts.inputs_lines) > 1 else "to use it:"
        yield "inputs:"
        yield from facts.inputs_lines


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
