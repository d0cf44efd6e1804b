"""The store that a run writes, and the one beside it for what only the run needs."""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.block.plan import Pass
from pipeline.execution.ledger import SavedPartials
from pipeline.execution.receipt import Measured, mark_of_block
from pipeline.model.errors import OutputError
from pipeline.model.raster import json_number
from pipeline.model.stored import StoredArray
from pipeline.model.table import Table
from pipeline.model.version import __version__
from pipeline.operations.base import Reduction
from pipeline.operations.traits import DescribesOutputs, HasTableBeside, IsMeasured
from pipeline.output.color_table import ColorTable, color_table_of, with_colors
from pipeline.output.job import Job
from pipeline.output.journal import Journal, grids_to_json
from pipeline.output.levels import levels_of
from pipeline.output.place import Target
from pipeline.output.provenance import hash_parts, running_code
from pipeline.planning.plan import Plan
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.listing import mark_of
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.reader import Evidence, Reader
from pipeline.storage.tables import is_whole
from pipeline.storage.zarr.document import TablePlan, documents
from pipeline.storage.zarr.reader import open_written
from pipeline.storage.zarr.store import ZarrWriter, create_store, finish_store

RUN_ID = re.compile(r"[0-9a-f]{32}")


class RunStore:
    """Creates, opens and completes what a run writes."""

    def __init__(self, job: Job, target: Target) -> None:
        self.job, self.target = job, target
        self.intermediates = self.own_folder(target.run_id).child("rasters")
        self.provenance: dict[str, Any] = {
            "version": __version__,
            "run_id": target.run_id,
            "plan_hash": hash_parts(job.parts),
            "parts": dict(job.parts),
            "config": _without_scheduler(job.pipeline.to_dict()),
            "started": now(),
            "complete": False,
        }

    def own_folder(self, run_id: str) -> Folder:
        """Return the folder for the intermediate results of a run: another one for every run.

        What an earlier run left, or its removal, is then never taken for that of the run that the journal tells of.
        """
        scratch = self.job.pipeline.run.scratch
        if scratch:
            return LocalFolder(Path(scratch, f"{self.job.output.rstrip('/').rpartition('/')[2]}.{run_id}"))
        return self.job.place.work.child(run_id)

    def create(self) -> None:
        """Create all arrays, so that blocks have only pixels to write."""
        arrays = self.job.plan.arrays
        create_store(self.target.store, self.provenance, [a for a in arrays if a.is_kept], levels_of(self.job))
        if passing := [array for array in arrays if not array.is_kept]:
            create_store(self.intermediates, {"run_id": self.target.run_id}, passing)

    def remove_given_up(self, header: Mapping[str, Any] | None) -> None:
        """Remove the intermediate results of an earlier run, whose journal began with this."""
        run_id = str((header or {}).get("run_id"))
        if RUN_ID.fullmatch(run_id) and run_id != self.target.run_id:
            for folder in (self.own_folder(run_id), self.job.place.work.child(run_id)):
                folder.remove_tree()

    @property
    def folders(self) -> list[Path]:
        """The folders whose file systems hold what the run writes."""
        folders = (self.target.store, self.job.place.work, self.intermediates)
        return [Path(f.path) for f in folders if isinstance(f, LocalFolder) and Path(f.path).exists()]

    def take_over(self, journal: Journal) -> int:
        """Continue what the journal records: take back what is lost; return how many blocks that are."""
        if any(not array.is_kept for array in self.job.plan.arrays) and not self.intermediates.exists("zarr.json"):
            raise OutputError(
                f"{self.job.output}: the intermediate results of the unfinished run, in {self.intermediates}, "
                "are gone; --overwrite starts anew"
            )
        lost = self.take_back_lost(journal)
        for folder, is_kept in ((self.target.store, True), (self.intermediates, False)):
            rasters = [array.raster for array in self.job.plan.arrays if array.is_kept == is_kept]
            if rasters and isinstance(folder, ObjectFolder):  # on a disk, the folder bears the run's name
                ours = self._recorded_files(journal, is_kept)
                folder.take_over(partial(_is_among, ours), partial(_is_chunk, rasters))
        return lost

    def take_back_lost(self, journal: Journal) -> int:
        """Take back what is recorded of blocks whose files are not as they were written; return how many that are."""
        folders = {True: self.target.store, False: self.intermediates}
        marks = {is_kept: folders[is_kept].marks() for is_kept in {array.is_kept for array in self.job.plan.arrays}}
        total = 0
        for planned in self.job.plan.passes:
            record = journal.passes[planned.number]
            lost = [block for block in record.done if record.written(block) != self._mark(planned, block, marks)]
            partials = [number for number, saved in record.partials.items() if not _is_saved(planned, saved, journal)]
            if lost or partials:
                journal.lose(planned.number, lost, partials)
            total += len(lost)
        return total

    def _mark(self, planned: Pass, block: int, marks: Mapping[bool, Callable[[str], int | None]]) -> int:
        found = [marks[array.is_kept](name) for array, name in self._files(planned, block)]
        return mark_of_block([-1 if mark is None else mark for mark in found])

    def _files(self, planned: Pass, block: int) -> Iterator[tuple[StoredArray, str]]:
        """Yield the files of a block, in the order in which they are written."""
        for raster in planned.writes:
            array = planned.arrays[raster]
            region = planned.grid.block(block).shift(-array.region.top, -array.region.left)
            for name in array.files(region):
                yield array, name

    def _recorded_files(self, journal: Journal, is_kept: bool) -> set[int]:
        """Return what stands for the names of all files of recorded blocks."""
        return {
            mark_of(name)
            for planned in self.job.plan.passes
            for block in journal.passes[planned.number].done
            for array, name in self._files(planned, block)
            if array.is_kept == is_kept
        }

    def journal_header(self) -> Mapping[str, Any]:
        return {
            "run_id": self.target.run_id,
            "plan_hash": self.provenance["plan_hash"],
            "parts": self.provenance["parts"],
            "code": running_code(),
            "replaces": self.target.replaces,
            "passes": [
                [len(planned.grid), len(planned.writes) + len(planned.measured)] for planned in self.job.plan.passes
            ],
            "economy": self.job.plan.settings.economy,
            "grids": grids_to_json([planned.grid for planned in self.job.plan.passes]),
        }

    def open_reader(self, raster: str) -> Reader:
        """Open what a pass reads: an input, or a whole raster that an earlier pass wrote."""
        if raster in self.job.readers:
            return self.job.readers[raster]
        store = self.intermediates if self.holds(raster) else self.target.store
        return open_written(store, raster)

    def evidence(self) -> list[Evidence]:
        """Return what tells the stores of this run, once they are created, from others under their paths."""
        stores = (self.target.store, self.intermediates)
        return [Evidence(store.absolute, store, ("zarr.json",)) for store in stores if store.exists("zarr.json")]

    def holds(self, raster: str) -> bool:
        """Return whether a raster is an input or an intermediate result, and not read from the result."""
        passing = any(array.raster == raster and not array.is_kept for array in self.job.plan.arrays)
        return passing or raster in self.job.readers

    def open_writer(self, array: StoredArray) -> ZarrWriter:
        return ZarrWriter(self.target.store if array.is_kept else self.intermediates, array)

    def complete(self, measured: Measured, sync: Callable[[], None] = lambda: None) -> None:
        """Declare the result complete, in its provenance, once `sync` has brought all of it to the disk."""
        if self.target.action == "continue":
            self.job.place.remove_torn(self.target)
        valid = {raster: measured.valid[raster] for raster in self.job.plan.kept}
        quality = dict(qualities(self.job.plan, measured))
        colors = {raster: color_table_of(self.job.plan, raster, measured.tables) or ColorTable() for raster in valid}
        notes = list(_table_notes(self.job.plan, measured.tables))
        notes += [f"{raster}: {table.lost}" for raster, table in colors.items() if table.lost]
        self.provenance |= {"complete": True, "finished": now(), "valid": valid, "quality": quality, "notes": notes}
        shared = {key: self.provenance[key] for key in ("version", "run_id", "plan_hash", "complete")}
        plan = self.job.plan
        tables = list(self._tables(measured))
        steps = {step["name"]: step for step in self.provenance["config"]["steps"]}
        groups = {
            name: {**shared, "step": steps[name], "inputs": self.job.parts["identities"]}
            for name in dict.fromkeys([*(raster.partition("/")[0] for raster in plan.kept), *plan.reductions])
        }
        described = quality | dict(_descriptions(plan, measured.tables))
        arrays = {raster: described[name] for raster in plan.kept if (name := raster.partition("/")[0]) in described}
        kept = [_colored(array, colors[name]) for name, array in plan.kept.items()]
        levels = {
            name: replace(each, arrays=tuple(_colored(array, colors[name]) for array in each.arrays))
            for name, each in levels_of(self.job).items()
        }
        files = documents(self.provenance, kept, tables, groups, arrays, levels)
        finish_store(self.target.store, files, tables, sync)

    def _tables(self, measured: Measured) -> Iterator[TablePlan]:
        """Yield the tables of the store: those of reductions, and those that lie beside rasters."""
        plan = self.job.plan
        for name, step in plan.reductions.items():
            assert isinstance(step.operation, Reduction)
            yield TablePlan(name, measured.tables[name], step.operation.table_spec(step.sources))
        for step in plan.steps.values():
            operation = step.operation
            if isinstance(operation, HasTableBeside) and any(
                raster.startswith(f"{step.name}/") for raster in plan.kept
            ):
                tables = {key: measured.tables[maker] for key, maker in step.makers.items()}
                yield TablePlan(step.name, *operation.table_beside(tables, step.sources))

    def publish(self) -> None:
        """Put a result that replaces an older one in its place, and remove what only the run needed."""
        self.job.place.publish(self.target)
        self.tidy()

    def tidy(self) -> None:
        """Remove the intermediate results."""
        self.own_folder(self.target.run_id).remove_tree()


