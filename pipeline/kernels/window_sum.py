"""Sums, means and counts over windows, and the passes that the other window kernels share.

Work goes by strips of columns, and down a strip by groups of rows whose windows begin in the same segment. A block of
float64 rows holds the sums down the columns of a group; then each row is summed across.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel, owning
from pipeline.kernels.window_row import (
    accumulate,
    add,
    add_blocks,
    add_four,
    add_three,
    copy,
    sum_blocks,
    sum_three_and_four,
    write_masked_sums,
    write_means_of_three,
    write_sums,
)

DIRECT_ROWS = 8
"""Rows of a group for windows of height 3: three rows are added directly, cheaper than a suffix and a prefix."""
SHORT_TILE = 512
"""Elements of which a row of float64 sums takes little of the first-level cache."""


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
    # means of 3 x 3 go by whole rows, and without a search for invalid values, which show in the sums: 3/4 of the time
    direct = height == width == 3 and mean.size > 0 and valid.size + total.size + count.size == 0 and rule[3] <= 9
    first, phase, num_rows, begin, length, out_row, out_begin = place
    step = DIRECT_ROWS if direct else max(num_rows, 1)
    for plane in range(values.shape[0]):
        source, mask = values[plane], valid[plane if valid.size else 0 :]
        for row in range(0, num_rows, step):
            most = min(step, num_rows - row)
            part = (first + row, phase, most, begin, length, out_row + row, out_begin)
            if not direct or not write_means_of_nine(source, part, plane, rule, sums[0], mean):
                sum_plane(source, mask, mean, total, count, plane, part, rule, tiles, rows)


@inner
def write_means_of_nine(values: Any, place: Any, plane: Any, rule: Any, sums: Any, mean: Any) -> bool:
    """Write the means of 3 x 3 of some rows, and return whether all values are finite; stop where one is not."""
    top, _, num_rows, begin, length, row, left = place
    height, width, lanes, _, _ = rule
    for i in range(num_rows):
        for c in range(0, length, SHORT_TILE):
            num = min(SHORT_TILE, length - c)
            start, stop = begin + c, begin + c + num + 2 * lanes
            a, b = values[top + i, start:stop], values[top + i + 1, start:stop]
            add_three(a, b, values[top + i + 2, start:stop], sums[: a.size])
            if not write_means_of_three(sums, lanes, height * width, mean, (plane, row + i, left + c, num)):
                return False
    return True


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
        elif digit == 3 and not is_last:
            sum_three_and_four(block, step, to, spare[1 + flip])
        elif digit > 1:
            sum_blocks(block, digit, step, to)
        if digit:
            tail = to if digit > 1 or tail_size else block
            tail_size += digit * size
            tail_flip = 1 - tail_flip
        if is_last:
            break
        block_sums = spare[1 + flip, : block.size - 3 * step]
        if digit != 3 or tail_size != 3 * size:
            add_four(block, step, block_sums)
        block = block_sums
        flip = 1 - flip
        size *= 4
    if width == size:  # one block, which is nowhere but in its row
        copy(block, out)
