"""A raster read on the finer grid of another: its pixels are repeated a whole number of times down and across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.model.alignment import remedy, repetition
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, array_slices, grid_difference
from pipeline.model.region import Region
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.reader import Reader, Traffic
from pipeline.storage.view import View


class Matched(View):
    """A reader on a grid whose pixels divide those of the file; regions, blocks and halos are of that grid."""

    def __init__(self, reader: Reader, grid: RasterSpec, times: tuple[int, int]) -> None:
        spec = replace(
            reader.spec,
            height=grid.height,
            width=grid.width,
            transform=grid.transform,
            crs=grid.crs,
            unit=grid.unit,
            recorded=replace(recorded_of(reader.spec), tags=recorded_of(grid).tags),
        )
        super().__init__(reader, spec)
        self.times, self.chunk = times, (reader.chunk[0] * times[0], reader.chunk[1] * times[1])

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        down, across = self.times
        spec, own = self.reader.spec, self._own(region)
        shape = list(spec.shape_of(own))
        if bands is not None and "band" in spec.dims:
            shape[spec.dims.index("band")] = len(bands)
        coarse = np.empty(shape, spec.dtype)
        self.reader.read(own, coarse, bands)
        columns = np.arange(region.left, region.right) // across - own.left
        for row in range(own.top, own.bottom):  # row by row: all of it repeated across would take much memory
            part = Region(row * down, (row + 1) * down, region.left, region.right).clip(region)
            line = coarse[array_slices(spec.dims, Region(row, row + 1, own.left, own.right), (own.top, own.left))]
            out[array_slices(spec.dims, part, (region.top, region.left))] = np.take(line, columns, spec.dims.index("x"))

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return self.reader.traffic(self._own(region), bands)

    def _own(self, region: Region) -> Region:
        """Return a region in pixels of the file."""
        down, across = self.times
        return Region(region.top // down, -(-region.bottom // down), region.left // across, -(-region.right // across))

    def describe(self) -> dict[str, Any]:
        times = f"each pixel {self.times[0]} x {self.times[1]} times"
        return self.reader.describe() | {"matched": times}


def match(reader: Reader, grid: RasterSpec, name: str, other: str, path: str) -> Reader:
    """Return a reader on another's grid: itself where it lies there already.

    Raises
    ------
    PipelineError
        Where its pixels are not whole numbers of the other's, with what mends it.
    """
    words = grid_difference(grid, reader.spec)
    if not words:
        return reader
    times = repetition(reader.spec, grid)
    if times is None:
        mend = remedy(name, reader.spec, path, other, grid)
        raise PipelineError(
            f"its pixels are not whole numbers of those of {other!r} ({other} against {name}: {words}); {mend}",
            ("inputs", name, "match"),
        )
    return Matched(reader, grid, times)
