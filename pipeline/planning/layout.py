"""How written rasters are stored: dims, chunks, shards."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import replace

from pipeline.model.errors import PipelineError
from pipeline.model.raster import Dims, RasterSpec
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray
from pipeline.planning.binding import Graph
from pipeline.planning.plan import ECONOMIES, InputSpec, Settings

MIB = 2**20
MAX_LOCAL_FILES = 20_000
MAX_OBJECTS = 200
"""A request costs money and some ten milliseconds."""
SHARD_BYTES = 64 * MIB
MAX_CHUNK_SIDE = 512
MAX_CHUNK_BYTES = 32 * MIB


def plan_arrays(
    writes: Iterable[str], kept: Container[str], region: Region, graph: Graph, settings: Settings
) -> dict[str, StoredArray]:
    """Return how the rasters that a pass writes over a region are stored."""
    arrays = {}
    for raster in writes:
        spec = stored_spec(raster, settings, graph)
        limits = spec.shape_of(region)
        chunks = tuple(min(c, n) for c, n in zip(_chunk_shape(spec, settings, graph), limits, strict=True))
        arrays[raster] = StoredArray(raster, spec, chunks, None, settings.codec, region, raster in kept)
    num_files = sum(array.num_chunks for array in arrays.values())
    return {raster: replace(array, shards=_shard_shape(array, settings, num_files)) for raster, array in arrays.items()}


def stored_spec(raster: str, settings: Settings, graph: Graph) -> RasterSpec:
    """Return the spec of a computed raster, in the dims in which it is stored."""
    spec = graph.specs[raster]
    nodata = spec.nodata
    if spec.recorded is not None and spec.recorded.carried is not None:
        nodata = spec.recorded.carried
    return replace(spec, dims=_stored_dims(spec, settings, graph), nodata=nodata)


def stored_chunk(raster: str, settings: Settings, graph: Graph) -> tuple[int, int]:
    """Return the rows and columns of a raster that are decoded together."""
    if raster in graph.inputs:
        return graph.inputs[raster].chunk
    spec = stored_spec(raster, settings, graph)
    sizes = dict(zip(spec.dims, _chunk_shape(spec, settings, graph), strict=True))
    return sizes["y"], sizes["x"]


def _stored_dims(spec: RasterSpec, settings: Settings, graph: Graph) -> Dims:
    """Return the dims of an output: as asked, or as a Zarr input has them; from TIFFs band, y, x."""
    if "band" not in spec.dims:
        return spec.dims
    if settings.dims != "auto":
        return settings.dims
    is_tiff = all(entry.format == "tiff" for entry in graph.inputs.values())
    return ("band", "y", "x") if is_tiff else spec.dims


def _chunk_shape(spec: RasterSpec, settings: Settings, graph: Graph) -> tuple[int, ...]:
    """Return the chunk shape of an output in its dims: as asked, as the input's, or at most 512 x 512."""
    if settings.chunks != "auto":
        sizes = dict(zip(("y", "x", "band"), settings.chunks, strict=False))
        sizes.setdefault("band", _band_group(spec, sizes["y"] * sizes["x"]))
    else:
        rows, columns = next((e.chunk for e in graph.inputs.values() if _is_sound_chunk(e)), (0, 0))
        rows, columns = rows or _even_part(spec.height), columns or _even_part(spec.width)
        divisor, _ = ECONOMIES[settings.economy or 0]
        rows, columns = -(-rows // divisor), -(-columns // divisor)
        sizes = {"y": rows, "x": columns, "band": _band_group(spec, rows * columns)}
    limits = {"y": spec.height, "x": spec.width, "band": spec.num_bands}
    return tuple(min(sizes[dim], limits[dim]) for dim in spec.dims)


def _is_sound_chunk(entry: InputSpec) -> bool:
    """Return whether an input's chunks are worth keeping: tiles of a sensible size, not strips."""
    rows, columns = entry.chunk
    num_bands = min(entry.chunk_bands or entry.spec.num_bands, entry.spec.num_bands)
    num_bytes = rows * columns * num_bands * entry.spec.dtype.itemsize
    return min(rows, columns) >= 64 and max(rows, columns) <= 2048 and MIB // 16 <= num_bytes <= MAX_CHUNK_BYTES


def _even_part(size: int) -> int:
    return -(-size // -(-size // MAX_CHUNK_SIDE))


def _band_group(spec: RasterSpec, num_pixels: int) -> int:
    """Return the bands of a chunk: one where bands come first, else all, if that is not too many."""
    if spec.dims[0] == "band":
        return 1
    most = max(1, MAX_CHUNK_BYTES // (num_pixels * spec.dtype.itemsize))
    return spec.num_bands if spec.num_bands <= most else -(-spec.num_bands // -(-spec.num_bands // most))


def _shard_shape(array: StoredArray, settings: Settings, num_files: int) -> tuple[int, ...] | None:
    _, may_shard = ECONOMIES[settings.economy or 0]
    is_needless = not may_shard or num_files <= (MAX_OBJECTS if settings.is_remote else MAX_LOCAL_FILES)
    if settings.shards == "none" or (settings.shards == "auto" and is_needless):
        return None
    if settings.shards != "auto":
        sizes = dict(zip(("y", "x", "band"), settings.shards, strict=False))
        limits = array.spec.shape_of(array.region)
        shards = tuple(
            chunk if chunk >= limit else sizes.get(dim, chunk)
            for dim, chunk, limit in zip(array.spec.dims, array.chunks, limits, strict=True)
        )
        if any(shard % chunk for shard, chunk in zip(shards, array.chunks, strict=True)):
            raise PipelineError(
                f"a shard of {shards} is not whole chunks of {array.chunks} ({array.raster})", ("output", "shards")
            )
        return shards
    chunk_bytes = math.prod(array.chunks) * array.spec.dtype.itemsize
    side = max(1, math.isqrt(SHARD_BYTES // max(1, chunk_bytes)))
    return tuple(
        chunk * (side if dim != "band" else 1) for dim, chunk in zip(array.spec.dims, array.chunks, strict=True)
    )
