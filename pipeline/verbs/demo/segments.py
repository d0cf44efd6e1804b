"""Kernels of synthetic labels: the warped Voronoi cells of a jittered lattice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.verbs.demo.noise import noise, ramp, site, stream_of

SEGMENT, WARP = 90, 91
"""Streams of random numbers, beside those of the scene; the second has room for two more."""


@kernel
def segments(out: Any, row: int, column: int, size: Any, cells: Any, seed: Any) -> None:
    """Fill a block of labels 1..K, row by row of the lattice, whose first pixel is at `row`, `column`.

    A label is the warped Voronoi cell of one site of a jittered lattice over the whole raster. The jitter of 0.32
    makes the search among 3 x 3 sites exact, because (0.5 + 0.32) * sqrt(2) < 1.5 - 0.32. The warp moves a point by
    at most 0.3 cells and (all but) never folds, so that segments stay whole, and no site leaves the raster. Both
    shrink as the cells come near to the pixels' size, so that every label keeps a pixel.

    Parameters
    ----------
    out
        int32 (rows, columns).
    size
        Rows and columns of the raster.
    cells
        Rows and columns of the lattice; K is their product.
    seed
        uint64.
    """
    pitch_y, pitch_x = size[0] / cells[0], size[1] / cells[1]
    looseness = ramp(min(pitch_y, pitch_x), 1.5, 12.0)
    sites, jitter = stream_of(seed, SEGMENT), 0.32 * looseness
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x = (row + i + 0.5) / pitch_y, (column + j + 0.5) / pitch_x
            y, x = _warp(seed, y, x, looseness)
            out[i, j] = _nearest_cell(sites, y, x, cells, jitter)


@kernel
def _warp(seed: Any, y: float, x: float, amount: float) -> Any:
    a, b, _, _ = noise(stream_of(seed, WARP), y / 1.7, x / 1.7)
    c, d, _, _ = noise(stream_of(seed, WARP + 1), y / 0.45, x / 0.45)
    e, f, _, _ = noise(stream_of(seed, WARP + 2), y / 0.17, x / 0.17)
    shift_y, shift_x = 0.18 * a + 0.09 * c + 0.03 * e, 0.18 * b + 0.09 * d + 0.03 * f
    return y + amount * shift_y, x + amount * shift_x


@kernel
def _nearest_cell(sites: Any, y: float, x: float, cells: Any, jitter: float) -> Any:
    """Return the number from 1 of the nearest site; sites exist inside the lattice only."""
    center_i = min(cells[0] - 1, max(0, np.int64(math.floor(y))))
    center_j = min(cells[1] - 1, max(0, np.int64(math.floor(x))))
    nearest, number = 1e9, 0
    for i in range(max(0, center_i - 1), min(cells[0], center_i + 2)):
        for j in range(max(0, center_j - 1), min(cells[1], center_j + 2)):
            site_y, site_x = site(sites, i, j, jitter)
            distance = (y - site_y) * (y - site_y) + (x - site_x) * (x - site_x)
            if distance < nearest:
                nearest, number = distance, i * cells[1] + j + 1
    return number
