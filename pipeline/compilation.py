"""The kernels of a plan are compiled before its first block, in a process of their own.

Compiling takes 60 to 150 MiB that a process never gives back: what numba knows of types and code. So where a kernel
is not in numba's cache, a child process compiles all of the plan into the cache, and this process only loads them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time

import numpy as np

from pipeline.kernels.compile import NotCompiledError, cached_only
from pipeline.passes import Fetch, Fresh, compute_block
from pipeline.planning import Plan, PlannedPass
from pipeline.raster import RasterSpec
from pipeline.reduction import BlockCollector, Merger
from pipeline.region import Region
from pipeline.worker import count_valid

_CHILD = "import pickle, sys; from pipeline.compilation import compute_pixels as f; f(pickle.load(sys.stdin.buffer))"


def compile_kernels(plan: Plan) -> float:
    """Have all kernels that a plan needs in this process, compiled; return the seconds that it took."""
    started = time.monotonic()
    try:
        with cached_only():
            compute_pixels(plan)
    except NotCompiledError:
        _compile_in_child(plan)
        compute_pixels(plan)
    return time.monotonic() - started


def compute_pixels(plan: Plan) -> None:
    """Compute a plan for a few pixels, valid and invalid, alike and different: all kernels are called that it needs."""
    _decode_inputs(plan)
    tables = plan.first_tables()
    for planned in plan.passes:
        first = planned.plan.grid.region
        patch = Region(first.top, first.top + min(2, first.height), first.left, first.left + min(2, first.width))
        merger = Merger(tuple((sweep.reduction, sweep.number) for sweep in planned.plan.sweeps), "", 2**62)
        collector = BlockCollector(merger)
        for values in ("nodata", "equal", "different"):
            fetch = _fill_with(planned, values)
            rasters = compute_block(planned.plan, patch, fetch, Fresh(), tables=tables, collector=collector)
            for raster, block in rasters.items():
                count_valid(block, planned.plan.specs[raster])
        for sweep, table in zip(planned.plan.sweeps, collector.partials.tables, strict=True):
            assert table is not None
            tables[sweep.step.name] = sweep.reduction.fold(table, tables[sweep.step.name], sweep.number)


def _decode_inputs(plan: Plan) -> None:
    if any(entry.codec == "lzw" for entry in plan.inputs.values()):
        from pipeline.kernels import lzw  # which few files need

        lzw.decode(np.zeros(lzw.SLACK_BYTES, np.uint8), np.zeros(lzw.SLACK_BYTES, np.uint8))


def _fill_with(planned: PlannedPass, values: str) -> Fetch:
    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        spec = planned.plan.specs[raster]
        out[...] = spec.nodata if values == "nodata" and spec.nodata is not None else 1
        if values == "different":
            out.reshape(-1)[-1] = _far_value(spec)

    return fetch


def _far_value(spec: RasterSpec) -> float | int:
    """Return a value far from 1: labels so far apart are looked up by another kernel."""
    return 2 if spec.dtype.kind == "f" else int(np.iinfo(spec.dtype).max) // 2


def _compile_in_child(plan: Plan) -> None:
    """Fill numba's cache; what fails there is left to this process, which says why."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=pickle.dumps(plan),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, pickle.PicklingError, AttributeError):
        return
