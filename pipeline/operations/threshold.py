"""A mask of the pixels above a threshold that is given, or found in the histogram of the whole raster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.kernels.threshold import li, otsu, triangle
from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.model.raster import Number, RasterSpec, json_number
from pipeline.model.region import Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations.base import Block, Domain, Reduction, Specs
from pipeline.operations.registry import register
from pipeline.operations.traits import DescribesOutputs

NUM_BINS = 256
"""Of floating point, between the smallest and the largest value: scikit-image's."""
TILE_ROWS = 64


@register
class Threshold(DescribesOutputs, Reduction):
    """Pixels above a threshold, band by band: 1 above, 0 at it and below.

    The threshold is given, or found in the exact histogram of all valid pixels of the band: of every value of 8 and 16
    bits, of 256 equal bins between the smallest and the largest number of floating point (infinities left out). The
    run says it. Reference: scikit-image's threshold_otsu, threshold_triangle, threshold_li.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = "{name: bright, op: threshold, input: image, method: otsu}"
    not_averaged: ClassVar[frozenset[str]] = frozenset({"mask"})
    never_nodata: ClassVar[frozenset[str]] = frozenset({"mask"})
    outputs_text: ClassVar[Mapping[str, str]] = {
        "mask": "1 and 0; uint8, nodata 255 where pixels can be invalid; attribute threshold: a number for each band",
        "table": "threshold by band (float64)",
    }

    op: Literal["threshold"]
    method: Literal["otsu", "triangle", "li"] | None = None
    """otsu: the variance between the classes is largest; triangle: for one peak with a long tail; li: least cross
    entropy, of 8 and 16 bits."""
    value: Annotated[Number, Field(allow_inf_nan=False)] | None = None
    """The threshold itself, instead of a method."""

    @model_validator(mode="after")
    def _check(self) -> Threshold:
        if (self.method is None) == (self.value is None):
            raise PipelineError("give `method` (otsu, triangle, li) or `value`, one of them", ("method",))
        return self

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        if self.method is not None and source.dtype.kind != "f" and source.dtype.itemsize > 2:
            raise PipelineError(
                f"histograms are of 8 and 16 bits and of floating point, the input is {source.dtype.name}; cast it "
                "first: {op: cast, dtype: uint16}, or give `value`",
                ("method",),
            )
        if self.method == "li" and source.dtype.kind == "f":
            raise PipelineError(
                f"li is for 8 and 16 bits, the input is {source.dtype.name}; cast it first, or take otsu", ("method",)
            )
        nodata = 255 if source.can_be_invalid else None
        return {"mask": replace(source, dtype=np.dtype(np.uint8), nodata=nodata)}

    def table_spec(self, specs: Specs) -> TableSpec:
        return TableSpec({"threshold": ("row", "band")}, specs["input"].bands, 1)

    def num_sweeps(self, specs: Specs) -> int:
        if self.value is not None:
            return 0
        return 2 if specs["input"].dtype.kind == "f" else 1

    def start(self, specs: Specs) -> Table:
        source = specs["input"]
        if self.value is not None:
            return {"threshold": np.full((1, source.num_bands), float(self.value))}
        return {"kind": np.zeros(0, source.dtype)}

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        source = specs["input"]
        return source.num_bands * 8 * (NUM_BINS if source.dtype.kind == "f" else 256**source.dtype.itemsize)

    def merged_bytes(self, tables: Sequence[Table]) -> int:
        return max(sum(column.nbytes for column in table.values()) for table in tables)  # added up

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        bands = range(len(blocks["input"].by_band()))
        if state["kind"].dtype.kind != "f":
            return {"counts": np.stack([self._counts(blocks["input"], band, region) for band in bands])}
        if sweep == 0:
            ends = [_ends(blocks["input"], band, region) for band in bands]
            return dict(zip(("low", "high"), np.array(ends, state["kind"].dtype).T, strict=True))
        counted = [self._binned(blocks["input"], band, region, state) for band in bands]
        return {"counts": np.stack(counted)}

    def _counts(self, block: Block, band: int, region: Region) -> np.ndarray:
        lowest, num = np.iinfo(block.values.dtype).min, 256**block.values.dtype.itemsize
        counts = np.zeros(num, np.int64)
        for values in _valid(block, band, region):
            counts += np.bincount(values.astype(np.intp) - lowest, minlength=num)
        return counts

    def _binned(self, block: Block, band: int, region: Region, state: Table) -> np.ndarray:
        counts, (low, high, half) = np.zeros(NUM_BINS, np.int64), _range(state, band)
        if not low < high:
            return counts
        try:
            for values in _valid(block, band, region):
                counts += np.histogram(values * half, NUM_BINS, (low, high))[0]
        except ValueError:
            raise InputUnfit(
                f"step {self.name!r}: the values of a band, {low:.9g} to {high:.9g}, are too near for {NUM_BINS} bins; "
                "subtract what they share, or give `value`"
            ) from None
        return counts

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        if "low" in first:
            return {"low": np.minimum(first["low"], second["low"]), "high": np.maximum(first["high"], second["high"])}
        return {"counts": first["counts"] + second["counts"]}

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        if "low" in partial:
            return {**state, **partial}
        dtype = state["kind"].dtype
        found = []
        for band, counts in enumerate(partial["counts"]):
            if dtype.kind != "f":
                found.append(self._of_integers(counts, int(np.iinfo(dtype).min)))
            else:
                found.append(self._of_bins(counts, *_range(state, band)))
        return {"threshold": np.array([found], np.float64)}

    def _of_integers(self, counts: np.ndarray, lowest: int) -> float:
        there = np.flatnonzero(counts)
        if not len(there):
            return math.nan
        first, counts = int(there[0]), counts[there[0] : there[-1] + 1]
        if len(counts) == 1:
            return lowest + first
        if self.method == "otsu":
            return lowest + first + otsu(counts, list(range(len(counts))))
        return lowest + first + (triangle(counts) if self.method == "triangle" else li(counts))

    def _of_bins(self, counts: np.ndarray, low: Any, high: Any, half: Any) -> float:
        if not low < high:
            return float(low) if low == high else math.nan
        edges = np.histogram_bin_edges(np.zeros(0, low.dtype), NUM_BINS, (low, high))
        centres = ((edges[:-1] + edges[1:]) / 2).tolist()
        return float(centres[otsu(counts, centres) if self.method == "otsu" else triangle(counts)] / float(half))

    def table_notes(self, table: Table) -> Iterator[str]:
        if self.value is None:
            found = table["threshold"][0].tolist()
            shown = ", ".join(f"{value:.9g}" for value in found[:8]) + (", ..." if len(found) > 8 else "")
            yield f"{self.method} finds the {'threshold' if len(found) == 1 else 'thresholds'} {shown}"

    def attributes(self, table: Table) -> dict[str, Any]:
        return {"threshold": [json_number(value) for value in table["threshold"][0].tolist()]}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return 4 * TILE_ROWS * shape[1]

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source, mask = blocks["input"], out["mask"]
        there, at = region.slices(source.origin), region.slices(mask.origin)
        for band, threshold in enumerate(tables["self"]["threshold"][0].tolist()):
            values, target = source.by_band()[band][there], mask.by_band()[band][at]
            is_whole = values.dtype.kind != "f"
            limit: Any = threshold if not is_whole or math.isnan(threshold) else self._limit(threshold)
            with np.errstate(over="ignore"):  # of a threshold beyond float32
                target[...] = values > limit
            if source.valid is not None:
                target[~source.by_band(source.valid)[band][there]] = mask.fill
            elif mask.fill is not None:
                target[np.isnan(values)] = mask.fill

    def _limit(self, threshold: float) -> int:
        """Return the whole number above which whole numbers are above the threshold."""
        return math.floor(threshold if self.value is None else self.value)


def _valid(block: Block, band: int, region: Region) -> Iterator[np.ndarray]:
    """Yield the values of a band that count, some rows after the other."""
    for top in range(region.top, region.bottom, TILE_ROWS):
        there = replace(region, top=top, bottom=min(top + TILE_ROWS, region.bottom)).slices(block.origin)
        values = block.by_band()[band][there]
        if values.dtype.kind == "f":
            yield values[np.isfinite(values)]
        else:
            yield values.reshape(-1) if block.valid is None else values[block.by_band(block.valid)[band][there]]


def _ends(block: Block, band: int, region: Region) -> tuple[Any, Any]:
    """Return the smallest and the largest value of a part, infinities where there is none."""
    low, high = math.inf, -math.inf
    for values in _valid(block, band, region):
        low, high = min(low, values.min(initial=math.inf)), max(high, values.max(initial=-math.inf))
    return low, high


def _range(state: Table, band: int) -> tuple[Any, Any, Any]:
    """Return the ends between which values lie once multiplied by a half or by 1: their span must be a number."""
    low, high = state["low"][band], state["high"][band]
    with np.errstate(over="ignore", invalid="ignore"):
        half = low.dtype.type(0.5 if low < high and not np.isfinite((high - low) * 2) else 1)
    return low * half, high * half, half
