"""The same work by others, from file to file on two threads; each is called in a process of its own."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.ndimage
import zarr
from zarr.codecs import BloscCodec

THREADS = 2
GABOR_SIZE = 31
dask.config.set(scheduler="threads", num_workers=THREADS)


def use_zarrs() -> None:
    """Read and write through zarrs, as we do; by default zarr has its own codecs."""
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def source(path: str, array: str) -> da.Array:
    return da.from_zarr(path, component=array)


def store(results: dict[str, da.Array], path: str, *, codec: str | None = "lz4") -> None:
    """Write arrays into a group, all in one computation; our default codec, or (None) the default of zarr."""
    group = zarr.create_group(path)
    options: dict[str, Any] = {}
    if codec:
        options["compressors"] = BloscCodec(cname=codec, clevel=5, shuffle="shuffle")
    targets = [
        group.create_array(name, shape=array.shape, chunks=array.chunksize, dtype=array.dtype, **options)
        for name, array in results.items()
    ]
    da.store(list(results.values()), targets, lock=False)


def dask_image_mean(scene: str, result: str, zarrs: bool) -> None:
    """The mean of 3 x 3 windows of all bands."""
    from dask_image.ndfilters import uniform_filter

    if zarrs:
        use_zarrs()
    image = source(scene, "scene")
    mean = uniform_filter(image, size=(3, 3, 1), mode="reflect")
    store({"mean": mean}, result, codec="lz4" if zarrs else None)


def libvips_mean(scene: str, result: str) -> None:
    """The same, from an uncompressed TIFF to one."""
    import pyvips

    image = pyvips.Image.new_from_file(scene, access="sequential")
    line = pyvips.Image.new_from_array([[1, 1, 1]], scale=3)
    image.convsep(line, precision="float").tiffsave(result, bigtiff=True)


def orfeo_mean(scene: str, result: str) -> None:
    """The same by Orfeo Toolbox, a process of its own."""
    options = ["-type", "mean", "-type.mean.radius", "1", "-ram", "512"]
    threads = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(THREADS)}
    command = ["otbcli_Smoothing", "-in", scene, "-out", result, "float", *options]
    subprocess.run(command, check=True, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def flox_labels(scene: str, labels: str, result: str, num_labels: int, num_bands: int) -> None:
    """The mean of every label, painted."""
    from flox import groupby_reduce

    use_zarrs()
    image, zones = da.moveaxis(source(scene, "scene")[..., :num_bands], -1, 0), source(labels, "labels")
    options: dict[str, Any] = {"func": "mean", "expected_groups": np.arange(num_labels + 1), "method": "map-reduce"}
    table = np.asarray(groupby_reduce(image, zones, **options)[0].compute()).T.astype(np.float32)
    paint(table, zones, result)


def paint(table: np.ndarray, zones: da.Array, result: str) -> None:
    def look_up(block: np.ndarray) -> np.ndarray:
        return table[block]

    chunks = (*zones.chunks, (table.shape[1],))
    painted = zones.map_blocks(look_up, dtype=np.float32, new_axis=2, chunks=chunks, meta=np.empty((0, 0, 0), "f4"))
    store({"mean": painted}, result)


def dask_image_labels(scene: str, labels: str, num_labels: int) -> None:
    """The mean of some labels of one band, a table and nothing painted: all labels would take hours."""
    from dask_image.ndmeasure import mean

    use_zarrs()
    mean(source(scene, "scene")[..., 0], source(labels, "labels"), np.arange(1, num_labels + 1)).compute()


def xarray_median(series: str, result: str, chunk: int) -> None:
    """The median of the valid dates of (time, band, y, x): with stored chunks, or parts of all dates (`chunk` pixels).

    Of stored chunks of one date dask's median makes larger ones by itself.
    """
    import xarray

    use_zarrs()
    chunks = {"time": -1, "band": 1, "y": chunk, "x": chunk} if chunk else {}
    raster = xarray.open_zarr(series, consolidated=False, chunks=chunks)["pixels"]  # masked: float32 with NaN
    median = raster.median("time")
    median.to_dataset(name="pixels").to_zarr(result, encoding={"pixels": {"_FillValue": float("nan")}})


# --- all five systems ---------------------------------------------------------------------------------------------


def all_systems(scene: str, labels: str, result: str, num_labels: int) -> None:
    """What configs/all-systems.yaml does, as one would write it with dask-image, scikit-image, scipy and Pillow."""
    from dask_image.ndfilters import uniform_filter

    use_zarrs()
    image, zones = source(scene, "scene"), source(labels, "labels")
    smooth = uniform_filter(image, size=(3, 3, 1), mode="reflect")
    results = {"smooth": smooth} | derivatives(smooth[..., 3]) | textures(image[..., 3])
    means = label_means(image, zones, num_labels)
    chunks = (*zones.chunks, (image.shape[2],))
    results["zones"] = zones.map_blocks(lambda block: means[block], dtype="f4", new_axis=2, chunks=chunks)
    results |= poster(image[..., [3, 2, 1]])
    store(results, result)


def derivatives(band: da.Array) -> dict[str, da.Array]:
    """First and second differences of a grid of 10 m."""

    def of(axes: tuple[int, ...]) -> da.Array:
        def differ(block: np.ndarray) -> np.ndarray:
            for axis in axes:
                block = np.gradient(block, 10, axis=axis)
            return block

        return band.map_overlap(differ, depth=len(axes), boundary="reflect", dtype="f4")

    return {"dy": of((0,)), "dx": of((1,)), "dyy": of((0, 0)), "dxy": of((0, 1)), "dxx": of((1, 1))}


def textures(band: da.Array) -> dict[str, da.Array]:
    """Mean and variance of 15 x 15 windows of four Gabor responses."""
    from skimage.filters import gabor_kernel

    results = {}
    for angle in (0, 45, 90, 135):
        kernel = np.real(gabor_kernel(0.15, theta=np.deg2rad(angle), sigma_x=5, sigma_y=5)).astype(np.float32)
        depth = max(kernel.shape) // 2
        response = band.map_overlap(scipy.ndimage.convolve, weights=kernel, depth=depth, boundary="reflect")
        mean = response.map_overlap(scipy.ndimage.uniform_filter, size=15, depth=7, boundary="reflect")
        square = (response**2).map_overlap(scipy.ndimage.uniform_filter, size=15, depth=7, boundary="reflect")
        results |= {f"mean{angle}": mean, f"var{angle}": square - mean**2}
    return results


def label_means(image: da.Array, zones: da.Array, num_labels: int) -> np.ndarray:
    """A table of means (label, band): bincounts of blocks, added; faster than flox and dask-image by far."""

    def sums(values: np.ndarray, block: np.ndarray) -> np.ndarray:
        flat = block.ravel()
        columns = [np.bincount(flat, values[..., i].ravel(), num_labels + 1) for i in range(values.shape[2])]
        return np.stack([np.bincount(flat, minlength=num_labels + 1), *columns])

    blocks = zip(image.to_delayed().ravel(), zones.to_delayed().ravel(), strict=True)
    tables = [dask.delayed(sums)(values, block) for values, block in blocks]
    while len(tables) > 1:
        tables = [dask.delayed(sum)(tables[i : i + 8]) for i in range(0, len(tables), 8)]
    count, *columns = tables[0].compute()
    return (np.stack(columns, axis=1) / np.maximum(count, 1)[:, None]).astype(np.float32)


def poster(image: da.Array) -> dict[str, da.Array]:
    """255 colours of three bands by Pillow, from 8 bits of each, and the nearest of every pixel."""
    from PIL import Image
    from scipy.spatial import cKDTree

    whole = (image / 40).clip(0, 255).astype(np.uint8).compute()
    quantized = Image.fromarray(whole).quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colors = np.array(quantized.getpalette(), np.float32).reshape(-1, 3) * 40
    tree = cKDTree(colors)
    nearest = image.map_blocks(lambda block: tree.query(block)[1].astype(np.uint8), dtype=np.uint8, drop_axis=2)
    chunks = (*nearest.chunks, (3,))
    return {"index": nearest, "color": nearest.map_blocks(lambda i: colors[i], dtype="f4", new_axis=2, chunks=chunks)}
