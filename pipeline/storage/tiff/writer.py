"""A raster as a tiled GeoTIFF, streamed: read row of tiles by row of tiles, compressed by threads, written in order.

tifffile writes the file; what is read when, and how much of it is in memory, is decided here. Files above 4 GiB are
BigTIFF. Pyramids are not made: they would be further pages after this one.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from tifffile import TiffWriter

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.storage.georeference.geotiff import COLORS, TAGS
from pipeline.storage.georeference.geotiff_format import format_colors, format_tags
from pipeline.storage.reader import Reader
from pipeline.storage.thread_buffers import ThreadBuffers

DEFLATE, ZSTANDARD = 8, 50000
PHOTOMETRIC, EXTRA_SAMPLES = 262, 338
HORIZONTAL, FLOATING_POINT = 2, 3
CODECS: dict[str, tuple[int, int] | None] = {
    "fast": (DEFLATE, 1),
    "balanced": (DEFLATE, 6),
    "small": (ZSTANDARD, 15),
    "none": None,
}
"""`output.codec` -> TIFF's code of the compression, and its level; all with a predictor."""
MIB = 2**20
TILE_SIDE, LARGE_TILE_SIDE = 256, 512
LARGE = 4096
"""Rows and columns from which on tiles are large."""
TILE_BYTES = 2 * MIB
SMALLEST_SIDE = 64
WAITING = 3
"""Tiles a thread that wait to be compressed or written."""
CLASSIC_BYTES = 2**32 - 2**26
"""What offsets of 32 bits reach, less what noise may gain by compression and what the directory takes."""
ENCODED_BYTES = 1024
"""What a codec may add to a tile, beside a 64th of it."""
_BUFFERS = ThreadBuffers()


@dataclass(frozen=True)
class TileLayout:
    """How a raster is cut into tiles, and how much of it is read at once."""

    spec: RasterSpec
    side: int
    rows: int
    """Rows read at once: whole tiles, or where all columns are read, whole chunks of more rows than a tile."""
    columns: int
    """Columns read at once: all, or whole tiles."""

    @property
    def is_planar(self) -> bool:
        """Whether each band has tiles of its own: as the bands lie in the store."""
        return self.spec.dims[0] == "band" and self.spec.num_bands > 1

    @property
    def samples(self) -> int:
        """Bands in a tile."""
        return 1 if self.is_planar else self.spec.num_bands

    @property
    def pixel_bytes(self) -> int:
        return self.samples * self.spec.dtype.itemsize

    @property
    def tile_bytes(self) -> int:
        return self.side * self.side * self.pixel_bytes

    @property
    def piece_bytes(self) -> int:
        """What is read at once, below rows of a tile that were read before."""
        held = 0 if self.rows % self.side == 0 else self.side
        return (self.rows + held) * self.columns * self.pixel_bytes

    def num_bytes(self, threads: int) -> int:
        """Return what writing takes of the memory: two pieces, and tiles before and after compression."""
        return 2 * self.piece_bytes + 3 * (WAITING + 1) * threads * self.tile_bytes

    def pieces(self) -> Iterator[tuple[list[int], Region, Region]]:
        """Yield bands, what of them is read next, and the rows that whole tiles can now be made of.

        These come in the order of the tiles. They begin above what is read, where some rows were read before that do
        not fill a tile, and end above its end, where some rows are left over for the next piece.
        """
        spec = self.spec
        groups = [[band] for band in range(spec.num_bands)] if self.is_planar else [list(range(spec.num_bands))]
        tops, lefts = range(0, spec.height, self.rows), range(0, spec.width, self.columns)
        for bands, top, left in itertools.product(groups, tops, lefts):
            read = Region(top, top + self.rows, left, left + self.columns).clip(spec.region)
            bottom = read.bottom if read.bottom == spec.height else self._whole(read.bottom)
            yield bands, read, replace(read, top=self._whole(top), bottom=bottom)

    def _whole(self, row: int) -> int:
        return row // self.side * self.side

    def tiles(self, piece: Region) -> Iterator[tuple[slice, slice]]:
        """Yield the tiles of a piece, as rows and columns of it."""
        for top, left in itertools.product(range(0, piece.height, self.side), range(0, piece.width, self.side)):
            yield slice(top, top + self.side), slice(left, left + self.side)


