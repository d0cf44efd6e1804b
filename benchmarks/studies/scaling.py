"""What a block costs beside its pixels, and how a run grows with workers: measured here, and a model from it.

    python -m benchmarks.studies.scaling --blocks 20000 --size 2500 [--picture docs/scaling.svg]

Overhead: blocks that do nothing, on threads and on two dask workers of one thread each (processes of this machine).
Points: the 3 x 3 mean of a scene, on one and two threads, and on one and two workers, each against the model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies.many_blocks import Idle, begun, plan_blocks, unused
from pipeline import api
from pipeline.execution import run as execution
from pipeline.execution.process import resident_bytes
from pipeline.execution.progress import Progress
from pipeline.execution.run import Stores, execute
from pipeline.storage.folder.disk import FileSystems
from pipeline.verbs.demo.synth import synth

MIB = 2**20
PART_BYTES = 16 * MIB
WORKERS = (1, 2, 4, 8, 16, 32, 64, 100, 200, 400, 1000)


@dataclass(frozen=True)
class Rates:
    """What the model is made of, measured on one machine."""

    pixel_seconds: float
    """A thread's time to read, compute and write a value (a pixel of one band)."""
    worker_seconds: float
    """A worker's time for a block beside its pixels."""
    scheduler_seconds: float
    """The scheduler's time for a block, which no other block has meanwhile."""
    thread_seconds: float
    """A block's overhead on threads."""
    start_seconds: float
    """A run's on workers, before the first block is done and after the last: what a raster of 64 x 64 takes."""


@dataclass(frozen=True)
class Work:
    """What a run has to do."""

    values: float
    """Pixels times bands, as decoded: those of halos count as often as they are read."""
    blocks: int
    stored_bytes: float
    """Read from the store and written to it, as they lie there."""


