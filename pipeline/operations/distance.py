"""How far the nearest pixel of a kind is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline.kernels.distance import distances, reach, scratch_bytes
from pipeline.model.alignment import geo_spacing
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Domain, Edge, Operation, Specs
from pipeline.operations.difference import Spacing
from pipeline.operations.expression.evaluation import ExpressionText, check_one_band, pixels_where
from pipeline.operations.registry import register
from pipeline.operations.traits import NeedsGrid

MAX_REACH = 10_000


@register
class Distance(NeedsGrid, Operation):
    """The Euclidean distance from each pixel to the nearest one that is not 0, or where a condition holds.

    From centre to centre, exact, 0 on these pixels themselves; beyond `radius` it is nodata. Invalid pixels are none
    of those that are looked for, and have distances like others. Reference: scipy.ndimage.distance_transform_edt.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = '{name: away, op: distance, input: image, where: "b1 > 300", radius: 20}'
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "working dtype, NaN beyond the radius; no band axis"}

    op: Literal["distance"]
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """How far is looked, in the unit of `spacing`."""
    where: ExpressionText | None = None
    """A condition of the input's bands, as in `mask`. Default: the input, one band, is not 0."""
    spacing: Spacing = (1.0, 1.0)
    """Height and width of a pixel: a number, [y, x], or geo (metres, or a microscope's micrometres). Default: 1."""

    @field_validator("spacing")
    @classmethod
    def _check_spacing(cls, spacing: Any) -> Any:
        for side in () if spacing == "geo" else spacing:
            if not 1e-100 <= side <= 1e100:
                raise ValueError(f"must be positive (from 1e-100 to 1e100), got {side:g}; try 1")
        return spacing

    def placed(self, specs: Specs, notes: list[str]) -> Operation:
        if self.spacing != "geo":
            return self
        try:
            spacing = geo_spacing(specs["input"])
        except PipelineError as error:
            raise PipelineError(str(error), ("spacing",)) from None
        notes.append(f"{self.name}: {spacing}")
        return self.model_copy(update={"spacing": spacing.sides})

    @property
    def _sides(self) -> tuple[float, float]:
        assert isinstance(self.spacing, tuple), "the step is not placed"
        return self.spacing

    def _reach(self) -> tuple[int, int]:
        """Return the rows and columns within the radius."""
        for side in self._sides:
            if (num := self.radius / side) > MAX_REACH:
                raise PipelineError(
                    f"{self.radius:g} is {num:,.0f} pixels of {side:g}; at most {MAX_REACH:,} are looked at",
                    ("radius",),
                )
        rows, columns = (reach(self.radius, side) for side in self._sides)
        return rows, columns

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo.around(*self._reach())}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("nearest")}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        check_one_band(self, self.where, specs)
        self._reach()
        flat = replace(source, dims=("y", "x"), bands=("distance",), band_coordinates=())
        return {"value": replace(flat, dtype=self.working_dtype(source.dtype), nodata=float("nan"))}

    def limits(self, specs: Specs) -> dict[str, float]:
        return {"value": self.radius}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        rows, columns = self._reach()
        around = (shape[0] + 2 * rows) * (shape[1] + 2 * columns)
        condition = check_one_band(self, self.where, specs)
        return (
            around * 3 + scratch_bytes(shape, columns) + (0 if condition is None else condition.program.scratch_bytes)
        )

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        window = region.grow(Halo.around(*self._reach()))
        there = window.clip(blocks["input"].raster)  # beyond, nothing is
        inside = np.zeros(window.shape, bool)
        inside[there.slices((window.top, window.left))] = self._found(blocks, there)
        distances(inside, self._sides, self.radius, out["value"].part(region))

    def _found(self, blocks: Mapping[str, Block], region: Region) -> np.ndarray:
        """Return the pixels that are looked for."""
        if self.where is not None:
            return pixels_where(self, self.where, blocks, region)
        block, there = blocks["input"], region.slices(blocks["input"].origin)
        values = block.by_band()[0][there]
        found: np.ndarray = values != 0
        if values.dtype.kind == "f":
            found &= ~np.isnan(values)
        if block.valid is not None:
            found &= block.by_band(block.valid)[0][there]
        return found
