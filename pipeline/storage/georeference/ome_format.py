"""What an OME-Zarr image says of itself, 0.5 and 0.4, made of the spec of its raster. Facts in, attributes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pipeline.model.raster import Number, RasterSpec
from pipeline.storage.georeference.cf import conventions
from pipeline.storage.georeference.ome import COLOR, parse_color

OmeVersion = Literal["0.5", "0.4"]
METRE = "meter"
CYCLE = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")
"""Colours of channels of which none is known; red, green and blue are those of pictures."""
ALONE = "FFFFFF"
UNSEEN = ("", "000000")
MANY = 4
"""Channels that are shown together; of more, the first three."""


class Window(NamedTuple):
    """Between which values a channel is shown, and lies."""

    start: Number
    end: Number
    min: Number
    max: Number


def format_image(spec: RasterSpec, num_levels: int, version: OmeVersion, name: str, resampling: str) -> dict[str, Any]:
    """Return the part of the attributes of an image that any pixels have; `spec` is that of full resolution.

    Scales are sizes of pixels and translations lead to their centres, in the unit of the axes. A raster on a map has
    its place by the conventions `proj:` and `spatial:` besides, for y grows upwards there.
    """
    has_bands = "band" in spec.dims
    axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if has_bands else []
    unit = spec.unit or _map_unit(spec)
    axes += [{"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in ("y", "x")]
    scales = {
        "name": name,
        "axes": axes,
        "datasets": [_dataset(spec, level, has_bands) for level in range(num_levels + 1)],
        "type": resampling,
    }
    place = conventions(spec) if spec.crs else {}
    return under_ome({"multiscales": [scales if version == "0.5" else {"version": version, **scales}]}, version) | place


def under_ome(said: Mapping[str, Any], version: OmeVersion) -> dict[str, Any]:
    """Return attributes where the version has them: under `ome` with the version, or by themselves."""
    return {"ome": {"version": version, **said}} if version == "0.5" else dict(said)


def format_label(version: OmeVersion) -> dict[str, Any]:
    """Return what tells a label image from others, and where the image is that it belongs to."""
    label: dict[str, Any] = {"source": {"image": "../../"}}
    return {"image-label": label if version == "0.5" else {"version": version, **label}}


def _dataset(spec: RasterSpec, level: int, has_bands: bool) -> dict[str, Any]:
    sides = spec.transform.pixel_size if spec.transform else (1.0, 1.0)
    corner = (spec.transform.f, spec.transform.c) if spec.transform and spec.unit else (0.0, 0.0)
    scale = [side * 2**level for side in sides]
    places = [start + (size - side) / 2 for start, size, side in zip(corner, scale, sides, strict=True)]
    found: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0] * has_bands + scale}]
    if any(places):
        found.append({"type": "translation", "translation": [0.0] * has_bands + places})
    return {"path": str(level), "coordinateTransformations": found}


def _map_unit(spec: RasterSpec) -> str | None:
    """Return the unit of a raster on a map where that is the metre."""
    if spec.crs is None or spec.transform is None:
        return None
    import pyproj
    import pyproj.exceptions

    try:
        axes = pyproj.CRS(spec.crs).axis_info
    except pyproj.exceptions.CRSError:
        return None
    return METRE if axes and all(axis.unit_name in ("metre", "meter") for axis in axes[:2]) else None


def format_channels(spec: RasterSpec, windows: Sequence[Window]) -> dict[str, Any]:
    """Return the key `omero`: how each channel is called and shown."""
    known = [parse_color(value) for value in dict(spec.band_coordinates).get(COLOR, ("",) * spec.num_bands)]
    cycle = CYCLE if spec.num_bands > 1 else (ALONE,)
    num_active = spec.num_bands if spec.num_bands <= MANY else 3
    channels = [
        {
            "label": name,
            "color": cycle[band % len(cycle)] if known[band] in UNSEEN else known[band],
            "active": band < num_active,
            "coefficient": 1,
            "family": "linear",
            "inverted": False,
            "window": window._asdict(),
        }
        for band, (name, window) in enumerate(zip(spec.bands, windows, strict=True))
    ]
    model = "color" if spec.num_bands > 1 else "greyscale"
    return {"channels": channels, "rdefs": {"defaultT": 0, "defaultZ": 0, "model": model}}


def window_of(extremes: tuple[Number, Number], ends: tuple[Number, Number]) -> Window:
    """Return a window of finite numbers that is not empty: the extremes of a channel, and where it is shown.

    Examples
    --------
    >>> window_of((3, 3), (3, 3)), window_of((math.nan, math.nan), (math.nan, math.nan))
    (Window(start=3, end=4, min=3, max=4), Window(start=0, end=1, min=0, max=1))
    """
    if not all(map(math.isfinite, (*extremes, *ends))):
        extremes = ends if all(map(math.isfinite, ends)) else (0, 1)
        ends = extremes
    (low, high), (start, end) = (_opened(*pair) for pair in (extremes, ends))
    return Window(start, end, low, high)


def _opened(low: Number, high: Number) -> tuple[Number, Number]:
    if low < high:
        return low, high
    return low, low + 1 if low + 1 > low else math.nextafter(low, math.inf)
