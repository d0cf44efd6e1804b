"""How many bytes a row of a partial table of `label_stats` has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.kernels.label_geometry import GEOMETRY
from pipeline.kernels.label_width import Width, width_of_dtype

WEIGHTED = width_of_dtype(np.dtype(np.float64))
"""Of weights, whatever they are; products that are wider are refused."""
_TERMS = 7
"""Numbers that a weighted value and its square are sums of, at most."""
_ALWAYS = 24
"""Label, pixels, bands, lowest words."""
_TALLY, _BORDER = 96, 24


def row_bytes(names: Iterable[str], num_bands: int, width: Width, num_bins: int, weights: Width | None) -> int:
    """Return a bound of the bytes of a row for these statistics and this geometry.

    By the widths of values, and of weights if there are. The sums that weighted ones are made of are counted, too:
    they are there beside them.
    """
    names, one = set(names), weights or Width(0, 0)
    sums = (width * one).sum_bytes if names & {"sum", "mean", "var", "std", "centroid_weighted"} else 0
    squares = (width * width * one).sum_bytes if names & {"var", "std"} else 0
    moments = 2 * width.moments.sum_bytes if "centroid_weighted" in names else 0
    extrema = 16 if names & {"min", "max", "range"} else 0
    places = (_TALLY if names & set(GEOMETRY) else 0) + (_BORDER if "perimeter" in names else 0)
    weighted = weights.sum_bytes + _TERMS * (16 + max(weights.sum_bytes, sums, squares)) if weights else 0
    return _ALWAYS + places + num_bands * (8 + sums + squares + moments + extrema + weighted + 8 * num_bins)
