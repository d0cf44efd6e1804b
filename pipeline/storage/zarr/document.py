"""The documents of an output store, made in memory: all of it but pixels and columns of tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import zarr
import zarr.codecs
from zarr.storage import MemoryStore

from pipeline.model.raster import Number, RasterSpec
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray, StoredLevels, with_region
from pipeline.model.table import Table, TableSpec
from pipeline.storage.folder.base import PLAIN_CODECS
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.array_attributes import to_attributes

CODECS: dict[str, dict[str, Any] | None] = {
    "fast": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
    "balanced": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"},
    "small": {"cname": "zstd", "clevel": 6, "shuffle": "shuffle"},
    "none": None,
}
"""Of blosc; `python -m benchmarks.studies.codecs` charts what each costs. Its zstd 9 is zstd's 22: below 5 MB/s."""

TABLE_CHUNK_BYTES = 4 * 2**20


class TablePlan(NamedTuple):
    """A table of the store: in which step's group, what it holds, and how."""

    step: str
    table: Table
    spec: TableSpec

    @property
    def group(self) -> str:
        return f"{self.step}/{self.spec.prefix}".rstrip("/")

    def num_rows(self, name: str) -> int:
        """Return how many rows of a column a chunk has."""
        column = self.table[name]
        return max(1, min(len(column), TABLE_CHUNK_BYTES // max(1, column[:1].nbytes)))


def documents(
    attributes: Mapping[str, Any],
    arrays: Sequence[StoredArray],
    tables: Sequence[TablePlan] = (),
    of_groups: Mapping[str, Mapping[str, Any]] | None = None,
    of_arrays: Mapping[str, Mapping[str, Any]] | None = None,
    levels: Mapping[str, StoredLevels] | None = None,
) -> dict[str, bytes]:
    """Return the files of a store but for pixels and columns of tables: metadata, coordinates, names of bands.

    Parameters
    ----------
    attributes
        The provenance of the root.
    of_groups
        The provenance of step groups; with it, metadata are gathered in root and step groups as xarray wants them.
    of_arrays
        Further attributes of arrays.
    levels
        Of those of `arrays` that have some.
    """
    files: dict[str, Any] = {}
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        root = zarr.create_group(
            MemoryStore(files), zarr_format=3, attributes={"rasterpipe": dict(attributes)}, overwrite=True
        )
        below = [array for each in (levels or {}).values() for array in each.arrays]
        for plan in _without_clashes([*arrays, *below]):
            write_coordinates(root.require_group(plan.raster.rpartition("/")[0]), plan.spec, plan.region)
            create_array(root, plan, is_complete=of_groups is not None)
        for raster, each in (levels or {}).items():
            _describe_levels(root.require_group(raster.rpartition("/")[0]), raster, each)
        for table in tables:
            _create_table(root, table)
        for name, values in (of_arrays or {}).items():
            root[name].attrs.update(values)
        for name, values in (of_groups or {}).items():
            root[name].attrs["rasterpipe"] = dict(values)
            consolidate(root.store, name)
        if of_groups is not None:
            consolidate(root.store)
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def _describe_levels(group: zarr.Group, raster: str, levels: StoredLevels) -> None:
    """Say in a group, by the Zarr convention, which arrays are levels of which; there may be several rasters in it."""
    folder, before = f"{group.path}/", raster
    attributes: dict[str, Any] = group.attrs.asdict()
    layout = [*attributes.get("multiscales", {"layout": []})["layout"], {"asset": raster.removeprefix(folder)}]
    for array in levels.arrays:
        entry = {"asset": array.raster.removeprefix(folder), "derived_from": before.removeprefix(folder)}
        layout.append(entry | {"transform": {"scale": [2.0, 2.0]}, "resampling_method": levels.resampling})
        before = array.raster
    group.update_attributes(cf.with_convention(attributes, "multiscales", {"layout": layout}))


def _create_table(root: zarr.Group, plan: TablePlan) -> None:
    """Create the columns of a table in a step's group, with the names of the bands."""
    group = root.require_group(plan.group)
    for name, dims in plan.spec.columns.items():
        column = plan.table[name]
        group.create_array(
            name,
            shape=column.shape,
            dtype=column.dtype,
            chunks=(plan.num_rows(name), *(max(1, n) for n in column.shape[1:])),
            dimension_names=dims,
            config={"write_empty_chunks": True},
        )
    if "band" not in group and any("band" in dims for dims in plan.spec.columns.values()):
        _put(group, "band", list(plan.spec.bands), ("band",))
    if plan.spec.edges:
        _put(group, "bin_left", plan.spec.edges[:-1], ("bin",))
        _put(group, "bin_right", plan.spec.edges[1:], ("bin",))


def _without_clashes(arrays: Sequence[StoredArray]) -> Iterator[StoredArray]:
    """Yield the arrays, less the coordinates of their bands that are named as an output of the same step."""
    paths = {plan.raster.casefold() for plan in arrays}  # some file systems take both for one
    for plan in arrays:
        folder = plan.raster.rpartition("/")[0]
        kept = tuple(
            entry for entry in plan.spec.band_coordinates if f"{folder}/{entry[0]}".lstrip("/").casefold() not in paths
        )
        yield replace(plan, spec=replace(plan.spec, band_coordinates=kept))


def create_array(root: zarr.Group, plan: StoredArray, *, is_complete: bool = True) -> None:
    """Create an array; until it is complete, chunks that are not there yet are nodata for whoever looks at it."""
    spec = plan.stored
    attributes: dict[str, Any] = {}
    coordinates = [name for name, _ in spec.band_coordinates]
    if spec.crs or spec.transform:
        attributes["grid_mapping"] = "spatial_ref"
        coordinates.append("spatial_ref")
    if coordinates:
        attributes["coordinates"] = " ".join(coordinates)
    if spec.nodata is not None or (spec.dtype.kind != "f" and not is_complete):
        attributes["_FillValue"] = cf.format_nodata(replace(spec, nodata=fill_value(spec)))
    attributes |= to_attributes(spec)
    root.create_array(
        plan.raster,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=plan.chunks,
        shards=plan.shards,
        compressors=compressor(plan.codec, spec.dtype),
        fill_value=fill_value(spec),
        dimension_names=spec.dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )


def compressor(name: str, dtype: np.dtype) -> zarr.codecs.BloscCodec | None:
    """Return the codec of chunks of this dtype, by its name in `CODECS`."""
    codec = CODECS[name]
    if codec is None:
        return None
    if name == "fast" and dtype.kind in "iu":  # 16 bits take half the time; floats would take longer
        codec = {**codec, "shuffle": "bitshuffle"}
    return zarr.codecs.BloscCodec(typesize=dtype.itemsize, **codec)


def gdal_problem(dims: Sequence[str], shards: Sequence[int] | None) -> str:
    """Return in words what GDAL up to 3.12 makes of an array of ours; empty where it opens it as it is."""
    if shards:
        return "GDAL up to 3.12, and QGIS with it, opens no array in shards (`shards: none`, or a GeoTIFF, is one)"
    if tuple(dims) == ("y", "x", "band"):
        return "GDAL up to 3.12, and QGIS with it, takes rows for bands (`dims: band,y,x`, or a GeoTIFF, is read right)"
    return ""


def fill_value(spec: RasterSpec) -> Number:
    """Return the value of chunks never written: nodata, else NaN, else the dtype's largest value."""
    if spec.nodata is not None:
        return spec.nodata
    return float("nan") if spec.dtype.kind == "f" else int(np.iinfo(spec.dtype).max)


def write_coordinates(group: zarr.Group, spec: RasterSpec, region: Region | None = None) -> None:
    """Write `y`, `x`, `band` and `spatial_ref` of a raster, or a part of it, as xarray and GDAL read them (CF).

    What the group has already, by another raster of the same step, is left.
    """
    region = region or spec.region
    part = with_region(spec, region)
    grid = spec.transform or cf.INDEX
    if not grid.is_rotated:  # such a grid has no coordinates along its axes; its transform says all
        unit = {"units": spec.unit} if spec.unit else {}
        _put(group, "y", grid.f + grid.e * (np.arange(region.top, region.bottom) + 0.5), ("y",), unit)
        _put(group, "x", grid.c + grid.a * (np.arange(region.left, region.right) + 0.5), ("x",), unit)
    if "band" in spec.dims:
        _put(group, "band", list(spec.bands), ("band",))
        for name, values in spec.band_coordinates:
            _put(group, name, list(values), ("band",))
    if spec.transform or spec.crs:
        _put(group, "spatial_ref", np.array(0), (), cf.grid_mapping(part))
        group.update_attributes(cf.conventions(part))


def _put(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], attributes: Mapping[str, Any] | None = None
) -> None:
    if name in group:
        return
    data = np.asarray(values)
    if data.dtype.kind == "U":
        data = np.asarray(values, dtype=np.dtypes.StringDType())
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=data.shape,
        dimension_names=dims,
        attributes=dict(attributes or {}),
        config={"write_empty_chunks": True},
    )
    array[...] = data


def consolidate(store: Any, group: str | None = None) -> None:
    """Gather the metadata of a group in one file, which xarray wants, although the v3 specification lacks it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store, path=group)
