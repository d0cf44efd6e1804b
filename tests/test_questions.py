"""The questions as they were first asked, and real rasters: results against scipy and numpy, file to file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

import pipeline
from pipeline.synth import synth
from tests import harness

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
EPS = float(np.finfo(np.float32).eps)


def shared(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"needs ../shared/data/{name}, which is not here")
    return str(SHARED / name)


def smooth(source: Any, target: Path, size: int = 3, **run: Any) -> np.ndarray:
    steps = [{"name": "smooth", "op": "window", "size": size}]
    pipeline.run({"inputs": {"image": source}, "steps": steps, "output": {"path": str(target)}, "run": run})
    return harness.read(target, "smooth/mean")


def test_the_3_x_3_average_of_arange(tmp_path: Path) -> None:
    """For each pixel of a 10 x 10 array, the mean of its 8 neighbours and itself, in a loop."""
    array = np.arange(100.0).reshape(10, 10)
    expected = np.zeros((10, 10))
    for row in range(1, 9):
        for column in range(1, 9):
            expected[row, column] = array[row - 1 : row + 2, column - 1 : column + 2].sum() / 9
    got = smooth(harness.store(harness.Raster(array, ("y", "x")), tmp_path / "a.zarr"), tmp_path / "b.zarr")[0]
    np.testing.assert_allclose(got[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=4 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("size", [3, 15])
def test_a_real_scene_whose_nodata_is_0_equals_nanmean(tmp_path: Path, size: int) -> None:
    path = shared("RGB.byte.tif")
    got = smooth(path, tmp_path / "out.zarr", size)
    image = np.moveaxis(tifffile.imread(path).astype(np.float64), -1, 0)
    image[image == 0] = np.nan
    half = size // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)), mode="symmetric")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
        expected = np.where(np.isnan(image), np.nan, np.nanmean(windows, axis=(-1, -2)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert np.nanmax(np.abs(got - expected)) <= 4 * EPS * 255


def test_a_real_scene_with_nodata_ignored_equals_scipy(tmp_path: Path) -> None:
    path = shared("RGB.byte.tif")
    got = smooth({"path": path, "nodata": "none"}, tmp_path / "out.zarr")
    expected = ndimage.uniform_filter(tifffile.imread(path).astype(np.float64), (3, 3, 1))
    assert np.abs(got - np.moveaxis(expected, -1, 0)).max() <= 4 * EPS * 255


def test_a_real_float_raster_with_a_huge_nodata(tmp_path: Path) -> None:
    path = shared("float_raster_with_nodata.tif")
    got = smooth(path, tmp_path / "out.zarr")[0]
    image = tifffile.imread(path)
    invalid = image < -3e38
    assert invalid.any()
    np.testing.assert_array_equal(np.isnan(got), invalid)
    assert np.nanmax(np.abs(got)) <= np.abs(image[~invalid]).max()


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_the_main_job_equals_scipy(tmp_path: Path, workers: int) -> None:
    """5000 x 5000 x 16 float32 under 1 GiB, against scipy.ndimage on the whole array in float64, band by band."""
    scene = tmp_path / "scene.zarr"
    synth(scene, size=(5000, 5000))
    smooth(str(scene), tmp_path / "out.zarr", memory="1 GiB", workers=workers)
    image, result = zarr.open_array(scene, path="scene"), zarr.open_array(tmp_path / "out.zarr", path="smooth/mean")
    for band in range(16):
        plane = image[:, :, band].astype(np.float64)
        expected = ndimage.uniform_filter(plane, 3, mode="reflect")
        bound = 4 * EPS * ndimage.maximum_filter(np.abs(plane), 3)
        assert np.all(np.abs(result[:, :, band] - expected) <= bound)
