"""What GeoTIFF and GDAL tags say of a raster: transform, nodata, band names, scale; and what is handed on.

Tag values in, facts out: nothing here opens a file. `tags` maps tag codes to values as a TIFF library decoded
them; they come from files of any quality, so nothing is believed. What cannot be used is left out, and a line in
`warnings` says so.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from xml.sax.saxutils import unescape

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.raster import SAME, Number, default_names, fit, name_bands
from pipeline.storage.georeference.cf import pair_scales
from pipeline.storage.georeference.geokeys import ASCII, DIRECTORY, DOUBLES, PIXEL_IS_POINT, Key, numbers, parse_keys
from pipeline.storage.georeference.recorded import PIXEL_SCALE, RPC, TIEPOINT, Item, Recorded

Tags = Mapping[int, Any]
Items = dict[tuple[str, int], str]

TRANSFORMATION = 34264
GDAL_METADATA, GDAL_NODATA = 42112, 42113
PLACE = (PIXEL_SCALE, TIEPOINT, TRANSFORMATION, DIRECTORY, DOUBLES, ASCII, RPC)
"""The tags that say where a raster lies; RPC holds the coefficients of a rational polynomial."""
COLORS = 320
TAGS = (*PLACE, GDAL_METADATA, GDAL_NODATA, COLORS)
"""All tags that bear on what this module says."""
ALPHA = (1, 2)
"""Codes of extra samples that are opacity, with and without the colours multiplied by it."""
DOMAIN = "rasterpipe"
"""Of GDAL's metadata: what we say there."""
PLACE_LIMIT = 100_000
"""Numbers of these tags that are handed on: control points come in tens, rarely in thousands."""
ITEM_LIMIT = 65_536
QUOTES = {"&quot;": '"', "&apos;": "'"}
COLOR_LIMIT = 3 * 2**16


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
        _say_what_lacks(tags, warnings)
        return None
    if not affine.is_invertible:
        warnings.append(f"the georeference is ignored: the transform {affine} cannot be inverted")
        return None
    is_point = parse_keys(tags).get(Key.RASTER_TYPE) == PIXEL_IS_POINT
    return affine.centres_to_corners() if is_point else affine


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
    value = parse_number(text)
    fitted = None if value is None else fit(value, dtype)
    if fitted is None:
        warnings.append(f"the recorded nodata value {text!r} is ignored: {dtype} cannot hold it")
    return fitted


def nodata_text(tags: Tags) -> str | None:
    """Return the nodata value as the file spells it."""
    text = tags.get(GDAL_NODATA)
    return text.strip().strip("\0") if isinstance(text, str) else None


def parse_items(tags: Tags, warnings: list[str]) -> list[Item]:
    """Return GDAL's metadata: lines of the raster and of its bands, in all domains; GDAL escapes their text twice."""
    text = tags.get(GDAL_METADATA)
    if not isinstance(text, str):
        return []
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        warnings.append("the GDAL metadata are ignored: they declare a document type, which is not safe to read")
        return []
    try:
        elements = list(ElementTree.fromstring(text).iter("Item"))
    except (ElementTree.ParseError, ValueError) as error:
        warnings.append(f"the GDAL metadata are ignored: they are not XML ({error})")
        return []
    return [
        Item(
            name=element.get("name", ""),
            text=unescape(element.text or "", QUOTES).strip(),
            band=int(element.get("sample", "")) if element.get("sample") else None,
            role=element.get("role", ""),
            domain=element.get("domain", ""),
        )
        for element in elements
        if element.get("name") and re.fullmatch("[0-9]{0,9}", element.get("sample", ""))
    ]


def by_band(items: Iterable[Item]) -> Items:
    """Return the items of single bands (name in capitals, band from 0), those of the default domain."""
    return {(item.name.upper(), item.band): item.text for item in items if item.band is not None and not item.domain}


def recorded_crs(items: Iterable[Item]) -> str | None:
    """Return the coordinate system that we wrote besides because geokeys cannot say it."""
    return next((item.text for item in items if (item.domain, item.name) == (DOMAIN, "CRS_WKT")), None)


def recorded_micrometers(items: Iterable[Item]) -> Affine | None:
    """Return the transform to micrometres that we wrote besides, for it is no place on a map."""
    text = next((item.text for item in items if (item.domain, item.name) == (DOMAIN, "MICROMETERS")), "")
    try:
        transform = Affine(*(float(word) for word in text.split()))
    except (ValueError, TypeError):  # no numbers, or not six
        return None
    return transform if transform.is_invertible and not transform.is_rotated else None


def band_names(
    channels: Sequence[str], items: Items, num_bands: int, extra: Sequence[int], warnings: list[str]
) -> tuple[str, ...]:
    """Return the names of channels or the bands' descriptions; `b1`, `b2`, ... where there is none, or one twice.

    A band that is alpha (`extra`, the codes of the last bands) is called so where nothing else is said.
    """
    default = default_names(num_bands)
    if sum(code in ALPHA for code in extra) == 1 and len(extra) < num_bands:
        alpha = num_bands - len(extra) + next(i for i, code in enumerate(extra) if code in ALPHA)
        default = (*default[:alpha], "alpha", *default[alpha + 1 :])
    found = channels or [items.get(("DESCRIPTION", band), "") for band in range(num_bands)]
    return name_bands(found, default, warnings)


