"""Sums, means and counts over windows, and the passes that the other window kernels share.

Work goes by parts (`frame.part_of`): strips of columns, and down a strip groups of rows whose windows begin in the
same segment. Rows hold the sums down the columns of a part, in float64, or in int32 for integers of 8 and 16 bits;
then each row is summed across.

Down the rows this is the scheme of van Herk (1992) and Gil & Werman (1993), made for minima and maxima: a window is
the suffix of one segment and the prefix of the next. Applied to sums, it has no running sum that would drift.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import Line, num_parts, part_of
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
"""Rows of a part for windows of height 3: three rows are added directly, cheaper than a suffix and a prefix."""
SHORT_ELEMENTS = 512
"""Elements of which a row of float64 sums takes little of the first-level cache."""


class SumRows(NamedTuple):
    """What sums of a part are made in."""

    sums: Any
    spare: Any
    counts: Any
    spare_counts: Any


class Strip(NamedTuple):
    """How many elements go across at a time, and an array of the dtype in which they are summed."""

    length: int
    like: np.ndarray


def strip_for(values: np.ndarray, rule: Any, length: int) -> Strip:
    """Return a strip whose sums are 32-bit integers where these hold them: as exact as float64, and half as long."""
    fits = values.dtype.kind in "iu" and rule.height * rule.width * 256**values.dtype.itemsize < 2**31
    return Strip(length, np.empty(0, np.int32 if fits else np.float64))


@kernel
def sum_windows(values: Any, valid: Any, out: Any, place: Any, rule: Any, work: Any) -> None:
    """Fill means, totals and counts, those that are wanted."""
    strip, like = work
    span = strip + (rule.width - 1) * rule.lanes
    group = DIRECT_ROWS if rule.height == 3 else rule.height
    rows = SumRows(
        scratch(group + 1, span, like.dtype),
        scratch(5, span, like.dtype),
        scratch(group + 1, span, np.int32),
        scratch(5, span, np.int32),
    )
    num_read = group + rule.height - 1
    cleaned = Cleaned(scratch(num_read, span, values.dtype), scratch(num_read, span, np.int32))
    # means of 3 x 3 go by whole rows, and without a search for invalid values, which show in the sums: 3/4 of the time
    direct = rule.height == rule.width == 3 and only_means(out) and valid.size == 0 and rule.min_valid <= 9
    length = place.num if direct else strip
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, group, length)):
            part = part_of(place, k, group, length)
            if not direct or not write_means_of_nine(values[plane], part, plane, rule, rows.sums[0], out.mean):
                for j in range(num_parts(part, group, strip)):
                    sum_part(values[plane], mask, out, plane, part_of(part, j, group, strip), rule, cleaned, rows)


@inner
def only_means(out: Any) -> bool:
    return bool(out.mean.size > 0 and out.total.size + out.count.size == 0)


@inner
def write_means_of_nine(values: Any, part: Any, plane: Any, rule: Any, sums: Any, mean: Any) -> bool:
    """Write the means of 3 x 3 of some rows, and return whether all values are finite; stop where one is not."""
    for i in range(part.num_rows):
        top = part.top + i
        for c in range(0, part.num, SHORT_ELEMENTS):
            num = min(SHORT_ELEMENTS, part.num - c)
            start, stop = part.left + c, part.left + c + num + 2 * rule.lanes
            a, b = values[top, start:stop], values[top + 1, start:stop]
            add_three(a, b, values[top + 2, start:stop], sums[: a.size])
            line = Line(plane, part.out_top + i, part.out_left + c, num)
            if not write_means_of_three(sums, rule.lanes, rule.height * rule.width, mean, line):
                return False
    return True


@inner
def sum_part(values: Any, mask: Any, out: Any, plane: Any, part: Any, rule: Any, cleaned: Any, rows: Any) -> None:
    source, num_pixels = support(part, rule), rule.height * rule.width
    clean = rule.min_valid <= num_pixels and not holds_invalid(values, mask, True, source)
    if clean:
        sum_down(values, source, rule.height, part.phase, L1_ELEMENTS, rows.sums, rows.spare)
    else:
        clean_rows(values, mask, True, source, values.dtype.type(0), cleaned)
        inside = moved_to_origin(source)
        sum_down(cleaned.values, inside, rule.height, part.phase, L1_ELEMENTS, rows.sums, rows.spare)
        sum_down(cleaned.usable, inside, rule.height, part.phase, L1_ELEMENTS, rows.counts, rows.spare_counts)
    for i in range(part.num_rows):
        line = line_of(part, plane, i)
        column_sums, sum_row = rows.sums[i, : source.num], rows.spare[0, : part.num]
        if clean and rule.width == 3 and only_means(out):
            write_means_of_three(column_sums, rule.lanes, num_pixels, out.mean, line)
            continue
        sum_across(column_sums, rule.width, rule.lanes, sum_row, rows.spare)
        if clean:
            write_sums(sum_row, num_pixels, out, line)
            continue
        count_row = rows.spare_counts[0, : part.num]
        sum_across(rows.counts[i, : source.num], rule.width, rule.lanes, count_row, rows.spare_counts)
        centre = rule.column * rule.lanes
        centre_row = cleaned.usable[i + rule.row, centre : centre + part.num]
        write_masked_sums(sum_row, count_row, centre_row, rule, out, line)


@inner
def sum_down(values: Any, source: Any, height: Any, phase: Any, step: Any, sums: Any, spare: Any) -> None:
    """Sum the windows' columns: row i of `sums` becomes the sum of rows i to i + height - 1 of the source.

    The first row lies at `phase` of its segment. Row i + 1 of `sums` first takes the suffix from row i to the
    segment's end; the prefix of the next segment then grows row by row, and each window is suffix + prefix. A window
    that is a whole segment is its suffix alone. `step` elements are summed down at a time.
    """
    top, begin, num_read, length = source
    num_rows, end = num_read - height + 1, height - phase
    for left in range(0, length, step):
        right = min(left + step, length)
        start, stop = begin + left, begin + right
        if height == 3:
            for i in range(top, top + num_rows):
                out = sums[i - top, left:right]
                add_three(values[i, start:stop], values[i + 1, start:stop], values[i + 2, start:stop], out)
            continue
        for i in range(end - 1, -1, -1):
            out = sums[0 if i == phase == 0 else i + 1, left:right]
            if i == end - 1:
                copy(values[top + i, start:stop], out)
            else:
                add(sums[i + 2, left:right], values[top + i, start:stop], out)
        prefix = spare[0, left:right]
        for i in range(end, num_read):
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
