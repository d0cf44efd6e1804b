"""How a raster is drawn: what kind of values it has, between which limits, in which colours."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.model.raster import RasterSpec, default_names
from pipeline.picture.color_map import BACKGROUND, CYCLE, class_colors, color_map
from pipeline.storage.georeference.geotiff import unit_items
from pipeline.storage.georeference.recorded import recorded_of

Kind = Literal["sequential", "diverging", "cyclic", "categorical", "palette", "color"]
KINDS: dict[Kind, str] = {
    "sequential": "from low to high",
    "diverging": "below and above 0",
    "cyclic": "an angle",
    "categorical": "classes or objects",
    "palette": "indices of its own colours",
    "color": "red, green and blue",
}
NAMES: dict[str, Kind] = {
    **dict.fromkeys(("aspect", "direction", "azimuth", "orientation", "phase"), "cyclic"),
    **dict.fromkeys(("dy", "dx", "dyy", "dxy", "dxx", "laplacian", "curvature", "tpi", "anomaly"), "diverging"),
    **dict.fromkeys(("ndvi", "ndwi", "ndmi", "ndbi", "ndsi", "nbr", "savi", "evi"), "diverging"),
    **dict.fromkeys(("label", "labels", "segments", "segmentation", "objects", "zones", "components"), "categorical"),
    **dict.fromkeys(("index", "class", "classes", "classification", "landcover", "mask", "scl", "qa"), "categorical"),
    **dict.fromkeys(("count", "pixels", "variety", "sum", "min", "max", "range", "median", "distance"), "sequential"),
}
"""What the name of an output, a step or a band tells of its values, where these agree."""
SHADED = ("hillshade", "shade", "relief")
PLANTS = ("ndvi", "savi", "evi")
FEW = 12
"""Values of an integer raster up to which they are taken for classes."""
SHOWN = 2.0, 98.0
"""Percentiles between which colours are spread: a few values far from all others take none away."""
MIXED = 0.1
"""Of the larger side of 0: where values lie on both sides of it by more, 0 is the middle of the colours."""
COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("b04", "b03", "b02"), ("b4", "b3", "b2"))
FULL, DARK = 65535, 16384
"""White of a colour table, and what all of it lies below where it is of 16-bit pixels, which fill no range."""
LEVEL = -1
"""The aspect of level ground, which has none, as GDAL, ArcGIS and `flat: -1` write it beside 0 to 360."""
RGB = 2
"""TIFF's code of bands that are red, green and blue."""


