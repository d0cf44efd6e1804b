"""What a run leaves of itself in its results: by that they are known, compared, and continued."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.execution.cluster import look
from pipeline.model.version import __version__
from pipeline.output.address import is_ome_zarr
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.input import SOURCES
from pipeline.storage.zarr.store import root_attributes

Parts = Mapping[str, Any]
URL = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def hash_parts(parts: Parts) -> str:
    """Return the plan hash: of all that the result depends on, and of nothing else."""
    return hashlib.sha256(json.dumps(without_places(parts), sort_keys=True).encode()).hexdigest()


def without_places(parts: Parts) -> dict[str, Any]:
    """Return the parts of a plan with names of inputs in place of their paths: a copy elsewhere is the same input."""
    of_inputs = {key: parts[key] for key in ("inputs", "identities") if isinstance(parts.get(key), Mapping)}
    return {**parts, **{key: {name: _named(entry) for name, entry in of_inputs[key].items()} for key in of_inputs}}


def _named(value: Any, key: str = "") -> Any:
    """Return a value in which paths are cut to their last part: of inputs, and of what they are known by."""
    if isinstance(value, str):
        return value.rstrip("/").rpartition("/")[2] if key in SOURCES else value
    if isinstance(value, list | tuple):
        return [_named(item, key if isinstance(item, str) else "") for item in value]
    if isinstance(value, Mapping):  # of a stack, the files by band
        return {name: _named(item, "path" if key == "stack" else name) for name, item in value.items()}
    return value


def provenance_of(path: Path | Folder) -> dict[str, Any] | None:
    """Return what a run has left in its store, its GeoTIFF or its OME-Zarr image; None for anything else."""
    if isinstance(path, Folder) and not isinstance(path, LocalFolder):
        return root_attributes(path)
    path = Path(str(path))
    if is_ome_zarr(str(path)):
        record = root_attributes(str(path))
        return None if record is None else from_beside(path, record)
    if not path.is_file():
        return root_attributes(str(path))
    from pipeline.storage.tiff.writer import read_description

    try:
        value = json.loads(read_description(path) or "null")
        value = value.get("rasterpipe")
    except (ValueError, AttributeError, RecursionError):
        return None
    return from_beside(path, value) if isinstance(value, dict) else None


BESIDE = "${file}/"
"""In the record of a file: paths from its folder on. A file goes to others, whom the folders above do not concern."""
ELSEWHERE = "${elsewhere}/"
"""In the record of a file: last names of paths that lead farther than to its folder and the one above it."""
NOWHERE = "/dev/null/"
"""Where such a path seems to lie when the record is read: no file can be there."""


def beside(file: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run as a file may bear it that is sent on: nobody's folders, no hosts.

    What lies in the file's folder, or in the one above it, is told from there on; of what lies farther the last name.
    """
    folder = os.path.realpath(file.absolute().parent)
    homes = os.path.dirname(os.path.expanduser("~"))
    near = [each for each in (folder, os.path.dirname(folder)) if each not in ("/", homes)]

    def tell(text: str) -> str:
        if not (os.path.isabs(text) or URL.match(text)):
            return text
        where, _, name = text.rstrip("/").rpartition("/")
        where = os.path.realpath(where)
        if URL.match(text) or not any(os.path.commonpath([where, each]) == each for each in near):
            return ELSEWHERE + name
        return BESIDE + os.path.relpath(f"{where}/{name}", folder)

    told: dict[str, Any] = _with_texts(_without_machines(record), tell)
    return told


def _without_machines(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without what tells where a run worked, and by which server stores are reached."""
    config = record["config"]
    inputs = {name: _without_endpoint(entry) for name, entry in config["inputs"].items()}
    output = {key: value for key, value in config["output"].items() if key != "storage"}
    run = {key: value for key, value in config["run"].items() if key != "scratch"}
    return {**record, "config": {**config, "inputs": inputs, "output": output, "run": run}}


def _without_endpoint(entry: Mapping[str, Any]) -> dict[str, Any]:
    storage = entry.get("storage")
    if storage is None:
        return dict(entry)
    return {**entry, "storage": {key: value for key, value in storage.items() if key != "endpoint"}}


def from_beside(file: Path, record: Any) -> Any:
    """Return a record that `beside` made with absolute paths again; what lies farther is `NOWHERE`."""
    folder = os.path.realpath(file.absolute().parent)

    def absolute(text: str) -> str:
        if text.startswith(ELSEWHERE):
            return NOWHERE + text.rpartition("/")[2]
        return os.path.normpath(f"{folder}/{text.removeprefix(BESIDE)}") if text.startswith(BESIDE) else text

    return _with_texts(record, absolute)


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


@functools.cache
def running_code() -> dict[str, str]:
    """Return what bits may depend on beside the plan: our source, and the libraries that compile and compute."""
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "zarr", "zarrs")}
    return {"rasterpipe": __version__, "source": str(look.source().get("digest")), **libraries}


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
