"""The Zarr reader: layouts, dims, metadata as xarray, dask, OME-Zarr and our own output write them, and damage."""

from __future__ import annotations

import base64
import json
import pickle
import re
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pyproj
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.model.errors import InputError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray
from pipeline.storage.folder.base import PLAIN_CODECS
from pipeline.storage.input import Choice
from pipeline.storage.zarr.document import write_coordinates
from pipeline.storage.zarr.reader import ZarrReader
from pipeline.storage.zarr.store import create_store
from pipeline.testing import strategy
from pipeline.testing.draws import draws
from tests import harness
from tests.georeference import ROTATED, UTM, WKT, geo_text
from tests.zarr_files import group, pixels, quietly, read, write

DRAWN = settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
DTYPES = ("bool", *INTEGERS, "float16", "float32", "float64")
CODECS = ("zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline")


@pytest.fixture(params=CODECS, ids=["zarr", "zarrs"])
def codecs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Read with zarr's own codec pipeline (metadata, before a run) and with that of zarrs (a run)."""
    with zarr.config.set({"codec_pipeline.path": request.param}):
        yield


# --- pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("codecs")
@DRAWN
@given(data=st.data())
def test_regions_and_bands_of_any_layout(data: st.DataObject) -> None:
    raster = data.draw(strategy.rasters(dtypes=DTYPES[1:]))
    with harness.workspace() as folder:
        reader = ZarrReader(harness.store(raster, folder / "in.zarr"))
        spec = reader.spec
        assert (spec.dims, spec.shape, spec.dtype) == (raster.dims, raster.values.shape, raster.values.dtype)
        sides = zip(raster.chunks or (), raster.dims, strict=True)
        assert reader.chunk == tuple(side for side, dim in sides if dim != "band")
        top, left = data.draw(st.integers(0, spec.height - 1)), data.draw(st.integers(0, spec.width - 1))
        region = Region(
            top, data.draw(st.integers(top + 1, spec.height)), left, data.draw(st.integers(left + 1, spec.width))
        )
        most = 4 if "band" in spec.dims else 1
        bands = data.draw(st.none() | st.lists(st.integers(0, spec.num_bands - 1), min_size=1, max_size=most))
        planes = harness.to_planes(raster.values, raster.dims)[:, *region.slices()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.storage.zarr.reader.PIECE_BYTES", data.draw(st.sampled_from([1, 100, 2**22])))
            got = harness.to_planes(read(reader, region, bands), spec.dims)
        assert harness.same_bits(got, planes if bands is None or "band" not in spec.dims else planes[bands])


def test_chunks_of_bands_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    values = pixels((4, 6, 10))
    path = write(tmp_path / "a.zarr", values, ("y", "x", "band"), chunks=(2, 3, 4))
    for chunk in (tmp_path / "a.zarr" / "c").glob("*/*/[02]"):
        chunk.write_bytes(b"damaged")
    np.testing.assert_array_equal(read(ZarrReader(path), bands=[6, 4]), values[..., [6, 4]])
    with pytest.raises(InputError):
        read(ZarrReader(path), bands=[3, 4])


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_dtypes_come_in_native_byte_order(tmp_path: Path, dtype: str, order: str, zarr_format: int) -> None:
    values = pixels((7, 9), dtype)
    stored = values.astype(values.dtype.newbyteorder(order))
    reader = ZarrReader(write(tmp_path / "a.zarr", stored, chunks=(4, 4), zarr_format=zarr_format, fill_value=1))
    assert reader.spec.dtype == np.dtype("uint8" if dtype == "bool" else dtype)
    assert reader.spec.dtype.isnative
    np.testing.assert_array_equal(read(reader), values)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("dtype", [">i2", "<i2", "bool", "float32"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks_read_as_the_fill_value(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(6, 8), chunks=(4, 4), dtype=dtype, fill_value=1, zarr_format=zarr_format
    )
    array[:4, :4] = np.zeros((4, 4), dtype)
    expected = np.ones((6, 8))
    expected[:4, :4] = 0
    reader = ZarrReader(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(read(reader), expected)
    assert reader.spec.nodata is None


@pytest.mark.usefixtures("codecs")
def test_chunks_larger_than_the_array_and_inner_chunks_of_shards(tmp_path: Path) -> None:
    values = pixels((5, 7))
    big = ZarrReader(write(tmp_path / "big.zarr", values, chunks=(64, 100)))
    sharded = ZarrReader(write(tmp_path / "sharded.zarr", values, chunks=(2, 3), shards=(4, 6)))
    assert (big.chunk, sharded.chunk, sharded.describe()["shards"]) == ((64, 100), (2, 3), [4, 6])
    for reader in (big, sharded):
        np.testing.assert_array_equal(read(reader), values)
        np.testing.assert_array_equal(read(reader, Region(3, 5, 5, 7)), values[3:, 5:])


def test_a_run_reads_with_its_codecs_though_the_metadata_were_read_before(tmp_path: Path) -> None:
    with zarr.config.set({"codec_pipeline.path": CODECS[0]}):
        reader = ZarrReader(write(tmp_path / "a.zarr", pixels((4, 5))))
    with zarr.config.set({"codec_pipeline.path": CODECS[1]}):
        read(reader)
        assert "zarrs" in type(reader._array._async_array.codec_pipeline).__module__.lower()


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}])
def test_pickles_and_reads_from_threads(tmp_path: Path, options: dict[str, Any]) -> None:
    values = pixels((40, 50, 3), "int16")
    path = write(tmp_path / "a.zarr", values, ("y", "x", "band"), chunks=(7, 9, 2), **options)
    reader = pickle.loads(pickle.dumps(ZarrReader(path)))
    regions = [Region(i % 30, i % 30 + 10, i % 40, i % 40 + 10) for i in range(100)]
    with ThreadPoolExecutor(8) as pool:
        for region, got in zip(regions, pool.map(lambda region: read(reader, region), regions), strict=True):
            np.testing.assert_array_equal(got, values[region.slices()])


# --- dims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("lat", "lon"), ("y", "x")),
        (("Y", "X"), ("y", "x")),
        (("row", "col", "channel"), ("y", "x", "band")),
        (("c", "y", "x"), ("band", "y", "x")),
        (("time", "band", "latitude", "longitude"), ("band", "y", "x")),
        (("t", "c", "z", "y", "x"), ("band", "y", "x")),
        (("northing", "easting", "wavelength"), ("y", "x", "band")),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_names_of_dims(tmp_path: Path, dims: tuple[str, ...], expected: tuple[str, ...], zarr_format: int) -> None:
    roles = {"time": 1, "t": 1, "z": 1}
    values = pixels(tuple(roles.get(dim, 4 + i) for i, dim in enumerate(dims)))
    reader = ZarrReader(write(tmp_path / "a.zarr", values, dims, zarr_format=zarr_format))
    assert reader.spec.dims == expected
    assert reader.describe()["stored_dims"] == list(dims)
    np.testing.assert_array_equal(read(reader), values.squeeze())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6), ("y", "x")),
        ((5, 6, 3), ("y", "x", "band")),
        ((3, 5, 6), ("band", "y", "x")),
        ((1, 5, 6), ("band", "y", "x")),
    ],
)
@pytest.mark.parametrize("dims", [None, ("", "", "")])
def test_dims_without_names_are_guessed_where_the_shape_is_clear(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[str, ...], dims: tuple[str, ...] | None
) -> None:
    names = dims and tuple(None for _ in shape)  # Zarr v3 allows null for single dims
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels(shape), names))
    assert reader.spec.dims == expected
    guess = f"the array names no dims; by its shape {shape} they are taken as `dims: {','.join(expected)}`"
    assert (guess in reader.warnings) == (len(shape) == 3)


