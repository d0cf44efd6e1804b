"""Operations in memory against the usual ways, on two threads where those have them.

Ours go straight from the image into the results (`in_place`), or are the blocks of a run, with their halos, that are
copied in and out (`in_memory`); compiling is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.ndimage

from benchmarks.memory import in_memory, in_place
from benchmarks.rounds import Row, at_least, at_most
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.window import WindowRule, moments
from pipeline.model.region import Region

WORKERS = 2


def scene(size: int) -> np.ndarray:
    """Return a band with structure and noise, float32."""
    rng = np.random.default_rng(0)
    image = scipy.ndimage.gaussian_filter(rng.normal(size=(size, size)), 2).astype(np.float32) * 100
    return image + rng.normal(size=image.shape).astype(np.float32)


def counts(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 10 + 2000, 0, 65535).astype(np.uint16)


def close(tolerance: float) -> Callable[[Any, Any], bool]:
    """Return a comparison of what both have, away from the rim, where peers may pad otherwise."""

    def agree(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
        inner = (slice(40, -40), slice(40, -40))
        return all(np.allclose(ours[key][inner], theirs[key][inner], rtol=0, atol=tolerance) for key in theirs)

    return agree


# --- window statistics --------------------------------------------------------------------------------------------


def mean_kernels(size: int, side: int = 1024, lanes: int = 16) -> list[Row]:
    """The mean's kernel alone, one thread, against OpenCV; and with 1 % invalid pixels against itself without."""
    image = np.random.default_rng(0).normal(100, 20, (side, side, lanes)).astype(np.float32)
    padded = np.pad(image, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), mode="symmetric")
    dirty = padded.copy()
    dirty[np.random.default_rng(1).random(dirty.shape) < 0.01] = np.nan
    frame = Frame(Region(0, side, 0, side), (-(size // 2), -(size // 2)), (0, 0), lanes)
    window = WindowRule(Footprint.rectangle((size, size)))
    out = np.empty((1, side, side * lanes), np.float32)

    def mean(values: np.ndarray) -> dict[str, np.ndarray]:
        moments(values.reshape(1, len(values), -1), None, {"mean": out}, frame, window)
        return {"mean": out.reshape(image.shape)}

    def opencv_way() -> dict[str, np.ndarray]:
        import cv2

        cv2.setNumThreads(1)
        return {"mean": cv2.boxFilter(image, -1, (size, size), borderType=cv2.BORDER_REFLECT)}

    name = f"3. mean {size} x {size}, kernel alone, one thread, {side} x {side} x {lanes} float32"
    aims = (at_most("OpenCV", 1.0 if size == 3 else 1.5),)
    itself = "without invalid pixels"
    return [
        Row(name, lambda: mean(padded), {"OpenCV": opencv_way}, close(1e-3), aims),
        Row(
            f"3. the same with 1 % invalid, {size} x {size}",
            lambda: mean(dirty),
            {itself: lambda: mean(padded)},
            close(0),
            (at_most(itself, 3),),
            frozenset(),
        ),
    ]


def median(image: np.ndarray, size: int) -> Row:
    step = {"name": "m", "op": "window", "size": size, "statistics": ["median"]}

    def scipy_way() -> dict[str, np.ndarray]:
        return {"m/median": scipy.ndimage.median_filter(image, size)}

    ours = in_memory([step], image, 512)
    name = f"9. median {size} x {size}, {len(image)} x {len(image)} {image.dtype}"
    return Row(name, ours, {"scipy (one thread)": scipy_way}, close(0), (at_least("scipy (one thread)", 20),))


# --- gabor --------------------------------------------------------------------------------------------------------


def gabor_step(frequencies: list[float], orientations: list[float]) -> dict[str, Any]:
    bank = {"frequencies": frequencies, "orientations": orientations, "sigma": 5}
    return {"name": "g", "op": "gabor", **bank, "window": 15, "statistics": ["mean", "var"]}


def gabor(image: np.ndarray) -> list[Row]:
    """Straight from the image into the results, and as the blocks of a run."""
    from skimage.filters import gabor_kernel

    kernel = np.real(gabor_kernel(0.15, theta=np.deg2rad(30), sigma_x=5, sigma_y=5))

    def scipy_way() -> dict[str, np.ndarray]:
        response = scipy.ndimage.convolve(image, kernel.astype(np.float32))
        mean = scipy.ndimage.uniform_filter(response, 15)
        return {"g/mean": mean, "g/var": scipy.ndimage.uniform_filter(response * response, 15) - mean * mean}

    def opencv_way() -> dict[str, np.ndarray]:
        import cv2

        cv2.setNumThreads(WORKERS)
        response = cv2.filter2D(image, cv2.CV_32F, kernel[::-1, ::-1].astype(np.float32), borderType=cv2.BORDER_REFLECT)
        mean = cv2.boxFilter(response, -1, (15, 15), borderType=cv2.BORDER_REFLECT)
        square = cv2.boxFilter(response * response, -1, (15, 15), borderType=cv2.BORDER_REFLECT)
        return {"g/mean": mean, "g/var": square - mean * mean}

    peers = {"scipy (one thread)": scipy_way, "OpenCV": opencv_way}
    aims = (at_least("scipy (one thread)", 80), at_least("OpenCV", 4))
    name = f"4. Gabor 31 x 31 + 15 x 15 mean and var, {len(image)} x {len(image)} float32"
    steps = [gabor_step([0.15], [30])]
    return [
        Row(name, in_place(steps, image), peers, close(1e-2), aims),
        Row(f"{name}, in blocks", in_memory(steps, image), peers, close(1e-2)),
    ]


def gabor_bank(image: np.ndarray) -> Row:
    """A bank of 4 x 6 against one of its filters, along an axis and oblique."""
    bank = gabor_step([0.1, 0.15, 0.2, 0.25], [0, 30, 60, 90, 120, 150])
    one = {f"one filter at {angle}°": in_place([gabor_step([0.15], [angle])], image) for angle in (0, 30)}
    aims = tuple(at_most(peer, 16) for peer in one)
    name = f"4. Gabor bank of 4 x 6, {len(image)} x {len(image)} float32"
    return Row(name, in_place([bank], image), one, close(0), aims, frozenset())


def gabor_threads(image: np.ndarray) -> Row:
    """Row 11: two threads and one."""
    steps, peer = [gabor_step([0.15], [30])], "one thread"
    one, two = (in_place(steps, image, workers) for workers in (1, 2))
    name = f"11. two threads, Gabor 31 x 31 + 15 x 15 mean and var, {len(image)} x {len(image)} float32"
    return Row(name, two, {peer: one}, close(0), (at_least(peer, 1.8),))


# --- differences --------------------------------------------------------------------------------------------------


def differences(image: np.ndarray) -> list[Row]:
    """Straight from the image into the results, and as the blocks of a run, whose pixels are copied in and out."""
    steps = [
        {"name": "g", "op": "gradient", "input": "image"},
        {"name": "h", "op": "hessian", "input": "image"},
    ]
    source = [np.ones_like(image) for _ in range(5)]
    target = [np.zeros_like(image) for _ in range(5)]

    def numpy_way() -> dict[str, np.ndarray]:
        dy, dx = np.gradient(image)
        dyy, dyx = np.gradient(dy)
        return {"g/dy": dy, "g/dx": dx, "h/dyy": dyy, "h/dxy": dyx, "h/dxx": np.gradient(dx, axis=1)}

    def copy() -> None:
        for a, b in zip(target, source, strict=True):
            np.copyto(a, b)

    def agree(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
        # numpy's second derivatives are differences of differences, over twice the distance: not ours
        return close(1e-3)(ours, {key: theirs[key] for key in ("g/dy", "g/dx", "h/dxy")})

    name = f"8. gradient + Hessian, 5 outputs, {len(image)} x {len(image)} float32"
    peer, others = "memcpy of the outputs (one thread)", {"numpy.gradient (one thread)": numpy_way}
    compared = frozenset(others)
    return [
        Row(name, in_place(steps, image), {peer: copy, **others}, agree, (at_most(peer, 1.5),), compared),
        Row(f"{name}, in blocks", in_memory(steps, image), {peer: copy, **others}, agree, (), compared),
    ]
