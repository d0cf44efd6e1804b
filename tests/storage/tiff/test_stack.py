"""Images, channels, slices, times, levels and masks of TIFF files, against the arrays that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import pipeline
from pipeline import api
from pipeline.model.errors import InputError
from pipeline.model.raster import RasterSpec
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.tiff.reader import TiffReader


def read(path: Path, **choice: Any) -> tuple[RasterSpec, np.ndarray]:
    reader = TiffReader.open(path, None, Choice(**choice))
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    return reader.spec, out


def stack(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, shape).astype("uint8")


@pytest.mark.parametrize("axes", ["TZCYX", "CTZYX", "ZCTYX"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_of_a_slice_and_a_time(tmp_path: Path, axes: str, kind: str) -> None:
    if kind == "imagej":
        axes = "TZCYX"  # its only order
    sizes = {"T": 2, "Z": 3, "C": 4, "Y": 16, "X": 20}
    array = stack(*(sizes[axis] for axis in axes))
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    options: dict[str, Any] = {"metadata": {"axes": axes}}
    tifffile.imwrite(
        path, array, **options, **({"imagej": True} if kind == "imagej" else {"photometric": "minisblack"})
    )
    ordered = array.transpose([axes.index(axis) for axis in "TZCYX"])
    for t in range(2):
        for z in range(3):
            np.testing.assert_array_equal(read(path, at={"z": z, "t": t})[1], ordered[t, z])
    with pytest.raises(InputError, match=r"dim 'z' has 3 entries; pick one, for instance `at: \{z: 0\}`"):
        read(path)
    with pytest.raises(InputError, match=r"`at: \{z: 3\}` is outside; z has 3 entries"):
        read(path, at={"z": 3, "t": 0})
    with pytest.raises(InputError, match=r"unknown dim 'q'"):
        read(path, at={"q": 3})
    with pytest.raises(InputError, match="the 4 channels are the bands; pick some with `bands:`"):
        read(path, at={"c": 0})
    with pytest.raises(InputError, match="`at` cuts a file at positions, whole numbers from 0; got '2020-06-01'"):
        open_raster(str(path), Choice(at={"t": "2020-06-01"}))
    with pytest.raises(InputError, match=r"`array` and `at` are for Zarr groups; this is a file \(of several images"):
        open_raster(str(path), Choice("image"))


def test_names_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "Cy5"]}}
    tifffile.imwrite(path, stack(3, 16, 20), photometric="minisblack", metadata=metadata)
    assert read(path)[0].bands == ("DAPI", "GFP", "Cy5")


def test_names_of_channels_that_stand_twice(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack(3, 16, 20), photometric="minisblack", metadata=metadata)
    reader = TiffReader.open(tmp_path / "a.ome.tif")
    assert reader.spec.bands == ("b1", "b2", "b3")
    assert "the band names are ignored: they are not unique (DAPI, GFP, GFP)" in reader.describe()["warnings"]


def test_labels_of_imagej(tmp_path: Path) -> None:
    path, labels = tmp_path / "a.tif", ["DAPI 0", "GFP 0", "DAPI 1", "GFP 1"]
    tifffile.imwrite(path, stack(2, 2, 16, 20), imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    assert read(path, at={"z": 0})[0].bands == ("DAPI 0", "GFP 0")
    assert read(path, at={"z": 1})[0].bands == ("DAPI 1", "GFP 1")
    tifffile.imwrite(path, stack(2, 16, 20), imagej=True, metadata={"axes": "ZYX", "Labels": ["first", "second"]})
    assert read(path, at={"z": 0})[0].bands == ("b1",)  # the label is of a slice, no name of a channel


def test_colours_are_samples(tmp_path: Path) -> None:
    array = stack(16, 20, 3)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="rgb", metadata={"axes": "YXS"})
    spec, found = read(tmp_path / "a.ome.tif")
    assert spec.dims == ("y", "x", "band")
    np.testing.assert_array_equal(found, array)


def test_several_images(tmp_path: Path) -> None:
    path, first, second = tmp_path / "a.ome.tif", stack(3, 16, 20), stack(2, 8, 9)
    with tifffile.TiffWriter(path) as writer:
        writer.write(first, photometric="minisblack", metadata={"axes": "CYX"})
        writer.write(second, photometric="minisblack", metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read(path)[1], first)
    np.testing.assert_array_equal(read(path, series=1, at={"z": 1})[1], second[1])
    with pytest.raises(InputError, match=r"`series: 2`: the file has 2 images"):
        read(path, series=2)


def test_images_that_nothing_tells_of(tmp_path: Path) -> None:
    path, first, second = tmp_path / "a.tif", stack(3, 16, 20), stack(8, 9)
    with tifffile.TiffWriter(path) as writer:
        for array in (first, second):
            writer.write(array, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read(path, series=1)[1], second)
    with pytest.raises(InputError, match="no such stack"):
        read(path, at={"z": 0})


@pytest.mark.parametrize("below", [True, False])
def test_levels(tmp_path: Path, below: bool) -> None:
    path, array = tmp_path / "a.tif", stack(64, 48)
    place = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0), True)]
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "tile": (16, 16)}
        writer.write(array, subifds=2 if below else None, extratags=place, **options)
        for step in (2, 4):
            writer.write(array[::step, ::step], subfiletype=1, **options)
    for level in range(3):
        spec, found = read(path, level=level)
        np.testing.assert_array_equal(found, array[:: 2**level, :: 2**level])
        assert spec.transform == (10 * 2**level, 0, 500, 0, -10 * 2**level, 900)
    with pytest.raises(InputError, match=r"`level: 3`: the file has levels up to 2"):
        read(path, level=3)


def test_control_points_are_of_full_resolution(tmp_path: Path) -> None:
    path, array = tmp_path / "a.tif", stack(64, 48)
    tied = (33922, 12, 12, (0.0, 0.0, 0.0, 5.0, 9.0, 0.0, 8.0, 9.0, 0.0, 6.0, 8.0, 0.0), True)
    tags = [tied, (50844, 12, 92, (1.0,) * 92, True)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, photometric="minisblack", metadata=None, extratags=tags)
        writer.write(array[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    for level, codes in ((0, {33922, 50844}), (1, set())):
        reader = TiffReader.open(path, choice=Choice(level=level))
        assert {code for code, _ in recorded_of(reader.spec).tags} == codes
        said = any("left out: they are of full resolution" in text for text in reader.describe()["warnings"])
        assert said == (level == 1)


def test_the_internal_mask_is_a_raster(tmp_path: Path) -> None:
    path, array = tmp_path / "a.tif", stack(64, 48)
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, photometric="minisblack", metadata=None)
        writer.write(array > 50, photometric="mask", subfiletype=4, metadata=None)
    document = {
        "inputs": {"image": str(path), "valid": {"path": str(path), "series": "mask"}},
        "steps": [{"name": "clear", "op": "mask", "input": "image", "where": "valid", "inputs": {"valid": "valid"}}],
        "output": {"path": str(tmp_path / "b.tif")},
    }
    plan = api.plan(document)
    assert any("internal mask" in note and "series: mask" in note for note in plan["notes"])
    pipeline.run(document)
    found = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(found, np.where(array > 50, array, np.nan).astype(found.dtype))


def test_alpha_is_a_band_that_is_called_so(tmp_path: Path) -> None:
    array = stack(16, 20, 4)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    assert read(tmp_path / "a.tif")[0].bands == ("b1", "b2", "b3", "alpha")


def test_a_description_that_is_nonsense_is_said(tmp_path: Path) -> None:
    text = '<OME><Image><Pixels SizeC="x" DimensionOrder="XYCZT"/></Image></OME>'
    tifffile.imwrite(tmp_path / "a.tif", stack(2, 8, 9), photometric="minisblack", metadata=None, description=text)
    reader = TiffReader.open(tmp_path / "a.tif")
    assert reader.spec.num_bands == 2
    assert "of its channels and slices is ignored" in reader.describe()["warnings"][0]


def test_a_plane_in_another_file_is_missed(tmp_path: Path) -> None:
    text = (
        '<OME UUID="urn:uuid:1"><Image><Pixels DimensionOrder="XYCZT" SizeC="2" SizeZ="1" SizeT="1">'
        '<TiffData FirstC="0" IFD="0"><UUID FileName="a.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0"><UUID FileName="b.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "a.tif", stack(8, 9), photometric="minisblack", metadata=None, description=text)
    with pytest.raises(InputError, match="channel 1, slice 0, time 0 lies in another file"):
        TiffReader.open(tmp_path / "a.tif")
