"""Kernels compiled before a run needs them: of a pipeline, or of every operation, for images and clusters."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from pipeline.config import parse, resolve, validate
from pipeline.execution.compilation import compile_kernels
from pipeline.execution.progress import Progress
from pipeline.model.errors import PipelineError
from pipeline.model.raster import Dims, RasterSpec
from pipeline.operations.base import Operation
from pipeline.operations.registry import our_operations
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings

DTYPES = ("uint8", "uint16", "float32")
"""Of most rasters; others are compiled when they come."""
SIDE, BANDS = 64, 16


def warm_everything(progress: Progress) -> float:
    """Compile the example of each operation for rasters of the usual dtypes, bands first and last; return seconds."""
    started = time.monotonic()
    for plan in _plans():
        compile_kernels(plan, progress)
    return time.monotonic() - started


def _plans() -> Iterator[Plan]:
    for dims in (("band", "y", "x"), ("y", "x", "band")):
        for dtype in DTYPES:
            for operation in our_operations().values():
                yield from _plan_of(operation, dims, np.dtype(dtype))


def _plan_of(cls: type[Operation], dims: Dims, dtype: np.dtype) -> Iterator[Plan]:
    """Yield a plan of an operation's example; none where it takes no raster of this kind."""
    steps = [f"- {cls.example}"]
    step = cls.model_validate(parse(f"step: {cls.example}").data["step"])
    for maker in step.tables().values():
        steps.insert(0, f"- {{name: {maker}, op: palette, input: image, bands: [3, 2, 1], colors: 16}}")
    names = dict.fromkeys(["image", *(name for name in step.sources().values() if name)])
    lines = [f"inputs: {{{', '.join(f'{name}: unused.zarr' for name in names)}}}", "steps:", *steps]
    series = (("time", tuple(f"2024-01-{band + 1:02}" for band in range(BANDS))),)
    nodata = 0 if dtype.kind == "u" else float("nan")
    bands = tuple(f"b{band + 1}" for band in range(BANDS))
    spec = RasterSpec(SIDE, SIDE, dtype, dims, bands, nodata, series)
    single = RasterSpec(SIDE, SIDE, np.dtype(np.uint16), ("y", "x"), ("b1",), 0)
    inputs = {name: InputSpec(name, spec if name == "image" else single, (SIDE, SIDE)) for name in names}
    try:
        config = validate(parse("\n".join([*lines, "output: {path: unused.zarr}"])))
        yield make_plan(config.steps, resolve(config), inputs, Settings(memory_bytes=2**30, workers=2))
    except PipelineError:
        return
