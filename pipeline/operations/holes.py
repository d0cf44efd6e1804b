"""Holes: regions without objects, amid pixels of one value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.kernels.components import Numbered, number, number_bytes
from pipeline.kernels.contact import CONTACT_BYTES, all_contacts

FILL_BYTES = CONTACT_BYTES + 2 * number_bytes(1) + 64
"""What `filled` takes of a pixel at most."""


def number_all(values: np.ndarray, inside: np.ndarray, diagonal: bool) -> tuple[Numbered, int]:
    """Number the objects of a part, and behind them its regions without, which hang together the other way.

    Return how many are objects as well. Of two kinds of pixels that meet at a corner, one alone hangs together there.
    """
    found, holes = number(values, inside, diagonal), number(np.zeros(inside.shape, np.uint8), ~inside, not diagonal)
    num = len(found.first)
    np.add(holes.labels, num, out=found.labels, where=~inside)
    first, pixels = (np.concatenate(each) for each in ((found.first, holes.first), (found.pixels, holes.pixels)))
    return Numbered(found.labels, first, pixels), num


def filled(
    values: np.ndarray, inside: np.ndarray, all_of: tuple[Numbered, int], size: int, known: Iterable[tuple]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a part and which pixels count, holes filled with the value around them.

    `all_of` is what `number_all` returns. Of regions at the rim of the part, `known` has which are filled (labels, and
    whether); what it does not have is not.
    """
    found, num = all_of
    first, second = all_contacts(found.labels)
    of_both = (first <= num) & (second > num)
    hole, around = second[of_both], values.reshape(-1)[found.first[first[of_both] - 1]]
    is_filled = np.append(False, found.pixels < size) & is_alike(hole, bits_of(around), len(found.first) + 1)
    for line in np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]:
        is_filled[found.labels[line]] = False
    for labels, are_filled in known:
        is_filled[labels] = are_filled
    is_filled[: num + 1] = False
    value = np.zeros(len(is_filled), values.dtype)
    value[hole] = around
    changed = is_filled[found.labels]
    return np.where(changed, value[found.labels], values), inside | changed


def is_alike(holes: np.ndarray, values: np.ndarray, num: int) -> np.ndarray:
    """Return for each of so many holes whether it occurs, and each time with the same value (int64)."""
    ends = np.iinfo(np.int64)
    low, high = np.full(num, ends.max), np.full(num, ends.min)
    np.minimum.at(low, holes, values)
    np.maximum.at(high, holes, values)
    found: np.ndarray = low == high
    return found


def bits_of(values: np.ndarray) -> np.ndarray:
    """Return values as int64 that are equal where the values are."""
    if values.dtype.kind == "f":
        return (values.astype(np.float64) + 0.0).view(np.int64)  # -0 is 0
    return values.astype(np.int64)
