"""Zarr in, v2 and v3: one array of a store, or of a group in it, as a raster."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer

from pipeline.errors import InputError, unknown
from pipeline.raster import DIMS, Dims, RasterSpec, array_slices
from pipeline.region import Region
from pipeline.storage import cf
from pipeline.storage.reader import Reader

Y_NAMES = ("y", "lat", "latitude", "row", "rows", "northing")
X_NAMES = ("x", "lon", "longitude", "col", "cols", "column", "columns", "easting")
BAND_NAMES = ("band", "bands", "c", "channel", "channels", "wavelength", "spectral")
METADATA = ("zarr.json", ".zarray", ".zattrs")


def configure(threads: int) -> None:
    """Use the zarrs codec pipeline with `threads` threads in this process, all tasks together."""
    # The pool of zarrs is made once a process, from this variable, when the first array is read or written.
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "async.concurrency": 4})


class ZarrReader(Reader):
    """One array of a Zarr store as a raster; dims beyond y, x and band are fixed by `at`."""

    def __init__(
        self, path: str, array: str | None = None, at: Mapping[str, Any] | None = None, dims: Dims | None = None
    ) -> None:
        self.path = path
        group, self._array = _find_array(path, array)
        self.array_path = self._array.path
        self.warnings: list[str] = []
        _check_array(self._array, path)
        self._named_dims = dims or _dimension_names(self._array, group, path)
        self._fixed = _fix_dimensions(self._array, group, self._named_dims, dict(at or {}), path)
        self._levels = max(1, len(_multiscales(group).get("datasets", [])))
        kept = [i for i in range(self._array.ndim) if i not in self._fixed]
        self.spec = self._build_spec(group, kept)
        sizes = dict(zip(self.spec.dims, (self._array.chunks[i] for i in kept), strict=True))
        self.chunk = (sizes["y"], sizes["x"])
        self.scale = cf.parse_scale(self._array.attrs, self.warnings)

    def _build_spec(self, group: zarr.Group | None, kept: list[int]) -> RasterSpec:
        names = [self._named_dims[i] for i in kept]
        dims = tuple(_role(name) for name in names)
        if dims not in DIMS:
            raise InputError(
                f"{self.path}: dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x in this order. "
                f"Give `dims:` if the names mislead, or `at:` to fix further dims"
            )
        sizes = dict(zip(dims, (self._array.shape[i] for i in kept), strict=True))
        if not all(sizes.values()):
            raise InputError(f"{self.path}: the raster is empty: shape {self._array.shape}")
        dtype = np.dtype(np.uint8) if self._array.dtype.kind == "b" else self._array.dtype.newbyteorder("=")
        name_of = dict(zip(dims, names, strict=True))
        transform, crs = self._georeference(group, name_of, sizes)
        return RasterSpec(
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            dims=dims,
            bands=_band_names(group, name_of.get("band"), sizes.get("band", 1)),
            nodata=cf.parse_nodata(self._array.attrs, dtype, self.warnings),
            band_coordinates=_band_coordinates(group, self._array, name_of.get("band"), sizes.get("band", 1)),
            transform=transform,
            crs=crs,
        )

    def _georeference(
        self, group: zarr.Group | None, name_of: Mapping[str, str], sizes: Mapping[str, int]
    ) -> tuple[cf.Affine | None, str | None]:
        """Return transform and CRS as attributes say, or failing that the coordinates."""
        attributes = {**(dict(group.attrs) if group is not None else {}), **dict(self._array.attrs)}
        mapping = group.get(str(attributes.get("grid_mapping", "spatial_ref"))) if group is not None else None
        transform, crs = cf.parse_georeference(attributes, dict(mapping.attrs) if mapping else {}, self.warnings)
        if transform is None:
            y, x = (_coordinate(group, name_of[axis], sizes[axis]) for axis in ("y", "x"))
            transform = cf.transform_of_coordinates(y, x, self.warnings)
        return transform, crs

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        dims, order = self.spec.dims, None
        selection: list[Any] = list(array_slices(dims, region))
        if bands is not None and "band" in dims:
            first, last = min(bands), max(bands) + 1
            selection[dims.index("band")] = slice(first, last)
            order = None if list(bands) == list(range(first, last)) else [band - first for band in bands]
        target = out
        if order is not None or not out.flags.c_contiguous or out.dtype != self.spec.dtype:
            shape = [len(range(*part.indices(n))) for part, n in zip(selection, self.spec.shape, strict=True)]
            target = np.empty(shape, self.spec.dtype)
        self._read(region, selection, target)
        if target is not out:
            np.copyto(out, target if order is None else np.take(target, order, axis=dims.index("band")))

    def _read(self, region: Region, selection: list[Any], out: np.ndarray) -> None:
        for axis, index in sorted(self._fixed.items()):
            selection.insert(axis, index)
        native: Any = out.view(bool) if self._array.dtype.kind == "b" else out
        try:
            self._array.get_basic_selection(tuple(selection), out=NDBuffer.from_ndarray_like(native))
        except Exception as error:
            raise InputError(
                f"{self.path}: cannot read {region} (chunks of {self.chunk[0]} x {self.chunk[1]}): "
                f"{type(error).__name__}: {error}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with _quiet():
            self._array = zarr.open_array(self.path, path=self.array_path, mode="r")

    def identity(self) -> dict[str, Any]:
        folder = Path(self.path, self.array_path)
        metadata = [(folder / name).read_bytes() for name in METADATA if (folder / name).exists()]
        spec = self.spec  # names and georeference lie beside the array
        context = repr((spec.bands, spec.band_coordinates, spec.transform, spec.crs, self._fixed))
        newest, num_bytes = _newest_and_size(folder)
        return {
            "path": str(folder.absolute()),
            "modified_ns": newest,
            "bytes": num_bytes,
            "metadata": hashlib.sha256(b"\0".join([*metadata, context.encode()])).hexdigest(),
        }

    def describe(self) -> dict[str, Any]:
        array = self._array
        return {
            "format": f"Zarr v{array.metadata.zarr_format}",
            "array": self.array_path,
            "chunks": list(array.chunks),
            "shards": list(array.shards) if array.shards else None,
            "codec": [_codec_name(codec) for codec in array.compressors] or ["none"],
            "stored_dims": list(self._named_dims),
            "stored_shape": list(array.shape),
            "levels": self._levels,
            "warnings": [*self.warnings, *self._fill_value_note()],
        }

    def _fill_value_note(self) -> list[str]:
        """Say so where xarray, which writes nodata as the fill value in Zarr v2, would see nodata and we do not."""
        value, attributes = self._array.fill_value, self._array.attrs
        is_xarray = self._array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes
        if not is_xarray or self.spec.nodata is not None or value is None or not value or np.isnan(value):
            return []
        return [f"the fill value {value} is not taken as nodata; if xarray wrote it as such, say `nodata: {value}`"]


# --- finding the array -----------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep silent what is no news here: dtypes without a v3 specification, codecs that zarrs leaves to Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(path: str) -> zarr.Group | zarr.Array[Any]:
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder")
    if not any(Path(path, name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        raise InputError(f"{path}: is not a Zarr array or group (no zarr.json, .zarray or .zgroup in it)")
    try:
        with _quiet():
            if _is_array(Path(path)):
                return zarr.open_array(path, mode="r")
            return zarr.open_group(path, mode="r", use_consolidated=False)
    except Exception as error:
        raise InputError(f"{path}: cannot be opened as Zarr: {type(error).__name__}: {error}") from error


def _is_array(folder: Path) -> bool:
    if (folder / "zarr.json").exists():
        return bool(json.loads((folder / "zarr.json").read_text())["node_type"] == "array")
    return (folder / ".zarray").exists()


def _find_array(path: str, name: str | None) -> tuple[zarr.Group | None, zarr.Array[Any]]:
    """Return the raster array of a store, and the group that holds its coordinates."""
    node = _open(path)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{path}: is one array, so `array: {name}` names nothing in it; leave `array` out")
        return _parent_group(path), node
    if name is None:
        name = next((str(level["path"]) for level in _multiscales(node).get("datasets", [])), None)
    try:
        with _quiet():
            array = node[name or _only_raster(node, path)]
            parent = node[array.path.rpartition("/")[0]] if "/" in array.path else node
    except InputError:
        raise
    except Exception as error:
        if name and not any(Path(path, name, each).exists() for each in METADATA):
            raise InputError(f"{path}: {unknown('array', name, _rasters(node))}") from None
        what = name or "an array in it"
        raise InputError(f"{path}: {what} cannot be opened: {type(error).__name__}: {error}") from error
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path}: {name} is a group; {unknown('array', name, _rasters(node))}")
    return (parent if isinstance(parent, zarr.Group) else None), array


def _only_raster(group: zarr.Group, path: str) -> str:
    rasters = _rasters(group)
    if len(rasters) != 1:
        found = f"it holds {len(rasters)} rasters: {', '.join(rasters)}" if rasters else "it holds no raster"
        raise InputError(f"{path}: is a group and {found}; name one with `array:`")
    return rasters[0]


def _rasters(group: zarr.Group) -> list[str]:
    """Return the arrays that can be rasters: those with dims y and x; if no names say so, those with two dims."""
    with _quiet():
        members = {key: node for key, node in group.members(max_depth=2) if isinstance(node, zarr.Array)}
    flat = {key: node for key, node in members.items() if node.ndim >= 2}
    auxiliary = {name for node in flat.values() for name in str(node.attrs.get("coordinates", "")).split()}
    roles = {key: {_role(name) for name in _recorded_names(node)} for key, node in flat.items()}
    named = [key for key in flat if {"y", "x"} <= roles[key] and key.rpartition("/")[2] not in auxiliary]
    return sorted(named or flat)


def _parent_group(path: str) -> zarr.Group | None:
    parent = Path(path).absolute().parent
    if not any((parent / name).exists() for name in ("zarr.json", ".zgroup")):
        return None
    node = _open(str(parent))
    return node if isinstance(node, zarr.Group) else None


def _multiscales(group: zarr.Group | None) -> Mapping[str, Any]:
    """Return what OME-Zarr says of a group's pyramid: its `datasets`, full resolution first, and `axes`."""
    attributes: Mapping[str, Any] = group.attrs if group is not None else {}
    holder = attributes.get("ome", attributes)
    scales = holder.get("multiscales") if isinstance(holder, Mapping) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        return {}
    levels = [level for level in scales[0].get("datasets", []) if isinstance(level, Mapping) and "path" in level]
    axes = [str(axis.get("name", "")) if isinstance(axis, Mapping) else str(axis) for axis in scales[0].get("axes", [])]
    return {"datasets": levels, "axes": axes}


