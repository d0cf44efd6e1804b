"""How many bytes a row of a partial table of `label_stats` has."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.kernels.label_geometry import GEOMETRY
from pipeline.kernels.label_width import Width

_ALWAYS = 24
"""Label, pixels, bands, lowest words."""
_TALLY, _BORDER = 96, 24


def row_bytes(names: Iterable[str], num_bands: int, width: Width, num_bins: int) -> int:
    """Return the bytes of a row for these statistics and this geometry, of values of this width."""
    names = set(names)
    sums = width.sum_bytes if names & {"sum", "mean", "var", "std", "centroid_weighted"} else 0
    squares = width.square_bytes if names & {"var", "std"} else 0
    moments = 2 * width.moments.sum_bytes if "centroid_weighted" in names else 0
    extrema = 16 if names & {"min", "max", "range"} else 0
    places = (_TALLY if names & set(GEOMETRY) else 0) + (_BORDER if "perimeter" in names else 0)
    return _ALWAYS + places + num_bands * (8 + sums + squares + moments + extrema + 8 * num_bins)
