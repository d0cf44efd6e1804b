"""The main job against its floor: a 3 x 3 mean of a 16-band float32 raster, Zarr to Zarr.

The floor is the time to read the input and to write the finished result with the same codec, chunks, blocks and
threads. It does not wait for the disk, so neither does the run (`durable: false`), unless `--durable` asks for it.
Both are measured in turn, several rounds; ratios of one run are to be trusted, absolute times are not.

    python -m benchmarks.moving_average --size 5000 --folder /tmp/bench
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.job import load
from pipeline.storage.zarr import ZarrReader, configure
from pipeline.storage.zarr_store import ZarrWriter, create_store
from pipeline.store import array_plan
from pipeline.synth import synth


def document(scene: Path, result: Path, **run: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": str(scene)},
        "steps": [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}],
        "output": {"path": str(result)},
        "run": run,
    }


def in_own_process(function: str, *arguments: Any) -> Any:
    """Call a function of this module in a fresh process: run and floor both pay for fresh memory."""
    code = (
        "import json, sys; from benchmarks import moving_average; "
        "print(json.dumps(getattr(moving_average, sys.argv[1])(*json.loads(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, function, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure_run(config: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run into an empty place."""
    shutil.rmtree(config["output"]["path"], ignore_errors=True)
    return pipeline.run(config)


def measure_floor(config: dict[str, Any], folder: str) -> float:
    """Return the seconds to read the input and write the finished result, block by block as the run does."""
    job = load(config)
    planned = job.plan.passes[0]
    (array,) = planned.arrays.values()
    configure(job.plan.settings.workers)
    grid = planned.plan.grid
    blocks = [grid.block(number) for number in range(len(grid))]
    finished = ZarrReader(job.output, array.raster)
    results = [np.empty(array.spec.shape_of(block), array.spec.dtype) for block in blocks]
    for block, values in zip(blocks, results, strict=True):
        finished.read(block, values)
    store = Path(folder) / "floor.zarr"
    shutil.rmtree(store, ignore_errors=True)
    create_store(str(store), {}, [array_plan(array)])
    source, writer = ZarrReader(config["inputs"]["image"]), ZarrWriter(str(store), array_plan(array))

    def copy(number: int) -> None:
        source._array[blocks[number].slices()]
        writer.write(blocks[number], results[number])

    started = time.perf_counter()
    with ThreadPoolExecutor(job.plan.settings.workers) as pool:
        list(pool.map(copy, range(len(blocks))))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--bands", type=int, default=16)
    parser.add_argument("--memory", default="1 GiB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--durable", action="store_true", help="the run waits until its result is on the disk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, required=True, help="for the rasters; some 3 times their size")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    scene = arguments.folder / f"scene-{arguments.size}.zarr"
    if not scene.exists():
        synth(scene, size=(arguments.size, arguments.size), bands=arguments.bands)
    config = document(
        scene,
        arguments.folder / "result.zarr",
        memory=arguments.memory,
        workers=arguments.workers,
        durable=arguments.durable,
    )
    rows = []
    for _ in range(arguments.rounds):
        facts = in_own_process("measure_run", config)
        floor = in_own_process("measure_floor", config, str(arguments.folder))
        rows.append((facts["seconds"], floor, facts["peak_rss_bytes"] / 2**20))
        print("run {:.2f} s, floor {:.2f} s, peak {:.0f} MiB".format(*rows[-1]), flush=True)
    ratio = statistics.median(run / floor for run, floor, _ in rows)
    print(
        f"rasterpipe {pipeline.__version__}, {arguments.size} x {arguments.size} x {arguments.bands} float32: "
        f"run {statistics.median(r[0] for r in rows):.2f} s, floor {statistics.median(r[1] for r in rows):.2f} s, "
        f"ratio {ratio:.2f} (median of {arguments.rounds}); "
        f"planned peak {facts['planned_peak_bytes'] / 2**20:.0f} MiB, "
        f"measured {max(r[2] for r in rows):.0f} MiB"
    )


if __name__ == "__main__":
    main()
