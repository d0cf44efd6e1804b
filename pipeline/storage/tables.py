"""Tables on disk while a run needs them: a folder with a .npy file a column, there as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from pipeline.model.table import Table
from pipeline.storage.folder.disk import sync_path

SIZES = "sizes.json"
"""What the columns of a saved table had when it was saved."""
STRIPE_BYTES = 4 * 2**20
"""Of a table on the disk, read at once."""


def save_table(folder: Path, table: Table) -> None:
    """Write a table beside, then rename it, so that a crash leaves no half of one."""
    building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.new")
    building.mkdir()
    for name, column in table.items():
        np.save(building / f"{name}.npy", column)
    _put_in_place(building, folder)


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename a folder of written columns, once they are on the disk: a power cut leaves no half of a table."""
    sizes = {path.name: path.stat().st_size for path in sorted(building.glob("*.npy"))}
    (building / SIZES).write_text(json.dumps(sizes))
    for file in (*building.iterdir(), building):
        sync_path(file)
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(building, folder)
    sync_path(folder.parent)


class TableWriter:
    """Writes a saved table from parts, one below the other; it is there when the writer is closed."""

    HEADER_BYTES = 128

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.new")
        self._building.mkdir()
        self._files: dict[str, BinaryIO] = {}
        self._columns: dict[str, np.ndarray] = {}
        self._rows = 0

    def append(self, part: Table) -> None:
        for name, column in part.items():
            if name not in self._files:
                self._files[name] = (self._building / f"{name}.npy").open("wb")
                self._files[name].write(bytes(self.HEADER_BYTES))
                self._columns[name] = column[:0]
            self._files[name].write(np.ascontiguousarray(column).data)
        self._rows += len(next(iter(part.values())))

    def close(self) -> None:
        for name, file in self._files.items():
            file.seek(0)
            file.write(self._header(self._columns[name]))
            file.close()
        _put_in_place(self._building, self._folder)

    def _header(self, column: np.ndarray) -> bytes:
        """Return the header of a .npy file (format 1.0), padded to a fixed length: the rows are known at the end."""
        shape = (self._rows, *column.shape[1:])
        text = repr({"descr": column.dtype.str, "fortran_order": False, "shape": shape})
        length = self.HEADER_BYTES - 10
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.encode().ljust(length - 1) + b"\n"


_loading = threading.Lock()


class StoredTable(Mapping[str, np.ndarray]):
    """A saved table that stays on the disk.

    A column is mapped anew whenever it is asked for: pages that were read count as memory of the process for as long
    as they are mapped. Take what you need of it and let it go. Other processes get the paths.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.npy"))}

    def __getitem__(self, name: str) -> np.ndarray:
        return _load(self._paths[name], "r")

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self, first: int, last: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Return rows of the table, read into memory."""
        return {name: np.array(self[name][first:last]) for name in names or self}

    def select(self, key: str, values: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the rows whose key, by which the table is sorted, is among these sorted values; some may be missing.

        The table is read in stripes, those without such rows left out.
        """
        num = len(self[key])
        size = max(1, STRIPE_BYTES // max(1, sum(self[name][:1].nbytes for name in names)))
        firsts = np.array(self[key][::size])
        cuts = np.append(np.searchsorted(values, firsts), len(values))
        found = []
        for i in np.flatnonzero(np.diff(cuts)).tolist():
            stripe = self.rows(i * size, min((i + 1) * size, num), [key, *names])
            wanted = np.isin(stripe[key], values[cuts[i] : cuts[i + 1]], assume_unique=True)
            found.append({name: column[wanted] for name, column in stripe.items()})
        if not found:
            return self.rows(0, 0, [key, *names])
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def load_table(folder: Path) -> dict[str, np.ndarray]:
    """Return a saved table, read into memory."""
    return {path.stem: _load(path) for path in sorted(folder.glob("*.npy"))}


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Load a column, one thread at a time: numpy parses the header by `ast`.

    In CPython 3.11 two threads there at once end in "SystemError: AST constructor recursion depth mismatch".
    """
    with _loading:
        column: np.ndarray = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        return column


class SavedTable(dict[str, np.ndarray]):
    """A saved table, read into memory; other processes get its folder and read it there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(load_table(folder))
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return SavedTable, (self.folder,)


def is_whole(folder: Path) -> bool:
    """Return whether a saved table is there with all its columns, as it was saved."""
    try:
        sizes = json.loads((folder / SIZES).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def table_bytes(table: Table) -> int:
    return sum(column.nbytes for column in table.values())


def stored_bytes(folders: Iterable[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.npy"))
