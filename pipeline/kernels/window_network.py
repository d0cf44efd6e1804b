"""Order statistics of small windows: a network of minima and maxima, each step on a whole row of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel


def row_span(num: int) -> int:
    """Return the distance of two rows of `num` keys: no multiple of 4 KiB, where loads would wait for stores."""
    return (num + 303) // 512 * 512 + 208


@kernel
def run_network(
    arena: Any,
    span: Any,
    steps: Any,
    results: Any,
    picks: Any,
    counts: Any,
    fractions: Any,
    shape: Any,
    low: Any,
    high: Any,
) -> None:
    """Fill low and high, (statistic, row, element), with the keys between which each statistic lies.

    `arena` holds rows of `span` keys: first those of the pixels (`shape`: rows of windows, elements, lanes, rows of a
    window; the network's inputs for window row i begin at row i), then the network's scratch. `picks` says for each
    statistic which two of the network's results are wanted; where it is empty, result k is the key of rank k, and the
    ranks follow from `counts` and `fractions`.
    """
    num_rows, num, lanes, height = shape
    scratch = num_rows + height - 1 - height  # a row number from `height` on is one of the scratch rows
    places = np.empty(results.shape[0], np.int64)
    for i in range(num_rows):
        for k in range(steps.shape[0]):
            a, a_shift, b, b_shift, least, most, further = steps[k]
            x = ((i if a < height else scratch) + a) * span + a_shift * lanes
            y = ((i if b < height else scratch) + b) * span + b_shift * lanes
            length = num + further * lanes
            if most < 0:
                minimum(arena, x, y, (scratch + least) * span, length)
            elif least < 0:
                maximum(arena, x, y, (scratch + most) * span, length)
            else:
                compare(arena, x, y, (scratch + least) * span, (scratch + most) * span, length)
        for k in range(results.shape[0]):
            row, shift = results[k]
            places[k] = ((i if row < height else scratch) + row) * span + shift * lanes
        for k in range(low.shape[0]):
            if picks.size:
                copy_from(arena, places[picks[k, 0]], low[k, i, :num])
                if picks[k, 0] != picks[k, 1]:
                    copy_from(arena, places[picks[k, 1]], high[k, i, :num])
            else:
                pick(arena, places, counts[i, :num], fractions[k], low[k, i, :num], high[k, i, :num])


# Rows are named by where they begin in one array, not as slices: five slices a step, counted references and all, take
# 100 ns, longer than the step itself. Unsigned places spare the compiler the case of negative ones.


@inner
def compare(arena: Any, a: Any, b: Any, least: Any, most: Any, num: Any) -> None:
    a, b, least, most = np.uint64(a), np.uint64(b), np.uint64(least), np.uint64(most)
    for c in range(np.uint64(num)):
        x, y = arena[a + c], arena[b + c]
        arena[least + c] = x if x < y else y
        arena[most + c] = y if x < y else x


@inner
def minimum(arena: Any, a: Any, b: Any, least: Any, num: Any) -> None:
    a, b, least = np.uint64(a), np.uint64(b), np.uint64(least)
    for c in range(np.uint64(num)):
        x, y = arena[a + c], arena[b + c]
        arena[least + c] = x if x < y else y


@inner
def maximum(arena: Any, a: Any, b: Any, most: Any, num: Any) -> None:
    a, b, most = np.uint64(a), np.uint64(b), np.uint64(most)
    for c in range(np.uint64(num)):
        x, y = arena[a + c], arena[b + c]
        arena[most + c] = y if x < y else x


@inner
def copy_from(arena: Any, place: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = arena[place + c]


@inner
def pick(arena: Any, places: Any, counts: Any, fraction: Any, low: Any, high: Any) -> None:
    """Pick the keys of the two ranks that the number of valid pixels asks for."""
    for c in range(low.size):
        position = max(counts[c] - 1, 0) * fraction
        rank = np.int64(position)
        low[c] = arena[places[rank] + c]
        high[c] = arena[places[rank + (position > rank)] + c]
