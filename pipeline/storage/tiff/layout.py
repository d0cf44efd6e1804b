"""Where the strips or tiles of a TIFF file lie, how they are stored, and whether all of that can be true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from tifffile import TiffPage

from pipeline.model.errors import InputError
from pipeline.model.raster import DTYPES
from pipeline.model.read_limits import ReadLimits, allowed_bytes
from pipeline.model.region import Region

RAW_READ_BYTES = 2**20
"""What one read of an uncompressed segment takes at most, and the size of the chunks it is said to have."""


YCBCR, PACKBITS = 6, 32773
BYTES = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)
"""None, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard, Pixtiff: as much is decoded as asked for."""
OLD_JPEG, JPEG_STREAM, JPEG_Q_TABLES = 6, 513, 519
PREDICTED = (5, 8, 32946, 34925, 34926, 50000, 50013)
COUNTS = (279, 325)
INTEGERS = (1, 3, 4, 6, 8, 9, 13, 16, 17, 18)
"""TIFF's types of whole numbers."""


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
    def rows_stored(self) -> np.ndarray:
        """Rows of each row of segments; the last strip has fewer, where tiles are filled up."""
        rows = np.full(self.down, self.rows)
        if self.word == "strip":
            rows[-1] = self.height - (self.down - 1) * self.rows
        return rows

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


def parse_layout(
    pages: list[TiffPage], byteorder: Literal["<", ">"], file_size: int, limits: ReadLimits, messages: list[str]
) -> Layout:
    """Return how the pages that are bands are stored; raise InputError where they cannot be read so."""
    first = pages[0]
    height, width = positive(first.imagelength, "ImageLength"), positive(first.imagewidth, "ImageWidth")
    planar, samples = first.planarconfig, positive(first.samplesperpixel, "SamplesPerPixel")
    if planar not in (1, 2):
        raise InputError(f"{path_of(first)}: PlanarConfiguration is {planar}; it must be 1 or 2")
    if first.imagedepth != 1 or first.tiledepth != 1:
        raise InputError(f"{path_of(first)}: is a volume (ImageDepth {first.imagedepth}); give its slices as pages")
    rows, columns = first.rowsperstrip, width
    if first.is_tiled:
        rows, columns = first.tilelength, first.tilewidth
    dtype = _parse_dtype(first)
    _check_colors(first)
    _check_jpeg(first)
    layout = Layout(
        word="tile" if first.is_tiled else "strip",
        height=height,
        width=width,
        rows=positive(rows, "RowsPerStrip or TileLength"),
        columns=positive(columns, "TileWidth"),
        samples=samples if planar == 1 else 1,
        dtype=dtype.newbyteorder(byteorder),
        raw=_is_raw(first, dtype),
        offsets=np.empty((0, 0), np.int64),
        counts=np.empty((0, 0), np.int64),
        tables=tuple(page.jpegtables for page in pages for _ in range(samples if planar == 2 else 1)),
    )
    layout = _locate(layout, pages, file_size, messages)
    if not layout.raw:
        _check_limits(layout, path_of(first), limits)
    return layout


def _parse_dtype(page: TiffPage) -> np.dtype:
    dtype, bits = page.dtype, page.bitspersample
    name = None if dtype is None else dtype.name
    packed = isinstance(bits, int) and 1 < bits < 8 and name != "uint8"
    if dtype is None or not isinstance(bits, int) or (name not in DTYPES and name != "bool") or packed:
        kind = getattr(page.sampleformat, "name", page.sampleformat)
        raise InputError(
            f"{path_of(page)}: samples of {bits} bits, format {kind}, are not supported; rasters are integers or "
            f"floating point of 8 to 64 bits, or unsigned of fewer (convert it: gdal_translate -ot Float32)"
        )
    return np.dtype(name)  # C has two kinds of 64 bits, of which Zarr knows one


def _check_colors(page: TiffPage) -> None:
    """Refuse samples that are not red, green and blue though the colours are: codecs of images make these of them."""
    if page.photometric == YCBCR and page.samplesperpixel > 1 and page.compression in BYTES:
        raise InputError(
            f"{path_of(page)}: its samples are luminance and differences of colour (YCbCr, {codec_of(page)}), not red, "
            "green and blue; write these: gdal_translate -co PHOTOMETRIC=RGB, or -co COMPRESS=JPEG"
        )


