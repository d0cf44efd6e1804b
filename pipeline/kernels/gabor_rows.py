"""Responses of a group of separable filters, compiled: eight rows at a time, first down the columns, then along them.

The column sums of eight rows stay in the second-level cache, some columns of each term and response in the first.
Sums are float64, by the vectors of `gabor_vector`: a response takes half to two thirds of the time of loops over rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import Source, num_parts, part_of
from pipeline.kernels.gabor_vector import VECTOR, store_block, sum_along, sum_columns
from pipeline.kernels.window_part import scratch

L1_COLUMNS = 64
"""Columns that are combined at a time: eight rows of a few terms then fit the first-level cache."""


class Terms(NamedTuple):
    """The sums of products that filters are made of: see `pipeline.kernels.gabor.Group`."""

    down: Any
    across: Any
    columns: Any
    signs: Any
    magnitude: bool
    """A filter has two components, and its response is the root of the sum of their squares."""


class ResponseRows(NamedTuple):
    """What responses of eight rows are made in: (.., column x row)."""

    sums: Any
    """Down the columns, by column factor."""
    terms: Any
    components: Any
    results: Any


@kernel
def respond(values: Any, out: Any, terms: Any, place: Any, strip: Any) -> None:
    """Fill a part of `out` (filter, row, column) with the responses to `values` (row, column); inf counts as NaN.

    `values` hold the supports of eight columns at least; `strip` columns are computed at a time.
    """
    height, width = terms.down.shape[1], terms.across.shape[1]
    last = place.top + place.num_rows + height - 2
    rows = ResponseRows(
        scratch(terms.down.shape[0], (strip + width + VECTOR) * VECTOR, np.float64),
        scratch(terms.across.shape[0], L1_COLUMNS * VECTOR, np.float64),
        scratch(2, L1_COLUMNS * VECTOR, np.float64),
        scratch(1, L1_COLUMNS * VECTOR, out.dtype),
    )
    for k in range(num_parts(place, VECTOR, strip)):
        part = part_of(place, k, VECTOR, strip)
        sum_down(values, terms.down, part, last, max(part.num + width - 1, VECTOR), rows.sums)
        respond_rows(out, terms, part, rows)


@inner
def sum_down(values: Any, down: Any, part: Any, last: Any, num: Any, sums: Any) -> None:
    """Fill `sums` (column factor, column x row) for eight rows; the last block of columns may begin earlier."""
    for k in range(down.shape[0]):
        for c in range(0, num, VECTOR):
            start = min(c, num - VECTOR)
            sum_columns(values, part.top, last, part.left + start, down[k], down.shape[1], sums[k], start * VECTOR)


@inner
def respond_rows(out: Any, terms: Any, part: Any, rows: Any) -> None:
    """Sum along eight rows, add the terms up, and write the rows that are wanted."""
    across, columns, signs = terms.across, terms.columns, terms.signs
    for c in range(0, part.num, L1_COLUMNS):
        num = min(L1_COLUMNS, part.num - c)
        for k in range(across.shape[0]):
            for j in range(0, num, VECTOR):
                sums = rows.sums[columns[k]]
                sum_along(sums, (c + j) * VECTOR, across[k], across.shape[1], rows.terms[k], j * VECTOR)
        result, size = rows.results[0, : num * VECTOR], num * VECTOR
        real, imaginary = rows.components[0, :size], rows.components[1, :size]
        for k in range(out.shape[0]):
            if terms.magnitude:
                combine(rows.terms, signs[2 * k], real)
                combine(rows.terms, signs[2 * k + 1], imaginary)
                write_magnitude(real, imaginary, result)
            else:
                combine(rows.terms, signs[k], real)
                write(real, result)
            store(result, out[k], Source(part.out_top, part.out_left + c, part.num_rows, num))


@inner
def store(results: Any, out: Any, target: Any) -> None:
    """Write results (column x row) into rows of `out`."""
    row, column, num_rows, num = target
    whole = num // VECTOR * VECTOR if num_rows == VECTOR else 0
    for c in range(0, whole, VECTOR):
        store_block(results, c * VECTOR, out, row, column + c)
    for c in range(whole, num):
        for r in range(num_rows):
            out[row + r, column + c] = results[c * VECTOR + r]


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
