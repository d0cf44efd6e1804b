"""Files that GDAL knows: every format exactly, by many threads, in other processes, changed, damaged and refused."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from pipeline import api
from pipeline.model.errors import ChunkAway, InputChanged, InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.compose import open_input
from pipeline.storage.gdal.dataset import CACHE_BYTES
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.input import Choice, Input
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from tests.gdal_files import NORTH_UP, make, rasterio
from tests.georeference import UTM
from tests.zarr_files import read

shutil = pytest.importorskip("rasterio.shutil")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
JP2 = {"REVERSIBLE": "YES", "QUALITY": "100", "blockxsize": 64, "blockysize": 64, "codec": "J2K"}
SHAPE = (3, 150, 130)


def pixels_of(dtype: str, bands: int) -> np.ndarray:
    values = np.random.default_rng(3).integers(0, 250, (bands, *SHAPE[1:]))
    return values.astype(dtype) / (4 if np.dtype(dtype).kind == "f" else 1)


# file -> driver, dtype, bands, what GDAL is told, the driver that the input names
KINDS: dict[str, tuple[str, str, int, dict[str, Any], str | None]] = {
    "a.jp2": ("JP2OpenJPEG", "uint16", 1, JP2, None),
    "rgb.jp2": ("JP2OpenJPEG", "uint8", 3, JP2 | {"codec": "JP2"}, None),
    "a.png": ("PNG", "uint16", 1, {}, None),
    "rgb.png": ("PNG", "uint8", 3, {}, None),
    "a.bmp": ("BMP", "uint8", 3, {}, None),
    "a.webp": ("WEBP", "uint8", 3, {"LOSSLESS": "YES"}, None),
    "a.gif": ("GIF", "uint8", 1, {}, None),
    "a.img": ("HFA", "int16", 3, {}, None),
    "packed.img": ("HFA", "uint8", 1, {"COMPRESSED": "YES"}, None),
    "big.img": ("HFA", "uint8", 2, {"USE_SPILL": "YES"}, None),
    "a.dat": ("ENVI", "float32", 3, {"INTERLEAVE": "bil"}, None),
    "pixels": ("ENVI", "float64", 2, {"INTERLEAVE": "bip"}, None),
    "a.bil": ("EHdr", "int16", 2, {}, None),
    "a.asc": ("AAIGrid", "float32", 1, {}, None),
    "a.slc": ("ISCE", "float32", 2, {}, None),
    "text.asc": ("GSAG", "float64", 1, {}, None),
    "b.grd": ("GSBG", "float32", 1, {}, None),
    "a.grib": ("GRIB", "float64", 1, {}, None),
    "a.pgm": ("PNM", "uint8", 1, {}, None),
    "a.map": ("PCRaster", "float32", 1, {}, None),
    "a.nc": ("netCDF", "float32", 1, {}, None),
    "four.nc": ("netCDF", "int16", 1, {"FORMAT": "NC4C", "COMPRESS": "DEFLATE"}, "netCDF"),
}


def write_kind(folder: Path, name: str) -> tuple[Path, np.ndarray]:
    """Write a file of a kind by GDAL; return its path and its pixels."""
    driver, dtype, bands, options, _ = KINDS[name]
    values = pixels_of(dtype, bands)
    form = {"count": bands, "height": SHAPE[1], "width": SHAPE[2], "dtype": dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(*UTM)}
    with rasterio.open(folder / "made.tif", "w", driver="GTiff", **form, **place) as file:
        file.write(values)
    shutil.copy(folder / "made.tif", folder / name, driver=driver, **options)
    return folder / name, values


def planes_of(reader: Reader) -> np.ndarray:
    spec, values = reader.spec, read(reader)
    return np.moveaxis(values, spec.dims.index("band"), 0) if "band" in spec.dims else values[np.newaxis]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    path, values = write_kind(tmp_path, name)
    driver, dtype, bands, _, named = KINDS[name]
    reader = open_raster(str(path), Choice(driver=named))
    assert (reader.spec.dtype, reader.spec.num_bands) == (dtype, bands)
    assert reader.describe()["format"].startswith(driver)
    np.testing.assert_array_equal(planes_of(reader), values)
    np.testing.assert_array_equal(planes_of(pickle.loads(pickle.dumps(reader))), values)
    part = Region(17, 140, 60, 129)
    np.testing.assert_array_equal(
        read(reader, part, [bands - 1]).reshape(part.shape), values[bands - 1, 17:140, 60:129]
    )
    assert (reader.evidence()[0].path, reader.identity()["size"]) == (str(path), path.stat().st_size)


PLACED = [name for name, (driver, *_) in KINDS.items() if driver in ("HFA", "ENVI", "EHdr", "AAIGrid", "netCDF")]


@pytest.mark.parametrize("name", ["rgb.jp2", *PLACED])
def test_the_place_that_a_file_says_is_read(tmp_path: Path, name: str) -> None:
    path, _ = write_kind(tmp_path, name)
    spec = open_raster(str(path), Choice(driver=KINDS[name][4])).spec
    assert tuple(spec.transform or ()) == pytest.approx(UTM)
    assert spec.crs == "EPSG:32633"


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    path, values = write_kind(tmp_path, "rgb.jp2")
    reader = open_raster(str(path))
    parts = [
        Region(top, min(top + 37, 150), left, min(left + 41, 130)) for top in range(0, 150, 37) for left in (0, 41)
    ]

    def differs(part: Region) -> bool:
        rows, columns = part.slices()
        return bool((read(reader, part) != np.moveaxis(values, 0, -1)[rows, columns]).any())

    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(differs, parts * 8))


def test_levels_of_jpeg_2000(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    make(tmp_path / "a.tif", height=512, width=512, dtype="uint16")
    shutil.copy(tmp_path / "a.tif", path, driver="JP2OpenJPEG", RESOLUTIONS="3", **{**JP2, "codec": "JP2"})
    reader = open_raster(str(path), Choice(level=1))
    with rasterio.open(path, overview_level=0) as file:
        np.testing.assert_array_equal(read(reader), file.read(1))
    assert reader.spec.transform == open_raster(str(path)).spec.transform.scale(2, 2)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="`level: 9`: the file has levels up to 2, 0 is full resolution"):
        open_raster(str(path), Choice(level=9))


def test_chunks_are_whole_blocks(tmp_path: Path) -> None:
    assert open_raster(str(write_kind(tmp_path, "a.dat")[0])).chunk == (150, 130)  # rows of a strip of 1 MiB
    path = tmp_path / "a.img"
    make(tmp_path / "a.tif", height=700, width=900)
    shutil.copy(tmp_path / "a.tif", path, driver="HFA")
    assert open_raster(str(path)).chunk == (256, 256)  # of 64 x 64
    with pytest.raises(
        InputError, match=r"a.img: blocks of 64 x 64 pixels decode to 4,096 bytes each, the limit is 100"
    ):
        open_raster(str(path), limits=ReadLimits.model_construct(tile_bytes=100))


def test_an_image_that_is_decoded_whole_is_one_chunk(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", count=3, photometric="rgb")
    for name, options, chunk in (("a", {}, (40, 60)), ("b", {"PROGRESSIVE": "ON"}, (40, 60))):
        shutil.copy(tmp_path / "a.tif", tmp_path / f"{name}.jpg", driver="JPEG", **options)
        reader = open_raster(str(tmp_path / f"{name}.jpg"))
        assert reader.chunk == chunk
        with rasterio.open(tmp_path / f"{name}.jpg") as file:
            np.testing.assert_array_equal(planes_of(reader), file.read())
    with pytest.raises(InputError, match="blocks of 40 x 60 pixels decode to 7,200 bytes each"):
        open_raster(str(tmp_path / "b.jpg"), limits=ReadLimits.model_construct(tile_bytes=1000))
    assert open_raster(str(tmp_path / "a.jpg"), limits=ReadLimits.model_construct(tile_bytes=1000)).spec.num_bands == 3


# --- what a file says of its bands --------------------------------------------------------------------------------


def cube(path: Path) -> xarray.Dataset:
    """Write a NetCDF 3 file of two variables, one of them with times."""
    times = np.array(["2024-01-01", "2024-01-11", "2024-02-01"], "M8[ns]")
    coordinates = {"time": times, "y": 105.0 - 10 * np.arange(7), "x": 5.0 + 10 * np.arange(9)}
    values = np.arange(3 * 7 * 9, dtype="f4").reshape(3, 7, 9)
    dataset = xarray.Dataset(
        {"red": (("time", "y", "x"), values), "height": (("y", "x"), values[0].astype("i2"))}, coordinates
    )
    for axis in ("y", "x"):
        dataset[axis].attrs |= {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    dataset["height"].attrs |= {"scale_factor": 0.5, "add_offset": 100.0, "units": "m", "missing_value": np.int16(-1)}
    dataset.to_netcdf(path, engine="scipy")
    return dataset


def test_arrays_of_a_netcdf_file(tmp_path: Path) -> None:
    path = tmp_path / "odd: name, 'x'.nc"
    dataset = cube(path)
    with pytest.raises(InputError, match="holds 2 rasters: height, red; name one: `array: height`"):
        open_raster(str(path))
    with pytest.raises(InputError, match="unknown array 'rad'; did you mean 'red'"):
        open_raster(str(path), Choice("rad"))
    red, height = open_raster(str(path), Choice("red")), open_raster(str(path), Choice("height"))
    np.testing.assert_array_equal(read(red), dataset["red"].values)
    days = ("2024-01-01T00:00:00", "2024-01-11T00:00:00", "2024-02-01T00:00:00")
    assert red.spec.band_coordinates == (("time", days), ("source_band", ("red",) * 3))
    assert (height.scales, height.spec.nodata, height.spec.transform) == (((0.5, 100.0),), -1, (10, 0, 0, 0, -10, 110))
    units = [item.text for item in recorded_of(height.spec).items if item.role == "unittype"]
    assert units == ["m"]
    scaled = open_input(Input(path=str(path), array="height", scale="apply"))
    np.testing.assert_array_equal(read(scaled), dataset["height"].values * np.float32(0.5) + 100)


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_rows_of_netcdf(tmp_path: Path, marked: bool, upwards: bool) -> None:
    """They are turned the north up by their coordinates, and without such they stay."""
    values = np.arange(63, dtype="f4").reshape(7, 9)
    y = 45.0 + 10 * np.arange(7) if upwards else 105.0 - 10 * np.arange(7)
    dataset = xarray.Dataset({"red": (("y", "x"), values)}, {"y": y, "x": 5.0 + 10 * np.arange(9)})
    for axis in ("y", "x") if marked else ():
        dataset[axis].attrs |= {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    dataset.to_netcdf(tmp_path / "a.nc", engine="scipy")
    reader = open_raster(str(tmp_path / "a.nc"), Choice("red"))
    assert reader.spec.transform == ((10, 0, 0, 0, -10, 110) if marked else None)
    np.testing.assert_array_equal(read(reader), values[::-1] if marked and upwards else values)
    assert ["no place is known" in text for text in reader.describe()["warnings"]] == ([] if marked else [True])


def test_hdf5_takes_a_name(tmp_path: Path) -> None:
    """It may keep pixels in other files, which GDAL opens wherever they lie."""
    path, values = write_kind(tmp_path, "four.nc")
    with pytest.raises(InputError, match="`driver: netCDF` at the input reads it, if you trust it"):
        open_raster(str(path))
    path = path.rename(tmp_path / "four.h5")
    with pytest.raises(InputError, match="`driver: HDF5` at the input reads it"):
        open_raster(str(path))
    array = open_raster(str(path), Choice(driver="HDF5"))
    np.testing.assert_array_equal(np.flipud(read(array)), values[0])  # as it is stored, the south up


def test_alpha_colours_and_nodata_that_differ(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", count=4, photometric="rgb", alpha="yes")
    shutil.copy(tmp_path / "a.tif", tmp_path / "a.png", driver="PNG")
    assert open_raster(str(tmp_path / "a.png")).spec.bands == ("b1", "b2", "b3", "alpha")
    make(tmp_path / "b.tif", colormap=True)
    shutil.copy(tmp_path / "b.tif", tmp_path / "b.png", driver="PNG")
    recorded = [recorded_of(open_raster(str(tmp_path / f"b.{suffix}")).spec) for suffix in ("tif", "png")]
    assert recorded[0].colors == recorded[1].colors != ()
    make(tmp_path / "c.tif", count=2)
    shutil.copy(tmp_path / "c.tif", tmp_path / "c.img", driver="HFA")
    with rasterio.open(tmp_path / "c.img", "r+") as file:
        file.nodata = 7
    spec = open_raster(str(tmp_path / "c.img")).spec
    assert spec.nodata == 7


# --- what lies beside a file --------------------------------------------------------------------------------------


def test_what_lies_beside_a_file_is_read_on_request(tmp_path: Path) -> None:
    make(tmp_path / "a.tif", crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n505\n795\n")
    xml = "<PAMDataset><SRS>EPSG:32633</SRS><PAMRasterBand band='1'><NoDataValue>9</NoDataValue></PAMRasterBand>"
    (tmp_path / "a.tif.aux.xml").write_text(f"{xml}</PAMDataset>")
    plain, both = (open_input(Input(path=str(tmp_path / "a.tif"), sidecar=sidecar)) for sidecar in (False, True))
    assert (plain.spec.transform, plain.spec.crs, plain.spec.nodata) == (None, None, None)
    told = " ".join(plain.describe()["warnings"])
    assert "a.tif.aux.xml lies beside the file, says more (NoDataValue, SRS)" in told
    assert told.count("`sidecar: true` at the input reads both") == 2
    assert (both.spec.transform, both.spec.crs, both.spec.nodata) == ((10, 0, 500, 0, -10, 800), "EPSG:32633", 9)
    assert both.describe()["warnings"] == []
    np.testing.assert_array_equal(read(plain), read(both))
    (tmp_path / "a.tfw").write_text("20\n0\n0\n-10\n505\n795\n")
    with pytest.raises(InputChanged, match=r"a.tfw: is not as it was"):
        read(both)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tif.ovr", "<VRTDataset/>"),
        ("a.tif.msk", "<GDAL_WMS/>"),
        (
            "a.tif.aux.xml",
            "<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>/x</MDI></Metadata></PAMDataset>",
        ),
        ("a.tif.aux.xml", "<!DOCTYPE x><PAMDataset/>"),
    ],
)
def test_what_lies_beside_a_file_leads_nowhere(tmp_path: Path, name: str, text: str) -> None:
    make(tmp_path / "a.tif")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        open_raster(str(tmp_path / "a.tif"), Choice(sidecar=True))
    assert open_raster(str(tmp_path / "a.tif"), Choice(driver="GTiff")).spec.num_bands == 1


# --- changed, damaged, refused ------------------------------------------------------------------------------------


def test_a_file_that_changes_or_goes_is_noticed(tmp_path: Path) -> None:
    path, _ = write_kind(tmp_path, "a.dat")
    reader = open_raster(str(path))
    read(reader)
    pickled = pickle.dumps(reader)
    os.utime(tmp_path / "a.hdr")
    with pytest.raises(InputChanged, match=r"a.hdr: is not as it was when the run began"):
        read(reader)
    with pytest.raises(InputChanged, match="changed since it was opened"):
        pickle.loads(pickled)
    reader = open_raster(str(path))
    path.unlink()
    with pytest.raises(ChunkAway, match=r"a.dat: was there when the run began, and is not now"):
        read(reader)


KEPT_APART = ("big.img",)
"""Their pixels lie in a second file."""


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in KEPT_APART])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, part: float) -> None:
    path, _ = write_kind(tmp_path, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=rf"^{path}: "):
        read(open_raster(str(path), Choice(driver=KINDS[name][4])))


def test_a_netcdf_file_of_records_has_its_length(tmp_path: Path) -> None:
    """One variable with records, and one beside others; the last byte counts."""
    for names in (["red"], ["red", "flag"]):
        path = tmp_path / f"{len(names)}.nc"
        dataset = cube(tmp_path / "cube.nc")
        dataset["flag"] = dataset["red"].astype("i1")
        dataset[names].to_netcdf(path, engine="scipy", unlimited_dims=["time"])
        assert open_raster(str(path), Choice("red")).spec.num_bands == 3
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(InputError, match=r"bytes, .* are due: it is truncated; copy it again"):
            open_raster(str(path), Choice("red"))


def test_a_jpeg_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """libjpeg fills the rest with grey and warns."""
    make(tmp_path / "a.tif", height=400, width=400)
    shutil.copy(tmp_path / "a.tif", tmp_path / "a.jpg", driver="JPEG")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a.jpg: rows \d+ to \d+, columns 0 to 400 .*; copy the file again"):
        read(open_raster(str(tmp_path / "a.jpg")))


def test_the_network_and_virtual_files_are_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "wms.xml").write_text(
        "<GDAL_WMS><Service name='WMS'><ServerUrl>http://x/</ServerUrl></Service></GDAL_WMS>"
    )
    for name in ("wms.xml", "/vsicurl/x/a.jp2", "WMS:x", "NETCDF:a.nc:red", "PG:dbname=x"):
        path = str(tmp_path / name) if name == "wms.xml" else name
        with pytest.raises(InputError, match=r"no such file|is no raster that is known"):
            open_raster(path, Choice(driver=None if name == "wms.xml" else "GTiff"))
    with pytest.raises(ValueError, match=r"unknown driver 'WMS'.*reach for files elsewhere or the network"):
        Input(path="a", driver="WMS")
    with pytest.raises(InputError, match="only Zarr and TIFF are read from object stores"):
        open_raster("s3://bucket/scene.jp2")


def test_misplaced_options(tmp_path: Path) -> None:
    path, _ = write_kind(tmp_path, "a.png")
    with pytest.raises(InputError, match="`at`, `along` and `series` are for Zarr and TIFF"):
        open_raster(str(path), Choice(series=1))
    with pytest.raises(InputError, match="`array: red`: the file is one raster; leave it out"):
        open_raster(str(path), Choice("red"))


def test_bands_of_different_dtypes_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    make(tmp_path / "b.tif", dtype="float32")
    bands = "".join(
        f"<VRTRasterBand dataType='{kind}' band='{band}'><SimpleSource><SourceFilename relativeToVRT='1'>{name}.tif"
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, (name, kind) in enumerate((("a", "Byte"), ("b", "Float32")), 1)
    )
    (tmp_path / "a.vrt").write_text(f"<VRTDataset rasterXSize='60' rasterYSize='40'>{bands}</VRTDataset>")
    with pytest.raises(InputError, match=r"its bands are of different dtypes \(uint8, float32\)"):
        open_raster(str(tmp_path / "a.vrt"), Choice(driver="VRT"))


# --- as a user ----------------------------------------------------------------------------------------------------


def test_a_run_over_sentinel_2_as_delivered(tmp_path: Path) -> None:
    """Its bands as a stack, from JPEG 2000, give what they give as TIFFs, to the bit."""
    for name, low in (("B04", 0), ("B08", 1000)):
        values = np.random.default_rng(low).integers(low, low + 999, (300, 260)).astype(np.uint16)
        form = {"count": 1, "height": 300, "width": 260, "dtype": "uint16", "crs": "EPSG:32633", "transform": NORTH_UP}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **form) as file:
            file.write(values, 1)
        shutil.copy(tmp_path / f"{name}.tif", tmp_path / f"{name}.jp2", driver="JP2OpenJPEG", **{**JP2, "codec": "JP2"})
    found = []
    for suffix in ("tif", "jp2"):
        steps = [
            {"name": "ndvi", "op": "calc", "input": "image", "expression": "(B08 - B04) / (B08 + B04)"},
            {"name": "smooth", "op": "window", "size": 5, "statistics": ["mean"]},
        ]
        stack = [str(tmp_path / f"{name}.{suffix}") for name in ("B04", "B08")]
        output = {"path": str(tmp_path / f"{suffix}.tif"), "keep": ["smooth"]}
        api.run({"inputs": {"image": {"stack": stack, "nodata": 0}}, "steps": steps, "output": output})
        with rasterio.open(tmp_path / f"{suffix}.tif") as file:
            found.append((file.read().tobytes(), file.crs, file.transform))
    assert found[0] == found[1]


def test_info_and_convert(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    dataset = cube(path)
    facts = api.info(path, "red")
    assert facts.inputs_line == f"  image: {{path: {path}, array: red}}"
    assert facts["format"] == "netCDF (GDAL)"
    api.convert(path, tmp_path / "a.zarr", array="red", output={"chunks": [4, 4]})
    stored = xarray.open_zarr(tmp_path / "a.zarr", group="raster")
    np.testing.assert_array_equal(stored["value"].values, dataset["red"].values)
    assert stored["time"].values.tolist()[0] == "2024-01-01T00:00:00"


def test_gdal_keeps_a_small_cache(tmp_path: Path) -> None:
    from rasterio.env import get_gdal_config

    read(open_raster(str(write_kind(tmp_path, "a.jp2")[0])))
    assert get_gdal_config("GDAL_CACHEMAX") == CACHE_BYTES
