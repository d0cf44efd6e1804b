"""Sums, means and counts over windows, and the passes that the other window kernels share.

Work goes by strips of columns, and down a strip by groups of rows whose windows begin in the same segment. A block of
float64 rows holds the sums down the columns of a group; then each row is summed across.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel, owning

DIRECT_ROWS = 8
"""Rows of a group for windows of height 3: three rows are added directly, cheaper than a suffix and a prefix."""


@kernel
def sum_windows(values: Any, valid: Any, mean: Any, total: Any, count: Any, place: Any, rule: Any, tiles: Any) -> None:
    """Fill mean, total and count, those that are not empty."""
    height, width, lanes, _, _ = rule
    span = tiles[0] + (width - 1) * lanes
    group = DIRECT_ROWS if height == 3 else height
    sums, spare = scratch(group + 1, span, np.float64), scratch(5, span, np.float64)
    # untouched unless pixels are invalid
    cleaned, usable = scratch(group + height - 1, span, values.dtype), scratch(group + height - 1, span, np.int32)
    counts, spare_counts = scratch(group + 1, span, np.int32), scratch(5, span, np.int32)
    rows = (sums, spare, cleaned, usable, counts, spare_counts)
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        sum_plane(values[plane], mask, mean, total, count, plane, place, rule, tiles, rows)


@inner
def sum_plane(
    values: Any,
    mask: Any,
    mean: Any,
    total: Any,
    count: Any,
    plane: Any,
    place: Any,
    rule: Any,
    tiles: Any,
    scratch_rows: Any,
) -> None:
    first, phase, rows, begin, length, out_row, out_begin = place
    height, width, lanes, min_valid, fill_invalid = rule
    sums, spare, cleaned, usable, counts, spare_counts = scratch_rows
    reach = (width - 1) * lanes
    strip, tile = tiles
    group = DIRECT_ROWS if height == 3 else height
    only_means = mean.size > 0 and total.size + count.size == 0
    for left in range(0, length, strip):
        num = min(strip, length - left)
        row = 0
        while row < rows:
            position = 0 if height == 3 else (phase + row) % height
            num_rows = min(group - position, rows - row)
            source = (first + row, begin + left, num_rows + height - 1, num + reach)
            shape = (height, position, num_rows)
            clean = min_valid <= height * width and not holds_invalid(values, mask, True, source)
            if clean:
                sum_down(values, source, shape, tile, sums, spare)
            else:
                clean_rows(values, mask, True, source, values.dtype.type(0), cleaned, usable)
                inside = (0 * first, 0 * begin, source[2], source[3])
                sum_down(cleaned, inside, shape, tile, sums, spare)
                sum_down(usable, inside, shape, tile, counts, spare_counts)
            for i in range(num_rows):
                at = (plane, out_row + row + i, out_begin + left, num)
                column_sums = sums[i, : num + reach]
                if clean and width == 3 and only_means:
                    write_means_of_three(column_sums, lanes, height * width, mean, at)
                    continue
                sum_row = spare[0, :num]
                sum_across(column_sums, width, lanes, sum_row, spare)
                if clean:
                    write_sums(sum_row, height * width, mean, total, count, at)
                    continue
                count_row = spare_counts[0, :num]
                sum_across(counts[i, : num + reach], width, lanes, count_row, spare_counts)
                centre = (width // 2) * lanes
                centre_row = usable[i + height // 2, centre : centre + num]
                write_masked_sums(sum_row, count_row, centre_row, min_valid, fill_invalid, mean, total, count, at)
            row += num_rows


@owning
def scratch(num_rows: Any, num: Any, dtype: Any) -> Any:
    """Return empty rows of at least `num` elements that begin at cache lines: half the time for some loops.

    Their distance is no multiple of 4 KiB, where loads would wait for stores to other rows.
    """
    span = (num + 303) // 512 * 512 + 208
    buffer = np.empty(num_rows * span + 64, dtype)
    start = (-buffer.ctypes.data % 64) // buffer.itemsize
    return buffer[start : start + num_rows * span].reshape(num_rows, span)


@inner
def holds_invalid(values: Any, valid: Any, finite: Any, source: Any) -> bool:
    """Whether a part of a plane (first row, first element, rows, elements) holds an invalid value."""
    top, left, num_rows, num = source
    for i in range(top, top + num_rows):
        row = values[i, left : left + num]
        found = False
        if finite:
            for c in range(num):
                found |= row[c] - row[c] != 0
        else:
            for c in range(num):
                found |= row[c] != row[c]
        if valid.size:
            mask = valid[0, i, left : left + num]
            for c in range(num):
                found |= not mask[c]
        if found:
            return True
    return False


@inner
def clean_rows(values: Any, valid: Any, finite: Any, source: Any, neutral: Any, cleaned: Any, usable: Any) -> None:
    """Copy a part of a plane with `neutral` for invalid values, and 1 or 0 for valid or not into `usable`."""
    top, left, num_rows, num = source
    for i in range(num_rows):
        row = values[top + i, left : left + num]
        to = cleaned[i, :num]
        ok = usable[i, :num]
        if finite:
            for c in range(num):
                ok[c] = row[c] - row[c] == 0
        else:
            for c in range(num):
                ok[c] = row[c] == row[c]
        if valid.size:
            mask = valid[0, top + i, left : left + num]
            for c in range(num):
                ok[c] &= mask[c]
        for c in range(num):
            to[c] = row[c] if ok[c] else neutral


@inner
def sum_down(values: Any, source: Any, shape: Any, tile: Any, sums: Any, spare: Any) -> None:
    """Sum the windows' columns: row i of `sums` becomes the sum of rows i to i + height - 1 of the source.

    The first row lies at `position` of its segment. Row i + 1 of `sums` first takes the suffix from row i to the
    segment's end; the prefix of the next segment then grows row by row, and each window is suffix + prefix. A window
    that is a whole segment is its suffix alone.
    """
    top, begin, _, length = source
    height, position, num_rows = shape
    end = height - position
    for left in range(0, length, tile):  # the rows of one tile fit the first-level cache
        right = min(left + tile, length)
        start, stop = begin + left, begin + right
        if height == 3:
            for i in range(top, top + num_rows):
                out = sums[i - top, left:right]
                add_three(values[i, start:stop], values[i + 1, start:stop], values[i + 2, start:stop], out)
            continue
        for i in range(end - 1, -1, -1):
            out = sums[0 if i == position == 0 else i + 1, left:right]
            if i == end - 1:
                copy(values[top + i, start:stop], out)
            else:
                add(sums[i + 2, left:right], values[top + i, start:stop], out)
        prefix = spare[0, left:right]
        for i in range(end, num_rows + height - 1):
            if i == end:
                copy(values[top + i, start:stop], prefix)
            else:
                accumulate(values[top + i, start:stop], prefix)
            window = i - height + 1
            if window >= 0:
                add(sums[window + 1, left:right], prefix, sums[window, left:right])


@inner
def sum_across(row: Any, width: Any, lanes: Any, out: Any, spare: Any) -> None:
    """Fill `out` with the sums of `width` columns that begin at each of the first elements of a row.

    Sums of 4, 16, 64, ... columns are made of four of the size before. The digits of the width to base 4 say how
    many of each a window takes: the largest first, and what is right of them is summed already. Four rows of `spare`
    are used, from 1 on.
    """
    block, tail = row, row
    size, tail_size = 1, 0
    flip, tail_flip = 0, 0
    while True:
        digit, step = (width // size) % 4, size * lanes
        is_last = size * 4 > width
        to = out if is_last else spare[3 + tail_flip, : out.size + (width - digit * size - tail_size) * lanes]
        if digit and tail_size:
            add_blocks(block, digit, step, tail, to)
        elif digit > 1:
            sum_blocks(block, digit, step, to)
        if digit:
            tail = to if digit > 1 or tail_size else block
            tail_size += digit * size
            tail_flip = 1 - tail_flip
        if is_last:
            break
        block_sums = spare[1 + flip, : block.size - 3 * step]
        add_four(block, step, block_sums)
        block = block_sums
        flip = 1 - flip
        size *= 4
    if width == size:  # one block, which is nowhere but in its row
        copy(block, out)


@inner
def copy(row: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = row[c]


@inner
def accumulate(row: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] += row[c]


@inner
def add(a: Any, b: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = out.dtype.type(a[c]) + out.dtype.type(b[c])


@inner
def add_three(a: Any, b: Any, d: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = (out.dtype.type(a[c]) + out.dtype.type(b[c])) + out.dtype.type(d[c])


@inner
def add_four(row: Any, step: Any, out: Any) -> None:
    a, b, d = row[step:], row[2 * step :], row[3 * step :]
    for c in range(out.size):
        out[c] = (row[c] + a[c]) + (b[c] + d[c])


@inner
def sum_blocks(row: Any, digit: Any, step: Any, out: Any) -> None:
    """Sum 2 or 3 blocks side by side."""
    a, b = row[step:], row[(digit - 1) * step :]
    if digit == 2:
        for c in range(out.size):
            out[c] = row[c] + a[c]
    else:
        for c in range(out.size):
            out[c] = (row[c] + a[c]) + b[c]


@inner
def add_blocks(row: Any, digit: Any, step: Any, tail: Any, out: Any) -> None:
    """Sum 1, 2 or 3 blocks side by side, and the tail right of them."""
    a, b, end = row[step:], row[(digit - 1) * step :], tail[digit * step :]
    if digit == 1:
        for c in range(out.size):
            out[c] = row[c] + end[c]
    elif digit == 2:
        for c in range(out.size):
            out[c] = (row[c] + a[c]) + end[c]
    else:
        for c in range(out.size):
            out[c] = ((row[c] + a[c]) + b[c]) + end[c]


@inner
def write_sums(sums: Any, size: Any, mean: Any, total: Any, count: Any, at: Any) -> None:
    """Write a row without invalid pixels."""
    plane, row, left, num = at
    if mean.size:
        out = mean[plane, row, left : left + num]
        if mean.itemsize == 4:  # one multiplication in float64 is exact enough for float32, and constants stay
            reciprocal = 1.0 / size
            for c in range(num):
                out[c] = sums[c] * reciprocal
        else:
            for c in range(num):
                out[c] = sums[c] / size
    if total.size:
        copy(sums, total[plane, row, left : left + num])
    if count.size:
        count[plane, row, left : left + num] = size


@inner
def write_means_of_three(sums: Any, lanes: Any, size: Any, mean: Any, at: Any) -> None:
    """Sum three columns and write the means, as `sum_across` and `write_sums` do it in two passes."""
    plane, row, left, num = at
    out = mean[plane, row, left : left + num]
    a, b = sums[lanes:], sums[2 * lanes :]
    if mean.itemsize == 4:
        reciprocal = 1.0 / size
        for c in range(num):
            out[c] = ((sums[c] + a[c]) + b[c]) * reciprocal
    else:
        for c in range(num):
            out[c] = ((sums[c] + a[c]) + b[c]) / size


@inner
def write_masked_sums(
    sums: Any, counts: Any, centre: Any, min_valid: Any, fill_invalid: Any, mean: Any, total: Any, count: Any, at: Any
) -> None:
    """Write a row with invalid pixels, by the same operations as without."""
    plane, row, left, num = at
    if mean.size:
        out = mean[plane, row, left : left + num]
        if mean.itemsize == 4:
            for c in range(num):
                reciprocal = 1.0 / max(counts[c], 1)
                out[c] = sums[c] * reciprocal
        else:
            for c in range(num):
                out[c] = sums[c] / max(counts[c], 1)
        blank(counts, centre, min_valid, fill_invalid, np.nan, out)
    if total.size:
        out = total[plane, row, left : left + num]
        copy(sums, out)
        blank(counts, centre, min_valid, fill_invalid, np.nan, out)
    if count.size:
        copy(counts, count[plane, row, left : left + num])


@inner
def blank(counts: Any, centre: Any, min_valid: Any, fill_invalid: Any, fill: Any, out: Any) -> None:
    """Write `fill` where the result is invalid."""
    least = np.int32(min(min_valid, 2**31 - 1))
    if fill_invalid:
        for c in range(out.size):
            out[c] = out[c] if counts[c] >= least else fill
    else:
        for c in range(out.size):
            out[c] = out[c] if (counts[c] >= least) & (centre[c] != 0) else fill