def predict(rates: Rates, work: Work, threads: int, store_bytes_per_second: float, *, cluster: bool = True) -> float:
    """Return the seconds of a run on workers of one thread each: the slowest of three that go on at once.

    The threads (pixels and overhead), the scheduler, and a store of so many bytes a second in all.
    """
    overhead = rates.worker_seconds if cluster else rates.thread_seconds
    busy = -(-work.blocks // threads) * (work.values / work.blocks * rates.pixel_seconds + overhead)
    scheduling = work.blocks * rates.scheduler_seconds if cluster else 0.0
    start = rates.start_seconds if cluster else 0.0
    return start + max(busy, scheduling, work.stored_bytes / store_bytes_per_second)


# --- overhead ----------------------------------------------------------------------------------------------------


def thread_overhead(blocks: int) -> float:
    """Return the seconds of a block that does nothing, on threads."""
    execution.PassWorker = Idle  # type: ignore[misc]
    planned = plan_blocks(1, blocks)
    with tempfile.TemporaryDirectory() as folder:
        journal = begun(folder, planned)
        started = time.perf_counter()
        with FileSystems([journal.folder]) as disks, journal.checkpoints(disks):
            execute(planned, Stores(unused, unused), journal, Progress(quiet=True))
        seconds = (time.perf_counter() - started) / blocks
        journal.close()
    return seconds


@contextmanager
def crew_of(workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield a crew of workers of one thread each, and their cluster."""
    from distributed import Client, LocalCluster

    from pipeline.execution.cluster.crew import Crew

    options = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield Crew(client, 60), cluster


def cluster_overhead(blocks: int) -> tuple[float, float, float]:
    """Return the seconds of a block that does nothing on two workers, of them the scheduler's, and MiB that stay."""
    execution.PassWorker = Idle  # type: ignore[misc]
    planned = plan_blocks(1, blocks)
    with tempfile.TemporaryDirectory() as folder, crew_of(2) as (crew, _):
        crew.prepare(planned, [])
        journal = begun(folder, planned)
        before, busy = resident_bytes(), time.process_time()  # scheduler and client are threads of this process
        started = time.perf_counter()
        execute(planned, Stores(unused, unused), journal, Progress(quiet=True), run_strips=crew.run_strips)
        seconds, busy = (time.perf_counter() - started) / blocks, (time.process_time() - busy) / blocks
        grown = (resident_bytes() - before) / MIB
        journal.close()
    return seconds, busy, grown


# --- points ------------------------------------------------------------------------------------------------------


def store_rate(scene: Path, folder: Path, num_bytes: int) -> float:
    """Return the bytes a second of two threads that read the files of a scene, and write so many bytes in others."""
    files = [path for path in scene.rglob("*") if path.is_file()]
    part = bytes(PART_BYTES)
    outputs = [folder / f"part-{i}" for i in range(num_bytes // PART_BYTES)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):  # the second time counts
            started = time.perf_counter()
            read = sum(pool.map(lambda path: len(path.read_bytes()), files))
            written = sum(pool.map(lambda path: path.write_bytes(part), outputs))
            seconds = time.perf_counter() - started
    for path in outputs:
        path.unlink()
    return (read + written) / seconds


def run_work(scene: Path, folder: Path, rounds: int, **run: Any) -> tuple[float, Work]:
    """Return the median seconds of the 3 x 3 mean of a scene, and its work; the first round does not count."""
    seconds = []
    for _ in range(rounds + 1):
        config = {
            "inputs": {"image": str(scene)},
            "steps": [{"name": "smooth", "op": "window", "size": 3}],
            "output": {"path": str(folder / "out.zarr"), "codec": "none"},
            "run": {"memory": "1 GiB", "halo": "read", "durable": False, **run},
        }
        facts = api.run(config, overwrite=True)
        seconds.append(facts["seconds"])
    again = facts["bytes_read"] / facts["bytes_written"]
    stored = sum(path.stat().st_size for path in scene.rglob("*") if path.is_file()) * again + facts["bytes_written"]
    return statistics.median(seconds[1:]), Work(facts["bytes_read"] / 4, facts["blocks"], stored)


def local_cluster(workers: int) -> dict[str, Any]:
    kwargs = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return {"module": "dask.distributed", "class": "LocalCluster", "kwargs": kwargs}


# --- picture -----------------------------------------------------------------------------------------------------


def picture(rates: Rates, work: Work, points: dict[int, float]) -> str:
    """Return an SVG of predicted hours against workers for several stores; the points are those measured."""
    from math import log10

    left, top, width, height = 70, 30, 560, 320
    curves = {f"{gib} GiB/s": [predict(rates, work, w, gib * 2**30) for w in WORKERS] for gib in (1, 10, 100)}
    low = log10(min(min(c) for c in curves.values())) - 0.2
    high = log10(max(*(max(c) for c in curves.values()), *points.values())) + 0.2

    def place(workers: float, seconds: float) -> tuple[float, float]:
        x = left + width * log10(workers) / log10(WORKERS[-1])
        return x, top + height * (high - log10(seconds)) / (high - low)

    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>']
    for (name, seconds), color in zip(curves.items(), ("#c33", "#383", "#33c"), strict=True):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in zip(WORKERS, seconds, strict=True)))
        x, y = place(WORKERS[-1], seconds[-1])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-dasharray="6 3"/>')
        parts.append(f'<text x="{x - 4:.0f}" y="{y - 5:.0f}" fill="{color}" text-anchor="end">model, {name}</text>')
    for workers, seconds in points.items():
        x, y = place(workers, seconds)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">measured, scaled</text>')
    for workers in (1, 10, 100, 1000):
        x, _ = place(workers, 10**low)
        parts.append(f'<text x="{x:.0f}" y="{top + height + 18}" text-anchor="middle">{workers}</text>')
    for power in range(int(low) + 1, int(high) + 1):
        _, y = place(1, 10**power)
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{10**power:,} s</text>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">workers of one thread</text>'
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height + 50}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    worker_class = execution.PassWorker
    thread = thread_overhead(arguments.blocks)
    print(f"threads: {thread * 1e3:.3f} ms a block")
    for blocks in (arguments.blocks // 4, arguments.blocks):
        seconds, busy, grown = cluster_overhead(blocks)
        print(
            f"2 workers, {blocks} blocks: {seconds * 1e3:.2f} ms a block, {1 / seconds:.0f} a second; scheduler and "
            f"client {busy * 1e3:.2f} ms of processor time a block, + {grown:.0f} MiB"
        )
    execution.PassWorker = worker_class  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), arguments.size
        synth(folder / "scene.zarr", size=(size, size), bands=16)
        values = size * size * 16.0
        ways: dict[str, tuple[int, dict[str, Any]]] = {
            "1 thread": (1, {"workers": 1}),
            "2 threads": (2, {"workers": 2}),
            "1 worker": (1, {"scheduler": local_cluster(1)}),
            "2 workers": (2, {"scheduler": local_cluster(2)}),
        }
        rate = store_rate(folder / "scene.zarr", folder, int(4 * values))
        print(f"store: {rate / 2**30:.2f} GiB a second")
        measured = {
            way: run_work(folder / "scene.zarr", folder, arguments.rounds, **run) for way, (_, run) in ways.items()
        }
        alone, work = measured["1 thread"]
        synth(folder / "small.zarr", size=(64, 64), bands=16)
        start, _ = run_work(folder / "small.zarr", folder, arguments.rounds, **ways["2 workers"][1])
        rates = Rates((alone - work.blocks * thread) / work.values, max(seconds - busy, 0.0), busy, thread, start)
        for way, (workers, _) in ways.items():
            taken, work = measured[way]
            said = predict(rates, work, workers, rate, cluster="worker" in way)
            print(f"{way}: measured {taken:.2f} s, model {said:.2f} s ({work.blocks} blocks)")
    print(rates)
    values = 2e12 / 4  # 2 TB of float32
    work = Work(values, int(values / (1000 * 1000 * 16)), 8 * values)
    for workers in (10, 100, 1000):
        texts = [f"{predict(rates, work, workers, g * 2**30) / 60:.0f} min at {g} GiB/s" for g in (1, 10, 100)]
        print(f"2 TB on {workers} workers (model, not measured): {', '.join(texts)}")
    if arguments.picture:
        scale = values / (arguments.size**2 * 16)
        points = {w: measured[f"{w} worker{'s' if w > 1 else ''}"][0] * scale for w in (1, 2)}
        arguments.picture.write_text(picture(rates, work, points))


if __name__ == "__main__":
    main()
