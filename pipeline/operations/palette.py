"""A palette of the whole raster's colours, by median cut; or one that is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictInt, model_validator

from pipeline.kernels.cell_ranges import ranges_of
from pipeline.kernels.color_bins import Bins, coarse_bins, crowded_bins, histogram
from pipeline.kernels.color_cells import (
    MOST_BANDS,
    Cells,
    CellTable,
    cell_bits,
    cells_of,
    count_cells,
    identity_cells,
    merge_cells,
    num_cells,
)
from pipeline.kernels.color_search import cached_search
from pipeline.kernels.frame import Patch
from pipeline.kernels.label_table import LabelTable, merge
from pipeline.kernels.label_width import Width, merged_bytes, width_of, width_of_dtype
from pipeline.kernels.median_cut import assigned_table, median_cut, moved_colors
from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.model.raster import RasterSpec, working_dtype
from pipeline.model.region import Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations.base import Block, Domain, Reduction, Specs
from pipeline.operations.color import MAX_COLORS, color_dtype
from pipeline.operations.exact import require_exact
from pipeline.operations.fields import MatrixOrPath
from pipeline.operations.registry import register
from pipeline.operations.traits import ReadsMatrices

LOOKED_BYTES = 8 * 2**20
"""From here on, the pixels are looked at for how many cells they occupy: a region is not divided for the worst case."""
Sweep = Literal["bins", "crowded", "cells", "means"]


@register
class Palette(ReadsMatrices, Reduction):
    """A palette of the colours of the whole raster (no sample of it), or one that is given.

    Median cut after Heckbert (1982), on cells: a band's values are divided into 256 cells of about equal population
    (64 from five bands on), the occupied cells are counted with exact sums, and boxes of cells are cut at the weighted
    median (or mean, where that leaves less error) of their widest band, the box with the largest error first. A colour
    is the exact mean of its pixels. Cuts are right to one cell: exact for uint8 of up to three bands. Beyond
    `max_cells` occupied cells, cells of twice the side are taken. The palette has the same bits for every layout.
    """

    domain: ClassVar[Domain] = "native"
    matrices: ClassVar[tuple[str, ...]] = ("values",)
    example: ClassVar[str] = "{name: colors, op: palette, input: image, bands: [3, 2, 1], colors: 256}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "palette": "(entry, band); the working dtype, or `dtype`; fewer entries where there are fewer colours"
    }

    version: ClassVar[int] = 3

    op: Literal["palette"]
    colors: Annotated[StrictInt, Field(ge=2, le=MAX_COLORS)] = 256
    """How many colours at most."""
    method: Literal["median_cut", "kmeans", "file", "inline"] = "median_cut"
    """median_cut; kmeans (median cut, then `sweeps` moves of each colour to the mean of its pixels); or `values`."""
    values: MatrixOrPath | None = None
    """For method file: a .csv, .npy or .txt file with one colour a row; for inline: a list of colours."""
    sweeps: Annotated[StrictInt, Field(ge=1, le=100)] = 4
    """Sweeps of kmeans."""
    max_cells: Annotated[StrictInt, Field(ge=256, le=2**24)] = 2**18
    """Occupied cells that are held at once."""

    @model_validator(mode="after")
    def _check(self) -> Palette:
        is_given = self.method in ("file", "inline")
        if is_given and self.values is None:
            what = "FILE.csv" if self.method == "file" else "[[0, 0, 0], [255, 255, 255]]"
            raise PipelineError(f"method: {self.method} needs the colours; add `values: {what}`", ("values",))
        if not is_given and self.values is not None:
            raise PipelineError(f"values are for method: file or inline; the method is {self.method}", ("values",))
        if self.values is not None and not isinstance(self.values, str) and not 2 <= len(self.values) <= MAX_COLORS:
            raise PipelineError(f"must have 2 to {MAX_COLORS} colours, got {len(self.values)}", ("values",))
        return self

    def table_spec(self, specs: Specs) -> TableSpec:
        source = specs["input"]
        require_exact(self, source)
        columns: dict[str, tuple[str, ...]] = {"palette": ("entry", "band")}
        if self.values is not None:
            colors = self._given(source)
            return TableSpec(columns, source.bands, len(colors), self._dtype(source), "")
        if source.num_bands > MOST_BANDS:
            raise PipelineError(
                f"median cut takes at most {MOST_BANDS} bands, the raster has {source.num_bands}; choose some",
                ("bands",),
            )
        return TableSpec(columns, source.bands, self.colors, self._dtype(source), "")

    def _given(self, source: RasterSpec) -> np.ndarray:
        colors = np.array(self.values, np.float64)
        if colors.shape[1] != source.num_bands:
            raise PipelineError(
                f"the palette has {colors.shape[1]} bands, the raster {source.num_bands} "
                f"({', '.join(source.bands[:6])}); pick as many with `bands`",
                ("values",),
            )
        return colors

    def _dtype(self, source: RasterSpec) -> np.dtype:
        if self.dtype is not None:
            return np.dtype(self.dtype)
        if self.values is not None:
            return color_dtype(self._given(source), source.dtype, working_dtype(source.dtype))
        return working_dtype(source.dtype)

    def num_sweeps(self, specs: Specs) -> int:
        return len(self._sweeps(specs["input"]))

    def _sweeps(self, source: RasterSpec) -> list[Sweep]:
        """Return what each sweep is for: counting values by bins, those in crowded bins, cells, means of kmeans."""
        if self.values is not None:
            return []
        sweeps: list[Sweep] = ["cells"]
        if source.dtype.itemsize > 1 or source.num_bands > 4:
            sweeps.insert(0, "bins")
        if source.dtype.itemsize > 2:
            sweeps.insert(1, "crowded")
        return sweeps + (["means"] * self.sweeps if self.method == "kmeans" else [])

    def start(self, specs: Specs) -> Table:
        source = specs["input"]
        sweeps = self._sweeps(source)
        dtype = np.zeros(0, self._dtype(source))
        if not sweeps:
            return {"palette": self._given(source).astype(dtype.dtype)}
        state: dict[str, np.ndarray] = {"kinds": np.array([_KINDS.index(kind) for kind in sweeps]), "dtype": dtype}
        state["num_bands"] = np.array(source.num_bands)
        if sweeps[0] == "cells":
            state |= _cells_to_table(identity_cells(source.num_bands))
        return state

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        source = blocks["input"]
        at = (region.top - source.origin[0], region.left - source.origin[1])
        patch = Patch(region.shape, at, at, source.lanes)
        values = source.planes()
        valid = None if source.valid is None else source.planes(source.valid)
        kind = _kind(state, sweep)
        if kind == "cells":
            return _cell_table_to_table(count_cells(values, patch, _cells(state), self.max_cells, valid))
        if kind == "means":
            return assigned_table(values, patch, cached_search(state["palette"]), valid).to_columns()
        bins = coarse_bins(int(state["num_bands"])) if kind == "bins" else _crowded(state)
        return {"counts": np.zeros((1, 1), np.int64) if bins is None else histogram(values, patch, bins, valid)}

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        if "counts" in first:
            return {"counts": first["counts"] + second["counts"]}
        tables = [table for table in (first, second) if len(table["label"])]
        if len(tables) < 2:
            return tables[0] if tables else first
        num_bands = int(first["bands"][0])
        if "level" in first:
            cells = [_cell_table(table, num_bands) for table in tables]
            return _cell_table_to_table(merge_cells(cells, num_bands, self.max_cells))
        return merge([LabelTable.from_columns(table, num_bands) for table in tables]).to_columns()

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        kind, num_bands = _kind(state, sweep), int(state["num_bands"])
        after = dict(state)
        if kind == "bins":
            after["counts"] = partial["counts"]
            if _kind(state, sweep + 1) == "cells":
                after |= _cells_to_table(cells_of(partial["counts"], coarse_bins(num_bands), cell_bits(num_bands)))
            return after
        if kind == "crowded":
            bins = _crowded(state)
            counts = state["counts"] if bins is None else partial["counts"]
            return after | _cells_to_table(cells_of(counts, bins or coarse_bins(num_bands), cell_bits(num_bands)))
        return self._fold_colors([LabelTable.from_columns(partial, num_bands)], state, sweep)

    def fold_stored(self, partials: Sequence[Table], state: Table, sweep: int, limit_bytes: int) -> Table:
        if _kind(state, sweep) in ("bins", "crowded") or self.merged_bytes(partials) <= limit_bytes:
            return super().fold_stored(partials, state, sweep, limit_bytes)
        max_labels = self.max_cells if _kind(state, sweep) == "cells" else MAX_COLORS
        ranges = ranges_of(partials, int(state["num_bands"]), max_labels, limit_bytes)
        return self._fold_colors(ranges, state, sweep)

    def _fold_colors(self, parts: Iterable[LabelTable], state: Table, sweep: int) -> Table:
        """Return the state after a sweep that made colours; its table comes in parts."""
        try:
            is_first = _kind(state, sweep) == "cells"
            colors = median_cut(parts, self.colors) if is_first else moved_colors(state["palette"], parts)
        except ValueError:
            message = f"step {self.name!r}: no pixel is valid in all bands; there are no colours to choose"
            raise InputUnfit(message) from None
        if sweep + 1 < len(state["kinds"]):
            return {**{name: state[name] for name in ("kinds", "dtype", "num_bands")}, "palette": colors}
        return {"palette": _distinct(_rounded(colors, state["dtype"].dtype))}

    def table_notes(self, table: Table) -> Iterator[str]:
        num = len(table["palette"])
        if self.values is None and num < self.colors:
            yield (
                f"the palette has {num} {'entry' if num == 1 else 'entries'}, not the {self.colors} asked for: the "
                "raster has no more colours that median cut tells apart (all of uint8 up to four bands, else cells)"
            )

    def merged_bytes(self, tables: Sequence[Table]) -> int:
        if "label" in tables[0]:
            return merged_bytes(tables)
        return max(sum(column.nbytes for column in table.values()) for table in tables)  # counts, added up

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        source = specs["input"]
        bins = source.num_bands * 8 * (2**16 + (2**20 if source.dtype.itemsize > 2 else 0))
        return max(self._cell_bytes(num_pixels, source.num_bands, width_of_dtype(source.dtype)), bins)

    def most_bytes(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> int:
        if _kind(state, sweep) not in ("cells", "means"):
            return 0
        source = blocks["input"]
        at = (region.top - source.origin[0], region.left - source.origin[1])
        patch, num_bands = Patch(region.shape, at, at, source.lanes), int(state["num_bands"])
        width = width_of(source.planes(), patch)
        num = region.num_pixels if "palette" not in state else min(region.num_pixels, len(state["palette"]))
        if "palette" not in state and self._cell_bytes(num, num_bands, width) > LOOKED_BYTES:
            valid = None if source.valid is None else source.planes(source.valid)
            num = num_cells(source.planes(), patch, _cells(state), self.max_cells, valid) or num
        return self._cell_bytes(num, num_bands, width)

    def _cell_bytes(self, num_pixels: int, num_bands: int, width: Width) -> int:
        return min(num_pixels, self.max_cells) * (24 + (10 + width.sum_bytes) * num_bands)


_KINDS: tuple[Sweep, ...] = ("bins", "crowded", "cells", "means")


def _kind(state: Table, sweep: int) -> Sweep:
    return _KINDS[int(state["kinds"][sweep])]


def _crowded(state: Table) -> Bins | None:
    return crowded_bins(state["counts"], cell_bits(int(state["num_bands"])))


def _cells_to_table(cells: Cells) -> dict[str, np.ndarray]:
    bins = cells.bins
    facts = np.array([bins.num, cells.bits, cells.one_each])
    return {"first": bins.first, "shift": bins.shift, "places": cells.places, "facts": facts}


def _cells(state: Table) -> Cells:
    num, bits, one_each = (int(fact) for fact in state["facts"])
    return Cells(Bins(state["first"], state["shift"], num), state["places"], bits, bool(one_each))


def _cell_table_to_table(cells: CellTable) -> dict[str, np.ndarray]:
    return cells.table.to_columns() | {"level": np.array(cells.level)}


def _cell_table(table: Table, num_bands: int) -> CellTable:
    return CellTable(LabelTable.from_columns(table, num_bands), int(table["level"]))


def _distinct(colors: np.ndarray) -> np.ndarray:
    """Return the colours without those that come again: rounding may make different ones equal."""
    _, first = np.unique(colors, axis=0, return_index=True)
    return colors[np.sort(first)]


def _rounded(colors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return colours in the palette's dtype: integers round half to even and saturate."""
    if dtype.kind == "f":
        return colors.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: np.ndarray = np.clip(np.rint(colors), limits.min, limits.max).astype(dtype)
    return rounded
