"""Files of polygons, read by pyogrio (GDAL): formats known by how a file begins, on this machine, nothing fetched."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.errors import InputError, unknown
from pipeline.model.raster import printable
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.address import is_url
from pipeline.storage.gdal.files import check_file
from pipeline.storage.library import WARNING_LIMIT, logged, reason

GEOPARQUET = "GeoParquet"
FORMATS = {
    ".gpkg": ("GPKG", b"SQLite format 3\0"),
    ".geojson": ("GeoJSON", b"{"),
    ".json": ("GeoJSON", b"{"),
    ".shp": ("ESRI Shapefile", b"\0\0\x27\x0a"),
    ".fgb": ("FlatGeobuf", b"fgb\x03fgb"),
    ".parquet": (GEOPARQUET, b"PAR1"),
    ".geoparquet": (GEOPARQUET, b"PAR1"),
}
"""Suffix -> the driver that reads it, and how such files begin: GDAL would take what it knows under any name."""
BESIDE = {"ESRI Shapefile": (".shx", ".dbf", ".prj", ".cpg"), "GPKG": (".gpkg-wal", ".gpkg-journal")}
"""Files that are read with one, where they are there."""
FEATURE_BYTES = 256
"""What a feature takes beside its vertices while it is read."""
NO_NETWORK = {"GDAL_HTTP_PROXY": "http://127.0.0.1:9", "GDAL_HTTP_MAX_RETRY": "0", "GDAL_HTTP_CONNECTTIMEOUT": "1"}
"""A GeoJSON may name its coordinate system by a URL, which GDAL would fetch."""
_settings = threading.Lock()


@dataclass(frozen=True)
class Features:
    """Features of a layer, or some of them."""

    wkb: np.ndarray
    """(feature,) of bytes; None where there is no geometry."""
    fields: dict[str, np.ndarray]
    crs: str | None
    said: tuple[str, ...] = ()
    """What GDAL warned of."""


@dataclass(frozen=True)
class Layer:
    """What a file says of a layer."""

    name: str
    num_features: int
    kind: str
    """Of its geometries."""
    fields: dict[str, str]
    """Name -> dtype as numpy calls it."""
    crs: str | None


def is_vector(path: str) -> bool:
    """Return whether a path is called as a file of polygons is; folders of such names are Zarr stores."""
    return os.path.splitext(path)[1].lower() in FORMATS and not os.path.isdir(path)


def check_vector(path: str) -> str:
    """Return the driver that reads a file; raise InputError where it is none of polygons, or lies elsewhere."""
    if is_url(path):
        raise InputError(f"{path}: polygons are read from files on this machine; copy it there")
    driver, begins = FORMATS.get(os.path.splitext(path)[1].lower(), ("", b""))
    if not driver:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: polygons are read from {known}; write it as one of them (ogr2ogr fields.gpkg FILE)")
    head = check_file(os.path.abspath(path)).removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n\t" if begins == b"{" else b"")
    if not head.startswith(begins):
        raise InputError(f"{path}: is no {driver}, by how it begins; name the file after what it is")
    return driver


def pyogrio_for(path: str) -> Any:
    """Return pyogrio; raise InputError where it, or shapely, is not installed."""
    try:
        import pyogrio
        import pyogrio.raw
        import shapely  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: polygons need pyogrio and shapely: pip install 'rasterpipe[vector]'") from error
    return pyogrio


def files_of(path: str) -> list[str]:
    """Return the files that are read, the given one first."""
    stem = os.path.splitext(path)[0]
    beside = (stem + suffix for suffix in BESIDE.get(check_vector(path), ()))
    return [path, *filter(os.path.isfile, beside)]


@contextlib.contextmanager
def reading(path: str, said: list[str], *, done: str = "read") -> Iterator[Any]:
    """Yield pyogrio with settings of ours, one thread at a time; say where it is what it raises, and warns of."""
    pyogrio = pyogrio_for(path)
    with _settings, logged(said, "pyogrio._io"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = {name: pyogrio.get_gdal_config_option(name) for name in NO_NETWORK}
        pyogrio.set_gdal_config_options(NO_NETWORK)
        try:
            yield pyogrio
        except InputError:
            raise
        except Exception as error:  # pyogrio raises anything, by what GDAL says
            raise InputError(f"{path}: cannot be {done}: {printable(reason(error))}") from error
        finally:
            pyogrio.set_gdal_config_options(before)
            said += dict.fromkeys(f"GDAL: {printable(str(each.message)[:300])}" for each in caught[:WARNING_LIMIT])


def layers_of(path: str) -> list[Layer]:
    """Return the layers of a file that have geometries."""
    if check_vector(path) == GEOPARQUET:
        return [_parquet_layer(path)]
    with reading(path, []) as pyogrio:
        names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        return [_layer(path, name, pyogrio.read_info(path, layer=name, force_feature_count=True)) for name in names]


def layer_of(path: str, layer: str | None) -> Layer:
    """Return the layer that is meant; raise InputError where it is not there, or several are and none is named."""
    layers = layers_of(path)
    names = [each.name for each in layers]
    if layer is None and len(layers) == 1:
        return layers[0]
    if not layers:
        raise InputError(f"{path}: has no layer of geometries")
    if layer is None:
        told = f"has {len(layers)} layers: {', '.join(map(printable, names[:20]))}"
        raise InputError(f"{path}: {told}; name one: `layer: {printable(names[0])}`")
    if layer not in names:
        raise InputError(f"{path}: {printable(unknown('layer', layer, names[:20]))}")
    return layers[names.index(layer)]


def read_features(
    path: str, layer: Layer, where: str | None, columns: Sequence[str] | None, limits: ReadLimits
) -> Features:
    """Return the features of a layer that a condition holds for, with some fields or (None) all of them.

    Raises InputError where there are too many for the limits, or the condition is none.
    """
    limits.check_allocation(f"{path}: {layer.num_features:,} features", layer.num_features * FEATURE_BYTES)
    size = sum(map(os.path.getsize, files_of(path)))
    if check_vector(path) == GEOPARQUET:
        return _read_parquet(path, where, columns, limits)
    limits.check_allocation(path, size if where is None else 0)
    fields = list(layer.fields if columns is None else columns)
    read = fields if where is None else list(layer.fields)  # the condition may ask for any
    said: list[str] = []
    with reading(path, said) as pyogrio:
        meta, _, wkb, data = pyogrio.raw.read(path, layer=layer.name, columns=read, where=where, force_2d=True)
    found = dict(zip(map(str, meta["fields"]), data, strict=True))
    return Features(wkb, {name: found[name] for name in fields}, layer.crs, tuple(said))


def _layer(path: str, name: str, info: Any) -> Layer:
    driver = FORMATS[os.path.splitext(path)[1].lower()][0]
    if info["driver"] != driver:
        raise InputError(f"{path}: GDAL takes it for {info['driver']}, not {driver}; name the file after what it is")
    fields = dict(zip(map(str, info["fields"]), map(str, info["dtypes"]), strict=True))
    return Layer(name, int(info["features"]), str(info["geometry_type"]), fields, info["crs"])


def _parquet(path: str) -> tuple[Any, str, dict[str, Any]]:
    """Return a GeoParquet opened, and its column of geometries with what it says of that."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: GeoParquet needs pyarrow: pip install 'rasterpipe[parquet]'") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        told = json.loads((file.schema_arrow.metadata or {})[b"geo"])
        column = str(told["primary_column"])
        about = told["columns"][column]
        if about["encoding"] != "WKB" or column not in file.schema_arrow.names:
            raise InputError(f"{path}: its geometries are not WKB; write it as GeoPackage")
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no GeoParquet: {printable(reason(error))}") from error
    return file, column, about


