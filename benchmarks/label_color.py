"""Label tables and nearest colours on one thread, against numpy's bincount, scipy's cKDTree, BLAS and faiss.

All arrays are in memory, natural images and palettes from them. The rounds take turns; the least processor time of
each counts, ratios are to be trusted, absolute times are not. faiss is left out where it is not installed.

    python -m benchmarks.label_color --rounds 5
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping

import numpy as np
import skimage.data
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from pipeline.kernels.color_cells import cell_bits, cells_of, coarse_bins, count_cells, histogram
from pipeline.kernels.label_columns import finish, lookup
from pipeline.kernels.label_table import Patch, partial_table
from pipeline.kernels.median_cut import assigned_table, median_cut, moved_colors
from pipeline.kernels.nearest_color import Place, nearest, search_of

Works = Mapping[str, Callable[[], object]]


def label_works(num_labels: int, num_bands: int, by_lanes: bool, side: int = 2000) -> Works:
    """Return a table of means and the raster painted with them: ours, and a bincount a band."""
    rng = np.random.default_rng(0)
    cell = max(1, round(side / num_labels**0.5))
    place = np.arange(side) // cell
    labels = (place[:, None] * (place[-1] + 1) + place).astype(np.int32)
    image = rng.normal(100, 20, (side, side, num_bands)).astype(np.float32)
    bands = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    planes = image.reshape(1, side, -1) if by_lanes else bands
    out = np.empty_like(planes)
    patch = Patch((side, side), lanes=num_bands if by_lanes else 1)

    def ours() -> None:
        table = partial_table(labels, planes, patch, ["mean"])
        lookup(labels, table.labels, finish(table, ["mean"])["mean"], out, patch, np.nan)

    def bincount() -> object:
        flat = labels.reshape(-1)
        count = np.maximum(np.bincount(flat), 1)
        sums = [np.bincount(flat, band.reshape(-1)) for band in (np.moveaxis(image, -1, 0) if by_lanes else bands)]
        if by_lanes:
            return (np.stack(sums, axis=1) / count[:, None])[labels].astype(np.float32)
        return [(total / count)[labels].astype(np.float32) for total in sums]

    return {"ours": ours, "bincount": bincount}


def correlated_scene(side: int, num_bands: int) -> np.ndarray:
    """Return a scene whose bands mix three images, with some noise."""
    rng = np.random.default_rng(1)
    photo = skimage.data.astronaut()[:side, :side].astype(np.float64)
    return (photo @ rng.random((3, num_bands)) + rng.normal(0, 2, (side, side, num_bands))).astype(np.float32)


def palette_of(image: np.ndarray, num_colors: int) -> np.ndarray:
    height, width, bands = image.shape
    planes, patch = image.reshape(1, height, width * bands), Patch((height, width), lanes=bands)
    bins, bits = coarse_bins(bands), cell_bits(bands)
    cells = cells_of(histogram(planes, patch, bins), bins, bits)
    colors = median_cut([count_cells(planes, patch, cells, 2**18).table], num_colors)
    return moved_colors(colors, [assigned_table(planes, patch, search_of(colors))])


def color_works(image: np.ndarray, num_colors: int) -> Works:
    """Return the nearest colours of an image (row, column, band)."""
    height, width, bands = image.shape
    colors = palette_of(np.ascontiguousarray(image), num_colors)
    search, tree = search_of(colors), cKDTree(colors)
    planes = np.ascontiguousarray(image).reshape(1, height, width * bands)
    index = np.empty((height, width), np.int32)
    pixels = image.reshape(-1, bands).astype(np.float64)
    squares = (colors**2).sum(axis=1)

    def blas() -> object:
        with threadpool_limits(1):
            parts = np.array_split(pixels, max(1, len(pixels) // 8192))
            return [(squares - 2 * part @ colors.T).argmin(axis=1) for part in parts]

    works: dict[str, Callable[[], object]] = {
        "ours": lambda: nearest(planes, search, Place((height, width), lanes=bands), index, -1),
        "cKDTree": lambda: tree.query(pixels),
        "BLAS": blas,
    }
    if importlib.util.find_spec("faiss"):
        works["faiss"] = faiss_work(colors, pixels)
    return works


def faiss_work(colors: np.ndarray, pixels: np.ndarray) -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatL2(colors.shape[1])
    flat.add(colors.astype(np.float32))
    singles = pixels.astype(np.float32)
    return lambda: flat.search(singles, 1)


def least_seconds(works: Works, rounds: int) -> dict[str, float]:
    """Return the least processor seconds of each work; the first round does not count."""
    least = dict.fromkeys(works, float("inf"))
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if number:
                least[name] = min(least[name], time.process_time() - started)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    photo, scene = skimage.data.astronaut(), correlated_scene(256, 16)
    cases: dict[str, Callable[[], Works]] = {
        "10,000 labels x 3 bands, y,x,band": lambda: label_works(10_000, 3, by_lanes=True),
        "10,000 labels x 3 bands, band,y,x": lambda: label_works(10_000, 3, by_lanes=False),
        "1,000,000 labels x 3 bands, band,y,x": lambda: label_works(1_000_000, 3, by_lanes=False),
        "256 colours x 3 bands, uint8": lambda: color_works(photo[:256], 256),
        "256 colours x 16 bands, float32": lambda: color_works(scene, 256),
        "1024 colours x 16 bands, float32": lambda: color_works(scene, 1024),
    }
    for name, prepare in cases.items():
        least = least_seconds(prepare(), rounds)
        peers = ", ".join(
            f"{peer} {seconds / least['ours']:.1f} x" for peer, seconds in least.items() if peer != "ours"
        )
        print(f"{name}: {least['ours'] * 1e3:.1f} ms; {peers}", flush=True)


if __name__ == "__main__":
    main()
