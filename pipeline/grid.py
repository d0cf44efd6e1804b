"""Two grids: how often the pixels of one lie in those of the other, and what mends a difference."""

from __future__ import annotations

import math
import os
import shlex

import numpy as np

from pipeline.errors import PipelineError
from pipeline.raster import RasterSpec, same_crs

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


def _in_pixels(transform: tuple[float, ...], raster: RasterSpec) -> np.ndarray:
    """Return three corners of a raster (upper left, upper right, lower left) as columns and rows of another grid."""
    assert raster.transform is not None
    a, b, c, d, e, f = transform
    k, l, m, n, o, p = raster.transform  # noqa: E741
    steps = np.array([[0, 0], [k * raster.width, n * raster.width], [l * raster.height, o * raster.height]])
    found: np.ndarray = np.linalg.solve(np.array([[a, b], [d, e]]), (steps + np.array([m - c, p - f])).T).T
    return found


def remedy(name: str, raster: RasterSpec, path: str, other: str, grid: RasterSpec) -> str:
    """Return what brings a raster to the grid of another: `match`, or the line that resamples it."""
    if repetition(raster, grid):
        return f"its pixels are whole numbers of pixels there: say `match: {other}` at {name!r}"
    if repetition(grid, raster):
        return f"{other!r} is the coarser one: say `match: {name}` there"
    if grid.transform is None or raster.transform is None:
        return "without a georeference nothing says how they lie on each other"
    if grid.transform[1] or grid.transform[3]:
        return "the grid is rotated, so resample both to one that is not (gdalwarp -t_srs ...)"
    a, _, c, _, e, f = grid.transform
    xs, ys = sorted((c, c + a * grid.width)), sorted((f, f + e * grid.height))
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


def _overlap(raster: RasterSpec, grid: RasterSpec) -> float | None:
    """Return the share of a grid's area that a raster covers; None where their systems differ, or one is rotated."""
    assert raster.transform is not None
    assert grid.transform is not None
    if raster.transform[1] or raster.transform[3] or not raster.crs or not grid.crs:
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


LATITUDE_ERROR = 0.05
"""What the width of a pixel in degrees may differ from that in the middle of the raster."""


def spacing_metres(spec: RasterSpec) -> tuple[tuple[float, float], float]:
    """Return height and width of a pixel in metres, and how far, as a share, the width is off anywhere.

    In a projected CRS they are those of the transform in metres; in degrees, those on the ellipsoid at the raster's
    middle.

    Raises
    ------
    PipelineError
        Where there is no georeference, the grid is rotated, or one width cannot stand for all of a raster in degrees.

    Examples
    --------
    >>> spacing_metres(RasterSpec(9, 9, np.dtype("u1"), transform=(10, 0, 0, 0, -20, 0), crs="EPSG:32632"))
    ((20.0, 10.0), 0.0)
    """
    if spec.transform is None or spec.crs is None:
        lacks = "georeference" if spec.transform is None else "coordinate system"
        raise PipelineError(f"`geo` needs a georeference, and the raster has no {lacks}; give numbers")
    a, b, _, d, e, _ = spec.transform
    if b or d:
        raise PipelineError(
            f"the raster is rotated, so rows and columns are no directions of its CRS; give the sides of a pixel: "
            f"[{math.hypot(b, e):.10g}, {math.hypot(a, d):.10g}]"
        )
    import pyproj
    import pyproj.exceptions

    try:
        crs = pyproj.CRS(spec.crs)
    except pyproj.exceptions.CRSError as error:
        raise PipelineError(f"`geo`: the CRS cannot be read ({str(error)[:100]}); give numbers") from None
    if crs.is_geographic:
        return _spacing_of_degrees(spec, crs)
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    return (abs(e) * unit, abs(a) * unit), 0.0


def _spacing_of_degrees(spec: RasterSpec, crs: object) -> tuple[tuple[float, float], float]:
    assert spec.transform is not None
    degrees = math.degrees(crs.axis_info[0].unit_conversion_factor)  # type: ignore[attr-defined]
    a, _, c, _, e, f = (value * degrees for value in spec.transform)  # of grads and arc-seconds, too
    geod = crs.get_geod()  # type: ignore[attr-defined]
    ends = [f, f + e * spec.height]
    middle = sum(ends) / 2
    if max(map(abs, ends)) > 90:
        raise PipelineError(f"`geo`: the raster spans latitudes {min(ends):g} to {max(ends):g}; give numbers")
    widths = [geod.inv(c, latitude, c + abs(a), latitude)[2] for latitude in (*ends, middle)]
    height = geod.inv(c, middle - abs(e) / 2, c, middle + abs(e) / 2)[2]
    off = max(abs(width / widths[2] - 1) for width in widths[:2])
    if off > LATITUDE_ERROR:
        raise PipelineError(
            f"`geo`: a pixel is {min(widths):.4g} to {max(widths):.4g} m wide between latitudes {min(ends):g} and "
            f"{max(ends):g}; reproject the raster (gdalwarp -t_srs EPSG:326xx), or give numbers"
        )
    return (height, widths[2]), off
