"""A strip as a dask graph: the only module that builds graphs."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.block.plan import Pass
from pipeline.execution.partials import Merger, Partials
from pipeline.execution.receipt import BlockDone
from pipeline.execution.worker import PassWorker
from pipeline.model.region import Halo, Region


@dataclass(frozen=True, slots=True)
class Strip:
    """Consecutive blocks of a pass that go to dask as one graph."""

    blocks: tuple[int, ...]
    rows: tuple[int, int] = (0, 0)
    """Block rows and block columns that an exchanging strip spans; its blocks are all of them."""
    columns: tuple[int, int] = (0, 0)
    counted: frozenset[int] = frozenset()
    """Blocks that are computed again though their partial tables are saved: these count once."""

    @property
    def uncounted(self) -> list[int]:
        return [block for block in self.blocks if block not in self.counted]


def split_into_strips(planned: Pass, done: Container[int], counted: Container[int] = frozenset()) -> Iterator[Strip]:
    """Yield the strips of a pass without the blocks that are done already.

    A strip that exchanges halos is a rectangle of blocks; it is computed whole if any of its blocks is missing.
    Of blocks that are computed again, those that are counted add nothing to the tables of the pass.
    """
    grid = planned.grid
    height, width = planned.strip
    if planned.halo == "read":
        for first in range(0, len(grid), width):
            blocks = tuple(n for n in range(first, min(first + width, len(grid))) if n not in done)
            if blocks:
                yield Strip(blocks, counted=frozenset(block for block in blocks if block in counted))
        return
    for top in range(0, len(grid.rows), height):
        for left in range(0, len(grid.columns), width):
            rows, columns = (top, min(top + height, len(grid.rows))), (left, min(left + width, len(grid.columns)))
            blocks = tuple(grid.number(r, c) for r in range(*rows) for c in range(*columns))
            if not all(block in done for block in blocks):
                yield Strip(blocks, rows, columns, frozenset(block for block in blocks if block in counted))


def run_strip(
    worker: PassWorker, strip: Strip, done: Callable[[BlockDone], None], pool: Executor, num_workers: int
) -> Partials:
    """Compute a strip with dask's threaded scheduler in a pool that strips share; return its partial tables, merged.

    Every block is reported to `done` by the thread that wrote it. (dask's callbacks would not do: of two
    schedulers at work at once, only the first sees them.)
    """
    import dask.threaded

    if worker.planned.halo == "exchange":
        array = exchange_strip(worker.planned, worker.merger, worker, strip, done)
        merged: StripDone = array.compute(scheduler="threads", pool=pool, num_workers=num_workers)[0, 0, 0]
        return merged.partials

    def run(number: int) -> Partials:
        receipt, partials = worker.run_block(number)
        done(receipt)
        return worker.merger.nothing if number in strip.counted else partials

    # dask begins independent tasks at the end of its order, which is by name: names that count down make it
    # begin with the first block, so that neighbours, which share chunks, come one after the other
    last = strip.blocks[-1]
    graph: dict[str, Any] = {f"block-{last - number:012d}": (run, number) for number in strip.blocks}
    if not worker.planned.sweeps:
        dask.threaded.get(graph, list(graph), pool=pool, num_workers=num_workers)
        return worker.merger.nothing
    top = _add_tree(graph, worker.merger.join)
    total: Partials = dask.threaded.get(graph, top, pool=pool, num_workers=num_workers)
    return total


def _add_tree(graph: dict[str, Any], join: Callable[[Partials, Partials], Partials]) -> str:
    """Add tasks that join the results of all others, neighbours first; return the name of the last one."""
    names, level = list(graph), 0
    while len(names) > 1:
        pairs = [names[i : i + 2] for i in range(0, len(names), 2)]
        names = [pair[0] if len(pair) == 1 else f"join-{level:02d}-{i:012d}" for i, pair in enumerate(pairs)]
        graph.update({name: (join, *pair) for name, pair in zip(names, pairs, strict=True) if len(pair) == 2})
        level += 1
    return names[0]


Intervals = Sequence[tuple[int, int]]
Parts = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class StripDone:
    """What was made of some blocks of a strip: their receipts, and their partial tables, merged."""

    receipts: tuple[BlockDone, ...]
    partials: Partials


def exchange_strip(
    planned: Pass,
    merger: Merger,
    worker: Any,
    strip: Strip,
    done: Callable[[BlockDone], None] | None = None,
    token: str = "",
) -> Any:
    """Return a lazy array that writes a strip: blocks are read once and hand their rims to neighbours.

    Its one element is a StripDone. The worker is a PassWorker, or a dask collection of one: an argument of all tasks,
    which hold nothing else of the pass and so are small. The names of the tasks that compute or join begin with the
    token; dask fuses those that compute with the first step of the joining.
    """
    import dask.array

    plan = planned
    rows = [plan.grid.rows.interval(i) for i in range(*strip.rows)]
    columns = [plan.grid.columns.interval(i) for i in range(*strip.columns)]
    region = Region(rows[0][0], rows[-1][1], columns[0][0], columns[-1][1])
    first, counted = (strip.rows[0], strip.columns[0]), strip.counted

    def source(raster: str) -> Any:
        """Return a stored raster over the strip: a chunk per block, the strip's rim in the outer ones."""
        tops, lefts = rim_edges(plan.extent(raster, region), rows, columns)

        def read(block_id: tuple[int, ...], worker: PassWorker) -> np.ndarray:
            i, j, _ = block_id
            part = Region(tops[i], tops[i + 1], lefts[j], lefts[j + 1])
            number = worker.planned.grid.number(first[0] + i, first[1] + j)
            return common_dims(worker.read_part(number, raster, part), worker.planned.specs[raster].dims)

        spec = plan.specs[raster]
        chunks = (tuple(np.diff(tops).tolist()), tuple(np.diff(lefts).tolist()), (spec.num_bands,))
        return dask.array.map_blocks(
            read,
            chunks=chunks,
            dtype=spec.dtype,
            meta=np.empty((0, 0, 0), spec.dtype),
            token=new_token(),
            worker=worker,
        )

    def compute(row: int, column: int, parts: Parts, worker: PassWorker) -> StripDone:
        number = worker.planned.grid.number(first[0] + row, first[1] + column)
        receipt, partials = worker.run_exchanged(number, parts)
        if done is not None:
            done(receipt)
        return StripDone((receipt,), merger.nothing if number in counted else partials)

    def join(a: StripDone, b: StripDone) -> StripDone:
        return StripDone(a.receipts + b.receipts, merger.join(a.partials, b.partials))

    sources = {raster: source(raster) for raster in plan.stored}
    return _join_all(overlap(plan, sources, rows, columns, compute, worker=worker), join, token)


