"""Tables on disk while a run needs them: a folder with a .npy file a column, there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import struct
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.storage.disk import sync_path

Table = Mapping[str, np.ndarray]


def save_table(folder: Path, table: Table) -> None:
    """Write a table beside, then rename it, so that a crash leaves no half of one."""
    building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.new")
    building.mkdir(parents=True)
    for name, column in table.items():
        np.save(building / f"{name}.npy", column)
    _put_in_place(building, folder)


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename a folder of written columns, once they are on the disk: a power cut leaves no half of a table."""
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
        self._building.mkdir(parents=True)
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


def load_table(folder: Path, *, mapped: bool = False) -> dict[str, np.ndarray]:
    """Return a saved table, read into memory or mapped from the disk."""
    return {
        path.stem: np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        for path in sorted(folder.glob("*.npy"))
    }


class SavedTable(dict[str, np.ndarray]):
    """A saved table, read into memory or mapped from the disk; other processes get its folder and read it there."""

    def __init__(self, folder: Path, *, mapped: bool = False) -> None:
        super().__init__(load_table(folder, mapped=mapped))
        self.folder, self.mapped = folder, mapped

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_table, (self.folder, self.mapped)


def _open_table(folder: Path, mapped: bool) -> SavedTable:
    return SavedTable(folder, mapped=mapped)


def table_bytes(table: Table) -> int:
    return sum(column.nbytes for column in table.values())


def stored_bytes(folders: Iterable[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.npy"))
