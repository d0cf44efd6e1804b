"""The levels of a finished output, and its statistics, made again of its full resolution, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.kernels.statistics import Statistics
from pipeline.model.errors import InputError
from pipeline.model.region import Region
from pipeline.output.exports.geotiff import tiling_of
from pipeline.output.exports.raster import RasterFile
from pipeline.output.job import Job
from pipeline.output.levels import levels_of, walk_of
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.input import Choice
from pipeline.storage.pyramid import Bands, Place, Pyramid, Walk
from pipeline.storage.reader import Reader
from pipeline.storage.tiff.reader import TiffReader
from pipeline.storage.tiff.writer import statistics_differences
from pipeline.storage.zarr.reader import open_written
from pipeline.verbs.expectation import differing_values

SAMPLE_LEVEL = 2
"""Samples are of tiles down to this level: one of the next would take four times as many pixels."""


@dataclass(frozen=True)
class Levels:
    """A raster that lies in levels: how these are made, how each is opened, and what its statistics should say."""

    path: str
    walk: Walk
    open: Callable[[int], Reader]
    differences: Callable[[Statistics], Iterator[str]]


def geotiff_levels(job: Job, file: RasterFile) -> Levels:
    """Return the overviews of a GeoTIFF."""
    path = str(file.path)
    walk = tiling_of(job, file, recorded_of(TiffReader.open(path).spec).colors).walk
    return Levels(
        path,
        walk,
        lambda level: TiffReader.open(path, None, Choice(level=level)),
        partial(statistics_differences, path, walk.pyramid.spec),
    )


def store_levels(job: Job, output: str) -> Iterator[Levels]:
    """Yield the rasters of a store that have levels."""
    for raster, levels in levels_of(job).items():
        names = [raster, *(array.raster for array in levels.arrays)]
        walk = walk_of(job, job.plan.kept[raster], levels)
        yield Levels(f"{output}/{raster}", walk, partial(_open_level, output, names), lambda _: iter(()))


def _open_level(output: str, names: Sequence[str], level: int) -> Reader:
    return open_written(output, names[level])


def level_problems(levels: Levels, samples: int | None, random: np.random.Generator) -> Iterator[str]:
    """Yield where levels are not those of their pixels: in samples, or anywhere (None)."""
    path, walk = levels.path, levels.walk
    try:
        readers = [levels.open(level) for level in range(walk.pyramid.num_levels + 1)]
    except InputError as error:
        yield f"{path}: its overviews cannot be read: {error}"
        return
    for level, reader in enumerate(readers):
        if (found := reader.spec.region) != (due := walk.pyramid.level_spec(level).region):
            sizes = f"{found.height} x {found.width} pixels, and {due.height} x {due.width} are due"
            yield f"{path}: level {level} has {sizes}"
            return
    comparison = _Comparison(walk.pyramid, readers)
    if samples is None:
        for made in walk.run(comparison.read, comparison.compare):
            if isinstance(made, Statistics):
                yield from (f"{path}: {text}" for text in levels.differences(made))
    else:
        comparison.sample(walk, samples, random)
    for level, tiles in sorted(comparison.differing.items()):
        region = walk.pyramid.region(min(tiles))
        words = f"{len(tiles)} tiles differ" if len(tiles) > 1 else "a tile differs"
        yield f"{path}: level {level}: {words} from what is made of full resolution, the first at {region}"


class _Comparison:
    """Takes tiles of levels as a writer would, and compares them with what is stored."""

    def __init__(self, pyramid: Pyramid, levels: Sequence[Reader]) -> None:
        self.pyramid, self.levels = pyramid, levels
        self.differing: dict[int, list[Place]] = {}

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None) -> None:
        self._read(0, region, out, bands)

    def _read(self, level: int, region: Region, out: np.ndarray, bands: Sequence[int] | None) -> None:
        reader = self.levels[level]
        has_all_dims = len(reader.spec.dims) == out.ndim  # a GeoTIFF of one band has no dim of bands
        reader.read(region, out if has_all_dims else out.reshape(region.shape), bands)

    def compare(self, place: Place, bands: Bands, tile: np.ndarray) -> None:
        if not place.level:
            return
        stored = np.empty(tile.shape, tile.dtype)
        every = len(bands) == self.pyramid.spec.num_bands
        self._read(place.level, self.pyramid.region(place), stored, None if every else bands)
        if differing_values(np.ascontiguousarray(tile), stored).any():
            self.differing.setdefault(place.level, []).append(place)

    def sample(self, walk: Walk, number: int, random: np.random.Generator) -> None:
        """Compare the levels of some places."""
        level = min(SAMPLE_LEVEL, self.pyramid.num_levels)
        down, across = self.pyramid.grid(level)
        for _ in range(number if level else 0):
            place = Place(level, int(random.integers(down)), int(random.integers(across)))
            for bands in walk.groups:
                walk.piece(self.read, self.compare, bands, place)
