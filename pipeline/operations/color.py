"""What palettes have in common: files, and the dtype of their colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.storage.matrix import SUFFIXES

MAX_COLORS = 65_536


def is_file(palette: Any) -> bool:
    """Return whether a palette is given as the path of a file, not as a step or a list."""
    return isinstance(palette, str) and palette.lower().endswith(SUFFIXES)


def color_dtype(colors: np.ndarray, dtype: np.dtype, working: np.dtype) -> np.dtype:
    """Return the raster's dtype where all colours occur in it, else the working dtype."""
    if dtype.kind == "f":
        return dtype if working.itemsize == 4 else working
    limits = np.iinfo(dtype)
    fits = np.all((colors == np.rint(colors)) & (colors >= limits.min) & (colors <= limits.max))
    return dtype if fits else working
