"""What a template says of a raster: its bands by colour, the size of its pixels."""

from __future__ import annotations

import re

from pipeline.model.errors import UsageError
from pipeline.model.facts import InfoFacts
from pipeline.operations.expression.names import is_writable

COLORS = {
    "red": ("red", "r", "b04"),
    "green": ("green", "g", "b03"),
    "blue": ("blue", "b", "b02"),
    "nir": ("nir", "nir08", "near_infrared", "near infrared", "b08", "b8a"),
}
"""What bands are called, without regard to capitals: the numbers are Sentinel-2's."""
POSITION = re.compile("b[0-9]+")
"""How bands are called that have no names."""


def values_of(facts: InfoFacts, over: str) -> dict[str, str]:
    """Return what fills a template for a raster; `over` is the coordinate along which its bands are dates."""
    size, nodata = f"{facts.size[0]} x {facts.size[1]} pixels", "none" if facts.nodata is None else facts.nodata
    spacing, note = _spacing(facts)
    red, nir = _place(facts, "red"), _place(facts, "nir")
    rgb = [_place(facts, color) for color in ("red", "green", "blue")]
    if None in rgb:
        rgb = [2, 1, 0] if facts.num_bands >= 3 else list(range(facts.num_bands))
    return {
        "about": f"# image: {size}, {_bands(facts)}, {facts.dtype}, nodata {nodata}",
        "one": str(1 + (nir or 0)),
        "colors": f"[{', '.join(str(1 + place) for place in rgb if place is not None)}]",
        "spacing": spacing,
        "spacing_note": note,
        "over": over,
        **_index_bands(facts, red, nir),
    }


def check(name: str, facts: InfoFacts, path: str) -> None:
    """Refuse a raster with which a template has no sense."""
    if name == "ndvi" and facts.num_bands < 2:
        raise UsageError(f"{path}: has one band, and a vegetation index needs two, red and near infrared")


def _bands(facts: InfoFacts) -> str:
    if facts.num_bands == 1:
        return "1 band"
    return f"{facts.num_bands} bands ({', '.join(facts.bands[:12])}{', ...' if facts.num_bands > 12 else ''})"


def _place(facts: InfoFacts, color: str) -> int | None:
    """Return the position, from 0, of the one band that has a name of a colour."""
    for name in COLORS[color]:
        if len(found := [i for i, band in enumerate(facts.bands) if band.casefold() == name]) == 1:
            return found[0]
    return None


def _index_bands(facts: InfoFacts, red: int | None, nir: int | None) -> dict[str, str]:
    """Return red and near infrared as an expression has them, and what a reader should know of them."""
    note = "near infrared and red, by their names"
    if red is None or nir is None:  # as the bands of most images of four are: blue, green, red, near infrared
        red, nir = (2, 3) if facts.num_bands >= 4 else (0, facts.num_bands - 1)
        note = f"guessed: red is band {red + 1}, near infrared {nir + 1}; put yours"
    return {"red": _name(facts, red), "nir": _name(facts, nir), "bands": note}


def _name(facts: InfoFacts, place: int) -> str:
    name = facts.bands[place]
    return name if is_writable(name) and facts.bands.count(name) == 1 else f"b{place + 1}"


def _spacing(facts: InfoFacts) -> tuple[str, str]:
    if facts.pixel_size:
        return "geo", f"the size of a pixel, {facts.pixel_size[0]:.6g} x {facts.pixel_size[1]:.6g} {facts.pixel_unit}"
    if facts.crs and facts.transform:
        return "geo", "the size of a pixel in metres, by the georeference"
    if facts.transform:
        height, width = abs(facts.transform[4]), abs(facts.transform[0])
        return f"[{height:.12g}, {width:.12g}]", "the pixel's height and width, in the unit of the coordinates"
    return "1", "in pixels: the raster has no georeference; put the pixel's size in the unit of its values"