def _check_array(array: zarr.Array[Any], path: str) -> None:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{path}: the array has dtype {array.dtype}; rasters are integers or floating point up to 64 bit"
            + (" (store real and imaginary part as two bands)" if array.dtype.kind == "c" else "")
        )
    if array.ndim < 2:
        raise InputError(f"{path}: the array has {array.ndim} dimension(s); a raster has y and x")


# --- dims ------------------------------------------------------------------------------------------------------


def _recorded_names(array: zarr.Array[Any]) -> Sequence[Any]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return cast("Sequence[Any]", names) if isinstance(names, list | tuple) else ()


def _dimension_names(array: zarr.Array[Any], group: zarr.Group | None, path: str) -> tuple[str, ...]:
    """Return the dims' names: as the array or OME-Zarr says, else guessed where the shape leaves no doubt."""
    for names in (_recorded_names(array), _multiscales(group).get("axes", ())):
        if len(names) == array.ndim and all(names):
            return tuple(str(name) for name in names)
    if array.ndim == 2:
        return ("y", "x")
    if array.ndim == 3:
        first, middle, last = array.shape
        if last < min(first, middle):
            return ("y", "x", "band")
        if first < min(middle, last):
            return ("band", "y", "x")
    raise InputError(
        f"{path}: the array of shape {array.shape} names no dims, and they cannot be told from the shape; "
        f"say them, for instance `dims: y,x,band`"
    )


