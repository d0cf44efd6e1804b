"""The nearest colour of a palette for each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline.kernels.color_error import LostSquares, lost_squares
from pipeline.kernels.color_search import ColorSearch, cached_search
from pipeline.kernels.exact_total import total_of
from pipeline.kernels.frame import Patch
from pipeline.kernels.nearest_color import grid_bytes, nearest
from pipeline.kernels.validity import cast
from pipeline.model.errors import PipelineError
from pipeline.model.raster import SAME, RasterSpec, holds, largest
from pipeline.model.region import Region
from pipeline.model.table import Table, TableSpec
from pipeline.model.total import Total
from pipeline.operations.base import Block, Domain, Specs
from pipeline.operations.checks import unique
from pipeline.operations.color import MAX_COLORS, color_dtype, is_file
from pipeline.operations.exact import require_exact
from pipeline.operations.fields import Matrix, MatrixOrPath
from pipeline.operations.registry import register
from pipeline.operations.traits import HasTableBeside, HasUnits, IsMeasured, ReadsMatrices

Output = Literal["index", "color", "distance"]
TILE_ROWS = 64
"""Rows whose indices and distances are held at once."""


@register
class Quantize(ReadsMatrices, HasTableBeside, HasUnits, IsMeasured):
    """The nearest colour of a palette for each pixel: its index, the colour itself, how far it is.

    Nearest by the Euclidean distance over all bands, squares summed in band order in float64; of equally near colours
    the first wins. A pixel with an invalid band is invalid. Reference: numpy's norm(palette - pixel) and argmin.

    The run says the mean squared error (of a pixel's bands against its colour's, over all valid pixels and bands), and
    the PSNR, 10 log10(peak^2 / error) decibels; the peak is the largest value of an integer raster's dtype, for
    floating point the range of the palette's numbers. Both have the same bits for every layout.
    """

    domain: ClassVar[Domain] = "native"
    matrices: ClassVar[tuple[str, ...]] = ("palette",)
    indices: ClassVar[str] = "index"
    example: ClassVar[str] = (
        "{name: poster, op: quantize, input: image, bands: [4, 3, 2], palette: colors, outputs: [index, color]}"
    )
    not_averaged: ClassVar[frozenset[str]] = frozenset({"index"})
    never_nodata: ClassVar[frozenset[str]] = frozenset({"index"})
    outputs_text: ClassVar[Mapping[str, str]] = {
        "index": "place in the palette from 0; the smallest unsigned dtype that holds it, and nodata where pixels can "
        "be invalid; no band axis",
        "color": "the colour; the palette's dtype",
        "distance": "from the pixel to its colour; working dtype; no band axis",
    }

    version: ClassVar[int] = 2

    op: Literal["quantize"]
    palette: MatrixOrPath
    """The colours: a palette step, a .csv, .npy or .txt file with one colour a row, or a list of colours."""
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)] = ("index",)
    """What to compute; each is an output."""

    _check_outputs = field_validator("outputs")(unique("each output"))

    @field_validator("palette")
    @classmethod
    def _check_palette(cls, palette: Matrix | str) -> Matrix | str:
        if not isinstance(palette, str) and not 2 <= len(palette) <= MAX_COLORS:
            raise ValueError(f"must have 2 to {MAX_COLORS} colours, got {len(palette)}")
        return palette

    def matrix_files(self) -> dict[str, str]:
        return super().matrix_files() if is_file(self.palette) else {}

    def tables(self) -> dict[str, str]:
        return {"palette": self.palette} if isinstance(self.palette, str) and not is_file(self.palette) else {}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        require_exact(self, source)
        num_colors, num_bands, dtype = self._palette_facts(specs)
        if num_bands != source.num_bands:
            raise PipelineError(
                f"the palette has {num_bands} bands, the raster {source.num_bands} ({', '.join(source.bands[:6])}); "
                "pick as many with `bands`",
                ("palette",),
            )
        flat = replace(source, dims=("y", "x"), bands=("index",), band_coordinates=())
        can_be_invalid = source.can_be_invalid
        index = np.min_scalar_type(num_colors - 1 + can_be_invalid)
        nodata = int(np.iinfo(index).max) if can_be_invalid else None
        if can_be_invalid and self.nodata is not None and num_colors <= self.nodata <= np.iinfo(index).max:
            nodata = int(self.nodata)
        known = {
            "index": replace(flat, dtype=index, nodata=nodata),
            "color": self._color(source, dtype),
            "distance": replace(flat, bands=("distance",), dtype=self.working_dtype(source.dtype), nodata=float("nan")),
        }
        return {name: known[name] for name in self.outputs}

    def _color(self, source: RasterSpec, dtype: np.dtype) -> RasterSpec:
        if dtype.kind == "f" or not source.can_be_invalid:
            return replace(source, dtype=dtype, nodata=float("nan") if source.can_be_invalid else None)
        for nodata in (self.nodata, source.nodata):
            if nodata is not None and holds(dtype, nodata):
                return replace(source, dtype=dtype, nodata=int(nodata))
        return replace(source, dtype=self.working_dtype(source.dtype), nodata=float("nan"))

    def _palette_facts(self, specs: Specs) -> tuple[int, int, np.dtype]:
        """Return the most colours, the bands and the dtype of the palette."""
        if "palette" in specs.tables:
            table = specs.tables["palette"]
            if "palette" not in table.columns:
                raise PipelineError(f"{self.palette!r} makes no palette; name a palette step", ("palette",))
            return table.most_rows or MAX_COLORS, len(table.bands), table.dtype
        colors, dtype = np.array(self.palette, np.float64), specs["input"].dtype
        return len(colors), colors.shape[1], color_dtype(colors, dtype, self.working_dtype(dtype))

    def units(self) -> dict[str, str]:
        return {"color": SAME}

    def limits(self, specs: Specs) -> dict[str, float]:
        source = specs["input"]
        most = largest(source.dtype)
        if not isinstance(self.palette, str):
            most += float(np.abs(np.array(self.palette)).max())
        return {"distance": most * math.sqrt(source.num_bands)}

    def table_beside(self, tables: Mapping[str, Table], specs: Specs) -> tuple[Table, TableSpec]:
        colors = tables["palette"]["palette"] if tables else np.array(self.palette, np.float64)
        spec = TableSpec({"palette": ("entry", "band")}, specs["input"].bands, len(colors), prefix="")
        return {"palette": colors}, spec

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        num_colors, num_bands, _ = self._palette_facts(specs)
        tile = min(shape[0], TILE_ROWS) * shape[1]
        grid = grid_bytes(specs["input"].dtype, num_bands)
        again = 32 + 16 * num_bands if specs["input"].dtype == np.float64 else 0
        return tile * (4 + 8 + 8 + 16 * num_bands + again) + 4 * num_colors * (num_bands + 16) * 8 + 2**20 + grid

    def apply_measured(
        self,
        blocks: Mapping[str, Block],
        tables: Mapping[str, Any],
        out: Mapping[str, Block],
        region: Region,
        own: Region,
    ) -> Total:
        colors = self._colors(tables)
        search = cached_search(colors)
        total = Total()
        for top in range(region.top, region.bottom, TILE_ROWS):
            tile = replace(region, top=top, bottom=min(top + TILE_ROWS, region.bottom))
            part = own.clip(tile)
            squared = np.empty(tile.shape) if part.num_pixels or "distance" in out else None
            lost = self._fill(blocks["input"], search, out, tile, squared)
            if squared is not None and part.num_pixels:
                there = part.slices((tile.top, tile.left))
                total += total_of(np.ascontiguousarray(squared[there]))
                for squares in lost:
                    total += squares.total(there)
        return total

    def quality(self, total: Total, tables: Mapping[str, Table], specs: Specs) -> dict[str, float | None]:
        colors, dtype = self._colors(tables), specs["input"].dtype
        error = total.mean(per=colors.shape[1])
        half = float(np.max(colors) / 2 - np.min(colors) / 2 if dtype.kind == "f" else np.iinfo(dtype).max / 2)
        peak = 2 * half
        if not total.count:
            return {"mean_squared_error": None, "psnr": None, "peak": peak}
        level = math.log10(peak) if 0 < peak < math.inf else math.log10(half or 1) + math.log10(2)
        psnr = total.decibels(level, per=colors.shape[1])
        return {"mean_squared_error": error, "psnr": psnr if half or psnr == math.inf else None, "peak": peak}

    def _colors(self, tables: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(tables["palette"]["palette"] if tables else self.palette, np.float64)

    def _fill(
        self, source: Block, search: ColorSearch, out: Mapping[str, Block], tile: Region, squared: np.ndarray | None
    ) -> list[LostSquares]:
        """Fill a tile of the outputs, and squared distances; return those that these cannot hold."""
        index = np.empty(tile.shape, np.int32)
        nowhere = len(search.colors)
        nearest(
            source.planes(),
            search,
            Patch(tile.shape, (0, 0), (tile.top - source.origin[0], tile.left - source.origin[1]), source.lanes),
            index,
            nowhere,
            valid=None if source.valid is None else source.planes(source.valid),
            squared=squared,
        )
        lost: list[LostSquares] = []
        if squared is not None:
            pixels = source.by_band()[(slice(None), *tile.slices(source.origin))]
            is_fine = search.is_fine or pixels.dtype == np.float64
            lost = list(lost_squares(pixels, search.colors, index, squared, is_fine))
        for name, block in out.items():
            target = block.part(tile)
            if name == "index":
                names = np.arange(nowhere + 1).astype(target.dtype)
                names[nowhere] = 0 if block.fill is None else block.fill
                np.take(names, index, out=target, mode="clip")  # `clip` writes in place; every index is one
            elif name == "color":
                self._paint(index, search.colors, block, target)
            elif squared is not None:
                np.copyto(target, np.sqrt(squared), casting="same_kind")
                for squares in lost:
                    target[squares.where] = squares.distances
        return lost

    def _paint(self, index: np.ndarray, colors: np.ndarray, block: Block, target: np.ndarray) -> None:
        entries = np.empty((len(colors) + 1, colors.shape[1]), target.dtype)
        cast(np.ascontiguousarray(colors), entries[:-1], None, None)
        entries[-1] = np.nan if target.dtype.kind == "f" else 0 if block.fill is None else block.fill
        if block.dims[0] == "band":
            for band in range(len(target)):
                np.take(np.ascontiguousarray(entries[:, band]), index, out=target[band], mode="clip")
        else:
            np.take(entries, index, axis=0, out=target.reshape(*index.shape, -1), mode="clip")
