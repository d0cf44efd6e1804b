"""Forks of a process that used Zarr are refused: they would wait forever for threads that stayed in their parent."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline import api
from pipeline.model.errors import UsageError
from pipeline.model.region import Region
from pipeline.storage.folder.address import Access
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.open import open_raster
from pipeline.verbs.demo.synth import synth
from tests import harness

SECONDS = 60
STEPS = [{"name": "smooth", "op": "window", "size": 3}]
IN_FORK = multiprocessing.get_context("fork")


def told_in_fork(act: Callable[[], Any]) -> str:
    """Return what a fork of this process says that does something."""
    told, tell = IN_FORK.Pipe(duplex=False)
    process = IN_FORK.Process(target=_tell, args=(act, tell))
    process.start()
    try:
        return str(told.recv()) if told.poll(SECONDS) else f"nothing within {SECONDS} s"
    finally:
        process.kill()
        process.join()


def _tell(act: Callable[[], Any], tell: Connection) -> None:
    try:
        act()
        tell.send("done")
    except UsageError as error:
        tell.send(str(error))
    except Exception as error:
        tell.send(repr(error))


@pytest.fixture
def scene(tmp_path: Path) -> str:
    """A raster that this process has written and read."""
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    path = harness.store(
        harness.Raster(values, ("y", "x"), chunks=(16, 16)), tmp_path / "scene.zarr", with_labels=False
    )
    api.run(harness.document(path, STEPS, tmp_path / "first.zarr"))
    return path


def test_forks_are_refused(scene: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "scene.tif", np.zeros((32, 32), np.uint8))
    opened, region = open_raster(scene), Region(0, 4, 0, 4)
    opened.read(region, np.empty((4, 4), np.uint16))
    output = tmp_path / "out.zarr"
    acts: dict[str, Callable[[], Any]] = {
        "run": lambda: api.run(harness.document(scene, STEPS, output)),
        "run of a TIFF": lambda: api.run(harness.document(str(tmp_path / "scene.tif"), STEPS, output)),
        "info": lambda: api.info(scene),
        "read": lambda: opened.read(region, np.empty((4, 4), np.uint16)),
        "synth": lambda: synth(output, size=(32, 32), bands=2),
        "object store": lambda: ObjectFolder("s3://bucket/scene.zarr", Access()).exists("zarr.json"),
    }
    for name, act in acts.items():
        told = told_in_fork(act)
        assert "was forked from one that had read or written Zarr before" in told, (name, told)
        assert told.endswith("of a ProcessPoolExecutor")
        assert not list(tmp_path.glob("out.zarr*")), name


FORKS_FIRST = """
import os, sys
import pipeline
child = os.fork()
if not child:
    pipeline.info(sys.argv[1])
    pipeline.run({"inputs": {"image": sys.argv[1]}, "steps": [{"name": "a", "op": "window", "size": 3}],
                  "output": {"path": sys.argv[2]}})
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
pipeline.info(sys.argv[2])
print(code)
"""


def test_a_fork_before_zarr_was_used_works(scene: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS_FIRST, scene, str(tmp_path / "out.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
