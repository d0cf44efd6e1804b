"""Servers that do not answer, or stop in the middle: Ctrl-C does not wait for them, and no request waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import yaml

from pipeline import api
from pipeline.model.errors import InputError, RunStopped
from pipeline.storage.folder import remote as object_folder
from pipeline.storage.folder import request as object_request
from pipeline.storage.folder.address import Access
from pipeline.storage.folder.remote import ObjectFolder
from tests import harness
from tests.dask_process import ROOT
from tests.s3_server import CREDENTIALS, S3, s3_server

WAIT_SECONDS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server.control()
    for name, value in (*CREDENTIALS.items(), ("AWS_ENDPOINT_URL", server.endpoint)):
        monkeypatch.setenv(name, value)
    object_folder._connect.cache_clear()
    yield
    server.control()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    values = np.random.default_rng(5).integers(1, 4000, (64, 64), dtype=np.uint16)
    harness.store(harness.Raster(values, ("y", "x"), chunks=(16, 16)), tmp_path / "scene.zarr")
    return tmp_path / "scene.zarr"


@pytest.fixture
def bucket(server: S3, local: Path, request: pytest.FixtureRequest) -> str:
    """A bucket with the scene."""
    bucket = server.make_bucket(f"stalls-{os.getpid()}-{abs(hash(request.node.name))}")
    target = ObjectFolder(f"{bucket}/scene.zarr", Access(**server.storage))
    for path in sorted(local.rglob("*")):
        if path.is_file():
            obstore.put(target.objects, str(path.relative_to(local)), path.read_bytes())
    return bucket


def document(server: S3, source: str, output: str, **run: Any) -> dict[str, Any]:
    def entry(path: str) -> dict[str, Any]:
        return {"path": path, "storage": server.storage} if "://" in path else {"path": path}

    return {
        "inputs": {"image": entry(source)},
        "steps": [{"name": "smooth", "op": "window", "size": 3}],
        "output": {**entry(output), "chunks": [16, 16]},
        "run": {"workers": 2, **run},
    }


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )


def wait_for_stall(server: S3, method: str, text: str, **settings: Any) -> None:
    """Let requests stall, and wait for the first one."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        asked = server.control(stalls=text, method=method, **settings)
        if any(each == method and text in path for each, path in asked):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {method} of {text} came")


def stop(process: subprocess.Popen[str], number: int) -> tuple[float, int, str]:
    """Return for how many seconds a process did not heed a signal, its exit code and its last words."""
    started = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    return time.monotonic() - started, process.returncode, said.strip().splitlines()[-1]


CASES = {
    "chunk": ("GET", "scene.zarr/c/", {}),
    "half a chunk": ("GET", "scene.zarr/c/", {"within": 1}),
    "result": ("PUT", "result.zarr/smooth/mean/c/", {}),
}


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("case", CASES)
def test_a_signal_does_not_wait_for_a_server(
    case: str, number: int, server: S3, bucket: str, local: Path, tmp_path: Path
) -> None:
    method, text, settings = CASES[case]
    where = f"{bucket}/result.zarr" if case == "result" else str(tmp_path / "result.zarr")
    config = document(server, f"{bucket}/scene.zarr", where)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(config))
    server.control(stalls=text, method=method, **settings)
    with start("run", str(tmp_path / "pipeline.yaml")) as process:
        wait_for_stall(server, method, text, **settings)
        seconds, code, words = stop(process, number)
    assert seconds < 3
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (code, words) == (
        128 + number, f"error: stopped by {name}; --resume continues the run"
    )  # fmt: skip
    server.control()
    assert api.run(config, resume=True)["blocks"] > 0
    assert api.verify(where, everything=True)["agrees"]


def test_a_signal_before_a_run(server: S3, bucket: str, tmp_path: Path) -> None:
    """Metadata are asked for by the main thread itself."""
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(document(server, f"{bucket}/scene.zarr", "out.zarr")))
    server.control(stalls="scene.zarr/zarr.json", method="GET")
    with start("validate", str(tmp_path / "pipeline.yaml")) as process:
        wait_for_stall(server, "GET", "scene.zarr/zarr.json")
        seconds, code, words = stop(process, signal.SIGINT)
    assert seconds < 3
    assert (code, words) == (130, "error: stopped by Ctrl-C")


@pytest.mark.thorough
@pytest.mark.parametrize("within", [False, True])
def test_a_request_has_a_time_limit(
    server: S3, bucket: str, tmp_path: Path, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_request, "SECONDS", 1.0)
    config = document(server, f"{bucket}/scene.zarr", str(tmp_path / "result.zarr"), retries=1)
    settings = {"within": 1} if within else {}
    server.control(stalls="scene.zarr/c/2/", method="GET", **settings)
    started = time.monotonic()
    words = "timed out: no whole answer came within 1 s"
    with pytest.raises(RunStopped, match=rf"scene\.zarr/c/2/\d: {words} \(tried 2 times"):
        api.run(config)
    assert time.monotonic() - started < 15
    server.control(stalls="scene.zarr/zarr.json", method="GET", **settings)
    with pytest.raises(InputError, match=rf"scene\.zarr/zarr\.json: {words}"):
        api.validate(config)
    server.control()
    assert api.run(config, resume=True)["blocks"] > 0
