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
MOST_CROSSINGS, FEW_CROSSINGS = 2**31, 2**25
"""Rows that edges cross, in all, that are looked at (0.1 microseconds each): for layers, and just to say it."""


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
    refusal: str = ""
    """Why polygons cannot be read as layers."""

    def check(self, path: str) -> None:
        """Raise InputError where they cannot be bands."""
        if self.refusal:
            raise InputError(
                f"{path}: {self.refusal}; keep some by `where`, or the last of each pixel by `overlap: last`"
            )


def layers_of(
    polygons: Polygons, shape: tuple[int, int], all_touched: bool, most_crossings: int, limits: ReadLimits
) -> Layers:
    """Return the layers of polygons on a raster, or why there are none."""
    heights = np.clip(polygons.edges[:, 3], 0, shape[0]) - np.clip(polygons.edges[:, 1], 0, shape[0])
    if (crossings := int(heights.sum())) > most_crossings:
        told = f"its edges cross {crossings:,} rows of pixels, too many to see which polygons have pixels in common"
        return Layers(1, np.zeros(0, np.uint16), 0, (), told)
    ids, labels = np.unique(polygons.ids, return_inverse=True)
    most = limits.allocation_bytes // PAIR_BYTES
    pairs = shared_pixels(polygons.edges, polygons.starts, labels, shape, all_touched, most)
    if pairs is None:
        told = f"more than {most:,} pairs of polygons have pixels in common"
        return Layers(1, np.zeros(0, np.uint16), most + 1, (), told)
    layers = first_fit(pairs, len(ids))
    some = tuple((int(ids[a]), int(ids[b])) for a, b in pairs[:3])
    number = int(layers.max(initial=0)) + 1
    told = (
        f"{len(pairs):,} pairs of polygons have pixels in common, {number} above each other, the most are {MOST_LAYERS}"
    )
    refusal = told if number > MOST_LAYERS else ""
    return Layers(number, layers[labels].astype(np.uint16), len(pairs), some, refusal)
