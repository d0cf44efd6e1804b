"""What attributes say of a raster by CF, xarray and the Zarr conventions `proj:` and `spatial:`, and how to say it.

Attribute values in, facts out, and back: nothing here opens a file. What cannot be used is left out, and a line in
`warnings` says so.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.raster import Number, RasterSpec, fit, is_nan, printable
from pipeline.storage.georeference import crs

Attributes = Mapping[str, Any]

INDEX = Affine(1.0, 0.0, -0.5, 0.0, 1.0, -0.5)
"""The transform to rows and columns: a raster without a georeference has these coordinates."""

CONVENTIONS = {
    "proj": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "multiscales": "d35379db-88df-4056-af3a-620245f8e347",
}
"""Name -> identity, of the Zarr conventions that we write, in version 0.1."""
SCALES = {"scale_factor", "add_offset", "scales", "offsets"}
MICROSECONDS = {"day": 86_400e6, "hour": 3_600e6, "minute": 60e6, "second": 1e6, "millisecond": 1e3, "microsecond": 1}
EPOCH = re.compile(rf"({'|'.join(MICROSECONDS)})s? since (.+)")


# --- nodata and scale ------------------------------------------------------------------------------------------


def parse_nodata(
    attributes: Attributes, dtype: np.dtype, warnings: list[str], stored: np.dtype | None = None
) -> Number | None:
    """Return the recorded nodata as the dtype holds it; a number rather than NaN, which is invalid anyway.

    It is CF's; failing that, what rioxarray takes for it: `fill_value`, `nodata`, or `nodatavals` of the bands. Where
    pixels are `stored` with another sign (`sign_dtype`), it may be given with that.

    Examples
    --------
    >>> parse_nodata({"_FillValue": "AAAAAAAA+H8=", "missing_value": -9999}, np.dtype("float32"), [])
    -9999.0
    """
    groups = (("_FillValue", "missing_value"), ("fill_value",), ("nodata",), ("nodatavals",))
    given = ([value for key in keys for value in _numbers(attributes.get(key))] for keys in groups)
    recorded: list[Number] = next(filter(None, given), [])
    fitting = [fitted for value in recorded if (fitted := _fit(value, dtype, stored or dtype)) is not None]
    numbers = [value for value in fitting if not is_nan(value)]
    if recorded and not fitting:
        warnings.append(f"the recorded nodata value {recorded[0]} is ignored: {dtype} cannot hold it")
    if len(set(numbers)) > 1:
        warnings.append(f"several nodata values are recorded, of which only {numbers[0]} is used: {numbers}")
    return next(iter(numbers or fitting), None)


def _fit(value: Number, dtype: np.dtype, stored: np.dtype) -> Number | None:
    """Return a value as the dtype holds it; one that only the stored dtype holds, as its bytes read in the other."""
    fitted, other = fit(value, dtype), fit(value, stored)
    return fitted if fitted is not None or other is None else stored.type(other).view(dtype).item()


def sign_dtype(attributes: Attributes, dtype: np.dtype, warnings: list[str]) -> np.dtype:
    """Return the dtype that `_Unsigned` makes of a stored one: NetCDF 3 and xarray say by it how bytes are read."""
    said = attributes.get("_Unsigned")
    kind = {"true": "u", "false": "i"}.get(str(said).lower())
    if kind is not None and dtype.kind in "iu":
        return np.dtype(f"{kind}{dtype.itemsize}")
    if said is not None:
        warnings.append(f"`_Unsigned: {printable(str(said))[:40]}` is ignored: the pixels are {dtype}")
    return dtype


def format_nodata(spec: RasterSpec) -> int | str | None:
    """Return nodata as xarray writes it in Zarr v3: floating point as base64 of a little-endian double."""
    if spec.nodata is None or spec.dtype.kind != "f":
        return spec.nodata if spec.nodata is None else int(spec.nodata)
    return base64.standard_b64encode(struct.pack("<d", spec.nodata)).decode()


def parse_scales(attributes: Attributes, num_bands: int, warnings: list[str]) -> tuple[tuple[float, float], ...] | None:
    """Return scale and offset of each band (CF's, or rioxarray's `scales`, `offsets`); None where no attribute says.

    Empty where those recorded change nothing, or are no use.
    """
    if not SCALES & attributes.keys():
        return None
    factors = _numbers(attributes.get("scale_factor", attributes.get("scales", 1)))
    offsets = _numbers(attributes.get("add_offset", attributes.get("offsets", 0)))
    return pair_scales(factors, offsets, num_bands, warnings)


def pair_scales(
    factors: Sequence[Number | None], offsets: Sequence[Number | None], num_bands: int, warnings: list[str]
) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each band, given for each or once; None stands for what is no number.

    Empty, and a warning says so, where they are no use; empty too where they change nothing.
    """
    try:
        scales, shifts = (
            [math.nan if value is None else float(value) for value in values] for values in (factors, offsets)
        )
    except OverflowError:  # an integer beyond the doubles
        scales = shifts = []
    if not scales or not shifts or not all(map(math.isfinite, [*scales, *shifts])) or 0 in scales:
        warnings.append("the recorded scale and offset are ignored: they are no numbers, or the scale is 0")
        return ()
    if {len(factors), len(offsets)} - {1, num_bands}:
        warnings.append(
            f"the recorded scale and offset are ignored: there are {len(factors)} and {len(offsets)} of them, and the "
            f"bands are {num_bands}"
        )
        return ()
    each = [values * num_bands if len(values) == 1 else values for values in (scales, shifts)]
    pairs = tuple(zip(*each, strict=True))
    return pairs if set(pairs) != {(1, 0)} else ()


