"""What a raster's file said beside pixels and grid, as attributes of a Zarr array, and back.

CF's `scale_factor`, `add_offset` and `units` are what xarray understands; all else stands under `geotiff`, so that a
GeoTIFF written from the store is the one that it was made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pipeline.model.raster import RasterSpec, printable
from pipeline.storage.georeference.geotiff import COLOR_LIMIT, ITEM_LIMIT, PLACE, PLACE_LIMIT, by_band, parse_scales
from pipeline.storage.georeference.recorded import Item, Recorded, recorded_of

KEY = "geotiff"


def to_attributes(spec: RasterSpec) -> dict[str, Any]:
    """Return the attributes of an array that is written."""
    recorded = recorded_of(spec)
    data = {key: value for key, value in asdict(recorded).items() if value not in (None, ()) and key != "carried"}
    if "tags" in data:
        data["tags"] = {str(code): value for code, value in recorded.tags}
    if "items" in data:
        data["items"] = [_plain(item) for item in recorded.items]
    if "band" not in spec.dims and spec.bands != ("b1",):
        data["band"] = spec.bands[0]  # without an axis, there is no coordinate for the name
    items = by_band(recorded.items)
    attributes: dict[str, Any] = {KEY: data} if data else {}
    if len(scales := set(parse_scales(items, spec.num_bands, []))) == 1:  # for several, CF has no word
        attributes["scale_factor"], attributes["add_offset"] = scales.pop()
    units = {items.get(("UNITTYPE", band), "") for band in range(spec.num_bands)}
    if len(units) == 1 and (unit := units.pop()):
        attributes["units"] = unit
    return attributes


def band_name(attributes: Mapping[str, Any]) -> str | None:
    """Return the name of the one band of an array without a band axis."""
    data = attributes.get(KEY)
    name = data.get("band") if isinstance(data, Mapping) else None
    return printable(name) if isinstance(name, str) and name else None


def _plain(item: Item) -> dict[str, Any]:
    return {key: value for key, value in asdict(item).items() if value not in (None, "")}


def from_attributes(attributes: Mapping[str, Any], num_bands: int) -> Recorded | None:
    """Return what a store says of the file that it was made of; None where that is nothing, or makes no sense."""
    data = attributes.get(KEY)
    try:
        recorded = _parse(data) if isinstance(data, Mapping) else Recorded()
    except (TypeError, ValueError, OverflowError, AttributeError, KeyError):
        recorded = Recorded()
    if not recorded.items:
        recorded = replace(recorded, items=_scale_items(attributes, num_bands))
    return recorded.or_none


def _parse(data: Mapping[str, Any]) -> Recorded:
    tags: list[tuple[int, tuple[int | float, ...] | str]] = []
    for code in PLACE:
        value = data.get("tags", {}).get(str(code))
        if isinstance(value, str) and len(value) <= PLACE_LIMIT:
            tags.append((code, value))
        elif isinstance(value, list) and len(value) <= PLACE_LIMIT:
            tags.append((code, _numbers(value)))
    nodata, photometric = data.get("nodata"), data.get("photometric")
    return Recorded(
        tags=tuple(tags),
        nodata=nodata if isinstance(nodata, str) else None,
        items=tuple(_item(entry) for entry in data.get("items", ())[:ITEM_LIMIT]),
        photometric=photometric if isinstance(photometric, int) else None,
        extra=tuple(int(code) for code in data.get("extra", ())[:65_536]),
        colors=tuple(int(value) % 2**16 for value in data.get("colors", ())[:COLOR_LIMIT]),
    )


def _numbers(values: list[Any]) -> tuple[int | float, ...]:
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ValueError("a tag holds something else than numbers")
    return tuple(values)


def _item(entry: Mapping[str, Any]) -> Item:
    band = entry.get("band")
    texts = {key: _printable_lines(str(entry.get(key, ""))) for key in ("name", "text", "role", "domain")}
    return Item(**texts, band=band if isinstance(band, int) else None)


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _scale_items(attributes: Mapping[str, Any], num_bands: int) -> tuple[Item, ...]:
    """Return CF's scale, offset and units, or rioxarray's lists of them, as GDAL says them, of each band."""
    names = {"scale_factor": ("SCALE", "scale"), "add_offset": ("OFFSET", "offset"), "units": ("UNITTYPE", "unittype")}
    names |= {"scales": names["scale_factor"], "offsets": names["add_offset"]}
    found = []
    for key, (name, role) in names.items():
        value = attributes.get(key)
        values = value if isinstance(value, list) and len(value) == num_bands else [value] * num_bands
        for band, each in enumerate(values):
            if isinstance(each, int | float | str) and not isinstance(each, bool):
                found.append(Item(name, repr(each) if isinstance(each, float) else str(each), band, role))
    return tuple(found)