@dataclass(frozen=True)
class Style:
    """How values become colours."""

    kind: Kind
    map: str = "viridis"
    limits: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    """Low and high, of each band that is drawn; a cyclic map comes back to its first colour at the high one."""
    colors: tuple[tuple[int, int, int], ...] = ()
    """Of each value from 0 on, for kind "palette"."""

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Return the colours of values, (row, column, band), as uint8 (row, column, 3)."""
        if self.kind == "color":
            scaled = [self._scaled(values[..., i], i) for i in range(3)]
            return np.asarray(np.rint(255 * np.stack(scaled, axis=-1)), np.uint8)
        plane = values[..., 0]
        if self.kind == "categorical":
            return class_colors(plane)
        if self.kind == "palette":
            table = np.array([*self.colors, (0, 0, 0)], np.uint8)  # an index beyond is black
            return np.asarray(table[np.clip(plane, 0, len(self.colors)).astype(np.int64)])
        painted = color_map(self.map)[np.minimum(self._scaled(plane, 0) * 256, 255).astype(np.uint8)]
        return np.where(self.is_level(plane)[..., np.newaxis], np.uint8(BACKGROUND), painted)

    def is_level(self, plane: np.ndarray) -> np.ndarray:
        """Return where a value is no angle but says that there is none: -1 among angles from 0 on."""
        is_from_0 = self.kind == "cyclic" and self.limits[0][0] >= 0
        return np.asarray((plane == LEVEL) & is_from_0)

    def _scaled(self, plane: np.ndarray, number: int) -> np.ndarray:
        """Return values from 0 at the low limit to 1 at the high one."""
        low, high = self.limits[min(number, len(self.limits) - 1)]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (plane.astype(np.float64) - low) / (high - low if high > low else 1.0)
            scaled = np.mod(scaled, 1.0) if self.kind == "cyclic" else scaled
        return np.clip(np.nan_to_num(scaled), 0, 1)


def is_valid(values: np.ndarray, spec: RasterSpec) -> np.ndarray:
    """Return where all bands of pixels, (row, column, band), are valid: (row, column)."""
    valid = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)
    if spec.nodata is not None and not math.isnan(spec.nodata):
        valid &= values != values.dtype.type(spec.nodata)
    return np.asarray(valid.all(axis=-1))


def drawn_bands(name: str, spec: RasterSpec) -> tuple[int, ...]:
    """Return the bands that a picture shows: red, green and blue where there are such, else the first.

    Of whole numbers of 16 bits without names the third to the first, since bands begin with the shortest waves.
    """
    is_unnamed = spec.bands == default_names(spec.num_bands)
    names = [] if is_unnamed else [band.lower().partition(" ")[0].rstrip(",") for band in spec.bands]
    for wanted in COLOR_NAMES:
        if all(band in names for band in wanted):
            return tuple(names.index(band) for band in wanted)
    is_said = recorded_of(spec).photometric == RGB or name.rpartition("/")[2] == "color"
    if spec.num_bands >= 3 and (is_said or (is_unnamed and spec.dtype == np.uint8 and spec.num_bands <= 4)):
        return 0, 1, 2
    is_scene = is_unnamed and spec.dtype.kind == "u" and _kind_by_name(name, "") is None
    return (2, 1, 0) if is_scene and spec.num_bands >= 3 else (0,)


def choose_style(name: str, spec: RasterSpec, bands: Sequence[int], values: np.ndarray) -> Style:
    """Return how bands of a raster are drawn, by its name, what its file says, and pixels (row, column, band)."""
    if len(bands) >= 3:
        return _color_style(name, spec, values)
    plane, band = values[is_valid(values, spec)][:, 0], spec.bands[bands[0]]
    if colors := recorded_of(spec).colors:
        return Style("palette", colors=_eight_bits(colors))
    low, high = spread_of(plane)
    kind = _kind_by_name(name, "" if spec.bands == default_names(spec.num_bands) else band)
    is_whole = spec.dtype.kind in "iu"
    if is_whole and kind in (None, "categorical") and (kind or len(np.unique(plane)) <= FEW):
        return Style("categorical", limits=((low, high),))
    if kind == "cyclic" and (period := _period(plane, unit_of(spec, bands[0]))):
        finite = plane[np.isfinite(plane)]
        is_compass = (finite[finite < 0] == LEVEL).all() or finite.max() > period / 2
        first = 0.0 if is_compass else -period / 2
        return Style("cyclic", CYCLE, ((first, first + period),))
    is_mixed = low < 0 < high and min(-low, high) > MIXED * max(-low, high)
    if kind == "diverging" or (is_mixed and kind is None):
        most = max(abs(low), abs(high)) or 1.0
        is_of_plants = any(word in PLANTS for word in _tokens(f"{name} {band}"))
        return Style("diverging", "brown-green" if is_of_plants else "blue-red", ((-most, most),))
    return Style("sequential", "grey" if _tokens(name)[0] in SHADED else "viridis", ((low, high),))


def _eight_bits(colors: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return a colour table as it is shown: one of reflectances, which are dark, as bright as its brightest allows."""
    table = np.array(colors, np.float64).reshape(3, -1).T
    brightest = table.max() if table.max() < DARK else FULL
    shown = np.rint(table * (255 / max(1.0, brightest))).astype(int)
    return tuple((r, g, b) for r, g, b in shown.tolist())


def _color_style(name: str, spec: RasterSpec, values: np.ndarray) -> Style:
    if spec.dtype == np.uint8:
        return Style("color", limits=((0.0, 255.0),) * 3)
    valid = values[is_valid(values, spec)]
    return Style("color", limits=tuple(spread_of(valid[:, i]) for i in range(3)))


def spread_of(values: np.ndarray) -> tuple[float, float]:
    """Return the limits between which colours are spread over values, all of them valid."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, SHOWN))
    return (low, high) if low < high else (float(finite.min()), float(finite.max()))


def _period(plane: np.ndarray, unit: str) -> float | None:
    """Return the turn of angles, in degrees or radians; None where values are more than one."""
    finite = plane[np.isfinite(plane)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    turns = [2 * math.pi] if unit.lower().startswith("rad") else [360.0] if unit else [2 * math.pi, 360.0]
    return next((turn for turn in turns if low >= -turn / 2 - 1e-4 and high <= turn + 1e-4), None)


def _tokens(name: str) -> list[str]:
    """Return the words of a name, the last first."""
    return re.findall(r"[a-z]+", name.lower())[::-1] or [""]


def _kind_by_name(name: str, band: str) -> Kind | None:
    return next((NAMES[word] for word in [*_tokens(band), *_tokens(name)] if word in NAMES), None)


SIGNS = {"degree": "°", "degrees": "°", "micrometer": "µm", "um": "µm", "metre": "m", "meter": "m", "percent": "%"}


def unit_of(spec: RasterSpec, band: int) -> str:
    """Return the unit of a band by its sign, empty where none is known."""
    unit = next((item.text for item in unit_items(recorded_of(spec).items) if item.band == band), "")
    return SIGNS.get(unit, unit)
