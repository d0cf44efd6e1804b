"""Bringing written data to the disk itself, so that they outlast a power cut and not only the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType


def boot_id() -> str:
    """Return what tells one start of the machine from the next; where that cannot be known, always another one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex


class FileSystems:
    """The file systems that hold some folders, to be brought to the disk as a whole.

    Errors of writing that the system meets after a write has returned are told by the next `sync`, if they came
    after this was made.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        found = {folder.stat().st_dev: folder for folder in folders}
        self._files = [os.open(folder, os.O_RDONLY) for folder in found.values()]
        self._syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)

    def sync(self) -> None:
        """Return when all that was written before is on the disk; raise OSError where it could not be."""
        for file in self._files:
            if self._syncfs is None:
                os.sync()
            elif self._syncfs(file):
                number = ctypes.get_errno()
                raise OSError(number, f"what was written did not reach the disk: {os.strerror(number)}")

    def __bool__(self) -> bool:
        return bool(self._files)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> FileSystems:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def replacing_file(path: Path, token: str = "") -> Iterator[Path]:
    """Yield where to write a file that is to be in the place of another, and put it there.

    The name is one that nobody else takes; a run that was killed here finds what it left by the token it gave, which
    nobody else has. Whoever reads the path, after whatever crash, finds the old file or the new one.
    """
    building = path.with_name(f".{path.name}.{token or uuid.uuid4().hex}.partial")
    if token:
        building.unlink(missing_ok=True)
    os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield building
        sync_path(building)
        os.replace(building, path)
    finally:
        building.unlink(missing_ok=True)
    sync_path(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path, token: str) -> Iterator[Path]:
    """Yield where to make a folder that is to be in the place of another, and put it there.

    A run that was killed here finds what it left by the token, which nobody else has. The folder that is replaced is
    kept until the new one is in its place.
    """
    building, old = (path.with_name(f".{path.name}.{token}.{word}") for word in ("partial", "replaced"))
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(building, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    sync_path(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in the place of another (see `replacing_file`)."""
    with replacing_file(path) as building:
        building.write_bytes(data)
