"""What the processes of `tests.process` begin with: everything imported, the kernels of their steps compiled."""

import dask.threaded  # noqa: F401
import numpy as np
import zarrs  # noqa: F401

import pipeline.api  # noqa: F401
from pipeline.config import load_pipeline, resolve
from pipeline.execution.compilation import compile_kernels
from pipeline.model.raster import RasterSpec
from pipeline.operations.registry import registry
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Settings

registry()
steps = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean", "max"]}]
config, _ = load_pipeline({"inputs": {"image": "unused.zarr"}, "steps": steps, "output": {"path": "unused.zarr"}})
spec = RasterSpec(64, 64, np.dtype(np.uint16), ("y", "x", "band"), ("b1", "b2"))
again = RasterSpec(64, 64, np.dtype(np.float32), ("y", "x", "band"), ("b1", "b2"), nodata=float("nan"))
for each in (spec, again):
    inputs = {"image": InputSpec("image", each, (16, 16))}
    compile_kernels(make_plan(config.steps, resolve(config), inputs, Settings(memory_bytes=2**30, workers=2)))
