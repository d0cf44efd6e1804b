"""Values as colours, by a ramp of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, StrictBool, field_validator

from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations.base import Block, Reduction, Specs
from pipeline.operations.registry import register
from pipeline.operations.traits import ReadsMatrices
from pipeline.storage.color_ramp import MAX_ENTRIES, NOTHING, SUFFIXES, Entry, parse_entry, read_ramp

TILE_ROWS = 32
CHANNELS = ("red", "green", "blue", "alpha")
MAPS: Mapping[str, tuple[Entry, ...]] = {
    "grey": (("0%", 0, 0, 0, 255), ("100%", 255, 255, 255, 255)),
    "elevation": (
        ("0%", 0, 191, 191, 255),
        ("20%", 0, 255, 0, 255),
        ("40%", 255, 255, 0, 255),
        ("60%", 255, 127, 0, 255),
        ("80%", 191, 127, 63, 255),
        ("100%", 200, 200, 200, 255),
    ),
    "terrain": (
        ("0%", 51, 51, 153, 255),
        ("15%", 0, 153, 255, 255),
        ("25%", 0, 204, 102, 255),
        ("50%", 255, 255, 153, 255),
        ("75%", 128, 92, 84, 255),
        ("100%", 255, 255, 255, 255),
    ),
}
"""From the smallest to the largest value; `elevation` is GRASS's, `terrain` matplotlib's."""


def to_ramp(value: Any) -> Any:
    """Return entries, the name of a map, or the path of a colour file."""
    if isinstance(value, str):
        if value in MAPS or value.lower().endswith(SUFFIXES):
            return value
        known = f"one of {', '.join(MAPS)}, a colour file ({', '.join(SUFFIXES)}) or a list"
        raise ValueError(f"must be {known}, got {value!r}")
    if not isinstance(value, list | tuple) or not all(isinstance(entry, list | tuple) for entry in value):
        raise ValueError("must be a list such as [[0, 0, 90, 160], [50%, yellow], [100%, white]], or a colour file")
    if not 1 <= len(value) <= MAX_ENTRIES:
        raise ValueError(f"must have 1 to {MAX_ENTRIES} colours, got {len(value)}")
    return tuple(parse_entry(entry) for entry in value)


@register
class Relief(ReadsMatrices, Reduction):
    """Values as colours: each pixel between those of the two nearest values of a ramp, as gdaldem color-relief.

    Beyond the ends of the ramp pixels have the colour of the end. Invalid pixels get that of `nv`, else 0, 0, 0, and
    alpha 0. Percentages lie between the smallest and the largest value of the whole raster (infinities left out).
    """

    matrices: ClassVar[tuple[str, ...]] = ("colors",)
    example: ClassVar[str] = "{name: tinted, op: relief, input: image, bands: [1], colors: elevation}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "color": "bands red, green, blue and, with `alpha`, alpha; uint8",
        "table": "value (NaN for that of invalid pixels) and color of each entry, sorted",
    }

    op: Literal["relief"]
    colors: Annotated[
        tuple[Entry, ...] | str, BeforeValidator(to_ramp, json_schema_input_type=str | list[list[float | str]])
    ]
    """The ramp: grey, elevation or terrain, over the range of the raster; a colour file of gdaldem (.txt, .clr,
    .csv); or a list such as [[0, 0, 90, 160], [50%, yellow], [nv, 0, 0, 0, 0]]."""
    pick: Literal["interpolate", "nearest", "exact"] = "interpolate"
    """Between two colours; the colour of the nearest value, of equally near ones the larger; or that of an equal value,
    0, 0, 0, and alpha 0, where there is none."""
    alpha: StrictBool = False
    """A fourth band: how opaque a pixel is."""

    @field_validator("colors")
    @classmethod
    def _check_colors(cls, colors: tuple[Entry, ...] | str) -> tuple[Entry, ...] | str:
        if not isinstance(colors, str):
            values = [entry[0] for entry in colors]
            if values.count(NOTHING) > 1:
                raise ValueError("must have one colour for nv, got several")
            if len(values) == values.count(NOTHING):
                raise ValueError("must have the colour of a value, got only that of nv")
        return colors

    @staticmethod
    def read_file(path: str) -> Any:
        return read_ramp(path)

    def matrix_files(self) -> dict[str, str]:
        return {} if self.colors in MAPS else super().matrix_files()

    @property
    def _entries(self) -> tuple[Entry, ...]:
        return MAPS[self.colors] if isinstance(self.colors, str) else self.colors

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        if source.num_bands != 1:
            raise PipelineError(
                f"the raster's bands are {', '.join(source.bands[:6])}; pick the one that is coloured: `bands: [1]`",
                ("bands",),
            )
        dims = source.dims if "band" in source.dims else ("band", "y", "x")
        bands = CHANNELS[: 4 if self.alpha else 3]
        return {
            "color": replace(source, dtype=np.dtype(np.uint8), nodata=None, dims=dims, bands=bands, band_coordinates=())
        }

    def table_spec(self, specs: Specs) -> TableSpec:
        return TableSpec({"value": ("entry",), "color": ("entry", "band")}, CHANNELS, len(self._entries))

    def num_sweeps(self, specs: Specs) -> int:
        return int(any(_is_share(value) for value, *_ in self._entries))

    def start(self, specs: Specs) -> Table:
        return {} if self.num_sweeps(specs) else self._ramp(0.0, 0.0)

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        low, high = math.inf, -math.inf
        for top in range(region.top, region.bottom, TILE_ROWS):
            tile = replace(region, top=top, bottom=min(top + TILE_ROWS, region.bottom))
            values = blocks["input"].part(tile)
            values = values[np.isfinite(values)]
            low, high = min(low, values.min(initial=math.inf)), max(high, values.max(initial=-math.inf))
        return {"low": np.array([low], np.float64), "high": np.array([high], np.float64)}

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        return 16

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        return {"low": np.minimum(first["low"], second["low"]), "high": np.maximum(first["high"], second["high"])}

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        low, high = float(partial["low"][0]), float(partial["high"][0])
        if low > high:
            raise InputUnfit(
                f"step {self.name!r}: no pixel has a finite value, so there is no smallest and no largest, of which "
                "percentages and named ramps are; give values"
            )
        return self._ramp(low, high)

    def _ramp(self, low: float, high: float) -> Table:
        """Return the entries, that of invalid pixels first, the others by their value, equal ones in their order."""
        values = np.array([_resolved(value, low, high) for value, *_ in self._entries])
        order = np.argsort(np.where(np.isnan(values), -math.inf, values), kind="stable")
        return {"value": values[order], "color": np.array([entry[1:] for entry in self._entries], np.float64)[order]}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return TILE_ROWS * shape[1] * 96 + 2**16

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        values, colors = tables["self"]["value"], tables["self"]["color"]
        missing = np.zeros(4)
        if np.isnan(values[0]):
            missing, values, colors = colors[0], values[1:], colors[1:]
        factor = 2.0**-4 if np.abs(values).max() > 2.0**1000 else 1.0  # so that no difference overflows
        values = values * factor
        source, target, intervals = blocks["input"], out["color"], _intervals(values, colors, missing)
        for top in range(region.top, region.bottom, TILE_ROWS):
            tile = replace(region, top=top, bottom=min(top + TILE_ROWS, region.bottom))
            pixels = source.by_band()[0][tile.slices(source.origin)].astype(np.float64) * factor
            place, share = self._placed(pixels, values, intervals)
            for band, plane in enumerate(target.by_band()[(slice(None), *tile.slices(target.origin))]):
                color = share * intervals.rises[band][place]
                color += intervals.colors[band][place]
                color += 0.5
                np.copyto(plane, color, casting="unsafe")  # what is cut off rounds half up

    def _placed(self, pixels: np.ndarray, values: np.ndarray, intervals: _Intervals) -> tuple[np.ndarray, np.ndarray]:
        """Return the interval of each pixel, and how far in it lies, from 0 to 1."""
        is_missing = np.isnan(pixels)
        inside = np.clip(pixels, values[0], values[-1])
        place = np.searchsorted(values, inside)  # the first value that is not smaller
        place[is_missing] = len(values)
        if self.pick == "exact":
            place[~is_missing & (values[np.minimum(place, len(values) - 1)] != pixels)] = len(values) + 1
            return place, np.ones(pixels.shape)
        inside[is_missing] = 0
        share = inside - intervals.lows[place]
        share /= intervals.spans[place]
        if self.pick == "nearest":
            lows, highs = intervals.lows[place], values[np.minimum(place, len(values) - 1)]
            share = np.where(inside - lows < highs - inside, 0.0, 1.0)
        return place, share


class _Intervals(NamedTuple):
    """Between each value of a ramp and the one before it; before the first there is nothing."""

    lows: np.ndarray
    spans: np.ndarray
    """Infinite, so that nothing lies in it, before the first value, of invalid pixels and of no colour."""
    colors: np.ndarray
    """(band, interval): the colour at its beginning."""
    rises: np.ndarray
    """How much more it is at its end."""


def _intervals(values: np.ndarray, colors: np.ndarray, missing: np.ndarray) -> _Intervals:
    """Return the intervals of a ramp, then one of invalid pixels, then one of no colour."""
    lows = np.concatenate([values[:1], values[:-1], np.zeros(2)])
    spans = np.concatenate([[math.inf], np.diff(values), [math.inf, math.inf]])
    spans[spans == 0] = math.inf  # of equal values, where no pixel lies
    first = np.concatenate([colors[:1], colors[:-1], missing[np.newaxis], np.zeros((1, 4))])
    rises = np.concatenate([np.zeros((1, 4)), np.diff(colors, axis=0), np.zeros((2, 4))])
    return _Intervals(lows, spans, np.ascontiguousarray(first.T), np.ascontiguousarray(rises.T))


def _is_share(value: float | str) -> bool:
    return isinstance(value, str) and value != NOTHING


def _resolved(value: float | str, low: float, high: float) -> float:
    if isinstance(value, str):
        if value == NOTHING:
            return math.nan
        share = float(value.removesuffix("%")) / 100
        if math.isinf(high - low):
            return 2 * (low / 2 + share * (high / 2 - low / 2))
        return low + share * (high - low)
    return value
