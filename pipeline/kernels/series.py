"""The kernels of composites: the values that a pixel has in a series of bands, many pixels at a time.

A tile of a series lies in one flat array: a row of `span` elements for each band, whose first elements are the tile's
pixels; `usable`, too, has a row for each band, of as many elements as there are pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import fma, inner, kernel
from pipeline.kernels.order_key import Elements, to_keys

LEAST, GREATEST, FIRST, LAST = range(4)
HUGE = 540
"""Deviations are scaled by 2 to this power, or its inverse, where their squares would leave float64."""
TINY_SQUARES = 1e-280


@kernel
def read_series(
    bits: Any, valid: Any, kind: Any, limits: Any, places: Any, source: Any, span: Any, arena: Any, usable: Any
) -> int:
    """Copy a tile of some bands as keys (see `order_key.to_keys`); return how many are invalid.

    `places` are the bands: (band, 2), the plane of each and where in a pixel it lies. `source` is the tile in plane 0.
    """
    num = source.num_rows * source.num
    invalid = 0
    for k in range(places.shape[0]):
        plane, at = places[k]
        part = Elements(plane, source.top, source.left + at, source.num_rows, source.num, source.step)
        keys = arena[k * span : k * span + num].reshape(source.num_rows, source.num)
        ok = usable[k * num : (k + 1) * num].reshape(source.num_rows, source.num)
        invalid += to_keys(bits, valid, kind, limits, part, keys, ok)
    return invalid


@kernel
def pick_keys(arena: Any, span: Any, usable: Any, which: Any, out: Any) -> None:
    """Fill `out` with the least, greatest, first or last usable key of each pixel; any, where none is usable."""
    num = out.size
    num_bands = usable.size // num
    out[:] = arena[:num]
    for k in range(num_bands):
        band = num_bands - 1 - k if which == 2 else k  # the last that is written stays
        pick_of_band(arena, band * span, usable, band * num, which, k == 0, out)


@inner
def pick_of_band(arena: Any, row: Any, usable: Any, at: Any, which: Any, is_first: Any, out: Any) -> None:
    row, at = np.uint64(row), np.uint64(at)
    num = np.uint64(out.size)
    if which == 0:  # the key of an invalid value is the greatest
        for c in range(num):
            out[c] = min(out[c], arena[row + c])
    elif which == 1:
        for c in range(num):
            key = arena[row + c] if usable[at + c] else arena[row + c] ^ arena[row + c]
            out[c] = key if is_first else max(out[c], key)
    else:
        for c in range(num):
            key, before = arena[row + c], out[c]  # both are loaded: without branches, which validity makes random
            out[c] = key if usable[at + c] else before


@kernel
def series_moments(values: Any, span: Any, usable: Any, counts: Any, means: Any, deviations: Any) -> None:
    """Fill the number of finite values of each pixel, their mean, and the square root of their mean square about it.

    Sums go in the order of the bands, in float64 with the error of each addition kept (Knuth's two-sum), so that
    results are as good as rounded once, however long the series. Where `deviations` is empty, there are none.
    """
    num = counts.size
    totals, rests = np.zeros(num), np.zeros(num)
    counts[:] = 0
    for k in range(usable.size // num):
        add_band(values, k * span, usable, k * num, counts, totals, rests)
    for c in range(num):
        means[c] = quotient(totals[c], rests[c], counts[c])
        if counts[c] and not np.isfinite(means[c]):
            means[c] = mean_of_pixel(values, span, usable, num, c, counts[c])
    if deviations.size == 0:
        return
    totals[:] = 0
    rests[:] = 0
    lean = np.zeros(num)
    for k in range(usable.size // num):
        add_squares(values, k * span, usable, k * num, means, totals, rests, lean)
    for c in range(num):
        squares = totals[c] + rests[c]
        if counts[c] > 1 and not TINY_SQUARES < squares < np.inf:
            deviations[c] = deviation_of_pixel(values, span, usable, num, c, counts[c], means[c])
        else:
            deviations[c] = np.sqrt(max(squares - lean[c] / counts[c] * lean[c], 0.0) / counts[c])


@inner
def add_band(values: Any, row: Any, usable: Any, at: Any, counts: Any, totals: Any, rests: Any) -> None:
    row, at = np.uint64(row), np.uint64(at)
    for c in range(np.uint64(counts.size)):
        value = np.float64(values[row + c])
        ok = (usable[at + c] != 0) & (value - value == 0.0)
        value = value if ok else np.float64(0)
        counts[c] += ok
        totals[c], rests[c] = add(totals[c], rests[c], value)


@inner
def add_squares(values: Any, row: Any, usable: Any, at: Any, means: Any, totals: Any, rests: Any, lean: Any) -> None:
    row, at = np.uint64(row), np.uint64(at)
    for c in range(np.uint64(means.size)):
        value = np.float64(values[row + c])
        ok = (usable[at + c] != 0) & (value - value == 0.0)
        value = value - means[c] if ok else np.float64(0)
        lean[c] += value  # 0 but for the rounding of the mean
        totals[c], rests[c] = add(totals[c], rests[c], value * value)


@inner
def add(total: Any, rest: Any, value: Any) -> Any:
    """Return total + value as it is rounded, and the rest with the error of that."""
    rounded = total + value
    part = rounded - total
    return rounded, rest + ((total - (rounded - part)) + (value - part))


@inner
def quotient(total: Any, rest: Any, count: Any) -> Any:
    """Divide total + rest, by the remainder: a constant series has exactly its value as the mean."""
    first = total / count
    return first + (fma(-first, np.float64(count), total) + rest) / count


@inner
def mean_of_pixel(values: Any, span: Any, usable: Any, num: Any, c: Any, count: Any) -> Any:
    """Return the mean of values whose sum overflows."""
    scale = 2.0**-60
    total = rest = 0.0
    for k in range(usable.size // num):
        value = np.float64(values[k * span + c])
        if (usable[k * num + c] != 0) & (value - value == 0.0):
            total, rest = add(total, rest, value * scale)
    return quotient(total, rest, count) / scale


@inner
def deviation_of_pixel(values: Any, span: Any, usable: Any, num: Any, c: Any, count: Any, mean: Any) -> Any:
    """Return the deviation of values whose squares overflow or vanish: what is large is made small, and the reverse."""
    widest = 0.0
    for k in range(usable.size // num):
        value = np.float64(values[k * span + c])
        if (usable[k * num + c] != 0) & (value - value == 0.0):
            widest = max(widest, np.abs(value * 0.5 - mean * 0.5))
    if widest == 0.0:
        return 0.0
    before = 2.0**-HUGE if widest > 1.0 else 1.0
    after = 1.0 if widest > 1.0 else 2.0**HUGE
    squares = 0.0
    for k in range(usable.size // num):
        value = np.float64(values[k * span + c])
        if (usable[k * num + c] != 0) & (value - value == 0.0):
            part = (value * before - mean * before) * after
            squares += part * part
    return np.sqrt(squares / count) / after / before


@kernel
def keep_better(values: Any, entry: Any, sign: Any, top: Any, left: Any, best: Any, chosen: Any) -> None:
    """Take the values of an entry, a part (row, column) that begins at `top`, `left`, where they are larger than all
    before times `sign`, or the first that are none of NaN; `chosen` is -1 where there is none yet.
    """
    for i in range(values.shape[0]):
        for c in range(values.shape[1]):
            value = values[i, c] * sign
            if value > best[top + i, left + c] or (chosen[top + i, left + c] < 0 and value == value):
                best[top + i, left + c] = value
                chosen[top + i, left + c] = entry


@kernel
def take_chosen(
    values: Any, valid: Any, chosen: Any, places: Any, source: Any, fill: Any, out: Any, target: Any
) -> None:
    """Copy to the elements `target` of `out` what the chosen entry of each pixel has; `fill` where that is invalid.

    `places` are the bands by entry, (entry, 2), as in `read_series`; `source` is the tile in plane 0.
    """
    for i in range(target.num_rows):
        for c in range(target.num):
            entry = max(chosen[i, c], 0)
            plane, at = places[entry]
            row, element = source.top + i, source.left + c * source.step + at
            is_valid = valid.size == 0 or valid[plane, row, element]
            to = target.left + c * target.step
            if chosen[i, c] >= 0 and is_valid:
                out[target.plane, target.top + i, to] = values[plane, row, element]
            else:
                out[target.plane, target.top + i, to] = fill
