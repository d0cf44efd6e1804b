"""Colours of pixels, the invalid ones hatched, and PNGs of them."""

from __future__ import annotations

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.picture.style import Style, is_valid

HATCH, LIGHT, DARK = 8, 222, 178
"""Pixels from one line to the next, and the greys of ground and lines."""
STRIP = 256
"""Rows that are painted at once: numbers on their way to colours take more memory than these."""


def render(values: np.ndarray, spec: RasterSpec, style: Style, times: int = 1) -> np.ndarray:
    """Return pixels, (row, column, band), as colours: uint8 (row, column, 3), without a valid one hatched grey.

    Each is drawn `times` as high and wide; lines of the hatch stay as fine.
    """
    height, width = (side * times for side in values.shape[:2])
    image = np.repeat(hatch(height, width)[..., np.newaxis], 3, axis=-1)
    for top in range(0, len(values), STRIP):
        strip = values[top : top + STRIP]
        colors, valid = (
            np.repeat(np.repeat(each, times, axis=0), times, axis=1)
            for each in (style.paint(strip), is_valid(strip, spec)[..., np.newaxis])
        )
        np.copyto(image[top * times :][: len(colors)], colors, where=valid)
    return image


def hatch(height: int, width: int) -> np.ndarray:
    """Return what stands for no data: grey lines, which no map of colours has."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % HATCH
    return np.where(diagonal < 2, np.uint8(DARK), np.uint8(LIGHT))


def to_png(image: np.ndarray) -> bytes:
    """Return an image, uint8 (row, column, 3), as a PNG."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
