"""Pixels in another dtype, scaled on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from pipeline.kernels.cast import SCRATCH_BYTES, Conversion, convert
from pipeline.model.errors import PipelineError
from pipeline.model.raster import SAME, DTypeName, Number, RasterSpec, holds, is_nan, largest
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Specs
from pipeline.operations.exact import require_exact
from pipeline.operations.registry import register
from pipeline.operations.traits import HasUnits

Finite = Annotated[float, Field(allow_inf_nan=False)]


def to_limits(value: Any) -> Any:
    """Return [low, high] as whole numbers where they are written so."""
    numbers = isinstance(value, list | tuple) and all(
        isinstance(side, int | float) and not isinstance(side, bool) and math.isfinite(side) for side in value
    )
    if value is not None and (not numbers or len(value) != 2 or value[0] > value[1]):
        raise ValueError(f"must be [low, high], two numbers, the smaller first, got {value!r}")
    return value


@register
class Cast(HasUnits):
    """Pixels in another dtype: value * scale + offset, limited, rounded.

    Integers without scale and offset stay exact; everything else is computed in float64 and rounded once. A value
    beyond an integer dtype becomes its nearest end, infinity too. A value that lands on the nodata value of an
    integer result counts as invalid: choose `nodata` outside of `clip`.
    """

    domain: ClassVar[Domain] = "native"
    version: ClassVar[int] = 2
    example: ClassVar[str] = "{name: bytes, op: cast, input: image, dtype: uint8, scale: 0.025, nodata: 0}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "`dtype`"}

    op: Literal["cast"]
    dtype: DTypeName
    """The dtype of the result."""
    scale: Finite = 1.0
    """What values are multiplied by."""
    offset: Finite = 0.0
    """What is added then, in units of the result."""
    clip: Annotated[tuple[Number, Number] | None, BeforeValidator(to_limits)] = None
    """[low, high]: limits of the result, before it is rounded."""
    rounding: Literal["half_even", "floor", "ceil", "truncate"] = "half_even"
    """How fractions become whole numbers, for integer dtypes."""

    @model_validator(mode="after")
    def _check(self) -> Cast:
        if self.scale == 0:
            raise PipelineError("must not be 0, which makes all pixels equal", ("scale",))
        if self.rounding != "half_even" and np.dtype(self.dtype).kind == "f":
            raise PipelineError(f"is for integers; {self.dtype} holds fractions", ("rounding",))
        return self

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source, dtype = specs["input"], np.dtype(self.dtype)
        if not self._conversion.is_exact(source.dtype):
            require_exact(self, source)
        return {"value": replace(source, dtype=dtype, nodata=self._nodata(source, dtype))}

    def _nodata(self, source: RasterSpec, dtype: np.dtype) -> Number | None:
        if not source.can_be_invalid:
            return None
        if dtype.kind == "f":
            return float("nan")
        nodata = source.nodata if self.nodata is None else self.nodata
        if nodata is None or is_nan(nodata) or not holds(dtype, nodata):
            unfit = "" if nodata is None or is_nan(nodata) else f" ({nodata:g} does not fit)"
            raise PipelineError(
                f"the input can have invalid pixels, and {dtype.name} has no value for them{unfit}; say which with "
                "`nodata:`",
                ("dtype",) if self.nodata is None else ("nodata",),
            )
        return int(nodata)

    def units(self) -> dict[str, str]:
        return {"value": SAME} if (self.scale, self.offset) == (1, 0) else {}

    @property
    def _conversion(self) -> Conversion:
        return Conversion(np.dtype(self.dtype), self.scale, self.offset, self.clip, self.rounding)

    def limits(self, specs: Specs) -> dict[str, float]:
        source = specs["input"]
        if self._conversion.is_exact(source.dtype):
            return {}
        most = largest(source.dtype) * abs(self.scale) + abs(self.offset)
        return {"value": most if self.clip is None else min(most, max(abs(side) for side in self.clip))}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return SCRATCH_BYTES

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source, target = blocks["input"], out["value"]
        valid = None if source.valid is None else source.part(region, source.valid)
        convert(source.part(region), valid, target.part(region), target.fill, self._conversion)
