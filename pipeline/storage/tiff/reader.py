"""TIFF files as rasters: strips and tiles, classic and BigTIFF, read by regions with `os.pread`.

tifffile parses the directories and makes the decoder; what is read, and when, is decided here. A segment is a
strip or a tile. Every band lies in one plane: planes are what PlanarConfiguration 2 separates, or whole pages.
"""

from __future__ import annotations

import functools
import os
import stat
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from tifffile import TiffFile

from pipeline.model.errors import ChunkAway, InputChanged, InputError
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits, check_bands
from pipeline.model.region import Region
from pipeline.storage.folder.listing import check_status, file_status
from pipeline.storage.folder.local import LocalFolder, sample_of
from pipeline.storage.georeference.geotiff import nodata_text
from pipeline.storage.input import Choice
from pipeline.storage.library import logged, reason
from pipeline.storage.reader import Evidence, Reader
from pipeline.storage.tiff.decode import Decoder, make_decoder
from pipeline.storage.tiff.descriptor import DESCRIPTORS, Descriptor
from pipeline.storage.tiff.directory import check_directories
from pipeline.storage.tiff.file import find_sidecars, input_errors
from pipeline.storage.tiff.layout import RAW_READ_BYTES, Layout, parse_layout, settle_predictor
from pipeline.storage.tiff.page import describe_pages, hash_metadata, parse_spec, select_pages, tags_of

NO_DIALECTS: dict[str, Any] = dict.fromkeys(
    (f"is_{name}" for name in ("eer", "lsm", "ndpi", "philips", "scanimage", "stk", "vista")), False
)
"""Dialects of instruments that tifffile reads otherwise: what they add to the tags bears on no raster."""
RAW_GAP_BYTES = 2**14
"""Rows that lie further apart than this are read one by one."""


