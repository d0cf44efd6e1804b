"""Geokeys, the coordinate system of a GeoTIFF (OGC 19-008), and pyproj's CRS: each made of the other.

A system with an EPSG code is that code. Any other is user-defined: a base of known or given datum and ellipsoid, a
projection method with its parameters, a unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Tags = Mapping[int, Any]
Value = int | float | str
Keys = dict[int, Value]

TAGS = DIRECTORY, DOUBLES, ASCII = 34735, 34736, 34737
MODEL_TYPE, RASTER_TYPE, CITATION = 1024, 1025, 1026
GEOGRAPHIC_TYPE, GEOGRAPHIC_CITATION, DATUM, ANGULAR_UNIT = 2048, 2049, 2050, 2054
ELLIPSOID, SEMI_MAJOR, SEMI_MINOR, INVERSE_FLATTENING, MERIDIAN = 2056, 2057, 2058, 2059, 2061
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
UNITS = {9001: ("m", 1.0), 9002: ("ft", 0.3048), 9003: ("us-ft", 1200 / 3937)}


class Unknown(ValueError):
    """A coordinate system that these keys cannot say, or that these keys do not say."""


def parse_keys(tags: Tags) -> Keys:
    """Return all geokeys with their values: numbers, or text; what is damaged is left out."""
    directory = [int(value) for value in numbers(tags, DIRECTORY) if math.isfinite(value)]
    doubles, text = numbers(tags, DOUBLES), tags.get(ASCII)
    keys: Keys = {}
    for i in range(4, len(directory) - 3, 4):
        key, location, count, value = directory[i : i + 4]
        if location == 0:
            keys[key] = value
        elif location == DOUBLES and 0 <= value < len(doubles):
            keys[key] = doubles[value]
        elif location == ASCII and isinstance(text, str):
            keys[key] = text[value : value + count].rstrip("|\0")
    return keys


def numbers(tags: Tags, code: int) -> tuple[float, ...]:
    """Return a tag's numbers; none where it is absent or holds something else."""
    try:
        values = np.asarray(tags.get(code, ()), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return ()
    return tuple(values.ravel().tolist())


def parse_crs(tags: Tags, warnings: list[str]) -> str | None:
    """Return the coordinate system as ``EPSG:n``, or as WKT2 where it is user-defined; None where it cannot be told."""
    keys = parse_keys(tags)
    model = keys.get(MODEL_TYPE, PROJECTED if PROJECTED_TYPE in keys else GEOGRAPHIC)
    key = GEOGRAPHIC_TYPE if model == GEOGRAPHIC else PROJECTED_TYPE
    code = keys.get(key)
    if VERTICAL_TYPE in keys:
        warnings.append("the vertical coordinate system is left out of computed results")
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        return f"EPSG:{code}"
    if set(keys) <= {MODEL_TYPE, RASTER_TYPE, CITATION}:  # a transform without a system
        return None
    try:
        return _user_defined(keys, model == GEOGRAPHIC)
    except Exception as error:  # pyproj raises anything where the values make no sense
        found = f"key {key} is {code}" if code is not None else f"key {key} is missing"
        reason = " ".join(str(error).split())[:200]
        warnings.append(f"the coordinate system is left out: it is not given by an EPSG code ({found}; {reason})")
        return None


# --- user-defined systems: keys -> CRS ---------------------------------------------------------------------------


def _user_defined(keys: Keys, is_geographic: bool) -> str:
    import pyproj

    base = _base(keys)
    if is_geographic:
        return str(base.to_wkt())
    method = keys.get(METHOD)
    if method not in METHODS:
        raise Unknown(f"projection method {method} is none of those that are read")
    if keys.get(ANGULAR_UNIT, DEGREE) != DEGREE:
        raise Unknown(f"angles in units of EPSG:{keys[ANGULAR_UNIT]}")
    projected = pyproj.CRS.from_dict(_projection(keys, int(method))).to_json_dict()
    projected["base_crs"] = base.to_json_dict()
    projected["name"] = str(keys.get(PROJECTED_CITATION) or keys.get(CITATION) or "unnamed")
    return str(pyproj.CRS.from_json_dict(projected).to_wkt())


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
    raise Unknown(f"lengths in units of EPSG:{unit}")


def _base(keys: Keys) -> Any:
    """Return the geographic CRS: by its code, by its datum's code, or by its ellipsoid."""
    import pyproj
    from pyproj._crs import Datum, Ellipsoid
    from pyproj.crs import GeographicCRS
    from pyproj.crs.datum import CustomDatum, CustomEllipsoid

    code, datum = int(keys.get(GEOGRAPHIC_TYPE, USER_DEFINED)), int(keys.get(DATUM, USER_DEFINED))
    if code != USER_DEFINED:
        return pyproj.CRS.from_epsg(code)
    name = str(keys.get(GEOGRAPHIC_CITATION) or "unnamed").partition("|")[0].removeprefix("GCS Name = ").strip()
    if datum != USER_DEFINED:
        return GeographicCRS(name=name, datum=Datum.from_epsg(datum))
    if keys.get(MERIDIAN, 0) != 0:
        raise Unknown(f"a prime meridian at {keys[MERIDIAN]}")
    if (known := int(keys.get(ELLIPSOID, USER_DEFINED))) != USER_DEFINED:
        ellipsoid: Any = Ellipsoid.from_epsg(known)
    elif SEMI_MAJOR in keys:
        names = {INVERSE_FLATTENING: "inverse_flattening", SEMI_MINOR: "semi_minor_axis"}
        shape = {name: float(keys[key]) for key, name in names.items() if key in keys}
        if shape.get("inverse_flattening") == 0:
            shape = {"semi_minor_axis": float(keys[SEMI_MAJOR])}  # a sphere
        ellipsoid = CustomEllipsoid(name="unnamed", semi_major_axis=float(keys[SEMI_MAJOR]), **shape)
    else:
        raise Unknown("no datum and no ellipsoid is given")
    return GeographicCRS(name=name, datum=CustomDatum(name="unnamed", ellipsoid=ellipsoid))


# --- CRS -> keys -------------------------------------------------------------------------------------------------


def format_crs(crs: str) -> tuple[Keys, bool]:
    """Return the geokeys of a CRS given as EPSG:n or WKT, and whether they say all of it."""
    import pyproj
    import pyproj.exceptions

    try:
        system = pyproj.CRS(crs)
    except pyproj.exceptions.CRSError:
        return {}, False
    try:
        keys = _format(system)
    except Unknown:
        return {}, False
    tags = to_tags(keys)
    again = parse_crs({DIRECTORY: tags[DIRECTORY], DOUBLES: tags.get(DOUBLES, ()), ASCII: tags.get(ASCII, "")}, [])
    return keys, again is not None and _same(system, pyproj.CRS(again))


def _same(first: Any, second: Any) -> bool:
    return bool(first.equals(second, ignore_axis_order=True)) or _nameless(first) == _nameless(second)


def _nameless(crs: Any) -> Any:
    """Return what a CRS computes with: without names, remarks and areas of use."""
    wanted = ["base_crs", "datum", "datum_ensemble", "ellipsoid", "conversion", "method", "parameters", "value", "unit"]
    wanted += ["semi_major_axis", "inverse_flattening", "semi_minor_axis", "radius", "conversion_factor", "id"]

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            own = wanted[:-1] if "method" in value else wanted  # a zone's conversion has a code, its parameters say all
            return {key: strip(item) for key, item in value.items() if key in own}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(crs.to_json_dict())


def _format(crs: Any) -> Keys:
    if crs.is_compound:
        vertical = _code(crs.sub_crs_list[1])
        return _format(crs.sub_crs_list[0]) | ({VERTICAL_TYPE: vertical} if vertical else {})
    if not (crs.is_projected or crs.is_geographic) or crs.is_bound:
        raise Unknown(f"a {crs.type_name}")
    model = PROJECTED if crs.is_projected else GEOGRAPHIC
    keys: Keys = {MODEL_TYPE: model, RASTER_TYPE: PIXEL_IS_AREA, CITATION: _plain(crs.name)}
    if (code := _code(crs)) is not None:
        keys[PROJECTED_TYPE if model == PROJECTED else GEOGRAPHIC_TYPE] = code
        return keys
    keys |= dict(_format_base(crs.geodetic_crs if model == PROJECTED else crs))
    return keys | dict(_format_projection(crs)) if model == PROJECTED else keys


def _code(crs: Any) -> int | None:
    """Return the EPSG code of a CRS that is no other than the one with this code."""
    authority = crs.to_authority(auth_name="EPSG", min_confidence=100)
    return int(authority[1]) if authority and 0 < int(authority[1]) < USER_DEFINED else None


def _format_base(base: Any) -> Iterator[tuple[int, Value]]:
    if (code := _code(base)) is not None:
        yield GEOGRAPHIC_TYPE, code
        return
    if base.prime_meridian is not None and base.prime_meridian.longitude:
        raise Unknown(f"a prime meridian at {base.prime_meridian.longitude}")
    yield GEOGRAPHIC_TYPE, USER_DEFINED
    yield GEOGRAPHIC_CITATION, _plain(base.name)
    datum = base.datum.to_json_dict().get("id", {}) if base.datum is not None else {}
    known = datum.get("authority") == "EPSG"
    yield DATUM, int(datum["code"]) if known else USER_DEFINED
    if not known:
        yield ELLIPSOID, USER_DEFINED
        yield SEMI_MAJOR, float(base.ellipsoid.semi_major_metre)
        yield INVERSE_FLATTENING, float(base.ellipsoid.inverse_flattening)


def _format_projection(crs: Any) -> Iterator[tuple[int, Value]]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a PROJ string says less than the CRS: the base is written besides
        given = crs.to_dict()
    if given.get("proj") == "utm":
        given |= {"proj": "tmerc", "lat_0": 0, "lon_0": 6 * int(given["zone"]) - 183, "k": 0.9996, "x_0": 500_000}
        given["y_0"] = 10_000_000 if given.get("south") else 0
    method = _method(given)
    name, parameters = METHODS[method]
    unit = crs.axis_info[0]
    yield PROJECTED_TYPE, USER_DEFINED
    yield PROJECTED_CITATION, _plain(crs.name)
    yield PROJECTION, USER_DEFINED
    yield METHOD, method
    codes = [code for code, (_, metres) in UNITS.items() if math.isclose(metres, unit.unit_conversion_factor)]
    yield LINEAR_UNIT, codes[0] if codes else USER_DEFINED
    if not codes:
        yield LINEAR_SIZE, float(unit.unit_conversion_factor)
    given = given | {"k_0": given.get("k_0", given.get("k"))}
    for key, parameter in parameters.items():
        value = given.get(parameter)
        if name == "merc" and value is None and parameter in ("k_0", "lat_ts"):
            continue  # the one or the other
        if value is None and method == POLAR and parameter == "lat_ts":
            value = given["lat_0"]
        if value is None:
            value = 1 if parameter == "k_0" else 0
        yield key, float(value) / (unit.unit_conversion_factor if parameter in LENGTHS else 1)


def _method(given: Mapping[str, Any]) -> int:
    codes = [code for code, (name, _) in METHODS.items() if name == given.get("proj")]
    if given.get("proj") == "lcc":
        codes = [CONIC_2SP if "lat_2" in given else CONIC_1SP]
    if given.get("proj") == "stere":
        codes = [POLAR if abs(given.get("lat_0", 0)) == 90 else STEREOGRAPHIC]
    if not codes:
        raise Unknown(f"the projection {given.get('proj')}")
    return codes[0]


def _plain(text: str) -> str:
    """Return a name as the tag can hold it: ASCII, without the sign that ends it."""
    return text.encode("ascii", "replace").decode().replace("|", "/")


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
    directory = (1, 1, 0, len(entries), *(number for entry in entries for number in entry))
    tags: dict[int, Any] = {DIRECTORY: directory}
    return tags | ({DOUBLES: tuple(doubles)} if doubles else {}) | ({ASCII: text} if text else {})
