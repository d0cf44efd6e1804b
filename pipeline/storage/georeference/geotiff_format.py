"""Tags that say what a raster is, as GDAL and QGIS read them: made of its spec, or handed on from the file it is of.

Facts in, tag values out. What the source file said stands where it still says what is true: on the same grid, the
tags of the place are its own, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pipeline.kernels.statistics import Statistics
from pipeline.model.affine import Affine
from pipeline.model.raster import Number, RasterSpec, fit, is_nan
from pipeline.storage.georeference import geokeys, geokeys_format, geokeys_parse
from pipeline.storage.georeference.cf import crs_wkt
from pipeline.storage.georeference.geotiff import (
    ALPHA,
    DOMAIN,
    GDAL_METADATA,
    GDAL_NODATA,
    TRANSFORMATION,
    parse_number,
    parse_transform,
    recorded_crs,
)
from pipeline.storage.georeference.recorded import PIXEL_SCALE, RPC, TIEPOINT, Item, recorded_of

Tags = dict[int, Any]
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED = 0, 1, 2, 3, 5
INKS = 4
UNSPECIFIED = 0
"""The code of extra samples of which nothing is said, nor anything that TIFF knows."""


@dataclass(frozen=True)
class Colors:
    """What the bands mean: TIFF's codes, and the colour table."""

    photometric: int
    extra: tuple[int, ...]
    table: np.ndarray | None = None
    """uint16, (3, values)"""


def format_tags(spec: RasterSpec, warnings: list[str], statistics: Statistics | None = None) -> Tags:
    """Return the tags of place, nodata and GDAL's metadata of a raster; `warnings` say what is lost."""
    place, is_whole = format_place(spec, warnings)
    items = [*_items(spec), *(statistics_items(spec, statistics) if statistics is not None else ())]
    if spec.crs and not is_whole:
        items.append(Item("CRS_WKT", crs_wkt(spec.crs), domain=DOMAIN))
        warnings.append(
            "the coordinate system is more than geokeys can say; all of it stands in the file's metadata, which "
            "rasterpipe reads, and other programs show as text"
        )
    if spec.unit and spec.transform:
        items.append(Item("MICROMETERS", " ".join(map(repr, spec.transform)), domain=DOMAIN))
    nodata = format_nodata(spec)
    tags = place | ({GDAL_METADATA: format_items(items)} if items else {})
    return tags | ({GDAL_NODATA: nodata} if nodata is not None else {})


def format_place(spec: RasterSpec, warnings: list[str]) -> tuple[Tags, bool]:
    """Return the tags of the place, and whether they say all of the coordinate system.

    A microscope's pixels have none: viewers would draw them upside down, for on maps y grows upwards.
    """
    if spec.unit:
        return {}, True
    recorded = recorded_of(spec)
    known = dict(recorded.tags)
    same_crs = geokeys_parse.parse_crs(known, []) == spec.crs or recorded_crs(recorded.items) == spec.crs is not None
    if known and same_crs and parse_transform(known, []) == spec.transform:
        return known, recorded_crs(recorded.items) is None
    if recorded.is_tied or (spec.transform is None and TRANSFORMATION in known):
        warnings.append("the ground control points are left out: the raster is not the one that they were made for")
    if known and same_crs:
        keys: Tags = {code: value for code, value in known.items() if code in geokeys.TAGS}
        is_whole = recorded_crs(recorded.items) is None
    else:
        found, is_whole = geokeys_format.format_crs(spec.crs) if spec.crs else ({}, True)
        keys = geokeys.to_tags(found) if found else {}
    is_point = geokeys.parse_keys(keys).get(geokeys.Key.RASTER_TYPE) == geokeys.PIXEL_IS_POINT
    rpc = {code: known[code] for code in (RPC,) if code in known}
    return {**(format_transform(spec.transform, is_point) if spec.transform else {}), **keys, **rpc}, is_whole


def format_transform(transform: Affine, is_point: bool) -> Tags:
    """Return the tags of an affine transform of pixel corners; of pixel centres where these are what is tied.

    Examples
    --------
    >>> format_transform(Affine(10.0, 0.0, 500.0, 0.0, -10.0, 800.0), False)[33922]
    (0.0, 0.0, 0.0, 500.0, 800.0, 0.0)
    """
    a, b, c, d, e, f = tied = transform.corners_to_centres() if is_point else transform
    if a > 0 and e < 0 and not tied.is_rotated:
        return {PIXEL_SCALE: (a, -e, 0.0), TIEPOINT: (0.0, 0.0, 0.0, c, f, 0.0)}
    return {TRANSFORMATION: (a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0)}


def format_nodata(spec: RasterSpec) -> str | None:
    """Return the nodata value as GDAL spells it; as the source does where that means the same."""
    recorded = recorded_of(spec)
    if recorded.items or recorded.photometric is not None:
        text = recorded.nodata
        fitted = None if text is None else fit(parse_number(text) or 0, spec.dtype) if _is_number(text) else None
        unfit = fitted is None and (spec.nodata is None or is_nan(spec.nodata))
        if unfit or (fitted is not None and _equal(fitted, spec.nodata)):
            return text
    return None if spec.nodata is None else spell(spec.nodata)