def _parquet_layer(path: str) -> Layer:
    file, column, about = _parquet(path)
    crs = about.get("crs", "OGC:CRS84")
    fields = {field.name: _dtype(field.type) for field in file.schema_arrow if field.name != column}
    name, kinds = os.path.splitext(os.path.basename(path))[0], ", ".join(map(str, about.get("geometry_types", [])))
    return Layer(name, file.metadata.num_rows, kinds, fields, json.dumps(crs) if isinstance(crs, dict) else crs)


def _dtype(kind: Any) -> str:
    try:
        return str(np.dtype(kind.to_pandas_dtype()))
    except (NotImplementedError, TypeError):
        return "object"


def _read_parquet(path: str, where: str | None, columns: Sequence[str] | None, limits: ReadLimits) -> Features:
    if where is not None:
        raise InputError(f"{path}: `where` asks GDAL, which does not read GeoParquet here; write it as GeoPackage")
    file, column, _ = _parquet(path)
    layer = _parquet_layer(path)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    limits.check_allocation(path, sum(group.total_byte_size for group in groups))
    names = list(layer.fields if columns is None else columns)
    try:
        table = file.read(columns=[column, *names])
    except Exception as error:  # pyarrow raises anything where the data are damaged
        raise InputError(f"{path}: cannot be read: {printable(reason(error))}") from error
    found = {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}
    return Features(np.array(table.column(column).to_pylist(), object), found, layer.crs)
