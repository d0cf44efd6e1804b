"""Steps applied lazily to dask and xarray arrays."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.errors import PipelineError, UsageError
from tests import harness, strategies
from tests.harness import same_bits
from tests.test_contract import loadable

CHAIN = [
    {"name": "smooth", "op": "window", "size": 5},
    {"name": "spread", "op": "window", "size": [3, 7], "statistics": ["std", "max"], "boundary": "wrap"},
]


def test_nothing_is_computed_until_asked() -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed")

    scene = da.zeros((60, 80, 3), chunks=(20, 30, 3), dtype="float32")
    with dask.config.set(scheduler=refuse):
        result = pipeline.apply(CHAIN, scene)
    assert set(result) == {"spread/std", "spread/max"}
    assert result["spread/std"].dtype == np.float32
    assert result["spread/std"].shape == (60, 80, 3)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lazy_gives_the_bits_of_a_run(data: st.DataObject) -> None:
    raster = data.draw(strategies.rasters())
    steps = data.draw(strategies.chains())
    for step in steps:
        step.pop("nodata", None), step.pop("dtype", None)
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if not loadable(source, steps, folder):
            return
        expected = harness.whole(source, steps, folder)
    array = da.from_array(raster.values, chunks=raster.chunks)
    got = pipeline.apply(steps, array, dims=",".join(raster.dims), nodata=raster.nodata)
    got = got if isinstance(got, dict) else {next(iter(expected)): got}
    assert got.keys() == expected.keys()
    for path, lazy in got.items():
        assert same_bits(harness.to_planes(lazy.compute(scheduler="synchronous"), raster.dims), expected[path])


def test_xarray_keeps_its_coordinates() -> None:
    values = np.random.default_rng(0).normal(size=(3, 20, 30)).astype("float32")
    array = xr.DataArray(
        values, dims=("band", "y", "x"), coords={"band": ["red", "green", "blue"], "x": np.arange(30.0)}
    )
    result = pipeline.apply({"op": "window", "size": 3, "bands": ["blue"]}, array)
    assert result.dims == ("band", "y", "x")
    assert result.shape == (1, 20, 30)
    assert list(result.coords) == ["x"]
    whole = pipeline.apply({"op": "window", "size": 3}, array)
    assert list(whole.band.values) == ["red", "green", "blue"]
    np.testing.assert_array_equal(whole.values[2], result.values[0])


def test_bad_arrays_are_refused() -> None:
    step = {"op": "window", "size": 3}
    with pytest.raises(UsageError, match="they must be y,x or y,x,band"):
        pipeline.apply(step, xr.DataArray(np.zeros((3, 4)), dims=("lat", "lon")))
    with pytest.raises(UsageError, match="dtype complex128"):
        pipeline.apply(step, np.zeros((3, 4), complex))
    with pytest.raises(PipelineError, match="must be odd, got 4"):
        pipeline.apply({"op": "window", "size": 4}, np.zeros((3, 4)))
