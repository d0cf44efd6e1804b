"""Zarr in, v2 and v3: one array of a store, or of a group in it, as a raster."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer

from pipeline.errors import InputError
from pipeline.raster import DIMS, Dims, RasterSpec, array_slices
from pipeline.region import Region
from pipeline.storage import cf
from pipeline.storage.reader import Reader
from pipeline.storage.zarr_group import (
    METADATA,
    band_coordinates,
    band_names,
    check_array,
    dimension_names,
    find_array,
    fix_dimensions,
    multiscales,
    quiet,
    read_coordinate,
    role_of,
)


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
        group, stored = find_array(path, array)
        self.array_path = stored.path
        self.warnings: list[str] = []
        check_array(stored, path)
        self._metadata = stored.metadata
        self._num_files = tuple(-(-n // s) for n, s in zip(stored.shape, stored.shards or stored.chunks, strict=True))
        names = dims or dimension_names(stored, group, path)
        self._fixed = fix_dimensions(stored, group, names, dict(at or {}), path)
        kept = [i for i in range(stored.ndim) if i not in self._fixed]
        self.spec = self._build_spec(group, stored, names, kept)
        sizes = dict(zip(self.spec.dims, (stored.chunks[i] for i in kept), strict=True))
        self.chunk = (sizes["y"], sizes["x"])
        self.scale = cf.parse_scale(stored.attrs, self.warnings)
        self.warnings += _fill_value_note(stored, self.spec)
        levels = max(1, len(multiscales(group).get("datasets", [])))
        self._facts = {**_describe(stored), "stored_dims": list(names), "levels": levels}

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        """The array, opened when the first pixels are read: not before `configure` has chosen the codecs."""
        with quiet():
            return zarr.open_array(self.path, path=self.array_path, mode="r")

    def _build_spec(
        self, group: zarr.Group | None, stored: zarr.Array[Any], all_names: Sequence[str], kept: list[int]
    ) -> RasterSpec:
        names = [all_names[i] for i in kept]
        dims = tuple(role_of(name) for name in names)
        if dims not in DIMS:
            raise InputError(
                f"{self.path}: dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x in this order. "
                f"Give `dims:` if the names mislead, or `at:` to fix further dims"
            )
        sizes = dict(zip(dims, (stored.shape[i] for i in kept), strict=True))
        if not all(sizes.values()):
            raise InputError(f"{self.path}: the raster is empty: shape {stored.shape}")
        dtype = np.dtype(np.uint8) if stored.dtype.kind == "b" else stored.dtype.newbyteorder("=")
        name_of = dict(zip(dims, names, strict=True))
        transform, crs = self._georeference(group, stored, name_of, sizes)
        return RasterSpec(
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            dims=dims,
            bands=band_names(group, name_of.get("band"), sizes.get("band", 1)),
            nodata=cf.parse_nodata(stored.attrs, dtype, self.warnings),
            band_coordinates=band_coordinates(group, stored, name_of.get("band"), sizes.get("band", 1)),
            transform=transform,
            crs=crs,
        )

    def _georeference(
        self, group: zarr.Group | None, stored: zarr.Array[Any], name_of: Mapping[str, str], sizes: Mapping[str, int]
    ) -> tuple[cf.Affine | None, str | None]:
        """Return transform and CRS as attributes say, or failing that the coordinates."""
        attributes = {**(dict(group.attrs) if group is not None else {}), **dict(stored.attrs)}
        mapping = group.get(str(attributes.get("grid_mapping", "spatial_ref"))) if group is not None else None
        transform, crs = cf.parse_georeference(attributes, dict(mapping.attrs) if mapping else {}, self.warnings)
        if transform is None:
            y, x = (read_coordinate(group, name_of[axis], sizes[axis]) for axis in ("y", "x"))
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
        try:
            native: Any = out.view(bool) if self._array.dtype.kind == "b" else out
            self._array.get_basic_selection(tuple(selection), out=NDBuffer.from_ndarray_like(native))
        except Exception as error:
            where = self._find_damage(selection) or f" (chunks of {self.chunk[0]} x {self.chunk[1]})"
            raise InputError(f"{self.path}: cannot read {region}{where}: {type(error).__name__}: {error}") from error

    def _find_damage(self, selection: Sequence[Any]) -> str:
        """Return in words the first chunk of a selection that cannot be read, with the file that holds it."""
        array, corners = self._array, []
        for part, size, step in zip(selection, array.shape, array.chunks, strict=True):
            first, stop, _ = (part if isinstance(part, slice) else slice(part, part + 1)).indices(size)
            corners.append(range(first - first % step, stop, step))
        files = array.shards or array.chunks
        for corner in product(*corners):
            try:
                array[tuple(slice(i, i + step) for i, step in zip(corner, array.chunks, strict=True))]
            except Exception:
                key = self._metadata.encode_chunk_key(tuple(i // n for i, n in zip(corner, files, strict=True)))
                return f", the chunk in {Path(array.path, key)}"
        return ""  # it can be read now

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_array", "_survey")}

    def identity(self) -> dict[str, Any]:
        folder = Path(self.path, self.array_path)
        metadata = [(folder / name).read_bytes() for name in METADATA if (folder / name).exists()]
        spec = self.spec  # names and georeference lie beside the array
        context = repr((spec.bands, spec.band_coordinates, spec.transform, spec.crs, self._fixed))
        return {
            "path": str(folder.absolute()),
            "modified_ns": self._survey.newest_ns,
            "bytes": self._survey.num_bytes,
            "metadata": hashlib.sha256(b"\0".join([*metadata, context.encode()])).hexdigest(),
        }

    def describe(self) -> dict[str, Any]:
        return self._facts | {"warnings": [*self.warnings, *self._missing_note()]}

    @cached_property
    def _survey(self) -> _Survey:
        """The array's files as they were when this reader was first asked for its identity."""
        return _survey(Path(self.path, self.array_path))

    @property
    def missing(self) -> str:
        """What lacks of the array's files, in words; empty where none does. Zarr reads the fill value there."""
        due, found = math.prod(self._num_files), self._survey.num_files
        if found >= due:
            return ""
        folder = Path(self.path, self.array_path)
        keys = map(self._metadata.encode_chunk_key, np.ndindex(*self._num_files))
        first = next((key for key in keys if not (folder / key).exists()), "")
        return f"{due - found} of {due} chunk files, the first of them {Path(self.array_path, first)}"

    def _missing_note(self) -> list[str]:
        if not (missing := self.missing):
            return []
        fill = np.asarray(self._metadata.fill_value).item()
        return [f"{self.path} lacks {missing}; as Zarr has it, they are read as {fill!r}"]