@pytest.mark.parametrize("shape", [(5, 5, 5), (5, 3, 6), (2, 3, 4, 5)])
def test_unclear_dims_are_refused_and_may_be_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "a.zarr", pixels(shape), None)
    with pytest.raises(InputError, match=r"names no dims.*say them, for instance `dims: y,x,band`"):
        ZarrReader(path)
    if len(shape) == 3:
        assert ZarrReader(path, Choice(dims=("band", "y", "x"))).spec.dims == ("band", "y", "x")
    else:
        with pytest.raises(InputError, match="`dims` names 3 dims, the array has 4"):
            ZarrReader(path, Choice(dims=("band", "y", "x")))


@pytest.mark.parametrize("dims", [("x", "y"), ("lon", "lat"), ("x", "y", "band"), ("y", "band", "x"), ("y", "y")])
def test_transposed_dims_are_refused(tmp_path: Path, dims: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.zarr", pixels((4, 5, 6)[: len(dims)]), dims)
    with pytest.raises(InputError, match=rf"dims are {','.join(dims)}; they must be y,x or .* in this order.*`dims:`"):
        ZarrReader(path)


def test_further_dims_are_cut_by_position_or_label(tmp_path: Path) -> None:
    values = pixels((2, 3, 5, 6))
    path = group(
        tmp_path / "a.zarr",
        image=(("time", "level", "y", "x"), values),
        time=(("time",), [0, 152], {"units": "days since 2020-01-01 00:00:00", "calendar": "proleptic_gregorian"}),
        level=(("level",), [1000.0, 850.0, 500.0]),
    )
    for at in ({"time": 1, "level": -1}, {"time": "2020-06-01", "level": "500.0"}, {"time": "2020-06", "level": 500.0}):
        reader = ZarrReader(path, Choice(at=at))
        np.testing.assert_array_equal(read(reader), values[1, 2])
        np.testing.assert_array_equal(read(pickle.loads(pickle.dumps(reader))), values[1, 2])
    first, second = (ZarrReader(path, Choice(at={"time": time, "level": 0})).identity() for time in (0, 1))
    assert first != second
    with pytest.raises(InputError, match=r"dim 'time' has 2 entries; pick one, for instance `at: \{time: 0\}`"):
        ZarrReader(path)
    with pytest.raises(InputError, match=r"`at: \{time: 2\}` is outside; time has 2 entries"):
        ZarrReader(path, Choice(at={"time": 2, "level": 0}))
    with pytest.raises(InputError, match=r"no entry '2021-01-01' \(2020-01-01T00:00:00, 2020-06-01T00:00:00\)"):
        ZarrReader(path, Choice(at={"time": "2021-01-01", "level": 0}))
    with pytest.raises(InputError, match="time has 2 entries '2020'"):
        ZarrReader(path, Choice(at={"time": "2020", "level": 0}))
    with pytest.raises(InputError, match="`at`: unknown dim 'tine'; did you mean 'time'"):
        ZarrReader(path, Choice(at={"time": 0, "level": 0, "tine": 0}))
    with pytest.raises(InputError, match=r"`at`: y has no entry 'a' \(it has no coordinate\)"):
        ZarrReader(path, Choice(at={"time": 0, "level": 0, "y": "a"}))
    assert ZarrReader(path, Choice(at={"time": 0, "level": 0})).spec.dims == ("y", "x")


@pytest.mark.parametrize("units", ["days since long ago", "days", "days since 2020-01-01"])
def test_times_that_cannot_be_read_as_dates_are_labels_as_they_are(tmp_path: Path, units: str) -> None:
    calendar = "360_day" if "2020" in units else "standard"
    time = (("time",), [0, 152], {"units": units, "calendar": calendar})
    path = group(tmp_path / "a.zarr", image=(("time", "y", "x"), pixels((2, 5, 6))), time=time)
    np.testing.assert_array_equal(read(ZarrReader(path, Choice(at={"time": "152"}))), pixels((2, 5, 6))[1])


def test_a_damaged_coordinate_is_told(tmp_path: Path) -> None:
    path = group(tmp_path / "a.zarr", image=(("y", "x"), pixels((5, 6))), y=(("y",), np.arange(5.0)))
    (chunk,) = Path(path, "y", "c").iterdir()
    chunk.write_bytes(b"nonsense")
    with pytest.raises(
        InputError, match=r"a\.zarr: chunk y/c/0 is damaged: no Zstandard frame at its byte 0; copy it again"
    ):
        ZarrReader(path)


def test_names_of_channels_of_ome_zarr(tmp_path: Path) -> None:
    axes = [{"name": name} for name in "cyx"]
    scales = [{"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}]
    shown = {"channels": [{"label": "DAPI"}, {"label": "GFP"}, {"color": "00FF00"}]}
    members: dict[str, Any] = {
        "0": (("c", "y", "x"), pixels((3, 8, 6))),
        "1": (("c", "y", "x"), pixels((3, 4, 3))),
    }
    old = group(tmp_path / "a.zarr", {"multiscales": scales, "omero": shown}, **members)
    new = group(tmp_path / "b.zarr", {"ome": {"multiscales": scales, "omero": shown}}, **members)
    for path in (old, new):
        assert ZarrReader(path).spec.bands == ("DAPI", "GFP", "b3")
        assert ZarrReader(path, Choice(level=1)).spec.bands == ("DAPI", "GFP", "b3")
    shown["channels"][1]["label"] = "DAPI"
    reader = ZarrReader(group(tmp_path / "c.zarr", {"multiscales": scales, "omero": shown}, **members))
    assert reader.spec.bands == ("b1", "b2", "b3")
    assert reader.describe()["warnings"] == ["the band names are ignored: they are not unique (DAPI, DAPI, b3)"]


def test_names_that_rioxarray_writes(tmp_path: Path) -> None:
    array: Any = (("band", "y", "x"), pixels((2, 8, 6)), {"long_name": ["red", "nir"]})
    assert ZarrReader(group(tmp_path / "a.zarr", image=array, band=(("band",), [1, 2]))).spec.bands == ("red", "nir")
    array[2]["long_name"] = "reflectance"
    assert ZarrReader(group(tmp_path / "b.zarr", image=array)).spec.bands == ("b1", "b2")


MAPPING = {
    "grid_mapping_name": "lambert_azimuthal_equal_area",
    "latitude_of_projection_origin": 52.0,
    "longitude_of_projection_origin": 10.0,
    "false_easting": 4321000.0,
    "false_northing": 3210000.0,
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257222101,
}


def mapped(path: Path, mapping: dict[str, Any], unit: str = "m", **attributes: Any) -> ZarrReader:
    size = 0.5 if unit == "km" else 500.0
    members: dict[str, Any] = {
        "image": (("y", "x"), pixels((4, 5)), {"grid_mapping": "crs", **attributes}),
        "crs": ((), np.int64(0), mapping),
        "y": (("y",), 900 - size * np.arange(4), {"units": unit}),
        "x": (("x",), 300 + size * np.arange(5), {"units": unit}),
    }
    return ZarrReader(group(path, **members))


@pytest.mark.parametrize(("unit", "factor"), [("m", 1), ("km", 1000)])
def test_a_grid_mapping_without_wkt(tmp_path: Path, unit: str, factor: float) -> None:
    reader = mapped(tmp_path / "a.zarr", MAPPING, unit)
    found, due = pyproj.CRS(reader.spec.crs), pyproj.CRS.from_cf(MAPPING)
    assert reader.describe()["warnings"] == []
    assert found.axis_info[0].unit_conversion_factor == factor
    points = [
        pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True).transform(11, 50) for crs in (found, due)
    ]
    np.testing.assert_allclose(np.array(points[0]) * factor, points[1], rtol=1e-12)


def test_grid_mappings_that_say_little(tmp_path: Path) -> None:
    plain = mapped(tmp_path / "a.zarr", {"grid_mapping_name": "latitude_longitude"}, "degrees_east")
    assert plain.spec.crs is not None
    assert plain.describe()["warnings"] == ["the grid mapping names no ellipsoid; WGS 84 is taken, as pyproj does"]
    odd = mapped(tmp_path / "b.zarr", {"grid_mapping_name": "flat_earth"})
    assert odd.spec.crs is None
    assert "its grid mapping 'flat_earth' cannot be read" in odd.describe()["warnings"][0]
    angles = mapped(tmp_path / "c.zarr", MAPPING, "rad")
    assert angles.spec.crs is None
    assert "it is in lengths, and the coordinates are in 'rad'" in angles.describe()["warnings"][0]
    esri = mapped(tmp_path / "d.zarr", {"esri_pe_string": pyproj.CRS(5070).to_wkt("WKT1_ESRI")})
    assert esri.spec.crs == "EPSG:5070"


def test_projjson(tmp_path: Path) -> None:
    document = pyproj.CRS(32633).to_json_dict()
    reader = mapped(tmp_path / "a.zarr", {}, **{"proj:projjson": document})
    assert pyproj.CRS(reader.spec.crs).to_epsg() == 32633
    broken = mapped(tmp_path / "b.zarr", {}, **{"proj:projjson": {"type": "ProjectedCRS"}})
    assert "`proj:projjson` cannot be read" in broken.describe()["warnings"][0]


def test_names_that_stand_twice_are_ignored_aloud(tmp_path: Path) -> None:
    names = (("band",), ["red", "red", "nir"])
    reader = ZarrReader(group(tmp_path / "a.zarr", image=(("band", "y", "x"), pixels((3, 5, 6))), band=names))
    assert reader.spec.bands == ("b1", "b2", "b3")
    assert reader.describe()["warnings"] == ["the band names are ignored: they are not unique (red, red, nir)"]


def test_a_band_may_be_cut_too(tmp_path: Path) -> None:
    values = pixels((3, 5, 6))
    path = group(tmp_path / "a.zarr", image=(("band", "y", "x"), values), band=(("band",), ["B02", "B03", "B04"]))
    reader = ZarrReader(path, Choice(at={"band": "B04"}))
    assert (reader.spec.dims, reader.spec.bands) == (("y", "x"), ("b1",))
    np.testing.assert_array_equal(read(reader), values[2])


# --- which array -----------------------------------------------------------------------------------------------


def test_a_group_of_one_raster_needs_no_name(tmp_path: Path) -> None:
    values = pixels((5, 6))
    path = group(
        tmp_path / "a.zarr",
        image=(("y", "x"), values, {"coordinates": "longitude2d"}),
        longitude2d=(("y", "x"), pixels((5, 6))),
        y_bounds=(("y", "bounds"), pixels((5, 2))),
        y=(("y",), np.arange(5.0)),
        spatial_ref=((), 0),
    )
    (tmp_path / "a.zarr" / "notes.txt").write_text("stray files do not matter")
    np.testing.assert_array_equal(read(ZarrReader(path)), values)
    assert ZarrReader(path).describe()["array"] == "image"


def test_several_rasters_are_named(tmp_path: Path) -> None:
    path = group(tmp_path / "a.zarr", red=(("y", "x"), pixels((5, 6))), green=(("y", "x"), pixels((5, 6))))
    zarr.open_group(path).create_array("deep/er/blue", data=pixels((5, 6)), dimension_names=("y", "x"))
    with pytest.raises(InputError, match="holds 3 rasters: deep/er/blue, green, red; name one: `"):
        ZarrReader(path)
    assert ZarrReader(path, Choice("deep/er/blue")).spec.shape == (5, 6)
    with pytest.raises(InputError, match="unknown array 'gren'; did you mean 'green'"):
        ZarrReader(path, Choice("gren"))
    with pytest.raises(InputError, match="deep is a group; unknown array"):
        ZarrReader(path, Choice("deep"))
    with pytest.raises(InputError, match="is one array, so array 'red' names nothing in it; leave it out"):
        ZarrReader(f"{path}/red", Choice("red"))
    with pytest.raises(InputError, match="is a group and holds no raster"):
        ZarrReader(group(tmp_path / "b.zarr", y=(("y",), [1, 2])))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_level_0_of_ome_zarr(tmp_path: Path, zarr_format: int) -> None:
    names = ["t", "c", "z", "y", "x"]
    scales = [{"axes": [{"name": name} for name in names], "datasets": [{"path": "0"}, {"path": "1"}]}]
    attributes: dict[str, Any] = {"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}}
    root = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=zarr_format, attributes=attributes)
    values = pixels((1, 3, 1, 8, 10))
    root.create_array("0", data=values)
    root.create_array("1", data=values[..., ::2, ::2])
    for reader in (ZarrReader(root.store_path.store.root.as_posix()), ZarrReader(str(tmp_path / "a.zarr" / "0"))):
        assert (reader.spec.dims, reader.describe()["levels"]) == (("band", "y", "x"), 2)
        np.testing.assert_array_equal(read(reader), values[0, :, 0])
    np.testing.assert_array_equal(read(ZarrReader(str(tmp_path / "a.zarr"), Choice("1"))), values[0, :, 0, ::2, ::2])


def test_an_array_added_after_consolidation_is_found(tmp_path: Path) -> None:
    path = group(tmp_path / "a.zarr", red=(("y", "x"), pixels((5, 6))))
    quietly(zarr.consolidate_metadata, path)
    quietly(zarr.open_group, path, use_consolidated=False).create_array("blue", data=pixels((5, 6), "uint8"))
    assert ZarrReader(path, Choice("blue")).spec.dtype == np.uint8


# --- what attributes and coordinates say -----------------------------------------------------------------------


def base64_of(value: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


@pytest.mark.parametrize(
    ("dtype", "attributes", "nodata"),
    [
        ("int16", {"_FillValue": -9999}, -9999),
        ("int16", {"missing_value": [-9999]}, -9999),
        ("int16", {"_FillValue": -9999.0}, -9999),
        ("float32", {"_FillValue": base64_of(-9999)}, -9999.0),
        ("float32", {"_FillValue": base64_of(np.nan)}, np.nan),
        ("float32", {"_FillValue": "NaN", "missing_value": -9999.0}, -9999.0),
        ("float32", {"missing_value": 0.1}, float(np.float32(0.1))),
        ("float32", {"missing_value": -3.4028235e38}, -float(np.finfo("float32").max)),
        ("uint64", {"_FillValue": 2**64 - 1}, 2**64 - 1),
        ("int64", {"_FillValue": -(2**63)}, -(2**63)),
        ("float32", {}, None),
        ("uint8", {"_FillValue": True}, None),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_nodata(tmp_path: Path, dtype: str, attributes: dict[str, Any], nodata: Any, zarr_format: int) -> None:
    options = {"attributes": attributes, "zarr_format": zarr_format, "fill_value": 7}
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3), dtype), **options))
    assert repr(reader.spec.nodata) == repr(nodata)


def test_of_several_nodata_values_one_is_used_aloud(tmp_path: Path) -> None:
    attributes = {"_FillValue": -9999, "missing_value": -1}
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((5, 6), "int16"), attributes=attributes))
    assert reader.spec.nodata == -9999
    assert reader.describe()["warnings"] == [
        "several nodata values are recorded, of which only -9999 is used: [-9999, -1]"
    ]


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", -9999), ("uint8", 0.5), ("uint8", float("nan")), ("float16", 1e10), ("uint8", 256)]
)
def test_nodata_that_cannot_occur_is_left_out_aloud(tmp_path: Path, dtype: str, value: float) -> None:
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3), dtype), attributes={"_FillValue": value}))
    assert reader.spec.nodata is None
    assert reader.describe()["warnings"] == [f"the recorded nodata value {value} is ignored: {dtype} cannot hold it"]


