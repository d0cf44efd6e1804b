"""Runs with a forced layout, and without a store to write: results as (band, y, x)."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.block.buffers import Buffers, Fresh
from pipeline.block.compute import compute_block
from pipeline.block.plan import Pass, StepPlan
from pipeline.execution.partials import BlockCollector, Merger
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Measured
from pipeline.execution.run import Stores, execute
from pipeline.model.raster import array_slices
from pipeline.model.region import Axis, Grid, Region, wrap_pieces
from pipeline.model.total import Total
from pipeline.operations.base import Reduction
from pipeline.output.address import building_paths
from pipeline.output.job import Job
from pipeline.output.journal import Journal
from pipeline.output.place import Target
from pipeline.output.store import RunStore, qualities
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.zarr.reader import configure
from pipeline.testing.raster import LABELS, to_planes
from pipeline.verbs.load import Cut, load


@dataclass(frozen=True)
class Layout:
    """How a run is cut: nothing here may change a bit of the result."""

    block: tuple[int, int] | None = None
    """In chunks of the output; None leaves it to the planner."""
    panel: int = 2**31
    strip: tuple[int, int] = (64, 64)
    chunks: tuple[int, int] | None = None
    shards: tuple[int, int] | None = None
    halo: str = "read"
    workers: int = 1
    dims: str = "auto"


def document(source: str, steps: Sequence[dict[str, Any]], target: Path, **output: Any) -> dict[str, Any]:
    inputs = {"image": source}
    if any(step.get("labels") == "labels" for step in steps):
        inputs["labels"] = f"{source}{LABELS}"
    return {"inputs": inputs, "steps": list(steps), "output": {"path": str(target), **output}}


def run(
    source: str, steps: Sequence[dict[str, Any]], folder: Path, layout: Layout | None = None, **output: Any
) -> dict[str, np.ndarray]:
    """Run steps with a forced layout; return what is kept, by path, as (band, y, x)."""
    layout = layout or Layout()
    target = folder / f"{uuid.uuid4().hex}.zarr"
    if layout.chunks:
        output["chunks"] = list(layout.chunks)
    if layout.shards:
        output["shards"] = list(layout.shards)
    config = document(source, steps, target, dims=layout.dims, **output)
    config["run"] = {"halo": layout.halo, "workers": layout.workers, "memory": "4 GiB"}
    job = load(config)
    if layout.block:
        grids = tuple(_grid(planned, layout) for planned in job.plan.passes)
        job = load(config, cut=Cut(grids))
    passes = tuple(
        dataclasses.replace(p, strip=layout.strip if p.halo == "exchange" else (1, layout.strip[0] * layout.strip[1]))
        for p in job.plan.passes
    )
    job = dataclasses.replace(job, plan=dataclasses.replace(job.plan, passes=passes))
    execute_job(job)
    return {path: read(target, path) for path in job.plan.kept} | read_tables(target, job) | read_qualities(target)


def read_qualities(target: Path) -> dict[str, np.ndarray]:
    """Return what is measured of steps, by ``step/quality``; the arrays of the steps say the same."""
    record: Any = zarr.open_group(str(target), mode="r").attrs["rasterpipe"]
    qualities = record["quality"]
    for step, facts in qualities.items():
        for _, array in zarr.open_group(str(target), path=step, mode="r").arrays():
            if len(array.attrs):  # neither a coordinate nor a palette
                assert {key: array.attrs[key] for key in facts} == facts
    return {f"{step}/quality": _numbers(facts) for step, facts in qualities.items()}


def _numbers(facts: Mapping[str, Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in facts.values()])


def execute_job(job: Job) -> None:
    with closing(Journal(job.output)) as journal:
        _execute(job, journal)


def _execute(job: Job, journal: Journal) -> None:
    run_id = uuid.uuid4().hex
    work = RunStore(job, Target("start", LocalFolder(building_paths(job.output, run_id)[0]), run_id))
    work.create()
    configure(job.plan.settings.workers)
    journal.start(work.journal_header())
    measured = execute(job.plan, Stores(work.open_reader, work.open_writer), journal, Progress(quiet=True))
    assert measured.blocks == job.plan.num_blocks
    work.complete(measured)
    work.publish()
    journal.remove()


def _grid(planned: Any, layout: Layout) -> Grid:
    """Return a grid of `layout.block` units of what is written whole."""
    assert layout.block
    region: Region = planned.grid.region
    # a pass that only sweeps has any blocks
    units = [array.unit for array in planned.arrays.values()] or [layout.chunks or (5, 7)]
    rows, columns = (max(unit[axis] for unit in units) * layout.block[axis] for axis in (0, 1))
    # blocks that exchange rims are never thinner than the halo: a remainder joins its neighbour
    shortest = (rows, columns) if layout.halo == "exchange" else (1, 1)
    return Grid(
        Axis(region.top, region.bottom, rows, shortest[0]),
        Axis(region.left, region.right, columns, shortest[1]),
        layout.panel,
    )


def read(target: Path, path: str, *, is_table: bool = False) -> np.ndarray:
    """Return a raster as (band, y, x), or a column of a table as it is."""
    array: Any = zarr.open_array(str(target), path=path, mode="r")
    if is_table:
        return np.asarray(array[...])
    return to_planes(np.asarray(array[...]), array.metadata.dimension_names)


class Dirty(Fresh):
    """Buffers with what other blocks may have left in them."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


