"""Measures of terrain from windows of 3 x 3 heights: any subset from one read.

Arrays are planes (`pipeline.kernels.frame`) of one floating-point dtype; hillshade is uint8. A window is

    northwest  north   northeast        above
    west       centre  east             level
    southwest  south   southeast        below

where rows go south and columns east (negative sides of a pixel say the opposite). Differences are taken in float64,
each of two pixels first, and results are rounded once. All is arithmetic, the arc tangent too, element by element: a
pixel's results depend on its window alone, to the bit, and not on the block, the lanes or the machine.

A window that holds NaN or an infinity gives NaN (of hillshade 0); with `fill`, such a pixel counts as the centre does,
and only an invalid centre gives NaN: gdaldem's rules, without and with its compute_edges. (GDAL 3.6,
apps/gdaldem_lib.cpp; Horn 1981; Zevenbergen and Thorne 1987.)

Examples
--------
>>> import numpy as np
>>> from pipeline.model.region import Region
>>> rows, columns = np.mgrid[0:3, 0:3].astype(float)
>>> heights = (10 * columns)[np.newaxis]  # rises to the east
>>> out = {name: np.empty((1, 1, 1)) for name in ("slope", "aspect", "roughness")}
>>> sides = Sides(np.array([10.0]), np.array([10.0]))
>>> terrain(heights, out, Frame(Region(1, 2, 1, 2), origin=(0, 0), out_origin=(1, 1)), sides, Rule())
>>> {name: round(float(array[0, 0, 0]), 9) for name, array in out.items()}
{'slope': 45.0, 'aspect': 270.0, 'roughness': 20.0}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import kernel, owning
from pipeline.kernels.frame import Frame, Line
from pipeline.kernels.terrain_row import (
    Window,
    add_differences,
    aspects,
    curvatures,
    finish_tpi,
    gradients,
    hillshades,
    roughnesses,
    ruggednesses,
    slopes,
)
from pipeline.kernels.window_part import scratch

FLOATS = ("slope", "aspect", "roughness", "tpi", "tri", "profile_curvature", "plan_curvature", "mean_curvature")
OUTPUTS = (*FLOATS, "hillshade")
OF_SIDES = frozenset({"slope", "aspect", "hillshade", *FLOATS[5:]})
"""Outputs that depend on how large pixels are."""


class Rule(NamedTuple):
    """What is computed, for kernels."""

    horn: bool = True
    """Gradients by Horn, else by Zevenbergen and Thorne."""
    fill: bool = False
    percent: bool = False
    wilson: bool = False
    """Ruggedness by Wilson, else by Riley."""
    level: float = math.nan
    """The aspect where the ground is level."""
    shading: int = 0
    """0: of one light; 1: of four; 2: combined with the slope."""
    z: float = 1.0
    """Heights are exaggerated so for the hillshade."""
    sine: float = math.sqrt(0.5)
    """Of the light's altitude."""
    cosine: float = math.sqrt(0.5)
    to_north: float = math.sqrt(0.5)
    """Cosine and sine of the light's azimuth."""
    to_east: float = -math.sqrt(0.5)


class Sides(NamedTuple):
    """Height and width of a pixel for each row of a region, in the unit of the heights; NaN: there is none.

    Negative where rows go north, or columns west.
    """

    heights: np.ndarray
    widths: np.ndarray


def ring(inner: float, outer: float) -> np.ndarray:
    """Return the places (pixel, 2: rows and columns) at a distance from `inner` to `outer` pixels, row by row.

    Examples
    --------
    >>> ring(1, 1).tolist(), len(ring(1, 1.5))
    ([[-1, 0], [0, -1], [0, 1], [1, 0]], 8)
    """
    places = list(_ring(inner, outer))
    return np.array(places, np.int64).reshape(-1, 2)


def _ring(inner: float, outer: float) -> Iterator[tuple[int, int]]:
    reach = math.floor(outer)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            if inner * inner <= row * row + column * column <= outer * outer:
                yield row, column


EIGHT = ring(1, 1.5)


def terrain(
    values: np.ndarray,
    out: Mapping[str, np.ndarray],
    frame: Frame,
    sides: Sides,
    rule: Rule,
    places: np.ndarray = EIGHT,
) -> None:
    """Fill any of `OUTPUTS` over the frame's region, in one sweep over the rows of `values`.

    `values` holds a pixel more on each side, and for `tpi` what the ring of `places` reaches. Heights up to 1e300 have
    results; of larger ones, differences may be infinite and their results then are NaN.
    """
    unused = np.empty((0, 0, 0), values.dtype)
    shade = out.get("hillshade", np.empty((0, 0, 0), np.uint8))
    floats = tuple(out.get(name, unused) for name in FLOATS)
    terrain_rows(values, floats, shade, frame.place(), frame.lanes, rule, sides, places)


def scratch_bytes(width: int, lanes: int) -> int:
    """Return a bound of what `terrain` allocates for a region of this width."""
    return (4 * (width * lanes + 512) + 64) * 8


@kernel
def terrain_rows(
    values: Any, outs: Any, shade: Any, place: Any, lanes: Any, rule: Any, sides: Any, places: Any
) -> None:
    """Fill the arrays of `outs` (in the order of `FLOATS`) and `shade`, those that are not empty."""
    num = place.num
    spare = scratch(4, num, np.float64)
    east, north, mean = spare[0, :num], spare[1, :num], spare[2, :num]
    start, stop = place.left - lanes, place.left + num + lanes
    for plane in range(values.shape[0]):
        for row in range(place.num_rows):
            line = Line(plane, place.out_top + row, place.out_left, num)
            top = place.top + row
            window = Window(
                values[plane, top - 1, start:stop],
                values[plane, top, start:stop],
                values[plane, top + 1, start:stop],
                lanes,
                sides.heights[row],
                sides.widths[row],
            )
            if outs[0].size + outs[1].size + shade.size:
                gradients(window, rule, east, north)
            if outs[0].size:
                slopes(east, north, rule, part(outs[0], line))
            if outs[1].size:
                aspects(east, north, rule, part(outs[1], line))
            if shade.size:
                hillshades(east, north, rule, part(shade, line))
            if outs[2].size:
                roughnesses(window, rule, part(outs[2], line))
            if outs[3].size:
                mean[:] = 0.0
                for k in range(places.shape[0]):
                    left = place.left + places[k, 1] * lanes
                    beside = values[plane, top + places[k, 0], left : left + num]
                    add_differences(beside, window.level[lanes:], rule, mean)
                finish_tpi(mean, places.shape[0], part(outs[3], line))
            if outs[4].size:
                ruggednesses(window, rule, part(outs[4], line))
            if outs[5].size + outs[6].size + outs[7].size:
                profile, plan = part_or(outs[5], line, spare[0]), part_or(outs[6], line, spare[1])
                curvatures(window, rule, profile, plan, part_or(outs[7], line, spare[2]))


@owning
def part(out: Any, line: Any) -> Any:
    """Return the part of a row of an output that is computed now."""
    return out[line.plane, line.row, line.left : line.left + line.num]


@owning
def part_or(out: Any, line: Any, spare: Any) -> Any:
    """Return the part of a row of an output, or a spare row (of the same dtype, seen so) if nobody wants it."""
    return part(out, line) if out.size else spare.view(out.dtype)[: line.num]
