"""TIFF to Zarr and Zarr to GeoTIFF, against rasterio with the same codec, level, tiles and threads (needs rasterio).

Both sides write the same chunks by the same codecs with zarrs, and neither waits for the disk. rasterio writes from a
store as we do (with zarr), and from memory, which reads nothing and holds the raster twice. Each contender runs in a
process of its own, all in turn, several rounds, after a raster of 64 x 64, so that imports do not count; its peak is
what the system saw of that process (VmHWM).

    python -m benchmarks.geotiff [SIDE] [BANDS] [--rounds 5] [--folder FOLDER]

Seconds and processor seconds are medians, ratios are medians of the rounds' ratios to ours.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from rasterio.windows import Window
from zarr.codecs import BloscCodec

from pipeline import api
from pipeline.storage.tiff_writer import TileLayout, plan_tiles, write_geotiff
from pipeline.storage.zarr import ZarrReader, configure
from pipeline.storage.zarr_store import CODECS
from pipeline.synth import synth

THREADS = 2
MEMORY_BYTES = 700 * 2**20
STEP = 1024
CHUNK = 512
WARM, SCENE = "warm", "scene"
"""Folders of a small raster, and of the one that is measured."""


def open_scene(folder: Path) -> tuple[ZarrReader, TileLayout]:
    configure(THREADS)
    reader = ZarrReader(str(folder / "a.zarr"), "image" if (folder / "a.zarr/image").exists() else None)
    return reader, plan_tiles(reader.spec, reader.chunk, THREADS, MEMORY_BYTES)


def read_planes(reader: ZarrReader) -> np.ndarray:
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def gdal_options(reader: ZarrReader, layout: TileLayout, compress: str) -> dict[str, Any]:
    spec = reader.spec
    options = {"driver": "GTiff", "height": spec.height, "width": spec.width, "count": spec.num_bands}
    options |= {"dtype": "uint16", "tiled": True, "blockxsize": layout.side, "blockysize": layout.side}
    options |= {"compress": compress, "predictor": 2, "interleave": "pixel", "num_threads": THREADS}
    return options | {"bigtiff": "if_safer"} | ({"zlevel": 6} if compress == "deflate" else {})


def make(folder: Path, side: int, bands: int) -> None:
    """Make the scene, as a store and as a TIFF with LZW."""
    folder.mkdir()
    synth(str(folder / "a.zarr"), size=(side, side), bands=bands, dtype="uint16")
    reader, layout = open_scene(folder)
    with rasterio.open(folder / "lzw.tif", "w", **gdal_options(reader, layout, "lzw")) as file:
        file.write(read_planes(reader))


# --- contenders: each returns the call to be timed -------------------------------------------------------------


def write_ours(folder: Path) -> Callable[[], None]:
    reader, layout = open_scene(folder)
    target = folder / "ours.tif"
    return lambda: void(write_geotiff(target, reader, layout, "balanced", "{}", THREADS, "benchmark"))


def write_rasterio(folder: Path) -> Callable[[], None]:
    reader, layout = open_scene(folder)
    array = zarr.open_array(folder / "a.zarr", path=reader.array_path, mode="r")

    def work() -> None:
        with rasterio.open(folder / "theirs.tif", "w", **gdal_options(reader, layout, "deflate")) as file:
            for top in range(0, reader.spec.height, layout.rows):
                rows = np.moveaxis(array[top : top + layout.rows], -1, 0)
                file.write(rows, window=Window(0, top, reader.spec.width, rows.shape[1]))

    return work


def write_rasterio_from_memory(folder: Path) -> Callable[[], None]:
    reader, layout = open_scene(folder)
    planes = read_planes(reader)

    def work() -> None:
        with rasterio.open(folder / "memory.tif", "w", **gdal_options(reader, layout, "deflate")) as file:
            file.write(planes)

    return work


def read_ours(folder: Path) -> Callable[[], None]:
    limits = [(f"run.memory={MEMORY_BYTES}", "--memory"), (f"run.workers={THREADS}", "--workers")]
    limits.append(("run.durable=false", "--durable"))
    output = {"chunks": [CHUNK, CHUNK]}
    return lambda: void(api.convert(folder / "lzw.tif", folder / "ours.zarr", output=output, limits=limits))


def read_rasterio(folder: Path) -> Callable[[], None]:
    configure(THREADS)

    def work() -> None:
        with rasterio.open(folder / "lzw.tif", num_threads=THREADS) as file:
            codec = BloscCodec(typesize=2, **CODECS["fast"])
            shape, chunks = (file.count, *file.shape), (1, CHUNK, CHUNK)
            out = zarr.create_array(
                folder / "theirs.zarr", shape=shape, chunks=chunks, dtype="uint16", compressors=codec
            )
            for top in range(0, file.height, STEP):
                for left in range(0, file.width, STEP):
                    window = Window(left, top, min(STEP, file.width - left), min(STEP, file.height - top))
                    out[:, top : top + STEP, left : left + STEP] = file.read(window=window)

    return work


def void(result: Any) -> None:
    """Take what a call returns for nothing."""


# --- measuring -------------------------------------------------------------------------------------------------


def measure(contender: str, folder: str) -> dict[str, float]:
    """Return the seconds, the processor seconds and the peak of a contender, in this process."""
    globals()[contender](Path(folder, WARM))()
    work = globals()[contender](Path(folder, SCENE))
    started, busy = time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "busy": busy, "peak": int(peak.split()[1]) / 1024}


def in_own_process(contender: str, folder: Path) -> dict[str, float]:
    code = "import json, sys; from benchmarks import geotiff; print(json.dumps(geotiff.measure(*sys.argv[1:])))"
    command = [sys.executable, "-W", "ignore", "-c", code, contender, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


def compare(rows: dict[str, tuple[str, str]], folder: Path, rounds: int) -> None:
    """Measure contenders (name -> function and result) in turn, ours first, and print their medians."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (contender, result) in rows.items():
            for target in (folder / WARM / result, folder / SCENE / result):
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            measured[name].append(in_own_process(contender, folder))
    ours = next(iter(measured.values()))
    for name, facts in measured.items():
        seconds, busy, peak = ([each[key] for each in facts] for key in ("seconds", "busy", "peak"))
        ratios = [
            statistics.median(theirs[key] / own[key] for theirs, own in zip(facts, ours, strict=True))
            for key in ("seconds", "busy")
        ]
        print(
            f"{name:34} {statistics.median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"{statistics.median(busy):6.2f} s of CPU, {ratios[0]:.2f} x and {ratios[1]:.2f} x ours, "
            f"peak {max(peak):.0f} MiB, {stored_bytes(folder / SCENE / rows[name][1]) / 2**20:.0f} MiB written",
            flush=True,
        )


