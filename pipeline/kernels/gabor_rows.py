"""Responses of a group of separable filters, compiled: eight rows at a time, first down the columns, then along them.

The column sums of eight rows stay in the second-level cache, a chunk of each term and of each response in the first.
Sums are float64, by the vectors of `gabor_vector`: a response takes half to two thirds of the time of loops over rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.gabor_vector import LANES, store_block, sum_along, sum_columns
from pipeline.kernels.window_sum import scratch

CHUNK = 64
"""Columns that are combined at a time: eight rows of a few terms then fit the first-level cache."""


@kernel
def respond(
    values: Any, out: Any, down: Any, across: Any, columns: Any, signs: Any, magnitude: Any, place: Any, size: Any
) -> None:
    """Fill a part of `out` (filter, row, column) with the responses to `values` (row, column); inf counts as NaN.

    Parameters
    ----------
    values
        It holds the supports of eight columns at least.
    down, across, columns, signs
        See `pipeline.kernels.gabor.Group`.
    magnitude
        A filter has two components, and its response is the root of the sum of their squares.
    place
        First row and column of the supports in `values`, rows and columns to compute, first row and column in `out`.
    size
        Rows and columns of the kernels, and the columns that are computed at a time.
    """
    first, begin, rows, length, out_row, out_begin = place
    height, width, strip = size
    last = first + rows + height - 2
    sums = scratch(down.shape[0], (strip + width + LANES) * LANES, np.float64)
    terms, parts = scratch(across.shape[0], CHUNK * LANES, np.float64), scratch(2, CHUNK * LANES, np.float64)
    results = scratch(1, CHUNK * LANES, out.dtype)
    for left in range(0, length, strip):
        num = min(strip, length - left)
        for row in range(0, rows, LANES):
            source = (first + row, last, begin + left, max(num + width - 1, LANES))
            at = (out_row + row, out_begin + left, min(LANES, rows - row), num)
            sum_down(values, down, height, source, sums)
            respond_rows(sums, out, across, width, columns, signs, magnitude, at, terms, parts, results)


@inner
def sum_down(values: Any, down: Any, height: Any, source: Any, sums: Any) -> None:
    """Fill `sums` (column factor, column x row) for eight rows; the last block of columns may begin earlier."""
    first, last, begin, num = source
    for k in range(down.shape[0]):
        for c in range(0, num, LANES):
            start = min(c, num - LANES)
            sum_columns(values, first, last, begin + start, down[k], height, sums[k], start * LANES)


@inner
def respond_rows(
    sums: Any,
    out: Any,
    across: Any,
    width: Any,
    columns: Any,
    signs: Any,
    magnitude: Any,
    at: Any,
    terms: Any,
    parts: Any,
    results: Any,
) -> None:
    """Sum along eight rows, add the terms up, and write the rows that are wanted."""
    row, column, num_rows, length = at
    for c in range(0, length, CHUNK):
        num = min(CHUNK, length - c)
        for k in range(across.shape[0]):
            for j in range(0, num, LANES):
                sum_along(sums[columns[k]], (c + j) * LANES, across[k], width, terms[k], j * LANES)
        result, real, imaginary = results[0, : num * LANES], parts[0, : num * LANES], parts[1, : num * LANES]
        for k in range(out.shape[0]):
            if magnitude:
                combine(terms, signs[2 * k], real)
                combine(terms, signs[2 * k + 1], imaginary)
                write_magnitude(real, imaginary, result)
            else:
                combine(terms, signs[k], real)
                write(real, result)
            store(result, out[k], (row, column + c, num_rows, num))


@inner
def store(results: Any, out: Any, at: Any) -> None:
    """Write results (column x row) into rows of `out`."""
    row, column, num_rows, num = at
    whole = num // LANES * LANES if num_rows == LANES else 0
    for c in range(0, whole, LANES):
        store_block(results, c * LANES, out, row, column + c)
    for c in range(whole, num):
        for r in range(num_rows):
            out[row + r, column + c] = results[c * LANES + r]


@inner
def combine(terms: Any, signs: Any, out: Any) -> None:
    """Add the terms of a component, each with its sign; it has one at least."""
    begun = False
    for k in range(signs.size):
        term, sign = terms[k], signs[k]
        if sign != 0 and begun:
            for c in range(out.size):
                out[c] += term[c] * sign
        elif sign != 0:
            begun = True
            for c in range(out.size):
                out[c] = term[c] * sign


@inner
def write(row: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = row[c] if row[c] - row[c] == 0 else np.nan


@inner
def write_magnitude(real: Any, imaginary: Any, out: Any) -> None:
    for c in range(out.size):
        value = np.sqrt(real[c] * real[c] + imaginary[c] * imaginary[c])
        out[c] = value if value - value == 0 else np.nan


@kernel
def interleave(results: Any, out: Any, place: Any) -> None:
    """Write (filter, row, column) into bands that lie side by side: `out` is (row, column, band).

    `place` is the first row, column and band in `out`.
    """
    row, column, band = place
    for i in range(results.shape[1]):
        for c in range(results.shape[2]):
            to = out[row + i, column + c]
            for k in range(results.shape[0]):
                to[band + k] = results[k, i, c]
