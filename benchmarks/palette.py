"""A palette of 256 colours by median cut and the nearest colour of each pixel, on two threads, against Pillow's one.

    python -m benchmarks.palette --size 5000 --rounds 5

In memory, uint8 of three bands: a photograph enlarged (neighbours alike, a million different colours), and the same
mirrored side by side (some hundred thousand colours). Answers agree if our squared error is no larger.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import skimage.data
from PIL import Image

from benchmarks.rounds import Row, measure, report
from pipeline.kernels.color_cells import CellTable, count_cells, identity_cells, merge_cells
from pipeline.kernels.label_table import Patch
from pipeline.kernels.median_cut import median_cut
from pipeline.kernels.nearest_color import Place, nearest, search_of

COLORS = 256
MOST_CELLS = 2**18
WORKERS = 2
BLOCK_ROWS = 512


def palette(name: str, image: np.ndarray) -> Row:
    height, width, bands = image.shape
    planes = image.reshape(1, height, width * bands)
    index = np.empty((height, width), np.uint16)
    blocks = [(top, min(BLOCK_ROWS, height - top)) for top in range(0, height, BLOCK_ROWS)]
    pool = ThreadPoolExecutor(WORKERS)

    def count(block: tuple[int, int]) -> CellTable:
        top, rows = block
        patch = Patch((rows, width), (top, 0), (top, 0), bands)
        return count_cells(planes, patch, identity_cells(bands), MOST_CELLS)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        tables = list(pool.map(count, blocks))
        while len(tables) > 1:  # in a tree of neighbours, as a run does
            pairs = [tables[i : i + 2] for i in range(0, len(tables), 2)]
            tables = list(pool.map(lambda pair: merge_cells(pair, bands, MOST_CELLS), pairs))
        (cells,) = tables
        colors = np.rint(median_cut([cells.table], COLORS))
        search = search_of(colors)

        def assign(block: tuple[int, int]) -> None:
            top, rows = block
            nearest(planes, search, Place((rows, width), (top, 0), (top, 0), bands), index, COLORS)

        list(pool.map(assign, blocks))
        return colors, index

    def pillow() -> tuple[np.ndarray, np.ndarray]:
        median_cut, none = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        quantized = Image.fromarray(image).quantize(COLORS, method=median_cut, dither=none)
        return np.array(quantized.getpalette(), np.float64).reshape(-1, bands), np.asarray(quantized)

    def error(answer: tuple[np.ndarray, np.ndarray]) -> float:
        colors, places = answer
        return float(np.mean([((colors[row] - pixels) ** 2).mean() for row, pixels in zip(places, image, strict=True)]))

    return Row(f"256 colours of {name}", ours, {"Pillow": pillow}, lambda ours, theirs: error(ours) <= error(theirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size, photo = arguments.size, skimage.data.astronaut()
    enlarged = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC))
    missing = max(0, size - len(photo))
    mirrored = np.pad(photo, ((0, missing), (0, missing), (0, 0)), mode="symmetric")
    for name, image in (("a photograph enlarged", enlarged), ("a photograph mirrored", mirrored)):
        print(report(measure(palette(name, np.ascontiguousarray(image)), arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
