"""Responses of a group of separable filters, compiled: row by row, first down the columns, then along the row.

A row of each column factor's sums, of each term and of each response stays in the first two levels of cache. Sums
are float64; where that is proved to be exact enough (`pipeline.kernels.gabor`), those down the columns are float32
within groups of eight taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.window_sum import scratch


@kernel
def respond(
    values: Any, out: Any, down: Any, across: Any, columns: Any, signs: Any, magnitude: Any, place: Any, size: Any
) -> None:
    """Fill a part of `out` (filter, row, column) with the responses to `values` (row, column); inf counts as NaN.

    Parameters
    ----------
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
    reach, strip = size[1] - 1, size[2]
    sums = scratch(down.shape[0], strip + reach, np.float64)
    terms = scratch(across.shape[0], strip, np.float64)
    parts = scratch(2, strip, np.float64)
    flat, stride = values.reshape(-1), values.shape[1]
    one = size[0] // size[0]  # as a literal 1 numba would compile another `weigh` for it
    for left in range(0, length, strip):
        num = min(strip, length - left)
        for row in range(rows):
            start = (first + row) * stride + begin + left
            for k in range(down.shape[0]):
                weigh(flat[start:], stride, size[0], down[k], sums[k, : num + reach])
            for k in range(across.shape[0]):
                weigh(sums[columns[k]], one, size[1], across[k], terms[k, :num])
            for k in range(out.shape[0]):
                to = out[k, out_row + row, out_begin + left : out_begin + left + num]
                if magnitude:
                    combine(terms, signs[2 * k], parts[0, :num])
                    combine(terms, signs[2 * k + 1], parts[1, :num])
                    write_magnitude(parts[0], parts[1], to)
                else:
                    combine(terms, signs[k], parts[0, :num])
                    write(parts[0], to)


@inner
def weigh(row: Any, step: Any, size: Any, weights: Any, out: Any) -> None:
    """Sum weights[k] * row[k * step + c] over the first `size` taps k into each element c of `out`.

    Taps come in groups of eight, the last perhaps of four. Weights beyond `size` are 0 and weigh the last tap once
    more, so that NaN comes from the support alone.
    """
    whole = weights.size // 8 * 8
    for k in range(0, whole, 8):
        weigh_eight(row, step, k, size - 1, weights[k : k + 8], out)
    if whole < weights.size:
        weigh_four(row, step, whole, size - 1, weights[whole:], out)


@inner
def weigh_four(row: Any, step: Any, k: Any, last: Any, weights: Any, out: Any) -> None:
    """Sum four taps from k on, in two chains of two: see `weigh_eight`."""
    a, b = row[k * step :], row[min(k + 1, last) * step :]
    d, e = row[min(k + 2, last) * step :], row[min(k + 3, last) * step :]
    w_a, w_b, w_d, w_e = weights[0], weights[1], weights[2], weights[3]
    number = weights.dtype.type
    if k == 0:
        for c in range(out.size):
            odd = fma(number(e[c]), w_e, number(b[c]) * w_b)
            out[c] = fma(number(d[c]), w_d, number(a[c]) * w_a) + odd
    else:
        for c in range(out.size):
            odd = fma(number(e[c]), w_e, number(b[c]) * w_b)
            out[c] += np.float64(fma(number(d[c]), w_d, number(a[c]) * w_a) + odd)


@inner
def weigh_eight(row: Any, step: Any, k: Any, last: Any, weights: Any, out: Any) -> None:
    """Sum eight taps from k on, in two chains of four; the first group begins a sum, the others add to it.

    The chains have the dtype of the weights: `pipeline.kernels.gabor.single_error` bounds the errors of float32.
    """
    a, b = row[k * step :], row[min(k + 1, last) * step :]
    d, e = row[min(k + 2, last) * step :], row[min(k + 3, last) * step :]
    f, g = row[min(k + 4, last) * step :], row[min(k + 5, last) * step :]
    h, i = row[min(k + 6, last) * step :], row[min(k + 7, last) * step :]
    w_a, w_b, w_d, w_e = weights[0], weights[1], weights[2], weights[3]
    w_f, w_g, w_h, w_i = weights[4], weights[5], weights[6], weights[7]
    number = weights.dtype.type
    if k == 0:
        for c in range(out.size):
            even = fma(number(d[c]), w_d, number(a[c]) * w_a)
            odd = fma(number(e[c]), w_e, number(b[c]) * w_b)
            even, odd = fma(number(f[c]), w_f, even), fma(number(g[c]), w_g, odd)
            out[c] = fma(number(h[c]), w_h, even) + fma(number(i[c]), w_i, odd)
    else:
        for c in range(out.size):
            even = fma(number(d[c]), w_d, number(a[c]) * w_a)
            odd = fma(number(e[c]), w_e, number(b[c]) * w_b)
            even, odd = fma(number(f[c]), w_f, even), fma(number(g[c]), w_g, odd)
            out[c] += np.float64(fma(number(h[c]), w_h, even) + fma(number(i[c]), w_i, odd))


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