def test_a_fill_value_is_no_nodata_but_xarrays_is_spoken_of(tmp_path: Path) -> None:
    plain = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3)), zarr_format=2, fill_value=0))
    assert (plain.spec.nodata, plain.describe()["warnings"]) == (None, [])
    reader = ZarrReader(write(tmp_path / "b.zarr", pixels((2, 3)), zarr_format=2, fill_value=-9999))
    assert reader.spec.nodata is None
    assert "say `nodata: -9999.0`" in reader.describe()["warnings"][0]


@pytest.mark.parametrize(
    ("attributes", "nodata"),
    [
        ({"nodata": 5}, 5),
        ({"fill_value": 6, "nodata": 5}, 6),
        ({"nodatavals": [7, 7]}, 7),
        ({"_FillValue": 4, "nodatavals": [7]}, 4),
        ({"nodatavals": [None]}, None),
    ],
)
def test_nodata_as_rioxarray_finds_it(tmp_path: Path, attributes: dict[str, Any], nodata: int | None) -> None:
    values = pixels((2, 3), "int16")
    assert ZarrReader(write(tmp_path / "a.zarr", values, attributes=attributes)).spec.nodata == nodata
    array = xr.DataArray(values, dims=("y", "x"), attrs=attributes)
    if nodata is not None:
        pytest.importorskip("rioxarray", reason="rioxarray is not installed")
        assert array.rio.nodata == nodata


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("stored", "said", "dtype"), [(">i2", "true", "u2"), ("i1", "true", "u1"), ("u2", "false", "i2")]
)
def test_pixels_of_another_sign(
    tmp_path: Path, codecs: None, zarr_format: int, stored: str, said: str, dtype: str
) -> None:
    values = np.arange(-3, 3).astype(stored).reshape(2, 3)
    path = tmp_path / "a.zarr"
    fill = int(values[0, 2])  # as the stored dtype has it
    write(path, values, zarr_format=zarr_format, attributes={"_Unsigned": said, "missing_value": fill})
    reader = ZarrReader(str(path))
    assert (reader.spec.dtype, reader.spec.nodata) == (np.dtype(dtype), np.array(fill, stored).astype(dtype))
    np.testing.assert_array_equal(read(reader), values.astype(dtype))
    encoded = xr.Variable(("y", "x"), values, {"_Unsigned": said, "_FillValue": values[0, 2]})
    decoded = xr.conventions.decode_cf_variable("image", encoded)
    np.testing.assert_array_equal(decoded, np.where(values == fill, np.nan, values.astype(dtype)))


