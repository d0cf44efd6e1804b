"""How a raster that is written as a GeoTIFF is cut into tiles and levels, and what of the memory that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.kernels.overview import Resampling
from pipeline.model.raster import RasterSpec
from pipeline.storage.pyramid import Pyramid, Walk, depth, plan_walk

TILE_SIDE, LARGE_TILE_SIDE = 256, 512
LARGE = 4096
"""Rows and columns from which on tiles are large."""
TILE_BYTES = 2**21
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Tiling:
    """A raster as tiles, with its overviews."""

    walk: Walk

    @property
    def pyramid(self) -> Pyramid:
        return self.walk.pyramid

    @property
    def spec(self) -> RasterSpec:
        return self.walk.pyramid.spec

    @property
    def side(self) -> int:
        return self.pyramid.tile[0]

    @property
    def is_planar(self) -> bool:
        """Whether each band has tiles of its own: as the bands lie in the store."""
        return _is_planar(self.spec)

    @property
    def samples(self) -> int:
        """Bands in a tile."""
        return 1 if self.is_planar else self.spec.num_bands

    @property
    def tile_bytes(self) -> int:
        return self.side * self.side * self.samples * self.spec.dtype.itemsize

    @property
    def levels(self) -> range:
        """Full resolution, which is 0, and the overviews."""
        return range(self.pyramid.num_levels + 1)

    def num_tiles(self, level: int) -> int:
        return math.prod(self.pyramid.grid(level)) * (self.spec.num_bands // self.samples)

    @property
    def num_values(self) -> int:
        """Values of all levels, as they are stored: tiles at the edges are filled up."""
        return sum(map(self.num_tiles, self.levels)) * self.side * self.side * self.samples

    @property
    def num_bytes(self) -> int:
        """What writing takes of the memory: pieces, and a tile of each thread before and after compression."""
        return self.walk.num_bytes + 3 * self.walk.threads * self.tile_bytes


def plan_tiles(
    spec: RasterSpec,
    chunk: tuple[int, int],
    threads: int,
    memory_bytes: int,
    resampling: Resampling | None = "average",
) -> Tiling:
    """Return the tiling that decodes the chunks of a store seldom, within a memory, if the smallest fits.

    Overviews go down to one tile; None: there are none.
    """
    side = LARGE_TILE_SIDE if min(spec.height, spec.width) >= LARGE else TILE_SIDE
    samples = 1 if _is_planar(spec) else spec.num_bands
    while side > SMALLEST_SIDE and (
        side * side * samples * spec.dtype.itemsize > TILE_BYTES or side >= 2 * max(spec.height, spec.width)
    ):
        side //= 2
    tile = (side, side)
    pyramid = Pyramid(spec, tile, depth(spec, tile) if resampling else 0, resampling or "nearest")
    return Tiling(
        plan_walk(pyramid, chunk, threads, memory_bytes - 3 * threads * side * side * samples * spec.dtype.itemsize)
    )


def _is_planar(spec: RasterSpec) -> bool:
    return spec.dims[0] == "band" and spec.num_bands > 1
