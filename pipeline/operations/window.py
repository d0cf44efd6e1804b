"""Statistics of a moving window: mean, sum, var, std, min, max, range, count, median, percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, StrictBool, StrictInt, field_validator, model_validator

from pipeline.kernels import extreme
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.validity import cast
from pipeline.kernels.window import WindowRule, extrema, moments, scratch_bytes
from pipeline.kernels.window_order import order_statistics
from pipeline.kernels.window_order import scratch_bytes as order_scratch_bytes
from pipeline.model.errors import PipelineError, unknown
from pipeline.model.raster import SAME, Number, RasterSpec, holds, largest
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Boundary, Domain, Edge, Specs
from pipeline.operations.checks import check_cval, check_occurs, check_odd, unique
from pipeline.operations.exact import keep_dtype, require_exact
from pipeline.operations.fields import IntPair, Matrix, Percentile, percentile_name, to_matrix
from pipeline.operations.registry import register
from pipeline.operations.traits import HasUnits, ReadsMatrices

Statistic = Literal["mean", "sum", "var", "std", "min", "max", "range", "count", "median"]
Shape = Literal["rectangle", "disk"]
MOMENTS = ("mean", "sum", "var", "std", "count")
ROUNDED = ("mean", "sum", "var", "std")
SHAPES = ("rectangle", "disk")


def to_footprint(value: Any) -> Any:
    """Return a shape, a matrix of 0 and 1 with odd sides, or the path of a file that holds one."""
    if isinstance(value, str):
        if value not in SHAPES and not value.lower().endswith((".npy", ".csv", ".txt")):
            raise ValueError(unknown("footprint", value, (*SHAPES, "a matrix", "a .npy, .csv or .txt file")))
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be {' or '.join(SHAPES)}, rows of 0 and 1, or a file that holds them, got {value!r}")
    matrix = to_matrix(value)
    even = [side for side in (len(matrix), len(matrix[0])) if side % 2 == 0]
    if even:
        raise ValueError(f"must have odd sides, got {len(matrix)} x {len(matrix[0])}; add a row or column of 0")
    numbers = {number for row in matrix for number in row}
    if odd := sorted(numbers - {0, 1}):
        raise ValueError(f"must hold 0 and 1, got {odd[0]:g}")
    if 1 not in numbers:
        raise ValueError("must hold a 1; a window of no pixels has no statistics")
    return matrix


FootprintOrPath = Annotated[
    Shape | Matrix | str, BeforeValidator(to_footprint, json_schema_input_type=Shape | Matrix | str)
]


@register
class Window(HasUnits, ReadsMatrices):
    """Statistics of the window around each pixel, the pixel itself included.

    Invalid pixels (nodata, NaN; inf too, except for min, max, median and percentiles) are skipped. The cost of mean,
    sum, var, std, min, max, range and count over rectangles does not depend on the size.
    Reference: scipy.ndimage's uniform_filter, minimum_filter, maximum_filter and median_filter in float64;
    numpy.nanmean and kin over sliding windows where pixels are invalid.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = "{name: smooth, op: window, input: image, size: 3, statistics: [mean, std]}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "mean": "working dtype (float32 for 8 and 16-bit integers and float32, else float64)",
        "sum": "float64 for integers, the working dtype for floating point",
        "var": "population variance; working dtype",
        "std": "its square root; working dtype",
        "min": "the input's dtype",
        "max": "the input's dtype",
        "range": "max - min of the finite values; the input's dtype (saturates where that is a signed integer, unless "
        "`dtype` is wider)",
        "count": "valid pixels in the window, defined everywhere; uint32",
        "median": "the input's dtype where all windows have the same odd number of valid pixels, else working dtype",
        "p10": "of percentiles: [10], and so on; between two pixels linearly, as numpy's; working dtype",
    }
    matrices: ClassVar[tuple[str, ...]] = ("footprint",)

    version: ClassVar[int] = 4

    op: Literal["window"]
    size: IntPair | None = None
    """Height and width of the window in pixels, both odd; one number for a square. A matrix has its own."""
    footprint: FootprintOrPath = "rectangle"
    """The window's pixels: rectangle, disk (the ellipse within size), or 0 and 1 in a matrix or a file of one."""
    statistics: tuple[Statistic, ...] = ("mean",)
    """What to compute; each is an output. var and std are the population's."""
    percentiles: Annotated[tuple[Percentile, ...], Field(max_length=1000)] = ()
    """Percentiles to compute, from 0 to 100; [10, 90] are the outputs p10 and p90. Statistics may be [] then."""
    boundary: Boundary = "reflect"
    """What lies beyond the raster's edge: scipy.ndimage's modes, or shrink (nothing: only pixels inside count)."""
    cval: Number | None = None
    """Value of the pixels beyond the edge, for boundary: constant."""
    min_valid: Annotated[StrictInt, Field(ge=1)] = 1
    """Pixels of the window that must be valid; with fewer the result is invalid."""
    fill_invalid: StrictBool = False
    """Give invalid pixels a result too, from their valid neighbours."""

    _check_size = field_validator("size")(check_odd)
    _check_statistics = field_validator("statistics")(unique("each statistic"))
    _check_percentiles = field_validator("percentiles")(unique("each percentile", percentile_name))

    @model_validator(mode="after")
    def _check(self) -> Window:
        if not self.statistics and not self.percentiles:
            raise PipelineError("must name a statistic, or there must be `percentiles:`", ("statistics",))
        check_cval("boundary", self.boundary, self.cval)
        if self.matrix_files():
            return self
        if not isinstance(self.footprint, str):
            extent = len(self.footprint), len(self.footprint[0])
            if self.size not in (None, extent):
                raise PipelineError(f"the footprint is {extent[0]} x {extent[1]}; leave size out", ("size",))
        elif self.size is None:
            raise PipelineError("missing; add `size: 3`, say", ("size",))
        if self.min_valid > self.pixels.num_pixels:
            raise PipelineError(
                f"must be at most the {self.pixels.num_pixels} pixels of the window, got {self.min_valid}",
                ("min_valid",),
            )
        return self

    @property
    def pixels(self) -> Footprint:
        """The pixels of the window."""
        return _footprint(self.footprint, self.size)

    @property
    def fractions(self) -> dict[str, float]:
        """The order statistics by the output's name."""
        percents = {"median": 50.0} if "median" in self.statistics else {}
        percents |= {percentile_name(percentile): percentile for percentile in self.percentiles}
        return {name: percent / 100 for name, percent in percents.items()}

    def matrix_files(self) -> dict[str, str]:
        return {} if self.footprint in SHAPES else super().matrix_files()

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo(*self.pixels.reach)}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("invalid" if self.boundary == "shrink" else self.boundary, self.cval or 0)}

    def notes(self, specs: Specs) -> Iterator[str]:
        dtype = specs["input"].dtype
        if "range" in self.statistics and self.dtype is None and dtype.kind == "i":
            most, wider = np.iinfo(dtype).max, f"int{16 * dtype.itemsize}" if dtype.itemsize < 8 else "uint64"
            yield f"a range beyond {most} is written as {most}, the largest {dtype.name}; `dtype: {wider}` holds all"

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        if self.percentiles or any(name in ROUNDED for name in self.statistics):
            require_exact(self, source)
        check_occurs(self.cval, source.dtype)
        names, ordered = (*self.statistics, *map(percentile_name, self.percentiles)), self.fractions
        return {name: self._output(name, source, ordered) for name in names}

    def _output(self, name: str, source: RasterSpec, ordered: Mapping[str, float]) -> RasterSpec:
        if name == "count":
            return replace(source, dtype=np.dtype(np.uint32), nodata=None)
        can_be_invalid = source.can_be_invalid or self._fewest_pixels(source) < self.min_valid
        working = self.working_dtype(source.dtype)
        if name == "median" and self._is_always_odd(source):
            return source
        if name in ROUNDED or name in ordered:
            require_exact(self, source)
            dtype = np.dtype(np.float64) if name == "sum" and source.dtype.kind != "f" else working
            return replace(source, dtype=dtype, nodata=float("nan") if can_be_invalid else None)
        kept = keep_dtype(self, source, can_be_invalid)
        return kept if name != "range" or self.dtype is None else self._range(source, kept, np.dtype(self.dtype))

    def _range(self, source: RasterSpec, kept: RasterSpec, dtype: np.dtype) -> RasterSpec:
        """Return the spec of a range for which a dtype is declared: one that holds the largest, if that does."""
        if dtype.kind == "f" or kept.dtype.kind == "f":
            require_exact(self, source)
            working = self.working_dtype(source.dtype)
            return replace(kept, dtype=working, nodata=float("nan") if kept.can_be_invalid else None)
        nodata = kept.nodata if self.nodata is None or not kept.can_be_invalid else self.nodata
        is_wide = holds(dtype, int(np.iinfo(source.dtype).max) - int(np.iinfo(source.dtype).min))
        if not is_wide or (nodata is not None and not holds(dtype, nodata)):
            return kept
        return replace(kept, dtype=dtype, nodata=None if nodata is None else int(nodata))

    def units(self) -> dict[str, str]:
        return {name: SAME for name in (*self.statistics, *self.fractions) if name not in ("var", "count")}

    def limits(self, specs: Specs) -> dict[str, float]:
        most = max(largest(specs["input"].dtype), abs(self.cval or 0))
        larger = {"sum": most * self.pixels.num_pixels, "var": most**2}
        return {name: larger.get(name, most) for name in self.statistics if name in ROUNDED}

    def _fewest_pixels(self, source: RasterSpec) -> int:
        """Return the pixels of the smallest window: one at a corner of the raster, where the boundary shrinks it."""
        if self.boundary != "shrink":
            return self.pixels.num_pixels
        if self.pixels.is_rectangle:
            height, width = self.pixels.extent
            return min(height // 2 + 1, source.height) * min(width // 2 + 1, source.width)
        return self.pixels.fewest(source.height, source.width)

    def _is_always_odd(self, source: RasterSpec) -> bool:
        """Whether all windows have the same odd number of valid pixels, so that a median is one of them."""
        num_pixels = self.pixels.num_pixels
        return not source.can_be_invalid and num_pixels % 2 == 1 and self._fewest_pixels(source) == num_pixels

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lanes = source.num_bands if source.dims[-1] == "band" else 1
        itemsize = max(4, source.dtype.itemsize) if source.dtype.kind == "f" else source.dtype.itemsize
        most = scratch_bytes(shape, self.pixels, lanes, itemsize)
        most += extreme.scratch_bytes(source.dtype, Halo(*self.pixels.reach), lanes, len(self.statistics))
        if self.fractions:
            most += order_scratch_bytes(shape, self.pixels, tuple(self.fractions.values()), lanes, itemsize)
        extremes = (spec.dtype for name, spec in self.output_specs(specs).items() if name in ("min", "max", "range"))
        if source.dtype.kind == "f" or all(dtype.kind != "f" for dtype in extremes):
            return most
        halo = self.halo(specs)["input"]
        grown = (shape[0] + 2 * max(halo.top, halo.bottom)) * (shape[1] + 2 * max(halo.left, halo.right))
        return most + grown * source.num_bands * (self.working_dtype(source.dtype).itemsize + 2)

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        frame = Frame(region, source.origin, next(iter(out.values())).origin, source.lanes)
        window = WindowRule(self.pixels, self.min_valid, self.fill_invalid)
        mask = None if source.valid is None else source.planes(source.valid)
        planes = {name: block.planes() for name, block in out.items()}
        if ordered := {name: planes[name] for name in planes if name in self.fractions}:
            order_statistics(source.planes(), mask, ordered, self.fractions, frame, window)
        if sums := {name: planes[name] for name in planes if name in MOMENTS}:
            moments(source.planes(), mask, sums, frame, window)
        extremes: dict[tuple[np.dtype, Number], dict[str, np.ndarray]] = {}
        for name in [name for name in planes if name in ("min", "max", "range")]:
            extremes.setdefault((planes[name].dtype, out[name].fill or 0), {})[name] = planes[name]
        for (dtype, fill), some in extremes.items():
            if source.values.dtype.kind != "f" and dtype.kind == "f":  # integers have no value for an invalid pixel
                extrema(_as_float(source.planes(), mask, dtype), None, some, frame, window)
            else:
                own = replace(window, fill=0 if dtype.kind == "f" else fill)
                extrema(source.planes(), mask, some, frame, own)


@lru_cache(maxsize=64)
def _footprint(footprint: str | Matrix, size: tuple[int, int]) -> Footprint:
    if footprint == "rectangle":
        return Footprint.rectangle(size)
    return Footprint.disk(size) if isinstance(footprint, str) else Footprint.of(footprint)


def _as_float(values: np.ndarray, mask: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    floats = np.empty(values.shape, dtype)
    cast(values, floats, None, None)
    if mask is not None:
        floats[~mask] = np.nan
    return floats