def test_a_sign_that_means_nothing_is_said(tmp_path: Path) -> None:
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3)), attributes={"_Unsigned": "true"}))
    assert reader.describe()["warnings"] == ["`_Unsigned: true` is ignored: the pixels are float32"]


@pytest.mark.parametrize(
    ("attributes", "scale"),
    [
        ({"scale_factor": 0.0001, "add_offset": -0.1}, (0.0001, -0.1)),
        ({"scale_factor": [0.5]}, (0.5, 0.0)),
        ({"add_offset": 3}, (1.0, 3.0)),
        ({"scale_factor": 1.0, "add_offset": 0.0}, None),
        ({}, None),
    ],
)
def test_scale(tmp_path: Path, attributes: dict[str, Any], scale: tuple[float, float] | None) -> None:
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3)), attributes=attributes))
    assert reader.scale == scale
    assert reader.describe()["warnings"] == []


@pytest.mark.parametrize("attributes", [{"scale_factor": 0}, {"add_offset": "much"}, {"scale_factor": float("inf")}])
def test_a_useless_scale_is_ignored_aloud(tmp_path: Path, attributes: dict[str, Any]) -> None:
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((2, 3)), attributes=attributes))
    assert reader.scale is None
    assert "scale and offset are ignored" in reader.describe()["warnings"][0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["B02", "B03", "B04"], ("B02", "B03", "B04")),
        ([1, 2, 3], ("b1", "b2", "b3")),
        ([0, 1, 2], ("b1", "b2", "b3")),
        ([4, 3, 2], ("4", "3", "2")),
        ([490.0, 560.5, 665.0], ("490.0", "560.5", "665.0")),
        (["red", "red", "blue"], ("b1", "b2", "b3")),
        (["red", "blue"], ("b1", "b2", "b3")),
        ([b"B02", b"B03", b"B04"], ("B02", "B03", "B04")),
    ],
)
def test_band_names(tmp_path: Path, names: list[Any], expected: tuple[str, ...]) -> None:
    path = quietly(group, tmp_path / "a.zarr", image=(("c", "y", "x"), pixels((3, 5, 6))), c=(("c",), names))
    assert ZarrReader(path).spec.bands == expected


