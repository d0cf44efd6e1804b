"""Polygons that have pixels in common, in layers in which none have: so that each has all its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.kernels.polygon_overlap import first_fit, shared_pixels
from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.vector.polygons import Polygons

PAIR_BYTES = 40
"""Of a pair of polygons, while it is found and sorted."""
MOST_LAYERS = 256


@dataclass(frozen=True)
class Layers:
    """The layer of each polygon; those of one id are in one."""

    number: int
    of_polygon: np.ndarray
    """uint16, from 0."""
    num_pairs: int
    """Of ids that have pixels in common."""
    pairs: tuple[tuple[int, int], ...]
    """The first of them."""

    def check(self, path: str) -> None:
        """Raise InputError where there are too many layers to be bands."""
        if self.number > MOST_LAYERS:
            raise InputError(
                f"{path}: {self.num_pairs:,} pairs of polygons or more have pixels in common, and lie more than "
                f"{MOST_LAYERS} deep; keep some by `where`, or the last of each pixel by `overlap: last`"
            )


def layers_of(polygons: Polygons, shape: tuple[int, int], all_touched: bool, limits: ReadLimits) -> Layers:
    """Return the layers of polygons on a raster; more than `MOST_LAYERS` where there are more, or too many pairs."""
    ids, labels = np.unique(polygons.ids, return_inverse=True)
    most = limits.allocation_bytes // PAIR_BYTES
    pairs = shared_pixels(polygons.edges, polygons.starts, labels, shape, all_touched, most)
    if pairs is None:
        return Layers(MOST_LAYERS + 1, np.zeros(0, np.uint16), most + 1, ())
    layers = first_fit(pairs, len(ids))
    some = tuple((int(ids[a]), int(ids[b])) for a, b in pairs[:3])
    return Layers(int(layers.max(initial=0)) + 1, layers[labels].astype(np.uint16), len(pairs), some)
