"""Statistics by label: partial tables of blocks and their merge; `label_columns` has what comes after.

A partial table holds exact sums (`exact_sum`), so merging is associative and commutative to the bit: the finished
table is the same for any blocks, in any order. Pixels that bear a label are counted whether their values are valid
or not; statistics are over valid values, band by band (NaN, inf and masked pixels are not).

Examples
--------
>>> import numpy as np
>>> from pipeline.kernels.label_columns import finish
>>> labels = np.array([[3, 3, -1], [3, -1, -1]])
>>> values = np.arange(6.0).reshape(1, 2, 3)
>>> table = partial_table(labels, values, Patch((2, 3)), ["mean", "max"])
>>> finish(merge([table, table]), ["count", "mean", "max"])["mean"].tolist()
[[3.6666666666666665], [1.3333333333333333]]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.kernels.exact_sum import ExactSums, scatter_add, zeros
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_block import BlockSums
from pipeline.kernels.label_border import BorderCounts
from pipeline.kernels.label_geometry import GEOMETRY, carried, empty_tally, merge_tallies, tally_runs
from pipeline.kernels.label_histogram import BinCounts
from pipeline.kernels.label_moments import AXES, MomentSums
from pipeline.kernels.label_runs import grow, label_slots, slabs
from pipeline.kernels.label_sums import Where
from pipeline.kernels.label_union import union_of
from pipeline.model.region import Region

STATISTICS = ("count", "sum", "mean", "var", "std", "min", "max", "range")
"""By label and band."""
COUNTS = ("border", "histogram")
"""Whole numbers by label that are added up: a column of `LabelTable.counted` each."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Statistics of some labels, mergeable. Per-band arrays are (label, band); sums have entry label x bands + band."""

    labels: np.ndarray
    """int64, sorted, without repetition."""
    pixels: np.ndarray
    """int64: how many pixels bear the label."""
    num_bands: int
    count: np.ndarray | None
    """int64: valid values; None where all are valid in every band."""
    sums: ExactSums | None = None
    squares: ExactSums | None = None
    lowest: np.ndarray | None = None
    highest: np.ndarray | None = None
    """Extrema in the dtype of the values; without a valid value, highest < lowest."""
    geometry: np.ndarray | None = None
    """A tally of `label_geometry`."""
    moments: ExactSums | None = None
    """Those of `label_moments`: entry (label x bands + band) x 2 + axis."""
    counted: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Some of `COUNTS`, (label, number) int64: those of `label_border`, and of `label_histogram`."""
    weights: ExactSums | None = None
    """Sums of weights, where the other sums are weighted by them."""

    def to_columns(self) -> dict[str, np.ndarray]:
        """Return the table as arrays with a row for each label, as tables are kept; `from_columns` undoes it."""
        num = len(self.labels)
        columns = {"label": self.labels, "pixels": self.pixels, "bands": np.full(num, self.num_bands, np.int32)}
        optional = {"count": self.count, "lowest": self.lowest, "highest": self.highest, "geometry": self.geometry}
        columns |= {name: column for name, column in optional.items() if column is not None} | dict(self.counted)
        several = {"sums": self.sums, "squares": self.squares, "moments": self.moments, "weights": self.weights}
        for name, sums in several.items():
            if sums is not None:
                columns[name] = sums.words.reshape(num, sums.words.size // max(1, num))
                columns[f"{name}_low"] = np.full(num, sums.low, np.int16)
        return columns

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray], num_bands: int) -> LabelTable:
        num = len(columns["label"])

        def sums(name: str, numbers: int = num_bands) -> ExactSums | None:
            if name not in columns:
                return None
            if not num:
                return zeros(0)
            words = np.ascontiguousarray(columns[name]).reshape(num * numbers, -1)
            return ExactSums(words, int(columns[f"{name}_low"][0]))

        rest: dict[str, Any] = {name: columns.get(name) for name in ("count", "lowest", "highest", "geometry")}
        rest |= {name: sums(name) for name in ("sums", "squares", "weights")}
        rest["moments"] = sums("moments", AXES * num_bands)
        counted = {name: columns[name] for name in COUNTS if name in columns}
        return cls(columns["label"], columns["pixels"], num_bands, **rest, counted=counted)

    @property
    def nbytes(self) -> int:
        """What the table occupies in memory."""
        arrays = (self.labels, self.pixels, self.count, self.sums, self.squares, self.lowest, self.highest)
        more = (self.geometry, self.moments, self.weights, *self.counted.values())
        return sum(int(array.nbytes) for array in (*arrays, *more) if array is not None)

    @property
    def divisors(self) -> np.ndarray:
        """Valid values by entry of the sums, or by label where all bands have as many."""
        return self.pixels if self.count is None else self.count.reshape(-1)

    @property
    def counts(self) -> np.ndarray:
        """Valid values by label and band."""
        if self.count is None:
            return np.repeat(self.pixels[:, None], self.num_bands, axis=1)
        return self.count


def partial_table(
    labels: np.ndarray,
    values: np.ndarray,
    patch: Patch,
    statistics: Sequence[str],
    *,
    valid: np.ndarray | None = None,
    labels_valid: np.ndarray | None = None,
    ignore: Sequence[int] = (),
    within: Region | None = None,
    edges: np.ndarray | None = None,
) -> LabelTable:
    """Return the table of one region of a block.

    Parameters
    ----------
    labels
        (row, column) of any integer dtype, values below 2^63; C-contiguous.
    values
        Planes (plane, row, column x lane), C-contiguous, of any integer or floating-point dtype; bands are planes
        or lanes. `valid` is of their shape, or None.
    statistics
        What `finish` will be asked for: any of `STATISTICS` and `label_geometry.GEOMETRY`, `perimeter`,
        `centroid_weighted`.
    labels_valid
        Where labels are valid (shape of `labels`); pixels without a label belong to none.
    ignore
        Labels that count as none.
    within
        Rows and columns of the labels' array that count, for perimeters. Default: all.
    edges
        Of the bins of a histogram, as `BinCounts` takes them; None where there is none.
    """
    slots = label_slots(labels, patch.labels_at, patch.shape, np.array(sorted(ignore), np.int64))
    where = Where(*patch.values_at, patch.lanes)
    builder = TableBuilder(values.dtype, len(values) * patch.lanes, statistics)
    counters: dict[str, BorderCounts | BinCounts] = {}
    if "perimeter" in statistics:
        everywhere = Region(0, labels.shape[0], 0, labels.shape[1])
        counters["border"] = BorderCounts(labels, labels_valid, patch, within or everywhere)
    if edges is not None:
        counters["histogram"] = BinCounts(values, valid, where, edges)
    moments = MomentSums(values, valid, patch) if "centroid_weighted" in statistics else None
    for runs in slabs(labels, labels_valid, patch.labels_at, patch.shape, slots):
        builder.add(values, valid, where, runs, slots.num, patch.origin)
        for more in (*counters.values(), *([moments] if moments else [])):
            more.add(runs, slots.num)
    names = slots.labels[: slots.num]
    table, order = builder.table(names), np.argsort(names, kind="stable")
    counted = {name: counter.result(order) for name, counter in counters.items()}
    return replace(table, moments=moments.result(order) if moments else None, counted=counted)


class TableBuilder:
    """A table in the making, by slots of labels; slabs of runs are added to it."""

    def __init__(self, dtype: np.dtype, num_bands: int, statistics: Sequence[str]) -> None:
        names = set(statistics)
        power = 2 if names & {"var", "std"} else int(bool(names & {"sum", "mean", "centroid_weighted"}))
        self.sums = BlockSums(dtype, num_bands, power, bool(names & {"min", "max", "range"}))
        self.pixels = np.zeros(0, np.int64)
        self.geometry = bool(names & set(GEOMETRY))
        self.tally = empty_tally(0)

    def add(
        self,
        values: np.ndarray,
        valid: np.ndarray | None,
        where: Where,
        runs: np.ndarray,
        num_slots: int,
        origin: tuple[int, int],
    ) -> None:
        """Add what lies under runs; their row and column 0 are `where` in values, `origin` in the raster."""
        missing = max(num_slots - len(self.pixels), len(self.pixels)) if num_slots > len(self.pixels) else 0
        if missing:
            grow(self.pixels, missing)
            if self.geometry:
                self.tally = np.concatenate([self.tally, empty_tally(missing)])
        tally_runs(runs, origin, self.pixels, self.tally)
        self.sums.add(values, valid, where, runs, self.pixels, num_slots)

    def table(self, labels: np.ndarray) -> LabelTable:
        """Return the table of slots with these labels."""
        order = np.argsort(labels, kind="stable")
        invalid, total, squares = self.sums.results(order)
        pixels = self.pixels[order]
        return LabelTable(
            labels[order],
            pixels,
            self.sums.bands,
            None if invalid is None else pixels[:, None] - invalid,
            total,
            squares,
            self.sums.low[order] + 0 if self.sums.extrema else None,  # + 0: there is one zero only
            self.sums.high[order] + 0 if self.sums.extrema else None,
            carried(self.tally[order]) if self.geometry else None,
        )


def merge(tables: Sequence[LabelTable]) -> LabelTable:
    """Return one table of all; associative and commutative to the bit. All hold the same statistics and bands."""
    if len(tables) == 1:
        return tables[0]
    labels, places = union_of([table.labels for table in tables])
    num, num_bands = len(labels), tables[0].num_bands
    pixels = np.zeros(num, np.int64)
    for table, place in zip(tables, places, strict=True):
        pixels[place] += table.pixels
    counts = None
    if any(table.count is not None for table in tables):
        counts = np.zeros((num, num_bands), np.int64)
        for table, place in zip(tables, places, strict=True):
            counts[place] += table.pixels[:, None] if table.count is None else table.count
    return LabelTable(
        labels,
        pixels,
        num_bands,
        counts,
        _merge_sums([table.sums for table in tables], places, num, num_bands),
        _merge_sums([table.squares for table in tables], places, num, num_bands),
        _merge_by(np.minimum, [table.lowest for table in tables], places, num),
        _merge_by(np.maximum, [table.highest for table in tables], places, num),
        merge_tallies([table.geometry for table in tables], places, num),
        _merge_sums([table.moments for table in tables], places, num, AXES * num_bands),
        {name: _added([table.counted[name] for table in tables], places, num) for name in tables[0].counted},
        _merge_sums([table.weights for table in tables], places, num, num_bands),
    )


def _added(parts: list[np.ndarray], places: list[np.ndarray], num: int) -> np.ndarray:
    total = np.zeros((num, parts[0].shape[1]), np.int64)
    for part, place in zip(parts, places, strict=True):
        total[place] += part
    return total


def _merge_sums(parts: list[ExactSums | None], places: list[np.ndarray], num: int, bands: int) -> ExactSums | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return scatter_add(known, places, num, bands)


def _merge_by(
    ufunc: Callable[..., np.ndarray], parts: list[np.ndarray | None], places: list[np.ndarray], num: int
) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    merged = np.empty((num, known[0].shape[1]), known[0].dtype)
    first = np.ones(num, bool)
    for part, place in zip(known, places, strict=True):
        merged[place] = np.where(first[place, None], part, ufunc(merged[place], part))
        first[place] = False
    return merged
