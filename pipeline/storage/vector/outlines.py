"""Outlines of a stored raster of labels as polygons: traced row by row, kept in a file, given out label by label."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from pipeline.kernels.outline import Outliner, Rings
from pipeline.model.affine import Affine
from pipeline.model.raster import RasterSpec, holds
from pipeline.model.region import Region
from pipeline.storage.reader import Reader

RING_BYTES, VERTEX_BYTES = 112, 288
"""Of a ring, until all are sorted; of a vertex, while it becomes a part of a polygon."""
ROW_BYTES = 560
"""Of a column: what `Outliner` holds of two rows, and of as many edges as they may have."""
BATCH_VERTICES = 2**19
IDENTITY = Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Where a raster is nowhere, its outlines are in columns and rows."""


@dataclass(frozen=True)
class Features:
    """Some labels, each with its pixels and its polygon."""

    labels: np.ndarray
    pixels: np.ndarray
    wkb: np.ndarray
    """(label,) of bytes: a Polygon, or a MultiPolygon where pixels hang together by no side."""


@dataclass(frozen=True)
class _Index:
    """Rings in the order in which features are made of them; of a polygon first the one around it."""

    label: np.ndarray
    part: np.ndarray
    area: np.ndarray
    count: np.ndarray
    place: np.ndarray
    """Its first vertex in the file."""

    def part_of(self, rings: slice | np.ndarray) -> _Index:
        return _Index(self.label[rings], self.part[rings], self.area[rings], self.count[rings], self.place[rings])


def least_bytes(spec: RasterSpec) -> int:
    """Return what `Outlines` of a raster needs at least: a row, its runs and the edges that they may have."""
    return spec.width * (4 * (spec.dtype.itemsize + 8) + ROW_BYTES)


