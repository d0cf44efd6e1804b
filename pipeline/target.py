"""Where a run writes: a new store, the one beside an existing output, or the unfinished one that it continues."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import OutputError
from pipeline.journal import Journal, work_folder
from pipeline.planning import format_bytes
from pipeline.region import Axis, Grid
from pipeline.storage.zarr_store import root_attributes

Parts = Mapping[str, Any]


def hash_parts(parts: Parts) -> str:
    """Return the plan hash: of all that the result depends on, and of nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Target:
    """The decision how to begin: what to do, and in which folder the store is written."""

    action: Literal["start", "continue", "finished"]
    store: Path
    run_id: str
    replaces: bool
    """Whether `store` lies beside an existing output, to be swapped in at the end."""


def check_output_path(output: str, inputs: Sequence[str]) -> None:
    """Refuse an output equal to, inside or around an input, and one that is no store of ours."""
    if "://" in output:
        raise OutputError(f"{output}: only local outputs are written so far")
    path = Path(output).resolve()
    for source in inputs:
        other = Path(source).resolve()
        if path == other:
            raise OutputError(f"{output}: is also an input; choose another output path")
        if other in path.parents or path in other.parents:
            word = "inside" if other in path.parents else "around"
            raise OutputError(f"{output}: lies {word} the input {source}; choose an output path beside it")
    if path == path.parent:
        raise OutputError(f"{output}: is a root folder; choose a path for a new store")
    parent = next(p for p in path.parents if p.exists())
    if not parent.is_dir():
        raise OutputError(f"{output}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: the folder {parent} is not writable")
    if any((p / "zarr.json").exists() or (p / ".zgroup").exists() or (p / ".zarray").exists() for p in path.parents):
        raise OutputError(f"{output}: lies inside another Zarr store; choose a path outside of it")
    if path.exists() and root_attributes(str(path)) is None and not _is_empty_folder(path):
        raise OutputError(f"{output}: exists and is not an output of rasterpipe, so it is never replaced; move it away")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def check_free_space(output: str, num_bytes: int) -> str | None:
    """Refuse a disk that cannot hold half of the uncompressed result; return a warning where all is not sure to fit."""
    folder = next(p for p in Path(output).absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if free < num_bytes / 2:
        raise OutputError(
            f"{output}: the result has {format_bytes(num_bytes)} before compression, and only {format_bytes(free)} "
            f"are free in {folder}; make room, keep fewer outputs, or choose another disk"
        )
    if free < num_bytes:
        return f"the result has {format_bytes(num_bytes)} before compression, and {format_bytes(free)} are free"
    return None


def swap_paths(output: str) -> tuple[Path, Path]:
    """Return where the new store is built, and where the old one goes for the moment of the swap."""
    base = output.rstrip("/")
    return Path(base + ".new"), Path(base + ".old")


def finish_swap(output: str) -> None:
    """Finish what a crash between the renames of an overwriting run left."""
    path, (new, old) = Path(output), swap_paths(output)
    if not path.exists() and old.exists():
        finished = (root_attributes(str(new)) or {}).get("complete") is True
        os.rename(new if finished else old, path)
    if path.exists() and old.exists() and root_attributes(str(old)) is not None:
        shutil.rmtree(old)


def swap_in(output: str) -> None:
    """Put the finished new store in the place of the old one, which is kept until then."""
    path, (new, old) = Path(output), swap_paths(output)
    if path.exists():  # somebody may have removed it meanwhile
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def choose_target(output: str, parts: Parts, journal: Journal | None, *, resume: bool, overwrite: bool) -> Target:
    """Decide how a run begins; nothing is written or deleted here.

    Raises
    ------
    OutputError
        Where an output exists and neither flag says what to do with it, or `--resume` finds another plan's work.
    """
    path, (new, _) = Path(output), swap_paths(output)
    plan_hash = hash_parts(parts)
    here = root_attributes(str(path))
    if resume and here and here.get("complete") is True and here.get("plan_hash") == plan_hash:
        return Target("finished", path, str(here.get("run_id")), replaces=False)
    header = journal.header if journal else None
    unfinished = _unfinished_store(header, [new, path])
    if resume and header and unfinished:
        if header["plan_hash"] == plan_hash:
            return Target("continue", unfinished, header["run_id"], replaces=unfinished == new)
        if not overwrite:
            raise OutputError(_other_plan(output, header["parts"], parts, "the unfinished run"))
    if here is None:
        return Target("start", path, uuid.uuid4().hex, replaces=False)
    if overwrite:
        return Target("start", new, uuid.uuid4().hex, replaces=True)
    if resume and here.get("complete") is True:
        raise OutputError(_other_plan(output, here.get("parts", {}), parts, "the finished output"))
    if resume:  # ours, unfinished, and its journal is gone: nothing in it can be trusted
        return Target("start", new, uuid.uuid4().hex, replaces=True)
    if here.get("complete") is True:
        raise OutputError(f"{output}: exists; --overwrite replaces it once the new result is complete")
    raise OutputError(f"{output}: exists, unfinished; --resume continues it, --overwrite replaces it")


def _unfinished_store(header: Mapping[str, Any] | None, folders: Sequence[Path]) -> Path | None:
    """Return the store that a journal belongs to: the one that carries its run id."""
    for folder in folders:
        attributes = root_attributes(str(folder))
        if header and attributes and attributes.get("run_id") == header.get("run_id") and not attributes.get("complete"):
            return folder
    return None


def _other_plan(output: str, old: Parts, new: Parts, what: str) -> str:
    return (
        f"{output}: {what} is of another plan: {difference(old, new)}; "
        "undo the change, choose another output, or replace it with --overwrite"
    )


def difference(old: Any, new: Any, where: str = "") -> str:
    """Return in words the first difference between two plans.

    Examples
    --------
    >>> difference({"steps": [{"size": 3}]}, {"steps": [{"size": 5}]})
    'steps[0].size was 3, is 5'
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                return difference(a, b, f"{where}[{index}]")
    return f"{where} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def prepare(target: Target, output: str) -> None:
    """Make room for the store: remove what an earlier, given up run left in its place."""
    if target.action == "start" and target.store.exists():
        if root_attributes(str(target.store)) is None and not _is_empty_folder(target.store):
            raise OutputError(f"{target.store}: is in the way and not an output of rasterpipe; move it away")
        shutil.rmtree(target.store)
    target.store.parent.mkdir(parents=True, exist_ok=True)


def grids_to_json(grids: Sequence[Grid]) -> list[list[int]]:
    return [
        [axis_value for axis in (g.rows, g.columns) for axis_value in (axis.start, axis.stop, axis.step, axis.shortest)]
        + [g.panel]
        for g in grids
    ]


def grids_from_json(values: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    return tuple(Grid(Axis(*v[0:4]), Axis(*v[4:8]), v[8]) for v in values)


def journal_exists(output: str) -> bool:
    return (work_folder(output) / "journal").exists()
