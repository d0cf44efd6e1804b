"""The files that a raster is read from: that they lie where they may, and what tells them from others."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.model.errors import InputError
from pipeline.model.raster import printable
from pipeline.storage.folder.local import HEAD_BYTES, sample_of


def digest_of(files: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode(errors="surrogateescape")).hexdigest()


def check_file(path: str) -> bytes:
    """Return how a file begins; raise InputError where it is none, or empty."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if path.startswith("/vsi"):
        raise InputError(f"{path}: GDAL takes /vsi... for one of its virtual files; move it to another folder")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is not a file; give the path of one")
    if status.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); copy it again")
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


def files_of(dataset: Any, path: str, named: Sequence[str]) -> list[str]:
    """Return the files that are read, the given one first; raise InputError where one lies elsewhere."""
    folder = os.path.dirname(path).rstrip("/") + "/"
    others = {os.path.abspath(file) for file in dataset.files if os.path.isfile(file)} | set(named)
    for file in sorted(others):
        if not file.startswith(folder):
            raise InputError(f"{path}: reads {printable(file)}, which does not lie below its folder; put it there")
    return [path, *sorted(others - {path})]


def identity_of(files: Sequence[str], metadata: str) -> dict[str, Any]:
    """Return what tells a raster from a changed one: of further files, one digest."""
    status, sample = _sampled(files[0])
    identity = {
        "path": files[0],
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "metadata": hashlib.sha256(metadata.encode(errors="surrogateescape")).hexdigest(),
        "sample": sample,
    }
    if len(files) > 1:
        digest = hashlib.sha256()
        for file in files[1:]:
            status, sample = _sampled(file)
            name = os.path.relpath(file, os.path.dirname(files[0]))
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns} {sample};".encode(errors="surrogateescape"))
        identity["files"] = digest.hexdigest()
    return identity


def _sampled(path: str) -> tuple[os.stat_result, str]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        return status, sample_of(file, status.st_size)
