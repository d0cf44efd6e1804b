"""The kernels of a plan are compiled before its first block, in processes of their own.

Compiling takes 60 to 150 MiB that a process never gives back: what numba knows of types and code. So where a kernel
is not in numba's cache, child processes compile all of the plan into the cache, and this process only loads them. The
compiler holds one lock for all threads of a process, so two children share the work, each taking the next kind of steps
that nobody has.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from pipeline.block.buffers import Fresh
from pipeline.block.compute import Computation, Fetch
from pipeline.block.plan import Pass, StepPlan, Sweep
from pipeline.block.walk import walk
from pipeline.execution.partials import BlockCollector, Merger
from pipeline.execution.progress import Progress
from pipeline.execution.worker import count_valid
from pipeline.kernels import compile as kernels
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.operations import traits
from pipeline.operations.base import Block, Operation
from pipeline.planning.plan import Plan

_CHILD = (
    "import sys; from pipeline.execution.compilation import compile_share as f; f(sys.stdin.buffer.read(), sys.argv[1])"
)
CHILDREN = 2
"""More are no faster: the costliest step of a pipeline takes a third of all."""
CHILD_BYTES = 512 * 2**20
WATCH_SECONDS = 0.05

IsMine = Callable[[str], bool]
"""Whether this process computes the steps of a share, by its name."""


def compile_kernels(plan: Plan, progress: Progress | None = None) -> float:
    """Have all kernels that a plan needs in this process, compiled; return the seconds that it took."""
    started, progress = time.monotonic(), progress or Progress(quiet=True)
    collects = gc.isenabled()
    gc.disable()  # numba makes much that lives on, when it is imported and when it loads its first kernel
    try:
        _load_or_compile(plan, progress)
    finally:
        if kernels.alone:
            gc.freeze()  # nor does it go when the process ends
        if collects:
            gc.enable()
    return time.monotonic() - started


def _load_or_compile(plan: Plan, progress: Progress) -> None:
    from pipeline.kernels.machine_code import NotCompiledError, cache_fault, cached_only  # numba

    try:
        with cached_only():
            compute_pixels(plan)
    except NotCompiledError:
        if fault := cache_fault():
            progress.say(f"note: compiled kernels cannot be kept ({fault}), so each run compiles its own")
        else:
            _compile_in_children(plan, progress)
        compute_pixels(plan)


def compute_pixels(plan: Plan, is_mine: IsMine = lambda step: True) -> None:
    """Compute a plan for a few pixels, valid and invalid, alike and different: all kernels are called that it needs.

    Of the steps, only those whose share is mine; what others read of the rest is 0.
    """
    for entry in plan.inputs.values():
        if entry.compile_decoder is not None:
            entry.compile_decoder()
    tables = plan.first_tables()
    for planned in plan.passes:
        first = planned.grid.region
        patch = Region(first.top, first.top + min(2, first.height), first.left, first.left + min(2, first.width))
        merger = Merger(tuple((sweep.reduction, sweep.number) for sweep in planned.sweeps), "", 2**62)
        collector = BlockCollector(merger)
        for values in ("nodata", "equal", "different"):
            share = _Share(planned, patch, _fill_with(planned, values), tables, collector)
            share.is_mine = lambda work: is_mine(_share_of(work, plan))
            rasters = walk(planned, patch, Fresh(), share)
            for raster, block in rasters.items():
                count_valid(block, planned.specs[raster])
        for sweep, table in zip(planned.sweeps, collector.partials.tables, strict=True):
            if is_mine(_share_of(sweep, plan)):
                assert table is not None
                tables[sweep.step.name] = sweep.reduction.fold(table, tables[sweep.step.name], sweep.number)


def _shares(plan: Plan) -> dict[str, list[str]]:
    """Return the shares of a plan, each with its operations as they are called."""
    found: dict[str, list[str]] = {}
    sweeps: list[StepPlan | Sweep] = [sweep for planned in plan.passes for sweep in planned.sweeps]
    for work in sweeps + [step for planned in plan.passes for step in planned.steps]:
        step = work.step if isinstance(work, Sweep) else work
        operations = found.setdefault(_share_of(work, plan), [])
        operations += [step.operation.op] if step.operation.op not in operations else []
    return found


def _share_of(work: StepPlan | Sweep, plan: Plan) -> str:
    """Return the name of the steps with which a step goes: those of its kind, or of what makes the table it reads."""
    step = work.step if isinstance(work, Sweep) else work
    for maker in step.makers.values():
        if maker != step.name and maker in plan.reductions:
            return _share_of(plan.reductions[maker], plan)
    kinds = [kind for kind in type(step.operation).__mro__ if issubclass(kind, Operation)]
    kinds = [kind for kind in kinds if kind.__module__ != traits.__name__]
    return kinds[-2].__name__  # of gradient and hessian, say, what they are both


class _Share(Computation):
    """Computes some of the steps."""

    is_mine: Callable[[StepPlan | Sweep], bool]

    def apply(self, step: StepPlan, blocks: Mapping[str, Block], out: Mapping[str, Block]) -> None:
        if self.is_mine(step):
            super().apply(step, blocks, out)
        else:  # others may read what it would have written
            for block in out.values():
                block.values[...] = 0

    def collect(self, sweep: Sweep, blocks: Mapping[str, Block], region: Region) -> None:
        if self.is_mine(sweep):
            super().collect(sweep, blocks, region)


def _fill_with(planned: Pass, values: str) -> Fetch:
    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        spec = planned.specs[raster]
        out[...] = spec.nodata if values == "nodata" and spec.nodata is not None else 1
        if values == "different":
            out.reshape(-1)[-1] = _far_value(spec)

    return fetch


def _far_value(spec: RasterSpec) -> float | int:
    """Return a value far from 1: labels so far apart are looked up by another kernel."""
    return 2 if spec.dtype.kind == "f" else int(np.iinfo(spec.dtype).max) // 2


def _compile_in_children(plan: Plan, progress: Progress) -> None:
    """Fill numba's cache; what fails there is left to this process, which says why."""
    shares = _shares(plan)
    num_children = max(1, min(CHILDREN, plan.settings.workers, plan.settings.memory_bytes // CHILD_BYTES - 1))
    children: list[subprocess.Popen[bytes]] = []
    with suppress(OSError), tempfile.TemporaryDirectory(prefix="rasterpipe-compile-") as claims:
        try:
            payload = pickle.dumps(plan)
            children += (_start_child(claims) for _ in range(num_children))
            for child in children:
                assert child.stdin is not None
                child.stdin.write(payload)
                child.stdin.close()
            _watch(children, claims, shares, progress)
        except (OSError, pickle.PicklingError, AttributeError):
            return
        finally:
            for child in children:  # where all went well, they have ended
                child.kill()
                child.wait()


def _watch(
    children: Sequence[subprocess.Popen[bytes]], claims: str, shares: Mapping[str, Sequence[str]], progress: Progress
) -> None:
    """Say what children begin to compile, until they have ended."""
    said: set[str] = set()
    progress.start(len(shares), what="compiling")
    try:
        while any(child.poll() is None for child in children):
            for share in sorted(set(os.listdir(claims)) - said):
                said.add(share)
                progress.begin_part(f"compiling {len(said)} of {len(shares)}: {', '.join(shares.get(share, [share]))}")
            time.sleep(WATCH_SECONDS)
    finally:
        progress.stop()


def _start_child(claims: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, claims],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
    )


def compile_share(payload: bytes, claims: str) -> None:
    """Compile the kernels of a pickled plan, share by share, but for those that another process has claimed."""
    gc.disable()  # the compiler makes much that lives on: a twentieth of the time
    plan: Plan = pickle.loads(payload)
    for share in _shares(plan):
        try:
            os.mkdir(os.path.join(claims, share))
        except FileExistsError:
            continue
        compute_pixels(plan, share.__eq__)