def whole(source: str, steps: Sequence[dict[str, Any]], folder: Path, **output: Any) -> dict[str, np.ndarray]:
    """Compute steps on the whole raster as one block, without a store to write: what every layout must equal."""
    job = load(document(source, steps, folder / "never-written.zarr", **output))
    return compute(job, lambda planned: [(planned.grid.region, Dirty())])


def compute(job: Job, cut: Callable[[Pass], Iterable[tuple[Region, Buffers]]]) -> dict[str, np.ndarray]:
    """Compute a plan without a store to write, every pass cut into regions with the buffers of each."""
    results: dict[str, np.ndarray] = {}
    measured = Measured()
    tables = {name: _reduction(step).start(step.sources) for name, step in job.plan.reductions.items()}
    for planned in job.plan.passes:

        def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool, planned: Any = planned) -> None:
            spec = planned.specs[raster]
            full = results[raster] if raster in results else _full(job, raster)
            if raster in planned.bands:
                full = np.take(full, planned.bands[raster], axis=spec.dims.index("band"))
            for piece, origin in wrap_pieces(region, spec.height, spec.width):
                out[array_slices(spec.dims, piece, (region.top, region.left))] = full[array_slices(spec.dims, origin)]

        sweeps = planned.sweeps
        collector = BlockCollector(Merger(tuple((s.reduction, s.number) for s in sweeps), "", 2**62))
        region = planned.grid.region
        specs = {raster: planned.specs[raster] for raster in planned.writes}
        results.update({raster: np.empty(spec.shape_of(region), spec.dtype) for raster, spec in specs.items()})
        for part, buffers in cut(planned):
            arrays = compute_block(planned, part, fetch, buffers, tables=tables, collector=collector)
            for step, total in collector.totals.items():
                measured.totals[step] = measured.totals.get(step, Total()) + total
            collector.totals.clear()
            for raster, values in arrays.items():
                at = array_slices(specs[raster].dims, part, (region.top, region.left))
                results[raster][at] = values
        for sweep, partial in zip(sweeps, collector.partials.tables, strict=True):
            assert partial is not None
            tables[sweep.step.name] = sweep.reduction.fold(partial, tables[sweep.step.name], sweep.number)
    rasters = {path: to_planes(results[path], array.spec.dims) for path, array in job.plan.kept.items()}
    measured.tables = tables
    quality = {f"{step}/quality": _numbers(facts) for step, facts in qualities(job.plan, measured)}
    return rasters | quality | {path: np.asarray(tables[name][column]) for path, name, column in table_columns(job)}


def table_columns(job: Job) -> Iterator[tuple[str, str, str]]:
    """Yield path, step and name of all columns of tables."""
    for name, step in job.plan.reductions.items():
        spec = _reduction(step).table_spec(step.sources)
        for column in spec.columns:
            yield f"{name}/{spec.prefix}{column}", name, column


def read_tables(target: Path, job: Job) -> dict[str, np.ndarray]:
    return {path: read(target, path, is_table=True) for path, _, _ in table_columns(job)}


def _reduction(step: StepPlan) -> Reduction:
    assert isinstance(step.operation, Reduction)
    return step.operation


def _full(job: Job, raster: str) -> np.ndarray:
    reader = job.readers[raster]
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    return values
