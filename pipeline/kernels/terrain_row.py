"""Measures of terrain along one row: the loops of `kernels.terrain`.

An element of an output is made of the nine heights around it, see `kernels.terrain`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.kernels.compile import inner
from pipeline.kernels.difference_row import degrees_of, length_of


class Window(NamedTuple):
    """What a row of results is computed from."""

    above: Any
    """Three rows of heights, which begin one pixel left of the results and end one right of them."""
    level: Any
    below: Any
    lanes: Any
    high: Any
    """Height and width of a pixel."""
    wide: Any


@inner
def usable(value: Any, centre: Any, fill: Any) -> Any:
    """Return a height in float64; with `fill`, that of the centre for one that is not finite."""
    height = np.float64(value)
    return centre if fill and height - height != 0 else height


@inner
def heights_of(window: Any, c: Any, fill: Any) -> Any:
    """Return the nine heights around an element, row by row."""
    above, level, below = window.above, window.level, window.below
    at, east = c + window.lanes, c + 2 * window.lanes
    centre = np.float64(level[at])
    return (
        usable(above[c], centre, fill),
        usable(above[at], centre, fill),
        usable(above[east], centre, fill),
        usable(level[c], centre, fill),
        centre,
        usable(level[east], centre, fill),
        usable(below[c], centre, fill),
        usable(below[at], centre, fill),
        usable(below[east], centre, fill),
    )


@inner
def gradients(window: Any, rule: Any, east: Any, north: Any) -> None:
    """Write how much the ground rises to the east and to the north, for each unit of length."""
    weight = 8.0 if rule.horn else 2.0
    by_east, by_north = weight * window.wide, weight * window.high
    corners, sides = (1.0, 2.0) if rule.horn else (0.0, 1.0)
    for c in range(east.size):
        nw, n, ne, w, centre, e, sw, s, se = heights_of(window, c, rule.fill)
        # 0, or NaN where a pixel of the window is NaN or an infinity: also of those that no difference reads
        bad = (((nw - nw) + (n - n)) + ((ne - ne) + (w - w))) + (((centre - centre) + (e - e)) + ((sw - sw) + (s - s)))
        bad += se - se
        x = ((ne - nw) + (se - sw)) * corners + (e - w) * sides
        y = ((nw - sw) + (ne - se)) * corners + (n - s) * sides
        east[c] = x / by_east + bad
        north[c] = y / by_north + bad


@inner
def slopes(east: Any, north: Any, rule: Any, out: Any) -> None:
    for c in range(out.size):
        rise = length_of(east[c], north[c])
        bad = (east[c] - east[c]) + (north[c] - north[c])
        out[c] = (rise * 100.0 if rule.percent else degrees_of(rise, 1.0)) + bad


@inner
def aspects(east: Any, north: Any, rule: Any, out: Any) -> None:
    """Write where the ground falls to, in degrees from north by east, from 0 to below 360."""
    for c in range(out.size):
        angle = degrees_of(-east[c], -north[c])  # of a vector from its north to its east
        angle = angle + 360.0 if angle < 0 else angle
        angle = rule.level if east[c] == 0 and north[c] == 0 else angle
        rounded = out.dtype.type(angle + ((east[c] - east[c]) + (north[c] - north[c])))
        out[c] = 0 if rounded == 360 else rounded


@inner
def hillshades(east: Any, north: Any, rule: Any, out: Any) -> None:
    """Write 1 to 255, rounded half up, and 0 where there is none."""
    for c in range(out.size):
        x, y = east[c] * rule.z, north[c] * rule.z
        if rule.shading == 1:
            light = of_four(x, y, rule)
        else:
            light = (rule.sine - rule.cosine * (y * rule.to_north + x * rule.to_east)) / length_of(length_of(x, y), 1.0)
        if rule.shading == 2:
            # acos by atan2: to 1e-8 where the light falls straight on the ground
            away = degrees_of(np.sqrt(max(1.0 - light * light, 0.0)), light)
            light = 1.0 - away * degrees_of(length_of(x, y), 1.0) / 8100.0
        shade = 1.0 + 254.0 * min(max(light, 0.0), 1.0) + ((x - x) + (y - y))
        out[c] = np.uint8(np.floor(shade + 0.5)) if shade == shade else np.uint8(0)


@inner
def of_four(x: Any, y: Any, rule: Any) -> Any:
    """Return the shade of lights from 225, 270, 315 and 360 degrees, weighed by the sine of what the ground turns away.

    Squared, that is; their sum is 2. (Mark 1992, USGS Open-File Report 92-422.)
    """
    rise = length_of(x, y)
    by = rise if rise > 0 else 1.0
    u, v = x / by, y / by
    across = rule.cosine * 0.7071067811865476
    southwest = (0.5 + u * v) * max(rule.sine + (x + y) * across, 0.0)
    northwest = (0.5 - u * v) * max(rule.sine + (x - y) * across, 0.0)
    west = u * u * max(rule.sine + x * rule.cosine, 0.0)
    north = v * v * max(rule.sine - y * rule.cosine, 0.0)
    total = 0.5 * ((southwest + northwest) + (west + north)) / length_of(rise, 1.0)
    return total if rise > 0 else rule.sine


@inner
def roughnesses(window: Any, rule: Any, out: Any) -> None:
    """Write the largest height of the window less the smallest."""
    for c in range(out.size):
        heights = heights_of(window, c, rule.fill)
        low, high, bad = heights[0], heights[0], 0.0
        for height in heights:
            low, high, bad = min(low, height), max(high, height), bad + (height - height)
        out[c] = (high - low) + bad


@inner
def add_differences(beside: Any, level: Any, rule: Any, total: Any) -> None:
    """Add how much one neighbour of each pixel is higher."""
    for c in range(total.size):
        centre = np.float64(level[c])
        total[c] += usable(beside[c], centre, rule.fill) - centre


@inner
def finish_tpi(total: Any, num: Any, out: Any) -> None:
    """Write how much each pixel is higher than the mean of so many neighbours."""
    for c in range(out.size):
        out[c] = -total[c] / num + (total[c] - total[c])


@inner
def ruggednesses(window: Any, rule: Any, out: Any) -> None:
    """Write the root of the sum of the squared differences from the centre (Riley), or their mean size (Wilson)."""
    for c in range(out.size):
        nw, n, ne, w, centre, e, sw, s, se = heights_of(window, c, rule.fill)
        nw, n, ne, w = abs(nw - centre), abs(n - centre), abs(ne - centre), abs(w - centre)
        e, sw, s, se = abs(e - centre), abs(sw - centre), abs(s - centre), abs(se - centre)
        total = ((nw + n) + (ne + w)) + ((e + sw) + (s + se))
        by = max(max(max(nw, n), max(ne, w)), max(max(e, sw), max(s, se)))  # squares neither overflow nor vanish
        by = by if by > 0 else 1.0
        nw, n, ne, w, e, sw, s, se = nw / by, n / by, ne / by, w / by, e / by, sw / by, s / by, se / by
        squares = ((nw * nw + n * n) + (ne * ne + w * w)) + ((e * e + sw * sw) + (s * s + se * se))
        out[c] = (total / 8.0 if rule.wilson else by * np.sqrt(squares)) + (total - total)


@inner
def curvatures(window: Any, rule: Any, profile: Any, plan: Any, mean: Any) -> None:
    """Write second derivatives of the ground with the sign by which a dome is positive: along the slope, across, mean.

    Of the surface through nine heights (Zevenbergen and Thorne 1987). Where the ground is level, all are the mean.
    """
    high, wide = window.high, window.wide
    for c in range(mean.size):
        nw, n, ne, w, centre, e, sw, s, se = heights_of(window, c, rule.fill)
        xx = ((e - centre) - (centre - w)) / (2.0 * wide * wide)
        yy = ((n - centre) - (centre - s)) / (2.0 * high * high)
        xy = ((ne - nw) - (se - sw)) / (4.0 * wide * high)
        x, y = (e - w) / (2.0 * wide), (n - s) / (2.0 * high)
        rise = length_of(x, y)
        by = rise if rise > 0 else 1.0
        u, v = x / by, y / by
        bad = (xx - xx) + (yy - yy) + (xy - xy) + (rise - rise)
        mean[c] = bad - (xx + yy)
        along = -2.0 * ((xx * u * u + yy * v * v) + xy * u * v)
        across = -2.0 * ((xx * v * v + yy * u * u) - xy * u * v)
        profile[c] = bad + (along if rise > 0 else -(xx + yy))
        plan[c] = bad + (across if rise > 0 else -(xx + yy))