def _join_all(blocks: Any, join: Callable[[StripDone, StripDone], StripDone], token: str) -> Any:
    """Return a lazy array of one object: the results of all blocks, joined in a tree."""
    import dask.array

    def combine(parts: Any, axis: Any, keepdims: bool) -> np.ndarray:
        result = np.empty((1, 1, 1), dtype=object)
        result[0, 0, 0] = functools.reduce(join, _flatten(parts))
        return result

    return dask.array.reduction(
        blocks,
        chunk=lambda part, axis, keepdims: part,
        combine=combine,
        aggregate=combine,
        axis=(0, 1, 2),
        keepdims=True,
        split_every=2,
        concatenate=False,
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        name=token or None,
    )


JOINS = ("-partial-", "-aggregate-")
"""In the names that dask gives to tasks that join what blocks made."""


def _flatten(parts: Any) -> Iterator[Any]:
    if isinstance(parts, list):
        for part in parts:
            yield from _flatten(part)
    else:
        yield from parts.reshape(-1)


def overlap(
    plan: Pass,
    sources: Mapping[str, Any],
    rows: Intervals,
    columns: Intervals,
    compute: Callable[..., Any],
    **further: Any,
) -> Any:
    """Return a lazy array of one object per block: `compute` of what the block needs of each stored raster.

    The function gets the block's row and column, its parts of the sources, and the further arguments, which may be
    dask collections.

    Parameters
    ----------
    sources
        Dask arrays (y, x, band), a chunk per block, the outer ones with what lies around all blocks.
    rows, columns
        First row (column) of each block and the one after its last.
    """
    import dask.array

    dims = {raster: plan.specs[raster].dims for raster in sources}  # all that is sent to workers with the function

    def run(*parts: np.ndarray, block_id: tuple[int, ...], **further: Any) -> np.ndarray:
        views = {raster: own_dims(part, dims[raster]) for raster, part in zip(dims, parts, strict=True)}
        result = np.empty((1, 1, 1), dtype=object)
        result[0, 0, 0] = compute(block_id[0], block_id[1], views, **further)
        return result

    def depth(halo: Halo) -> dict[int, int | tuple[int, int]]:
        """Return what is exchanged: nothing along an axis with one block, which dask would refuse if it is thin."""
        return {
            0: (halo.top, halo.bottom) if len(rows) > 1 else 0,
            1: (halo.left, halo.right) if len(columns) > 1 else 0,
            2: 0,
        }

    return dask.array.map_overlap(
        run,
        *sources.values(),
        depth=[depth(plan.halos[raster]) for raster in sources],
        boundary="none",
        trim=False,
        allow_rechunk=False,
        align_arrays=False,
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        chunks=((1,) * len(rows), (1,) * len(columns), (1,)),
        token=new_token(),
        **further,
    )


def new_token() -> str:
    """Return a name for a layer of a graph; dask would make one by hashing all that its function holds."""
    return uuid.uuid4().hex


def rim_edges(extent: Region, rows: Intervals, columns: Intervals) -> tuple[list[int], list[int]]:
    """Return the edges of one chunk per block that together span an extent around all blocks."""
    return (
        [extent.top, *(first for first, _ in rows[1:]), extent.bottom],
        [extent.left, *(first for first, _ in columns[1:]), extent.right],
    )


def common_dims(part: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    """Return an array as y, x, band: in one graph all arrays must have their axes alike."""
    return np.moveaxis(part, 0, -1) if dims[0] == "band" else part.reshape((*part.shape[:2], -1))


def own_dims(part: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    if dims[0] == "band":
        return np.moveaxis(part, -1, 0)
    return part if dims[-1] == "band" else part[..., 0]
