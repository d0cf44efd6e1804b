"""An operation watched while it computes a block: what it changes, hands over, and allocates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block
from pipeline.block.plan import Pass
from pipeline.execution.process import peak_rss_bytes, trim_heap
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Operation
from pipeline.operations.registry import registered
from pipeline.testing.layout import document
from pipeline.testing.memory import reset_peak_bytes
from pipeline.testing.raster import Raster, same_bits, store, workspace
from pipeline.verbs.load import load

SIDE, BANDS = 1024, 3
"""Of the block whose scratch is measured."""

Apply = Callable[[Mapping[str, Block], Mapping[str, Any], Mapping[str, Block], Region], None]


def watched(plan: Pass, around: Callable[[Operation, Apply], Apply]) -> Pass:
    """Return a pass of one step whose `apply` is called through another function."""
    bound = plan.steps[0].operation

    class Watched(type(bound)):  # type: ignore[misc]
        def apply(self, *arguments: Any) -> None:
            around(self, super().apply)(*arguments)

    operation = Watched.model_construct(**dict(bound))
    return dataclasses.replace(plan, steps=(dataclasses.replace(plan.steps[0], operation=operation),))


def faults_of_a_block(plan: Pass) -> list[str]:
    """Compute one block of a pass of one step; return what its operation does there that it must not."""
    faults = []

    def around(operation: Operation, apply: Apply) -> Apply:
        def look(blocks: Mapping[str, Block], tables: Any, out: Mapping[str, Block], region: Region) -> None:
            before = {key: (block.values.copy(), block.valid) for key, block in blocks.items()}
            handed = {name: block.values for name, block in out.items()}
            apply(blocks, tables, out, region)
            for key, (values, valid) in before.items():
                if not same_bits(blocks[key].values, values) or blocks[key].valid is not valid:
                    faults.append(f"apply changes the block of its source {key!r}, which other steps read, too")
            for name, values in handed.items():
                if out[name].values is not values:
                    faults.append(
                        f"apply puts an array of {out[name].values.dtype.name} in the place of the output {name!r}, "
                        f"which is {values.dtype.name} as output_specs declares; write into the array that is there"
                    )

        return look

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        out[...] = 3

    compute_block(watched(plan, around), plan.grid.region, fetch, Fresh())
    return faults


def scratch_bytes(operation: type[Operation], step: dict[str, Any], dims: tuple[str, ...], dtype: str) -> list[int]:
    """Return what `apply` allocates for 1024 x 1024 x 3, by the process's high-water mark, and what it promises.

    To be called in a process of its own: what the heap of one holds that has run much comes and goes as it likes.
    """
    values = np.random.default_rng(0).integers(0, 1000, (SIDE, SIDE, BANDS)).astype(dtype)
    values = np.ascontiguousarray(values if dims[0] == "y" else np.moveaxis(values, -1, 0))
    with registered(operation), workspace() as folder:
        source = store(Raster(values, dims, 7), folder / "in.zarr")
        planned = load(document(source, [step], folder / "x.zarr")).plan.passes[0]
    found: list[int] = []

    def around(operation: Operation, apply: Apply) -> Apply:
        def measure(blocks: Any, tables: Any, out: Any, region: Region) -> None:
            apply(blocks, tables, out, region)  # compiles, and touches every buffer
            trim_heap()
            before = reset_peak_bytes()
            apply(blocks, tables, out, region)
            promised = operation.scratch_bytes(planned.steps[0].sources, region.shape)
            found.extend((peak_rss_bytes() - before, promised))

        return measure

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        read = np.take(values, planned.bands.get(raster, range(BANDS)), axis=dims.index("band"))
        out[...] = read[tuple(region.slices()) if dims[0] == "y" else (slice(None), *region.slices())]

    compute_block(watched(planned, around), planned.grid.region, fetch, Fresh())
    return found


def widened(plan: Pass, extra: int) -> Pass:
    """Return a pass of one step that is handed the halo it asks for, and some pixels more on each side."""
    step = plan.steps[0]
    halos = step.operation.halo(step.sources)
    uses = [dataclasses.replace(use, halo=halos.get(use.key, Halo()) + Halo.around(extra, extra)) for use in step.uses]
    return dataclasses.replace(plan, steps=(dataclasses.replace(step, uses=tuple(uses)),))


def computed(plan: Pass, block: Region, array: np.ndarray) -> np.ndarray:
    """Return the pixels of a block of all outputs, where the one source is a raster (y, x)."""

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        out[...] = array[region.slices()]

    arrays = compute_block(plan, block, fetch, Fresh())
    return np.concatenate([values.reshape(-1).astype(np.float64) for values in arrays.values()])
