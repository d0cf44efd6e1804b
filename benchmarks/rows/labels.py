"""The means of labels and the raster painted with them, in memory, on two threads: ours, and numpy's bincount."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.rounds import Row, at_least
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_columns import finish, lookup
from pipeline.kernels.label_table import LabelTable, merge, partial_table

WORKERS = 2
BLOCK_ROWS = 512


def segments(size: int, num_labels: int) -> np.ndarray:
    """Return square cells, numbered row by row."""
    cell = max(1, round(size / num_labels**0.5))
    place = np.arange(size) // cell
    return (place[:, None] * (place[-1] + 1) + place).astype(np.int32)


def label_means(size: int, num_labels: int, num_bands: int) -> Row:
    labels = segments(size, num_labels)
    image = np.random.default_rng(0).normal(100, 20, (size, size, num_bands)).astype(np.float32)
    planes, painted = image.reshape(1, size, -1), np.empty_like(image)
    blocks = [(top, min(BLOCK_ROWS, size - top)) for top in range(0, size, BLOCK_ROWS)]
    pool = ThreadPoolExecutor(WORKERS)

    def patch(block: tuple[int, int]) -> Patch:
        top, rows = block
        return Patch((rows, size), (top, 0), (top, 0), num_bands)

    def ours() -> np.ndarray:
        tables = list(pool.map(lambda block: partial_table(labels, planes, patch(block), ["mean"]), blocks))
        while len(tables) > 1:  # in a tree of neighbours, as a run does
            pairs = [tables[i : i + 2] for i in range(0, len(tables), 2)]
            tables = list(pool.map(merge, pairs))
        table: LabelTable = tables[0]
        means = finish(table, ["mean"])["mean"]

        def paint(block: tuple[int, int]) -> None:
            lookup(labels, table.labels, means, painted.reshape(1, size, -1), patch(block), np.nan)

        list(pool.map(paint, blocks))
        return painted

    def bincount() -> np.ndarray:
        flat = labels.reshape(-1)
        count = np.maximum(np.bincount(flat), 1)
        sums = [np.bincount(flat, image[..., band].reshape(-1)) for band in range(num_bands)]
        return (np.stack(sums, axis=1) / count[:, None]).astype(np.float32)[labels]

    peer = "bincount (one thread)"
    name = f"5. means of {num_labels:,} labels, painted, {size} x {size} x {num_bands} float32 in memory"
    return Row(name, ours, {peer: bincount}, lambda a, b: np.allclose(a, b, rtol=1e-6), (at_least(peer, 3),))
