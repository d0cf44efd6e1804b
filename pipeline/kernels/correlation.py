"""Weighted sums of neighbours, compiled: rows are taken in once, and summed by lists of taps.

Work goes by tiles of columns, and down a tile row by row. A ring holds the last `height` source rows in float64, as
they are or already summed across by the factors of a separable kernel; an output row is a weighted sum over the ring.
The rows of a tile stay in the first-level cache. The drivers stand in ``pipeline.kernels.convolution``.

A weighted sum is one expression, the same for every element: taps in groups of eight (the last of four, two and one),
each a chain of fused multiply-adds, added up in blocks of about the square root of their number, so that rounding
errors hardly grow with the number of taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.window_sum import accumulate, copy, holds_invalid, scratch


@kernel
def correlate_planes(values: Any, out: Any, across: Any, taps: Any, place: Any, rule: Any) -> None:
    """Fill a part of `out` by weighted sums of `values`, both (plane, row, column x lane); inf counts as NaN.

    Parameters
    ----------
    across
        The factors along the rows: begin of each and the end, offsets in elements, weights. With none the ring holds
        the source rows themselves.
    taps
        What an output row sums of the ring: factor, row from 0 at the top of the kernel, offset in elements, weight.
    place
        First source row and element, rows and elements to compute, first row and element of `out`.
    rule
        Rows of the kernel, its reach along a row in elements, elements of a tile.
    """
    first, begin, rows, length, out_row, out_begin = place
    height, reach, tile = rule
    span = min(tile, length) + reach
    ring = scratch(max(across[0].size - 1, 1) * height, span, np.float64)
    line, part, total = scratch(1, span, np.float64), scratch(1, span, np.float64)[0], scratch(1, span, np.float64)[0]
    which = np.empty(taps[0].size, np.int64)
    for plane in range(values.shape[0]):
        for left in range(0, length, tile):
            num = min(tile, length - left)
            start, to = begin + left, out_begin + left
            for i in range(rows + height - 1):
                row = i - height + 1
                source = values[plane, first + i, start : start + num + reach]
                take_in(source, np.nan, across, i % height, height, line, part, ring)
                if row >= 0:
                    turn(taps, row, height, which)
                    weigh(ring, which, taps[2], taps[3], total[:num], part)
                    copy(total[:num], out[plane, out_row + row, to : to + num])


@kernel
def correlate_valid_planes(values: Any, out: Any, across: Any, taps: Any, place: Any, rule: Any, centre: Any) -> None:
    """Fill a part of `out` by weighted means: sums over the valid (finite) pixels, divided by their weights' sum.

    `centre` is the row and the offset in elements of the pixel that must be valid, and what the size of a sum of
    weights must exceed; else the result is NaN. The other parameters are those of `correlate_planes`.
    """
    first, begin, rows, length, out_row, out_begin = place
    height, reach, tile = rule
    span = min(tile, length) + reach
    layers = max(across[0].size - 1, 1)
    ring, masses = scratch(layers * height, span, np.float64), scratch(layers * height, span, np.float64)
    line, part, total = scratch(1, span, np.float64), scratch(1, span, np.float64)[0], scratch(1, span, np.float64)[0]
    ones, mass, full = np.ones(span), scratch(1, span, np.float64)[0], scratch(1, span, np.float64)[0]
    usable = np.empty(span)
    which = np.empty(taps[0].size, np.int64)
    no_mask = np.ones((0, 0, 0), np.bool_)
    # a row of weights is that of valid pixels alone unless it is marked
    for slot in range(height):
        take_in(ones, 0.0, across, slot, height, line, part, masses)
    marked = np.zeros(height, np.bool_)
    turn(taps, 0, height, which)
    weigh(masses, which, taps[2], taps[3], full[: span - reach], part)
    for plane in range(values.shape[0]):
        for left in range(0, length, tile):
            num = min(tile, length - left)
            start, to = begin + left, out_begin + left
            for i in range(rows + height - 1):
                row, slot = i - height + 1, i % height
                source = values[plane, first + i, start : start + num + reach]
                take_in(source, 0.0, across, slot, height, line, part, ring)
                invalid = holds_invalid(values[plane], no_mask, True, (first + i, start, 1, num + reach))
                if invalid:
                    mark(source, usable)
                    take_in(usable[: num + reach], 0.0, across, slot, height, line, part, masses)
                elif marked[slot]:
                    take_in(ones, 0.0, across, slot, height, line, part, masses)
                marked[slot] = invalid
                if row < 0:
                    continue
                turn(taps, row, height, which)
                weigh(ring, which, taps[2], taps[3], total[:num], part)
                weights = full[:num]
                if marked.any():
                    weights = mass[:num]
                    weigh(masses, which, taps[2], taps[3], weights, part)
                at = start + centre[1]
                middle = values[plane, first + row + centre[0], at : at + num]
                divide(total, weights, middle, centre[2], out[plane, out_row + row, to : to + num])


@inner
def take_in(source: Any, neutral: Any, across: Any, slot: Any, height: Any, line: Any, part: Any, ring: Any) -> None:
    """Put a source row, or its sums across, into a slot of the ring; an invalid value becomes `neutral`."""
    starts, offsets, weights = across
    if starts.size == 0:
        clean(source, neutral, ring[slot, : source.size])
        return
    clean(source, neutral, line[0, : source.size])
    num = source.size - offsets.max()
    nowhere = np.zeros(offsets.size, np.int64)
    for factor in range(starts.size - 1):
        begin, end = starts[factor], starts[factor + 1]
        out = ring[factor * height + slot, :num]
        weigh(line, nowhere[begin:end], offsets[begin:end], weights[begin:end], out, part)


@inner
def clean(row: Any, neutral: Any, out: Any) -> None:
    for c in range(row.size):
        value = np.float64(row[c])
        out[c] = value if value - value == 0 else neutral


@inner
def mark(row: Any, out: Any) -> None:
    """Write 1 where a value is valid, else 0."""
    for c in range(row.size):
        out[c] = 1.0 if row[c] - row[c] == 0 else 0.0


@inner
def turn(taps: Any, row: Any, height: Any, which: Any) -> None:
    """Find the rows of the ring that the taps of an output row lie in."""
    for t in range(which.size):
        which[t] = taps[0][t] * height + (taps[1][t] + row) % height


@inner
def divide(total: Any, weights: Any, centre: Any, least: Any, out: Any) -> None:
    for c in range(out.size):
        valid = (centre[c] - centre[c] == 0) & (abs(weights[c]) > least)
        out[c] = total[c] / weights[c] if valid else np.nan


@inner
def weigh(rows: Any, which: Any, offsets: Any, weights: Any, out: Any, part: Any) -> None:
    """Sum weights[t] * rows[which[t], offsets[t] + c] over t into each element c of `out`."""
    block = 8 * np.int64(np.ceil(np.sqrt(weights.size / 8.0)))
    for begin in range(0, weights.size, block):
        end = min(begin + block, weights.size)
        target = out if begin == 0 else part[: out.size]
        weigh_block(rows, which[begin:end], offsets[begin:end], weights[begin:end], target)
        if begin:
            accumulate(target, out)


@inner
def weigh_block(rows: Any, which: Any, offsets: Any, weights: Any, out: Any) -> None:
    size = weights.size
    t = 0
    while t + 8 <= size:
        weigh_eight(rows, which[t:], offsets[t:], weights[t:], t > 0, out)
        t += 8
    if size & 4:
        weigh_four(rows, which[t:], offsets[t:], weights[t:], t > 0, out)
        t += 4
    if size & 2:
        weigh_two(rows, which[t:], offsets[t:], weights[t:], t > 0, out)
        t += 2
    if size & 1:
        weigh_one(rows[which[t], offsets[t] :], weights[t], t > 0, out)


@inner
def weigh_one(row: Any, weight: Any, more: Any, out: Any) -> None:
    if more:
        for c in range(out.size):
            out[c] += row[c] * weight
    else:
        for c in range(out.size):
            out[c] = row[c] * weight


@inner
def weigh_two(rows: Any, which: Any, offsets: Any, weights: Any, more: Any, out: Any) -> None:
    a, b = rows[which[0], offsets[0] :], rows[which[1], offsets[1] :]
    w_a, w_b = weights[0], weights[1]
    if more:
        for c in range(out.size):
            out[c] += fma(b[c], w_b, a[c] * w_a)
    else:
        for c in range(out.size):
            out[c] = fma(b[c], w_b, a[c] * w_a)


@inner
def weigh_four(rows: Any, which: Any, offsets: Any, weights: Any, more: Any, out: Any) -> None:
    a, b = rows[which[0], offsets[0] :], rows[which[1], offsets[1] :]
    d, e = rows[which[2], offsets[2] :], rows[which[3], offsets[3] :]
    w_a, w_b, w_d, w_e = weights[0], weights[1], weights[2], weights[3]
    if more:
        for c in range(out.size):
            out[c] += fma(e[c], w_e, fma(d[c], w_d, fma(b[c], w_b, a[c] * w_a)))
    else:
        for c in range(out.size):
            out[c] = fma(e[c], w_e, fma(d[c], w_d, fma(b[c], w_b, a[c] * w_a)))


@inner
def weigh_eight(rows: Any, which: Any, offsets: Any, weights: Any, more: Any, out: Any) -> None:
    a, b = rows[which[0], offsets[0] :], rows[which[1], offsets[1] :]
    d, e = rows[which[2], offsets[2] :], rows[which[3], offsets[3] :]
    f, g = rows[which[4], offsets[4] :], rows[which[5], offsets[5] :]
    h, i = rows[which[6], offsets[6] :], rows[which[7], offsets[7] :]
    w_a, w_b, w_d, w_e = weights[0], weights[1], weights[2], weights[3]
    w_f, w_g, w_h, w_i = weights[4], weights[5], weights[6], weights[7]
    if more:
        for c in range(out.size):
            four = fma(e[c], w_e, fma(d[c], w_d, fma(b[c], w_b, a[c] * w_a)))
            out[c] += fma(i[c], w_i, fma(h[c], w_h, fma(g[c], w_g, fma(f[c], w_f, four))))
    else:
        for c in range(out.size):
            four = fma(e[c], w_e, fma(d[c], w_d, fma(b[c], w_b, a[c] * w_a)))
            out[c] = fma(i[c], w_i, fma(h[c], w_h, fma(g[c], w_g, fma(f[c], w_f, four))))
