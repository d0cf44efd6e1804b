"""Whether a file is as long as its header says, where GDAL fills what is cut off with zeros and says nothing."""

from __future__ import annotations

import math
import os
import struct
from typing import Any, BinaryIO

from pipeline.model.errors import InputError
from pipeline.model.raster import RasterSpec
from pipeline.storage.driver import NETCDF, WITH_HEADER

RAW = (*WITH_HEADER, "PCRaster")
STREAMING = 2**32 - 1
COUNT_LIMIT = 2**20
"""Dimensions, attributes and variables that a header of NetCDF may have."""
NC_BYTES = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)
"""Of each of NetCDF's types, by number."""


def check_length(dataset: Any, spec: RasterSpec, path: str) -> None:
    """Raise InputError where a file is cut off."""
    size, due = os.path.getsize(path), 0
    if dataset.driver in RAW:
        bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * spec.dtype.itemsize))
        due = spec.region.num_pixels * spec.num_bands * bits // 8
    elif dataset.driver == NETCDF:
        with open(path, "rb") as file:
            due = _end_of_netcdf(file) if file.read(3) == b"CDF" else 0
    if size < due:
        raise InputError(f"{path}: has {size:,} bytes, {due:,} are due: it is truncated; copy it again")


def _end_of_netcdf(file: BinaryIO) -> int:
    """Return where the last variable of a file of NetCDF's classic formats ends.

    Source: the grammar of the NetCDF classic format specification (OGC 10-092r3, annex B), and of its 64-bit variants.
    """
    version = file.read(1)[0]
    length, offset = (">Q" if version == 5 else ">I"), (">I" if version == 1 else ">Q")

    def number(form: str = length) -> int:
        data = file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise InputError(f"{file.name}: ends within its header: it is truncated; copy it again")
        return int(struct.unpack(form, data)[0])

    def count() -> int:
        number(">I")
        if (found := number()) > COUNT_LIMIT:
            raise InputError(f"{file.name}: its header has {found:,} entries of a kind: it is damaged; copy it again")
        return found

    def skip(num_bytes: int) -> None:
        file.seek(-(-num_bytes // 4) * 4, 1)

    def skip_attributes() -> None:
        for _ in range(count()):
            skip(number())
            width = NC_BYTES[kind] if (kind := number(">I")) < len(NC_BYTES) else 0
            skip(width * number())

    records = number()
    sides = []
    for _ in range(count()):
        skip(number())
        sides.append(number())
    skip_attributes()
    ends, record_bytes, begins = [0], 0, []
    for _ in range(count()):
        skip(number())
        shape = [sides[i] if i < len(sides) else 0 for i in [number() for _ in range(min(number(), COUNT_LIMIT))]]
        skip_attributes()
        kind, _, begin = number(">I"), number(), number(offset)
        num_bytes = math.prod(side or 1 for side in shape) * (NC_BYTES[kind] if kind < len(NC_BYTES) else 0)
        if 0 in shape:
            record_bytes += -(-num_bytes // 4) * 4
            begins.append((begin, num_bytes))
        else:
            ends.append(begin + num_bytes)
    if len(begins) == 1:  # alone, records are not filled up
        record_bytes = begins[0][1]
    if records not in (0, STREAMING, 2**64 - 1):
        ends += [begin + (records - 1) * record_bytes + num_bytes for begin, num_bytes in begins]
    return max(ends)
