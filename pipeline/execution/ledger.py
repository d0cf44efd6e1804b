"""Which blocks of a run are done: the ledger that whoever computes them keeps.

A journal is a ledger that outlives its process.
"""

from __future__ import annotations

import copy
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.execution.receipt import BlockDone
from pipeline.model.total import Total


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

    def copy(self) -> BlockSet:
        return copy.deepcopy(self)

    def discard(self, block: int) -> None:
        if block in self:
            self._marks[block] = 0
            self._count -= 1

    def __iter__(self) -> Iterator[int]:
        return (block for block, mark in enumerate(self._marks) if mark)

    def __contains__(self, block: object) -> bool:
        return isinstance(block, int) and block < len(self._marks) and self._marks[block] == 1

    def __len__(self) -> int:
        return self._count


class SavedPartials(NamedTuple):
    """Partial tables that are saved."""

    blocks: tuple[int, ...]
    """Blocks that they count."""
    folders: list[list[str]]
    """Where they are, by sweep."""


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
    partials: dict[int, SavedPartials] = field(default_factory=dict)
    """The saved ones, by number."""
    _written: array[int] = field(default_factory=lambda: array("Q"))
    _lost: set[int] = field(default_factory=set)
    """Blocks that are computed again, to the same counts."""
    _num_partials: int = 0

    def add(self, block: int, written: int, valid: Sequence[int], totals: Sequence[Total] = ()) -> bool:
        """Take in a block; return whether it is new."""
        if not self.done.add(block):
            return False
        if block >= len(self._written):
            self._written.extend([0] * max(block + 1 - len(self._written), len(self._written)))
        self._written[block] = written
        if block in self._lost:
            self._lost.remove(block)
            return True
        self.valid = [a + b for a, b in zip(self.valid, valid, strict=True)] if self.valid else list(valid)
        self.totals = [a + b for a, b in zip(self.totals, totals, strict=True)] if self.totals else list(totals)
        return True

    def written(self, block: int) -> int:
        """Return what stands for the files of a block that is done."""
        return self._written[block]

    def lose(self, blocks: Iterable[int]) -> None:
        """Take back that blocks are written; what they count they will count again."""
        for block in blocks:
            self.done.discard(block)
            self._lost.add(block)

    def add_partials(self, partials: SavedPartials) -> None:
        for block in partials.blocks:
            self.counted.add(block)
        self.partials[self._num_partials] = partials
        self._num_partials += 1

    def lose_partials(self, number: int) -> None:
        if number in self.partials:
            for block in self.partials.pop(number).blocks:
                self.counted.discard(block)


class Ledger:
    """A ledger in memory; threads may record at once."""

    def __init__(self) -> None:
        self.passes: defaultdict[int, PassRecord] = defaultdict(PassRecord)
        """pass -> what is recorded of it"""
        self._mutex = threading.Lock()

    @property
    def tables(self) -> Path:
        """The folder for the tables of this run."""
        raise NotImplementedError(f"{type(self).__name__}.tables")

    def record(self, receipt: BlockDone) -> bool:
        """Record a block whose data are written; return whether it was not yet recorded."""
        with self._mutex:
            return self.add(receipt)

    def record_partials(self, pass_number: int, blocks: Sequence[int], folders: list[list[str]]) -> None:
        """Record that the partial tables of these blocks are saved."""
        with self._mutex:
            self.add_partials(pass_number, blocks, folders)

    def flush(self) -> None:
        """Bring what is recorded to where it outlasts this process."""

    def add(self, receipt: BlockDone) -> bool:
        return self.passes[receipt.pass_number].add(receipt.block, receipt.written, receipt.valid, receipt.totals)

    def add_partials(self, pass_number: int, blocks: Sequence[int], folders: list[list[str]]) -> None:
        self.passes[pass_number].add_partials(SavedPartials(tuple(blocks), folders))
