"""Polygons in pixels of a raster: read, repaired, reprojected, and as edges that a kernel can burn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.errors import InputError
from pipeline.model.raster import RasterSpec
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region

BATCH = 50_000
"""Polygons that are objects of shapely at once."""
EDGE_BYTES = 32
TOLERANCE = 0.01
"""Pixels by which an edge may miss the line that its ends are joined by in the polygons' own system."""
ROUNDS = 20
"""Times that an edge is halved at most."""
FARTHEST = 2.0**50
"""Pixels beyond which kernels would not find whole numbers; nothing lies there but by mistake."""
ASIDE = 0.375
"""Where on an edge it is looked: not in the middle, where a curve like an S is straight."""
POLYGON, MULTI = 3, 6

Project = Callable[[np.ndarray], np.ndarray]
"""(point, 2) to (point, 2)."""


@dataclass(frozen=True)
class Polygons:
    """Polygons as edges, see `kernels.polygon.burn`."""

    edges: np.ndarray
    sides: np.ndarray
    """Of each edge, see `kernels.polygon_share.Outlines`."""
    starts: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    """(4, polygon): the rows and columns that a polygon spans: top, bottom, left, right."""

    def meet(self, region: Region) -> np.ndarray:
        """Return which polygons may have a pixel in a region, by their boxes."""
        top, bottom, left, right = self.boxes
        across = (left < region.right) & (right > region.left)
        found: np.ndarray = (top < region.bottom) & (bottom > region.top) & across
        return found

    @property
    def num_bytes(self) -> int:
        return sum(each.nbytes for each in (self.edges, self.sides, self.starts, self.ids, self.boxes))


