"""Geokeys, the coordinate system of a GeoTIFF (OGC 19-008), and what pyproj makes of them.

A system with an EPSG code is that code. Any other is user-defined: a base of known or given datum and ellipsoid, a
projection method with its parameters, a unit.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.storage.georeference import crs

Tags = Mapping[int, Any]
Value = int | float | str
Keys = dict[int, Value]

TAGS = DIRECTORY, DOUBLES, ASCII = 34735, 34736, 34737
MODEL_TYPE, RASTER_TYPE, CITATION = 1024, 1025, 1026
GEOGRAPHIC_TYPE, GEOGRAPHIC_CITATION, DATUM, ANGULAR_UNIT = 2048, 2049, 2050, 2054
ANGULAR_SIZE, ELLIPSOID, SEMI_MAJOR, SEMI_MINOR, INVERSE_FLATTENING, MERIDIAN = 2055, 2056, 2057, 2058, 2059, 2061
PROJECTED_TYPE, PROJECTED_CITATION, PROJECTION, METHOD, LINEAR_UNIT, LINEAR_SIZE = 3072, 3073, 3074, 3075, 3076, 3077
VERTICAL_TYPE = 4096
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
ESRI = "ESRI PE String ="
IMAGINE_UNITS = {
    **dict.fromkeys(("meters", "meter", "metres", "metre"), 1.0),
    **dict.fromkeys(("feet", "foot", "international_feet", "international_foot"), 0.3048),
    **dict.fromkeys(("us_survey_feet", "us_survey_foot", "usfeet"), 1200 / 3937),
    **dict.fromkeys(("kilometers", "kilometres"), 1000.0),
}
"""As ERDAS IMAGINE spells them in citations, in any capitals."""


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
    kind = keys.get(RASTER_TYPE, PIXEL_IS_AREA)
    return None if kind in (PIXEL_IS_AREA, PIXEL_IS_POINT) else f"its raster type (key {RASTER_TYPE}) is {kind}"


def numbers(tags: Tags, code: int) -> tuple[float, ...]:
    """Return a tag's numbers; none where it is absent or holds something else."""
    if tags.get(code) is None:
        return ()
    try:
        values = np.asarray(tags[code], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return ()
    return tuple(values.ravel().tolist())


def parse_crs(tags: Tags, warnings: list[str]) -> str | None:
    """Return the coordinate system as ``EPSG:n``, or as WKT2 where it is user-defined; None where it cannot be told."""
    keys = parse_keys(tags)
    model = keys.get(MODEL_TYPE, PROJECTED if PROJECTED_TYPE in keys else GEOGRAPHIC)
    key = GEOGRAPHIC_TYPE if model == GEOGRAPHIC else PROJECTED_TYPE
    code = keys.get(key)
    if damage := find_damage(tags):
        warnings.append(f"the directory of geokeys is damaged ({damage}): check the coordinate system, and the place")
    if VERTICAL_TYPE in keys:
        warnings.append("the vertical coordinate system is left out of computed results")
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        if difference := _unlike(code, keys):
            warnings.append(f"the coordinate system is left out: {difference}")
        return None if difference else f"EPSG:{code}"
    found = _esri(keys, warnings)
    if found is None and set(keys) <= {MODEL_TYPE, RASTER_TYPE, CITATION}:  # a transform without a system
        return None
    try:
        found = found or _user_defined(keys, model == GEOGRAPHIC)
        if difference := _other_citation(keys, found):
            raise Unknown(difference)
        return found
    except Exception as error:  # pyproj raises anything where the values make no sense
        given = f"key {key} is {code}" if code is not None else f"key {key} is missing"
        reason = " ".join(str(error).split())[:200]
        warnings.append(f"the coordinate system is left out: it is not given by an EPSG code ({given}; {reason})")
        return None


def _esri(keys: Keys, warnings: list[str]) -> str | None:
    """Return the CRS of the ESRI PE string that ArcGIS puts into a citation; other keys say less of it."""
    texts = [str(keys.get(key, "")) for key in (PROJECTED_CITATION, CITATION, GEOGRAPHIC_CITATION)]
    found = next((text.partition(ESRI)[2].strip() for text in texts if ESRI in text), "")
    return crs.from_esri(found, warnings) if found else None


def _other_citation(keys: Keys, system: str) -> str | None:
    """Return in words how the unit in IMAGINE's citation differs from that of the CRS; None if it does not."""
    text = "\n".join(str(keys.get(key, "")) for key in (PROJECTED_CITATION, CITATION))
    said = re.search(r"^Units = (\w+)", text, re.MULTILINE)
    size = IMAGINE_UNITS.get(said[1].lower()) if said and "IMAGINE" in text else None
    own = _unit_of(system)
    if said is None or size is None or own is None or math.isclose(size, own[1], rel_tol=1e-9):
        return None
    return f"its citation says lengths in {said[1]} ({size:.12g} m), its keys in units of {own[1]:.12g} m"


def _unlike(code: int, keys: Keys) -> str | None:
    """Return in words why an EPSG code does not say what the keys say; None if it does."""
    unit = _unit_of(f"EPSG:{code}")
    if unit is None:
        return f"EPSG:{code} is in no list of PROJ {_proj_version()}"
    if PROJECTED_TYPE not in keys:
        with contextlib.suppress(Unknown, ValueError):
            if ANGULAR_UNIT in keys and not math.isclose(_radians(keys), unit[1], rel_tol=1e-9):
                size = math.degrees(_radians(keys))
                return f"angles are in units of {size:.12g} degrees, those of EPSG:{code} are not"
        return None
    own = keys.get(LINEAR_UNIT)
    if difference := _other_citation(keys, f"EPSG:{code}"):
        return difference
    if own is None or str(own) == unit[0]:
        return None
    with contextlib.suppress(Unknown, ValueError):
        if math.isclose(_metres(keys), unit[1], rel_tol=1e-12):
            return None
    return f"lengths are in units of EPSG:{own} (key {LINEAR_UNIT}), those of EPSG:{code} are {unit[1]:.12g} m"


@functools.lru_cache
def _unit_of(system: str) -> tuple[str, float] | None:
    """Return the EPSG code and the size of a system's unit; None where PROJ does not know the system."""
    import pyproj
    import pyproj.exceptions

    try:
        axes = pyproj.CRS(system).axis_info
    except pyproj.exceptions.CRSError:
        return None
    return (axes[0].unit_code, axes[0].unit_conversion_factor) if axes else ("", 1.0)


def _proj_version() -> str:
    import pyproj

    return str(pyproj.proj_version_str)


# --- user-defined systems: keys -> CRS ---------------------------------------------------------------------------


def _user_defined(keys: Keys, is_geographic: bool) -> str:
    import pyproj

    base = _base(keys)
    if is_geographic:
        is_degree = math.isclose(_radians(keys), math.radians(1), rel_tol=1e-9)
        return str(base.to_wkt()) if is_degree else crs.with_unit(base, "AngularUnit", "unknown", _radians(keys))
    method, projection = keys.get(METHOD), keys.get(PROJECTION, USER_DEFINED)
    if method is None and projection != USER_DEFINED:
        found = _by_code(int(projection), base, keys)
        is_metre = _metres(keys) == 1
        return str(found.to_wkt()) if is_metre else crs.with_unit(found, "LinearUnit", "unknown", _metres(keys))
    if method not in METHODS:
        raise Unknown(f"projection method {method} is none of those that are read")
    if not math.isclose(_radians(keys), math.radians(1), rel_tol=1e-9):
        raise Unknown(f"angles in units of EPSG:{keys[ANGULAR_UNIT]}")
    projected = pyproj.CRS.from_dict(_projection(keys, int(method))).to_json_dict()
    projected["base_crs"] = base.to_json_dict()
    projected["name"] = _name(keys)
    return str(pyproj.CRS.from_json_dict(projected).to_wkt())


def _by_code(projection: int, base: Any, keys: Keys) -> Any:
    """Return the CRS of a projection with an EPSG code (16032: that of UTM's zone 32) on a base, in metres."""
    from pyproj.crs import ProjectedCRS

    conversion = f"urn:ogc:def:coordinateOperation:EPSG::{projection}"
    return ProjectedCRS(conversion, name=_name(keys), geodetic_crs=base)


def _name(keys: Keys) -> str:
    return str(keys.get(PROJECTED_CITATION) or keys.get(CITATION) or "unnamed")


def _projection(keys: Keys, method: int) -> dict[str, Any]:
    """Return the projection as PROJ's parameters."""
    name, parameters = METHODS[method]
    metres = _metres(keys)
    given: dict[str, Any] = {
        parameter: float(keys[key]) * (metres if parameter in LENGTHS else 1)
        for key, parameter in parameters.items()
        if key in keys
    }
    if method == CONIC_1SP:
        given["lat_0"] = given.get("lat_1", 0.0)
    if method == POLAR:
        given["lat_0"] = math.copysign(90, given.get("lat_ts", 90))
        if "k_0" in given and given["k_0"] != 1:
            del given["lat_ts"]
    unit = UNITS.get(int(keys.get(LINEAR_UNIT, METRE)))
    return {"proj": name, "ellps": "WGS84", **given, **({"units": unit[0]} if unit else {"to_meter": metres})}


def _metres(keys: Keys) -> float:
    unit = int(keys.get(LINEAR_UNIT, METRE))
    if unit in UNITS:
        return UNITS[unit][1]
    if unit == USER_DEFINED and LINEAR_SIZE in keys:
        return float(keys[LINEAR_SIZE])
    return _size_of(unit, "linear")


def angle_unit(size: float) -> dict[int, Value]:
    """Return the keys of a unit of angles of so many radians."""
    code = next((code for code in ANGLES if math.isclose(_size_of(code, "angular"), size, rel_tol=1e-9)), None)
    return {ANGULAR_UNIT: USER_DEFINED, ANGULAR_SIZE: float(size)} if code is None else {ANGULAR_UNIT: code}


def _radians(keys: Keys) -> float:
    unit = int(keys.get(ANGULAR_UNIT, DEGREE))
    if unit == USER_DEFINED and ANGULAR_SIZE in keys:
        return float(keys[ANGULAR_SIZE])
    return _size_of(unit, "angular")


@functools.lru_cache
def _size_of(unit: int, category: str) -> float:
    """Return the size of one of EPSG's units, in metres or radians."""
    from pyproj.database import get_units_map

    known = get_units_map(auth_name="EPSG", category=category, allow_deprecated=True).values()
    size = next((float(each.conv_factor) for each in known if each.code == str(unit)), 0.0)
    if not size:
        raise Unknown(f"{'lengths' if category == 'linear' else 'angles'} in units of EPSG:{unit}")
    return size


def _base(keys: Keys) -> Any:
    """Return the geographic CRS: by its code, by its datum's code, or by its ellipsoid."""
    import pyproj
    from pyproj.crs import GeographicCRS
    from pyproj.crs.datum import CustomDatum, CustomEllipsoid

    code, datum = int(keys.get(GEOGRAPHIC_TYPE, USER_DEFINED)), int(keys.get(DATUM, USER_DEFINED))
    if code != USER_DEFINED:
        return pyproj.CRS.from_epsg(code)
    name = str(keys.get(GEOGRAPHIC_CITATION) or "unnamed").partition("|")[0].removeprefix("GCS Name = ").strip()
    if datum != USER_DEFINED:
        return GeographicCRS(name=name, datum=f"urn:ogc:def:datum:EPSG::{datum}")
    if keys.get(MERIDIAN, 0) != 0:
        raise Unknown(f"a prime meridian at {keys[MERIDIAN]}")
    if (known := int(keys.get(ELLIPSOID, USER_DEFINED))) != USER_DEFINED:
        ellipsoid: Any = f"urn:ogc:def:ellipsoid:EPSG::{known}"
    elif SEMI_MAJOR in keys:
        names = {INVERSE_FLATTENING: "inverse_flattening", SEMI_MINOR: "semi_minor_axis"}
        shape = {name: float(keys[key]) for key, name in names.items() if key in keys}
        if shape.get("inverse_flattening") == 0:
            shape = {"semi_minor_axis": float(keys[SEMI_MAJOR])}  # a sphere
        ellipsoid = CustomEllipsoid(name="unnamed", semi_major_axis=float(keys[SEMI_MAJOR]), **shape)
    else:
        raise Unknown("no datum and no ellipsoid is given")
    return GeographicCRS(name=name, datum=CustomDatum(name="unnamed", ellipsoid=ellipsoid))
