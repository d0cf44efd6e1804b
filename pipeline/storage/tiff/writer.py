"""A raster as a Cloud Optimized GeoTIFF, streamed: tiles are encoded by threads, spooled, and laid out by copying.

The layout is that of GDAL's COG driver: a header that says so, the directories, full resolution first, then the tiles
of the smallest overview and so on, full resolution last, each between its size and its last four bytes once more.
Without it (`is_cog`) the spooled tiles are the file, and its directories stand behind them. Files whose tiles do not
fit below 4 GiB are BigTIFF.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import imagecodecs
import numpy as np

from pipeline.kernels.statistics import Statistics
from pipeline.model.raster import RasterSpec
from pipeline.model.version import __version__
from pipeline.storage.folder.disk import replacing_file, sync_path
from pipeline.storage.georeference.geotiff import COLORS, GDAL_METADATA, GDAL_NODATA, TAGS, parse_items
from pipeline.storage.georeference.geotiff_format import (
    format_colors,
    format_items,
    format_tags,
    is_statistic,
    statistics_items,
)
from pipeline.storage.pyramid import Bands, Place, Read
from pipeline.storage.spool import HEADER_BYTES, Spool
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.tiff import ifd
from pipeline.storage.tiff.tiling import Tiling

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
CLASSIC_BYTES = 2**32 - 2**16
"""What offsets of 32 bits reach, with some room."""
ENCODED_BYTES = 1024
"""What a codec may add to a tile, beside a 64th of it."""
LEADER = struct.Struct("<I")
_BUFFERS = ThreadBuffers()


@dataclass(frozen=True)
class GeoTiffForm:
    """What a file is to be, beside its pixels."""

    codec: str
    """One of `CODECS`."""
    description: str
    """Text of ASCII for the tag of this name."""
    is_cog: bool = True


class Told(Protocol):
    """Who is told of the writing of a file."""

    def start(self, total: int, done: int = 0, what: str = "") -> None:
        """Take note that a stretch of work begins."""

    def advance(self) -> None:
        """Take note that one more of it is done."""


def write_geotiff(path: Path, token: str, read: Read, tiling: Tiling, form: GeoTiffForm, told: Told) -> list[str]:
    """Write a raster to a file, and put it in its place; return in words what of it a GeoTIFF cannot say.

    Tiles lie beside the file until it is whole; `token` (32 hexadecimal digits) tells those of one run from others, so
    that it finds them again.

    Raises
    ------
    OSError
        Where they or the file cannot be written; the tiles stay.
    """
    warnings = list[str]()
    numbers = [tiling.num_tiles(level) for level in tiling.levels]
    with Spool(path, token, _key(tiling, form), numbers) as spool:
        statistics = _spool(spool, read, tiling, form, told)
        tags = format_tags(tiling.spec, warnings, statistics)
        if form.is_cog:
            with replacing_file(path, token) as building:
                _lay_out(building, spool, tiling, form, tags, told)
        else:
            _finish(spool, tiling, form, tags)
            sync_path(spool.path)
            os.replace(spool.path, path)
            sync_path(path.parent)
        spool.remove()
    return warnings


def _key(tiling: Tiling, form: GeoTiffForm) -> bytes:
    """Return what stands for all that encoded tiles depend on, beside the pixels."""
    pyramid = tiling.pyramid
    facts = [form.codec, form.is_cog, pyramid.tile, pyramid.num_levels, pyramid.resampling, __version__]
    spec = [tiling.spec.shape, tiling.spec.dims, tiling.spec.dtype.str, repr(tiling.spec.nodata)]
    libraries = [imagecodecs.__version__, np.__version__]
    return hashlib.sha256(json.dumps([facts, spec, libraries]).encode()).digest()


def _spool(spool: Spool, read: Read, tiling: Tiling, form: GeoTiffForm, told: Told) -> Statistics:
    """Encode all tiles that the spool lacks; return the statistics of the bands."""
    encode = functools.partial(_encode, tiling, CODECS[form.codec])
    frame = _frame if form.is_cog else bytes

    def make(place: Place, bands: Bands, tile: np.ndarray) -> list[tuple[int, bytes]]:
        parts = _parts(tiling, place, bands, tile)
        return [(number, frame(encode(part))) for number, part in parts if not spool.has(place.level, number)]

    def read_piece(*piece: Any) -> None:
        read(*piece)
        told.advance()

    told.start(tiling.walk.num_pieces, what=f"parts of {spool.target.name}")
    statistics = None
    for made in tiling.walk.run(read_piece, make):
        if isinstance(made, Statistics):
            statistics = made
        else:
            for number, data in made.result:
                spool.add(made.place.level, number, data)
    assert statistics is not None
    return statistics


def _parts(tiling: Tiling, place: Place, bands: Bands, tile: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the tiles of a place as TIFF counts them, each as (rows, columns, samples)."""
    across = tiling.pyramid.grid(place.level)[1]
    number = place.row * across + place.column
    if not tiling.is_planar:
        yield number, np.atleast_3d(np.moveaxis(tile, 0, -1) if tiling.spec.dims[0] == "band" else tile)
        return
    per_band = tiling.num_tiles(place.level) // tiling.spec.num_bands
    for band, values in zip(bands, tile, strict=True):
        yield band * per_band + number, values[..., np.newaxis]


