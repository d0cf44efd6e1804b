"""Scale bar and north arrow: what a raster's georeference says of lengths and directions in its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.model.raster import RasterSpec


@dataclass(frozen=True)
class ScaleBar:
    """A length that fits a picture."""

    pixels: float
    """Of the raster, along a row."""
    text: str


STEPS = (1.0, 2.0, 5.0)
NAMES = ((1000.0, "km"), (1.0, "m"), (0.01, "cm"), (0.001, "mm"), (1e-6, "µm"), (1e-9, "nm"))


def scale_bar(spec: RasterSpec, longest: float) -> ScaleBar | None:
    """Return a round length of at most so many pixels along a row, None where lengths are not known.

    Of degrees it holds along the middle row, on the ellipsoid of the coordinate system.
    """
    metres = _pixel_metres(spec)
    if metres is None or not math.isfinite(metres) or metres <= 0 or longest <= 0:
        return None
    most = metres * longest
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in STEPS if step * power <= most * (1 + 1e-9))
    size, unit = next(((size, unit) for size, unit in NAMES if length >= size * (1 - 1e-9)), NAMES[-1])
    return ScaleBar(length / metres, f"{length / size:g} {unit}")


def _pixel_metres(spec: RasterSpec) -> float | None:
    """Return the width of a pixel."""
    transform = spec.transform
    if transform is None:
        return None
    if spec.unit == "micrometer":
        return transform.pixel_size[1] * 1e-6
    if spec.crs is None:
        return None
    import pyproj
    import pyproj.exceptions

    try:
        crs = pyproj.CRS(spec.crs)
        if not crs.is_geographic:
            return transform.pixel_size[1] * float(crs.axis_info[0].unit_conversion_factor or "nan")
        row, column = spec.height / 2, spec.width / 2
        x, y = (
            (transform.a * column + transform.b * row + transform.c),
            (transform.d * column + transform.e * row + transform.f),
        )
        geod = crs.get_geod()
        return None if geod is None else float(geod.inv(x, y, x + transform.a, y + transform.d)[2])
    except (pyproj.exceptions.ProjError, IndexError, ValueError):
        return None


def north(spec: RasterSpec) -> float | None:
    """Return the direction of grid north in the picture: degrees clockwise from up; None where it is not known."""
    transform = spec.transform
    if spec.crs is None or transform is None or not transform.is_invertible:
        return None
    determinant = transform.a * transform.e - transform.b * transform.d
    right, down = -transform.b / determinant, transform.a / determinant  # where y grows by one and x does not
    return math.degrees(math.atan2(right, -down))
