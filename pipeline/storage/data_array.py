"""What an xarray array says of its raster: names of bands, nodata, georeference; xarray itself is not imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.raster import RasterSpec, are_counted, name_bands
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.crs import in_units
from pipeline.storage.georeference.ome import UNIT, micrometres


def describe(array: Any, spec: RasterSpec, said: list[str]) -> RasterSpec:
    """Return a spec (size, dtype, dims) with what an xarray array records; `said` gets what of it is not used."""
    transform, crs = _georeference(array, spec, said)
    x = array.coords.get(array.dims[spec.dims.index("x")])
    is_length = transform is not None and crs is None and x is not None
    unit = UNIT if is_length and micrometres(1, x.attrs.get("units")) == 1 else None
    nodata = _nodata(array, said) if spec.nodata is None else spec.nodata
    return replace(
        spec,
        bands=_bands(array, spec.bands, said),
        nodata=nodata,
        band_coordinates=tuple(_band_coordinates(array, spec)),
        transform=transform,
        crs=crs,
        unit=unit,
    )


def _band_coordinates(array: Any, spec: RasterSpec) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield what else is known of each band."""
    band = array.dims[spec.dims.index("band")] if "band" in spec.dims else None
    for name, coordinate in array.coords.items():
        if band is not None and coordinate.dims == (band,) and name not in (band, "band"):
            values = np.asarray(coordinate)
            yield str(name), tuple(values.tolist() if values.dtype.kind in "iuf" else cf.labels(values, {}))


def _bands(array: Any, default: tuple[str, ...], said: list[str]) -> tuple[str, ...]:
    """Return the names of the bands: those of the coordinate `band`, unless it does nothing but count."""
    names = cf.labels(np.ravel(array.coords["band"].values), {}) if "band" in array.coords else []
    return default if len(names) != len(default) or are_counted(names) else name_bands(names, default, said)


def _nodata(array: Any, said: list[str]) -> float | int | None:
    nodata = cf.parse_nodata({**array.encoding, **array.attrs}, array.dtype, said)
    if cf.parse_scales(array.attrs, array.sizes.get("band", 1), said):
        said.append("the recorded scale and offset are ignored; apply them before (xarray's `mask_and_scale`)")
    if cf.sign_dtype(array.attrs, array.dtype, said) != array.dtype:
        said.append(f"`_Unsigned` is ignored, pixels are taken as {array.dtype}; decode them before (xarray.decode_cf)")
    return nodata


def _georeference(array: Any, spec: RasterSpec, said: list[str]) -> tuple[Affine | None, str | None]:
    """Return transform and CRS; of a part of a raster its coordinates tell, not what rioxarray records of the whole."""
    attributes = {**array.encoding, **array.attrs}
    mapping = array.coords.get(str(attributes.get("grid_mapping", "spatial_ref")))
    recorded, crs = cf.parse_georeference(attributes, {} if mapping is None else mapping.attrs, said)
    axes = dict(zip(spec.dims, array.dims, strict=True))
    y, x = (array.coords.get(axes[name]) for name in ("y", "x"))
    transform = None
    if y is not None and x is not None:
        transform = cf.transform_of_coordinates(np.asarray(y), np.asarray(x), said)
    if recorded and (transform is None or np.allclose(transform, recorded, rtol=1e-6)):
        return recorded, crs  # without what coordinates lose by rounding
    if transform and crs:
        crs = in_units(crs, str(x.attrs.get("units", "")).strip(), said)
    return transform, crs
