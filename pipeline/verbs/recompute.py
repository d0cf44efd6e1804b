"""A finished output computed again, by another layout, and compared: pixel by pixel, without a second store."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.block.plan import Pass
from pipeline.execution.compilation import compile_kernels
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Measured
from pipeline.execution.run import OpenReader, OpenWriter, Stores, execute
from pipeline.execution.worker import Writer
from pipeline.model.errors import InputError, OutputError, PipelineError, RunStopped
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import TRUSTED
from pipeline.model.region import Axis, Grid, Region
from pipeline.model.stored import StoredArray
from pipeline.model.table import Table
from pipeline.output.address import is_geotiff, is_ome_zarr, is_one_raster
from pipeline.output.color_table import color_table_of
from pipeline.output.exports.ome_zarr import open_level
from pipeline.output.exports.raster import file_spec
from pipeline.output.job import Job
from pipeline.output.journal import Journal
from pipeline.output.local import check_free_space
from pipeline.output.place import Target
from pipeline.output.store import RunStore, qualities
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.open import folder_at
from pipeline.storage.reader import Reader
from pipeline.storage.tiff.reader import TiffReader
from pipeline.storage.tiff.writer import tag_differences
from pipeline.storage.view import Ordered
from pipeline.storage.zarr.reader import open_written
from pipeline.storage.zarr.store import read_table
from pipeline.verbs.expectation import Record, differing_values, table_specs
from pipeline.verbs.load import Cut, load

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


def open_output(output: str, array: StoredArray) -> Reader:
    """Open a raster of an output: of a store, or the one of a GeoTIFF or an OME-Zarr image."""
    if is_ome_zarr(output):
        return Ordered(open_level(Path(output), array), array.spec.dims)
    return TiffReader.open(output, TRUSTED) if is_geotiff(output) else open_written(output, array.raster)


class Comparison:
    """Takes the blocks of a raster as a store would, and compares them with what is stored."""

    def __init__(self, stored: Reader, whole: Region, array: StoredArray, findings: Findings) -> None:
        self.stored, self.whole, self.array, self.findings = stored, whole, array, findings

    def write(self, region: Region, values: np.ndarray) -> list[int]:
        place = region.shift(self.array.region.top, self.array.region.left)
        self.findings.add(place.num_pixels, self._compare(place, values))
        return []

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
    """Return (row, column) whether a pixel's bits differ in any band."""
    differs = differing_values(a, b)
    return np.asarray(differs.any(axis=spec.dims.index("band")) if "band" in spec.dims else differs)


