"""The output store: Zarr v3 groups with coordinates and provenance, written in whole chunks or shards."""

from __future__ import annotations

import base64
import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs

from pipeline.raster import Number, RasterSpec, array_slices
from pipeline.region import Region

CODECS: dict[str, dict[str, Any] | None] = {
    "fast": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
    "balanced": {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"},
    "small": {"cname": "zstd", "clevel": 9, "shuffle": "shuffle"},
    "none": None,
}


@dataclass(frozen=True, slots=True)
class ArrayPlan:
    """An array to be created: where, what, and how it is stored (chunk shapes in the raster's dims)."""

    path: str
    spec: RasterSpec
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of what must be written whole: a shard, else a chunk."""
        sizes = dict(zip(self.spec.dims, self.shards or self.chunks, strict=True))
        return sizes["y"], sizes["x"]

    @property
    def num_files(self) -> int:
        return int(np.prod([-(-n // c) for n, c in zip(self.spec.shape, self.shards or self.chunks, strict=True)]))


def create_store(path: str, attributes: Mapping[str, Any], arrays: Sequence[ArrayPlan]) -> None:
    """Create the group, its step groups with coordinates, and all arrays; everything but the pixels."""
    root = zarr.create_group(path, zarr_format=3, attributes={"rasterpipe": dict(attributes)})
    groups: dict[str, RasterSpec] = {}
    for plan in arrays:
        group_path = plan.path.rpartition("/")[0]
        if group_path not in groups:
            groups[group_path] = plan.spec
            group = root.create_group(group_path) if group_path else root
            write_coordinates(group, plan.spec)
        create_array(root, plan)


def create_array(root: zarr.Group, plan: ArrayPlan) -> None:
    spec, codec = plan.spec, CODECS[plan.codec]
    attributes: dict[str, Any] = {}
    if spec.crs or spec.transform:
        attributes["grid_mapping"] = "spatial_ref"
    if spec.nodata is not None and spec.dtype.kind != "f":
        attributes["_FillValue"] = spec.nodata
    elif spec.nodata is not None:
        attributes["_FillValue"] = base64.standard_b64encode(struct.pack("<d", float(spec.nodata))).decode()
    root.create_array(
        plan.path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=plan.chunks,
        shards=plan.shards,
        compressors=zarr.codecs.BloscCodec(typesize=spec.dtype.itemsize, **codec) if codec else None,
        fill_value=fill_value(spec),
        dimension_names=spec.dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )


def fill_value(spec: RasterSpec) -> Number:
    """Return the value of chunks never written: nodata, else NaN, else the dtype's largest value."""
    if spec.nodata is not None:
        return spec.nodata
    return float("nan") if spec.dtype.kind == "f" else int(np.iinfo(spec.dtype).max)


def write_coordinates(group: zarr.Group, spec: RasterSpec) -> None:
    """Write `y`, `x`, `band` and `spatial_ref` as xarray and GDAL read them (CF)."""
    a, b, c, d, e, f = spec.transform or (1.0, 0.0, -0.5, 0.0, 1.0, -0.5)
    if not (b or d):  # a rotated grid has no coordinates along its axes; its transform says all
        _put(group, "y", f + e * (np.arange(spec.height) + 0.5), ("y",))
        _put(group, "x", c + a * (np.arange(spec.width) + 0.5), ("x",))
    if "band" in spec.dims:
        _put(group, "band", list(spec.bands), ("band",))
        for name, values in spec.band_coordinates:
            _put(group, name, list(values), ("band",))
    if spec.transform or spec.crs:
        _put(group, "spatial_ref", np.array(0), (), _grid_mapping(spec))


def _put(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], attributes: Mapping[str, Any] | None = None
) -> None:
    data = np.asarray(values)
    if data.dtype.kind == "U":
        data = np.asarray(values, dtype=np.dtypes.StringDType())
    array = group.create_array(
        name, shape=data.shape, dtype=data.dtype, chunks=data.shape, dimension_names=dims, attributes=dict(attributes or {})
    )
    array[...] = data


def _grid_mapping(spec: RasterSpec) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if spec.crs:
        attributes["crs_wkt"] = crs_wkt(spec.crs)
        attributes["spatial_ref"] = attributes["crs_wkt"]
    if spec.transform:
        a, b, c, d, e, f = spec.transform
        attributes["GeoTransform"] = " ".join(repr(value) for value in (c, a, b, f, d, e))
    return attributes


def crs_wkt(crs: str) -> str:
    """Return a CRS given as EPSG:n or WKT as WKT; unchanged where pyproj does not know it."""
    if not crs.upper().startswith("EPSG:"):
        return crs
    import pyproj
    import pyproj.exceptions

    try:
        return str(pyproj.CRS.from_user_input(crs).to_wkt())
    except pyproj.exceptions.CRSError:
        return crs


class ZarrWriter:
    """An array of the output store, open for writing whole blocks; threads may write different blocks at once."""

    def __init__(self, store: str, plan: ArrayPlan) -> None:
        self.store, self.plan = store, plan
        self._array = zarr.open_array(store, path=plan.path, mode="r+", config={"write_empty_chunks": True})

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "plan": self.plan}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["plan"])  # type: ignore[misc]

    def write(self, region: Region, values: np.ndarray) -> None:
        """Write a region, in rows and columns of the array, that consists of whole chunks or shards.

        Anything else would read, change and write a chunk that another task may be writing: it is refused.
        """
        spec = self.plan.spec
        for (start, stop), unit, size in zip(
            ((region.top, region.bottom), (region.left, region.right)), self.plan.unit, (spec.height, spec.width), strict=True
        ):
            if start % unit or (stop % unit and stop != size):
                raise ValueError(
                    f"{self.plan.path}: {region} is not whole chunks or shards of {self.plan.unit}; "
                    "writing it could lose what another task writes"
                )
        self._array[array_slices(spec.dims, region)] = values


def finish_store(path: str, attributes: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the provenance of step groups and root, the root's last: it says that the store is complete."""
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, values in groups.items():
        root[name].attrs["rasterpipe"] = dict(values)
        consolidate(path, name)
    root.attrs["rasterpipe"] = dict(attributes)
    consolidate(path)


def consolidate(path: str, group: str | None = None) -> None:
    """Gather the metadata of a group in one file, which xarray wants, although the v3 specification lacks it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, path=group)


def root_attributes(path: str) -> dict[str, Any] | None:
    """Return the provenance of one of our stores; None for anything that is not one."""
    try:
        value = json.loads(Path(path, "zarr.json").read_text()).get("attributes", {}).get("rasterpipe")
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, dict) else None


def stored_bytes(path: str, array: str) -> int:
    """Return the bytes of an array's files."""
    return sum(f.stat().st_size for f in Path(path, array).rglob("*") if f.is_file())


def with_region(spec: RasterSpec, region: Region) -> RasterSpec:
    """Return the spec of a part of a raster, its transform moved along."""
    if spec.transform is None:
        return replace(spec, height=region.height, width=region.width)
    a, b, c, d, e, f = spec.transform
    moved = (a, b, c + a * region.left + b * region.top, d, e, f + d * region.left + e * region.top)
    return replace(spec, height=region.height, width=region.width, transform=moved)
