"""Slope, aspect, hillshade and other measures of terrain, from windows of 3 x 3 heights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictBool, field_validator, model_validator

from pipeline.kernels.frame import Frame
from pipeline.kernels.terrain import OF_SIDES, Rule, Sides, ring, scratch_bytes, terrain
from pipeline.model.alignment import systems
from pipeline.model.angle import cosine, sine
from pipeline.model.errors import PipelineError
from pipeline.model.ground import Ground, ground_of, signed
from pipeline.model.raster import SAME, Number, RasterSpec, holds, largest
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Edge, Operation, Specs
from pipeline.operations.checks import unique
from pipeline.operations.difference import Spacing, check_spacing
from pipeline.operations.fields import to_pair
from pipeline.operations.registry import register
from pipeline.operations.traits import HasUnits, NeedsGrid

Output = Literal[
    "slope", "aspect", "hillshade", "roughness", "tpi", "tri", "profile_curvature", "plan_curvature", "mean_curvature"
]
HEIGHT_UNITS = {"m": 1.0, "ft": 0.3048, "us-ft": 1200 / 3937}
"""In metres."""
MAX_REACH = 100
"""Pixels: a ring takes a sum of up to 31,417 neighbours of each."""
OF_GRADIENTS = frozenset({"slope", "aspect", "hillshade"})
USED_BY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("spacing", "height_unit"), OF_SIDES),
    **dict.fromkeys(("shading", "azimuth", "altitude", "z_factor"), frozenset({"hillshade"})),
    "method": OF_GRADIENTS,
    "slope_unit": frozenset({"slope"}),
    "flat": frozenset({"aspect"}),
    "tri_method": frozenset({"tri"}),
    "ring": frozenset({"tpi"}),
}
"""Parameters that some outputs alone depend on."""
SHADINGS = ("single", "multidirectional", "combined")


@register
class Terrain(NeedsGrid, HasUnits, Operation):
    """Slope, aspect, hillshade, roughness and other measures of a raster of heights: any of them from one read.

    Computed from the 3 x 3 heights around a pixel, as gdaldem does: where one of them is invalid, an infinity or beyond
    the raster's edge, the results are nodata, or with `compute_edges` are made without it. In degrees the size of a
    pixel is that on the ellipsoid, row by row; at a pole, where a pixel has no width, what depends on it is nodata.
    """

    example: ClassVar[str] = (
        "{name: relief, op: terrain, input: image, spacing: 10, outputs: [slope, aspect, hillshade]}"
    )
    not_averaged: ClassVar[frozenset[str]] = frozenset({"aspect"})
    never_nodata: ClassVar[frozenset[str]] = frozenset({"hillshade"})
    outputs_text: ClassVar[Mapping[str, str]] = {
        "slope": "of the steepest descent, in degrees or percent; working dtype",
        "aspect": "where the ground falls to, in degrees from north by east, 0 to below 360; working dtype",
        "hillshade": "1 (dark) to 255 (lit); uint8, nodata 0",
        "roughness": "the largest height less the smallest; working dtype",
        "tpi": "topographic position: the height less the mean of those around it; working dtype",
        "tri": "ruggedness: how much the eight neighbours differ from the height; working dtype",
        "profile_curvature": "along the steepest slope, convex is positive, per unit of height; working dtype",
        "plan_curvature": "across it; working dtype",
        "mean_curvature": "the mean of both; working dtype",
    }

    op: Literal["terrain"]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)] = ("slope",)
    """What to compute; each is an output."""
    method: Literal["horn", "zevenbergen_thorne"] = "horn"
    """Gradients for slope, aspect and hillshade: of eight neighbours (Horn 1981), or of the four nearest (Zevenbergen
    and Thorne 1987, for smooth ground). Curvatures are always by Zevenbergen and Thorne."""
    spacing: Spacing | None = None
    """Height and width of a pixel in the unit of the heights: a number or [y, x]; or geo, as the georeference says.
    Default: geo; without a georeference it must be given."""
    height_unit: Literal["m", "ft", "us-ft"] | None = None
    """The unit of the heights, for `spacing: geo`. Default: m, as the coordinates are or in degrees."""
    compute_edges: StrictBool = False
    """At the raster's edge and beside invalid pixels, too: beyond the edge the line through the outermost two pixels
    goes on; an invalid neighbour counts as the pixel itself does."""
    slope_unit: Literal["degree", "percent"] = "degree"
    """Of `slope`: 45 degrees are 100 percent."""
    flat: Annotated[Number, Field(allow_inf_nan=False)] | None = None
    """The aspect of level ground, as -1. Default: nodata."""
    shading: Literal["single", "multidirectional", "combined"] = "single"
    """Hillshade of one light; of four, from 225 to 360 degrees, weighed by the aspect; or of one combined with the
    slope."""
    azimuth: Annotated[float, Field(allow_inf_nan=False)] = 315.0
    """Where the light of the hillshade comes from, in degrees from north by east."""
    altitude: Annotated[float, Field(ge=0, le=90)] = 45.0
    """How high it stands, in degrees."""
    z_factor: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """By how much the heights are exaggerated for the hillshade."""
    tri_method: Literal["riley", "wilson"] = "riley"
    """Root of the sum of the squared differences from the eight neighbours (Riley 1999), or their mean size (Wilson
    2007)."""
    ring: tuple[float, float] = (1.0, 1.5)
    """The pixels whose mean `tpi` takes: those at a distance from so many to so many pixels. Default: the eight
    neighbours."""

    _check_unique = field_validator("outputs")(unique("each output"))
    _check_spacing = field_validator("spacing")(check_spacing)
    _to_ring = field_validator("ring", mode="before")(to_pair)

    @field_validator("ring")
    @classmethod
    def _check_ring(cls, radii: tuple[float, float]) -> tuple[float, float]:
        inner, outer = radii
        if not 0 < inner <= outer <= MAX_REACH:
            raise ValueError(f"must be two radii in pixels, 0 < inner <= outer <= {MAX_REACH}, got {list(radii)}")
        if not len(ring(inner, outer)):
            raise ValueError(f"no pixel is at a distance from {inner:g} to {outer:g} pixels; try [1, 1.5]")
        return radii

    @model_validator(mode="after")
    def _check(self) -> Terrain:
        if self.shading == "multidirectional" and self.azimuth != 315:
            raise PipelineError("multidirectional has lights of its own; leave `azimuth` out", ("azimuth",))
        if self.compute_edges and self._reach > 1:
            raise PipelineError(
                "is for windows of 3 x 3; leave it out, or `ring`, or make two steps", ("compute_edges",)
            )
        if self.height_unit and isinstance(self.spacing, tuple):
            raise PipelineError("is for spacing: geo; numbers are in the unit of the heights", ("height_unit",))
        for field, of in USED_BY.items():
            if getattr(self, field) != type(self).model_fields[field].default and not of & set(self.outputs):
                raise PipelineError(
                    f"is for {', '.join(sorted(of))}, and the outputs are {', '.join(self.outputs)}; leave it out, or "
                    "add such an output",
                    (field,),
                )
        return self

    def placed(self, specs: Specs, notes: list[str]) -> Operation:
        source = specs["input"]
        if not OF_SIDES & set(self.outputs):
            return self.model_copy(update={"spacing": Ground()})
        if isinstance(self.spacing, tuple):
            if {"aspect", "hillshade"} & set(self.outputs) and source.transform and source.transform.is_rotated:
                notes.append(f"{self.name}: the raster is rotated; north is taken to be where its columns go up")
            return self.model_copy(update={"spacing": Ground(*signed(source, self.spacing))})
        if self.spacing is None and (source.transform is None or source.crs is None):
            lacks = "georeference" if source.transform is None else "coordinate system"
            raise PipelineError(
                f"needed, as the raster has no {lacks}: the side of a pixel in the unit of the heights, such as "
                "`spacing: 30` or `spacing: [30, 20]`",
                ("spacing",),
            )
        try:
            ground, words = ground_of(source)
        except PipelineError as error:
            raise PipelineError(str(error), ("spacing",)) from None
        unit = self._height_unit(source)
        notes.append(f"{self.name}: {words}; heights are in {unit}")
        return self.model_copy(update={"spacing": ground.per(HEIGHT_UNITS.get(unit, 1.0))})

    def _height_unit(self, source: RasterSpec) -> str:
        """Return the unit of the heights; refuse to choose where coordinates are in feet."""
        if source.unit:
            if self.height_unit:
                raise PipelineError(
                    "the raster's file says micrometres, which its heights are taken to be in; leave it out, or give "
                    "`spacing` numbers",
                    ("height_unit",),
                )
            return "micrometres"
        crs, _ = systems(source)
        axis = crs.axis_info[0] if crs.axis_info else None
        if self.height_unit is None and crs.is_projected and axis and axis.unit_conversion_factor != 1:
            guess = min(HEIGHT_UNITS, key=lambda unit: abs(HEIGHT_UNITS[unit] - axis.unit_conversion_factor))
            raise PipelineError(
                f"not given, and the raster's coordinates are in units of {axis.unit_conversion_factor:.10g} m "
                f"({axis.unit_name}); say what its heights are in: `height_unit: {guess}`, or `height_unit: m`",
                ("height_unit",),
            )
        return self.height_unit or "m"

    @property
    def ground(self) -> Ground:
        """How large pixels are in the unit of the heights; known once the step is placed."""
        assert isinstance(self.spacing, Ground), "the step is not placed"
        return self.spacing

    @property
    def _reach(self) -> int:
        """Return how many pixels away the farthest one is that is read."""
        return max(1, int(np.abs(ring(*self.ring)).max())) if "tpi" in self.outputs else 1

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo.around(self._reach, self._reach)}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("linear" if self.compute_edges else "invalid")}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        dtype = self.working_dtype(source.dtype)
        if self.flat is not None and not holds(dtype, self.flat):
            raise PipelineError(f"{self.flat} cannot occur in {dtype.name} pixels", ("flat",))
        spec = replace(source, dtype=dtype, nodata=math.nan)
        shade = replace(source, dtype=np.dtype(np.uint8), nodata=0)
        return {name: shade if name == "hillshade" else spec for name in self.outputs}

    def units(self) -> dict[str, str]:
        return {"slope": self.slope_unit, "aspect": "degree"} | dict.fromkeys(("roughness", "tpi", "tri"), SAME)

    def limits(self, specs: Specs) -> dict[str, float]:
        most = 2 * largest(specs["input"].dtype)
        return {"roughness": most, "tpi": most, "tri": 3 * most, "slope": math.inf, "hillshade": 255.0}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lanes = source.num_bands if source.dims[-1] == "band" else 1
        return scratch_bytes(shape[1], lanes) + 16 * shape[0] * 8 + 16 * 4 * MAX_REACH**2

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        frame = Frame(region, source.origin, next(iter(out.values())).origin, source.lanes)
        sides = Sides(*self.ground.sides(region.top, region.bottom))
        planes = {name: block.planes() for name, block in out.items()}
        terrain(source.planes(), planes, frame, sides, self._rule(), ring(*self.ring))

    def _rule(self) -> Rule:
        return Rule(
            horn=self.method == "horn",
            fill=self.compute_edges,
            percent=self.slope_unit == "percent",
            wilson=self.tri_method == "wilson",
            level=math.nan if self.flat is None else float(self.flat),
            shading=SHADINGS.index(self.shading),
            z=self.z_factor,
            sine=float(sine(self.altitude)),
            cosine=float(cosine(self.altitude)),
            to_north=float(cosine(self.azimuth)),
            to_east=float(sine(self.azimuth)),
        )
