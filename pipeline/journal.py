"""The journal of a run: which blocks are done, so that `--resume` does only the others.

It lies beside the output, in ``<path>.work/journal``, one JSON value a line: a header, then lists of
``[pass, block, valid, ...]``. A block is recorded after its data are written. The file is locked while a run
has it open, and the lock dies with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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
        self.folder.mkdir(parents=True, exist_ok=True)
        self.header: dict[str, Any] | None = None
        self.done: dict[int, dict[int, tuple[int, ...]]] = {}
        """pass -> block -> valid values per written raster"""
        self._mutex = threading.Lock()
        self._flushed = time.monotonic()
        self._file = _open_locked(self.folder / "journal", output)
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        good = 0
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:  # torn by a crash, with all that follows
                break
            if not line.endswith("\n"):
                break
            good += len(line.encode())
            if isinstance(entry, dict):
                self.header = entry
            else:
                self.done.setdefault(entry[0], {})[entry[1]] = tuple(entry[2:])
        self._file.truncate(good)
        self._file.seek(0, os.SEEK_END)

    def start(self, header: Mapping[str, Any]) -> None:
        """Forget what is recorded and begin a new run."""
        self._file.seek(0)
        self._file.truncate()
        self.header, self.done = dict(header), {}
        self._file.write(json.dumps(self.header) + "\n")
        self.flush()

    def record(self, receipt: BlockDone) -> None:
        """Record a block whose data are written; reaches the disk within a second."""
        with self._mutex:
            self._file.write(json.dumps([receipt.pass_number, receipt.block, *receipt.valid]) + "\n")
            self.done.setdefault(receipt.pass_number, {})[receipt.block] = receipt.valid
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()

    def flush(self) -> None:
        with self._mutex:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()

    def remove(self) -> None:
        """Delete the journal and its folder: the run is over."""
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)
        self._file.close()


def _open_locked(path: Path, output: str) -> IO[str]:
    owner = path.with_name("owner")
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        who = owner.read_text() if owner.exists() else "another process"
        raise OutputError(f"{output}: another run writes it ({who}); wait for it, or choose another output") from None
    owner.write_text(f"host {socket.gethostname()}, pid {os.getpid()}")
    return file
