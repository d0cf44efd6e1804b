"""Tables with geometries as files: GeoPackage and GeoJSON by pyogrio, GeoParquet by pyarrow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.errors import InputError
from pipeline.storage.vector.file import check_vector, layers_of, reading

DRIVERS: dict[str, tuple[str, dict[str, str]]] = {".gpkg": ("GPKG", {}), ".geojson": ("GeoJSON", {"RFC7946": "YES"})}
"""Suffix -> driver, and its options: a GeoJSON has degrees of WGS 84, whatever the polygons are in."""

BEGIN, END = b'"features": [\n', b"\n]\n}\n"
"""Of the features of a GeoJSON, as GDAL writes it."""
LAYER = "zones"
WITHOUT_FEATURES = f'{{\n"type": "FeatureCollection",\n"name": "{LAYER}",\n'.encode() + BEGIN + END

Columns = Mapping[str, np.ndarray]
"""Of numbers, or of texts and None; masked where a value is missing."""


def write_features(path: Path, suffix: str, parts: Iterable[tuple[Columns, np.ndarray]], crs: str | None) -> None:
    """Write a table with a geometry (WKB) for each row over a file, part after part, in the format of a suffix."""
    building = path.with_name(f"{path.name}{suffix}")  # a name that GDAL does not wonder at
    piece = path.with_name(f"{path.name}.part{suffix}")
    for each in (building, piece):  # of a run that was killed
        each.unlink(missing_ok=True)
    try:
        for number, (columns, wkb) in enumerate(parts):
            if number == 0 or suffix == ".gpkg":
                _write_part(building, suffix, columns, wkb, crs, append=number > 0)
            else:
                _write_part(piece, suffix, columns, wkb, crs)
                _add_features(building, piece)
                piece.unlink()
        os.replace(building, path)
    except InputError as error:
        raise OSError(str(error)) from error
    finally:
        for each in (building, piece):
            each.unlink(missing_ok=True)


def _write_part(
    path: Path, suffix: str, columns: Columns, wkb: np.ndarray, crs: str | None, *, append: bool = False
) -> None:
    driver, options = DRIVERS[suffix]
    data = [_plain(column) for column in columns.values()]
    masks = [np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None for column in columns.values()]
    with reading(str(path), [], done="written") as pyogrio:
        pyogrio.raw.write(
            str(path),
            wkb,
            data,
            list(columns),
            field_mask=masks,
            layer=LAYER,
            driver=driver,
            geometry_type="Unknown",
            crs=crs,
            append=append,
            **options,
        )


def _add_features(path: Path, piece: Path) -> None:
    """Add the features of one GeoJSON to another: GDAL, which wrote both, would add them in their own coordinates."""
    features = piece.read_bytes().split(BEGIN, 1)[1]
    if not features.startswith(END):
        with path.open("r+b") as file:
            file.seek(-len(END), os.SEEK_END)
            assert file.read() == END
            file.seek(-len(END), os.SEEK_END)
            file.write(b",\n" + features)


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


def has_no_features(path: Path) -> bool:
    """Return whether a file is a GeoJSON that `write_features` wrote without features, so that it tells no fields."""
    with path.open("rb") as file:
        return file.read(len(WITHOUT_FEATURES) + 1) == WITHOUT_FEATURES


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