class Recomputation:
    """Computes an output, or regions of it, again, and compares."""

    def __init__(
        self, output: str, config: Mapping[str, Any], job: Job, random: np.random.Generator, findings: Findings
    ) -> None:
        self.output, self.config, self.job, self.random, self.findings = output, config, job, random, findings
        self.region = next((array.region for array in job.plan.kept.values()), None)
        """What the output spans."""

    def samples(self, number: int) -> None:
        """Compute regions again; tables, which are of all regions, are taken from the store."""
        if not number or self.region is None:
            return
        specs = table_specs(self.job)
        if specs and is_one_raster(self.output):
            kind = "an image" if is_ome_zarr(self.output) else "a GeoTIFF"
            raise OutputError(
                f"{self.output}: its pixels may depend on tables ({', '.join(specs)}), which {kind} does not hold; "
                "verify the store of its run, or compute all of it again (--all)"
            )
        tables = {name: read_table(self.output, name, spec) for name, spec in specs.items()}
        for _ in range(number):
            with self._computed(self._draw_region(self.region), tables, Progress(quiet=True)):
                pass

    def whole(self, record: Record, progress: Progress) -> Iterator[str]:
        """Compute all again; yield the tables that differ, and what is recorded of pixels and does not hold."""
        with progress, self._computed(None, {}, progress) as measured:
            if is_geotiff(self.output):
                yield from self._color_differences(measured.tables)
            elif not is_one_raster(self.output):
                yield from self._table_differences(measured.tables)
            for raster in self.job.plan.kept:
                if (said := record["valid"].get(raster)) != (count := measured.valid[raster]):
                    yield f"{self.output}: the valid values of {raster} are recorded as {said}, and computed as {count}"
            for name, quality in qualities(self.job.plan, measured):
                recorded = record["quality"].get(name)
                for fact, value in quality.items():
                    said = recorded.get(fact) if isinstance(recorded, Mapping) else None
                    if said != value:
                        yield f"{self.output}: the {fact} of {name} is recorded as {said}, and computed as {value}"

    def _color_differences(self, tables: Mapping[str, Table]) -> Iterator[str]:
        """Yield where the tags of a GeoTIFF differ, now that the colours are known."""
        for raster, array in self.job.plan.kept.items():
            table = color_table_of(self.job.plan, raster, tables)
            assert table is not None
            found = tag_differences(self.output, file_spec(array, table.colors))
            yield from (f"{self.output}: {text}" for text in found)

    def _table_differences(self, tables: Mapping[str, Table]) -> Iterator[str]:
        folder = folder_at(self.output)
        for name, spec in table_specs(self.job).items():
            for column in spec.columns:  # one at a time: a table may be large
                stored = np.asarray(folder.open_array(f"{name}/{spec.prefix}{column}")[...])
                made = np.asarray(tables[name][column])
                if (stored.shape, stored.dtype) != (made.shape, made.dtype) or differing_values(stored, made).any():
                    yield f"{name}/{spec.prefix}{column}: the table differs"

    def _draw_region(self, whole: Region) -> Region:
        """Return a part, as likely at an edge as a window that is dropped anywhere around."""
        spans = []
        for start, stop in ((whole.top, whole.bottom), (whole.left, whole.right)):
            side = int(self.random.integers(1, min(SAMPLE_SIDE, stop - start) + 1))
            first = int(self.random.integers(start - side // 2, stop - side // 2))
            first = min(max(first, start), stop - side)
            spans.append((first, first + side))
        return Region(*spans[0], *spans[1])

    @contextmanager
    def _computed(self, part: Region | None, tables: Mapping[str, Table], progress: Progress) -> Iterator[Measured]:
        """Compute a part, or all, by a layout drawn at random; blocks go to comparisons instead of a store.

        Large tables that are made on the way lie on the disk, and go at the end.
        """
        scratch = self.job.pipeline.run.scratch
        with tempfile.TemporaryDirectory(prefix="rasterpipe-verify-", dir=scratch) as folder:
            job = self._plan(part, tables, f"{folder}/again.zarr")
            check_free_space(job.output, sum(array.num_bytes for array in job.plan.arrays if not array.is_kept))
            with closing(Journal(job.output)) as journal:
                store = RunStore(job, Target("start", LocalFolder(job.output), uuid.uuid4().hex))
                store.create()
                journal.start(store.journal_header())
                compile_kernels(job.plan)
                try:
                    measured = execute(job.plan, Stores(self._reader(store), self._writer(store)), journal, progress)
                except RunStopped as error:
                    raise error.__cause__ if isinstance(error.__cause__, InputError) else error from None
                yield measured

    def _reader(self, store: RunStore) -> OpenReader:
        """Return how to open what a pass reads; a kept raster is that of the output, compared before it is read."""

        def open_reader(raster: str) -> Reader:
            is_held = store.holds(raster)
            return store.open_reader(raster) if is_held else open_output(self.output, self.job.plan.kept[raster])

        return open_reader

    def _writer(self, store: RunStore) -> OpenWriter:
        """Return how to open what a pass writes: kept rasters are compared, the others stored."""
        whole = self.job.plan.kept

        def open_writer(array: StoredArray) -> Writer:
            if not array.is_kept:
                return store.open_writer(array)
            stored = open_output(self.output, array)
            return Comparison(stored, whole[array.raster].region, array, self.findings)

        return open_writer

    def _plan(self, part: Region | None, tables: Mapping[str, Table], path: str) -> Job:
        """Plan by another layout, drawn at random; where that does not fit, by one that takes less memory."""
        changes: dict[str, Any] = {}
        if part is not None:
            changes["region"] = {"rows": [part.top, part.bottom], "columns": [part.left, part.right]}
        refusals = []
        for output, run in self._layouts(part):
            output = {**self.config["output"], **output, "path": path, "pyramid": "none"}
            run = {**self.config["run"], **run}
            config = {**self.config, **changes, "output": output, "run": run}
            try:
                job = load(config, cut=Cut(tables=tables))
            except PipelineError as error:
                refusals.append(error)
                continue
            return job if part is None else self._cut_anew(job, config, tables)
        raise refusals[-1]

    def _layouts(self, part: Region | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield chunks, workers and halo way: drawn at random, then such as take ever less memory, then the run's."""
        sides = part.shape if part is not None else (WHOLE_CHUNK, WHOLE_CHUNK)
        chunk = [int(self.random.integers(1 + side // 4, 1 + side)) for side in sides]
        workers = int(self.random.integers(1, self.job.plan.settings.workers + 1))
        plain = {"shards": "none", "codec": "none"}
        for halo in ["exchange", "read"][int(self.random.random() < 0.5) :]:  # not every plan can exchange its halos
            yield {**plain, "chunks": chunk}, {"halo": halo, "workers": workers}
        for divisor in (1, 2, 4, 8):
            yield {**plain, "chunks": [-(-side // divisor) for side in chunk]}, {"halo": "read", "workers": 1}
        yield {}, {"workers": 1}

    def _cut_anew(self, job: Job, config: Mapping[str, Any], tables: Mapping[str, Table]) -> Job:
        """Return a job by blocks drawn at random, or as it is where these do not fit the memory."""
        try:
            grids = tuple(self._cut(planned) for planned in job.plan.passes)
            return load(config, cut=Cut(grids, tables=tables))
        except PipelineError:
            return job

    def _cut(self, planned: Pass) -> Grid:
        """Return a grid of few blocks of whole units, in panels."""
        region = planned.grid.region
        units = [array.unit for array in planned.arrays.values()]
        rows, columns = (max(unit[axis] for unit in units) * int(self.random.integers(1, 3)) for axis in (0, 1))
        least = (rows, columns) if planned.halo == "exchange" else (1, 1)
        axes = Axis(region.top, region.bottom, rows, least[0]), Axis(region.left, region.right, columns, least[1])
        return Grid(*axes, int(self.random.integers(1, 4)))