def stored_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def check_equal(folder: Path) -> None:
    """Compare what was written, pixel by pixel."""
    files = [rasterio.open(folder / name) for name in ("ours.tif", "theirs.tif")]
    stores = [zarr.open_array(folder / name, mode="r") for name in ("ours.zarr/raster/value", "theirs.zarr")]
    for top in range(0, files[0].height, STEP):
        window = Window(0, top, files[0].width, min(STEP, files[0].height - top))
        first, *others = [file.read(window=window) for file in files] + [
            np.asarray(store[:, top : top + STEP]) for store in stores
        ]
        assert all(np.array_equal(first, other) for other in others), f"answers differ from row {top} on"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", type=int, nargs="?", default=5000)
    parser.add_argument("bands", type=int, nargs="?", default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for the rasters, some 8 times their size")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        make(folder / WARM, 64, arguments.bands)
        make(folder / SCENE, arguments.side, arguments.bands)
        writing = {
            "Zarr to GeoTIFF": ("write_ours", "ours.tif"),
            "Zarr to GeoTIFF, zarr + rasterio": ("write_rasterio", "theirs.tif"),
            "memory to GeoTIFF, rasterio": ("write_rasterio_from_memory", "memory.tif"),
        }
        reading = {
            "TIFF (LZW) to Zarr": ("read_ours", "ours.zarr"),
            "TIFF (LZW) to Zarr, rasterio + zarr": ("read_rasterio", "theirs.zarr"),
        }
        compare(writing, folder, arguments.rounds)
        compare(reading, folder, arguments.rounds)
        check_equal(folder / SCENE)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
