"""How far pixels stand out of their neighbours in the row."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Operation, Specs


class Contrast(Operation):
    """Each pixel minus the mean of its left and its right neighbour."""

    example: ClassVar[str] = "{name: edges, op: contrast, input: image}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "working dtype"}

    op: Literal["contrast"]
    absolute: bool = False
    """Whether the sign is left out."""

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo.around(0, 1)}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        nodata = float("nan") if source.can_be_invalid else None
        return {"value": replace(source, dtype=self.working_dtype(source.dtype), nodata=nodata)}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        return shape[0] * shape[1] * source.num_bands * self.working_dtype(source.dtype).itemsize

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source, target = blocks["input"], out["value"].part(region)
        left, right = (source.part(replace(region, left=region.left + x, right=region.right + x)) for x in (-1, 1))
        with np.errstate(all="ignore"):  # of infinities
            np.multiply(left, 0.5, out=target)
            target += right * 0.5
            np.subtract(source.part(region), target, out=target)
        if self.absolute:
            np.abs(target, out=target)
