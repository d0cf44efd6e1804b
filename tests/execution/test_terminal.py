"""Streams that are full or closed, a working folder that is gone: a finished result is a success all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import pipeline
from tests import harness
from tests.dask_process import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    source = harness.store(harness.Raster(np.ones((8, 8), np.uint8), ("y", "x")), tmp_path / "scene.zarr")
    step = {"name": "smooth", "op": "window", "size": 3}
    config = {"inputs": {"image": source}, "steps": [step], "output": {"path": str(tmp_path / "out.zarr")}}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "pipeline.yaml"


def shell(command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of a shell, in which rasterpipe is `$R`."""
    environment = {**os.environ, "R": f"{sys.executable} -m pipeline", "PYTHONPATH": str(ROOT)}
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


RESULT = "{folder}/out.zarr is complete, but stdout takes no summary of it: "
RUNS = {
    "> /dev/full": f"note: {RESULT}No space left on device\n",
    ">&-": "",
    "2>&-": "",
    "<&- >&- 2>&-": "",
    "2> /dev/full": "",
}


@pytest.mark.parametrize("streams", RUNS)
def test_a_run_is_what_became_of_the_result(streams: str, file: Path) -> None:
    done = shell(f"$R run -q {file} {streams}")
    assert (done.returncode, done.stderr) == (0, RUNS[streams].format(folder=file.parent))
    assert pipeline.verify(file.parent / "out.zarr")["agrees"]
    assert sorted(path.name for path in file.parent.glob("out*")) == ["out.zarr"]


def test_a_reader_of_the_summary_that_goes_away(file: Path) -> None:
    done = shell(f"$R run -q {file} | true")
    assert (done.returncode, done.stderr) == (0, f"note: {RESULT.format(folder=file.parent)}Broken pipe\n")


@pytest.mark.parametrize("streams", ["> /dev/full", "2> /dev/full", "2>&-"])
def test_a_refusal_keeps_its_exit_code(streams: str, file: Path) -> None:
    file.write_text("steps: 3\n")
    assert shell(f"$R run -q {file} {streams}").returncode == 3


@pytest.mark.parametrize("command", ["info scene.zarr", "schema", "ops", "--help"])
def test_facts_that_nobody_takes(command: str, file: Path) -> None:
    done = shell(f"$R {command} > /dev/full", file.parent)
    assert (done.returncode, done.stderr) == (1, "error: stdout takes nothing: No space left on device\n")


def test_the_folder_of_a_command_is_gone(file: Path) -> None:
    (file.parent / "gone").mkdir()
    done = shell(f"rmdir {file.parent}/gone; $R run {file}", file.parent / "gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the folder in which the command was given is gone: somebody has removed it; `cd` to another one\n"
    )


def test_an_interrupt_while_modules_are_imported(file: Path) -> None:
    """The signal ends the process, without a traceback."""
    source = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        "import pipeline.__main__ as command\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "command.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
