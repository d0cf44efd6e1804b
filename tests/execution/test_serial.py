"""The serial executor, the reference: threads, and halos that are exchanged, make the bytes that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.execution.executor import Threads
from pipeline.execution.serial import run_serially
from tests import harness

STEPS = [
    {"name": "smooth", "op": "window", "input": "image", "size": 5, "statistics": ["mean", "median"]},
    {"name": "slope", "op": "gradient", "input": "smooth/mean", "spacing": 1},
    {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]},
    {"name": "colors", "op": "palette", "input": "image", "colors": 8},
]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    random = np.random.default_rng(3)
    image = harness.Raster(random.normal(100, 20, (70, 90, 3)).astype(np.float32), ("y", "x", "band"))
    labels = harness.Raster(random.integers(0, 9, (70, 90)).astype(np.uint16), ("y", "x"))
    return {
        name: harness.store(raster, tmp_path / f"{name}.zarr", with_labels=False)
        for name, raster in {"image": image, "labels": labels}.items()
    }


def document(sources: dict[str, str], output: Path, halo: str) -> dict[str, Any]:
    return {
        "inputs": sources,
        "steps": STEPS,
        "output": {"path": str(output), "chunks": [20, 30], "shards": "none"},
        "run": {"halo": halo, "workers": 2},
    }


def pixels(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_threads_make_what_one_block_after_the_other_makes(
    halo: str, sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])  # blocks of a chunk
    api.run(document(sources, tmp_path / "threads.zarr", halo))
    monkeypatch.setattr(Threads, "run_strips", lambda self, *work: run_serially(*work))
    facts = api.run(document(sources, tmp_path / "serial.zarr", "read"))
    assert facts["blocks"] > 20
    made = pixels(tmp_path / "serial.zarr")
    assert len(made) > 20
    assert made == pixels(tmp_path / "threads.zarr")
