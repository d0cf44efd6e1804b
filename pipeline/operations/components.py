"""Objects: connected pixels of equal value, or of a condition, numbered over the whole raster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictInt, model_validator

from pipeline.kernels.components import Numbered, forest, join_runs, number, number_bytes, paint, roots, runs_of
from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.model.raster import Number, RasterSpec, holds
from pipeline.model.region import Halo, Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations.base import Block, Domain, Edge, Reduction, Specs
from pipeline.operations.expression.evaluation import ExpressionText, check_one_band, pixels_where
from pipeline.operations.registry import register

LATTICE = 64
"""Rows and columns at whole multiples of this make the lattice along which the table knows the objects of pixels."""
OBJECT_BYTES, RUN_BYTES = 16, 32
JOINED_OBJECT_BYTES, JOINED_RUN_BYTES = 96, 72
"""While the parts of the raster are joined."""
LIMITS_IN_HALF = 8
"""How many times what merging may take (1/16 of the memory) goes into half of it."""
WORK_BYTES = 48
"""Of a pixel, while it is numbered: so large a part is divided as if its table had them."""

Size = Annotated[StrictInt, Field(ge=1)]


@register
class Components(Reduction):
    """Connected pixels of equal value, or of those where a condition holds, numbered 1, 2, 3, ...: objects.

    In the order of each object's first pixel, row by row, whatever the blocks are; 0 is no object: background, nodata,
    where the condition does not hold. Reference: scipy.ndimage.label on the whole raster, renumbered.
    """

    domain: ClassVar[Domain] = "native"
    example: ClassVar[str] = '{name: cells, op: components, input: image, where: "b1 > 300", connectivity: 8}'
    not_averaged: ClassVar[frozenset[str]] = frozenset({"labels"})
    outputs_text: ClassVar[Mapping[str, str]] = {
        "labels": "each pixel its object's number, nodata 0; uint32 (uint64 from 2^32 pixels on); no band axis",
        "table": "label (1, 2, 3, ...), pixels, row and column of the first pixel (int64)",
    }

    op: Literal["components"]
    where: ExpressionText | None = None
    """A condition of the input's bands, as in `mask`; all pixels where it holds are alike. Default: equal values."""
    connectivity: Literal[4, 8] = 4
    """4: pixels that share a side are connected; 8: those that share a corner, too."""
    background: Number | None = None
    """The value of pixels that are no object, beside nodata. Default: 0."""
    min_size: Size | None = None
    """Objects of fewer pixels become 0, and the others are numbered without them."""
    max_size: Size | None = None
    """Likewise those of more pixels."""

    @model_validator(mode="after")
    def _check(self) -> Components:
        if self.where is not None and self.background is not None:
            raise PipelineError("`background` goes with equal values; leave it out beside `where`", ("background",))
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise PipelineError(f"is above max_size ({self.max_size}), so no object is left", ("min_size",))
        if self.nodata is not None and self.nodata > 0:
            raise PipelineError(
                f"{self.nodata} is the number of an object; pixels of none are 0, leave `nodata` out", ("nodata",)
            )
        return self

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return dict.fromkeys(specs, Halo.around(LATTICE - 1, LATTICE - 1))

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return dict.fromkeys(specs, Edge("nearest"))

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        check_one_band(self, self.where, specs)
        dtype = np.dtype(np.uint32 if source.height * source.width < 2**32 else np.uint64)
        flat = replace(source, dims=("y", "x"), bands=("labels",), band_coordinates=())
        return {"labels": replace(flat, dtype=dtype, nodata=0)}

    def table_spec(self, specs: Specs) -> TableSpec:
        columns = dict.fromkeys(("label", "pixels", "row", "column"), ("label",))
        # what a part of the raster needs to know of what lies around it
        return TableSpec(columns | {"run": ("run",), "run_label": ("run",), "extent": ("side",)}, ())

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        return num_pixels * (OBJECT_BYTES + 2 * RUN_BYTES + WORK_BYTES)

    def most_bytes(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> int:
        rows, columns = _lines(region.top, region.bottom), _lines(region.left, region.right)
        runs = len(rows) * region.width + len(columns) * region.height
        return region.num_pixels * (OBJECT_BYTES + WORK_BYTES) + runs * RUN_BYTES

    def start(self, specs: Specs) -> Table:
        return {"size": np.array([specs["input"].height, specs["input"].width])}

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        """Return the objects of a part, and the runs of their pixels along its rim and the lattice."""
        values, found = self._number(blocks, region)
        height, width = state["size"].tolist()
        first = _pixels_of(found, region, width)
        parts = []
        for lines, offset, at, across in (
            (_lines(region.top, region.bottom), 0, (region.top, region.left), False),
            (_lines(region.left, region.right), height * width, (region.left, region.top), True),
        ):
            labels, pixels = (array.T if across else array for array in (found.labels, values))
            side, runs = (height if across else width), runs_of(labels[lines - at[0]])
            begin = offset + lines[runs.line] * side + at[1]
            place = (lines - at[0])[runs.line], runs.start
            parts.append((begin + runs.start, begin + runs.last, _bits(pixels[place]), first[labels[place] - 1]))
        columns = zip(("start", "last", "value", "object"), zip(*parts, strict=True), strict=True)
        extent = np.array([region.top, region.bottom, region.left, region.right])
        objects = {"first": first, "pixels": found.pixels, "extent": extent}
        return objects | {name: np.concatenate(column) for name, column in columns}

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        merged = {name: np.concatenate([first[name], second[name]]) for name in first if name != "extent"}
        for key, names in (("first", ("first", "pixels")), ("start", ("start", "last", "value", "object"))):
            order = np.argsort(merged[key], kind="stable")
            merged |= {name: merged[name][order] for name in names}
        return merged | {"extent": _hull(first["extent"], second["extent"])}

    def fold_stored(self, partials: Sequence[Table], state: Table, sweep: int, limit_bytes: int) -> Table:
        """Join all parts at once, where half of the memory holds that: of it, tables in the making have a share."""
        num = sum(len(table["first"]) for table in partials)
        need = num * JOINED_OBJECT_BYTES + sum(len(table["start"]) for table in partials) * JOINED_RUN_BYTES
        if need > (have := limit_bytes * LIMITS_IN_HALF):
            raise InputUnfit(
                f"step {self.name!r}: joining {num:,} objects of blocks takes {need / 2**20:,.0f} MiB, and may take "
                f"{have / 2**20:,.0f}; give run.memory more (up to 16 GiB counts), or a condition with fewer objects"
            )
        return super().fold_stored(partials, state, sweep, limit_bytes)

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        """Join what touches, and number the objects that are kept."""
        height, width = state["size"].tolist()
        first, start, last = partial["first"], partial["start"], partial["last"]
        part = np.searchsorted(first, partial["object"])
        parents, num_rows = forest(len(first)), int(np.searchsorted(start, height * width))
        for runs, offset, side in ((slice(num_rows), 0, width), (slice(num_rows, None), height * width, height)):
            places = start[runs] - offset, last[runs] - offset
            join_runs(*places, partial["value"][runs], part[runs], side, self.connectivity == 8, parents)
        whole = roots(parents)
        del parents
        pixels = np.zeros(len(first), np.int64)
        np.add.at(pixels, whole, partial["pixels"])
        is_kept = (pixels >= (self.min_size or 1)) & (pixels <= (self.max_size or height * width))
        labels = np.cumsum(is_kept) * is_kept
        self._check_number(int(np.count_nonzero(is_kept)))
        row, column = np.divmod(first[is_kept], width)
        table = {"label": labels[is_kept], "pixels": pixels[is_kept], "row": row, "column": column}
        at, run_labels = _on_lattice(start, height, width), labels[whole[part]]
        run, run_label = _joined(start[at], last[at], run_labels[at])
        return table | {"run": run, "run_label": run_label, "extent": partial["extent"]}

    def _check_number(self, num: int) -> None:
        dtype: Any = np.dtype(self.dtype or np.uint64)
        most = 2 ** (np.finfo(dtype).nmant + 1) if dtype.kind == "f" else np.iinfo(dtype).max
        if num > most:
            raise InputUnfit(f"step {self.name!r}: {num} objects are found, and {dtype.name} numbers up to {most}")

    def table_notes(self, table: Table) -> Iterator[str]:
        if not len(table["label"]):
            yield "there is no object"

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source, around = specs["input"], 2 * (LATTICE - 1)
        num_pixels = min(shape[0] + around, source.height) * min(shape[1] + around, source.width)
        compiled = check_one_band(self, self.where, specs)
        condition = 0 if compiled is None else compiled.program.scratch_bytes
        return number_bytes(num_pixels) + num_pixels * (2 * source.dtype.itemsize + 42) + condition

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        """Number the pixels of a window whose rim lies on the lattice: there the table knows the objects."""
        raster, table = blocks["input"].raster, tables["self"]
        extent = Region(*np.asarray(table["extent"]).tolist())
        window = _window(region).clip(extent)
        _, found = self._number(blocks, window)
        first = _pixels_of(found, window, raster.width)
        labels = np.zeros(len(first) + 1, np.int64)
        labels[1:] = _labels_of(first, table, window, raster.width)
        for line, start in _rim(window, extent, raster):
            seen, at = np.unique(found.labels[line], return_index=True)
            at, seen = at[seen > 0], seen[seen > 0]
            if len(seen):
                places = np.searchsorted(table["run"], start + at, side="right") - 1
                labels[seen] = table["run_label"][places]
        target = out["labels"].part(region)
        paint(found.labels[region.slices((window.top, window.left))], labels.astype(target.dtype), target)

    def _number(self, blocks: Mapping[str, Block], region: Region) -> tuple[np.ndarray, Numbered]:
        """Return the values of a part, and its objects."""
        block = blocks["input"]
        if self.where is not None:
            inside = pixels_where(self, self.where, blocks, region)
            values = inside.view(np.uint8)
        else:
            there = region.slices(block.origin)
            values = np.ascontiguousarray(block.by_band()[0][there])
            if values.dtype == np.float16:  # which numba does not know
                values = values.astype(np.float32)
            inside = np.ones(region.shape, bool)
            if holds(values.dtype, background := self.background or 0):
                np.not_equal(values, values.dtype.type(background), out=inside)
            if values.dtype.kind == "f":
                inside &= ~np.isnan(values)
            if block.valid is not None:
                inside &= block.by_band(block.valid)[0][there]
        return values, number(values, inside, self.connectivity == 8)


def _lines(first: int, end: int) -> np.ndarray:
    """Return the rows (or columns) of a part along which its runs are kept: the outermost, and those of the lattice."""
    inner = np.arange(-(-first // LATTICE) * LATTICE, end, LATTICE)
    return np.unique(np.concatenate([inner, [first, end - 1]]))


def _pixels_of(found: Numbered, region: Region, width: int) -> np.ndarray:
    """Return the first pixels of objects as row x width + column of the raster."""
    row, column = np.divmod(found.first, region.width)
    return (row + region.top) * width + column + region.left


def _bits(values: np.ndarray) -> np.ndarray:
    """Return values as int64 that are equal where the values are."""
    if values.dtype.kind == "f":
        return (values.astype(np.float64) + 0.0).view(np.int64)  # -0 is 0
    return values.astype(np.int64)


def _hull(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    hull = Region(*first.tolist()).hull(Region(*second.tolist()))
    return np.array([hull.top, hull.bottom, hull.left, hull.right])


def _on_lattice(start: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which runs lie on the lattice: first those of rows, then those of columns."""
    line = np.where(start < height * width, start // width, (start - height * width) // height)
    found: np.ndarray = line % LATTICE == 0
    return found


def _joined(start: np.ndarray, last: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return runs less those that go on with the one before, whatever block they came from."""
    goes_on = np.zeros(len(start), bool)
    goes_on[1:] = (start[1:] == last[:-1] + 1) & (label[1:] == label[:-1])
    return start[~goes_on], label[~goes_on]


def _window(region: Region) -> Region:
    """Return a region grown to the next lines of the lattice, these included."""
    top, left = region.top // LATTICE * LATTICE, region.left // LATTICE * LATTICE
    bottom, right = (-(-(end - 1) // LATTICE) * LATTICE + 1 for end in (region.bottom, region.right))
    return Region(top, bottom, left, right)


def _rim(window: Region, extent: Region, raster: Region) -> Iterator[tuple[Any, int]]:
    """Yield the sides beyond which the objects go on: which pixels of the window, the first as a run's."""
    for row in _ends(window.top, window.bottom, extent.top, extent.bottom):
        yield np.s_[row - window.top], row * raster.width + window.left
    for column in _ends(window.left, window.right, extent.left, extent.right):
        yield np.s_[:, column - window.left], raster.num_pixels + column * raster.height + window.top


def _ends(first: int, end: int, whole_first: int, whole_end: int) -> list[int]:
    """Return the outermost lines of a part beyond which the whole goes on."""
    return [*([first] if first > whole_first else []), *([end - 1] if end < whole_end else [])]


def _labels_of(first: np.ndarray, table: Mapping[str, np.ndarray], window: Region, width: int) -> np.ndarray:
    """Return the numbers of objects by their first pixels, 0 where none that is kept begins."""
    rows = slice(*np.searchsorted(table["row"], [window.top, window.bottom]).tolist())
    known = np.asarray(table["row"][rows]) * width + table["column"][rows]
    at = np.searchsorted(known, first)
    found = np.append(known, -1)[at] == first
    return np.where(found, rows.start + 1 + at, 0)
