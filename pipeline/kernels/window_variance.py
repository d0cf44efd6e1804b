"""Variances over windows, by merging: (count, mean, squares about the mean) of two sets give those of their union.

With counts a and b, n = a + b and d the difference of the means:

    mean = mean_a + d b / n        squares = squares_a + squares_b + d^2 a b / n

No large sums are subtracted, so the error does not grow with the offset of the values; equal means give d = 0
exactly, so a constant window has its mean and variance 0. Where all pixels are valid, b / n is one number for a
row; else it is computed for each pixel, by the same division.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.window_row import blank, copy
from pipeline.kernels.window_sum import clean_rows, holds_invalid, scratch

SPARE = 6
"""Sets kept besides those of a group's rows: two for a growing prefix, four to merge across."""


@kernel
def variance_windows(values: Any, valid: Any, mean: Any, var: Any, std: Any, place: Any, rule: Any, tiles: Any) -> None:
    """Fill mean, var and std, those that are not empty."""
    first, phase, rows, begin, length, out_row, out_begin = place
    height, width, lanes, min_valid, fill_invalid = rule
    reach = (width - 1) * lanes
    strip, tile = tiles
    span = strip + reach
    sets = scratch(2 * (height + 1 + SPARE), span, np.float64)
    counts = np.empty((0, 0), np.int32)
    cleaned = np.empty((0, 0), values.dtype)
    usable = np.empty((0, 0), np.int32)
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for left in range(0, length, strip):
            num = min(strip, length - left)
            row = 0
            while row < rows:
                position = (phase + row) % height
                num_rows = min(height - position, rows - row)
                source = (first + row, begin + left, num_rows + height - 1, num + reach)
                shape = (height, position, num_rows)
                masked = min_valid > height * width or holds_invalid(values[plane], mask, True, source)
                if masked:
                    if not cleaned.size:
                        cleaned = scratch(2 * height - 1, span, values.dtype)
                        usable = scratch(2 * height - 1, span, np.int32)
                        counts = scratch(height + 1 + SPARE, span, np.int32)
                    clean_rows(values[plane], mask, True, source, values.dtype.type(0), cleaned, usable)
                    source = (0 * first, 0 * begin, source[2], source[3])
                    merge_down(cleaned, usable, source, shape, masked, sets, counts, tile)
                else:
                    merge_down(values[plane], usable, source, shape, masked, sets, counts, tile)
                for i in range(num_rows):
                    at = (plane, out_row + row + i, out_begin + left, num)
                    k = merge_across(i, (height, width, lanes, num), masked, sets, counts)
                    means, squares = sets[2 * k, :num], sets[2 * k + 1, :num]
                    if masked:
                        centre = (width // 2) * lanes
                        centre_row = usable[i + height // 2, centre : centre + num]
                        count_row = counts[k, :num]
                        write_masked(means, squares, count_row, centre_row, min_valid, fill_invalid, mean, var, std, at)
                    else:
                        write(means, squares, height * width, mean, var, std, at)
                row += num_rows


@inner
def merge_down(
    values: Any, usable: Any, source: Any, shape: Any, masked: Any, sets: Any, counts: Any, tile: Any
) -> None:
    """Merge the windows' columns into the first sets, by suffix and prefix: see `window_sum.sum_down`."""
    top, begin, _, length = source
    height, position, num_rows = shape
    spare = height + 1
    end = height - position
    for left in range(0, length, tile):  # the rows of one tile fit the first-level cache
        num = min(tile, length - left)
        to = spare
        for i in range(end - 1, -1, -1):
            old, to = to, (0 if i == position == 0 else i + 1)
            new = values[top + i, begin + left : begin + left + num]
            append(new, usable, i, old, end - 1 - i, masked, sets, counts, to, left)
        to = spare
        for i in range(end, num_rows + height - 1):
            old, to = to, 2 * spare + 1 - to
            new = values[top + i, begin + left : begin + left + num]
            append(new, usable, i, old, i - end, masked, sets, counts, to, left)
            window = i - height + 1
            if window >= 0:
                merge(window + 1, left, end - window, to, left, i - end + 1, masked, sets, counts, window, left, num)


@inner
def merge_across(k: Any, shape: Any, masked: Any, sets: Any, counts: Any) -> Any:
    """Merge `width` columns that begin at each of the first `num` elements of set k, and return the set they are in.

    Blocks of 2, 4, 8, ... columns are two of the size before. The binary digits of the width say which of them make
    a window: the largest first, and what is right of them is merged already.
    """
    height, width, lanes, num = shape
    spare = height + 3
    at = 0 * num  # as a literal 0 numba would compile another merge for it
    tail, tail_size = k, 0
    size, flip = 1, 0
    while True:
        step, block_size = size * lanes, size * height
        if width & size:
            if tail_size:
                to = 2 * spare + 5 - tail if tail >= spare else spare + 2  # the one of two that the tail is not in
                places = num + (width - size - tail_size) * lanes
                merge(k, at, block_size, tail, step, tail_size * height, masked, sets, counts, to, at, places)
                tail = to
            else:
                tail = k
            tail_size += size
        if size * 2 > width:
            return tail
        to = spare + flip
        places = num + (width - 2 * size) * lanes
        merge(k, at, block_size, k, step, block_size, masked, sets, counts, to, at, places)
        k = to
        flip = 1 - flip
        size *= 2


@inner
def append(
    new: Any, usable: Any, row: Any, k: Any, size: Any, masked: Any, sets: Any, counts: Any, to: Any, left: Any
) -> None:
    """Set `to` becomes set k, of `size` values if all are valid, and one new value each; set k unread if size is 0."""
    num = new.size
    right = left + num
    means, squares = sets[2 * to, left:right], sets[2 * to + 1, left:right]
    old_means, old_squares = sets[2 * k, left:right], sets[2 * k + 1, left:right]
    if size == 0:
        for c in range(num):
            means[c] = new[c]
            squares[c] = 0
        if masked:
            copy(usable[row, left:right], counts[to, left:right])
    elif masked:
        ok, old_counts, out_counts = usable[row, left:right], counts[k, left:right], counts[to, left:right]
        for c in range(num):
            a = np.float64(old_counts[c])
            b = np.float64(ok[c])
            share = b / max(a + b, 1.0)
            d = new[c] - old_means[c]
            means[c] = old_means[c] + d * share
            squares[c] = old_squares[c] + d * (a * share) * d
            out_counts[c] = old_counts[c] + ok[c]
    else:
        share = 1.0 / (size + 1.0)
        weight = size * share
        for c in range(num):
            d = new[c] - old_means[c]
            means[c] = old_means[c] + d * share
            squares[c] = old_squares[c] + d * weight * d


@inner
def merge(
    i: Any,
    i_offset: Any,
    i_size: Any,
    j: Any,
    j_offset: Any,
    j_size: Any,
    masked: Any,
    sets: Any,
    counts: Any,
    to: Any,
    to_offset: Any,
    num: Any,
) -> None:
    """Set `to` becomes the union of sets i and j, which have these sizes if all values are valid."""
    i_end, j_end, end = i_offset + num, j_offset + num, to_offset + num
    means, squares = sets[2 * to, to_offset:end], sets[2 * to + 1, to_offset:end]
    i_means, i_squares = sets[2 * i, i_offset:i_end], sets[2 * i + 1, i_offset:i_end]
    j_means, j_squares = sets[2 * j, j_offset:j_end], sets[2 * j + 1, j_offset:j_end]
    if masked:
        i_counts, j_counts, out_counts = counts[i, i_offset:i_end], counts[j, j_offset:j_end], counts[to, to_offset:end]
        for c in range(num):
            a = np.float64(i_counts[c])
            b = np.float64(j_counts[c])
            share = b / max(a + b, 1.0)
            d = j_means[c] - i_means[c]
            means[c] = i_means[c] + d * share
            squares[c] = (i_squares[c] + j_squares[c]) + d * (a * share) * d
            out_counts[c] = i_counts[c] + j_counts[c]
    else:
        share = j_size / (np.float64(i_size) + j_size)
        weight = i_size * share
        for c in range(num):
            d = j_means[c] - i_means[c]
            means[c] = i_means[c] + d * share
            squares[c] = (i_squares[c] + j_squares[c]) + d * weight * d


@inner
def write(means: Any, squares: Any, size: Any, mean: Any, var: Any, std: Any, at: Any) -> None:
    """Write a row without invalid pixels."""
    plane, row, left, num = at
    reciprocal = 1.0 / size
    if mean.size:
        copy(means, mean[plane, row, left : left + num])
    if var.size:
        out = var[plane, row, left : left + num]
        for c in range(num):
            out[c] = squares[c] * reciprocal
    if std.size:
        out = std[plane, row, left : left + num]
        for c in range(num):
            out[c] = np.sqrt(squares[c] * reciprocal)


@inner
def write_masked(
    means: Any,
    squares: Any,
    counts: Any,
    centre: Any,
    min_valid: Any,
    fill_invalid: Any,
    mean: Any,
    var: Any,
    std: Any,
    at: Any,
) -> None:
    """Write a row with invalid pixels, by the same operations as without."""
    plane, row, left, num = at
    if mean.size:
        out = mean[plane, row, left : left + num]
        copy(means, out)
        blank(counts, centre, min_valid, fill_invalid, np.nan, out)
    if var.size:
        out = var[plane, row, left : left + num]
        for c in range(num):
            reciprocal = 1.0 / max(counts[c], 1)
            out[c] = squares[c] * reciprocal
        blank(counts, centre, min_valid, fill_invalid, np.nan, out)
    if std.size:
        out = std[plane, row, left : left + num]
        for c in range(num):
            reciprocal = 1.0 / max(counts[c], 1)
            out[c] = np.sqrt(squares[c] * reciprocal)
        blank(counts, centre, min_valid, fill_invalid, np.nan, out)
