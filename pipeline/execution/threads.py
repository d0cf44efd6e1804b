"""Strips of blocks on threads of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.execution.graph import run_strip
from pipeline.execution.receipt import BlockDone, Counts
from pipeline.execution.recorder import Recorder
from pipeline.execution.strip import Strip
from pipeline.execution.worker import PassWorker

STRIPS_AT_ONCE = 2


def run_on_threads(worker: PassWorker, strips: Iterable[Strip], recorder: Recorder) -> Counts:
    """Run strips one after the other; the next begins when the last has no more blocks left than fit in."""
    in_flight = worker.planned.cost.in_flight
    with (
        ThreadPoolExecutor(in_flight, thread_name_prefix="rasterpipe") as pool,
        ThreadPoolExecutor(STRIPS_AT_ONCE, thread_name_prefix="rasterpipe-strip") as drivers,
    ):
        _Strips(worker, recorder, pool, drivers, in_flight).run(strips)
    return worker.counts


class _Strips:
    """The strips in work: how many blocks of each are left, and what failed."""

    def __init__(
        self,
        worker: PassWorker,
        recorder: Recorder,
        pool: ThreadPoolExecutor,
        drivers: ThreadPoolExecutor,
        in_flight: int,
    ) -> None:
        self.worker, self.recorder = worker, recorder
        self.pool, self.drivers, self.in_flight = pool, drivers, in_flight
        self.strip_of: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.changed = threading.Condition()
        self.failures: list[BaseException] = []
        self.running: deque[Future[None]] = deque()

    def run(self, strips: Iterable[Strip]) -> None:
        try:
            for number, strip in enumerate(strips):
                if len(self.running) == STRIPS_AT_ONCE:
                    self.running.popleft().result()
                if self.recorder.stop.is_set():
                    break
                self.begin(number, strip)
            for future in self.running:
                future.result()
        except BaseException as error:
            self.recorder.stop.set()
            # a strip that fails stops the other one: the first failure is the cause
            raise (self.failures[0] if isinstance(error, Exception) and self.failures else error) from None

    def begin(self, number: int, strip: Strip) -> None:
        """Send a strip, and wait until there is room for the next."""
        self.left[number] = len(strip.blocks)
        self.strip_of.update(dict.fromkeys(strip.blocks, number))
        driver = self.drivers.submit(self.drive, strip)
        self.running.append(driver)
        with self.changed:
            while not driver.done() and self.left[number] > self.in_flight and not self.recorder.stop.is_set():
                self.changed.wait(0.2)

    def drive(self, strip: Strip) -> None:
        try:
            partials = run_strip(self.worker, strip, self.done, self.pool, self.in_flight)
            if self.worker.planned.sweeps:
                self.recorder.record_partials(strip.uncounted, self.worker.merger.save(partials))
        except BaseException as error:
            self.failures.append(error)
            self.recorder.stop.set()  # the blocks in work end, the others begin no more
            raise

    def done(self, receipt: BlockDone) -> None:
        with self.changed:
            self.recorder.record(receipt)
            strip = self.strip_of.pop(receipt.block)
            self.left[strip] -= 1
            if self.left[strip] <= self.in_flight:  # only then does the other side want to know
                self.changed.notify_all()
