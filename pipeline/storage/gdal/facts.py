"""What GDAL says of a file beside its pixels, as the reader of TIFFs says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.raster import Number, RasterSpec, fit, json_number
from pipeline.storage.gdal.layout import parse_dtype
from pipeline.storage.georeference import cf, geokeys, geokeys_format, geotiff
from pipeline.storage.georeference.crs import from_gdal
from pipeline.storage.georeference.geotiff_format import MIN_IS_BLACK, PALETTE, RGB, SEPARATED, spell
from pipeline.storage.georeference.recorded import RPC, TIEPOINT, Item, Recorded, recorded_of
from pipeline.storage.reader import Scales

Coordinates = tuple[tuple[str, tuple[Number | str, ...]], ...]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SKIPPED_DOMAINS = ("IMAGE_STRUCTURE", "SUBDATASETS", "DERIVED_SUBDATASETS", "RPC", "COLOR_PROFILE", "EXIF", "xml:")
"""What is told otherwise, or is not kept."""
SKIPPED_ITEMS = ("AREA_OR_POINT", "TIFFTAG_", "EXIF_")
NETCDF_DIM = "NETCDF_DIM_"
COLORS = {"gray": (MIN_IS_BLACK, 1), "palette": (PALETTE, 1), "red green blue": (RGB, 3)}
INKS = "cyan magenta yellow black"
ALPHA = 2
RPC_SCALARS = (
    *("err_bias", "err_rand", "line_off", "samp_off", "lat_off", "long_off", "height_off"),
    *("line_scale", "samp_scale", "lat_scale", "long_scale", "height_scale"),
)
"""In the order of the tag; the errors are -1 where they are not known."""
BYTE = 257
"""What a colour of 8 bits is multiplied by to have 16."""
LONGEST_ITEM = 2**16
CODECS = {"JP2OpenJPEG": "jpeg2000", "PNG": "png", "WEBP": "webp", "GIF": "gif"} | dict.fromkeys(
    ("netCDF", "HDF5Image", "GRIB", "HFA"), "unknown"
)
"""Driver -> what it decodes, where GDAL does not say."""


def parse_spec(dataset: Any, path: str, messages: list[str]) -> tuple[RasterSpec, Scales]:
    """Return what a file says of its raster, and the scales of its bands."""
    num_bands, dtype = dataset.count, parse_dtype(dataset, path)
    recorded = _parse_recorded(dataset, dtype, messages)
    items = geotiff.by_band(recorded.items)
    transform = Affine(*(number + 0.0 for number in tuple(dataset.transform)[:6]))  # no -0
    is_placed = transform != IDENTITY  # what GDAL says where there is none
    if is_placed and not transform.is_invertible:
        messages.append(f"the georeference is ignored: the transform {transform} cannot be inverted")
        is_placed = False
    system = dataset.crs or dataset.gcps[1]
    spec = RasterSpec(
        height=dataset.height,
        width=dataset.width,
        dtype=dtype,
        dims=_dims(dataset),
        bands=geotiff.band_names((), items, num_bands, recorded.extra, messages),
        nodata=_nodata(dataset, dtype, messages),
        band_coordinates=_coordinates(dataset, num_bands),
        transform=transform if is_placed else None,
        crs=from_gdal(system.to_wkt(version="WKT2_2019"), messages) if system else None,
        recorded=recorded,
    )
    return spec, geotiff.parse_scales(items, num_bands, messages)


def at_level(spec: RasterSpec, dataset: Any, messages: list[str]) -> RasterSpec:
    """Return the spec of a level of the pyramid, of which GDAL itself says less than of full resolution."""
    height, width = dataset.height, dataset.width
    transform = spec.transform.scale(spec.height / height, spec.width / width) if spec.transform else None
    recorded = recorded_of(spec).at_level(messages)
    return replace(spec, height=height, width=width, transform=transform, recorded=recorded)


def _dims(dataset: Any) -> tuple[str, ...]:
    if dataset.count == 1:
        return ("y", "x")
    side_by_side = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    return ("y", "x", "band") if side_by_side else ("band", "y", "x")


def _nodata(dataset: Any, dtype: np.dtype, messages: list[str]) -> Number | None:
    """Return the nodata value as the dtype holds it, where there is one."""
    given = [value for value in dataset.nodatavals if value is not None]
    if not given:
        return None
    if len({repr(value) for value in dataset.nodatavals}) > 1:
        words = ", ".join("none" if value is None else spell(value) for value in dataset.nodatavals[:20])
        messages.append(f"the bands have different nodata values ({words}), of which {spell(given[0])} is used for all")
    fitted = fit(given[0], dtype)
    if fitted is None:
        messages.append(f"the recorded nodata value {spell(given[0])!r} is ignored: {dtype} cannot hold it")
    return fitted


def _coordinates(dataset: Any, num_bands: int) -> Coordinates:
    """Return where along further dims of a NetCDF file its bands lie, times as dates."""
    tags, found = dataset.tags(), []
    bands = [dataset.tags(band + 1) for band in range(num_bands)] if dataset.driver == "netCDF" else []
    names = [key for key in (bands[0] if bands else ()) if key.startswith(NETCDF_DIM)]
    for key in names if num_bands > 1 else ():
        name = key.removeprefix(NETCDF_DIM)
        values = [geotiff.parse_number(band.get(key, "")) for band in bands]
        if all(isinstance(value, int | float) for value in values):
            attributes = {part: tags[f"{name}#{part}"] for part in ("units", "calendar") if f"{name}#{part}" in tags}
            found.append((name, tuple(_labels(np.array(values), attributes))))
    if "time" in dict(found):
        variable = bands[0].get("NETCDF_VARNAME", "value")
        found.append(("source_band", (variable,) * num_bands))
    return tuple(found)


def _labels(values: np.ndarray, attributes: dict[str, str]) -> list[Any]:
    is_time = cf.EPOCH.fullmatch(attributes.get("units", ""))
    return list(cf.labels(values, attributes) if is_time else values.tolist())


def _parse_recorded(dataset: Any, dtype: np.dtype, messages: list[str]) -> Recorded:
    """Return what is handed on to files that are made of this one."""
    photometric, extra = _meaning(dataset)
    nodata = next((value for value in dataset.nodatavals if value is not None), None)
    return Recorded(
        tags=tuple(_place(dataset)),
        nodata=None if nodata is None else spell(nodata),
        items=tuple(_items(dataset))[: geotiff.ITEM_LIMIT],
        photometric=photometric,
        extra=extra,
        colors=_colors(dataset, dtype, nodata, messages),
    )


def _place(dataset: Any) -> Iterator[tuple[int, Any]]:
    """Yield control points and the coefficients of an RPC as tags of a GeoTIFF."""
    points, system = dataset.gcps
    if points:
        yield TIEPOINT, tuple(float(n) for p in points for n in (p.col, p.row, 0, p.x, p.y, p.z or 0))
        name = from_gdal(system.to_wkt(version="WKT2_2019"), []) if system else None
        found = geokeys_format.format_crs(name)[0] if name else {}
        yield from geokeys.to_tags(found).items() if found else ()
    if (rpc := dataset.rpcs) is not None:
        values = [-1.0 if getattr(rpc, name) is None else float(getattr(rpc, name)) for name in RPC_SCALARS]
        rows = (rpc.line_num_coeff, rpc.line_den_coeff, rpc.samp_num_coeff, rpc.samp_den_coeff)
        yield RPC, (*values, *(float(value) for row in rows for value in row))


def _items(dataset: Any) -> Iterator[Item]:
    """Yield GDAL's metadata as a TIFF would have them."""
    for band in (None, *range(dataset.count)):
        index = 0 if band is None else band + 1
        for domain in ("", *dataset.tag_namespaces(index)):
            if not domain.startswith(SKIPPED_DOMAINS):
                for name, text in dataset.tags(index, ns=domain or None).items():
                    if not name.startswith(SKIPPED_ITEMS) and len(text) <= LONGEST_ITEM:
                        yield Item(name, text.strip(), band, "", domain)
    facts = zip(dataset.descriptions, dataset.scales, dataset.offsets, dataset.units, strict=True)
    for band, (name, scale, offset, unit) in enumerate(facts):
        if name:
            yield Item("DESCRIPTION", name, band, "description")
        if (scale, offset) != (1.0, 0.0):
            yield Item("OFFSET", spell(offset), band, "offset")
            yield Item("SCALE", spell(scale), band, "scale")
        if unit:
            yield Item("UNITTYPE", unit, band, "unittype")


