"""Blocks that hand their rims to their neighbours, through `dask.array.map_overlap`."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.block.plan import Pass
from pipeline.execution.partials import Merger, Partials
from pipeline.execution.receipt import BlockDone
from pipeline.execution.strip import Strip
from pipeline.execution.worker import PassWorker
from pipeline.model.region import Halo, Region

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
    rows = [planned.grid.rows.interval(i) for i in range(*strip.rows)]
    columns = [planned.grid.columns.interval(i) for i in range(*strip.columns)]
    first, counted = (strip.rows[0], strip.columns[0]), strip.counted

    def compute(row: int, column: int, parts: Parts, worker: PassWorker) -> StripDone:
        number = worker.planned.grid.number(first[0] + row, first[1] + column)
        receipt, partials = worker.run_exchanged(number, parts)
        if done is not None:
            done(receipt)
        return StripDone((receipt,), merger.nothing if number in counted else partials)

    def join(a: StripDone, b: StripDone) -> StripDone:
        return StripDone(a.receipts + b.receipts, merger.join(a.partials, b.partials))

    sources = {raster: _source(planned, raster, rows, columns, first, worker) for raster in planned.stored}
    return _join_all(overlap(planned, sources, rows, columns, compute, worker=worker), join, token)


def _source(
    planned: Pass, raster: str, rows: Intervals, columns: Intervals, first: tuple[int, int], worker: Any
) -> Any:
    """Return a stored raster over a strip: a chunk per block, the strip's rim in the outer ones."""
    import dask.array

    region = Region(rows[0][0], rows[-1][1], columns[0][0], columns[-1][1])
    tops, lefts = rim_edges(planned.extent(raster, region), rows, columns)

    def read(block_id: tuple[int, ...], worker: PassWorker) -> np.ndarray:
        i, j, _ = block_id
        part = Region(tops[i], tops[i + 1], lefts[j], lefts[j + 1])
        number = worker.planned.grid.number(first[0] + i, first[1] + j)
        return common_dims(worker.read_part(number, raster, part), worker.planned.specs[raster].dims)

    spec = planned.specs[raster]
    return dask.array.map_blocks(
        read,
        chunks=(tuple(np.diff(tops).tolist()), tuple(np.diff(lefts).tolist()), (spec.num_bands,)),
        dtype=spec.dtype,
        meta=np.empty((0, 0, 0), spec.dtype),
        token=new_token(),
        worker=worker,
    )


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
    dask collections. The sources are dask arrays (y, x, band), a chunk per block, the outer ones with what lies around
    all blocks; rows and columns are the first of each block and the one after its last.
    """
    import dask.array

    dims = {raster: plan.specs[raster].dims for raster in sources}  # all that is sent to workers with the function

    def run(*parts: np.ndarray, block_id: tuple[int, ...], **further: Any) -> np.ndarray:
        views = {raster: own_dims(part, dims[raster]) for raster, part in zip(dims, parts, strict=True)}
        result = np.empty((1, 1, 1), dtype=object)
        result[0, 0, 0] = compute(block_id[0], block_id[1], views, **further)
        return result

    return dask.array.map_overlap(
        run,
        *sources.values(),
        depth=[_depth(plan.halos[raster], rows, columns) for raster in sources],
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


def _depth(halo: Halo, rows: Intervals, columns: Intervals) -> dict[int, int | tuple[int, int]]:
    """Return what is exchanged: nothing along an axis with one block, which dask would refuse if it is thin."""
    return {
        0: (halo.top, halo.bottom) if len(rows) > 1 else 0,
        1: (halo.left, halo.right) if len(columns) > 1 else 0,
        2: 0,
    }


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
