"""What hypothesis draws: rasters, parts of them, layouts, and steps of an operation by its example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import parse
from pipeline.model.errors import PipelineError
from pipeline.model.region import Region
from pipeline.operations.base import Operation
from pipeline.operations.plugin import op_of
from pipeline.testing.layout import Layout
from pipeline.testing.raster import Raster, dates

DIMS = (("y", "x", "band"), ("band", "y", "x"), ("y", "x"))
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@st.composite
def rasters(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES, largest: int = 40, *, extreme: bool = False) -> Raster:
    """Draw a raster with some invalid pixels, chunked at random, of either Zarr format; its bands are of some dates.

    An `extreme` one may have values from the ends of float64's range, where naive references overflow.
    """
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    dims = draw(st.sampled_from(DIMS))
    sizes = {"y": height, "x": width, "band": draw(st.integers(1, 3))}
    shape = tuple(sizes[dim] for dim in dims)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodata: float | int | None = None
    density = draw(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]))
    if dtype.kind == "f":
        values = (rng.normal(size=shape) * draw(st.sampled_from([1.0, 1e4]))).astype(dtype)
        if extreme and dtype.itemsize == 8 and draw(st.booleans()):
            shifts = draw(st.lists(st.sampled_from([-1050, -700, 0, 700, 1020]), min_size=1, max_size=3))
            with np.errstate(over="ignore"):  # inf, which is drawn anyhow
                values = np.ldexp(values, rng.choice(shifts, shape))
        values[rng.random(shape) < density] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        if density and draw(st.booleans()):
            nodata = -9999.0
            values[rng.random(shape) < density] = nodata
    else:
        info: Any = np.iinfo(dtype)
        most = draw(st.sampled_from([10**6, 10**6, 2**32]))
        values = rng.integers(max(info.min, -most), min(info.max, most), shape, dtype=dtype, endpoint=True)
        if density:
            nodata = draw(st.sampled_from([0, 7, int(info.max)]))
            values[rng.random(shape) < density] = nodata
    chunks = tuple(draw(st.integers(1, size)) for size in shape)
    zarr_format: Literal[2, 3] = draw(st.sampled_from([3, 3, 2]))
    shards = tuple(chunk * 2 for chunk in chunks) if zarr_format == 3 and draw(st.booleans()) else None
    coordinates = dates(sizes["band"]) if "band" in dims else ()
    return Raster(values, dims, nodata, chunks, shards, zarr_format, coordinates)


@st.composite
def regions(draw: st.DrawFn, raster: Raster) -> Region:
    """Draw a part of a raster, often one row or column at its edge."""
    sizes = dict(zip(raster.dims, raster.values.shape, strict=True))
    spans = []
    for side in (sizes["y"], sizes["x"]):
        ends = draw(
            st.one_of(st.sampled_from([(0, 0), (side - 1, side - 1)]), st.tuples(*[st.integers(0, side - 1)] * 2))
        )
        spans += [min(ends), max(ends) + 1]
    return Region(*spans)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    chunks = draw(st.integers(3, 20)), draw(st.integers(3, 20))
    shards = (chunks[0] * 2, chunks[1] * 2) if draw(st.booleans()) else None
    return Layout(
        block=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        panel=draw(st.sampled_from([1, 2, 2**31])),
        strip=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        chunks=chunks,
        shards=shards,
        halo=draw(st.sampled_from(["read", "auto"])),
        workers=draw(st.sampled_from([1, 2])),
        dims=draw(st.sampled_from(["auto", "y,x,band", "band,y,x"])),
    )


def steps_of(operation: type[Operation]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw steps like an operation's example, with other words and switches where a parameter has some."""
    example = parse(f"step: {operation.example}").data["step"]
    example = {key: value for key, value in example.items() if key not in ("name", "op", "input")}
    properties = operation.model_json_schema()["properties"]
    own = {key: properties[key] for key in operation.model_fields if key not in Operation.model_fields}
    choices = {key: _choices(entry) for key, entry in own.items()}
    optional = {key: st.sampled_from(values) for key, values in choices.items() if values}
    drawn = st.fixed_dictionaries({}, optional=optional)
    return drawn.map(lambda chosen: {**example, **chosen}).filter(lambda step: _is_valid(operation, step))


def _choices(entry: Mapping[str, Any]) -> list[Any]:
    return [False, True] if entry.get("type") == "boolean" else list(entry.get("enum", ()))


def _is_valid(operation: type[Operation], step: Mapping[str, Any]) -> bool:
    try:
        operation.model_validate({"name": "step", "op": op_of(operation), **step})
    except (ValidationError, PipelineError):
        return False
    return True