def _meaning(dataset: Any) -> tuple[int | None, tuple[int, ...]]:
    """Return TIFF's codes of what the bands are: the photometric interpretation, and those of bands beyond it."""
    names = [color.name for color in dataset.colorinterp]
    if names[:4] == INKS.split():
        photometric, own = SEPARATED, 4
    elif names[:3] == ["red", "green", "blue"]:
        photometric, own = RGB, 3
    elif names[0] in ("gray", "palette"):
        photometric, own = COLORS[names[0]]
    else:
        return None, ()
    return photometric, tuple(ALPHA if name == "alpha" else 0 for name in names[own:])


def _colors(dataset: Any, dtype: np.dtype, nodata: Number | None, messages: list[str]) -> tuple[int, ...]:
    """Return the colour table, 16 bits of red of each value, then green, then blue."""
    if dataset.colorinterp[0].name != "palette" or dtype not in (np.uint8, np.uint16):
        return ()
    try:
        table = dataset.colormap(1)
    except ValueError:
        return ()
    clear = [value for value, color in table.items() if color[3] != 255 and value != nodata]
    if clear:
        messages.append(f"the colour table has {len(clear)} values that are transparent; that is left out")
    size = 2 ** (8 * dtype.itemsize)
    return tuple(table.get(value, (0, 0, 0, 0))[channel] * BYTE for channel in range(3) for value in range(size))


def describe(dataset: Any) -> dict[str, Any]:
    """Return how a file is stored, in words for `info`."""
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    masks = [flag.name for flag in dataset.mask_flag_enums[0]]
    nodata = next((value for value in dataset.nodatavals if value is not None), None)
    return {
        "format": f"{dataset.driver} (GDAL)",
        "codec": structure.get("COMPRESSION", CODECS.get(dataset.driver, "none")).lower(),
        "levels": len(dataset.overviews(1)),
        "mask": "not applied" if "per_dataset" in masks and "alpha" not in masks else None,
        "recorded_nodata": None if nodata is None else str(json_number(nodata)),
    }