class TiffReader(Reader):
    """A TIFF file, opened for reading. Make one with `TiffReader.open`."""

    _limits: ReadLimits
    _choice: Choice

    def __init__(
        self,
        spec: RasterSpec,
        layout: Layout,
        decode: Decoder,
        identity: dict[str, Any],
        facts: dict[str, Any],
        status: str,
    ) -> None:
        self.spec = spec
        self.chunk = layout.chunk
        self._layout, self._decode, self._identity, self._facts = layout, decode, identity, facts
        self._path: str = identity["path"]
        self._status = status
        """The file's, when it was opened first."""
        self.compile_decoder = getattr(decode, "compile", None)
        self._fill = 0 if spec.nodata is None else spec.nodata
        weakref.finalize(self, DESCRIPTORS.drop, id(self))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], limits: ReadLimits | None = None, choice: Choice | None = None
    ) -> TiffReader:
        """Open a file: parse its directories and check that all segments lie in it. Reads no pixel.

        `choice` says which of several images, levels and slices; default: the first, full resolution.

        Raises InputError where the file is missing, damaged, truncated, exceeds a limit, or is of a kind that is not
        supported.
        """
        path = os.path.abspath(os.fspath(path))
        limits = limits or ReadLimits()
        messages: list[str] = []
        with input_errors(path), logged(messages, "tifffile"):
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: is not a file; give the path of one TIFF file")
            if status.st_size == 0:
                raise InputError(f"{path}: is empty (0 bytes); copy it again")
            check_directories(path, limits)
            with TiffFile(path, **NO_DIALECTS) as tif:
                reader = cls._parse(tif, path, status, messages, limits, choice or Choice())
        reader._limits, reader._choice = limits, choice or Choice()
        return reader

    @classmethod
    def _parse(
        cls, tif: TiffFile, path: str, status: os.stat_result, messages: list[str], limits: ReadLimits, choice: Choice
    ) -> TiffReader:
        selection = select_pages(tif, choice, messages)
        pages, first = selection.pages, selection.pages[0]
        check_bands(path, selection.num_bands)
        for page in pages:
            settle_predictor(page, messages if page is first else [])
        layout = parse_layout(pages, tif.byteorder, status.st_size, limits, messages)
        spec, scales = parse_spec(selection, layout, messages)
        identity = {
            "path": path,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "metadata": hash_metadata(tif, pages, spec, layout),
            "sample": sample_of(tif.filehandle, status.st_size),
        }
        messages += find_sidecars(path, spec.transform is not None and not spec.unit)
        recorded_nodata = nodata_text(tags_of(selection.origin[0]))
        facts = selection.facts | describe_pages(tif, pages, layout)
        facts |= {"recorded_nodata": recorded_nodata, "warnings": messages}
        reader = cls(spec, layout, make_decoder(first, layout), identity, facts, file_status(status))
        reader.scales = scales
        return reader

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        layout, spec = self._layout, self.spec
        wanted = tuple(range(spec.num_bands)) if bands is None else tuple(bands)
        if not spec.region.contains(region):
            raise ValueError(f"{region} is not inside the raster ({spec.region})")
        if not region.num_pixels or not wanted:
            return
        if len(layout.offsets) == 1:
            every = wanted == tuple(range(spec.num_bands))
            target = out if "band" in spec.dims else out[..., np.newaxis]
            self._read_plane(0, region, target, slice(None) if every else list(wanted))
            return
        for position, band in enumerate(wanted):
            known = wanted.index(band)
            if known < position:
                out[position] = out[known]
            else:
                self._read_plane(band, region, out[position][..., np.newaxis], slice(None))

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def evidence(self) -> list[Evidence]:
        folder, name = os.path.split(self._path)
        return [Evidence(self._path, LocalFolder(folder), (), (name,))]

    def describe(self) -> dict[str, Any]:
        return self._facts | {"warnings": list(self._facts["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._path, self._status, self._identity["metadata"], self._limits, self._choice)

    def _read_plane(self, plane: int, region: Region, target: np.ndarray, samples: slice | list[int]) -> None:
        """Read a region of one plane into `target` (rows, columns, samples)."""
        for index, cell in self._layout.meeting(region):
            part = cell.clip(region)
            view = target[part.slices((region.top, region.left))]
            inside = part.shift(-cell.top, -cell.left)
            if not self._layout.counts[plane, index]:
                view[...] = self._fill
            elif self._layout.raw:
                self._read_raw(plane, index, inside, view, samples)
            else:
                segment = self._decode_segment(plane, index, inside)
                view[...] = segment[inside.slices()][..., samples]

    def _read_raw(self, plane: int, index: int, part: Region, out: np.ndarray, samples: slice | list[int]) -> None:
        """Read a part of an uncompressed segment, some rows at a time; row by row if much lies between them."""
        layout = self._layout
        pitch, pixel, width = layout.row_bytes, layout.pixel_bytes, part.width * layout.pixel_bytes
        step = 1 if pitch - width > RAW_GAP_BYTES else max(1, RAW_READ_BYTES // pitch)
        for top in range(part.top, part.bottom, step):
            rows = min(step, part.bottom - top)
            start, count = top * pitch + part.left * pixel, (rows - 1) * pitch + width
            data = self._pread(plane, index, start, count)
            shape, strides = (rows, part.width, layout.samples), (pitch, pixel, layout.dtype.itemsize)
            pixels = np.ndarray(shape, layout.dtype, data, strides=strides)
            out[top - part.top : top - part.top + rows] = pixels[..., samples]

    def _decode_segment(self, plane: int, index: int, needed: Region) -> np.ndarray:
        layout = self._layout
        data = self._pread(plane, index, 0, int(layout.counts[plane, index]))
        where = f"{self._path}: {layout.name(plane, index)} is damaged"
        try:
            segment = self._decode(data, index, layout.tables[plane])
        except Exception as error:
            raise InputError(f"{where}: {reason(error)}; copy the file again") from error
        shape, dtype = segment.shape, layout.dtype.newbyteorder("=")
        if shape[0] < needed.bottom or shape[1] < needed.right or shape[2] != layout.samples:
            raise InputError(f"{where}: it decodes to {shape}, {layout.samples} samples a pixel are due; copy it again")
        if segment.dtype != dtype and not (dtype.kind == "b" and segment.dtype == np.uint8):
            raise InputError(f"{where}: it decodes to {segment.dtype}, the file says {dtype}; write the file again")
        return segment

    def _pread(self, plane: int, index: int, start: int, count: int) -> bytes:
        """Return `count` bytes of a segment from its byte `start` on."""
        layout = self._layout
        where = f"{self._path}: {layout.name(plane, index)}"
        held = int(layout.counts[plane, index])
        if start + count > held:
            raise InputError(f"{where} is damaged: it has {held} bytes, {start + count} are due; copy the file again")
        offset, pieces, file = int(layout.offsets[plane, index]) + start, [], self._file()
        while count > 0:
            try:
                piece = os.pread(file.number, count, offset)
            except OSError as error:
                raise InputError(f"{where} cannot be read: {error.strerror}") from error
            if not piece:
                check_status(self._path, file.number, self._status)
                raise InputError(f"{where} ends beyond the end of the file: it is truncated; copy it again")
            pieces.append(piece)
            count, offset = count - len(piece), offset + len(piece)
        check_status(self._path, file.number, self._status)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _file(self) -> Descriptor:
        """Return the file, open."""
        return DESCRIPTORS.get(id(self), self._open_file)

    def _open_file(self) -> Descriptor:
        with input_errors(self._path):
            try:
                number = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except (FileNotFoundError, NotADirectoryError):
                raise ChunkAway(f"{self._path}: was there when the run began, and is not now") from None
        try:
            check_status(self._path, number, self._status)
        except BaseException:
            os.close(number)
            raise
        return Descriptor(number)


@functools.lru_cache(maxsize=256)
def _reopen(path: str, status: str, metadata: str, limits: ReadLimits, choice: Choice) -> TiffReader:
    """Return the reader that was pickled; tasks of one process share it."""
    reader = TiffReader.open(path, limits, choice)
    with input_errors(path):
        check_status(path, path, status)
    if reader.identity()["metadata"] != metadata:
        raise InputChanged(f"{path}: its metadata changed since it was opened; start again")
    return reader
