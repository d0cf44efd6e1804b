"""Colours of pixels, the invalid ones hatched, and PNGs of them."""

from __future__ import annotations

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.picture.style import Style, is_valid

HATCH, LIGHT, DARK = 8, 222, 178
"""Pixels from one line to the next, and the greys of ground and lines."""


def render(values: np.ndarray, spec: RasterSpec, style: Style) -> np.ndarray:
    """Return pixels, (row, column, band), as colours: uint8 (row, column, 3), without a valid one hatched grey."""
    valid = is_valid(values, spec)
    return np.where(valid[..., np.newaxis], style.paint(values), hatch(*valid.shape)[..., np.newaxis])


def hatch(height: int, width: int) -> np.ndarray:
    """Return what stands for no data: grey lines, which no map of colours has."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % HATCH
    return np.where(diagonal < 2, np.uint8(DARK), np.uint8(LIGHT))


def to_png(image: np.ndarray) -> bytes:
    """Return an image, uint8 (row, column, 3), as a PNG."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
