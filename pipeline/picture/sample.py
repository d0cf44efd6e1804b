"""Pixels of a raster that is larger than memory, as a picture needs them: some rows and columns of it."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.model.errors import RasterpipeError
from pipeline.model.region import Region
from pipeline.storage.reader import Reader

PIECE_BYTES = 16 * 2**20
"""What is read of a chunk at once."""
MOST_LEVELS = 32


class PieceCache:
    """Pieces of rasters that were read last; several threads may use it."""

    def __init__(self, num_bytes: int) -> None:
        self._most, self._held = num_bytes, 0
        self._pieces: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return what was read for a key, read now where it is not held."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
        piece = read()
        with self._lock:
            if key not in self._pieces:
                self._pieces[key] = piece
                self._held += piece.nbytes
            while self._held > self._most:
                self._held -= self._pieces.popitem(last=False)[1].nbytes
        return piece


class Levelled:
    """A raster and the levels that lie with it; pixels are named by rows and columns of full resolution."""

    def __init__(self, levels: Sequence[Reader], cache: PieceCache | None = None) -> None:
        """`levels` begin with full resolution; those whose pixels are no whole numbers of its pixels are left out."""
        self.full, self._cache = levels[0], cache
        self.levels = [(1, self.full)]
        """How many rows and columns a pixel of a level stands for, and the level."""
        for reader in levels[1:]:
            factor = round(self.full.spec.height / reader.spec.height)
            sides = [-(-side // factor) for side in (self.full.spec.height, self.full.spec.width)]
            if factor > self.levels[-1][0] and sides == [reader.spec.height, reader.spec.width]:
                self.levels.append((factor, reader))

    @classmethod
    def open(cls, open_level: Callable[[int], Reader], cache: PieceCache | None = None) -> Levelled:
        """Open a raster with all its levels: full resolution must be there, of the others as many as there are."""
        readers = [open_level(0)]
        for level in range(1, MOST_LEVELS):
            try:
                readers.append(open_level(level))
            except RasterpipeError:  # there are no more
                break
        return cls(readers, cache)

    def scale_of(self, band: int) -> tuple[float, float]:
        """Return scale and offset by which stored values of a band become those of its unit."""
        return self.full.scales[band] if self.full.scales else (1.0, 0.0)

    def level_for(self, step: int) -> tuple[int, Reader]:
        """Return the coarsest level that has a pixel for each `step` pixels of full resolution."""
        return max((level for level in self.levels if level[0] <= step), key=lambda level: level[0])

    def pixels(
        self, rows: np.ndarray, columns: np.ndarray, bands: Sequence[int], step: int, most_bytes: int | None = None
    ) -> np.ndarray:
        """Return pixels at places that ascend, `step` apart or more, as (row, column, band) in the stored dtype.

        Where more than `most_bytes` would be decoded for them, fewer are read, and each stands for those beside it.
        """
        factor, reader = self.level_for(step)
        rows, columns = rows // factor, columns // factor
        times = 1 if most_bytes is None else _thinning(reader, rows, columns, most_bytes)
        values = read_pixels(reader, rows[::times], columns[::times], bands, self._cache)
        if times == 1:
            return values
        return np.repeat(np.repeat(values, times, axis=0), times, axis=1)[: len(rows), : len(columns)]


def _thinning(reader: Reader, rows: np.ndarray, columns: np.ndarray, most_bytes: int) -> int:
    """Return of how many places in a row one is read, so that chunks of so many bytes hold all of them."""
    share = (reader.chunk_bands or reader.spec.num_bands) / reader.spec.num_bands
    chunk_bytes = math.prod(reader.chunk) * reader.spec.pixel_bytes * share
    times = 1
    while times < max(len(rows), len(columns)):
        down, across = (
            len(np.unique(places[::times] // side)) for places, side in zip((rows, columns), reader.chunk, strict=True)
        )
        if down * across * chunk_bytes <= most_bytes:
            break
        times *= 2
    return times


def read_pixels(
    reader: Reader, rows: np.ndarray, columns: np.ndarray, bands: Sequence[int], cache: PieceCache | None = None
) -> np.ndarray:
    """Read the pixels where rows and columns cross, which ascend: a piece of a chunk at a time.

    Returns (row, column, band) in the raster's dtype. Chunks in which no such place lies are not read.
    """
    spec = reader.spec
    result = np.empty((len(rows), len(columns), len(bands)), spec.dtype)
    width = min(reader.chunk[1], max(1, PIECE_BYTES // spec.pixel_bytes))
    height = min(reader.chunk[0], max(1, PIECE_BYTES // (width * spec.pixel_bytes)))
    for top, bottom, i in _pieces(rows, reader.chunk[0], height):
        for left, right, j in _pieces(columns, reader.chunk[1], width):
            piece = Region(top, bottom, left, right).clip(spec.region)
            if cache is None:
                values = _read(reader, piece, bands)
            else:
                values = cache.get((id(reader), piece, tuple(bands)), partial(_read, reader, piece, bands))
            result[i, j] = values[np.ix_(rows[i] - piece.top, columns[j] - piece.left)]
    return result


def _read(reader: Reader, region: Region, bands: Sequence[int]) -> np.ndarray:
    spec = reader.spec
    shape = [len(bands) if dim == "band" else n for dim, n in zip(spec.dims, spec.shape_of(region), strict=True)]
    values = np.empty(shape, spec.dtype)
    reader.read(region, values, bands)
    return np.moveaxis(values, 0, -1) if spec.dims[0] == "band" else values.reshape((*region.shape, -1))


def _pieces(places: np.ndarray, chunk: int, size: int) -> Iterator[tuple[int, int, slice]]:
    """Yield pieces of chunks in which places lie: where each begins and ends, and which of the places these are.

    Pieces do not cross chunks, so that none is decoded for a part of a piece.
    """
    begin = 0
    while begin < len(places):
        first = int(places[begin]) // chunk * chunk
        top = first + (int(places[begin]) - first) // size * size
        bottom = min(top + size, first + chunk)
        end = int(np.searchsorted(places, bottom))
        yield top, bottom, slice(begin, end)
        begin = end
