"""The colour table of a raster of indices: the palette that they point into, as a TIFF holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.block.plan import StepPlan
from pipeline.model.raster import RasterSpec
from pipeline.model.table import Table
from pipeline.operations.traits import HasTableBeside
from pipeline.planning.plan import Plan
from pipeline.storage.folder.base import Folder

EIGHT_TO_SIXTEEN = 257
"""By which 8 bits become 16: white stays white."""


class ColorTable(NamedTuple):
    """The colours of values, and in words what of the palette they do not hold."""

    colors: tuple[int, ...] = ()
    """16 bits of red for each value of the dtype, then green, then blue; empty where there is none."""
    lost: str = ""


def stored_table(folder: Folder, plan: Plan, raster: str) -> ColorTable:
    """Return the colour table of a raster, by the palette that lies beside it in the store."""
    step, output = _maker(plan, raster)
    if not _has_colors(step, output):
        return ColorTable()
    palette = np.asarray(folder.open_array(f"{step.name}/palette")[...])
    return color_table(palette, step.sources["input"].dtype, step.declared[output])


def computed_table(plan: Plan, raster: str, tables: Mapping[str, Table]) -> ColorTable | None:
    """Return the colour table of a raster, by the tables of steps; None where one lacks that it is made of."""
    step, output = _maker(plan, raster)
    if not _has_colors(step, output):
        return ColorTable()
    if not tables.keys() >= set(step.makers.values()):
        return None
    assert isinstance(step.operation, HasTableBeside)
    table, _ = step.operation.table_beside({key: tables[maker] for key, maker in step.makers.items()}, step.sources)
    return color_table(np.asarray(table["palette"]), step.sources["input"].dtype, step.declared[output])


def _maker(plan: Plan, raster: str) -> tuple[StepPlan, str]:
    name, _, output = raster.partition("/")
    return plan.steps[name], output


def _has_colors(step: StepPlan, output: str) -> bool:
    """Return whether the values of an output are places in a table of colours."""
    return isinstance(step.operation, HasTableBeside) and step.operation.indices == output


def color_table(palette: np.ndarray, source: np.dtype, index: RasterSpec) -> ColorTable:
    """Return the colour table of a palette, (entry, band), for indices that are `index`.

    There is one for three bands of 8 or 16 bits: by the palette's dtype, else by that of the raster that it is of
    (`source`), whose colours it then has rounded half to even.

    Examples
    --------
    >>> index = RasterSpec(1, 1, np.dtype(np.uint8))
    >>> color_table(np.array([[0, 1, 255], [2.5, 2, 3]]), np.dtype(np.uint8), index).colors[:2]
    (0, 514)
    """
    dtype = palette.dtype if palette.dtype.kind == "u" else source
    if max(dtype.itemsize, index.dtype.itemsize) > 2 or {dtype.kind, index.dtype.kind} != {"u"}:
        return ColorTable()
    if palette.shape[1] != 3 or len(palette) > 2 ** (8 * index.dtype.itemsize):
        return ColorTable()
    whole = np.rint(palette, dtype=np.float64)  # of bytes, numpy takes float16
    if whole.min() < 0 or whole.max() > np.iinfo(dtype).max:
        return ColorTable(lost=f"it has no colour table: some colours of the palette are beyond {dtype.name}")
    table = np.zeros((3, 2 ** (8 * index.dtype.itemsize)), np.int64)
    table[:, : len(palette)] = whole.T * (EIGHT_TO_SIXTEEN if dtype.itemsize == 1 else 1)
    is_rounded = bool((whole != palette).any())
    lost = f"the colours of its table are the palette's, rounded: `dtype: {dtype.name}` of the palette makes them equal"
    return ColorTable(tuple(table.ravel().tolist()), lost if is_rounded else "")
