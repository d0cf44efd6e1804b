"""What OME says of a raster, in OME-TIFF and in OME-Zarr: the size of its pixels, and names and colours of channels.

Values in, facts out: nothing here opens a file. What cannot be used is left out, and a line in `warnings` says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.model.affine import Affine
from pipeline.model.raster import printable

UNIT = "micrometer"
"""In which the transform of a raster is whose file says lengths and no coordinate system."""
COLOR = "channel_color"
"""The coordinate of the bands that holds their colours: RRGGBB, empty where a band has none."""
_PREFIXES = {"pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "": 0, "kilo": 3}
_SYMBOLS = {"pm": -12, "nm": -9, "um": -6, "µm": -6, "μm": -6, "mm": -3, "cm": -2, "dm": -1, "m": 0, "km": 3}
_POWERS = {f"{prefix}{metre}": power for prefix, power in _PREFIXES.items() for metre in ("meter", "metre")}
_POWERS |= _SYMBOLS | {"micron": -6, "angstrom": -10, "Å": -10}
_MICROMETRES = {unit: Fraction(10) ** (power + 6) for unit, power in _POWERS.items()} | {
    **dict.fromkeys(("inch", "in"), Fraction(25_400)),
    **dict.fromkeys(("foot", "ft"), Fraction(304_800)),
    "yard": Fraction(914_400),
}
"""Units of OME-XML and of OME-Zarr, in micrometres."""
SMALLEST, LARGEST = 1e-9, 1e15
"""Micrometres that a pixel may have on a side."""


def micrometres(value: Any, unit: Any) -> float | None:
    """Return a length in micrometres, rounded once; None for what is no number or no length.

    Examples
    --------
    >>> micrometres(325, "nanometer"), micrometres("0.65", "µm"), micrometres(1, "pixel")
    (0.325, 0.65, None)
    """
    factor = _MICROMETRES.get(unit) if isinstance(unit, str) else None
    if factor is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return float(Fraction(number) * factor) if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def pixel_grid(
    sizes: Sequence[tuple[Any, Any]], warnings: list[str], corner: tuple[float, float] = (0.0, 0.0)
) -> Affine | None:
    """Return the transform to micrometres of pixels whose height and width are given, each as (number, unit).

    Rows count downwards. The upper left corner is at `corner` (y, x), in the same units.
    """
    height, width = (micrometres(*size) for size in sizes)
    said = " x ".join(f"{printable(str(value))[:20]} {printable(str(unit))[:20]}" for value, unit in sizes)
    if height is None or width is None or not all(SMALLEST <= size <= LARGEST for size in (height, width)):
        warnings.append(f"the pixel size is ignored: {said} is no size in a known unit of length")
        return None
    top, left = (micrometres(place, unit) for place, (_, unit) in zip(corner, sizes, strict=True))
    if top is None or left is None:
        warnings.append(f"the place of the pixels is ignored: {corner[0]:g}, {corner[1]:g} is none")
    return Affine(width, 0.0, left or 0.0, 0.0, height, top or 0.0)


def color_of_number(text: str) -> str:
    """Return OME-XML's colour of a channel, red, green, blue and alpha in a signed number, as RRGGBB.

    Examples
    --------
    >>> color_of_number("16711935"), color_of_number("-16776961"), color_of_number("red")
    ('00FF00', 'FF0000', '')
    """
    return f"{int(text) % 2**32 >> 8:06X}" if re.fullmatch(r"-?\d{1,10}", text) else ""


def parse_color(value: Any) -> str:
    """Return a colour as OME-Zarr writes it, RRGGBB; empty for what is none.

    Examples
    --------
    >>> parse_color("#00ff00"), parse_color("green")
    ('00FF00', '')
    """
    text = str(value).removeprefix("#").upper()
    return text if re.fullmatch("[0-9A-F]{6}", text) else ""


# --- OME-Zarr --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A level of an OME-Zarr image."""

    path: str
    scale: tuple[Any, ...] = ()
    """The size of a pixel along each axis, in the axis' unit; empty where none is said that can be used."""
    offset: tuple[float, ...] | None = None
    """Where the centre of the first pixel lies; None where nothing is said."""
    unread: str = ""
    """A transformation that is not read."""


