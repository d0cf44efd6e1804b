"""The benchmarks' command: that it measures and compares. No time is asserted."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


FROM_A_SERVER = ["16. 1 % of a COG of 128 x 128 x 4 uint16", "16. a quarter of a COG of 128 x 128 x 4 uint16"]
FROM_A_SERVER.append("16. level 2 of a COG of 128 x 128 x 4 uint16")
IN_MEMORY = ["8. gradient + Hessian"] * 2
FROM_FILES = ["1. mean 3 x 3", "1. the same", "2. mean and var 15 x 15"]

has_zone_peers = all(map(importlib.util.find_spec, ("rasterstats", "exactextract")))  # of the extra `bench`
ZONES = ["19. means of 625 polygons"] * has_zone_peers
ZONES += ["20. objects of 128 x 128 uint8", "21. 3 percentiles of 676 labels"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("8", IN_MEMORY),
        pytest.param("16", FROM_A_SERVER, marks=pytest.mark.thorough),
        pytest.param("19,20,21", ZONES, marks=pytest.mark.thorough),
        pytest.param("1,8", FROM_FILES + IN_MEMORY, marks=pytest.mark.thorough),
    ],
)
def test_rows_from_file_to_file_and_in_memory(rows: str, expected: list[str], tmp_path: Path) -> None:
    options = ["--size", "128", "--rounds", "1", "--rows", rows, "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/results.json").read_text())
    names = [row["name"].partition(",")[0] for row in found["rows"]]
    assert names == expected
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
