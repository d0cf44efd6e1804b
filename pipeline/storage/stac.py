"""STAC items as inputs: which files an item names, what it says of their bands, where it lies in space and time."""

from __future__ import annotations

import importlib.util
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from pipeline.model.errors import InputError, PipelineError, UsageError, unknown
from pipeline.model.raster import Number
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.open import folder_at
from pipeline.storage.input import Date, Input, Scale, Source

RASTER_TYPES = ("image/tiff", "image/jp2", "application/vnd+zarr", "application/vnd.zarr", "application/x-zarr")
"""How the media types of assets begin that are rasters."""
MOST_ITEMS = 10_000


@dataclass(frozen=True)
class Asset:
    """A file that an item names, with one or several bands."""

    place: str
    """Of the item that names it."""
    key: str
    hrefs: Mapping[str, str]
    """Where it lies: under "" by itself, under other keys its alternates."""
    bands: tuple[str, ...]
    common: tuple[str, ...]
    """Common names of the bands, "" for those without."""
    nodata: Number | str | None
    scale: tuple[float, float] | None
    """Scale and offset, where all its bands have them."""
    is_data: bool
    """Whether it is a raster of measured values, and no picture of them."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *self.bands, *filter(None, self.common))


@dataclass(frozen=True)
class Item:
    """What an item says that bears on its pixels."""

    id: str
    time: str
    """Its day."""
    assets: tuple[Asset, ...]


def expand_stac(entry: Input, notes: list[str]) -> Input:
    """Return an input of STAC items as one of the files that they name.

    Items of one day are a mosaic, those of several days are dates. A file whose item says nodata, scale and offset
    has these, if the pipeline file does not say otherwise.

    Raises
    ------
    InputError
        An item cannot be read, is none, or names no such asset.
    """
    places = (entry.stac,) if isinstance(entry.stac, str) else entry.stac or ()
    items = [item for place in places for item in read_items(place, entry.storage)]
    chosen = {item.id: _assets_of(item, entry) for item in items}
    used = [asset for assets in chosen.values() for asset in assets.values()]
    masks = set(entry.mask or ())
    data = [asset for assets in chosen.values() for name, asset in assets.items() if name not in masks]
    days: dict[str, list[Source]] = {}
    for item in items:
        days.setdefault(item.time, []).append(_source(chosen[item.id], entry.alternate or ""))
    words = (
        f"{len(items)} {'item' if len(items) == 1 else 'items'} of {len(days)} {'day' if len(days) == 1 else 'days'}"
    )
    notes.append(f"stac: {words}, {len(used)} files: {', '.join(chosen[items[0].id])}")
    changes: dict[str, Any] = {"stac": None, "assets": None, "alternate": None}
    if len(days) > 1:
        changes["dates"] = tuple(Date(time=time, **_fields(_merged(days[time]))) for time in sorted(days))
    else:
        changes |= _fields(_merged(next(iter(days.values()))))
    return entry.model_copy(update={**changes, **_said(entry, data, notes)})


def _merged(sources: Sequence[Source]) -> Source:
    return sources[0] if len(sources) == 1 else Source(mosaic=tuple(sources))


def _fields(source: Source) -> dict[str, Any]:
    return source.sources


def _source(assets: Mapping[str, Asset], alternate: str) -> Source:
    hrefs = {name: _place_of(asset, alternate) for name, asset in assets.items()}
    return Source(stack=hrefs) if len(hrefs) > 1 else Source(path=next(iter(hrefs.values())))


def _said(entry: Input, assets: Sequence[Asset], notes: list[str]) -> dict[str, Any]:
    """Return nodata and scale as the items say them, where the pipeline file does not."""
    found: dict[str, Any] = {}
    nodata = {asset.nodata for asset in assets}
    if entry.nodata is None and nodata != {None}:
        if len(nodata) > 1:
            raise PipelineError(
                f"the items say several nodata values: {_listed(nodata)}; say which: `nodata: VALUE`", ("stac",)
            )
        found["nodata"] = nodata.pop()
    scales = {asset.scale for asset in assets}
    if scales == {None}:
        return found
    if entry.scale == "ignore":
        notes.append(f"stac: scale and offset are {_listed(scales)}; they are ignored (`scale: apply` uses them)")
    elif entry.scale == "apply":
        if len(scales) > 1 or None in scales:
            raise PipelineError(
                f"the items say several scales and offsets: {_listed(scales)}; read them as inputs each", ("scale",)
            )
        (factor, offset) = next(iter(scales)) or (1.0, 0.0)
        found["scale"] = Scale(factor=factor, offset=offset)
    return found


def _listed(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values))[:10])


def _assets_of(item: Item, entry: Input) -> dict[str, Asset]:
    """Return the assets that are asked for, by the names that they are asked by; without these all data of one band."""
    if entry.assets is None:
        found = {asset.key: asset for asset in item.assets if asset.is_data and len(asset.bands) <= 1}
        if not found:
            keys = ", ".join(asset.key for asset in item.assets) or "none"
            raise InputError(
                f"the STAC item {item.id} has no asset that is a raster of data ({keys}); name some: `assets`"
            )
        return found
    chosen = {}
    for name in (*entry.assets, *(mask for mask in entry.mask or () if mask not in entry.assets)):
        fits = [asset for asset in item.assets if asset.key == name] or [a for a in item.assets if name in a.names]
        if len(fits) != 1:
            known = [each for asset in item.assets for each in dict.fromkeys(asset.names)]
            words = ", ".join(asset.key for asset in fits)
            said = (
                f"{name!r} is of several assets: {words}; name one of them" if fits else unknown("asset", name, known)
            )
            raise InputError(f"the STAC item {item.id}: {said}")
        chosen[name] = fits[0]
    return chosen


def read_items(place: str, access: Access | None = None) -> list[Item]:
    """Return the items of a file or URL: an item, or an ItemCollection.

    Parameters
    ----------
    place
        Path or URL of the JSON.
    access
        How an object store is reached.

    Raises
    ------
    InputError
        It cannot be read, or is none.
    """
    if importlib.util.find_spec("pystac") is None:
        raise UsageError(f"{place}: STAC needs pystac; pip install 'rasterpipe[stac]'")
    import pystac

    data = _read_json(place, access)
    try:
        is_collection = data.get("type") == "FeatureCollection"
        found = pystac.ItemCollection.from_dict(data).items if is_collection else [pystac.Item.from_dict(data)]
        if len(found) > MOST_ITEMS:
            raise InputError(f"{place}: has {len(found):,} items, more than {MOST_ITEMS:,}; ask for fewer")
        items = [_item(place, item) for item in found]
    except InputError:
        raise
    except Exception as error:  # pystac raises what it meets
        raise InputError(f"{place}: is no STAC item or ItemCollection: {type(error).__name__}: {error}") from error
    if not items:
        raise InputError(f"{place}: the ItemCollection has no items")
    return items


def _read_json(place: str, access: Access | None) -> Any:
    folder, _, name = place.rpartition("/")
    try:
        data = json.loads(folder_at(folder or "/", access).read(name))
    except FileNotFoundError:
        raise InputError(f"{place}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: is not JSON: {error}") from None
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error}") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{place}: is no STAC item or ItemCollection")
    return data


def _item(place: str, item: Any) -> Item:
    time = item.datetime or item.common_metadata.start_datetime
    if time is None:
        raise InputError(f"{place}: the STAC item {item.id} says no time")
    assets = tuple(_asset(place, key, asset.to_dict()) for key, asset in item.assets.items())
    return Item(str(item.id), time.date().isoformat(), assets)


def _asset(place: str, key: str, data: Mapping[str, Any]) -> Asset:
    bands = [dict(band) for band in data.get("bands") or data.get("eo:bands") or ()]
    for number, band in enumerate(data.get("raster:bands") or ()):
        if number < len(bands):
            bands[number] |= band
        else:
            bands.append(dict(band))
    of_all = {name: value for name, value in data.items() if name in ("nodata", "raster:scale", "raster:offset")}
    bands = [{**of_all, **band} for band in bands or [of_all]]
    kind, roles = str(data.get("type") or "image/tiff"), data.get("roles") or ["data"]
    scales = {_scale(band) for band in bands}
    nodata = {_nodata(band.get("nodata")) for band in bands}
    hrefs = {"": data, **(data.get("alternate") or {})}
    return Asset(
        place,
        key,
        {name: str(each.get("href") or "") for name, each in hrefs.items()},
        tuple(str(band["name"]) for band in bands if band.get("name")),
        tuple(str(band.get("common_name") or band.get("eo:common_name") or "") for band in bands),
        nodata.pop() if len(nodata) == 1 else None,
        scales.pop() if len(scales) == 1 else None,
        is_data=kind.startswith(RASTER_TYPES) and "data" in roles,
    )


def _scale(band: Mapping[str, Any]) -> tuple[float, float] | None:
    factor, offset = (band.get(key, band.get(f"raster:{key}")) for key in ("scale", "offset"))
    if factor is None and offset is None:
        return None
    found = float(1 if factor is None else factor), float(0 if offset is None else offset)
    return None if found == (1, 0) else found


def _nodata(value: Any) -> Number | str | None:
    if isinstance(value, str):
        return "nan" if value.lower() == "nan" else float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _place_of(asset: Asset, alternate: str) -> str:
    """Return where an asset lies, as an absolute path or a URL; what comes from a server names no local file."""
    if alternate not in asset.hrefs:
        known = ", ".join(filter(None, asset.hrefs)) or "none"
        raise InputError(f"{asset.place}: the asset {asset.key} has no alternate {alternate!r} ({known})")
    place, href = asset.place, asset.hrefs[alternate].removeprefix("file://")
    if is_url(href):
        return href
    if not is_url(place):
        return posixpath.normpath(posixpath.join(posixpath.dirname(place), href))
    if href.startswith("/"):
        raise InputError(
            f"{place}: the asset {asset.key} is {href}, a path on no server; copy the item to where that is"
        )
    return urljoin(place, href) if place.startswith("http") else f"{posixpath.dirname(place)}/{href.removeprefix('./')}"
