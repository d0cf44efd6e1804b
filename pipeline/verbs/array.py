"""An array that somebody gives us as a raster: what is refused, and what it is taken for."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.errors import UsageError, show
from pipeline.model.raster import DIMS, Dims, Number, RasterSpec, default_names, fit
from pipeline.model.value import parse_dims
from pipeline.storage import data_array


@dataclass(frozen=True)
class GivenArray:
    """An array as a raster."""

    data: Any
    """A dask array."""
    spec: RasterSpec
    labelled: Any = None
    """The xarray array that it is of, if it is of one."""
    said: tuple[str, ...] = ()
    """What that one records and is not used."""

    def wrap(self, result: Any, spec: RasterSpec, name: str) -> Any:
        """Return a result as an array of the kind that was given: an xarray one has the coordinates that still fit."""
        if self.labelled is None:
            return result
        import xarray

        own, known = dict(self.spec.band_coordinates), dict(spec.band_coordinates) if "band" in spec.dims else {}
        coordinates = {
            key: value
            for key, value in self.labelled.coords.items()
            if set(value.dims) <= set(spec.dims)
            and ("band" not in value.dims or value.sizes["band"] == spec.num_bands)
            and (key not in own or own[key] == known.get(key))
        }
        coordinates |= {key: ("band", list(values)) for key, values in known.items() if key not in coordinates}
        attributes = {} if spec.nodata is None else {"_FillValue": spec.nodata}
        name = name.replace("/", "_")
        return xarray.DataArray(result, dims=spec.dims, coords=coordinates, name=name, attrs=attributes)


def take_array(array: Any, dims: str | None, nodata: Number | None) -> GivenArray:
    """Return an array as a raster.

    Raises
    ------
    UsageError
        Where it is none, or does not say enough of itself.
    """
    import dask.array

    if isinstance(array, str | os.PathLike):
        raise UsageError(f"apply takes an array, got the path {str(array)!r}; open it first, or use pipeline.run")
    _check_kind(array)
    is_xarray = hasattr(array, "dims") and hasattr(array, "coords")
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    _check_shape(array.shape)
    names = _dims(array, dims, is_xarray)
    data = array.data if is_xarray else array
    _check_pixels(data)
    if not isinstance(data, dask.array.Array):
        data = dask.array.from_array(np.asarray(data))
    data = data.astype(data.dtype.newbyteorder("="))
    spec = _spec(data, names, nodata)
    if not is_xarray:
        return GivenArray(data, spec)
    said: list[str] = []
    spec = data_array.describe(array, spec, said)
    return GivenArray(data, spec, array, tuple(said))


def _check_kind(array: Any) -> None:
    """Refuse what holds arrays and is none."""
    if hasattr(array, "data_vars"):
        names = ", ".join(map(str, array.data_vars)) or "nothing"
        raise UsageError(
            f"apply takes one raster, got a Dataset (of {names}); give one of its variables, or all of one dtype as "
            "bands: `dataset.to_dataarray('band')`"
        )
    if hasattr(array, "iloc"):
        raise UsageError(f"apply takes an array, got a {type(array).__name__}; give `.to_numpy()` of it")


def _check_shape(shape: tuple[float, ...]) -> None:
    if any(math.isnan(size) for size in shape):
        raise UsageError(f"the array has chunks of unknown size (shape {shape}); call its compute_chunk_sizes() first")
    if len(shape) not in (2, 3) or not all(shape):
        raise UsageError(f"the array has shape {shape}; a raster has y, x and maybe band, none of them empty")


def _check_pixels(data: Any) -> None:
    if isinstance(getattr(data, "_meta", data), np.ma.MaskedArray):  # dask keeps an empty array of the same kind
        raise UsageError("the array is masked; fill it first: `.filled(VALUE)`, and say `nodata=VALUE`")
    if data.dtype.kind not in "iuf" or data.dtype.itemsize > 8:
        remedies = {"b": "; convert it: `.astype('uint8')`", "c": "; stack real and imaginary part as two bands"}
        remedy = "; convert it: `.astype('float64')`" if data.dtype.kind == "f" else remedies.get(data.dtype.kind, "")
        raise UsageError(
            f"the array has dtype {data.dtype}; rasters are integers or floating point up to 64 bit{remedy}"
        )


def _dims(array: Any, dims: str | None, is_xarray: bool) -> Dims:
    if dims is not None:
        names = _split(dims)
    elif is_xarray:
        names = tuple(str(name) for name in array.dims)
    else:
        _check_order(array.shape)
        names = ("y", "x", "band")[: array.ndim]
    if names not in DIMS or len(names) != array.ndim:
        raise UsageError(f"dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x: rename or say `dims=`")
    return names


def _check_order(shape: tuple[int, ...]) -> None:
    """Refuse to guess which axis is the band, unless the last one is the shortest: rasterio has it first."""
    if len(shape) == 2 or shape[2] < min(shape[:2]):
        return
    first, middle, last = shape
    raise UsageError(
        f"the array has shape {shape}, and nothing says which axis is the band; say "
        f'`dims="band,y,x"` for {first} band{"s"[: first > 1]} of {middle} x {last} pixels, as rasterio reads them, or '
        f'`dims="y,x,band"` for {last} band{"s"[: last > 1]} of {first} x {middle}'
    )


def _split(dims: Any) -> tuple[str, ...]:
    try:
        return tuple(parse_dims(dims).split(","))
    except ValueError as error:
        raise UsageError(f"dims {error}") from None


def _spec(data: Any, dims: Dims, nodata: Number | None) -> RasterSpec:
    sizes = dict(zip(dims, data.shape, strict=True))
    if nodata is not None:
        nodata = _fitting(nodata, data.dtype)
    return RasterSpec(sizes["y"], sizes["x"], data.dtype, dims, default_names(sizes.get("band", 1)), nodata)


def _fitting(nodata: Any, dtype: np.dtype) -> Number:
    """Return nodata as the pixels hold it."""
    value = nodata.item() if isinstance(nodata, np.generic) else nodata
    fitted = fit(value, dtype) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if fitted is None:
        raise UsageError(f"nodata is {show(value)}, which cannot occur in {dtype} pixels; leave it out, or correct it")
    return fitted
