"""How a file's blocks are put together into chunks, and what GDAL holds while it decodes one."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.errors import InputError
from pipeline.model.raster import DTYPES, RasterSpec
from pipeline.model.read_limits import ReadLimits, allowed_bytes
from pipeline.storage.driver import HDF5, NETCDF

STRIP_BYTES = 2**20
"""What chunks of a file have whose blocks are rows: as many as this holds."""
LEAST_SIDE = 256
"""Of a chunk of smaller blocks: GDAL takes some 50 us for each request."""
INT32 = 4
CONTAINER_BYTES = 16 * 2**20
"""NetCDF's own cache of chunks, of each open array."""
HEAD_BYTES = 2**16
PNG_INTERLACE, PNG_HEADER = 28, 29
WHOLE = ("WEBP", "GIF")
"""Decoded whole whatever is asked for."""
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
START_OF_FRAME = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


@dataclass(frozen=True)
class Layout:
    """How a raster is decoded."""

    block: tuple[int, int]
    """Rows and columns that the file has together."""
    chunk: tuple[int, int]
    """Whole blocks."""
    decoder_bytes: int
    """What GDAL holds to decode a chunk."""
    is_whole: bool = False
    """All of the raster is decoded at once, and kept by the dataset as long as it is open."""


def parse_layout(dataset: Any, spec: RasterSpec, path: str, limits: ReadLimits) -> Layout:
    """Return how a file is decoded; raise InputError where its blocks are larger than the limits allow."""
    height, width = spec.height, spec.width
    rows, columns = (min(max(1, n), most) for n, most in zip(dataset.block_shapes[0], (height, width), strict=True))
    if is_whole := _is_whole(dataset, path):
        rows, columns = height, width
    samples = 1 if spec.dims[:1] == ("band",) and not is_whole else spec.num_bands
    num_bytes = rows * columns * samples * spec.dtype.itemsize
    limits.check_tile(
        f"{path}: blocks of {rows} x {columns} pixels",
        num_bytes,
        "write it as a tiled TIFF (gdal_translate -co TILED=YES)",
    )
    if columns == width:
        chunk = (min(height, rows * max(1, STRIP_BYTES // (rows * width * spec.pixel_bytes))), width)
    else:
        chunk = (_side(rows, height), _side(columns, width))
    return Layout((rows, columns), chunk, _decoder_bytes(dataset, spec, path, (rows, columns)), is_whole)


def _side(block: int, length: int) -> int:
    return min(length, block * max(1, LEAST_SIDE // block))


def _decoder_bytes(dataset: Any, spec: RasterSpec, path: str, block: tuple[int, int]) -> int:
    """Return what a driver holds to decode one block of all bands, the block itself included."""
    samples = math.prod(block) * spec.num_bands
    decoded = samples * spec.dtype.itemsize
    if dataset.driver == "JP2OpenJPEG":
        tile = _jpeg2000_tile(path)
        stored = allowed_bytes(math.prod(tile) * spec.pixel_bytes) if tile else 2**62
        return decoded + 2 * INT32 * samples + min(os.path.getsize(path), stored)
    if dataset.driver in (NETCDF, *HDF5):
        return 3 * decoded + CONTAINER_BYTES
    return 3 * decoded


def _jpeg2000_tile(path: str) -> tuple[int, int] | None:
    """Return rows and columns of the tiles of a codestream; None where its header is not near the beginning."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 32 > len(head):
        return None
    columns, rows, left, top, tile_columns, tile_rows = struct.unpack(">6I", head[start + 8 : start + 32])
    return min(tile_rows, rows - top), min(tile_columns, columns - left)


def _is_whole(dataset: Any, path: str) -> bool:
    """Return whether a file can only be decoded whole."""
    if dataset.driver in WHOLE:
        return True
    if dataset.driver not in ("PNG", "JPEG"):
        return False
    with open(path, "rb") as file:
        head = file.read(PNG_HEADER)
        if dataset.driver == "PNG":
            return head[PNG_INTERLACE:] == b"\x01"
        file.seek(2)
        while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
            if marker[1] in START_OF_FRAME:
                return marker[1] in PROGRESSIVE
            file.seek(int.from_bytes(marker[2:]) - 2, 1)
    return True


def parse_dtype(dataset: Any, path: str) -> np.dtype:
    """Return the dtype that all bands share."""
    found = tuple(dict.fromkeys(dataset.dtypes))
    if len(found) > 1:
        raise InputError(
            f"{path}: its bands are of different dtypes ({', '.join(map(str, found))}); write them as several files, "
            "or as one dtype: gdal_translate -ot"
        )
    if found[0] not in DTYPES:
        raise InputError(f"{path}: has dtype {found[0]}; rasters are integers or floating point up to 64 bit")
    return np.dtype(str(found[0]))
