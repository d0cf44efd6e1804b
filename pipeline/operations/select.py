"""Some bands of a raster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.model.raster import BandKey, RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Specs
from pipeline.operations.registry import register
from pipeline.operations.traits import KeepsValues


@register
class Select(KeepsValues):
    """Bands of a raster, in the order given, their pixels unchanged."""

    domain: ClassVar[Domain] = "native"
    version: ClassVar[int] = 2
    example: ClassVar[str] = "{name: colour, op: select, input: image, bands: [4, 3, 2]}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "the input's dtype"}

    op: Literal["select"]
    bands: Annotated[tuple[BandKey, ...], Field(min_length=1)]
    """The bands: positions from 1, or names."""

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        return {"value": specs["input"]}

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        np.copyto(out["value"].part(region), blocks["input"].part(region))  # the engine has chosen the bands
