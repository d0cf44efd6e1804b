"""A raster as a tiled GeoTIFF, streamed: read row of tiles by row of tiles, compressed by threads, written in order.

tifffile writes the file; what is read when, and how much of it is in memory, is decided here. Files above 4 GiB are
BigTIFF. Pyramids are not made: they would be further pages after this one.
"""

from __future__ import annotations

import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from tifffile import TiffWriter

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.model.version import __version__
from pipeline.storage.georeference.geotiff import COLORS, TAGS
from pipeline.storage.georeference.geotiff_format import format_colors, format_tags
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.tiff.tiling import WAITING, TileLayout

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
CLASSIC_BYTES = 2**32 - 2**26
"""What offsets of 32 bits reach, less what noise may gain by compression and what the directory takes."""
ENCODED_BYTES = 1024
"""What a codec may add to a tile, beside a 64th of it."""
_BUFFERS = ThreadBuffers()

Read = Callable[[Region, np.ndarray, Sequence[int] | None], None]
"""How pixels come, as from `Reader.read`: piece by piece of the layout."""


def write_geotiff(path: Path, read: Read, layout: TileLayout, codec: str, description: str, threads: int) -> list[str]:
    """Write a raster to a new file; return in words what of it a GeoTIFF cannot say.

    Parameters
    ----------
    codec
        One of `CODECS`.
    description
        Text of ASCII for the tag of this name.
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
            _in_order(pool, encode, _tiles(read, layout, most), most),
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
            software=f"rasterpipe {__version__}",
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


def _tiles(read_into: Read, layout: TileLayout, most: int) -> Iterator[np.ndarray]:
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
        read_into(read, _rows(values, axis, held, None), bands if layout.is_planar else None)
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
