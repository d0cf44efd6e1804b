"""The questions as they were first asked, and real rasters: results against scipy and numpy, file to file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from scipy import ndimage
from scipy.spatial import cKDTree

import pipeline
from pipeline.verbs.demo.synth import synth
from tests import harness
from tests.sources import PROJECT, SHARED

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


def run(image: np.ndarray, steps: list[dict[str, Any]], folder: Path) -> dict[str, np.ndarray]:
    """Run steps on a single band, file to file; return what is kept."""
    source = harness.store(harness.Raster(image, ("y", "x"), chunks=(40, 50)), folder / "in.zarr")
    return harness.run(source, steps, folder)


def test_finite_differences_in_a_loop(tmp_path: Path) -> None:
    """Gradient and Hessian of a 2-D array in the interior, pixel by pixel."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 70))
    dy, dx = 2.0, 0.5
    steps = [
        {"name": "slope", "op": "gradient", "input": "image", "spacing": [dy, dx], "edge": "zero"},
        {"name": "bend", "op": "hessian", "input": "image", "spacing": [dy, dx], "edge": "zero"},
    ]
    got = run(image, steps, tmp_path)
    expected = {name: np.zeros(image.shape) for name in got}
    for i in range(1, 59):
        for j in range(1, 69):
            a = image[i - 1 : i + 2, j - 1 : j + 2]
            expected["slope/dy"][i, j] = (a[2, 1] - a[0, 1]) / (2 * dy)
            expected["slope/dx"][i, j] = (a[1, 2] - a[1, 0]) / (2 * dx)
            expected["bend/dyy"][i, j] = (a[2, 1] - 2 * a[1, 1] + a[0, 1]) / dy**2
            expected["bend/dxx"][i, j] = (a[1, 2] - 2 * a[1, 1] + a[1, 0]) / dx**2
            expected["bend/dxy"][i, j] = (a[2, 2] - a[2, 0] - a[0, 2] + a[0, 0]) / (4 * dy * dx)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name][0], values, rtol=0, atol=4 * np.finfo(float).eps * 5 * 16)


def test_gradient_equals_numpy_at_the_edges(tmp_path: Path) -> None:
    image = np.random.default_rng(1).normal(size=(50, 61))
    for edge, order in (("one_sided", 1), ("one_sided_2", 2)):
        step = {"name": "g", "op": "gradient", "spacing": [3, 2], "edge": edge}
        got = run(image, [step], tmp_path / edge)
        for name, expected in zip(("g/dy", "g/dx"), np.gradient(image, 3, 2, edge_order=order), strict=True):
            np.testing.assert_allclose(got[name][0], expected, rtol=0, atol=4 * np.finfo(float).eps * 20)


def test_gabor_statistics_of_the_brick_wall(tmp_path: Path) -> None:
    """For every pixel, mean and variance of the Gabor response in the 15 x 15 window centred on it."""
    skimage = pytest.importorskip("skimage")
    from skimage.filters import gabor_kernel

    image = skimage.data.brick().astype(np.float64)
    kernel = np.real(gabor_kernel(0.15, theta=np.pi / 2, sigma_x=5, sigma_y=5))
    response = ndimage.convolve(image, kernel)
    mean = ndimage.uniform_filter(response, 15)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(response, 7, mode="symmetric"), (15, 15))
    step = {"name": "g", "op": "gabor", "frequencies": [0.15], "orientations": [90], "sigma": 5}
    got = run(image, [{**step, "window": 15, "statistics": ["mean", "var"]}], tmp_path)
    largest = float(np.abs(kernel).sum() * image.max())
    np.testing.assert_allclose(got["g/mean"][0], mean, rtol=0, atol=1e-12 * largest)
    np.testing.assert_allclose(got["g/var"][0], windows.var(axis=(-1, -2)), rtol=0, atol=1e-12 * largest**2)


def test_a_vegetation_index_of_unsigned_bands(tmp_path: Path) -> None:
    bands = np.random.default_rng(2).integers(0, 4000, (60, 70, 2), dtype=np.uint16)
    bands[0, 0] = 0
    source = harness.store(harness.Raster(bands, ("y", "x", "band")), tmp_path / "in.zarr")
    steps = [
        {"name": "ndvi", "op": "calc", "expression": "(b2 - b1) / (b2 + b1)"},
        {"name": "rough", "op": "window", "size": 5, "statistics": ["std"]},
        {"name": "both", "op": "calc", "inputs": {"a": "ndvi", "b": "rough"}, "expression": "a - b"},
    ]
    got = harness.run(source, steps, tmp_path, keep=["ndvi", "rough", "both"])
    red, infrared = np.moveaxis(bands.astype(np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        expected = (infrared - red) / (infrared + red)
    np.testing.assert_allclose(got["ndvi/value"][0], expected, rtol=4 * EPS)
    assert np.isnan(got["ndvi/value"][0, 0, 0])
    np.testing.assert_array_equal(got["both/value"], got["ndvi/value"] - got["rough/std"])


@pytest.mark.parametrize("size", [3, pytest.param(15, marks=pytest.mark.thorough)])
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


@pytest.mark.long
def test_all_systems_at_full_size(tmp_path: Path) -> None:
    """configs/all-systems.yaml on 5000 x 5000 x 16: thousands of labels in a block, a million colours of floats."""
    scene, labels = tmp_path / "scene.zarr", tmp_path / "labels.zarr"
    synth(scene, size=(5000, 5000), labels=labels, num_labels=10_000)
    config = yaml.safe_load((PROJECT / "configs" / "all-systems.yaml").read_text())
    config["inputs"] = {"image": str(scene), "labels": str(labels)}
    config["output"]["path"] = str(tmp_path / "out.zarr")
    pipeline.run(config)
    image, names = zarr.open_array(scene, path="scene")[...], open_only(labels)[...]
    check_zones(image, names, tmp_path / "out.zarr")
    check_poster(image[::10, ::10, [3, 2, 1]], tmp_path / "out.zarr")


def open_only(path: Path) -> Any:
    """Return the one two-dimensional array of a group."""
    (array,) = (array for _, array in zarr.open_group(path, mode="r").arrays() if array.ndim == 2)
    return array


def check_zones(image: np.ndarray, labels: np.ndarray, store: Path) -> None:
    ids = labels.reshape(-1)
    used = ids >= 0
    for band in range(image.shape[2]):
        values = image[:, :, band].reshape(-1).astype(np.float64)
        sums = np.bincount(ids[used], weights=values[used])
        means = sums / np.maximum(np.bincount(ids[used]), 1)
        got = zarr.open_array(store, path="zones/mean")[:, :, band].reshape(-1)
        np.testing.assert_allclose(got[used], means[ids[used]], rtol=4 * EPS)


def check_poster(pixels: np.ndarray, store: Path) -> None:
    """The colour of every tenth pixel is as near as any of the palette."""
    palette = zarr.open_array(store, path="colors/palette")[...].astype(np.float64)
    colors = zarr.open_array(store, path="poster/color")[::10, ::10].astype(np.float64)
    nearest, _ = cKDTree(palette).query(pixels.reshape(-1, 3).astype(np.float64))
    got = np.sqrt(((colors - pixels) ** 2).sum(axis=-1)).reshape(-1)
    np.testing.assert_allclose(got, nearest, rtol=1e-6)
