"""Zarr in, v2 and v3: one array of a store, or of a group in it, as a raster."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.errors
from zarr.buffer.cpu import NDBuffer

from pipeline.errors import InputError, unknown
from pipeline.raster import DIMS, Dims, Number, RasterSpec, array_slices
from pipeline.region import Region
from pipeline.storage.reader import Reader

Y_NAMES = ("y", "lat", "latitude", "row", "rows", "northing")
X_NAMES = ("x", "lon", "longitude", "col", "cols", "column", "columns", "easting")
BAND_NAMES = ("band", "bands", "c", "channel", "channels", "wavelength", "spectral")


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
        _check_array(self._array, path)
        names = dims or _dimension_names(self._array, self.path)
        self._fixed = _fix_dimensions(self._array, group, names, dict(at or {}), path)
        roles = [_role(name) for i, name in enumerate(names) if i not in self._fixed]
        kept = [i for i in range(len(names)) if i not in self._fixed]
        self.spec = self._build_spec(group, [names[i] for i in kept], tuple(roles), kept)
        sizes = dict(zip(roles, (self._array.chunks[i] for i in kept), strict=True))
        self.chunk = (sizes["y"], sizes["x"])
        self.scale = _recorded_scale(self._array.attrs)
        self._named_dims = names

    def _build_spec(self, group: zarr.Group | None, names: list[str], dims: Dims, kept: list[int]) -> RasterSpec:
        if dims not in DIMS:
            raise InputError(
                f"{self.path}: dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x in this order. "
                f"Give `dims:` if the names mislead, or `at:` to fix further dims"
            )
        sizes = dict(zip(dims, (self._array.shape[i] for i in kept), strict=True))
        if not all(sizes.values()):
            raise InputError(f"{self.path}: the raster is empty: shape {self._array.shape}")
        dtype = np.dtype(np.uint8) if self._array.dtype.kind == "b" else self._array.dtype.newbyteorder("=")
        geo = _georeference(self._array, group, dict(zip(dims, names, strict=True)), sizes)
        return RasterSpec(
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            dims=dims,
            bands=_band_names(group, names[dims.index("band")] if "band" in dims else None, sizes.get("band", 1)),
            nodata=_recorded_nodata(self._array.attrs, dtype),
            transform=geo[0],
            crs=geo[1],
        )

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        spec, band_slice = self.spec, _as_slice(bands)
        selection: list[Any] = list(array_slices(spec.dims, region))
        if "band" in spec.dims and band_slice is not None:
            selection[spec.dims.index("band")] = band_slice
        for axis, index in sorted(self._fixed.items()):
            selection.insert(axis, index)
        direct = band_slice is not None and out.flags.c_contiguous and out.dtype == self._array.dtype
        try:
            if direct:
                self._array.get_basic_selection(tuple(selection), out=NDBuffer.from_ndarray_like(out))
                return
            values = self._array[tuple(selection)]
        except Exception as error:
            raise InputError(
                f"{self.path}: cannot read {region} (chunks of {self.chunk[0]} x {self.chunk[1]}): "
                f"{type(error).__name__}: {error}"
            ) from error
        if bands is not None and "band" in spec.dims and band_slice is None:
            values = np.take(values, list(bands), axis=spec.dims.index("band"))
        np.copyto(out, values, casting="unsafe")  # big-endian or bool to the native dtype of the spec

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._array = _find_array(self.path, self.array_path or None)[1]

    def identity(self) -> dict[str, Any]:
        folder = Path(self.path, self.array_path)
        metadata = json.dumps(self._array.metadata.to_dict(), sort_keys=True, default=str)
        return {
            "path": str(folder.absolute()),
            "modified_ns": _newest_folder_ns(folder),
            "metadata": hashlib.sha256(metadata.encode()).hexdigest(),
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
            "levels": num_levels(self.path),
        }


def _as_slice(bands: Sequence[int] | None) -> slice | None:
    """Return consecutive bands as a slice, which zarr reads fast; None where they are not consecutive."""
    if bands is None:
        return slice(None)
    first = bands[0]
    return slice(first, first + len(bands)) if list(bands) == list(range(first, first + len(bands))) else None


def _open(path: str) -> zarr.Group | zarr.Array[Any]:
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder")
    if not any(Path(path, name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        raise InputError(f"{path}: is not a Zarr array or group (no zarr.json, .zarray or .zgroup in it)")
    try:
        return zarr.open(path, mode="r")
    except Exception as error:
        raise InputError(f"{path}: cannot be opened as Zarr: {type(error).__name__}: {error}") from error


def _find_array(path: str, name: str | None) -> tuple[zarr.Group | None, zarr.Array[Any]]:
    """Return the raster array of a store, and the group that holds its coordinates."""
    node = _open(path)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{path}: is one array, so `array: {name}` names nothing in it; leave `array` out")
        return _parent_group(path), node
    arrays = {key: value for key, value in node.members(max_depth=2) if isinstance(value, zarr.Array)}
    rasters = sorted(key for key, value in arrays.items() if value.ndim >= 2)
    if name is None:
        name = _multiscale_paths(node.attrs)[0] if _multiscale_paths(node.attrs) else None
    if name is None and len(rasters) == 1:
        name = rasters[0]
    if name is None:
        found = f"it holds {len(rasters)} rasters: {', '.join(rasters)}" if rasters else "it holds no raster"
        raise InputError(f"{path}: is a group and {found}; name one with `array:`")
    if name not in arrays:
        raise InputError(f"{path}: {unknown('array', name, rasters)}")
    parent = node[name.rpartition("/")[0]] if "/" in name else node
    return (parent if isinstance(parent, zarr.Group) else None), arrays[name]


def _parent_group(path: str) -> zarr.Group | None:
    parent = Path(path).absolute().parent
    if not any((parent / name).exists() for name in ("zarr.json", ".zgroup")):
        return None
    node = _open(str(parent))
    return node if isinstance(node, zarr.Group) else None


def _multiscale_paths(attributes: Mapping[str, Any]) -> list[str]:
    """Return the level paths of an OME-Zarr multiscale group, full resolution first."""
    holder = attributes.get("ome", attributes)
    scales = holder.get("multiscales") if isinstance(holder, Mapping) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        return []
    datasets = scales[0].get("datasets", [])
    return [str(d["path"]) for d in datasets if isinstance(d, Mapping) and "path" in d]


def num_levels(path: str) -> int:
    """Return the number of pyramid levels of a multiscale group, else 1."""
    node = _open(path)
    return max(1, len(_multiscale_paths(node.attrs)))


def _check_array(array: zarr.Array[Any], path: str) -> None:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{path}: the array has dtype {array.dtype}; rasters are integers or floating point up to 64 bit"
            + (" (store real and imaginary part as two bands)" if array.dtype.kind == "c" else "")
        )
    if array.ndim < 2:
        raise InputError(f"{path}: the array has {array.ndim} dimension(s); a raster has y and x")


def _dimension_names(array: zarr.Array[Any], path: str) -> tuple[str, ...]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names:
        axes = _multiscale_axes(path, array.ndim)
        names = axes or None
    if names and len(names) == array.ndim and all(names):
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


def _multiscale_axes(path: str, ndim: int) -> tuple[str, ...]:
    node = _open(path)
    holder = node.attrs.get("ome", node.attrs)
    scales = holder.get("multiscales") if isinstance(holder, Mapping) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        return ()
    axes = scales[0].get("axes", [])
    names = tuple(str(axis.get("name", "")) if isinstance(axis, Mapping) else str(axis) for axis in axes)
    return names if len(names) == ndim else ()


def _role(name: str) -> str:
    lowered = name.lower()
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
    size = array.shape[axis]
    if isinstance(value, int):
        if -size <= value < size:
            return value % size
        raise InputError(f"{path}: `at: {{{name}: {value}}}` is outside; {name} has {size} entries, from 0")
    coordinate = _coordinate(group, name)
    matches = [] if coordinate is None else [i for i, entry in enumerate(coordinate) if str(entry) == str(value)]
    if not matches:
        known = "it has no coordinate" if coordinate is None else ", ".join(str(v) for v in coordinate[:10])
        raise InputError(f"{path}: `at`: {name} has no entry {value!r} ({known}); a whole number is a position from 0")
    return matches[0]


def _coordinate(group: zarr.Group | None, name: str) -> np.ndarray | None:
    node = group.get(name) if group is not None else None
    return np.asarray(node[...]) if isinstance(node, zarr.Array) and node.ndim == 1 else None


def _band_names(group: zarr.Group | None, name: str | None, count: int) -> tuple[str, ...]:
    default = tuple(f"b{i + 1}" for i in range(count))
    values = _coordinate(group, name) if name else None
    if values is None or len(values) != count:
        return default
    names = tuple(str(value) for value in values.tolist())
    counted = names in (tuple(str(i + 1) for i in range(count)), tuple(str(i) for i in range(count)))
    return default if counted or len(set(names)) != count else names


def _recorded_nodata(attributes: Mapping[str, Any], dtype: np.dtype) -> Number | None:
    for key in ("_FillValue", "missing_value"):
        value = attributes.get(key)
        if isinstance(value, str):
            value = _decode_fill_value(value)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, int | float) and not isinstance(value, bool):
            if dtype.kind == "f":
                return float(dtype.type(value))
            return int(value) if float(value).is_integer() and _within(dtype, int(value)) else None
    return None


def _decode_fill_value(text: str) -> float | None:
    """Decode xarray's fill value of a floating-point array in Zarr v3: base64 of a little-endian double."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(struct.unpack("<d", base64.standard_b64decode(text))[0])
    except (ValueError, binascii.Error, struct.error):
        return None


