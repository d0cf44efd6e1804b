"""What pyproj makes of geokeys; the way back is `geokeys_format`."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from typing import Any

from pipeline.storage.georeference import crs
from pipeline.storage.georeference.geokeys import (
    ANGLES,
    CONIC_1SP,
    DEGREE,
    GEOGRAPHIC,
    LENGTHS,
    METHODS,
    METRE,
    POLAR,
    PROJECTED,
    UNITS,
    USER_DEFINED,
    Key,
    Keys,
    Tags,
    Unknown,
    Value,
    find_damage,
    parse_keys,
)

ESRI = "ESRI PE String ="
IMAGINE_UNITS = {
    **dict.fromkeys(("meters", "meter", "metres", "metre"), 1.0),
    **dict.fromkeys(("feet", "foot", "international_feet", "international_foot"), 0.3048),
    **dict.fromkeys(("us_survey_feet", "us_survey_foot", "usfeet"), 1200 / 3937),
    **dict.fromkeys(("kilometers", "kilometres"), 1000.0),
}
"""As ERDAS IMAGINE spells them in citations, in any capitals."""


def parse_crs(tags: Tags, warnings: list[str]) -> str | None:
    """Return the coordinate system as ``EPSG:n``, or as WKT2 where it is user-defined; None where it cannot be told."""
    keys = parse_keys(tags)
    model = keys.get(Key.MODEL_TYPE, PROJECTED if Key.PROJECTED_TYPE in keys else GEOGRAPHIC)
    key = Key.GEOGRAPHIC_TYPE if model == GEOGRAPHIC else Key.PROJECTED_TYPE
    code = keys.get(key)
    if damage := find_damage(tags):
        warnings.append(f"the directory of geokeys is damaged ({damage}): check the coordinate system, and the place")
    if Key.VERTICAL_TYPE in keys:
        warnings.append("the vertical coordinate system is left out of computed results")
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        if difference := _unlike(code, keys):
            warnings.append(f"the coordinate system is left out: {difference}")
        return None if difference else f"EPSG:{code}"
    found = _esri(keys, warnings)
    if found is None and set(keys) <= {Key.MODEL_TYPE, Key.RASTER_TYPE, Key.CITATION}:  # a transform without a system
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
    texts = [str(keys.get(key, "")) for key in (Key.PROJECTED_CITATION, Key.CITATION, Key.GEOGRAPHIC_CITATION)]
    found = next((text.partition(ESRI)[2].strip() for text in texts if ESRI in text), "")
    return crs.from_esri(found, warnings) if found else None


def _other_citation(keys: Keys, system: str) -> str | None:
    """Return in words how the unit in IMAGINE's citation differs from that of the CRS; None if it does not."""
    text = "\n".join(str(keys.get(key, "")) for key in (Key.PROJECTED_CITATION, Key.CITATION))
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
    if Key.PROJECTED_TYPE not in keys:
        with contextlib.suppress(Unknown, ValueError):
            if Key.ANGULAR_UNIT in keys and not math.isclose(_radians(keys), unit[1], rel_tol=1e-9):
                size = math.degrees(_radians(keys))
                return f"angles are in units of {size:.12g} degrees, those of EPSG:{code} are not"
        return None
    own = keys.get(Key.LINEAR_UNIT)
    if difference := _other_citation(keys, f"EPSG:{code}"):
        return difference
    if own is None or str(own) == unit[0]:
        return None
    with contextlib.suppress(Unknown, ValueError):
        if math.isclose(_metres(keys), unit[1], rel_tol=1e-12):
            return None
    return f"lengths are in units of EPSG:{own} (key {Key.LINEAR_UNIT}), those of EPSG:{code} are {unit[1]:.12g} m"


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


