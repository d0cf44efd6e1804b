"""Rasters to be stored and read: what the contract tests compute from, and how pixels are compared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from pipeline.model.raster import BandCoordinates
from pipeline.storage.folder.base import PLAIN_CODECS


@dataclass(frozen=True)
class Raster:
    """A raster to be stored: its pixels in its dims, and how."""

    values: np.ndarray
    dims: tuple[str, ...]
    nodata: float | int | None = None
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    zarr_format: Literal[2, 3] = 3
    coordinates: BandCoordinates = ()
    """What else is known of each band."""

    def planes(self) -> np.ndarray:
        """Return (band, y, x) in float64, invalid pixels NaN."""
        planes = to_planes(self.values, self.dims).astype(np.float64)
        if self.nodata is not None:
            planes[to_planes(self.values, self.dims) == self.values.dtype.type(self.nodata)] = np.nan
        return planes


def to_planes(values: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    if "band" not in dims:
        return values[np.newaxis]
    return np.moveaxis(values, dims.index("band"), 0)


def store(raster: Raster, path: Path, *, with_labels: bool = True) -> str:
    """Store a raster, and beside it labels of its size for the operations that want some."""
    shape = raster.values.shape
    attributes: dict[str, Any] = {} if raster.nodata is None else {"missing_value": raster.nodata}
    names: dict[str, Any] = {"dimension_names": raster.dims}
    if raster.coordinates:
        attributes["coordinates"] = " ".join(name for name, _ in raster.coordinates)
    if raster.zarr_format == 2:
        attributes["_ARRAY_DIMENSIONS"] = list(raster.dims)
        names = {}
    place = path / "pixels" if raster.coordinates else path
    if raster.coordinates:
        _store_coordinates(raster, path)
    zarr.create_array(
        str(place),
        shape=shape,
        dtype=raster.values.dtype,
        chunks=raster.chunks or shape,
        shards=raster.shards,
        zarr_format=raster.zarr_format,
        attributes=attributes,
        **names,
    )
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):  # zarrs leaves out chunks that hold the fill value
        zarr.open_array(str(place)).with_config({"write_empty_chunks": True})[...] = raster.values
    if with_labels:
        sizes = dict(zip(raster.dims, shape, strict=True))
        segments = Raster(labels(sizes["y"], sizes["x"]), ("y", "x"))
        store(segments, Path(f"{path}{LABELS}"), with_labels=False)
    return str(path)


def _store_coordinates(raster: Raster, path: Path) -> None:
    """Make a group of the coordinates, which lie beside the array."""
    group = zarr.create_group(str(path), zarr_format=raster.zarr_format)
    for name, values in raster.coordinates:
        data = np.array(values)
        if data.dtype.kind == "U" and raster.zarr_format == 3:
            data = np.array(values, np.dtypes.StringDType())
        names: dict[str, Any] = {"dimension_names": ("band",)} if raster.zarr_format == 3 else {}
        with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):  # zarrs knows no text
            array = group.create_array(name, shape=data.shape, dtype=data.dtype, **names)
            array[...] = data
        array.attrs["_ARRAY_DIMENSIONS"] = ["band"]


def dates(num_bands: int) -> BandCoordinates:
    """Return the coordinates of so many bands of a series: dates in no order, of two source bands."""
    times = [f"2024-0{1 + band * 5 % 3}-1{band % 10}" for band in range(num_bands)]
    bands = ["red" if band % 3 < 2 else "nir" for band in range(num_bands)]
    return (("time", tuple(times)), ("source_band", tuple(bands)))


LABELS = "-labels.zarr"


def labels(height: int, width: int) -> np.ndarray:
    """Return the labels that lie beside every stored raster of this size: sparse, negative, of several dtypes."""
    rng = np.random.default_rng(height * 1000 + width)
    segments = (
        rng.integers(-3, 9, (-(-height // 4), -(-width // 7))).repeat(4, axis=0).repeat(7, axis=1)[:height, :width]
    )
    segments = np.where(rng.random((height, width)) < 0.2, rng.integers(-3, 9, (height, width)), segments)
    kinds = (
        segments * 10**15,
        segments.astype(np.int16),
        (segments + 3).astype(np.uint8),
        (segments + 3).astype(np.uint64),
    )
    return kinds[(height + width) % 4]


@contextmanager
def workspace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rasterpipe-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in dtype, shape and every bit (any NaN equals any NaN)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    both_nan = np.isnan(a) & np.isnan(b)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return bool(np.all(both_nan | (np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits))))
