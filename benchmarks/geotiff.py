"""TIFF to Zarr and Zarr to GeoTIFF, against rasterio with the same codec, level and threads (needs rasterio).

rasterio writes from a store as we do (with zarr), and from memory, which reads nothing and holds the raster twice.

``python -m benchmarks.geotiff [SIDE] [BANDS]``: seconds and CPU seconds of each, the best of three.
"""

from __future__ import annotations

import shutil
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

from pipeline.storage.tiff_writer import plan_tiles, write_geotiff
from pipeline.storage.zarr import ZarrReader, configure
from pipeline.synth import synth

THREADS = 2
MEMORY_BYTES = 700 * 2**20
STEP = 1024


def measure(label: str, function: Callable[[], Any], result: Path) -> None:
    seconds = []
    for _ in range(3):
        started, busy = time.perf_counter(), time.process_time()
        function()
        seconds.append((time.perf_counter() - started, time.process_time() - busy))
    size = (
        result.stat().st_size if result.is_file() else sum(f.stat().st_size for f in result.rglob("*") if f.is_file())
    )
    print(f"{label:32} {min(seconds)[0]:7.2f} s {min(s for _, s in seconds):7.2f} s of CPU {size / 2**20:8.1f} MiB")


def main(side: int = 5000, bands: int = 16) -> None:
    folder = Path(tempfile.mkdtemp())
    synth(str(folder / "a.zarr"), size=(side, side), bands=bands, dtype="uint16")
    configure(THREADS)
    reader = ZarrReader(str(folder / "a.zarr"), "image" if (folder / "a.zarr/image").exists() else None)
    layout = plan_tiles(reader.spec, reader.chunk, THREADS, MEMORY_BYTES)
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    planes = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    options = {"driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint16", "tiled": True}
    options |= {"blockxsize": layout.side, "blockysize": layout.side, "compress": "deflate", "zlevel": 6}
    options |= {"predictor": 2, "interleave": "pixel", "num_threads": THREADS, "bigtiff": "if_safer"}

    def ours() -> None:
        (folder / "ours.tif").unlink(missing_ok=True)
        write_geotiff(folder / "ours.tif", reader, layout, "balanced", "{}", THREADS, "benchmark")

    def theirs() -> None:
        with rasterio.open(folder / "theirs.tif", "w", **options) as file:
            file.write(planes)

    def theirs_streamed() -> None:
        array = zarr.open_array(folder / "a.zarr", path=reader.array_path, mode="r")
        with rasterio.open(folder / "theirs.tif", "w", **options) as file:
            for top in range(0, side, layout.rows):
                rows = np.moveaxis(array[top : top + layout.rows], -1, 0)
                file.write(rows, window=Window(0, top, side, rows.shape[1]))

    def by_windows() -> None:
        shutil.rmtree(folder / "theirs.zarr", ignore_errors=True)
        with rasterio.open(folder / "lzw.tif", num_threads=THREADS) as file:
            out = zarr.create_array(folder / "theirs.zarr", shape=planes.shape, chunks=(1, 512, 512), dtype="uint16")
            for top in range(0, side, STEP):
                for left in range(0, side, STEP):
                    window = Window(left, top, min(STEP, side - left), min(STEP, side - top))
                    out[:, top : top + STEP, left : left + STEP] = file.read(window=window)

    def convert() -> None:
        from pipeline import api

        limits = [(f"run.memory={MEMORY_BYTES}", "--memory"), (f"run.workers={THREADS}", "--workers")]
        output = {"chunks": [512, 512]}
        api.convert(folder / "lzw.tif", folder / "ours.zarr", overwrite=True, output=output, limits=limits)

    measure("Zarr to GeoTIFF", ours, folder / "ours.tif")
    measure("Zarr to GeoTIFF, rasterio + zarr", theirs_streamed, folder / "theirs.tif")
    measure("memory to GeoTIFF, rasterio", theirs, folder / "theirs.tif")
    with rasterio.open(folder / "lzw.tif", "w", **(options | {"compress": "lzw"})) as file:
        file.write(planes)
    measure("TIFF (LZW) to Zarr", convert, folder / "ours.zarr")
    measure("TIFF to Zarr, rasterio + zarr", by_windows, folder / "theirs.zarr")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
