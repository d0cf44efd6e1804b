"""Tables as files beside the output store, one row a label or polygon, written once the store is complete."""

from __future__ import annotations

import csv
import datetime
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
from pipeline.output.exports.zones import ZoneTable, check_zones, zones_of
from pipeline.output.job import Job
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import replacing_file
from pipeline.storage.vector.write import DRIVERS, first_fields, geoparquet_metadata, has_no_features
from pipeline.storage.zarr.store import root_attributes

ROWS = 100_000
"""Rows that are in memory at once."""
FIRST_COLUMNS = ["label", "pixels"]
"""Of every table of labels."""

Columns = Mapping[str, np.ndarray]


@register
class TableFiles(Export):
    """Tables as files beside the output store: Parquet or CSV, of polygons GeoPackage and GeoJSON, too."""

    name = "table_files"

    def files(self, job: Job) -> list[Written]:
        return [Written(str(path), f"the table of step {step!r}", "table") for step, path in table_files(job)]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        for step, path in table_files(job):
            check_zones(job, step, path)
            if path.suffix == ".parquet":
                require_pyarrow(f"the table of step {step!r}")

    def write(self, job: Job, progress: Progress) -> tuple[str, ...]:
        for step, path in table_files(job):
            _write(job, step, path, progress)
        return tuple(str(path) for _, path in table_files(job))


def is_table(path: Path) -> bool:
    """Return whether a file is a table that a run wrote: by the names of its first columns."""
    if not path.is_file():
        return False
    if path.suffix == ".csv":
        header = ",".join(FIRST_COLUMNS).encode()
        with path.open("rb") as file:
            return file.read(len(header)) == header
    if path.suffix in DRIVERS:
        return first_fields(path, len(FIRST_COLUMNS)) == FIRST_COLUMNS or has_no_features(path)
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    except pyarrow.ArrowInvalid:
        return False


def _write(job: Job, step: str, path: Path, progress: Progress) -> None:
    plan = job.plan.reductions[step]
    assert isinstance(plan.operation, Reduction)
    table, zones = _Stored(job.place.folder, step, plan.operation.table_spec(plan.sources)), zones_of(job, step)
    with replacing(path, "the table", job) as building, progress:
        progress.start(1, what=f"the table of {step}")
        if zones is None:
            _write_plain(path.suffix, building, table.parts())
        else:
            _write_zones(path.suffix, building, table, ZoneTable.of(zones))
        progress.advance()


def _write_plain(suffix: str, path: Path, parts: Iterator[Columns]) -> None:
    (write_parquet if suffix == ".parquet" else _write_csv)(path, parts)


def _write_zones(suffix: str, path: Path, table: _Stored, zones: ZoneTable) -> None:
    labels = table.labels
    if suffix in DRIVERS:
        zones.write(path, suffix, labels, table.rows)
    elif suffix == ".csv":
        _write_csv(path, (columns for columns, _ in zones.parts(labels, table.rows)))
    else:
        parts = ({**columns, "geometry": wkb} for columns, wkb in zones.parts(labels, table.rows))
        write_parquet(path, parts, geoparquet_metadata(zones.crs))


def table_files(job: Job) -> list[tuple[str, Path]]:
    """Return the files that a run writes its tables to, with the steps that make them."""
    steps = job.plan.reductions.items()
    return [(name, Path(path)) for name, step in steps for path in traits.table_files(step.operation).values()]


class _Stored:
    """The table of a step in a store."""

    def __init__(self, store: Folder, step: str, spec: TableSpec) -> None:
        group = zarr.open_group(store.pixel_store(), path=f"{step}/{spec.prefix}".rstrip("/"), mode="r")
        self._arrays: dict[str, Any] = {name: group[name] for name in spec.columns}
        self._spec = spec

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self._arrays["label"][:])

    def rows(self, first: int, last: int) -> dict[str, tuple[str, np.ndarray]]:
        """Return rows from one to another: each column as it is called in a file (``mean_B04``), of what (``mean``)."""
        part: dict[str, tuple[str, np.ndarray]] = {}
        for name, names in self._spec.flat_names.items():
            column = np.asarray(self._arrays[name][first:last])
            flat = column.reshape(len(column), len(names))
            part |= {full: (name, flat[:, i]) for i, full in enumerate(names)}
        return part

    def parts(self) -> Iterator[Columns]:
        """Yield the table in runs of rows."""
        num_rows = next(iter(self._arrays.values())).shape[0]
        for first in range(0, max(1, num_rows), ROWS):
            yield {name: column for name, (_, column) in self.rows(first, first + ROWS).items()}


def _write_csv(path: Path, parts: Iterator[Columns]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, part in enumerate(parts):
            if number == 0:
                writer.writerow(part)
            columns = [[_text(value) for value in column.tolist()] for column in part.values()]
            writer.writerows(zip(*columns, strict=True))


def _text(value: Any) -> str:
    """Return whole numbers and the shortest digits that give the same number back; nothing for NaN and None."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    return "" if value is None or value != value else repr(value)


def write_parquet(path: Path, parts: Iterator[Columns], metadata: Mapping[str, str] | None = None) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    for part in parts:
        table = pyarrow.table({name: _arrow(name, column) for name, column in part.items()})
        table = table.replace_schema_metadata(metadata) if metadata else table
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _arrow(name: str, column: np.ndarray) -> Any:
    """Return a column for pyarrow: masked values are missing, objects are texts, or the geometry."""
    import pyarrow

    if column.dtype.kind == "O":
        return pyarrow.array(column, pyarrow.binary() if name == "geometry" else pyarrow.string())
    mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
    return pyarrow.array(np.ascontiguousarray(np.ma.getdata(column)), mask=mask)


def require_pyarrow(what: str) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise PipelineError(
            f"{what} is a .parquet file, which needs pyarrow; "
            "`pip install 'rasterpipe[parquet]'`, or write another kind"
        ) from None


@contextmanager
def replacing(path: Path, what: str, job: Job) -> Iterator[Path]:
    """Yield where a file is written, under a name that no other run takes, before it is put in its place."""
    run_id = str((root_attributes(job.place.folder) or {}).get("run_id"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path, run_id) as building:
            yield building
    except OSError as error:
        raise RunStopped(
            f"{path}: {what} cannot be written: {error.strerror or error}; the store {job.place.folder} is complete, "
            "and --resume writes the file once that is mended"
        ) from error
