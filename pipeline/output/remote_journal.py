"""The journal of a run that writes to an object store: one object, rewritten every few seconds, under a lease.

Who runs holds the lease, an object that says who that is and is written anew with every checkpoint, each time on the
condition that it is still the one written before. A run that finds a lease refuses to begin, until no sign of life
has come for a minute, or at once where the process was of this machine and is gone. Whoever lost the lease to another
run finds out with the next checkpoint, and stops; what it writes until then is refused by the store, which was asked to
write each object only where there is none, or in the place of the one that this run knows.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.model.errors import OutputError
from pipeline.output.journal import Journal
from pipeline.storage.folder.base import Conflict, RemoteError
from pipeline.storage.folder.disk import FileSystems, boot_id
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.folder.retry import RETRIES, Retry

LEASE, JOURNAL = "lease", "journal"
LEASE_SECONDS = 60.0
OWN_NAMES = re.compile(r"lease|journal|(clock|probe)-[0-9a-f]{32}(/.*)?|[0-9a-f]{32}/.*")
"""What a run makes beside its output; nothing else there is ever removed."""


class Lease:
    """The right to write an output, held by one run at a time."""

    def __init__(self, folder: ObjectFolder, output: str) -> None:
        self.folder, self.output = folder, output
        self._token = uuid.uuid4().hex
        self._is_lost = False
        self._acquire()

    def _acquire(self) -> None:
        found = self.folder.read_versioned(LEASE)
        if found is not None:
            self._check_ended(found[0])
            self.folder.versions[LEASE] = found[1]
        try:
            self._write()
        except Conflict:
            raise OutputError(f"{self.output}: another run began just now; wait for it, or choose another") from None
        if not self.folder.heeds_conditions():
            self.release()
            raise OutputError(
                f"{self.output}: the store writes where it was asked to write only if nobody else has (If-Match, "
                "If-None-Match), so two runs could mix their results there; write to another store, or to a disk"
            )

    def _write(self) -> None:
        owner = _own_process() | {"token": self._token, "renewed": time.time()}
        self.folder.put(LEASE, json.dumps(owner).encode())
        self._renewed = _uptime()

    def renew(self) -> None:
        """Give a sign of life; RemoteError where another run has taken over."""
        try:
            self._write()
        except Conflict:
            self._is_lost = True
            raise RemoteError(f"{self.output}: another run has taken it over", may_pass=False) from None

    def confirm(self) -> None:
        """Renew the lease if some time has passed, that of a machine that slept included."""
        if _uptime() - self._renewed > LEASE_SECONDS / 4:
            self.renew()

    def release(self) -> None:
        if not self._is_lost:
            self.folder.remove(LEASE)

    def _check_ended(self, data: bytes) -> None:
        """Raise OutputError where a run that holds the lease may be alive.

        A process of this machine can be looked for, if it is this machine and this view of its processes. Of another
        one only its silence tells, by the store's clock: those of machines differ.
        """
        try:
            owner = json.loads(data)
            host, pid = str(owner["host"]), int(owner["pid"])
        except (ValueError, KeyError, TypeError):
            return  # no lease that a run wrote
        if _is_gone(owner, pid):
            return
        age = self.folder.age_of(LEASE)
        if age is None or age > LEASE_SECONDS:
            return
        raise OutputError(
            f"{self.output}: another run writes it (host {host}, pid {pid}, last sign of life {max(0, age):.0f} s "
            f"ago); wait for it, or until {LEASE_SECONDS:.0f} s have passed if it has died"
        )


def _own_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "boot": boot_id(), "space": _space(), "started": _started(pid)}


def _is_gone(owner: Mapping[str, Any], pid: int) -> bool:
    """Return whether a process was of this machine since its start, seen as from here, and has ended."""
    own = _own_process()
    if not all(own[key] and owner.get(key) == own[key] for key in ("boot", "space")):
        return False
    started = _started(pid)
    return started != owner.get("started") if started else not _exists(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _space() -> str:
    """Return what tells containers apart, in each of which processes are counted anew."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the machine's start; empty for one that cannot be looked at."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in ("Z", "X") else fields[19]


def _uptime() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ObjectJournal(Journal):
    """A journal in an object store; partial tables lie in a folder of this machine, or one that workers share."""

    def __init__(self, folder: ObjectFolder, output: str, scratch: Path | None, retries: int = RETRIES) -> None:
        self.objects, self.output, self.scratch = folder, output, scratch
        self._retry = Retry(retries)
        self._is_removed = False
        super().__init__(output)

    def _open(self, output: str) -> io.BytesIO:
        self.lease = self._retry(Lease, self.objects, output)
        self.objects.confirm = self.lease.confirm
        try:
            found = self._retry(self.objects.read_versioned, JOURNAL)
        except OSError:
            self.lease.release()
            raise
        if found is None:
            return io.BytesIO()
        self.objects.versions[JOURNAL] = found[1]
        return io.BytesIO(found[0])

    def _persist(self) -> None:
        self._retry(self.lease.renew)
        self._retry(self.objects.put, JOURNAL, self._file.getvalue())

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

    def remove(self) -> str | None:
        self._file.close()
        try:
            if self.scratch is not None:
                shutil.rmtree(self.tables, ignore_errors=True)
            names = sorted(filter(OWN_NAMES.fullmatch, self.objects.names()), key=lambda name: name == LEASE)
            self.objects.remove_named(names)  # the lease last
            self._is_removed = True
        except OSError as error:
            return f"{self.objects} could not be removed, which only the run needed: {error}"
        return None
