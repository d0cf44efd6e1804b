"""Run a plan: passes strip by strip on dask, the journal after every block, stoppable at any moment."""

from __future__ import annotations

import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import NO_MEMORY, InputChanged, InputError, InputUnfit, RasterpipeError, RunStopped, Terminated
from pipeline.graph import Strip, run_strip, split_into_strips
from pipeline.journal import BlockSet, Journal
from pipeline.kernels.exact_total import Total
from pipeline.limits import HeapWatch, limit_heaps, trim_heap
from pipeline.operation import Table
from pipeline.planning import TABLES_AT_ONCE, Plan, PlannedPass, StoredArray
from pipeline.progress import Progress
from pipeline.reduction import Merger, fold
from pipeline.storage.object_request import hurry
from pipeline.storage.reader import BandReader, Reader
from pipeline.storage.retry import RETRIES
from pipeline.storage.tables import SavedTable, StoredTable, stored_bytes
from pipeline.worker import BlockDone, PassWorker, Writer

ATTEMPTS = 3
"""How often at most blocks are computed whose files were lost meanwhile."""


@dataclass
class Measured:
    """What a run did."""

    blocks: int = 0
    blocks_skipped: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    """Of the blocks computed now, before compression."""
    retries: int = 0
    """Reads and writes repeated after errors that passed."""
    requests: int = 0
    """Requests of workers to object stores."""
    blocks_recomputed: int = 0
    """Blocks begun or done on workers that were lost, or whose files were, and so computed again."""
    valid: dict[str, int] = field(default_factory=dict)
    """raster -> valid values"""
    totals: dict[str, Total] = field(default_factory=dict)
    """step -> what is measured of it"""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """step -> the table that it made"""

    def add(self, counts: PassCounts) -> None:
        self.bytes_read += counts.bytes_read
        self.retries += counts.retries
        self.requests += counts.requests
        self.blocks_recomputed += counts.blocks_recomputed


@dataclass(frozen=True)
class PassCounts:
    """What the workers of a pass did."""

    bytes_read: int
    """Decoded bytes; of workers that were lost, none."""
    retries: int
    requests: int
    blocks_recomputed: int = 0


OpenReader = Callable[[str], Reader]
OpenWriter = Callable[[StoredArray], Writer]
Record = Callable[[BlockDone], None]
RunStrips = Callable[[PassWorker, Iterable[Strip], Record, Journal, threading.Event], PassCounts]
"""Computes the strips of a pass, records blocks and partial tables, ends early where the event is set."""


def _merger(planned: PlannedPass, folder: Path, limit_bytes: int) -> Merger:
    reductions = tuple((sweep.reduction, sweep.number) for sweep in planned.plan.sweeps)
    return Merger(reductions, str(folder), limit_bytes)


