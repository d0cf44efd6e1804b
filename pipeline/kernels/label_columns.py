"""Finished label tables: columns of statistics, and each pixel given the value of its label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.exact_quotient import mean, to_float, variance
from pipeline.kernels.exact_sum import ExactSums
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_border import perimeters
from pipeline.kernels.label_geometry import geometry_columns
from pipeline.kernels.label_moments import AXES, weighted_centroids
from pipeline.kernels.label_runs import grow, label_slots, slabs
from pipeline.kernels.label_sums import Where
from pipeline.kernels.label_table import LabelTable
from pipeline.kernels.label_union import places_among
from pipeline.kernels.weighted_quotient import weighted_mean, weighted_variance


def finish(
    table: LabelTable,
    statistics: Iterable[str],
    unknown: int | np.ndarray = 0,
    sides: tuple[float, float] = (1.0, 1.0),
) -> dict[str, np.ndarray]:
    """Return the statistics by label and band, and those of the geometry by label, for pixels of some height and width.

    count is int64 (of weighted values the sum of the weights, float64), all else float64 (bbox int64; min and max of
    64-bit integers, which float64 does not hold, have their dtype). Sum, mean and range are the exact ones rounded
    once, var and std the population's from exact moments: equal values have exactly their value as mean, and variance
    0. Without a valid value: sum 0, the others NaN, but min and max of 64-bit integers `unknown`. The weighted centroid
    is (label, band, row and column) float64, the histogram int64 (label, band, bin).
    """
    names = set(statistics)
    columns = dict(_columns(table, names, unknown)) | dict(_further_columns(table, sides))
    if table.geometry is not None:
        columns |= geometry_columns(table.geometry, table.pixels, names, sides)
    return columns


def _columns(table: LabelTable, names: set[str], unknown: int | np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    shape = len(table.labels), table.num_bands
    if "count" in names:
        yield "count", table.counts if table.weights is None else to_float(table.weights).reshape(shape)
    if "sum" in names and table.sums:
        yield "sum", to_float(table.sums).reshape(shape)
    if "mean" in names and table.sums:
        yield "mean", _mean(table, table.sums).reshape(shape)
    if names & {"var", "std"} and table.sums and table.squares:
        for name in names & {"var", "std"}:
            yield name, _variance(table, table.sums, table.squares, name == "std").reshape(shape)
    for name, extremum in (("min", table.lowest), ("max", table.highest)):
        if name in names and extremum is not None:
            is_long = extremum.dtype.kind != "f" and extremum.itemsize == 8
            values, mark = (extremum, unknown) if is_long else (extremum.astype(np.float64), np.nan)
            yield name, np.where(table.counts > 0, values, np.asarray(mark, values.dtype))
    if "range" in names and table.lowest is not None and table.highest is not None:
        yield "range", np.where(table.counts > 0, _difference(table.highest, table.lowest), np.nan)


def _further_columns(table: LabelTable, sides: tuple[float, float]) -> Iterator[tuple[str, np.ndarray]]:
    shape = len(table.labels), table.num_bands
    if "border" in table.counted:
        yield "perimeter", perimeters(table.counted["border"], sides[0])
    if "histogram" in table.counted:
        num_bins = table.counted["histogram"].shape[1] // table.num_bands
        yield "histogram", table.counted["histogram"].reshape(*shape, num_bins)
    if table.moments and table.sums:
        yield "centroid_weighted", weighted_centroids(table.moments, table.sums).reshape(*shape, AXES)


def _mean(table: LabelTable, sums: ExactSums) -> np.ndarray:
    return mean(sums, table.divisors) if table.weights is None else weighted_mean(sums, table.weights)


def _variance(table: LabelTable, sums: ExactSums, squares: ExactSums, root: bool) -> np.ndarray:
    if table.weights is None:
        return variance(sums, squares, table.divisors, root)
    return weighted_variance(sums, squares, table.weights, root)


def _difference(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return high - low as float64, the exact difference rounded once."""
    if high.dtype.kind != "f" and high.itemsize == 8:
        return (high.view(np.uint64) - low.view(np.uint64)).astype(np.float64)  # modulo 2^64, below which it is
    with np.errstate(over="ignore"):
        return high.astype(np.float64) - low.astype(np.float64)


def lookup(
    labels: np.ndarray,
    table_labels: np.ndarray,
    table_values: np.ndarray,
    out: np.ndarray,
    patch: Patch,
    fill: float | int,
    *,
    labels_valid: np.ndarray | None = None,
    ignore: Sequence[int] = (),
) -> None:
    """Give each pixel of a region the values of its label.

    Parameters
    ----------
    table_labels
        int64, sorted.
    table_values
        (label, band); cast to the dtype of `out` as numpy casts (integers: round and saturate before). NaN becomes
        `fill` in an integer `out`.
    out
        Planes with as many bands, `patch.values_at` and `patch.lanes` say where; filled over the region only.
    fill
        For pixels whose label is ignored, invalid or not in the table.
    """
    slots = label_slots(labels, patch.labels_at, patch.shape, np.array(sorted(ignore), np.int64))
    height, width = patch.shape
    where = Where(*patch.values_at, patch.lanes)
    if len(ignore) or labels_valid is not None:
        row, left = patch.values_at
        out[:, row : row + height, left * patch.lanes : (left + width) * patch.lanes] = fill
    values = np.empty((0, table_values.shape[1]), out.dtype)
    known = 0
    for runs in slabs(labels, labels_valid, patch.labels_at, patch.shape, slots):
        if slots.num > known:
            if slots.num > len(values):
                grow(values, max(slots.num, 2 * len(values)) - len(values))
            fresh = slots.labels[known : slots.num]
            values[known : slots.num] = _values_of(fresh, table_labels, table_values, out.dtype, fill)
            known = slots.num
        _paint(runs, values, out, where)


def _values_of(
    labels: np.ndarray, table_labels: np.ndarray, table_values: np.ndarray, dtype: np.dtype, fill: float | int
) -> np.ndarray:
    if not len(table_labels):
        return np.full((len(labels), table_values.shape[1]), fill, dtype)
    at, absent = places_among(labels, table_labels)
    chosen = table_values.take(at, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        values = chosen.astype(dtype)
    if absent.any():
        values[absent] = fill
    if dtype.kind != "f" and chosen.dtype.kind == "f":
        values[np.isnan(chosen)] = fill
    return values


@kernel
def _paint(runs: Any, values: Any, out: Any, where: Any) -> None:
    top, left, lanes = where
    bands = values.shape[1]
    for r in range(runs.shape[0]):
        row, begin, num = top + runs[r, 0], left + runs[r, 1], runs[r, 2]
        chosen = values[runs[r, 3]]
        if lanes == 1:
            for band in range(bands):
                out[band, row, begin : begin + num] = chosen[band]
        else:
            line = out[0, row, begin * lanes : (begin + num) * lanes]
            for c in range(num):
                for band in range(lanes):
                    line[c * lanes + band] = chosen[band]
