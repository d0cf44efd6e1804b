"""The store that a run writes, and the one beside it for what only the run needs."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.errors import OutputError
from pipeline.operation import Reduction
from pipeline.planning import StoredArray
from pipeline.storage.reader import Reader
from pipeline.storage.zarr import ZarrReader
from pipeline.storage.zarr_store import ArrayPlan, ZarrWriter, create_store, finish_store, write_table
from pipeline.target import Target, grids_to_json, hash_parts, swap_in

if TYPE_CHECKING:
    from pipeline.api import Job
    from pipeline.execution import Measured


class RunStore:
    """Creates, opens and completes what a run writes."""

    def __init__(self, job: Job, target: Target, work: Path) -> None:
        self.job, self.target = job, target
        scratch = job.pipeline.run.scratch
        own = Path(scratch) / f"{Path(job.output).name}.{target.run_id}" if scratch else work
        self.intermediates = own / "rasters"
        self.provenance: dict[str, Any] = {
            "version": pipeline.__version__,
            "run_id": target.run_id,
            "plan_hash": hash_parts(job.parts),
            "parts": dict(job.parts),
            "config": job.pipeline.to_dict(),
            "started": now(),
            "complete": False,
        }

    def create(self) -> None:
        """Create all arrays, so that blocks have only pixels to write."""
        arrays = self.job.plan.arrays
        create_store(str(self.target.store), self.provenance, [array_plan(a) for a in arrays if a.is_kept])
        shutil.rmtree(self.intermediates, ignore_errors=True)  # of an earlier run, given up
        if passing := [array_plan(array) for array in arrays if not array.is_kept]:
            self.intermediates.parent.mkdir(parents=True, exist_ok=True)
            create_store(str(self.intermediates), {"run_id": self.target.run_id}, passing)

    def check_continued(self) -> None:
        """Refuse to continue without the intermediate results that the journal counts as done."""
        if any(not array.is_kept for array in self.job.plan.arrays) and not self.intermediates.exists():
            raise OutputError(
                f"{self.job.output}: the intermediate results of the unfinished run, in {self.intermediates}, "
                "are gone; --overwrite starts anew"
            )

    def journal_header(self) -> Mapping[str, Any]:
        return {
            "run_id": self.target.run_id,
            "plan_hash": self.provenance["plan_hash"],
            "parts": self.provenance["parts"],
            "economy": self.job.plan.settings.economy,
            "grids": grids_to_json([planned.plan.grid for planned in self.job.plan.passes]),
        }

    def open_reader(self, raster: str) -> Reader:
        """Open what a pass reads: an input, or a whole raster that an earlier pass wrote."""
        if raster in self.job.readers:
            return self.job.readers[raster]
        passing = any(array.raster == raster and not array.is_kept for array in self.job.plan.arrays)
        return ZarrReader(str(self.intermediates if passing else self.target.store), raster)

    def open_writer(self, array: StoredArray) -> ZarrWriter:
        return ZarrWriter(str(self.target.store if array.is_kept else self.intermediates), array_plan(array))

    def complete(self, measured: Measured) -> None:
        """Declare the result complete, in its provenance."""
        valid = {raster: measured.valid[raster] for raster in self.job.plan.kept}
        self.provenance |= {"complete": True, "finished": now(), "valid": valid}
        shared = {key: self.provenance[key] for key in ("version", "run_id", "plan_hash", "complete")}
        plan = self.job.plan
        for name, step in plan.reductions.items():
            assert isinstance(step.operation, Reduction)
            spec = step.operation.table_spec(step.sources)
            write_table(str(self.target.store), name, measured.tables[name], spec)
        for step in {step.name: step for planned in plan.passes for step in planned.plan.steps}.values():
            tables = {key: measured.tables[maker] for key, maker in step.makers.items()}
            beside = step.operation.table_beside(tables, step.sources)
            if beside and any(raster.startswith(f"{step.name}/") for raster in plan.kept):
                write_table(str(self.target.store), step.name, *beside)
        steps = {step["name"]: step for step in self.provenance["config"]["steps"]}
        groups = {
            name: {**shared, "step": steps[name], "inputs": self.job.parts["identities"]}
            for name in dict.fromkeys([*(raster.partition("/")[0] for raster in plan.kept), *plan.reductions])
        }
        finish_store(str(self.target.store), self.provenance, groups)

    def publish(self) -> None:
        """Put a result that replaces an older one in its place, and remove what only the run needed."""
        if self.target.replaces:
            swap_in(self.job.output)
        if self.job.pipeline.run.scratch:  # beside the output they go with the journal
            shutil.rmtree(self.intermediates.parent, ignore_errors=True)


def array_plan(array: StoredArray) -> ArrayPlan:
    return ArrayPlan(array.raster, array.spec, array.chunks, array.shards, array.codec, array.region)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
