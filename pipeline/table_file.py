"""Tables as files beside the output store: Parquet or CSV, one row a label, written once the store is complete."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.errors import OutputError, PipelineError, RunStopped
from pipeline.operation import Reduction, TableSpec
from pipeline.storage.disk import replacing_file
from pipeline.storage.folder import Folder
from pipeline.storage.zarr_store import root_attributes

if TYPE_CHECKING:
    from pipeline.job import Job

ROWS = 100_000
"""Rows that are in memory at once."""

Columns = Mapping[str, np.ndarray]


def check_table_files(job: Job, *, overwrite: bool, resume: bool) -> None:
    """Refuse files that exist or cannot be written, before anything is."""
    steps: dict[Path, str] = {}
    for step, path in table_files(job):
        if (other := steps.setdefault(path.resolve(), step)) != step:
            raise PipelineError(
                f"{path}: the tables of steps {other!r} and {step!r} are written to one file; rename one"
            )
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, and the table of step {step!r} is written there; choose a file")
        folder = path.parent
        if path.suffix == ".parquet":
            _require_pyarrow(step)
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path}: the folder {folder} does not exist or is not writable; make it, or choose another"
            )
        # what --resume finds may be of the run that it continues only where there is one
        continues = resume and (job.place.is_begun() or job.place.folder.exists("zarr.json"))
        if path.exists() and not (overwrite or continues):
            raise OutputError(f"{path}: the table of step {step!r} exists; --overwrite replaces it")
        for store in (job.output, *(p for entry in job.pipeline.inputs.values() for p in entry.paths)):
            if Path(store).resolve() in (path.resolve(), *path.resolve().parents):
                raise OutputError(f"{path}: lies in {store}; choose a path beside it")


def write_table_files(job: Job) -> list[str]:
    """Write the files of a complete store, each beside its place and then renamed; return their paths."""
    written, run_id = [], str((root_attributes(job.place.folder) or {}).get("run_id"))
    for step, path in table_files(job):
        plan = job.plan.reductions[step]
        assert isinstance(plan.operation, Reduction)
        spec = plan.operation.table_spec(plan.sources)
        with _replacing(path, job.place.folder, run_id) as building:
            parts = _parts(job.place.folder, step, spec)
            (_write_parquet if path.suffix == ".parquet" else _write_csv)(building, parts)
        written.append(str(path))
    return written


def table_files(job: Job) -> list[tuple[str, Path]]:
    """Return the files that a run writes its tables to, with the steps that make them."""
    steps = job.plan.reductions.items()
    return [(name, Path(path)) for name, step in steps for path in step.operation.table_files().values()]


def _parts(store: Folder, step: str, spec: TableSpec) -> Iterator[Columns]:
    """Yield the table of a store in runs of rows, a column for each band: ``mean_B04``."""
    group = zarr.open_group(store.pixel_store(), path=f"{step}/{spec.prefix}".rstrip("/"), mode="r")
    arrays: dict[str, Any] = {name: group[name] for name in spec.columns}
    num_rows = next(iter(arrays.values())).shape[0]
    for first in range(0, max(1, num_rows), ROWS):
        part: dict[str, np.ndarray] = {}
        for name, dims in spec.columns.items():
            column = np.asarray(arrays[name][first : first + ROWS])
            if "band" in dims:
                part |= {f"{name}_{band}": column[:, i] for i, band in enumerate(spec.bands)}
            else:
                part[name] = column
        yield part


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
        with replacing_file(path, run_id) as building:
            yield building
    except OSError as error:
        raise RunStopped(
            f"{path}: the table cannot be written: {error.strerror or error}; the store {store} is complete, and "
            "--resume writes the file once that is mended"
        ) from error
