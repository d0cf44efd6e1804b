"""A finished output computed again, by another layout, and compared: pixel by pixel, without a second store."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.compilation import compile_kernels
from pipeline.errors import InputError, OutputError, PipelineError, RunStopped
from pipeline.execution import Measured, OpenReader, OpenWriter, execute
from pipeline.geotiff_file import is_geotiff
from pipeline.job import Job, load
from pipeline.journal import Journal
from pipeline.operation import Reduction, Table, TableSpec
from pipeline.planning import PlannedPass, StoredArray
from pipeline.progress import Progress
from pipeline.raster import RasterSpec
from pipeline.read_limits import TRUSTED
from pipeline.region import Axis, Grid, Region
from pipeline.storage.folder import LocalFolder
from pipeline.storage.reader import Reader
from pipeline.storage.tiff import TiffReader
from pipeline.storage.zarr import ZarrReader, configure
from pipeline.storage.zarr_store import read_table, root_attributes
from pipeline.store import RunStore, qualities
from pipeline.target import Target, check_free_space
from pipeline.worker import Writer

SAMPLE_SIDE = 256
"""Rows and columns of a sample at most."""
WHOLE_CHUNK = 512
"""Rows and columns of the chunks by which all is computed again, at most."""


@dataclass(frozen=True)
class Difference:
    """Pixels of a raster that are not as they are computed."""

    raster: str
    region: Region
    num_pixels: int
    first: tuple[int, int]
    """Row and column."""
    reason: str = ""
    """Why the stored pixels cannot be read, if that is it."""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.raster}: {self.region} cannot be read: {self.reason}"
        row, column = self.first
        word = "pixel differs" if self.num_pixels == 1 else "pixels differ"
        return f"{self.raster}: {self.num_pixels} {word} in {self.region}, the first at row {row}, column {column}"


@dataclass
class Findings:
    """What is wrong with an output; threads may add to it."""

    differences: list[Difference] = field(default_factory=list)
    num_pixels: int = 0
    """Pixels compared, over all rasters."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, num_pixels: int, found: Difference | None) -> None:
        with self.lock:
            self.num_pixels += num_pixels
            if found is not None:
                self.differences.append(found)

    def in_words(self) -> Iterator[str]:
        """Yield each raster's first difference, with the number of all its pixels that differ."""
        ordered = sorted(self.differences, key=lambda d: (d.raster, d.region.top, d.region.left))
        for raster in dict.fromkeys(d.raster for d in ordered):
            mine = [d for d in ordered if d.raster == raster]
            total = sum(d.num_pixels for d in mine)
            yield str(mine[0]) + (f"; {total} in all that was compared" if len(mine) > 1 else "")


def open_output(output: str, raster: str) -> Reader:
    """Open a raster of an output: of a store, or the one of a GeoTIFF."""
    return TiffReader.open(output, TRUSTED) if is_geotiff(output) else ZarrReader(output, raster, limits=TRUSTED)


class Comparison:
    """Takes the blocks of a raster as a store would, and compares them with what is stored."""

    def __init__(self, stored: Reader, whole: Region, array: StoredArray, findings: Findings) -> None:
        self.stored, self.whole, self.array, self.findings = stored, whole, array, findings

    def write(self, region: Region, values: np.ndarray) -> None:
        place = region.shift(self.array.region.top, self.array.region.left)
        self.findings.add(place.num_pixels, self._compare(place, values))

    def _compare(self, place: Region, values: np.ndarray) -> Difference | None:
        found = np.empty_like(values)
        has_all_dims = len(self.stored.spec.dims) == found.ndim  # a GeoTIFF of one band has no dim of bands
        try:
            target = found if has_all_dims else found.reshape(place.shape)
            self.stored.read(place.shift(-self.whole.top, -self.whole.left), target)
        except InputError as error:
            return Difference(self.array.raster, place, place.num_pixels, (place.top, place.left), str(error))
        differs = differing_pixels(values, found, self.array.spec)
        if not differs.any():
            return None
        row, column = divmod(int(differs.argmax()), differs.shape[1])
        first = place.top + row, place.left + column
        return Difference(self.array.raster, place, int(np.count_nonzero(differs)), first)


def differing_pixels(a: np.ndarray, b: np.ndarray, spec: RasterSpec) -> np.ndarray:
    """Return (row, column) whether a pixel's bits differ in any band; NaN is NaN, whatever its bits."""
    bits = np.dtype(f"u{spec.dtype.itemsize}")
    differs = a.view(bits) != b.view(bits)
    if spec.dtype.kind == "f":
        differs &= ~(np.isnan(a) & np.isnan(b))
    return np.asarray(differs.any(axis=spec.dims.index("band")) if "band" in spec.dims else differs)


