"""Steps over a raster held in memory: the blocks of a run, on threads, without a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from pipeline.block.buffers import Arena
from pipeline.block.compute import compute_block
from pipeline.block.pixels import fill_block_edges
from pipeline.block.plan import Pass, StepPlan
from pipeline.block.walk import plan_slots
from pipeline.config import load_pipeline, resolve
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Axis, Grid, Region
from pipeline.operations.base import Block
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Settings

Results = dict[str, np.ndarray]
DIMS = {2: ("y", "x"), 3: ("y", "x", "band")}


def _plan(steps: Sequence[Mapping[str, Any]], image: np.ndarray, block: int, workers: int) -> tuple[Grid, Pass]:
    bands = tuple(f"b{i + 1}" for i in range(image.shape[2] if image.ndim == 3 else 1))
    spec = RasterSpec(*image.shape[:2], image.dtype, DIMS[image.ndim], bands)
    document = {"inputs": {"image": "unused.zarr"}, "steps": list(steps), "output": {"path": "unused.zarr"}}
    config, _ = load_pipeline(document)
    grid = Grid(Axis(0, spec.height, block, block // 4), Axis(0, spec.width, block, block // 4), 2**31)
    settings = Settings(memory_bytes=2**40, workers=workers, halo="read", grids=(grid,), chunks=(block, block))
    inputs = {"image": InputSpec("image", spec, (block, block))}
    (planned,) = make_plan(config.steps, resolve(config), inputs, settings).passes
    return grid, planned


def in_memory(
    steps: Sequence[Mapping[str, Any]], image: np.ndarray, block: int = 1024, workers: int = 2
) -> Callable[[], Results]:
    """Return a call that computes steps (one pass) on an image, as a run does its blocks."""
    grid, planned = _plan(steps, image, block, workers)
    slots = plan_slots(planned)
    results = {raster: np.zeros(array.spec.shape, array.spec.dtype) for raster, array in planned.arrays.items()}
    local = threading.local()

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        np.copyto(out, image[region.slices()])

    def compute(number: int) -> None:
        if not hasattr(local, "arena"):
            local.arena = Arena(slots)
        local.arena.begin()
        region = grid.block(number)
        for raster, values in compute_block(planned, region, fetch, local.arena).items():
            results[raster][array_slices(planned.arrays[raster].spec.dims, region)] = values

    pool = ThreadPoolExecutor(workers)

    def run() -> Results:
        list(pool.map(compute, range(len(grid))))
        return results

    return run


def in_place(steps: Sequence[Mapping[str, Any]], image: np.ndarray, workers: int = 2) -> Callable[[], Results]:
    """Return a call that computes steps of the image straight from it into the results, a strip of rows a thread.

    The image lies in an array with room for the rim that the steps need; the rim is filled in the call.
    """
    _, planned = _plan(steps, image, max(image.shape), workers)
    plan, whole = planned, Region(0, image.shape[0], 0, image.shape[1])
    needs = plan.needs(whole)
    extent = needs.extent["image", False]
    source = Block(np.empty((extent.height, extent.width), image.dtype), (extent.top, extent.left), ("y", "x"))
    source.raster = whole
    source.values[array_slices(source.dims, whole, source.origin)] = image
    results = {name: np.zeros(array.spec.shape, array.spec.dtype) for name, array in planned.arrays.items()}
    edges = np.linspace(0, len(image), 4 * workers + 1).astype(int).tolist()
    pool = ThreadPoolExecutor(workers)

    def compute(step: StepPlan, top: int, bottom: int) -> None:
        out = {
            name: Block(results[step.raster(name)], (0, 0), ("y", "x"), raster=whole) for name in plan.wanted[step.name]
        }
        step.operation.apply({"input": source}, {}, out, Region(top, bottom, 0, whole.width))

    def run() -> Results:
        for step in plan.steps:
            fill_block_edges(source, needs.use[step.name, "input"], step.uses[0])
            list(pool.map(partial(compute, step), edges[:-1], edges[1:]))
        return results

    return run
