"""64-bit integers, which floating point does not hold: refused, or kept as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, holds
from pipeline.operations.base import Operation


def require_exact(operation: Operation, spec: RasterSpec, key: str = "input") -> None:
    """Refuse to round 64-bit integers (of the source `key`) to floating point unless the step allows it."""
    if spec.dtype.kind in "iu" and spec.dtype.itemsize == 8 and not operation.allow_inexact:
        raise PipelineError(
            f"the input is {spec.dtype.name}, and floating point holds whole numbers only up to 2^53; "
            "cast it to a smaller dtype first, or set `allow_inexact: true` where rounding does no harm",
            operation.source_path(key),
        )


def keep_dtype(operation: Operation, source: RasterSpec, can_be_invalid: bool) -> RasterSpec:
    """Return the spec of an output whose values are values of the source, in its dtype.

    Integers that can be invalid take the step's nodata value, else the source's; without one they become floating
    point with NaN.
    """
    if source.dtype.kind == "f":
        return replace(source, nodata=float("nan") if can_be_invalid else None)
    if can_be_invalid and operation.nodata is not None and holds(source.dtype, operation.nodata):
        return replace(source, nodata=int(operation.nodata))
    if can_be_invalid and source.nodata is None:
        _check_float(operation, source)
        return replace(source, dtype=operation.working_dtype(source.dtype), nodata=float("nan"))
    return source


def _check_float(operation: Operation, source: RasterSpec) -> None:
    """Refuse 64-bit integers that would become floating point only to be NaN where they are invalid."""
    if source.dtype.itemsize == 8 and not operation.allow_inexact:
        limits = np.iinfo(source.dtype)
        spare = limits.min if source.dtype.kind == "i" else limits.max
        raise PipelineError(
            f"results can be invalid here, for which {source.dtype.name} has no value; set one that cannot occur, "
            f"such as `nodata: {spare}`, or `allow_inexact: true` for floating point with NaN, which holds whole "
            "numbers only up to 2^53",
            ("nodata",),
        )