def _colored(array: StoredArray, table: ColorTable) -> StoredArray:
    return replace(array, spec=with_colors(array.spec, table.colors))


def _is_among(marks: Container[int], name: str) -> bool:
    return mark_of(name) in marks


def _is_chunk(rasters: Iterable[str], name: str) -> bool:
    return any(name.startswith(f"{raster}/c/") for raster in rasters)


def _is_saved(planned: Pass, partials: SavedPartials, journal: Journal) -> bool:
    """Return whether saved partial tables are there as they were saved, or are in the pass's tables already."""
    folded = [journal.tables / f"{sweep.step.name}.{sweep.number}" for sweep in planned.sweeps]
    if all(map(is_whole, folded)):
        return True
    for folder in folded:
        shutil.rmtree(folder, ignore_errors=True)
    return all(is_whole(journal.tables / folder) for per_sweep in partials.folders for folder in per_sweep)


def _without_scheduler(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration for the record: where a run ran is no part of it, and may name what is private."""
    return config | {"run": {key: value for key, value in config["run"].items() if key != "scheduler"}}


def qualities(plan: Plan, measured: Measured) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the steps that are measured, and what their totals say, ready for JSON."""
    for planned in plan.passes:
        for step in planned.steps:
            if step.name in planned.measured:
                tables = {key: measured.tables[maker] for key, maker in step.makers.items()}
                assert isinstance(step.operation, IsMeasured)
                facts = step.operation.quality(measured.totals[step.name], tables, step.sources)
                yield step.name, {key: json_number(value) for key, value in facts.items()}


def _table_notes(plan: Plan, tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield what finished tables tell the user."""
    for name, step in plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        yield from (f"{name}: {text}" for text in step.operation.table_notes(tables[name]))


def _descriptions(plan: Plan, tables: Mapping[str, Table]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the steps whose finished tables tell attributes of their outputs."""
    for name, step in plan.reductions.items():
        if isinstance(step.operation, DescribesOutputs):
            yield name, step.operation.attributes(tables[name])


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
