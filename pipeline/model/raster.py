"""What is known of a raster before a pixel is read: dims, dtype, bands, nodata, georeference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.errors import PipelineError, unknown
from pipeline.model.region import Region

Dims = tuple[str, ...]
Number = int | float
BandKey = int | str
BandCoordinates = tuple[tuple[str, tuple[Number | str, ...]], ...]
"""Further coordinates along the band axis: name, and a value for each band."""
SOURCE_BAND = "source_band"
"""The coordinate of the bands of a series (of dates, slices, filters) that says which band of each of them one is."""
LAYER = "layer"
"""The coordinate of the bands of labels that overlap: each is a layer in which a pixel has one label at most."""
OVERLAPPING = "the bands of {0} are labels that overlap; take the last of each pixel (polygons: `overlap: last`)"
"""What is said where such bands do not go with others."""

DIMS: tuple[Dims, ...] = (("y", "x", "band"), ("band", "y", "x"), ("y", "x"))
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
DTypeName = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]


SAME = "those of the input"
"""Of units of an output, see `operations.traits.HasUnits`."""


class HandedOn(Protocol):
    """What a file says of a raster that nothing here computes with: storage knows it, all else hands it on."""

    @property
    def carried(self) -> Number | None:
        """The value of invalid pixels, where these pass as they are: neither marked nor counted on the way."""

    def select(self, indices: Sequence[int]) -> HandedOn:
        """Return what holds for some of the bands."""

    def cut(self, row: int, column: int) -> HandedOn:
        """Return what holds for the part that begins there."""


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """A raster as the planner sees it.

    `bands` has one entry for a raster without a band axis (dims ``y, x``). `nodata` is the value that marks an
    invalid pixel in the stored data; None says that no pixel can be invalid. NaN is always invalid in a
    floating-point raster, so a stored one has at least nodata NaN.
    `band_coordinates` are further coordinates along the band axis, name -> one value per band.
    `transform` is of pixel corners; six numbers are made an `Affine`. `unit` is that of its numbers where no CRS says
    one: "micrometer" for a raster from a microscope, else None.
    """

    height: int
    width: int
    dtype: np.dtype
    dims: Dims = ("y", "x")
    bands: tuple[str, ...] = ("b1",)
    nodata: Number | None = None
    band_coordinates: BandCoordinates = ()
    transform: Affine | None = None
    crs: str | None = None
    recorded: HandedOn | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.transform is not None and not isinstance(self.transform, Affine):
            object.__setattr__(self, "transform", Affine(*self.transform))

    @property
    def num_bands(self) -> int:
        return len(self.bands)

    @property
    def region(self) -> Region:
        return Region(0, self.height, 0, self.width)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shape_of(self.region)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel with all its bands."""
        return self.num_bands * self.dtype.itemsize

    @property
    def can_be_invalid(self) -> bool:
        return self.nodata is not None

    def shape_of(self, region: Region) -> tuple[int, ...]:
        """Return the array shape of a region of this raster, in its dims."""
        return array_shape(self.dims, region, self.num_bands)

    def select(self, keys: Sequence[BandKey] | None) -> tuple[RasterSpec, tuple[int, ...]]:
        """Return the spec of some bands, and their indices from 0."""
        if keys is None:
            return self, tuple(range(self.num_bands))
        indices = tuple(self.band_index(key) for key in keys)
        if len(indices) > 1 and "band" not in self.dims:
            raise PipelineError("the raster has one band and no band axis to repeat it along; name it once", ("bands",))
        return self.pick(indices), indices

    def pick(self, indices: Sequence[int]) -> RasterSpec:
        """Return the spec of the bands with these indices from 0; itself where that is all of them."""
        if tuple(indices) == tuple(range(self.num_bands)):
            return self
        coordinates = tuple((name, tuple(values[i] for i in indices)) for name, values in self.band_coordinates)
        recorded = self.recorded.select(indices) if self.recorded else None
        bands = tuple(self.bands[i] for i in indices)
        return replace(self, bands=bands, band_coordinates=coordinates, recorded=recorded)

    def band_index(self, key: BandKey) -> int:
        """Return the index from 0 of a band given by its position from 1 or by its name."""
        if isinstance(key, str):
            if key in self.bands:
                return self.bands.index(key)
            raise PipelineError(unknown("band", key, self.bands), ("bands",))
        if not 1 <= key <= self.num_bands:
            raise PipelineError(
                f"band {key} does not exist: the raster has {self.num_bands} "
                f"(positions from 1 to {self.num_bands}: {', '.join(self.bands)})",
                ("bands",),
            )
        if str(key) in self.bands and self.bands[key - 1] != str(key):
            raise PipelineError(
                f"{key} is the name of a band, and the band at position {key} is called {self.bands[key - 1]!r}; names "
                f'stand in quotes: "{key}" or "{self.bands[key - 1]}"',
                ("bands",),
            )
        return key - 1


