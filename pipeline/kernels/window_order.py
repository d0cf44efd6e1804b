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
from typing import NamedTuple

import numpy as np

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.order_key import Elements, KeyRule, to_bits, to_keys
from pipeline.kernels.window import WindowRule
from pipeline.kernels.window_footprint import count_windows
from pipeline.kernels.window_network import row_span, run_network
from pipeline.kernels.window_rank import interpolate, rank_pixels, slide
from pipeline.kernels.window_selection import Selection

_ALL_VALID = np.ones((0, 0, 0), bool)
_NO_PICKS = np.empty((0, 2), np.int64)


def order_statistics(
    values: np.ndarray,
    valid: np.ndarray | None,
    out: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    frame: Frame,
    window: WindowRule,
) -> None:
    """Fill the statistics of the fractions, which lie between 0 and 1, over the frame's region.

    Floating-point results are NaN where they are invalid. An integer output is for windows that always have an odd
    number of valid pixels, and takes the median as it is. Arrays are as in `pipeline.kernels.window`.
    """
    selection = Selection.of(window.footprint, tuple(fractions[name] for name in out), values.dtype.itemsize)
    worker = _Worker(values, valid, tuple(out.values()), frame, window, selection)
    for plane in range(values.shape[0]):
        for tile in _Tile(plane, 0, 0, *frame.shape).cut(selection.tile(frame.lanes, values.dtype.itemsize)):
            worker.compute(tile)


class _Tile(NamedTuple):
    """A part of a plane of the region, all lanes of it or one."""

    plane: int
    row: int
    column: int
    num_rows: int
    num_columns: int
    lane: int | None = None

    def cut(self, shape: tuple[int, int], lane: int | None = None) -> Iterator[_Tile]:
        for row in range(self.row, self.row + self.num_rows, shape[0]):
            num_rows = min(shape[0], self.row + self.num_rows - row)
            for column in range(self.column, self.column + self.num_columns, shape[1]):
                num_columns = min(shape[1], self.column + self.num_columns - column)
                yield _Tile(self.plane, row, column, num_rows, num_columns, lane)


