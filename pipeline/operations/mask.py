"""Pixels kept where a condition holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import model_validator

from pipeline.kernels.expression import TILE_ELEMENTS
from pipeline.model.errors import PipelineError
from pipeline.model.raster import OVERLAPPING, SAME, RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Specs
from pipeline.operations.exact import keep_dtype
from pipeline.operations.expression.evaluation import (
    ExpressionText,
    NamedInputs,
    aliases,
    bind,
    bind_blocks,
    check_names,
    is_flat,
    planes,
    results,
)
from pipeline.operations.expression.program import Compiled
from pipeline.operations.registry import register
from pipeline.operations.series import HasBands, are_layers, dates_of_bands
from pipeline.operations.traits import HasUnits


@register
class Mask(HasUnits):
    """The input where a condition holds, nodata elsewhere.

    The condition is an expression as `calc` has it (`rasterpipe ops calc`): over the bands of the input, and over
    further rasters by the names they have in `inputs`. It is computed in floating point; where an operand is nodata,
    the result is. A condition of one band holds for all bands of the input, one of as many bands band by band, and of a
    series one with a band for each date for all bands of that date.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = '{name: clear, op: mask, input: image, inputs: {scl: scl}, where: "scl != 3 and scl != 8"}'
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "the input's dtype"}

    version: ClassVar[int] = 2

    op: Literal["mask"]
    where: ExpressionText
    """The condition; what is not 0 is true."""
    inputs: NamedInputs | None = None
    """Further rasters of the condition, by the names they have there, e.g. {scl: scl}."""

    @model_validator(mode="after")
    def _check(self) -> Mask:
        check_names("where", self.where, self.inputs or {}, plain=True)
        return self

    def sources(self) -> dict[str, str | None]:
        return {"input": self.input, **(self.inputs or {})}

    def _bind(self, specs: Specs) -> Compiled:
        compiled = bind(self, "where", self.where, specs, "input", aliases(self.input))
        source = specs["input"]
        if compiled.wide is not None and compiled.num_bands > 1:
            key = compiled.wide.key
            if are_layers(specs[key]) and not are_layers(source):
                raise PipelineError(
                    f"the condition has {compiled.num_bands} bands: {OVERLAPPING.format(key)}", ("where",)
                )
            if compiled.num_bands != source.num_bands and not self._dates(compiled, source, specs[key]):
                raise PipelineError(
                    f"band counts do not fit: the condition has {compiled.num_bands}, the input {source.num_bands}; "
                    f"take one band of {key} ({key}.b1)",
                    ("where",),
                )
        return compiled

    def _dates(self, compiled: Compiled, source: HasBands, wide: HasBands) -> list[list[int]]:
        """Return the bands of the input for which each band of the condition holds: of a series, those of its date."""
        places = (compiled.wide.series if compiled.wide else ()) or range(len(wide.bands))
        theirs, own = dates_of_bands(wide), dates_of_bands(source)
        found = [[band for band, date in enumerate(own) if date == theirs[place]] for place in places]
        return found if own and sorted(band for bands in found for band in bands) == list(range(len(own))) else []

    def _held(self, compiled: Compiled, source: Block, blocks: Mapping[str, Block]) -> Iterator[list[slice]]:
        """Yield the bands for which each plane of the condition holds: one of a single plane for all."""
        if compiled.num_bands == 1:
            yield [slice(None)]
        elif compiled.wide is None or compiled.num_bands == len(source.bands):
            yield from ([slice(plane, plane + 1)] for plane in range(compiled.num_bands))
        else:
            dates = self._dates(compiled, source, blocks[compiled.wide.key])
            yield from ([slice(band, band + 1) for band in bands] for bands in dates)

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        self._bind(specs)
        return {"value": keep_dtype(self, specs["input"], can_be_invalid=True)}

    def units(self) -> dict[str, str]:
        return {"value": SAME}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return self._bind(specs).program.scratch_bytes + TILE_ELEMENTS * (1 + specs["input"].num_bands)

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        compiled = bind_blocks(self, self.where, blocks, "input", aliases(self.input))
        source, value = blocks["input"], out["value"]
        flat = is_flat(compiled, blocks, value)
        kept, target = planes(source, region, flat), planes(value, region, flat)
        valid = None if source.valid is None else planes(source, region, flat, source.valid)
        fill = np.nan if value.fill is None else value.fill
        held = list(self._held(compiled, source, blocks))
        for plane, rows, columns, condition in results(compiled, blocks, region, flat):
            holds = np.greater(np.abs(condition, out=condition), 0)  # not where it is NaN
            np.logical_not(holds, out=holds)
            for band in held[plane]:
                part = target[band, rows, columns]
                np.copyto(part, kept[band, rows, columns], casting="unsafe")
                np.copyto(part, fill, where=holds)
                if valid is not None:
                    np.copyto(part, fill, where=~valid[band, rows, columns])