class _Tables:
    """The tables of a run: those that are finished, the states of those that are being made, and their folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        if plan.reductions:
            folder.mkdir(parents=True, exist_ok=True)  # workers make no folders
        self.known = plan.first_tables()

    def merger(self, planned: PlannedPass) -> Merger:
        return _merger(planned, self.folder, planned.cost.table_bytes // TABLES_AT_ONCE)

    def finish(self, planned: PlannedPass, saved: Sequence[list[list[str]]]) -> None:
        """Fold what the sweeps of a pass left into the states; done before, it is only read."""
        for i, sweep in enumerate(planned.plan.sweeps):
            name = sweep.step.name
            target = self.folder / f"{name}.{sweep.number}"
            folders = [self.folder / Path(folder).name for per_sweep in saved for folder in per_sweep[i]]
            if not target.exists():
                fold(sweep, folders, self.known[name], planned.cost.table_bytes // 2, target)
            is_large = stored_bytes([target]) > planned.cost.table_bytes // 4
            self.known[name] = StoredTable(target) if is_large else SavedTable(target)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


def _open_bands(raster: str, planned: PlannedPass, open_reader: OpenReader) -> Reader:
    reader, bands = open_reader(raster), planned.plan.bands.get(raster)
    return reader if bands is None else BandReader(reader, bands)


def execute(
    plan: Plan,
    open_reader: OpenReader,
    open_writer: OpenWriter,
    journal: Journal,
    progress: Progress,
    retries: int = RETRIES,
    run_strips: RunStrips | None = None,
    take_back_lost: Callable[[], int] = int,
) -> Measured:
    """Compute all blocks that the journal does not have, by default on threads of this process.

    Reads and writes that fail for a reason that may pass are tried again, `retries` times at most. At the end
    `take_back_lost` takes back from the journal what is not as it was written, and that is computed again.

    Raises
    ------
    RunStopped
        The run stopped, by a fault outside of it or by a signal (RunInterrupted); it can be resumed.
    """
    measured = Measured()
    stop = threading.Event()
    tables = _Tables(plan, journal.tables)
    measured.blocks_skipped = sum(len(_done(planned, journal)) for planned in plan.passes)

    heap: HeapWatch

    def record(receipt: BlockDone) -> None:
        if journal.record(receipt):
            measured.blocks += 1
            measured.bytes_written += _block_bytes(plan.passes[receipt.pass_number], receipt.block)
            progress.advance()
            heap.check()

    def run_pass(planned: PlannedPass) -> None:
        nonlocal heap
        heap = HeapWatch(planned.cost)
        recorded = journal.passes[planned.plan.number]
        readers = {raster: _open_bands(raster, planned, open_reader) for raster in planned.plan.stored}
        writers = {raster: open_writer(planned.arrays[raster]) for raster in planned.plan.writes}
        worker = PassWorker(planned, readers, writers, tables.known, tables.merger(planned), retries)
        worker.stopped = stop.is_set
        strips = split_into_strips(planned, _done(planned, journal), recorded.counted)
        measured.add((run_strips or run_on_threads)(worker, strips, record, journal, stop))
        del worker  # with its buffers: zarr may have kept an exception that keeps this frame
        journal.flush()
        tables.finish(planned, [saved.folders for saved in recorded.partials.values()])
        if (count := len(recorded.done)) != len(planned.plan.grid):
            raise RuntimeError(f"pass {planned.plan.number}: {count} of {len(planned.plan.grid)} blocks are recorded")
        valid = zip(planned.plan.writes, recorded.valid, strict=True)
        measured.totals |= dict(zip(planned.plan.measured, recorded.totals, strict=True))
        measured.valid |= {raster: count for raster, count in valid if planned.arrays[raster].is_kept}

    limit_heaps()
    progress.start(plan.num_blocks, measured.blocks_skipped)
    with _signals(stop):
        waiting: Sequence[PlannedPass] = plan.passes
        for _ in range(ATTEMPTS):
            for planned in waiting:
                run_pass(planned)
                trim_heap()  # the buffers of this pass are no use to the next one
            if not (lost := take_back_lost()):
                break
            measured.blocks_recomputed += lost
            waiting = [planned for planned in plan.passes if len(_done(planned, journal)) < len(planned.plan.grid)]
        else:
            raise RunStopped(f"{lost} blocks of the result are lost again and again; somebody writes or removes them")
    measured.tables = tables.known
    return measured


def _done(planned: PlannedPass, journal: Journal) -> BlockSet:
    """Return the blocks that need not be computed again: written, and where the pass sweeps, counted in a table."""
    record = journal.passes[planned.plan.number]
    if not planned.plan.sweeps:
        return record.done.copy()
    done = BlockSet()
    for block in record.counted:
        if block in record.done:
            done.add(block)
    return done


def _block_bytes(planned: PlannedPass, block: int) -> int:
    return planned.plan.grid.block(block).num_pixels * sum(array.spec.pixel_bytes for array in planned.arrays.values())


def run_on_threads(
    worker: PassWorker, strips: Iterable[Strip], record: Record, journal: Journal, stop: threading.Event
) -> PassCounts:
    """Run strips one after the other; the next begins when the last has no more blocks left than fit in."""
    in_flight = worker.planned.cost.in_flight
    strip_of: dict[int, int] = {}
    left: dict[int, int] = {}
    changed = threading.Condition()
    failures: list[BaseException] = []

    def done(receipt: BlockDone) -> None:
        with changed:
            record(receipt)
            strip = strip_of.pop(receipt.block)
            left[strip] -= 1
            if left[strip] <= in_flight:  # only then does the other side want to know
                changed.notify_all()

    def run(strip: Strip) -> None:
        try:
            partials = run_strip(worker, strip, done, pool, in_flight)
            if worker.plan.sweeps:
                blocks = [block for block in strip.blocks if block not in strip.counted]
                journal.record_partials(worker.plan.number, blocks, worker.merger.save(partials))
        except BaseException as error:
            failures.append(error)
            stop.set()  # the blocks in work end, the others begin no more
            raise

    running: deque[Future[None]] = deque()
    with (
        ThreadPoolExecutor(in_flight, thread_name_prefix="rasterpipe") as pool,
        ThreadPoolExecutor(2, thread_name_prefix="rasterpipe-strip") as drivers,
    ):
        try:
            for number, strip in enumerate(strips):
                if len(running) == 2:
                    running.popleft().result()
                if stop.is_set():
                    break
                left[number] = len(strip.blocks)
                strip_of.update(dict.fromkeys(strip.blocks, number))
                running.append(drivers.submit(run, strip))
                with changed:
                    while not running[-1].done() and left[number] > in_flight and not stop.is_set():
                        changed.wait(0.2)
            for future in running:
                future.result()
        except BaseException as error:
            stop.set()
            # a strip that fails stops the other one: the first failure is the cause
            raise (failures[0] if isinstance(error, Exception) and failures else error) from None
    return PassCounts(worker.bytes_read, worker.retry.count, worker.requests)


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
