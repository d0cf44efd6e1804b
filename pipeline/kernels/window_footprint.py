"""Statistics over windows of any shape: disks, crosses, any pixels about a centre.

A footprint is runs of pixels in rows. Each run is summed (or folded) across by the blocks of `window_sum` (or
`window_extremum`), then the runs are added in their order: the cost grows with the height of the window and hardly
with its width. Variances are of the differences from the mean, pixel by pixel: their error does not grow with the
offset of the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import num_parts, part_of
from pipeline.kernels.window_extremum import blank_extrema, extremum_across, fold, write
from pipeline.kernels.window_part import Cleaned, clean_rows, holds_invalid, line_of, scratch, support
from pipeline.kernels.window_row import (
    accumulate,
    blank_moments,
    copy,
    invert,
    write_masked_sums,
    write_moments,
    write_sums,
)
from pipeline.kernels.window_sum import sum_across

PART_ROWS = 32
"""Rows of windows whose pixels are cleaned together."""


@kernel
def sum_footprint(
    values: Any, valid: Any, out: Any, moments: Any, runs: Any, place: Any, rule: Any, strip: Any
) -> None:
    """Fill sums and moments, those that are wanted; of 64-bit values, whose sums are rounded, the mean is a moment.

    `runs` are (run, 3): row, first column, length, from the topmost row and the
    leftmost column of the footprint.
    """
    span, num_read, lanes = strip + (rule.width - 1) * rule.lanes, PART_ROWS + rule.height - 1, rule.lanes
    cleaned = Cleaned(scratch(num_read, span, np.float64), scratch(num_read, span, np.int32))
    spare, spare_counts = scratch(5, span, np.float64), scratch(5, span, np.int32)
    results, counts = scratch(5, strip, np.float64), scratch(1, strip, np.int32)
    num_pixels = runs[:, 2].sum()
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, PART_ROWS, strip)):
            part = part_of(place, k, PART_ROWS, strip)
            source = support(part, rule)
            clean = not holds_invalid(values[plane], mask, True, source)
            clean_rows(values[plane], mask, True, source, values.dtype.type(0), cleaned)
            sums, shares, count_row = results[0, : part.num], results[4, : part.num], counts[0, : part.num]
            for i in range(part.num_rows):
                line = line_of(part, plane, i)
                centres = cleaned.usable[i + rule.row, rule.column * lanes : rule.column * lanes + part.num]
                sum_runs(cleaned.values, runs, i, lanes, spare, sums)
                if clean:
                    count_row[:] = num_pixels
                    write_sums(sums, num_pixels, out, line)
                else:
                    sum_runs(cleaned.usable, runs, i, lanes, spare_counts, count_row)
                    write_masked_sums(sums, count_row, centres, rule, out, line)
                if moments.mean.size + moments.var.size + moments.std.size:
                    deviate(cleaned, runs, i, lanes, values.itemsize == 8, count_row, results)
                    invert(count_row, shares)
                    write_moments(results[1, : part.num], results[2, : part.num], shares, moments, line)
                    blank_moments(count_row, centres, rule, moments, line)


@inner
def sum_runs(rows: Any, runs: Any, i: Any, lanes: Any, spare: Any, out: Any) -> None:
    """Sum the pixels of the windows whose topmost row is row i of `rows`."""
    for k in range(runs.shape[0]):
        row, first, length = runs[k]
        begin, end = first * lanes, (first + length - 1) * lanes + out.size
        if k == 0:
            sum_across(rows[i + row, begin:end], length, lanes, out, spare)
        else:
            sum_across(rows[i + row, begin:end], length, lanes, spare[0, : out.size], spare)
            accumulate(spare[0, : out.size], out)


@inner
def deviate(cleaned: Any, runs: Any, i: Any, lanes: Any, rounded: Any, counts: Any, results: Any) -> None:
    """From the sums in row 0 of `results`, fill the means, row 1, and the sums of squares about them, row 2.

    `rounded`: the sums are, so the mean deviation from the mean is not 0 and is added to it.
    """
    num = counts.size
    sums, means, squares, deviations = results[0, :num], results[1, :num], results[2, :num], results[3, :num]
    for c in range(num):
        means[c] = sums[c] / max(counts[c], 1)
    for square in range(0 if rounded else 1, 2):
        to = squares if square else deviations
        to[:] = 0
        for k in range(runs.shape[0]):
            row, first, length = runs[k]
            for j in range(first * lanes, (first + length) * lanes, lanes):
                ok = cleaned.usable[i + row, j : j + num]
                add_deviations(cleaned.values[i + row, j : j + num], ok, means, square, to)
        if not square:
            for c in range(num):
                means[c] += deviations[c] / max(counts[c], 1)


@inner
def add_deviations(row: Any, usable: Any, means: Any, square: Any, out: Any) -> None:
    if square:
        for c in range(out.size):
            d = (row[c] - means[c]) * usable[c]
            out[c] += d * d
    else:
        for c in range(out.size):
            out[c] += (row[c] - means[c]) * usable[c]


@kernel
def extremum_footprint(
    values: Any, valid: Any, out: Any, limits: Any, runs: Any, place: Any, rule: Any, strip: Any
) -> None:
    """Fill the minima, maxima and ranges, those that are not empty; see `extremum_windows` and `sum_footprint`."""
    span, num_read, lanes = strip + (rule.width - 1) * rule.lanes, PART_ROWS + rule.height - 1, rule.lanes
    cleaned = Cleaned(scratch(num_read, span, values.dtype), scratch(num_read, span, np.int32))
    spare, spare_counts = scratch(7, span, values.dtype), scratch(5, span, np.int32)
    extremes, counts = scratch(2 * PART_ROWS, strip, values.dtype), scratch(1, strip, np.int32)
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, PART_ROWS, strip)):
            part = part_of(place, k, PART_ROWS, strip)
            source = support(part, rule)
            clean = not holds_invalid(values[plane], mask, limits.finite, source)
            for side in range(2):
                clean_rows(values[plane], mask, limits.finite, source, limits.ends[1 - side], cleaned)
                for i in range(part.num_rows):
                    row = extremes[side * PART_ROWS + i, : part.num]
                    fold_runs(cleaned.values, runs, i, lanes, side, spare, row)
            for i in range(part.num_rows):
                line = line_of(part, plane, i)
                write(extremes[i, : part.num], extremes[PART_ROWS + i, : part.num], limits, out, line)
                if not clean:
                    sum_runs(cleaned.usable, runs, i, lanes, spare_counts, counts[0, : part.num])
                    centres = cleaned.usable[i + rule.row, rule.column * lanes : rule.column * lanes + part.num]
                    blank_extrema(counts[0, : part.num], centres, rule, limits, out, line)


@inner
def fold_runs(rows: Any, runs: Any, i: Any, lanes: Any, side: Any, spare: Any, out: Any) -> None:
    """Fold the pixels of the windows whose topmost row is row i of `rows`."""
    folded = spare[5 + side, : out.size]
    for k in range(runs.shape[0]):
        row, first, length = runs[k]
        begin, end = first * lanes, (first + length - 1) * lanes + out.size
        extremum_across(rows[i + row, begin:end], length, lanes, out.size, side, spare)
        if k == 0:
            copy(folded, out)
        else:
            fold(out, folded, side, out)


@kernel
def count_windows(usable: Any, runs: Any, lanes: Any, counts: Any) -> None:
    """Count the valid pixels (1 in `usable`, else 0) of all windows that lie in a tile."""
    spare = scratch(5, usable.shape[1], np.int32)
    for i in range(counts.shape[0]):
        sum_runs(usable, runs, i, lanes, spare, counts[i])
