"""References: what an operation should compute, said naively of the whole raster by its author."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

NUMPY_MODES: Mapping[str, Any] = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap"}

Expected = Mapping[str, tuple[np.ndarray | None, np.ndarray | None]]
"""Output -> its values as float64, NaN where invalid (None: nothing is said of them), and the bound on their absolute
error (None: they are exact, rounded once to the output's dtype)."""


class Reference(Protocol):
    """A naive operation on a whole raster, in float64."""

    def __call__(self, step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
        """Return what a step makes of a raster: (band, y, x) in float64, invalid pixels NaN; `dtype` is the stored one.

        Columns of a table are outputs as well, by ``table/NAME``.
        """


def pad(plane: np.ndarray, rows: int, columns: int, boundary: str, cval: float | None) -> np.ndarray:
    """Pad one band by a boundary rule; beyond `shrink` is NaN."""
    widths = ((rows, rows), (columns, columns))
    if boundary in ("constant", "shrink"):
        beyond: Any = np.nan if boundary == "shrink" else cval
        return np.pad(plane, widths, constant_values=beyond)
    if boundary == "mirror":  # numpy cannot mirror an axis of one pixel; scipy repeats it
        for axis, width in enumerate(widths):
            mode: Any = "edge" if plane.shape[axis] == 1 else "reflect"
            plane = np.pad(plane, [width if i == axis else (0, 0) for i in range(2)], mode=mode)
        return plane
    padded: np.ndarray = np.pad(plane, widths, mode=NUMPY_MODES[boundary])
    return padded


def check_close(output: str, result: np.ndarray, expected: np.ndarray, bound: np.ndarray | None, nodata: Any) -> None:
    """Raise AssertionError, in words, where a result is further from its reference than its bound."""
    invalid = np.isnan(expected)
    if result.dtype.kind == "f":  # what has the value of nodata is invalid, also where it was computed
        invalid = invalid | (expected.astype(result.dtype) == nodata)
        result = np.where(result == nodata, np.nan, result)
    marked = np.isnan(result) if result.dtype.kind == "f" else result == nodata
    if result.dtype.kind == "f":
        assert np.array_equal(marked, invalid), _differs(output, marked != invalid, "valid where", result, expected)
    elif invalid.any():
        assert nodata is not None, f"{output} can be invalid by its reference, and has no nodata"
        assert np.all(marked[invalid]), _differs(output, ~marked & invalid, "valid where", result, expected)
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~invalid & _is_off(result, expected, bound)
    assert not wrong.any(), _differs(output, wrong, "not what", result, expected)


def _is_off(result: np.ndarray, expected: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
    if result.dtype.kind in "iu":
        # rounded to the working dtype, half to even to whole numbers, to the nearest end
        info = np.iinfo(result.dtype)
        rounding = np.finfo(np.float32).eps * np.where(expected == np.rint(expected), 0, np.abs(expected))
        slack = np.where(np.isfinite(expected), rounding if bound is None else bound, 0)
        low, high = (np.rint(np.clip(side, info.min, info.max)) for side in (expected - slack, expected + slack))
        return np.asarray((result < low) | (result > high))
    if bound is None:
        # exact means the exact value rounded once: max - min of float32 values need not be one
        return np.asarray(result != expected.astype(result.dtype))
    error = np.where(result == expected, 0, np.abs(result.astype(np.float64) - expected))  # infinity is infinity
    return np.asarray(~(error <= bound + np.finfo(result.dtype).tiny))


def _differs(output: str, where: np.ndarray, what: str, result: np.ndarray, expected: np.ndarray) -> str:
    place = tuple(int(index) for index in np.argwhere(where)[0])
    return (
        f"{output} ({result.dtype.name}) is {what} its reference says otherwise, at {int(where.sum())} of {where.size} "
        f"pixels: at {place} it is {result[place]}, by the reference {expected[place]}"
    )