def _is_number(text: str) -> bool:
    return parse_number(text) is not None


def _equal(first: Number | None, second: Number | None) -> bool:
    return first == second or (is_nan(first) and is_nan(second))


def spell(value: Number) -> str:
    """Return a number in the fewest digits that give it back.

    Examples
    --------
    >>> spell(-9999.0), spell(0.1), spell(float("nan")), spell(-3.4028234663852886e38)
    ('-9999', '0.1', 'nan', '-3.4028234663852886e+38')
    """
    is_whole = isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53
    return str(int(value)) if is_whole else repr(value)


def _items(spec: RasterSpec) -> Iterator[Item]:
    """Yield what the source file said, with the names that the bands have now."""
    recorded = recorded_of(spec).items
    named = {item.band: item.text for item in recorded if item.name.upper() == "DESCRIPTION" and not item.domain}
    names = dict(enumerate(spec.bands))
    unnamed = {band for band, name in names.items() if name in (f"b{band + 1}", "alpha") and band not in named}
    same = all(named.get(band) == name for band, name in names.items() if band not in unnamed)
    for item in recorded:
        is_name = item.name.upper() == "DESCRIPTION" and not item.domain and item.band is not None
        is_place = item.domain == DOMAIN and item.name in ("CRS_WKT", "MICROMETERS")  # said of the new place
        if not (is_name and not same) and not is_place and not is_statistic(item):
            yield item
    if not same:
        for band, name in names.items():
            if band not in unnamed:
                yield Item("DESCRIPTION", name, band, "description")
    for key, values in spec.band_coordinates:
        for band, value in enumerate(values):
            yield Item(key, str(value), band)


def is_statistic(item: Item) -> bool:
    """Return whether a line tells of the pixels of its file: those of another one may be others."""
    return item.name.upper().startswith("STATISTICS_") and not item.domain


def statistics_items(spec: RasterSpec, statistics: Statistics) -> Iterator[Item]:
    """Yield the statistics of the bands under GDAL's names; QGIS stretches by them without reading a pixel.

    There are none of infinite values, nor of indices into a colour table.
    """
    if has_colors(spec):
        return
    for band, count in enumerate(statistics.number.tolist()):
        facts: dict[str, Number] = {
            "MAXIMUM": statistics.maximum[band].item(),
            "MEAN": float(statistics.mean[band]),
            "MINIMUM": statistics.minimum[band].item(),
            "STDDEV": float(statistics.std[band]),
        }
        if count and all(map(math.isfinite, facts.values())):
            for key, value in facts.items():
                yield Item(f"STATISTICS_{key}", spell(value), band)
        yield Item("STATISTICS_VALID_PERCENT", f"{100 * count / spec.region.num_pixels:.4g}", band)


def format_items(items: list[Item]) -> str:
    """Return GDAL's metadata as XML, as GDAL lays it out: texts are escaped twice."""
    lines = []
    for item in items:
        attributes = {"name": item.name, "sample": item.band, "role": item.role or None, "domain": item.domain or None}
        given = " ".join(f"{key}={quoteattr(str(value))}" for key, value in attributes.items() if value is not None)
        lines.append(f"  <Item {given}>{escape(escape(item.text))}</Item>\n")
    return f"<GDALMetadata>\n{''.join(lines)}</GDALMetadata>\n"


def has_colors(spec: RasterSpec) -> bool:
    """Return whether values are indices into a colour table."""
    return format_colors(spec).table is not None


def format_colors(spec: RasterSpec) -> Colors:
    """Return what the bands mean: as the source says where it still fits, else grey, or colour for three bytes."""
    recorded, count = recorded_of(spec), spec.num_bands
    photometric = {6: RGB, 8: RGB}.get(recorded.photometric or 0, recorded.photometric)
    own = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, SEPARATED: INKS}
    table = np.array(recorded.colors, np.uint16).reshape(3, -1) if recorded.colors else None
    bits = 8 * spec.dtype.itemsize if spec.dtype.kind == "u" else 0
    if table is not None and count == 1 and 0 < bits <= 16 and table.shape[1] <= 2**bits:
        return Colors(PALETTE, (), np.pad(table, ((0, 0), (0, 2**bits - table.shape[1]))))
    if photometric == MIN_IS_WHITE and spec.dtype.kind != "u":
        photometric = None
    extra = tuple(code if code in (UNSPECIFIED, *ALPHA) else UNSPECIFIED for code in recorded.extra)
    if photometric in own and own[photometric] + len(extra) == count:
        return Colors(photometric, extra)
    if count == own[RGB] and spec.dtype == np.uint8:
        return Colors(RGB, ())
    return Colors(MIN_IS_BLACK, (UNSPECIFIED,) * (count - 1))
