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

from pipeline.model.errors import InputChanged, InputError
from pipeline.model.raster import array_slices
from pipeline.model.read_limits import TRUSTED, ReadLimits
from pipeline.model.region import Region
from pipeline.storage.folder.address import REQUESTS_AT_ONCE
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.forked import check_not_forked
from pipeline.storage.folder.listing import Expected, Listing, Unlisted, Whole
from pipeline.storage.folder.metadata import METADATA
from pipeline.storage.folder.open import folder_at
from pipeline.storage.input import Choice
from pipeline.storage.reader import Evidence, Reader
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.zarr.coordinate import quiet
from pipeline.storage.zarr.description import Description
from pipeline.storage.zarr.group import with_levels
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
        self.limits, self._missing_is = limits or ReadLimits(), missing
        self.path = str(folder_at(path))
        self.folder, choice = with_levels(folder_at(path), choice or Choice())
        described = Description(self.folder, choice, self.limits)
        stored, chunk = described.stored, described.chunk
        self.array_path, self._metadata = stored.path, stored.metadata
        self._num_files = tuple(-(-n // s) for n, s in zip(stored.shape, stored.shards or stored.chunks, strict=True))
        self._fixed: Mapping[int, int] = described.fixed
        self.warnings, self._facts = described.warnings, described.facts
        self.spec, self.scales = described.spec, described.scales
        self.chunk, self._bands_of_chunk = (chunk["y"], chunk["x"]), chunk.get("band", 1)
        self.chunk_bands = self._bands_of_chunk if self.spec.dims[0] == "band" else None
        self._take(described, choice)

    def _take(self, described: Description, choice: Choice) -> None:
        """Take in what else a kind of reader needs to know."""

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

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        if bands is not None and self._lie_among_others(bands):
            among = self._band_chunks(bands)
            for piece in self._pieces(region, len(among)):
                self._pick(piece, bands, among, out[array_slices(self.spec.dims, piece, (region.top, region.left))])
            return
        dims, order = self.spec.dims, None
        if dims[0] == "band" and not out.flags.c_contiguous and len(out) > self._bands_of_chunk:
            listed = range(self.spec.num_bands) if bands is None else bands
            for band in range(0, len(out), self._bands_of_chunk):  # through copies of some bands, not of all
                part = slice(band, band + self._bands_of_chunk)
                self.read(region, out[part], listed[part])
            return
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

    def _read(
        self, region: Region, selection: list[Any], out: np.ndarray, fixed: Mapping[int, int | slice] | None = None
    ) -> None:
        """Read what is selected of the dims; `fixed` is where the others are cut."""
        for axis, index in sorted((self._fixed if fixed is None else fixed).items()):
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
        context = repr((spec.bands, spec.band_coordinates, spec.transform, spec.crs or spec.unit, self._fixed))
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
