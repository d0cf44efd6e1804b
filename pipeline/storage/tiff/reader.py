"""TIFF files as rasters: strips and tiles, classic and BigTIFF, read by regions from a disk or an object store.

tifffile parses the directories and makes the decoder; what is read, and when, is decided here. A segment is a
strip or a tile. Every band lies in one plane: planes are what PlanarConfiguration 2 separates, or whole pages.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tifffile import TiffFile

from pipeline.model.errors import InputChanged, InputError
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits, check_bands
from pipeline.model.region import Region
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.georeference.geotiff import nodata_text
from pipeline.storage.input import Choice
from pipeline.storage.library import logged, reason
from pipeline.storage.reader import Evidence, Reader, Traffic
from pipeline.storage.tiff.decode import Decoder, make_decoder
from pipeline.storage.tiff.directory import check_directories
from pipeline.storage.tiff.file import find_sidecars, input_errors
from pipeline.storage.tiff.layout import Layout, parse_layout, settle_predictor
from pipeline.storage.tiff.page import describe_pages, hash_metadata, parse_spec, select_pages, tags_of
from pipeline.storage.tiff.part import Part, left_out, stored_parts
from pipeline.storage.tiff.source import Data, LocalFile, Source

NO_DIALECTS: dict[str, Any] = dict.fromkeys(
    (f"is_{name}" for name in ("eer", "lsm", "ndpi", "philips", "scanimage", "stk", "vista")), False
)
"""Dialects of instruments that tifffile reads otherwise: what they add to the tags bears on no raster."""


class TiffReader(Reader):
    """A TIFF file, opened for reading. Make one with `TiffReader.open`."""

    _opened: _Opened

    def __init__(
        self, spec: RasterSpec, layout: Layout, decode: Decoder, source: Source, facts: dict[str, Any]
    ) -> None:
        self.spec = spec
        self.chunk = layout.chunk
        self._layout, self._decode, self._source, self._facts = layout, decode, source, facts
        self._metadata: str = facts.pop("metadata")
        """A hash of all that the pixels depend on of the directories."""
        self.compile_decoder = getattr(decode, "compile", None)
        self._fill = 0 if spec.nodata is None else spec.nodata

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        limits: ReadLimits | None = None,
        choice: Choice | None = None,
        access: Access | None = None,
    ) -> TiffReader:
        """Open a file, by its path or URL: parse its directories, check that all segments lie in it. Reads no pixel.

        `choice` says which of several images, levels and slices; default: the first, full resolution.

        Raises InputError where the file is missing, damaged, truncated, exceeds a limit, or is of a kind that is not
        supported.
        """
        path, limits = os.fspath(path), limits or ReadLimits()
        with input_errors(path if is_url(path) else os.path.abspath(path)):
            return cls.parse(_source_at(path, access, limits), limits, choice or Choice(), access)

    @classmethod
    def parse(cls, source: Source, limits: ReadLimits, choice: Choice, access: Access | None) -> TiffReader:
        """Open a file whose bytes are at hand."""
        messages = list(source.notes)
        with input_errors(source.path), logged(messages, "tifffile"), source.open() as file:
            check_directories(file, source.size, source.path, limits)
            file.seek(0)
            with TiffFile(file, name=source.path, size=source.size, **NO_DIALECTS) as tif:
                reader = cls._parse(tif, source, messages, limits, choice)
        reader._opened = source.path, access, limits, choice
        return reader

    @classmethod
    def _parse(
        cls, tif: TiffFile, source: Source, messages: list[str], limits: ReadLimits, choice: Choice
    ) -> TiffReader:
        path = source.path
        selection = select_pages(tif, choice, messages)
        pages, first = selection.pages, selection.pages[0]
        check_bands(path, selection.num_bands)
        for page in pages:
            settle_predictor(page, messages if page is first else [])
        layout = parse_layout(pages, tif.byteorder, source.size, limits, messages)
        spec, scales = parse_spec(selection, layout, messages)
        if source.is_local:
            messages += find_sidecars(path, spec.transform is not None and not spec.unit)
        facts = selection.facts | describe_pages(tif, pages, layout)
        facts |= {"recorded_nodata": nodata_text(tags_of(selection.origin[0])), "warnings": messages}
        facts["metadata"] = hash_metadata(tif, pages, spec, layout)
        reader = cls(spec, layout, make_decoder(first, layout), source, facts)
        reader.scales = scales
        return reader

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        planes, samples = self._planes_of(region, bands)
        if not region.num_pixels or not planes:
            return
        order: dict[int, int] = {}
        for position, plane in enumerate(planes):
            order.setdefault(plane, position)
        for plane, position in order.items():
            target = self._target(out, position)
            for pixels in left_out(self._layout, region, plane):
                target[pixels.slices((region.top, region.left))] = self._fill
        for part, data in self._source.read(self._parts(region, order)):
            view = self._target(out, order[part.plane])[part.pixels.slices((region.top, region.left))]
            if self._layout.raw:
                view[...] = self._raw_pixels(part, data)[..., samples]
            else:
                view[...] = self._decode_segment(part, data)[part.inside.slices()][..., samples]
        for position, plane in enumerate(planes):
            if position != order[plane]:  # a band that is asked for again
                out[position] = out[order[plane]]

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic:
        planes, _ = self._planes_of(region, bands)
        return self._source.traffic(self._parts(region, dict.fromkeys(planes)) if region.num_pixels else ())

    @property
    def is_untouched(self) -> bool:
        return self._source.is_untouched

    def identity(self) -> dict[str, Any]:
        return self._source.identity() | {"metadata": self._metadata}

    def evidence(self) -> list[Evidence]:
        return [self._source.evidence()]

    def describe(self) -> dict[str, Any]:
        return self._facts | {"warnings": list(self._facts["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._opened, self._source.status, self._metadata)

    def _planes_of(self, region: Region, bands: Sequence[int] | None) -> tuple[tuple[int, ...], slice | list[int]]:
        """Return the planes that hold bands, in their order, and the samples of each that are wanted."""
        spec = self.spec
        if not spec.region.contains(region):
            raise ValueError(f"{region} is not inside the raster ({spec.region})")
        wanted = tuple(range(spec.num_bands)) if bands is None else tuple(bands)
        if len(self._layout.offsets) > 1:
            return wanted, slice(None)
        every = wanted == tuple(range(spec.num_bands))
        return (0,) if wanted else (), slice(None) if every else list(wanted)

    def _parts(self, region: Region, planes: Iterable[int]) -> Iterator[Part]:
        return stored_parts(self._layout, self._source.path, region, planes)

    def _target(self, out: np.ndarray, position: int) -> np.ndarray:
        """Return the pixels of a plane in what is read into, as rows, columns, samples."""
        plane: np.ndarray = out[position] if len(self._layout.offsets) > 1 else out
        return plane if "band" in self.spec.dims and plane is out else plane[..., np.newaxis]

    def _raw_pixels(self, part: Part, data: Data) -> np.ndarray:
        layout, inside = self._layout, part.inside
        shape = (inside.height, inside.width, layout.samples)
        strides = (layout.row_bytes, layout.pixel_bytes, layout.dtype.itemsize)
        return np.ndarray(shape, layout.dtype, data, strides=strides)

    def _decode_segment(self, part: Part, data: Data) -> np.ndarray:
        layout, needed = self._layout, part.inside
        where = f"{self._source.path}: {part.name} is damaged"
        try:
            segment = self._decode(bytes(data), part.index, layout.tables[part.plane])
        except Exception as error:
            raise InputError(f"{where}: {reason(error)}; copy the file again") from error
        shape, dtype = segment.shape, layout.dtype.newbyteorder("=")
        if shape[0] < needed.bottom or shape[1] < needed.right or shape[2] != layout.samples:
            raise InputError(f"{where}: it decodes to {shape}, {layout.samples} samples a pixel are due; copy it again")
        if segment.dtype != dtype and not (dtype.kind == "b" and segment.dtype == np.uint8):
            raise InputError(f"{where}: it decodes to {segment.dtype}, the file says {dtype}; write the file again")
        return segment


_Opened = tuple[str, Access | None, ReadLimits, Choice]
"""What a file was opened by."""


@functools.lru_cache(maxsize=256)
def _reopen(opened: _Opened, status: str, metadata: str) -> TiffReader:
    """Return the reader that was pickled; tasks of one process share it."""
    path, access, limits, choice = opened
    reader = TiffReader.open(path, limits, choice, access)
    reader._source.check(status)
    if reader._metadata != metadata:
        raise InputChanged(f"{path}: its metadata changed since it was opened; start again")
    return reader


def _source_at(path: str, access: Access | None, limits: ReadLimits) -> Source:
    if not is_url(path):
        return LocalFile(path)
    from pipeline.storage.tiff.remote import RemoteFile  # with obstore, an extra

    return RemoteFile(path, access or Access(), limits)
