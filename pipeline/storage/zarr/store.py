"""The output store: Zarr v3 groups with coordinates and provenance, written in whole chunks or shards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
import zarr.codecs
from zarr.storage import MemoryStore

from pipeline.model.errors import InputError, OutputError
from pipeline.model.raster import Number, RasterSpec, array_slices, is_nan
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray, with_region
from pipeline.model.table import Table, TableSpec
from pipeline.storage.folder.base import PLAIN_CODECS, Folder, RemoteError
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.open import folder_at
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.recorded import to_attributes

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


def create_store(path: str | Folder, attributes: Mapping[str, Any], arrays: Sequence[StoredArray]) -> None:
    """Create the group, its step groups with coordinates, and all arrays; everything but the pixels."""
    folder = folder_at(path)
    files = documents(attributes, arrays)
    folder.make()
    folder.replace("zarr.json", files.pop("zarr.json"))  # so that it is known for ours after a power cut too
    for name, data in files.items():
        folder.put(name, data)


def documents(
    attributes: Mapping[str, Any],
    arrays: Sequence[StoredArray],
    tables: Sequence[TablePlan] = (),
    of_groups: Mapping[str, Mapping[str, Any]] | None = None,
    of_arrays: Mapping[str, Mapping[str, Any]] | None = None,
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
    """
    files: dict[str, Any] = {}
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        root = zarr.create_group(
            MemoryStore(files), zarr_format=3, attributes={"rasterpipe": dict(attributes)}, overwrite=True
        )
        for plan in _without_clashes(arrays):
            write_coordinates(root.require_group(plan.raster.rpartition("/")[0]), plan.spec, plan.region)
            create_array(root, plan, is_complete=of_groups is not None)
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
        compressors=_compressor(plan.codec, spec.dtype),
        fill_value=fill_value(spec),
        dimension_names=spec.dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )


def _compressor(name: str, dtype: np.dtype) -> zarr.codecs.BloscCodec | None:
    codec = CODECS[name]
    if codec is None:
        return None
    if name == "fast" and dtype.kind in "iu":  # 16 bits take half the time; floats would take longer
        codec = {**codec, "shuffle": "bitshuffle"}
    return zarr.codecs.BloscCodec(typesize=dtype.itemsize, **codec)


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
        _put(group, "y", grid.f + grid.e * (np.arange(region.top, region.bottom) + 0.5), ("y",))
        _put(group, "x", grid.c + grid.a * (np.arange(region.left, region.right) + 0.5), ("x",))
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


def write_columns(folder: Folder, plan: TablePlan) -> None:
    """Write the columns of a table, every chunk of them."""
    for name in plan.spec.columns:
        array = open_for_all_chunks(folder, f"{plan.group}/{name}")
        rows = plan.num_rows(name)
        for first in range(0, len(plan.table[name]), rows):
            array[first : first + rows] = plan.table[name][first : first + rows]  # mapped anew where it is on the disk


def open_for_all_chunks(folder: Folder, path: str) -> zarr.Array[Any]:
    """Open an array for writing, chunks that hold nothing but the fill value too: zarrs leaves these out."""
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        return folder.open_array(path, "r+").with_config({"write_empty_chunks": True})


def read_table(path: str | Folder, step: str, spec: TableSpec) -> dict[str, np.ndarray]:
    """Return the columns of a table of the store."""
    folder = folder_at(path)
    return {name: np.asarray(folder.open_array(f"{step}/{spec.prefix}{name}")[...]) for name in spec.columns}


