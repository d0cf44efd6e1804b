"""What of a file a region needs: whole segments where they are encoded, rows of them where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.model.errors import InputError
from pipeline.model.region import Region
from pipeline.storage.tiff.layout import RAW_READ_BYTES, Layout

RAW_GAP_BYTES = 2**14
"""Rows that lie further apart than this are read one by one."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a segment, and the pixels that are wanted of them."""

    layout: Layout
    plane: int
    index: int
    """Of the segment in the plane."""
    offset: int
    """In the file."""
    count: int
    pixels: Region
    """Of the raster."""
    inside: Region
    """The same, from the segment's upper left corner on."""

    @property
    def name(self) -> str:
        return self.layout.name(self.plane, self.index)


def stored_parts(layout: Layout, path: str, region: Region, planes: Iterable[int]) -> Iterator[Part]:
    """Yield what is to be read for a region; segments that the file leaves out are none.

    Raises InputError for an uncompressed segment that ends too early.
    """
    for plane in planes:
        for index, cell in layout.meeting(region):
            if layout.counts[plane, index]:
                pixels = cell.clip(region)
                whole = Part(
                    layout,
                    plane,
                    index,
                    int(layout.offsets[plane, index]),
                    int(layout.counts[plane, index]),
                    pixels,
                    pixels.shift(-cell.top, -cell.left),
                )
                if layout.raw:
                    yield from _rows_of(whole, path)
                else:
                    yield whole


def left_out(layout: Layout, region: Region, plane: int) -> Iterator[Region]:
    """Yield the pixels of a region that the file leaves out."""
    for index, cell in layout.meeting(region):
        if not layout.counts[plane, index]:
            yield cell.clip(region)


def _rows_of(whole: Part, path: str) -> Iterator[Part]:
    """Yield an uncompressed segment as some rows at a time; row by row if much lies between them."""
    layout, inside, pitch = whole.layout, whole.inside, whole.layout.row_bytes
    width = inside.width * layout.pixel_bytes
    step = 1 if pitch - width > RAW_GAP_BYTES else max(1, RAW_READ_BYTES // pitch)
    for top in range(inside.top, inside.bottom, step):
        bottom = min(top + step, inside.bottom)
        start, count = top * pitch + inside.left * layout.pixel_bytes, (bottom - top - 1) * pitch + width
        if start + count > whole.count:
            raise InputError(
                f"{path}: {whole.name} is damaged: it has {whole.count} bytes, "
                f"{start + count} are due; copy the file again"
            )
        rows = Region(top, bottom, inside.left, inside.right)
        moved = rows.shift(whole.pixels.top - inside.top, whole.pixels.left - inside.left)
        yield Part(layout, whole.plane, whole.index, whole.offset + start, count, moved, rows)
