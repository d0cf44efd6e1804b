"""A further dimension of a Zarr array, time say, read as bands beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.model.raster import Number, array_slices
from pipeline.model.read_limits import check_bands
from pipeline.model.region import Region
from pipeline.storage.input import Choice
from pipeline.storage.series import series_spec
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.zarr.description import Description
from pipeline.storage.zarr.reader import ZarrReader

_BUFFERS = ThreadBuffers()


class ZarrSlices(ZarrReader):
    """An array whose dim `along` is a part of the band axis: of each entry all bands (dims band, y, x)."""

    def _take(self, described: Description, choice: Choice) -> None:
        along = choice.along or ""
        self._axis = described.names.index(along)
        self._one, size = self.spec, described.stored.shape[self._axis]
        check_bands(self.path, size * self._one.num_bands)
        entries: Sequence[Number | str] = described.entries(along, size)
        self.spec = series_spec(along, entries, [self._one] * size)
        self.scales = self.scales * size
        self._at_once = described.stored.chunks[self._axis]
        """Entries that one chunk holds."""
        self.chunk_bands = self._at_once * min(self._bands_of_chunk, self._one.num_bands)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        num = self._one.num_bands
        wanted = range(self.spec.num_bands) if bands is None else bands
        # runs of entries of one chunk, each with the same bands
        by_entry = [(n, list(group)) for n, group in groupby(enumerate(wanted), lambda item: item[1] // num)]
        for _, run in groupby(enumerate(by_entry), lambda item: self._run_of(item[0], item[1], num)):
            entries = [entry for _, entry in run]
            first, last = entries[0][1][0][0], entries[-1][1][-1][0]
            own = [band % num for _, band in entries[0][1]]
            self._read_entries(region, range(entries[0][0], entries[-1][0] + 1), own, out[first : last + 1])

    def _run_of(self, position: int, entry: tuple[int, list[tuple[int, int]]], num: int) -> tuple[Any, ...]:
        """Return what neighbouring entries share that are read at once: their chunk, and the bands asked for."""
        number, places = entry
        return number - position, number // self._at_once, tuple(band % num for _, band in places)

    def _read_entries(self, region: Region, entries: range, own: Sequence[int], out: np.ndarray) -> None:
        """Read some bands of some entries into `out` (entry x band, y, x)."""
        dims, spans = list(self._one.dims), list(array_slices(self._one.dims, region))
        first, stop = min(own), max(own) + 1
        if "band" in dims:
            spans[dims.index("band")] = slice(first, stop)
        place = self._axis - sum(axis < self._axis for axis in self._fixed if axis != self._axis)
        dims.insert(place, "entry")
        sizes = {"entry": len(entries), "band": stop - first, "y": region.height, "x": region.width}
        order = [dims.index(dim) for dim in ("entry", "band", "y", "x") if dim in dims]
        shape = [sizes[dim] for dim in dims]
        is_plain = order == sorted(order) and list(own) == list(range(first, stop))
        if is_plain and out.flags.c_contiguous and out.dtype == self.spec.dtype:
            target = out.reshape(shape)
        else:
            room = _BUFFERS.take("entries", math.prod(shape) * self.spec.dtype.itemsize)
            target = room.view(self.spec.dtype).reshape(shape)
        self._read(region, spans, target, {**self._fixed, self._axis: slice(entries.start, entries.stop)})
        if target.base is not out and not np.shares_memory(target, out):
            planes = np.transpose(target, order).reshape(len(entries), stop - first, *region.shape)
            picked = planes[:, [band - first for band in own]]
            np.copyto(out, picked.reshape(out.shape))
