"""Counts of values by label, from which medians, percentiles, modes and varieties are selected: exact, of any dtype.

A value is a key in the order of the values (`order_key`), of digits of 16 bits; the first are the highest. A sweep
counts the next digit of those values that begin as a wanted one does, and `advance` finds in which one its rank lies:
radix selection, one sweep for 8 and 16 bits, two for 32, four for 64. A label has at most 65,536 rows for each band and
each beginning, however many pixels bear it.

Counts are whole numbers, so merging is associative and commutative to the bit.

Examples
--------
>>> import numpy as np
>>> slots, values = np.array([[0, 0, 0], [1, -1, 0]]), np.array([[[5, 2, 5], [7, 1, 3]]], np.uint8)
>>> known = np.zeros((2, 1, 1), np.uint64)
>>> counts = count_digits(slots, np.array([3, 8]), values, None, Patch((2, 3)), known, 0)
>>> counts["label"].tolist(), counts["digit"].tolist(), counts["count"].tolist()
([3, 3, 3, 3, 8, 8], [0, 2, 3, 5, 0, 7], [0, 1, 1, 2, 0, 1])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.frame import Patch
from pipeline.kernels.order_key import FLOAT, Elements, KeyRule, to_bits, to_keys
from pipeline.kernels.window_rank import between

_DIGIT_BITS = 16
_KEYS = ("label", "place", "digit")
"""By which rows are sorted."""
ROW_BYTES = 22
"""Of a table of counts: label, place, digit, count."""
_ALL_VALID = np.ones((0, 0, 0), bool)


def num_digits(dtype: np.dtype) -> int:
    """Return how many digits a value has."""
    return -(-8 * dtype.itemsize // _DIGIT_BITS)


def count_digits(
    slots: np.ndarray,
    labels: np.ndarray,
    values: np.ndarray,
    valid: np.ndarray | None,
    patch: Patch,
    known: np.ndarray,
    digit: int,
) -> dict[str, np.ndarray]:
    """Return how often which digit follows the known ones: columns `label`, `place`, `digit`, `count`, sorted.

    Parameters
    ----------
    slots
        (row, column) of the region, int64: whose of `labels` (sorted) a pixel is, -1 where it has none.
    values, valid
        Planes of any dtype, as `patch` says; `valid` is of their shape, or None. NaN and inf are not counted.
    known
        (label, band, wanted value) uint64: the digits known of each wanted value, of which there are `digit`.

    A row's place is band x wanted values + the first of the band that begins so. Every label of the region has a row of
    place -1 and count 0 besides, so that one without valid values is there.
    """
    rule, (height, width) = KeyRule.of(values.dtype), patch.shape
    num_bands, num_places = known.shape[1], known.shape[1] * known.shape[2]
    present = np.unique(slots)
    present = present[present >= 0]
    codes = np.empty(slots.size * num_bands + len(present), np.uint64)
    codes[: len(present)] = (present * (num_places + 1)).astype(np.uint64) << np.uint64(_DIGIT_BITS)
    num, shift = len(present), max(8 * values.dtype.itemsize - _DIGIT_BITS * (digit + 1), 0)
    keys, usable = np.empty((height, width), rule.dtype), np.empty((height, width), np.uint8)
    limits = rule.limits - np.array([0, rule.kind == FLOAT, 0], rule.dtype)  # infinities are not valid here
    for band in range(num_bands):
        plane, lane = divmod(band, patch.lanes)
        row, column = patch.values_at
        source = Elements(plane, row, column * patch.lanes + lane, height, width, patch.lanes)
        mask = _ALL_VALID if valid is None else valid
        to_keys(values.view(rule.dtype), mask, rule.kind, limits, source, keys, usable)
        if rule.kind == FLOAT:  # there is one zero only
            keys[keys == limits[0] - 1] = limits[0]
        num = _code(slots, keys, usable, known, (band, digit, shift), codes, num)
    return _rows(codes[:num], labels, num_places)


def _rows(codes: np.ndarray, labels: np.ndarray, num_places: int) -> dict[str, np.ndarray]:
    """Return a table of codes: each one's label, place, digit, and how often it is there."""
    codes.sort()
    firsts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])[: len(codes)])
    counts, found = np.diff(np.append(firsts, len(codes))), codes[firsts]
    slots, places = np.divmod((found >> np.uint64(_DIGIT_BITS)).astype(np.int64), num_places + 1)
    counts[places == 0] = 0
    digits = (found & np.uint64(2**_DIGIT_BITS - 1)).astype(np.uint16)
    return {"label": labels[slots], "place": (places - 1).astype(np.int32), "digit": digits, "count": counts}


