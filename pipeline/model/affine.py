"""The affine transform of a raster: from columns and rows to the coordinates of its system."""

from __future__ import annotations

import math
from typing import NamedTuple


class Affine(NamedTuple):
    """x = a column + b row + c, y = d column + e row + f; whole columns and rows are corners of pixels.

    Examples
    --------
    >>> Affine(10.0, 0.0, 500.0, 0.0, -10.0, 800.0).shift(rows=2, columns=1)
    (10.0, 0.0, 510.0, 0.0, -10.0, 780.0)
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def __repr__(self) -> str:
        return repr(tuple(self))

    @classmethod
    def from_gdal(cls, c: float, a: float, b: float, f: float, d: float, e: float) -> Affine:
        """Return the transform of six numbers in GDAL's order."""
        return cls(a, b, c, d, e, f)

    @property
    def gdal(self) -> tuple[float, ...]:
        """The six numbers in GDAL's order."""
        return self.c, self.a, self.b, self.f, self.d, self.e

    @property
    def is_rotated(self) -> bool:
        """Whether rows and columns are no directions of the system."""
        return bool(self.b or self.d)

    @property
    def is_invertible(self) -> bool:
        return all(map(math.isfinite, self)) and self.a * self.e != self.b * self.d

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Height and width of a pixel: the lengths of its sides."""
        return math.hypot(self.b, self.e), math.hypot(self.a, self.d)

    def shift(self, rows: float, columns: float) -> Affine:
        """Return the transform of a raster that begins so many pixels further down and to the right."""
        return self._replace(c=self.c + self.a * columns + self.b * rows, f=self.f + self.d * columns + self.e * rows)

    def scale(self, rows: float, columns: float) -> Affine:
        """Return the transform of pixels that are so many times as high and wide, from the same corner on."""
        return Affine(self.a * columns, self.b * rows, self.c, self.d * columns, self.e * rows, self.f)

    def centres_to_corners(self) -> Affine:
        """Return the transform of corners, where this one speaks of whole columns and rows as centres of pixels."""
        return self._replace(c=self.c - (self.a + self.b) / 2, f=self.f - (self.d + self.e) / 2)

    def corners_to_centres(self) -> Affine:
        """Return the transform by which whole columns and rows are centres of pixels."""
        return self._replace(c=self.c + (self.a + self.b) / 2, f=self.f + (self.d + self.e) / 2)

    def spans(self, height: int, width: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return what a raster that is not rotated spans: x and y, each the smaller first."""
        xs = sorted((self.c, self.c + self.a * width))
        ys = sorted((self.f, self.f + self.e * height))
        return (xs[0], xs[1]), (ys[0], ys[1])
