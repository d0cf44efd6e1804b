"""Which rows the command has, by number."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.rounds import Row
from benchmarks.rows import colors, files, labels, operations, series, zones


@dataclass(frozen=True)
class Options:
    """What the command was asked for."""

    size: int
    scenes: files.Scenes


def window_rows(options: Options) -> Iterator[Row]:
    for size in (3, 15, 101):
        yield from operations.mean_kernels(size)


def gabor_rows(options: Options) -> Iterator[Row]:
    image = operations.scene(options.size)
    yield from operations.gabor(image)
    yield operations.gabor_bank(image[:2000, :2000].copy())


def label_rows(options: Options) -> Iterator[Row]:
    yield labels.label_means(options.size, 10_000, 3)
    yield labels.label_means(options.size, min(1_000_000, options.size**2 // 25), 16)
    yield from files.label_files(options.scenes)


def color_rows(options: Options) -> Iterator[Row]:
    side = min(options.size, 2000)
    yield colors.nearest_colors(colors.photograph(side, enlarged=False), 256)
    yield colors.nearest_colors(colors.mixed_scene(side, 16), 256)
    yield colors.nearest_colors(colors.mixed_scene(side // 2, 16), 1024)


def palette_rows(options: Options) -> Iterator[Row]:
    yield colors.palette(colors.photograph(options.size, enlarged=False), "a photograph mirrored")
    yield colors.palette(colors.photograph(options.size, enlarged=True), "a photograph enlarged")


def difference_rows(options: Options) -> Iterator[Row]:
    yield from operations.differences(operations.scene(options.size))


def median_rows(options: Options) -> Iterator[Row]:
    image = operations.scene(min(options.size, 1000))
    for size in (5, 15, 41):
        yield operations.median(operations.counts(image), size)
        yield operations.median(image, size)


def thread_rows(options: Options) -> Iterator[Row]:
    yield from files.threads(options.scenes)
    yield operations.gabor_threads(operations.scene(options.size))


def geotiff_rows(options: Options) -> Iterator[Row]:
    if importlib.util.find_spec("rasterio"):
        from benchmarks.rows import geotiff

        yield from geotiff.rows(options.scenes.path("geotiff"), options.size)


def remote_rows(options: Options) -> Iterator[Row]:
    if importlib.util.find_spec("rasterio") and importlib.util.find_spec("obstore"):
        from benchmarks.rows import remote

        yield from remote.rows(options.scenes.path("remote"), options.size)


def mosaic_rows(options: Options) -> Iterator[Row]:
    if importlib.util.find_spec("rasterio"):
        from benchmarks.rows import mosaic

        yield from mosaic.rows(options.scenes.path("mosaic"), options.size)


def zone_rows(options: Options) -> Iterator[Row]:
    if all(importlib.util.find_spec(library) for library in ("rasterio", "rasterstats", "exactextract")):
        yield from zones.zone_rows(options.scenes)


ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "1": lambda options: files.means(options.scenes),
    "3": window_rows,
    "4": gabor_rows,
    "5": label_rows,
    "6": color_rows,
    "7": palette_rows,
    "8": difference_rows,
    "9": median_rows,
    "10": lambda options: files.all_systems(options.scenes),
    "11": thread_rows,
    "12": lambda options: files.starts(options.scenes.folder),
    "13": lambda options: files.sizes(options.scenes),
    "14": geotiff_rows,
    "15": lambda options: files.levels(options.scenes),
    "16": remote_rows,
    "17": mosaic_rows,
    "18": lambda options: series.composites(options.scenes),
    "19": zone_rows,
    "20": lambda options: zones.object_rows(options.scenes),
    "21": lambda options: zones.percentile_rows(options.scenes),
}
"""Row 2 comes with row 1."""
