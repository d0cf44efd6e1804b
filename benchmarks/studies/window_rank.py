"""Medians and percentiles of windows, and statistics of disks, on one thread, against scipy.ndimage.

All arrays are in memory. The rounds take turns; the least processor time of each counts, ratios are to be trusted,
absolute times are not. scipy gets a part of the raster where it would take long; the times are per pixel.

    python -m benchmarks.studies.window_rank --rounds 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import scipy.ndimage

from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.window import WindowRule, extrema, moments
from pipeline.kernels.window_order import order_statistics
from pipeline.model.raster import working_dtype
from pipeline.model.region import Region


def scene(side: int, dtype: str) -> np.ndarray:
    """Return noise, for which windows change most from pixel to pixel."""
    values = np.random.default_rng(0).normal(100, 30, (1, side, side))
    return (values * (1 if dtype == "uint8" else 10)).clip(0, 255 * 16).astype(dtype)


def frame_of(values: np.ndarray, footprint: Footprint) -> Frame:
    rows, columns = (side // 2 for side in footprint.extent)
    region = Region(rows, values.shape[1] - rows, columns, values.shape[2] - columns)
    return Frame(region, (0, 0), (0, 0))


def order(values: np.ndarray, footprint: Footprint, **fractions: float) -> Callable[[], None]:
    """Return what computes order statistics of all windows inside."""
    odd = list(fractions) == ["median"] and not np.isnan(values.min())
    dtype = values.dtype if odd else working_dtype(values.dtype)
    out = {name: np.zeros(values.shape, dtype) for name in fractions}
    frame = frame_of(values, footprint)
    return lambda: order_statistics(values, None, out, fractions, frame, WindowRule(footprint))


def seconds_a_pixel(functions: Mapping[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Return the least processor time of each, by its number of pixels."""
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds + 1):  # the first compiles, and counts only if it is the fastest
        for name, (num, function) in functions.items():
            start = time.thread_time()
            function()
            least[name] = min(least[name], (time.thread_time() - start) / num)
    return least


def medians(side: int, dtype: str, size: int, rounds: int) -> None:
    values, part = scene(side, dtype), scene(max(2 * size, 1000 // size), dtype)[0]
    footprint, inside = Footprint.rectangle((size, size)), (side - size + 1) ** 2
    functions: dict[str, tuple[int, Callable[[], object]]] = {
        "median": (inside, order(values, footprint, median=0.5)),
        "disk": (inside, order(values, Footprint.disk((size, size)), median=0.5)),
        "p10 and p90": (inside, order(values, footprint, p10=0.1, p90=0.9)),
        "scipy": (part.size, lambda: scipy.ndimage.median_filter(part, size)),
    }
    if values.dtype.kind == "f":
        dirty = values.copy()
        dirty[np.random.default_rng(1).random(dirty.shape) < 0.02] = np.nan
        functions["2 % invalid"] = (inside, order(dirty, footprint, median=0.5))
    least = seconds_a_pixel(functions, rounds)
    words = "".join(f"{name} {value * 1e9:7.1f}  " for name, value in least.items())
    print(f"{size:>3} x {size:<3} {dtype:<8} ns a pixel: {words} scipy / median {least['scipy'] / least['median']:.0f}")


def disks(side: int, size: int, rounds: int) -> None:
    values = scene(side, "float32")
    footprint, inside = Footprint.disk((size, size)), (side - size + 1) ** 2
    frame, window, part = frame_of(values, footprint), WindowRule(footprint), scene(4 * size, "float32")[0]
    out = {name: np.zeros(values.shape, np.float32) for name in ("mean", "var", "min")}
    weights = footprint.mask / footprint.num_pixels
    functions: dict[str, tuple[int, Callable[[], object]]] = {
        "mean": (inside, lambda: moments(values, None, {"mean": out["mean"]}, frame, window)),
        "var": (inside, lambda: moments(values, None, {"var": out["var"]}, frame, window)),
        "min": (inside, lambda: extrema(values, None, {"min": out["min"]}, frame, window)),
        "scipy's convolve": (part.size, lambda: scipy.ndimage.convolve(part, weights)),
        "scipy's minimum_filter": (part.size, lambda: scipy.ndimage.minimum_filter(part, footprint=footprint.mask)),
    }
    words = "".join(f"{name} {value * 1e9:7.1f}  " for name, value in seconds_a_pixel(functions, rounds).items())
    print(f"disk {size:>3}  float32  ns a pixel: {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=600)
    arguments = parser.parse_args()
    for dtype in ("uint8", "uint16", "float32", "float64"):
        for size in (3, 5, 9, 15, 41):
            medians(arguments.side, dtype, size, arguments.rounds)
    for size in (5, 15, 41):
        disks(arguments.side, size, arguments.rounds)


if __name__ == "__main__":
    main()
