"""What the contract tests share: rasters on disk, runs with a forced layout, results as (band, y, x)."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.block.buffers import Buffers, Fresh
from pipeline.block.compute import compute_block
from pipeline.block.plan import Pass, StepPlan
from pipeline.execution.partials import BlockCollector, Merger
from pipeline.execution.process import peak_rss_bytes
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Measured
from pipeline.execution.run import Stores, execute
from pipeline.model.raster import array_slices
from pipeline.model.region import Axis, Grid, Region, wrap_pieces
from pipeline.model.stored import StoredArray
from pipeline.model.total import Total
from pipeline.operations.base import Reduction
from pipeline.output.address import building_paths
from pipeline.output.job import Job
from pipeline.output.journal import Journal
from pipeline.output.place import Target
from pipeline.output.store import RunStore, qualities
from pipeline.output.work_folder import work_folder
from pipeline.storage.folder.base import PLAIN_CODECS
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.zarr.reader import configure
from pipeline.verbs.load import Cut, load


@dataclass(frozen=True)
class Raster:
    """A raster to be stored: its pixels in its dims, and how."""

    values: np.ndarray
    dims: tuple[str, ...]
    nodata: float | int | None = None
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    zarr_format: int = 3

    def planes(self) -> np.ndarray:
        """Return (band, y, x) in float64, invalid pixels NaN."""
        planes = to_planes(self.values, self.dims).astype(np.float64)
        if self.nodata is not None:
            planes[to_planes(self.values, self.dims) == self.values.dtype.type(self.nodata)] = np.nan
        return planes


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


def to_planes(values: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    if "band" not in dims:
        return values[np.newaxis]
    return np.moveaxis(values, dims.index("band"), 0)


def store(raster: Raster, path: Path, *, with_labels: bool = True) -> str:
    """Store a raster, and beside it labels of its size for the operations that want some."""
    shape = raster.values.shape
    attributes: dict[str, Any] = {} if raster.nodata is None else {"missing_value": raster.nodata}
    names: dict[str, Any] = {"dimension_names": raster.dims}
    if raster.zarr_format == 2:
        attributes["_ARRAY_DIMENSIONS"] = list(raster.dims)
        names = {}
    zarr.create_array(
        str(path),
        shape=shape,
        dtype=raster.values.dtype,
        chunks=raster.chunks or shape,
        shards=raster.shards,
        zarr_format=raster.zarr_format,
        attributes=attributes,
        **names,
    )
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):  # zarrs leaves out chunks that hold the fill value
        zarr.open_array(str(path)).with_config({"write_empty_chunks": True})[...] = raster.values
    if with_labels:
        sizes = dict(zip(raster.dims, shape, strict=True))
        segments = Raster(labels(sizes["y"], sizes["x"]), ("y", "x"))
        store(segments, Path(f"{path}{LABELS}"), with_labels=False)
    return str(path)


LABELS = "-labels.zarr"


def labels(height: int, width: int) -> np.ndarray:
    """Return the labels that lie beside every stored raster of this size: sparse, negative, of several dtypes."""
    rng = np.random.default_rng(height * 1000 + width)
    segments = (
        rng.integers(-3, 9, (-(-height // 4), -(-width // 7))).repeat(4, axis=0).repeat(7, axis=1)[:height, :width]
    )
    segments = np.where(rng.random((height, width)) < 0.2, rng.integers(-3, 9, (height, width)), segments)
    kinds = (
        segments * 10**15,
        segments.astype(np.int16),
        (segments + 3).astype(np.uint8),
        (segments + 3).astype(np.uint64),
    )
    return kinds[(height + width) % 4]


@contextmanager
def workspace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rasterpipe-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    qualities = zarr.open_group(str(target), mode="r").attrs["rasterpipe"]["quality"]
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
    array = zarr.open_array(str(target), path=path, mode="r")
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
    return {path: zarr.open_array(str(target), path=path, mode="r")[...] for path, _, _ in table_columns(job)}


def _reduction(step: StepPlan) -> Reduction:
    assert isinstance(step.operation, Reduction)
    return step.operation


def _full(job: Job, raster: str) -> np.ndarray:
    reader = job.readers[raster]
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    return values


def reset_peak_bytes() -> int:
    """Set the high-water mark of this process's memory to what it has now; return that.

    From then on memory grows by pages of 4 KiB: one huge page would be more than many operations allocate.
    """
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
    Path("/proc/self/clear_refs").write_text("5")
    return peak_rss_bytes()


def unfinished(output: Path | str) -> Path:
    """Return the store that an unfinished run builds."""
    (store,) = work_folder(str(output)).glob("*/store")
    return store


VOLATILE = ("run_id", "started", "finished")
"""What two runs of one plan do not have in common."""


def stored_files(path: Path) -> dict[str, Any]:
    """Return every file of an output store: the bytes of chunks; metadata without times, id and place of the run."""
    files: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = str(file.relative_to(path))
            files[name] = _without_run(json.loads(file.read_text())) if file.name == "zarr.json" else file.read_bytes()
    return files


def _without_run(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_run(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_run(item) for key, item in value.items() if key not in VOLATILE}
    if "config" in kept and "plan_hash" in kept:
        output = {key: value for key, value in kept["config"]["output"].items() if key != "path"}
        kept["config"] = {**{key: value for key, value in kept["config"].items() if key != "run"}, "output": output}
    return kept


def chunk_file(plan: StoredArray, region: Region) -> str:
    """Return the file of the first chunk or shard of a region, which is in rows and columns of the array."""
    first = {"y": region.top, "x": region.left, "band": 0}
    sizes = plan.shards or plan.chunks
    return "/".join(["c", *(str(first[dim] // size) for dim, size in zip(plan.spec.dims, sizes, strict=True))])


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in dtype, shape and every bit (any NaN equals any NaN)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    both_nan = np.isnan(a) & np.isnan(b)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return bool(np.all(both_nan | (np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits))))
