"""The same of zones and objects by others; each is called in a process of its own, and its imports do not count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

THREADS = 2


def rasterstats_means(image: str, fields: str, result: str) -> float:
    """The mean of each band within each polygon, by pixel centres."""
    import pyogrio
    import rasterio
    import rasterstats
    import shapely

    started = time.perf_counter()
    shapes = [shape.__geo_interface__ for shape in shapely.from_wkb(pyogrio.raw.read(fields)[2])]
    with rasterio.open(image) as source:
        bands = [source.read(band + 1) for band in range(source.count)]
        transform = source.transform
    means = [
        [row["mean"] for row in rasterstats.zonal_stats(shapes, band, affine=transform, stats=["mean"], nodata=0)]
        for band in bands
    ]
    np.save(result, np.array(means).T)
    return time.perf_counter() - started


def exactextract_means(image: str, fields: str, result: str) -> float:
    """The mean of each band within each polygon, pixels weighted by their share: what it is made for."""
    import exactextract
    import geopandas

    started = time.perf_counter()
    rows = exactextract.exact_extract(image, geopandas.read_file(fields), ["mean"], output="pandas")
    np.save(result, rows.to_numpy())
    return time.perf_counter() - started


def scipy_objects(source: str, result: str, above: int) -> float:
    """Read all, label all, write all, through the codecs that we use."""
    import scipy.ndimage

    _use_zarrs()
    started = time.perf_counter()
    image = zarr.open_array(source, mode="r")
    labels, _ = scipy.ndimage.label(np.asarray(image[...]) > above, np.ones((3, 3), int), np.uint32)
    _create(result, image)[...] = labels
    return time.perf_counter() - started


def dask_image_objects(source: str, result: str, above: int) -> float:
    import dask
    import dask.array as da
    from dask_image.ndmeasure import label

    _use_zarrs()
    dask.config.set(scheduler="threads", num_workers=THREADS)
    started = time.perf_counter()
    image = zarr.open_array(source, mode="r")
    labels, _ = label(da.from_zarr(source) > above, np.ones((3, 3), int))
    da.store(labels.astype(np.uint32), _create(result, image), lock=False)
    return time.perf_counter() - started


def pandas_percentiles(image: str, labels: str, percentiles: Sequence[float], result: str) -> float:
    import pandas

    _use_zarrs()
    started = time.perf_counter()
    frame = pandas.DataFrame({"label": _read(labels).reshape(-1), "value": _read(image).reshape(-1)})
    found = frame.groupby("label")["value"].quantile([percent / 100 for percent in percentiles])
    np.save(result, found.to_numpy().reshape(-1, len(percentiles)))
    return time.perf_counter() - started


def flox_percentiles(image: str, labels: str, percentiles: Sequence[float], result: str) -> float:
    from flox import groupby_reduce

    _use_zarrs()
    started = time.perf_counter()
    options: dict[str, Any] = {"finalize_kwargs": {"q": [percent / 100 for percent in percentiles]}}
    found, *_ = groupby_reduce(_read(image), _read(labels), func="quantile", **options)
    np.save(result, np.moveaxis(np.asarray(found), 0, -1))
    return time.perf_counter() - started


def _use_zarrs() -> None:
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def _read(path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def _create(result: str, like: zarr.Array[Any]) -> zarr.Array[Any]:
    """Create labels in the chunks of an image, in our default codec."""
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    group = zarr.create_group(result)
    return group.create_array("labels", shape=like.shape, chunks=like.chunks, dtype=np.uint32, compressors=codec)
