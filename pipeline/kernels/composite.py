"""Composites: statistics of the values that each pixel has in a series of bands, those of many dates, say.

Every result is an expression of the values of one pixel, so it is the same for every layout. Order statistics are
exact, as those of windows are: a network of minima and maxima sorts what has to be sorted of a tile of pixels, all
pixels at once (`window_network`); a series of more than `LONGEST_NETWORK` bands is sorted pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.order_key import Elements, KeyRule, to_bits
from pipeline.kernels.selection_network import Network, selection_network
from pipeline.kernels.series import (
    FIRST,
    GREATEST,
    LAST,
    LEAST,
    pick_keys,
    read_series,
    series_moments,
    take_chosen,
)
from pipeline.kernels.window import WindowRule
from pipeline.kernels.window_network import row_span, run_network
from pipeline.kernels.window_rank import interpolate
from pipeline.kernels.window_selection import neighbours

LONGEST_NETWORK = 1024
"""Bands beyond which a network takes longer to make than it saves."""
TILE_BYTES = 2**17
"""Of the keys of a tile; a network takes as much again, which together fit the second-level cache."""
PICKED = {"min": LEAST, "max": GREATEST, "first": FIRST, "last": LAST}
MOMENTS = ("mean", "std", "count")

_ALL_VALID = np.ones((0, 0, 0), bool)
_NO_PICKS = np.empty((0, 2), np.int64)
_NONE = np.empty(0)
_ONE_PIXEL = WindowRule(Footprint.rectangle((1, 1)), fill_invalid=True).rule(1)


@dataclass(frozen=True, slots=True)
class Layers:
    """Bands as planes (plane, row, column x lane), and where in them the region begins that is computed."""

    planes: np.ndarray
    lanes: int
    top: int
    left: int
    fill: int | float = 0
    """What an invalid result is written as in integers."""

    def place(self, band: int) -> tuple[int, int]:
        """Return the plane of a band, and where in a pixel it lies."""
        return (0, band) if self.lanes > 1 else (band, 0)

    def places(self, bands: Sequence[int]) -> np.ndarray:
        return np.array([self.place(band) for band in bands], np.int64)

    def elements(self, tile: Tile, band: int | None = None) -> Elements:
        """Return the elements of a tile of the region, of a band or of the first of plane 0."""
        plane, at = (0, 0) if band is None else self.place(band)
        begin = (self.left + tile.left) * self.lanes + at
        return Elements(plane, self.top + tile.top, begin, tile.height, tile.width, self.lanes)

    def part(self, tile: Tile, band: int) -> np.ndarray:
        """Return a tile of a band as (row, column), without a copy."""
        to = self.elements(tile, band)
        return self.planes[to.plane, to.top : to.top + to.num_rows, to.left : to.left + to.num * to.step : to.step]


@dataclass(frozen=True, slots=True)
class Tile:
    """Pixels of the region that are computed at a time."""

    top: int
    left: int
    height: int
    width: int


def tiles(shape: tuple[int, int], num: int) -> Iterator[Tile]:
    """Cut a region into tiles of at most `num` pixels: whole rows where they are as short."""
    height, width = shape
    columns = min(width, num)
    rows = max(1, num // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield Tile(top, left, min(rows, height - top), min(columns, width - left))


@dataclass(frozen=True, slots=True)
class _Selection:
    """How statistics of some fractions are selected from series of one length."""

    network: Network
    """For valid pixels."""
    picks: np.ndarray
    """(statistic, 2): which of its results a statistic lies between."""
    full: Network
    """For series with invalid pixels: result k is the key of rank k."""

    @property
    def num_rows(self) -> int:
        return max(self.network.num_rows, self.full.num_rows)


@lru_cache(maxsize=32)
def _selection(length: int, fractions: tuple[float, ...]) -> _Selection:
    ranks = neighbours(length, fractions)
    wanted = tuple(sorted({rank for pair in ranks for rank in pair}))
    column = (tuple(range(length)),)
    picks = np.array([[wanted.index(rank) for rank in pair] for pair in ranks], np.int64)
    full = selection_network(column, tuple(range(wanted[-1] + 1)), length)
    return _Selection(selection_network(column, wanted, length), picks, full)


def composite(
    source: Layers,
    valid: np.ndarray | None,
    groups: Sequence[Sequence[int]],
    out: Mapping[str, Layers],
    fractions: Mapping[str, float],
    shape: tuple[int, int],
) -> None:
    """Fill the statistics of each group of bands into the band of `out` with its number.

    Parameters
    ----------
    source, valid
        The bands, and which of their pixels are valid (None: all but NaN), in planes alike.
    groups
        The bands of each result, in the order in which some are `first` and `last`.
    out
        Any of ``mean, std, count, min, max, first, last``, and the names of `fractions`. mean, std and fractions are
        floating point, NaN where no pixel is valid; a fraction may be an integer where each group always has an odd
        number of valid pixels, and it is the median. The others have the source's dtype, or a floating-point one.
    fractions
        The order statistics by name, from 0 to 1, as `window_order` has them.
    """
    for number, bands in enumerate(groups):
        worker = _Worker(source, valid, tuple(bands), out, fractions, shape)
        for tile in tiles(shape, worker.num):
            worker.compute(tile, number)


class _Worker:
    """The buffers of one group of bands, and the ways to compute a tile of it."""

    def __init__(
        self,
        source: Layers,
        valid: np.ndarray | None,
        bands: tuple[int, ...],
        out: Mapping[str, Layers],
        fractions: Mapping[str, float],
        shape: tuple[int, int],
    ) -> None:
        self.source, self.out, self.places = source, out, source.places(bands)
        self.valid = _ALL_VALID if valid is None else valid
        self.dtype = source.planes.dtype
        self.rule = KeyRule.of(self.dtype)
        self.bits = source.planes.view(self.rule.dtype)
        self.ordered = [name for name in out if name in fractions]
        self.fractions = tuple(fractions[name] for name in self.ordered)
        self.length = len(bands)
        is_sorted = self.length > LONGEST_NETWORK
        self.selection = _selection(self.length, self.fractions) if self.ordered and not is_sorted else None
        self.num = tile_pixels(self.length, self.dtype.itemsize, shape)
        self.span = row_span(self.num)
        num_rows = max(self.length, self.selection.num_rows if self.selection else 0)
        self.arena = np.empty(num_rows * self.span, self.rule.dtype)
        self.usable = np.empty(self.length * self.num, np.int32)

    def compute(self, tile: Tile, band: int) -> None:
        """Compute band `band` of the results over a tile."""
        num = tile.height * tile.width
        usable = self.usable[: self.length * num]
        source = self.source.elements(tile)
        kind, limits = self.rule.kind, self.rule.limits
        invalid = read_series(self.bits, self.valid, kind, limits, self.places, source, self.span, self.arena, usable)
        counts = np.full(num, self.length, np.int32)
        if invalid:
            np.sum(usable.reshape(self.length, num), axis=0, out=counts)
        for name in self.out.keys() & PICKED.keys():
            self._pick(name, tile, band, usable, counts)
        if self.ordered:
            self._select(tile, band, counts, clean=not invalid)
        if names := [name for name in MOMENTS if name in self.out]:
            self._moments(names, tile, band, usable)

    def _pick(self, name: str, tile: Tile, band: int, usable: np.ndarray, counts: np.ndarray) -> None:
        keys = np.empty(counts.size, self.arena.dtype)
        pick_keys(self.arena, self.span, usable, PICKED[name], keys)
        to_bits(self.rule.kind, self.rule.limits, keys)
        to = self.out[name]
        part = to.part(tile, band)
        np.copyto(part, keys.view(self.dtype).reshape(part.shape), casting="unsafe")
        fill = math.nan if part.dtype.kind == "f" else to.fill
        np.copyto(part, part.dtype.type(fill), where=counts.reshape(part.shape) == 0)

    def _select(self, tile: Tile, band: int, counts: np.ndarray, *, clean: bool) -> None:
        """Write the order statistics; the network leaves the keys of the tile as they are."""
        shape = (len(self.ordered), 1, counts.size)
        low, high = np.empty(shape, self.arena.dtype), np.empty(shape, self.arena.dtype)
        if self.selection is None:
            self._sort(counts, low, high)
        else:
            network = self.selection.network if clean else self.selection.full
            picks = self.selection.picks if clean else _NO_PICKS
            size = (1, counts.size, 1, self.length)
            fractions = np.array(self.fractions)
            run_network(
                self.arena,
                self.span,
                network.steps,
                network.results,
                picks,
                counts.reshape(1, -1),
                fractions,
                size,
                low,
                high,
            )
            if clean:
                same = picks[:, 0] == picks[:, 1]
                high[same] = low[same]
        for keys in (low, high):
            to_bits(self.rule.kind, self.rule.limits, keys.reshape(-1))
        for k, name in enumerate(self.ordered):
            to = self.out[name]
            lower, upper = (keys[k].view(self.dtype).reshape(tile.height, tile.width) for keys in (low, high))
            if to.planes.dtype.kind != "f":
                np.copyto(to.part(tile, band), lower)
                continue
            each = counts.reshape(lower.shape)
            target = to.elements(tile, band)
            interpolate(lower, upper, each, each, self.fractions[k], _ONE_PIXEL, to.planes, target)

    def _sort(self, counts: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Sort the series of each pixel, and pick the keys of the two ranks that its valid pixels ask for."""
        rows = self.arena.reshape(-1, self.span)[: self.length, : counts.size]
        ordered = np.sort(np.ascontiguousarray(rows.T), axis=1)
        pixels = np.arange(counts.size)
        for k, fraction in enumerate(self.fractions):
            position = np.maximum(counts - 1, 0) * fraction
            rank = position.astype(np.int64)
            low[k, 0] = ordered[pixels, rank]
            high[k, 0] = ordered[pixels, rank + (position > rank)]

    def _moments(self, names: Sequence[str], tile: Tile, band: int, usable: np.ndarray) -> None:
        """Write mean, std and count; the keys of the tile become values."""
        keys = self.arena[: self.length * self.span]
        to_bits(self.rule.kind, self.rule.limits, keys)
        num = tile.height * tile.width
        counts, means = np.empty(num, np.int32), np.empty(num)
        deviations = np.empty(num) if "std" in names else _NONE
        series_moments(keys.view(self.dtype), self.span, usable, counts, means, deviations)
        for name, found in (("mean", means), ("std", deviations), ("count", counts)):
            if name in names:
                part = self.out[name].part(tile, band)
                np.copyto(part, found.reshape(part.shape), casting="unsafe")


