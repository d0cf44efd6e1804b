"""Invalid pixels: from stored values to NaN or a mask, and back; casts that round half to even and saturate."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import kernel


@kernel
def nodata_to_nan(values: Any, nodata: Any) -> None:
    """Replace `nodata` by NaN in place; `values` is flat and floating point, `nodata` of its dtype."""
    for i in range(values.size):
        if values[i] == nodata:
            values[i] = np.nan


@kernel
def nan_to_nodata(values: Any, nodata: Any) -> None:
    """Replace NaN by `nodata` in place; `values` is flat and floating point."""
    for i in range(values.size):
        if np.isnan(values[i]):
            values[i] = nodata


@kernel
def integers_to_float(values: Any, nodata: Any, out: Any) -> None:
    """Copy flat integers to flat floats, `nodata` becoming NaN."""
    for i in range(values.size):
        out[i] = np.nan if values[i] == nodata else values[i]


@kernel
def count_valid(values: Any, nodata: Any) -> int:
    """Return how many flat values are neither NaN nor `nodata`."""
    count = 0
    for i in range(values.size):
        count += (values[i] == values[i]) & (values[i] != nodata)
    return count


def cast(values: np.ndarray, out: np.ndarray, nodata: float | int | None, fill: float | int | None) -> None:
    """Cast one array into another of the same shape: integers round half to even and saturate.

    `nodata` marks invalid pixels of an integer source (NaN does in a floating-point one); they become NaN in a
    floating-point target and `fill` in an integer one.
    """
    if values.dtype.kind == "f":
        invalid = np.isnan(values)
    else:
        invalid = values == nodata if nodata is not None else np.zeros((), bool)
    if out.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, values, casting="unsafe")
        np.copyto(out, np.nan, where=invalid)
        return
    info = np.iinfo(out.dtype)
    if values.dtype.kind == "f":
        _round_and_saturate(values.reshape(-1), out.reshape(-1), float(info.min), float(info.max), info.min, info.max)
    else:
        np.copyto(out, np.clip(values, _bound(values, info.min), _bound(values, info.max)), casting="unsafe")
    if fill is not None:
        np.copyto(out, out.dtype.type(fill), where=invalid)


def _bound(values: np.ndarray, bound: int) -> int:
    info = np.iinfo(values.dtype)
    return min(max(bound, int(info.min)), int(info.max))


@kernel
def _round_and_saturate(values: Any, out: Any, low: Any, high: Any, smallest: Any, largest: Any) -> None:
    for i in range(values.size):
        value = np.rint(values[i])
        # compared as floats: 2^63 - 1 is not one, and 2^63 does not fit
        if value >= high:
            out[i] = largest
        elif value <= low:
            out[i] = smallest
        elif value == value:
            out[i] = value
        else:
            out[i] = 0
