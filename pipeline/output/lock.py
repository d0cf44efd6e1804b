"""The lock of an output: one run at a time writes it, and it dies with the process."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import BinaryIO

from pipeline.model.errors import OutputError


def open_locked(path: Path, output: str) -> BinaryIO:
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
