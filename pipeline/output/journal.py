"""The journal of a run: which blocks are done, so that `--resume` does only the others.

It lies beside the output, in ``<path>.work/journal``, one JSON value a line: a header, then lists of
``[pass, block, written, valid, ..., [count, sum, exponent], ...]``: what stands for the files of the block, valid
values by raster, totals of steps that are measured. A block is recorded after its data are written. A pass that
makes tables adds ``["partials", pass, [block, ...], [[folder, ...], ...]]``: the blocks whose partial tables
are merged and saved, and where, sweep by sweep. What is found to be lost again is taken back: ``["lost blocks", pass,
[block, ...]]``, ``["lost partials", pass, number]``. ``["spoiled", reason]``: an input was another one for a while,
and nothing recorded can be continued. The file is locked while a run has it open, and the lock dies with the process.

A block that is recorded is written, but for some seconds only in the system's memory, which a power cut empties. So
now and then the file systems are synced, and then ``["durable", position]`` says up to which byte the journal is
backed by data on the disk. ``["boot", id]`` says on which start of the machine the lines were written: on another
one, what is not known to be durable is forgotten. ``["lost"]``: a sync failed, and what was not durable is in doubt.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.execution.ledger import Ledger, SavedPartials
from pipeline.execution.receipt import BlockDone
from pipeline.model.errors import OutputError
from pipeline.model.region import Axis, Grid
from pipeline.model.total import Total
from pipeline.output.lock import open_locked
from pipeline.output.work_folder import remove_work_folder, work_folder
from pipeline.storage.folder.disk import FileSystems, boot_id

FLUSH_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0


FORMAT = 2


class Journal(Ledger):
    """The open, locked journal of an output; threads may record at once."""

    def __init__(self, output: str) -> None:
        self.folder = work_folder(output)
        super().__init__()
        self._clear()
        self._failure: OSError | None = None
        """Why a checkpoint failed."""
        self._flushed = time.monotonic()
        try:
            self._file = self._open(output)
            self._read()
        except OSError as error:
            raise OutputError(f"{output}: the journal {output}.work cannot be kept: {error}") from None

    def _open(self, output: str) -> Any:
        return open_locked(self.folder / "journal", output)

    def _persist(self) -> None:
        """Bring what was written to where it outlasts this process and this machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _clear(self) -> None:
        self.header: dict[str, Any] | None = None
        self.spoiled = ""
        """Why nothing that is recorded can be continued; empty: it can."""
        self.passes.clear()
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
            if not entry or not self._fits(entry, waiting):  # torn by a crash, with all that follows
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

    def _fits(self, entry: Any, waiting: Sequence[tuple[int, Any]]) -> bool:
        """Return whether a line may be one of the run that the header tells of."""
        header = self.header or (waiting[0][1] if waiting else entry)
        if header.get("format") != FORMAT or not isinstance(header.get("passes"), list):
            return False
        match entry:
            case {} | ["boot", str()] | ["durable", int()] | ["lost"] | ["spoiled", str()]:
                return True
            case ["lost partials", int(), int()]:
                return True
            case ["lost blocks", int(number), list(blocks)] | ["partials", int(number), list(blocks), list()]:
                return all(_is_block(header["passes"], number, block) for block in blocks)
            case [int(number), int(block), int(), *facts]:
                return _is_block(header["passes"], number, block) and len(facts) == header["passes"][number][1]
        return False

    def _take(self, waiting: list[tuple[int, Any]], end: int) -> list[tuple[int, Any]]:
        """Take in the lines before a position; return the others."""
        for _, entry in (item for item in waiting if item[0] < end):
            match entry:
                case {}:
                    self.header = entry
                case ["spoiled", reason]:
                    self.spoiled = reason
                case ["partials", number, blocks, folders]:
                    self.passes[number].add_partials(SavedPartials(tuple(blocks), folders))
                case ["lost partials", number, which]:
                    self.passes[number].lose_partials(which)
                case ["lost blocks", number, blocks]:
                    self.passes[number].lose(blocks)
                case [number, block, written, *facts]:
                    totals = [Total(*fact) for fact in facts if isinstance(fact, list)]
                    self.passes[number].add(block, written, facts[: len(facts) - len(totals)], totals)
        return [item for item in waiting if item[0] >= end]

    # --- writing

    def start(self, header: Mapping[str, Any]) -> None:
        """Forget what is recorded and begin a new run."""
        self._file.seek(0)
        self._file.truncate()
        self._clear()
        self.header = {"rasterpipe": "journal", "format": FORMAT, **header}
        self._write(self.header)
        self._write(["boot", boot_id()])
        self.flush()

    def record(self, receipt: BlockDone) -> bool:
        """Record a block whose data are written, within a second; return whether it was not yet recorded."""
        with self._mutex:
            if self._failure is not None:
                raise self._failure
            if not self.add(receipt):
                return False
            totals = [[total.count, total.sum, total.exponent] for total in receipt.totals]
            self._write([receipt.pass_number, receipt.block, receipt.written, *receipt.valid, *totals])
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()
        return True

    def record_partials(self, pass_number: int, blocks: Sequence[int], folders: list[list[str]]) -> None:
        """Record that the partial tables of these blocks are saved."""
        with self._mutex:
            self._write(["partials", pass_number, list(blocks), folders])
            self.add_partials(pass_number, blocks, folders)
        self.flush()

    def lose(self, pass_number: int, blocks: Sequence[int], partials: Sequence[int] = ()) -> None:
        """Take back what is recorded of blocks that are not as they were written, and of saved partial tables."""
        with self._mutex:
            if blocks:
                self._write(["lost blocks", pass_number, list(blocks)])
                self.passes[pass_number].lose(blocks)
            for number in partials:
                self._write(["lost partials", pass_number, number])
                self.passes[pass_number].lose_partials(number)
        self.flush()

    def spoil(self, reason: str) -> None:
        """Record that nothing here can be continued."""
        with self._mutex:
            self.spoiled = reason
            self._write(["spoiled", reason])
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

    def remove(self) -> str | None:
        """Delete what the run has made beside its output: it is over; return what could not be, in words."""
        words = remove_work_folder(self.folder)
        with contextlib.suppress(OSError):
            self._file.close()
        return words


def _is_block(passes: Sequence[tuple[int, int]], number: int, block: Any) -> bool:
    return 0 <= number < len(passes) and isinstance(block, int) and 0 <= block < passes[number][0]


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


def grids_to_json(grids: Sequence[Grid]) -> list[list[int]]:
    return [
        [axis_value for axis in (g.rows, g.columns) for axis_value in (axis.start, axis.stop, axis.step, axis.shortest)]
        + [g.panel]
        for g in grids
    ]


def grids_from_json(values: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    return tuple(Grid(Axis(*v[0:4]), Axis(*v[4:8]), v[8]) for v in values)
