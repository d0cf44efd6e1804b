"""A raster walked tile by tile: every pixel once, and the same levels and statistics for every way to read it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.statistics import Statistics
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Region
from pipeline.storage.pyramid import Bands, Place, Pyramid, Walk, depth, plan_walk
from pipeline.testing.draws import draws


def walked(walk: Walk, values: np.ndarray) -> tuple[list[np.ndarray], Statistics]:
    """Return all levels of a raster, and its statistics."""
    pyramid, reads = walk.pyramid, np.zeros(values.shape, np.uint8)
    dims, lock = pyramid.spec.dims, threading.Lock()

    def place_of(region: Region, bands: Sequence[int] | None) -> tuple[slice | list[int], ...]:
        slices = array_slices(dims, region)
        return tuple(list(bands) if d == "band" and bands is not None else s for d, s in zip(dims, slices, strict=True))

    def read(region: Region, out: np.ndarray, bands: Sequence[int] | None) -> None:
        out[...] = values[place_of(region, bands)]
        with lock:
            reads[place_of(region, bands)] += 1

    def copy(place: Place, bands: Bands, tile: np.ndarray) -> np.ndarray:
        return tile.copy()

    levels = [np.zeros(pyramid.level_spec(n).shape, values.dtype) for n in range(pyramid.num_levels + 1)]
    counts = [np.zeros(level.shape, np.uint8) for level in levels]
    *made, statistics = walk.run(read, copy)
    assert isinstance(statistics, Statistics)
    for each in made:
        assert not isinstance(each, Statistics)
        here = place_of(pyramid.region(each.place), each.bands)
        levels[each.place.level][here] = each.result
        counts[each.place.level][here] += 1
    assert all((count == 1).all() for count in (reads, *counts))
    return levels, statistics


@st.composite
def specs(draw: st.DrawFn) -> RasterSpec:
    dims = draw(st.sampled_from([("y", "x"), ("y", "x", "band"), ("band", "y", "x")]))
    bands = tuple(f"b{i}" for i in range(draw(st.integers(1, 5)) if "band" in dims else 1))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int32", "float32", "float64"])))
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    return RasterSpec(height, width, dtype, dims, bands, draw(st.sampled_from([None, 3])))


@settings(max_examples=draws(60), deadline=None)
@given(spec=specs(), data=st.data())
def test_nothing_depends_on_how_it_is_read(spec: RasterSpec, data: st.DataObject) -> None:
    tile = data.draw(st.sampled_from([(16, 16), (8, 32), (64, 64), (256, 256)]))
    rng = np.random.default_rng(0)
    values = (rng.normal(size=spec.shape) * 50).astype(spec.dtype)
    resampling = data.draw(st.sampled_from(["average", "nearest", "mode", "min", "max"]))
    most = depth(spec, tile)
    pyramid = Pyramid(spec, tile, data.draw(st.integers(0, most)), resampling)
    bands = tuple(range(spec.num_bands))
    groups = tuple((band,) for band in bands) if spec.dims[0] == "band" else (bands,)
    whole, of_whole = walked(Walk(pyramid, most, (bands,), 1), values)
    parts, of_parts = walked(Walk(pyramid, data.draw(st.integers(0, most)), groups, 3), values)
    np.testing.assert_array_equal(whole[0], values)
    for first, second in zip(whole, parts, strict=True):
        assert first.tobytes() == second.tobytes()
    for one, other in zip(of_whole, of_parts, strict=True):
        assert one.tobytes() == other.tobytes()
    planes = values.reshape(1, -1) if len(spec.dims) == 2 else np.moveaxis(values, spec.dims.index("band"), 0)
    for band, plane in enumerate(planes.reshape(spec.num_bands, -1)):
        valid = plane if spec.nodata is None else plane[plane != spec.nodata]
        assert of_whole.number[band] == valid.size
        assert of_whole.mean[band] == pytest.approx(valid.astype(np.float64).mean() if valid.size else 0, abs=1e-9)


@settings(max_examples=draws(100), deadline=None)
@given(spec=specs(), chunk=st.tuples(st.integers(1, 700), st.integers(1, 700)), memory=st.integers(0, 2**26))
def test_a_walk_fits_the_memory_if_the_smallest_does(spec: RasterSpec, chunk: tuple[int, int], memory: int) -> None:
    pyramid = Pyramid(spec, (64, 64), depth(spec, (64, 64)))
    walk = plan_walk(pyramid, chunk, 2, memory)
    bands = tuple(range(spec.num_bands))
    smallest = Walk(pyramid, 0, tuple((band,) for band in bands) if spec.dims[0] == "band" else (bands,), 2)
    assert walk.num_bytes <= max(memory, smallest.num_bytes)
    assert sum(walk.groups, ()) == bands
    assert sum(1 for _ in pyramid.places(walk.piece_level)) * len(walk.groups) == walk.num_pieces


def test_levels_lie_where_their_pixels_do() -> None:
    spec = RasterSpec(1001, 300, np.dtype("uint8"), transform=(10.0, 0.0, 500.0, 0.0, -10.0, 800.0))  # type: ignore[arg-type]
    pyramid = Pyramid(spec, (256, 256), 2)
    assert pyramid.depth == 2
    assert [pyramid.level_spec(n).shape for n in range(3)] == [(1001, 300), (501, 150), (251, 75)]
    assert pyramid.level_spec(2).transform == (40.0, 0.0, 500.0, 0.0, -40.0, 800.0)
    assert pyramid.covers(Place(1, 1, 0)) == Region(512, 1001, 0, 300)
    assert [tuple(place) for place in pyramid.places(0)] == [
        *[(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)],
        *[(0, 2, 0), (0, 2, 1), (0, 3, 0), (0, 3, 1)],
    ]


def test_an_error_of_a_reader_ends_the_walk() -> None:
    spec = RasterSpec(600, 600, np.dtype("uint8"))
    pyramid = Pyramid(spec, (64, 64), 3)

    def read(region: Region, out: np.ndarray, bands: Sequence[int] | None) -> None:
        if region.top >= 128:
            raise OSError("the disk is gone")
        out[...] = 0

    with pytest.raises(OSError, match="the disk is gone"):
        list(Walk(pyramid, 0, ((0,),), 2).run(read, lambda *_: None))
