"""Interrupts at moments when no block is computed: each says how to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import api
from pipeline.execution.executor import Threads
from pipeline.model.errors import InputUnfit, RunInterrupted, Terminated
from pipeline.output.exports import raster as raster_file
from pipeline.output.exports.geotiff import GeoTiffs
from tests import harness


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    source = harness.store(harness.Raster(np.ones((8, 8), np.uint8), ("y", "x")), tmp_path / "scene.zarr")
    return {
        "inputs": {"image": source},
        "steps": [{"name": "smooth", "op": "window", "size": 3}],
        "output": {"path": str(tmp_path / "out.zarr"), "geotiff": str(tmp_path / "files")},
    }


def raising(error: type[BaseException]) -> Callable[..., Any]:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise error

    return interrupted


@pytest.mark.parametrize(("error", "name", "code"), [(KeyboardInterrupt, "Ctrl-C", 130), (Terminated, "SIGTERM", 143)])
@pytest.mark.parametrize("place", [(Threads, "prepare"), (GeoTiffs, "write")], ids=["compile", "export"])
def test_while_no_block_is_computed(
    place: tuple[type, str],
    error: type[BaseException],
    name: str,
    code: int,
    config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*place, raising(error))
        with pytest.raises(RunInterrupted, match=f"stopped by {name}; --resume continues the run") as caught:
            api.run(config)
    assert caught.value.exit_code == code
    api.run(config, resume=True)
    assert api.verify(config["output"]["path"])["agrees"]
    assert raster_file.provenance_of(Path(config["output"]["geotiff"], "smooth_mean.tif")) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_blocks_are_computed(
    number: int, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.execution import executor as execution

    run = execution.run_on_threads

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return run(*arguments)

    monkeypatch.setattr(execution, "run_on_threads", signalled)
    with pytest.raises(RunInterrupted) as caught:
        api.run(config)
    assert caught.value.exit_code == 128 + number


def test_what_no_resume_helps(tmp_path: Path) -> None:
    source = harness.store(harness.Raster(np.full((8, 8), np.nan), ("y", "x")), tmp_path / "scene.zarr")
    config = {
        "inputs": {"image": source},
        "steps": [{"name": "colors", "op": "palette", "colors": 2}],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    for options in ({}, {"resume": True}):
        with pytest.raises(
            InputUnfit, match=r"no pixel is valid in all bands.*; --overwrite starts anew, once"
        ) as caught:
            api.run(config, **options)
        assert "--resume" not in str(caught.value)
        assert caught.value.exit_code == 4


def test_labels_to_ignore_that_only_uint64_holds(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 2**64 - 1], [2, 2, 2**63]], np.uint64)
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    inputs = {
        name: harness.store(harness.Raster(raster, ("y", "x")), tmp_path / f"{name}.zarr")
        for name, raster in (("image", values), ("labels", labels))
    }
    step = {"name": "zones", "op": "label_stats", "labels": "labels", "input": "image", "nodata": 99}
    step |= {"ignore": [2**64 - 1, 2**63], "statistics": ["sum"], "recolor": ["sum"], "dtype": "uint8"}
    api.run({"inputs": inputs, "steps": [step], "output": {"path": str(tmp_path / "o")}})
    group = zarr.open_group(tmp_path / "o/zones", mode="r", use_consolidated=False)
    assert group["table/label"][...].tolist() == [1, 2]
    assert group["table/sum"][...].ravel().tolist() == [1, 7]
    assert group["sum"][...].tolist() == [[1, 1, 99], [7, 7, 99]]
