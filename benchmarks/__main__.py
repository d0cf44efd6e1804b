"""All benchmarks in one run, in turn, several rounds; the answers are compared first.

    python -m benchmarks --folder FOLDER [--size 5000] [--rounds 5] [--rows 1,4,10] [--out DIR]

Prints a table, and writes it as results.md, with results.json and results.svg. Peers that are not installed are left
out (`pip install -e '.[bench]'` brings them). FOLDER takes some 15 times the raster (25 GB for 5000 x 5000 x 16), a
third of it without row 13. Rounds that take more than a minute are repeated less often.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import as_chart, as_json, as_table, machine
from benchmarks.rounds import Timed, measure, report
from benchmarks.rows.catalogue import ROWS, Options
from benchmarks.rows.files import THREADS, Scenes
from pipeline.storage.zarr.reader import configure

ROUND_SECONDS = 60


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
    configure(THREADS)
    options = Options(arguments.size, Scenes(folder, arguments.size))
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
