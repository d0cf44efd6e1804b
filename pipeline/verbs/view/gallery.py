"""The rasters that are looked at: their tiles, pixels, histograms and rows of tables, each answer of bounded size."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.model.errors import UsageError
from pipeline.model.raster import RasterSpec, grid_difference, printable, same_crs
from pipeline.model.region import Region
from pipeline.picture.color_map import color_map
from pipeline.picture.render import render, to_png
from pipeline.picture.sample import PieceCache
from pipeline.picture.style import Style, choose_style, drawn_bands, is_valid, spread_of, unit_of
from pipeline.storage.zarr.table import find_tables
from pipeline.verbs.rasters import find_rasters

TILE = 256
"""Rows and columns of a tile."""
CACHE_BYTES = 256 * 2**20
TILE_BYTES = 2 * 2**30
"""What is decoded for a tile: of a raster without levels, what shows much of it is coarse."""
SAMPLE = 512
"""Rows and columns from which colours are chosen and histograms made, at most."""
BINS = 64
MOST_BANDS = 64
"""Of a pixel, values that are told."""
MOST_CLASSES = 24
"""The most frequent ones of a view, which are explained."""
MOST_RASTERS = 64


class Gallery:
    """Rasters by their number, from 0 in the order in which they were named."""

    def __init__(self, paths: Sequence[str], chosen: Mapping[str, Any] | None = None) -> None:
        self.run = uuid.uuid4().hex
        """Stands in the addresses of tiles, so that no browser takes those of an earlier gallery for them."""
        self.shown = find_rasters(paths, chosen, PieceCache(CACHE_BYTES))
        if len(self.shown) > MOST_RASTERS:
            raise UsageError(f"{len(self.shown)} rasters are more than {MOST_RASTERS}; name those that you want")
        self.tables = [table for path in paths for table in find_tables(path)]

    def spec(self, number: int) -> RasterSpec:
        return self.shown[number].source.full.spec

    def describe(self) -> list[dict[str, Any]]:
        """Return what the page must know of the rasters before it asks for pixels."""
        return [self._describe(number) for number in range(len(self.shown))]

    def _describe(self, number: int) -> dict[str, Any]:
        found, spec = self.shown[number], self.spec(number)
        source = found.source
        return {
            "name": printable(found.name),
            "path": printable(found.path),
            "height": spec.height,
            "width": spec.width,
            "dtype": spec.dtype.name,
            "bands": [printable(band) for band in spec.bands],
            "units": [unit_of(spec, band) for band in range(min(spec.num_bands, MOST_BANDS))],
            "scales": [list(source.scale_of(band)) for band in range(min(spec.num_bands, MOST_BANDS))],
            "drawn": list(drawn_bands(found.name, spec)),
            "levels": [factor for factor, _ in source.levels],
            "crs": None if spec.crs is None else printable(spec.crs[:80]),
            "transform": None if spec.transform is None else list(spec.transform),
            "alike": [other for other in range(len(self.shown)) if not grid_difference(spec, self.spec(other))],
        }

    def style(self, number: int, bands: Sequence[int]) -> dict[str, Any]:
        """Return how bands of a raster are drawn unless somebody wants it otherwise."""
        spec = self.spec(number)
        values = self._sample(number, spec.region, bands)
        style = choose_style(self.shown[number].name, spec, bands, values)
        return {"kind": style.kind, "map": style.map, "limits": [list(pair) for pair in style.limits]}

    def tile(self, number: int, place: tuple[int, int, int], bands: Sequence[int], style: Style) -> bytes | None:
        """Return a tile as a PNG, None where the raster has none; its place is (power of 2, row, column) of tiles.

        A pixel of it stands for 2**power rows and columns; beyond the raster it is transparent.
        """
        power, row, column = place
        spec, step, side = self.spec(number), 2**power, TILE * 2**power
        rows = np.arange(row * side, min((row + 1) * side, spec.height), step)
        columns = np.arange(column * side, min((column + 1) * side, spec.width), step)
        if not (len(rows) and len(columns)):
            return None
        values = self.shown[number].source.pixels(rows, columns, bands, step, TILE_BYTES)
        tile = np.zeros((TILE, TILE, 4), np.uint8)
        tile[: len(rows), : len(columns), :3] = render(values, spec, self._with_palette(number, bands, style))
        tile[: len(rows), : len(columns), 3] = 255
        return to_png(tile)

    def _with_palette(self, number: int, bands: Sequence[int], style: Style) -> Style:
        if style.kind != "palette":
            return style
        own = choose_style(self.shown[number].name, self.spec(number), bands, np.zeros((1, 1, 1), np.uint8))
        return own if own.kind == "palette" else Style("categorical")

    def _sample(self, number: int, region: Region, bands: Sequence[int]) -> np.ndarray:
        """Return pixels of a region, evenly, at most `SAMPLE` rows and columns."""
        step = 2 ** max(0, math.ceil(math.log2(max(region.shape) / SAMPLE)))
        rows, columns = np.arange(region.top, region.bottom, step), np.arange(region.left, region.right, step)
        return self.shown[number].source.pixels(rows, columns, bands, step, TILE_BYTES)

    def histogram(self, number: int, region: Region, bands: Sequence[int], style: Style) -> dict[str, Any]:
        """Return how often values occur among pixels of a region, its extremes, and its classes where these are few."""
        spec = self.spec(number)
        values = self._sample(number, region, bands)
        valid = values[is_valid(values, spec)]
        finite = valid[np.isfinite(valid).all(axis=-1)].astype(np.float64)
        found: dict[str, Any] = {"pixels": math.prod(values.shape[:2]), "valid": len(valid), "finite": len(finite)}
        found["bands"] = []
        for band in range(len(bands)):
            plane = finite[:, band]
            ends = (float(plane.min()), float(plane.max())) if plane.size else (0.0, 1.0)
            stretch = list(spread_of(plane))
            found["bands"].append(
                {"minimum": ends[0], "maximum": ends[1], "spread": stretch, "counts": _counts(plane, *ends)}
            )
        if style.kind in ("categorical", "palette"):
            classes, counts = np.unique(valid, return_counts=True)
            shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
            colors = self._with_palette(number, bands, style).paint(classes[shown][np.newaxis, :, np.newaxis])[0]
            found["classes"] = [
                {"value": str(classes[i]), "pixels": int(counts[i]), "color": color.tolist()}
                for i, color in zip(shown, colors, strict=True)
            ]
            found["num_classes"] = len(classes)
        return found

    def pixel(self, number: int, row: int, column: int) -> dict[str, Any]:
        """Return the values of all rasters at a pixel of one, as text that is the number; and rows of tables."""
        spec, transform = self.spec(number), self.spec(number).transform
        point = None
        if transform is not None:
            x, y = column + 0.5, row + 0.5
            point = [
                transform.a * x + transform.b * y + transform.c,
                transform.d * x + transform.e * y + transform.f,
            ]
        told = [
            self._told(other, *place)
            for other in range(len(self.shown))
            if (place := self._place_in(other, spec, row, column, point)) is not None
        ]
        return {"row": row, "column": column, "point": point, "rasters": told}

    def _place_in(
        self, other: int, spec: RasterSpec, row: int, column: int, point: Sequence[float] | None
    ) -> tuple[int, int] | None:
        """Return the pixel of another raster at the same place: on the same grid, or by coordinates of the same CRS."""
        target = self.spec(other)
        if grid_difference(spec, target):
            transform = target.transform
            same = spec.crs and target.crs and same_crs(spec.crs, target.crs)
            if not (same and point and transform and transform.is_invertible):
                return None
            x, y, determinant = (
                point[0] - transform.c,
                point[1] - transform.f,
                (transform.a * transform.e - transform.b * transform.d),
            )
            column = math.floor((transform.e * x - transform.b * y) / determinant)
            row = math.floor((transform.a * y - transform.d * x) / determinant)
        return (row, column) if 0 <= row < target.height and 0 <= column < target.width else None

    def _told(self, number: int, row: int, column: int) -> dict[str, Any]:
        source, spec = self.shown[number].source, self.spec(number)
        bands = range(min(spec.num_bands, MOST_BANDS))
        values = source.pixels(np.array([row]), np.array([column]), bands, 1)
        told = [
            {
                "band": printable(spec.bands[i]),
                "value": str(values[0, 0, i]),
                "valid": bool(is_valid(values[..., i : i + 1], spec)[0, 0]),
            }
            for i in bands
        ]
        label = values[0, 0, 0] if spec.dtype.kind in "iu" and spec.num_bands == 1 else None
        rows = [] if label is None or not told[0]["valid"] else self._rows(number, int(label))
        return {"raster": number, "row": row, "column": column, "bands": told, "tables": rows}

    def _rows(self, number: int, label: int) -> list[dict[str, Any]]:
        """Return what tables say of a label: of a raster of classes or objects, whose numbers they are of."""
        name, spec = self.shown[number].name, self.spec(number)
        if (
            choose_style(name, spec, [0], np.arange(20, dtype=spec.dtype)[np.newaxis, :, np.newaxis]).kind
            != "categorical"
        ):
            return []
        found = [(f"{table.step}/table", table.row(label)) for table in self.tables]
        return [
            {"table": printable(table), "row": {column: str(value) for column, value in row.items()}}
            for table, row in found
            if row is not None
        ]


def _counts(values: np.ndarray, low: float, high: float) -> list[int]:
    """Return how many values lie in each of `BINS` parts from the lowest to the highest, equally wide."""
    half = high / 2 - low / 2  # the whole may be more than a number holds
    places = (values / 2 - low / 2) / half * BINS if half > 0 else np.zeros(len(values))
    counts = np.bincount(np.minimum(places, BINS - 1).astype(np.int64), minlength=BINS)
    return [int(count) for count in counts]


def bar(name: str) -> bytes:
    """Return the colours of a map from left to right, as a PNG of one row."""
    return to_png(color_map(name)[np.newaxis])