def plan_tiles(spec: RasterSpec, chunk: tuple[int, int], threads: int, memory_bytes: int) -> TileLayout:
    """Return the layout that decodes the chunks of a store seldom, within a memory, if one of the smallest fits.

    As many rows of chunks are read at once as make a row of tiles where that fits, else rows of tiles, else a piece of
    one.
    """
    side = LARGE_TILE_SIDE if min(spec.height, spec.width) >= LARGE else TILE_SIDE
    while side > SMALLEST_SIDE and (
        TileLayout(spec, side, 1, 1).tile_bytes > TILE_BYTES or side >= 2 * max(spec.height, spec.width)
    ):
        side //= 2
    most = -(-side // chunk[0]) * chunk[0]
    for rows in (most, *(side << i for i in reversed(range((most // side).bit_length())))):
        layout = TileLayout(spec, side, rows, spec.width)
        if layout.num_bytes(threads) <= memory_bytes:
            return layout
    columns = spec.width
    while columns > side and TileLayout(spec, side, side, columns).num_bytes(threads) > memory_bytes:
        columns = max(side, columns // 2 // side * side)
    return TileLayout(spec, side, side, columns)


def write_geotiff(
    path: Path, reader: Reader, layout: TileLayout, codec: str, description: str, threads: int, software: str
) -> list[str]:
    """Write a raster to a new file; return in words what of it a GeoTIFF cannot say.

    Parameters
    ----------
    codec
        One of `CODECS`.
    description, software
        Texts of ASCII for the tags of these names.
    """
    spec, warnings = layout.spec, list[str]()
    compression, predictor = CODECS[codec], _predictor(spec) if CODECS[codec] else 1
    colors = format_colors(spec)
    shape: tuple[int, ...] = (spec.height, spec.width)
    if spec.num_bands > 1:
        shape = (spec.num_bands, *shape) if layout.is_planar else (*shape, spec.num_bands)
    is_big = spec.region.num_pixels * spec.pixel_bytes > CLASSIC_BYTES
    most = WAITING * threads
    with TiffWriter(path, bigtiff=is_big) as writer, ThreadPoolExecutor(threads) as pool:
        encode = functools.partial(_encode, layout, compression, predictor)
        writer.write(
            _in_order(pool, encode, _tiles(reader, layout, most), most),
            shape=shape,
            dtype=spec.dtype,
            tile=(layout.side, layout.side),
            planarconfig=None if spec.num_bands == 1 else "separate" if layout.is_planar else "contig",
            photometric=colors.photometric,
            extrasamples=colors.extra or None,
            colormap=colors.table,
            compression=compression[0] if compression else None,
            predictor=predictor if predictor > 1 else None,
            description=description.encode("ascii"),
            software=software,
            metadata=None,
            extratags=[_extratag(code, value) for code, value in sorted(format_tags(spec, warnings).items())],
        )
    return warnings


def _predictor(spec: RasterSpec) -> int:
    return FLOATING_POINT if spec.dtype.kind == "f" else HORIZONTAL


def _extratag(code: int, value: Any) -> tuple[int, int, int, Any, bool]:
    """Return a tag as tifffile takes it: text, doubles, or the directory of geokeys in 16 bits."""
    if isinstance(value, str):
        data = value.encode() + b"\0"
        return code, 2, len(data), data, True
    is_directory = all(isinstance(number, int) for number in value)
    return code, 3 if is_directory else 12, len(value), tuple(value), True


def _tiles(reader: Reader, layout: TileLayout, most: int) -> Iterator[np.ndarray]:
    """Yield the tiles in the order of the file, (rows, columns, bands), those at the edges cut off.

    Whoever asks for the next one holds no more than the last `most`.
    """
    spec, num_tiles = layout.spec, 0
    axis = spec.dims.index("y")
    rooms: deque[tuple[int, np.ndarray]] = deque()  # of pieces, each with the number of its last tile
    values = np.empty(0)
    for bands, read, piece in layout.pieces():
        is_free = rooms and rooms[0][0] <= num_tiles - most
        room = rooms.popleft()[1] if is_free else np.empty(layout.piece_bytes, np.uint8)
        before, shape = values, _shape_of(layout, replace(piece, bottom=read.bottom))
        values = room[: math.prod(shape) * spec.dtype.itemsize].view(spec.dtype).reshape(shape)
        if held := read.top - piece.top:
            np.copyto(_rows(values, axis, 0, held), _rows(before, axis, before.shape[axis] - held, None))
        reader.read(read, _rows(values, axis, held, None), bands if layout.is_planar else None)
        view = np.moveaxis(values, 0, -1) if axis == 1 else values
        for rows, columns in layout.tiles(piece):
            num_tiles += 1
            yield np.atleast_3d(view[rows, columns])
        rooms.append((num_tiles, room))


def _rows(values: np.ndarray, axis: int, first: int, stop: int | None) -> np.ndarray:
    return values[(slice(None),) * axis + (slice(first, stop),)]


def _shape_of(layout: TileLayout, piece: Region) -> tuple[int, ...]:
    shape = layout.spec.shape_of(piece)
    return (1, *shape[1:]) if layout.is_planar else shape


def _encode(layout: TileLayout, compression: tuple[int, int] | None, predictor: int, tile: np.ndarray) -> bytes:
    """Return the stored form of a tile; one at the edge is filled up by its last row and column."""
    short = [(0, layout.side - n) for n in tile.shape[:2]]
    if any(missing for _, missing in short):
        tile = np.pad(tile, [*short, (0, 0)], mode="edge")
    if compression is None:
        return tile.tobytes()
    prepared = _BUFFERS.take("prepared", layout.tile_bytes).view(tile.dtype).reshape(tile.shape)
    if predictor == HORIZONTAL:
        _take_differences(tile, prepared)
    else:
        imagecodecs.floatpred_encode(tile, axis=-2, out=prepared)
    code, level = compression
    encode: Callable[..., Any] = imagecodecs.zstd_encode
    if code == DEFLATE:
        encode = imagecodecs.deflate_encode if imagecodecs.DEFLATE.available else imagecodecs.zlib_encode
    out = _BUFFERS.take("encoded", layout.tile_bytes + layout.tile_bytes // 64 + ENCODED_BYTES)
    return bytes(encode(prepared, level=level, out=out))


def _take_differences(tile: np.ndarray, out: np.ndarray) -> None:
    """Write each pixel less the one to its left (TIFF's horizontal predictor), modulo the range of the dtype.

    In numpy: imagecodecs takes twice the time where bands lie side by side.
    """
    out[:, 0] = tile[:, 0]
    np.subtract(tile[:, 1:], tile[:, :-1], out=out[:, 1:])


def _in_order(
    pool: ThreadPoolExecutor, encode: Callable[[np.ndarray], bytes], tiles: Iterator[np.ndarray], most: int
) -> Iterator[bytes]:
    """Yield encoded tiles as they were given, so many of them in work at once."""
    waiting: deque[Future[bytes]] = deque()
    try:
        for tile in tiles:
            waiting.append(pool.submit(encode, tile))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def read_description(path: str | os.PathLike[str]) -> str | None:
    """Return the text that `write_geotiff` was given; None for a file that has none, or is no TIFF."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            return str(tif.pages.first.tags.valueof(270, default="")) or None
    except Exception:  # tifffile raises anything on a file that is none
        return None


def tag_differences(path: str | os.PathLike[str], spec: RasterSpec) -> Iterator[str]:
    """Yield what a file says of place, nodata, metadata or colours that `write_geotiff` does not say of a raster."""
    from tifffile import TIFF, TiffFile

    colors = format_colors(spec)
    due = {**format_tags(spec, []), PHOTOMETRIC: colors.photometric, EXTRA_SAMPLES: colors.extra or None}
    due[COLORS] = colors.table
    with TiffFile(path) as tif:
        tags = tif.pages.first.tags
        stored = {code: tags.valueof(code) for code in (*TAGS, PHOTOMETRIC, EXTRA_SAMPLES)}
    for code, value in stored.items():
        if (found := _plain(value)) != (written := _plain(due.get(code))):
            yield f"the tag {TIFF.TAGS.get(code, str(code))} is {_short(found)}, and {_short(written)} by its plan"


def _plain(value: Any) -> list[Any] | str | None:
    """Return a tag's value as text or as numbers, however it came."""
    if isinstance(value, str):
        return value.strip("\0 \n")  # which tifffile takes off, too
    return None if value is None else np.ravel(value).tolist()


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