def parse_scales(items: Items, num_bands: int, warnings: list[str]) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each band; none where none is recorded, or one is no number.

    Examples
    --------
    >>> parse_scales({("SCALE", 0): "0.5", ("SCALE", 1): "0.25", ("OFFSET", 1): "3"}, 2, [])
    ((0.5, 0.0), (0.25, 3.0))
    """
    scale = [parse_number(items.get(("SCALE", band), "1")) for band in range(num_bands)]
    offset = [parse_number(items.get(("OFFSET", band), "0")) for band in range(num_bands)]
    return pair_scales(scale, offset, num_bands, warnings)


def unit_items(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the items that say in which units bands are, once their scale is applied."""
    of_bands = (item for item in items if item.band is not None and not item.domain)
    return tuple(item for item in of_bands if item.name.upper() == "UNITTYPE")


def with_units(recorded: Recorded, unit: str | None, num_bands: int) -> Recorded | None:
    """Return what holds for other values on the same grid: the place, and their unit.

    `unit` may be `SAME`: that of the values before, unless it is theirs only after a scale.
    """
    if unit == SAME:
        scales = parse_scales(by_band(recorded.items), num_bands, [])
        items = () if set(scales) - {(1.0, 0.0)} else unit_items(recorded.items)
    else:
        items = tuple(Item("UNITTYPE", unit, band, "unittype") for band in range(num_bands)) if unit else ()
    return Recorded(recorded.tags, items=items).or_none


def parse_recorded(tags: Tags, pages: list[Tags], warnings: list[str]) -> Recorded:
    """Return what is handed on to other files as it is: `pages` are the tags of each page that is a band."""
    place = []
    for code in PLACE:
        value = tags.get(code)
        plain: Any = value if isinstance(value, str) else numbers(tags, code)
        if plain and len(plain) <= PLACE_LIMIT and (isinstance(plain, str) or all(map(math.isfinite, plain))):
            place.append((code, plain if isinstance(plain, str) or code != DIRECTORY else tuple(map(int, plain))))
    colors = numbers(tags, COLORS)
    fitting = 0 < len(colors) <= COLOR_LIMIT and not len(colors) % 3
    items = [
        replace(item, band=band if len(pages) > 1 else item.band)
        for band, page in enumerate(pages)
        for item in parse_items(page, warnings)
        if len(pages) == 1 or item.band == 0 or (item.band is None and band == 0)
    ]
    return Recorded(
        tags=tuple(place),
        nodata=nodata_text(tags),
        items=tuple(items[:ITEM_LIMIT]),
        colors=tuple(int(value) for value in colors) if fitting else (),
    )


def _scaled(tags: Tags, warnings: list[str]) -> Affine | None:
    """Return the transform given by pixel scale and tiepoint: north up, whatever the sign of the scale in y."""
    scale, tiepoint = numbers(tags, PIXEL_SCALE), numbers(tags, TIEPOINT)
    if len(scale) < 2 or len(tiepoint) < 6 or not scale[0] or not scale[1]:
        return None
    if scale[1] < 0:
        warnings.append("the pixel scale in y is negative; the raster is taken to be north up, as GDAL does")
    a, e = scale[0], -abs(scale[1])
    column, row, x, y = tiepoint[0], tiepoint[1], tiepoint[3], tiepoint[4]
    return Affine(a, 0.0, x - column * a, 0.0, e, y - row * e)


def _say_what_lacks(tags: Tags, warnings: list[str]) -> None:
    """Say why a file that has some of the tags of a transform has no transform."""
    scale, tiepoint, matrix = (numbers(tags, code) for code in (PIXEL_SCALE, TIEPOINT, TRANSFORMATION))
    if len(tiepoint) > 6 and len(scale) < 2:
        warnings.append("the georeference is ignored: it is given by ground control points only")
    elif any(tags.get(code) is not None for code in (PIXEL_SCALE, TIEPOINT, TRANSFORMATION)):
        warnings.append(
            "the georeference is ignored, for a part of it is missing: ModelPixelScale (2 or 3 numbers) is "
            f"{scale or 'absent'}, ModelTiepoint (6) {tiepoint or 'absent'}, ModelTransformation (16) "
            f"{matrix or 'absent'}"
        )


def _matrix(tags: Tags) -> Affine | None:
    m = numbers(tags, TRANSFORMATION)
    return Affine(m[0], m[1], m[3], m[4], m[5], m[7]) if len(m) == 16 else None


def parse_number(text: str) -> Number | None:
    """Return a number as files spell it: with a comma, too, or infinite or none as old Microsoft libraries print it."""
    if special := re.fullmatch(r"([+-]?)(?:1[.,]#(inf|ind|qnan|snan)0*|nan\(.*\))", text.strip().lower()):
        return float(f"{special[1]}inf" if special[2] == "inf" else "nan")
    for parse in (int, float):
        try:
            return parse(text.replace(",", "."))
        except ValueError:
            continue
    return None
