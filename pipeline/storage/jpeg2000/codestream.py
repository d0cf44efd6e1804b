"""The codestream of JPEG 2000 (ISO/IEC 15444-1, annex A): where its tiles lie, and each as a codestream of its own.

A tile alone is the main header with a SIZ that spans this tile, its tile-parts, renumbered, and an end: coordinates of
the canvas stay, and with them the phases of the wavelets, so that it decodes to the same pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.model.errors import InputError
from pipeline.model.region import Region

Read = Callable[[int, int], bytes]
"""Bytes of the file from an offset on, so many."""
SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
"""How a file of boxes begins, and how a codestream without such."""
RAW = b"\xff\x4f\xff\x51"
SOC, SIZ, TLM, PLM, PPM, COM, SOT, EOC = 0xFF4F, 0xFF51, 0xFF55, 0xFF57, 0xFF60, 0xFF64, 0xFF90, 0xFFD9
LEFT_OUT = (TLM, PLM, COM)
"""Of the main header: what speaks of all tiles, and comments."""
HEADER_BYTES = 2**20
TILES_LIMIT = 2**20
SIZ_FORM = ">HIIIIIIIIH"
SOT_BYTES = 12


def is_jpeg2000(head: bytes) -> bool:
    """Return whether a file that begins so is JPEG 2000."""
    return head.startswith((SIGNATURE, RAW))


class Component(NamedTuple):
    """What the values of a band are."""

    bits: int
    is_signed: bool
    steps: tuple[int, int]
    """Pixels of the canvas to one of its own, across and down."""


class Size(NamedTuple):
    """The canvas: ends and beginnings of the image and of its tiles."""

    capabilities: int
    right: int
    bottom: int
    left: int
    top: int
    tile_width: int
    tile_height: int
    tile_left: int
    tile_top: int
    num_components: int


@dataclass(frozen=True)
class Codestream:
    """A codestream whose tiles are found."""

    size: Size
    components: tuple[Component, ...]
    tail: bytes
    """The main header behind SIZ."""
    tiles: tuple[tuple[tuple[int, int], ...], ...]
    """Offset in the file and bytes of the tile-parts of each tile."""

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across."""
        size = self.size
        down = -(-(size.bottom - size.tile_top) // size.tile_height)
        return down, -(-(size.right - size.tile_left) // size.tile_width)

    def region(self, index: int) -> Region:
        """Return the pixels of a tile, counted from the first of the image."""
        size = self.size
        row, column = divmod(index, self.grid[1])
        top, left = size.tile_top + row * size.tile_height, size.tile_left + column * size.tile_width
        whole = Region(size.top, size.bottom, size.left, size.right)
        part = Region(top, top + size.tile_height, left, left + size.tile_width).clip(whole)
        return part.shift(-size.top, -size.left)

    def meeting(self, region: Region) -> list[int]:
        """Return the tiles that a region of the image meets."""
        size, across = self.size, self.grid[1]
        down, right = size.top - size.tile_top, size.left - size.tile_left
        rows = range((region.top + down) // size.tile_height, -(-(region.bottom + down) // size.tile_height))
        columns = range((region.left + right) // size.tile_width, -(-(region.right + right) // size.tile_width))
        return [row * across + column for row in rows for column in columns]

    def alone(self, index: int, parts: list[bytes]) -> bytes:
        """Return a tile as a codestream of its own; `parts` are its tile-parts as they are stored."""
        place, size = self.region(index).shift(self.size.top, self.size.left), self.size
        row, column = divmod(index, self.grid[1])
        own = size._replace(
            right=place.right,
            bottom=place.bottom,
            left=place.left,
            top=place.top,
            tile_left=size.tile_left + column * size.tile_width,
            tile_top=size.tile_top + row * size.tile_height,
        )
        kinds = b"".join(bytes(((each.is_signed << 7) | (each.bits - 1), *each.steps)) for each in self.components)
        head = struct.pack(">HHH", SOC, SIZ, 2 + struct.calcsize(SIZ_FORM) + len(kinds)) + struct.pack(SIZ_FORM, *own)
        numbered = [part[:4] + b"\0\0" + part[6:] for part in parts]  # all of them are of the only tile
        return b"".join([head, kinds, self.tail, *numbered, struct.pack(">H", EOC)])


def parse_codestream(read: Read, start: int, stop: int, path: str) -> Codestream:
    """Find the tiles of a codestream that lies from `start` to `stop` in a file.

    Raises
    ------
    InputError
        It is damaged, or of a kind that is not read tile by tile.
    """
    head = read(start, min(HEADER_BYTES, stop - start))
    size, components, place = _parse_size(head, path)
    kept = []
    while True:
        marker, length = _unpack(">HH", head, place, path)
        if marker == SOT:
            break
        if marker == PPM:
            raise InputError(f"{path}: JPEG 2000 with the headers of all packets in front (PPM) is not read")
        if marker < 0xFF00 or length < 2 or place + 2 + length > len(head):
            raise _damaged(path, "its main header does not end")
        kept += [head[place : place + 2 + length]] if marker not in LEFT_OUT else []
        place += 2 + length
    num_tiles = -(-(size.bottom - size.tile_top) // size.tile_height) * -(
        -(size.right - size.tile_left) // size.tile_width
    )
    if num_tiles > TILES_LIMIT:
        raise InputError(f"{path}: has {num_tiles:,} tiles, at most {TILES_LIMIT:,} are read")
    tiles = _find_parts(read, start + place, stop, num_tiles, path)
    return Codestream(size, components, b"".join(kept), tiles)


def _parse_size(head: bytes, path: str) -> tuple[Size, tuple[Component, ...], int]:
    """Return the canvas, its components, and where the rest of the main header begins."""
    soc, siz, length = _unpack(">HHH", head, 0, path)
    if (soc, siz) != (SOC, SIZ):
        raise _damaged(path, "it does not begin as a codestream")
    size = Size(*_unpack(SIZ_FORM, head, 6, path))
    first = 6 + struct.calcsize(SIZ_FORM)
    if length != 2 + struct.calcsize(SIZ_FORM) + 3 * size.num_components or not 0 < size.num_components <= 16384:
        raise _damaged(path, f"it says {size.num_components} components in a marker of {length} bytes")
    components = []
    for number in range(size.num_components):
        kind, across, down = _unpack(">BBB", head, first + 3 * number, path)
        components.append(Component((kind & 0x7F) + 1, bool(kind & 0x80), (across, down)))
    is_sound = size.left < size.right and size.top < size.bottom and size.tile_width and size.tile_height
    is_placed = size.tile_left <= size.left < size.tile_left + size.tile_width
    if not (is_sound and is_placed and size.tile_top <= size.top < size.tile_top + size.tile_height):
        raise _damaged(path, f"its sides make no sense: {tuple(size)}")
    return size, tuple(components), first + 3 * size.num_components


def _find_parts(
    read: Read, place: int, stop: int, num_tiles: int, path: str
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return where the tile-parts of each tile lie."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(num_tiles)]
    while place + SOT_BYTES <= stop:
        marker, length, index, count, _, _ = _unpack(">HHHIBB", read(place, SOT_BYTES), 0, path)
        if marker == EOC:
            break
        count = count or stop - 2 - place  # the last one may leave its length open
        if marker != SOT or length != 10 or index >= num_tiles or count < SOT_BYTES + 2 or place + count > stop:
            raise _damaged(path, f"no part of a tile begins at byte {place:,}")
        found[index].append((place, count))
        place += count
    if not all(found):
        raise _damaged(path, f"it has no part of tile {found.index([])}, of {num_tiles}")
    return tuple(map(tuple, found))


def _unpack(form: str, data: bytes, place: int, path: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, place)
    except struct.error:
        raise _damaged(path, "it ends too early") from None


def _damaged(path: str, words: str) -> InputError:
    return InputError(f"{path}: the JPEG 2000 codestream is damaged: {words}; copy the file again")
