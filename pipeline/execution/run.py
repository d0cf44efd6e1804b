"""Run a plan: passes strip by strip on dask, the journal after every block, stoppable at any moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.block.plan import Pass
from pipeline.execution.ledger import Ledger
from pipeline.execution.partials import Tables
from pipeline.execution.process import limit_heaps, trim_heap
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Counts, Measured
from pipeline.execution.recorder import Recorder, done_blocks
from pipeline.execution.strip import Strip, split_into_strips
from pipeline.execution.threads import run_on_threads
from pipeline.execution.worker import PassWorker, Writer
from pipeline.model.errors import (
    NO_MEMORY,
    InputChanged,
    InputError,
    InputUnfit,
    RasterpipeError,
    RunStopped,
    Terminated,
)
from pipeline.model.stored import StoredArray
from pipeline.planning.plan import Plan
from pipeline.storage.folder.request import hurry
from pipeline.storage.folder.retry import RETRIES
from pipeline.storage.reader import Reader
from pipeline.storage.view import Selected

ATTEMPTS = 3
"""How often at most blocks are computed whose files were lost meanwhile."""


OpenReader = Callable[[str], Reader]
OpenWriter = Callable[[StoredArray], Writer]
RunStrips = Callable[[PassWorker, Iterable[Strip], Recorder], Counts]
"""Computes the strips of a pass, records blocks and partial tables, ends early where the recorder says so."""


@dataclass(frozen=True)
class Stores:
    """Where the pixels of a run come from and go to."""

    open_reader: OpenReader
    open_writer: OpenWriter
    take_back_lost: Callable[[], int] = int
    """Takes back from the ledger what is not as it was written; returns how many blocks that are."""


def execute(
    plan: Plan,
    stores: Stores,
    ledger: Ledger,
    progress: Progress,
    *,
    retries: int = RETRIES,
    run_strips: RunStrips = run_on_threads,
) -> Measured:
    """Compute all blocks that the ledger does not have, pass by pass, by default on threads of this process.

    Reads and writes that fail for a reason that may pass are tried again, `retries` times at most. What is lost
    meanwhile is computed again at the end.

    Raises
    ------
    RunStopped
        The run stopped, by a fault outside of it or by a signal (RunInterrupted); it can be resumed.
    """
    run = _Execution(plan, stores, ledger, progress, retries, run_strips)
    limit_heaps()
    progress.start(plan.num_blocks, run.measured.blocks_skipped)
    with _signals(run.stop):
        run.all()
    run.measured.tables = run.tables.known
    return run.measured


class _Execution:
    """A plan that is being executed."""

    def __init__(
        self, plan: Plan, stores: Stores, ledger: Ledger, progress: Progress, retries: int, run_strips: RunStrips
    ) -> None:
        self.plan, self.stores, self.ledger, self.progress = plan, stores, ledger, progress
        self.retries, self.run_strips = retries, run_strips
        self.stop = threading.Event()
        self.tables = Tables(plan, ledger.tables)
        self.measured = Measured(blocks_skipped=sum(len(done_blocks(planned, ledger)) for planned in plan.passes))

    def all(self) -> None:
        waiting: Sequence[Pass] = self.plan.passes
        for _ in range(ATTEMPTS):
            for planned in waiting:
                self.one(planned)
                trim_heap()  # the buffers of this pass are no use to the next one
            if not (lost := self.stores.take_back_lost()):
                return
            self.measured.counts += Counts(blocks_recomputed=lost)
            waiting = [planned for planned in self.plan.passes if not self.is_done(planned)]
        raise RunStopped(f"{lost} blocks of the result are lost again and again; somebody writes or removes them")

    def is_done(self, planned: Pass) -> bool:
        return len(done_blocks(planned, self.ledger)) == len(planned.grid)

    def one(self, planned: Pass) -> None:
        """Compute what lacks of a pass, and fold its partial tables."""
        record = self.ledger.passes[planned.number]
        recorder = Recorder(planned, self.ledger, self.measured, self.progress, self.stop)
        strips = split_into_strips(planned, done_blocks(planned, self.ledger), record.counted)
        worker = self.worker(planned)
        worker.stopped = self.stop.is_set
        self.measured.counts += self.run_strips(worker, strips, recorder)
        del worker  # with its buffers: zarr may have kept an exception that keeps this frame
        self.ledger.flush()
        self.tables.finish(planned, [saved.folders for saved in record.partials.values()])
        if (count := len(record.done)) != len(planned.grid):
            raise RuntimeError(f"pass {planned.number}: {count} of {len(planned.grid)} blocks are recorded")
        valid = zip(planned.writes, record.valid, strict=True)
        self.measured.totals |= dict(zip(planned.measured, record.totals, strict=True))
        self.measured.valid |= {raster: count for raster, count in valid if planned.arrays[raster].is_kept}

    def worker(self, planned: Pass) -> PassWorker:
        readers = {raster: self.open_bands(planned, raster) for raster in planned.stored}
        writers = {raster: self.stores.open_writer(planned.arrays[raster]) for raster in planned.writes}
        return PassWorker(planned, readers, writers, self.tables.known, self.tables.merger(planned), self.retries)

    def open_bands(self, planned: Pass, raster: str) -> Reader:
        reader, bands = self.stores.open_reader(raster), planned.bands.get(raster)
        return reader if bands is None else Selected(reader, bands)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the blocks, and turn a fault of the outside world into RunStopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        hurry()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except InputChanged:
        raise
    except InputUnfit as error:
        raise InputUnfit(f"{error}; --overwrite starts anew, once the input or the pipeline is mended") from error
    except MemoryError as error:
        raise RunStopped(f"{NO_MEMORY}; give --memory less, and --resume continues the run") from error
    except InputError as error:  # mended, it is another input than the one that the finished blocks were made of
        remedy = "--resume continues it if the input is as it was, else --overwrite starts anew"
        raise RunStopped(f"{error}; the run stopped: {remedy}") from error
    except (RasterpipeError, OSError) as error:
        raise RunStopped(f"{error}; the run stopped, and --resume continues it once that is mended") from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
