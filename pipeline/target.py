"""Where a run writes: in a folder of its own beside the output, which is put in its place once it is complete."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pipeline
from pipeline.cluster import look
from pipeline.errors import OutputError
from pipeline.journal import Journal, work_folder
from pipeline.planning import format_bytes
from pipeline.region import Axis, Grid
from pipeline.storage.disk import sync_path
from pipeline.storage.folder import Folder, LocalFolder
from pipeline.storage.zarr_store import root_attributes

TORN = re.compile(r".+\.[0-9a-f]{32}\.partial")
"""Files that are written beside and renamed, by zarr and by us, as long as they are not whole."""

STORE_FILES = ("zarr.json", ".zgroup", ".zarray")
"""By which a folder is known for a Zarr store, or for a part of one."""

Parts = Mapping[str, Any]


def hash_parts(parts: Parts) -> str:
    """Return the plan hash: of all that the result depends on, and of nothing else."""
    return hashlib.sha256(json.dumps(without_places(parts), sort_keys=True).encode()).hexdigest()


def without_places(parts: Parts) -> dict[str, Any]:
    """Return the parts of a plan with names of inputs in place of their paths: a copy elsewhere is the same input."""
    of_inputs = {key: parts[key] for key in ("inputs", "identities") if isinstance(parts.get(key), Mapping)}
    return {**parts, **{key: {name: _named(entry) for name, entry in of_inputs[key].items()} for key in of_inputs}}


def _named(entry: Any) -> Any:
    """Return an entry whose paths are cut to their last part."""
    if not isinstance(entry, Mapping):
        return entry
    named = dict(entry)
    if isinstance(path := entry.get("path"), str):
        named["path"] = path.rstrip("/").rpartition("/")[2]
    if isinstance(stack := entry.get("stack"), list | tuple):
        named["stack"] = [_named(item if isinstance(item, Mapping) else {"path": item}) for item in stack]
    return named


@dataclass(frozen=True)
class Target:
    """The decision how to begin: what to do, and in which folder the store is written."""

    action: Literal["start", "continue", "finished"]
    store: Folder
    run_id: str
    replaces: str | None = None
    """The run whose result lies at the output and is replaced at the end; None: nothing lies there."""


def is_empty_folder(path: Path) -> bool:
    """Return whether a folder holds nothing, or only what a process that was killed there had begun to write."""
    return path.is_dir() and all(TORN.fullmatch(entry.name) for entry in path.iterdir())


def remove_torn(folder: Path) -> None:
    """Remove the files in a folder and below that a killed process had begun to write."""
    for path in folder.rglob("*.partial"):
        if TORN.fullmatch(path.name):
            path.unlink()


def provenance_of(path: Path | Folder) -> dict[str, Any] | None:
    """Return what a run has left in its store, or in its GeoTIFF; None for anything else."""
    if isinstance(path, Folder) and not isinstance(path, LocalFolder):
        return root_attributes(path)
    path = Path(str(path))
    if not path.is_file():
        return root_attributes(str(path))
    from pipeline.storage.tiff_writer import read_description

    try:
        value = json.loads(read_description(path) or "null")
        value = value.get("rasterpipe")
    except (ValueError, AttributeError, RecursionError):
        return None
    return from_beside(path, value) if isinstance(value, dict) else None


BESIDE = "${file}/"
"""In the record of a file: paths from its folder on. A file goes to others, whom the folders above do not concern."""


def beside(file: Path, record: Any) -> Any:
    """Return a record whose absolute paths are told from a file's folder on."""
    folder = os.path.realpath(file.absolute().parent)
    return _with_texts(record, lambda text: BESIDE + os.path.relpath(text, folder) if os.path.isabs(text) else text)


def from_beside(file: Path, record: Any) -> Any:
    """Return a record that `beside` made with absolute paths again."""
    folder = os.path.realpath(file.absolute().parent)
    return _with_texts(
        record,
        lambda text: os.path.normpath(f"{folder}/{text.removeprefix(BESIDE)}") if text.startswith(BESIDE) else text,
    )


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


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


def building_paths(output: str, run_id: str) -> tuple[Path, Path]:
    """Return where a run builds its store, and where the one that it replaces goes for the moment of the swap.

    No other run has these folders: what wakes up late, when its run was given up, finds nothing to write to.
    """
    folder = work_folder(output) / run_id
    return folder / "store", folder / "replaced"


def finish_swap(output: str, header: Mapping[str, Any] | None) -> None:
    """Finish what a crash at the end of a run left; the journal, whose header is given, must be locked."""
    if not header:
        return
    path, (new, old) = Path(output), building_paths(output, header["run_id"])
    finished = (root_attributes(str(new)) or {}).get("complete") is True
    if not path.exists() and old.exists():  # between the renames
        os.rename(new if finished else old, path)
    elif finished:  # before them
        swap_in(output, header["run_id"], header["replaces"])
    if path.exists() and old.exists():
        shutil.rmtree(old)


