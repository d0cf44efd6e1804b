"""Tables with geometries as files: GeoPackage and GeoJSON by pyogrio, GeoParquet by pyarrow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.errors import InputError
from pipeline.storage.vector.file import check_vector, layers_of, reading

DRIVERS: dict[str, tuple[str, dict[str, str]]] = {".gpkg": ("GPKG", {}), ".geojson": ("GeoJSON", {"RFC7946": "YES"})}
"""Suffix -> driver, and its options: a GeoJSON has degrees of WGS 84, whatever the polygons are in."""

Columns = Mapping[str, np.ndarray]
"""Of numbers, or of texts and None; masked where a value is missing."""


def write_features(path: Path, suffix: str, columns: Columns, wkb: np.ndarray, crs: str | None) -> None:
    """Write a table with a geometry for each row over a file, in the format of a suffix."""
    driver, options = DRIVERS[suffix]
    building = path.with_name(f"{path.name}{suffix}")  # a name that GDAL does not wonder at
    data = [_plain(column) for column in columns.values()]
    masks = [np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None for column in columns.values()]
    try:
        with reading(str(path), []) as pyogrio:
            pyogrio.raw.write(
                str(building),
                wkb,
                data,
                list(columns),
                field_mask=masks,
                layer="zones",
                driver=driver,
                geometry_type="Unknown",
                crs=crs,
                **options,
            )
        os.replace(building, path)
    except InputError as error:
        raise OSError(str(error)) from error
    finally:
        building.unlink(missing_ok=True)


def _plain(column: np.ndarray) -> np.ndarray:
    """Return a column as GDAL has such: whole numbers beyond 64 bits with a sign as text."""
    values = np.ma.getdata(column)
    if values.dtype == np.uint64:
        return values.astype(np.int64) if not len(values) or values.max() < 2**63 else values.astype(str).astype(object)
    return values


def geoparquet_metadata(crs: str | None) -> dict[str, str]:
    """Return what the schema of a GeoParquet 1.1 says of its column `geometry`."""
    import pyproj

    about: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [],
        "crs": None if crs is None else pyproj.CRS(crs).to_json_dict(),
    }
    return {"geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}})}


def first_fields(path: Path, number: int) -> list[str]:
    """Return the first fields of the only layer of a file; none where it is no such file."""
    try:
        check_vector(str(path))
        layers = layers_of(str(path))
    except InputError:
        return []
    return list(layers[0].fields)[:number] if len(layers) == 1 else []


def as_texts(column: Any) -> np.ndarray:
    """Return a column of a file as numbers, times, or texts and None."""
    values = np.asarray(column)
    if values.dtype.kind != "O":
        return values
    found = np.empty(len(values), object)
    found[:] = [None if each is None or each != each else str(each) for each in values.tolist()]
    return found
