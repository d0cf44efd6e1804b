"""What workers of a cluster do: open a pass once a process, compute its blocks, join and save its partial tables."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np

from pipeline.block.plan import Pass
from pipeline.execution.cluster import look
from pipeline.execution.cluster.probe import differences
from pipeline.execution.cluster.sight import Expected, differences_here
from pipeline.execution.compilation import compile_kernels
from pipeline.execution.exchange import StripDone
from pipeline.execution.partials import Merger, Partials
from pipeline.execution.process import HeapWatch, limit_heaps, peak_rss_bytes
from pipeline.execution.receipt import BlockDone, Counts
from pipeline.execution.worker import PassWorker
from pipeline.model.errors import RunStopped
from pipeline.model.region import Region
from pipeline.planning.plan import Plan
from pipeline.storage.zarr.reader import configure

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_opening = threading.Lock()
_compiling = threading.Lock()
_open: weakref.WeakValueDictionary[str, SentPass] = weakref.WeakValueDictionary()
_past: dict[str, Counts] = {}
"""Of passes that dask dropped, as it does with copies that nobody waits for, and perhaps brought back since."""
_ready: set[str] = set()
"""Plans whose kernels this process has."""


@dataclass(frozen=True)
class SentPlan:
    """A plan on its way to workers."""

    token: str
    plan: Plan
    threads: int
    """Blocks that a worker computes at once."""
    here: Mapping[str, Any]
    """What is installed where the plan was made (see `look.look`)."""
    expected: Sequence[Expected] = ()
    """What is seen there of the inputs and of the stores that the run writes."""

    def prepare(self) -> None:
        """Make this process ready: its libraries' threads, its heap, the plan's kernels, compiled once.

        RunStopped where something else is installed or seen: on a worker that came when the others had been asked.
        """
        with _compiling:
            if self.token in _ready:
                return
            installed = list(differences(look.look([], [], "", list(self.here["versions"])), self.here))
            if texts := installed or list(differences_here(self.expected)):
                raise RunStopped(f"a worker on {socket.gethostname()} joined that cannot take part: {'; '.join(texts)}")
            configure(self.threads)
            limit_heaps()
            _hold_libraries()
            compile_kernels(self.plan)
            _ready.add(self.token)


def _hold_libraries() -> None:
    """Hold the pools of BLAS and OpenMP at one thread: dask owns the cores. (A nanny does so by environment.)"""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(1)


def prepare(payload: bytes) -> None:
    """Make a worker ready for a pickled SentPlan."""
    plan: SentPlan = pickle.loads(payload)
    plan.prepare()


class SentPass:
    """A pass as a worker has it: one for all threads of a process, however often dask sends or reads it.

    It goes from worker to worker as it came from the client, without its buffers and its cache.
    """

    def __init__(self, token: str, plan: bytes, payload: bytes) -> None:
        self._parts = token, plan, payload
        self._refusal: RunStopped | None = None
        self._opened: PassWorker | None = None
        self._ended = threading.Event()
        self.busy = self.num_blocks = 0
        try:
            prepare(plan)  # done already but on workers that came late
        except RunStopped as error:  # raised by the first block: dask would send again what fails to arrive
            self._refusal = error
            return
        self._opened = pickle.loads(payload)
        cost = self._worker.planned.cost
        self._turns = threading.Semaphore(cost.in_flight)
        self._heap = HeapWatch(cost.own_bytes, cost.peak_bytes)
        self._worker.stopped = self._ended.is_set

    @property
    def _worker(self) -> PassWorker:
        if self._opened is None:
            raise self._refusal or RunStopped("the pass could not be opened")
        return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pass, self._parts

    def __del__(self) -> None:
        if hasattr(self, "num_blocks"):
            _past[self._parts[0]] = _past.get(self._parts[0], Counts()) + self.counts

    @property
    def planned(self) -> Pass:
        return self._worker.planned

    @property
    def merger(self) -> Merger:
        return self._worker.merger

    @property
    def counts(self) -> Counts:
        if self._opened is None:
            return Counts()
        return self._opened.counts + Counts(blocks=self.num_blocks)

    def end(self) -> None:
        """Begin no more blocks."""
        self._ended.set()

    def run_block(self, number: int) -> tuple[BlockDone, Partials]:
        return self._count(self._in_turn(self._worker.run_block, number))

    def run_exchanged(self, number: int, parts: Mapping[str, np.ndarray]) -> tuple[BlockDone, Partials]:
        return self._count(self._in_turn(self._worker.run_exchanged, number, parts))

    def read_part(self, number: int, raster: str, region: Region) -> np.ndarray:
        return self._in_turn(self._worker.read_part, number, raster, region)

    def _count(self, done: T) -> T:
        with _lock:
            self.num_blocks += 1
        return done

    def _in_turn(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with no more calls at once than the plan has memory for."""
        with self._turns:
            with _lock:
                self.busy += 1
            try:
                return function(*args, **kwargs)
            finally:
                with _lock:
                    self.busy -= 1
                self._heap.check()


def open_pass(token: str, plan: bytes, payload: bytes) -> SentPass:
    """Return the pass that this process has open, or open it."""
    with _opening:
        found = _open.get(token)
        if found is None:
            found = _open[token] = SentPass(token, plan, payload)
        return found


# --- tasks -------------------------------------------------------------------------------------------------------


def run_block(number: int, sent: SentPass) -> BlockDone:
    """Compute a block of a pass that makes no tables."""
    return sent.run_block(number)[0]


def run_sweeping(number: int, is_counted: bool, sent: SentPass) -> StripDone:
    """Compute a block; what it returns stays on the worker."""
    receipt, partials = sent.run_block(number)
    return StripDone((receipt,), sent.merger.nothing if is_counted else partials)


def receipt_of(block: StripDone) -> BlockDone:
    return block.receipts[0]


def join(a: StripDone, b: StripDone, sent: SentPass) -> StripDone:
    """Merge the partial tables of two parts of a strip; receipts have their own way to the client."""
    return StripDone((), sent.merger.join(a.partials, b.partials))


def save(done: StripDone, sent: SentPass) -> list[list[str]]:
    """Save what a strip left of partial tables; return the names of the folders."""
    return sent.merger.save(done.partials)


def save_exchanged(done: Any, sent: SentPass) -> tuple[tuple[BlockDone, ...], list[list[str]]]:
    strip: StripDone = done[0, 0, 0]
    return strip.receipts, save(strip, sent)


# --- called beside the tasks -------------------------------------------------------------------------------------


def counts_of(token: str) -> Counts:
    found = _open.get(token)
    return _past.pop(token, Counts()) + (found.counts if found is not None else Counts())


def end_pass(token: str) -> int:
    """Have a pass begin no more blocks; return how many are in work."""
    found = _open.get(token)
    if found is None:
        return 0
    found.end()
    return found.busy


def peak_of_process() -> tuple[str, int, int]:
    """Return host, process and the high-water mark of its memory in bytes."""
    return socket.gethostname(), os.getpid(), peak_rss_bytes()
