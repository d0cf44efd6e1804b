"""What `label_stats` selects from counts of values: its sweeps after the first, and what of them it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.frame import Patch
from pipeline.kernels.label_counts import (
    advance,
    count_digits,
    interpolated,
    modes_and_varieties,
    num_digits,
    wanted_ranks,
)
from pipeline.kernels.label_union import places_among
from pipeline.model.table import Table
from pipeline.operations.base import Block
from pipeline.storage.tables import StoredTable

_FOLD_BYTES = 48
"""Of a wanted value: what is known and its rank, before and after; and as numbers."""
COUNTED = ("mode", "variety")
"""Of values of one digit only."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The statistics that are selected: fractions by their names, and names of `COUNTED`.

    Between two sweeps a table has besides its columns: `known` (label, band x wanted value) uint64, `rank` of its
    shape, `valid` (label, band) and `unknown` (label,), which tells the values' dtype.
    """

    fractions: Mapping[str, float]
    counted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fractions) or bool(self.counted)

    def num_sweeps(self, dtype: np.dtype) -> int:
        return num_digits(dtype) if self else 0

    @property
    def num_wanted(self) -> int:
        """Two neighbours for each fraction; counting alone looks for any, the smallest value."""
        return 2 * len(self._wanted)

    @property
    def _wanted(self) -> tuple[float, ...]:
        return tuple(self.fractions.values()) or (0.0,)

    def begin(self, counts: np.ndarray, unknown: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns that the first sweep of counting needs: `counts` of valid values by label and band."""
        ranks = wanted_ranks(counts, self._wanted).reshape(len(counts), counts.shape[1] * self.num_wanted)
        return {
            "known": np.zeros(ranks.shape, np.uint64),
            "rank": ranks,
            "valid": counts,
            "unknown": np.full(len(counts), unknown),
        }

    def count(
        self, labels: np.ndarray, labels_valid: np.ndarray | None, source: Block, patch: Patch, state: Table, digit: int
    ) -> Table:
        """Return the counts of a region, whose `labels` and `labels_valid` are; `source` holds it as `patch` says."""
        names = labels.astype(np.int64)
        num_bands = len(source.planes()) * source.lanes
        if isinstance(state, StoredTable):
            state = state.select("label", np.unique(names), ["known"])
        found, known = state["label"], state["known"]
        slots = np.full(names.shape, -1, np.int64)
        if len(found):
            at, absent = places_among(names.reshape(-1), found)
            at[absent] = -1
            slots = at.reshape(names.shape)
        if labels_valid is not None:
            slots[~labels_valid] = -1
        valid = None if source.valid is None else source.planes(source.valid)
        known = known.reshape(len(found), num_bands, self.num_wanted)
        return count_digits(slots, found, source.planes(), valid, patch, known, digit)

    def merged_bytes(self, tables: Sequence[Table]) -> int:
        """Return a bound of the bytes of merged counts, with what `fold` holds beside them."""
        size = sum(column.nbytes for table in tables for column in table.values())
        num_labels = sum(int(np.count_nonzero(table["place"] < 0)) for table in tables)
        last_band = max(int(table["place"].max(initial=0)) for table in tables) // self.num_wanted
        return size + num_labels * _FOLD_BYTES * (last_band + 1) * self.num_wanted

    def fold(self, counts: Table, state: Table, digit: int) -> Table:
        """Return the state's rows of the labels that were counted, a digit further; after the last, the statistics."""
        labels = counts["label"][counts["place"] < 0]
        first = int(np.searchsorted(state["label"], labels[0])) if len(labels) else 0
        rows = {name: np.array(state[name][first : first + len(labels)]) for name in state}
        dtype, valid = rows["unknown"].dtype, rows["valid"]
        shape = (*valid.shape, self.num_wanted)
        known, ranks = advance(counts, rows["known"].reshape(shape), rows["rank"].reshape(shape))
        if digit + 1 < num_digits(dtype):
            flat = rows["known"].shape
            return rows | {"known": known.reshape(flat), "rank": ranks.reshape(flat)}
        kept = {name: column for name, column in rows.items() if name not in ("known", "rank", "valid", "unknown")}
        return kept | dict(self._statistics(counts, known, valid, dtype))

    def _statistics(
        self, counts: Table, known: np.ndarray, valid: np.ndarray, dtype: np.dtype
    ) -> Iterator[tuple[str, np.ndarray]]:
        if self.fractions:
            values = interpolated(known, valid, tuple(self.fractions.values()), dtype)
            yield from ((name, np.ascontiguousarray(values[..., k])) for k, name in enumerate(self.fractions))
        if self.counted:
            modes, varieties = modes_and_varieties(counts, known.shape, dtype)
            yield "mode", np.where(valid > 0, modes.astype(np.float64), np.nan)
            yield "variety", varieties
