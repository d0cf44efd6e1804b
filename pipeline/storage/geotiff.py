"""What GeoTIFF and GDAL tags say of a raster: transform, coordinate system, nodata, band names, scale.

Tag values in, facts out: nothing here opens a file. `tags` maps tag codes to values as a TIFF library decoded
them; they come from files of any quality, so nothing is believed. What cannot be used is left out, and a line in
`warnings` says so.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.raster import Number, fit, printable

Tags = Mapping[int, Any]
Affine = tuple[float, float, float, float, float, float]
Items = dict[tuple[str, int], str]

PIXEL_SCALE, TIEPOINT, TRANSFORMATION = 33550, 33922, 34264
GEOKEYS = 34735
GDAL_METADATA, GDAL_NODATA = 42112, 42113
TAGS = (PIXEL_SCALE, TIEPOINT, TRANSFORMATION, GEOKEYS, 34736, 34737, GDAL_METADATA, GDAL_NODATA)
"""All tags that bear on what this module says; 34736 and 34737 hold the parameters of geokeys."""

MODEL_TYPE, RASTER_TYPE, GEOGRAPHIC_TYPE, PROJECTED_TYPE = 1024, 1025, 2048, 3072
PIXEL_IS_POINT = 2
USER_DEFINED = 32767


def parse_transform(tags: Tags, warnings: list[str]) -> Affine | None:
    """Return the affine transform of pixel corners, None where the file records none that can be used.

    A file whose transform refers to pixel centres (PixelIsPoint) is shifted by half a pixel.

    Examples
    --------
    >>> parse_transform({33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, 500.0, 800.0, 0.0)}, [])
    (10.0, 0.0, 500.0, 0.0, -10.0, 800.0)
    """
    affine = _scaled(tags, warnings) or _matrix(tags)
    if affine is None:
        return None
    a, b, c, d, e, f = affine
    if geokeys(tags).get(RASTER_TYPE) == PIXEL_IS_POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    if not all(math.isfinite(value) for value in affine) or a * e == b * d:
        warnings.append(f"the georeference is ignored: the transform {affine} cannot be inverted")
        return None
    return a, b, c, d, e, f


def parse_crs(tags: Tags, warnings: list[str]) -> str | None:
    """Return the coordinate system as ``EPSG:n``, None where there is none, or none with an EPSG code."""
    keys = geokeys(tags)
    key = {1: PROJECTED_TYPE, 2: GEOGRAPHIC_TYPE}.get(
        keys.get(MODEL_TYPE, 0), PROJECTED_TYPE if PROJECTED_TYPE in keys else GEOGRAPHIC_TYPE
    )
    code = keys.get(key)
    if code is not None and 0 < code < USER_DEFINED:
        return f"EPSG:{code}"
    if keys:
        found = f"key {key} is {code}" if code is not None else f"key {key} is missing"
        warnings.append(f"the coordinate system is left out: it is not given by an EPSG code ({found})")
    return None


def parse_nodata(tags: Tags, dtype: np.dtype, warnings: list[str]) -> Number | None:
    """Return the recorded nodata value as the dtype holds it, None where there is none or it does not fit.

    Examples
    --------
    >>> parse_nodata({42113: "255"}, np.dtype("uint8"), []), parse_nodata({42113: "0.1"}, np.dtype("float32"), [])
    (255, 0.10000000149011612)
    """
    text = nodata_text(tags)
    if text is None:
        return None
    value = _number(text)
    fitted = None if value is None else fit(value, dtype)
    if fitted is None:
        warnings.append(f"the recorded nodata value {text!r} is ignored: {dtype} cannot hold it")
    return fitted


def nodata_text(tags: Tags) -> str | None:
    """Return the nodata value as the file spells it."""
    text = tags.get(GDAL_NODATA)
    return text.strip().strip("\0") if isinstance(text, str) else None


def parse_items(tags: Tags, warnings: list[str]) -> Items:
    """Return GDAL's items of single bands (name in capitals, band from 0), those of its default domain."""
    text = tags.get(GDAL_METADATA)
    if not isinstance(text, str):
        return {}
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        warnings.append("the GDAL metadata are ignored: they declare a document type, which is not safe to read")
        return {}
    try:
        elements = list(ElementTree.fromstring(text).iter("Item"))
    except (ElementTree.ParseError, ValueError) as error:
        warnings.append(f"the GDAL metadata are ignored: they are not XML ({error})")
        return {}
    return {
        (element.get("name", "").upper(), int(element.get("sample", ""))): (element.text or "").strip()
        for element in elements
        if re.fullmatch("[0-9]{1,9}", element.get("sample", "")) and not element.get("domain")
    }