@kernel
def _code(slots: Any, keys: Any, usable: Any, known: Any, at: Any, codes: Any, num: Any) -> Any:
    """Append a number for each valid value of a band that begins as a wanted one does: its slot, place and digit."""
    band, digit, shift = at
    num_bands, num_wanted = known.shape[1], known.shape[2]
    for i in range(slots.shape[0]):
        for j in range(slots.shape[1]):
            slot = slots[i, j]
            if slot < 0 or not usable[i, j]:
                continue
            rest = np.uint64(keys[i, j]) >> np.uint64(shift)
            wanted = 0
            if digit > 0:
                wanted = first_alike(known[slot, band], rest >> np.uint64(16))
                if wanted == num_wanted:
                    continue
            place = slot * (num_bands * num_wanted + 1) + 1 + band * num_wanted + wanted
            codes[num] = np.uint64(place) << np.uint64(16) | rest & np.uint64(0xFFFF)
            num += 1
    return num


@inner
def first_alike(known: Any, beginning: Any) -> Any:
    """Return the first place of a beginning, their number if it is not there."""
    place = 0
    while place < known.size and known[place] != beginning:
        place += 1
    return place


def merge_counts(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return one table of two; associative and commutative."""
    num = len(first["label"]) + len(second["label"])
    out = {name: np.empty(num, first[name].dtype) for name in (*_KEYS, "count")}
    a, b, to = (tuple(table[name] for name in _KEYS) for table in (first, second, out))
    found = _merge_rows(a, b, to, first["count"], second["count"], out["count"])
    return {name: column[:found] for name, column in out.items()}


@kernel
def _merge_rows(a: Any, b: Any, to: Any, a_count: Any, b_count: Any, count: Any) -> int:
    i, j, num = 0, 0, 0
    while i < a_count.size or j < b_count.size:
        order = compare_rows(a, i, b, j)
        k = 0
        if order <= 0:
            to[0][num], to[1][num], to[2][num] = a[0][i], a[1][i], a[2][i]
            k = a_count[i]
            i += 1
        if order >= 0:
            to[0][num], to[1][num], to[2][num] = b[0][j], b[1][j], b[2][j]
            k += b_count[j]
            j += 1
        count[num] = k
        num += 1
    return num


@inner
def compare_rows(a: Any, i: Any, b: Any, j: Any) -> Any:
    """Return -1, 0 or 1 as row i of a comes before, with or after row j of b; what is at its end comes last."""
    if i == a[0].size or j == b[0].size:
        return 1 if i == a[0].size else -1
    if a[0][i] != b[0][j]:
        return -1 if a[0][i] < b[0][j] else 1
    if a[1][i] != b[1][j]:
        return -1 if a[1][i] < b[1][j] else 1
    if a[2][i] != b[2][j]:
        return -1 if a[2][i] < b[2][j] else 1
    return 0


def wanted_ranks(counts: np.ndarray, fractions: tuple[float, ...]) -> np.ndarray:
    """Return the ranks between which the statistics lie: (label, band, 2 x fraction) int64, -1 without valid values.

    Of n values that of fraction f lies at (n - 1) f, counted from 0, linearly between its neighbours.
    """
    positions = np.maximum(counts - 1, 0)[..., None] * np.array(fractions)
    ranks = np.stack([np.floor(positions), np.ceil(positions)], -1).astype(np.int64)
    ranks[counts == 0] = -1
    return ranks.reshape(*counts.shape, 2 * len(fractions))


def advance(table: Mapping[str, np.ndarray], known: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the wanted values with a digit more, and their ranks among those that begin so.

    `table` is the merged one of all pixels, whose labels are those of `known` and `ranks` (label, band, wanted value).
    """
    chosen, rest = np.zeros_like(known), ranks.copy()
    starts = np.append(np.flatnonzero(table["place"] < 0), len(table["place"]))
    _advance(starts, table["place"], table["digit"], table["count"], known, chosen, rest)
    return chosen, rest


@kernel
def _advance(starts: Any, places: Any, digits: Any, counts: Any, known: Any, chosen: Any, ranks: Any) -> None:
    num_labels, num_bands, num_wanted = known.shape
    for label in range(num_labels):
        for band in range(num_bands):
            for wanted in range(num_wanted):
                rank = ranks[label, band, wanted]
                place = band * num_wanted + first_alike(known[label, band], known[label, band, wanted])
                low, end = starts[label], starts[label + 1]
                high = end
                while low < high:
                    middle = (low + high) >> 1
                    if places[middle] < place:
                        low = middle + 1
                    else:
                        high = middle
                while low + 1 < end and rank >= counts[low]:
                    rank -= counts[low]
                    low += 1
                if rank >= 0 and low < end:
                    ranks[label, band, wanted] = rank
                    chosen[label, band, wanted] = known[label, band, wanted] << np.uint64(16) | np.uint64(digits[low])


def modes_and_varieties(
    table: Mapping[str, np.ndarray], shape: tuple[int, int, int], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most frequent value, of equals the smallest, and the number of different values, by label and band.

    Of values of one digit; `shape` is that of what is known (label, band, wanted value).
    """
    keys, varieties = np.zeros(shape[:2], np.uint64), np.zeros(shape[:2], np.int64)
    starts = np.append(np.flatnonzero(table["place"] < 0), len(table["place"]))
    _most_frequent(starts, table["place"], table["digit"], table["count"], shape[2], keys, varieties)
    return _values(keys, dtype), varieties


@kernel
def _most_frequent(
    starts: Any, places: Any, digits: Any, counts: Any, num_wanted: Any, keys: Any, varieties: Any
) -> None:
    most = np.zeros(keys.shape[1], np.int64)
    for label in range(keys.shape[0]):
        most[:] = 0
        for row in range(starts[label] + 1, starts[label + 1]):
            band = places[row] // num_wanted
            varieties[label, band] += 1
            if counts[row] > most[band]:
                most[band] = counts[row]
                keys[label, band] = digits[row]


def interpolated(known: np.ndarray, counts: np.ndarray, fractions: tuple[float, ...], dtype: np.dtype) -> np.ndarray:
    """Return the statistics of whole keys: (label, band, fraction) float64, NaN without valid values."""
    values = _values(known, dtype).astype(np.float64)
    out = np.empty((*counts.shape, len(fractions)), np.float64)
    if out.size:
        _interpolate(values, counts, np.array(fractions), out)
    return out


@kernel
def _interpolate(values: Any, counts: Any, fractions: Any, out: Any) -> None:
    for label in range(out.shape[0]):
        for band in range(out.shape[1]):
            count = counts[label, band]
            for k in range(fractions.size):
                position = (count - 1) * fractions[k]
                low, high = values[label, band, 2 * k], values[label, band, 2 * k + 1]
                value = between(low, high, position - np.floor(position))
                out[label, band, k] = value if count > 0 else np.nan


def _values(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    rule = KeyRule.of(dtype)
    bits = keys.astype(rule.dtype)
    to_bits(rule.kind, rule.limits, bits.reshape(-1))
    return bits.view(dtype)