class _Worker:
    """The buffers of one block, and the ways to compute a tile of it."""

    def __init__(
        self,
        values: np.ndarray,
        valid: np.ndarray | None,
        out: tuple[np.ndarray, ...],
        frame: Frame,
        window: WindowRule,
        selection: Selection,
    ) -> None:
        self.dtype, self.frame, self.window, self.selection, self.out = values.dtype, frame, window, selection, out
        self.rule = KeyRule.of(values.dtype)
        self.bits = values.view(self.rule.dtype)
        self.valid = _ALL_VALID if valid is None else valid
        self.fractions = np.array(selection.fractions)
        sizes = _buffers(frame.shape, selection, frame.lanes, values.dtype.itemsize)
        self.buffers = {name: np.empty(count, dtype) for name, (count, dtype) in sizes.items()}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return the beginning of a buffer in some shape."""
        return self.buffers[name][: math.prod(shape)].reshape(shape)

    def compute(self, tile: _Tile) -> None:
        if self.selection.network is None or not self._by_network(tile):
            for lane in range(self.frame.lanes):
                for part in tile.cut(self.selection.rank_tile, lane):
                    self._by_rank(part)

    def _by_network(self, tile: _Tile) -> bool:
        """Compute a tile, unless it holds invalid pixels and there is no network for them."""
        selection, lanes = self.selection, self.frame.lanes
        height, width = selection.footprint.extent
        num, reach = tile.num_columns * lanes, (width - 1) * lanes
        rows, span = tile.num_rows + height - 1, row_span(num + reach)
        usable = self.array("usable", rows, num + reach)
        clean = self._read(tile, self.array("arena", rows, span), usable) == 0
        network = selection.network if clean else selection.full_network
        if network is None:
            return False
        counts = self.array("counts", tile.num_rows, num)
        if not clean:
            count_windows(usable, selection.footprint.array, lanes, counts)
        low, high = (self.array(name, len(self.out), tile.num_rows, num) for name in ("low", "high"))
        picks, shape = selection.picks if clean else _NO_PICKS, (tile.num_rows, num, lanes, height)
        steps, results = network.steps, network.results
        run_network(self.buffers["arena"], span, steps, results, picks, counts, self.fractions, shape, low, high)
        self._write(tile, clean, low, high, usable)
        return True

    def _by_rank(self, tile: _Tile) -> None:
        """Compute one lane of a tile."""
        footprint, shape = self.selection.footprint, (tile.num_rows, tile.num_columns)
        height, width = shape[0] + footprint.extent[0] - 1, shape[1] + footprint.extent[1] - 1
        keys, usable, ranks = (self.array(name, height, width) for name in ("keys", "usable", "ranks"))
        clean = self._read(tile, keys, usable) == 0
        order, spare, ordered = (self.array(name, keys.size) for name in ("order", "spare", "ordered"))
        rank_pixels(keys.reshape(-1), usable.reshape(-1), order, spare, ranks.reshape(-1), ordered)
        down, right = (rim @ np.array([width, 1]) for rim in footprint.rims)
        low, high = (self.array(name, len(self.out), *shape) for name in ("low_rank", "high_rank"))
        words, counts = self.array("words", -(-keys.size // 64) + 1), self.array("counts", *shape)
        for k, fraction in enumerate(self.selection.fractions):
            slide(ranks, footprint.array, right, down, fraction, words, counts, low[k], high[k])
        self._write(tile, clean, ordered[low], ordered[high], usable)

    def _read(self, tile: _Tile, keys: np.ndarray, usable: np.ndarray) -> int:
        """Read the keys of a tile with its margin; return how many are invalid."""
        above, _, left, _ = self.selection.footprint.reach
        top, first = self.frame.offset
        begin, step = self._element(first + tile.column - left, tile.lane)
        num_rows, num = usable.shape
        source = Elements(tile.plane, top + tile.row - above, begin, num_rows, num, step)
        return to_keys(self.bits, self.valid, self.rule.kind, self.rule.limits, source, keys, usable)

    def _element(self, column: int, lane: int | None) -> tuple[int, int]:
        """Return where a column begins in a row, and the distance of elements: those of all lanes, or of one."""
        lanes = self.frame.lanes
        return (column * lanes, 1) if lane is None else (column * lanes + lane, lanes)

    def _write(self, tile: _Tile, clean: bool, low: np.ndarray, high: np.ndarray, usable: np.ndarray) -> None:
        """Write the statistics of a tile from the keys that they lie between, (statistic, row, element)."""
        for keys in (low, high):
            to_bits(self.rule.kind, self.rule.limits, keys.reshape(-1))
        _, num_rows, num = low.shape
        first_row, first_column = self.frame.out_offset
        row, (begin, step) = first_row + tile.row, self._element(first_column + tile.column, tile.lane)
        to = Elements(tile.plane, row, begin, num_rows, num, step)
        rule = self.window.rule(self.frame.lanes if tile.lane is None else 1)
        counts = self.array("counts", num_rows, num)
        if clean:
            counts[...] = self.selection.footprint.num_pixels
        for k, target in enumerate(self.out):
            lower, upper = low[k].view(self.dtype), high[k].view(self.dtype)
            if clean and self.selection.picks[k, 0] == self.selection.picks[k, 1]:
                target[tile.plane, row : row + num_rows, begin : begin + num * step : step] = lower
                continue
            interpolate(lower, upper, counts, usable, self.fractions[k], rule, target, to)


def scratch_bytes(
    shape: tuple[int, int], footprint: Footprint, fractions: tuple[float, ...], lanes: int, itemsize: int
) -> int:
    """Return a bound of what `order_statistics` allocates for a region of `shape`, whatever the number of planes."""
    selection = Selection.of(footprint, fractions, itemsize)
    buffers = _buffers(shape, selection, lanes, itemsize)
    total = sum(count * np.dtype(dtype).itemsize for count, dtype in buffers.values())
    taken = 2 * itemsize * buffers["low_rank"][0] if "low_rank" in buffers else 0
    return total + taken + 32 * (shape[1] + footprint.extent[1]) * lanes + 2**14


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
        arena = (rows + height - 1 + selection.network_rows) * row_span((columns + width - 1) * lanes)
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
