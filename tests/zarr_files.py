"""Small Zarr stores to read, written as tests say, and read twice."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests import harness


def pixels(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def write(path: Path, values: np.ndarray, dims: tuple[str, ...] | None = ("y", "x"), **options: Any) -> str:
    """Write an array, its dims named as the format does."""
    attributes = dict(options.pop("attributes", {}))
    if dims and options.get("zarr_format") == 2:
        attributes["_ARRAY_DIMENSIONS"] = list(dims)
    elif dims:
        options["dimension_names"] = dims
    options |= {"shape": values.shape, "dtype": values.dtype, "chunks": options.get("chunks", values.shape)}
    array = quietly(zarr.create_array, str(path), attributes=attributes, **options)
    array[...] = values
    return str(path)


def group(path: Path, attributes: dict[str, Any] | None = None, **arrays: tuple[tuple[str, ...], Any]) -> str:
    """Write a group of arrays, each (dims, values) or (dims, values, attributes)."""
    root = zarr.create_group(str(path), attributes=attributes or {})
    for name, (dims, values, *rest) in arrays.items():
        data = np.asarray(values)
        data = data.astype(np.dtypes.StringDType()) if data.dtype.kind == "U" else data
        root.create_array(name, data=data, dimension_names=dims, attributes=rest[0] if rest else {})
    return str(path)


def quietly(function: Any, *args: Any, **options: Any) -> Any:
    """Call what warns of our test data (dtypes without a v3 specification, consolidated metadata)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


def read(reader: Any, region: Any = None, bands: list[int] | None = None) -> np.ndarray:
    """Read into a non-contiguous array that is filled with rubbish first, and into a contiguous one."""
    spec = reader.spec.select(None if bands is None else [band + 1 for band in bands])[0]
    shape = spec.shape_of(region or spec.region)
    strided = np.full((*shape[:-1], shape[-1] * 2), 77, spec.dtype)[..., ::2]
    plain = np.full(shape, 78, spec.dtype)
    for out in (strided, plain):
        reader.read(region or spec.region, out, bands)
    assert harness.same_bits(strided, plain)
    return plain
