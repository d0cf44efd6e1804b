"""Operations in memory against the usual way, on two threads where it has them.

    python -m benchmarks.operations --size 5000 --rounds 3 [--only gabor]

Ours are the blocks of a run, with their halos, over a raster held in memory; compiling is not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import scipy.ndimage
from skimage.filters import gabor_kernel

from benchmarks.memory import in_memory
from benchmarks.rounds import Row, measure, report

WORKERS = 2


def close(tolerance: float) -> Callable[[Any, Any], bool]:
    """Return a comparison of what both have, away from the rim, where peers may pad otherwise."""

    def agree(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
        inner = (slice(40, -40), slice(40, -40))
        return all(np.allclose(ours[key][inner], theirs[key][inner], rtol=0, atol=tolerance) for key in theirs)

    return agree


def gabor(image: np.ndarray) -> Row:
    step = {"name": "g", "op": "gabor", "frequencies": [0.15], "orientations": [30], "sigma": 5, "window": 15}
    kernel = np.real(gabor_kernel(0.15, theta=np.deg2rad(30), sigma_x=5, sigma_y=5))

    def scipy_way() -> dict[str, np.ndarray]:
        response = scipy.ndimage.convolve(image, kernel.astype(np.float32))
        mean = scipy.ndimage.uniform_filter(response, 15)
        return {"g/mean": mean, "g/var": scipy.ndimage.uniform_filter(response * response, 15) - mean * mean}

    def opencv_way() -> dict[str, np.ndarray]:
        response = cv2.filter2D(image, cv2.CV_32F, kernel[::-1, ::-1].astype(np.float32), borderType=cv2.BORDER_REFLECT)
        mean = cv2.boxFilter(response, -1, (15, 15), borderType=cv2.BORDER_REFLECT)
        square = cv2.boxFilter(response * response, -1, (15, 15), borderType=cv2.BORDER_REFLECT)
        return {"g/mean": mean, "g/var": square - mean * mean}

    ours = in_memory([{**step, "statistics": ["mean", "var"]}], image)
    return Row("gabor 31 x 31 + 15 x 15 mean, var", ours, {"scipy": scipy_way, "OpenCV": opencv_way}, close(1e-2))


def gabor_bank(image: np.ndarray) -> Row:
    """One oblique filter, and what one along an axis and a bank take beside it."""
    image = np.ascontiguousarray(image[:2000, :2000])

    def filters(frequencies: list[float], orientations: list[float]) -> Callable[[], dict[str, np.ndarray]]:
        bank = {"frequencies": frequencies, "orientations": orientations, "sigma": 5, "window": 15}
        return in_memory([{"name": "g", "op": "gabor", **bank, "statistics": ["mean", "var"]}], image)

    peers = {
        "along an axis": filters([0.15], [0]),
        "a bank of 4 x 6": filters([0.1, 0.15, 0.2, 0.25], [0, 30, 60, 90, 120, 150]),
    }
    return Row("one gabor, 2000 x 2000", filters([0.15], [30]), peers, lambda ours, theirs: True)


def differences(image: np.ndarray) -> Row:
    steps = [
        {"name": "g", "op": "gradient", "input": "image"},
        {"name": "h", "op": "hessian", "input": "image"},
    ]

    def numpy_way() -> dict[str, np.ndarray]:
        dy, dx = np.gradient(image)
        dyy, dyx = np.gradient(dy)
        return {"g/dy": dy, "g/dx": dx, "h/dyy": dyy, "h/dxy": dyx, "h/dxx": np.gradient(dx, axis=1)}

    def agree(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
        # numpy's second derivatives are differences of differences, over twice the distance: not ours
        return close(1e-3)(ours, {key: theirs[key] for key in ("g/dy", "g/dx", "h/dxy")})

    return Row("gradient + Hessian, 5 outputs", in_memory(steps, image), {"numpy.gradient": numpy_way}, agree)


def median(image: np.ndarray, size: int) -> Row:
    step = {"name": "m", "op": "window", "size": size, "statistics": ["median"]}

    def scipy_way() -> dict[str, np.ndarray]:
        return {"m/median": scipy.ndimage.median_filter(image, size)}

    return Row(f"median {size} x {size} {image.dtype}", in_memory([step], image), {"scipy": scipy_way}, close(0))


def mean(image: np.ndarray, size: int) -> Row:
    step = {"name": "m", "op": "window", "size": size, "statistics": ["mean"]}

    def opencv_way() -> dict[str, np.ndarray]:
        return {"m/mean": cv2.boxFilter(image, -1, (size, size), borderType=cv2.BORDER_REFLECT)}

    return Row(f"mean {size} x {size}, 4 bands", in_memory([step], image), {"OpenCV": opencv_way}, close(1e-2))


def rows(size: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    rng = np.random.default_rng(0)
    image = scipy.ndimage.gaussian_filter(rng.normal(size=(size, size)), 2).astype(np.float32) * 100
    image += rng.normal(size=image.shape).astype(np.float32)
    counts = np.clip(image * 10 + 2000, 0, 65535).astype(np.uint16)
    yield "gabor", lambda: gabor(image)
    yield "bank", lambda: gabor_bank(image)
    yield "differences", lambda: differences(image)
    yield "median", lambda: median(counts, 5)
    yield "median-float", lambda: median(image, 5)
    for side in (3, 15, 101):
        yield f"mean-{side}", lambda side=side: mean(np.stack([image] * 4, axis=-1), side)  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name begins so")
    arguments = parser.parse_args()
    cv2.setNumThreads(WORKERS)
    for name, make in rows(arguments.size):
        if name.startswith(arguments.only):
            print(report(measure(make(), arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
