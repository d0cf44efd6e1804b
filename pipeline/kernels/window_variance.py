"""Variances over windows, by merging: (count, mean, squares about the mean) of two sets give those of their union.

With counts a and b, n = a + b and d the difference of the means (Chan, Golub & LeVeque 1979, "Updating formulae and a
pairwise algorithm for computing sample variances"; one value at a time it is Welford's update):

    mean = mean_a + d b / n        squares = squares_a + squares_b + d^2 a b / n

No large sums are subtracted, so the error does not grow with the offset of the values; equal means give d = 0
exactly, so a constant window has its mean and variance 0. Where all pixels are valid, b / n is one number for a
row; else it is computed for each pixel, by the same division.
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
from pipeline.kernels.window_row import blank_moments, copy, invert, write_moments

SPARE = 6
"""Sets kept besides those of a part's rows: two for a growing prefix, four to merge across."""


class Sets(NamedTuple):
    """Rows of sets of values."""

    rows: Any
    """Rows 2 k and 2 k + 1: the means and the sums of squares about the mean of sets k."""
    counts: Any
    """(set, element) int32; unused where all values are valid."""
    shares: Any
    """(element,): reciprocals of the counts of a row."""
    masked: bool
    """Whether some values are invalid."""


class Row(NamedTuple):
    """A row of sets, from an element on."""

    k: int
    left: int
    size: int
    """Values of a set where all are valid."""


@kernel
def variance_windows(values: Any, valid: Any, out: Any, place: Any, rule: Any, strip: Any) -> None:
    """Fill means, variances and their roots, those that are wanted."""
    span, num_sets, num_read = strip + (rule.width - 1) * rule.lanes, rule.height + 1 + SPARE, 2 * rule.height - 1
    rows = scratch(2 * num_sets, span, np.float64)
    shares = scratch(1, span, np.float64)[0]
    # untouched unless pixels are invalid
    counts = scratch(num_sets, span, np.int32)
    cleaned = Cleaned(scratch(num_read, span, values.dtype), scratch(num_read, span, np.int32))
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, rule.height, strip)):
            part = part_of(place, k, rule.height, strip)
            masked = is_masked(values[plane], mask, part, rule)
            sets = Sets(rows, counts, shares, masked)
            variance_part(values[plane], mask, out, plane, part, rule, cleaned, sets)


@inner
def is_masked(values: Any, mask: Any, part: Any, rule: Any) -> bool:
    few = rule.min_valid > rule.height * rule.width
    return few or holds_invalid(values, mask, True, support(part, rule))


@inner
def variance_part(values: Any, mask: Any, out: Any, plane: Any, part: Any, rule: Any, cleaned: Any, sets: Any) -> None:
    source, shares = support(part, rule), sets.shares[: part.num]
    if sets.masked:
        clean_rows(values, mask, True, source, values.dtype.type(0), cleaned)
        merge_down(cleaned.values, cleaned.usable, moved_to_origin(source), rule.height, part.phase, sets)
    else:
        merge_down(values, cleaned.usable, source, rule.height, part.phase, sets)
    for i in range(part.num_rows):
        line = line_of(part, plane, i)
        k = merge_across(i, rule, part.num, sets)
        means, squares = sets.rows[2 * k, : part.num], sets.rows[2 * k + 1, : part.num]
        if sets.masked:
            counts, centre = sets.counts[k, : part.num], rule.column * rule.lanes
            invert(counts, shares)
            write_moments(means, squares, shares, out, line)
            blank_moments(counts, cleaned.usable[i + rule.row, centre : centre + part.num], rule, out, line)
        else:
            write(means, squares, 1.0 / (rule.height * rule.width), out, line)


@inner
def merge_down(values: Any, usable: Any, source: Any, height: Any, phase: Any, sets: Any) -> None:
    """Merge the windows' columns into the first sets, by suffix and prefix: see `window_sum.sum_down`."""
    top, begin, num_read, length = source
    spare, end = height + 1, height - phase
    for left in range(0, length, L1_ELEMENTS):
        num = min(L1_ELEMENTS, length - left)
        right = left + num
        to = spare
        for i in range(end - 1, -1, -1):
            old, to = to, (0 if i == phase == 0 else i + 1)
            new = values[top + i, begin + left : begin + right]
            append(new, usable[i, left:right], Row(old, left, end - 1 - i), sets, to)
        to = spare
        for i in range(end, num_read):
            old, to = to, 2 * spare + 1 - to
            new = values[top + i, begin + left : begin + right]
            append(new, usable[i, left:right], Row(old, left, i - end), sets, to)
            window = i - height + 1
            if window >= 0:
                suffix, prefix = Row(window + 1, left, end - window), Row(to, left, i - end + 1)
                merge(suffix, prefix, sets, window, left, num)


