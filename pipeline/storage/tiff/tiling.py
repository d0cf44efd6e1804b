"""How a raster that is written as a GeoTIFF is cut into tiles, and how much of it is read at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region

TILE_SIDE, LARGE_TILE_SIDE = 256, 512
LARGE = 4096
"""Rows and columns from which on tiles are large."""
TILE_BYTES = 2**21
SMALLEST_SIDE = 64
WAITING = 3
"""Tiles a thread that wait to be compressed or written."""


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
