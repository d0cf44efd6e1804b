"""OME-Zarr images, 0.5 and 0.4: a raster and its levels, written in one pass over its pixels.

Axes are c, y, x, whatever the dims of the raster; a label image, which has no channels, has y, x. The attributes come
last of all: a folder without them is no image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.kernels.overview import Resampling
from pipeline.kernels.statistics import Statistics
from pipeline.model.raster import RasterSpec
from pipeline.model.stored import StoredArray
from pipeline.storage.folder.base import PLAIN_CODECS
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.array_attributes import to_attributes
from pipeline.storage.georeference.ome_format import (
    OmeVersion,
    Window,
    format_channels,
    format_image,
    format_label,
    under_ome,
    window_of,
)
from pipeline.storage.pyramid import Bands, Place, Pyramid, Walk, depth, plan_walk
from pipeline.storage.reader import Reader
from pipeline.storage.view import Ordered
from pipeline.storage.zarr.document import CODECS, compressor, fill_value

SIDE = 512
"""Rows and columns of a chunk where nobody says otherwise: viewers read chunk by chunk."""
SHOWN = (1.0, 99.0)
"""Percentiles of the smallest level between which a channel is shown."""


Sides = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns of a chunk, and of a file: a shard, else a chunk."""


@dataclass(frozen=True)
class OmeForm:
    """How an image is written."""

    name: str
    version: OmeVersion
    resampling: Resampling
    codec: str
    chunk: tuple[int, int]
    """Rows and columns."""
    tile: tuple[int, int]
    """Rows and columns of a file: a shard, else a chunk."""
    is_label: bool = False
    """Whether values are labels of another image."""


