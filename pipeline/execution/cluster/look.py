"""What a worker says of itself before a run.

This module is sent to the workers by value, where rasterpipe may be missing: it imports nothing of it, and what it
needs is imported in its functions.
"""

from __future__ import annotations

from typing import Any


def look(rasters: list[dict[str, bool]], folders: list[str], token: str, packages: list[str]) -> dict[str, Any]:
    """Return what there is on a worker: versions, source, memory, marks of inputs, which folders are not as expected.

    Parameters
    ----------
    rasters
        The files of each input (see `marks`).
    folders
        Where the run writes: each has a file named as the token, and gets another one from each worker.
    """
    import importlib.metadata
    import os
    import socket

    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": versions,
        "source": source(),
        "inputs": [marks(files) for files in rasters],
        "folders": [folder for folder in folders if not answers(folder, token)],
        "memory_bytes": memory_bytes(),
    }


def source() -> dict[str, Any]:
    """Return where the package `pipeline` lies, a digest of its source, and whether it is some rasterpipe's."""
    import hashlib
    import importlib.util
    import pathlib

    spec = importlib.util.find_spec("pipeline")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    is_ours = any(folder.glob("**/cluster/look.py"))
    return {"folder": str(folder), "digest": digest.hexdigest(), "is_ours": is_ours}


def marks(files: dict[str, bool]) -> dict[str, Any]:
    """Return what tells files from others under their paths: a digest of those marked true, else size and time."""
    return {path: mark(path, is_read) for path, is_read in files.items()}


def mark(path: str, is_read: bool) -> list[Any] | str | None:
    """Return None for a file that is not there, text for one that cannot be read."""
    import hashlib
    import os

    try:
        with open(path, "rb") as file:
            if is_read:
                return [hashlib.sha256(file.read()).hexdigest()]
            status = os.fstat(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error.strerror or repr(error)
    return [status.st_size, status.st_mtime_ns]


def answers(folder: str, token: str) -> bool:
    """Return whether a folder holds the client's file; if so, leave another one beside it."""
    import os
    import uuid

    try:
        if not os.path.exists(os.path.join(folder, token)):
            return False
        with open(os.path.join(folder, f"{token}.{uuid.uuid4().hex}"), "x"):
            return True
    except OSError:
        return False


def memory_bytes() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
