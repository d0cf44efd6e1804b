"""Statistics of weighted values by label: partial tables as `label_table` has them, of sums that are exact.

The product of two numbers of 53 bits is a float64 and what that lacks, another one (Dekker 1971), so w, w v and w v v
are sums of one, two and four numbers; all of them are summed exactly, as values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, kernel
from pipeline.kernels.exact_sum import ExactSums, add_groups
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_runs import label_slots, slabs
from pipeline.kernels.label_sums import Where
from pipeline.kernels.label_table import LabelTable, TableBuilder

MOMENTS = ("count", "sum", "mean", "var", "std")
"""Statistics in which a value counts by its weight."""
_NUM_TERMS = (1, 3, 7)
"""Numbers that w, w v and w v v are sums of, up to each power of v."""
_SAFE = (2.0**-900, 2.0**1000)
"""Products between these have all their bits, and so has what they lack."""


def weighted_table(
    labels: np.ndarray,
    values: np.ndarray,
    patch: Patch,
    statistics: Sequence[str],
    weights: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    labels_valid: np.ndarray | None = None,
    ignore: Sequence[int] = (),
) -> LabelTable:
    """Return the table of one region of a block, whose sums are weighted; others are of values of a weight above 0.

    Parameters
    ----------
    labels, values, patch, statistics, valid, labels_valid, ignore
        As for `label_table.partial_table`.
    weights
        (row, column) of the region, of any dtype, none below 0; NaN and infinity count as 0.

    Raises OverflowError where products of weights and values are so large or small that float64 does not hold them.
    """
    names, bands = set(statistics), len(values) * patch.lanes
    power = 2 if names & {"var", "std"} else int(bool(names & {"sum", "mean"}))
    slots = label_slots(labels, patch.labels_at, patch.shape, np.array(sorted(ignore), np.int64))
    plain = TableBuilder(values.dtype, bands, [name for name in statistics if name not in MOMENTS])
    terms = TableBuilder(np.dtype(np.float64), bands * _NUM_TERMS[power], ["sum"])
    for runs in slabs(labels, labels_valid, patch.labels_at, patch.shape, slots):
        top, left = int(runs[:, 0].min()), int(runs[:, 1].min())
        part = slice(top, int(runs[:, 0].max()) + 1), slice(left, int((runs[:, 1] + runs[:, 2]).max()))
        here = _by_band(values, patch, part)
        usable = np.ones(here.shape, bool) if valid is None else _by_band(valid, patch, part)
        usable &= np.isfinite(here)
        factors = weights[part].astype(np.float64)
        used = np.isfinite(factors) & (factors > 0)
        usable &= used
        numbers = np.zeros((len(here), _NUM_TERMS[power], *factors.shape))
        if not _products(here, factors, usable, power, *_SAFE, numbers):
            raise OverflowError("products of weights and values")
        where = Where(-top, -left, 1)
        plain.add(here, usable, where, runs, slots.num, patch.origin)
        terms.add(numbers.reshape(-1, *factors.shape), None, where, runs, slots.num, patch.origin)
    found = slots.labels[: slots.num]
    return _joined(plain.table(found), terms.table(found).sums, power)


def _by_band(planes: np.ndarray, patch: Patch, part: tuple[slice, slice]) -> np.ndarray:
    """Return a copy of a part of the region: (band, row, column)."""
    top, left = patch.values_at
    rows, lanes = slice(top + part[0].start, top + part[0].stop), patch.lanes
    columns = slice((left + part[1].start) * lanes, (left + part[1].stop) * lanes)
    here = planes[:, rows, columns]
    return np.ascontiguousarray(here.reshape(*here.shape[:2], -1, lanes).transpose(0, 3, 1, 2)).reshape(
        len(planes) * lanes, here.shape[1], -1
    )


def _joined(table: LabelTable, sums: ExactSums | None, power: int) -> LabelTable:
    """Return the table with sums of the terms of each power, label and band."""
    assert sums is not None
    num, words = len(table.labels) * table.num_bands, sums.words.reshape(-1, _NUM_TERMS[power], sums.words.shape[1])
    ends = (0, *_NUM_TERMS[: power + 1])
    parts: list[ExactSums | None] = [None, None, None]
    for k in range(power + 1):
        some = np.ascontiguousarray(words[:, ends[k] : ends[k + 1]]).reshape(-1, words.shape[2])
        parts[k] = add_groups(ExactSums(some, sums.low), np.repeat(np.arange(num), ends[k + 1] - ends[k]), num)
    return replace(table, weights=parts[0], sums=parts[1], squares=parts[2])


@kernel
def _products(values: Any, weights: Any, usable: Any, power: Any, least: Any, most: Any, out: Any) -> Any:
    """Write the numbers (band, term, row, column) whose sums are w, w v, w v v; return whether they are so exactly."""
    exact = True
    for band in range(values.shape[0]):
        for i in range(values.shape[1]):
            for j in range(values.shape[2]):
                if not usable[band, i, j]:
                    continue
                w, v = weights[i, j], np.float64(values[band, i, j])
                out[band, 0, i, j] = w
                if power == 0 or v == 0:
                    continue
                product = w * v
                exact &= least <= abs(product) <= most
                out[band, 1, i, j] = product
                out[band, 2, i, j] = fma(w, v, -product)
                if power == 1:
                    continue
                square = v * v
                rest = fma(v, v, -square)
                high, low = w * square, w * rest
                exact &= (least <= square <= most) and (least <= abs(high) <= most)
                out[band, 3, i, j] = high
                out[band, 4, i, j] = fma(w, square, -high)
                out[band, 5, i, j] = low
                out[band, 6, i, j] = fma(w, rest, -low)
    return exact
