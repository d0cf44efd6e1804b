"""The journal of a run: which blocks are done, so that `--resume` does only the others.

It lies beside the output, in ``<path>.work/journal``, one JSON value a line: a header, then lists of
``[pass, block, valid, ...]``. A block is recorded after its data are written. A pass that makes tables adds
``["partials", pass, [block, ...], [[folder, ...], ...]]``: the blocks whose partial tables are merged and saved, and
where, sweep by sweep. The file is locked while a run has it open, and the lock dies with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import OutputError
from pipeline.worker import BlockDone

FLUSH_SECONDS = 1.0


def work_folder(output: str) -> Path:
    """Return the folder for what belongs to the run and not to the result."""
    return Path(output.rstrip("/") + ".work")


class Journal:
    """The open, locked journal of an output; threads may record at once."""

    def __init__(self, output: str) -> None:
        self.folder = work_folder(output)
        self.header: dict[str, Any] | None = None
        self.done: dict[int, dict[int, tuple[int, ...]]] = {}
        """pass -> block -> valid values per written raster"""
        self.partials: dict[int, list[tuple[list[int], list[list[str]]]]] = {}
        """pass -> blocks whose partial tables are saved, and the folders per sweep"""
        self._mutex = threading.Lock()
        self._flushed = time.monotonic()
        try:
            self._file = _open_locked(self.folder / "journal", output)
            self._read()
        except OSError as error:
            raise OutputError(f"{output}: the journal {self.folder} cannot be kept: {error}") from None

    def _read(self) -> None:
        self._file.seek(0)
        good = 0
        for line in self._file:
            if not self._take(line):  # torn by a crash, with all that follows
                break
            good += len(line)
        self._file.truncate(good)
        self._file.seek(0, os.SEEK_END)

    def _take(self, line: bytes) -> bool:
        """Take in a line: first the header, then blocks; return whether it is whole."""
        try:
            entry = json.loads(line)
        except ValueError:
            return False
        if not line.endswith(b"\n") or isinstance(entry, dict) != (self.header is None):
            return False
        if isinstance(entry, dict):
            self.header = entry
        elif entry[0] == "partials":
            self.partials.setdefault(entry[1], []).append((entry[2], entry[3]))
        else:
            self.done.setdefault(entry[0], {})[entry[1]] = tuple(entry[2:])
        return True

    def start(self, header: Mapping[str, Any]) -> None:
        """Forget what is recorded and begin a new run."""
        self._file.seek(0)
        self._file.truncate()
        self.header, self.done, self.partials = dict(header), {}, {}
        self._write(self.header)
        self.flush()

    def record(self, receipt: BlockDone) -> None:
        """Record a block whose data are written; reaches the disk within a second."""
        with self._mutex:
            self._write([receipt.pass_number, receipt.block, *receipt.valid])
            self.done.setdefault(receipt.pass_number, {})[receipt.block] = receipt.valid
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()

    def record_partials(self, pass_number: int, blocks: Sequence[int], folders: list[list[str]]) -> None:
        """Record that the partial tables of these blocks are saved."""
        with self._mutex:
            self._write(["partials", pass_number, list(blocks), folders])
            self.partials.setdefault(pass_number, []).append((list(blocks), folders))
        self.flush()

    def _write(self, entry: Any) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")

    def flush(self) -> None:
        with self._mutex:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the file and give up the lock; blocks that a full disk keeps out of it are computed again."""
        with contextlib.suppress(OSError):
            if not self._file.closed:
                self.flush()
        with contextlib.suppress(OSError):
            self._file.close()

    def remove(self) -> None:
        """Delete the journal and its folder: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _open_locked(path: Path, output: str) -> BinaryIO:
    """Open the journal and lock it; raise OutputError, naming host and process, where another run holds it."""
    owner = path.with_name("owner")
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise OutputError(
                f"{output}: another run writes it ({_read_owner(owner)}); wait for it, or choose another output"
            ) from None
        if _is_at(file, path):
            owner.write_text(f"host {socket.gethostname()}, pid {os.getpid()}")
            return file
        file.close()  # the run that held the lock ended just now, and took the file with it


def _read_owner(path: Path) -> str:
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
