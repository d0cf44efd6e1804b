"""A strip as a dask graph: the only module that builds graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from pipeline.planning import PlannedPass
from pipeline.region import Region
from pipeline.worker import BlockDone, PassWorker


@dataclass(frozen=True, slots=True)
class Strip:
    """Consecutive blocks of a pass that go to dask as one graph."""

    blocks: tuple[int, ...]
    rows: tuple[int, int] = (0, 0)
    """Block rows and block columns that an exchanging strip spans; its blocks are all of them."""
    columns: tuple[int, int] = (0, 0)


def split_into_strips(planned: PlannedPass, done: set[int]) -> Iterator[Strip]:
    """Yield the strips of a pass without the blocks that are done already.

    A strip that exchanges halos is a rectangle of blocks; it is computed whole if any of its blocks is missing.
    """
    grid = planned.plan.grid
    height, width = planned.strip
    if planned.halo == "read":
        for first in range(0, len(grid), width):
            blocks = tuple(n for n in range(first, min(first + width, len(grid))) if n not in done)
            if blocks:
                yield Strip(blocks)
        return
    for top in range(0, len(grid.rows), height):
        for left in range(0, len(grid.columns), width):
            rows, columns = (top, min(top + height, len(grid.rows))), (left, min(left + width, len(grid.columns)))
            blocks = tuple(r * len(grid.columns) + c for r in range(*rows) for c in range(*columns))
            if not done.issuperset(blocks):
                yield Strip(blocks, rows, columns)


def run_strip(worker: PassWorker, strip: Strip, pool: Executor, num_workers: int) -> list[BlockDone]:
    """Compute a strip with dask's threaded scheduler in a pool that strips share."""
    import dask.threaded

    if worker.planned.halo == "read":
        # dask begins independent tasks at the end of its order, which is by name: names that count down make it
        # begin with the first block, so that neighbours, which share chunks, come one after the other
        last = strip.blocks[-1]
        graph = {f"block-{last - number:012d}": (worker.run_block, number) for number in strip.blocks}
        return list(dask.threaded.get(graph, list(graph), pool=pool, num_workers=num_workers))
    tokens = exchange_strip(worker, strip)
    receipts = tokens.compute(scheduler="threads", pool=pool, num_workers=num_workers)
    return list(receipts.ravel())


def exchange_strip(worker: PassWorker, strip: Strip):  # type: ignore[no-untyped-def]  # a dask array
    """Return a lazy array of receipts, one per block: blocks are read once and hand their rims to neighbours."""
    import dask.array

    plan = worker.plan
    halo = {raster: plan.halos[raster] for raster in plan.stored}
    rows = [plan.grid.rows.interval(i) for i in range(*strip.rows)]
    columns = [plan.grid.columns.interval(i) for i in range(*strip.columns)]
    sources = [_source(worker, raster, rows, columns) for raster in plan.stored]
    depth = [
        {0: (halo[raster].top, halo[raster].bottom), 1: (halo[raster].left, halo[raster].right), 2: 0}
        for raster in plan.stored
    ]

    def run(*parts: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        row, column = strip.rows[0] + block_id[0], strip.columns[0] + block_id[1]
        views = {raster: _own_dims(worker, raster, part) for raster, part in zip(plan.stored, parts, strict=True)}
        receipt = np.empty((1, 1, 1), dtype=object)
        receipt[0, 0, 0] = worker.run_exchanged(row * len(plan.grid.columns) + column, views)
        return receipt

    return dask.array.map_overlap(
        run,
        *sources,
        depth=depth,
        boundary="none",
        trim=False,
        allow_rechunk=False,
        align_arrays=False,
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        chunks=((1,) * len(rows), (1,) * len(columns), (1,)),
    )


def _source(  # type: ignore[no-untyped-def]  # a dask array
    worker: PassWorker, raster: str, rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]
):
    """Return a stored raster over a strip as y, x, band: one chunk per block, the strip's rim in the outer ones."""
    import dask.array

    spec = worker.plan.specs[raster]
    strip = Region(rows[0][0], rows[-1][1], columns[0][0], columns[-1][1])
    extent = worker.extent(raster, strip)
    tops = [extent.top, *(first for first, _ in rows[1:]), extent.bottom]
    lefts = [extent.left, *(first for first, _ in columns[1:]), extent.right]

    def read(block_id: tuple[int, ...]) -> np.ndarray:
        i, j, _ = block_id
        part = worker.read_part(raster, Region(tops[i], tops[i + 1], lefts[j], lefts[j + 1]))
        return np.moveaxis(part, 0, -1) if spec.dims[0] == "band" else part.reshape((*part.shape[:2], -1))

    return dask.array.map_blocks(
        read,
        chunks=(tuple(np.diff(tops).tolist()), tuple(np.diff(lefts).tolist()), (spec.num_bands,)),
        dtype=spec.dtype,
        meta=np.empty((0, 0, 0), spec.dtype),
    )


def _own_dims(worker: PassWorker, raster: str, part: np.ndarray) -> np.ndarray:
    dims = worker.plan.specs[raster].dims
    if dims[0] == "band":
        return np.moveaxis(part, -1, 0)
    return part if dims[-1] == "band" else part[..., 0]
