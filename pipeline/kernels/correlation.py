"""Weighted sums of neighbours, compiled: rows are taken in once, and summed by lists of taps.

Work goes by strips of columns, and down a strip row by row. A ring holds the last `height` source rows in float64, as
they are or already summed across where the kernel is separable; an output row is a weighted sum over the ring.
The rows of a strip stay in the first-level cache. The drivers stand in ``pipeline.kernels.convolution``.

A weighted sum is one expression, the same for every element: taps in groups of eight (the last of four, two and one),
each a chain of fused multiply-adds; groups are added up in blocks, and these in turn, so that rounding errors grow
little with the number of taps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.frame import Source
from pipeline.kernels.window_part import holds_invalid, scratch
from pipeline.kernels.window_row import copy


class Taps(NamedTuple):
    """What a weighted sum takes of some rows: flat arrays of one length."""

    rows: Any
    """From 0 at the top of the kernel."""
    offsets: Any
    """In elements, from the left."""
    weights: Any
    block: int
    """Taps that are added up before they are added to the others."""


@kernel
def correlate_planes(values: Any, out: Any, across: Any, down: Any, place: Any, size: Any, strip: Any) -> None:
    """Fill a part of `out` by weighted sums of `values`, both (plane, row, column x lane); inf counts as NaN.

    Parameters
    ----------
    across
        What is summed along each source row. Without taps the ring holds the source rows themselves.
    down
        What an output row sums of the ring.
    size
        Rows of the kernel, and its reach along a row in elements.
    """
    height, reach = size
    span = min(strip, place.num) + reach
    ring = scratch(height, span - reach if across.rows.size else span, np.float64)
    lines = scratch(3, span, np.float64)
    which = np.empty(down.rows.size, np.int64)
    for plane in range(values.shape[0]):
        for left in range(0, place.num, strip):
            num = min(strip, place.num - left)
            start, to = place.left + left, place.out_left + left
            for i in range(place.num_rows + height - 1):
                source = values[plane, place.top + i, start : start + num + reach]
                row, slot = i - height + 1, i % height
                take_in(source, across, np.nan, lines, ring[slot])
                if row >= 0:
                    turn(down.rows, row, height, which)
                    weigh(ring, which, down, lines[1, :num], lines[2])
                    copy(lines[1, :num], out[plane, place.out_top + row, to : to + num])


@kernel
def correlate_valid_planes(
    values: Any, out: Any, across: Any, down: Any, place: Any, size: Any, strip: Any, centre: Any
) -> None:
    """Fill a part of `out` by weighted means: sums over the valid (finite) pixels, divided by their weights' sum.

    Weights are of one sign. `centre` is the row and the offset in elements of the pixel that must be valid; else, and
    where no pixel is, the result is NaN. The other parameters are those of `correlate_planes`.
    """
    height, reach = size
    span = min(strip, place.num) + reach
    width = span - reach if across.rows.size else span
    ring, masses = scratch(height, width, np.float64), scratch(height, width, np.float64)
    lines, full, usable = scratch(4, span, np.float64), scratch(1, span, np.float64)[0], scratch(1, span, np.float64)[0]
    which = np.empty(down.rows.size, np.int64)
    no_mask = np.ones((0, 0, 0), np.bool_)
    # a slot of masses stays that of a row without invalid pixels until it is marked
    marked = np.zeros(height, np.bool_)
    ones = np.ones(span)
    for slot in range(height):
        take_in(ones, across, 0.0, lines, masses[slot])
    turn(down.rows, 0, height, which)
    weigh(masses, which, down, full[: span - reach], lines[2])
    for plane in range(values.shape[0]):
        for left in range(0, place.num, strip):
            num = min(strip, place.num - left)
            start, to = place.left + left, place.out_left + left
            for i in range(place.num_rows + height - 1):
                row, slot = i - height + 1, i % height
                source = values[plane, place.top + i, start : start + num + reach]
                take_in(source, across, 0.0, lines, ring[slot])
                invalid = holds_invalid(values[plane], no_mask, True, Source(place.top + i, start, 1, num + reach))
                if invalid:
                    mark(source, usable)
                    take_in(usable[: source.size], across, 0.0, lines, masses[slot])
                elif marked[slot]:
                    take_in(ones, across, 0.0, lines, masses[slot])
                marked[slot] = invalid
                if row < 0:
                    continue
                turn(down.rows, row, height, which)
                weigh(ring, which, down, lines[1, :num], lines[2])
                mass = full[:num]
                if marked.any():
                    mass = lines[3, :num]
                    weigh(masses, which, down, mass, lines[2])
                middle = start + centre[1]
                centres = values[plane, place.top + row + centre[0], middle : middle + num]
                divide(lines[1], mass, centres, out[plane, place.out_top + row, to : to + num])


@inner
def take_in(source: Any, across: Any, neutral: Any, lines: Any, out: Any) -> None:
    """Put a source row, or its sum across, into a row of the ring; an invalid value becomes `neutral`."""
    if across.rows.size == 0:
        clean(source, neutral, out)
        return
    clean(source, neutral, lines[0])
    weigh(lines, across.rows, across, out[: source.size - across.offsets[-1]], lines[2])


@inner
def turn(rows: Any, row: Any, height: Any, which: Any) -> None:
    """Find the rows of the ring that the taps of an output row lie in."""
    for t in range(which.size):
        which[t] = (rows[t] + row) % height


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
def divide(total: Any, weights: Any, centre: Any, out: Any) -> None:
    for c in range(out.size):
        valid = (centre[c] - centre[c] == 0) & (weights[c] != 0)
        out[c] = total[c] / weights[c] if valid else np.nan


@inner
def weigh(rows: Any, which: Any, taps: Any, out: Any, part: Any) -> None:
    """Sum weights[t] * rows[which[t], offsets[t] + c] over the taps t into each element c of `out`."""
    num_taps, block = taps.weights.size, taps.block
    weigh_block(rows, which, taps.offsets, taps.weights, 0, min(block, num_taps), out)
    for t in range(block, num_taps, block):
        weigh_block(rows, which, taps.offsets, taps.weights, t, min(t + block, num_taps), part[: out.size])
        for c in range(out.size):
            out[c] += part[c]


@inner
def weigh_block(rows: Any, which: Any, offsets: Any, weights: Any, begin: Any, end: Any, out: Any) -> None:
    t = begin
    while t + 8 <= end:
        weigh_eight(rows, which, offsets, weights, t, t > begin, out)
        t += 8
    if t + 4 <= end:
        weigh_four(rows, which, offsets, weights, t, t > begin, out)
        t += 4
    if t + 2 <= end:
        weigh_two(rows, which, offsets, weights, t, t > begin, out)
        t += 2
    if t < end:
        weigh_one(rows, which, offsets, weights, t, t > begin, out)


@inner
def weigh_one(rows: Any, which: Any, offsets: Any, weights: Any, t: Any, more: Any, out: Any) -> None:
    r_a, o_a, w_a = np.uint64(which[t]), np.uint64(offsets[t]), weights[t]
    num = np.uint64(out.size)
    if more:
        for c in range(num):
            out[c] += rows[r_a, o_a + c] * w_a
    else:
        for c in range(num):
            out[c] = rows[r_a, o_a + c] * w_a


@inner
def weigh_two(rows: Any, which: Any, offsets: Any, weights: Any, t: Any, more: Any, out: Any) -> None:
    r_a, o_a, w_a = np.uint64(which[t]), np.uint64(offsets[t]), weights[t]
    r_b, o_b, w_b = np.uint64(which[t + 1]), np.uint64(offsets[t + 1]), weights[t + 1]
    num = np.uint64(out.size)
    if more:
        for c in range(num):
            out[c] += fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)
    else:
        for c in range(num):
            out[c] = fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)


@inner
def weigh_four(rows: Any, which: Any, offsets: Any, weights: Any, t: Any, more: Any, out: Any) -> None:
    r_a, o_a, w_a = np.uint64(which[t]), np.uint64(offsets[t]), weights[t]
    r_b, o_b, w_b = np.uint64(which[t + 1]), np.uint64(offsets[t + 1]), weights[t + 1]
    r_d, o_d, w_d = np.uint64(which[t + 2]), np.uint64(offsets[t + 2]), weights[t + 2]
    r_e, o_e, w_e = np.uint64(which[t + 3]), np.uint64(offsets[t + 3]), weights[t + 3]
    num = np.uint64(out.size)
    if more:
        for c in range(num):
            out[c] += fma(
                rows[r_e, o_e + c],
                w_e,
                fma(rows[r_d, o_d + c], w_d, fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)),
            )
    else:
        for c in range(num):
            out[c] = fma(
                rows[r_e, o_e + c],
                w_e,
                fma(rows[r_d, o_d + c], w_d, fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)),
            )


@inner
def weigh_eight(rows: Any, which: Any, offsets: Any, weights: Any, t: Any, more: Any, out: Any) -> None:
    r_a, o_a, w_a = np.uint64(which[t]), np.uint64(offsets[t]), weights[t]
    r_b, o_b, w_b = np.uint64(which[t + 1]), np.uint64(offsets[t + 1]), weights[t + 1]
    r_d, o_d, w_d = np.uint64(which[t + 2]), np.uint64(offsets[t + 2]), weights[t + 2]
    r_e, o_e, w_e = np.uint64(which[t + 3]), np.uint64(offsets[t + 3]), weights[t + 3]
    r_f, o_f, w_f = np.uint64(which[t + 4]), np.uint64(offsets[t + 4]), weights[t + 4]
    r_g, o_g, w_g = np.uint64(which[t + 5]), np.uint64(offsets[t + 5]), weights[t + 5]
    r_h, o_h, w_h = np.uint64(which[t + 6]), np.uint64(offsets[t + 6]), weights[t + 6]
    r_i, o_i, w_i = np.uint64(which[t + 7]), np.uint64(offsets[t + 7]), weights[t + 7]
    num = np.uint64(out.size)
    if more:
        for c in range(num):
            four = fma(
                rows[r_e, o_e + c],
                w_e,
                fma(rows[r_d, o_d + c], w_d, fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)),
            )
            out[c] += fma(
                rows[r_i, o_i + c],
                w_i,
                fma(rows[r_h, o_h + c], w_h, fma(rows[r_g, o_g + c], w_g, fma(rows[r_f, o_f + c], w_f, four))),
            )
    else:
        for c in range(num):
            four = fma(
                rows[r_e, o_e + c],
                w_e,
                fma(rows[r_d, o_d + c], w_d, fma(rows[r_b, o_b + c], w_b, rows[r_a, o_a + c] * w_a)),
            )
            out[c] = fma(
                rows[r_i, o_i + c],
                w_i,
                fma(rows[r_h, o_h + c], w_h, fma(rows[r_g, o_g + c], w_g, fma(rows[r_f, o_f + c], w_f, four))),
            )