class Outlines:
    """The outlines of a raster of whole numbers with one band, but of its nodata."""

    def __init__(self, reader: Reader, file: BinaryIO, limit_bytes: int) -> None:
        """`file` is empty, open for writing and reading, and unbuffered; it gets 8 bytes a vertex."""
        self._reader, self._file, self._limit_bytes = reader, file, limit_bytes
        self._spec = reader.spec
        self._rings: list[Rings] = []
        self._num_rings = 0
        self.largest = 0
        """Of the labels, once they are given out."""

    @property
    def strips(self) -> list[Region]:
        """The parts that are read at once, from the top to the bottom."""
        height, width, rows = self._spec.height, self._spec.width, self._reader.chunk[0]
        most = self._limit_bytes // 4 // (width * (self._spec.dtype.itemsize + 8))
        rows = max(1, min(rows, most))
        return [Region(top, min(top + rows, height), 0, width) for top in range(0, height, rows)]

    def trace(self, advance: Callable[[], None]) -> Iterator[Features]:
        """Yield the labels, sorted, after all rows are read; raise OSError where the memory does not hold them."""
        outliner = Outliner(self._spec.width, _nodata(self._spec))
        for strip in self.strips:
            self._keep(outliner.add(self._read(strip)), outliner)
            advance()
        self._keep(outliner.finish(), outliner)
        index = _sorted(self._rings, outliner.parts(), self._spec.dtype)
        self.largest = int(index.label[-1]) if len(index.label) else 0
        self._rings.clear()
        del outliner
        yield from map(self._features, self._batches(index))

    def _batches(self, index: _Index) -> Iterator[_Index]:
        """Yield the rings of some labels at a time, at least once."""
        ends = np.append(np.flatnonzero(_changes(index.label))[1:], len(index.label))
        vertices, limit = np.append(0, np.cumsum(index.count))[ends], self._limit_bytes // (2 * VERTEX_BYTES)
        begin, first, before = 0, 0, 0
        while first < len(ends):
            most = before + min(BATCH_VERTICES, limit)
            last = max(first, int(np.searchsorted(vertices, most, side="right")) - 1)
            yield index.part_of(slice(begin, int(ends[last])))
            begin, first, before = int(ends[last]), last + 1, int(vertices[last])

    def _read(self, strip: Region) -> np.ndarray:
        """Return labels (row, column) as int64; those of uint64 by their bits."""
        values = np.empty(self._spec.shape_of(strip), self._spec.dtype)
        self._reader.read(strip, values)
        return values.reshape(strip.shape).astype(np.int64)

    def _keep(self, found: list[Rings], outliner: Outliner) -> None:
        for rings in found:
            view = memoryview(rings.keys.tobytes())
            while view:
                view = view[self._file.write(view) :]
            self._rings.append(replace(rings, keys=np.empty(0, np.int64)))
            self._num_rings += len(rings.count)
        self._check_room(outliner.num_bytes + self._num_rings * RING_BYTES)

    def _check_room(self, num_bytes: int) -> None:
        if num_bytes > self._limit_bytes:
            need, have = (f"{size / 2**20:,.0f} MiB" for size in (num_bytes, self._limit_bytes))
            words = f"outlines take {need} at once, and may take {have}, half of what the run has; give run.memory more"
            raise OSError(errno.ENOMEM, words)

    def _features(self, rings: _Index) -> Features:
        import shapely

        self._check_room(int(rings.count.sum()) * VERTEX_BYTES)
        is_feature = _changes(rings.label)
        is_polygon = is_feature | _changes(rings.part)
        coordinates, of = self._coordinates(rings)
        lines = shapely.linearrings(coordinates, indices=of)
        polygons = shapely.polygons(lines, indices=np.cumsum(is_polygon) - 1)
        feature = np.cumsum(is_feature)[is_polygon] - 1
        geometries, is_many = polygons[_changes(feature)], np.bincount(feature) > 1
        rank = (np.cumsum(is_many) - 1)[feature]
        several = is_many[feature]
        geometries[is_many] = shapely.multipolygons(polygons[several], indices=rank[several])
        begins = np.flatnonzero(is_feature)
        pixels = np.add.reduceat(rings.area, begins) if len(begins) else rings.area
        return Features(rings.label[begins].astype(self._spec.dtype), pixels, shapely.to_wkb(geometries, byte_order=1))

    def _coordinates(self, rings: _Index) -> tuple[np.ndarray, np.ndarray]:
        """Return the closed rings of polygons, and which each vertex belongs to; those around go counterclockwise."""
        keys, place = self._vertices(rings)
        closed = rings.count + 1
        of = np.repeat(np.arange(len(closed)), closed)
        within = np.arange(len(of)) - np.repeat(np.cumsum(closed) - closed, closed)
        transform = self._spec.transform or IDENTITY
        if transform.a * transform.e < transform.b * transform.d:  # as usual: rows count downwards, coordinates upwards
            within = rings.count[of] - within
        row, column = np.divmod(keys[place[of] + within % rings.count[of]], self._spec.width + 1)
        a, b, c, d, e, f = transform
        return np.column_stack([a * column + b * row + c, d * column + e * row + f]), of

    def _vertices(self, rings: _Index) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices of rings as they lie in the file, and where those of each begin."""
        order = np.argsort(rings.place, kind="stable")
        place, count = rings.place[order], rings.count[order]
        found = np.empty(len(order), np.int64)
        found[order] = np.cumsum(count) - count
        runs = np.flatnonzero(np.append(True, place[1:] != place[:-1] + count[:-1])) if len(place) else place
        sizes = np.add.reduceat(count, runs) if len(runs) else runs
        parts = [self._read_file(int(at), int(size)) for at, size in zip(place[runs], sizes, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts]), found

    def _read_file(self, first: int, number: int) -> np.ndarray:
        data = os.pread(self._file.fileno(), 8 * number, 8 * first)
        if len(data) != 8 * number:
            raise OSError(errno.EIO, "the file of outlines was cut off")
        return np.frombuffer(data, np.int64)


def _nodata(spec: RasterSpec) -> int | None:
    if spec.nodata is None or not holds(spec.dtype, spec.nodata):
        return None
    return int(np.array(spec.nodata).astype(spec.dtype).astype(np.int64))


def _sorted(found: list[Rings], parts: np.ndarray, dtype: np.dtype) -> _Index:
    """Return all rings by label, connected pixels, and with what is around before what is within."""
    label, part, area, count = (
        np.concatenate([np.empty(0, np.int64), *(getattr(rings, name) for rings in found)])
        for name in ("label", "part", "area", "count")
    )
    part = parts[part]
    values = label.view(np.uint64) if dtype == np.uint64 else label
    order = np.lexsort((area < 0, part, values))
    return _Index(values, part, area, count, np.cumsum(count) - count).part_of(order)


def _changes(values: np.ndarray) -> np.ndarray:
    """Return where values are others than before."""
    return np.append(True, values[1:] != values[:-1]) if len(values) else np.empty(0, bool)