def _role(name: Any) -> str:
    lowered = str(name).lower()
    for role, names in (("y", Y_NAMES), ("x", X_NAMES), ("band", BAND_NAMES)):
        if lowered in names:
            return role
    return lowered


def _fix_dimensions(
    array: zarr.Array[Any], group: zarr.Group | None, names: Sequence[str], at: dict[str, Any], path: str
) -> dict[int, int]:
    """Return axis -> index for the dims beyond y, x and band: from `at`, or 0 where the length is 1."""
    if len(names) != array.ndim:
        raise InputError(f"{path}: `dims` names {len(names)} dims, the array has {array.ndim}: shape {array.shape}")
    fixed = {}
    for axis, name in enumerate(names):
        if name in at:
            fixed[axis] = _index_at(array, group, axis, name, at.pop(name), path)
        elif _role(name) not in ("y", "x", "band"):
            if array.shape[axis] != 1:
                raise InputError(
                    f"{path}: dim {name!r} has {array.shape[axis]} entries; pick one, for instance `at: {{{name}: 0}}`"
                )
            fixed[axis] = 0
    if at:
        raise InputError(f"{path}: `at`: {unknown('dim', next(iter(at)), names)}")
    return fixed


def _index_at(
    array: zarr.Array[Any], group: zarr.Group | None, axis: int, name: str, value: Any, path: str
) -> int:
    """Return a position along an axis: a whole number, or an entry of its coordinate (a date also shortened)."""
    size = array.shape[axis]
    if isinstance(value, int):
        if -size <= value < size:
            return value % size
        raise InputError(
            f"{path}: `at: {{{name}: {value}}}` is outside; {name} has {size} entries, from 0 (quoted it is a label)"
        )
    entries = _labels(group, name, size)
    matches = [i for i, entry in enumerate(entries or ()) if entry == str(value)]
    matches = matches or [i for i, entry in enumerate(entries or ()) if "T" in entry and entry.startswith(str(value))]
    if len(matches) != 1:
        known = "it has no coordinate" if entries is None else ", ".join(entries[:10])
        found = f"{len(matches)} entries" if matches else "no entry"
        raise InputError(f"{path}: `at`: {name} has {found} {value!r} ({known}); a whole number is a position from 0")
    return matches[0]


