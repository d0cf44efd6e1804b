"""Statistics of a moving window: mean, sum, var, std, min, max, range, count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictBool, StrictInt, field_validator, model_validator

from pipeline.errors import PipelineError
from pipeline.kernels.validity import cast
from pipeline.kernels.window import Frame, extrema, moments, scratch_bytes
from pipeline.operation import (
    Block,
    Boundary,
    Domain,
    Edge,
    IntPair,
    Operation,
    Specs,
    keep_dtype,
    register,
    require_exact,
)
from pipeline.raster import Number, RasterSpec, holds, working_dtype
from pipeline.region import Halo, Region

Statistic = Literal["mean", "sum", "var", "std", "min", "max", "range", "count"]
MOMENTS = ("mean", "sum", "var", "std", "count")
ROUNDED = ("mean", "sum", "var", "std")


@register
class Window(Operation):
    """Statistics of the window around each pixel, the pixel itself included.

    Invalid pixels (nodata, NaN; inf too, except for min and max) are skipped. The cost does not depend on the size.
    Reference: scipy.ndimage's uniform_filter, minimum_filter and maximum_filter in float64; numpy.nanmean and kin
    over sliding windows where pixels are invalid.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = "{name: smooth, op: window, input: image, size: 3, statistics: [mean, std]}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "mean": "working dtype (float32 for 8 and 16-bit integers and float32, else float64)",
        "sum": "float64 for integers, the working dtype for floating point",
        "var": "population variance; working dtype",
        "std": "its square root; working dtype",
        "min": "the input's dtype",
        "max": "the input's dtype",
        "range": "max - min of the finite values; the input's dtype (saturates where that is a signed integer)",
        "count": "valid pixels in the window, defined everywhere; uint32",
    }

    op: Literal["window"]
    size: IntPair
    """Height and width of the window in pixels, both odd; one number for a square."""
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1)] = ("mean",)
    """What to compute; each is an output. var and std are the population's."""
    boundary: Boundary = "reflect"
    """What lies beyond the raster's edge: scipy.ndimage's modes, or shrink (nothing: only pixels inside count)."""
    cval: Number | None = None
    """Value of the pixels beyond the edge, for boundary: constant."""
    min_valid: Annotated[StrictInt, Field(ge=1)] = 1
    """Pixels of the window that must be valid; with fewer the result is invalid."""
    fill_invalid: StrictBool = False
    """Give invalid pixels a result too, from their valid neighbours."""

    @field_validator("size")
    @classmethod
    def _check_odd(cls, size: tuple[int, int]) -> tuple[int, int]:
        even = [side for side in size if side % 2 == 0]
        if even:
            raise ValueError(f"must be odd, got {even[0]}; try {even[0] - 1} or {even[0] + 1}")
        return size

    @field_validator("statistics")
    @classmethod
    def _check_unique(cls, statistics: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(statistics)) != len(statistics):
            raise ValueError(f"must name each statistic once, got {', '.join(statistics)}")
        return statistics

    @model_validator(mode="after")
    def _check(self) -> Window:
        if self.boundary == "constant" and self.cval is None:
            raise PipelineError("boundary: constant needs a value; add `cval: 0`, say", ("boundary",))
        if self.boundary != "constant" and self.cval is not None:
            raise PipelineError(f"cval is for boundary: constant; boundary is {self.boundary}", ("cval",))
        if self.min_valid > self.size[0] * self.size[1]:
            raise PipelineError(
                f"must be at most the {self.size[0] * self.size[1]} pixels of the window, got {self.min_valid}",
                ("min_valid",),
            )
        return self

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo.around(self.size[0] // 2, self.size[1] // 2)}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("invalid" if self.boundary == "shrink" else self.boundary, self.cval or 0)}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        if any(name in ROUNDED for name in self.statistics):
            require_exact(self, source)
        if self.cval is not None and not holds(source.dtype, self.cval):
            raise PipelineError(f"{self.cval} cannot occur in {source.dtype.name} pixels", ("cval",))
        return {name: self._output(name, source) for name in self.statistics}

    def _output(self, name: str, source: RasterSpec) -> RasterSpec:
        if name == "count":
            return replace(source, dtype=np.dtype(np.uint32), nodata=None)
        can_be_invalid = source.can_be_invalid or self._fewest_pixels(source) < self.min_valid
        working = working_dtype(source.dtype)
        if name in ROUNDED:
            dtype = np.dtype(np.float64) if name == "sum" and source.dtype.kind != "f" else working
            return replace(source, dtype=dtype, nodata=float("nan") if can_be_invalid else None)
        return keep_dtype(self, source, can_be_invalid)

    def _fewest_pixels(self, source: RasterSpec) -> int:
        """Return the pixels of the smallest window: one at a corner of the raster, where the boundary shrinks it."""
        if self.boundary != "shrink":
            return self.size[0] * self.size[1]
        rows, columns = min(self.size[0] // 2 + 1, source.height), min(self.size[1] // 2 + 1, source.width)
        return rows * columns

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lanes = source.num_bands if source.dims[-1] == "band" else 1
        rows = scratch_bytes(shape, self.size, lanes, source.dtype.itemsize)
        extremes = (spec.dtype for name, spec in self.output_specs(specs).items() if name in ("min", "max", "range"))
        if all(dtype == source.dtype for dtype in extremes):
            return rows
        grown = (shape[0] + self.size[0] - 1) * (shape[1] + self.size[1] - 1)
        return rows + grown * source.num_bands * (working_dtype(source.dtype).itemsize + 2)

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        first = next(iter(out.values()))
        frame = Frame(
            region=(region.top, region.bottom, region.left, region.right),
            origin=source.origin,
            out_origin=first.origin,
            size=self.size,
            lanes=source.lanes,
            min_valid=self.min_valid,
            fill_invalid=self.fill_invalid,
        )
        mask = None if source.valid is None else source.planes(source.valid)
        planes = {name: block.planes() for name, block in out.items()}
        if sums := {name: planes[name] for name in planes if name in MOMENTS}:
            moments(source.planes(), mask, sums, frame)
        if others := {name: planes[name] for name in planes if name not in MOMENTS}:
            dtype = next(iter(others.values())).dtype
            fill = next(out[name].fill for name in others)
            values = source.planes()
            if values.dtype != dtype:  # integers that have no value for an invalid pixel
                values = _as_float(values, mask, dtype)
                mask = None
            extrema(values, mask, others, replace(frame, fill=fill if fill is not None else 0))


def _as_float(values: np.ndarray, mask: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    floats = np.empty(values.shape, dtype)
    cast(values, floats, None, None)
    if mask is not None:
        floats[~mask] = np.nan
    return floats
