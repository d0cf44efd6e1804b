"""The geometry that `label_stats` has of labels: its names, its columns, and what it cannot be measured of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from pipeline.kernels.label_border import REACH
from pipeline.kernels.label_geometry import MOST_ROWS, SHAPES
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Halo

Geometry = Literal[
    "centroid",
    "centroid_weighted",
    "bbox",
    "area",
    "perimeter",
    "major_axis",
    "minor_axis",
    "orientation",
    "eccentricity",
    "equivalent_diameter",
]
MEASURED = (*SHAPES, "perimeter")
"""In the unit of `spacing`."""
_COLUMNS = {
    "centroid": ("centroid_y", "centroid_x"),
    "centroid_weighted": ("centroid_weighted_y", "centroid_weighted_x"),
    "bbox": ("bbox_top", "bbox_bottom", "bbox_left", "bbox_right"),
}
_BY_BAND = {"centroid_weighted"}


def column_dims(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns of a table for some geometry, with their dims."""
    return {
        column: ("label", "band") if name in _BY_BAND else ("label",)
        for name in names
        for column in _COLUMNS.get(name, (name,))
    }


def columns(found: Mapping[str, np.ndarray], names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns of what kernels found; a box by its ends, where they have the last row and column."""
    for name in names:
        values = found[name] + np.array([0, 1, 0, 1]) if name == "bbox" else found[name]
        each = np.moveaxis(values, -1, 0) if name in _COLUMNS else [values]
        yield from zip(_COLUMNS.get(name, (name,)), map(np.ascontiguousarray, each), strict=True)


def sweep_halo(names: Iterable[str]) -> Halo:
    """Return what of the labels around a block is looked at."""
    return Halo.around(REACH, REACH) if "perimeter" in names else Halo()


def check_geometry(names: Iterable[str], source: RasterSpec, spacing: object) -> None:
    """Refuse rasters whose sums of products of coordinates would not be exact, and perimeters of oblong pixels."""
    if max(source.height, source.width) > MOST_ROWS:
        raise PipelineError(
            f"geometry is for up to {MOST_ROWS} rows and columns, the input has {source.height} x {source.width}; "
            "choose a `region`",
            ("geometry",),
        )
    if "perimeter" in names and isinstance(spacing, tuple) and spacing[0] != spacing[1]:
        raise PipelineError(
            f"perimeter is for square pixels, and these are {spacing[0]!r} x {spacing[1]!r}; leave `spacing` out "
            "(the perimeter is in pixels then), or give one number",
            ("spacing",),
        )
