"""Zarr in, v2 and v3: one array of a store, or of a group in it, as a raster."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer

from pipeline.model.affine import Affine
from pipeline.model.errors import InputChanged, InputError
from pipeline.model.raster import DIMS, RasterSpec, Recorded, array_slices, default_names, name_bands
from pipeline.model.read_limits import TRUSTED, ReadLimits, check_bands
from pipeline.model.region import Region
from pipeline.storage.folder.address import REQUESTS_AT_ONCE
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.forked import check_not_forked
from pipeline.storage.folder.listing import Expected, Listing, Unlisted, Whole
from pipeline.storage.folder.metadata import METADATA, attributes_of
from pipeline.storage.folder.open import folder_at
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.crs import in_units
from pipeline.storage.georeference.geotiff import by_band, parse_scales
from pipeline.storage.georeference.recorded import band_name, from_attributes
from pipeline.storage.input import Choice
from pipeline.storage.reader import Evidence, Reader, Scales
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.zarr.coordinate import Coordinates, quiet, recorded_names
from pipeline.storage.zarr.group import check_array, dimension_names, find_array, fix_dimensions, multiscales, role_of
from pipeline.storage.zarr.guard import ChunkGuard

Missing = Literal["fill", "lost", "away"]
"""What a chunk is that is not there: as Zarr has it the fill value, if it never was; lost, where a run has written
all of them; or on a server that lists nothing maybe away."""
PIECE_BYTES = 4 * 2**20
"""What small chunks may take together where some of their bands are read."""
SAMPLED_FILES = 5
"""Of an array, from the first to the last: by them it is told from another one with the same metadata."""
_BUFFERS = ThreadBuffers()


def configure(threads: int) -> None:
    """Use the zarrs codec pipeline with `threads` threads in this process, all tasks together."""
    check_not_forked()
    # The pool of zarrs is made once a process, from this variable, when the first array is read or written.
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "async.concurrency": REQUESTS_AT_ONCE})


class ZarrReader(Reader):
    """One array of a Zarr store as a raster; dims beyond y, x and band are fixed by `at`."""

    def __init__(
        self,
        path: str | Folder,
        choice: Choice | None = None,
        limits: ReadLimits | None = None,
        missing: Missing = "fill",
    ) -> None:
        """`missing` says what a chunk is that is not there: empty where it never was, lost, or away."""
        self.folder, self.limits, self._missing_is = folder_at(path), limits or ReadLimits(), missing
        choice = choice or Choice()
        self.path = path = str(self.folder)
        group, stored = find_array(self.folder, choice.array, choice.level)
        self.array_path = stored.path
        self.warnings: list[str] = []
        check_array(stored, path)
        self._metadata = stored.metadata
        ChunkGuard(stored, path, self.limits)  # chunks of no pixels end here
        self._num_files = tuple(-(-n // s) for n, s in zip(stored.shape, stored.shards or stored.chunks, strict=True))
        coordinates = Coordinates(group, self.limits)
        names = choice.dims or dimension_names(stored, group, path, self.warnings)
        own = recorded_names(stored)
        self._labels = dict(zip(names, map(str, own), strict=True)) if len(own) == len(names) and all(own) else {}
        self._fixed = fix_dimensions(stored, coordinates, names, dict(choice.at), path)
        kept = [i for i in range(stored.ndim) if i not in self._fixed]
        full = find_array(self.folder, choice.array)[1].shape if choice.level else ()
        self._full = dict(zip(map(role_of, names), full, strict=bool(choice.level)))
        self.spec = self._build_spec(coordinates, stored, names, kept)
        sizes = dict(zip(self.spec.dims, (stored.chunks[i] for i in kept), strict=True))
        self.chunk, self._bands_of_chunk = (sizes["y"], sizes["x"]), sizes.get("band", 1)
        self.scales = self._parse_scales(stored)
        self.warnings += _fill_value_note(stored, self.spec)
        levels = max(1, len(multiscales(group).get("datasets", [])))
        self._facts = {**_describe(stored), "stored_dims": list(names), "levels": levels}

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        """The array, opened when the first pixels are read: not before `configure` has chosen the codecs."""
        try:
            with quiet():
                array = self.folder.open_array(self.array_path)
            if _layout(array.metadata) != _layout(self._metadata):
                raise InputChanged(f"{self.path}: its metadata are not those of when the run began")
            return array
        except (InputError, RemoteError):
            raise
        except Exception as error:  # zarr looks more closely here than where it opens a group's member
            raise InputError(f"{self.path}: the array cannot be opened: {type(error).__name__}: {error}") from error

    @cached_property
    def _guard(self) -> ChunkGuard:
        return ChunkGuard(self._array, self.path, self.limits, self._expected)

    @property
    def _expected(self) -> Expected:
        if self._missing_is == "lost":
            return Whole()
        return Unlisted(fills=self._missing_is == "fill") if self._listing is None else self._listing

    def _build_spec(
        self, coordinates: Coordinates, stored: zarr.Array[Any], all_names: Sequence[str], kept: list[int]
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
        num_bands = sizes.get("band", 1)
        check_bands(self.path, num_bands)
        own = np.dtype(np.uint8) if stored.dtype.kind == "b" else stored.dtype.newbyteorder("=")
        dtype = cf.sign_dtype(attributes_of(stored), own, self.warnings)
        # coordinates bear the names that the array gives its dims, whatever `dims:` calls them
        name_of = {dim: self._labels.get(name, name) for dim, name in zip(dims, names, strict=True)}
        transform, crs = self._georeference(coordinates, stored, name_of, sizes)
        return RasterSpec(
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            dims=dims,
            bands=self._band_names(coordinates, stored, all_names),
            nodata=cf.parse_nodata(attributes_of(stored), dtype, self.warnings, own),
            band_coordinates=coordinates.along_bands(stored, name_of.get("band"), num_bands),
            transform=transform,
            crs=crs,
            recorded=self._recorded(stored, all_names),
        )

    def _recorded(self, stored: zarr.Array[Any], all_names: Sequence[str]) -> Recorded | None:
        """Return what the array says of the file that it was made of: of the bands that are not cut away."""
        axis = _band_axis(all_names)
        recorded = from_attributes(attributes_of(stored), 1 if axis is None else stored.shape[axis])
        return recorded.select([self._fixed[axis]]) if recorded and axis in self._fixed else recorded

    def _parse_scales(self, stored: zarr.Array[Any]) -> Scales:
        """Return CF's scales; failing these, those of the GeoTIFF that the array was made of."""
        scales = cf.parse_scales(attributes_of(stored), self.spec.num_bands, self.warnings)
        if scales is None and self.spec.recorded is not None:
            scales = parse_scales(by_band(self.spec.recorded.items), self.spec.num_bands, self.warnings)
        return scales or ()

    def _band_names(
        self, coordinates: Coordinates, stored: zarr.Array[Any], all_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Return the names of the bands: the band coordinate's, OME-Zarr's, or those of rioxarray's `long_name`."""
        axis = _band_axis(all_names)
        if axis is None or axis in self._fixed:
            return (band_name(attributes_of(stored)) or "b1",)
        count = stored.shape[axis]
        given = (
            coordinates.band_names(self._labels.get(all_names[axis], all_names[axis]), count),
            multiscales(coordinates.group).get("channels"),
            attributes_of(stored).get("long_name"),
        )
        found = next((n for n in given if isinstance(n, list | tuple) and len(n) == count and any(n)), [""] * count)
        return name_bands([str(name) for name in found], default_names(count), self.warnings)

    def _georeference(
        self, coordinates: Coordinates, stored: zarr.Array[Any], name_of: Mapping[str, str], sizes: Mapping[str, int]
    ) -> tuple[Affine | None, str | None]:
        """Return transform and CRS as attributes say, or failing that the coordinates."""
        group = coordinates.group
        attributes = {**(attributes_of(group) if group is not None else {}), **attributes_of(stored)}
        mapping = coordinates.member(str(attributes.get("grid_mapping", "spatial_ref")))
        mapped = {} if mapping is None else attributes_of(mapping)
        transform, crs = cf.parse_georeference(attributes, mapped, self.warnings)
        if transform is not None and self._full and not cf.parse_georeference(attributes_of(stored), {}, [])[0]:
            down, across = (self._full[axis] / sizes[axis] for axis in ("y", "x"))
            transform = transform.scale(down, across)  # the group's is that of full resolution
        if transform is None:
            y, x = (coordinates.read(name_of[axis], sizes[axis]) for axis in ("y", "x"))
            transform = cf.transform_of_coordinates(y, x, self.warnings)
            if transform is not None and crs is not None:
                crs = in_units(crs, coordinates.unit(name_of["x"], sizes["x"]), self.warnings)
        return transform, crs

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        if bands is not None and self._lie_among_others(bands):
            among = self._band_chunks(bands)
            for piece in self._pieces(region, len(among)):
                self._pick(piece, bands, among, out[array_slices(self.spec.dims, piece, (region.top, region.left))])
            return
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

    def _lie_among_others(self, bands: Sequence[int]) -> bool:
        """Return whether the pixels of a chunk hold other bands between those asked for.

        The codecs would copy a few bytes of each pixel at a time: three times as long as decoding all bands.
        """
        return self.spec.dims[-1] == "band" and len(bands) < min(self._bands_of_chunk, self.spec.num_bands)

    def _band_chunks(self, bands: Sequence[int]) -> range:
        """Return all bands of the chunks that hold these, and of those between."""
        step = self._bands_of_chunk
        return range(min(bands) // step * step, min((max(bands) // step + 1) * step, self.spec.num_bands))

    def _pieces(self, region: Region, num_bands: int) -> Iterator[Region]:
        """Yield parts of a region, whole chunks where it has them: one, or as many small ones as a piece may hold."""
        height, width = self.chunk
        pixel = num_bands * self.spec.dtype.itemsize
        across = width * max(1, PIECE_BYTES // (height * width * pixel))
        down = height * max(1, PIECE_BYTES // (height * min(across, region.width) * pixel))
        for top in range(region.top - region.top % down, region.bottom, down):
            for left in range(region.left - region.left % across, region.right, across):
                yield Region(top, top + down, left, left + across).clip(region)

    def _pick(self, region: Region, bands: Sequence[int], among: range, out: np.ndarray) -> None:
        shape = (region.height, region.width, len(among))
        room = _BUFFERS.take("bands", math.prod(shape) * self.spec.dtype.itemsize)
        pixels = room.view(self.spec.dtype).reshape(shape)
        rows, columns, _ = array_slices(self.spec.dims, region)
        self._read(region, [rows, columns, slice(among.start, among.stop)], pixels)
        places = [band - among.start for band in bands]
        if out.dtype == pixels.dtype:
            np.take(pixels, places, axis=2, out=out, mode="clip")  # `clip` writes in place
        else:
            np.copyto(out, np.take(pixels, places, axis=2))

    def _read(self, region: Region, selection: list[Any], out: np.ndarray) -> None:
        for axis, index in sorted(self._fixed.items()):
            selection.insert(axis, index)
        check_not_forked()  # the array may have been opened before
        try:
            spans = list(map(_span, selection, self._array.shape))
            self._guard.check(spans)
            native: Any = out.view(self._array.dtype.newbyteorder("="))  # of booleans, and of another sign
            self._array.get_basic_selection(tuple(selection), out=NDBuffer.from_ndarray_like(native))
            self._guard.check_again(spans)  # a file that was away or another one for a moment would not be told
        except (InputError, RemoteError) as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            kind = type(error) if isinstance(error, InputError) else InputError
            raise kind(f"{self.path}: cannot read {region}: {reason}") from error
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
        return {k: v for k, v in self.__dict__.items() if k not in ("_array", "_guard")}

    def identity(self) -> dict[str, Any]:
        metadata = [data for name in METADATA if (data := self._metadata_file(name)) is not None]
        metadata = metadata or [repr(self._metadata.to_dict()).encode()]  # they stand in the group's alone
        spec = self.spec  # names and georeference lie beside the array
        context = repr((spec.bands, spec.band_coordinates, spec.transform, spec.crs, self._fixed))
        return {
            "path": self._array_folder.absolute,
            **self._identity_of_files(),
            "metadata": hashlib.sha256(b"\0".join([*metadata, context.encode()])).hexdigest(),
        }

    def evidence(self) -> list[Evidence]:
        folder, last = self._array_folder, math.prod(self._num_files) - 1
        metadata = [name for name in METADATA if self._metadata_file(name) is not None]
        numbers = sorted({i * last // (SAMPLED_FILES - 1) for i in range(SAMPLED_FILES)})
        data = [self._metadata.encode_chunk_key(_cell(number, self._num_files)) for number in numbers]
        return [Evidence(folder.absolute, folder, tuple(metadata), tuple(data))]

    @property
    def _array_folder(self) -> Folder:
        return self.folder.child(self.array_path) if self.array_path else self.folder

    def _metadata_file(self, name: str) -> bytes | None:
        try:
            return self._array_folder.read(name)
        except FileNotFoundError:
            return None

    def describe(self) -> dict[str, Any]:
        return self._facts | {"warnings": [*self.warnings, *self._missing_note()]}

    @cached_property
    def _listing(self) -> Listing | None:
        """The array's files as they were when this reader was first asked for them; None where none are listed."""
        try:
            return self._array_folder.list_files()
        except OSError as error:
            raise InputError(f"{self.path}: its files cannot be listed: {error}") from error

    def _identity_of_files(self) -> dict[str, Any]:
        listing = self._listing
        if listing is None:
            return {}
        heads = b"\0".join(self._array_folder.head(name) for name in listing.samples)
        digest = hashlib.sha256(listing.digest.encode() + heads).hexdigest()
        return {"files": digest, "bytes": listing.num_bytes}

    @property
    def missing(self) -> str:
        """What lacks of the array's files, in words; empty where none does. Zarr reads the fill value there."""
        due, listing = math.prod(self._num_files), self._listing
        if listing is None or listing.num_files >= due:
            return ""
        keys = map(self._metadata.encode_chunk_key, _cells(self._num_files))
        first = next((key for key in keys if listing.find(key) is None), "")
        return f"{due - listing.num_files} of {due} chunk files, the first of them {Path(self.array_path, first)}"

    @property
    def has_nothing(self) -> bool:
        """Whether none of the array's chunks is there."""
        return self._listing is not None and self._listing.num_files == 0

    def _missing_note(self) -> list[str]:
        if not (missing := self.missing):
            return []
        fill = np.asarray(self._metadata.fill_value).item()
        return [f"{self.path} lacks {missing}; as Zarr has it, they are read as {fill!r}"]


def _band_axis(names: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(names) if role_of(name) == "band"), None)


def _layout(metadata: Any) -> str:
    """Return all that the pixels of an array depend on, of its metadata."""
    return repr({key: value for key, value in metadata.to_dict().items() if key != "attributes"})


def open_written(store: str | Folder, raster: str) -> ZarrReader:
    """Open a raster that a run has written: without limits, and a chunk that is not there is lost."""
    return ZarrReader(store, Choice(raster), TRUSTED, "lost")


def _cells(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of a grid in order, one after the other: there may be more than numpy can count."""
    return (_cell(number, counts) for number in range(math.prod(counts)))


def _cell(number: int, counts: Sequence[int]) -> tuple[int, ...]:
    index = []
    for count in reversed(counts):
        number, position = divmod(number, count)
        index.append(position)
    return tuple(reversed(index))


def _span(part: slice | int, size: int) -> tuple[int, int]:
    return part.indices(size)[:2] if isinstance(part, slice) else (part, part + 1)


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
    is_xarray = array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes_of(array)
    if not is_xarray or spec.nodata is not None or value is None or not value or np.isnan(value):
        return []
    return [f"the fill value {value} is not taken as nodata; if xarray wrote it as such, say `nodata: {value}`"]


def _codec_name(codec: Any) -> str:
    settings = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    inner = settings.get("configuration", settings)
    return "/".join(str(part) for part in (settings.get("name", settings.get("id")), inner.get("cname")) if part)