def _frame(data: bytes) -> bytes:
    """Return a tile between its size and its last four bytes, by which GDAL reads it in one request."""
    return b"".join((LEADER.pack(len(data)), data, data[-4:].rjust(4, b"\0")))


FRAME_BYTES = 8


def _lay_out(path: Path, spool: Spool, tiling: Tiling, form: GeoTiffForm, tags: ifd.Tags, told: Told) -> None:
    """Write a file of the tiles of a spool, in the order of a Cloud Optimized GeoTIFF."""
    smallest_first, threads = list(reversed(tiling.levels)), tiling.walk.threads
    told.start(len(tiling.levels), what=f"levels of {spool.target.name}")
    tiles_bytes = int(sum(counts.sum() for counts in spool.counts))
    for is_big in (False, True):
        formed = ifd.Form(is_big)
        start = formed.header_bytes + len(_ghost(tiling))
        start += start % 2
        room = [np.zeros(len(counts), np.uint64) for counts in spool.counts]
        at = start + len(formed.encode(_directories(tiling, form, tags, room, spool.counts, is_big), start))
        if is_big or at + tiles_bytes < CLASSIC_BYTES:
            break
    places = list(room)
    for level in smallest_first:
        ends = np.cumsum(spool.counts[level], dtype=np.uint64) + np.uint64(at)
        places[level] = ends - spool.counts[level] + np.uint64(LEADER.size)
        at = int(ends[-1])
    counts = [each - np.uint64(FRAME_BYTES) for each in spool.counts]
    with path.open("r+b") as file, ThreadPoolExecutor(threads) as pool:
        file.write(formed.header(start))
        file.write(_ghost(tiling).ljust(start - formed.header_bytes, b"\0"))
        file.write(formed.encode(_directories(tiling, form, tags, places, counts, is_big), start))
        file.flush()
        for level in smallest_first:
            begins = places[level] - np.uint64(LEADER.size)
            shares = (range(first, len(begins), threads) for first in range(threads))
            for copied in [pool.submit(spool.copy, level, share, file.fileno(), begins) for share in shares]:
                copied.result()
            told.advance()


def _finish(spool: Spool, tiling: Tiling, form: GeoTiffForm, tags: ifd.Tags) -> None:
    """Make a file of the tiles of a spool as they lie."""
    formed = ifd.Form(spool.end > CLASSIC_BYTES)
    directories = _directories(tiling, form, tags, spool.offsets, spool.counts, formed.is_big)
    spool.finish(formed.header(spool.end).ljust(HEADER_BYTES, b"\0"), formed.encode(directories, spool.end))


def _ghost(tiling: Tiling) -> bytes:
    """Return what GDAL's COG driver says of the layout of the file, at its beginning."""
    lines = ["LAYOUT=IFDS_BEFORE_DATA", "BLOCK_ORDER=ROW_MAJOR", "BLOCK_LEADER=SIZE_AS_UINT4"]
    lines += ["BLOCK_TRAILER=LAST_4_BYTES_REPEATED", *(["INTERLEAVE=BAND"] if tiling.is_planar else [])]
    said = "".join(f"{line}\n" for line in [*lines, "KNOWN_INCOMPATIBLE_EDITION=NO"]) + " "
    return f"GDAL_STRUCTURAL_METADATA_SIZE={len(said):06d} bytes\n{said}".encode()


def _directories(
    tiling: Tiling, form: GeoTiffForm, tags: ifd.Tags, places: Any, counts: Any, is_big: bool
) -> list[ifd.Directory]:
    """Return the directories of all levels, full resolution first."""
    spec, side = tiling.spec, tiling.side
    compression, colors = CODECS[form.codec], format_colors(spec)
    num_bands = spec.num_bands
    shared = {
        258: ifd.shorts(*[8 * spec.dtype.itemsize] * num_bands),
        259: ifd.shorts(compression[0] if compression else 1),
        PHOTOMETRIC: ifd.shorts(colors.photometric),
        277: ifd.shorts(num_bands),
        284: ifd.shorts(2 if tiling.is_planar else 1),
        322: ifd.shorts(side),
        323: ifd.shorts(side),
        339: ifd.shorts(*[{"u": 1, "i": 2, "f": 3}[spec.dtype.kind]] * num_bands),
    }
    if compression:
        shared[317] = ifd.shorts(_predictor(spec))
    if colors.extra:
        shared[EXTRA_SAMPLES] = ifd.shorts(*colors.extra)
    if colors.table is not None:
        shared[COLORS] = ifd.shorts(*colors.table.ravel().tolist())
    if (nodata := tags.get(GDAL_NODATA)) is not None:
        shared[GDAL_NODATA] = ifd.of_tag(nodata)
    first = {code: ifd.of_tag(value) for code, value in tags.items()}
    first |= {270: ifd.text(form.description), 305: ifd.text(f"rasterpipe {__version__}")}
    result: list[ifd.Directory] = []
    for level in tiling.levels:
        size = tiling.pyramid.level_spec(level)
        own = {
            256: ifd.longs([size.width]),
            257: ifd.longs([size.height]),
            324: ifd.offsets(places[level], is_big=is_big),
            325: ifd.longs(counts[level]),
        }
        result.append(shared | own | ({254: ifd.longs([1])} if level else first))
    return result


