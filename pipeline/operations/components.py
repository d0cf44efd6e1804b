"""Objects: connected pixels of equal value, or of a condition, numbered over the whole raster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictInt, model_validator

from pipeline.kernels.components import Numbered, number, number_bytes, paint, runs_of
from pipeline.kernels.contact import CONTACT_BYTES, contacts
from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.model.raster import Number, RasterSpec, holds
from pipeline.model.region import Halo, Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations import lattice
from pipeline.operations.base import Block, Domain, Edge, Reduction, Specs
from pipeline.operations.expression.evaluation import ExpressionText, check_one_band, pixels_where
from pipeline.operations.holes import FILL_BYTES, bits_of, filled, number_all
from pipeline.operations.joining import Joining
from pipeline.operations.lattice import (
    hull,
    joined_runs,
    labels_of,
    lines_of,
    on_lattice,
    rim,
    seen_on,
    window_around,
)
from pipeline.operations.registry import register

OBJECT_BYTES, RUN_BYTES = 16, 32
JOINED_OBJECT_BYTES, JOINED_RUN_BYTES = 96, 72
"""While the parts of the raster are joined."""
CONTACT_ROW_BYTES, JOINED_CONTACT_BYTES = 16, 96
"""Of two that share a side, where holes are filled or small objects given away; so are many as pixels at most."""
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
    never_nodata: ClassVar[frozenset[str]] = frozenset({"labels"})
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
    removed: Literal["drop", "largest_neighbour"] = "drop"
    """Whether objects below min_size become 0, or the largest object beside them that is kept, by sides of pixels."""
    fill_holes: Size | None = None
    """Fill holes of fewer pixels: what is no object and reaches no edge of the raster, amid pixels of one value."""

    @model_validator(mode="after")
    def _check(self) -> Components:
        if self.where is not None and self.background is not None:
            raise PipelineError("`background` goes with equal values; leave it out beside `where`", ("background",))
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise PipelineError(f"is above max_size ({self.max_size}), so no object is left", ("min_size",))
        if self.removed == "largest_neighbour" and (self.min_size is None or self.where is not None):
            why = "objects of a condition lie beside no other" if self.where else "no object is, without min_size"
            raise PipelineError(f"says what objects are given to, and {why}; leave it out", ("removed",))
        if self.nodata is not None and self.nodata > 0:
            raise PipelineError(
                f"{self.nodata} is the number of an object; pixels of none are 0, leave `nodata` out", ("nodata",)
            )
        return self

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return dict.fromkeys(specs, Halo.around(lattice.LATTICE - 1, lattice.LATTICE - 1))

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
        if self._gives:
            columns |= {"given": ("given",), "given_label": ("given",)}
        # what a part of the raster needs to know of what lies around it
        return TableSpec(columns | {"run": ("run",), "run_label": ("run",), "extent": ("side",)}, ())

    @property
    def _gives(self) -> bool:
        return self.removed == "largest_neighbour"

    @property
    def _looks_around(self) -> bool:
        """Whether it matters what lies beside what."""
        return self._gives or self.fill_holes is not None

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        around = 2 * CONTACT_ROW_BYTES + OBJECT_BYTES if self._looks_around else 0
        return num_pixels * (OBJECT_BYTES + 2 * RUN_BYTES + self._work_bytes + around)

    @property
    def _work_bytes(self) -> int:
        return WORK_BYTES + (CONTACT_BYTES + 2 * OBJECT_BYTES if self._looks_around else 0)

    def most_bytes(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> int:
        rows, columns = lines_of(region.top, region.bottom), lines_of(region.left, region.right)
        runs = len(rows) * region.width + len(columns) * region.height
        return region.num_pixels * (OBJECT_BYTES + self._work_bytes) + runs * RUN_BYTES

    def start(self, specs: Specs) -> Table:
        return {"size": np.array([specs["input"].height, specs["input"].width])}

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        """Return the objects of a part, and the runs of their pixels along its rim and the lattice.

        Where holes are to be filled, regions without objects as well; where it matters, which of all share sides.
        """
        values, inside = self._pixels(blocks, region)
        if self.fill_holes is None:
            found = number(values, inside, self.connectivity == 8)
            num = len(found.first)
        else:
            found, num = number_all(values, inside, self.connectivity == 8)
        height, width = state["size"].tolist()
        first = _pixels_of(found, region, width)
        parts = []
        for lines, offset, at, across in (
            (lines_of(region.top, region.bottom), 0, (region.top, region.left), False),
            (lines_of(region.left, region.right), height * width, (region.left, region.top), True),
        ):
            labels, pixels = (array.T if across else array for array in (found.labels, values))
            side, runs = (height if across else width), runs_of(labels[lines - at[0]])
            begin = offset + lines[runs.line] * side + at[1]
            place = (lines - at[0])[runs.line], runs.start
            label = labels[place]
            value = np.where(label <= num, bits_of(pixels[place]), 0)
            parts.append((begin + runs.start, begin + runs.last, value, first[label - 1]))
        columns = zip(("start", "last", "value", "object"), zip(*parts, strict=True), strict=True)
        extent = np.array([region.top, region.bottom, region.left, region.right])
        table = {"first": first, "pixels": found.pixels, "extent": extent}
        table |= {name: np.concatenate(column) for name, column in columns}
        if self._looks_around:
            pairs = np.stack(contacts(found.labels, len(first)), axis=1)
            if not self._gives:  # it does not matter which objects touch each other
                pairs = pairs[pairs[:, 1] > num]
            table["contact"] = first[pairs - 1]
        if self.fill_holes is not None:
            is_hole = np.arange(len(first)) >= num
            value = np.where(is_hole, 0, bits_of(values.reshape(-1)[found.first]))
            table |= {"is_hole": is_hole, "object_value": value}
        return _in_order(table)

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        merged = {name: np.concatenate([first[name], second[name]]) for name in first if name != "extent"}
        merged["extent"] = hull(first["extent"], second["extent"])
        return _in_order(merged)  # which holds no column twice

    def fold_stored(self, partials: Sequence[Table], state: Table, sweep: int, limit_bytes: int) -> Table:
        """Join all parts at once, where half of the memory holds that: of it, tables in the making have a share."""
        num = sum(len(table["first"]) for table in partials)
        need = num * JOINED_OBJECT_BYTES + sum(len(table["start"]) for table in partials) * JOINED_RUN_BYTES
        if self._looks_around:
            pairs = sum(len(table["contact"]) + 2 * len(table["start"]) for table in partials)
            need += pairs * JOINED_CONTACT_BYTES
        if need > (have := limit_bytes * LIMITS_IN_HALF):
            raise InputUnfit(
                f"step {self.name!r}: joining {num:,} objects of blocks takes {need / 2**20:,.0f} MiB, and may take "
                f"{have / 2**20:,.0f}; give run.memory more (up to 16 GiB counts), or a condition with fewer objects"
            )
        return super().fold_stored(partials, state, sweep, limit_bytes)

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        """Join what touches, and number the objects that are kept."""
        height, width = state["size"].tolist()
        joining = Joining(partial, height, width, self.connectivity == 8)
        if self.fill_holes is not None:
            joining.fill(self.fill_holes)
        whole = joining.finish()
        pixels = joining.pixels(whole)
        is_kept = (pixels >= (self.min_size or 1)) & (pixels <= (self.max_size or height * width)) & ~joining.is_hole
        labels = np.cumsum(is_kept) * is_kept
        self._check_number(int(np.count_nonzero(is_kept)))
        row, column = np.divmod(joining.first[is_kept], width)
        table = {"label": labels[is_kept], "pixels": pixels[is_kept], "row": row, "column": column}
        if self._gives:
            given, to = joining.given(whole, labels, pixels, self.min_size or 1)
            np.add.at(table["pixels"], to - 1, pixels[given])
            labels[given] = to
            table |= {"given": joining.first[given], "given_label": to}
        at, run_labels = on_lattice(partial["start"], height, width), labels[whole[joining.part]]
        run, run_label = joined_runs(partial["start"][at], partial["last"][at], run_labels[at])
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
        source, around = specs["input"], 2 * (lattice.LATTICE - 1)
        num_pixels = min(shape[0] + around, source.height) * min(shape[1] + around, source.width)
        compiled = check_one_band(self, self.where, specs)
        condition = 0 if compiled is None else compiled.program.scratch_bytes
        around = 0 if self.fill_holes is None else FILL_BYTES
        return number_bytes(num_pixels) + num_pixels * (2 * source.dtype.itemsize + 42 + around) + condition

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        """Number the pixels of a window whose rim lies on the lattice: there the table knows the objects."""
        raster, table = blocks["input"].raster, tables["self"]
        extent = Region(*np.asarray(table["extent"]).tolist())
        inner = region.clip(extent)
        window = window_around(inner).clip(extent)
        sides = list(rim(window, extent, raster))
        values, inside = self._pixels(blocks, window)
        if self.fill_holes is not None:
            found, num = number_all(values, inside, self.connectivity == 8)
            known = ((seen, run_labels > 0) for seen, run_labels in seen_on(found.labels, table, sides))
            values, inside = filled(values, inside, (found, num), self.fill_holes, known)
        found = number(values, inside, self.connectivity == 8)
        first = _pixels_of(found, window, raster.width)
        labels = np.zeros(len(first) + 1, np.int64)
        labels[1:] = labels_of(first, table, window, raster.width)
        for seen, run_labels in seen_on(found.labels, table, sides):
            labels[seen] = run_labels
        out["labels"].part(region)[...] = 0  # beyond the extent, which steps after it may read
        target = out["labels"].part(inner)
        paint(found.labels[inner.slices((window.top, window.left))], labels.astype(target.dtype), target)

    def _pixels(self, blocks: Mapping[str, Block], region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of a part, and which pixels count."""
        block = blocks["input"]
        if self.where is not None:
            inside = pixels_where(self, self.where, blocks, region)
            return inside.view(np.uint8), inside
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
        return values, inside


def _in_order(table: dict[str, np.ndarray]) -> Table:
    """Return objects, runs and contacts sorted, so that it does not matter which part came first."""
    rows = {"first": ("first", "pixels", "is_hole", "object_value"), "start": ("start", "last", "value", "object")}
    for key, names in rows.items():
        order = np.argsort(table[key], kind="stable")
        table |= {name: table[name][order] for name in names if name in table}
    if "contact" in table:
        table["contact"] = table["contact"][np.lexsort(table["contact"].T)]
    return table


def _pixels_of(found: Numbered, region: Region, width: int) -> np.ndarray:
    """Return the first pixels of objects as row x width + column of the raster."""
    row, column = np.divmod(found.first, region.width)
    return (row + region.top) * width + column + region.left
