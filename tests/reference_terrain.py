"""Naive reference of terrain: gdaldem's formulas on windows that are cut out, in float64, with numpy's functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.testing.reference import Expected

Pair = tuple[np.ndarray, np.ndarray]
TINY = 1e-300


def terrain(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    high, wide = step.spacing if step.spacing else (1.0, 1.0)
    eps = float(np.finfo(step.working_dtype(dtype)).eps)
    found: dict[str, list[Pair]] = {name: [] for name in step.outputs}
    with np.errstate(all="ignore"):
        for plane in planes:
            for name, pair in terrain_of(step, plane, (high, wide), eps).items():
                found[name].append(pair)
    return {
        name: (np.stack([value for value, _ in pairs]), np.stack([error for _, error in pairs]))
        for name, pairs in found.items()
    }


def terrain_of(step: Any, plane: np.ndarray, sides: tuple[Any, Any], eps: float) -> dict[str, Pair]:
    """Return (value, bound on the error) of each output; `sides` are numbers, or columns of one number a row.

    The bound: rounding of the result, and what one rounding of every height (beyond an edge) makes of it.
    """
    windows = windows_of(step, plane, 1)
    centre = windows[..., 1, 1]
    valid = np.isfinite(windows).all(axis=(-2, -1))
    largest = np.where(valid, np.abs(np.nan_to_num(windows)).max(axis=(-2, -1)), 0)
    error = (4 * eps if step.compute_edges else 16 * np.finfo(float).eps) * largest  # of a difference of heights
    results: dict[str, Pair] = {}
    for name in step.outputs:
        if name in ("slope", "aspect", "hillshade"):
            value, bound = OF_GRADIENT[name](step, *_gradient(step, windows, sides), _error(error, sides), eps)
        elif name.endswith("curvature"):
            value, bound = _curvature(name, windows, sides, error, eps)
        elif name == "roughness":
            value, bound = windows.max(axis=(-2, -1)) - windows.min(axis=(-2, -1)), 2 * error
        elif name == "tpi":
            value, bound = _position(step, plane), 2 * error + 8 * eps * np.abs(np.nan_to_num(_position(step, plane)))
            if tuple(step.ring) != (1, 1.5):
                results[name] = value, 8 * eps * np.nanmax(np.abs(np.nan_to_num(plane, posinf=0, neginf=0))) + 0 * value
                continue
        else:
            apart = np.abs(windows - centre[..., None, None])
            value = apart.sum(axis=(-2, -1)) / 8 if step.tri_method == "wilson" else np.sqrt((apart**2).sum((-2, -1)))
            bound = 4 * error
        nothing = 0 if name == "hillshade" else np.nan
        results[name] = np.where(valid, value, nothing), bound + 4 * eps * np.abs(np.nan_to_num(value))
    if "hillshade" in results:
        value, bound = results["hillshade"]
        results["hillshade"] = np.where(valid, value, np.nan), np.where(bound >= 1, bound, np.floor(bound))
    return results


def windows_of(step: Any, plane: np.ndarray, reach: int) -> np.ndarray:
    """Return (y, x, row, column) of the heights around each pixel, as gdaldem fills them."""
    padded = np.pad(plane, reach, constant_values=np.nan)
    if step.compute_edges:
        padded = plane
        for axis in (1, 0):
            width = [(reach, reach) if k == axis else (0, 0) for k in range(2)]
            is_line = plane.shape[axis] > 1
            padded = (
                np.pad(padded, width, "reflect", reflect_type="odd") if is_line else np.pad(padded, width, mode="edge")
            )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    if not step.compute_edges:
        return windows
    return np.where(np.isfinite(windows), windows, windows[..., reach : reach + 1, reach : reach + 1])


def _gradient(step: Any, windows: np.ndarray, sides: tuple[Any, Any]) -> Pair:
    """Return how much the ground rises to the east and to the north."""
    high, wide = sides
    weights = np.array([1, 2, 1]) / 8 if step.method == "horn" else np.array([0, 1, 0]) / 2
    east = (windows[..., :, 2] * weights).sum(-1) - (windows[..., :, 0] * weights).sum(-1)
    north = (windows[..., 0, :] * weights).sum(-1) - (windows[..., 2, :] * weights).sum(-1)
    return east / wide, north / high


def _error(error: np.ndarray, sides: tuple[Any, Any]) -> np.ndarray:
    return error / np.minimum(np.abs(sides[0]), np.abs(sides[1]))


def _slope(step: Any, east: np.ndarray, north: np.ndarray, error: np.ndarray, eps: float) -> Pair:
    rise = np.hypot(east, north)
    if step.slope_unit == "percent":
        return 100 * rise, 200 * error
    return np.degrees(np.arctan(rise)), np.degrees(2 * error)


def _aspect(step: Any, east: np.ndarray, north: np.ndarray, error: np.ndarray, eps: float) -> Pair:
    rise = np.hypot(east, north)
    angle = np.degrees(np.arctan2(-east, -north)) % 360
    turn = np.degrees(4 * error / np.maximum(rise, TINY)) + 4 * eps * 360
    around = (error >= rise) | (angle <= turn) | (angle >= 360 - turn)  # 0 and 360 are the same
    level = np.nan if step.flat is None else step.flat
    return np.where(rise == 0, level, angle), np.where(around & (rise > 0), 360, turn)


def _hillshade(step: Any, east: np.ndarray, north: np.ndarray, error: np.ndarray, eps: float) -> Pair:
    """Return shades rounded half up; the bound is 1 where the rounding is in doubt."""
    p, q = east * step.z_factor, north * step.z_factor
    root = np.sqrt(1 + p * p + q * q)
    altitude = np.radians(step.altitude)

    def lit(azimuth: float) -> np.ndarray:
        to_north, to_east = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
        light: np.ndarray = np.sin(altitude) - np.cos(altitude) * (q * to_north + p * to_east)
        return light

    if step.shading == "multidirectional":
        downhill = np.arctan2(-east, -north)
        parts = [
            (np.cos(downhill - np.radians(azimuth)) ** 2, np.maximum(lit(azimuth), 0))
            for azimuth in (225, 270, 315, 360)
        ]
        light = 0.5 * sum(weight * shade for weight, shade in parts) / root
        light = np.where((p == 0) & (q == 0), np.sin(altitude), light)
    else:
        light = lit(step.azimuth) / root
    doubt = 254 * 8 * (error * step.z_factor + 1e-12)
    if step.shading == "multidirectional":  # the weights turn with the aspect
        doubt = doubt + 254 * 8 * error / np.maximum(np.hypot(east, north), TINY)
    if step.shading == "combined":
        away = np.arccos(np.clip(light, -1, 1)) * np.arctan(np.hypot(p, q))
        light = 1 - away / (np.pi / 2) ** 2
        doubt = np.sqrt(doubt) + doubt  # an arc cosine near 1
    shade = 1 + 254 * np.clip(light, 0, 1)
    near = np.abs((shade + 0.5) - np.rint(shade + 0.5)) <= doubt
    return np.floor(shade + 0.5), np.where(near, 1 + np.floor(np.minimum(doubt, 255)), 0.0)


OF_GRADIENT = {"slope": _slope, "aspect": _aspect, "hillshade": _hillshade}


def _curvature(name: str, windows: np.ndarray, sides: tuple[Any, Any], error: np.ndarray, eps: float) -> Pair:
    """Zevenbergen and Thorne's coefficients, as they are printed."""
    high, wide = sides
    z1, z2, z3, z4, z5, z6, z7, z8, z9 = (windows[..., k // 3, k % 3] for k in range(9))
    d = ((z4 + z6) / 2 - z5) / wide**2
    e = ((z2 + z8) / 2 - z5) / high**2
    f = (-z1 + z3 + z7 - z9) / (4 * wide * high)
    g, h = (z6 - z4) / (2 * wide), (z2 - z8) / (2 * high)
    square = g * g + h * h
    least = np.minimum(np.abs(high), np.abs(wide))
    bend = 4 * error / least**2
    if name == "mean_curvature":
        return -(d + e), bend
    turn = np.minimum(8 * error / least / np.maximum(np.sqrt(square), TINY), 2)
    bound = 2 * bend + 8 * turn * (np.abs(d) + np.abs(e) + np.abs(f)) + 16 * eps * (np.abs(d) + np.abs(e) + np.abs(f))
    sign = 1 if name == "profile_curvature" else -1
    along = d * g**2 + e * h**2 if sign > 0 else d * h**2 + e * g**2
    value = -2 * (along + sign * f * g * h) / np.where(square > 0, square, 1)
    return np.where(square > 0, value, -(d + e)), bound


def _position(step: Any, plane: np.ndarray) -> np.ndarray:
    """Return the height less the mean of the ring."""
    inner, outer = step.ring
    reach = int(outer)
    windows = windows_of(step, plane, reach)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(rows, columns)
    chosen = windows[..., (distance >= inner) & (distance <= outer)]
    centre = windows[..., reach, reach]
    value: np.ndarray = centre - chosen.mean(axis=-1)
    return np.where(np.isfinite(value), value, np.nan)


def relief(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    """Each pixel looked up in the ramp by itself, entry by entry."""
    plane = planes[0]  # the band that is picked
    inside = plane[np.isfinite(plane)]
    low, high = (inside.min(), inside.max()) if inside.size else (0.0, 0.0)
    entries, missing = [], [0.0] * 4
    for value, *color in step.colors:
        if value == "nv":
            missing = [float(channel) for channel in color]
        else:
            share = isinstance(value, str)
            entries.append((low + float(value[:-1]) / 100 * (high - low) if share else value, color))
    entries.sort(key=lambda entry: entry[0])
    found = np.array([[_color(pixel, entries, missing, step.pick) for pixel in row] for row in plane])
    found = np.moveaxis(found.reshape(*plane.shape, 4), -1, 0)[: 4 if step.alpha else 3]
    rounded = np.floor(found + 0.5)
    doubt = np.abs(found + 0.5 - np.rint(found + 0.5)) < 1e-6
    table = sorted(entries, key=lambda entry: entry[0])
    has_missing = any(value == "nv" for value, *_ in step.colors)
    values = np.array([np.nan] * has_missing + [value for value, _ in table])
    colors = np.array([missing] * has_missing + [color for _, color in table], np.float64)
    return {
        "color": (rounded, (doubt & (step.pick == "interpolate") & (found != rounded)).astype(float)),
        "table/value": (values, 1e-9 * np.abs(np.nan_to_num(values))),
        "table/color": (colors, None),
    }


def _color(pixel: float, entries: list[Any], missing: list[float], pick: str) -> list[float]:
    if np.isnan(pixel):
        return missing
    equal = [color for value, color in entries if value == pixel]
    if equal or pick == "exact":
        return equal[0] if equal else [0.0] * 4
    below, above = [e for e in entries if e[0] < pixel], [e for e in entries if e[0] > pixel]
    if not below or not above:
        return (above[0] if above else below[-1])[1]
    (first, one), (second, two) = below[-1], above[0]
    if pick == "nearest":
        return one if pixel - first < second - pixel else two
    return [a + (pixel - first) / (second - first) * (b - a) for a, b in zip(one, two, strict=True)]
