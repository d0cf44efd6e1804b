"""Many bands made one: statistics over the dates of a series, or the best date of each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictStr, field_validator, model_validator

from pipeline.kernels.composite import Layers, composite, scratch_bytes, take_entries, write_entries
from pipeline.kernels.expression import evaluate
from pipeline.kernels.series import keep_better
from pipeline.model.errors import PipelineError
from pipeline.model.raster import SAME, RasterSpec, largest
from pipeline.model.region import Region
from pipeline.operations.base import Block, Domain, Specs
from pipeline.operations.checks import unique
from pipeline.operations.exact import keep_dtype, require_exact
from pipeline.operations.expression.evaluation import ExpressionText, aliases
from pipeline.operations.expression.names import Scope, Source
from pipeline.operations.expression.program import Compiled, compile_expression
from pipeline.operations.fields import Percentile, percentile_name
from pipeline.operations.registry import register
from pipeline.operations.series import Dates, Series, check_window, dates_of, result_of, series_of
from pipeline.operations.traits import HasUnits

Statistic = Literal["mean", "median", "min", "max", "std", "count", "first", "last"]
ROUNDED = ("mean", "std")


class Best(BaseModel):
    """Which date is taken of each pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: ExpressionText
    """An expression as of `calc`, over the names of the source bands, e.g. (B08 - B04) / (B08 + B04)."""
    pick: Literal["max", "min"] = "max"
    """Whether the date is taken where it is largest or smallest."""


