"""Nearest colours and median cut in memory, on two threads where the others have them (Pillow has one).

Nearest: real photographs and a scene whose bands mix them, palettes from the image by median cut. Median cut: a
photograph enlarged (neighbours alike, a million different colours), and the same mirrored side by side (some hundred
thousand colours); answers agree if our squared error is no larger.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.rounds import Row, at_least
from pipeline.kernels.color_bins import coarse_bins, histogram
from pipeline.kernels.color_cells import (
    CellTable,
    cell_bits,
    cells_of,
    count_cells,
    identity_cells,
    merge_cells,
)
from pipeline.kernels.color_search import search_of
from pipeline.kernels.frame import Patch
from pipeline.kernels.median_cut import assigned_table, median_cut, moved_colors
from pipeline.kernels.nearest_color import nearest

COLORS = 256
MOST_CELLS = 2**18
WORKERS = 2
BLOCK_ROWS = 512
PART = 8192
"""Pixels whose distances to all colours numpy computes at a time."""


def photograph(size: int, *, enlarged: bool) -> np.ndarray:
    import skimage.data
    from PIL import Image

    photo = skimage.data.astronaut()
    if enlarged:
        return np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC))
    missing = max(0, size - len(photo))
    return np.pad(photo, ((0, missing), (0, missing), (0, 0)), mode="symmetric")[:size, :size].copy()


def mixed_scene(size: int, num_bands: int) -> np.ndarray:
    """Return a scene whose bands mix three, with some noise."""
    rng = np.random.default_rng(1)
    photo = photograph(size, enlarged=False).astype(np.float64)
    return (photo @ rng.random((3, num_bands)) + rng.normal(0, 2, (size, size, num_bands))).astype(np.float32)


def _blocks(height: int) -> list[tuple[int, int]]:
    return [(top, min(BLOCK_ROWS, height - top)) for top in range(0, height, BLOCK_ROWS)]


# --- nearest colours ----------------------------------------------------------------------------------------------


def palette_of(image: np.ndarray, num_colors: int) -> np.ndarray:
    height, width, bands = image.shape
    planes, patch = image.reshape(1, height, width * bands), Patch((height, width), lanes=bands)
    bins, bits = coarse_bins(bands), cell_bits(bands)
    cells = cells_of(histogram(planes, patch, bins), bins, bits)
    colors = median_cut([count_cells(planes, patch, cells, MOST_CELLS).table], num_colors)
    return moved_colors(colors, [assigned_table(planes, patch, search_of(colors))])


def nearest_colors(image: np.ndarray, num_colors: int) -> Row:
    from scipy.spatial import cKDTree

    height, width, bands = image.shape
    colors = palette_of(image[:512, :512].copy(), num_colors)
    search, tree = search_of(colors), cKDTree(colors)
    planes, pixels = image.reshape(1, height, width * bands), image.reshape(-1, bands)
    index, pool = np.empty((height, width), np.int32), ThreadPoolExecutor(WORKERS)
    squares = (colors**2).sum(axis=1)

    def assign(block: tuple[int, int]) -> None:
        top, rows = block
        nearest(planes, search, Patch((rows, width), (top, 0), (top, 0), bands), index, -1)

    def ours() -> np.ndarray:
        list(pool.map(assign, _blocks(height)))
        return index.reshape(-1)

    def blas() -> np.ndarray:
        parts = np.array_split(pixels, -(-len(pixels) // PART))
        return np.concatenate([(squares - 2 * part.astype(np.float64) @ colors.T).argmin(axis=1) for part in parts])

    peers: dict[str, Callable[[], Any]] = {
        "cKDTree": lambda: tree.query(pixels, workers=WORKERS)[1],
        "BLAS": blas,
        "faiss IndexFlatL2": _faiss(colors, pixels),
    }
    aims = (at_least("cKDTree", 15), at_least("BLAS", 8), at_least("faiss IndexFlatL2", 2.5))
    name = f"6. nearest of {num_colors} colours, {height} x {width} x {bands} {image.dtype}"
    return Row(name, ours, peers, _as_near(pixels, colors), aims)


def _faiss(colors: np.ndarray, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    singles = pixels.astype(np.float32)

    def search() -> np.ndarray:
        import faiss

        faiss.omp_set_num_threads(WORKERS)
        flat = faiss.IndexFlatL2(colors.shape[1])
        flat.add(colors.astype(np.float32))
        return np.asarray(flat.search(singles, 1)[1]).reshape(-1)

    return search


def _as_near(pixels: np.ndarray, colors: np.ndarray) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Return whether no pixel's colour is farther by ours than by theirs; of colours as near they may take another."""

    def distance(index: np.ndarray) -> np.ndarray:
        return ((pixels[::97] - colors[index[::97]]) ** 2).sum(axis=1)

    return lambda ours, theirs: bool((distance(ours) <= distance(theirs)).all())


# --- median cut ---------------------------------------------------------------------------------------------------


def palette(image: np.ndarray, name: str) -> Row:
    height, width, bands = image.shape
    planes = image.reshape(1, height, width * bands)
    index, pool = np.empty((height, width), np.uint16), ThreadPoolExecutor(WORKERS)

    def count(block: tuple[int, int]) -> CellTable:
        top, rows = block
        patch = Patch((rows, width), (top, 0), (top, 0), bands)
        return count_cells(planes, patch, identity_cells(bands), MOST_CELLS)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        tables = list(pool.map(count, _blocks(height)))
        while len(tables) > 1:  # in a tree of neighbours, as a run does
            pairs = [tables[i : i + 2] for i in range(0, len(tables), 2)]
            tables = list(pool.map(lambda pair: merge_cells(pair, bands, MOST_CELLS), pairs))
        (cells,) = tables
        colors = np.rint(median_cut([cells.table], COLORS))
        search = search_of(colors)

        def assign(block: tuple[int, int]) -> None:
            top, rows = block
            nearest(planes, search, Patch((rows, width), (top, 0), (top, 0), bands), index, COLORS)

        list(pool.map(assign, _blocks(height)))
        return colors, index

    def pillow() -> tuple[np.ndarray, np.ndarray]:
        from PIL import Image

        median_cut, none = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        quantized = Image.fromarray(image).quantize(COLORS, method=median_cut, dither=none)
        return np.array(quantized.getpalette(), np.float64).reshape(-1, bands), np.asarray(quantized)

    def error(answer: tuple[np.ndarray, np.ndarray]) -> float:
        colors, places = answer
        return float(np.mean([((colors[row] - pixels) ** 2).mean() for row, pixels in zip(places, image, strict=True)]))

    peer = "Pillow (one thread)"
    row_name = f"7. median cut of {COLORS} and assignment, {height} x {width} x {bands} uint8, {name}"
    return Row(row_name, ours, {peer: pillow}, lambda a, b: error(a) <= error(b), (at_least(peer, 10),))
