"""Two grids: how often the pixels of one lie in those of the other, and what mends a difference."""

from __future__ import annotations

import math
import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, same_crs

if TYPE_CHECKING:
    import pyproj

NEAR = 1e-4
"""Of a pixel: how far corners may be apart that are taken for the same."""


def repetition(coarse: RasterSpec, fine: RasterSpec) -> tuple[int, int] | None:
    """Return how often the pixels of a raster lie in those of another, down and across; None for no whole number.

    Examples
    --------
    >>> b02 = RasterSpec(10980, 10980, np.dtype("uint16"), transform=(10, 0, 600000, 0, -10, 5300040))
    >>> scl = RasterSpec(5490, 5490, np.dtype("uint8"), transform=(20, 0, 600000, 0, -20, 5300040))
    >>> repetition(scl, b02)
    (2, 2)
    """
    if coarse.crs and fine.crs and not same_crs(coarse.crs, fine.crs):
        return None
    times = round(fine.height / coarse.height), round(fine.width / coarse.width)
    if coarse.transform and fine.transform:
        corners = _in_pixels(fine.transform, coarse)
        times = round(corners[2, 1] / coarse.height), round(corners[1, 0] / coarse.width)
        due = np.array([[0, 0], [coarse.width * times[1], 0], [0, coarse.height * times[0]]])
        if np.abs(corners - due).max() > NEAR:
            return None
    elif (times[0] * coarse.height, times[1] * coarse.width) != (fine.height, fine.width):
        return None  # nothing but the sizes says that they belong together
    if min(times) < 1 or times == (1, 1):
        return None
    covers = -(-fine.height // times[0]), -(-fine.width // times[1])
    return times if covers == (coarse.height, coarse.width) else None


def _in_pixels(grid: Affine, raster: RasterSpec) -> np.ndarray:
    """Return three corners of a raster (upper left, upper right, lower left) as columns and rows of another grid."""
    assert raster.transform is not None
    own, height, width = raster.transform, raster.height, raster.width
    steps = np.array([[0, 0], [own.a * width, own.d * width], [own.b * height, own.e * height]])
    places = steps + np.array([own.c - grid.c, own.f - grid.f])
    found: np.ndarray = np.linalg.solve(np.array([[grid.a, grid.b], [grid.d, grid.e]]), places.T).T
    return found


def remedy(name: str, raster: RasterSpec, path: str, other: str, grid: RasterSpec) -> str:
    """Return what brings a raster to the grid of another: `match`, or the line that resamples it."""
    if repetition(raster, grid):
        return f"its pixels are whole numbers of pixels there: say `match: {other}` at {name!r}"
    if repetition(grid, raster):
        return f"{other!r} is the coarser one: say `match: {name}` there"
    if grid.transform is None or raster.transform is None:
        return "without a georeference nothing says how they lie on each other"
    if grid.unit or raster.unit:
        if (grid.height, grid.width) == (raster.height, raster.width):
            return "one of the files records a wrong pixel size; correct it there"
        return f"bring {name!r} to the pixels of {other!r} first"
    if grid.transform.is_rotated:
        return "the grid is rotated, so resample both to one that is not (gdalwarp -t_srs ...)"
    xs, ys = grid.transform.spans(grid.height, grid.width)
    box = " ".join(repr(value) for value in (xs[0], ys[0], xs[1], ys[1]))
    short = grid.crs if grid.crs and len(grid.crs) < 40 else None
    system = f"-t_srs {short} " if short else "" if not grid.crs else f"-t_srs '(the CRS of {other})' "
    lies = _overlap(raster, grid)
    if lies == 0:
        return (
            f"{name!r} lies beside {other!r}, not on it: tiles of one band are merged first (gdalwarp TILE TILE "
            "merged.tif), or each is a run of its own"
        )
    rest = f"; it lies on {100 * lies:.2g} % of {other!r}, the rest becomes nodata" if lies and lies < 1 else ""
    stem, _ = os.path.splitext(path or "INPUT.tif")
    warp = f"gdalwarp {system}-te {box} -ts {grid.width} {grid.height} -r near"
    return f"resample it first: {warp} {shlex.quote(path or 'INPUT.tif')} {shlex.quote(stem + '_matched.tif')}{rest}"


def snapped(path: str, raster: RasterSpec, other: str, grid: RasterSpec) -> str:
    """Return the line that resamples a raster to the lattice of another one, and keeps what it spans."""
    if grid.transform is None or raster.transform is None or grid.unit or raster.unit:
        return f"nothing says how {path} lies on {other}"
    if grid.transform.is_rotated or raster.transform.is_rotated:
        return "a grid is rotated, so resample both to one that is not (gdalwarp -t_srs ...)"
    short = grid.crs if grid.crs and len(grid.crs) < 40 else f"'(the CRS of {other})'"
    size = " ".join(repr(abs(value)) for value in (grid.transform.a, grid.transform.e))
    stem, _ = os.path.splitext(path)
    files = f"{shlex.quote(path)} {shlex.quote(stem + '_matched.tif')}"
    if not (grid.crs and raster.crs and same_crs(grid.crs, raster.crs)):
        return f"resample it first: gdalwarp -t_srs {short} -tr {size} -tap -r near {files}, and {other} with -tap too"
    (left, right), (bottom, top) = raster.transform.spans(raster.height, raster.width)
    (x, _), (y, _) = grid.transform.spans(grid.height, grid.width)
    across, down = abs(grid.transform.a), abs(grid.transform.e)
    ends = (
        x + math.floor((left - x) / across + NEAR) * across,
        y + math.floor((bottom - y) / down + NEAR) * down,
        x + math.ceil((right - x) / across - NEAR) * across,
        y + math.ceil((top - y) / down - NEAR) * down,
    )
    return f"resample it first: gdalwarp -tr {size} -te {' '.join(map(repr, ends))} -r near {files}"


def _overlap(raster: RasterSpec, grid: RasterSpec) -> float | None:
    """Return the share of a grid's area that a raster covers; None where their systems differ, or one is rotated."""
    assert raster.transform is not None
    assert grid.transform is not None
    if raster.transform.is_rotated or not raster.crs or not grid.crs:
        return None
    if not same_crs(raster.crs, grid.crs):
        return None
    corners = _in_pixels(grid.transform, raster)  # in columns and rows of the grid
    ends = corners[1] + corners[2] - corners[0]
    share = 1.0
    for axis, size in enumerate((grid.width, grid.height)):
        first, last = sorted((corners[0, axis], ends[axis]))
        share *= max(0.0, min(last, size) - max(first, 0.0)) / size
    return 1.0 if share > 1 - NEAR else share if share > NEAR**2 else 0.0


SCALE_ERROR = 0.05
"""What height and width of a pixel may differ, as a share, from those in the middle of the raster."""
TRUE_TO_SCALE = 0.005
"""Up to which a projection counts as true to scale: where they are meant for, UTM's is within 0.1 %."""
NUM_SAMPLES = 9
"""Places down and across the raster at which pixels are measured."""


class Spacing(NamedTuple):
    """The sides of a pixel as lengths.

    Examples
    --------
    >>> print(Spacing((5.0, 2.5), off=0.012))
    a pixel is 5 m high and 2.5 m wide, in the middle of the raster; elsewhere that is off by up to 1.2 %
    """

    sides: tuple[float, float]
    """Height and width."""
    unit: str = "m"
    """m, or um (micrometres)."""
    off: float = 0.0
    """How far, as a share, they are off anywhere."""

    def __str__(self) -> str:
        where = f", in the middle of the raster; elsewhere that is off by up to {100 * self.off:.2g} %"
        height, width = (f"{side:.10g} {self.unit}" for side in self.sides)
        return f"a pixel is {height} high and {width} wide{where if self.off else ''}"


def geo_spacing(spec: RasterSpec) -> Spacing:
    """Return the sides of a pixel: in micrometres where a microscope's file says them, else `spacing_metres`.

    Examples
    --------
    >>> print(geo_spacing(RasterSpec(9, 9, np.dtype("u1"), transform=(0.25, 0, 0, 0, 0.5, 0), unit="micrometer")))
    a pixel is 0.5 um high and 0.25 um wide
    """
    if spec.unit and spec.transform:
        return Spacing(spec.transform.pixel_size, "um")
    sides, off = spacing_metres(spec)
    return Spacing(sides, off=off)


def spacing_metres(spec: RasterSpec) -> tuple[tuple[float, float], float]:
    """Return height and width of a pixel in metres, and how far, as a share, they are off anywhere.

    They are those on the ellipsoid at the raster's middle, by geodesics (Karney 2013, in PROJ); where a projection is
    true to scale, those of the transform.

    Raises
    ------
    PipelineError
        Where there is no georeference, the grid is rotated, or one height and width cannot stand for all of the raster.

    Examples
    --------
    >>> spacing_metres(RasterSpec(9, 9, np.dtype("u1"), transform=(10, 0, 500000, 0, -20, 0), crs="EPSG:32632"))
    ((20.0, 10.0), 0.0)
    >>> (height, width), off = spacing_metres(
    ...     RasterSpec(9, 9, np.dtype("u1"), transform=(10, 0, 0, 0, -10, 8399738), crs="EPSG:3857")
    ... )
    >>> round(height, 2), round(width, 2)  # at 60 degrees north
    (5.0, 5.01)
    """
    crs, base = systems(spec)
    assert spec.transform is not None
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    planar = abs(spec.transform.e) * unit, abs(spec.transform.a) * unit
    if base is None or not base.is_geographic:
        return planar, 0.0
    sides, skew, latitudes = _measure(spec, crs, base)
    if crs.is_projected and np.abs(sides / planar - 1).max() <= TRUE_TO_SCALE >= skew:
        return planar, 0.0
    middle = sides[NUM_SAMPLES // 2, NUM_SAMPLES // 2]
    off = max(float(np.abs(sides / middle - 1).max()), skew)
    if off > SCALE_ERROR:
        raise PipelineError(_rough_text(sides, skew, latitudes))
    height, width = (float(f"{side:.9g}") for side in middle)  # further digits differ between versions of PROJ
    return (height, width), off


def _rough_text(sides: np.ndarray, skew: float, latitudes: np.ndarray) -> str:
    (lowest, left), (highest, right) = sides.min(axis=(0, 1)), sides.max(axis=(0, 1))
    crossed = f", its sides up to {math.degrees(math.asin(min(skew, 1))):.2g} degrees off a right angle"
    return (
        f"`geo`: a pixel is {lowest:.4g} to {highest:.4g} m high and {left:.4g} to {right:.4g} m wide between "
        f"latitudes {latitudes.min():g} and {latitudes.max():g}{crossed if skew > SCALE_ERROR else ''}; "
        "reproject the raster (gdalwarp -t_srs EPSG:326xx), or give numbers"
    )


def systems(spec: RasterSpec) -> tuple[pyproj.CRS, pyproj.CRS | None]:
    """Return the CRS of a raster that is not rotated, and the geographic one below it."""
    if spec.transform is None or spec.crs is None:
        lacks = "georeference" if spec.transform is None else "coordinate system"
        raise PipelineError(f"`geo` needs a georeference, and the raster has no {lacks}; give numbers")
    if spec.transform.is_rotated:
        height, width = spec.transform.pixel_size
        raise PipelineError(
            f"the raster is rotated, so rows and columns are no directions of its CRS; give the sides of a pixel: "
            f"[{height:.10g}, {width:.10g}]"
        )
    import pyproj
    import pyproj.exceptions

    try:
        crs = pyproj.CRS(spec.crs)
    except pyproj.exceptions.CRSError as error:
        raise PipelineError(f"`geo`: the CRS cannot be read ({str(error)[:100]}); give numbers") from None
    return crs, crs.geodetic_crs


def _measure(spec: RasterSpec, crs: pyproj.CRS, base: pyproj.CRS) -> tuple[np.ndarray, float, np.ndarray]:
    """Return sides of pixels all over a raster in metres, the largest cosine between two sides, and latitudes.

    Sides are (row, column, 2): heights and widths; latitudes are in degrees.
    """
    import pyproj
    import pyproj.exceptions

    assert spec.transform is not None
    grid = spec.transform
    rows, columns = np.meshgrid(
        *(np.linspace(0, size, NUM_SAMPLES) for size in (spec.height, spec.width)), indexing="ij"
    )
    top, left = (np.clip(at - 0.5, 0, size - 1) for at, size in ((rows, spec.height), (columns, spec.width)))
    try:
        to_base = pyproj.Transformer.from_crs(crs, base, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise PipelineError(f"`geo`: the CRS has no way to degrees ({str(error)[:100]}); give numbers") from None
    degrees = math.degrees(base.axis_info[0].unit_conversion_factor)  # of grads and arc-seconds, too

    def place(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return np.array(to_base.transform(grid.c + grid.a * column, grid.f + grid.e * row)) * degrees

    ends = [place(top, columns), place(top + 1, columns), place(rows, left), place(rows, left + 1)]
    latitudes = place(rows, columns)[1]
    if not np.isfinite(ends).all() or not np.isfinite(latitudes).all():
        raise PipelineError("`geo`: the raster reaches to where its projection is not defined; give numbers")
    if np.abs(latitudes).max() > 90:
        text = f"spans latitudes {latitudes.min():g} to {latitudes.max():g}"
        raise PipelineError(f"`geo`: the raster {text}; give numbers")
    geod = base.get_geod()
    assert geod is not None
    (*down, heights), (*across, widths) = (geod.inv(*one, *two) for one, two in (ends[:2], ends[2:]))
    # azimuths at both ends, the second looking back; the direction in the middle is between them
    first, second = (np.exp(1j * np.radians(start)) - np.exp(1j * np.radians(end)) for start, end in (down, across))
    skew = np.abs(np.cos(np.angle(first) - np.angle(second)))
    return np.stack([heights, widths], axis=-1), float(skew.max()), latitudes
