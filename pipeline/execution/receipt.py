"""What is known of blocks that are done, and who keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.model.table import Table
from pipeline.model.total import Total
from pipeline.storage.folder.listing import mark_of


@dataclass(frozen=True, slots=True)
class BlockDone:
    """The receipt for a block whose data are written."""

    pass_number: int
    block: int
    written: int
    """Stands for the files of the block, as they were written."""
    valid: tuple[int, ...]
    """Valid values per written raster, in the order of the pass."""
    totals: tuple[Total, ...] = ()
    """Of the steps that are measured, in the order of the pass."""


def mark_of_block(marks: Sequence[int]) -> int:
    """Return what stands for the files of a block, from the marks of each."""
    return mark_of(" ".join(map(str, marks)))


@dataclass(frozen=True, slots=True)
class Counts:
    """What those who computed a pass did; of workers that were lost, nothing is known."""

    bytes_read: int = 0
    """Decoded."""
    retries: int = 0
    """Reads and writes repeated after errors that passed."""
    requests: int = 0
    """To object stores."""
    bytes_fetched: int = 0
    """From object stores, as they are stored."""
    blocks: int = 0
    blocks_recomputed: int = 0
    """Blocks begun or done on workers that were lost, or whose files were, and so computed again."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass
class Measured:
    """What was done, for the report."""

    blocks: int = 0
    blocks_skipped: int = 0
    bytes_written: int = 0
    """Of the blocks computed now, before compression."""
    counts: Counts = Counts()
    valid: dict[str, int] = field(default_factory=dict)
    """raster -> valid values"""
    totals: dict[str, Total] = field(default_factory=dict)
    """step -> what is measured of it"""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """step -> the table that it made"""
