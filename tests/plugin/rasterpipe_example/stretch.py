"""Pixels stretched from one range of values to [0, 1]."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Block, Operation, Specs


class Stretch(Operation):
    """Each pixel's place between two values: 0 at `low`, 1 at `high`."""

    example: ClassVar[str] = "{name: bright, op: stretch, input: image, low: 0, high: 4000}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "working dtype"}

    op: Literal["stretch"]
    low: float
    """The value that becomes 0."""
    high: float
    """The value that becomes 1."""

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        return {"value": replace(source, dtype=self.working_dtype(source.dtype), nodata=float("nan"))}

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        target = out["value"].part(region)
        np.subtract(blocks["input"].part(region), self.low, out=target)
        np.divide(target, self.high - self.low, out=target)