class Recomputation:
    """Computes an output, or regions of it, again, and compares."""

    def __init__(
        self, output: str, config: Mapping[str, Any], job: Job, random: np.random.Generator, findings: Findings
    ) -> None:
        self.output, self.config, self.job, self.random, self.findings = output, config, job, random, findings
        self.region = next((array.region for array in job.plan.kept.values()), None)
        """What the output spans."""
        configure(job.plan.settings.workers)

    def samples(self, number: int) -> None:
        """Compute regions again; tables, which are of all regions, are taken from the store."""
        if not number or self.region is None:
            return
        specs = table_specs(self.job)
        if specs and is_geotiff(self.output):
            raise OutputError(
                f"{self.output}: its pixels may depend on tables ({', '.join(specs)}), which a GeoTIFF does not hold; "
                "verify the store of its run, or compute all of it again (--all)"
            )
        tables = {name: read_table(self.output, name, spec) for name, spec in specs.items()}
        for _ in range(number):
            self._compute(self._draw_region(self.region), tables, Progress(quiet=True))

    def whole(self, progress: Progress) -> Iterator[str]:
        """Compute all again; yield the tables that differ, and what is recorded of steps and does not hold."""
        with progress:
            measured = self._compute(None, {}, progress)
        if is_geotiff(self.output):
            return
        made = measured.tables
        for name, spec in table_specs(self.job).items():
            stored = read_table(self.output, name, spec)
            for column in spec.columns:
                if not _same_bits(stored[column], np.asarray(made[name][column])):
                    yield f"{name}/{spec.prefix}{column}: the table differs"
        recorded = (root_attributes(self.output) or {}).get("quality", {})
        for name, quality in qualities(self.job.plan, measured):
            for fact, value in quality.items():
                if (said := recorded.get(name, {}).get(fact)) != value:
                    yield f"{self.output}: the {fact} of {name} is recorded as {said}, and computed as {value}"

    def _draw_region(self, whole: Region) -> Region:
        """Return a part, as likely at an edge as a window that is dropped anywhere around."""
        spans = []
        for start, stop in ((whole.top, whole.bottom), (whole.left, whole.right)):
            side = int(self.random.integers(1, min(SAMPLE_SIDE, stop - start) + 1))
            first = int(self.random.integers(start - side // 2, stop - side // 2))
            first = min(max(first, start), stop - side)
            spans.append((first, first + side))
        return Region(*spans[0], *spans[1])

    def _compute(self, part: Region | None, tables: Mapping[str, Table], progress: Progress) -> Measured:
        """Compute a part, or all, by a layout drawn at random; blocks go to comparisons instead of a store."""
        scratch = self.job.pipeline.run.scratch
        with tempfile.TemporaryDirectory(prefix="rasterpipe-verify-", dir=scratch) as folder:
            job = self._plan(part, tables, f"{folder}/again.zarr")
            check_free_space(job.output, sum(array.num_bytes for array in job.plan.arrays if not array.is_kept))
            with closing(Journal(job.output)) as journal:
                store = RunStore(job, Target("start", LocalFolder(job.output), uuid.uuid4().hex, replaces=False))
                store.create()
                journal.start(store.journal_header())
                compile_kernels(job.plan)
                try:
                    return execute(job.plan, self._reader(store), self._writer(store), journal, progress)
                except RunStopped as error:
                    raise error.__cause__ if isinstance(error.__cause__, InputError) else error from None

    def _reader(self, store: RunStore) -> OpenReader:
        """Return how to open what a pass reads; a kept raster is that of the output, compared before it is read."""

        def open_reader(raster: str) -> Reader:
            return store.open_reader(raster) if store.holds(raster) else open_output(self.output, raster)

        return open_reader

    def _writer(self, store: RunStore) -> OpenWriter:
        """Return how to open what a pass writes: kept rasters are compared, the others stored."""
        whole = self.job.plan.kept

        def open_writer(array: StoredArray) -> Writer:
            if not array.is_kept:
                return store.open_writer(array)
            stored = open_output(self.output, array.raster)
            return Comparison(stored, whole[array.raster].region, array, self.findings)

        return open_writer

    def _plan(self, part: Region | None, tables: Mapping[str, Table], path: str) -> Job:
        """Plan by another layout, drawn at random: chunks, workers, halo way, and of a part blocks and panels."""
        changes: dict[str, Any] = {}
        if part is not None:
            changes["region"] = {"rows": [part.top, part.bottom], "columns": [part.left, part.right]}
        sides = part.shape if part is not None else (WHOLE_CHUNK, WHOLE_CHUNK)
        chunk = [int(self.random.integers(1 + side // 4, 1 + side)) for side in sides]
        output = {**self.config["output"], "path": path, "chunks": chunk, "shards": "none", "codec": "none"}
        workers = int(self.random.integers(1, self.job.plan.settings.workers + 1))
        for halo in ["exchange", "read"][int(self.random.random() < 0.5) :]:  # not every plan can exchange its halos
            run = {**self.config["run"], "halo": halo, "workers": workers}
            config = {**self.config, **changes, "output": output, "run": run}
            try:
                job = load(config, tables=tables)
            except PipelineError:
                if halo == "read":
                    raise
                continue
            if part is None:
                return job
            with suppress(PipelineError):  # drawn blocks need not fit the memory, nor the halo
                return load(config, tables=tables, grids=tuple(self._cut(planned) for planned in job.plan.passes))
            return job
        raise AssertionError("reading is always tried")

    def _cut(self, planned: PlannedPass) -> Grid:
        """Return a grid of few blocks of whole units, in panels."""
        region = planned.plan.grid.region
        units = [array.unit for array in planned.arrays.values()]
        rows, columns = (max(unit[axis] for unit in units) * int(self.random.integers(1, 3)) for axis in (0, 1))
        least = (rows, columns) if planned.halo == "exchange" else (1, 1)
        axes = Axis(region.top, region.bottom, rows, least[0]), Axis(region.left, region.right, columns, least[1])
        return Grid(*axes, int(self.random.integers(1, 4)))


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    spec = replace(_PLAIN, dtype=a.dtype)
    return not differing_pixels(np.ascontiguousarray(a), np.ascontiguousarray(b), spec).any()


_PLAIN = RasterSpec(1, 1, np.dtype(np.uint8), ("y", "x"), ("b1",))


def table_specs(job: Job) -> dict[str, TableSpec]:
    """Return the tables that a pipeline makes, by step."""
    specs = {}
    for name, step in job.plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        specs[name] = step.operation.table_spec(step.sources)
    return specs