def test_georeference_by_the_attributes_of_xarrays_first_reader(tmp_path: Path) -> None:
    attributes = {"transform": list(UTM), "crs": "+init=epsg:32633"}
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((5, 6)), attributes=attributes))
    assert (reader.spec.transform, reader.spec.crs, reader.warnings) == (UTM, "EPSG:32633", [])
    reader = ZarrReader(write(tmp_path / "b.zarr", pixels((5, 6)), attributes={"crs": "of the map"}))
    assert reader.spec.crs is None
    assert "the attribute `crs` is ignored: it cannot be read" in reader.warnings[0]


@pytest.mark.parametrize("transform", [UTM, ROTATED])
def test_georeference_by_cf_and_by_the_zarr_conventions(tmp_path: Path, transform: tuple[float, ...]) -> None:
    image = (("y", "x"), pixels((5, 6)))
    mapped = (*image, {"grid_mapping": "crs"})
    mapping = {"crs_wkt": WKT, "GeoTransform": geo_text(transform)}
    attributes = {"proj:code": "EPSG:32633", "spatial:transform": list(transform)}
    a, b, c, d, e, f = transform
    centre = [a, b, c + (a + b) / 2, d, e, f + (d + e) / 2]
    node = {**attributes, "spatial:transform": centre, "spatial:registration": "node"}
    stores = {
        "cf": group(tmp_path / "cf.zarr", image=mapped, crs=((), 0, mapping)),
        "rioxarray": group(tmp_path / "rio.zarr", image=image, spatial_ref=((), 0, mapping)),
        "group": group(tmp_path / "group.zarr", attributes, image=image),
        "array": group(tmp_path / "array.zarr", image=(*image, attributes)),
        "node": group(tmp_path / "node.zarr", node, image=image),
    }
    for name, path in stores.items():
        spec = ZarrReader(path).spec
        assert spec.transform == transform, name
        assert spec.crs == (WKT if name in ("cf", "rioxarray") else "EPSG:32633"), name


