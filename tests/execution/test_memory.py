"""Measured peak <= planned peak, for every operation and both halo ways, each run in a process of its own."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import pipeline
from pipeline.execution import run as execution
from pipeline.execution.worker import PassWorker
from pipeline.operations.registry import our_operations
from tests import strategies
from tests.range_server import range_server

MIB = 2**20
RUN = """
import json, sys
import pipeline
facts = pipeline.run(json.loads(sys.argv[1]))
print(json.dumps({key: facts[key] for key in ("peak_rss_bytes", "planned_peak_bytes", "blocks")}))
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster of 192 MB in all, larger than what the blocks of a run may have."""
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    for name, dtype in (("image", "float32"), ("counts", "uint16"), ("labels", "int32")):
        shape: tuple[int, ...] = (2000, 2000) if name == "labels" else (2000, 2000, 8)
        dims = ("y", "x", "band")[: len(shape)]
        array = zarr.create_array(
            str(folder / f"{name}.zarr"),
            shape=shape,
            dtype=dtype,
            chunks=(500, 500, 8)[: len(shape)],
            dimension_names=dims,
        )
        array[...] = rng.integers(0, 1000, shape).astype(dtype)
    return folder


def run(scene: Path, output: Path, steps: list[dict[str, Any]], image: str, **limits: Any) -> dict[str, Any]:
    """Return the facts of a run in a fresh process."""
    labels = {"labels": str(scene / "labels.zarr")} if any("labels" in step for step in steps) else {}
    return run_from(str(scene / f"{image}.zarr"), output, steps, labels, **limits)


def run_from(
    image: str, output: Path, steps: list[dict[str, Any]], others: dict[str, str] | None = None, **limits: Any
) -> dict[str, Any]:
    sources = {"image": image, **(others or {})}
    document = {"inputs": sources, "steps": steps, "output": {"path": str(output)}, "run": {"workers": 2, **limits}}
    command = [sys.executable, "-c", RUN, json.dumps(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


SOME = {("window", "exchange"), ("label_stats", "read")}
"""The others, too, take 4 s each: they are thorough."""


@pytest.mark.parametrize(
    ("op", "halo"),
    [
        pytest.param(*case, marks=[] if case in SOME else pytest.mark.thorough)
        for case in itertools.product(sorted(our_operations()), ("read", "exchange"))
    ],
)
def test_measured_peak_is_below_the_planned_one(op: str, halo: str, scene: Path, tmp_path: Path) -> None:
    steps = [*strategies.memory_steps(op)]
    image = "image" if halo == "read" else "counts"
    facts = run(scene, tmp_path / "out.zarr", steps, image, halo=halo, memory="1 GiB")
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 1024 * MIB


@pytest.mark.thorough
def test_measured_peak_of_a_series(tmp_path: Path) -> None:
    """Of 40 dates of 2 bands, each band in chunks of its own: a block reads 80 chunks."""
    group = zarr.create_group(str(tmp_path / "in.zarr"))
    times = [f"2024-{1 + i // 4:02}-{1 + 7 * (i % 4):02}" for i in range(40)]
    coordinates = {"time": [time for time in times for _ in "rn"], "source_band": ["r", "n"] * len(times)}
    for name, values in coordinates.items():
        text = np.array(values, np.dtypes.StringDType())
        group.create_array(name, shape=text.shape, dtype=text.dtype, dimension_names=("band",))[...] = text
    array = group.create_array(
        "pixels",
        shape=(80, 1100, 1100),
        chunks=(1, 512, 512),
        dtype="uint16",
        dimension_names=("band", "y", "x"),
        attributes={"coordinates": "time source_band", "_FillValue": 0},
    )
    rng = np.random.default_rng(0)
    for band in range(80):
        array[band] = rng.integers(0, 3000, (1100, 1100), dtype=np.uint16)
    steps = [
        {"name": "c", "op": "composite", "input": "image", "statistics": ["median", "std", "last"]},
        {"name": "b", "op": "composite", "input": "image", "best": {"by": "(n - r) / (n + r)"}, "window": "year"},
    ]
    facts = run(tmp_path, tmp_path / "out.zarr", steps, "in", memory="600 MiB")
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 600 * MIB


@pytest.mark.thorough
def test_measured_peak_of_a_quicklook(tmp_path: Path) -> None:
    """Of a raster of few rows, all of which a picture needs."""
    path = str(tmp_path / "wide.zarr")
    array = zarr.create_array(
        path, shape=(512, 40_000, 3), dtype="float32", chunks=(512, 512, 3), dimension_names=("y", "x", "band")
    )
    array[...] = np.random.default_rng(0).random((512, 40_000, 3), np.float32)
    step = {"name": "smooth", "op": "window", "size": 3}
    document = {"inputs": {"image": path}, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}}
    source = RUN.replace("argv[1])", f"argv[1]), quicklook={str(tmp_path / 'look.png')!r}")
    command = [sys.executable, "-c", source, json.dumps({**document, "run": {"memory": "500 MiB"}})]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (tmp_path / "look.png").stat().st_size > 0
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 500 * MIB


@pytest.mark.parametrize("halo", ["read", pytest.param("exchange", marks=pytest.mark.thorough)])
def test_measured_peak_of_a_chain(halo: str, scene: Path, tmp_path: Path) -> None:
    steps = [
        {"name": "smooth", "op": "window", "input": "image", "size": 7},
        {"name": "slope", "op": "gradient", "input": "smooth"},
        {"name": "bend", "op": "hessian", "input": "smooth"},
        {"name": "rough", "op": "window", "input": "slope/dy", "size": 15, "statistics": ["var"]},
    ]
    facts = run(scene, tmp_path / "out.zarr", steps, "counts", halo=halo, memory="1 GiB")
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 1024 * MIB


@pytest.mark.parametrize(
    "layout", [{"tile": (256, 256)}, pytest.param({"rowsperstrip": 2000}, marks=pytest.mark.thorough)]
)
def test_measured_peak_of_a_tiff_from_a_server(tmp_path: Path, layout: dict[str, Any]) -> None:
    """Of 96 MB that do not compress: small tiles, of which many are on their way at once, and strips of 24 MB."""
    values = np.random.default_rng(0).integers(0, 65536, (8000, 6000), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", compressionargs={"level": 1}, **layout)
    steps = [{"name": "smooth", "op": "window", "size": 3}]
    with range_server(tmp_path) as (url, _):
        facts = run_from(f"{url}/a.tif", tmp_path / "out.zarr", steps, memory="1 GiB")
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 1024 * MIB


@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_a_run_leaves_no_buffers(scene: Path, tmp_path: Path, halo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collector of cycles, which comes when it likes: a session may run one pipeline after another."""
    workers: list[weakref.ref[PassWorker]] = []

    class Watched(PassWorker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            workers.append(weakref.ref(self))

    monkeypatch.setattr(execution, "PassWorker", Watched)
    step = {"name": "smooth", "op": "window", "size": 3}
    document = {
        "inputs": {"image": str(scene / "counts.zarr")},
        "steps": [step, {**step, "name": "again", "boundary": "wrap"}],
        "output": {"path": str(tmp_path / "out.zarr")},
        "run": {"halo": halo},
    }
    gc.disable()
    try:
        pipeline.run(document)
        assert [worker() for worker in workers] == [None, None]
    finally:
        gc.enable()
