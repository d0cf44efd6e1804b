"""Polygons as a raster of whole numbers on the grid of another: burned into what is read, when it is read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.kernels.polygon import burn, compile_burn
from pipeline.model.errors import InputChanged, InputError, unknown
from pipeline.model.raster import RasterSpec, printable
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.gdal.files import identity_of
from pipeline.storage.input import Input
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Reader, Traffic
from pipeline.storage.vector.file import Features, check_vector, files_of, layer_of, pyogrio_for, read_features
from pipeline.storage.vector.polygons import Polygons, parse_ids, parse_polygons, projection, repeated

CHUNK = 512
"""Rows and columns that are burned at once."""
LIBRARY_BYTES = 64 * 2**20
"""GDAL's code and tables, and GEOS's."""


@dataclass(frozen=True)
class Zones:
    """What of a file of polygons is meant, on which grid."""

    path: str
    grid: RasterSpec
    layer: str | None = None
    where: str | None = None
    id: str | None = None
    cover: Literal["centre", "all_touched"] = "centre"


class PolygonReader(Reader):
    """Polygons of a file; where none lies pixels are 0, which is nodata. Make one with `open_polygons`."""

    compile_decoder = staticmethod(compile_burn)

    def __init__(self, zones: Zones, limits: ReadLimits) -> None:
        """Read all polygons."""
        pyogrio_for(zones.path)
        self.zones, self.limits = zones, limits
        self.layer = layer_of(zones.path, zones.layer)
        self._identity = _identity(zones)
        self._said: list[str] = []
        self.polygons = self._parse()
        ids, grid = self.polygons.ids, zones.grid
        is_short = not len(ids) or (ids.min() >= -(2**31) and ids.max() < 2**31)
        dtype = np.dtype(np.int32 if is_short else np.int64)
        self.spec = RasterSpec(
            grid.height, grid.width, dtype, nodata=0, transform=grid.transform, crs=grid.crs, unit=grid.unit
        )
        self.chunk = min(CHUNK, grid.height), min(CHUNK, grid.width)
        self.library_bytes = LIBRARY_BYTES + self.polygons.num_bytes
        self.decoder_bytes = 9 * CHUNK * (CHUNK + 1)
        if _identity(zones) != self._identity:
            raise InputChanged(f"{zones.path}: changed while it was read; start again")

    def _parse(self) -> Polygons:
        zones, said = self.zones, self._said
        found = self.features([zones.id] if zones.id else [])
        if not len(found.wkb):
            raise InputError(f"{zones.path}: no feature is there{' for `where`' if zones.where else ''}; see its layer")
        said += found.said
        ids = np.arange(1, len(found.wkb) + 1)
        if zones.id is not None:
            ids = parse_ids(found.fields[zones.id], zones.id, zones.path)
            if (twice := repeated(ids)) is not None:
                said.append(f"`id: {zones.id}` is no key: {twice} stands at several polygons, which are one label")
        ways = projection(found.crs, zones.grid, zones.path, said)
        polygons = parse_polygons(found.wkb, ids, ways, zones.path, self.limits, said)
        said += _outside(polygons, zones.grid)
        return polygons

    def features(self, columns: Sequence[str] | None = None) -> Features:
        """Return the features that are read, in their order, with some fields or (None) all."""
        zones = self.zones
        if zones.id is not None and zones.id not in self.layer.fields:
            fields = list(self.layer.fields)
            raise InputError(f"{zones.path}: `id`: {printable(unknown('field', zones.id, fields))}")
        return read_features(zones.path, self.layer, zones.where, columns, self.limits)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        if not self.spec.region.contains(region):
            raise ValueError(f"{region} is not inside the raster ({self.spec.region})")
        if bands is not None and not len(bands):
            return
        for part in _parts(region):
            rows, columns = part.slices((region.top, region.left))
            out[rows, columns] = self._burned(part)

    def _burned(self, part: Region) -> np.ndarray:
        polygons, pixels = self.polygons, np.zeros(part.shape, np.int64)
        chosen, corner = np.flatnonzero(polygons.meet(part)), (part.top, part.left)
        touched = self.zones.cover == "all_touched"
        burn(polygons.edges, polygons.starts, polygons.ids, chosen, corner, pixels, touched)
        return pixels

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return NO_TRAFFIC

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def evidence(self) -> list[Evidence]:
        folder, name = os.path.split(self.zones.path)
        others = [os.path.basename(file) for file in files_of(self.zones.path)[1:]]
        return [Evidence(self.zones.path, LocalFolder(folder), (), (name, *others))]

    def describe(self) -> dict[str, Any]:
        kind = check_vector(self.zones.path)
        return {"format": f"polygons ({kind})", "codec": "none", "layer": self.layer.name, "warnings": [*self._said]}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.zones, self.limits, self._identity)


def _outside(polygons: Polygons, grid: RasterSpec) -> Iterator[str]:
    """Yield how many polygons do not meet the raster."""
    number = int((np.isfinite(polygons.boxes[0]) & ~polygons.meet(grid.region)).sum())
    if number == len(polygons.ids):
        yield "none of the polygons meets the raster; see whether both name their coordinate systems"
    elif number:
        yield f"{number:,} of {len(polygons.ids):,} polygons lie outside the raster, and have no pixel"


_OPEN: weakref.WeakValueDictionary[str, PolygonReader] = weakref.WeakValueDictionary()
"""What is open in this process, by what it is known by: tasks share it, and it is not parsed again at the end."""


def open_polygons(entry: Input, grid: RasterSpec, limits: ReadLimits | None = None) -> PolygonReader:
    """Open an input of polygons on the grid of a raster.

    Raises InputError where a library is missing, the file is none of polygons, exceeds a limit, or has others.
    """
    assert entry.vector is not None
    check_vector(entry.vector)
    path = os.path.abspath(entry.vector)
    return _opened(Zones(path, grid, entry.layer, entry.where, entry.id, entry.cover or "centre"), limits)


def _opened(zones: Zones, limits: ReadLimits | None) -> PolygonReader:
    limits = limits or ReadLimits()
    key = f"{_identity(zones)} {limits}"
    found = _OPEN.get(key)
    if found is None:
        found = _OPEN[key] = PolygonReader(zones, limits)
    return found


def _reopen(zones: Zones, limits: ReadLimits, identity: dict[str, Any]) -> PolygonReader:
    """Return the reader that was pickled."""
    if _identity(zones) != identity:
        raise InputChanged(f"{zones.path}: changed since it was opened; start again")
    return _opened(zones, limits)


def _identity(zones: Zones) -> dict[str, Any]:
    grid = zones.grid
    meant = zones.layer, zones.where, zones.id, zones.cover
    return identity_of(
        files_of(zones.path), repr((meant, grid.height, grid.width, grid.transform, grid.crs, grid.unit))
    )


def _parts(region: Region) -> Iterator[Region]:
    """Yield a region in parts, of at most so many rows and columns."""
    for top in range(region.top, region.bottom, CHUNK):
        for left in range(region.left, region.right, CHUNK):
            yield Region(top, top + CHUNK, left, left + CHUNK).clip(region)