@pytest.mark.parametrize(
    ("y", "x", "transform"),
    [
        (np.arange(5) * -10.0 + 95, np.arange(6) * 10.0 + 5, (10.0, 0.0, 0.0, 0.0, -10.0, 100.0)),
        (np.arange(5, dtype="uint32")[::-1] * 10, np.arange(6), (1.0, 0.0, -0.5, 0.0, -10.0, 45.0)),
        (np.arange(5), np.arange(6), None),
        (np.arange(5) + 0.5, np.arange(6) + 0.5, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        (np.arange(5) + 100, np.arange(6) + 50, (1.0, 0.0, 49.5, 0.0, 1.0, 99.5)),
        (np.arange(4), np.arange(6), None),
    ],
)
def test_transform_of_regular_coordinates(tmp_path: Path, y: Any, x: Any, transform: tuple[float, ...] | None) -> None:
    path = group(tmp_path / "a.zarr", image=(("lat", "lon"), pixels((5, 6))), lat=(("lat",), y), lon=(("lon",), x))
    reader = ZarrReader(path)
    assert reader.spec.transform == transform
    assert reader.describe()["warnings"] == []


def test_coordinates_in_words_are_no_transform(tmp_path: Path) -> None:
    words = np.array(["a", "b", "c", "d", "e"])
    reader = ZarrReader(group(tmp_path / "a.zarr", image=(("y", "x"), pixels((5, 6))), y=(("y",), words)))
    assert reader.spec.transform is None


def test_coordinates_in_single_precision_are_regular_and_uneven_ones_are_not(tmp_path: Path) -> None:
    longitude = np.linspace(-179.995, 179.995, 36000).astype("float32")
    path = group(
        tmp_path / "a.zarr",
        image=(("lat", "lon"), np.zeros((2, 36000), "uint8")),
        lat=(("lat",), [1.0, 0.99]),
        lon=(("lon",), longitude),
    )
    assert ZarrReader(path).spec.transform == pytest.approx((0.01, 0, -180, 0, -0.01, 1.005), rel=1e-4)
    uneven = group(
        tmp_path / "b.zarr", image=(("y", "x"), pixels((3, 3))), y=(("y",), [0.0, 1, 3]), x=(("x",), [0.0, 1, 2])
    )
    assert ZarrReader(uneven).spec.transform is None
    assert ZarrReader(uneven).describe()["warnings"] == ["the coordinates are ignored: they are not regular"]


@pytest.mark.parametrize("text", ["0 0 0 0 0 0", "nan 1 0 0 0 1", "0 1 1 0 1 1"])
def test_a_transform_that_cannot_be_inverted_is_ignored_aloud(tmp_path: Path, text: str) -> None:
    path = group(tmp_path / "a.zarr", image=(("y", "x"), pixels((3, 3))), spatial_ref=((), 0, {"GeoTransform": text}))
    assert ZarrReader(path).spec.transform is None
    assert "cannot be inverted" in ZarrReader(path).describe()["warnings"][0]


# --- as others write it ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_as_xarray_writes_it(tmp_path: Path, zarr_format: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 6, 7)).astype("float32")
    values[0, 0, 0, 0] = np.nan
    coordinates = {
        "time": np.array(["2020-01-01", "2020-06-01"], "M8[ns]"),
        "band": ["B02", "B03", "B04"],
        "y": np.arange(6) * -10.0 + 95,
        "x": np.arange(7) * 10.0 + 5,
        "wavelength_nm": ("band", [490, 560, 665]),
        "spatial_ref": ((), 0, {"crs_wkt": WKT}),
    }
    scene = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coordinates, name="reflectance")
    scene.encoding = {"_FillValue": -9999.0, "grid_mapping": "spatial_ref", "chunks": (1, 2, 4, 4)}
    path = str(tmp_path / "a.zarr")
    quietly(scene.to_dataset().to_zarr, path, zarr_format=zarr_format)
    reader = ZarrReader(path, Choice(at={"time": "2020-01-01"}))
    assert reader.spec == RasterSpec(
        height=6,
        width=7,
        dtype=np.dtype("float32"),
        dims=("band", "y", "x"),
        bands=("B02", "B03", "B04"),
        nodata=-9999.0 if zarr_format == 3 else None,  # in Zarr v2 xarray writes it as the fill value
        band_coordinates=(("wavelength_nm", (490, 560, 665)),),
        transform=(10.0, 0.0, 0.0, 0.0, -10.0, 100.0),
        crs=WKT,
    )
    assert bool(reader.describe()["warnings"]) == (zarr_format == 2)
    np.testing.assert_array_equal(read(reader), np.where(np.isnan(values[0]), -9999, values[0]))


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_as_dask_writes_it(tmp_path: Path, zarr_format: int) -> None:
    values = pixels((20, 30, 3))
    chunked = dask.array.from_array(values, chunks=(8, 8, 3))
    chunked.to_zarr(str(tmp_path / "a.zarr"), zarr_format=zarr_format)
    reader = ZarrReader(str(tmp_path / "a.zarr"))
    assert reader.spec.dims == ("y", "x", "band")
    np.testing.assert_array_equal(read(reader), values)


def test_as_we_write_it(tmp_path: Path) -> None:
    along = (("wavelength", (490.0, 560.0)), ("kind", ("a", "b")))
    spec = RasterSpec(5, 6, np.dtype("int16"), ("y", "x", "band"), ("B02", "B03"), -1, along, UTM, "EPSG:32633")
    create_store(str(tmp_path / "a.zarr"), {}, [StoredArray("smooth/mean", spec, (4, 4, 2), None, "fast", spec.region)])
    for reader in (ZarrReader(str(tmp_path / "a.zarr" / "smooth" / "mean")), ZarrReader(str(tmp_path / "a.zarr"))):
        assert reader.spec == spec


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "U4", "S4", "M8[ns]"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    path = str(tmp_path / "a.zarr")
    quietly(zarr.create_array, path, shape=(4, 5), chunks=(4, 5), dtype=dtype, zarr_format=zarr_format)
    with pytest.raises(InputError, match="rasters are integers or floating point up to 64 bit"):
        ZarrReader(path)


def test_empty_and_flat_arrays_are_refused(tmp_path: Path) -> None:
    for i, shape in enumerate([(0, 5), (5, 0, 3), (5, 4, 0)]):
        array = zarr.create_array(str(tmp_path / f"{i}.zarr"), shape=shape, chunks=(1,) * len(shape), dtype="uint8")
        with pytest.raises(InputError, match=r"the raster is empty: shape|names no dims"):
            ZarrReader(str(tmp_path / f"{i}.zarr"), Choice(dims=("y", "x", "band")[: array.ndim]))
    for i, shape in enumerate([(), (5,)]):
        zarr.create_array(str(tmp_path / f"flat{i}.zarr"), shape=shape, chunks=shape, dtype="uint8")
        with pytest.raises(InputError, match=rf"the array has {len(shape)} dimension\(s\); a raster has y and x"):
            ZarrReader(str(tmp_path / f"flat{i}.zarr"))


