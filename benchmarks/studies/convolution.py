"""The kernels of convolve and gaussian against scipy.ndimage, and OpenCV where it is installed; one thread.

    python -m benchmarks.studies.convolution --size 2000

Times in milliseconds, the best of several rounds in turn; ratios of one run are to be trusted, absolute times are
not. OpenCV computes float32 in float32, and large kernels by Fourier transforms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from pipeline.kernels.convolution import Weights, correlate, direct, gaussian_weights, separable
from pipeline.kernels.frame import Frame
from pipeline.model.region import Region

try:
    import cv2

    cv2.setNumThreads(1)
except ImportError:
    cv2 = None

Contest = tuple[str, dict[str, Callable[[], object]]]


def contests(values: np.ndarray) -> Iterator[Contest]:
    """Yield what is computed, and by whom."""
    rng = np.random.default_rng(1)
    for side in (3, 7, 31):
        kernel = rng.normal(size=(side, side)).astype(values.dtype)
        ways: dict[str, Callable[[], object]] = {"rasterpipe": ours(values, direct(kernel))}
        if side < 31:
            ways["scipy"] = lambda kernel=kernel: ndimage.correlate(values, kernel)
        if cv2 is not None:
            ways["opencv"] = lambda kernel=kernel: cv2.filter2D(values, -1, kernel)
        yield f"{side} x {side}", ways
    for sigma in (1, 2, 5):
        bell = gaussian_weights(sigma)
        ways = {
            "rasterpipe": ours(values, separable(bell, bell)),
            "scipy": lambda sigma=sigma: ndimage.gaussian_filter(values, sigma),
        }
        if cv2 is not None:
            sides = (bell.size, bell.size)
            ways["opencv"] = lambda sides=sides, sigma=sigma: cv2.GaussianBlur(values, sides, sigma)
        yield f"sigma {sigma}", ways


def ours(values: np.ndarray, weights: Weights) -> Callable[[], object]:
    """Return a call that computes all pixels, from an array that holds their surroundings already."""
    top, bottom, left, right = weights.reach
    padded = np.pad(values, ((top, bottom), (left, right)), mode="symmetric")[np.newaxis]
    out = np.empty((1, *values.shape), values.dtype)
    frame = Frame(Region(0, values.shape[0], 0, values.shape[1]), (-top, -left), (0, 0))
    return lambda: correlate(padded, weights, out, frame)


def best_milliseconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):  # the first compiles
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for dtype in (np.float32, np.float64):
        values = np.random.default_rng(0).random((options.size, options.size)).astype(dtype)
        for title, ways in contests(values):
            times = best_milliseconds(ways, options.rounds)
            print(f"{dtype.__name__} {title:<8}", *(f"{name} {value:8.2f}" for name, value in times.items()))


if __name__ == "__main__":
    main()
