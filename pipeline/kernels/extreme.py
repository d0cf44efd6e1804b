"""Results from the ends of float64's range: computed again from values that are scaled by a power of two.

Sums of the largest numbers overflow where their mean is a number; squares of 1e200 do, and those of 1e-200 vanish. What
is computed from values times 2**-600 or 2**600 and scaled back is the same but for what overflows or vanishes, so it
stands in for results that are not finite, and for squares that are next to nothing. Which these are, and what they
become, depends on the pixels in their windows alone: not on the block. Blocks without such values, as one look tells,
are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.frame import Frame, Source
from pipeline.model.region import Halo, Region

SHIFT = 600
"""Scaled by 2**600 up or down, squares of numbers at an end of the range lie well within it."""
LARGE, SMALL = 2.0**450, 2.0**-350
"""Between these, no square of a value overflows, nor does that of a difference of two vanish."""
TINY = {1: 2.0**-450, 2: 2.0**-900}
"""Roots of squares, and squares, that are computed again."""
TILE_ROWS, TILE_ELEMENTS = 32, 4096
"""Rows and elements of a row that are computed again at a time."""
_MAGNITUDE = np.int64(2**63 - 1)
_INFINITY = np.int64(0x7FF << 52)
_BOUNDS = np.array([LARGE, SMALL]).view(np.int64)

Compute = Callable[[np.ndarray, Mapping[str, np.ndarray], Frame, float], None]
"""Fills outputs over the region of a frame, from values that have been multiplied by a factor."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How outputs grow with the values."""

    powers: Mapping[str, int]
    """Output -> the power of the factor by which it grows."""
    squares: frozenset[str] = frozenset()
    """Outputs that are made of squares."""


def mend(
    compute: Compute, values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, reach: Halo, growth: Growth
) -> None:
    """Compute again what has overflowed or vanished in `out`, which `compute` has filled.

    `values` are planes, of as many bands as those of `out` or one. Nothing is done for other dtypes than float64.
    """
    if values.dtype != np.float64:
        return
    for plane in range(len(values)):
        own = {name: array[plane : plane + 1] if len(values) > 1 else array for name, array in out.items()}
        _mend_plane(compute, values[plane : plane + 1], own, frame, reach, growth)


def _mend_plane(
    compute: Compute, values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, reach: Halo, growth: Growth
) -> None:
    if not any(_ends(values, frame, reach)):
        return
    squares = {name: array for name, array in out.items() if name in growth.squares}
    region, columns = frame.region, max(1, TILE_ELEMENTS // frame.lanes)
    for top in range(region.top, region.bottom, TILE_ROWS):
        for left in range(region.left, region.right, columns):
            region_of_tile = Region(top, min(top + TILE_ROWS, region.bottom), left, min(left + columns, region.right))
            tile = replace(frame, region=region_of_tile)
            is_large, is_small = _ends(values, tile, reach)
            if is_large:
                _compute_again(compute, values, out, tile, reach, growth, -SHIFT)
            if is_small and squares:
                _compute_again(compute, values, squares, tile, reach, growth, SHIFT)


def _compute_again(
    compute: Compute,
    values: np.ndarray,
    out: Mapping[str, np.ndarray],
    frame: Frame,
    reach: Halo,
    growth: Growth,
    shift: int,
) -> None:
    """Compute a tile from values times 2**shift; take what was not finite, or with larger values what was tiny."""
    tile, need = frame.region, frame.region.grow(reach)
    shape = tile.height, tile.width * frame.lanes
    again = {name: np.empty((len(array), *shape)) for name, array in out.items()}
    with np.errstate(all="ignore"):
        scaled = values[frame.slices(reach)] * 2.0**shift
        own = Frame(tile, (need.top, need.left), (tile.top, tile.left), frame.lanes)
        compute(scaled, again, own, 2.0**shift)
        for name, array in out.items():
            target, found, power = array[frame.out_slices], again[name], growth.powers[name]
            is_lost = ~np.isfinite(target) if shift < 0 else np.abs(target) < TINY[power]
            np.ldexp(found, -shift * power, out=target, where=is_lost & np.isfinite(found))


def _ends(values: np.ndarray, frame: Frame, reach: Halo) -> tuple[bool, bool]:
    """Return whether finite values lie beyond `LARGE`, and whether some other than 0 do below `SMALL`."""
    _, rows, row = frame.slices(reach)
    source = Source(rows.start, row.start, rows.stop - rows.start, row.stop - row.start)
    largest, smallest = _magnitudes(values.view(np.int64), source)
    return bool(largest > _BOUNDS[0]), bool(smallest < _BOUNDS[1])


@kernel
def _magnitudes(bits: Any, source: Any) -> Any:
    """Return the bits of the largest finite magnitude and of the least one but 0: they are ordered as numbers are."""
    largest, smallest = np.int64(0), _MAGNITUDE
    for plane in range(bits.shape[0]):
        for i in range(source.top, source.top + source.num_rows):
            row = bits[plane, i, source.left : source.left + source.num]
            for c in range(row.size):
                magnitude = row[c] & _MAGNITUDE
                largest = max(largest, magnitude if magnitude < _INFINITY else np.int64(0))
                smallest = min(smallest, magnitude if magnitude > 0 else _MAGNITUDE)
    return largest, smallest


def scratch_bytes(dtype: np.dtype, reach: Halo, lanes: int, num_outputs: int) -> int:
    """Return a bound of what `mend` allocates for values of this dtype, beside what `compute` does."""
    if dtype != np.float64:
        return 0
    columns = max(1, TILE_ELEMENTS // lanes)
    around = (TILE_ROWS + reach.top + reach.bottom) * (columns + reach.left + reach.right)
    return 8 * lanes * (around + (num_outputs + 3) * TILE_ROWS * columns)
