"""What the name of an output promises: formats that are not written are refused, not taken for a folder's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pipeline.model.errors import show

OME_ZARR = ".ome.zarr"
"""How the name of an OME-Zarr image ends."""
_NOT_WRITTEN = {
    "a picture": (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".svg", ".pdf"),
    "NetCDF or HDF": (".nc", ".nc4", ".cdf", ".h5", ".hdf", ".hdf5", ".he5"),
    "an archive": (".zip", ".gz", ".tgz", ".tar", ".7z", ".bz2", ".xz", ".zst"),
    "another raster format": (".jp2", ".vrt", ".img", ".ecw", ".sid", ".bil", ".bip", ".bsq", ".asc", ".grd", ".kea"),
    "an array of numpy": (".npy", ".npz"),
    "a table": (".csv", ".parquet", ".geoparquet", ".gpkg", ".shp", ".geojson", ".xlsx"),
    "a text": (".json", ".yaml", ".yml", ".txt", ".xml", ".html", ".md", ".toml"),
}
_REMEDIES = {
    "a picture": "write a .zarr or .tif, and `--quicklook FILE.png` for a picture of it",
    "NetCDF or HDF": "write a .zarr, which xarray turns into NetCDF: xarray.open_zarr(...).to_netcdf(...)",
    "an archive": "write a .zarr, and put that into an archive",
    "a table": "write a .zarr or .tif; a `label_stats` step writes its table with `table: FILE.csv`, and "
    "`output.polygons: FILE.gpkg` the outlines of labels",
}

OUTLINES = (".parquet", ".gpkg", ".geojson")


def check_output_name(path: str) -> str:
    """Refuse names that promise a format that is not written: a folder of such a name opens nowhere."""
    suffix = PurePath(path.rstrip("/")).suffix.lower()
    kind = next((kind for kind, suffixes in _NOT_WRITTEN.items() if suffix in suffixes), None)
    if kind is not None:
        remedy = _REMEDIES.get(kind, "write a .zarr or .tif")
        raise ValueError(f"{suffix} is {kind}, and results are Zarr stores or GeoTIFFs; {remedy}")
    return path


def check_polygons(value: Any) -> Any:
    """Refuse what is neither a file of polygons nor a mapping of rasters to such files."""
    if value is None:
        return value
    for path in value.values() if isinstance(value, Mapping) and value else [value]:
        if not isinstance(path, str) or PurePath(path).suffix not in OUTLINES:
            raise ValueError(f"must be a file that ends in {', '.join(OUTLINES)}, or {{STEP: FILE}}, got {show(path)}")
    return value
