"""Where a store lies: a folder on a disk, or a prefix in an object store, by the same few words."""

from __future__ import annotations

import json
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr

from pipeline.storage.disk import replace_file, sync_path
from pipeline.storage.forked import check_not_forked
from pipeline.storage.zarr_metadata import METADATA, InputStore, check_metadata_file

REQUESTS_AT_ONCE = 4
"""Chunks that zarr reads or writes at once, for a block."""
PLAIN_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
"""zarr's own codecs, beside zarrs."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an object store is reached. Who may is known from the environment alone."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    requester_pays: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """The files of a folder and of those below, without opening them."""

    version: Mapping[str, Any]
    """Another one where a file was changed, added or taken away; ready for JSON."""
    num_bytes: int
    num_files: int
    """Those that hold pixels."""


class Requests:
    """How many requests this process has sent to object stores; threads may share it."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1


REQUESTS = Requests()


class RemoteError(OSError):
    """An object store refuses or fails."""

    def __init__(self, message: str, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (str(self), self.may_pass)


class Folder(ABC):
    """A folder of files; names are relative, with slashes. It pickles."""

    path: str
    """Path or URL."""

    def __str__(self) -> str:
        return self.path

    @property
    def is_unlisted(self) -> bool:
        """Whether it is on a server that does not list what it has."""
        return False

    @property
    @abstractmethod
    def parent(self) -> Folder | None:
        """The folder around this one; None at the root."""

    @abstractmethod
    def child(self, name: str) -> Folder: ...

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a metadata file; FileNotFoundError where there is none, InputError where it is too large."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write a file: whoever reads it finds the old one or the new one, also after a power cut."""

    @abstractmethod
    def sync(self, name: str) -> None:
        """Bring a file to the disk."""

    @abstractmethod
    def survey(self) -> Survey | None:
        """Look at the files in this folder and below; None where a server does not list them."""

    @abstractmethod
    def sizes(self) -> Callable[[str], int | None]:
        """Return what tells the size of a file here or below by its name, None for one that is not there."""

    @abstractmethod
    def make(self) -> None:
        """Make the folders around this one, where a store needs them."""

    @abstractmethod
    def remove_tree(self) -> None:
        """Remove all that is here, as far as that succeeds."""

    @abstractmethod
    def metadata_store(self) -> Any:
        """Return a zarr store for reading metadata, which are checked on the way."""

    @abstractmethod
    def pixel_store(self) -> Any:
        """Return what zarr makes groups and arrays in."""

    @abstractmethod
    def open_array(self, path: str, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
        """Open an array for its pixels, with the codecs of this process (see `zarr.configure`)."""

    @property
    def absolute(self) -> str:
        """Path or URL, from anywhere."""
        return self.path

    def read_json(self, name: str) -> Any:
        """Return the contents of a metadata file; OSError or ValueError where it cannot be read, or is not JSON."""
        try:
            return json.loads(self.read(name))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def replace_json(self, name: str, value: Any) -> None:
        self.replace(name, json.dumps(value, indent=2).encode())


class LocalFolder(Folder):
    """A folder on a disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    @property
    def parent(self) -> Folder | None:
        here = Path(self.path).absolute()
        return None if here == here.parent else LocalFolder(here.parent)

    def child(self, name: str) -> Folder:
        return LocalFolder(Path(self.path, name))

    def read(self, name: str) -> bytes:
        check_metadata_file(Path(self.path, name))
        return Path(self.path, name).read_bytes()

    def exists(self, name: str) -> bool:
        return Path(self.path, name).exists()

    def replace(self, name: str, data: bytes) -> None:
        replace_file(Path(self.path, name), data)

    def sync(self, name: str) -> None:
        sync_path(Path(self.path, name))

    def survey(self) -> Survey:
        newest = num_bytes = num_files = 0
        folders = [self.path]
        while folders:  # no recursion: folders may be nested deeper than Python recurses
            newest = max(newest, os.stat(here := folders.pop()).st_mtime_ns)
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    status = entry.stat()
                    newest, num_bytes = max(newest, status.st_mtime_ns), num_bytes + status.st_size
                    num_files += entry.name not in METADATA
        return Survey({"modified_ns": newest}, num_bytes, num_files)

    def sizes(self) -> Callable[[str], int | None]:
        def size_of(name: str) -> int | None:
            try:
                return os.stat(os.path.join(self.path, name)).st_size
            except OSError:
                return None

        return size_of

    def make(self) -> None:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)

    def remove_tree(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def metadata_store(self) -> Any:
        check_not_forked()
        return InputStore(self.path, read_only=True)

    def pixel_store(self) -> Any:
        check_not_forked()
        return self.path

    def open_array(self, path: str, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
        return zarr.open_array(self.pixel_store(), path=path, mode=mode)

    @property
    def absolute(self) -> str:
        return str(Path(self.path).absolute())


def folder_at(path: str | os.PathLike[str] | Folder, access: Access | None = None) -> Folder:
    """Return a folder by its path, or by its URL in an object store."""
    if isinstance(path, Folder):
        return path
    if not is_url(path):
        return LocalFolder(path)
    from pipeline.storage.object_folder import ObjectFolder

    return ObjectFolder(str(path), access or Access())


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)
