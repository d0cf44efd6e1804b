"""A folder on a disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import zarr

from pipeline.model.errors import OutputError
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import replace_file, sync_path
from pipeline.storage.folder.forked import check_not_forked
from pipeline.storage.folder.listing import SAMPLES, Entry, Listing, file_status, mark_of
from pipeline.storage.folder.metadata import InputStore, check_metadata_file

HEAD_BYTES = 4096


class SupportsSeek(Protocol):
    """A file of bytes."""

    def seek(self, offset: int, /) -> Any: ...

    def read(self, size: int, /) -> bytes: ...


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


def sample_of(file: SupportsSeek, size: int) -> str:
    """Return a digest of some pieces of a file: files from one archive may agree in size, time and tags."""
    digest = hashlib.sha256()
    for place in range(SAMPLES):
        file.seek(place * max(0, size - HEAD_BYTES) // (SAMPLES - 1))
        digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()