def missing_chunks(path: str | Folder, array: str) -> Iterator[str]:
    """Yield the files that an array of the store lacks, or that are empty; a run writes all of them."""
    folder = folder_at(path)
    stored, size_of = folder.open_array(array), folder.child(array).sizes()
    counts = (-(-n // size) for n, size in zip(stored.shape, stored.shards or stored.chunks, strict=True))
    for place in np.ndindex(*counts):
        key = stored.metadata.encode_chunk_key(place)
        if not size_of(key):
            yield f"{array}/{key}"


def group_attributes(path: str | Folder, group: str) -> dict[str, Any]:
    """Return the provenance of a step's group; empty where there is none."""
    return root_attributes(folder_at(path).child(group)) or {}


class ZarrWriter:
    """An array of the output store, open for writing whole blocks; threads may write different blocks at once."""

    def __init__(self, store: str | Folder, array: StoredArray) -> None:
        self.store, self.array = folder_at(store), array
        self._plain = open_for_all_chunks(self.store, array.raster)
        self._marks = self.store.marks() if isinstance(self.store, LocalFolder) else None
        self._array = self._plain if self._marks is None else self.store.open_array(array.raster, "r+")

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "array": self.array}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["array"])  # type: ignore[misc]

    def write(self, region: Region, values: np.ndarray) -> list[int]:
        """Write a region, in rows and columns of the array, of whole chunks or shards; return the marks of its files.

        Anything else would read, change and write a chunk that another task may be writing: it is refused.
        """
        spec, unit = self.array.stored, self.array.unit
        for start, stop, step, size in (
            (region.top, region.bottom, unit[0], spec.height),
            (region.left, region.right, unit[1], spec.width),
        ):
            if not 0 <= start < stop <= size or start % step or (stop % step and stop != size):
                raise ValueError(
                    f"{self.array.raster}: {region} is not whole chunks or shards of {unit} in {spec.shape}; "
                    "writing it could lose what another task writes"
                )
        if values.shape != spec.shape_of(region) or values.dtype != spec.dtype:
            raise ValueError(
                f"{self.array.raster}: {region} takes {spec.shape_of(region)} {spec.dtype}, "
                f"not {values.shape} {values.dtype}"
            )
        if not self.store.is_there:  # to write would make the folder anew
            raise OutputError(f"{self.store}: is gone: its run has ended, or somebody has removed it")
        try:
            self._array[array_slices(spec.dims, region)] = values
            for part in self._empty_units(values) if self._array is not self._plain else ():
                first = {"y": region.top, "x": region.left, "band": 0}
                shifted = (slice(s.start + first[d], s.stop + first[d]) for s, d in zip(part, spec.dims, strict=True))
                self._plain[tuple(shifted)] = values[part]
        except RemoteError as error:
            raise OutputError(str(error)) from error
        except Exception as error:  # a full disk comes as OSError or, from zarrs, as RuntimeError
            raise OutputError(f"{self.store}/{self.array.raster}: cannot write {region}: {error}") from error
        return [self._mark(name) for name in self.array.files(region)]

    def _mark(self, name: str) -> int:
        mark = self.store.mark_of_put(name) if self._marks is None else self._marks(name)
        if mark is None:
            raise OutputError(f"{self.store}/{name}: was written and is gone")
        return mark

    def _empty_units(self, values: np.ndarray) -> Iterator[tuple[slice, ...]]:
        """Yield the chunks or shards of a block that hold nothing but the fill value: zarrs leaves them out."""
        fill = fill_value(self.array.spec)
        is_fill = np.isnan if is_nan(fill) else partial(np.equal, values.dtype.type(fill))
        steps = self.array.shards or self.array.chunks
        for start in product(*(range(0, size, step) for size, step in zip(values.shape, steps, strict=True))):
            unit = tuple(slice(i, min(i + step, n)) for i, step, n in zip(start, steps, values.shape, strict=True))
            if is_fill(values[start]) and is_fill(values[unit]).all():
                yield unit


def finish_store(
    folder: Folder, files: dict[str, bytes], tables: Sequence[TablePlan], sync: Callable[[], None] = lambda: None
) -> None:
    """Write the documents of a complete store, all of them anew, and its tables.

    The root's comes last of all, in one write: it says that the store is complete. Before it, `sync` brings all else to
    the disk.
    """
    root = files.pop("zarr.json")
    for name, data in files.items():
        folder.put(name, data)
    for table in tables:
        write_columns(folder, table)
    sync()
    folder.replace("zarr.json", root)


def consolidate(store: Any, group: str | None = None) -> None:
    """Gather the metadata of a group in one file, which xarray wants, although the v3 specification lacks it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store, path=group)


def root_attributes(path: str | Folder) -> dict[str, Any] | None:
    """Return the provenance of one of our stores; None for anything that is not one."""
    try:
        value = folder_at(path).read_json("zarr.json").get("attributes", {}).get("rasterpipe")
    except RemoteError:
        raise
    except (InputError, OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, dict) else None


def array_shape_of(path: str | Folder, array: str) -> tuple[int, ...]:
    return tuple(folder_at(path).open_array(array).shape)


def stored_bytes(path: str, array: str) -> int:
    """Return the bytes of an array's files."""
    return sum(f.stat().st_size for f in Path(path, array).rglob("*") if f.is_file())
