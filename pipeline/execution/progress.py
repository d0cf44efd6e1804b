"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from pipeline.execution.process import HeapWatch
from pipeline.execution.terminal import say

PLAIN_SECONDS = 10.0


class Progress:
    """Counts blocks, or parts of what is made of them; `advance` may be called from any thread."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total, self._count, self._what = 0, 0, "blocks"
        self._started = self._said = time.monotonic()

    def start(self, total: int, done: int = 0, what: str = "blocks") -> None:
        self._total, self._count, self._what = total, done, what
        self._started = self._said = time.monotonic()
        if not self._quiet and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done)
            self._bar.start()

    def advance(self) -> None:
        self._count += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif not self._quiet and time.monotonic() - self._said > PLAIN_SECONDS:
            self._said = time.monotonic()
            elapsed = self._said - self._started
            say(f"{self._count} of {self._total} {self._what} after {elapsed:.0f} s")

    def begin_part(self, text: str) -> None:
        """Say which part begins, of few that take long: in a line each, or beside the bar."""
        self._count += 1
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=self._count - 1)
        else:
            self.say(text)

    def stop(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        if not self._quiet:
            say(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class WatchedProgress:
    """Progress of work on many threads, on the way of which free heap is given back where there is too much."""

    def __init__(self, progress: Progress, own_bytes: int, peak_bytes: int) -> None:
        """`own_bytes` and `peak_bytes` are as for `HeapWatch`."""
        self._progress, self._heap = progress, HeapWatch(own_bytes, peak_bytes)

    def start(self, total: int, done: int = 0, what: str = "blocks") -> None:
        self._progress.start(total, done, what)

    def advance(self) -> None:
        self._progress.advance()
        self._heap.check()
