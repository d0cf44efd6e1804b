"""Partial tables on their way to one table: merged in memory, and by way of the disk where they are too large."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.block.plan import Pass, Sweep
from pipeline.model.table import Table
from pipeline.model.total import Total
from pipeline.operations.base import Reduction
from pipeline.planning.cost import PARTIAL_BYTES, TABLES_AT_ONCE
from pipeline.planning.plan import Plan
from pipeline.storage.tables import SavedTable, StoredTable, TableWriter, save_table, stored_bytes


@dataclass(frozen=True, slots=True)
class Partials:
    """What the sweeps of a pass made of some blocks: for each sweep a table in memory, and names of larger ones.

    A name is that of a folder in the merger's folder.
    """

    tables: tuple[Table | None, ...]
    folders: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Merger:
    """Merges the partial tables of a pass, block after block; sent to workers."""

    reductions: tuple[tuple[Reduction, int], ...]
    """Per sweep, the reduction and which of its sweeps."""
    folder: str
    """Where tables go that are too large to wait in memory."""
    limit_bytes: int
    """What a table in memory may have."""

    @property
    def of_block(self) -> Merger:
        """The merger of a block's own parts."""
        return replace(self, limit_bytes=min(self.limit_bytes, PARTIAL_BYTES))

    @property
    def nothing(self) -> Partials:
        return Partials((None,) * len(self.reductions), ((),) * len(self.reductions))

    def of_sweep(self, number: int, table: Table) -> Partials:
        tables = [table if i == number else None for i in range(len(self.reductions))]
        return Partials(tuple(tables), ((),) * len(tables))

    def join(self, first: Partials, second: Partials) -> Partials:
        """Return what was made of the blocks of both."""
        tables, folders = [], []
        for i, (reduction, sweep) in enumerate(self.reductions):
            a, b = first.tables[i], second.tables[i]
            saved = (*first.folders[i], *second.folders[i])
            if a is not None and b is not None:
                if reduction.merged_bytes((a, b)) <= self.limit_bytes:
                    a = reduction.merge(a, b, sweep)
                else:
                    saved, a = (*saved, self._save(a)), b
            tables.append(b if a is None else a)
            folders.append(saved)
        return Partials(tuple(tables), tuple(folders))

    def save(self, partials: Partials) -> list[list[str]]:
        """Return the folders of each sweep, after all that waits in memory is saved."""
        return [
            [*folders, *([self._save(table)] if table is not None else [])]
            for table, folders in zip(partials.tables, partials.folders, strict=True)
        ]

    def _save(self, table: Table) -> str:
        name = f"partial-{uuid.uuid4().hex}"
        save_table(Path(self.folder) / name, table)
        return name


class BlockCollector:
    """Joins the partial tables of one block as they come, and keeps its totals."""

    def __init__(self, merger: Merger) -> None:
        self._merger = merger.of_block
        self.partials = merger.nothing
        self.totals: dict[str, Total] = {}

    @property
    def limit_bytes(self) -> int:
        return self._merger.limit_bytes

    def add(self, sweep: int, table: Table) -> None:
        self.partials = self._merger.join(self.partials, self._merger.of_sweep(sweep, table))

    def add_total(self, step: str, total: Total) -> None:
        self.totals[step] = total


def fold(sweep: Sweep, folders: Sequence[Path], state: Table, limit_bytes: int, target: Path) -> None:
    """Merge the partial tables that a sweep left in folders, fold them into the state, and save that as `target`."""
    reduction = sweep.reduction
    stored = [StoredTable(folder) for folder in folders]
    if reduction.row_key is None or reduction.merged_bytes(stored) <= limit_bytes:
        save_table(target, reduction.fold_stored(stored, state, sweep.number, limit_bytes))
        return
    writer = TableWriter(target)
    for part in _ranges(reduction, stored, limit_bytes, sweep.number):
        writer.append(reduction.fold(part, state, sweep.number))
    writer.close()


def merge_all(reduction: Reduction, tables: Sequence[Table], sweep: int) -> Table:
    """Merge neighbours, then what they make: each row is copied a few times, not once a table."""
    while len(tables) > 1:
        pairs = [tables[i : i + 2] for i in range(0, len(tables), 2)]
        tables = [pair[0] if len(pair) == 1 else reduction.merge(pair[0], pair[1], sweep) for pair in pairs]
    return tables[0]


def _ranges(reduction: Reduction, tables: Sequence[StoredTable], limit_bytes: int, sweep: int) -> Iterator[Table]:
    """Yield the merged rows of tables that do not fit the memory together, range after range of the row key."""
    key = reduction.row_key
    assert key is not None
    num_ranges = max(1, -(-2 * reduction.merged_bytes(tables) // max(1, limit_bytes)))
    # of every table some rows that lie evenly: between two bounds there are about as many rows of each
    every = [np.array(table[key][:: max(1, len(table[key]) // (64 * num_ranges))]) for table in tables]
    sample = np.sort(np.concatenate(every))
    bounds = np.unique(sample[len(sample) * np.arange(1, num_ranges) // num_ranges])
    cuts = [[0, *np.searchsorted(table[key], bounds).tolist(), len(table[key])] for table in tables]
    for i in range(len(bounds) + 1):
        spans = [(table, cut[i], cut[i + 1]) for table, cut in zip(tables, cuts, strict=True)]
        parts = [table.rows(first, last) for table, first, last in spans if first < last]
        if parts:
            yield merge_all(reduction, parts, sweep)


class Tables:
    """The tables of a run: those that are finished, the states of those that are being made, and their folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        if plan.reductions:
            folder.mkdir(parents=True, exist_ok=True)  # workers make no folders
        self.known = plan.first_tables()

    def merger(self, planned: Pass) -> Merger:
        reductions = tuple((sweep.reduction, sweep.number) for sweep in planned.sweeps)
        return Merger(reductions, str(self.folder), planned.cost.table_bytes // TABLES_AT_ONCE)

    def finish(self, planned: Pass, saved: Sequence[list[list[str]]]) -> None:
        """Fold what the sweeps of a pass left into the states; done before, it is only read."""
        for i, sweep in enumerate(planned.sweeps):
            name = sweep.step.name
            target = self.folder / f"{name}.{sweep.number}"
            folders = [self.folder / Path(folder).name for per_sweep in saved for folder in per_sweep[i]]
            if not target.exists():
                fold(sweep, folders, self.known[name], planned.cost.table_bytes // 2, target)
            is_large = stored_bytes([target]) > planned.cost.table_bytes // 4
            self.known[name] = StoredTable(target) if is_large else SavedTable(target)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
