"""Polygons as a raster of whole numbers on the grid of another: burned into what is read, when it is read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipeline.kernels.polygon import burn, compile_burn
from pipeline.kernels.polygon_share import SHARE, SUM, VALUE, Outlines, burn_shares, compile_burn_shares
from pipeline.model.errors import InputChanged, InputError, unknown
from pipeline.model.raster import LAYER, RasterSpec, printable
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.gdal.files import identity_of
from pipeline.storage.input import COVERAGE, Input
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Reader, Traffic
from pipeline.storage.vector.file import Features, check_vector, files_of, layer_of, pyogrio_for, read_features
from pipeline.storage.vector.layers import FEW_CROSSINGS, MOST_CROSSINGS, Layers, layers_of
from pipeline.storage.vector.polygons import Polygons, parse_ids, parse_numbers, parse_polygons, projection, repeated

CHUNK = 512
"""Rows and columns that are burned at once."""
LIBRARY_BYTES = 64 * 2**20
"""GDAL's code and tables, and GEOS's."""


@dataclass(frozen=True)
class Zones:
    """What of a file of polygons is meant, on which grid; the fields are those of `Input`."""

    path: str
    grid: RasterSpec
    layer: str | None = None
    where: str | None = None
    id: str | None = None
    cover: Literal["centre", "all_touched", "fraction"] = "centre"
    value: str | None = None
    overlap: Literal["layers", "last", "sum"] = "layers"


@dataclass(frozen=True)
class Parsed:
    """The polygons of a file on a grid, whatever of them pixels get."""

    polygons: Polygons
    said: tuple[str, ...]
    layers: list[Layers] = field(default_factory=list)
    """Those that are known: none, one, or one more that was looked for longer."""


class PolygonReader(Reader):
    """Polygons of a file as pixels; ids are 0 where none lies, which is nodata. Make one with `open_polygons`."""

    def __init__(self, zones: Zones, limits: ReadLimits) -> None:
        """Read all polygons."""
        pyogrio_for(zones.path)
        self.zones, self.limits = zones, limits
        self.layer = layer_of(zones.path, zones.layer)
        self._identity = _identity(zones)
        self.parsed = self._parsed()  # held, so that others find it
        self.layers = self._layers()
        if zones.overlap == "layers":
            self.layers.check(zones.path)
        self._said = [*self.parsed.said, *_overlaps(self.layers, zones)]
        self.values = self._values()
        self.spec = self._spec()
        self.compile_decoder = compile_burn_shares if zones.cover == "fraction" else compile_burn
        self.chunk = min(CHUNK, zones.grid.height), min(CHUNK, zones.grid.width)
        self.library_bytes = LIBRARY_BYTES + self.polygons.num_bytes + self.layers.of_polygon.nbytes
        self.decoder_bytes = (16 if zones.cover == "fraction" else 9) * CHUNK * (CHUNK + 1)
        if _identity(zones) != self._identity:
            raise InputChanged(f"{zones.path}: changed while it was read; start again")

    @property
    def polygons(self) -> Polygons:
        return self.parsed.polygons

    def _parsed(self) -> Parsed:
        """Return the polygons, which inputs that are made of the same ones share."""
        key = f"{_identity(replace(self.zones, value=None, overlap='layers'))} {self.limits}"
        found = _PARSED.get(key)
        if found is None:
            found = _PARSED[key] = self._parse()
        return found

    def _parse(self) -> Parsed:
        zones, said = self.zones, list[str]()
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
        return Parsed(polygons, tuple(said))

    def _layers(self) -> Layers:
        """Return the layers, where they are bands whatever they take."""
        zones, known = self.zones, self.parsed.layers
        if not known or (zones.overlap == "layers" and known[-1].refusal):
            shape = zones.grid.height, zones.grid.width
            most = MOST_CROSSINGS if zones.overlap == "layers" else FEW_CROSSINGS
            known.append(layers_of(self.polygons, shape, zones.cover != "centre", most, self.limits))
        return known[-1]

    def _values(self) -> np.ndarray:
        """Return what pixels get, of each polygon; nothing for shares."""
        name = self.zones.value
        if name is None:
            return self.polygons.ids
        if name == COVERAGE and name not in self.layer.fields:
            return np.zeros(0)
        if name == COVERAGE:
            raise InputError(f"{self.zones.path}: `value: {name}` is the share of pixels, and a field is called so")
        if name not in self.layer.fields:
            fields = [*self.layer.fields, COVERAGE]
            raise InputError(f"{self.zones.path}: `value`: {printable(unknown('field', name, fields))}")
        return parse_numbers(self.features([name]).fields[name], name, self.zones.path)

    def _spec(self) -> RasterSpec:
        grid, ids, number = self.zones.grid, self.polygons.ids, self.num_layers
        dtype: np.dtype = np.dtype(np.float64)
        nodata = float("nan")
        if self.zones.value is None:
            is_short = not len(ids) or (ids.min() >= -(2**31) and ids.max() < 2**31)
            dtype, nodata = np.dtype(np.int32 if is_short else np.int64), 0
        spec = RasterSpec(
            grid.height, grid.width, dtype, nodata=nodata, transform=grid.transform, crs=grid.crs, unit=grid.unit
        )
        if number == 1:
            return spec
        layers = tuple(range(1, number + 1))
        names = tuple(f"layer{layer}" for layer in layers)
        return replace(spec, dims=("band", "y", "x"), bands=names, band_coordinates=((LAYER, layers),))

    @property
    def num_layers(self) -> int:
        """How many bands there are."""
        return self.layers.number if self.zones.overlap == "layers" else 1

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
        layers = range(self.num_layers) if bands is None else bands
        planes = out if "band" in self.spec.dims else out[None]
        for part in _parts(region) if len(layers) else ():
            rows, columns = part.slices((region.top, region.left))
            chosen = np.flatnonzero(self.polygons.meet(part))
            for plane, layer in zip(planes, layers, strict=False):
                some = chosen if self.num_layers == 1 else chosen[self.layers.of_polygon[chosen] == layer]
                plane[rows, columns] = self._burned(part, some)

    def _burned(self, part: Region, chosen: np.ndarray) -> np.ndarray:
        zones, polygons, corner = self.zones, self.polygons, (part.top, part.left)
        is_attribute = zones.value is not None and len(self.values)
        pixels = np.full(part.shape, np.nan if is_attribute else 0, np.int64 if zones.value is None else np.float64)
        if zones.cover == "fraction":
            what = VALUE if len(self.values) else SHARE if zones.overlap == "last" else SUM
            outlines = Outlines(polygons.edges, polygons.sides, polygons.starts)
            burn_shares(outlines, self.values, chosen, corner, pixels, what)
        else:
            touched = zones.cover == "all_touched"
            burn(polygons.edges, polygons.starts, self.values, chosen, corner, pixels, touched)
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
        verbs = ("lies", "has") if number == 1 else ("lie", "have")
        yield f"{number:,} of {len(polygons.ids):,} polygons {verbs[0]} outside the raster, and {verbs[1]} no pixel"


def _overlaps(layers: Layers, zones: Zones) -> Iterator[str]:
    """Yield which polygons have pixels in common, and what becomes of these."""
    if not layers.num_pairs:
        if layers.refusal:
            yield f"{layers.refusal}; where they have, a pixel is as `overlap: {zones.overlap}` says"
        return
    pairs = ", ".join(f"{a} and {b}" for a, b in layers.pairs) + (", ..." if layers.num_pairs > 3 else "")
    pair = "pair of polygons has" if layers.num_pairs == 1 else "pairs of polygons have"
    told = f"{layers.num_pairs:,} {pair} pixels in common ({pairs}): "
    if zones.overlap == "layers":
        yield f"{told}they are read as {layers.number} bands, in none of which two have"
    elif zones.overlap == "last":
        yield f"{told}such a pixel is of the last in the file"
    else:
        yield f"{told}the shares of such a pixel are added"


_PARSED: weakref.WeakValueDictionary[str, Parsed] = weakref.WeakValueDictionary()
_OPEN: weakref.WeakValueDictionary[str, PolygonReader] = weakref.WeakValueDictionary()
"""What is open in this process, by what it is known by: tasks share it, and it is not parsed again at the end."""


def open_polygons(entry: Input, grid: RasterSpec, limits: ReadLimits | None = None) -> PolygonReader:
    """Open an input of polygons on the grid of a raster.

    Raises InputError where a library is missing, the file is none of polygons, exceeds a limit, or has others.
    """
    assert entry.vector is not None
    check_vector(entry.vector)
    path = os.path.abspath(entry.vector)
    is_share = entry.value == COVERAGE
    cover = entry.cover or ("fraction" if is_share else "centre")
    overlap = entry.overlap or ("sum" if is_share else "last" if entry.value else "layers")
    assert overlap in ("layers", "last", "sum")
    return _opened(Zones(path, grid, entry.layer, entry.where, entry.id, cover, entry.value, overlap), limits)


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
    meant = zones.layer, zones.where, zones.id, zones.cover, zones.value, zones.overlap
    return identity_of(
        files_of(zones.path), repr((meant, grid.height, grid.width, grid.transform, grid.crs, grid.unit))
    )


def _parts(region: Region) -> Iterator[Region]:
    """Yield a region in parts, of at most so many rows and columns."""
    for top in range(region.top, region.bottom, CHUNK):
        for left in range(region.left, region.right, CHUNK):
            yield Region(top, top + CHUNK, left, left + CHUNK).clip(region)