@dataclass(frozen=True)
class Image:
    """What OME-Zarr says of a group: an image, in levels of a pyramid."""

    levels: tuple[Level, ...] = ()
    """Full resolution first."""
    axes: tuple[str, ...] = ()
    units: tuple[Any, ...] = ()
    """Of the axes."""
    channels: tuple[str, ...] = ()
    """Their names, "" for those without."""
    colors: tuple[str, ...] = ()

    def grid(self, level: int, axes: tuple[int, int], warnings: list[str]) -> Affine | None:
        """Return the transform to micrometres of a level; None where none is said. `axes` are the positions of y and x.

        A translation leads from the centre of a pixel of full resolution to that of one of the level; that of full
        resolution is of its corner. A level of which no place is said begins where full resolution does.
        """
        if level >= len(self.levels):
            return None
        here, full = self.levels[level], self.levels[0]
        if here.unread:
            warnings.append(f"the pixel size is ignored: {here.unread} is no transformation that is read")
        if max(axes) >= min(len(here.scale), len(self.axes)):
            return None
        scale, units = ([values[axis] for axis in axes] for values in (here.scale, self.units))
        if not any(units) and all(value == 1 for value in scale):
            return None  # pixels
        down, across = (_corner(here, full, axis) for axis in axes)
        return pixel_grid(list(zip(scale, units, strict=True)), warnings, (down, across))


def _corner(level: Level, full: Level, axis: int) -> float:
    """Return where a level begins along an axis."""
    if level.offset is None:
        return 0.0 if full.offset is None or len(full.offset) <= axis else full.offset[axis]
    return level.offset[axis] - (level.scale[axis] - full.scale[axis]) / 2 if full.scale else level.offset[axis]


def parse_image(attributes: Mapping[str, Any]) -> Image:
    """Return what the attributes of a group say by OME-Zarr, 0.4 and before or 0.5; an empty one where that is nothing.

    Examples
    --------
    >>> scale = {"type": "scale", "scale": [1, 0.5, 0.5]}
    >>> datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    >>> axes = [{"name": "c"}, {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}]
    >>> parse_image({"ome": {"multiscales": [{"axes": axes, "datasets": datasets}]}}).grid(0, (1, 2), [])
    (0.5, 0.0, 0.0, 0.0, 0.5, 0.0)
    """
    holder = attributes.get("ome", attributes)
    scales = holder.get("multiscales") if isinstance(holder, Mapping) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        return Image()
    entries, axes = (_list(scales[0].get(key)) for key in ("datasets", "axes"))
    common = _list(scales[0].get("coordinateTransformations"))
    levels = [_parse_level(each, common) for each in entries if isinstance(each, Mapping) and "path" in each]
    rendering = holder.get("omero")
    shown = _list(rendering.get("channels")) if isinstance(rendering, Mapping) else []
    channels = [channel if isinstance(channel, Mapping) else {} for channel in shown]
    return Image(
        tuple(levels),
        tuple(str(axis.get("name", "")) if isinstance(axis, Mapping) else str(axis) for axis in axes),
        tuple(axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes),
        tuple(str(channel.get("label") or "") for channel in channels),
        tuple(parse_color(channel.get("color")) for channel in channels),
    )


def _parse_level(entry: Mapping[str, Any], common: list[Any]) -> Level:
    """Return a level with all transformations folded, its own before those of the image."""
    path, scale = str(entry["path"]), list[float]()
    offset: list[float] | None = None
    for each in [*_list(entry.get("coordinateTransformations")), *common]:
        kind = str(each.get("type")) if isinstance(each, Mapping) else ""
        values = _numbers(each.get(kind)) if kind in ("scale", "translation") else []
        if kind == "scale" and values and len(values) == len(scale or values) and min(values) > 0:
            scale = [a * b for a, b in zip(scale or [1.0] * len(values), values, strict=True)]
            offset = offset and [a * b for a, b in zip(offset, values, strict=True)]
        elif kind == "translation" and values and len(values) == len(scale):
            offset = [a + b for a, b in zip(offset or [0.0] * len(values), values, strict=True)]
        elif kind != "identity":
            return Level(path, unread=printable(str(each))[:60])
    return Level(path, tuple(scale), None if offset is None else tuple(offset))


def _numbers(values: Any) -> list[float]:
    """Return a list of finite numbers; an empty one for anything else."""
    numbers = [value for value in _list(values) if isinstance(value, int | float) and not isinstance(value, bool)]
    try:
        found = [float(number) for number in numbers]
    except OverflowError:
        return []
    return found if len(found) == len(_list(values)) and all(map(math.isfinite, found)) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
