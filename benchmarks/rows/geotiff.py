"""TIFF to Zarr and Zarr to Cloud Optimized GeoTIFF, against GDAL with the same codec, level, tiles and threads.

Both sides write the same chunks by the same codecs with zarrs, and neither waits for the disk. rasterio writes from a
store as we do (with zarr), and from memory, which reads nothing and holds the raster twice.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from rasterio.windows import Window
from zarr.codecs import BloscCodec

from benchmarks.child import in_own_process
from benchmarks.rounds import Measured, Row, at_most
from pipeline import api
from pipeline.execution.progress import Progress
from pipeline.storage.input import Choice
from pipeline.storage.tiff.tiling import Tiling, plan_tiles
from pipeline.storage.tiff.writer import GeoTiffForm, write_geotiff
from pipeline.storage.zarr.document import CODECS
from pipeline.storage.zarr.reader import ZarrReader, configure
from pipeline.verbs.demo.synth import synth

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
THREADS = 2
MEMORY_BYTES = 700 * 2**20
STEP = 1024
CHUNK = 512
BANDS = 16
TOKEN, QUIET = "a" * 32, Progress(quiet=True)
WARM, SCENE = "warm", "scene"
"""Folders of a small raster, and of the one that is measured."""


def open_scene(folder: Path) -> tuple[ZarrReader, Tiling]:
    configure(THREADS)
    reader = ZarrReader(str(folder / "a.zarr"), Choice("image" if (folder / "a.zarr/image").exists() else None))
    return reader, plan_tiles(reader.spec, reader.chunk, THREADS, MEMORY_BYTES)


def read_planes(reader: ZarrReader) -> np.ndarray:
    values = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, values)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def gdal_options(reader: ZarrReader, **more: Any) -> dict[str, Any]:
    spec = reader.spec
    options = {"height": spec.height, "width": spec.width, "count": spec.num_bands, "dtype": "uint16"}
    return options | {"num_threads": THREADS, "bigtiff": "if_safer", **more}


def cog_options(reader: ZarrReader, tiling: Tiling) -> dict[str, Any]:
    made = {"blocksize": tiling.side, "compress": "deflate", "level": 6, "predictor": "YES"}
    return gdal_options(reader, driver="COG", overview_resampling="average", **made)


def lzw_options(reader: ZarrReader, tiling: Tiling) -> dict[str, Any]:
    tiles = {"tiled": True, "blockxsize": tiling.side, "blockysize": tiling.side, "interleave": "pixel"}
    return gdal_options(reader, driver="GTiff", compress="lzw", predictor=2, **tiles)


def make(folder: Path, side: int, bands: int) -> None:
    """Make the scene, as a store and as a TIFF with LZW."""
    folder.mkdir()
    synth(str(folder / "a.zarr"), size=(side, side), bands=bands, dtype="uint16")
    reader, tiling = open_scene(folder)
    with rasterio.open(folder / "lzw.tif", "w", **lzw_options(reader, tiling)) as file:
        file.write(read_planes(reader))


# --- contenders: each returns the call to be timed -------------------------------------------------------------


def write_ours(folder: Path) -> Callable[[], None]:
    reader, tiling = open_scene(folder)
    target = folder / "ours.tif"
    return lambda: void(
        write_geotiff(
            target, TOKEN, tiling.walk.through_cache(reader, reader.chunk), tiling, GeoTiffForm("balanced", "{}"), QUIET
        )
    )


def write_rasterio(folder: Path) -> Callable[[], None]:
    reader, tiling = open_scene(folder)
    array = zarr.open_array(folder / "a.zarr", path=reader.array_path, mode="r")

    def work() -> None:
        with rasterio.open(folder / "theirs.tif", "w", **cog_options(reader, tiling)) as file:
            for top in range(0, reader.spec.height, reader.chunk[0]):
                rows = np.moveaxis(array[top : top + reader.chunk[0]], -1, 0)
                file.write(rows, window=Window(0, top, reader.spec.width, rows.shape[1]))

    return work


def write_rasterio_from_memory(folder: Path) -> Callable[[], None]:
    reader, tiling = open_scene(folder)
    planes = read_planes(reader)

    def work() -> None:
        with rasterio.open(folder / "memory.tif", "w", **cog_options(reader, tiling)) as file:
            file.write(planes)

    return work


def read_ours(folder: Path) -> Callable[[], None]:
    limits = [("run.memory", MEMORY_BYTES, "--memory"), ("run.workers", THREADS, "--workers")]
    limits.append(("run.durable", False, "--durable"))
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


# --- rows ------------------------------------------------------------------------------------------------------


def seconds(contender: str, folder: str) -> float:
    """Return the seconds of a contender, in this process, after a small raster that pays for imports."""
    globals()[contender](Path(folder, WARM))()
    work = globals()[contender](Path(folder, SCENE))
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows(folder: Path, side: int) -> Iterator[Row]:
    if not folder.exists():
        folder.mkdir(parents=True)
        make(folder / WARM, 64, BANDS)
        make(folder / SCENE, side, BANDS)

    def contender(function: str, result: str) -> Callable[[], Measured]:
        def work() -> Measured:
            for target in (folder / WARM / result, folder / SCENE / result):
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            return in_own_process(seconds, function, str(folder), answer=folder / SCENE / result)

        return work

    size, ours = f"{side} x {side} x {BANDS} uint16", contender("write_ours", "ours.tif")
    peer, whole = "zarr + rasterio", "rasterio, from memory"
    others = {
        peer: contender("write_rasterio", "theirs.tif"),
        whole: contender("write_rasterio_from_memory", "memory.tif"),
    }
    yield Row(f"14. Zarr to Cloud Optimized GeoTIFF, {size}", ours, others, equal, (at_most(peer, 1),))
    peer = "rasterio + zarr"
    others = {peer: contender("read_rasterio", "theirs.zarr")}
    yield Row(
        f"14. TIFF (LZW) to Zarr, {size}", contender("read_ours", "ours.zarr"), others, equal, (at_most(peer, 1),)
    )


def equal(ours: Path, theirs: Path) -> bool:
    """Compare what was written, pixel by pixel."""
    first, second = (_rows_of(path) for path in (ours, theirs))
    with rasterio.open(ours.parent / "lzw.tif") as file:
        tops = range(0, file.height, STEP)
    return all(np.array_equal(first(top), second(top)) for top in tops)


def _rows_of(path: Path) -> Callable[[int], np.ndarray]:
    """Return a call that reads (band, row, column) from a row on."""
    if path.suffix == ".tif":
        file = rasterio.open(path)
        return lambda top: file.read(window=Window(0, top, file.width, min(STEP, file.height - top)))
    store = zarr.open_array(path / "raster/value" if path.name == "ours.zarr" else path, mode="r")
    return lambda top: np.asarray(store[:, top : top + STEP])
