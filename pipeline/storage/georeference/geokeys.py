"""Geokeys, by which a GeoTIFF says its coordinate system (OGC 19-008), and the tags that hold them.

A system with an EPSG code is that code. Any other is user-defined: a base of known or given datum and ellipsoid, a
projection method with its parameters, a unit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

Tags = Mapping[int, Any]
Value = int | float | str
Keys = dict[int, Value]

TAGS = DIRECTORY, DOUBLES, ASCII = 34735, 34736, 34737
PROJECTED, GEOGRAPHIC = 1, 2
PIXEL_IS_AREA, PIXEL_IS_POINT = 1, 2
USER_DEFINED = 32767
DEGREE, METRE = 9102, 9001

_NATURAL = {3081: "lat_0", 3080: "lon_0", 3082: "x_0", 3083: "y_0"}
_CENTRE = {3089: "lat_0", 3088: "lon_0", 3082: "x_0", 3083: "y_0"}
_SCALED = {**_NATURAL, 3092: "k_0"}
_LONGITUDE = {3088: "lon_0", 3082: "x_0", 3083: "y_0"}
_PARALLELS = {3078: "lat_1", 3079: "lat_2"}
METHODS: dict[int, tuple[str, dict[int, str]]] = {
    1: ("tmerc", _SCALED),
    7: ("merc", {3080: "lon_0", 3092: "k_0", 3078: "lat_ts", 3082: "x_0", 3083: "y_0"}),
    8: ("lcc", {**_PARALLELS, 3085: "lat_0", 3084: "lon_0", 3086: "x_0", 3087: "y_0"}),
    9: ("lcc", {**_SCALED, 3081: "lat_1"}),
    10: ("laea", _CENTRE),
    11: ("aea", {**_PARALLELS, **_NATURAL}),
    12: ("aeqd", _CENTRE),
    13: ("eqdc", {**_PARALLELS, **_NATURAL}),
    14: ("stere", {**_CENTRE, 3093: "k_0"}),
    15: ("stere", {3081: "lat_ts", 3095: "lon_0", 3092: "k_0", 3082: "x_0", 3083: "y_0"}),
    16: ("sterea", _SCALED),
    17: ("eqc", {**_CENTRE, 3078: "lat_ts"}),
    18: ("cass", _NATURAL),
    19: ("gnom", _CENTRE),
    20: ("mill", _LONGITUDE),
    21: ("ortho", _CENTRE),
    22: ("poly", _NATURAL),
    23: ("robin", _LONGITUDE),
    24: ("sinu", _LONGITUDE),
    25: ("vandg", _LONGITUDE),
    28: ("cea", {3078: "lat_ts", 3080: "lon_0", 3082: "x_0", 3083: "y_0"}),
}
"""Projection method -> PROJ's name of it, and geokey -> PROJ's parameter; lengths in PROJ are metres."""
LENGTHS = ("x_0", "y_0")
POLAR, CONIC_1SP, CONIC_2SP, STEREOGRAPHIC = 15, 9, 8, 14
UNITS = {9001: ("m", 1.0), 9002: ("ft", 0.3048), 9003: ("us-ft", 1200 / 3937), 9036: ("km", 1000.0)}
ANGLES = (DEGREE, 9101, 9103, 9104, 9105)
"""Degrees, radians, minutes and seconds of arc, grads."""


class Key(IntEnum):
    """The keys by their names, shortened."""

    MODEL_TYPE = 1024
    RASTER_TYPE = 1025
    CITATION = 1026
    GEOGRAPHIC_TYPE = 2048
    GEOGRAPHIC_CITATION = 2049
    DATUM = 2050
    ANGULAR_UNIT = 2054
    ANGULAR_SIZE = 2055
    ELLIPSOID = 2056
    SEMI_MAJOR = 2057
    SEMI_MINOR = 2058
    INVERSE_FLATTENING = 2059
    MERIDIAN = 2061
    PROJECTED_TYPE = 3072
    PROJECTED_CITATION = 3073
    PROJECTION = 3074
    METHOD = 3075
    LINEAR_UNIT = 3076
    LINEAR_SIZE = 3077
    VERTICAL_TYPE = 4096


class Unknown(ValueError):
    """A coordinate system that these keys cannot say, or that these keys do not say."""


def parse_keys(tags: Tags) -> Keys:
    """Return all geokeys with their values: numbers, or text; what is damaged is left out."""
    doubles, text = numbers(tags, DOUBLES), tags.get(ASCII)
    keys: Keys = {}
    for key, location, count, value in _entries(tags):
        if location == 0:
            keys[key] = value
        elif location == DOUBLES and 0 <= value < len(doubles):
            keys[key] = doubles[value]
        elif location == ASCII and isinstance(text, str) and value < len(text):
            keys[key] = text[value : value + count].rstrip("|\0")
    return keys


def _entries(tags: Tags) -> list[tuple[int, int, int, int]]:
    """Return the entries of the directory (key, location, count, value), as many as its header says."""
    directory = [int(value) for value in numbers(tags, DIRECTORY) if math.isfinite(value)]
    stop = min(len(directory), 4 + 4 * directory[3]) if len(directory) > 3 else 0
    return [(*directory[i : i + 3], directory[i + 3]) for i in range(4, stop - 3, 4)]  # type: ignore[misc]


def find_damage(tags: Tags) -> str | None:
    """Return in words what is wrong with the directory of geokeys, as far as that can be told; None if nothing is.

    Its header has a version and the number of entries, and these are sorted (OGC 19-008, 7.1.2).
    """
    header, entries, keys = numbers(tags, DIRECTORY)[:4], _entries(tags), parse_keys(tags)
    if not header:
        return "it is missing, what it refers to is there" if numbers(tags, DOUBLES) or tags.get(ASCII) else None
    if len(header) < 4 or header[0] != 1:
        return f"its header is {header}"
    if len(entries) != header[3]:
        return f"it has {len(entries)} whole entries, by its header {header[3]:g}"
    codes = [entry[0] for entry in entries]
    if any(first >= second for first, second in itertools.pairwise(codes)):
        return f"its keys are not in their order: {codes}"
    if lost := [code for code in codes if code not in keys]:
        return f"what its keys {lost} refer to is not there"
    kind = keys.get(Key.RASTER_TYPE, PIXEL_IS_AREA)
    return None if kind in (PIXEL_IS_AREA, PIXEL_IS_POINT) else f"its raster type (key {Key.RASTER_TYPE}) is {kind}"


def numbers(tags: Tags, code: int) -> tuple[float, ...]:
    """Return a tag's numbers; none where it is absent or holds something else."""
    if tags.get(code) is None:
        return ()
    try:
        values = np.asarray(tags[code], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return ()
    return tuple(values.ravel().tolist())


def to_tags(keys: Keys) -> dict[int, Any]:
    """Return the tags that hold geokeys."""
    entries, text = [], ""
    doubles: list[float] = []
    for key, value in sorted(keys.items()):
        if isinstance(value, str):
            entries.append((key, ASCII, len(value) + 1, len(text)))
            text += f"{value}|"
        elif isinstance(value, float):
            entries.append((key, DOUBLES, 1, len(doubles)))
            doubles.append(value)
        else:
            entries.append((key, 0, 1, value))
    directory = (1, 1, 0, len(entries), *(int(number) for entry in entries for number in entry))
    tags: dict[int, Any] = {DIRECTORY: directory}
    return tags | ({DOUBLES: tuple(doubles)} if doubles else {}) | ({ASCII: text} if text else {})
