"""The workers of a cluster, as a run sees them: they are asked, made ready, and given strips of blocks."""

from __future__ import annotations

import os
import pickle
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.scheduler import host_of, is_loopback
from pipeline.execution.cluster import look, task
from pipeline.execution.cluster.arrival import Arrivals, Watch
from pipeline.execution.cluster.probe import PACKAGES, probe
from pipeline.execution.cluster.sight import Expected, marks_of
from pipeline.execution.exchange import JOINS, exchange_strip
from pipeline.execution.receipt import BlockDone, Counts
from pipeline.execution.recorder import Recorder
from pipeline.execution.strip import Strip
from pipeline.execution.worker import PassWorker
from pipeline.model.facts import RunFacts, WorkerFacts
from pipeline.planning.plan import Capacity, Plan
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import replacing_file
from pipeline.storage.reader import Evidence

BLOCKS_AHEAD = 4
"""Blocks per thread that are still to come when the next strip is sent."""
END_SECONDS = 60.0
"""How long a run that stops waits for the blocks in work, so that none is written after it has ended."""


def warning_of(address: str) -> str | None:
    """Return what must be said of an address, if anything.

    Examples
    --------
    >>> warning_of("tls://10.0.0.5:8786"), warning_of("tcp://127.0.0.1:8786")
    (None, None)
    """
    if not address.startswith("tcp://") or is_loopback(host_of(address) or ""):
        return None
    return (
        f"WARNING: {address} is neither encrypted nor protected: whoever reaches this port can run any code as you, "
        "here and on the workers; use tls://"
    )


