"""A run, from its job to the facts of what it did.

check     what may be written, and whether it can be                        (nothing is written before)
decide    start, continue, or finished: by what lies at the output          output.decision
begin     the store is created, the journal begins                          output.store, output.journal
execute   blocks are computed, by threads or by the workers of a cluster    execution
levels    those of kept rasters are made of what was written                output.levels
complete  the store is declared complete and put in its place
export    GeoTIFFs, tables and pictures are made of it                      output.export
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.config import locating
from pipeline.config.scheduler import THREADS
from pipeline.execution.executor import Executor, Threads
from pipeline.execution.process import peak_rss_bytes
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import Counts, Measured
from pipeline.execution.run import Stores, execute
from pipeline.model.errors import (
    InputChanged,
    OutputError,
    RasterpipeError,
    RunInterrupted,
    RunStopped,
    interruption,
)
from pipeline.model.facts import RunFacts
from pipeline.output.address import is_one_raster
from pipeline.output.decision import choose
from pipeline.output.exports.base import Written, exports
from pipeline.output.exports.quicklook import Quicklook, needed_bytes
from pipeline.output.exports.raster import RasterExport, remove_store
from pipeline.output.job import Job
from pipeline.output.journal import Journal, grids_from_json
from pipeline.output.levels import check_levels, levels_of, write_levels
from pipeline.output.place import Target
from pipeline.output.store import RunStore
from pipeline.output.writes import check_writes
from pipeline.storage.folder.address import is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.disk import FileSystems
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.open import local_paths
from pipeline.storage.zarr.reader import configure
from pipeline.verbs.facts import describe_finished, describe_run
from pipeline.verbs.load import PLANNED, Cut, check_inputs_unchanged


@dataclass(frozen=True)
class Ways:
    """How a run is to be done, beside what the pipeline says."""

    progress: Progress
    resume: bool = False
    overwrite: bool = False
    quicklook: str | None = None
    performance_report: str | None = None
    cut: Cut = PLANNED

    @property
    def picture(self) -> Quicklook | None:
        return None if self.quicklook is None else Quicklook(self.quicklook)


Reload = Callable[[Cut], Job]
"""Makes a job again: cut as the run that it continues, or for what the workers of a cluster have."""


def run_job(job: Job, reload: Reload, ways: Ways) -> RunFacts:
    """Run a job; return what it did."""
    try:
        facts = _run_or_resume(job, reload, ways)
        if ways.picture is not None:
            facts = replace(
                facts,
                quicklook=ways.picture.write(job, ways.progress),
                planned_peak_bytes=max(facts.planned_peak_bytes, needed_bytes(job)),
                peak_rss_bytes=max(facts.peak_rss_bytes, peak_rss_bytes()),
            )
        return _warned(facts, remove_store(job), ways.progress)
    except KeyboardInterrupt as error:  # while it waits for blocks, compiles, or writes the files of a complete store
        name, code = interruption(error)
        raise RunInterrupted(f"stopped by {name}; --resume continues the run", code) from None
    except OutputError as error:  # the user knows of one output
        raise OutputError(str(error).replace(job.output, job.result)) from error
    except RemoteError as error:  # before the run began, or after it ended
        raise OutputError(str(error)) from error


def _run_or_resume(job: Job, reload: Reload, ways: Ways) -> RunFacts:
    _check(job, ways)
    is_there = ways.resume and all(export.is_complete(job) for export in exports())
    rasters = [export for export in exports() if isinstance(export, RasterExport)]
    if ways.resume and is_one_raster(job.result) and _all_exist(job) and all(each.is_complete(job) for each in rasters):
        return describe_finished(job, LocalFolder(job.result))
    place = job.place
    decide = partial(choose, place, job.parts, resume=ways.resume, overwrite=ways.overwrite)
    if not place.is_begun():  # a refusal leaves nothing behind, not even a journal
        target = decide(None)
        if target.action == "finished" and is_there:
            return _exported(describe_finished(job, target.store), job, ways.progress)
        if target.action == "start":
            _check_room(job)
    with closing(place.open_journal()) as journal:
        try:
            _finish_swap(job, journal)
            target = decide(journal)
            if target.action != "finished":
                return _run_with_executor(job, reload, target, journal, ways)
            RunStore(job, target).tidy()
            facts = _exported(describe_finished(job, target.store), job, ways.progress)
            if journal.header is None or place.find_unfinished(journal.header) is None:
                return _warned(facts, journal.remove(), ways.progress)
            return facts
        except RasterpipeError:
            if journal.header is None:  # nothing has begun
                journal.remove()
            raise


def _all_exist(job: Job) -> bool:
    """Return whether all files are there that a run makes of its store, which is gone where they are the result."""
    return all(Path(file.path).exists() for export in exports() for file in export.files(job))


def _check(job: Job, ways: Ways) -> None:
    """Refuse what cannot be written, or must not be, before anything is."""
    sources = [path for entry in job.pipeline.inputs.values() for path in entry.paths]
    sources += [path for reader in job.readers.values() for path in local_paths(reader)]
    asked = [*exports(), *([ways.picture] if ways.picture else [])]
    files = [file for export in asked for file in export.files(job)]
    if ways.performance_report is not None:
        files.append(Written(ways.performance_report, "the performance report", "report"))
    job.place.check(sources)
    with locating(job.document):
        if ways.picture is not None:
            ways.picture.check(job, resume=ways.resume, overwrite=ways.overwrite)
        check_writes(job, sources, files, overwrite=ways.overwrite, resume=ways.resume)
        check_levels(job)
        for export in exports():
            export.check(job, resume=ways.resume, overwrite=ways.overwrite)


def _finish_swap(job: Job, journal: Journal) -> None:
    try:
        job.place.finish_swap(journal)
    except OSError as error:
        raise OutputError(
            f"{job.result}: the result of a run that was killed cannot be put in its place: {error}; mend that, or "
            "choose another output path"
        ) from error


def _exported(facts: RunFacts, job: Job, progress: Progress) -> RunFacts:
    """Write the files that are made of a complete store; the journal must be locked, for other runs write them too."""
    return replace(facts, exports={export.name: export.write(job, progress) for export in exports()})


def _warned(facts: RunFacts, words: str | None, progress: Progress) -> RunFacts:
    """Say what went wrong after a result was complete."""
    if not words:
        return facts
    progress.say(f"note: {words}")
    return replace(facts, warnings=(*facts.warnings, words))


@contextmanager
def executor_of(job: Job, progress: Progress) -> Iterator[Executor]:
    """Yield the threads of this process, or the workers of the cluster that the pipeline names, or that it starts."""
    if job.pipeline.run.scheduler == THREADS:
        yield Threads(progress)
        return
    from pipeline.execution.cluster.connection import connect

    with ExitStack() as stack:
        with locating(job.document):
            crew = stack.enter_context(connect(job.pipeline.run.scheduler))
        yield crew


def _run_with_executor(job: Job, reload: Reload, target: Target, journal: Journal, ways: Ways) -> RunFacts:
    """Run a job where it is to run, planned for what is there and by the grids of the run that it continues."""
    cut = ways.cut
    if target.action == "continue":
        assert journal.header is not None
        cut = replace(cut, grids=grids_from_json(journal.header["grids"]), economy=journal.header.get("economy"))
    with executor_of(job, ways.progress) as executor:
        if executor.description:
            ways.progress.say(executor.description)
        scratch, is_remote = job.pipeline.run.scratch, is_url(job.output)
        folders = [*([] if is_remote else [journal.folder]), *([Path(scratch)] if scratch else [])]
        with locating(job.document):
            work = job.place.work if is_remote else None
            capacity = executor.probe(job.evidence, folders, work, job.plan.distributions)
        if capacity is not None:
            cut = replace(cut, capacity=capacity)
        return _run(job if cut is ways.cut else reload(cut), target, journal, ways, executor)


def _check_room(job: Job) -> str | None:
    levels = sum(each.num_bytes for each in levels_of(job).values())
    return job.place.check_room(sum(array.num_bytes for array in job.plan.arrays) + levels)


def _run(job: Job, target: Target, journal: Journal, ways: Ways, executor: Executor) -> RunFacts:
    """Run a planned job into its target; the journal says what is done already."""
    progress = ways.progress
    room = _check_room(job) if target.action == "start" else None
    warnings = [*job.plan.notes, *(text for text in (room, executor.warning) if text)]
    for text in warnings:
        progress.say(f"note: {text}")
    store = RunStore(job, target)
    configure(job.plan.settings.workers)
    lost = _begin(job, target, journal, store) if target.action == "start" else store.take_over(journal)
    with FileSystems(store.folders if job.pipeline.run.durable else []) as disks:
        with _spoiling(journal), progress, journal.checkpoints(disks):
            compile_seconds = executor.prepare(job.plan, store.evidence())
            started = time.monotonic()
            with executor.report(ways.performance_report):
                stores = Stores(store.open_reader, store.open_writer, partial(store.take_back_lost, journal))
                measured = execute(
                    job.plan,
                    stores,
                    journal,
                    progress,
                    retries=job.pipeline.run.retries,
                    run_strips=executor.run_strips,
                )
            measured.counts += Counts(blocks_recomputed=lost)
            write_levels(job, target.store, progress)
            check_inputs_unchanged(job)
        seconds = _complete(store, measured, journal, disks) - started
    for text in store.provenance["notes"]:
        progress.say(f"note: {text}")
    warnings += store.provenance["notes"]
    facts = describe_run(job, store.provenance, measured, seconds, compile_seconds, warnings)
    facts = _warned(_exported(facts, job, progress), journal.remove(), progress)
    return executor.add_facts(facts)


def _begin(job: Job, target: Target, journal: Journal, store: RunStore) -> int:
    """Create the store and begin the journal; no block is lost yet."""
    given_up = journal.header
    try:
        job.place.prepare(target)
        store.create()
        journal.start(store.journal_header())
    except OSError as error:
        job.place.discard(target)
        raise OutputError(f"{job.output}: cannot be written: {error}") from error
    store.remove_given_up(given_up)
    return 0


@contextmanager
def _spoiling(journal: Journal) -> Iterator[None]:
    """Let nobody continue a run whose input was another one for a while, even if it is as it was again."""
    try:
        yield
    except InputChanged as error:
        journal.spoil(str(error))
        raise InputChanged(f"{error}; what is computed cannot be continued: --overwrite starts anew") from error


def _complete(store: RunStore, measured: Measured, journal: Journal, disks: FileSystems) -> float:
    """Complete a store and put it in its place; return when it was complete."""
    try:
        store.complete(measured, partial(journal.checkpoint, disks))
        completed = time.monotonic()
        store.publish()
    except OSError as error:
        raise RunStopped(f"{error}; the run stopped, and --resume continues it once that is mended") from error
    return completed
