"""TIFF files as rasters: strips and tiles, classic and BigTIFF, read by regions with `os.pread`.

tifffile parses the directories and makes the decoder; what is read, and when, is decided here. A segment is a
strip or a tile. Every band lies in one plane: planes are what PlanarConfiguration 2 separates, or whole pages.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from tifffile import TiffFile, TiffPage

from pipeline.errors import InputError
from pipeline.raster import DTYPES, RasterSpec
from pipeline.region import Region
from pipeline.storage import geotiff
from pipeline.storage.reader import Reader

SEGMENT_LIMIT_BYTES = 256 * 2**20
"""A compressed strip or tile that decodes to more is refused: it cannot be read in parts."""
RAW_READ_BYTES = 2**20
"""What one read of an uncompressed segment takes at most, and the size of the chunks it is said to have."""
RAW_GAP_BYTES = 2**14
"""Rows that lie further apart than this are read one by one."""
PAGE_LIMIT = 2**16
WARNING_LIMIT = 20

LERC = 34887
IDENTITY_TAGS = (256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339, 347, 530, *geotiff.TAGS)

Decoder = Callable[[bytes, int, bytes | None], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the segments of a raster lie, and how they are stored.

    `offsets` and `counts` have one row for each plane; a count of 0 marks a segment that the file leaves out.
    """

    word: str
    """strip or tile"""
    height: int
    width: int
    rows: int
    columns: int
    """Rows and columns of a segment; those of a tile may reach over the raster's edge."""
    samples: int
    """Samples of a pixel that lie side by side in a segment."""
    dtype: np.dtype
    """In the byte order of the file."""
    raw: bool
    """Pixels lie in the file as they are, so that any part of a segment can be read alone."""
    offsets: np.ndarray
    counts: np.ndarray
    tables: tuple[bytes | None, ...]
    """JPEG tables of each plane."""

    @property
    def across(self) -> int:
        return -(-self.width // self.columns)

    @property
    def down(self) -> int:
        return -(-self.height // self.rows)

    @property
    def pixel_bytes(self) -> int:
        return self.samples * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return self.columns * self.pixel_bytes

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns that are read together, at most the raster's."""
        rows, columns = min(self.rows, self.height), min(self.columns, self.width)
        if self.raw and self.word == "strip":
            rows = min(rows, max(1, RAW_READ_BYTES // self.row_bytes))
        return rows, columns

    def meeting(self, region: Region) -> Iterator[tuple[int, Region]]:
        """Yield the segments that meet a region: index in the plane, and the pixels of the raster in it."""
        for row in range(region.top // self.rows, -(-region.bottom // self.rows)):
            for column in range(region.left // self.columns, -(-region.right // self.columns)):
                top, left = row * self.rows, column * self.columns
                cell = Region(top, min(top + self.rows, self.height), left, min(left + self.columns, self.width))
                yield row * self.across + column, cell

    def name(self, plane: int, index: int) -> str:
        return f"{self.word} {index}" + (f" of band {plane + 1}" if len(self.offsets) > 1 else "")


class TiffReader(Reader):
    """A TIFF file, opened for reading. Make one with `TiffReader.open`."""

    def __init__(
        self, spec: RasterSpec, layout: Layout, decode: Decoder, identity: dict[str, Any], facts: dict[str, Any]
    ) -> None:
        self.spec = spec
        self.chunk = layout.chunk
        self._layout, self._decode, self._identity, self._facts = layout, decode, identity, facts
        self._path: str = identity["path"]
        self._fill = 0 if spec.nodata is None else spec.nodata
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TiffReader:
        """Open a file: parse its directories and check that all segments lie in it. Reads no pixel.

        Raises InputError where the file is missing, damaged, truncated, or of a kind that is not supported.
        """
        path = os.path.abspath(os.fspath(path))
        messages: list[str] = []
        with _input_errors(path), _logged(messages):
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: is not a file; give the path of one TIFF file")
            if status.st_size == 0:
                raise InputError(f"{path}: is empty (0 bytes); copy it again")
            with TiffFile(path, is_lsm=False, is_ndpi=False, is_scanimage=False) as tif:
                return cls._parse(tif, path, status, messages)

    @classmethod
    def _parse(cls, tif: TiffFile, path: str, status: os.stat_result, messages: list[str]) -> TiffReader:
        pages, facts = _select_pages(tif, messages)
        first = pages[0]
        num_bands = max(len(pages), _integer(first.samplesperpixel, "SamplesPerPixel"))
        layout = _parse_layout(pages, tif.byteorder, status.st_size)
        tags = {code: first.tags.valueof(code) for code in geotiff.TAGS}
        items = _parse_items(pages, messages)
        dtype = np.dtype(np.uint8) if layout.dtype.kind == "b" else layout.dtype.newbyteorder("=")
        spec = RasterSpec(
            height=layout.height,
            width=layout.width,
            dtype=dtype,
            dims=_dims(num_bands, layout),
            bands=geotiff.band_names(items, num_bands, messages),
            nodata=geotiff.parse_nodata(tags, dtype, messages),
            transform=geotiff.parse_transform(tags, messages),
            crs=geotiff.parse_crs(tags, messages),
        )
        identity = {
            "path": path,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "metadata": _metadata_hash(tif, pages, spec, layout),
        }
        scale = geotiff.parse_scale(items, num_bands, messages)
        facts |= _describe(tif, pages, layout) | {"recorded_nodata": geotiff.nodata_text(tags), "warnings": messages}
        reader = cls(spec, layout, _decoder(first, layout), identity, facts)
        reader.scale = scale
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

    def describe(self) -> dict[str, Any]:
        return self._facts | {"warnings": list(self._facts["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        known = self._identity
        return _reopen, (known["path"], known["size"], known["mtime_ns"], known["metadata"])

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
            raise InputError(f"{where}: {_reason(error)}; copy the file again") from error
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
        offset, pieces = int(layout.offsets[plane, index]) + start, []
        while count > 0:
            try:
                piece = os.pread(self._file(), count, offset)
            except OSError as error:
                raise InputError(f"{where} cannot be read: {error.strerror}") from error
            if not piece:
                raise InputError(f"{where} ends beyond the end of the file: it is truncated; copy it again")
            pieces.append(piece)
            count, offset = count - len(piece), offset + len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _file(self) -> int:
        """Return the descriptor, opened at the first read; it is closed with the reader."""
        with self._lock:
            if self._descriptor is None:
                with _input_errors(self._path):
                    descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                weakref.finalize(self, os.close, descriptor)
                _check_unchanged(self._path, os.fstat(descriptor), self._identity["size"], self._identity["mtime_ns"])
                self._descriptor = descriptor
            return self._descriptor


@functools.lru_cache(maxsize=256)
def _reopen(path: str, size: int, mtime_ns: int, metadata: str) -> TiffReader:
    """Return the reader that was pickled; tasks of one process share it."""
    reader = TiffReader.open(path)
    with _input_errors(path):
        _check_unchanged(path, os.stat(path), size, mtime_ns)
    if reader.identity()["metadata"] != metadata:
        raise InputError(f"{path}: its metadata changed since it was opened; start again")
    return reader


def _check_unchanged(path: str, status: os.stat_result, size: int, mtime_ns: int) -> None:
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        raise InputError(
            f"{path}: changed since it was opened (it had {size} bytes, now {status.st_size}; "
            f"modified {(status.st_mtime_ns - mtime_ns) / 1e9:+.3f} s); start again"
        )


def _select_pages(tif: TiffFile, messages: list[str]) -> tuple[list[TiffPage], dict[str, Any]]:
    """Return the pages that are bands: the first of full resolution, and those of its kind if it has one sample.

    tifffile's `series` are not used: they follow names of other files, and change between versions.
    """
    path = str(tif.filehandle.path)
    full: list[TiffPage] = []
    offsets: set[int] = set()
    levels = 0
    for page in tif.pages:
        if not isinstance(page, TiffPage) or page.offset in offsets:
            messages.append(f"directory {len(offsets)} leads back to an earlier one; it ends the file")
            break
        offsets.add(page.offset)
        if len(offsets) > PAGE_LIMIT:
            raise InputError(f"{path}: has more than {PAGE_LIMIT} pages; split the file")
        levels += page.is_reduced and not page.is_mask
        if not page.is_reduced and not page.is_mask:
            full.append(page)
    if not full:
        raise InputError(f"{path}: has no image of full resolution ({len(offsets)} pages); it is no raster")
    first = full[0]
    alike = [page for page in full if page.hash == first.hash and page.planarconfig == first.planarconfig]
    pages = alike if first.samplesperpixel == 1 else alike[:1]
    if len(pages) < len(full):
        messages.append(f"{len(full) - len(pages)} of {len(full)} pages are ignored: bands are pages of one sample")
    return pages, {"pages": len(offsets), "levels": levels + len(first.subifds or ())}


def _parse_layout(pages: list[TiffPage], byteorder: Literal["<", ">"], file_size: int) -> Layout:
    first = pages[0]
    height, width = _integer(first.imagelength, "ImageLength"), _integer(first.imagewidth, "ImageWidth")
    planar, samples = first.planarconfig, _integer(first.samplesperpixel, "SamplesPerPixel")
    if planar not in (1, 2):
        raise InputError(f"{_path(first)}: PlanarConfiguration is {planar}; it must be 1 or 2")
    if first.imagedepth != 1 or first.tiledepth != 1:
        raise InputError(f"{_path(first)}: is a volume (ImageDepth {first.imagedepth}); give its slices as pages")
    rows, columns = first.rowsperstrip, width
    if first.is_tiled:
        rows, columns = first.tilelength, first.tilewidth
    dtype = _parse_dtype(first)
    layout = Layout(
        word="tile" if first.is_tiled else "strip",
        height=height,
        width=width,
        rows=_integer(rows, "RowsPerStrip or TileLength"),
        columns=_integer(columns, "TileWidth"),
        samples=samples if planar == 1 else 1,
        dtype=dtype.newbyteorder(byteorder),
        raw=_is_raw(first, dtype),
        offsets=np.empty((0, 0), np.int64),
        counts=np.empty((0, 0), np.int64),
        tables=tuple(page.jpegtables for page in pages for _ in range(samples if planar == 2 else 1)),
    )
    layout = _locate(layout, pages, file_size)
    _check_limits(layout, _path(first))
    return layout


def _parse_dtype(page: TiffPage) -> np.dtype:
    dtype, bits = page.dtype, page.bitspersample
    name = None if dtype is None else dtype.name
    if dtype is None or not isinstance(bits, int) or (name not in DTYPES and name != "bool") or 1 < bits < 8:
        kind = getattr(page.sampleformat, "name", page.sampleformat)
        raise InputError(
            f"{_path(page)}: samples of {bits} bits, format {kind}, are not supported; rasters are integers or "
            f"floating point of 8 to 64 bits, or 1 bit (convert it: gdal_translate -ot Float32)"
        )
    return dtype


def _is_raw(page: TiffPage, dtype: np.dtype) -> bool:
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1 and not page.is_subsampled
    return plain and dtype.kind != "b" and page.bitspersample == dtype.itemsize * 8


def _locate(layout: Layout, pages: list[TiffPage], file_size: int) -> Layout:
    """Return the layout with offsets and counts, all of them checked to lie inside the file."""
    planes = len(layout.tables) // len(pages)
    num_segments = layout.across * layout.down
    path = _path(pages[0])
    offsets = _table([page.dataoffsets for page in pages], planes * num_segments, path).reshape(-1, num_segments)
    counts = _table([page.databytecounts for page in pages], planes * num_segments, path).reshape(-1, num_segments)
    if layout.raw:
        rows = np.full(layout.down, layout.rows)
        if layout.word == "strip":
            rows[-1] = layout.height - (layout.down - 1) * layout.rows
        due = np.repeat(rows.astype(object) * layout.row_bytes, layout.across)
        due = np.minimum(due, file_size + 1).astype(np.int64)
        counts = np.where(counts == 0, due, np.minimum(counts, due))  # some writers leave 0, some count too much
    counts = np.where(offsets == 0, 0, counts)
    beyond = np.where(counts == 0, 0, offsets + counts)
    if beyond.max() > file_size:
        plane, index = divmod(int(beyond.argmax()), num_segments)
        located = replace(layout, offsets=offsets)
        raise InputError(
            f"{path}: {located.name(plane, index)} ends at byte {beyond.max()}, the file at byte {file_size}: "
            f"it is truncated; copy it again"
        )
    return replace(layout, offsets=offsets, counts=counts)


def _table(values: list[Any], length: int, path: str) -> np.ndarray:
    """Return offsets or counts of all pages, cut off at 2^61: that is beyond any file, and sums do not overflow."""
    for value in values:
        if len(value) < length:
            raise InputError(f"{path}: lists {len(value)} strips or tiles, {length} are due: it is damaged")
    table = np.asarray([value[:length] for value in values])
    if table.dtype.kind not in "iu" or table.min() < 0:
        raise InputError(f"{path}: the offsets of its strips or tiles are not positive integers: it is damaged")
    clipped: np.ndarray = np.minimum(table.astype(np.uint64), np.uint64(2**61)).astype(np.int64)
    return clipped


def _check_limits(layout: Layout, path: str) -> None:
    size = layout.rows * layout.row_bytes
    if not layout.raw and size > SEGMENT_LIMIT_BYTES:
        raise InputError(
            f"{path}: its {layout.word}s of {layout.rows} x {layout.columns} pixels decode to {size:,} bytes each, "
            f"the limit is {SEGMENT_LIMIT_BYTES:,}; write it with smaller ones (gdal_translate -co TILED=YES)"
        )
    largest = int(layout.counts.max())
    if not layout.raw and largest > 2 * SEGMENT_LIMIT_BYTES:
        raise InputError(f"{path}: a compressed {layout.word} of {largest:,} bytes exceeds the limit; it is damaged")


def _decoder(page: TiffPage, layout: Layout) -> Decoder:
    """Return what turns the bytes of a segment into an array (rows, columns, samples); several threads may call it."""
    if page.compression == LERC and page.predictor == 1:
        return functools.partial(_decode_lerc, (-1, layout.columns, layout.samples))
    decode: Callable[..., Any] = page.decode
    try:
        decode(None, 0)
    except Exception as error:
        raise InputError(
            f"{_path(page)}: compression {_codec(page)} cannot be decoded: {_reason(error)}; "
            f"write it with another one (gdal_translate -co COMPRESS=ZSTD)"
        ) from error

    def decode_segment(data: bytes, index: int, tables: bytes | None) -> np.ndarray:
        volume: np.ndarray = decode(data, index, jpegtables=tables)[0]
        segment: np.ndarray = volume[0]
        return segment

    return decode_segment


def _decode_lerc(shape: tuple[int, int, int], data: bytes, index: int, tables: bytes | None) -> np.ndarray:
    """Decode LERC with its mask, which tifffile drops: pixels masked out are NaN, in integers 0, as in libtiff."""
    values: np.ndarray
    mask: np.ndarray | None
    values, mask = imagecodecs.lerc_decode(data, masks=True)
    values = values.reshape(shape)
    if mask is not None and values.dtype.kind == "f":
        masks = np.atleast_3d(mask if mask.ndim == 2 else np.moveaxis(mask, 0, -1))
        values = np.where(masks, values, values.dtype.type(math.nan))
    return values


def _parse_items(pages: list[TiffPage], messages: list[str]) -> geotiff.Items:
    """Return GDAL's items of the bands: the first page's, and of further pages those of their one sample."""
    items = geotiff.parse_items(_metadata(pages[0]), messages)
    for band, page in enumerate(pages[1:], 1):
        own = geotiff.parse_items(_metadata(page), messages)
        items |= {(name, band): text for (name, sample), text in own.items() if sample == 0}
    return items


def _metadata(page: TiffPage) -> dict[int, Any]:
    return {geotiff.GDAL_METADATA: page.tags.valueof(geotiff.GDAL_METADATA)}


def _dims(num_bands: int, layout: Layout) -> tuple[str, ...]:
    if num_bands == 1:
        return ("y", "x")
    return ("band", "y", "x") if len(layout.offsets) > 1 else ("y", "x", "band")


def _describe(tif: TiffFile, pages: list[TiffPage], layout: Layout) -> dict[str, Any]:
    first = pages[0]
    size = f"{layout.rows} x {layout.columns}" if layout.word == "tile" else f"of {layout.rows} rows"
    predictor = getattr(first.predictor, "name", str(first.predictor)).lower()
    return {
        "format": "BigTIFF" if tif.is_bigtiff else "TIFF",
        "codec": _codec(first),
        "predictor": None if first.predictor == 1 else predictor,
        "layout": f"{layout.word}s {size}",
        "planar": "pages" if len(pages) > 1 else "separate" if first.planarconfig == 2 else "contiguous",
        "byteorder": "little" if tif.byteorder == "<" else "big",
    }


def _codec(page: TiffPage) -> str:
    name = getattr(page.compression, "name", str(page.compression)).lower()
    return {"adobe_deflate": "deflate"}.get(name, name)


def _metadata_hash(tif: TiffFile, pages: list[TiffPage], spec: RasterSpec, layout: Layout) -> str:
    digest = hashlib.sha256(f"{tif.byteorder} {tif.is_bigtiff} {spec.dtype} {spec.shape}".encode())
    for page in pages:
        for tag in page.tags.values():
            if tag.code in IDENTITY_TAGS:
                value = tag.value.tolist() if isinstance(tag.value, np.ndarray) else tag.value
                digest.update(f"{tag.code} {int(tag.dtype)} {tag.count} {_plain(value)!r};".encode())
    digest.update(layout.offsets.astype("<i8").tobytes())
    digest.update(layout.counts.astype("<i8").tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return a tag's value without enums, whose names change between versions."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else value


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)


def _path(page: TiffPage) -> str:
    return str(page.parent.filehandle.path)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")


@contextlib.contextmanager
def _input_errors(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an InputError: tifffile raises anything on a damaged one."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except tifffile.TiffFileError as error:
        known = "not a TIFF file" in str(error) or "invalid TIFF version" in str(error)
        fact = "is not a TIFF file" if known else f"is not a readable TIFF file: {_reason(error)}"
        raise InputError(f"{path}: {fact}; check the path, or copy it again") from error
    except Exception as error:
        raise InputError(f"{path}: is not a readable TIFF file: {_reason(error)}; copy it again") from error


@contextlib.contextmanager
def _logged(messages: list[str]) -> Iterator[None]:
    """Collect what tifffile logs in this thread instead of letting it reach stderr."""
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        text = record.getMessage()
        if record.levelno >= logging.WARNING and "GDAL_NODATA" not in text and len(messages) < WARNING_LIMIT:
            messages.append(f"tifffile: {text[:300]}")
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
