"""A strip on dask's threaded scheduler: a task a block."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from pipeline.execution.exchange import StripDone, exchange_strip
from pipeline.execution.partials import Partials
from pipeline.execution.receipt import BlockDone
from pipeline.execution.strip import Strip
from pipeline.execution.worker import PassWorker


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
