"""Coordinate systems in other words than EPSG codes and WKT2, and their units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ELLIPSOID = {"semi_major_axis", "earth_radius", "reference_ellipsoid_name", "horizontal_datum_name"}
"""What CF says of an ellipsoid."""
KILOMETRE = 1000.0
LENGTHS = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), KILOMETRE),
}
"""Units of lengths as CF's coordinates spell them, in metres."""


def from_json(document: Any, warnings: list[str]) -> str | None:
    """Return a CRS given as PROJJSON as WKT2; None, with a warning, where it is none."""
    import pyproj

    try:
        return str(pyproj.CRS.from_json_dict(document).to_wkt())
    except Exception as error:  # pyproj raises anything where the values make no sense
        warnings.append(f"the coordinate system is left out: `proj:projjson` cannot be read ({_short(error)})")
        return None


def from_esri(text: str, warnings: list[str]) -> str | None:
    """Return a CRS given as an ESRI PE string: its EPSG code where it is that one, else WKT2; None where it is none."""
    import pyproj

    try:
        crs = pyproj.CRS.from_wkt(text)
        code = crs.to_epsg()
        is_same = code is not None and pyproj.CRS.from_epsg(code).equals(crs, ignore_axis_order=True)
        return f"EPSG:{code}" if is_same else str(crs.to_wkt())
    except Exception as error:  # pyproj raises anything where the values make no sense
        warnings.append(f"the ESRI PE string is ignored: it cannot be read ({_short(error)})")
        return None


def from_text(text: str, warnings: list[str]) -> str | None:
    """Return a CRS given as a code, WKT or PROJ's text ('+init=epsg:32632', too) as EPSG:n or WKT2, None where none."""
    import pyproj

    try:
        crs = pyproj.CRS(text.removeprefix("+init="))
    except Exception as error:  # pyproj raises anything where the values make no sense
        warnings.append(f"the attribute `crs` is ignored: it cannot be read ({_short(error)})")
        return None
    return _code_or_wkt(crs)


def from_gdal(text: str, warnings: list[str]) -> str | None:
    """Return a CRS as GDAL says it, in WKT2, as EPSG:n or WKT2; None where it is no place on the earth."""
    import pyproj

    try:
        crs = pyproj.CRS.from_wkt(text)
    except Exception as error:  # pyproj raises anything where the values make no sense
        warnings.append(f"the coordinate system is left out: it cannot be read ({_short(error)})")
        return None
    if crs.is_bound:
        warnings.append("how the datum is shifted to WGS 84 (TOWGS84) is left out of computed results")
        crs = crs.source_crs or crs
    if crs.is_compound:
        warnings.append("the vertical coordinate system is left out of computed results")
        crs = crs.sub_crs_list[0]
    if not (crs.is_geographic or crs.is_projected or crs.is_derived or crs.is_geocentric):
        return None
    return _code_or_wkt(crs)


def _code_or_wkt(crs: Any) -> str:
    code = crs.to_epsg(min_confidence=100)
    return str(crs.to_wkt()) if code is None else f"EPSG:{code}"


def from_cf(mapping: Mapping[str, Any], warnings: list[str]) -> str | None:
    """Return the CRS that the attributes of a CF grid mapping say without WKT; None where they say none."""
    if "grid_mapping_name" not in mapping:
        return None
    import pyproj

    try:
        crs = str(pyproj.CRS.from_cf(dict(mapping)).to_wkt())
    except Exception as error:  # pyproj raises anything where the values make no sense
        warnings.append(
            f"the coordinate system is left out: its grid mapping {str(mapping['grid_mapping_name'])[:40]!r} cannot be "
            f"read ({_short(error)})"
        )
        return None
    if not ELLIPSOID & mapping.keys():
        warnings.append("the grid mapping names no ellipsoid; WGS 84 is taken, as pyproj does")
    return crs


def in_units(crs: str, unit: str, warnings: list[str]) -> str | None:
    """Return a projected CRS in the unit of the coordinates beside it; None, with a warning, where these are angles.

    CF's grid mappings give parameters in metres, whatever the coordinates are in.
    """
    import pyproj
    import pyproj.exceptions

    try:
        known = pyproj.CRS(crs)
    except pyproj.exceptions.CRSError:
        return crs
    if not known.is_projected or not known.axis_info:
        return crs
    own = known.axis_info[0].unit_conversion_factor
    factor = LENGTHS.get(unit)
    if factor == own or not unit or (factor is None and not unit.startswith(("rad", "degree"))):
        return crs
    if factor is None:
        warnings.append(f"the coordinate system is left out: it is in lengths, and the coordinates are in {unit!r}")
        return None
    return with_unit(known, "LinearUnit", unit, factor)


def with_unit(crs: Any, kind: str, name: str, factor: float) -> str:
    """Return pyproj's CRS as WKT2 with another unit of its axes: so many metres, or radians."""
    import pyproj

    document = crs.to_json_dict()
    document.pop("id", None)  # that of another system
    for axis in document["coordinate_system"]["axis"]:
        axis["unit"] = {"type": kind, "name": name, "conversion_factor": factor}
    return str(pyproj.CRS.from_json_dict(document).to_wkt())


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
