"""Steps over a raster held in memory: the blocks of a run, on threads, without a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipeline.config import load_pipeline, resolve
from pipeline.passes import Arena, compute_block, plan_slots
from pipeline.planning import InputSpec, Settings, make_plan
from pipeline.raster import RasterSpec, array_slices
from pipeline.region import Axis, Grid, Region

DIMS = {2: ("y", "x"), 3: ("y", "x", "band")}


def in_memory(
    steps: Sequence[Mapping[str, Any]], image: np.ndarray, block: int = 1024, workers: int = 2
) -> Callable[[], dict[str, np.ndarray]]:
    """Return a call that computes steps (one pass) on an image, as a run does its blocks."""
    bands = tuple(f"b{i + 1}" for i in range(image.shape[2] if image.ndim == 3 else 1))
    spec = RasterSpec(*image.shape[:2], image.dtype, DIMS[image.ndim], bands)
    document = {"inputs": {"image": "unused.zarr"}, "steps": list(steps), "output": {"path": "unused.zarr"}}
    config, _ = load_pipeline(document)
    grid = Grid(Axis(0, spec.height, block, block // 4), Axis(0, spec.width, block, block // 4), 2**31)
    settings = Settings(memory_bytes=2**40, workers=workers, halo="read", grids=(grid,), chunks=(block, block))
    inputs = {"image": InputSpec("image", spec, (block, block))}
    (planned,) = make_plan(config.steps, resolve(config), inputs, settings).passes
    slots = plan_slots(planned.plan)
    results = {raster: np.zeros(array.spec.shape, array.spec.dtype) for raster, array in planned.arrays.items()}
    local = threading.local()

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        np.copyto(out, image[region.slices()])

    def compute(number: int) -> None:
        if not hasattr(local, "arena"):
            local.arena = Arena(slots)
        local.arena.begin()
        region = grid.block(number)
        for raster, values in compute_block(planned.plan, region, fetch, local.arena).items():
            results[raster][array_slices(planned.arrays[raster].spec.dims, region)] = values

    pool = ThreadPoolExecutor(workers)

    def run() -> dict[str, np.ndarray]:
        list(pool.map(compute, range(len(grid))))
        return results

    return run
