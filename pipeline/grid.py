"""Two grids: how often the pixels of one lie in those of the other, and what mends a difference."""

from __future__ import annotations

import os
import shlex

import numpy as np

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
    stem, _ = os.path.splitext(path or "INPUT.tif")
    warp = f"gdalwarp {system}-te {box} -ts {grid.width} {grid.height} -r near"
    return f"resample it first: {warp} {shlex.quote(path or 'INPUT.tif')} {shlex.quote(stem + '_matched.tif')}"
