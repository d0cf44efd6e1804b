"""Spectral indices by their names: NDVI, EVI, NDWI, NBR, ..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.model.errors import PipelineError, unknown
from pipeline.model.raster import SOURCE_BAND, BandKey, RasterSpec
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Operation, Specs
from pipeline.operations.calc import Calc
from pipeline.operations.checks import unique
from pipeline.operations.common_name import CommonName, Found, Sensor, are_numbered, find_band
from pipeline.operations.expression.evaluation import source_bands
from pipeline.operations.expression.grammar import parse
from pipeline.operations.fields import Positive
from pipeline.operations.registry import register
from pipeline.operations.spectral_index import INDICES, IndexName

Raster = TypeVar("Raster", RasterSpec, Block)


@register
class Index(Operation):
    """Spectral indices by their names: ndvi, evi, ndwi, nbr, ...

    The bands that a formula speaks of are found by common names: blue, green, red, rededge (about 705 nm), nir, swir16
    and swir22 (about 1600 and 2200 nm). A band has one by `names`; by a coordinate `common_name` of the bands; by its
    own name, in any capitals (nir08 is nir, swir1 is swir16, swir2 is swir22, rededge1 is rededge where there is no
    other); by its number, with `sensor`, or where numbers leave no doubt (B08 or B8A among them: sentinel-2; SR_B6:
    landsat-8-9); by a coordinate `wavelength` or `center_wavelength` of the bands (nm or micrometres), the nearest. The
    run says which band was taken for what.

    Computed as `calc` computes the formula (`rasterpipe ops calc`): in the working dtype, nodata where a band is and
    where it divides by 0; of a series, for each date.

    Formulas with constants are of reflectance from 0 to 1: integers need `scale` for them. Where reflectance has an
    offset, as Sentinel-2's since 2022 (scale 0.0001, offset -0.1) and Landsat's (0.0000275, -0.2), so do the others.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = (
        "{name: green, op: index, input: image, indices: [ndvi, savi], names: {red: 3, nir: 4}, scale: 0.0001}"
    )
    outputs_text: ClassVar[Mapping[str, str]] = {name: str(index) for name, index in INDICES.items()}

    op: Literal["index"]
    indices: Annotated[tuple[IndexName, ...], Field(min_length=1)]
    """Which ones; each is an output. Their formulas are listed below."""
    names: dict[CommonName, BandKey] | None = None
    """Which band is which, by name or position, where that is not found: {nir: B08, red: B04}."""
    sensor: Sensor | None = None
    """Whose numbers the names of the bands have: B4 is red in one and nir in another."""
    scale: Positive | None = None
    """Bands are multiplied by it, and `offset` added, which makes reflectance of them. Default: as they are."""
    offset: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] | None = None
    """Added after `scale`."""

    _check_unique = field_validator("indices")(unique("each index"))

    @model_validator(mode="before")
    @classmethod
    def _check_bands(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("bands"), Mapping):
            raise PipelineError(
                "`bands` picks bands of the input; which band is which is said by `names: {nir: B08}`", ("bands",)
            )
        return data

    @model_validator(mode="after")
    def _check(self) -> Index:
        if self.offset is not None and self.scale is None:
            raise PipelineError("`offset` goes with `scale`; give both", ("offset",))
        return self

    def _needed(self) -> dict[str, str]:
        """Return the common names that are needed, each with an index that needs it."""
        return {name[0]: index for index in reversed(self.indices) for name in parse(INDICES[index].formula).names}

    def _find(self, spec: RasterSpec) -> dict[str, Found]:
        """Return the band of each common name that is needed."""
        found: dict[str, Found] = {}
        names = {str(common): band for common, band in (self.names or {}).items()}
        for common, index in self._needed().items():
            given = [Found(_given(spec, names[common]), "")] if common in names else []
            candidates = given or find_band(spec, common, self.sensor)
            if len(candidates) != 1:
                raise PipelineError(self._not_one(spec, common, index, candidates), ("indices",))
            found[common] = candidates[0]
        taken: dict[str, str] = {}
        for common, band in found.items():
            if taken.setdefault(band.name, common) != common:
                raise PipelineError(
                    f"{taken[band.name]} and {common} are one band, {band.name}; name another", ("names",)
                )
        return found

    def _not_one(self, spec: RasterSpec, common: str, index: str, candidates: list[Found]) -> str:
        said = f"say which: `names: {{{common}: BAND}}`"
        if candidates:
            return f"{index} needs {common}, which could be {' or '.join(each.name for each in candidates)}; {said}"
        if self.sensor is None and are_numbered(spec):
            said += ", or whose numbers these are: `sensor: sentinel-2`, `landsat-8-9`, `landsat-4-7` or `modis`"
        bands = ", ".join(dict.fromkeys(source_bands(spec) or spec.bands))
        return f"{index} needs {common}, and no band is known as that (there are {bands}); {said}"

    def _named(self, raster: Raster, found: Mapping[str, str]) -> Raster:
        """Return a raster whose bands are called by their common names."""
        common = {band: name for name, band in found.items()}
        sources = source_bands(raster) or ("",) * len(raster.bands)
        bands = []
        for number, (band, source) in enumerate(zip(raster.bands, sources, strict=True)):
            of_series = f"{common[source]}{band.removeprefix(source)}" if source in common else f"{number}:{band}"
            bands.append(common.get(band, of_series))
        known = dict(raster.band_coordinates)
        if any(sources):
            known[SOURCE_BAND] = tuple(common.get(source, f":{source}") for source in sources)
        return replace(raster, bands=tuple(bands), band_coordinates=tuple(known.items()))

    def _calc(self, index: IndexName) -> Calc:
        text = INDICES[index].formula
        if self.scale is not None:
            of_band = rf"(\g<0> * {self.scale!r}" + (f" + {self.offset!r})" if self.offset else ")")
            text = re.sub("|".join(rf"\b{name[0]}\b" for name in parse(text).names), of_band, text)
        return Calc(op="calc", name=index, expression=text, dtype=self.dtype, allow_inexact=self.allow_inexact)

    def _specs(self, specs: Specs) -> Specs:
        spec = specs["input"]
        return Specs({"input": self._named(spec, {name: band.name for name, band in self._find(spec).items()})})

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        named = self._specs(specs)
        if specs["input"].dtype.kind != "f" and self.scale is None:
            for index in self.indices:
                if INDICES[index].is_of_reflectance:
                    raise PipelineError(
                        f"{index} has constants that go with reflectance from 0 to 1, and the input is "
                        f"{specs['input'].dtype.name}; give `scale: 0.0001`, say (and `offset`, if there is "
                        "one), or `scale: apply` at the input, whose file says it",
                        ("indices",),
                    )
        return {index: self._calc(index).output_specs(named)["value"] for index in self.indices}

    def limits(self, specs: Specs) -> dict[str, float]:
        return {index: self._calc(index).limits(self._specs(specs))["value"] for index in self.indices}

    def notes(self, specs: Specs) -> Iterator[str]:
        said = [f"{name} is {band.name} ({band.why})" for name, band in self._find(specs["input"]).items() if band.why]
        if said:
            yield ", ".join(said)
        if self.scale is None:
            of_reflectance = [index for index in self.indices if INDICES[index].is_of_reflectance]
            if of_reflectance:
                yield f"{', '.join(of_reflectance)}: the input counts as reflectance from 0 to 1 (no `scale` is given)"
            elif specs["input"].dtype.kind != "f":
                yield "the stored numbers are used; where reflectance has an offset, give `scale` and `offset`"

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        named = self._specs(specs)
        return max(self._calc(index).scratch_bytes(named, shape) for index in self.indices)

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        block = blocks["input"]
        spec = RasterSpec(1, 1, np.dtype(np.float32), block.dims, block.bands, None, block.band_coordinates)
        named = self._named(block, {name: band.name for name, band in self._find(spec).items()})
        for index in self.indices:
            if index in out:
                self._calc(index).apply({"input": named}, tables, {"value": out[index]}, region)


def _given(spec: RasterSpec, key: BandKey) -> str:
    """Return the name of a band that is given by name or position; of a series, that of the band of each date."""
    if key in source_bands(spec):
        return str(key)
    try:
        return spec.bands[spec.band_index(key)]
    except PipelineError as error:
        known = dict.fromkeys(source_bands(spec))
        text = unknown("band", key, known) if known and isinstance(key, str) else str(error)
        raise PipelineError(text, ("names",)) from None