class _Work:
    """Futures of a pass: what becomes of each when it arrives."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._expected: dict[Any, tuple[Any, Callable[[Any], None]]] = {}

    def __len__(self) -> int:
        return len(self._expected)

    @property
    def futures(self) -> list[Any]:
        return [future for future, _ in self._expected.values()]

    def expect(self, futures: Sequence[Any], handle: Callable[[Any], None]) -> None:
        self._expected.update({future.key: (future, handle) for future in futures})
        self._arrivals.expect(futures)

    def take(self) -> None:
        """Wait for some futures, and hand over their results."""
        for future, result in self._arrivals.batch():
            self._expected.pop(future.key)[1](result)
            future.release()


def _is_block(key: Any, token: str) -> bool:
    """Return whether a task computes a block of a pass: (name, number), of an exchange (name, row, column, band)."""
    return isinstance(key, tuple) and key[0].startswith(f"block-{token}") and not any(j in key[0] for j in JOINS)


class Crew:
    """Runs strips on the workers of a dask client."""

    def __init__(self, client: Any, wait_seconds: float) -> None:
        self.client = client
        self._watch = Watch(client, wait_seconds)
        self._plan = b""
        self._inputs: list[Expected] = []
        self._threads = 1
        self._blocks: Counter[str] = Counter()

    def probe(
        self, inputs: Sequence[Evidence], folders: Sequence[Path], work: Folder | None, distributions: Sequence[str]
    ) -> Capacity:
        """Ask all workers (see `probe.probe`); what they must see is asked of those that join late, too."""
        self._inputs = [(evidence, marks_of(evidence)) for evidence in inputs]
        return probe(self.client, self._inputs, folders, work, distributions)

    def prepare(self, plan: Plan, outputs: Sequence[Evidence]) -> float:
        """Have the kernels compiled on all workers; return the seconds that it took.

        The outputs are the stores that the run has created: whoever computes must see them, and the inputs.
        One worker begins, then one on each other host, then all: those that share numba's cache find it filled, and
        no two write the same files.
        """
        started = time.monotonic()
        self._threads = plan.settings.workers
        expected = [*self._inputs, *((evidence, marks_of(evidence)) for evidence in outputs)]
        here = look.look([], [], "", [*PACKAGES, *plan.distributions])
        self._plan = pickle.dumps(task.SentPlan(uuid.uuid4().hex, plan, self._threads, here, expected))
        for addresses in self._rounds():
            futures = [
                self.client.submit(
                    task.prepare, self._plan, workers=[address], allow_other_workers=True, pure=False, retries=2
                )
                for address in addresses
            ]
            self._watch.call(self.client.gather, futures)
        return time.monotonic() - started

    def _rounds(self) -> Iterator[list[str]]:
        by_host: dict[str, list[str]] = {}
        for address, facts in self.client.scheduler_info(n_workers=-1)["workers"].items():
            by_host.setdefault(facts["host"], []).append(address)
        firsts = [addresses[0] for addresses in by_host.values()]
        rounds = [firsts[:1], firsts[1:], [a for addresses in by_host.values() for a in addresses[1:]]]
        return (addresses for addresses in rounds if addresses)

    def run_strips(self, worker: PassWorker, strips: Iterable[Strip], recorder: Recorder) -> Counts:
        """Compute the strips of a pass on the workers (see `execution.run.RunStrips`)."""
        token = uuid.uuid4().hex
        work = _Work(Arrivals(self._watch, self.client))
        with self._counting_losses(token) as lost, self._ending(token, work):
            sent = self.client.submit(
                task.open_pass, token, self._plan, pickle.dumps(worker), key=f"pass-{token}", pure=False
            )
            send = self._send_exchanging if worker.planned.halo == "exchange" else self._send_reading
            for strip in strips:
                send(worker, strip, sent, token, work, recorder)
                enough = self._enough(worker)
                while len(work) > enough and not recorder.stop.is_set():
                    work.take()
            while work:
                work.take()
            counts = self._counts(token)
        return sum(counts, Counts(blocks_recomputed=len(lost)))

    def _enough(self, worker: PassWorker) -> int:
        """Return how many futures may be outstanding when the next strip is sent."""
        nthreads: dict[str, int] = self._watch.call(self.client.nthreads)
        if worker.planned.halo == "exchange":
            return max(1, len(nthreads) - 1)  # strips: about one for each worker, whose memory one fits
        return BLOCKS_AHEAD * max(1, sum(nthreads.values()))

    def _send_reading(
        self, worker: PassWorker, strip: Strip, sent: Any, token: str, work: _Work, recorder: Recorder
    ) -> None:
        """Send a strip whose blocks read their halos: a task a block, and a tree of joins where there are tables."""
        numbers, keys = list(strip.blocks), [(f"block-{token}", number) for number in strip.blocks]
        if not worker.planned.sweeps:
            work.expect(self.client.map(task.run_block, numbers, sent=sent, key=keys, pure=False), recorder.record)
            return
        is_counted = [number in strip.counted for number in numbers]
        blocks = self.client.map(task.run_sweeping, numbers, is_counted, sent=sent, key=keys, pure=False)
        work.expect(self.client.map(task.receipt_of, blocks, priority=1, pure=False), recorder.record)
        saved = self.client.submit(task.save, self._join(blocks, sent), sent, priority=1, pure=False)
        work.expect([saved], lambda folders: recorder.record_partials(strip.uncounted, folders))

    def _join(self, level: list[Any], sent: Any) -> Any:
        """Return the future of all partial tables, joined in a tree, neighbours first, before further blocks begin."""
        while len(level) > 1:
            pairs = list(zip(level[::2], level[1::2], strict=False))
            firsts, seconds = [a for a, _ in pairs], [b for _, b in pairs]
            joined = self.client.map(task.join, firsts, seconds, sent=sent, priority=1, pure=False)
            level = [*joined, *level[2 * len(pairs) :]]
        return level[0]

    def _send_exchanging(
        self, worker: PassWorker, strip: Strip, sent: Any, token: str, work: _Work, recorder: Recorder
    ) -> None:
        """Send a strip whose blocks hand their rims to neighbours: one graph, of which the receipts come back."""
        import dask
        from dask.delayed import delayed

        handle = delayed(sent)
        array = exchange_strip(worker.planned, worker.merger, handle, strip, token=f"block-{token}")
        with dask.config.set({"optimization.fuse.active": False}):  # a block fused with a join would bear its name
            saved = self.client.compute(delayed(task.save_exchanged)(array, handle))

        def take(result: tuple[tuple[BlockDone, ...], list[list[str]]]) -> None:
            for receipt in result[0]:
                recorder.record(receipt)
            if worker.planned.sweeps:
                recorder.record_partials(strip.uncounted, result[1])

        work.expect([saved], take)

    def _counts(self, token: str) -> list[Counts]:
        """Return what the workers that are left did of a pass, and add up their blocks."""
        found = self._watch.call(self.client.run, task.counts_of, token, on_error="ignore")
        self._blocks.update({address: counts.blocks for address, counts in found.items()})
        return list(found.values())

    @contextmanager
    def _counting_losses(self, token: str) -> Iterator[list[Any]]:
        """Gather the blocks that were begun or done on workers that are lost."""
        lost: list[Any] = []

        def take(event: tuple[float, Any]) -> None:
            facts = event[1]
            if isinstance(facts, dict) and facts.get("action") == "remove-worker":
                keys = [*facts.get("processing-tasks", ()), *facts.get("lost-computed-tasks", ())]
                lost.extend(key for key in keys if _is_block(key, token))

        self.client.subscribe_topic("all", take)
        try:
            yield lost
        finally:
            with suppress(Exception):
                self.client.unsubscribe_topic("all")

    @contextmanager
    def _ending(self, token: str, work: _Work) -> Iterator[None]:
        """Where a pass stops early, let no block be written after it: the output may be another run's by then."""
        try:
            yield
        except BaseException:
            ends = time.monotonic() + END_SECONDS
            with suppress(Exception):  # a scheduler that is gone
                self.client.cancel(work.futures)
                while self.client.status == "running" and time.monotonic() < ends:
                    if not any(self.client.run(task.end_pass, token, on_error="ignore").values()):
                        break
                    time.sleep(0.05)
            raise

    @property
    def description(self) -> str:
        return f"scheduler {self.client.scheduler.address}, dashboard {self.client.dashboard_link or 'none'}"

    @property
    def warning(self) -> str | None:
        return warning_of(self.client.scheduler.address)

    @contextmanager
    def report(self, path: str | None) -> Iterator[None]:
        """Have dask write its report of what is done meanwhile."""
        if path is None:
            yield
            return
        from distributed import performance_report

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing_file(Path(path)) as building,
            self.client.as_current(),
            performance_report(filename=os.fspath(building)),
        ):
            yield

    def add_facts(self, facts: RunFacts) -> RunFacts:
        """Return the facts of a run, with those of the workers that are left; its peak is that of all local ones."""
        peaks = self._watch.call(self.client.run, task.peak_of_process, on_error="ignore")
        here = socket.gethostname()
        local = {pid: peak for host, pid, peak in peaks.values() if host == here and pid != os.getpid()}
        return replace(
            facts,
            scheduler=self.client.scheduler.address,
            peak_rss_bytes=facts.peak_rss_bytes + sum(local.values()),
            workers=tuple(
                WorkerFacts(address, self._blocks[address], peak) for address, (_, _, peak) in sorted(peaks.items())
            ),
        )

    def close(self) -> None:
        self._watch.close()
