"""What a finished store holds besides pixels, made anew by the functions that a run makes it with, and compared."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import zarr

from pipeline.execution.receipt import Measured
from pipeline.model.table import Table, TableSpec
from pipeline.model.total import Total
from pipeline.operations.base import Reduction
from pipeline.output.job import Job
from pipeline.output.levels import levels_of
from pipeline.output.place import Target
from pipeline.output.store import RunStore
from pipeline.planning.plan import ECONOMIES, Plan
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.open import folder_at
from pipeline.storage.zarr.coordinate import quiet
from pipeline.storage.zarr.store import create_store, missing_chunks, read_table
from pipeline.verbs.load import Cut, load

AMPLE_BYTES = 2**50
LISTED = 5
"""Missing files, and members that do not belong there, that are named."""
MEAN = "mean_squared_error"
"""The fact of a quality that its others follow from."""
Record = Mapping[str, Any]


def store_problems(output: str, job: Job, record: Record) -> Iterator[str]:
    """Yield where a store is not what its plan makes, but for pixels, and tables that are made of pixels."""
    job = replace(job, plan=plan_as_stored(output, job, record["config"]))
    problems = [*count_problems(output, job, record), *_table_problems(output, job)]
    if problems:
        yield from problems
    else:
        with tempfile.TemporaryDirectory(prefix="rasterpipe-verify-", dir=job.pipeline.run.scratch) as folder:
            yield from _differences_from(LocalFolder(f"{folder}/expected.zarr"), output, job, record)
    for raster in stored_rasters(job):
        yield from missing_problems(output, raster)


def stored_rasters(job: Job) -> list[str]:
    """Return the rasters of a store, and their levels."""
    levels = levels_of(job)
    return [*job.plan.kept, *(array.raster for each in levels.values() for array in each.arrays)]


def plan_as_stored(output: str, job: Job, config: Mapping[str, Any]) -> Plan:
    """Return the plan by which arrays have the chunks and shards that are stored: automatic ones follow the memory."""
    if _is_stored_as(output, job.plan):
        return job.plan
    ample = {**config, "run": {**config["run"], "memory": AMPLE_BYTES}}
    plans = (load(ample, cut=Cut(economy=economy)).plan for economy in range(len(ECONOMIES)))
    return next((plan for plan in plans if _is_stored_as(output, plan)), job.plan)


def _is_stored_as(output: str, plan: Plan) -> bool:
    folder = folder_at(output)
    try:
        stored = {raster: folder.open_array(raster) for raster in plan.kept}
    except RemoteError:
        raise
    except Exception:  # zarr raises anything on damaged metadata, which are compared later
        return False
    return all((stored[name].chunks, stored[name].shards) == (a.chunks, a.shards) for name, a in plan.kept.items())


# --- the record ------------------------------------------------------------------------------------------------


def count_problems(output: str, job: Job, record: Record) -> Iterator[str]:
    """Yield the recorded counts of valid values that cannot be."""
    for raster, array in job.plan.kept.items():
        said, size = record["valid"].get(raster), math.prod(array.spec.shape_of(array.region))
        least = 0 if array.spec.can_be_invalid else size
        if type(said) is not int or not least <= said <= size:
            yield f"{output}: the valid values of {raster} are recorded as {json.dumps(said)}, and {size:,} are stored"


@dataclass(frozen=True, slots=True)
class _KnownMean(Total):
    """The total of numbers of which the mean alone is known."""

    known: float = 0.0
    psnr: float = 0.0
    """Recorded beside it: what follows from a mean that is no number of float64, it does not tell."""

    def mean(self, per: int = 1) -> float:
        return self.known

    def decibels(self, level: float, per: int = 1) -> float:
        return Total.decibels(self, level, per) if 0 < self.known < math.inf else self.psnr


def _recorded_total(quality: Any) -> Total:
    """Return a total from which the facts of a quality follow that are recorded beside its mean."""
    facts = quality if isinstance(quality, Mapping) else {}
    mean, psnr = (math.inf if fact == "inf" else fact for fact in (facts.get(MEAN), facts.get("psnr")))
    if isinstance(mean, int | float) and mean >= 0:
        return _KnownMean(1, known=float(mean), psnr=psnr if isinstance(psnr, int | float) else math.inf)
    return Total()


# --- tables ----------------------------------------------------------------------------------------------------


def table_specs(job: Job) -> dict[str, TableSpec]:
    """Return the tables that a pipeline makes, by step."""
    specs = {}
    for name, step in job.plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        specs[name] = step.operation.table_spec(step.sources)
    return specs


def _given_tables(plan: Plan) -> dict[str, Table]:
    """Return the tables that no pixel has a part in."""
    first, given = plan.first_tables(), {}
    for name, step in plan.reductions.items():
        assert isinstance(step.operation, Reduction)
        if not step.operation.num_sweeps(step.sources):
            given[name] = first[name]
    return given


def _table_problems(output: str, job: Job) -> Iterator[str]:
    """Yield what is wrong with the tables of a store before they are read."""
    folder = folder_at(output)
    for name, spec in table_specs(job).items():
        missing = [
            text for column in spec.columns for text in missing_problems(output, f"{name}/{spec.prefix}{column}")
        ]
        yield from missing
        arrays = {} if missing else {c: folder.open_array(f"{name}/{spec.prefix}{c}") for c in spec.columns}
        rows = {(spec.columns[column][0], array.shape[:1]) for column, array in arrays.items()}
        is_ragged = len(rows) > len({dims[0] for dims in spec.columns.values()})
        for column, array in arrays.items():
            sizes = tuple(spec.sizes[dim] for dim in spec.columns[column][1:])
            if is_ragged or array.shape[1:] != sizes or not array.ndim or array.dtype.kind not in "iuf":
                where = f"{output}/{name}/{spec.prefix}{column}"
                yield f"{where}: has the shape {array.shape} and the dtype {array.dtype}, which no such column has"


def missing_problems(output: str, array: str) -> Iterator[str]:
    """Yield in words the files that an array of a store lacks."""
    try:
        missing = list(islice(missing_chunks(output, array), LISTED + 1))
    except RemoteError:
        raise
    except FileNotFoundError:
        missing = [array]
    except Exception as error:  # zarr raises anything on damaged metadata
        yield f"{output}/{array}: cannot be opened: {type(error).__name__}: {error}"
        return
    if missing:
        more = ", ..." if len(missing) > LISTED else ""
        yield f"{output}: lacks what a finished run has written: {', '.join(missing[:LISTED])}{more}"


# --- the store -------------------------------------------------------------------------------------------------


def _differences_from(expected: Folder, output: str, job: Job, record: Record) -> Iterator[str]:
    given = _given_tables(job.plan)
    read = {name: spec for name, spec in table_specs(job).items() if name not in given}
    try:
        tables = given | {name: read_table(output, name, spec) for name, spec in read.items()}
    except RemoteError:
        raise
    except Exception as error:  # codecs raise anything on damaged chunks
        yield f"{output}: its tables cannot be read: {type(error).__name__}: {error}"
        return
    make_store(expected, job, record, tables)
    stored, due = folder_at(output), expected_documents(expected, record)
    columns = {f"{name}/{spec.prefix}{column}" for name, spec in read.items() for column in spec.columns}
    pixels = stored_rasters(job)
    for name, document in due.items():
        if problem := document_difference(read_document(stored, name), document):
            yield f"{output}/{name}: {problem}"
        elif document["node_type"] == "array" and (array := name.removesuffix("/zarr.json")) not in columns:
            yield from () if array in pixels else value_problems(output, array, expected)
    yield from _extra_members(output, due)


def make_store(folder: Folder, job: Job, record: Record, tables: Mapping[str, Table]) -> None:
    """Make the store of a finished run without its pixels."""
    totals = {
        name: _recorded_total(record["quality"].get(name)) for planned in job.plan.passes for name in planned.measured
    }
    store = RunStore(job, Target("start", folder, record["run_id"]))
    store.provenance |= {key: record[key] for key in ("version", "started", "config")}
    create_store(folder, store.provenance, [array for array in job.plan.arrays if array.is_kept], levels_of(job))
    store.complete(Measured(valid=dict(record["valid"]), totals=totals, tables=tables))


def expected_documents(folder: Folder, record: Record) -> dict[str, Any]:
    """Return the metadata of a store that was made to be compared, by file."""
    root = zarr.open_group(folder.pixel_store(), mode="r", use_consolidated=False)
    names = ["zarr.json", *sorted(f"{name}/zarr.json" for name, _ in root.members(max_depth=None))]
    documents = {name: folder.read_json(name) for name in names}
    documents["zarr.json"]["attributes"]["rasterpipe"]["finished"] = record["finished"]
    return documents


def read_document(folder: Folder, name: str) -> Any:
    """Return a metadata file; None where there is none that can be read."""
    try:
        return folder.read_json(name)
    except RemoteError:
        raise
    except Exception:
        return None


def document_difference(stored: Any, expected: Any) -> str | None:
    """Return in words the first difference between metadata as stored and as a run writes them, to the letter."""
    if stored is None:
        return "is not there, or cannot be read; copy the store again"
    found, due = _leaves(stored), _leaves(expected)
    differing = [place for place in {**due, **found} if found.get(place) != due.get(place)]
    if not differing:
        return None
    telling = (place for place in differing if not {found.get(place), due.get(place)} & {"{}", "[]"})
    first, more = next(telling, differing[0]), f"; {len(differing)} such values differ" if len(differing) > 1 else ""
    where = ".".join(map(str, first)) or "all of it"
    return f"{where} is {_short(found.get(first))}, and {_short(due.get(first))} by its plan{more}"


def _leaves(value: Any) -> dict[tuple[str | int, ...], str]:
    """Return what JSON says, by place, as text: 1, 1.0 and true are not the same."""
    leaves: dict[tuple[str | int, ...], str] = {}
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:  # no recursion: what somebody wrote may be nested deeply
        place, value = waiting.pop()
        if isinstance(value, dict | list) and value:
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            waiting += [((*place, key), entry) for key, entry in reversed(items)]
        else:
            leaves[place] = json.dumps(value)
    return leaves


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= 60 else text[:57] + "..."


def value_problems(output: str, array: str, expected: Folder) -> Iterator[str]:
    """Yield in words where the values of an array are not those that are expected; metadata are the same."""
    due = np.asarray(expected.open_array(array)[...])
    try:
        with quiet():
            found = np.asarray(folder_at(output).open_array(array)[...])
    except RemoteError:
        raise
    except Exception as error:  # codecs raise anything on damaged chunks
        yield f"{output}/{array}: cannot be read: {type(error).__name__}: {error}"
        return
    differs = differing_values(found, due)
    if differs.any():
        first = np.unravel_index(int(differs.argmax()), differs.shape)
        yield (
            f"{output}/{array}: {int(np.count_nonzero(differs)):,} of {differs.size:,} values differ, the first at "
            f"{[int(i) for i in first]}: {found[first]!r}, and {due[first]!r} by its plan"
        )


def differing_values(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where the bits of two arrays of one shape and dtype differ; NaN is NaN, whatever its bits."""
    if a.dtype.kind not in "iuf":
        return np.asarray(a != b)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    differs = np.asarray(np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)).reshape(a.shape)
    return differs & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else differs


def _extra_members(output: str, due: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arrays and groups that a reader would take for a part of the result."""
    groups = [name.removesuffix("zarr.json") for name, document in due.items() if document["node_type"] == "group"]
    try:
        with quiet():
            members = [f"{group}{name}" for group in groups for name in _members(output, group)]
    except RemoteError:
        raise
    except Exception as error:  # zarr raises anything on damaged metadata
        yield f"{output}: what is in it cannot be listed: {type(error).__name__}: {error}"
        return
    if extra := [name for name in members if f"{name}/zarr.json" not in due]:
        more = ", ..." if len(extra) > LISTED else ""
        yield f"{output}: holds what is no part of the result: {', '.join(extra[:LISTED])}{more}; move it away"


def _members(output: str, group: str) -> list[str]:
    """Return what lies in a group itself, whatever its consolidated metadata say."""
    store = folder_at(output).metadata_store()
    opened = zarr.open_group(store, path=group.rstrip("/"), mode="r", use_consolidated=False)
    return sorted(name for name, _ in opened.members(max_depth=0))
