"""Kernels compiled before a run needs them: of a pipeline, or of every operation, for images and clusters."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import numpy as np

from pipeline.config import parse, resolve, validate
from pipeline.execution.compilation import compute_pixels
from pipeline.execution.progress import Progress
from pipeline.model.errors import PipelineError
from pipeline.model.raster import Dims, RasterSpec
from pipeline.operations.base import Operation
from pipeline.operations.registry import our_operations
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Of most rasters; others are compiled when they come."""
SIDE, BANDS = 64, 16


def warm_everything(progress: Progress) -> float:
    """Compile each operation for rasters of the usual dtypes, bands first and last; return seconds.

    Its example, and the example with each other choice (statistic, method, boundary, ...) that a parameter offers.
    """
    started, operations = time.monotonic(), our_operations()
    progress.start(len(operations), what="compiling")
    gc.disable()  # as where a run compiles; its children would each begin anew for each plan
    try:
        for number, (op, operation) in enumerate(operations.items(), 1):
            progress.begin_part(f"compiling {number} of {len(operations)}: {op}")
            for plan in _plans(operation):
                compute_pixels(plan)
    finally:
        gc.enable()
        progress.stop()
    return time.monotonic() - started


def _plans(operation: type[Operation]) -> Iterator[Plan]:
    for dims in (("band", "y", "x"), ("y", "x", "band")):
        for dtype in DTYPES:
            for step in variants(operation):
                yield from _plan_of(step, dims, np.dtype(dtype))


def variants(cls: type[Operation]) -> Iterator[Operation]:
    """Yield an operation's example, then with each choice of each parameter that has choices, where it takes that."""
    example: dict[str, Any] = parse(f"step: {cls.example}").data["step"]
    yield cls.model_validate(example)
    for name, field in cls.model_fields.items():
        for choice in _choices(field.annotation, example.get(name)) if name not in Operation.model_fields else ():
            with suppress(ValueError, PipelineError):  # a choice that the rest of the example does not go with
                yield cls.model_validate(example | {name: choice})


def _choices(annotation: Any, chosen: Any) -> list[Any]:
    """Return the words that a parameter may be, as values of it: of several each alone, and each with those chosen."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) is tuple:
        words = _choices(get_args(annotation)[0], None)
        return [[word] for word in words] + [[*chosen, word] for word in words if chosen and word not in chosen]
    return [choice for part in get_args(annotation) for choice in _choices(part, chosen)]


def _plan_of(step: Operation, dims: Dims, dtype: np.dtype) -> Iterator[Plan]:
    """Yield a plan of a step; none where it takes no raster of this kind."""
    steps = [f"- {json.dumps(step.model_dump(mode='json', exclude_defaults=True))}"]
    for maker in step.tables().values():
        steps.insert(0, f"- {{name: {maker}, op: palette, input: image, bands: [3, 2, 1], colors: 16}}")
    names = dict.fromkeys(["image", *(name for name in step.sources().values() if name)])
    lines = [f"inputs: {{{', '.join(f'{name}: unused.zarr' for name in names)}}}", "steps:", *steps]
    series = (("time", tuple(f"2024-01-{band + 1:02}" for band in range(BANDS))),)
    nodata = float("nan") if dtype.kind == "f" else 0
    bands = tuple(f"b{band + 1}" for band in range(BANDS))
    spec = RasterSpec(SIDE, SIDE, dtype, dims, bands, nodata, series)
    single = RasterSpec(SIDE, SIDE, np.dtype(np.uint16), ("y", "x"), ("b1",), 0)
    inputs = {name: InputSpec(name, spec if name == "image" else single, (SIDE, SIDE)) for name in names}
    try:
        config = validate(parse("\n".join([*lines, "output: {path: unused.zarr}"])))
        yield make_plan(config.steps, resolve(config), inputs, Settings(memory_bytes=2**30, workers=2))
    except PipelineError:
        return
