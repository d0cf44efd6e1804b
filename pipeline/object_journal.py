"""The journal of a run that writes to an object store: one object, rewritten every few seconds, under a lease.

Who runs holds the lease, an object that says who that is and is written anew with every checkpoint, each time on the
condition that it is still the one written before. A run that finds a lease refuses to begin, until no sign of life
has come for a minute, or at once where the process was of this machine and is gone. Whoever lost the lease to another
run finds out with the next checkpoint, and stops.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.journal import Journal
from pipeline.storage.disk import FileSystems
from pipeline.storage.folder import RemoteError
from pipeline.storage.object_folder import ObjectFolder
from pipeline.storage.retry import RETRIES, Retry

LEASE, JOURNAL = "lease", "journal"
LEASE_SECONDS = 60.0


class Lease:
    """The right to write an output, held by one run at a time."""

    def __init__(self, folder: ObjectFolder, output: str) -> None:
        self.folder, self.output = folder, output
        self._token = uuid.uuid4().hex
        self._version: Any = None
        self._is_lost = False
        self._acquire()

    def _acquire(self) -> None:
        found = self.folder.read_versioned(LEASE)
        if found is not None:
            _check_expired(self.output, found[0])
        try:
            self._write(None if found is None else found[1])
        except FileExistsError:
            raise OutputError(f"{self.output}: another run began just now; wait for it, or choose another") from None

    def _write(self, version: Any) -> None:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "renewed": time.time()}
        try:
            self._version = self.folder.replace_version(LEASE, json.dumps(owner).encode(), version)
        except FileExistsError:
            found = self.folder.read_versioned(LEASE)
            if found is None or self._token.encode() not in found[0]:
                raise
            self._version = found[1]  # it was written, and the answer lost: the client sent it again

    def renew(self) -> None:
        """Give a sign of life; RemoteError where another run has taken over."""
        try:
            self._write(self._version)
        except FileExistsError:
            self._is_lost = True
            raise RemoteError(f"{self.output}: another run has taken it over", may_pass=False) from None

    def release(self) -> None:
        if not self._is_lost:
            self.folder.remove(LEASE)


def _check_expired(output: str, data: bytes) -> None:
    """Raise OutputError where a run that holds the lease may be alive."""
    try:
        owner = json.loads(data)
        host, pid, age = str(owner["host"]), int(owner["pid"]), time.time() - float(owner["renewed"])
    except (ValueError, KeyError, TypeError):
        return  # no lease that a run wrote
    if age > LEASE_SECONDS or (host == socket.gethostname() and not Path("/proc", str(pid)).exists()):
        return
    raise OutputError(
        f"{output}: another run writes it (host {host}, pid {pid}, last sign of life {max(0, age):.0f} s ago); "
        f"wait for it, or until {LEASE_SECONDS:.0f} s have passed if it has died"
    )


class ObjectJournal(Journal):
    """A journal in an object store; partial tables lie in a folder of this machine, or one that workers share."""

    def __init__(self, folder: ObjectFolder, output: str, scratch: Path | None, retries: int = RETRIES) -> None:
        self.objects, self.output, self.scratch = folder, output, scratch
        self._retry = Retry(retries)
        self._is_removed = False
        super().__init__(output)

    def _open(self, output: str) -> io.BytesIO:
        self.lease = self._retry(Lease, self.objects, output)
        try:
            found = self._retry(self.objects.read_versioned, JOURNAL)
        except OSError:
            self.lease.release()
            raise
        return io.BytesIO(b"" if found is None else found[0])

    def _persist(self) -> None:
        self._retry(self.lease.renew)
        self._retry(self.objects.replace, JOURNAL, self._file.getvalue())

    def checkpoint(self, disks: FileSystems) -> None:
        """Bring to the store what is recorded, and before it to the disk what intermediate results are made of."""
        try:
            self._checkpoint(disks)
        except OSError as error:
            self._failure = error  # which the next record raises
            raise

    @property
    def tables(self) -> Path:
        name = self.output.rpartition("/")[2]
        # without a folder, there are no tables: such a pipeline was refused
        return (self.scratch or Path(tempfile.gettempdir())) / f"{name}.{(self.header or {}).get('run_id')}.tables"

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            if not self._is_removed:
                self.lease.release()

    def remove(self) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.tables, ignore_errors=True)
        self.objects.remove_all()
        self._is_removed = True
        self._file.close()
