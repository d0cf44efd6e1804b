"""A CRS of pyproj as geokeys, in the tags that hold them; the way back is `geokeys`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.storage.georeference.geokeys import (
    ASCII,
    CONIC_1SP,
    CONIC_2SP,
    DIRECTORY,
    DOUBLES,
    GEOGRAPHIC,
    LENGTHS,
    METHODS,
    PIXEL_IS_AREA,
    POLAR,
    PROJECTED,
    STEREOGRAPHIC,
    UNITS,
    USER_DEFINED,
    Key,
    Keys,
    Unknown,
    Value,
    to_tags,
)
from pipeline.storage.georeference.geokeys_parse import angle_unit, parse_crs


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
    units = [crs.axis_info[0].unit_conversion_factor for crs in (first, second) if crs.axis_info]
    if len(units) == 2 and not math.isclose(*units, rel_tol=1e-9):
        return False
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
        return _format(crs.sub_crs_list[0]) | ({Key.VERTICAL_TYPE: vertical} if vertical else {})
    if not (crs.is_projected or crs.is_geographic) or crs.is_bound:
        raise Unknown(f"a {crs.type_name}")
    model = PROJECTED if crs.is_projected else GEOGRAPHIC
    keys: Keys = {Key.MODEL_TYPE: model, Key.RASTER_TYPE: PIXEL_IS_AREA, Key.CITATION: _plain(crs.name)}
    if (code := _code(crs)) is not None:
        keys[Key.PROJECTED_TYPE if model == PROJECTED else Key.GEOGRAPHIC_TYPE] = code
        return keys
    keys |= dict(_format_base(crs.geodetic_crs if model == PROJECTED else crs))
    if model == GEOGRAPHIC:
        keys |= angle_unit(crs.axis_info[0].unit_conversion_factor)
    return keys | dict(_format_projection(crs)) if model == PROJECTED else keys


def _code(crs: Any) -> int | None:
    """Return the EPSG code of a CRS that is no other than the one with this code."""
    authority = crs.to_authority(auth_name="EPSG", min_confidence=100)
    return int(authority[1]) if authority and 0 < int(authority[1]) < USER_DEFINED else None


def _format_base(base: Any) -> Iterator[tuple[int, Value]]:
    if (code := _code(base)) is not None:
        yield Key.GEOGRAPHIC_TYPE, code
        return
    if base.prime_meridian is not None and base.prime_meridian.longitude:
        raise Unknown(f"a prime meridian at {base.prime_meridian.longitude}")
    yield Key.GEOGRAPHIC_TYPE, USER_DEFINED
    yield Key.GEOGRAPHIC_CITATION, _plain(base.name)
    datum = base.datum.to_json_dict().get("id", {}) if base.datum is not None else {}
    known = datum.get("authority") == "EPSG"
    yield Key.DATUM, int(datum["code"]) if known else USER_DEFINED
    if not known:
        yield Key.ELLIPSOID, USER_DEFINED
        yield Key.SEMI_MAJOR, float(base.ellipsoid.semi_major_metre)
        yield Key.INVERSE_FLATTENING, float(base.ellipsoid.inverse_flattening)


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
    yield Key.PROJECTED_TYPE, USER_DEFINED
    yield Key.PROJECTED_CITATION, _plain(crs.name)
    yield Key.PROJECTION, USER_DEFINED
    yield Key.METHOD, method
    codes = [code for code, (_, metres) in UNITS.items() if math.isclose(metres, unit.unit_conversion_factor)]
    yield Key.LINEAR_UNIT, codes[0] if codes else USER_DEFINED
    if not codes:
        yield Key.LINEAR_SIZE, float(unit.unit_conversion_factor)
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