def _user_defined(keys: Keys, is_geographic: bool) -> str:
    import pyproj

    base = _base(keys)
    if is_geographic:
        is_degree = math.isclose(_radians(keys), math.radians(1), rel_tol=1e-9)
        return str(base.to_wkt()) if is_degree else crs.with_unit(base, "AngularUnit", "unknown", _radians(keys))
    method, projection = keys.get(Key.METHOD), keys.get(Key.PROJECTION, USER_DEFINED)
    if method is None and projection != USER_DEFINED:
        found = _by_code(int(projection), base, keys)
        is_metre = _metres(keys) == 1
        return str(found.to_wkt()) if is_metre else crs.with_unit(found, "LinearUnit", "unknown", _metres(keys))
    if method not in METHODS:
        raise Unknown(f"projection method {method} is none of those that are read")
    if not math.isclose(_radians(keys), math.radians(1), rel_tol=1e-9):
        raise Unknown(f"angles in units of EPSG:{keys[Key.ANGULAR_UNIT]}")
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
    return str(keys.get(Key.PROJECTED_CITATION) or keys.get(Key.CITATION) or "unnamed")


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
    unit = UNITS.get(int(keys.get(Key.LINEAR_UNIT, METRE)))
    return {"proj": name, "ellps": "WGS84", **given, **({"units": unit[0]} if unit else {"to_meter": metres})}


def _metres(keys: Keys) -> float:
    unit = int(keys.get(Key.LINEAR_UNIT, METRE))
    if unit in UNITS:
        return UNITS[unit][1]
    if unit == USER_DEFINED and Key.LINEAR_SIZE in keys:
        return float(keys[Key.LINEAR_SIZE])
    return _size_of(unit, "linear")


def angle_unit(size: float) -> dict[int, Value]:
    """Return the keys of a unit of angles of so many radians."""
    code = next((code for code in ANGLES if math.isclose(_size_of(code, "angular"), size, rel_tol=1e-9)), None)
    return {Key.ANGULAR_UNIT: USER_DEFINED, Key.ANGULAR_SIZE: float(size)} if code is None else {Key.ANGULAR_UNIT: code}


def _radians(keys: Keys) -> float:
    unit = int(keys.get(Key.ANGULAR_UNIT, DEGREE))
    if unit == USER_DEFINED and Key.ANGULAR_SIZE in keys:
        return float(keys[Key.ANGULAR_SIZE])
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

    code, datum = int(keys.get(Key.GEOGRAPHIC_TYPE, USER_DEFINED)), int(keys.get(Key.DATUM, USER_DEFINED))
    if code != USER_DEFINED:
        return pyproj.CRS.from_epsg(code)
    name = str(keys.get(Key.GEOGRAPHIC_CITATION) or "unnamed").partition("|")[0].removeprefix("GCS Name = ").strip()
    if datum != USER_DEFINED:
        return GeographicCRS(name=name, datum=f"urn:ogc:def:datum:EPSG::{datum}")
    if keys.get(Key.MERIDIAN, 0) != 0:
        raise Unknown(f"a prime meridian at {keys[Key.MERIDIAN]}")
    if (known := int(keys.get(Key.ELLIPSOID, USER_DEFINED))) != USER_DEFINED:
        ellipsoid: Any = f"urn:ogc:def:ellipsoid:EPSG::{known}"
    elif Key.SEMI_MAJOR in keys:
        names = {Key.INVERSE_FLATTENING: "inverse_flattening", Key.SEMI_MINOR: "semi_minor_axis"}
        shape = {name: float(keys[key]) for key, name in names.items() if key in keys}
        if shape.get("inverse_flattening") == 0:
            shape = {"semi_minor_axis": float(keys[Key.SEMI_MAJOR])}  # a sphere
        ellipsoid = CustomEllipsoid(name="unnamed", semi_major_axis=float(keys[Key.SEMI_MAJOR]), **shape)
    else:
        raise Unknown("no datum and no ellipsoid is given")
    return GeographicCRS(name=name, datum=CustomDatum(name="unnamed", ellipsoid=ellipsoid))
