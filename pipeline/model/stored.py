"""A raster as it is stored, or is to be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region


@dataclass(frozen=True)
class StoredArray:
    """A raster that is written: how it is stored (shapes in its dims), and whether it belongs to the result."""

    raster: str
    """Its id, and its path in a store."""
    spec: RasterSpec
    """Over the whole raster; the stored array spans `region` of it."""
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str
    region: Region
    is_kept: bool = True
    """False: only the run needs it."""

    @property
    def stored(self) -> RasterSpec:
        """The stored array as a raster of its own."""
        return with_region(self.spec, self.region)

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of what is written whole: a shard, else a chunk."""
        sizes = dict(zip(self.spec.dims, self.shards or self.chunks, strict=True))
        return sizes["y"], sizes["x"]

    @property
    def num_bytes(self) -> int:
        return self.region.num_pixels * self.spec.pixel_bytes

    @property
    def num_chunks(self) -> int:
        return math.prod(-(-n // c) for n, c in zip(self.spec.shape_of(self.region), self.chunks, strict=True))

    def files(self, region: Region) -> Iterator[str]:
        """Yield the files of a region, in rows and columns of the stored array, by their names in the store."""
        first = {"y": region.top, "x": region.left, "band": 0}
        stop = {"y": region.bottom, "x": region.right, "band": self.spec.num_bands}
        sides = zip(self.spec.dims, self.shards or self.chunks, strict=True)
        places = (range(first[dim] // side, -(-stop[dim] // side)) for dim, side in sides)
        for place in product(*places):
            yield "/".join([self.raster, "c", *map(str, place)])


@dataclass(frozen=True)
class StoredLevels:
    """The levels of a stored raster, below full resolution."""

    arrays: tuple[StoredArray, ...]
    """`smooth/1/mean`, `smooth/2/mean`, ... of `smooth/mean`."""
    resampling: str

    @property
    def num_bytes(self) -> int:
        return sum(array.num_bytes for array in self.arrays)


def level_name(raster: str, level: int) -> str:
    """Return the id of a level of a raster.

    Examples
    --------
    >>> level_name("smooth/mean", 2)
    'smooth/2/mean'
    """
    group, _, name = raster.rpartition("/")
    return f"{group}/{level}/{name}".lstrip("/") if level else raster


def with_region(spec: RasterSpec, region: Region) -> RasterSpec:
    """Return the spec of a part of a raster, its place moved along."""
    moved = spec.transform and spec.transform.shift(region.top, region.left)
    recorded = spec.recorded and spec.recorded.cut(region.top, region.left)
    return replace(spec, height=region.height, width=region.width, transform=moved, recorded=recorded)
