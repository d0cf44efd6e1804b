"""The tables of a result, row by row: what stands there of one label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from pipeline.model.errors import InputError
from pipeline.model.raster import printable
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.open import folder_at
from pipeline.storage.zarr.coordinate import Coordinates, quiet
from pipeline.storage.zarr.group import role_of
from pipeline.storage.zarr.guard import ChunkGuard

MOST_COLUMNS, MOST_BANDS = 64, 16
"""Of a table, and of a column that has several bands, what a row shows."""
MOST_STEPS = 256
"""Groups of a store that are looked into."""


@dataclass(frozen=True)
class StoredTable:
    """A table by label that a run has written: `STEP/table`."""

    path: str
    step: str
    labels: np.ndarray
    """They ascend."""
    columns: dict[str, zarr.Array[Any]]
    bands: tuple[str, ...]

    def row(self, label: int) -> dict[str, Any] | None:
        """Return what stands of a label, by column, `mean_B04` where it has bands; None where nothing does."""
        place = int(np.searchsorted(self.labels, label))
        if place == len(self.labels) or self.labels[place] != label:
            return None
        found: dict[str, Any] = {}
        for name, array in self.columns.items():
            spans = [(place, place + 1), *((0, min(n, MOST_BANDS)) for n in array.shape[1:])]
            ChunkGuard(array, self.path, ReadLimits()).check(spans)
            values = np.atleast_1d(np.asarray(array[tuple(slice(*span) for span in spans)])[0])
            names = [f"{name}_{band}" for band in self.bands[: len(values)]] if array.ndim == 2 else [name]
            found |= dict(zip(names, values, strict=False))
        return found


def find_tables(path: str) -> list[StoredTable]:
    """Return the tables by label of a store; none where there is no store of groups."""
    folder = folder_at(path)
    if not folder.exists("zarr.json"):
        return []
    try:
        with quiet():
            root = zarr.open_group(folder.metadata_store(), mode="r")
            names = [name for name, _ in zip(root.group_keys(), range(MOST_STEPS), strict=False)]
            found = [_table_of(path, root, name) for name in sorted(names)]
    except InputError:
        raise
    except Exception:  # one array, or a store of somebody else: no table of ours
        return []
    return [table for table in found if table is not None]


def _table_of(path: str, root: zarr.Group, step: str) -> StoredTable | None:
    node = root.get(f"{step}/table")
    if not isinstance(node, zarr.Group):
        return None
    members = {name: array for name, array in node.arrays() if array.ndim in (1, 2)}
    if "label" not in members or members["label"].dtype.kind not in "iu" or members["label"].ndim != 1:
        return None
    coordinates, count = Coordinates(node, ReadLimits()), members["label"].shape[0]
    labels = coordinates.read("label", count)
    columns = {printable(name): array for name, array in members.items() if _is_column(name, array, count)}
    width = max((array.shape[1] for array in columns.values() if array.ndim == 2), default=0)
    bands = coordinates.labels("band", width) or [f"b{band + 1}" for band in range(width)]
    assert labels is not None
    return StoredTable(path, step, labels, dict(list(columns.items())[:MOST_COLUMNS]), tuple(map(printable, bands)))


def _is_column(name: str, array: zarr.Array[Any], count: int) -> bool:
    return role_of(name) != "band" and array.shape[0] == count and array.dtype.kind in "iuf"