def settle_predictor(page: TiffPage, messages: list[str]) -> None:
    """Take the Predictor tag for what it means: libtiff knows it with LZW, Deflate, LZMA and Zstandard alone.

    tifffile undoes it with any codec, and is the one that writes it with PackBits.
    """
    predictor, codec = int(page.predictor), int(page.compression)
    if predictor == 1:
        return
    if codec == PACKBITS and "tifffile" in str(page.software):
        messages.append(
            "the predictor is undone: tifffile wrote the file and means it so; of PackBits, GDAL ignores it"
        )
    elif codec not in PREDICTED:
        messages.append(f"the Predictor tag ({predictor}) is ignored, as GDAL does: compression {codec_of(page)}")
        page.predictor = 1
    elif predictor == 3 and page.dtype is not None and page.dtype.kind != "f":
        raise InputError(
            f"{path_of(page)}: Predictor is 3, which is for floating point, and its samples are {page.dtype}; "
            "write the file again"
        )
    elif predictor == 2 and page.bitspersample not in (8, 16, 32, 64):
        raise InputError(
            f"{path_of(page)}: Predictor is 2, which is for whole bytes, and its samples have {page.bitspersample} "
            "bits; write the file again"
        )


def _check_jpeg(page: TiffPage) -> None:
    """Refuse JPEG as in TIFF 6.0 where its tables stand apart from the strips."""
    if page.compression == OLD_JPEG and not page.tags.valueof(JPEG_STREAM) and page.tags.get(JPEG_Q_TABLES) is not None:
        raise InputError(
            f"{path_of(page)}: is old-style JPEG with its tables apart, which is not read; "
            "write it with another compression: gdal_translate -co COMPRESS=JPEG"
        )


def _is_raw(page: TiffPage, dtype: np.dtype) -> bool:
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1 and not page.is_subsampled
    return plain and dtype.kind != "b" and page.bitspersample == dtype.itemsize * 8


def _locate(layout: Layout, pages: list[TiffPage], file_size: int, messages: list[str]) -> Layout:
    """Return the layout with offsets and counts, all of them checked to lie inside the file.

    Counts that are missing, or 0 where there is an offset, are estimated: the segment ends where the next one begins.
    """
    planes = len(layout.tables) // len(pages)
    num_segments = layout.across * layout.down
    path = path_of(pages[0])
    offsets = _table([page.dataoffsets for page in pages], planes * num_segments, path).reshape(-1, num_segments)
    listed = [_listed_counts(page, planes * num_segments) for page in pages]
    counts = _table(listed, planes * num_segments, path).reshape(-1, num_segments)
    if not layout.raw and ((counts == 0) & (offsets > 0)).any():
        messages.append("StripByteCounts or TileByteCounts are missing or 0, and estimated as in libtiff")
        places = [place for page in pages for place in (page.offset, *(tag.valueoffset for tag in page.tags))]
        ends = np.unique([*offsets.ravel().tolist(), *places, file_size])
        room = ends[np.searchsorted(ends, offsets, "right").clip(max=len(ends) - 1)] - offsets
        counts = np.where(counts == 0, room.clip(0, 2 * layout.rows * layout.row_bytes + RAW_READ_BYTES), counts)
    if layout.raw:
        due = np.repeat(layout.rows_stored.astype(object) * layout.row_bytes, layout.across)
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


def _listed_counts(page: TiffPage, length: int) -> list[int]:
    """Return the counts of a page's segments, 0 where it lists none."""
    tag = next((page.tags[code] for code in COUNTS if page.tags.get(code) is not None), None)
    if tag is None:
        return [0] * length
    if int(tag.dtype) not in INTEGERS:
        kind = getattr(tag.dtype, "name", tag.dtype)
        raise InputError(f"{path_of(page)}: {tag.name} is of type {kind}, no whole numbers: it is damaged")
    return [int(count) for count in page.databytecounts]


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


def _check_limits(layout: Layout, path: str, limits: ReadLimits) -> None:
    """Raise InputError where segments, which are decoded whole, are too large or claim too much."""
    what = f"{path}: {layout.word}s of {layout.rows} x {layout.columns} pixels"
    limits.check_tile(what, layout.rows * layout.row_bytes, "write it with smaller ones (gdal_translate -co TILED=YES)")
    largest = int(layout.counts.max())
    if largest > allowed_bytes(limits.tile_bytes):
        raise InputError(
            f"{path}: a {layout.word} has {largest:,} stored bytes, the limit is {allowed_bytes(limits.tile_bytes):,}; "
            "raise run.limits.tile_bytes, or copy the file again"
        )
    rows = np.tile(np.repeat(layout.rows_stored, layout.across), (len(layout.counts), 1))
    ratios = np.where(layout.counts > 0, rows / np.maximum(1, layout.counts), 0)
    plane, index = divmod(int(ratios.argmax()), ratios.shape[1])
    if stored := int(layout.counts[plane, index]):
        decoded = int(rows[plane, index]) * layout.row_bytes
        limits.check_ratio(f"{path}: {layout.name(plane, index)}", decoded, stored)


def positive(value: Any, name: str) -> int:
    """Return a tag's value that must be a positive integer; raise ValueError where it is not."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)


def path_of(page: TiffPage) -> str:
    """Return the path of the file that holds a page."""
    return str(page.parent.filehandle.path)


def codec_of(page: TiffPage) -> str:
    """Return the name of a page's compression."""
    name = getattr(page.compression, "name", str(page.compression)).lower()
    return {"adobe_deflate": "deflate"}.get(name, name)