def swap_in(output: str, run_id: str, replaces: str | None) -> None:
    """Put a finished store in its place; the one that it replaces is kept until then."""
    path, (new, old) = Path(output), building_paths(output, run_id)
    if path.exists() and not is_empty_folder(path):  # somebody may have removed it meanwhile
        here = root_attributes(str(path))
        if here is None or replaces is None or str(here.get("run_id")) != replaces:
            raise OutputError(
                f"{output}: is not what lay there when the run began; the result is complete, in {new}: move away what "
                "is in its place, and --resume puts it there"
            )
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    sync_path(path.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)


def choose_target(output: str, parts: Parts, journal: Journal | None, *, resume: bool, overwrite: bool) -> Target:
    """Decide how a run begins; nothing is written or deleted here.

    Raises
    ------
    OutputError
        Where an output exists and neither flag says what to do with it, or `--resume` finds another plan's work.
    """
    path, here = Path(output), root_attributes(output)
    if resume and here and here.get("complete") is True and here.get("plan_hash") == hash_parts(parts):
        return Target("finished", LocalFolder(path), str(here.get("run_id")))
    header = journal.header if journal else None
    if journal and header and (unfinished := find_unfinished(output, header)) and not (overwrite and not resume):
        if not resume:
            words = "an unfinished run is there; --resume continues it, --overwrite starts it anew"
            raise OutputError(f"{output}: {words}")
        if not (words := why_not_continued(output, journal, parts)):
            return Target("continue", LocalFolder(unfinished), header["run_id"], header["replaces"])
        if not overwrite:
            raise OutputError(words)
    if here is not None and not overwrite:
        check_may_rebuild(output, here, parts, resume)
    run_id = uuid.uuid4().hex
    replaces = None if here is None else str(here.get("run_id"))
    return Target("start", LocalFolder(building_paths(output, run_id)[0]), run_id, replaces)


def why_not_continued(output: str, journal: Journal, parts: Parts) -> str:
    """Return in words why an unfinished run cannot be continued; empty: it can."""
    header = journal.header or {}
    if journal.spoiled:
        return f"{output}: the unfinished run cannot be continued: {journal.spoiled}; --overwrite starts anew"
    if header["plan_hash"] != hash_parts(parts):
        return other_plan(output, header["parts"], parts, "the unfinished run")
    if header["code"] != (now := running_code()):
        return (
            f"{output}: the unfinished run was begun by another version: {difference(header['code'], now)}; continue "
            "it with that one, or start anew with --overwrite"
        )
    return ""


@functools.cache
def running_code() -> dict[str, str]:
    """Return what bits may depend on beside the plan: our source, and the libraries that compile and compute."""
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "zarr", "zarrs")}
    return {"rasterpipe": pipeline.__version__, "source": str(look.source().get("digest")), **libraries}


REPLACING = "--overwrite replaces it once the new result is complete"


def check_may_rebuild(
    output: str, here: Mapping[str, Any], parts: Parts, resume: bool, replacing: str = REPLACING
) -> None:
    """Refuse to touch an existing output without `--overwrite`, unless it is unfinished and was to be resumed."""
    if here.get("complete") is True:
        if resume:
            raise OutputError(other_plan(output, here.get("parts", {}), parts, "the finished output"))
        raise OutputError(f"{output}: exists; {replacing}")
    if not resume:
        raise OutputError(f"{output}: exists, unfinished; --resume continues it, --overwrite replaces it")
    # its journal is gone: nothing in it can be trusted, and it is replaced


def find_unfinished(output: str, header: Mapping[str, Any]) -> Path | None:
    """Return the store that a journal belongs to: the unfinished one that carries its run id."""
    folder = building_paths(output, str(header["run_id"]))[0]
    return folder if is_unfinished_of(root_attributes(str(folder)) or {}, header) else None


def is_unfinished_of(attributes: Mapping[str, Any], header: Mapping[str, Any]) -> bool:
    """Return whether a store's record says that it is the unfinished one of a journal."""
    run_id, complete = attributes.get("run_id"), attributes.get("complete")
    return run_id is not None and run_id == header.get("run_id") and complete is not True


def other_plan(output: str, old: Parts, new: Parts, what: str) -> str:
    """Return in words that what is there is of another plan, and in what it differs."""
    words = difference(without_places(old), without_places(json.loads(json.dumps(new))))
    if match := re.match(r"identities\.([^. ]+)\.?([^ ]*)", words):
        words = f"the input {match[1]} has changed since ({match[2]})"
    return (
        f"{output}: {what} is of another plan: {words}; "
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


def grids_to_json(grids: Sequence[Grid]) -> list[list[int]]:
    return [
        [axis_value for axis in (g.rows, g.columns) for axis_value in (axis.start, axis.stop, axis.step, axis.shortest)]
        + [g.panel]
        for g in grids
    ]


def grids_from_json(values: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    return tuple(Grid(Axis(*v[0:4]), Axis(*v[4:8]), v[8]) for v in values)
