"""Who computes the blocks of a run: threads of this process, or (`cluster.crew`) the workers of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.execution.compilation import compile_kernels
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Counts
from pipeline.execution.recorder import Recorder
from pipeline.execution.strip import Strip
from pipeline.execution.threads import run_on_threads
from pipeline.execution.worker import PassWorker
from pipeline.model.facts import RunFacts
from pipeline.planning.plan import Capacity, Plan
from pipeline.storage.folder.base import Folder
from pipeline.storage.reader import Evidence


class Executor(Protocol):
    """What a run asks of those who compute its blocks."""

    @property
    def description(self) -> str:
        """What the user is told of them; empty: nothing."""

    @property
    def warning(self) -> str | None:
        """What must be said of them, if anything."""

    def probe(
        self, inputs: Sequence[Evidence], folders: Sequence[Path], work: Folder | None, distributions: Sequence[str]
    ) -> Capacity | None:
        """Return what they have, once they see what the run reads and writes; None: what this process has."""

    def prepare(self, plan: Plan, outputs: Sequence[Evidence]) -> float:
        """Have the kernels compiled; return the seconds that it took."""

    def run_strips(self, worker: PassWorker, strips: Iterable[Strip], recorder: Recorder) -> Counts:
        """Compute the strips of a pass (see `execution.run.RunStrips`)."""

    def report(self, path: str | None) -> contextlib.AbstractContextManager[None]:
        """Write dask's report of what is done meanwhile."""

    def add_facts(self, facts: RunFacts) -> RunFacts:
        """Return the facts of a run with theirs."""


class Threads:
    """Threads of this process."""

    description = ""
    warning = None

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def probe(
        self, inputs: Sequence[Evidence], folders: Sequence[Path], work: Folder | None, distributions: Sequence[str]
    ) -> None:
        return None

    def prepare(self, plan: Plan, outputs: Sequence[Evidence]) -> float:
        return compile_kernels(plan, self._progress)

    def run_strips(self, worker: PassWorker, strips: Iterable[Strip], recorder: Recorder) -> Counts:
        return run_on_threads(worker, strips, recorder)

    def report(self, path: str | None) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def add_facts(self, facts: RunFacts) -> RunFacts:
        return facts