def tile_pixels(length: int, itemsize: int, shape: tuple[int, int]) -> int:
    """Return the most pixels of a tile for series of a length; a tile is whole rows where these are shorter."""
    return min(max(256, TILE_BYTES // (length * itemsize)), 8192, shape[0] * shape[1])


def scratch_bytes(
    lengths: Sequence[int], itemsize: int, num_outputs: int, fractions: Sequence[float], shape: tuple[int, int]
) -> int:
    """Return a bound of what `composite` allocates for series of these lengths."""
    most = 0
    for length in set(lengths):
        num = tile_pixels(length, itemsize, shape)
        is_sorted = bool(fractions) and length > LONGEST_NETWORK
        rows = _selection(length, tuple(fractions)).num_rows if fractions and not is_sorted else length
        arena = max(rows, length) * row_span(num) * itemsize
        taken = length * num * (4 + 2 * is_sorted * itemsize) + num * (96 + 12 * itemsize + 16 * num_outputs)
        most = max(most, arena + taken + 2 * num * itemsize * len(fractions))
    return most + 2**14


def take_entries(
    source: Layers, valid: np.ndarray | None, chosen: np.ndarray, bands: np.ndarray, out: Layers, number: int
) -> None:
    """Fill all of result band `number`: each pixel from the band ``bands[chosen]``; `chosen` -1 is invalid.

    `chosen` is (row, column) over the region, `bands` has a band of the source for each entry.
    """
    whole = Tile(0, 0, *chosen.shape)
    fill = out.planes.dtype.type(math.nan if out.planes.dtype.kind == "f" else out.fill)
    mask = _ALL_VALID if valid is None else valid
    places, read, target = source.places(bands.tolist()), source.elements(whole), out.elements(whole, number)
    take_chosen(source.planes, mask, chosen, places, read, fill, out.planes, target)


def write_entries(chosen: np.ndarray, out: Layers, number: int) -> None:
    """Fill result band `number` with the chosen entries (row, column), with `fill` where that is -1."""
    part = out.part(Tile(0, 0, *chosen.shape), number)
    np.copyto(part, chosen, casting="unsafe")
    np.copyto(part, part.dtype.type(out.fill), where=chosen < 0)
