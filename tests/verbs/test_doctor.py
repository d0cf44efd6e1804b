"""What `doctor` finds, on this machine and where something is wrong."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import tempfile
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from pipeline.kernels import machine_code
from pipeline.verbs.doctor import machine, packages
from pipeline.verbs.doctor.doctor import DoctorFacts, examine


def needs(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> None:
    """Have the installed package need these alone."""
    about = Message()
    for text in requirements:
        about["Requires-Dist"] = text
    for extra in ("cloud", "test"):
        about["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "metadata", lambda name: about)


def told(facts: DoctorFacts) -> list[tuple[str, str, bool]]:
    return [(problem.what, problem.remedy, problem.stops) for problem in facts.problems]


def test_on_a_machine_that_is_well() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert not [problem for problem in facts["problems"] if problem["stops"]]
    assert facts["versions"]["numba"] == metadata.version("numba")
    assert facts["processor"]["cpus"] >= 1
    assert list(Path(facts["kernels"]["cache"]).glob("validity.count_valid*.nbi"))
    assert facts["kernels"]["bytes"] > 0
    assert facts["memory"]["run_bytes"] * 2 <= facts["memory"]["machine_bytes"]
    assert set(facts["extras"]) == {"cloud", "cluster", "gdal", "parquet", "stac", "vector"}
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert f"numba {metadata.version('numba')}" in text
    assert "a run stays below" in text


def test_packages_that_every_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, "no-such-package>=2", "numpy>=99", "click>=8.1")
    facts = examine()
    assert told(facts) == [
        ("no-such-package is not installed", "pip install 'no-such-package>=2'", True),
        (f"numpy is {metadata.version('numpy')}, where >=99 is needed", "pip install 'numpy>=99'", True),
    ]
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "no-such-package is not installed: pip install 'no-such-package>=2'" in result.stderr
    assert result.stdout.endswith("runs do not work\n")


def test_a_package_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise ImportError(f"libz.so.1 of {module} is missing")

    needs(monkeypatch, "tifffile>=2024.8")
    monkeypatch.setattr(importlib, "import_module", refuse)
    broken = next(problem for problem in examine().problems if problem.stops)
    assert broken.what.endswith("cannot be imported: ImportError: libz.so.1 of tifffile is missing")
    assert broken.remedy == "pip install --force-reinstall 'tifffile>=2024.8'"


def test_a_gdal_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)  # as if its library could not be loaded
    problems: list[Any] = []
    assert packages.describe_gdal(problems) is None
    assert problems[0].what.startswith("rasterio cannot be imported: ModuleNotFoundError")
    assert (problems[0].remedy, problems[0].stops) == ("pip install --force-reinstall 'rasterpipe[gdal]'", False)


def test_packages_of_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, "no-such-package>=2 ; extra == 'cloud'", "numpy>=99 ; extra == 'cloud'", "x ; extra == 'test'")
    facts = examine()
    line = "pip install 'rasterpipe[cloud]'"
    numpy = metadata.version("numpy")
    assert facts.extras == {"cloud": {"packages": {"no-such-package": None, "numpy": numpy}, "install": line}}
    assert (f"numpy is {numpy}, where >=99 is needed", line, False) in told(facts)
    assert facts.works
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert f"extra cloud: no-such-package is missing, numpy {numpy}; {line}" in result.stdout


def test_sources_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Message:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    facts = examine()
    assert facts.works
    assert facts.problems[0].what == "rasterpipe runs from its sources, and is not installed"


@pytest.mark.parametrize(
    ("names", "limit", "words", "stops"),
    [
        (("available_memory_bytes",), 100 << 20, "the cgroup of this process, has 100 MiB of memory", True),
        (("available_memory_bytes",), 500 << 20, "half of the memory is 250 MiB", False),
        (("RLIMIT_AS",), 100 << 20, "`ulimit -v` lets it have 100 MiB of memory", True),
        (("RLIMIT_AS",), 400 << 20, "`ulimit -v` lets this process have 400 MiB of memory, less than", False),
    ],
)
def test_limits_of_memory(
    names: tuple[str], limit: int, words: str, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if names == ("RLIMIT_AS",):
        monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
        monkeypatch.setattr(machine, "default_memory_bytes", lambda: 1 << 30)
    else:
        monkeypatch.setattr(machine, "available_memory_bytes", lambda: limit)
        monkeypatch.setattr(machine, "default_memory_bytes", lambda: limit // 2)
    problems: list[Any] = []
    machine.describe_memory(problems)
    assert [each.stops for each in problems if words in each.what] == [stops]


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "cache_fault", lambda: "/kept: Read-only file system")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/nowhere")
    problems: list[Any] = []
    facts = machine.describe_kernels(problems)
    assert not facts["writable"]
    assert [problem.what.partition(":")[0] for problem in problems] == [
        "compiled kernels cannot be kept (/kept",
        "NUMBA_CACHE_DIR is /nowhere, which cannot be written",
    ]


def test_carried_kernels_count_where_they_are_of_these_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "carried_folders", lambda kernels: {"x86-64-v3": tmp_path})
    problems: list[Any] = []
    (tmp_path / "a.nbi").write_bytes(b"\x80" + b"0" * 64)
    assert machine.describe_kernels(problems)["carried"] == []
    assert "another version" in problems[0].what
    kept = next(Path(machine.describe_kernels([])["cache"]).glob("validity.count_valid*.nbi"))
    (tmp_path / "a.nbi").write_bytes(kept.read_bytes())
    assert machine.describe_kernels([])["carried"] == ["x86-64-v3"]


def test_temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[Any] = []
    monkeypatch.setattr(machine, "SMALL_BYTES", 2**70)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert machine.describe_temporary(problems)["folder"] == str(tmp_path)
    assert f"the temporary folder {tmp_path} has " in problems[0].what

    def missing() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    assert machine.describe_temporary(problems) == {"folder": None, "free_bytes": None}
    assert "TMPDIR" in problems[1].remedy
