"""Files of polygons for tests: each format from the same shapes; shapes at random; a raster below them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio.raw
import pyproj
import shapely

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile", ".fgb": "FlatGeobuf"}
UTM = "EPSG:32633"


def write(
    path: Path, shapes: Sequence[Any], fields: Mapping[str, Any] | None = None, crs: str | None = UTM, **options: Any
) -> Path:
    """Write shapes (of shapely, or WKB) with their fields; return the path."""
    wkb = np.array([each if isinstance(each, bytes | None) else shapely.to_wkb(each) for each in shapes], object)
    columns = {
        name: np.asarray(values) for name, values in (fields or {"name": [f"n{i}" for i in range(len(wkb))]}).items()
    }
    columns = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in columns.items()}
    if path.suffix == ".parquet":
        about: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        about |= {"crs": None if crs is None else pyproj.CRS(crs).to_json_dict()}
        geo = {"version": "1.0.0", "primary_column": "shape", "columns": {"shape": about}}
        table = pyarrow.table({"shape": list(wkb), **{name: list(values) for name, values in columns.items()}})
        pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
        return path
    kind = options.pop("geometry_type", "Unknown" if path.suffix != ".shp" else "Polygon")
    layer = {"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}
    with warnings.catch_warnings():  # that no system is given
        warnings.simplefilter("ignore", UserWarning)
        pyogrio.raw.write(
            str(path),
            wkb,
            list(columns.values()),
            list(columns),
            driver=DRIVERS[path.suffix],
            geometry_type=kind,
            crs=crs,
            **layer,
            **options,
        )
    return path


def star(random: np.random.Generator, extent: float) -> Any:
    """Return a polygon around a point that may lie outside; every other one with a hole."""
    centre, number = random.uniform(-0.1 * extent, 1.1 * extent, 2), int(random.integers(3, 12))
    angles, radii = np.sort(random.uniform(0, 2 * np.pi, number)), random.uniform(0.1, extent / 3, number)
    found = shapely.Polygon(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + centre)
    found = shapely.make_valid(found)
    if random.integers(2):
        found = found.difference(shapely.Point(centre).buffer(extent / 20))
    parts = shapely.get_parts(shapely.get_parts(found))
    return shapely.MultiPolygon([each for each in parts if each.geom_type == "Polygon"])
