"""Arithmetic on bands and rasters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import model_validator

from pipeline.model.errors import PipelineError
from pipeline.model.raster import SOURCE_BAND, RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Operation, Specs
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
    source_bands,
)
from pipeline.operations.expression.program import Compiled
from pipeline.operations.registry import register


@register
class Calc(Operation):
    """An expression of bands and rasters, pixel by pixel.

    Computed in the working dtype (with several rasters, in the widest of theirs), so differences of unsigned integers
    do not wrap. A result is nodata where an operand is, and where it does not exist: x / 0, the root or logarithm of
    a number without one. Infinity is a value, also as the result of an overflow. Conditions are 1 and 0.

    Numbers, pi, + - * / // % **, comparisons (a < b < c), and, or, not (& | ~ between conditions), and the functions
    where(condition, a, b), min, max, mean, median, coalesce(a, b, ...), abs, sqrt, exp, log, log10, log2, sin, cos,
    tan, arcsin, arccos, arctan, arctan2, floor, ceil, round (half to even), clip(x, low, high), isvalid(x). Only
    isvalid, coalesce (the first valid one) and the branch that where does not take look past nodata.

    With one input, its bands are called by their names, or b1, b2, ... by position (b4 is refused where the fourth
    band is called B05). Of a series, B08 is that band of each date, and the result has a band for each. `input`, or the
    input's own name, is all its bands. With several inputs, `a` is all bands of a, and a.B08 or a.b2 is one of them.
    Rasters taken with all bands have equally many, or one.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = '{name: ndvi, op: calc, input: image, expression: "(b8 - b4) / (b8 + b4)"}'
    outputs_text: ClassVar[Mapping[str, str]] = {
        "value": "as many bands as the rasters taken as a whole, else one, named after the step; working dtype"
    }

    version: ClassVar[int] = 3

    op: Literal["calc"]
    expression: ExpressionText
    """What to compute, e.g. (b8 - b4) / (b8 + b4)."""
    inputs: NamedInputs | None = None
    """Several rasters instead of `input`, by the names they have in the expression, e.g. {a: smooth, b: image}."""

    @model_validator(mode="after")
    def _check(self) -> Calc:
        if self.inputs is None:
            return self
        if self.input is not None:
            raise PipelineError("`input` and `inputs` exclude each other; give one of them", ("inputs",))
        if self.bands is not None:
            raise PipelineError("`bands` goes with `input`; among `inputs` a band is written a.B08 or a.b2", ("bands",))
        check_names("expression", self.expression, self.inputs, plain=len(self.inputs) == 1)
        return self

    def sources(self) -> dict[str, str | None]:
        return {"input": self.input} if self.inputs is None else dict(self.inputs)

    @property
    def _scope(self) -> tuple[str | None, tuple[str, ...]]:
        """The raster whose bands are names by themselves, and what else it is called as a whole."""
        keys = list(self.sources())
        return (keys[0], aliases(self.input)) if len(keys) == 1 else (None, ())

    def _bind(self, specs: Specs) -> Compiled:
        return bind(self, "expression", self.expression, specs, *self._scope)

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        compiled = self._bind(specs)
        sources = list(specs.values())
        like = next((spec for spec in sources if "band" in spec.dims), sources[0])
        # one band is called after the step: the name of a band that went in does not say what came out
        bands: dict[str, Any] = {"bands": (self.name or "value",), "band_coordinates": ()}
        if compiled.wide is not None and compiled.num_bands > 1:
            bands = self._bands_like(specs[compiled.wide.key], compiled.wide.series)
        place = next((spec for spec in sources if spec.transform is not None), like)
        nodata = float("nan") if compiled.can_be_invalid else None
        spec = replace(
            like,
            dtype=compiled.program.dtype,
            nodata=nodata,
            transform=place.transform,
            crs=place.crs,
            unit=place.unit,
            **bands,
        )
        return {"value": spec}

    def _bands_like(self, wide: RasterSpec, series: tuple[int, ...]) -> dict[str, Any]:
        """Return the bands of a result that has those of a raster, or one for each date of a series."""
        if not series:
            return {"bands": wide.bands, "band_coordinates": wide.band_coordinates}
        own, name = wide.pick(series), self.name or "value"
        source = source_bands(own)[0]
        known = dict(own.band_coordinates) | {SOURCE_BAND: (name,) * len(series)}
        bands = tuple(f"{name} {band.removeprefix(source).strip()}".strip() for band in own.bands)
        bands = bands if len(set(bands)) == len(bands) else tuple(f"{name} {i + 1}" for i in range(len(bands)))
        return {"bands": bands, "band_coordinates": tuple(known.items())}

    def limits(self, specs: Specs) -> dict[str, float]:
        return {"value": self._bind(specs).limit}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return self._bind(specs).program.scratch_bytes

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        compiled = bind_blocks(self, self.expression, blocks, *self._scope)
        flat = is_flat(compiled, blocks, out["value"])
        target = planes(out["value"], region, flat)
        for plane, rows, columns, values in results(compiled, blocks, region, flat):
            np.copyto(target[plane, rows, columns], values)
