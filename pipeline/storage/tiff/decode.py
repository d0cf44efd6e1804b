"""From the stored bytes of a strip or tile to pixels, however large the bytes say that it is.

Codecs of plain bytes are told by tifffile how much to decode at most. An image codec makes what the image's own
header asks for: so that is compared with the tags before.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
from tifffile import TIFF, TiffPage

from pipeline.model.errors import InputError
from pipeline.model.read_limits import allowed_bytes
from pipeline.storage.library import reason
from pipeline.storage.tiff.layout import BYTES, RAW_READ_BYTES, Layout, codec_of, path_of

CCITT = (2, 3, 4)
LZW, LERC, WEBP = 5, 34887, (34927, 50001)
JPEG = (6, 7, 33007, 34892)
JPEG2000 = (33003, 33004, 33005, 34712)
IMAGES = (*WEBP, 22610, 34933, 34934, 50002, 52546)
"""WebP, JPEG XR, PNG, JPEG XL: they refuse to decode into an array of another shape."""
JPEG_OF_PLANES = 7
FLOATING_POINT = 3
"""The predictor whose bytes are in an order of their own."""
ROWS_PER_STRIP, PADDED = 278, 8
"""How many times the raster's rows a single strip may be filled up to."""
ZSTD_MAGIC, ZLIB_MAGIC = b"\x28\xb5\x2f\xfd", b"\x78"
"""What LERC may be wrapped in."""
SIZ = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: its size follows."""

Decoder = Callable[[bytes, int, bytes | None], np.ndarray]


def make_decoder(page: TiffPage, layout: Layout) -> Decoder:
    """Return what turns the bytes of a segment into an array (rows, columns, samples); several threads may call it.

    The array holds until the thread decodes another segment.
    """
    codec = int(page.compression)
    if codec == LERC and page.predictor == 1:
        return functools.partial(_decode_lerc, layout)
    try:
        if codec not in (*BYTES, *IMAGES, *JPEG, *JPEG2000):
            raise ValueError(f"{codec} is none of those that are read")
        decode: Callable[..., Any] = page.decode
        decode(None, 0)
    except Exception as error:
        raise InputError(
            f"{path_of(page)}: compression {codec_of(page)} cannot be decoded: {reason(error)}; "
            f"write it with another one (gdal_translate -co COMPRESS=ZSTD)"
        ) from error
    if codec in IMAGES:
        return functools.partial(_decode_image, _image_codec(codec, layout), layout)
    sizes = {**dict.fromkeys(JPEG, _jpeg_sizes), **dict.fromkeys(JPEG2000, _jpeg2000_sizes)}.get(codec)

    def decode_segment(data: bytes, index: int, tables: bytes | None) -> np.ndarray:
        for height, width in sizes(data) if sizes else ():
            _check_size(height, width, layout)
        volume: np.ndarray = decode(data, index, jpegtables=tables)[0]
        segment: np.ndarray = volume[0]
        return segment

    if codec == JPEG_OF_PLANES and page.planarconfig == 2:
        return functools.partial(_decode_grey_jpeg, layout)
    if codec not in BYTES or codec in CCITT or not BytesDecoder.knows(page, layout):
        return decode_segment
    decoder = BytesDecoder(page, layout, decode_segment)
    if codec == LZW:
        from pipeline.storage.tiff.lzw import LzwDecoder  # a kernel: numba is imported for files that need it

        if LzwDecoder.knows(page, layout):
            return LzwDecoder(page, layout, decoder)
    return decoder


class BytesDecoder:
    """Decodes codecs of plain bytes; what it finds odd is decoded by tifffile, or is damaged.

    The last strip may be filled up to whole rows, which tifffile does not expect.
    """

    def __init__(self, page: TiffPage, layout: Layout, otherwise: Decoder) -> None:
        self._layout, self._otherwise = layout, otherwise
        self._bits, self._is_reversed = page.bitspersample, page.fillorder == 2
        self._row_bytes = -(-layout.columns * layout.samples * self._bits // 8)
        self._rows = layout.rows_stored
        self._decompress: Callable[..., Any] = TIFF.DECOMPRESSORS[page.compression]
        self._restore: Any = TIFF.UNPREDICTORS[page.predictor] if page.predictor != 1 else None
        self._dtype = layout.dtype.newbyteorder("=") if page.predictor == FLOATING_POINT else layout.dtype
        said = page.tags.valueof(ROWS_PER_STRIP)
        most = max(PADDED * layout.rows, RAW_READ_BYTES // self._row_bytes)
        padded = min(said, most) if isinstance(said, int) and not page.is_tiled else 0
        self._sizes = [rows * self._row_bytes for rows in dict.fromkeys((layout.rows, max(padded, layout.rows)))]

    @staticmethod
    def knows(page: TiffPage, layout: Layout) -> bool:
        """Return whether samples are whole bytes or less than one, and the predictor is one of TIFF's."""
        is_plain = page.bitspersample == layout.dtype.itemsize * 8 or page.bitspersample < 8
        return is_plain and page.predictor in (1, 2, 3) and not page.is_subsampled

    def __call__(self, data: bytes, index: int, tables: bytes | None) -> np.ndarray:
        layout, stored = self._layout, imagecodecs.bitorder_decode(data) if self._is_reversed else data
        for size, piece in itertools.product(self._sizes, (stored, stored[:-1])):  # which may have been made even
            try:
                decoded = self._decompress(piece, out=size)[:size]
            except Exception:  # of any kind, as the codec has it: there is more than due, or it is damaged
                continue
            rows = len(decoded) // self._row_bytes
            if rows >= self._rows[index // layout.across % layout.down]:
                values = self._unpack(decoded[: rows * self._row_bytes], rows)
                return values if self._restore is None else self._restore(values, axis=-2)
        return self._otherwise(data, index, tables)

    def _unpack(self, decoded: bytes, rows: int) -> np.ndarray:
        """Return whole rows of samples in native order, those of few bits as bytes."""
        layout = self._layout
        if self._bits < 8:
            run = layout.columns * layout.samples
            values = imagecodecs.packints_decode(decoded, np.uint8, self._bits, runlen=run)
        else:
            values = np.frombuffer(decoded, self._dtype).astype(layout.dtype.newbyteorder("="), copy=False)
        return values.reshape(rows, layout.columns, layout.samples)


def _decode_grey_jpeg(layout: Layout, data: bytes, index: int, tables: bytes | None) -> np.ndarray:
    """Decode one band of several: it has no colour space, whatever the bands mean together."""
    for height, width in _jpeg_sizes(data):
        _check_size(height, width, layout)
    values: np.ndarray = imagecodecs.jpeg_decode(data, bitspersample=8 * layout.dtype.itemsize, tables=tables)
    return values.reshape(*values.shape[:2], 1)


def _check_size(height: int, width: int, layout: Layout) -> None:
    if height * width > allowed_bytes(layout.rows * layout.columns):
        raise ValueError(
            f"it holds an image of {height:,} x {width:,} pixels, {layout.rows} x {layout.columns} are due"
        )


def _image_codec(codec: int, layout: Layout) -> Callable[..., np.ndarray]:
    if codec in WEBP and layout.samples == 4:  # an alpha that is opaque everywhere may be left out
        return functools.partial(imagecodecs.webp_decode, hasalpha=True)
    decode: Callable[..., np.ndarray] = TIFF.DECOMPRESSORS[codec]
    return decode


def _decode_image(
    codec: Callable[..., np.ndarray], layout: Layout, data: bytes, index: int, tables: bytes | None
) -> np.ndarray:
    values, shape = _decode_into(functools.partial(codec, data), layout, index)
    return np.reshape(values, shape)


def _decode_into(decode: Callable[..., Any], layout: Layout, index: int) -> tuple[Any, tuple[int, int, int]]:
    """Return what decodes into an array of a shape that the segment may have, and that shape."""
    for shape in _shapes(layout, index):
        out = np.empty(shape if layout.samples > 1 else shape[:2], layout.dtype.newbyteorder("="))
        try:
            return decode(out=out), shape
        except ValueError as error:
            if "out" not in str(error):
                raise
    raise ValueError(f"it holds no image of {layout.rows} x {layout.columns} x {layout.samples} {layout.dtype.name}")


def _shapes(layout: Layout, index: int) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes that a segment may have: whole, or cut off at the raster's edge."""
    row, column = divmod(index % (layout.across * layout.down), layout.across)
    height = min(layout.rows, layout.height - row * layout.rows)
    width = min(layout.columns, layout.width - column * layout.columns)
    yield from dict.fromkeys(
        (h, w, layout.samples) for h, w in ((layout.rows, layout.columns), (height, layout.columns), (height, width))
    )


def _decode_lerc(layout: Layout, data: bytes, index: int, tables: bytes | None) -> np.ndarray:
    """Decode LERC with its mask, which tifffile drops: pixels masked out are NaN, in integers 0, as in libtiff."""
    limit = allowed_bytes(layout.rows * layout.row_bytes)
    if data.startswith(ZSTD_MAGIC):
        data = bytes(imagecodecs.zstd_decode(data, out=limit))
    elif data.startswith(ZLIB_MAGIC):
        data = bytes(imagecodecs.zlib_decode(data, out=limit))
    found, shape = _decode_into(functools.partial(imagecodecs.lerc_decode, data, masks=True), layout, index)
    values: np.ndarray = found[0].reshape(shape)
    mask: np.ndarray | None = found[1]
    if mask is not None and values.dtype.kind == "f":
        masks = np.atleast_3d(mask if mask.ndim == 2 else np.moveaxis(mask, 0, -1))
        values = np.where(masks, values, values.dtype.type(math.nan))
    return values


def _jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield height and width of each frame header of a JPEG image (ITU T.81), up to its first scan."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment follows
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            return
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            yield struct.unpack_from(">HH", data, at + 5)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg2000_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield height and width of all that looks like the head of a JPEG 2000 codestream (ITU T.800)."""
    at = -1
    while (at := data.find(SIZ, at + 1)) >= 0 and at + 24 <= len(data):
        width, height, left, top = struct.unpack_from(">4I", data, at + 8)
        yield max(0, height - top), max(0, width - left)
