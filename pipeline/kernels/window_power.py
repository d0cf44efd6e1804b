"""Means and variances over windows from sums and sums of squares in float64, for values that float32 holds.

    variance = sum of squares / n - mean^2, never below 0
    of integers: (n x sum of squares - sum^2) / n^2

Squares of float32 values are exact in float64, so the error of a variance is some 2^-51 of the largest square in
the window: a thousandth of what rounding the values to float32 does, and half the time of merging variances
(`window_variance`), which keeps its digits for float64 values too. Of integers of 8 and 16 bits all but the division is
exact (`are_exact`). Means have the bits of `window_sum`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.frame import num_parts, part_of
from pipeline.kernels.window_part import (
    Cleaned,
    clean_rows,
    holds_invalid,
    line_of,
    moved_to_origin,
    scratch,
    support,
)
from pipeline.kernels.window_row import add, blank_moments, invert
from pipeline.kernels.window_sum import SumRows, sum_across, sum_down

STRIP_ELEMENTS = 512
"""Least elements of the strips that a block is cut into: some rows of float64 then fit the first-level cache."""


def power_bytes(shape: tuple[int, int], size: tuple[int, int], lanes: int, itemsize: int) -> int:
    """Return a bound of what `power_moments` allocates for a region of `shape`: rows of sums, of counts, of values."""
    reach = (size[1] - 1) * lanes
    span = min(shape[1] * lanes, max(STRIP_ELEMENTS, 8 * reach)) + reach + 512
    return span * (8 * (2 * size[0] + 14) + 2 * size[0] * (itemsize + 4) + 4 * (size[0] + 6)) + 8 * 1024


def are_exact(dtype: np.dtype, num_pixels: int) -> bool:
    """Return whether n x sum of squares, and with it the variance's numerator, is below 2^53 for any such integers."""
    return dtype.kind in "iu" and num_pixels**2 * 256 ** (2 * dtype.itemsize) <= 2**53


@kernel
def power_windows(values: Any, valid: Any, out: Any, place: Any, rule: Any, strip: Any) -> None:
    """Fill means, variances and their roots (float32), those that are wanted."""
    span, num_read = strip + (rule.width - 1) * rule.lanes, 2 * rule.height - 1
    rows = SumRows(
        scratch(2 * (rule.height + 1), span, np.float64),
        scratch(10, span, np.float64),
        scratch(rule.height + 1, span, np.int32),
        scratch(5, span, np.int32),
    )
    shares = scratch(2, span, np.float64)
    cleaned = Cleaned(scratch(num_read, span, values.dtype), scratch(num_read, span, np.int32))
    for plane in range(values.shape[0]):
        mask = valid[plane if valid.size else 0 :]
        for k in range(num_parts(place, rule.height, strip)):
            part = part_of(place, k, rule.height, strip)
            power_part(values[plane], mask, out, plane, part, rule, cleaned, rows, shares)


@inner
def power_part(
    values: Any,
    mask: Any,
    out: Any,
    plane: Any,
    part: Any,
    rule: Any,
    cleaned: Any,
    rows: Any,
    shares: Any,
) -> None:
    source, num_pixels, spare = support(part, rule), rule.height * rule.width, rows.spare
    total, power, reciprocals = spare[0, : part.num], spare[5, : part.num], shares[0, : part.num]
    sizes = shares[1, : part.num if values.dtype.type(0.5) == 0 else 0]
    clean = rule.min_valid <= num_pixels and not holds_invalid(values, mask, True, source)
    if clean:
        reciprocals[:] = 1.0 / num_pixels
        sizes[:] = num_pixels
        power_down(values, source, rule.height, part.phase, rows.sums, spare)
    else:
        clean_rows(values, mask, True, source, values.dtype.type(0), cleaned)
        source = moved_to_origin(source)
        sum_down(cleaned.usable, source, rule.height, part.phase, source.num, rows.counts, rows.spare_counts)
        power_down(cleaned.values, source, rule.height, part.phase, rows.sums, spare)
    for i in range(part.num_rows):
        sum_across(rows.sums[i, : source.num], rule.width, rule.lanes, total, spare)
        sum_across(rows.sums[rule.height + 1 + i, : source.num], rule.width, rule.lanes, power, spare[5:])
        line = line_of(part, plane, i)
        if clean:
            write(total, power, reciprocals, sizes, out, line)
            continue
        count = rows.spare_counts[0, : part.num]
        sum_across(rows.counts[i, : source.num], rule.width, rule.lanes, count, rows.spare_counts)
        invert(count, reciprocals)
        for c in range(sizes.size):
            sizes[c] = max(count[c], 1)
        write(total, power, reciprocals, sizes, out, line)
        centre = rule.column * rule.lanes
        blank_moments(count, cleaned.usable[i + rule.row, centre : centre + part.num], rule, out, line)


@inner
def power_down(values: Any, source: Any, height: Any, phase: Any, sums: Any, spare: Any) -> None:
    """Sum the windows' columns, and in the second half of `sums` their squares: see `window_sum.sum_down`."""
    top, begin, num_read, num = source
    end, half = height - phase, height + 1
    for i in range(end - 1, -1, -1):
        to = 0 if i == phase == 0 else i + 1
        new, old = values[top + i, begin : begin + num], (i + 2) % half  # unused at the segment's end
        grow(new, i < end - 1, sums[old], sums[half + old], sums[to], sums[half + to])
    for i in range(end, num_read):
        new, to = values[top + i, begin : begin + num], 2 * (i % 2)
        grow(new, i > end, spare[2 - to], spare[3 - to], spare[to], spare[to + 1])
        window = i - height + 1
        for k in range(2):
            if window >= 0:
                add(sums[k * half + window + 1, :num], spare[to + k, :num], sums[k * half + window, :num])


@inner
def grow(new: Any, more: Any, sums: Any, powers: Any, to: Any, to_power: Any) -> None:
    """Add a row to sums and its squares to sums of squares; the first row begins them."""
    if more:
        for c in range(new.size):
            value = np.float64(new[c])
            to[c] = sums[c] + value
            to_power[c] = fma(value, value, powers[c])
    else:
        for c in range(new.size):
            value = np.float64(new[c])
            to[c] = value
            to_power[c] = value * value


@inner
def write(sums: Any, powers: Any, reciprocals: Any, sizes: Any, out: Any, line: Any) -> None:
    """Write a row from sums, sums of squares and reciprocals of counts; of integers `sizes` are the counts."""
    plane, row, left, num = line
    if out.mean.size:
        to = out.mean[plane, row, left : left + num]
        for c in range(num):
            to[c] = sums[c] * reciprocals[c]
    if out.var.size:
        to = out.var[plane, row, left : left + num]
        if sizes.size:
            for c in range(num):
                to[c] = exact_variance(sums[c], powers[c], sizes[c])
        else:
            for c in range(num):
                to[c] = variance(sums[c], powers[c], reciprocals[c])
    if out.std.size:
        to = out.std[plane, row, left : left + num]
        if sizes.size:
            for c in range(num):
                to[c] = np.sqrt(exact_variance(sums[c], powers[c], sizes[c]))
        else:
            for c in range(num):
                to[c] = np.sqrt(variance(sums[c], powers[c], reciprocals[c]))


@inner
def variance(total: Any, power: Any, reciprocal: Any) -> Any:
    mean = total * reciprocal
    value = power * reciprocal - mean * mean
    return value if value > 0 else 0.0


@inner
def exact_variance(total: Any, power: Any, size: Any) -> Any:
    return (size * power - total * total) / (size * size)