def name_bands(found: Sequence[str], default: Sequence[str], warnings: list[str]) -> tuple[str, ...]:
    """Return the names that a file gives its bands, `default` for those without; all of it where one stands twice.

    Examples
    --------
    >>> name_bands(["red", ""], ["b1", "b2"], [])
    ('red', 'b2')
    """
    names = tuple(printable(name) or other for name, other in zip(found, default, strict=True))
    if len(set(names)) == len(names):
        return names
    warnings.append(f"the band names are ignored: they are not unique ({', '.join(names[:20])})")
    return tuple(default)


def default_names(num_bands: int) -> tuple[str, ...]:
    return tuple(f"b{band + 1}" for band in range(num_bands))


def are_counted(names: Sequence[str]) -> bool:
    """Return whether names are nothing but the numbers of the bands, from 0 or from 1."""
    return tuple(names) in [tuple(str(i + first) for i in range(len(names))) for first in (0, 1)]


def array_shape(dims: Dims, region: Region, num_bands: int) -> tuple[int, ...]:
    sizes = {"y": region.height, "x": region.width, "band": num_bands}
    return tuple(sizes[dim] for dim in dims)


def array_slices(dims: Dims, region: Region, origin: tuple[int, int] = (0, 0)) -> tuple[slice, ...]:
    """Return the slices of a region, all bands, into an array with these dims that begins at `origin`."""
    rows, columns = region.slices(origin)
    slices = {"y": rows, "x": columns, "band": slice(None)}
    return tuple(slices[dim] for dim in dims)


def working_dtype(*dtypes: np.dtype) -> np.dtype:
    """Return the dtype of computed results: float32 where it holds all values of the dtypes exactly, else float64.

    So float32 for 8 and 16-bit integers and floats up to 32 bit.

    Examples
    --------
    >>> [working_dtype(np.dtype(name)).name for name in ("uint8", "int16", "float32", "int32", "float64")]
    ['float32', 'float32', 'float32', 'float64', 'float64']
    """
    fits = all(dtype.itemsize <= (4 if dtype.kind == "f" else 2) for dtype in dtypes)
    return np.dtype(np.float32 if fits else np.float64)


def largest(dtype: np.dtype) -> float:
    """Return the largest absolute value of a dtype; of floating point infinity."""
    return math.inf if dtype.kind == "f" else float(max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)))


def is_nan(value: Number | None) -> bool:
    return isinstance(value, float) and math.isnan(value)


def holds(dtype: np.dtype, value: Number) -> bool:
    """Return whether the dtype can hold the value exactly (for a float dtype: to its precision)."""
    if isinstance(value, float) and not math.isfinite(value):
        return dtype.kind == "f"
    if dtype.kind == "f":
        return abs(value) <= float(np.finfo(dtype).max)
    info = np.iinfo(dtype)
    return value == int(value) and int(info.min) <= value <= int(info.max)


def fit(value: Number, dtype: np.dtype) -> Number | None:
    """Return the value as the dtype holds it, None if it is beyond its range, or a fraction among integers."""
    if dtype.kind != "f":
        return int(value) if holds(dtype, value) else None
    try:
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(value))
    except OverflowError:
        return None
    return None if math.isinf(rounded) and math.isfinite(value) else rounded


def json_number(value: Any) -> Any:
    """Return a number as JSON can hold it: NaN and the infinities as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Return a text from a file as it may be shown and stored: no control characters, no half of a character.

    Examples
    --------
    >>> printable("r\x1b[2Jed")
    'r\ufffd[2Jed'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def grid_difference(first: RasterSpec, second: RasterSpec) -> str:
    """Return in words what is different between two grids; empty where nothing is."""
    parts = []
    if (first.height, first.width) != (second.height, second.width):
        parts.append(f"{first.height} x {first.width} pixels against {second.height} x {second.width}")
    # what a microscope records is a calibration: the far corners may be half a pixel apart
    near = 0.5 / max(first.height, first.width) if first.unit and second.unit else 1e-9
    if first.transform and second.transform and not np.allclose(first.transform, second.transform, rtol=near, atol=0):
        a, b = first.transform, second.transform
        if (a.a, a.e) != (b.a, b.e):
            parts.append(f"pixels of {a.a:g} x {a.e:g} against {b.a:g} x {b.e:g}")
        if (a.c, a.f) != (b.c, b.f):
            parts.append(f"upper left corner at ({a.c:.10g}, {a.f:.10g}) against ({b.c:.10g}, {b.f:.10g})")
        if not parts:
            parts.append(f"transform {a} against {b}")
    if first.crs and second.crs and not same_crs(first.crs, second.crs):
        parts.append(f"CRS {first.crs[:60]} against {second.crs[:60]}")
    if (first.unit and second.crs) or (first.crs and second.unit):
        parts.append(" against ".join(spec.unit or f"CRS {(spec.crs or '')[:60]}" for spec in (first, second)))
    return "; ".join(parts)


def same_crs(first: str, second: str) -> bool:
    """Return whether two CRS, given as EPSG:n or WKT, are the same, however they are spelled."""
    if first == second:
        return True
    import pyproj
    import pyproj.exceptions

    try:
        return pyproj.CRS(first).equals(pyproj.CRS(second), ignore_axis_order=True)
    except pyproj.exceptions.CRSError:
        return False
