"""Squared distances of pixels from their colours that float64 does not hold: too large for it, or next to 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.exact_total import total_of
from pipeline.kernels.extreme import SHIFT, TINY
from pipeline.model.total import Total


@dataclass(frozen=True, slots=True)
class LostSquares:
    """Squares of some pixels of a tile, times 2**(2 shift)."""

    where: np.ndarray
    """(row, column) bool: which pixels."""
    squares: np.ndarray
    shift: int

    @property
    def distances(self) -> np.ndarray:
        found: np.ndarray = np.ldexp(np.sqrt(self.squares), -self.shift)
        return found

    def total(self, part: tuple[slice, slice]) -> Total:
        """Return the total of the squares of a part of the tile."""
        inside = np.zeros(self.where.shape, bool)
        inside[part] = True
        own = total_of(np.ascontiguousarray(self.squares[inside[self.where]])[np.newaxis])
        return Total(own.count, own.sum, own.exponent - 2 * self.shift)


def lost_squares(
    pixels: np.ndarray, colors: np.ndarray, index: np.ndarray, squared: np.ndarray, is_fine: bool
) -> Iterator[LostSquares]:
    """Yield the squares that have overflowed or vanished; they become NaN in `squared`.

    Parameters
    ----------
    pixels
        (band, row, column), of any dtype.
    colors
        (color, band) float64; `index` (row, column) says which is a pixel's.
    squared
        (row, column) float64, the naive squared distances; NaN where a pixel is invalid.
    is_fine
        Whether distances so small that their squares vanish occur: between colours, or for pixels of float64.
    """
    for shift in (-SHIFT, SHIFT) if is_fine else (-SHIFT,):
        where = np.isinf(squared) if shift < 0 else squared < TINY[2]
        if not where.any():
            continue
        before, after = (2.0**shift, 1.0) if shift < 0 else (1.0, 2.0**shift)
        squares = np.zeros(np.count_nonzero(where))
        for pixel, color in zip(pixels[:, where], colors[index[where]].T, strict=True):  # in the order of the bands
            squares += ((pixel * np.float64(before) - color * before) * after) ** 2
        squared[where] = np.nan
        yield LostSquares(where, squares, shift)
