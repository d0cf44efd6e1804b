"""gradient and hessian on one thread, against numpy.gradient and against copying what they write.

All arrays are in memory and touched before. The rounds take turns; the least time of each counts, ratios are to be
trusted, absolute times are not.

    python -m benchmarks.difference --rounds 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from pipeline.kernels.difference import Frame, differences

GRADIENT, HESSIAN = ("dy", "dx"), ("dyy", "dxy", "dxx")


def numpy_gradients(pixels: np.ndarray) -> None:
    """Compute the five derivatives of (y, x) or (y, x, band) as one does with numpy."""
    dy, dx = np.gradient(pixels, axis=(0, 1))
    np.gradient(dy, axis=(0, 1))
    np.gradient(dx, axis=1)


def contestants(height: int, width: int, lanes: int, dtype: str) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; the block has its halo of one pixel."""
    values = np.random.default_rng(0).normal(size=(1, height + 2, (width + 2) * lanes)).astype(dtype)
    pixels = np.ascontiguousarray(values[0].reshape(height + 2, width + 2, lanes)[1:-1, 1:-1])
    results = {name: np.zeros((1, height, width * lanes), dtype) for name in GRADIENT + HESSIAN}
    copies = {name: np.ones_like(array) for name, array in results.items()}
    frame = Frame((1, height + 1, 1, width + 1), (0, 0), lanes)

    def run(*names: str) -> None:
        differences(values, {name: (results[name], (1, 1)) for name in names}, frame)

    def copy(*names: str) -> None:
        for name in names:
            np.copyto(copies[name], results[name])

    return {
        "gradient": lambda: run(*GRADIENT),
        "hessian": lambda: run(*HESSIAN),
        "one after the other": lambda: (run(*GRADIENT), run(*HESSIAN)),
        "fused": lambda: run(*GRADIENT, *HESSIAN),
        "numpy.gradient": lambda: numpy_gradients(pixels),
        "memcpy of 5": lambda: copy(*GRADIENT, *HESSIAN),
    }


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds + 1):  # the first compiles, and counts only if it is the fastest
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for height, width, lanes, dtype in (
        (5000, 5000, 1, "float32"),
        (1024, 1024, 16, "float32"),
        (2048, 2048, 1, "float64"),
    ):
        seconds = measure(contestants(height, width, lanes, dtype), arguments.rounds)
        one, both, five = (seconds[name] for name in ("one after the other", "fused", "memcpy of 5"))
        print(f"{height} x {width} x {lanes} {dtype}")
        for name, value in seconds.items():
            print(f"  {name:<20} {value * 1e3:8.1f} ms  {value / (height * width * lanes) * 1e9:6.2f} ns a pixel")
        print(
            f"  numpy.gradient / one after the other {seconds['numpy.gradient'] / one:.1f}; "
            f"fused / memcpy {both / five:.2f}; one after the other / fused {one / both:.2f}"
        )


if __name__ == "__main__":
    main()
