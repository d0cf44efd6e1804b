"""What the kernels of windows share: the rule of a window, what a part of a place reads, and invalid values in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner, owning
from pipeline.kernels.frame import Line, Source

L1_ELEMENTS = 1024
"""Elements that are summed down at a time: a few rows of them fit the first-level cache."""


class Rule(NamedTuple):
    """A window, for kernels."""

    height: int
    width: int
    row: int
    """Row and column of the centre in the window."""
    column: int
    lanes: int
    min_valid: int
    """A window with fewer valid pixels has an invalid result."""
    fill_invalid: bool
    """Whether an invalid centre gets a result from its valid neighbours."""


class Cleaned(NamedTuple):
    """Rows of values as they are summed where some are invalid; untouched where none is."""

    values: Any
    """With a neutral value for invalid ones."""
    usable: Any
    """int32: 1 or 0 for valid or not."""


@inner
def support(part: Any, rule: Any) -> Any:
    """Return what the windows of a part read."""
    return Source(part.top, part.left, part.num_rows + rule.height - 1, part.num + (rule.width - 1) * rule.lanes)


@inner
def moved_to_origin(source: Any) -> Any:
    """Return a part of as many rows and elements that begins where `Cleaned` rows do."""
    return Source(0 * source.top, 0 * source.left, source.num_rows, source.num)  # literals would compile all anew


@inner
def line_of(part: Any, plane: Any, i: Any) -> Any:
    """Return where row i of a part is written."""
    return Line(plane, part.out_top + i, part.out_left, part.num)


@owning
def scratch(num_rows: Any, num: Any, dtype: Any) -> Any:
    """Return empty rows of at least `num` elements that begin at cache lines: half the time for some loops.

    Their distance is no multiple of 4 KiB, where loads would wait for stores to other rows.
    """
    span = (num + 303) // 512 * 512 + 208
    buffer = np.empty(num_rows * span + 64, dtype)
    start = (-buffer.ctypes.data % 64) // buffer.itemsize
    return buffer[start : start + num_rows * span].reshape(num_rows, span)


@inner
def holds_invalid(values: Any, valid: Any, finite: Any, source: Any) -> bool:
    """Whether a part of a plane holds an invalid value; infinities are, if only `finite` values are valid."""
    left, num = source.left, source.num
    for i in range(source.top, source.top + source.num_rows):
        row = values[i, left : left + num]
        found = False
        if finite:
            for c in range(num):
                found |= row[c] - row[c] != 0
        else:
            for c in range(num):
                found |= row[c] != row[c]
        if valid.size:
            mask = valid[0, i, left : left + num]
            for c in range(num):
                found |= not mask[c]
        if found:
            return True
    return False


@inner
def clean_rows(values: Any, valid: Any, finite: Any, source: Any, neutral: Any, cleaned: Any) -> None:
    """Copy a part of a plane with `neutral` for invalid values, and 1 or 0 for valid or not: see `Cleaned`."""
    top, left, num_rows, num = source
    for i in range(num_rows):
        row = values[top + i, left : left + num]
        to = cleaned.values[i, :num]
        ok = cleaned.usable[i, :num]
        if finite:
            for c in range(num):
                ok[c] = row[c] - row[c] == 0
        else:
            for c in range(num):
                ok[c] = row[c] == row[c]
        if valid.size:
            mask = valid[0, top + i, left : left + num]
            for c in range(num):
                ok[c] &= mask[c]
        for c in range(num):
            to[c] = row[c] if ok[c] else neutral