def sides_of(array: StoredArray, version: OmeVersion, asked: bool) -> Sides:
    """Return the chunks and the files of the image of a stored raster: sharded where the store is, and 0.5.

    Chunks are those of the store where they were `asked` for.
    """
    sides = dict(zip(array.spec.dims, array.chunks, strict=True))
    rows, columns = (sides[axis] if asked else SIDE for axis in ("y", "x"))
    if array.shards is None or version == "0.4":
        return (rows, columns), (rows, columns)
    down, across = array.unit
    return (rows, columns), (max(1, down // rows) * rows, max(1, across // columns) * columns)


@dataclass(frozen=True)
class OmeImage:
    """An image that is to be written."""

    form: OmeForm
    walk: Walk
    reading_bytes: int = 0
    """Of chunks of which parts are read."""

    @property
    def pyramid(self) -> Pyramid:
        return self.walk.pyramid

    @property
    def spec(self) -> RasterSpec:
        """The raster in the order of the axes."""
        return self.pyramid.spec

    @property
    def num_tiles(self) -> int:
        """How many tiles are written, of all levels and groups of bands."""
        grids = (self.pyramid.grid(level) for level in range(self.pyramid.num_levels + 1))
        return sum(down * across for down, across in grids) * len(self.walk.groups)

    @property
    def num_values(self) -> int:
        """How many values all levels have."""
        return sum(math.prod(self.pyramid.level_spec(level).shape) for level in range(self.pyramid.num_levels + 1))

    @property
    def num_bytes(self) -> int:
        """What writing takes of the memory: beside the walk, tiles are put in order and compressed."""
        values = self.pyramid.tile[0] * self.pyramid.tile[1] * max(map(len, self.walk.groups))
        return self.walk.num_bytes + self.reading_bytes + 3 * self.walk.threads * values * self.spec.dtype.itemsize

    def create(self, folder: Path) -> list[zarr.Array[Any]]:
        """Create the group, and in it the arrays of all levels: chunks will be there whatever is in them."""
        specs = [self.pyramid.level_spec(level) for level in range(self.pyramid.num_levels + 1)]
        with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):  # zarrs leaves empty chunks out
            root = zarr.create_group(str(folder), zarr_format=_format_of(self.form.version))
            arrays = [
                root.create_array(
                    str(level),
                    shape=spec.shape,
                    dtype=spec.dtype,
                    fill_value=fill_value(spec),
                    attributes=_attributes(spec),
                    **_layout(self.form, spec),
                )
                for level, spec in enumerate(specs)
            ]
            return [array.with_config({"write_empty_chunks": True}) for array in arrays]

    def attributes(self, windows: Sequence[Window]) -> dict[str, Any]:
        """Return what the group of the image says."""
        form = self.form
        said = format_image(self.spec, self.pyramid.num_levels, form.version, form.name, form.resampling)
        more = format_label(form.version) if form.is_label else {"omero": format_channels(self.spec, windows)}
        if form.version == "0.5":
            return said | {"ome": said["ome"] | more}
        return said | more


def _attributes(spec: RasterSpec) -> dict[str, Any]:
    attributes = to_attributes(spec)
    if spec.nodata is not None:
        attributes["_FillValue"] = cf.format_nodata(spec)
    if spec.crs and spec.transform:  # the group's is that of full resolution
        attributes["spatial:transform"] = list(spec.transform)
    return attributes


def _layout(form: OmeForm, spec: RasterSpec) -> dict[str, Any]:
    """Return chunks, codec and names of files, as the version has them."""
    ones, is_sharded = (1,) * (len(spec.dims) - 2), form.tile != form.chunk
    sides = form.chunk if is_sharded else (min(form.chunk[0], spec.height), min(form.chunk[1], spec.width))
    layout: dict[str, Any] = {"chunks": (*ones, *sides)}
    if form.version == "0.5":
        axes = ["c" if dim == "band" else dim for dim in spec.dims]
        shards = {"shards": (*ones, *form.tile)} if is_sharded else {}
        return layout | shards | {"dimension_names": axes, "compressors": compressor(form.codec, spec.dtype)}
    settings, filters = CODECS[form.codec], ("noshuffle", "shuffle", "bitshuffle")
    blosc = settings and {"id": "blosc", **settings, "shuffle": filters.index(settings["shuffle"])}
    return layout | {"compressors": blosc, "chunk_key_encoding": {"name": "v2", "separator": "/"}}


def plan_image(spec: RasterSpec, form: OmeForm, array: StoredArray, threads: int, memory_bytes: int) -> OmeImage:
    """Return how a stored raster becomes an image.

    Bands are planes, so that some of them are read at a time where all take too much memory; of chunks that hold all
    bands in each pixel, all are decoded for that.
    """
    spec = spec if form.is_label else replace(spec, dims=("band", "y", "x"))
    chunk_bytes = math.prod(array.chunks) * spec.dtype.itemsize if array.spec.dims[-1] == "band" else 0
    reading_bytes = 4 * (threads + 1) * chunk_bytes  # as stored, decoded, read, and what the heap keeps of them
    pyramid = Pyramid(spec, form.tile, depth(spec, form.tile), form.resampling)
    room = max(0, memory_bytes - reading_bytes) * 3 // 4  # the rest is for tiles that are compressed
    walk = plan_walk(pyramid, array.unit, threads, room)
    return OmeImage(form, walk, reading_bytes)


def write_image(folder: Path, image: OmeImage, reader: Reader, advance: Callable[[], None]) -> dict[str, Any]:
    """Write the levels of an image into a new folder; return its attributes, for `finish_group` to write."""
    pyramid, form = image.pyramid, image.form
    arrays = image.create(folder)
    reader = Ordered(reader, image.spec.dims) if reader.spec.dims != image.spec.dims else reader

    def make(place: Place, bands: Bands, tile: np.ndarray) -> np.ndarray | None:
        part = pyramid.region(place).slices()
        arrays[place.level][part if form.is_label else (slice(bands[0], bands[-1] + 1), *part)] = tile
        return np.array(tile, ndmin=3) if place.level == pyramid.num_levels else None

    statistics, smallest = None, list[np.ndarray]()
    for made in image.walk.run(image.walk.through_cache(reader, reader.chunk), make):
        if isinstance(made, Statistics):
            statistics = made
        else:
            advance()
            smallest += [] if made.result is None else [made.result]
    assert statistics is not None
    return image.attributes(windows_of(image, statistics, np.concatenate(smallest)))


def windows_of(image: OmeImage, statistics: Statistics, smallest: np.ndarray) -> list[Window]:
    """Return the window of each channel: its exact extremes, and values of its smallest level (band, y, x)."""
    found, is_valid = list[Window](), image.pyramid.overview.is_valid(smallest)
    if image.form.is_label:
        return found
    for band, plane in enumerate(smallest):
        values = plane.ravel() if is_valid is None else plane[is_valid[band]]
        if not statistics.number[band] or not values.size:
            found.append(window_of((0, 0), (0, 0)))
            continue
        extremes = statistics.minimum[band].item(), statistics.maximum[band].item()
        ends = tuple(np.percentile(values, SHOWN, method="nearest").tolist())
        found.append(window_of(extremes, (ends[0], ends[1])))
    return found


def finish_group(folder: Path, attributes: Mapping[str, Any], version: OmeVersion) -> None:
    """Write the attributes of a group: made here, where it is none yet."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=_format_of(version))
    group.attrs.put(dict(attributes))


def finish_labels(folder: Path, names: Sequence[str], version: OmeVersion) -> None:
    """Write the group that lists the label images of an image."""
    finish_group(folder / "labels", under_ome({"labels": list(names)}, version), version)


def _format_of(version: OmeVersion) -> Any:
    return 3 if version == "0.5" else 2