# --- coordinates -----------------------------------------------------------------------------------------------


def _coordinate_array(group: zarr.Group | None, name: str | None, size: int) -> zarr.Array[Any] | None:
    with _quiet():
        node = group.get(name) if group is not None and name else None
    return node if isinstance(node, zarr.Array) and node.shape == (size,) else None


def _coordinate(group: zarr.Group | None, name: str | None, size: int) -> np.ndarray | None:
    array = _coordinate_array(group, name, size)
    if array is None:
        return None
    try:
        with _quiet():
            return np.asarray(array[...])
    except Exception as error:
        raise InputError(f"{array.store_path}: cannot be read: {type(error).__name__}: {error}") from error


def _labels(group: zarr.Group | None, name: str | None, size: int) -> list[str] | None:
    values, array = _coordinate(group, name, size), _coordinate_array(group, name, size)
    return None if values is None or array is None else cf.labels(values, array.attrs)


def _band_names(group: zarr.Group | None, name: str | None, count: int) -> tuple[str, ...]:
    default = tuple(f"b{i + 1}" for i in range(count))
    names = tuple(_labels(group, name, count) or ())
    counted = names in (tuple(str(i + 1) for i in range(count)), tuple(str(i) for i in range(count)))
    return default if counted or len(set(names)) != count else names


def _band_coordinates(
    group: zarr.Group | None, array: zarr.Array[Any], band: str | None, count: int
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Return what else is known of each band: coordinates that the array names, along its band axis."""
    found = []
    for name in str(array.attrs.get("coordinates", "")).split():
        node = _coordinate_array(group, name, count)
        taken = name in ("y", "x", "band", "spatial_ref") or name == band
        if band and node is not None and not taken and tuple(_recorded_names(node)) == (band,):
            values = _coordinate(group, name, count)
            assert values is not None
            numeric = values.dtype.kind in "iuf"
            found.append((name, tuple(values.tolist() if numeric else cf.labels(values, node.attrs))))
    return tuple(found)


# --- identity --------------------------------------------------------------------------------------------------


def _newest_and_size(folder: Path) -> tuple[int, int]:
    """Return the newest change in a folder and below, and the bytes of all files there."""
    newest, num_bytes = folder.stat().st_mtime_ns, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below, size = _newest_and_size(Path(entry.path))
            else:
                status = entry.stat()
                below, size = status.st_mtime_ns, status.st_size
            newest, num_bytes = max(newest, below), num_bytes + size
    return newest, num_bytes


def _codec_name(codec: Any) -> str:
    settings = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    inner = settings.get("configuration", settings)
    return "/".join(str(part) for part in (settings.get("name", settings.get("id")), inner.get("cname")) if part)
