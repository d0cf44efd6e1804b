"""Futures as they finish, and an eye on the cluster meanwhile: a run must not wait for workers that never come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.model.errors import RasterpipeError, RunStopped

T = TypeVar("T")
POLL_SECONDS = 2e-3
LOOK_SECONDS = 2.0


class Watch:
    """Waits for a dask client, and stops the run where its scheduler or all its workers are gone."""

    def __init__(self, client: Any, wait_seconds: float) -> None:
        self._client, self._wait = client, wait_seconds
        self._looked = self._seen = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rasterpipe-cluster")

    def until(self, is_met: Callable[[], bool]) -> None:
        """Return when a condition holds; interruptible, unlike most waiting in dask."""
        self._seen = time.monotonic()
        while not is_met():
            time.sleep(POLL_SECONDS)
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._looked = time.monotonic()
                self._look()

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return what a call of the client returns; what goes wrong with the cluster is RunStopped."""
        future = self._pool.submit(function, *args, **kwargs)
        self.until(future.done)
        try:
            return future.result()
        except RasterpipeError:
            raise
        except Exception as error:
            raise as_stopped(error) from error

    def _look(self) -> None:
        if self._client.status != "running":
            raise scheduler_gone(self._client)
        try:
            nthreads = self._client.nthreads()
        except OSError as error:
            raise scheduler_gone(self._client) from error
        if nthreads:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self._wait:
            raise RunStopped(f"the cluster has had no worker for {self._wait:g} s (wait)")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Arrivals:
    """Futures that are waited for; they arrive in batches, so that many small results take one message."""

    def __init__(self, watch: Watch, client: Any) -> None:
        from distributed import as_completed

        self._watch, self._client = watch, client
        self._coming = as_completed(loop=client.loop)

    def expect(self, futures: Sequence[Any]) -> None:
        self._coming.update(futures)

    def batch(self) -> list[tuple[Any, Any]]:
        """Wait for some futures; return them with their results.

        Raises
        ------
        RunStopped
            The cluster cannot go on.
        Exception
            What a task raised.
        """
        self._watch.until(self._coming.has_ready)
        done = self._coming.next_batch(block=False)
        for future in done:
            _raise_failure(future, self._client)
        return list(zip(done, self._watch.call(self._client.gather, done), strict=True))


def _raise_failure(future: Any, client: Any) -> None:
    if future.status == "error":
        error = future.exception()
        raise error if isinstance(error, RasterpipeError) else as_stopped(error)
    if future.cancelled():
        raise scheduler_gone(client) if client.status != "running" else RunStopped("its tasks were cancelled")


def scheduler_gone(client: Any) -> RunStopped:
    return RunStopped(f"the scheduler {client.scheduler.address if client.scheduler else ''} is gone")


def as_stopped(error: BaseException) -> BaseException:
    """Return what a failure means that lies with the cluster; any other error as it is."""
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    if isinstance(error, KilledWorker):
        lost = f"{error.allowed_failures + 1} workers were lost one after the other while they did one task"
        return RunStopped(f"{lost} ({error.task}, the last one {error.last_worker.address}): out of memory?")
    if isinstance(error, ImportError | AttributeError):
        return RunStopped(f"a worker that joined late has another rasterpipe, or none: {error}")
    if isinstance(error, CommClosedError | OSError | TimeoutError):
        return RunStopped(f"the cluster cannot be reached: {error}")
    return error