def _predictor(spec: RasterSpec) -> int:
    return FLOATING_POINT if spec.dtype.kind == "f" else HORIZONTAL


def _encode(tiling: Tiling, compression: tuple[int, int] | None, tile: np.ndarray) -> bytes:
    """Return the stored form of a tile; one at the edge is filled up by its last row and column."""
    short = [(0, tiling.side - n) for n in tile.shape[:2]]
    if any(missing for _, missing in short):
        tile = np.pad(tile, [*short, (0, 0)], mode="edge")
    if compression is None:
        return tile.tobytes()
    prepared = _BUFFERS.take("prepared", tiling.tile_bytes).view(tile.dtype).reshape(tile.shape)
    if _predictor(tiling.spec) == HORIZONTAL:
        _take_differences(tile, prepared)
    else:
        imagecodecs.floatpred_encode(np.ascontiguousarray(tile), axis=-2, out=prepared)
    code, level = compression
    encode: Callable[..., Any] = imagecodecs.zstd_encode
    if code == DEFLATE:
        encode = imagecodecs.deflate_encode if imagecodecs.DEFLATE.available else imagecodecs.zlib_encode
    out = _BUFFERS.take("encoded", tiling.tile_bytes + tiling.tile_bytes // 64 + ENCODED_BYTES)
    return bytes(encode(prepared, level=level, out=out))


def _take_differences(tile: np.ndarray, out: np.ndarray) -> None:
    """Write each pixel less the one to its left (TIFF's horizontal predictor), modulo the range of the dtype.

    In numpy: imagecodecs takes twice the time where bands lie side by side.
    """
    out[:, 0] = tile[:, 0]
    np.subtract(tile[:, 1:], tile[:, :-1], out=out[:, 1:])


def read_description(path: str | os.PathLike[str]) -> str | None:
    """Return the text that `write_geotiff` was given; None for a file that has none, or is no TIFF."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            return str(tif.pages.first.tags.valueof(270, default="")) or None
    except Exception:  # tifffile raises anything on a file that is none
        return None


def tag_differences(path: str | os.PathLike[str], spec: RasterSpec) -> Iterator[str]:
    """Yield what a file says of place, nodata, metadata or colours that `write_geotiff` does not say of a raster.

    Statistics of the pixels are not compared.
    """
    from tifffile import TIFF, TiffFile

    colors = format_colors(spec)
    due = {**format_tags(spec, []), PHOTOMETRIC: colors.photometric, EXTRA_SAMPLES: colors.extra or None}
    due[COLORS] = colors.table
    with TiffFile(path) as tif:
        tags = tif.pages.first.tags
        stored = {code: tags.valueof(code) for code in (*TAGS, PHOTOMETRIC, EXTRA_SAMPLES)}
    items = [item for item in parse_items(stored, []) if not is_statistic(item)]
    stored[GDAL_METADATA] = format_items(items) if items else None
    for code, value in stored.items():
        if (found := _plain(value)) != (written := _plain(due.get(code))):
            yield f"the tag {TIFF.TAGS.get(code, str(code))} is {_short(found)}, and {_short(written)} by its plan"


def statistics_differences(path: str | os.PathLike[str], spec: RasterSpec, statistics: Statistics) -> Iterator[str]:
    """Yield the statistics of a file that are not those of its pixels."""
    from tifffile import TiffFile

    with TiffFile(path) as tif:
        stored = {GDAL_METADATA: tif.pages.first.tags.valueof(GDAL_METADATA)}
    found = {(item.name, item.band): item.text for item in parse_items(stored, []) if is_statistic(item)}
    due = {(item.name, item.band): item.text for item in statistics_items(spec, statistics)}
    for key in sorted({*found, *due}, key=str):
        if found.get(key) != due.get(key):
            yield f"{key[0]} of band {int(key[1] or 0) + 1} is {found.get(key)}, and {due.get(key)} of its pixels"


def _plain(value: Any) -> list[Any] | str | None:
    """Return a tag's value as text or as numbers, however it came."""
    if isinstance(value, str):
        return value.strip("\0 \n")  # which tifffile takes off, too
    return None if value is None else np.ravel(value).tolist()


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
