"""A raster of 25.6 GB through a chain of steps below 1 GiB, watched from outside (long; needs 40 GB of disk).

``python -m pytest -m long tests/verbs/test_larger_than_memory.py -s --basetemp FOLDER``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from pipeline.config import load_pipeline
from tests import references
from tests.watch import Watched, run_below

SIZE, BANDS, BAND = 20_000, 16, 8
GIB = 2**30
STEPS: list[dict[str, Any]] = [
    {"name": "smooth", "op": "window", "input": "image", "size": 9},
    {"name": "slope", "op": "gradient", "input": "smooth", "spacing": 1, "outputs": ["magnitude"]},
    {"name": "bend", "op": "hessian", "input": "smooth", "spacing": 1, "outputs": ["laplacian"]},
    {"name": "rough", "op": "gabor", "input": "image", "frequencies": [0.1], "orientations": [30], "sigma": 3}
    | {"window": 15, "statistics": ["var"]},
]
KEPT = ("smooth", "slope", "bend", "rough")


@pytest.mark.long
def test_a_chain_over_25_gigabytes_stays_below_a_gibibyte(tmp_path: Path) -> None:
    scene = tmp_path / "scene.zarr"
    command = [sys.executable, "-m", "pipeline"]
    size = ["--size", str(SIZE), str(SIZE), "--bands", str(BANDS)]
    made = run_below(4 * GIB, [*command, "synth", str(scene), *size], tmp_path)
    assert made.code == 0, made.stderr
    steps = [*STEPS, *({"name": f"{name}_b", "op": "select", "input": name, "bands": [BAND]} for name in KEPT)]
    config = {
        "inputs": {"image": str(scene)},
        "steps": steps,
        "output": {"path": str(tmp_path / "out.zarr"), "keep": [f"{name}_b" for name in KEPT]},
        "run": {"memory": "1 GiB"},
    }
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump(config))
    started = time.monotonic()
    done = run_below(GIB, [*command, "run", str(tmp_path / "chain.yaml"), "--json"], tmp_path)
    assert not done.exceeded, f"{done.peak_bytes / 2**20:.0f} MiB"
    assert done.code == 0, done.stderr
    report(done, time.monotonic() - started)
    check_regions(tmp_path, np.random.default_rng(0))


def report(done: Watched, seconds: float) -> None:
    facts = json.loads(done.stdout)
    planned = facts["planned_peak_bytes"] / 2**20
    print(
        f"\n{facts['blocks']} blocks in {seconds:.0f} s; peak {done.peak_bytes / 2**20:.0f} MiB of {planned:.0f} "
        f"planned ({done.samples} samples); the process says {facts['peak_rss_bytes'] / 2**20:.0f}"
    )


def check_regions(folder: Path, rng: np.random.Generator) -> None:
    """Compare crops with the references of each step over what the step before left there."""
    config, _ = load_pipeline(folder / "chain.yaml")
    operations = {step.name: step for step in config.steps}
    arrays = {name: zarr.open_array(str(folder / "out.zarr"), path=f"{name}_b/value", mode="r") for name in KEPT}
    arrays["image"] = zarr.open_array(str(folder / "scene.zarr"), path="scene", mode="r")
    side, margin = 96, 24
    corners = rng.integers(0, SIZE - side, (12, 2))
    corners[:2] = [[0, 0], [SIZE - side, SIZE - side]]  # with the edges of the raster
    for top, left in corners.tolist():
        crop = np.s_[top : top + side, left : left + side]
        planes = {name: array[(*crop, BAND - 1 if name == "image" else 0)] for name, array in arrays.items()}
        for name, source in (("smooth", "image"), ("slope", "smooth"), ("bend", "smooth"), ("rough", "image")):
            operation = operations[name]
            reference = getattr(references, "difference" if name in ("slope", "bend") else operation.op)
            plane = planes[source].astype(np.float64)[np.newaxis]
            ((expected, bound),) = reference(operation, plane, np.dtype("float32")).values()
            rows = slice(0 if top == 0 else margin, side if top == SIZE - side else side - margin)
            columns = slice(0 if left == 0 else margin, side if left == SIZE - side else side - margin)
            error = np.abs(planes[name] - expected[0])[rows, columns]
            assert (error <= bound[0][rows, columns]).all(), (name, top, left)
