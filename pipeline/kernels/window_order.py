"""Medians and percentiles over windows: the driver of the kernels that select by rank.

Of n valid values in ascending order, the statistic of fraction f (0.5: the median) lies at position (n - 1) f, counted
from 0, linearly between its two neighbours: numpy's default. Infinities are values; between -inf and inf there is
none. What the kernels select is exact, so it does not matter for a bit which of them does:

- small windows: a network of minima and maxima, applied to rows of pixels (`window_network`); where pixels are
  invalid, one that sorts further, and the ranks follow from the number of valid pixels;
- others: bits in the order of ranks (`window_rank`), lane by lane.

Work goes by tiles of a plane; the cheaper way is chosen by what was measured for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.order_key import KeyRule, to_bits, to_keys
from pipeline.kernels.selection_network import Network, selection_network
from pipeline.kernels.window import Frame
from pipeline.kernels.window_footprint import count_windows
from pipeline.kernels.window_network import run_network
from pipeline.kernels.window_rank import interpolate, rank_pixels, slide

LARGEST_NETWORK = 225
"""Pixels of a window beyond which no network is tried: none would be the cheaper way."""
STEP_NS = 0.022
"""Of a minimum or maximum, per byte of a key and pixel."""
RIM_NS, FIND_NS, RANK_NS, BYTE_NS = 1.25, 14.0, 24.0, 3.0
"""Of a pixel that enters or leaves, a statistic found, a pixel ranked, and a byte of its key."""

_ALL_VALID = np.ones((0, 0, 0), bool)
_NO_PICKS = np.empty((0, 2), np.int64)
_NO_COUNTS = np.empty((0, 0), np.int32)


@dataclass(frozen=True)
class Selection:
    """How statistics of some fractions are selected from windows of one shape."""

    footprint: Footprint
    fractions: tuple[float, ...]
    network: Network | None
    """For windows of valid pixels; None where ranks are the cheaper way."""
    picks: np.ndarray
    """(statistic, 2): which of the network's results a statistic lies between."""
    full_network: Network | None
    """For windows with invalid pixels: result k is the key of rank k."""

    @classmethod
    def of(cls, footprint: Footprint, fractions: tuple[float, ...], itemsize: int) -> Selection:
        return _selection(footprint, fractions, itemsize)

    @property
    def network_rows(self) -> int:
        return max((network.num_rows for network in (self.network, self.full_network) if network), default=0)

    def tile(self, lanes: int, itemsize: int) -> tuple[int, int]:
        """Return rows and columns that are computed at a time by a network: a row of keys takes some 2 KiB."""
        if self.network is None:
            return self.rank_tile
        return 128, max(2048 // itemsize // lanes, 4 * self.footprint.extent[1])

    @property
    def rank_tile(self) -> tuple[int, int]:
        """Return rows and columns that are ranked at a time: few, so that bits are dense; more than their margin."""
        height, width = self.footprint.extent
        return min(max(96, 2 * height), 256), min(max(96, 2 * width), 256)


@lru_cache(maxsize=64)
def _selection(footprint: Footprint, fractions: tuple[float, ...], itemsize: int) -> Selection:
    ranks = neighbours(footprint.num_pixels, fractions)
    wanted = tuple(sorted({rank for pair in ranks for rank in pair}))
    by_rank = RANK_NS + BYTE_NS * itemsize + (FIND_NS + 2 * RIM_NS * len(footprint.runs)) * len(fractions)
    networks: list[Network | None] = [None, None]
    if footprint.num_pixels <= LARGEST_NETWORK:
        for number, some in enumerate((wanted, tuple(range(wanted[-1] + 1)))):
            network = selection_network(footprint.columns, some)
            networks[number] = network if network.cost * itemsize * STEP_NS < by_rank else None
    picks = np.array([[wanted.index(rank) for rank in pair] for pair in ranks], np.int64)
    return Selection(footprint, fractions, networks[0], picks, networks[1])


def neighbours(count: int, fractions: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the two ranks between which each statistic of `count` values lies; twice the same one if it lies there.

    Examples
    --------
    >>> neighbours(9, (0.5, 0.1)), neighbours(4, (0.5,))
    ([(4, 4), (0, 1)], [(1, 2)])
    """
    positions = [(count - 1) * fraction for fraction in fractions]
    return [(math.floor(position), math.ceil(position)) for position in positions]


def order_statistics(
    values: np.ndarray,
    valid: np.ndarray | None,
    out: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    frame: Frame,
) -> None:
    """Fill the statistics of the fractions, which lie between 0 and 1, over the frame's region.

    Floating-point results are NaN where they are invalid. An integer output is for windows that always have an odd
    number of valid pixels, and takes the median as it is. Arrays are as in `pipeline.kernels.window`.
    """
    selection = Selection.of(frame.pixels, tuple(fractions[name] for name in out), values.dtype.itemsize)
    worker = _Worker(values, valid, tuple(out.values()), frame, selection)
    for plane in range(values.shape[0]):
        for tile in _tiles((0, 0, *frame.shape), selection.tile(frame.lanes, values.dtype.itemsize)):
            worker.compute(plane, tile)


Tile = tuple[int, int, int, int]
"""First row and column in the frame's region, rows, columns."""


def _tiles(tile: Tile, shape: tuple[int, int]) -> Iterator[Tile]:
    top, left, num_rows, num_columns = tile
    for row in range(top, top + num_rows, shape[0]):
        for column in range(left, left + num_columns, shape[1]):
            yield row, column, min(shape[0], top + num_rows - row), min(shape[1], left + num_columns - column)


class _Worker:
    """The buffers of one block, and the ways to compute a tile of it."""

    def __init__(
        self,
        values: np.ndarray,
        valid: np.ndarray | None,
        out: tuple[np.ndarray, ...],
        frame: Frame,
        selection: Selection,
    ) -> None:
        self.dtype, self.frame, self.selection, self.out = values.dtype, frame, selection, out
        self.rule = KeyRule.of(values.dtype)
        self.bits = values.view(self.rule.dtype)
        self.valid = _ALL_VALID if valid is None else valid
        self.fractions = np.array(selection.fractions)
        sizes = _buffers(frame.shape, selection, frame.lanes, values.dtype.itemsize)
        self.buffers = {name: np.empty(count, dtype) for name, (count, dtype) in sizes.items()}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return the beginning of a buffer in some shape."""
        return self.buffers[name][: math.prod(shape)].reshape(shape)

    def compute(self, plane: int, tile: Tile) -> None:
        if self.selection.network is None or not self._by_network(plane, tile):
            for part in _tiles(tile, self.selection.rank_tile):
                for lane in range(self.frame.lanes):
                    self._by_rank(plane, lane, part)

    def _read(self, plane: int, tile: Tile, lane: int | None, keys: np.ndarray, usable: np.ndarray) -> int:
        """Read the keys of a tile with its margin, all lanes or one; return how many are invalid."""
        row, column, _, num_columns = tile
        above, _, left, right = self.selection.footprint.reach
        lanes = self.frame.lanes
        top, first = self.frame.offset
        begin = (first + column - left) * lanes + (lane or 0)
        num, step = (num_columns + left + right) * lanes, 1
        if lane is not None:
            num, step = num // lanes, lanes
        source = (plane, top + row - above, begin, keys.shape[0], num, step)
        return to_keys(self.bits, self.valid, self.rule.kind, self.rule.limits, source, keys, usable)

    def _by_network(self, plane: int, tile: Tile) -> bool:
        """Compute a tile, unless it holds invalid pixels and there is no network for them."""
        selection, lanes = self.selection, self.frame.lanes
        _, _, num_rows, num_columns = tile
        height, width = selection.footprint.extent
        num, span = num_columns * lanes, _span((num_columns + width - 1) * lanes)
        rows = num_rows + height - 1
        keys = self.array("arena", rows, span)
        usable = self.array("usable", rows, (num_columns + width - 1) * lanes)
        clean = self._read(plane, tile, None, keys, usable) == 0
        network = selection.network if clean else selection.full_network
        if network is None:
            return False
        picks, counts = (selection.picks, _NO_COUNTS) if clean else (_NO_PICKS, self.array("counts", num_rows, num))
        if not clean:
            count_windows(usable, selection.footprint.array, lanes, counts)
        low, high = (self.array(name, len(self.out), num_rows, num) for name in ("low", "high"))
        run_network(
            self.buffers["arena"],
            span,
            network.steps,
            network.results,
            picks,
            counts,
            self.fractions,
            (num_rows, num, lanes, height),
            low,
            high,
        )
        self._write(plane, tile, None, clean, low, high, usable)
        return True

    def _by_rank(self, plane: int, lane: int, tile: Tile) -> None:
        selection = self.selection
        _, _, num_rows, num_columns = tile
        height, width = selection.footprint.extent
        shape = (num_rows + height - 1, num_columns + width - 1)
        keys, usable, ranks = (self.array(name, *shape) for name in ("keys", "usable", "ranks"))
        counts = self.array("counts", num_rows, num_columns)
        clean = self._read(plane, tile, lane, keys, usable) == 0
        order, spare, ordered = (self.array(name, keys.size) for name in ("order", "spare", "ordered"))
        rank_pixels(keys.reshape(-1), usable.reshape(-1), order, spare, ranks.reshape(-1), ordered)
        down, right = (rim @ np.array([shape[1], 1]) for rim in selection.footprint.rims)
        low, high = (self.array(f"{name}_rank", len(self.out), num_rows, num_columns) for name in ("low", "high"))
        words = self.array("words", -(-keys.size // 64) + 1)
        for k, fraction in enumerate(selection.fractions):
            slide(ranks, selection.footprint.array, right, down, fraction, words, counts, low[k], high[k])
        self._write(plane, tile, lane, clean, ordered[low], ordered[high], usable)

    def _write(
        self,
        plane: int,
        tile: Tile,
        lane: int | None,
        clean: bool,
        low: np.ndarray,
        high: np.ndarray,
        usable: np.ndarray,
    ) -> None:
        """Write the statistics of a tile, all lanes or one, from the keys that they lie between."""
        row, column, num_rows, _ = tile
        lanes = self.frame.lanes
        num = low.shape[2]
        for keys in (low, high):
            to_bits(self.rule.kind, self.rule.limits, keys.reshape(-1))
        first_row, first_column = self.frame.out_offset
        row, begin, step = first_row + row, (first_column + column) * lanes + (lane or 0), 1 if lane is None else lanes
        above, _, left, _ = self.selection.footprint.reach
        centre = (above, left * (lanes if lane is None else 1))
        for k, target in enumerate(self.out):
            lower, upper = low[k].view(self.dtype), high[k].view(self.dtype)
            if clean and self.selection.picks[k, 0] == self.selection.picks[k, 1]:
                target[plane, row : row + num_rows, begin : begin + num * step : step] = lower
                continue
            if self.dtype == np.float16:  # numba has no arithmetic for it
                lower, upper = lower.astype(np.float32), upper.astype(np.float32)
            counts = self.array("counts", num_rows, num)
            if clean:
                counts[...] = self.selection.footprint.num_pixels
            rule = (self.fractions[k], max(1, self.frame.min_valid), self.frame.fill_invalid)
            interpolate(lower, upper, counts, usable, rule, target, (plane, row, begin, step, *centre))


def scratch_bytes(
    shape: tuple[int, int], footprint: Footprint, fractions: tuple[float, ...], lanes: int, itemsize: int
) -> int:
    """Return a bound of what `order_statistics` allocates for a region of `shape`, whatever the number of planes."""
    selection = Selection.of(footprint, fractions, itemsize)
    buffers = _buffers(shape, selection, lanes, itemsize)
    total = sum(count * np.dtype(dtype).itemsize for count, dtype in buffers.values())
    rows, columns = (min(a, b) for a, b in zip(shape, selection.rank_tile, strict=True))
    copies = rows * columns * len(fractions) * 2 * (itemsize + max(4, itemsize))
    return total + copies + (32 * (columns + footprint.extent[1]) + 2**14) * lanes


def _span(num: int) -> int:
    """Return the distance of two rows of `num` keys: no multiple of 4 KiB, where loads would wait for stores."""
    return (num + 303) // 512 * 512 + 208


def _buffers(
    shape: tuple[int, int], selection: Selection, lanes: int, itemsize: int
) -> dict[str, tuple[int, np.dtype | type]]:
    """Return the size and dtype of each buffer."""
    height, width = selection.footprint.extent
    num, unsigned = len(selection.fractions), np.dtype(f"u{itemsize}")
    sizes: dict[str, tuple[int, np.dtype | type]] = {}
    usable = counts = 0
    if selection.network:
        rows, columns = (min(a, b) for a, b in zip(shape, selection.tile(lanes, itemsize), strict=True))
        usable, counts = (rows + height - 1) * (columns + width - 1) * lanes, rows * columns * lanes
        arena = (rows + height - 1 + selection.network_rows) * _span((columns + width - 1) * lanes)
        sizes |= {"arena": (arena, unsigned), "low": (num * counts, unsigned), "high": (num * counts, unsigned)}
    if not (selection.network and selection.full_network):
        rows, columns = (min(a, b) for a, b in zip(shape, selection.rank_tile, strict=True))
        pixels = (rows + height - 1) * (columns + width - 1)
        usable, counts = max(usable, pixels), max(counts, rows * columns)
        sizes |= dict.fromkeys(("keys", "ordered"), (pixels, unsigned))
        sizes |= dict.fromkeys(("ranks", "order", "spare"), (pixels, np.int32))
        sizes |= {"words": (pixels // 64 + 2, np.uint64)}
        sizes |= dict.fromkeys(("low_rank", "high_rank"), (num * rows * columns, np.int32))
    return sizes | {"usable": (usable, np.int32), "counts": (counts, np.int32)}
