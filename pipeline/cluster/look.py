"""What a worker says of itself before a run.

This module is sent to the workers by value, where rasterpipe may be missing: it imports nothing of it, and what it
needs is imported in its functions.
"""

from __future__ import annotations

from typing import Any


def look(paths: dict[str, list[int]], folders: list[str], token: str, packages: list[str]) -> dict[str, Any]:
    """Return what there is on a worker: versions, source, memory, which paths and folders are not as expected.

    Parameters
    ----------
    paths
        Inputs, each with its size and its time of change in nanoseconds; of a folder nothing.
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
        "inputs": [path for path, known in paths.items() if not is_same(path, known)],
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
    ours = folder / "cluster" / "look.py"
    return {"folder": str(folder), "digest": digest.hexdigest(), "is_ours": ours.exists()}


def is_same(path: str, known: list[int]) -> bool:
    import os

    try:
        status = os.stat(path)
    except OSError:
        return False
    return os.access(path, os.R_OK) and (not known or known == [status.st_size, status.st_mtime_ns])


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
