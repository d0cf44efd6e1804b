"""Fill the halo of a block where it reaches over the raster's edge."""

from __future__ import annotations

import numpy as np

from pipeline.model.region import Region


def fill_edges(
    planes: np.ndarray, lanes: int, origin: tuple[int, int], need: Region, raster: Region, rule: str, value: float | int
) -> None:
    """Fill the pixels of `need` outside `raster`, in place, from the pixels inside.

    Parameters
    ----------
    planes
        (plane, row, column x lane); its first pixel is raster row and column `origin`.
    rule
        ``reflect`` (d c b a | a b c d), ``mirror`` (d c b | a b c d), ``nearest``, or ``constant`` with `value`:
        the meaning of scipy.ndimage, also for halos wider than the raster. ``linear`` and ``quadratic`` (floating
        point): the line or parabola through the 2 or 3 outermost pixels goes on; with fewer pixels along an axis,
        the line or the constant through what there is. First columns, then rows: a corner continues both ways.
    """
    if rule in ("linear", "quadratic"):
        _extrapolate(planes, lanes, origin, need, raster, 2 if rule == "linear" else 3)
        return
    view = planes.reshape(planes.shape[0], planes.shape[1], -1, lanes)
    row, column = origin
    inside = need.clip(raster)
    rows = slice(inside.top - row, inside.bottom - row)
    for first, last in ((need.left, raster.left), (raster.right, need.right)):
        if first < last:
            target = slice(first - column, last - column)
            if rule == "constant":
                view[:, rows, target] = value
            else:
                view[:, rows, target] = view[:, rows, _sources(first, last, raster.left, raster.right, rule) - column]
    columns = slice(need.left - column, need.right - column)
    for first, last in ((need.top, raster.top), (raster.bottom, need.bottom)):
        if first < last and rule == "constant":
            view[:, first - row : last - row, columns] = value
        elif first < last:
            # row by row: no temporary copy of the whole rim
            for target_row, source in zip(
                range(first, last), _sources(first, last, raster.top, raster.bottom, rule), strict=True
            ):
                view[:, target_row - row, columns] = view[:, source - row, columns]


def _extrapolate(
    planes: np.ndarray, lanes: int, origin: tuple[int, int], need: Region, raster: Region, num: int
) -> None:
    view = planes.reshape(planes.shape[0], planes.shape[1], -1, lanes)
    row, column = origin
    inside = need.clip(raster)
    across = view[:, inside.top - row : inside.bottom - row].swapaxes(0, 2)
    down = view[:, :, need.left - column : need.right - column].swapaxes(0, 1)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities may give NaN, the largest numbers infinities
        _continue(across, column, (need.left, need.right), (raster.left, raster.right), num)
        _continue(down, row, (need.top, need.bottom), (raster.top, raster.bottom), num)


def _continue(lines: np.ndarray, first: int, need: tuple[int, int], raster: tuple[int, int], num: int) -> None:
    """Fill the lines (along the first axis; the first one is `first`) that `need` has beyond `raster`."""
    start, stop = raster
    num = min(num, stop - start)
    for line in range(start - 1, need[0] - 1, -1):
        _combine(lines, [start + k - first for k in range(num)], start - line, line - first)
    for line in range(stop, need[1]):
        _combine(lines, [stop - 1 - k - first for k in range(num)], line - stop + 1, line - first)


def _combine(lines: np.ndarray, nodes: list[int], distance: int, target: int) -> None:
    """Fill a line at a distance from the outermost node, by Lagrange's polynomial through the nodes."""
    d = distance
    weights = {1: (1,), 2: (1 + d, -d), 3: ((d + 1) * (d + 2) // 2, -d * (d + 2), d * (d + 1) // 2)}[len(nodes)]
    out = lines[target]
    np.multiply(lines[nodes[0]], weights[0], out=out)
    for node, weight in zip(nodes[1:], weights[1:], strict=True):
        out += lines[node] * weight


def _sources(first: int, last: int, start: int, stop: int, rule: str) -> np.ndarray:
    """Return the coordinates inside ``[start, stop)`` that coordinates ``[first, last)`` repeat.

    Examples
    --------
    >>> _sources(-3, 0, 0, 2, "reflect").tolist(), _sources(-3, 0, 0, 4, "mirror").tolist()
    ([1, 1, 0], [3, 2, 1])
    """
    length = stop - start
    index = np.arange(first, last) - start
    if rule == "nearest" or length == 1:
        return start + np.clip(index, 0, length - 1)
    period = 2 * length if rule == "reflect" else 2 * length - 2
    index %= period
    return start + np.where(index < length, index, period - index - (rule == "reflect"))