def _numbers(value: Any) -> list[Number]:
    """Return the numbers in an attribute: one, a list of them, or a text that stands for one."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    if isinstance(value, str):
        value = _parse_text(value)
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _parse_text(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(struct.unpack("<d", base64.standard_b64decode(text))[0])
    except (ValueError, binascii.Error, struct.error):
        return None


# --- georeference ----------------------------------------------------------------------------------------------


def parse_georeference(
    attributes: Attributes, mapping: Attributes, warnings: list[str]
) -> tuple[Affine | None, str | None]:
    """Return transform and CRS as a raster's attributes (its group's included) and its grid mapping's say."""
    system = attributes.get("proj:wkt2") or attributes.get("proj:code")
    if not system and "proj:projjson" in attributes:
        system = crs.from_json(attributes["proj:projjson"], warnings)
    system = system or mapping.get("crs_wkt") or mapping.get("spatial_ref")
    if not system and isinstance(mapping.get("esri_pe_string"), str):
        system = crs.from_esri(mapping["esri_pe_string"], warnings)
    system = system or crs.from_cf(mapping, warnings)
    if not system and isinstance(attributes.get("crs"), str):  # as xarray's first reader of rasters wrote it
        system = crs.from_text(attributes["crs"], warnings)
    transform = _six(attributes.get("spatial:transform"))
    if transform is not None and attributes.get("spatial:registration") == "node":
        transform = transform.centres_to_corners()
    if transform is None and (numbers := _six(str(mapping.get("GeoTransform", "")).split())):
        transform = Affine.from_gdal(*numbers)
    if transform is None:  # of the same reader; rioxarray knows both
        transform = _six(attributes.get("transform"))
    if transform is not None and not transform.is_invertible:
        warnings.append(f"the recorded transform {transform} is ignored: it cannot be inverted")
        transform = None
    return transform, printable(" ".join(str(system).splitlines())) if system else None


def _six(values: Any) -> Affine | None:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return Affine(*numbers) if len(numbers) == 6 else None


def transform_of_coordinates(y: np.ndarray | None, x: np.ndarray | None, warnings: list[str]) -> Affine | None:
    """Return the transform of regular coordinates of pixel centres; None for irregular ones, and for 0, 1, 2, ...

    Examples
    --------
    >>> transform_of_coordinates(np.array([95.0, 85.0]), np.array([5.0, 15.0, 25.0]), [])
    (10.0, 0.0, 0.0, 0.0, -10.0, 100.0)
    """
    if y is None or x is None or len(y) < 2 or len(x) < 2:
        return None
    (dy, f), (dx, c) = _line(y), _line(x)
    if not dy or not dx:
        warnings.append("the coordinates are ignored: they are not regular")
        return None
    transform = Affine(dx, 0.0, c, 0.0, dy, f)
    return transform if transform != INDEX else None


