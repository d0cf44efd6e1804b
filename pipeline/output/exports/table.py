"""Tables as files beside the output store: Parquet or CSV, one row a label, written once the store is complete."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.execution.progress import Progress
from pipeline.model.errors import PipelineError, RunStopped
from pipeline.model.table import TableSpec
from pipeline.operations import traits
from pipeline.operations.base import Reduction
from pipeline.output.exports.base import Export, Written, register
from pipeline.output.job import Job
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import replacing_file
from pipeline.storage.zarr.store import root_attributes

ROWS = 100_000
"""Rows that are in memory at once."""
FIRST_COLUMNS = ["label", "pixels"]
"""Of every table of labels."""

Columns = Mapping[str, np.ndarray]


@register
class TableFiles(Export):
    """Tables as files beside the output store: Parquet or CSV."""

    name = "table_files"

    def files(self, job: Job) -> list[Written]:
        return [Written(str(path), f"the table of step {step!r}", "table") for step, path in table_files(job)]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        for step, path in table_files(job):
            if path.suffix == ".parquet":
                _require_pyarrow(step)

    def write(self, job: Job, progress: Progress) -> tuple[str, ...]:
        run_id = str((root_attributes(job.place.folder) or {}).get("run_id"))
        for step, path in table_files(job):
            _write(job, step, path, run_id, progress)
        return tuple(str(path) for _, path in table_files(job))


def is_table(path: Path) -> bool:
    """Return whether a file is a table that a run wrote: by the names of its first columns."""
    if not path.is_file():
        return False
    if path.suffix == ".csv":
        header = ",".join(FIRST_COLUMNS).encode()
        with path.open("rb") as file:
            return file.read(len(header)) == header
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    except pyarrow.ArrowInvalid:
        return False


def _write(job: Job, step: str, path: Path, run_id: str, progress: Progress) -> None:
    plan = job.plan.reductions[step]
    assert isinstance(plan.operation, Reduction)
    spec = plan.operation.table_spec(plan.sources)
    with _replacing(path, job.place.folder, run_id) as building, progress:
        parts = _parts(job.place.folder, step, spec, progress)
        (_write_parquet if path.suffix == ".parquet" else _write_csv)(building, parts)


def table_files(job: Job) -> list[tuple[str, Path]]:
    """Return the files that a run writes its tables to, with the steps that make them."""
    steps = job.plan.reductions.items()
    return [(name, Path(path)) for name, step in steps for path in traits.table_files(step.operation).values()]


def _parts(store: Folder, step: str, spec: TableSpec, progress: Progress) -> Iterator[Columns]:
    """Yield the table of a store in runs of rows, a column for each band: ``mean_B04``."""
    group = zarr.open_group(store.pixel_store(), path=f"{step}/{spec.prefix}".rstrip("/"), mode="r")
    arrays: dict[str, Any] = {name: group[name] for name in spec.columns}
    num_rows = next(iter(arrays.values())).shape[0]
    firsts = range(0, max(1, num_rows), ROWS)
    progress.start(len(firsts), what=f"parts of the table of {step}")
    for first in firsts:
        part: dict[str, np.ndarray] = {}
        for name, dims in spec.columns.items():
            column = np.asarray(arrays[name][first : first + ROWS])
            if "band" in dims:
                part |= {f"{name}_{band}": column[:, i] for i, band in enumerate(spec.bands)}
            else:
                part[name] = column
        yield part
        progress.advance()


def _write_csv(path: Path, parts: Iterator[Columns]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, part in enumerate(parts):
            if number == 0:
                writer.writerow(part)
            # whole numbers and the shortest digits that give the same number back; nothing for NaN
            columns = [["" if value != value else repr(value) for value in column.tolist()] for column in part.values()]
            writer.writerows(zip(*columns, strict=True))


def _write_parquet(path: Path, parts: Iterator[Columns]) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    for part in parts:
        table = pyarrow.table({name: np.ascontiguousarray(column) for name, column in part.items()})
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _require_pyarrow(step: str) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise PipelineError(
            f"the table of step {step!r} is a .parquet file, which needs pyarrow; "
            "`pip install 'rasterpipe[parquet]'`, or write a .csv"
        ) from None


@contextmanager
def _replacing(path: Path, store: Folder, run_id: str) -> Iterator[Path]:
    """Yield where a file is written, under a name that no other run takes, before it is put in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path, run_id) as building:
            yield building
    except OSError as error:
        raise RunStopped(
            f"{path}: the table cannot be written: {error.strerror or error}; the store {store} is complete, and "
            "--resume writes the file once that is mended"
        ) from error
