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
from pipeline.kernels.window_extremum import blank_extrema, extremum_across, fold, write
from pipeline.kernels.window_row import accumulate, copy, write_masked_sums, write_sums
from pipeline.kernels.window_sum import clean_rows, holds_invalid, scratch, sum_across
from pipeline.kernels.window_variance import write_masked

GROUP = 32
"""Rows of windows whose pixels are cleaned together."""


@kernel
def sum_footprint(
    values: Any, valid: Any, mean: Any, merged: Any, total: Any, count: Any, var: Any, std: Any, runs: Any, at: Any
) -> None:
    """Fill mean or merged (a mean for 64-bit values, whose sums are rounded), total, count, var and std.

    Those that are empty are not wanted. `runs` are (run, 3): row, first column, length, from the topmost row and the
    leftmost column of the footprint. `at` is (place, rule): see `window.Frame.shaped`.
    """
    (first, begin, rows, length, out_row, out_begin, strip), rule = at
    height, width, centre_row, centre, lanes, min_valid, fill_invalid = rule
    reach = (width - 1) * lanes
    cleaned = scratch(GROUP + height - 1, strip + reach, np.float64)
    usable = scratch(GROUP + height - 1, strip + reach, np.int32)
    spare, spare_counts = scratch(5, strip + reach, np.float64), scratch(5, strip + reach, np.int32)
    results, counts = scratch(4, strip, np.float64), scratch(1, strip, np.int32)
    num_pixels = runs[:, 2].sum()
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for left in range(0, length, strip):
            num = min(strip, length - left)
            for row in range(0, rows, GROUP):
                num_rows = min(GROUP, rows - row)
                source = (first + row, begin + left, num_rows + height - 1, num + reach)
                clean = not holds_invalid(values[plane], mask, True, source)
                clean_rows(values[plane], mask, True, source, values.dtype.type(0), cleaned, usable)
                for i in range(num_rows):
                    to = (plane, out_row + row + i, out_begin + left, num)
                    sums, count_row = results[0, :num], counts[0, :num]
                    centres = usable[i + centre_row, centre * lanes : centre * lanes + num]
                    sum_runs(cleaned, runs, i, lanes, spare, sums)
                    if clean:
                        count_row[:] = num_pixels
                        write_sums(sums, num_pixels, mean, total, count, to)
                    else:
                        sum_runs(usable, runs, i, lanes, spare_counts, count_row)
                        write_masked_sums(sums, count_row, centres, min_valid, fill_invalid, mean, total, count, to)
                    if merged.size + var.size + std.size:
                        deviate(cleaned, usable, runs, i, lanes, values.itemsize == 8, count_row, results)
                        means, squares = results[1, :num], results[2, :num]
                        write_masked(means, squares, count_row, centres, min_valid, fill_invalid, merged, var, std, to)


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
def deviate(cleaned: Any, usable: Any, runs: Any, i: Any, lanes: Any, rounded: Any, counts: Any, results: Any) -> None:
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
                add_deviations(cleaned[i + row, j : j + num], usable[i + row, j : j + num], means, square, to)
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
    values: Any, valid: Any, lowest: Any, highest: Any, span_out: Any, limits: Any, finite: Any, runs: Any, at: Any
) -> None:
    """Fill the minima, maxima and ranges, those that are not empty; see `extremum_windows` and `sum_footprint`."""
    (first, begin, rows, length, out_row, out_begin, strip), rule = at
    height, width, centre_row, centre, lanes, min_valid, fill_invalid = rule
    ends, fills, is_wide = limits
    reach = (width - 1) * lanes
    cleaned = scratch(GROUP + height - 1, strip + reach, values.dtype)
    usable = scratch(GROUP + height - 1, strip + reach, np.int32)
    spare, spare_counts = scratch(7, strip + reach, values.dtype), scratch(5, strip + reach, np.int32)
    extremes, counts = scratch(2 * GROUP, strip, values.dtype), scratch(1, strip, np.int32)
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for left in range(0, length, strip):
            num = min(strip, length - left)
            for row in range(0, rows, GROUP):
                num_rows = min(GROUP, rows - row)
                source = (first + row, begin + left, num_rows + height - 1, num + reach)
                clean = not holds_invalid(values[plane], mask, finite, source)
                for side in range(2):
                    clean_rows(values[plane], mask, finite, source, ends[1 - side], cleaned, usable)
                    for i in range(num_rows):
                        fold_runs(cleaned, runs, i, lanes, side, spare, extremes[side * GROUP + i, :num])
                for i in range(num_rows):
                    to = (plane, out_row + row + i, out_begin + left, num)
                    write(extremes[i, :num], extremes[GROUP + i, :num], ends[1], is_wide, lowest, highest, span_out, to)
                    if not clean:
                        sum_runs(usable, runs, i, lanes, spare_counts, counts[0, :num])
                        centres = usable[i + centre_row, centre * lanes : centre * lanes + num]
                        blank_extrema(
                            counts[0, :num], centres, min_valid, fill_invalid, fills, lowest, highest, span_out, to
                        )


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
