"""The journal of a run: which blocks are done, so that `--resume` does only the others.

It lies beside the output, in ``<path>.work/journal``, one JSON value a line: a header, then lists of
``[pass, block, valid, ..., [count, sum, exponent], ...]``: valid values by raster, totals of steps that are
measured. A block is recorded after its data are written. A pass that makes tables adds
``["partials", pass, [block, ...], [[folder, ...], ...]]``: the blocks whose partial tables are merged and saved, and
where, sweep by sweep. The file is locked while a run has it open, and the lock dies with the process.

A block that is recorded is written, but for some seconds only in the system's memory, which a power cut empties. So
now and then the file systems are synced, and then ``["durable", position]`` says up to which byte the journal is
backed by data on the disk. ``["boot", id]`` says on which start of the machine the lines were written: on another
one, what is not known to be durable is forgotten. ``["lost"]``: a sync failed, and what was not durable is in doubt.
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
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import OutputError
from pipeline.kernels.exact_total import Total
from pipeline.storage.disk import FileSystems, boot_id
from pipeline.worker import BlockDone

FLUSH_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0


def work_folder(output: str) -> Path:
    """Return the folder for what belongs to the run and not to the result."""
    return Path(output.rstrip("/") + ".work")


class BlockSet:
    """Numbers of blocks, a byte each: a pass may have a million."""

    def __init__(self) -> None:
        self._marks = bytearray()
        self._count = 0

    def add(self, block: int) -> bool:
        """Add a block; return whether it is new."""
        if block in self:
            return False
        if block >= len(self._marks):
            self._marks.extend(bytes(max(block + 1 - len(self._marks), len(self._marks))))
        self._marks[block] = 1
        self._count += 1
        return True

    def __contains__(self, block: object) -> bool:
        return isinstance(block, int) and block < len(self._marks) and self._marks[block] == 1

    def __len__(self) -> int:
        return self._count


@dataclass
class PassRecord:
    """What is recorded of a pass."""

    done: BlockSet = field(default_factory=BlockSet)
    """Blocks that are written."""
    valid: list[int] = field(default_factory=list)
    """Valid values per written raster, of all blocks done."""
    totals: list[Total] = field(default_factory=list)
    """Per step that is measured, of all blocks done."""
    counted: BlockSet = field(default_factory=BlockSet)
    """Blocks whose partial tables are saved."""
    folders: list[list[list[str]]] = field(default_factory=list)
    """Where: folders per sweep, of each strip."""

    def add(self, block: int, valid: Sequence[int], totals: Sequence[Total] = ()) -> bool:
        """Take in a block; return whether it is new."""
        if is_new := self.done.add(block):
            self.valid = [a + b for a, b in zip(self.valid, valid, strict=True)] if self.valid else list(valid)
            self.totals = [a + b for a, b in zip(self.totals, totals, strict=True)] if self.totals else list(totals)
        return is_new

    def add_partials(self, blocks: Sequence[int], folders: list[list[str]]) -> None:
        for block in blocks:
            self.counted.add(block)
        self.folders.append(folders)


class Journal:
    """The open, locked journal of an output; threads may record at once."""

    def __init__(self, output: str) -> None:
        self.folder = work_folder(output)
        self._clear()
        self._mutex = threading.Lock()
        self._failure: OSError | None = None
        """Why a checkpoint failed."""
        self._flushed = time.monotonic()
        try:
            self._file = self._open(output)
            self._read()
        except OSError as error:
            raise OutputError(f"{output}: the journal {output}.work cannot be kept: {error}") from None

    def _open(self, output: str) -> Any:
        return _open_locked(self.folder / "journal", output)

    def _persist(self) -> None:
        """Bring what was written to where it outlasts this process and this machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _clear(self) -> None:
        self.header: dict[str, Any] | None = None
        self.passes: defaultdict[int, PassRecord] = defaultdict(PassRecord)
        """pass -> what is recorded of it"""
        self._size = 0

    @property
    def tables(self) -> Path:
        """The folder for the tables of this run; those of a run that was given up lie elsewhere."""
        return self.folder / str((self.header or {}).get("run_id")) / "tables"

    # --- reading

    def _read(self) -> None:
        """Take in what is recorded, up to where the file is torn, or where a power cut may have undone it."""
        self._file.seek(0)
        boot, waiting = None, list[tuple[int, Any]]()
        for line in self._file:
            entry = _parse(line, is_first=not self._size)
            if not entry:  # torn by a crash, with all that follows
                break
            match entry:
                case ["boot", boot]:
                    pass
                case ["durable", position]:
                    waiting = self._take(waiting, position)
                case ["lost"]:
                    waiting.clear()
                case _:
                    waiting.append((self._size, entry))
            self._size += len(line)
        if boot == boot_id():
            waiting = self._take(waiting, self._size)
        elif waiting:
            self._size = waiting[0][0]
        self._file.truncate(self._size)
        self._file.seek(0, os.SEEK_END)
        if boot != boot_id() and self.header is not None:
            self._write(["durable", self._size])
            self._write(["boot", boot_id()])

    def _take(self, waiting: list[tuple[int, Any]], end: int) -> list[tuple[int, Any]]:
        """Take in the lines before a position; return the others."""
        for _, entry in (item for item in waiting if item[0] < end):
            if isinstance(entry, dict):
                self.header = entry
            elif entry[0] == "partials":
                self.passes[entry[1]].add_partials(entry[2], entry[3])
            else:
                totals = [Total(*fact) for fact in entry[2:] if isinstance(fact, list)]
                self.passes[entry[0]].add(entry[1], entry[2 : len(entry) - len(totals)], totals)
        return [item for item in waiting if item[0] >= end]

    # --- writing

    def start(self, header: Mapping[str, Any]) -> None:
        """Forget what is recorded and begin a new run."""
        self._file.seek(0)
        self._file.truncate()
        self._clear()
        self.header = dict(header)
        self._write(self.header)
        self._write(["boot", boot_id()])
        self.flush()

    def record(self, receipt: BlockDone) -> bool:
        """Record a block whose data are written, within a second; return whether it was not yet recorded."""
        with self._mutex:
            if self._failure is not None:
                raise self._failure
            if not self.passes[receipt.pass_number].add(receipt.block, receipt.valid, receipt.totals):
                return False
            totals = [[total.count, total.sum, total.exponent] for total in receipt.totals]
            self._write([receipt.pass_number, receipt.block, *receipt.valid, *totals])
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()
        return True

    def record_partials(self, pass_number: int, blocks: Sequence[int], folders: list[list[str]]) -> None:
        """Record that the partial tables of these blocks are saved."""
        with self._mutex:
            self._write(["partials", pass_number, list(blocks), folders])
            self.passes[pass_number].add_partials(blocks, folders)
        self.flush()

    def _write(self, entry: Any) -> None:
        line = json.dumps(entry).encode() + b"\n"
        self._file.write(line)
        self._size += len(line)

    def flush(self) -> None:
        with self._mutex:
            self._persist()
            self._flushed = time.monotonic()

    def checkpoint(self, disks: FileSystems) -> None:
        """Bring to the disk what is recorded, so that a power cut does not undo it; nothing without file systems."""
        if disks:
            self._checkpoint(disks)

    def _checkpoint(self, disks: FileSystems) -> None:
        if self._failure is not None:
            raise self._failure
        position = self._size
        try:
            disks.sync()
        except OSError as error:
            self._failure = error
            with self._mutex:
                self._write(["lost"])
            self.flush()
            raise
        with self._mutex:
            self._write(["durable", position])
        self.flush()

    @contextlib.contextmanager
    def checkpoints(self, disks: FileSystems) -> Iterator[None]:
        """Make a checkpoint every few seconds, in a thread of its own; its failure is raised by the next `record`."""
        ended = threading.Event()

        def repeat() -> None:
            with contextlib.suppress(OSError):  # which is remembered
                while not ended.wait(CHECKPOINT_SECONDS):
                    self.checkpoint(disks)

        thread = threading.Thread(target=repeat, name="rasterpipe-journal", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # --- the end

    def close(self) -> None:
        """Close the file and give up the lock; blocks that a full disk keeps out of it are computed again."""
        with contextlib.suppress(OSError):
            if not self._file.closed:
                self.flush()
        with contextlib.suppress(OSError):
            self._file.close()

    def remove(self) -> None:
        """Delete the journal's folder, the journal last: the run is over."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _parse(line: bytes, *, is_first: bool) -> Any:
    """Return a line's value; None for what no run wrote as a whole: the first is a mapping, the others are lists."""
    try:
        plain = line[1:2].isdigit() and line[:1] + line[-2:] == b"[]\n" and b"[" not in line[1:]
        if plain:  # a block: there may be a million
            return None if is_first else list(map(int, line[1:-2].split(b",")))
        entry = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(entry, dict if is_first else list)
    return entry if whole else None


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
