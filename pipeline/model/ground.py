"""How large pixels are on the ground: the same all over a raster, or in degrees row by row on the ellipsoid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.model.alignment import geo_spacing, systems
from pipeline.model.angle import cosine, sine
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec

if TYPE_CHECKING:
    import pyproj

POLE = 90 - 1e-9
"""Degrees from which on a parallel is a point."""


@dataclass(frozen=True, slots=True)
class Parallels:
    """The rows of a raster in degrees, on an ellipsoid.

    Examples
    --------
    >>> wgs84 = Parallels(first=60.0, step=-1 / 3600, width=1 / 3600, axis=6378137.0, flattening=1 / 298.257223563)
    >>> heights, widths = wgs84.sides(0, 1)
    >>> heights.round(3).tolist(), widths.round(3).tolist()
    ([-30.948], [15.5])
    """

    first: float
    """Latitude of the middle of the first row."""
    step: float
    """Degrees from one row to the next."""
    width: float
    """Degrees of longitude from one column to the next."""
    axis: float
    """The ellipsoid's larger half axis."""
    flattening: float

    def latitudes(self, top: int, bottom: int) -> np.ndarray:
        return self.first + self.step * np.arange(top, bottom, dtype=np.float64)

    def sides(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Return height (along the meridian) and width (along the parallel) of the pixels of some rows.

        In the unit of the axis, negative as the steps are; at a pole the width is NaN.
        """
        latitudes = self.latitudes(top, bottom)
        sines, square = sine(latitudes), self.flattening * (2 - self.flattening)
        rest = 1 - square * sines * sines
        root = np.sqrt(rest)
        heights = self.axis * (1 - square) / (rest * root) * (math.pi / 180) * self.step
        widths = self.axis * cosine(latitudes) / root * (math.pi / 180) * self.width
        return heights, np.where(np.abs(latitudes) > POLE, math.nan, widths)


@dataclass(frozen=True, slots=True)
class Ground:
    """How far the next row and the next column are, in some unit of length: to the south and to the east.

    Negative where rows go north, or columns west.
    """

    height: float = 1.0
    width: float = 1.0
    parallels: Parallels | None = None
    """Instead of both, where they differ from row to row."""
    off: float = 0.0
    """How far, as a share, both are off somewhere in the raster."""

    def sides(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Return both for some rows; NaN at a pole."""
        if self.parallels is None:
            return np.full(bottom - top, self.height), np.full(bottom - top, self.width)
        heights, widths = self.parallels.sides(top, bottom)
        return -heights, widths

    def per(self, metres: float) -> Ground:
        """Return the same lengths in a unit of so many metres."""
        if self.parallels is None:
            return replace(self, height=self.height / metres, width=self.width / metres)
        return Ground(parallels=replace(self.parallels, axis=self.parallels.axis / metres))


def ground_of(spec: RasterSpec) -> tuple[Ground, str]:
    """Return how large the pixels of a raster with a georeference are in metres, or micrometres, and so in words.

    Raises
    ------
    PipelineError
        Where there is no georeference, the grid is rotated, rows reach beyond a pole, or a projection is not true to
        scale and one height and width cannot stand for all of the raster.
    """
    if spec.unit is None:
        crs, base = systems(spec)
        if base is not None and crs.is_geographic:
            ground = Ground(parallels=_parallels(spec, base))
            return ground, _words(spec, ground)
    spacing = geo_spacing(spec)
    return Ground(*signed(spec, spacing.sides), off=spacing.off), str(spacing)


def signed(spec: RasterSpec, sides: tuple[float, float]) -> tuple[float, float]:
    """Return the sides of a pixel with the signs of `Ground`; rows go south where nothing says where they go."""
    height, width = sides
    if spec.transform is None or spec.transform.is_rotated or spec.unit:
        return height, width
    return math.copysign(height, -spec.transform.e), math.copysign(width, spec.transform.a)


def _parallels(spec: RasterSpec, base: pyproj.CRS) -> Parallels:
    grid, ellipsoid = spec.transform, base.ellipsoid
    assert grid is not None
    assert ellipsoid is not None
    unit = math.degrees(base.axis_info[0].unit_conversion_factor)
    unit = 1.0 if abs(unit - 1) < 1e-12 else unit  # degrees come with a factor of fewer digits than pi has
    flattening = 1 / ellipsoid.inverse_flattening if ellipsoid.inverse_flattening else 0.0  # of a sphere
    first, step, width = ((grid.f + 0.5 * grid.e) * unit, grid.e * unit, grid.a * unit)
    found = Parallels(first, step, width, ellipsoid.semi_major_metre, flattening)
    ends = sorted(float(found.latitudes(row, row + 1)[0]) for row in (0, spec.height - 1))
    if ends[0] < -90 - 1e-6 or ends[1] > 90 + 1e-6:
        raise PipelineError(
            f"`geo`: the middles of the raster's rows reach from latitude {ends[0]:g} to {ends[1]:g}; correct its "
            "transform, or give numbers"
        )
    return found


def _words(spec: RasterSpec, ground: Ground) -> str:
    assert ground.parallels is not None
    words = []
    for row in sorted({0, spec.height - 1}):
        (height,), (width,) = ground.sides(row, row + 1)
        latitude = ground.parallels.latitudes(row, row + 1)[0]
        wide = "of no width (the pole)" if math.isnan(width) else f"{abs(width):.6g} m wide"
        words.append(f"{abs(height):.6g} m high and {wide} at latitude {latitude:.6g}")
    return f"pixels are measured on the ellipsoid row by row: {', '.join(words)}"