@register
class Composite(HasUnits):
    """One band of many, pixel by pixel: statistics of the valid pixels of all dates, or all bands of the best date.

    The bands of a series have a coordinate, such as `time`, and mostly `source_band`, the band of each date. There is a
    result for each source band (and whatever else tells bands apart: z, frequency, orientation), else one of all bands.
    Invalid pixels are skipped, inf too by mean, std and count. Reference: numpy.nanmean, nanmedian, nanstd
    (ddof 0), nanpercentile, nanmin and nanmax along the dates; median and percentiles are exact, rounded once.

    `best` takes all bands of a pixel from one date: where the expression is largest, of equal ones the earliest. A
    date at which it is invalid does not count.
    """

    domain: ClassVar[Domain] = "native"
    not_averaged: ClassVar[frozenset[str]] = frozenset({"date"})
    example: ClassVar[str] = "{name: clear, op: composite, input: image, over: time, statistics: [median, count]}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "mean": "working dtype (float32 for 8 and 16-bit integers and float32, else float64)",
        "median": "the input's dtype where all series have an odd number of valid pixels, else working dtype",
        "min": "the input's dtype",
        "max": "the input's dtype",
        "std": "the population's; working dtype",
        "count": "valid pixels, defined everywhere; uint32",
        "first": "the first valid pixel in the order of the coordinate; the input's dtype",
        "last": "the last valid one; the input's dtype",
        "p10": "of percentiles: [10], and so on; between two pixels linearly, as numpy's; working dtype",
        "value": "of best: the source bands of the best date; the input's dtype",
        "date": "of best: which date that is, counted from 0 over all dates of the input; the smallest unsigned "
        "integer that holds them and nodata; no band axis, but with `window` the bands of value",
    }

    op: Literal["composite"]
    over: Annotated[StrictStr, Field(min_length=1)] = "time"
    """The coordinate of the bands: time, z, frequency, ...; `band` is all bands in their order."""
    statistics: tuple[Statistic, ...] | None = None
    """What to compute; each is an output. Default: median, unless there are `percentiles` or `best`."""
    percentiles: Annotated[tuple[Percentile, ...], Field(max_length=1000)] = ()
    """Percentiles to compute, from 0 to 100; [10, 90] are the outputs p10 and p90."""
    best: Best | None = None
    """All bands of the date at which an expression is largest or smallest: the outputs value and date."""
    window: StrictStr | None = None
    """One composite for each month, year or "16 days" (from the first date on); those without a date are left out."""

    _check_window = field_validator("window")(check_window)
    _check_statistics = field_validator("statistics")(unique("each statistic"))
    _check_percentiles = field_validator("percentiles")(unique("each percentile", percentile_name))

    @model_validator(mode="after")
    def _check(self) -> Composite:
        if not self.chosen and not self.percentiles and self.best is None:
            raise PipelineError("must name a statistic, or there must be `percentiles:` or `best:`", ("statistics",))
        return self

    @property
    def chosen(self) -> tuple[Statistic, ...]:
        """The statistics, also where none are named."""
        if self.statistics is None:
            return () if self.percentiles or self.best else ("median",)
        return self.statistics

    @property
    def fractions(self) -> dict[str, float]:
        """The order statistics by the output's name."""
        percents = {"median": 50.0} if "median" in self.chosen else {}
        percents |= {percentile_name(percentile): percentile for percentile in self.percentiles}
        return {name: percent / 100 for name, percent in percents.items()}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        series = series_of(source, self.over, self.window)
        result = result_of(source, series, self.over, self.name or "composite")
        outputs = {name: self._output(name, result, series) for name in (*self.chosen, *self.fractions)}
        return outputs | self._best_specs(source, result) if self.best else outputs

    def _output(self, name: str, result: RasterSpec, series: Series) -> RasterSpec:
        if name == "count":
            return replace(result, dtype=np.dtype(np.uint32), nodata=None)
        is_odd = not result.can_be_invalid and all(len(group.bands) % 2 for group in series.groups)
        if name in self.fractions or name in ROUNDED:
            if name == "median" and is_odd:
                return result
            require_exact(self, result)
            nodata = float("nan") if result.can_be_invalid else None
            return replace(result, dtype=self.working_dtype(result.dtype), nodata=nodata)
        return keep_dtype(self, result, result.can_be_invalid)

    def _best_specs(self, source: RasterSpec, result: RasterSpec) -> dict[str, RasterSpec]:
        dates = dates_of(source, self.over)
        require_exact(self, source)
        compiled = self._compile(Source(dates.names, source.dtype, source.can_be_invalid))
        can_be_invalid = compiled.can_be_invalid
        num = len(dates.bands)
        dtype = np.min_scalar_type(num - 1 + can_be_invalid)
        nodata = int(np.iinfo(dtype).max) if can_be_invalid else None
        if can_be_invalid and self.nodata is not None and num <= self.nodata <= np.iinfo(dtype).max:
            nodata = int(self.nodata)
        date = replace(result, dtype=dtype, nodata=nodata)
        if self.window is None:
            date = replace(date, dims=("y", "x"), bands=("date",), band_coordinates=())
        return {"value": keep_dtype(self, result, result.can_be_invalid or can_be_invalid), "date": date}

    def _compile(self, source: Source) -> Compiled:
        assert self.best
        scope = Scope((("input", source),), "input", aliases(self.input))
        try:
            compiled = compile_expression(self.best.by, scope, self.dtype)
        except ValueError as error:
            raise PipelineError(str(error), ("best", "by")) from None
        if compiled.num_bands > 1:
            raise PipelineError(
                f"has a value for each of the {compiled.num_bands} bands of a date; name bands, of which it makes one",
                ("best", "by"),
            )
        return compiled

    def notes(self, specs: Specs) -> Iterator[str]:
        series = series_of(specs["input"], self.over, self.window)
        if series.left_out:
            begin, end = series.periods[0], series.periods[-1]
            yield f"{series.left_out} of the periods from {begin} to {end} have no date and are left out (window)"
        if self.best:
            listed = [f"{i} is {entry}" for i, entry in enumerate(series.entries)]
            shown = listed if len(listed) <= 6 else [*listed[:3], "...", listed[-1]]
            yield f"date counts from 0: {', '.join(shown)}"

    def units(self) -> dict[str, str]:
        names = (*self.chosen, *self.fractions, *(("value",) if self.best else ()))
        return {name: SAME for name in names if name != "count"}

    def limits(self, specs: Specs) -> dict[str, float]:
        return {name: largest(specs["input"].dtype) for name in self.chosen if name in ROUNDED}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lengths = [len(group.bands) for group in series_of(source, self.over, self.window).groups]
        fractions = tuple(self.fractions.values())
        itemsize = max(4, source.dtype.itemsize) if source.dtype.kind == "f" else source.dtype.itemsize
        most = 0
        if self.chosen or fractions:
            most = scratch_bytes(lengths, itemsize, len(self.chosen) + len(fractions), fractions, shape)
        if self.best is None:
            return most
        dates = dates_of(source, self.over)
        program = self._compile(Source(dates.names, source.dtype, source.can_be_invalid)).program
        return max(most, program.scratch_bytes + shape[0] * shape[1] * (program.dtype.itemsize + 4))

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        series = series_of(source, self.over, self.window)
        mask = None if source.valid is None else source.planes(source.valid)
        results = {name: _layers(block, region) for name, block in out.items()}
        if statistics := {name: results[name] for name in results if name not in ("value", "date")}:
            groups = [group.bands for group in series.groups]
            composite(_layers(source, region), mask, groups, statistics, self.fractions, region.shape)
        if "value" in out or "date" in out:
            self._take_best(source, series, results, region)

    def _take_best(self, source: Block, series: Series, results: Mapping[str, Layers], region: Region) -> None:
        dates = dates_of(source, self.over)
        can_be_invalid = source.valid is not None or source.values.dtype.kind == "f"
        compiled = self._compile(Source(dates.names, source.values.dtype, can_be_invalid))
        mask = None if source.valid is None else source.planes(source.valid)
        for period in range(series.num_periods):
            groups = [number for number, group in enumerate(series.groups) if group.period == period]
            index = self._choose(source, compiled, dates, series.groups[groups[0]].entries, region)
            for place, number in enumerate(groups):
                if "value" in results:
                    bands = dates.bands[:, place]
                    take_entries(_layers(source, region), mask, index, bands, results["value"], number)
            if "date" in results:
                for number in groups if self.window else (0,):
                    write_entries(index, results["date"], number)

    def _choose(
        self, source: Block, compiled: Compiled, dates: Dates, entries: tuple[int, ...], region: Region
    ) -> np.ndarray:
        """Return the best of some dates for each pixel of the region, -1 where none is valid."""
        assert self.best
        best = np.full(region.shape, -np.inf, compiled.program.dtype)
        index = np.full(region.shape, -1, np.int32)
        sign = compiled.program.dtype.type(1 if self.best.pick == "max" else -1)
        inside = (slice(None), *region.slices(source.origin))
        values = source.by_band()[inside]
        valid = None if source.valid is None else source.by_band(source.valid)[inside]
        for entry in entries:
            bands = [int(dates.bands[entry, leaf.band or 0]) for leaf in compiled.leaves]
            layers = [(values[b : b + 1], None if valid is None else valid[b : b + 1]) for b in bands]
            for _, rows, columns, found in evaluate(compiled.program, layers, (1, *region.shape)):
                keep_better(found, entry, sign, rows.start, columns.start, best, index)
        return index


def _layers(block: Block, region: Region) -> Layers:
    row, column = block.origin
    fill = 0 if block.fill is None else block.fill
    return Layers(block.planes(), block.lanes, region.top - row, region.left - column, fill)
