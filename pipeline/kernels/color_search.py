"""A palette made ready for the search of nearest colours: sorted along its principal axis, in buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.color_grid import ColorGrid, color_grid
from pipeline.kernels.vector import UNROLLED, VECTOR

LINE = 16
"""float32 numbers of a cache line."""
NUM_BUCKETS = 4096
FINE = 2.0**-440
"""Of two colours that differ by as much in a band, only one can have a squared distance below `extreme.TINY[2]`."""
_FAR = 1e17
"""Where places without a colour lie."""


class Placing(NamedTuple):
    """How colours and pixels are placed: centred and scaled."""

    centre: Any
    axis: Any
    """The principal axis, float32."""
    scale: float
    """A power of two; 0: all colours are compared."""
    largest: float
    """The largest length of a colour after scaling."""


class Ranked(NamedTuple):
    """The colours sorted by their positions along the axis; `VECTOR` places without a colour before and after."""

    colors: Any
    """(band, place) float32, as placed."""
    ids: Any
    """Their indices; -1 for no colour."""
    positions: Any


class Buckets(NamedTuple):
    """Where to begin."""

    starts: Any
    """First place to try, by bucket of positions."""
    lowest: float
    """Position of the first bucket."""
    per_unit: float
    """Buckets per unit."""


class SearchArrays(NamedTuple):
    """What kernels search in."""

    colors: Any
    """The palette (color, band), float64."""
    placing: Placing
    ranked: Ranked
    buckets: Buckets
    is_fine: bool


@dataclass(frozen=True, slots=True)
class ColorSearch:
    """A palette made ready; see `search_of`."""

    arrays: SearchArrays
    grids: dict[str, ColorGrid] = field(default_factory=dict)
    """Candidates for pixels of 8 bits, by kind of dtype; made when first asked for."""

    @property
    def colors(self) -> np.ndarray:
        """The palette (color, band), float64."""
        colors: np.ndarray = self.arrays.colors
        return colors

    @property
    def is_fine(self) -> bool:
        """Whether colours, or a colour and 0, lie so near each other in a band that the squares of distances vanish."""
        return self.arrays.is_fine

    def grid(self, dtype: np.dtype) -> ColorGrid:
        if dtype.kind not in self.grids:
            self.grids[dtype.kind] = color_grid(self.colors, dtype)
        return self.grids[dtype.kind]


def search_of(palette: np.ndarray) -> ColorSearch:
    """Prepare a palette (color, band) of finite numbers for `nearest`."""
    colors = np.ascontiguousarray(palette, np.float64)
    # of equal colours the first one wins always
    different, names = np.unique(colors, axis=0, return_index=True)
    with np.errstate(all="ignore"):
        centre = different.mean(axis=0)
        radius = float(np.sqrt(((different - centre) ** 2).sum(axis=1).max()))
    # beyond, naive distances overflow or vanish
    usable = 1e-140 < radius < 1e130
    scale = 2.0 ** -math.frexp(radius)[1] if usable else 0.0  # a power of two: exact
    placed = (different - centre) * scale if usable else np.zeros_like(different)
    axis = np.linalg.eigh(placed.T @ placed)[1][:, -1]
    position = placed @ axis
    order = np.argsort(position, kind="stable")
    largest = float(np.sqrt((placed**2).sum(axis=1).max()))
    padded_axis = np.zeros(padded(len(axis)), np.float32)
    padded_axis[: len(axis)] = axis
    placing = Placing(centre, padded_axis, scale, largest)
    ranked = _ranked(placed[order], names[order], position[order])
    return ColorSearch(SearchArrays(colors, placing, ranked, _buckets(position[order]), _is_fine(colors)))


def _is_fine(colors: np.ndarray) -> bool:
    bands = np.sort(np.vstack([colors, np.zeros_like(colors[:1])]), axis=0)
    with np.errstate(over="ignore"):
        gaps = np.diff(bands, axis=0)
    return bool(((gaps > 0) & (gaps < FINE)).any())


@lru_cache(maxsize=4)
def _search_of_bytes(colors: bytes, shape: tuple[int, int]) -> ColorSearch:
    return search_of(np.frombuffer(colors).reshape(shape))


def cached_search(palette: np.ndarray) -> ColorSearch:
    """Return the search of a palette, made ready once for all its blocks."""
    return _search_of_bytes(np.ascontiguousarray(palette, np.float64).tobytes(), palette.shape)


def _ranked(placed: np.ndarray, names: np.ndarray, position: np.ndarray) -> Ranked:
    num, bands = placed.shape
    size = (num + 2 * VECTOR + LINE) // LINE * LINE
    size += LINE if size % 256 == 0 else 0  # rows at distances of 4 KiB would share few places in the cache
    inside = slice(VECTOR, VECTOR + num)
    colors = _aligned(padded(bands), size)
    colors[:] = _FAR
    colors[bands:] = 0
    colors[:bands, inside] = placed.T
    ids = np.full(size, -1, np.int32)
    ids[inside] = names
    positions = np.full(size, np.inf)
    positions[:VECTOR] = -np.inf
    positions[inside] = position
    return Ranked(colors, ids, positions)


def padded(bands: int) -> int:
    """Return the bands that vectors take at a time."""
    return -(-bands // UNROLLED) * UNROLLED


def _aligned(rows: int, size: int) -> np.ndarray:
    """Return an empty float32 array whose rows begin at cache lines (size: a multiple of `LINE`)."""
    buffer = np.empty((rows * size + LINE) * 4, np.uint8)
    start = -buffer.ctypes.data % (4 * LINE)
    return buffer[start : start + 4 * rows * size].view(np.float32).reshape(rows, size)


def _buckets(position: np.ndarray) -> Buckets:
    first, last = float(position[0]), float(position[-1])
    per_unit = NUM_BUCKETS / (last - first) if last > first else 0.0
    middles = first + (np.arange(NUM_BUCKETS) + 0.5) / per_unit if per_unit else np.full(NUM_BUCKETS, first)
    start = np.searchsorted(position, middles) + VECTOR - VECTOR // 2 + LINE // 2
    start = np.clip(start, VECTOR, max(VECTOR, len(position))) // LINE * LINE
    return Buckets(start.astype(np.int32), first, per_unit)
