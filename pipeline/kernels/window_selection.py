"""Which way order statistics are selected, by what was measured for each: see `window_order`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.selection_network import Network, selection_network

LARGEST_NETWORK = 225
"""Pixels of a window beyond which no network is tried: none would be the cheaper way."""
STEP_NS = 0.022
"""Of a minimum or maximum, per byte of a key and pixel."""
RIM_NS, FIND_NS, RANK_NS, BYTE_NS = 1.25, 14.0, 24.0, 3.0
"""Of a pixel that enters or leaves, a statistic found, a pixel ranked, and a byte of its key."""


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
            network = selection_network(footprint.columns, some, footprint.extent[0])
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
