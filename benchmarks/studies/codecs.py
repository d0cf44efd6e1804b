"""The presets of `output.codec`: size against the time to write and to read, for several kinds of rasters.

    python -m benchmarks.studies.codecs [RASTER.tif ...] [--size 2000] [--rounds 3] [--picture docs/codecs.svg]

On two threads, chunks of 500 x 500; rasters of files are repeated until they have that size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.data
import tifffile

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Axis, Grid, Region
from pipeline.model.stored import StoredArray
from pipeline.storage.input import Choice
from pipeline.storage.zarr.document import CODECS
from pipeline.storage.zarr.reader import ZarrReader, configure
from pipeline.storage.zarr.store import ZarrWriter, create_store
from pipeline.verbs.demo.synth import synth

CHUNK = 500
THREADS = 2
COLORS = {"none": "#888", "fast": "#c33", "balanced": "#383", "small": "#33c"}


@dataclass(frozen=True)
class Cost:
    """What a raster costs in one codec, as shares and as GB of pixels a second."""

    size: float
    write: float
    read: float


def rasters(size: int, files: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    photo = skimage.data.astronaut()
    yield "photograph, uint8", repeated(photo, size)
    for dtype in ("uint16", "float32"):
        with tempfile.TemporaryDirectory() as folder:
            synth(f"{folder}/a.zarr", size=(size, size), bands=4, dtype=dtype, labels=f"{folder}/b.zarr")
            scene, labels = (_read(f"{folder}/{name}.zarr") for name in ("a", "b"))
        yield f"scene of counts, {dtype}", scene
    yield "its mean of 3 x 3, float32", scipy.ndimage.uniform_filter(scene, (3, 3, 1))
    yield "its labels, int32", labels
    for file in files:
        image = tifffile.imread(file)
        bands_last = np.moveaxis(image, 0, -1) if image.ndim == 3 and image.shape[0] < image.shape[2] else image
        yield f"{Path(file).name}, {image.dtype}", repeated(np.atleast_3d(bands_last), size)


def repeated(image: np.ndarray, size: int) -> np.ndarray:
    """Return it mirrored side by side and cut to size x size."""
    missing = [(0, max(0, size - side)) for side in image.shape[:2]]
    return np.ascontiguousarray(np.pad(image, (*missing, (0, 0)), mode="symmetric")[:size, :size])


def _read(path: str) -> np.ndarray:
    reader = ZarrReader(path)
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    return np.atleast_3d(values)


def measure(image: np.ndarray, rounds: int) -> dict[str, Cost]:
    """Return the cost of each preset, medians of rounds in turn."""
    found: dict[str, list[Cost]] = {codec: [] for codec in CODECS}
    for _ in range(rounds):
        for codec, costs in found.items():
            with tempfile.TemporaryDirectory() as folder:
                costs.append(store_and_load(image, codec, f"{folder}/a.zarr"))
    return {codec: _median(costs) for codec, costs in found.items()}


def store_and_load(image: np.ndarray, codec: str, path: str) -> Cost:
    height, width, bands = image.shape
    spec = RasterSpec(height, width, image.dtype, ("y", "x", "band"), tuple(f"b{i}" for i in range(bands)))
    plan = StoredArray("image", spec, (CHUNK, CHUNK, bands), None, codec, spec.region)
    create_store(path, {}, [plan])
    grid = Grid(Axis(0, height, CHUNK), Axis(0, width, CHUNK), 2**31)
    blocks = [grid.block(number) for number in range(len(grid))]
    writer, out = ZarrWriter(path, plan), np.empty_like(image)
    writing = _seconds(lambda block: writer.write(block, image[block.slices()]), blocks)
    reader = ZarrReader(path, Choice("image"))
    reading = _seconds(lambda block: reader.read(block, out[block.slices()]), blocks)
    np.testing.assert_array_equal(out, image)
    stored = sum(file.stat().st_size for file in Path(path, "image").rglob("c/**/*") if file.is_file())
    return Cost(stored / image.nbytes, image.nbytes / writing / 1e9, image.nbytes / reading / 1e9)


def _seconds(work: Callable[[Region], object], blocks: list[Region]) -> float:
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(work, blocks))
        return time.perf_counter() - started


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("size", "write", "read")))


def picture(found: Mapping[str, Mapping[str, Cost]]) -> str:
    """Return an SVG, a panel for each raster: share of the size against GB written a second."""
    panel, height, most = 210, 200, max(cost.write for costs in found.values() for cost in costs.values())
    parts = []
    for number, (name, costs) in enumerate(found.items()):
        left, top = 40 + number % 3 * (panel + 40), 30 + number // 3 * (height + 60)
        parts.append(f'<rect x="{left}" y="{top}" width="{panel}" height="{height}" fill="none" stroke="#888"/>')
        parts.append(f'<text x="{left}" y="{top - 6}">{name}</text>')
        for codec, cost in costs.items():
            x, y = left + panel * min(1.0, cost.size), top + height * (1 - cost.write / most)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLORS[codec]}"/>')
            end = ' text-anchor="end"' if cost.size > 0.6 else ""
            parts.append(f'<text x="{x + (-6 if end else 6):.1f}" y="{y - 5:.1f}"{end}>{codec}</text>')
        parts.append(f'<text x="{left + panel}" y="{top + height + 14}" text-anchor="end">size 100 %</text>')
        parts.append(f'<text x="{left - 4}" y="{top + 10}" text-anchor="end">{most:.1f}</text>')
    bottom = 30 + -(-len(found) // 3) * (height + 60)
    parts.append(
        f'<text x="40" y="{bottom}">across: stored size; up: GB of pixels written a second, two threads</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * (panel + 40) + 20} {bottom + 10}" '
        'font-family="sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rasters", nargs="*")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    configure(THREADS)
    found = {}
    for name, image in rasters(arguments.size, arguments.rasters):
        found[name] = measure(image, arguments.rounds)
        words = (
            f"{codec} {cost.size:.0%}, written {cost.write:.2f}, read {cost.read:.2f} GB/s"
            for codec, cost in found[name].items()
        )
        print(f"{name}: {'; '.join(words)}", flush=True)
    if arguments.picture:
        arguments.picture.write_text(picture(found))


if __name__ == "__main__":
    main()
