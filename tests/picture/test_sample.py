"""Rows and columns of rasters larger than memory: whatever the chunks, from the level that suffices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.picture import sample
from pipeline.picture.sample import Levelled, PieceCache, read_pixels
from pipeline.storage.open import open_raster
from pipeline.testing.draws import draws
from pipeline.verbs.rasters import find_rasters
from tests import harness


@settings(max_examples=draws(50), deadline=None)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(st.integers(3, 12), st.integers(3, 12)),
    st.integers(1, 500),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_pixels_where_rows_and_columns_cross(
    size: tuple[int, int], chunk: tuple[int, int], piece: int, bands_first: bool, cached: bool, data: st.DataObject
) -> None:
    """Whatever the chunks and the pieces that are read of them."""
    values = np.arange(size[0] * size[1] * 3, dtype=np.int32).reshape(*size, 3)
    rows, columns = (
        np.array(sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n)))) for n in size
    )
    cache = PieceCache(piece) if cached else None
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "PIECE_BYTES", piece)
        raster = (
            harness.Raster(np.moveaxis(values, -1, 0), ("band", "y", "x"), chunks=(3, *chunk))
            if bands_first
            else harness.Raster(values, ("y", "x", "band"), chunks=(*chunk, 3))
        )
        reader = open_raster(harness.store(raster, Path(folder, "in.zarr")))
        for _ in range(2):  # the second time from the cache
            found = read_pixels(reader, rows, columns, [2, 0], cache)
            np.testing.assert_array_equal(found, values[np.ix_(rows, columns, [2, 0])])


def test_the_cache_holds_what_was_used_last() -> None:
    cache, made = PieceCache(20), list[str]()

    def get(key: str) -> None:
        cache.get(key, lambda: made.append(key) or np.zeros(10, np.uint8))  # type: ignore[func-returns-value]

    for key in "abacab":
        get(key)
    assert made == ["a", "b", "c", "b"]


def test_levels_of_whole_numbers_of_pixels(tmp_path: Path) -> None:
    """The coarsest level that has a pixel for each step is read; what is no whole number of pixels is left out."""
    values = np.arange(37 * 50, dtype=np.float32).reshape(37, 50)
    source = harness.store(harness.Raster(values, ("y", "x")), tmp_path / "in.zarr")
    document = {
        "inputs": {"image": source},
        "steps": [{"name": "same", "op": "select", "bands": [1]}],
        "output": {"path": str(tmp_path / "out.zarr"), "chunks": [8, 8], "pyramid": 2, "resampling": "nearest"},
    }
    pipeline.run(document)
    (found,) = find_rasters([str(tmp_path / "out.zarr")])
    assert [factor for factor, _ in found.source.levels] == [1, 2, 4]
    assert [found.source.level_for(step)[0] for step in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]
    rows, columns = np.arange(0, 37, 4), np.arange(0, 50, 4)
    _, level = found.source.levels[2]
    stored = np.empty((10, 13), np.float32)
    level.read(level.spec.region, stored)
    np.testing.assert_array_equal(found.source.pixels(rows, columns, [0], 4)[..., 0], stored)
    odd = harness.store(harness.Raster(np.zeros((12, 17), np.float32), ("y", "x")), tmp_path / "odd.zarr")
    assert [factor for factor, _ in Levelled([found.source.full, open_raster(odd)]).levels] == [1]
