"""Parts of a Cloud Optimized GeoTIFF from a web server that takes a while to answer, against GDAL's /vsicurl.

Both open the file anew, in a process of their own, and read the same window. Requests and bytes are the server's count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.child import in_own_process
from benchmarks.rounds import Measured, Row, at_most
from pipeline.model.region import Region
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.tiff.reader import TiffReader

BANDS = 4
ANSWER_SECONDS = 0.02
"""What each answer takes, as from a bucket nearby."""
SMALL, LARGE = "small.tif", "large.tif"
GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""Looks for no other files beside: what GDAL's users are told to set."""

Frame = tuple[int, int, int, int]
"""Top, bottom, left and right of a window, in pixels of the level."""


def make(path: Path, side: int) -> None:
    """Make a scene that compresses by half or so: waves and noise."""
    rows, columns = np.ogrid[:side, :side]
    rng = np.random.default_rng(5)
    form = {"height": side, "width": side, "count": BANDS, "dtype": "uint16", "crs": "EPSG:32633"}
    form |= {"transform": rasterio.Affine(10, 0, 5e5, 0, -10, 6e6)}
    block = max(16, min(512, side // 128 * 16))  # so that small scenes have levels, too
    options = {"driver": "COG", "compress": "deflate", "predictor": "YES", "blocksize": block}
    with rasterio.open(path, "w", **options, **form) as file:
        for band in range(BANDS):
            waves = 2000 + 1000 * np.sin(rows / (40 + band)) * np.cos(columns / 70)
            file.write((waves + rng.integers(0, 64, (side, side))).astype("uint16"), band + 1)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder from a process of its own; yield the URL."""
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.range_server", str(folder), str(port_file), str(ANSWER_SECONDS)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        try:
            while not port_file.exists():
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port_file.read_text()}"
        finally:
            process.kill()


def answered(url: str) -> tuple[int, int]:
    """Return how many requests the server got since the last call, and the bytes that it sent."""
    with urllib.request.urlopen(f"{url}/_control") as answer:
        log = json.loads(answer.read())
    return len(log), sum(num_bytes for _, _, num_bytes in log)


# --- contenders: each returns the pixels (band, row, column) ---------------------------------------------------


def read_ours(url: str, level: int, frame: Frame) -> np.ndarray:
    reader = open_raster(url, Choice(level=level))
    region = Region(*frame)
    out = np.empty(reader.spec.shape_of(region), reader.spec.dtype)
    reader.read(region, out)
    return np.moveaxis(out, -1, 0) if reader.spec.dims[-1] == "band" else out


def read_vsicurl(url: str, level: int, frame: Frame) -> np.ndarray:
    top, bottom, left, right = frame
    options = {"overview_level": level - 1} if level else {}
    with rasterio.Env(**GDAL), rasterio.open(f"/vsicurl/{url}", **options) as file:
        pixels: np.ndarray = file.read(window=Window(left, top, right - left, bottom - top))
    return pixels


def seconds(contender: str, url: str, level: int, frame: Frame, target: str) -> float:
    """Return the seconds of a contender, in this process, after a small file that pays for imports."""
    globals()[contender](f"{url}/{SMALL}", 0, (0, 64, 0, 64))
    started = time.perf_counter()
    pixels = globals()[contender](f"{url}/{LARGE}", level, frame)
    taken = time.perf_counter() - started
    np.save(target, pixels)
    return taken


# --- rows ------------------------------------------------------------------------------------------------------


def rows(folder: Path, side: int) -> Iterator[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in ((SMALL, 512), (LARGE, side)):
        if not (folder / name).exists():
            make(folder / name, size)
    size = os.path.getsize(folder / LARGE)
    reader = TiffReader.open(folder / LARGE, None, Choice(level=2))
    tenth = (side * 4 // 10, side // 2, side * 4 // 10, side // 2)
    parts: tuple[tuple[str, int, Frame], ...] = (
        ("1 %", 0, tenth),
        ("a quarter", 0, (side // 4, side * 3 // 4, side // 4, side * 3 // 4)),
        ("level 2", 2, (0, reader.spec.height, 0, reader.spec.width)),
    )
    peer = "rasterio /vsicurl"
    with served(folder) as url:
        for words, level, frame in parts:
            ours = contender("read_ours", url, level, frame, folder / "ours.npy")
            theirs = contender("read_vsicurl", url, level, frame, folder / "theirs.npy")
            counts = " against ".join(_counted(work, url) for work in (ours, theirs))
            name = f"16. {words} of a COG of {side} x {side} x {BANDS} uint16, {size / 2**20:.0f} MiB, from a server"
            yield Row(f"{name}: {counts}", ours, {peer: theirs}, equal, (at_most(peer, 1),))


def contender(function: str, url: str, level: int, frame: Frame, target: Path) -> Callable[[], Measured]:
    return partial(in_own_process, seconds, function, url, level, frame, str(target), answer=target)


def _counted(work: Callable[[], Measured], url: str) -> str:
    """Return what a contender asks of the server, the small file too."""
    answered(url)
    work()
    requests, num_bytes = answered(url)
    return f"{requests} requests for {num_bytes / 2**20:.2f} MiB"


def equal(ours: Path, theirs: Path) -> bool:
    return np.array_equal(np.load(ours), np.load(theirs))
