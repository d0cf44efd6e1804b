"""The tables of polygons: one row a polygon, sorted by its id, with its attributes, and 0 pixels where it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.output.job import Job
from pipeline.storage.vector.polygons import repeated
from pipeline.storage.vector.reader import PolygonReader
from pipeline.storage.vector.write import DRIVERS, as_texts, write_features

ROWS = 100_000
"""Rows that are made at once."""
ZERO = {"pixels", "count", "sum", "variety", "histogram", "area", "perimeter"}
"""Columns that are 0 without a pixel, as `label_stats` has them; others are not known."""
RESERVED = {"fid", "geom", "geometry"}
"""Columns that files of features have themselves."""

Columns = Mapping[str, np.ndarray]
Rows = Callable[[int, int], Mapping[str, tuple[str, np.ndarray]]]
"""Rows of a table from one to another: name of a column -> the statistic that it is of, and its values."""


@dataclass(frozen=True)
class ZoneTable:
    """The polygons of a step's labels, as they are in their file."""

    ids: np.ndarray
    """Sorted."""
    attributes: Columns
    wkb: np.ndarray
    crs: str | None

    @classmethod
    def of(cls, reader: PolygonReader) -> ZoneTable:
        features, ids = reader.features(), reader.polygons.ids
        order = np.argsort(ids, kind="stable")
        attributes = {name: as_texts(column)[order] for name, column in features.fields.items()}
        return cls(ids[order], attributes, features.wkb[order], features.crs)

    def parts(self, labels: np.ndarray, rows: Rows) -> Iterator[tuple[Columns, np.ndarray]]:
        """Yield the table with its geometries in runs of rows; `labels` are those of the rows that there are."""
        for first in range(0, max(1, len(self.ids)), ROWS):
            part = slice(first, first + ROWS)
            ids = self.ids[part]
            begin, end = np.searchsorted(labels, ids[0]), np.searchsorted(labels, ids[-1], side="right")
            columns = dict(_filled(ids, labels[begin:end], rows(int(begin), int(end))))
            taken = RESERVED | {name.casefold() for name in columns}
            for name, column in self.attributes.items():
                columns[_unused(name, taken)] = column[part]
            yield columns, self.wkb[part]

    def write(self, path: Path, suffix: str, labels: np.ndarray, rows: Rows) -> None:
        """Write a GeoPackage or a GeoJSON."""
        parts = list(self.parts(labels, rows))
        columns = {name: _joined([part[name] for part, _ in parts]) for name in parts[0][0]}
        write_features(path, suffix, [(columns, np.concatenate([wkb for _, wkb in parts]))], self.crs)


def _filled(
    ids: np.ndarray, labels: np.ndarray, rows: Mapping[str, tuple[str, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield columns with a row for each id."""
    places = np.searchsorted(labels, ids)
    there = np.zeros(len(ids), bool)
    there[places < len(labels)] = labels[places[places < len(labels)]] == ids[places < len(labels)]
    for name, (statistic, column) in rows.items():
        values = np.zeros(len(ids), column.dtype)
        values[there] = column[places[there]]
        if statistic == "label":
            values[:] = ids
        elif statistic not in ZERO and values.dtype.kind == "f":
            values[~there] = np.nan
        elif statistic not in ZERO:
            values = np.ma.array(values, mask=~there)
        yield name, values


def _unused(name: str, taken: set[str]) -> str:
    """Return a name of an attribute that no column has, and take it: GeoPackages know no capitals."""
    while name.casefold() in taken:
        name += "_"
    taken.add(name.casefold())
    return name


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.ma.getdata(each) for each in columns])
    mask = np.concatenate([np.ma.getmaskarray(each) for each in columns])
    return np.ma.array(values, mask=mask) if mask.any() else values


def zones_of(job: Job, step: str) -> PolygonReader | None:
    """Return the polygons that are a step's labels, where each has an id of its own; else None."""
    operation = job.plan.reductions[step].operation
    reader = job.readers.get(operation.sources().get("labels") or "")
    return reader if isinstance(reader, PolygonReader) and repeated(reader.polygons.ids) is None else None


def check_zones(job: Job, step: str, path: Path) -> None:
    """Refuse a table with geometries of labels that have none."""
    zones = zones_of(job, step)
    if path.suffix == ".geojson" and zones is not None and zones.layer.crs is None:  # GDAL would write no coordinates
        raise PipelineError(
            f"the table of step {step!r} is a GeoJSON, which has degrees of WGS 84, and its polygons name no "
            "coordinate system; write a .gpkg or .parquet"
        )
    if path.suffix in DRIVERS and zones is None:
        raise PipelineError(
            f"the table of step {step!r} is a {path.suffix} file, which has a polygon for each row, and its labels are "
            "no polygons with an id each; write a .csv or .parquet"
        )