def _within(dtype: np.dtype, value: int) -> bool:
    info = np.iinfo(dtype)
    return int(info.min) <= value <= int(info.max)


def _recorded_scale(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    factor, offset = attributes.get("scale_factor", 1), attributes.get("add_offset", 0)
    if isinstance(factor, int | float) and isinstance(offset, int | float) and (factor, offset) != (1, 0):
        return float(factor), float(offset)
    return None


def _georeference(
    array: zarr.Array[Any], group: zarr.Group | None, names: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[tuple[float, ...] | None, str | None]:
    """Return transform and CRS from the conventions in use: proj/spatial attributes, CF grid mapping, coordinates."""
    attributes = {**(dict(group.attrs) if group is not None else {}), **dict(array.attrs)}
    crs = attributes.get("proj:wkt2") or attributes.get("proj:code")
    transform = _numbers(attributes.get("spatial:transform"), 6)
    mapping = group.get(str(attributes.get("grid_mapping", "spatial_ref"))) if group is not None else None
    if mapping is not None:
        crs = crs or mapping.attrs.get("crs_wkt") or mapping.attrs.get("spatial_ref")
        text = mapping.attrs.get("GeoTransform")
        if transform is None and isinstance(text, str):
            c, a, b, f, d, e = _numbers(text.split(), 6) or (0.0,) * 6
            transform = (a, b, c, d, e, f) if a or b else None
    if transform is None:
        transform = _transform_of_coordinates(_coordinate(group, names["y"]), _coordinate(group, names["x"]), sizes)
    return transform, str(crs) if crs else None


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count else None


def _transform_of_coordinates(
    y: np.ndarray | None, x: np.ndarray | None, sizes: Mapping[str, int]
) -> tuple[float, ...] | None:
    if y is None or x is None or y.dtype.kind not in "iuf" or x.dtype.kind not in "iuf":
        return None
    if len(y) != sizes["y"] or len(x) != sizes["x"] or len(y) < 2 or len(x) < 2:
        return None
    dy, dx = float(y[-1] - y[0]) / (len(y) - 1), float(x[-1] - x[0]) / (len(x) - 1)
    regular = np.allclose(np.diff(y), dy, rtol=1e-4) and np.allclose(np.diff(x), dx, rtol=1e-4)
    if not regular or not dy or not dx:
        return None
    transform = (dx, 0.0, float(x[0]) - dx / 2, 0.0, dy, float(y[0]) - dy / 2)
    return None if transform in ((1.0, 0.0, -0.5, 0.0, 1.0, -0.5), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)) else transform


def _newest_folder_ns(folder: Path) -> int:
    """Return the newest change of a folder below: a chunk replaced by a rename changes the folder it lies in."""
    newest = folder.stat().st_mtime_ns
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            newest = max(newest, _newest_folder_ns(Path(entry.path)))
        elif entry.name in ("zarr.json", ".zarray", ".zattrs"):
            newest = max(newest, entry.stat().st_mtime_ns)
    return newest


def _codec_name(codec: Any) -> str:
    settings = codec.to_dict() if hasattr(codec, "to_dict") else {"name": str(codec)}
    inner = settings.get("configuration", {})
    return "/".join(str(part) for part in (settings.get("name"), inner.get("cname")) if part)
