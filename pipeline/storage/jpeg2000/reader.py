"""JPEG 2000 files as rasters, tile by tile, through imagecodecs: what Sentinel-2 is delivered as."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np

from pipeline.model.errors import InputChanged, InputError
from pipeline.model.raster import RasterSpec, default_names
from pipeline.model.read_limits import ReadLimits, check_bands
from pipeline.model.region import Region
from pipeline.storage.jpeg2000.boxes import parse_boxes
from pipeline.storage.jpeg2000.codestream import Codestream, parse_codestream
from pipeline.storage.library import reason
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Reader, Traffic
from pipeline.storage.tiff.file import find_sidecars
from pipeline.storage.tiff.source import LocalFile

REMEDY = "pip install 'rasterpipe[gdal]' reads it"


class Jpeg2000Reader(Reader):
    """A file of tiles, opened for reading. Make one with `Jpeg2000Reader.open`."""

    def __init__(self, source: LocalFile, spec: RasterSpec, stream: Codestream, limits: ReadLimits) -> None:
        self.spec, self._source, self._stream, self._limits = spec, source, stream, limits
        self.chunk = min(stream.size.tile_height, spec.height), min(stream.size.tile_width, spec.width)
        self.decoder_bytes = 4 * self.chunk[0] * self.chunk[1] * spec.num_bands * 4
        """OpenJPEG works in 32 bits, and holds a tile as coefficients, as pixels, and as they are handed out."""
        self._messages: list[str] = []

    @classmethod
    def open(cls, path: str | os.PathLike[str], limits: ReadLimits | None = None) -> Jpeg2000Reader:
        """Open a file: look through its boxes and find its tiles. Reads no pixel.

        Raises InputError where the file is damaged, exceeds a limit, or is of a kind that is not read tile by tile.
        """
        source, limits = LocalFile(path), limits or ReadLimits()
        boxes = parse_boxes(source.pread, source.size, source.path)
        stream = parse_codestream(source.pread, boxes.start, boxes.stop, source.path)
        messages: list[str] = []
        dtype = _dtype_of(stream, source.path, has_palette=boxes.has_palette)
        size, num = stream.size, len(stream.components)
        check_bands(source.path, num)
        tile = min(size.tile_height, size.bottom - size.top) * min(size.tile_width, size.right - size.left)
        what = f"{source.path}: tiles of {size.tile_height} x {size.tile_width} pixels"
        limits.check_tile(what, tile * num * dtype.itemsize, REMEDY)
        transform, system = boxes.place(messages)
        bands = list(default_names(num))
        if boxes.alpha is not None and boxes.alpha < num > 1:
            bands[boxes.alpha] = "alpha"
        spec = RasterSpec(
            height=size.bottom - size.top,
            width=size.right - size.left,
            dtype=dtype,
            dims=("band", "y", "x") if num > 1 else ("y", "x"),
            bands=tuple(bands),
            transform=transform,
            crs=system,
        )
        reader = cls(source, spec, stream, limits)
        reader._messages = [*messages, *find_sidecars(source.path, transform is not None)]
        return reader

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        wanted = slice(None) if bands is None else list(bands)
        planes = out if "band" in self.spec.dims else out[np.newaxis]
        for index in self._stream.meeting(region):
            tile = self._stream.region(index)
            part = tile.clip(region)
            rows, columns = part.shift(-tile.top, -tile.left).slices()
            own_rows, own_columns = part.slices((region.top, region.left))
            planes[:, own_rows, own_columns] = self._decode(index, tile)[wanted, rows, columns]

    def _decode(self, index: int, tile: Region) -> np.ndarray:
        """Return the pixels of a tile (band, y, x)."""
        path = self._source.path
        data = self._stream.alone(index, [self._source.pread(*part) for part in self._stream.tiles[index]])
        shape = (self.spec.num_bands, *tile.shape)
        num_bytes = int(np.prod(shape)) * self.spec.dtype.itemsize
        self._limits.check_ratio(f"{path}: tile {index}", num_bytes, len(data))
        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
        except Exception as error:  # imagecodecs raises its own
            raise InputError(f"{path}: tile {index} is damaged: {reason(error)}; copy the file again") from error
        planes = pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        if planes.shape != shape or planes.dtype != self.spec.dtype:
            raise InputError(
                f"{path}: tile {index} is damaged: it decodes to {planes.shape} {planes.dtype}, {shape} "
                f"{self.spec.dtype} are due; copy the file again"
            )
        return planes

    @property
    def is_untouched(self) -> bool:
        return self._source.is_untouched

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return NO_TRAFFIC

    def identity(self) -> dict[str, Any]:
        return {**self._source.identity(), "metadata": self._metadata}

    @property
    def _metadata(self) -> str:
        stream = self._stream
        told = repr((self.spec, stream.size, stream.components, stream.tail, stream.tiles))
        return hashlib.sha256(told.encode()).hexdigest()

    def evidence(self) -> list[Evidence]:
        return [self._source.evidence()]

    def describe(self) -> dict[str, Any]:
        size = self._stream.size
        return {
            "format": "JPEG 2000",
            "codec": "jpeg2000",
            "layout": f"tiles {size.tile_height} x {size.tile_width}",
            "warnings": list(self._messages),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._source.path, self._source.status, self._metadata, self._limits)


@functools.lru_cache(maxsize=256)
def _reopen(path: str, status: str, metadata: str, limits: ReadLimits) -> Jpeg2000Reader:
    """Return the reader that was pickled; tasks of one process share it."""
    reader = Jpeg2000Reader.open(path, limits)
    reader._source.check(status)
    if reader._metadata != metadata:
        raise InputChanged(f"{path}: its metadata changed since it was opened; start again")
    return reader


def _dtype_of(stream: Codestream, path: str, *, has_palette: bool) -> np.dtype:
    first, *others = stream.components
    fault = ""
    if has_palette:
        fault = "has a palette"
    elif any(each != first for each in others):
        fault = "has bands of several kinds"
    elif first.steps != (1, 1):
        fault = "has bands of fewer pixels than the image"
    elif first.bits > 16:
        fault = f"has {first.bits} bits a pixel"
    if fault:
        raise InputError(f"{path}: the JPEG 2000 file {fault}, which is not read here; {REMEDY}")
    return np.dtype(f"{'int' if first.is_signed else 'uint'}{8 if first.bits <= 8 else 16}")
