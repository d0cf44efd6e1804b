"""Where a store lies: a folder on a disk, or a prefix in an object store, by the same few words."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr

from pipeline.errors import OutputError
from pipeline.storage.disk import replace_file, sync_path
from pipeline.storage.forked import check_not_forked
from pipeline.storage.listing import Entry, Listing, file_status, mark_of
from pipeline.storage.zarr_metadata import InputStore, check_metadata_file

REQUESTS_AT_ONCE = 4
"""Chunks that zarr reads or writes at once, for a block."""
HEAD_BYTES = 4096
PLAIN_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
"""zarr's own codecs, beside zarrs."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an object store is reached. Who may is known from the environment alone."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    requester_pays: bool = False


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
        return type(self), (str(self), self.may_pass)


class Conflict(RemoteError):
    """An object is not the one that this run has put there: another run writes it."""


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
    def is_there(self) -> bool:
        """Whether a store that was made here still is; nothing is asked where nothing would be made anew."""
        return True

    def mark_of_put(self, name: str) -> int | None:
        """Return the mark of a file that this process has put just now (see `marks`), where that is known."""
        return None

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
    def put(self, name: str, data: bytes) -> None:
        """Write a file that nobody reads before the run has ended, and that nobody else writes."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write a file: whoever reads it finds the old one or the new one, also after a power cut."""

    @abstractmethod
    def sync(self, name: str) -> None:
        """Bring a file to the disk."""

    @abstractmethod
    def list_files(self) -> Listing | None:
        """Look at the files in this folder and below; None where a server does not list them."""

    @abstractmethod
    def head(self, name: str) -> bytes:
        """Return some bytes of a file's beginning; none where what it is known by tells its content."""

    @abstractmethod
    def sizes(self) -> Callable[[str], int | None]:
        """Return what tells the size of a file here or below by its name, None for one that is not there.

        It raises OutputError where nobody can tell.
        """

    @abstractmethod
    def marks(self) -> Callable[[str], int | None]:
        """Return what tells the mark of a file by its name, another one where it was cut or replaced; None: gone.

        It raises OutputError where nobody can tell.
        """

    @abstractmethod
    def make(self) -> None:
        """Make this folder and those around it, where a store needs them."""

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

    @property
    def is_there(self) -> bool:
        return self._status("zarr.json") is not None

    def child(self, name: str) -> Folder:
        return LocalFolder(Path(self.path, name))

    def read(self, name: str) -> bytes:
        check_metadata_file(Path(self.path, name))
        return Path(self.path, name).read_bytes()

    def exists(self, name: str) -> bool:
        return Path(self.path, name).exists()

    def put(self, name: str, data: bytes) -> None:
        path = Path(self.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def replace(self, name: str, data: bytes) -> None:
        replace_file(Path(self.path, name), data)

    def sync(self, name: str) -> None:
        sync_path(Path(self.path, name))

    def list_files(self) -> Listing:
        return Listing(self._entries())

    def _entries(self) -> Iterator[Entry]:
        folders, seen = [""], set[tuple[int, int]]()
        while folders:  # no recursion: folders may be nested deeper than Python recurses
            here = folders.pop()
            with os.scandir(os.path.join(self.path, here)) as entries:
                for entry in entries:
                    name, status = f"{here}{entry.name}", entry.stat()
                    if not stat.S_ISDIR(status.st_mode):
                        identity = f"{status.st_size} {status.st_mtime_ns}"
                        yield Entry(name, status.st_size, identity, file_status(status))
                        continue
                    place = (status.st_dev, status.st_ino)
                    if not entry.is_symlink() or place not in seen:  # links may lead back
                        folders.append(f"{name}/")
                    seen.add(place)

    def head(self, name: str) -> bytes:
        file = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(file, HEAD_BYTES, 0) if stat.S_ISREG(os.fstat(file).st_mode) else b""
        finally:
            os.close(file)

    def sizes(self) -> Callable[[str], int | None]:
        def size_of(name: str) -> int | None:
            status = self._status(name)
            return None if status is None else status.st_size

        return size_of

    def _status(self, name: str) -> os.stat_result | None:
        path = os.path.join(self.path, name)
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # it may well be there
            raise OutputError(f"{path}: cannot be looked at: {error.strerror or error}") from error

    def marks(self) -> Callable[[str], int | None]:
        size_of = self.sizes()

        def mark(name: str) -> int | None:
            size = size_of(name)
            return None if size is None else mark_of(str(size))

        return mark

    def make(self) -> None:
        Path(self.path).mkdir(parents=True, exist_ok=True)

    def remove_tree(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def metadata_store(self) -> Any:
        check_not_forked()
        return InputStore(self.path, read_only=True)

    def pixel_store(self) -> Any:
        check_not_forked()
        return self.path

    def open_array(self, path: str, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
        return open_stored(self.pixel_store(), path, mode)

    @property
    def absolute(self) -> str:
        return str(Path(self.path).absolute())


def open_stored(store: Any, path: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open an array by its own metadata, or where it has none, by those that its group has gathered."""
    try:
        return zarr.open_array(store, path=path, mode=mode)
    except FileNotFoundError:
        if not path or mode != "r":
            raise
        array = zarr.open_group(store, mode=mode, use_consolidated=None)[path]
        assert isinstance(array, zarr.Array)
        return array


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
