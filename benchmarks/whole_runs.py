"""Runs from file to file, ours and their floors; each is called in a process of its own (`benchmarks.child`)."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import pipeline
from pipeline.storage.input import Choice
from pipeline.storage.zarr.reader import ZarrReader, configure
from pipeline.storage.zarr.store import ZarrWriter, create_store
from pipeline.verbs.load import load


def run(config: dict[str, Any]) -> float:
    """Run a pipeline; return the seconds that it says it took: imports and kernels from the disk stand in row 12."""
    return float(pipeline.run(config)["seconds"])


def run_all(config: dict[str, Any]) -> None:
    """Run a pipeline, of which all counts: polygons are read before the first block."""
    pipeline.run(config)


def floor(config: dict[str, Any], place: str) -> float:
    """Return the seconds to read the input and to write the finished result of one pass, block by block as it did."""
    job = load(config)
    (planned,) = job.plan.passes
    configure(job.plan.settings.workers)
    grid = planned.grid
    blocks = [grid.block(number) for number in range(len(grid))]
    results = {name: _read_blocks(ZarrReader(job.output, Choice(name)), blocks) for name in planned.arrays}
    shutil.rmtree(place, ignore_errors=True)
    create_store(place, {}, list(planned.arrays.values()))
    writers = {name: ZarrWriter(place, array) for name, array in planned.arrays.items()}
    source = ZarrReader(config["inputs"]["image"])

    def copy(number: int) -> None:
        source._array[blocks[number].slices()]
        for name, writer in writers.items():
            writer.write(blocks[number], results[name][number])

    started = time.perf_counter()
    with ThreadPoolExecutor(job.plan.settings.workers) as pool:
        list(pool.map(copy, range(len(blocks))))
    return time.perf_counter() - started


def _read_blocks(reader: ZarrReader, blocks: list[Any]) -> list[np.ndarray]:
    results = [np.empty(reader.spec.shape_of(block), reader.spec.dtype) for block in blocks]
    for block, values in zip(blocks, results, strict=True):
        reader.read(block, values)
    return results