def _line(centres: np.ndarray) -> tuple[float, float]:
    """Return step and first edge of regular pixel centres, to a hundredth of a pixel; a step of 0 if they are not."""
    if centres.dtype.kind not in "iuf":
        return 0.0, 0.0
    centres = centres.astype(np.float64)
    step = float(centres[-1] - centres[0]) / (len(centres) - 1)
    regular = np.all(np.abs(centres - (centres[0] + step * np.arange(len(centres)))) <= abs(step) / 100)
    return (step, float(centres[0]) - step / 2) if regular else (0.0, 0.0)


def grid_mapping(spec: RasterSpec) -> dict[str, Any]:
    """Return the attributes of CF's `spatial_ref`, with GDAL's GeoTransform."""
    attributes: dict[str, Any] = {}
    if spec.crs:
        attributes["crs_wkt"] = attributes["spatial_ref"] = crs_wkt(spec.crs)
    if spec.transform:
        attributes["GeoTransform"] = " ".join(map(repr, spec.transform.gdal))
    return attributes


def conventions(spec: RasterSpec) -> dict[str, Any]:
    """Return the georeference as attributes of a group, by the Zarr conventions `proj:` and `spatial:`."""
    attributes: dict[str, Any] = {}
    if spec.crs:
        attributes["proj:code" if spec.crs.upper().startswith("EPSG:") else "proj:wkt2"] = spec.crs
    if spec.transform:
        attributes |= {"spatial:dimensions": ["y", "x"], "spatial:transform": list(spec.transform)}
    for name in ("proj", "spatial"):
        if any(key.startswith(f"{name}:") for key in attributes):
            attributes = with_convention(attributes, name)
    return attributes


def with_convention(attributes: Mapping[str, Any], name: str, value: Any = None) -> dict[str, Any]:
    """Return attributes that declare one of the Zarr conventions, with its value where that is one attribute."""
    repository, uuid = f"zarr-conventions/{name}", CONVENTIONS[name]
    declared = {
        "name": name,
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v0.1/README.md",
    }
    others = [each for each in attributes.get("zarr_conventions", ()) if each["uuid"] != uuid]
    return {**attributes, **({} if value is None else {name: value}), "zarr_conventions": [*others, declared]}


def crs_wkt(system: str) -> str:
    """Return a CRS given as EPSG:n or WKT as WKT; unchanged where pyproj does not know it."""
    if not system.upper().startswith("EPSG:"):
        return system
    import pyproj
    import pyproj.exceptions

    try:
        return str(pyproj.CRS.from_user_input(system).to_wkt())
    except pyproj.exceptions.CRSError:
        return system


# --- coordinates -----------------------------------------------------------------------------------------------


def labels(values: np.ndarray, attributes: Attributes) -> list[str]:
    """Return the entries of a coordinate as a person writes them; times that are stored as numbers as dates.

    Examples
    --------
    >>> labels(np.array([0, 152]), {"units": "days since 2020-01-01", "calendar": "standard"})
    ['2020-01-01T00:00:00', '2020-06-01T00:00:00']
    """
    values = times(values, attributes)
    if values.dtype.kind == "M":
        return [str(time).removesuffix(".000000") for time in values.astype("M8[us]")]
    texts = (value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist())
    return [printable(text) for text in texts]


def times(values: np.ndarray, attributes: Attributes) -> np.ndarray:
    """Return times of CF's standard calendar as datetimes; anything else as it is."""
    epoch = EPOCH.fullmatch(str(attributes.get("units", "")))
    standard = attributes.get("calendar", "standard") in ("standard", "gregorian", "proleptic_gregorian")
    if not epoch or not standard or values.dtype.kind not in "iuf":
        return values
    try:
        start = np.datetime64(epoch[2].strip().removesuffix("Z").removesuffix(" UTC").replace(" ", "T", 1), "us")
    except ValueError:
        return values
    return start + np.round(values * np.float64(MICROSECONDS[epoch[1]])).astype("m8[us]")
