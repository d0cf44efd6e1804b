"""Where a store lies: a folder on a disk, or a prefix in an object store, by the same few words."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import zarr

from pipeline.storage.folder.listing import Listing

PLAIN_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
"""zarr's own codecs, beside zarrs."""


class Requests:
    """How many requests this process has sent to object stores, and what came of them; threads may share it."""

    def __init__(self) -> None:
        self.count = 0
        self.num_bytes = 0
        """Of pixels, as they are stored, and of the directories of files."""
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1

    def add_bytes(self, num_bytes: int) -> None:
        with self._lock:
            self.num_bytes += num_bytes


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