def band_names(items: Items, num_bands: int, warnings: list[str]) -> tuple[str, ...]:
    """Return the bands' descriptions; `b1`, `b2`, ... where there is none, and everywhere if they are not unique."""
    default = tuple(f"b{band + 1}" for band in range(num_bands))
    names = tuple(printable(items.get(("DESCRIPTION", band)) or default[band]) for band in range(num_bands))
    if len(set(names)) == num_bands:
        return names
    warnings.append(f"the band names are ignored: they are not unique ({', '.join(names[:20])})")
    return default


def parse_scale(items: Items, num_bands: int, warnings: list[str]) -> tuple[float, float] | None:
    """Return the scale and offset that all bands share, None where none is recorded or they differ.

    Examples
    --------
    >>> parse_scale({("SCALE", 0): "0.5", ("SCALE", 1): "0.5", ("OFFSET", 1): "0"}, 2, [])
    (0.5, 0.0)
    """
    scale = [_number(items.get(("SCALE", band), "1")) for band in range(num_bands)]
    offset = [_number(items.get(("OFFSET", band), "0")) for band in range(num_bands)]
    pairs = set(zip(scale, offset, strict=True))
    if pairs == {(1, 0)}:
        return None
    first, second = next(iter(pairs))
    if len(pairs) > 1 or not _is_finite(first) or not _is_finite(second) or first == 0:
        warnings.append("the recorded scale and offset are ignored: they differ between the bands or are no numbers")
        return None
    return float(first or 0), float(second or 0)


def geokeys(tags: Tags) -> dict[int, int]:
    """Return the geokeys whose value is a number held in the directory itself."""
    values = [int(value) for value in _doubles(tags, GEOKEYS) if math.isfinite(value)]
    entries = (values[i : i + 4] for i in range(4, len(values) - 3, 4))
    return {key: value for key, location, _, value in entries if location == 0}


def _scaled(tags: Tags, warnings: list[str]) -> Affine | None:
    """Return the transform given by pixel scale and tiepoint: north up, whatever the sign of the scale in y."""
    scale, tiepoint = _doubles(tags, PIXEL_SCALE), _doubles(tags, TIEPOINT)
    if len(tiepoint) > 6 and len(scale) < 2:
        warnings.append("the georeference is ignored: it is given by ground control points only")
    if len(scale) < 2 or len(tiepoint) < 6 or not scale[0] or not scale[1]:
        return None
    if scale[1] < 0:
        warnings.append("the pixel scale in y is negative; the raster is taken to be north up, as GDAL does")
    a, e = scale[0], -abs(scale[1])
    column, row, x, y = tiepoint[0], tiepoint[1], tiepoint[3], tiepoint[4]
    return a, 0.0, x - column * a, 0.0, e, y - row * e


def _matrix(tags: Tags) -> Affine | None:
    m = _doubles(tags, TRANSFORMATION)
    return (m[0], m[1], m[3], m[4], m[5], m[7]) if len(m) == 16 else None


def _doubles(tags: Tags, code: int) -> tuple[float, ...]:
    try:
        values = np.asarray(tags.get(code, ()), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return ()
    return tuple(values.ravel().tolist())


def _number(text: str) -> Number | None:
    for parse in (int, float):
        try:
            return parse(text.replace(",", "."))
        except ValueError:
            continue
    return None


def _is_finite(value: Number | None) -> bool:
    try:
        return value is not None and math.isfinite(value)
    except OverflowError:  # an integer beyond the doubles
        return False
