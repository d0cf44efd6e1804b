"""The colour table of a raster of indices: the palette that they point into, as a TIFF holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.model.table import Table
from pipeline.operations.traits import HasTableBeside
from pipeline.planning.plan import Plan
from pipeline.storage.georeference.recorded import recorded_of

EIGHT_TO_SIXTEEN = 257
"""By which 8 bits become 16: white stays white."""


class ColorTable(NamedTuple):
    """The colours of values, and in words what of the palette they do not hold."""

    colors: tuple[int, ...] = ()
    """16 bits of red for each colour, then green, then blue; empty where there is none."""
    lost: str = ""


def color_table_of(plan: Plan, raster: str, tables: Mapping[str, Table]) -> ColorTable | None:
    """Return the colour table of a raster, by the tables of steps; None where one lacks that it is made of."""
    name, _, output = raster.partition("/")
    step = plan.steps[name]
    if not isinstance(step.operation, HasTableBeside) or step.operation.indices != output:
        return ColorTable()
    if not tables.keys() >= set(step.makers.values()):
        return None
    table, _ = step.operation.table_beside({key: tables[maker] for key, maker in step.makers.items()}, step.sources)
    return color_table(np.asarray(table["palette"]), step.sources["input"].dtype, step.declared[output])


def with_colors(spec: RasterSpec, colors: tuple[int, ...]) -> RasterSpec:
    """Return the spec of a raster whose values have these colours."""
    return replace(spec, recorded=replace(recorded_of(spec), colors=colors)) if colors else spec


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
    colors = whole.T.astype(np.int64) * (EIGHT_TO_SIXTEEN if dtype.itemsize == 1 else 1)
    is_rounded = bool((whole != palette).any())
    lost = f"the colours of its table are the palette's, rounded: `dtype: {dtype.name}` of the palette makes them equal"
    return ColorTable(tuple(colors.ravel().tolist()), lost if is_rounded else "")