@inner
def merge_across(k: Any, rule: Any, num: Any, sets: Any) -> Any:
    """Merge `width` columns that begin at each of the first `num` elements of set k, and return the set they are in.

    Blocks of 2, 4, 8, ... columns are two of the size before. The binary digits of the width say which of them make
    a window: the largest first, and what is right of them is merged already.
    """
    height, width, lanes = rule.height, rule.width, rule.lanes
    spare = height + 3
    at = 0 * num  # as a literal 0 numba would compile another merge for it
    tail, tail_size = k, 0
    size, flip = 1, 0
    while True:
        step, block_size = size * lanes, size * height
        if width & size:
            if tail_size:
                to = 2 * spare + 5 - tail if tail >= spare else spare + 2  # the one of two that the tail is not in
                length = num + (width - size - tail_size) * lanes
                merge(Row(k, at, block_size), Row(tail, step, tail_size * height), sets, to, at, length)
                tail = to
            else:
                tail = k
            tail_size += size
        if size * 2 > width:
            return tail
        to = spare + flip
        merge(Row(k, at, block_size), Row(k, step, block_size), sets, to, at, num + (width - 2 * size) * lanes)
        k = to
        flip = 1 - flip
        size *= 2


@inner
def append(new: Any, ok: Any, row: Any, sets: Any, to: Any) -> None:
    """Row `to` becomes a row of sets and one new value each; the row is unread if its sets are empty."""
    k, left, size = row
    num = new.size
    right = left + num
    means, squares = sets.rows[2 * to, left:right], sets.rows[2 * to + 1, left:right]
    old_means, old_squares = sets.rows[2 * k, left:right], sets.rows[2 * k + 1, left:right]
    old_counts, counts = sets.counts[k, left:right], sets.counts[to, left:right]
    if size == 0:
        for c in range(num):
            means[c] = new[c]
            squares[c] = 0
        if sets.masked:
            copy(ok, counts)
    elif sets.masked:
        for c in range(num):
            a = np.float64(old_counts[c])
            b = np.float64(ok[c])
            share = b / max(a + b, 1.0)
            d = new[c] - old_means[c]
            means[c] = old_means[c] + d * share
            squares[c] = old_squares[c] + d * (a * share) * d
            counts[c] = old_counts[c] + ok[c]
    else:
        share = 1.0 / (size + 1.0)
        weight = size * share
        for c in range(num):
            d = new[c] - old_means[c]
            means[c] = old_means[c] + d * share
            squares[c] = old_squares[c] + d * weight * d


@inner
def merge(i: Any, j: Any, sets: Any, to: Any, left: Any, num: Any) -> None:
    """Row `to`, from element `left` on, becomes the unions of the sets of two rows."""
    i_end, j_end, end = i.left + num, j.left + num, left + num
    means, squares = sets.rows[2 * to, left:end], sets.rows[2 * to + 1, left:end]
    i_means, i_squares = sets.rows[2 * i.k, i.left : i_end], sets.rows[2 * i.k + 1, i.left : i_end]
    j_means, j_squares = sets.rows[2 * j.k, j.left : j_end], sets.rows[2 * j.k + 1, j.left : j_end]
    if sets.masked:
        i_counts, j_counts = sets.counts[i.k, i.left : i_end], sets.counts[j.k, j.left : j_end]
        counts = sets.counts[to, left:end]
        for c in range(num):
            a = np.float64(i_counts[c])
            b = np.float64(j_counts[c])
            share = b / max(a + b, 1.0)
            d = j_means[c] - i_means[c]
            means[c] = i_means[c] + d * share
            squares[c] = (i_squares[c] + j_squares[c]) + d * (a * share) * d
            counts[c] = i_counts[c] + j_counts[c]
    else:
        share = j.size / (np.float64(i.size) + j.size)
        weight = i.size * share
        for c in range(num):
            d = j_means[c] - i_means[c]
            means[c] = i_means[c] + d * share
            squares[c] = (i_squares[c] + j_squares[c]) + d * weight * d


@inner
def write(means: Any, squares: Any, share: Any, out: Any, line: Any) -> None:
    """Write a row as `write_moments` does, where all counts are one."""
    plane, row, left, num = line
    if out.mean.size:
        copy(means, out.mean[plane, row, left : left + num])
    if out.var.size:
        to = out.var[plane, row, left : left + num]
        for c in range(num):
            to[c] = squares[c] * share
    if out.std.size:
        to = out.std[plane, row, left : left + num]
        for c in range(num):
            to[c] = np.sqrt(squares[c] * share)