def _describe(array: zarr.Array[Any]) -> dict[str, Any]:
    return {
        "format": f"Zarr v{array.metadata.zarr_format}",
        "array": array.path,
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "codec": [_codec_name(codec) for codec in array.compressors] or ["none"],
        "stored_shape": list(array.shape),
    }


def _fill_value_note(array: zarr.Array[Any], spec: RasterSpec) -> list[str]:
    """Say so where xarray, which writes nodata as the fill value in Zarr v2, would see nodata and we do not."""
    value = array.fill_value
    is_xarray = array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in array.attrs
    if not is_xarray or spec.nodata is not None or value is None or not value or np.isnan(value):
        return []
    return [f"the fill value {value} is not taken as nodata; if xarray wrote it as such, say `nodata: {value}`"]


@dataclass(frozen=True)
class _Survey:
    """The files of an array, without opening them."""

    newest_ns: int
    num_bytes: int
    num_files: int
    """Those that hold pixels."""


def _survey(folder: Path) -> _Survey:
    """Return the newest change in a folder and below, and bytes and number of the files there."""
    newest, num_bytes, num_files = folder.stat().st_mtime_ns, 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below = _survey(Path(entry.path))
            else:
                status = entry.stat()
                below = _Survey(status.st_mtime_ns, status.st_size, entry.name not in METADATA)
            newest, num_bytes = max(newest, below.newest_ns), num_bytes + below.num_bytes
            num_files += below.num_files
    return _Survey(newest, num_bytes, num_files)


def _codec_name(codec: Any) -> str:
    settings = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    inner = settings.get("configuration", settings)
    return "/".join(str(part) for part in (settings.get("name", settings.get("id")), inner.get("cname")) if part)
