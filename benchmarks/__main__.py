"""All benchmarks in one run, in turn, several rounds; the answers are compared first.

    python -m benchmarks --folder FOLDER [--size 5000] [--rounds 5] [--rows 1,4,10] [--out DIR]

Prints a table, and writes it as results.md, with results.json and results.svg. Peers that are not installed are left
out (`pip install -e '.[bench]'` brings them). FOLDER takes some 15 times the raster (25 GB for 5000 x 5000 x 16), a
third of it without row 13. Rounds that take more than a minute are repeated less often.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import colors, file_rows, labels, operations
from benchmarks.report import as_chart, as_json, as_table, machine
from benchmarks.rounds import Row, Timed, measure, report
from pipeline.storage.zarr.reader import configure

ROUND_SECONDS = 60


@dataclass(frozen=True)
class Options:
    """What the command was asked for."""

    size: int
    scenes: file_rows.Scenes


def window_rows(options: Options) -> Iterator[Row]:
    for size in (3, 15, 101):
        yield from operations.mean_kernels(size)


def gabor_rows(options: Options) -> Iterator[Row]:
    image = operations.scene(options.size)
    yield from operations.gabor(image)
    yield operations.gabor_bank(image[:2000, :2000].copy())


def label_rows(options: Options) -> Iterator[Row]:
    yield labels.label_means(options.size, 10_000, 3)
    yield labels.label_means(options.size, min(1_000_000, options.size**2 // 25), 16)
    yield from file_rows.label_files(options.scenes)


def color_rows(options: Options) -> Iterator[Row]:
    side = min(options.size, 2000)
    yield colors.nearest_colors(colors.photograph(side, enlarged=False), 256)
    yield colors.nearest_colors(colors.mixed_scene(side, 16), 256)
    yield colors.nearest_colors(colors.mixed_scene(side // 2, 16), 1024)


def palette_rows(options: Options) -> Iterator[Row]:
    yield colors.palette(colors.photograph(options.size, enlarged=False), "a photograph mirrored")
    yield colors.palette(colors.photograph(options.size, enlarged=True), "a photograph enlarged")


def difference_rows(options: Options) -> Iterator[Row]:
    yield from operations.differences(operations.scene(options.size))


def median_rows(options: Options) -> Iterator[Row]:
    image = operations.scene(min(options.size, 1000))
    for size in (5, 15, 41):
        yield operations.median(operations.counts(image), size)
        yield operations.median(image, size)


def thread_rows(options: Options) -> Iterator[Row]:
    yield from file_rows.threads(options.scenes)
    yield operations.gabor_threads(operations.scene(options.size))


def geotiff_rows(options: Options) -> Iterator[Row]:
    if importlib.util.find_spec("rasterio"):
        from benchmarks import geotiff

        yield from geotiff.rows(options.scenes.path("geotiff"), options.size)


ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "1": lambda options: file_rows.means(options.scenes),
    "3": window_rows,
    "4": gabor_rows,
    "5": label_rows,
    "6": color_rows,
    "7": palette_rows,
    "8": difference_rows,
    "9": median_rows,
    "10": lambda options: file_rows.all_systems(options.scenes),
    "11": thread_rows,
    "12": lambda options: file_rows.starts(options.scenes.folder),
    "13": lambda options: file_rows.sizes(options.scenes),
    "14": geotiff_rows,
}
"""Row 2 comes with row 1."""


def measure_rows(options: Options, names: list[str], rounds: int) -> Iterator[Timed]:
    for name in names:
        for row in ROWS[name](options):
            timed = measure(row, rounds, ROUND_SECONDS)
            print(report(timed), flush=True)
            yield timed


def write_results(rows: list[Timed], folder: Path, options: Options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(as_json(rows, size=options.size), indent=1))
    (folder / "results.md").write_text(as_table(rows) + "\n")
    (folder / "results.svg").write_text(as_chart(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS), help="numbers, separated by commas")
    parser.add_argument("--folder", type=Path, help="for the rasters; a temporary one by default")
    parser.add_argument("--out", type=Path, default=Path("results"), help="for the table, the JSON and the chart")
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        sys.exit(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    configure(file_rows.THREADS)
    options = Options(arguments.size, file_rows.Scenes(folder, arguments.size))
    print(json.dumps(machine()), flush=True)
    rows: list[Timed] = []
    try:
        for timed in measure_rows(options, names, arguments.rounds):
            rows.append(timed)
            write_results(rows, arguments.out, options)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    print(as_table(rows))


if __name__ == "__main__":
    main()
