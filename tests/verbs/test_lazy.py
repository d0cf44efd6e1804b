"""Steps applied lazily to dask and xarray arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pyproj
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pipeline
from pipeline.model.errors import PipelineError, UsageError
from pipeline.testing import strategy
from pipeline.testing.check import lazy_array
from pipeline.testing.draws import draws
from tests import harness, strategies
from tests.harness import same_bits
from tests.our_contract import loadable

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


def test_names_of_bands_of_an_xarray() -> None:
    scene = xr.DataArray(da.zeros((3, 6, 8), chunks=(3, 6, 8), dtype="uint8"), dims=("band", "y", "x"))
    step = {"op": "calc", "expression": "b2"}
    assert pipeline.apply(step, scene.assign_coords(band=[1, 2, 3])).sizes["band"] == 1
    with pytest.raises(PipelineError, match="'b2' is position 2, and the band there is called '3'"):
        pipeline.apply(step, scene.assign_coords(band=[4, 3, 2]))
    with pytest.warns(UserWarning, match=r"the band names are ignored: they are not unique \(red, red, nir\)"):
        pipeline.apply(step, scene.assign_coords(band=["red", "red", "nir"]))
    single = scene.assign_coords(band=[1, 2, 3]).isel(band=0)  # its coordinate has no dim
    assert pipeline.apply({"op": "window", "size": 3}, single).dims == ("y", "x")


@settings(deadline=None, max_examples=draws(25), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lazy_gives_the_bits_of_a_run(data: st.DataObject) -> None:
    raster = data.draw(strategy.rasters())
    steps = data.draw(strategies.chains())
    assume(not any("labels" in step for step in steps))  # one array has no labels beside it
    assume(not {"threshold", "components"} & {step["op"] for step in steps})  # these make tables of the whole raster
    for step in steps:
        if step["op"] != "cast":
            step.pop("nodata", None), step.pop("dtype", None)
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if not loadable(source, steps, folder):
            return
        expected = harness.whole(source, steps, folder)
        expected = {path: v for path, v in expected.items() if not path.endswith("/quality") and "/table/" not in path}
    got = pipeline.apply(steps, lazy_array(raster), dims=",".join(raster.dims), nodata=raster.nodata)
    got = got if isinstance(got, dict) else {next(iter(expected)): got}
    assert got.keys() == expected.keys()
    for path, lazy in got.items():
        # a bank of filters adds a band axis, an index has none
        dims = raster.dims if lazy.ndim == len(raster.dims) else ("band", "y", "x")[3 - lazy.ndim :]
        assert same_bits(harness.to_planes(np.asarray(lazy.compute(scheduler="synchronous")), dims), expected[path])


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


STEP = {"op": "window", "size": 3}
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
UNKNOWN = da.zeros((6, 8), chunks=3)[da.arange(6, chunks=3) > 2]

WRONG: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "operation": ("window", PIXELS, {}, "a step is a mapping such as {'op': 'window', 'size': 3}, got 'window'"),
    "operations": ([STEP, "window"], PIXELS, {}, "a step is a mapping such as {'op': 'window', 'size': 3}, got 'wind"),
    "no steps": (None, PIXELS, {}, "a step is a mapping such as {'op': 'window', 'size': 3}, got nothing"),
    "path": (STEP, "scene.zarr", {}, "apply takes an array, got the path 'scene.zarr'; open it first, or use pipeline"),
    "list": (STEP, [1, 2, 3], {}, "the array has shape (3,); a raster has y, x and maybe band, none of them empty"),
    "empty": (STEP, PIXELS[:0], {}, "the array has shape (0, 4); a raster has y, x and maybe band, none of them empty"),
    "unknown chunks": (STEP, UNKNOWN, {}, "chunks of unknown size (shape (nan, 8)); call its compute_chunk_sizes()"),
    "names": (STEP, xr.DataArray(PIXELS, dims=("lat", "lon")), {}, "dims are lat,lon; they must be y,x or y,x,band"),
    "dims": (STEP, PIXELS, {"dims": 3}, "dims must be names such as `y,x,band`, got 3"),
    "too many dims": (STEP, PIXELS, {"dims": "y,x,band"}, "dims are y,x,band; they must be"),
    "bool": (STEP, PIXELS > 5, {}, "dtype bool; rasters are integers or floating point up to 64 bit; convert it: "
    "`.astype('uint8')`"),
    "complex": (STEP, PIXELS.astype(complex), {}, "dtype complex128; rasters are integers or floating point up to 64 "
    "bit; stack real and imaginary part as two bands"),
    "long": (STEP, PIXELS.astype(np.longdouble), {}, "up to 64 bit; convert it: `.astype('float64')`"),
    "text": (STEP, PIXELS.astype(str), {}, "the array has dtype <U3; rasters are integers or floating point"),
    "masked": (STEP, np.ma.masked_equal(PIXELS, 3), {}, "the array is masked; fill it first: `.filled(VALUE)`, and"),
    "lazily masked": (STEP, da.ma.masked_equal(da.asarray(PIXELS), 3), {}, "the array is masked; fill it first"),
    "large nodata": (STEP, PIXELS, {"nodata": 300}, "nodata is 300, which cannot occur in uint8 pixels; leave it out"),
    "broken nodata": (STEP, PIXELS, {"nodata": 0.5}, "nodata is 0.5, which cannot occur in uint8 pixels"),
    "nan among integers": (STEP, PIXELS, {"nodata": np.nan}, "nodata is nan, which cannot occur in uint8 pixels"),
    "nodata in words": (STEP, PIXELS, {"nodata": "none"}, "nodata is 'none', which cannot occur in uint8 pixels"),
    "rasterio's order": (STEP, np.zeros((3, 500, 600)), {}, "the array has shape (3, 500, 600), and nothing says which "
    'axis is the band; say `dims="band,y,x"` for 3 bands of 500 x 600 pixels, as rasterio reads them, or '
    '`dims="y,x,band"` for 600 bands of 3 x 500'),
    "rasterio's order, square": (STEP, da.zeros((3, 500, 500)), {}, '`dims="band,y,x"` for 3 bands of 500 x 500'),
    "one band": (STEP, np.zeros((1, 5, 6)), {}, '`dims="band,y,x"` for 1 band of 5 x 6 pixels'),
    "a cube": (STEP, np.zeros((4, 4, 4)), {}, '`dims="y,x,band"` for 4 bands of 4 x 4'),
    "many bands": (STEP, np.zeros((9, 9, 200)), {}, '`dims="y,x,band"` for 200 bands of 9 x 9'),
    "keep": (STEP, PIXELS, {"keep": "step0"}, "keep is a list of names, got 'step0'; write ['step0']"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case: str) -> None:
    steps, array, options, message = WRONG[case]
    with pytest.raises(UsageError) as caught:
        pipeline.apply(steps, array, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 6, 8), (8, 6, 3), (6, 6, 6), (2, 3, 9), (5, 6, 1)])
def test_the_order_of_dims_is_that_which_is_said(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).random(shape)
    for dims, axes in (("band,y,x", (1, 2)), ("y,x,band", (0, 1))):
        got = pipeline.apply({"op": "window", "size": 3, "statistics": ["max"]}, values, dims=dims)
        size = tuple(3 if axis in axes else 1 for axis in range(3))
        np.testing.assert_array_equal(got, ndimage.maximum_filter(values, size, mode="reflect"))


def test_an_array_is_computed_once_its_chunks_are_known() -> None:
    known = UNKNOWN.copy().compute_chunk_sizes()
    assert pipeline.apply(STEP, known).shape == (3, 8)


def test_steps_that_do_not_fit_are_told_with_their_place() -> None:
    with pytest.raises(PipelineError, match=r"^steps\[0\] \(step0\)\.size: must be odd, got 4"):
        pipeline.apply({"op": "window", "size": 4}, PIXELS)
    steps = [{"name": "a", **STEP, "statistics": ["min"]}, {"name": "b", **STEP}]
    with pytest.raises(PipelineError, match=r"^steps\[1\] \(b\)\.input: the input is int64, and floating point"):
        pipeline.apply(steps, PIXELS.astype(np.int64))


@pytest.mark.parametrize("nodata", [0.1, np.float32(0.1), np.float64(0.1)])
def test_nodata_is_compared_as_the_pixels_hold_it(nodata: float) -> None:
    values = np.full((3, 4), 5, np.float32)
    values[1, 2] = 0.1
    got = pipeline.apply({**STEP, "size": 1}, values, nodata=nodata).compute()
    np.testing.assert_array_equal(np.isnan(got), values != 5)


def test_nodata_that_xarray_records() -> None:
    for recorded in ({"_FillValue": 3}, {"missing_value": 3}):
        got = pipeline.apply({**STEP, "size": 1}, xr.DataArray(PIXELS, dims=("y", "x"), attrs=recorded))
        np.testing.assert_array_equal(np.isnan(got.values), PIXELS == 3)
    with pytest.warns(UserWarning, match="the recorded nodata value -9999 is ignored: uint8 cannot hold it"):
        got = pipeline.apply(STEP, xr.DataArray(PIXELS, dims=("y", "x"), attrs={"_FillValue": -9999}))
    assert not np.isnan(got.values).any()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"scale_factor": 0.1}, "scale and offset are ignored"), ({"_Unsigned": "true"}, "`_Unsigned` is ignored")],
)
def test_what_an_xarray_records_and_is_not_used_is_said(attributes: dict[str, Any], message: str) -> None:
    array = xr.DataArray(np.zeros((6, 8), "int8"), dims=("y", "x"), attrs=attributes)
    with pytest.warns(UserWarning, match=message):
        pipeline.apply({"op": "window", "size": 3}, array)


# --- georeference ------------------------------------------------------------------------------------------------


def placed(height: int = 6, width: int = 8) -> xr.DataArray:
    """Return a plane of slope 2 across, of pixels of 20 x 10 m."""
    values = 20.0 * np.arange(width) + np.zeros((height, 1))
    coordinates = {"y": 6e6 - 20.0 * np.arange(height), "x": 5e5 + 10.0 * np.arange(width)}
    return xr.DataArray(values, dims=("y", "x"), coords=coordinates)


def with_transform(array: xr.DataArray, height: float = 20) -> xr.DataArray:
    return array.rio.write_crs(32632).rio.write_transform(Affine(10, 0, 5e5 - 5, 0, -height, 6e6 + height / 2))


def every_other_row(array: xr.DataArray) -> xr.DataArray:
    """Return the raster as a part of one of rows of 10 m, whose transform is still recorded."""
    whole = xr.concat([array, array], "y").assign_coords(y=6e6 - 10.0 * np.arange(12))
    return with_transform(whole, 10)[::2]


def in_kilometres(array: xr.DataArray) -> xr.DataArray:
    placed = array.rio.write_crs(32632).assign_coords(y=array.y / 1000, x=array.x / 1000)
    placed.x.attrs["units"] = placed.y.attrs["units"] = "km"
    return placed


GEOREFERENCED: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "rio.write_crs": lambda array: array.rio.write_crs(32632),
    "another grid mapping": lambda array: array.rio.write_crs(32632, grid_mapping_name="crs"),
    "transform alone": lambda array: with_transform(array.drop_vars(["y", "x"])),
    "both": with_transform,
    "a part": every_other_row,
    "kilometres": in_kilometres,
    "dims of other names": lambda array: array.rename(y="lat", x="lon").rio.write_crs(32632),
    "legacy attributes": lambda array: array.drop_vars(["y", "x"]).assign_attrs(
        crs="+init=epsg:32632", transform=(10.0, 0.0, 5e5, 0.0, -20.0, 6e6)
    ),
}


@pytest.mark.parametrize("kind", GEOREFERENCED)
def test_geo_sees_the_georeference_of_an_xarray(kind: str) -> None:
    array = GEOREFERENCED[kind](placed())
    step = {"name": "s", "op": "gradient", "outputs": ["dy", "dx"]}
    with pytest.raises(PipelineError, match=r"raster is georeferenced, .*`spacing: geo`.*`spacing: 1`"):
        pipeline.apply(step, array, dims="y,x")
    got = pipeline.apply(step | {"spacing": "geo"}, array, dims="y,x")
    expected = pipeline.apply(step | {"spacing": [20, 10]}, array, dims="y,x")
    for name, values in got.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, atol=0)
    np.testing.assert_allclose(got["s/dx"], 2, rtol=1e-12)


def test_slopes_in_web_mercator_are_those_on_the_ground() -> None:
    """At 60 degrees north a pixel of 10 m is one of 5: as a run says it, to the bit, and refused where that changes."""
    _, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(9, 60)
    array = placed().assign_coords(y=y - 10.0 * np.arange(6), x=1e6 + 10.0 * np.arange(8)).rio.write_crs(3857)
    step = {"name": "s", "op": "gradient", "outputs": ["dx", "dy"], "spacing": "geo"}
    got = pipeline.apply(step, array)
    np.testing.assert_allclose(got["s/dx"], 20 / 5.0126, rtol=1e-4)
    with harness.workspace() as folder:
        array.rename("dem").to_dataset().to_zarr(folder / "in.zarr", zarr_format=3, consolidated=False)
        facts = pipeline.run(harness.document(str(folder / "in.zarr"), [step], folder / "out.zarr"))
        assert any("a pixel is 5.004" in note and "in the middle of the raster" in note for note in facts["warnings"])
        for name, values in got.items():
            assert same_bits(values.values[np.newaxis], harness.read(folder / "out.zarr", name))
    middling = array.assign_coords(y=y - 2e4 * np.arange(6), x=2e4 * np.arange(8))
    with pytest.warns(UserWarning, match=r"in the middle of the raster; elsewhere that is off by up to 0\.8\d %"):
        pipeline.apply(step, middling)
    large = array.assign_coords(y=y - 2e5 * np.arange(6), x=2e5 * np.arange(8))
    with pytest.raises(PipelineError, match=r"spacing: `geo`: a pixel is .* m wide between latitudes .*; reproject"):
        pipeline.apply(step, large)


def test_without_a_georeference_spacing_is_1() -> None:
    array = placed()
    counted = array.assign_coords(y=np.arange(6), x=np.arange(8))
    for plain in (array.values, array.drop_vars(["y", "x"]), counted):
        got = pipeline.apply({"op": "gradient", "outputs": ["dx"]}, plain)
        np.testing.assert_array_equal(got, 20)
    with pytest.warns(UserWarning, match="the attribute `crs` is ignored: it cannot be read"):
        pipeline.apply({"op": "gradient", "outputs": ["dx"]}, counted.assign_attrs(crs="that of the map"))
    uneven = array.assign_coords(x=np.arange(8) ** 2)
    with pytest.warns(UserWarning, match="the coordinates are ignored: they are not regular"):
        pipeline.apply({"op": "gradient", "outputs": ["dx"]}, uneven)


def test_what_holds_arrays_is_none() -> None:
    dataset = xr.Dataset({"red": (("y", "x"), np.ones((4, 4))), "nir": (("y", "x"), np.ones((4, 4)))})
    step = {"name": "smooth", "op": "window", "size": 3}
    with pytest.raises(UsageError, match=r"got a Dataset \(of red, nir\); give one of its variables, or all .*bands"):
        pipeline.apply(step, dataset)
    with pytest.raises(UsageError, match=r"got a DataFrame; give `\.to_numpy\(\)` of it"):
        pipeline.apply(step, dataset.red.to_pandas())
    smooth = pipeline.apply(step, dataset.to_dataarray("band"))
    assert smooth.dims == ("band", "y", "x")
