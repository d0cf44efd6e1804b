"""Two pipelines of two passes with one output, for tests that let their runs die."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.region import Axis, Grid
from pipeline.storage.zarr.store import root_attributes
from pipeline.verbs.load import Cut
from tests import harness
from tests.process import Run

SIDE, CHUNK = 128, 16
GRIDS = (Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31),) * 2
"""64 blocks in each of two passes: the second wraps around what the first one stores."""
SIZES = (3, 5)

Config = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two pipelines with one output, and the files of their results."""

    folder: Path
    plans: tuple[Config, ...]
    expected: tuple[dict[str, Any], ...]

    @property
    def output(self) -> Path:
        return self.folder / "out" / "result.zarr"

    def cleared(self) -> Path:
        """Return the output, after all that lies there and beside it is removed."""
        shutil.rmtree(self.output.parent, ignore_errors=True)
        self.output.parent.mkdir()
        return self.output

    def check_ended(self, number: int) -> None:
        """Check that the result is as of an undisturbed run, and that nothing else lies there."""
        assert os.listdir(self.output.parent) == [self.output.name]
        assert (root_attributes(str(self.output)) or {})["complete"] is True
        assert harness.stored_files(self.output) == self.expected[number]


@contextmanager
def two_pipelines() -> Iterator[Pair]:
    """Yield the pipelines, in a folder in memory where there is one: thousands of files are made and removed."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="rasterpipe-", dir=memory if os.access(memory, os.W_OK) else None))
    values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
    harness.store(harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2)), folder / "scene.zarr")
    plans = tuple(_pipeline(folder, size, "out/result.zarr") for size in SIZES)
    results = [_pipeline(folder, size, f"expected/{size}.zarr") for size in SIZES]
    for config in results:
        ended = Run(config, cut=Cut(GRIDS)).wait()
        assert ended.code == 0, ended.message
    yield Pair(folder, plans, tuple(harness.stored_files(Path(config["output"]["path"])) for config in results))
    shutil.rmtree(folder)


def _pipeline(folder: Path, size: int, output: str) -> Config:
    steps = [
        {"name": "first", "op": "window", "size": size},
        {"name": "smooth", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["mean", "max"]},
    ]
    document = harness.document(str(folder / "scene.zarr"), steps, folder / output, chunks=[CHUNK, CHUNK])
    return document | {"run": {"workers": 2, "halo": "read"}}
