"""A bank of filters over a part of one band: responses, and the statistics of their windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.kernels import convolution, window
from pipeline.kernels.edge import fill_edges
from pipeline.kernels.extreme import Growth, mend
from pipeline.kernels.footprint import Footprint
from pipeline.kernels.frame import Frame
from pipeline.kernels.gabor import Group
from pipeline.kernels.gabor_rows import L1_COLUMNS, Terms, respond
from pipeline.kernels.gabor_vector import VECTOR
from pipeline.kernels.window import power_moments
from pipeline.kernels.window_power import power_bytes
from pipeline.model.region import Halo, Region

STRIP_COLUMNS = 1024
"""About the columns that are computed at a time: the column sums of a strip then fit the second-level cache."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band, what lies beyond the raster, and the window."""

    values: np.ndarray
    """(row, column), C-contiguous, float32 or float64; NaN and inf are invalid."""
    origin: tuple[int, int]
    """Raster row and column of the first value."""
    raster: Region
    rule: str
    """How the **responses** go on beyond the raster: a rule of `fill_edges`, or ``wrap``, for which the values do."""
    cval: float
    size: tuple[int, int] | None
    """Height and width of the window; None for the responses themselves."""

    @property
    def margin(self) -> Halo:
        height, width = self.size or (1, 1)
        return Halo.around(height // 2, width // 2)


def compute_bank(
    groups: Sequence[Group], band: Band, out: Mapping[str, np.ndarray], corner: tuple[int, int], region: Region
) -> None:
    """Fill ``response``, or any of ``mean, var, std``, over a region inside the raster.

    Each array of `out` is (filter, row, column) and begins at raster row and column `corner`. The band holds the
    region with the margin of the window and the reach of the kernels around it.
    """
    for group in groups:
        _compute_group(group, band, out, corner, region)

    def again(values: np.ndarray, out: Mapping[str, np.ndarray], frame: Frame, factor: float) -> None:
        own = replace(band, values=values[0], origin=frame.origin, cval=band.cval * factor)
        for group in groups:
            _compute_group(group, own, out, frame.out_origin, frame.region)

    rows, columns = (max(group.reach[axis] for group in groups) for axis in (0, 1))
    frame, reach = Frame(region, band.origin, corner), band.margin + Halo.around(rows, columns)
    is_root = any(len(group.signs) > len(group.filters) or len(group.direct) > 1 for group in groups)
    squares = frozenset(out) if is_root else window.GROWTH.squares
    growth = Growth({"response": 1} | dict(window.GROWTH.powers), squares)
    mend(again, band.values[np.newaxis], out, frame, reach, growth)


def _compute_group(
    group: Group, band: Band, out: Mapping[str, np.ndarray], corner: tuple[int, int], region: Region
) -> None:
    need = region.grow(band.margin)
    found = responses(group, band, need)
    if band.size is None:
        out["response"][(list(group.filters), *region.slices(corner))] = found
        return
    frame, rule = Frame(region, (need.top, need.left), corner), window.WindowRule(Footprint.rectangle(band.size))
    for response, position in zip(found, group.filters, strict=True):
        planes = {name: array[position : position + 1] for name, array in out.items()}
        if found.dtype == np.float32:
            power_moments(response[np.newaxis], planes, frame, rule)
        else:
            window.moments(response[np.newaxis], None, planes, frame, rule)


def responses(group: Group, band: Band, need: Region) -> np.ndarray:
    """Return the responses (filter, row, column) of a group over `need`, which may reach over the raster's edge.

    A response is NaN where an invalid value lies anywhere in the rectangle of its kernel.
    """
    out = np.empty((len(group.filters), *need.shape), band.values.dtype)
    inside = need if band.rule == "wrap" else need.clip(band.raster)
    if group.direct:
        _sum_directly(group, band, out, need, inside)
    else:
        values, origin = _widened(band, inside.grow(Halo.around(*group.reach)))
        place = Frame(inside, origin, (need.top, need.left)).place(*group.reach)
        magnitude = len(group.signs) > len(group.filters)
        terms = Terms(group.down, group.across, group.columns, group.signs, magnitude)
        respond(values, out, terms, place, _strip(group, inside.width))
    if inside != need:
        fill_edges(out, 1, (need.top, need.left), need, band.raster, band.rule, band.cval)
    return out


def _widened(band: Band, around: Region) -> tuple[np.ndarray, tuple[int, int]]:
    """Return values that hold `around`, and raster row and column of the first: a copy if narrower than a vector."""
    if around.width >= VECTOR:
        return band.values, band.origin
    part = band.values[around.slices(band.origin)]
    return np.pad(part, ((0, 0), (0, VECTOR - around.width))), (around.top, around.left)


def _sum_directly(group: Group, band: Band, out: np.ndarray, need: Region, inside: Region) -> None:
    corner = need.top, need.left
    frame = Frame(inside, band.origin, corner)
    convolution.correlate(band.values[np.newaxis], group.direct[0], out, frame)
    if len(group.direct) > 1:
        imaginary = np.empty_like(out)
        convolution.correlate(band.values[np.newaxis], group.direct[1], imaginary, frame)
        part = (slice(None), *inside.slices(corner))
        np.hypot(out[part], imaginary[part], out=out[part])


def scratch_bytes(
    groups: Sequence[Group], shape: tuple[int, int], size: tuple[int, int] | None, dtype: np.dtype
) -> int:
    """Return a bound of what `compute_bank` allocates for a region of `shape`."""
    height, width = size or (1, 1)
    need = shape[0] + height - 1, shape[1] + width - 1
    pixels = need[0] * need[1] * dtype.itemsize
    most = max(_group_bytes(group, need, pixels) for group in groups)
    if size is None:
        return most
    if dtype == np.float32:
        return most + power_bytes(shape, size, 1, dtype.itemsize)
    return most + window.scratch_bytes(shape, Footprint.rectangle(size), 1, dtype.itemsize)


def _group_bytes(group: Group, need: tuple[int, int], pixels: int) -> int:
    if group.direct:
        taps = max(convolution.scratch_bytes(need, weights, 1) for weights in group.direct)
        return pixels * len(group.direct) + taps
    rows = len(group.down) * (_strip(group, need[1]) + group.size[1] + 64) + (len(group.across) + 3) * (L1_COLUMNS + 64)
    narrow = (need[0] + group.size[0]) * VECTOR if need[1] < VECTOR else 0
    return pixels * len(group.filters) + 8 * (VECTOR * rows + narrow) + 4096


def _strip(group: Group, width: int) -> int:
    """Return how many columns are computed at a time: equal parts, as neighbours sum the columns of a reach twice."""
    return -(-width // max(1, round(width / max(STRIP_COLUMNS, 4 * group.size[1]))))
