"""The benchmarks' command: that it measures and compares. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_rows_from_file_to_file_and_in_memory(tmp_path: Path) -> None:
    options = ["--size", "128", "--rounds", "1", "--rows", "1,8", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "out/results.json").read_text())
    names = [row["name"].partition(",")[0] for row in found["rows"]]
    assert names == ["1. mean 3 x 3", "1. the same", "2. mean and var 15 x 15", *["8. gradient + Hessian"] * 2]
    assert not any(row["disagree"] for row in found["rows"])
    assert all(seconds > 0 for row in found["rows"] for times in row["seconds"].values() for seconds in times)
    assert done.stdout.endswith((tmp_path / "out/results.md").read_text())
    bars = sum(len(row["seconds"]) - 1 for row in found["rows"])
    assert (tmp_path / "out/results.svg").read_text().count("<rect") == bars


def test_a_row_that_is_not_there() -> None:
    command = [sys.executable, "-m", "benchmarks", "--rows", "1,99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "there is no row 99" in done.stderr
