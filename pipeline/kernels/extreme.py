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
from pipeline.model.region import Halo, Region

SHIFT = 600
"""Scaled by 2**600 up or down, squares of numbers at an end of the range lie well within it."""
LARGE, SMALL = 2.0**450, 2.0**-350
"""Between these, no square of a value overflows, nor does that of a difference of two vanish."""
TINY = {1: 2.0**-450, 2: 2.0**-900}
"""Roots of squares, and squares, that are computed again."""
TILE = (32, 4096)
"""Rows and elements of a row that are computed again at a time."""
_MAGNITUDE = np.int64(2**63 - 1)
_INFINITY = np.int64(0x7FF << 52)
_BOUNDS = np.array([LARGE, SMALL]).view(np.int64)

Target = tuple[np.ndarray, tuple[int, int]]
"""Planes of an output, and the raster row and column of their first pixel."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which pixels are computed, and of which values around them."""

    region: Region
    origin: tuple[int, int]
    """Raster row and column of the first value."""
    reach: Halo
    lanes: int = 1


Compute = Callable[[np.ndarray, Mapping[str, Target], Extent, float], None]
"""Fills targets over the region of an extent, from values that have been multiplied by a factor."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How outputs grow with the values."""

    powers: Mapping[str, int]
    """Output -> the power of the factor by which it grows."""
    squares: frozenset[str] = frozenset()
    """Outputs that are made of squares."""


def mend(compute: Compute, values: np.ndarray, out: Mapping[str, Target], extent: Extent, growth: Growth) -> None:
    """Compute again what has overflowed or vanished in `out`, which `compute` has filled.

    `values` are planes (plane, row, column x lane), C-contiguous, of as many bands as those of `out` or one. Nothing is
    done for other dtypes than float64.
    """
    if values.dtype != np.float64:
        return
    for plane in range(len(values)):
        own = {name: (array[plane : plane + 1] if len(values) > 1 else array, at) for name, (array, at) in out.items()}
        _mend_plane(compute, values[plane : plane + 1], own, extent, growth)


def _mend_plane(
    compute: Compute, values: np.ndarray, out: Mapping[str, Target], extent: Extent, growth: Growth
) -> None:
    if not any(_ends(values, extent)):
        return
    region, columns = extent.region, max(1, TILE[1] // extent.lanes)
    squares = {name: target for name, target in out.items() if name in growth.squares}
    for top in range(region.top, region.bottom, TILE[0]):
        for left in range(region.left, region.right, columns):
            tile = Region(top, min(top + TILE[0], region.bottom), left, min(left + columns, region.right))
            part = replace(extent, region=tile)
            is_large, is_small = _ends(values, part)
            if is_large:
                _compute_again(compute, values, out, part, growth, -SHIFT)
            if is_small and squares:
                _compute_again(compute, values, squares, part, growth, SHIFT)


def _compute_again(
    compute: Compute, values: np.ndarray, out: Mapping[str, Target], extent: Extent, growth: Growth, shift: int
) -> None:
    """Compute a tile from values times 2**shift; take what was not finite, or with larger values what was tiny."""
    tile, lanes, need = extent.region, extent.lanes, extent.region.grow(extent.reach)
    shape = tile.height, tile.width * lanes
    again = {name: (np.empty((len(array), *shape)), (tile.top, tile.left)) for name, (array, _) in out.items()}
    with np.errstate(all="ignore"):
        scaled = values[(slice(None), *_slices(need, extent.origin, lanes))] * 2.0**shift
        compute(scaled, again, replace(extent, origin=(need.top, need.left)), 2.0**shift)
        for name, (array, origin) in out.items():
            target, found = array[(slice(None), *_slices(tile, origin, lanes))], again[name][0]
            power = growth.powers[name]
            is_lost = ~np.isfinite(target) if shift < 0 else np.abs(target) < TINY[power]
            np.ldexp(found, -shift * power, out=target, where=is_lost & np.isfinite(found))


def _slices(region: Region, origin: tuple[int, int], lanes: int) -> tuple[slice, slice]:
    rows, columns = region.slices(origin)
    return rows, slice(columns.start * lanes, columns.stop * lanes)


def _ends(values: np.ndarray, extent: Extent) -> tuple[bool, bool]:
    """Return whether finite values lie beyond `LARGE`, and whether some other than 0 do below `SMALL`."""
    rows, row = _slices(extent.region.grow(extent.reach), extent.origin, extent.lanes)
    largest, smallest = _magnitudes(values.view(np.int64), (rows.start, rows.stop, row.start, row.stop))
    return bool(largest > _BOUNDS[0]), bool(smallest < _BOUNDS[1])


@kernel
def _magnitudes(bits: Any, place: Any) -> Any:
    """Return the bits of the largest finite magnitude and of the least one but 0: they are ordered as numbers are."""
    first, last, begin, end = place
    largest, smallest = np.int64(0), _MAGNITUDE
    for plane in range(bits.shape[0]):
        for i in range(first, last):
            row = bits[plane, i, begin:end]
            for c in range(row.size):
                magnitude = row[c] & _MAGNITUDE
                largest = max(largest, magnitude if magnitude < _INFINITY else np.int64(0))
                smallest = min(smallest, magnitude if magnitude > 0 else _MAGNITUDE)
    return largest, smallest


def scratch_bytes(dtype: np.dtype, reach: Halo, lanes: int, num_outputs: int) -> int:
    """Return a bound of what `mend` allocates for values of this dtype, beside what `compute` does."""
    if dtype != np.float64:
        return 0
    rows, columns = TILE[0], max(1, TILE[1] // lanes)
    around = (rows + reach.top + reach.bottom) * (columns + reach.left + reach.right)
    return 8 * lanes * (around + (num_outputs + 3) * rows * columns)