def parse_polygons(
    wkb: np.ndarray, ids: np.ndarray, projects: tuple[Project, Project], path: str, limits: ReadLimits, said: list[str]
) -> Polygons:
    """Return geometries as edges in pixels, taken out of `wkb`; `said` gets what was repaired.

    `projects` are from the file's coordinates to those of the raster, and from these to pixels.
    """
    parts, sides, repaired, empty, total = list[np.ndarray](), list[np.ndarray](), list[int](), 0, 0
    starts = np.zeros(len(wkb) + 1, np.int64)
    for first in range(0, len(wkb), BATCH):
        batch = _geometries(wkb[first : first + BATCH], ids[first : first + BATCH], path)
        wkb[first : first + BATCH] = None  # a million of them take much
        empty += sum(each is None for each in batch)
        repaired += _repair(batch, ids[first:])
        edges, owner, directions = _edges(batch, lambda xy: projects[1](projects[0](xy)))
        total += edges.nbytes
        limits.check_allocation(f"{path}: the edges of its polygons", total)
        if len(lost := np.flatnonzero(~(np.abs(edges) < FARTHEST).all(axis=1))):
            where = f"polygon {ids[first + owner[lost[0]]]}"
            raise InputError(f"{path}: {where} has no place in the raster's system; leave it out by `where`")
        starts[first + 1 : first + 1 + len(batch)] = np.bincount(owner, minlength=len(batch))
        parts.append(edges)
        sides.append(_sides(edges, owner, directions))
    if repaired:
        some = ", ".join(map(str, repaired[:5])) + (", ..." if len(repaired) > 5 else "")
        invalid = "invalid polygon is" if len(repaired) == 1 else "invalid polygons are"
        said.append(f"{len(repaired):,} {invalid} repaired: {some}")
    if empty:
        said.append(f"{empty:,} {'feature has' if empty == 1 else 'features have'} no geometry, and so no pixel")
    edges, starts = _joined(parts), np.cumsum(starts)
    return Polygons(edges, np.concatenate(sides), starts, ids, _boxes(edges, starts))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return arrays of edges below each other, each let go once it is copied."""
    edges = np.empty((sum(map(len, parts)), 4))
    end = len(edges)
    while parts:
        part = parts.pop()
        edges[end - len(part) : end] = part
        end -= len(part)
    return edges


def _geometries(wkb: np.ndarray, ids: np.ndarray, path: str) -> np.ndarray:
    """Return the geometries of features; None where there is none."""
    import shapely

    try:
        found: np.ndarray = shapely.force_2d(shapely.from_wkb(wkb))
    except Exception as error:  # of GEOS
        raise InputError(f"{path}: holds a geometry that cannot be read: {error}") from error
    found[shapely.is_empty(found)] = None
    kinds = shapely.get_type_id(found)
    if len(others := np.flatnonzero((kinds >= 0) & (kinds != POLYGON) & (kinds != MULTI))):
        kind = found[others[0]].geom_type
        raise InputError(f"{path}: feature {ids[others[0]]} is a {kind}; only polygons are zones: buffer it first")
    rough = ~np.isfinite(shapely.bounds(found)).all(axis=1) & (kinds >= 0)
    if rough.any():
        raise InputError(f"{path}: polygon {ids[np.flatnonzero(rough)[0]]} has coordinates that are no numbers")
    return found


def _repair(geometries: np.ndarray, ids: np.ndarray) -> list[int]:
    """Make geometries valid in their place; return the ids of those that were not."""
    import shapely

    invalid = np.flatnonzero(~shapely.is_valid(geometries) & (shapely.get_type_id(geometries) >= 0))
    for i in invalid:
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(geometries[i])))
        geometries[i] = shapely.MultiPolygon(list(parts[shapely.get_type_id(parts) == POLYGON]))
    return [int(ids[i]) for i in invalid]


def _edges(geometries: np.ndarray, to_pixels: Project) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return edges in pixels, the upper end first, and the place of the geometry that each is of, in order.

    The third, int8, is 1 where the polygon lies left of the edge in the file's coordinates, -1 where right of it.
    """
    import shapely

    polygons, of_polygon = shapely.get_parts(geometries, return_index=True)
    rings, of_ring = shapely.get_rings(polygons, return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    joined = of_point[1:] == of_point[:-1]
    ring = of_point[:-1][joined]
    is_hole = np.append(False, of_ring[1:] == of_ring[:-1])[: len(rings)]
    direction = np.where(shapely.is_ccw(rings) != is_hole, 1, -1)[ring]
    owner = of_polygon[of_ring[ring]]
    ends = np.stack([points[:-1][joined], points[1:][joined]], axis=1)
    # as neighbours have it, too, whose rings go the other way round
    turned = (ends[:, 0, 0] > ends[:, 1, 0]) | ((ends[:, 0, 0] == ends[:, 1, 0]) & (ends[:, 0, 1] > ends[:, 1, 1]))
    ends[turned] = ends[turned][:, ::-1]
    direction[turned] *= -1
    found = list(_straight(ends, np.stack([owner, direction], axis=1), to_pixels))
    edges, marks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    upwards = edges[:, 0, 1] > edges[:, 1, 1]
    edges[upwards] = edges[upwards][:, ::-1]
    marks[upwards, 1] *= -1
    marks = marks[order := np.argsort(marks[:, 0], kind="stable")].astype(np.int64)
    return np.ascontiguousarray(edges.reshape(-1, 4)[order]), marks[:, 0], marks[:, 1].astype(np.int8)


def _sides(edges: np.ndarray, owner: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return on which side of its edges a polygon lies in pixels: what is left may be right there, on its head."""
    if not len(edges):
        return directions
    firsts = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    left = np.repeat(edges[firsts, 0], np.diff(np.append(firsts, len(edges))))
    middles = (edges[:, 0] + edges[:, 2]) / 2 - left
    areas = np.add.reduceat(-directions * (edges[:, 3] - edges[:, 1]) * middles, firsts)
    turned = np.repeat(areas < 0, np.diff(np.append(firsts, len(edges))))
    return np.where(turned, -directions, directions).astype(np.int8)


def _straight(ends: np.ndarray, marks: np.ndarray, to_pixels: Project) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield edges in pixels with what each is marked by, halved as long as they are bent there."""
    for number in range(ROUNDS + 1):
        pixels = to_pixels(ends.reshape(-1, 2)).reshape(ends.shape)
        beside = to_pixels(ends[:, 0] + (ends[:, 1] - ends[:, 0]) * ASIDE)
        with np.errstate(invalid="ignore"):  # infinite: no place there
            off = np.abs(beside - (pixels[:, 0] + (pixels[:, 1] - pixels[:, 0]) * ASIDE)).max(axis=1, initial=0)
        bent = (off > TOLERANCE) & np.isfinite(off) & (number < ROUNDS)
        yield pixels[~bent], marks[~bent]
        if not bent.any():
            return
        middle = (ends[bent, 0] + ends[bent, 1]) / 2
        halves = np.stack([ends[bent, 0], middle], axis=1), np.stack([middle, ends[bent, 1]], axis=1)
        ends, marks = np.concatenate(halves), np.tile(marks[bent], (2, 1))


def _boxes(edges: np.ndarray, starts: np.ndarray) -> np.ndarray:
    boxes = np.tile(np.array([[np.inf], [-np.inf], [np.inf], [-np.inf]]), len(starts) - 1)
    there = np.flatnonzero(np.diff(starts))
    if len(there):
        firsts = starts[there]
        boxes[0, there] = np.minimum.reduceat(edges[:, 1], firsts)
        boxes[1, there] = np.maximum.reduceat(edges[:, 3], firsts)
        boxes[2, there] = np.minimum.reduceat(np.minimum(edges[:, 0], edges[:, 2]), firsts)
        boxes[3, there] = np.maximum.reduceat(np.maximum(edges[:, 0], edges[:, 2]), firsts)
    return boxes


def projection(crs: str | None, grid: RasterSpec, path: str, said: list[str]) -> tuple[Project, Project]:
    """Return the ways from a file's coordinates to the raster's, and from these to pixels (column, row)."""
    transform = grid.transform or Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if not transform.is_invertible:
        raise InputError(f"{path}: the raster's transform {transform} has no inverse, so polygons have no place on it")
    if grid.transform is None:
        said.append("the raster has no georeference: coordinates are taken as columns and rows")
    elif grid.crs is None or crs is None:
        which = "raster names" if grid.crs is None else "polygons name"
        said.append(f"the {which} no coordinate system: coordinates are taken as the raster's")
    a, b, c, d, e, f = transform
    area = a * e - b * d

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        x, y = xy[:, 0] - c, xy[:, 1] - f
        if not transform.is_rotated:
            return np.stack([x / a, y / e], axis=1)
        return np.stack([(x * e - y * b) / area, (y * a - x * d) / area], axis=1)

    return _between(crs, grid, path), to_pixels


def _between(crs: str | None, grid: RasterSpec, path: str) -> Project:
    """Return the way from one coordinate system to another."""
    if crs is None or grid.crs is None or grid.transform is None:
        return lambda xy: xy
    import pyproj

    try:
        own, other = pyproj.CRS(crs), pyproj.CRS(grid.crs)
        if own.equals(other, ignore_axis_order=True):
            return lambda xy: xy
        change: Any = pyproj.Transformer.from_crs(own, other, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise InputError(f"{path}: its polygons cannot be brought to the raster's system: {error}") from error
    return lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1)


def parse_ids(values: np.ndarray, name: str, path: str) -> np.ndarray:
    """Return the ids that a field gives polygons; raise InputError where they are no whole numbers, or 0."""
    kind = np.asarray(values)
    is_whole = kind.dtype.kind in "iu" or (
        kind.dtype.kind == "f" and bool(np.all((kind == np.floor(kind)) & (np.abs(kind) < 2**53)))
    )
    if not is_whole:
        what = "lacks it for some features" if kind.dtype.kind == "f" else f"has {kind.dtype.name} there"
        raise InputError(f"{path}: `id: {name}` is to be a field of whole numbers, and the file {what}; leave it out")
    if len(kind) and int(kind.max()) >= 2**63:
        raise InputError(f"{path}: `id: {name}` reaches {int(kind.max())}; ids go up to 2^63 - 1")
    if (kind == 0).any():
        raise InputError(f"{path}: `id: {name}` is 0 for some features, which marks pixels outside; leave `id` out")
    return kind.astype(np.int64)


def parse_numbers(values: np.ndarray, name: str, path: str) -> np.ndarray:
    """Return the numbers that a field gives polygons, NaN where it has none; raise InputError where they are none."""
    kind = np.asarray(values)
    told = kind.dtype.name
    if kind.dtype.kind not in "iuf":
        raise InputError(f"{path}: `value: {name}` is to be a field of numbers, and the file has {told} there")
    numbers: np.ndarray = kind.astype(np.float64)
    if kind.dtype.kind != "f" and (np.abs(numbers) > 2**53).any():
        raise InputError(f"{path}: `value: {name}` goes beyond 2^53, which float64 does not hold exactly")
    return numbers


def repeated(ids: Sequence[int] | np.ndarray) -> int | None:
    """Return an id that stands twice."""
    found, counts = np.unique(np.asarray(ids), return_counts=True)
    return int(found[counts > 1][0]) if (counts > 1).any() else None
