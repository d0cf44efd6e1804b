"""Minima, maxima and ranges over windows, in the dtype of the values.

Down the rows van Herk's scheme, as in `window_sum`; across the columns two blocks of 2^k columns that may overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.window_row import blank, copy
from pipeline.kernels.window_sum import clean_rows, holds_invalid, scratch, sum_across, sum_down


@kernel
def extremum_windows(
    values: Any,
    valid: Any,
    lowest: Any,
    highest: Any,
    span_out: Any,
    limits: Any,
    finite: Any,
    place: Any,
    rule: Any,
    tiles: Any,
) -> None:
    """Fill the minima, maxima and ranges, those that are not empty.

    `limits` are the least and the greatest value of the dtype; what an invalid result is written as, an extremum and
    a range; and whether ranges have a dtype of their own. `finite`: infinities are invalid.
    """
    ends, fills, is_wide = limits
    first, phase, rows, begin, length, out_row, out_begin = place
    height, width, lanes, min_valid, fill_invalid = rule
    reach = (width - 1) * lanes
    strip, tile = tiles
    span = strip + reach
    lows = scratch(height + 1, span, values.dtype)
    highs = scratch(height + 1, span, values.dtype)
    spare = scratch(7, span, values.dtype)
    cleaned = np.empty((0, 0), values.dtype)
    usable = np.empty((0, 0), np.int32)
    counts = np.empty((0, 0), np.int32)
    spare_counts = np.empty((0, 0), np.int32)
    needed = (lowest.size + span_out.size > 0, highest.size + span_out.size > 0)
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for left in range(0, length, strip):
            num = min(strip, length - left)
            row = 0
            while row < rows:
                position = (phase + row) % height
                num_rows = min(height - position, rows - row)
                source = (first + row, begin + left, num_rows + height - 1, num + reach)
                inside = (0 * first, 0 * begin, source[2], source[3])
                shape = (height, position, num_rows)
                clean = min_valid <= height * width and not holds_invalid(values[plane], mask, finite, source)
                if not clean and not cleaned.size:
                    cleaned = scratch(2 * height - 1, span, values.dtype)
                    usable = scratch(2 * height - 1, span, np.int32)
                    counts = scratch(height + 1, span, np.int32)
                    spare_counts = scratch(5, span, np.int32)
                for side in range(2):
                    extremes = highs if side else lows
                    if needed[side] and clean:
                        extremum_down(values[plane], source, shape, side, tile, extremes, spare)
                    elif needed[side]:
                        clean_rows(values[plane], mask, finite, source, ends[1 - side], cleaned, usable)
                        extremum_down(cleaned, inside, shape, side, tile, extremes, spare)
                if not clean:
                    sum_down(usable, inside, shape, tile, counts, spare_counts)
                for i in range(num_rows):
                    for side in range(2):
                        if needed[side]:
                            extremes = highs if side else lows
                            extremum_across(extremes[i, : num + reach], width, lanes, num, side, spare)
                    at = (plane, out_row + row + i, out_begin + left, num)
                    write(spare[5, :num], spare[6, :num], ends[1], is_wide, lowest, highest, span_out, at)
                    if not clean:
                        count_row = spare_counts[0, :num]
                        sum_across(counts[i, : num + reach], width, lanes, count_row, spare_counts)
                        centre = (width // 2) * lanes
                        centre_row = usable[i + height // 2, centre : centre + num]
                        blank_extrema(
                            count_row, centre_row, min_valid, fill_invalid, fills, lowest, highest, span_out, at
                        )
                row += num_rows


@inner
def extremum_down(values: Any, source: Any, shape: Any, side: Any, tile: Any, extremes: Any, spare: Any) -> None:
    """Fold the windows' columns, by suffix and prefix: see `window_sum.sum_down`."""
    top, begin, _, length = source
    height, position, num_rows = shape
    end = height - position
    for left in range(0, length, tile):
        right = min(left + tile, length)
        start, stop = begin + left, begin + right
        for i in range(end - 1, -1, -1):
            out = extremes[0 if i == position == 0 else i + 1, left:right]
            if i == end - 1:
                copy(values[top + i, start:stop], out)
            else:
                fold(extremes[i + 2, left:right], values[top + i, start:stop], side, out)
        flip = 0
        for i in range(end, num_rows + height - 1):
            prefix = spare[flip, left:right]
            if i == end:
                copy(values[top + i, start:stop], prefix)
            else:
                fold(spare[1 - flip, left:right], values[top + i, start:stop], side, prefix)
            flip = 1 - flip
            window = i - height + 1
            if window >= 0:
                fold(extremes[window + 1, left:right], prefix, side, extremes[window, left:right])


@inner
def extremum_across(row: Any, width: Any, lanes: Any, num: Any, side: Any, spare: Any) -> None:
    """Fold `width` columns that begin at each of the first `num` elements of a row, into row 5 + `side` of `spare`."""
    out = spare[5 + side, :num]
    block = row
    size, flip = 1, 0
    while size * 2 <= width:
        step = size * lanes
        pairs = spare[flip, : num + (width - 2 * size) * lanes]
        fold(block, block[step:], side, pairs)
        block = pairs
        flip = 1 - flip
        size *= 2
    if size == width:
        copy(block[:num], out)
    else:
        fold(block, block[(width - size) * lanes :], side, out)


@inner
def fold(a: Any, b: Any, side: Any, out: Any) -> None:
    """The smaller (side 0) or greater (side 1) of two values; of equal ones (0 and -0) the second."""
    if side:
        for c in range(out.size):
            out[c] = a[c] if a[c] > b[c] else b[c]
    else:
        for c in range(out.size):
            out[c] = a[c] if a[c] < b[c] else b[c]


@inner
def blank_extrema(
    counts: Any,
    centre: Any,
    min_valid: Any,
    fill_invalid: Any,
    fills: Any,
    lowest: Any,
    highest: Any,
    span_out: Any,
    at: Any,
) -> None:
    """Write what marks an invalid result into a row."""
    plane, row, left, num = at
    for out in (lowest, highest):
        if out.size:
            blank(counts, centre, min_valid, fill_invalid, fills[0][0], out[plane, row, left : left + num])
    if span_out.size:
        blank(counts, centre, min_valid, fill_invalid, fills[1][0], span_out[plane, row, left : left + num])


@inner
def write(low: Any, high: Any, greatest: Any, is_wide: Any, lowest: Any, highest: Any, span_out: Any, at: Any) -> None:
    """Write the minima and maxima of a row, and the ranges."""
    plane, row, left, num = at
    if lowest.size:
        copy(low, lowest[plane, row, left : left + num])
    if highest.size:
        copy(high, highest[plane, row, left : left + num])
    if span_out.size:
        out = span_out[plane, row, left : left + num]
        for c in range(num if is_wide else 0):
            out[c] = out.dtype.type(high[c]) - out.dtype.type(low[c])  # of integers right also where it wraps
        for c in range(0 if is_wide else num):
            # the difference in the dtype itself, or the greatest value where it would not fit
            fits = (low[c] >= 0) | (high[c] <= low[c] + greatest)
            out[c] = high[c] - low[c] if fits else greatest
