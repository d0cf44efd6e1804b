"""What gradient and hessian share: spacing, edges, and the kernel that computes any of their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from pipeline.kernels import extreme
from pipeline.kernels.difference import FIRST, Spacings, differences, reach, scratch_bytes
from pipeline.kernels.frame import Frame
from pipeline.model.alignment import geo_spacing
from pipeline.model.errors import PipelineError
from pipeline.model.raster import Number, RasterSpec, largest
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Edge, EdgeRule, Operation, Specs
from pipeline.operations.checks import check_cval, check_finite, check_occurs, unique
from pipeline.operations.fields import to_pair
from pipeline.operations.traits import HasBorder, NeedsGrid

DifferenceEdge = Literal[
    "one_sided", "one_sided_2", "zero", "reflect", "nearest", "mirror", "constant", "wrap", "shrink"
]
RULES: Mapping[str, EdgeRule] = {
    "one_sided": "linear",
    "one_sided_2": "quadratic",
    "zero": "nearest",  # the rim is 0 afterwards, but for pixels whose neighbours inside are invalid
    "shrink": "invalid",
    "reflect": "reflect",
    "nearest": "nearest",
    "mirror": "mirror",
    "constant": "constant",
    "wrap": "wrap",
}
METRES = {"m": "metre", "um": "micrometre"}
FINEST, COARSEST = 1e-100, 1e100
"""Spacings whose squares and their reciprocals are floating-point numbers."""


def to_spacing(value: Any) -> Any:
    """Return [y, x] for one number, or the word that asks for metres."""
    if value == "geo":
        return value
    pair = to_pair(value)
    if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in pair):
        raise ValueError(f"must be one number, [y, x], or `geo` (metres, or a microscope's micrometres), got {value!r}")
    return tuple(float(side) for side in pair)


Spacing = Annotated[
    tuple[float, float] | Literal["geo"],
    BeforeValidator(to_spacing, json_schema_input_type=float | tuple[float, float] | Literal["geo"]),
]


def check_spacing(spacing: Any) -> Any:
    for side in () if spacing in ("geo", None) else spacing:
        if not FINEST <= side <= COARSEST:
            raise ValueError(f"must be positive (from {FINEST:g} to {COARSEST:g}), got {side:g}; try 1")
    return spacing


def placed_by_geo(step: Operation, source: RasterSpec, notes: list[str]) -> Operation:
    """Return a step of `spacing: geo` with the lengths that the georeference tells, and note them."""
    try:
        spacing = geo_spacing(source)
    except PipelineError as error:
        raise PipelineError(str(error), ("spacing",)) from None
    notes.append(f"{step.name}: {spacing}")
    return step.model_copy(update={"spacing": spacing.sides})


def _check_unplaced(spec: RasterSpec) -> None:
    """Refuse to choose the unit of derivatives where a georeference makes pixels lengths."""
    if spec.transform is None:
        return
    height, width = spec.transform.pixel_size
    try:
        (down, across), unit, _ = geo_spacing(spec)
        lengths = f"`spacing: geo` (per {METRES[unit]}; a pixel is {down:.10g} x {across:.10g} {unit})"
    except PipelineError as error:
        lengths = f"`spacing: [{height:.10g}, {width:.10g}]` (per unit of its CRS; `spacing: geo` is refused: {error})"
    raise PipelineError(
        f"not given, and the raster {'has' if spec.unit else 'is georeferenced, with'} pixels of {height:.10g} x "
        f"{width:.10g}{f' {spec.unit}' if spec.unit else ''}; say what derivatives are per: {lengths}, or `spacing: 1` "
        "(per pixel)",
        ("spacing",),
    )


class Difference(NeedsGrid, HasBorder):
    """Base of the operations by finite differences; one-sided differences at the edge are padding too."""

    outputs: tuple[str, ...]
    spacing: Spacing | None = None
    """Distance between neighbouring pixels, [y, x] or one number for both, in the unit that derivatives are per; or
    geo: metres, as the georeference says (in degrees and in projections that are not true to scale: those on the
    ellipsoid in the middle of the raster); micrometres, as a microscope's file says. A raster with either needs it;
    default of others: 1."""
    edge: DifferenceEdge = "one_sided"
    """At the raster's edge: one_sided and one_sided_2 (numpy.gradient's edge_order 1 and 2: the line or parabola
    through the outermost 2 or 3 pixels goes on; fewer pixels give a lower order, one pixel derivatives of 0), zero (a
    rim of zeros), shrink (what would need pixels beyond the edge is invalid), or pixels beyond the edge as in
    scipy.ndimage."""
    cval: Number | None = None
    """Value of the pixels beyond the edge, for edge: constant."""

    @field_validator("outputs")
    @classmethod
    def _check_outputs(cls, outputs: tuple[str, ...]) -> tuple[str, ...]:
        if not outputs:
            raise ValueError("must name at least one output, got none; leave it out for the default")
        return outputs

    _check_unique = field_validator("outputs")(unique("each output"))

    _check_spacing = field_validator("spacing")(check_spacing)

    @model_validator(mode="after")
    def _check_cval(self) -> Difference:
        check_cval("edge", self.edge, self.cval)
        check_finite(self.cval, "`edge: shrink` makes the rim invalid")
        return self

    def placed(self, specs: Specs, notes: list[str]) -> Operation:
        if self.spacing is None:
            _check_unplaced(specs["input"])
            return self.model_copy(update={"spacing": (1.0, 1.0)})
        return placed_by_geo(self, specs["input"], notes) if self.spacing == "geo" else self

    @property
    def _sides(self) -> tuple[float, float]:
        """Height and width of a pixel; known once the step is placed."""
        assert isinstance(self.spacing, tuple), "the step is not placed"
        return self.spacing

    def halo(self, specs: Specs) -> dict[str, Halo]:
        rows, columns = reach(self.outputs)
        depth = 2 if self.edge == "one_sided_2" else 1  # every block at the edge holds the parabola's pixels
        return {"input": Halo.around(rows * depth, columns * depth)}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge(RULES[self.edge], self.cval or 0)}

    def border(self) -> int:
        return 1 if self.edge == "zero" else 0

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        dtype = self.working_dtype(source.dtype)
        check_occurs(self.cval, dtype)
        can_be_invalid = source.can_be_invalid or self.edge == "shrink"
        spec = replace(source, dtype=dtype, nodata=float("nan") if can_be_invalid else None)
        return dict.fromkeys(self.outputs, spec)

    def limits(self, specs: Specs) -> dict[str, float]:
        # a pixel beyond an edge is at most 7 times as large as those that the parabola goes through
        most = 8 * max(largest(specs["input"].dtype), abs(self.cval or 0))
        first, second = (most / min(self._sides) ** order for order in (1, 2))
        larger = {"direction": 180.0, "determinant": 2 * second**2}
        return {name: larger.get(name, 2 * (first if name in FIRST else second)) for name in self.outputs}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lanes = source.num_bands if source.dims[-1] == "band" else 1
        again = extreme.scratch_bytes(self.working_dtype(source.dtype), Halo.around(1, 1), lanes, len(self.outputs))
        return scratch_bytes(shape[1], lanes) + again

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        frame = Frame(region, source.origin, next(iter(out.values())).origin, source.lanes)
        spacing = Spacings(*self._sides, *self._straight(source.raster))
        differences(source.planes(), {name: block.planes() for name, block in out.items()}, frame, spacing)

    def _straight(self, raster: Region) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows and columns at which the raster goes on in a straight line."""
        rows, columns = (raster.top, raster.bottom - 1), (raster.left, raster.right - 1)
        nowhere = (-1, -1)
        if self.edge == "one_sided":
            return rows, columns
        if self.edge == "one_sided_2":  # no parabola goes through two pixels
            return rows if raster.height == 2 else nowhere, columns if raster.width == 2 else nowhere
        return nowhere, nowhere
