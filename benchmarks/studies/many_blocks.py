"""A raster of a million blocks, none of them computed: what planning, dask, the journal and resuming take.

    python -m benchmarks.studies.many_blocks [blocks per side]

Each line says the seconds and how much the process's peak grew. Blocks do nothing: what is left is the overhead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import load_pipeline, resolve
from pipeline.execution import run as execution
from pipeline.execution.partials import Partials
from pipeline.execution.process import peak_rss_bytes, resident_bytes
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import BlockDone
from pipeline.execution.run import Stores, execute
from pipeline.execution.worker import PassWorker
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Axis, Grid
from pipeline.output.journal import Journal
from pipeline.output.work_folder import work_folder
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings
from pipeline.storage.folder.disk import FileSystems
from tests.harness import reset_peak_bytes

MIB = 2**20
CHUNK = 512
STEPS = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}]


class Idle(PassWorker):
    """A worker whose blocks are done at once."""

    def run_block(self, number: int) -> tuple[BlockDone, Partials]:
        return BlockDone(self.planned.number, number, 0, (CHUNK * CHUNK,)), self.merger.nothing


@contextmanager
def measured(what: str, num_blocks: int) -> Iterator[None]:
    before, started = reset_peak_bytes(), time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    grown, kept = (peak_rss_bytes() - before) / MIB, (resident_bytes() - before) / MIB
    print(
        f"{what}: {seconds:.2f} s, {seconds / num_blocks * 1e3:.4f} ms a block, peak + {grown:.0f} MiB, kept {kept:.0f}"
    )


def plan_blocks(side: int, width: int | None = None, *, forced: bool = True) -> Plan:
    """Plan a raster of side x width blocks, of one chunk each if they are forced."""
    rows, columns = side * CHUNK, (width or side) * CHUNK
    spec = RasterSpec(rows, columns, np.dtype(np.uint8), ("y", "x"), ("b1",))
    config, _ = load_pipeline({"inputs": {"image": "unused.zarr"}, "steps": STEPS, "output": {"path": "unused.zarr"}})
    grid = Grid(Axis(0, rows, CHUNK), Axis(0, columns, CHUNK), 5)
    settings = Settings(
        memory_bytes=2**30,
        workers=2,
        halo="read",
        chunks=(CHUNK, CHUNK),
        shards="none",
        grids=(grid,) if forced else None,
    )
    return make_plan(config.steps, resolve(config), {"image": InputSpec("image", spec, (CHUNK, CHUNK))}, settings)


class Nothing:
    """In the place of readers and writers, which are never called."""

    spec = RasterSpec(1, 1, np.dtype(np.uint8), ("y", "x"), ("b1",))


def unused(name: Any) -> Any:
    return Nothing()


def run(plan: Plan, journal: Journal) -> None:
    with FileSystems([journal.folder]) as disks, journal.checkpoints(disks):
        execute(plan, Stores(unused, unused), journal, Progress(quiet=True))


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    count = side * side
    execution.PassWorker = Idle  # type: ignore[misc]
    with measured("a small run first, for the imports", 4), tempfile.TemporaryDirectory() as folder:
        run(small := plan_blocks(2), begun(folder, small))
    with measured("planning, blocks chosen", count):
        plan_blocks(side, forced=False)
    with measured("planning, one column of blocks", count):
        plan_blocks(count, 1, forced=False)
    with measured("planning, blocks given", count):
        planned = plan_blocks(side)
    with tempfile.TemporaryDirectory() as folder:
        with measured("run", count):
            run(planned, journal := begun(folder, planned))
        journal.close()
        print(f"journal: {(work_folder(f'{folder}/a.zarr') / 'journal').stat().st_size / MIB:.1f} MiB")
        _cut(work_folder(f"{folder}/a.zarr") / "journal", count // 2)
        with measured("journal read, half done", count // 2):
            journal = Journal(f"{folder}/a.zarr")
        with measured("run of the other half", count // 2):
            run(planned, journal)
        journal.close()


def begun(folder: str, plan: Plan) -> Journal:
    journal = Journal(f"{folder}/a.zarr")
    passes = [[len(planned.grid), len(planned.writes)] for planned in plan.passes]
    journal.start({"run_id": "benchmark", "passes": passes})
    return journal


def _cut(path: Path, lines: int) -> None:
    with path.open("r+b") as file:
        for _ in range(lines + 1):
            file.readline()
        file.truncate(file.tell())


if __name__ == "__main__":
    main()