def test_what_is_no_zarr_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.zarr: no such file or folder"):
        ZarrReader(str(tmp_path / "nothing.zarr"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is not a Zarr array or group"):
        ZarrReader(str(tmp_path / "folder"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"node_type": "array"}', '{"zarr_format": 3, "node_type": "group", "attributes": 5}', "\0\xff"],
)
@pytest.mark.parametrize("inner", [False, True])
def test_damaged_metadata(tmp_path: Path, text: str, inner: bool) -> None:
    path = group(tmp_path / "a.zarr", image=(("y", "x"), pixels((4, 5))))
    damaged = Path(path, "image" if inner else "", "zarr.json")
    if inner and "group" in text:
        pytest.skip("a group in the place of the array is no damage")
    damaged.write_text(text)
    with pytest.raises(InputError, match=r"a\.zarr.*: .*cannot be opened"):
        ZarrReader(path, Choice("image"))
    with pytest.raises(InputError, match=r"a\.zarr"):
        ZarrReader(path)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("damaged", [slice(None, 20), slice(20, None), slice(0)])
def test_a_damaged_chunk_names_file_and_region(tmp_path: Path, damaged: slice) -> None:
    path = write(tmp_path / "a.zarr", pixels((8, 8)), chunks=(4, 4), compressors=zarr.codecs.ZstdCodec(checksum=True))
    chunk = tmp_path / "a.zarr" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[damaged])
    reader = ZarrReader(path)
    found = r"(, the chunk in c/0/1: \w|: chunk c/0/1 is damaged: no Zstandard frame)"
    with pytest.raises(InputError, match=rf"a\.zarr: cannot read rows 0:8, columns 0:8{found}"):
        read(reader)
    assert read(reader, Region(4, 8, 0, 8)).shape == (4, 8)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_shard_or_chunk_of_a_group_names_its_file(tmp_path: Path, zarr_format: Any) -> None:
    values = pixels((20, 8, 2))
    options = {"shards": (8, 4, 2)} if zarr_format == 3 else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    dims = ("y", "x", "band")
    path = write(tmp_path / "a.zarr", values, dims, chunks=(4, 4, 2), zarr_format=zarr_format, **options)
    name = "c/1/1/0" if zarr_format == 3 else "2/1/0"
    (Path(path) / name).write_bytes(b"?" * 9)
    found = ": chunk 2/1/0 is damaged" if zarr_format == 2 else ": shard c/1/1/0 has 9 bytes, its index takes 36"
    with pytest.raises(InputError, match=f"cannot read rows 4:20, columns 0:8{found}"):
        read(ZarrReader(path), Region(4, 20, 0, 8))


def test_missing_chunks_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", pixels((8, 8)), chunks=(4, 4), fill_value=7)
    assert ZarrReader(path).describe()["warnings"] == []
    (tmp_path / "a.zarr" / "c" / "1" / "0").unlink()
    (text,) = ZarrReader(path).describe()["warnings"]
    assert "a.zarr lacks 1 of 4 chunk files, the first of them c/1/0; as Zarr has it" in text


# --- identity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [None, (4, 4)])
@pytest.mark.parametrize("way", ["zarr", "in place", "bands", "attributes", "removed"])
def test_identity_changes_with_the_raster_and_only_then(tmp_path: Path, shards: Any, way: str) -> None:
    path = group(tmp_path / "a.zarr", band=(("band",), ["a", "b"]))
    root = zarr.open_group(path)
    array = root.create_array(
        "image", shape=(8, 8, 2), chunks=(2, 2, 2), shards=shards and (*shards, 2), dtype="uint8",
        dimension_names=("y", "x", "band"),
    )  # fmt: skip
    array[...] = 1
    before = ZarrReader(path).identity()
    read(ZarrReader(path))
    assert json.loads(json.dumps(ZarrReader(path).identity())) == before
    chunk = next(f for f in Path(path, "image", "c").rglob("*") if f.is_file())
    if way == "zarr":
        array[:4, :4] = 2
    elif way == "in place":  # as zarrs writes: the folder does not change
        with chunk.open("r+b") as file:
            file.write(file.read()[::-1])
    elif way == "bands":
        root["band"][...] = np.array(["c", "d"], np.dtypes.StringDType())
    elif way == "attributes":
        array.attrs["missing_value"] = 3
    else:
        chunk.unlink()
    assert ZarrReader(path).identity() != before


def test_identity_of_a_moved_store_differs_only_in_its_path(tmp_path: Path) -> None:
    before = ZarrReader(write(tmp_path / "a.zarr", pixels((4, 4)))).identity()
    shutil.move(tmp_path / "a.zarr", tmp_path / "b.zarr")
    after = ZarrReader(str(tmp_path / "b.zarr")).identity()
    assert {key for key in before if before[key] != after[key]} == {"path"}


def test_rotated_grids_have_no_coordinates(tmp_path: Path) -> None:
    root = zarr.create_group(str(tmp_path / "a.zarr"))
    write_coordinates(root, RasterSpec(5, 6, np.dtype("uint8"), transform=ROTATED), Region(1, 3, 2, 4))
    assert set(root) == {"spatial_ref"}
    text = root["spatial_ref"].attrs["GeoTransform"]
    assert text == geo_text((8.0, 6.0, 500022.0, 6.0, -8.0, 5000004.0))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_that_stand_in_consolidated_metadata_alone(tmp_path: Path, codecs: None, zarr_format: int) -> None:
    path, values = tmp_path / "a.zarr", pixels((6, 8), "int16")
    root = zarr.create_group(path, zarr_format=zarr_format)
    for name, dims, data in (("image", ("y", "x"), values), ("y", ("y",), np.arange(6) * -10.0)):
        naming: dict[str, Any] = {"dimension_names": dims}
        if zarr_format == 2:
            naming = {"attributes": {"_ARRAY_DIMENSIONS": list(dims)}}
        root.create_array(name, data=data, chunks=tuple(3 for _ in dims), **naming)
    quietly(zarr.consolidate_metadata, path)
    for file in [*path.glob("*/zarr.json"), *path.glob("*/.z*")]:
        file.unlink()
    for reader in (ZarrReader(str(path)), pickle.loads(pickle.dumps(ZarrReader(str(path), Choice("image"))))):
        assert reader.spec.dims == ("y", "x")
        np.testing.assert_array_equal(read(reader), values)
        assert reader.identity()["metadata"]
        assert reader.evidence()
    with pytest.raises(InputError, match=r"unknown array 'imag'; did you mean 'image'\?"):
        ZarrReader(str(path), Choice("imag"))


@pytest.mark.parametrize("compressor", ["zstd", "gzip", "blosc"])
@pytest.mark.parametrize("checksum", ["crc32c", "numcodecs.crc32c", "numcodecs.fletcher32"])
def test_checksums_after_compressors(tmp_path: Path, codecs: None, compressor: str, checksum: str) -> None:
    compressors = {"zstd": zarr.codecs.ZstdCodec, "gzip": zarr.codecs.GzipCodec, "blosc": zarr.codecs.BloscCodec}
    named: Any = zarr.registry.get_codec_class(checksum)
    chain = [zarr.codecs.BytesCodec(), compressors[compressor](), quietly(named)]
    values = np.random.default_rng(0).integers(0, 30_000, (96, 300)).astype("int16")
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        path = str(tmp_path / "a.zarr")
        array = quietly(zarr.create, shape=values.shape, chunks=(50, 300), dtype="int16", store=path, codecs=chain)
        array[...] = values
    np.testing.assert_array_equal(read(ZarrReader(path, Choice(dims=("y", "x")))), values)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("checked", [True, False])
def test_indices_of_shards_in_both_orders(
    tmp_path: Path, codecs: None, location: Any, endian: Any, checked: bool
) -> None:
    inner = [zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
    index = [zarr.codecs.BytesCodec(endian=endian), *([zarr.codecs.Crc32cCodec()] if checked else [])]
    sharding = zarr.codecs.ShardingCodec(chunk_shape=(3, 4), codecs=inner, index_codecs=index, index_location=location)
    values = pixels((12, 16), "int16")
    values[:6, :8] = 0  # a shard of the fill value, and of others some chunks
    path = str(tmp_path / "a.zarr")
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        array = quietly(
            zarr.create, shape=(12, 16), chunks=(6, 8), dtype="int16", store=path, codecs=[sharding], fill_value=0
        )
        array[...] = values
    np.testing.assert_array_equal(read(ZarrReader(path)), values)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("dim_0", "dim_1"), "`dims: y,x`"),
        (("rlat", "rlon"), "`dims: y,x`"),
        (("yc", "xc"), "`dims: y,x`"),
        (("time", "rlat", "rlon"), "`dims: time,y,x`"),
        (("rlat", "rlon", "band"), "`dims: y,x,band`"),
        (("band", "dim_1", "dim_2"), "`dims: band,y,x`"),
        (
            ("y", "dim_1"),
            "dims are y,dim_1, none of which is known for x; say which they are, for",
        ),
        (("time", "y", "x"), "dim 'time' has 4 entries; pick one, for instance `at: {time: 0}`"),
    ],
)
def test_dims_of_other_names(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    values = pixels((4, 5, 6)[-len(names) :])
    with pytest.raises(InputError, match=re.escape(message)):
        ZarrReader(write(tmp_path / "a.zarr", values, names))


def test_dims_that_are_renamed_keep_their_coordinates(tmp_path: Path) -> None:
    values = pixels((2, 3, 5, 6))
    path = group(
        tmp_path / "a.zarr",
        image=(("when", "channel_name", "yc", "xc"), values),
        when=(("when",), ["first", "second"]),
        channel_name=(("channel_name",), ["red", "green", "nir"]),
        yc=(("yc",), 95 - 10.0 * np.arange(5)),
        xc=(("xc",), 5 + 10.0 * np.arange(6)),
    )
    reader = ZarrReader(path, Choice("image", {"time": 1}, ("time", "band", "y", "x")))
    assert reader.spec.bands == ("red", "green", "nir")
    assert reader.spec.transform == (10, 0, 0, 0, -10, 100)
    np.testing.assert_array_equal(read(reader), values[1])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "attributes",
    [
        *({key: 10**400} for key in ("_FillValue", "fill_value", "nodata", "scale_factor", "add_offset")),
        *({key: [10**400]} for key in ("nodatavals", "scales", "offsets")),
        *({key: [10**400, 0, 0, 0, 1, 0]} for key in ("transform", "spatial:transform")),
        {"geotiff": {"tags": {"33550": [10**400, 1, 0]}}},
    ],
)
def test_an_integer_beyond_the_doubles_is_left_out(tmp_path: Path, attributes: dict[str, Any], dtype: str) -> None:
    reader = ZarrReader(write(tmp_path / "a.zarr", pixels((4, 5), dtype), attributes=attributes))
    assert (reader.spec.nodata, reader.spec.transform, reader.scales) == (None, None, ())
    said = str(reader.describe()["warnings"])
    assert "is ignored" in said or "are ignored" in said or "transform" in str(attributes) or "geotiff" in attributes


@pytest.mark.parametrize("bands_of_chunk", [1, 3, 11])
@pytest.mark.parametrize("bands", [None, [4], [10, 2, 3, 0], list(range(11))[::-1]])
def test_bands_that_come_first_are_read_into_part_of_an_array(
    bands: list[int] | None, bands_of_chunk: int, tmp_path: Path
) -> None:
    """Some bands at a time, which takes no copy of all; nothing beside the part is written."""
    values = np.random.default_rng(0).integers(1, 99, (11, 30, 40)).astype("uint16")
    chunks = (bands_of_chunk, 8, 8)
    names = ("band", "y", "x")
    zarr.create_array(str(tmp_path / "in"), data=values, chunks=chunks, dimension_names=names)
    reader = ZarrReader(str(tmp_path / "in"))
    assert reader.chunk_bands == bands_of_chunk
    whole = np.zeros((len(bands or values), 40, 50), "uint16")
    region = Region(5, 22, 7, 32)
    reader.read(region, whole[:, 3:20, 5:30], bands)
    expected = np.zeros_like(whole)
    expected[:, 3:20, 5:30] = (values if bands is None else values[bands])[(slice(None), *region.slices())]
    np.testing.assert_array_equal(whole, expected)
