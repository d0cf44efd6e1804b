"""Means and variances over windows from sums and sums of squares in float64, for values that float32 holds.

    variance = sum of squares / n - mean^2, never below 0

Squares of float32 values are exact in float64, so the error of a variance is some 2^-51 of the largest square in
the window: a thousandth of what rounding the values to float32 does, and half the time of merging variances
(`window_variance`), which keeps its digits for float64 values too. Means have the bits of `window_sum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.window import Frame
from pipeline.kernels.window_row import add, blank
from pipeline.kernels.window_sum import clean_rows, holds_invalid, scratch, sum_across, sum_down

STRIP = 512
"""Least elements of the strips that a block is cut into: some rows of float64 then fit the first-level cache."""


def power_moments(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame) -> None:
    """Fill any of ``mean, var, std`` (float32) over the frame's region from float32 planes; NaN and inf are skipped."""
    unused = np.empty((0, 0, 0), np.float32)
    mean, var, std = (out.get(name, unused) for name in ("mean", "var", "std"))
    power_windows(values, mean, var, std, frame.place, frame.rule, _strip(frame.rule, frame.place))


def power_bytes(shape: tuple[int, int], size: tuple[int, int], lanes: int, itemsize: int) -> int:
    """Return a bound of what `power_moments` allocates for a region of `shape`: rows of sums, of counts, of values."""
    reach = (size[1] - 1) * lanes
    span = min(shape[1] * lanes, max(STRIP, 8 * reach)) + reach + 512
    return span * (8 * (2 * size[0] + 13) + 2 * size[0] * (itemsize + 4) + 4 * (size[0] + 6)) + 8 * 1024


def _strip(rule: tuple[int, int, int, int, bool], place: tuple[int, int, int, int, int, int, int]) -> int:
    """Return the elements of a strip; neighbours sum their margins twice, so not too few."""
    return min(place[4], max(STRIP, 8 * (rule[1] - 1) * rule[2]))


@kernel
def power_windows(values: Any, mean: Any, var: Any, std: Any, place: Any, rule: Any, strip: Any) -> None:
    """Fill mean, var and std, those that are not empty."""
    height, width, lanes, _, _ = rule
    span = strip + (width - 1) * lanes
    sums, spare = scratch(2 * (height + 1), span, np.float64), scratch(10, span, np.float64)
    reciprocals = scratch(1, span, np.float64)
    # untouched unless pixels are invalid
    cleaned, usable = scratch(2 * height - 1, span, values.dtype), scratch(2 * height - 1, span, np.int32)
    counts, spare_counts = scratch(height + 1, span, np.int32), scratch(5, span, np.int32)
    rows = (sums, spare, reciprocals, cleaned, usable, counts, spare_counts)
    no_mask = np.ones((0, 0, 0), np.bool_)
    for plane in range(values.shape[0]):
        power_plane(values[plane], no_mask, mean, var, std, plane, place, rule, strip, rows)


@inner
def power_plane(
    values: Any,
    no_mask: Any,
    mean: Any,
    var: Any,
    std: Any,
    plane: Any,
    place: Any,
    rule: Any,
    strip: Any,
    scratch_rows: Any,
) -> None:
    first, phase, rows, begin, length, out_row, out_begin = place
    height, width, lanes, min_valid, fill_invalid = rule
    sums, spare, reciprocals, cleaned, usable, counts, spare_counts = scratch_rows
    reach = (width - 1) * lanes
    for left in range(0, length, strip):
        num = min(strip, length - left)
        total, power, shares = spare[0, :num], spare[5, :num], reciprocals[0, :num]
        row = 0
        while row < rows:
            position = (phase + row) % height
            num_rows = min(height - position, rows - row)
            source = (first + row, begin + left, num_rows + height - 1, num + reach)
            shape = (height, position, num_rows)
            part = values
            clean = min_valid <= height * width and not holds_invalid(part, no_mask, True, source)
            if clean:
                shares[:] = 1.0 / (height * width)
            else:
                clean_rows(part, no_mask, True, source, values.dtype.type(0), cleaned, usable)
                part, source = cleaned, (0 * first, 0 * begin, source[2], source[3])
                sum_down(usable, source, shape, strip + reach, counts, spare_counts)
            power_down(part, source, shape, sums, spare)
            for i in range(num_rows):
                sum_across(sums[i, : num + reach], width, lanes, total, spare)
                sum_across(sums[height + 1 + i, : num + reach], width, lanes, power, spare[5:])
                at = (plane, out_row + row + i, out_begin + left, num)
                if clean:
                    write(total, power, shares, mean, var, std, at)
                    continue
                count = spare_counts[0, :num]
                sum_across(counts[i, : num + reach], width, lanes, count, spare_counts)
                invert(count, shares)
                write(total, power, shares, mean, var, std, at)
                centre = usable[i + height // 2, (width // 2) * lanes : (width // 2) * lanes + num]
                for out in (mean, var, std):
                    if out.size:
                        to = out[plane, at[1], at[2] : at[2] + num]
                        blank(count, centre, min_valid, fill_invalid, np.nan, to)
            row += num_rows


@inner
def power_down(values: Any, source: Any, shape: Any, sums: Any, spare: Any) -> None:
    """Sum the windows' columns, and in the second half of `sums` their squares: see `window_sum.sum_down`."""
    top, begin, _, num = source
    height, position, num_rows = shape
    end = height - position
    half = height + 1
    for i in range(end - 1, -1, -1):
        to = 0 if i == position == 0 else i + 1
        new, old = values[top + i, begin : begin + num], (i + 2) % half  # unused at the segment's end
        grow(new, i < end - 1, sums[old], sums[half + old], sums[to], sums[half + to])
    for i in range(end, num_rows + height - 1):
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
def invert(counts: Any, out: Any) -> None:
    for c in range(counts.size):
        out[c] = 1.0 / max(counts[c], 1)


@inner
def write(sums: Any, powers: Any, reciprocals: Any, mean: Any, var: Any, std: Any, at: Any) -> None:
    """Write a row from sums, sums of squares and reciprocals of counts."""
    plane, row, left, num = at
    if mean.size:
        out = mean[plane, row, left : left + num]
        for c in range(num):
            out[c] = sums[c] * reciprocals[c]
    if var.size:
        out = var[plane, row, left : left + num]
        for c in range(num):
            out[c] = variance(sums[c], powers[c], reciprocals[c])
    if std.size:
        out = std[plane, row, left : left + num]
        for c in range(num):
            out[c] = np.sqrt(variance(sums[c], powers[c], reciprocals[c]))


@inner
def variance(total: Any, power: Any, reciprocal: Any) -> Any:
    mean = total * reciprocal
    value = power * reciprocal - mean * mean
    return value if value > 0 else 0.0
