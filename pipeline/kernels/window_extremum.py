"""Minima, maxima and ranges over windows, in the dtype of the values.

Down the rows the scheme of van Herk (1992) and Gil & Werman (1993), as in `window_sum`; across the columns two blocks
of 2^k columns that may overlap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import num_parts, part_of
from pipeline.kernels.window_part import (
    L1_ELEMENTS,
    Cleaned,
    clean_rows,
    holds_invalid,
    line_of,
    moved_to_origin,
    scratch,
    support,
)
from pipeline.kernels.window_row import blank, copy
from pipeline.kernels.window_sum import sum_across, sum_down


class Limits(NamedTuple):
    """The dtypes of values and results, by their numbers; arrays of one or two."""

    ends: Any
    """The least and the greatest value."""
    fill: Any
    """What an invalid extremum is written as."""
    span_fill: Any
    """What an invalid range is."""
    is_wide: bool
    """Whether ranges have a dtype of their own."""
    finite: bool
    """Whether infinities are invalid."""


class Extrema(NamedTuple):
    """Minima, maxima and ranges (plane, row, element); those that are empty are not wanted."""

    lowest: Any
    highest: Any
    span: Any


class ExtremumRows(NamedTuple):
    """What extrema of a part are made in."""

    lows: Any
    highs: Any
    spare: Any
    """Rows 0 to 4 for blocks of columns; row 5 has the minima of a row of windows, row 6 its maxima."""
    counts: Any
    spare_counts: Any


@kernel
def extremum_windows(values: Any, valid: Any, out: Any, limits: Any, place: Any, rule: Any, strip: Any) -> None:
    """Fill the minima, maxima and ranges, those that are not empty."""
    span, num_read = strip + (rule.width - 1) * rule.lanes, 2 * rule.height - 1
    rows = ExtremumRows(
        scratch(rule.height + 1, span, values.dtype),
        scratch(rule.height + 1, span, values.dtype),
        scratch(7, span, values.dtype),
        # untouched unless pixels are invalid
        scratch(rule.height + 1, span, np.int32),
        scratch(5, span, np.int32),
    )
    cleaned = Cleaned(scratch(num_read, span, values.dtype), scratch(num_read, span, np.int32))
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, rule.height, strip)):
            part = part_of(place, k, rule.height, strip)
            extremum_part(values[plane], mask, out, limits, plane, part, rule, cleaned, rows)


@inner
def extremum_part(
    values: Any, mask: Any, out: Any, limits: Any, plane: Any, part: Any, rule: Any, cleaned: Any, rows: Any
) -> None:
    source, inside = support(part, rule), moved_to_origin(support(part, rule))
    few = rule.min_valid > rule.height * rule.width
    clean = not few and not holds_invalid(values, mask, limits.finite, source)
    for side in range(2):
        extremes = rows.highs if side else rows.lows
        if not is_needed(out, side):
            continue
        if clean:
            extremum_down(values, source, rule.height, part.phase, side, extremes, rows.spare)
        else:
            clean_rows(values, mask, limits.finite, source, limits.ends[1 - side], cleaned)
            extremum_down(cleaned.values, inside, rule.height, part.phase, side, extremes, rows.spare)
    if not clean:
        sum_down(cleaned.usable, inside, rule.height, part.phase, L1_ELEMENTS, rows.counts, rows.spare_counts)
    for i in range(part.num_rows):
        for side in range(2):
            extremes = rows.highs if side else rows.lows
            if is_needed(out, side):
                extremum_across(extremes[i, : source.num], rule.width, rule.lanes, part.num, side, rows.spare)
        line = line_of(part, plane, i)
        write(rows.spare[5, : part.num], rows.spare[6, : part.num], limits, out, line)
        if not clean:
            count_row = rows.spare_counts[0, : part.num]
            sum_across(rows.counts[i, : source.num], rule.width, rule.lanes, count_row, rows.spare_counts)
            centre = rule.column * rule.lanes
            centre_row = cleaned.usable[i + rule.row, centre : centre + part.num]
            blank_extrema(count_row, centre_row, rule, limits, out, line)


@inner
def is_needed(out: Any, side: Any) -> bool:
    """Whether minima (side 0) or maxima (side 1) are wanted, or ranges, which need both."""
    return bool((out.highest.size if side else out.lowest.size) + out.span.size > 0)


@inner
def extremum_down(values: Any, source: Any, height: Any, phase: Any, side: Any, extremes: Any, spare: Any) -> None:
    """Fold the windows' columns, by suffix and prefix: see `window_sum.sum_down`."""
    top, begin, num_read, length = source
    end = height - phase
    for left in range(0, length, L1_ELEMENTS):
        right = min(left + L1_ELEMENTS, length)
        start, stop = begin + left, begin + right
        for i in range(end - 1, -1, -1):
            out = extremes[0 if i == phase == 0 else i + 1, left:right]
            if i == end - 1:
                copy(values[top + i, start:stop], out)
            else:
                fold(extremes[i + 2, left:right], values[top + i, start:stop], side, out)
        flip = 0
        for i in range(end, num_read):
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
def blank_extrema(counts: Any, centre: Any, rule: Any, limits: Any, out: Any, line: Any) -> None:
    """Write what marks an invalid result into a row."""
    plane, row, left, num = line
    for extremum in (out.lowest, out.highest):
        if extremum.size:
            blank(counts, centre, rule, limits.fill[0], extremum[plane, row, left : left + num])
    if out.span.size:
        blank(counts, centre, rule, limits.span_fill[0], out.span[plane, row, left : left + num])


@inner
def write(low: Any, high: Any, limits: Any, out: Any, line: Any) -> None:
    """Write the minima and maxima of a row, and the ranges."""
    plane, row, left, num = line
    if out.lowest.size:
        copy(low, out.lowest[plane, row, left : left + num])
    if out.highest.size:
        copy(high, out.highest[plane, row, left : left + num])
    if out.span.size:
        span, greatest = out.span[plane, row, left : left + num], limits.ends[1]
        for c in range(num if limits.is_wide else 0):
            # of integers right also where it wraps
            span[c] = span.dtype.type(high[c]) - span.dtype.type(low[c])
        for c in range(0 if limits.is_wide else num):
            # the difference in the dtype itself, or the greatest value where it would not fit
            fits = (low[c] >= 0) | (high[c] <= low[c] + greatest)
            span[c] = high[c] - low[c] if fits else greatest
