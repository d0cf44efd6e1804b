"""How often chunks are decoded: blocks against the chunks that they and their halos meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Axis, Grid, Halo

SAMPLED_BLOCKS = 2**16
"""Along an axis: of more, the first ones are counted."""


class Touches:
    """How often chunks are decoded: blocks against the chunks that they and their halos meet."""

    def __init__(self, grid: Grid, unit: tuple[int, int], halo: Halo, spec: RasterSpec) -> None:
        rows = _intervals(_first_blocks(grid.rows), halo.top, halo.bottom, unit[0], spec.height)
        columns = _intervals(_first_blocks(grid.columns), halo.left, halo.right, unit[1], spec.width)
        num_rows, num_columns = len(rows[0]), len(columns[0])
        share = num_rows * num_columns / len(grid)
        starts = np.arange(0, num_columns, min(grid.panel, num_columns))
        ends = np.minimum(starts + grid.panel, num_columns)
        panels = columns[0][starts], columns[1][ends - 1]
        self.distinct = int((rows[1][-1] - rows[0][0]) * (columns[1][-1] - columns[0][0]) / share)
        panel_columns = int((panels[1] - panels[0]).sum())
        self.decoded = int(int(rows[1][-1] - rows[0][0]) * panel_columns / share)
        shared_rows = int(np.max(rows[1][:-1] - rows[0][1:], initial=0))
        shared_columns = int(np.max(columns[1][:-1] - columns[0][1:], initial=0))
        widest = int(np.max(panels[1] - panels[0]))
        # the rows of chunks that the next row of blocks needs again, and around the blocks in work what
        # their neighbours to the left and right share
        high = int(np.max(rows[1] - rows[0]))
        wide = int(np.max(columns[1] - columns[0]))
        self.cached_chunks = shared_rows * widest + (
            (high * wide if shared_rows else high * shared_columns) if shared_rows or shared_columns else 0
        )


def _first_blocks(axis: Axis) -> Axis:
    """Return the first blocks of an axis with very many: how they meet chunks comes again and again."""
    return replace(axis, stop=min(axis.stop, axis.start + SAMPLED_BLOCKS * axis.step))


def _intervals(axis: Axis, before: int, after: int, unit: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each interval of an axis, with its halo, the first chunk that it meets and the one after its last."""
    index = np.arange(len(axis))
    start = axis.start + index * axis.step
    stop = np.append(start[1:], axis.stop)
    return np.maximum(start - before, 0) // unit, -(-np.minimum(stop + after, size) // unit)
