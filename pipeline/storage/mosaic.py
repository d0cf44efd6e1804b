"""Rasters that lie beside each other on one grid, read as one: tiles of a map, granules of a scene."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.alignment import NEAR, snapped
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec, array_slices, is_nan, same_crs
from pipeline.model.region import Region
from pipeline.storage.georeference.recorded import recorded_of
from pipeline.storage.reader import NO_TRAFFIC, Reader, Traffic, total
from pipeline.storage.view import Ordered, Several

Overlap = Literal["first", "last", "error"]
Extent = Literal["union", "of first"] | tuple[float, float, float, float]
Corner = tuple[int, int]


@dataclass(frozen=True)
class Placed:
    """Where rasters lie in their mosaic: row and column of the first pixel of each, and its sides."""

    corners: tuple[Corner, ...]
    spec: RasterSpec
    """Of the mosaic, as the first raster says it."""


class Mosaic(Several):
    """Several rasters as one; pixels of which no raster has a valid one are nodata."""

    def __init__(self, readers: Sequence[Reader], names: Sequence[str], overlap: Overlap, placed: Placed) -> None:
        """`names` are what messages call the rasters."""
        first = readers[0].spec
        super().__init__([r if r.spec.dims == first.dims else Ordered(r, first.dims) for r in readers])
        self._orders = tuple(
            _order(first, reader.spec, (names[0], name)) for reader, name in zip(readers, names, strict=True)
        )
        self.spec, self.overlap = placed.spec, overlap
        self.scales = _scales(readers, self._orders, names)
        sides = [(*corner, *reader.spec.region.shape) for corner, reader in zip(placed.corners, readers, strict=True)]
        self._boxes = np.array(sides, np.int64)
        """Row, column, height and width of each raster in the mosaic."""
        self.holes, self.overlaps = _coverage(self._boxes, self.spec.region.shape)
        """Pixels that no raster has, and those that more than one has."""
        if self.overlaps and overlap == "error":
            raise PipelineError(
                f"rasters of the mosaic overlap in {self.overlaps:,} pixels; say which counts, `overlap: first` or "
                "`overlap: last`",
                ("overlap",),
            )
        if self.holes and not self._can_be_invalid:
            raise PipelineError(
                f"{self.holes:,} of {self.spec.region.num_pixels:,} pixels of the mosaic lie in none of its files, and "
                "these record no nodata value for them; say `nodata: VALUE`",
                ("nodata",),
            )

    @property
    def _can_be_invalid(self) -> bool:
        return self.spec.nodata is not None or self.spec.dtype.kind == "f"

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        done: list[Region] = []
        tiles = self._meeting(region)
        if len(tiles) != 1 or not self._region(tiles[0]).contains(region):
            out[...] = self._fill
        for tile in tiles:
            part = self._region(tile).clip(region)
            view = out[array_slices(self.spec.dims, part, (region.top, region.left))]
            if not any(part.clip(other).num_pixels for other in done):
                self._read_tile(tile, part, view, bands)
            elif (empty := self._empty(view, part, done)).any():
                below = np.empty(view.shape, view.dtype)
                self._read_tile(tile, part, below, bands)
                np.copyto(view, below, where=empty)
            done.append(part)

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        tiles = self._meeting(region)
        parts = {tile: self._region(tile).clip(region) for tile in tiles}
        asked = total(
            self.readers[tile].traffic(
                part.shift(-self._region(tile).top, -self._region(tile).left), self._own(tile, bands)
            )
            for tile, part in parts.items()
        )
        overlap = any(a.clip(b).num_pixels for a, b in itertools.combinations(parts.values(), 2))
        return None if overlap and asked != NO_TRAFFIC else asked  # pixels tell whether the second is read

    def _meeting(self, region: Region) -> list[int]:
        """Return the rasters that meet a region, the one that counts first."""
        top, left, height, width = self._boxes.T
        meets = (
            (top < region.bottom) & (top + height > region.top) & (left < region.right) & (left + width > region.left)
        )
        found: list[int] = np.flatnonzero(meets).tolist()
        return found[::-1] if self.overlap == "last" else found

    def _region(self, tile: int) -> Region:
        top, left, height, width = map(int, self._boxes[tile])
        return Region(top, top + height, left, left + width)

    def _read_tile(self, tile: int, part: Region, out: np.ndarray, bands: Sequence[int] | None) -> None:
        place = self._region(tile)
        self.readers[tile].read(part.shift(-place.top, -place.left), out, self._own(tile, bands))

    def _own(self, tile: int, bands: Sequence[int] | None) -> Sequence[int] | None:
        """Return bands as a raster counts them."""
        order = self._orders[tile]
        return bands if order is None else order if bands is None else [order[band] for band in bands]

    @property
    def _fill(self) -> Any:
        return np.nan if self.spec.nodata is None and self.spec.dtype.kind == "f" else self.spec.nodata or 0

    def _empty(self, view: np.ndarray, part: Region, done: Sequence[Region]) -> np.ndarray:
        """Return which pixels have no valid value yet; without nodata, those that no raster has covered."""
        if self._can_be_invalid:
            empty = np.isnan(view) if view.dtype.kind == "f" else np.zeros(view.shape, bool)
            if self.spec.nodata is not None and not is_nan(self.spec.nodata):
                empty |= view == view.dtype.type(self.spec.nodata)
            return empty
        empty = np.ones(view.shape, bool)
        for other in done:
            empty[array_slices(self.spec.dims, part.clip(other), (part.top, part.left))] = False
        return empty

    def identity(self) -> dict[str, Any]:
        """Return a digest: a mosaic may have thousands of files."""
        known = [{**reader.identity(), "path": ""} for reader in self.readers]
        digest = hashlib.sha256(json.dumps([known, self._boxes.tolist()], sort_keys=True).encode()).hexdigest()
        return {"mosaic": len(self.readers), "files": digest}

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        warnings = facts["warnings"]
        if self.overlaps:
            which = "the first" if self.overlap == "first" else "the last"
            warnings.append(f"files of the mosaic overlap in {self.overlaps:,} pixels: {which} that is valid counts")
        if self.holes:
            warnings.append(
                f"{self.holes:,} of {self.spec.region.num_pixels:,} pixels lie in no file of the mosaic: nodata"
            )
        return {**facts, "files": len(self.readers), "warnings": warnings}


def place(specs: Sequence[RasterSpec], names: Sequence[str], extent: Extent = "union") -> Placed:
    """Return where rasters on one grid lie in their mosaic.

    Raises
    ------
    PipelineError
        One of them has another grid, dtype or nodata value than the first: with what differs and what mends it.
    """
    first = specs[0]
    if first.transform is None:
        raise PipelineError(f"{names[0]} has no georeference; nothing says where it lies in a mosaic", ("mosaic",))
    corners = [_corner(first, spec, (names[0], name)) for spec, name in zip(specs, names, strict=True)]
    for spec, name in zip(specs, names, strict=True):
        if spec.dtype != first.dtype or repr(spec.nodata) != repr(first.nodata):  # NaN != NaN
            raise PipelineError(
                f"{names[0]} is {first.dtype.name} with nodata {first.nodata}, {name} is {spec.dtype.name} with nodata "
                f"{spec.nodata}; the rasters of a mosaic must agree (`nodata:` at the input says one for all)",
                ("mosaic",),
            )
    box = _extent(first, specs, corners, extent)
    spec = replace(
        first,
        height=box.height,
        width=box.width,
        transform=first.transform.shift(box.top, box.left),
        recorded=recorded_of(first).cut(box.top, box.left).or_none,
    )
    return Placed(tuple((row - box.top, column - box.left) for row, column in corners), spec)


def _extent(first: RasterSpec, specs: Sequence[RasterSpec], corners: Sequence[Corner], extent: Extent) -> Region:
    """Return what a mosaic spans, in rows and columns of its first raster."""
    if extent == "of first":
        return first.region
    if extent == "union":
        boxes = np.array([(r, c, r + s.height, c + s.width) for (r, c), s in zip(corners, specs, strict=True)])
        (top, left), (bottom, right) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        return Region(int(top), int(bottom), int(left), int(right))
    grid = first.transform
    assert grid is not None
    assert not isinstance(extent, str)
    if grid.is_rotated:
        raise PipelineError("the grid is rotated; `extent:` can be `union` or `of first`", ("extent",))
    columns = sorted((x - grid.c) / grid.a for x in (extent[0], extent[2]))
    rows = sorted((y - grid.f) / grid.e for y in (extent[1], extent[3]))
    top, bottom, left, right = (
        f(v) for f, v in ((_down, rows[0]), (_up, rows[1]), (_down, columns[0]), (_up, columns[1]))
    )
    if bottom <= top or right <= left:
        raise PipelineError(f"must be [xmin, ymin, xmax, ymax], the smaller first, got {list(extent)}", ("extent",))
    return Region(top, bottom, left, right)


def _down(value: float) -> int:
    return int(np.floor(value + NEAR))


def _up(value: float) -> int:
    return int(np.ceil(value - NEAR))


def _corner(first: RasterSpec, spec: RasterSpec, names: tuple[str, str]) -> Corner:
    """Return row and column of the first pixel of a raster on the grid of the first one."""
    grid, own = first.transform, spec.transform
    assert grid is not None
    if own is None:
        raise PipelineError(f"{names[1]} has no georeference; nothing says where it lies in a mosaic", ("mosaic",))
    if (first.crs or spec.crs) and not same_crs(first.crs or "", spec.crs or ""):
        words = f"CRS {(first.crs or 'none')[:60]} against {(spec.crs or 'none')[:60]}"
    elif not np.allclose((grid.a, grid.b, grid.d, grid.e), (own.a, own.b, own.d, own.e), rtol=1e-9, atol=0):
        words = f"pixels of {grid.a:g} x {grid.e:g} against {own.a:g} x {own.e:g}"
    else:
        row, column = _offset(grid, own)
        if max(abs(row - round(row)), abs(column - round(column))) <= NEAR:
            return round(row), round(column)
        words = f"it begins {row:g} rows and {column:g} columns from there, no whole pixels"
    mend = snapped(names[1], spec, names[0], first)
    raise PipelineError(f"{names[0]} and {names[1]} lie on different grids: {words}; {mend}", ("mosaic",))


def _offset(grid: Affine, other: Affine) -> tuple[float, float]:
    columns, rows = np.linalg.solve([[grid.a, grid.b], [grid.d, grid.e]], [other.c - grid.c, other.f - grid.f])
    return float(rows), float(columns)


def _order(first: RasterSpec, spec: RasterSpec, names: tuple[str, str]) -> tuple[int, ...] | None:
    """Return where a raster has the bands of the first one; None where they have one order."""
    if spec.bands == first.bands:
        return None
    if sorted(spec.bands) != sorted(first.bands):
        ours, theirs = (", ".join(each.bands[:10]) for each in (first, spec))
        raise PipelineError(f"{names[0]} has the bands {ours}; {names[1]} has {theirs}", ("mosaic",))
    return tuple(spec.bands.index(band) for band in first.bands)


def _scales(
    readers: Sequence[Reader], orders: Sequence[tuple[int, ...] | None], names: Sequence[str]
) -> tuple[tuple[float, float], ...]:
    found = [
        reader.scales if order is None else tuple(reader.scales[band] for band in order if reader.scales)
        for reader, order in zip(readers, orders, strict=True)
    ]
    for scales, name in zip(found, names, strict=True):
        if scales != found[0]:
            raise PipelineError(
                f"{names[0]} and {name} record different scales and offsets: {found[0][:3]} against {scales[:3]}; "
                "bring them to one first (`rasterpipe convert`)",
                ("mosaic",),
            )
    return found[0]


def _coverage(boxes: np.ndarray, shape: tuple[int, int]) -> tuple[int, int]:
    """Return how many pixels no box covers, and how many are covered more than once."""
    tops, bottoms = np.clip(boxes[:, 0], 0, shape[0]), np.clip(boxes[:, 0] + boxes[:, 2], 0, shape[0])
    lefts, rights = np.clip(boxes[:, 1], 0, shape[1]), np.clip(boxes[:, 1] + boxes[:, 3], 0, shape[1])
    edges = np.unique(np.concatenate([tops, bottoms, [0, shape[0]]]))
    holes = overlaps = 0
    for top, bottom in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        meets = (tops <= top) & (bottoms > top) & (lefts < rights)
        places = np.concatenate([lefts[meets], rights[meets], [0, shape[1]]])
        steps = np.concatenate([np.ones(meets.sum(), int), -np.ones(meets.sum(), int), [0, 0]])
        order = np.argsort(places, kind="stable")
        widths, depth = np.diff(places[order]), np.cumsum(steps[order])[:-1]
        holes += int(widths[depth == 0].sum()) * (bottom - top)
        overlaps += int(widths[depth > 1].sum()) * (bottom - top)
    return holes, overlaps
