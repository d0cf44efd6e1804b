"""Loops over single rows: the sums of `window_sum`, and how rows of results are written."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner


class Sums(NamedTuple):
    """Results (plane, row, element); those that are empty are not wanted."""

    mean: Any
    total: Any
    count: Any


class Moments(NamedTuple):
    """Results as `Sums` are."""

    mean: Any
    var: Any
    std: Any


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
def sum_three_and_four(row: Any, step: Any, three: Any, four: Any) -> None:
    """Sum three blocks side by side, and as far as there are four, four of them: one loop instead of two."""
    a, b, d = row[step:], row[2 * step :], row[3 * step :]
    whole = three.size - step
    for c in range(whole):
        pair = row[c] + a[c]
        three[c] = pair + b[c]
        four[c] = pair + (b[c] + d[c])
    for c in range(whole, three.size):
        three[c] = (row[c] + a[c]) + b[c]


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
def write_sums(sums: Any, size: Any, out: Any, line: Any) -> None:
    """Write a row without invalid pixels."""
    plane, row, left, num = line
    mean, total, count = out
    if mean.size:
        to = mean[plane, row, left : left + num]
        if mean.itemsize == 4:  # one multiplication in float64 is exact enough for float32, and constants stay
            reciprocal = 1.0 / size
            for c in range(num):
                to[c] = sums[c] * reciprocal
        else:
            for c in range(num):
                to[c] = sums[c] / size
    if total.size:
        copy(sums, total[plane, row, left : left + num])
    if count.size:
        count[plane, row, left : left + num] = size


@inner
def write_means_of_three(sums: Any, lanes: Any, size: Any, mean: Any, line: Any) -> bool:
    """Sum three columns and write the means, as `sum_across` and `write_sums` do it in two passes.

    Returns whether all are finite: then so are all values.
    """
    plane, row, left, num = line
    out = mean[plane, row, left : left + num]
    a, b = sums[lanes:], sums[2 * lanes :]
    invalid = False
    if mean.itemsize == 4:
        reciprocal = 1.0 / size
        for c in range(num):
            total = sums.dtype.type((sums[c] + a[c]) + b[c])
            invalid |= total - total != 0
            out[c] = total * reciprocal
    else:
        for c in range(num):
            total = sums.dtype.type((sums[c] + a[c]) + b[c])
            invalid |= total - total != 0
            out[c] = total / size
    return not invalid


@inner
def write_masked_sums(sums: Any, counts: Any, centre: Any, rule: Any, out: Any, line: Any) -> None:
    """Write a row with invalid pixels, by the same operations as without."""
    plane, row, left, num = line
    mean, total, count = out
    if mean.size:
        to = mean[plane, row, left : left + num]
        if mean.itemsize == 4:
            for c in range(num):
                reciprocal = 1.0 / max(counts[c], 1)
                to[c] = sums[c] * reciprocal
        else:
            for c in range(num):
                to[c] = sums[c] / max(counts[c], 1)
        blank(counts, centre, rule, np.nan, to)
    if total.size:
        to = total[plane, row, left : left + num]
        copy(sums, to)
        blank(counts, centre, rule, np.nan, to)
    if count.size:
        copy(counts, count[plane, row, left : left + num])


@inner
def blank(counts: Any, centre: Any, rule: Any, fill: Any, out: Any) -> None:
    """Write `fill` where the result is invalid, from the windows' valid pixels and whether the centres are."""
    least = np.int32(min(rule.min_valid, 2**31 - 1))
    if rule.fill_invalid:
        for c in range(out.size):
            out[c] = out[c] if counts[c] >= least else fill
    else:
        for c in range(out.size):
            out[c] = out[c] if (counts[c] >= least) & (centre[c] != 0) else fill


@inner
def write_moments(means: Any, squares: Any, shares: Any, out: Any, line: Any) -> None:
    """Write means, variances and their roots, from sums of squares about the mean and the reciprocals of counts."""
    plane, row, left, num = line
    if out.mean.size:
        copy(means, out.mean[plane, row, left : left + num])
    if out.var.size:
        to = out.var[plane, row, left : left + num]
        for c in range(num):
            to[c] = squares[c] * shares[c]
    if out.std.size:
        to = out.std[plane, row, left : left + num]
        for c in range(num):
            to[c] = np.sqrt(squares[c] * shares[c])


@inner
def blank_moments(counts: Any, centre: Any, rule: Any, out: Any, line: Any) -> None:
    """Write NaN into a row of means, variances and roots where the result is invalid."""
    plane, row, left, num = line
    for result in (out.mean, out.var, out.std):
        if result.size:
            blank(counts, centre, rule, np.nan, result[plane, row, left : left + num])


@inner
def invert(counts: Any, out: Any) -> None:
    for c in range(counts.size):
        out[c] = 1.0 / max(counts[c], 1)
