"""Composites of many dates from file to file, against xarray on dask with the chunks that its users take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.child import in_own_process
from benchmarks.rounds import Row, at_least
from benchmarks.rows import peers
from benchmarks.rows.files import Scenes, fresh, ours

DATES, NAMES, CHUNK = 60, ("B02", "B03", "B04", "B08"), 512
CLOUDS = 0.4
"""Share of the dates at which a pixel is clouded, in patches of 16 x 16."""
LARGEST_SIDE = 2000


def stores(scenes: Scenes, side: int) -> tuple[str, str]:
    """Return one series of scenes twice: all bands on one axis, and as (time, band, y, x) for xarray."""
    flat, deep = scenes.path(f"series{side}.zarr"), scenes.path(f"series{side}-deep.zarr")
    if not (flat.exists() and deep.exists()):
        times = [str(np.datetime64("2023-01-05") + np.timedelta64(5 * date, "D")) for date in range(DATES)]
        whole = _store(flat, {"time": np.repeat(times, len(NAMES)), "source_band": np.tile(NAMES, DATES)}, side)
        parts = _store(deep, {"time": np.arange(DATES), "band": np.arange(len(NAMES))}, side)
        rng = np.random.default_rng(0)
        ground = rng.integers(200, 3000, (len(NAMES), side, side), dtype=np.uint16)
        for date in range(DATES):
            clouds = (rng.random((-(-side // 16),) * 2) < CLOUDS).repeat(16, 0).repeat(16, 1)[:side, :side]
            pixels = np.where(clouds, 0, ground + rng.integers(0, 300, ground.shape, dtype=np.uint16))
            whole[date * len(NAMES) : (date + 1) * len(NAMES)] = parts[date] = pixels
    return str(flat), str(deep)


def _store(path: Path, coordinates: dict[str, np.ndarray], side: int) -> zarr.Array[Any]:
    is_flat = "source_band" in coordinates
    dims = ("band",) if is_flat else tuple(coordinates)
    group = zarr.create_group(str(path))
    for name, values in coordinates.items():
        dtype = np.dtypes.StringDType() if values.dtype.kind == "U" else values.dtype
        array = group.create_array(
            name, shape=values.shape, dtype=dtype, dimension_names=("band",) if is_flat else (name,)
        )
        array[...] = values.astype(dtype)
    shape = (DATES * len(NAMES),) if is_flat else (DATES, len(NAMES))
    attributes = {"_FillValue": 0} | ({"coordinates": "time source_band"} if is_flat else {})
    return group.create_array(
        "pixels",
        shape=(*shape, side, side),
        dtype="uint16",
        chunks=(*(1 for _ in shape), min(CHUNK, side), min(CHUNK, side)),
        dimension_names=(*dims, "y", "x"),
        attributes=attributes,
    )


def composites(scenes: Scenes) -> Iterator[Row]:
    """Row 18: the median of the valid dates."""
    side = min(scenes.size, LARGEST_SIDE)
    flat, deep = stores(scenes, side)
    config = scenes.config({"name": "clear", "op": "composite", "input": "image"}, scene=flat)
    result = str(scenes.path("peer.zarr"))
    others = {
        f'xarray median("time"), {words}': fresh(
            result, in_own_process, peers.xarray_median, deep, result, chunk, answer=(result, "pixels")
        )
        for words, chunk in (("stored chunks", 0), (f"chunks of all dates, {CHUNK} x {CHUNK}", CHUNK))
    }
    aims = tuple(at_least(peer, 5) for peer in others)
    name = f"18. median of {DATES} dates, {side} x {side} x {len(NAMES)} uint16"
    yield Row(name, ours(config, "clear/median"), others, partial(_same, side), aims)


def _same(side: int, ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
    part = slice(side // 3, side // 3 + 300)
    a, b = (np.asarray(zarr.open_array(path, path=array, mode="r")[:, part, part]) for path, array in (ours, theirs))
    return np.array_equal(a, b, equal_nan=True)
