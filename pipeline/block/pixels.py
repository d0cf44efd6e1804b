"""What is done to the pixels of a block besides its operations: marking, converting, filling edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.block.plan import Use
from pipeline.kernels import validity
from pipeline.kernels.edge import fill_edges
from pipeline.model.raster import Number, RasterSpec, array_slices, is_nan
from pipeline.model.region import Region
from pipeline.operations.base import Block


def copy_part(out: np.ndarray, block: Block, region: Region, axes: tuple[int, ...]) -> None:
    """Copy a region of a block into an array whose axes are in another order."""
    np.copyto(out, block.values[array_slices(block.dims, region, block.origin)].transpose(axes))


def clear_border(block: Block, region: Region, border: int) -> None:
    """Set the valid pixels of `region` that lie in the raster's rim to 0."""
    raster = block.raster
    top, bottom = min(raster.top + border, raster.bottom), max(raster.bottom - border, raster.top)
    left, right = min(raster.left + border, raster.right), max(raster.right - border, raster.left)
    for rim in (
        replace(raster, bottom=top),
        replace(raster, top=bottom),
        replace(raster, right=left),
        replace(raster, left=right),
    ):
        part = block.values[array_slices(block.dims, rim.clip(region), block.origin)]
        np.copyto(part, 0, where=~np.isnan(part))


def mark_nan(values: np.ndarray, spec: RasterSpec) -> None:
    """Turn the nodata of a floating-point raster into NaN, in place."""
    if spec.dtype.kind == "f" and spec.nodata is not None and not is_nan(spec.nodata):
        if values.dtype == np.float16:
            values[values == values.dtype.type(spec.nodata)] = np.nan
        else:
            validity.nodata_to_nan(values.reshape(-1), values.dtype.type(spec.nodata))


def mark_nodata(values: np.ndarray, nodata: Number) -> None:
    """Turn NaN into nodata, in place."""
    if values.dtype == np.float16:  # no kernel knows it
        values[np.isnan(values)] = nodata
    else:
        validity.nan_to_nodata(values.reshape(-1), values.dtype.type(nodata))


def mark_valid(block: Block, spec: RasterSpec) -> None:
    assert block.valid is not None
    if spec.nodata is None:
        block.valid.fill(True)
    else:
        np.not_equal(block.values, block.values.dtype.type(spec.nodata), out=block.valid)


def convert(values: np.ndarray, block: Block, use: Use) -> None:
    """Copy a raster into a block: the bands asked for, in the dtype asked for, invalid integers as NaN."""
    if use.bands is not None and "band" in block.dims:
        axis, same = block.dims.index("band"), values.dtype == block.values.dtype
        values = np.take(values, use.bands, axis=axis, out=block.values if same else None, mode="clip")
        if same:
            return
    nodata = use.spec.nodata
    if values.dtype.kind != "f" and block.values.dtype.kind == "f" and nodata is not None:
        validity.integers_to_float(
            np.ascontiguousarray(values).reshape(-1), values.dtype.type(nodata), block.values.reshape(-1)
        )
    else:
        with np.errstate(invalid="ignore"):  # beyond the raster lies what was in memory
            np.copyto(block.values, values, casting="unsafe")


def fill_block_edges(block: Block, need: Region, use: Use) -> None:
    """Fill what a step needs beyond the raster's edge by the step's own rule."""
    raster, rule = use.spec.region, use.edge.rule
    if raster.contains(need) or rule == "wrap":  # what wraps was fetched from the far side
        return
    value: float | int = use.edge.cval
    if rule == "invalid":
        value = float("nan") if block.values.dtype.kind == "f" else 0
    fill = "constant" if rule in ("constant", "invalid") else rule
    fill_edges(block.planes(), block.lanes, block.origin, need, raster, fill, value)
    if block.valid is not None:
        masked = rule != "invalid"
        fill_edges(block.planes(block.valid), block.lanes, block.origin, need, raster, fill, masked)
