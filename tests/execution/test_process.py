"""What a process may use, read from cgroups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.execution import process as limits


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup two levels deep around this process."""
    folder = tmp_path / "user" / "job"
    folder.mkdir(parents=True)
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(limits, "_cgroups", lambda: iter([folder, folder.parent, tmp_path]))
    return folder


@pytest.mark.parametrize(("quota", "cpus"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 64), ("", 64)])
def test_cpus_are_the_quotas_rounded_up(quota: str, cpus: int, group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (group / "cpu.max").write_text(quota)
    assert limits.available_cpus() == cpus


def test_the_tightest_group_around_counts(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (group / "cpu.max").write_text("800000 100000")
    (group.parent / "cpu.max").write_text("300000 100000")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.limit_in_bytes").write_text(f"{5 << 20}\n")
    assert limits.available_cpus() == 3
    assert limits.available_memory_bytes() == 5 << 20


@pytest.mark.parametrize(
    ("line", "folders"),
    [
        ("0::/user/job", ["user/job", "user", "."]),
        ("4:memory:/job", ["memory/job", "memory"]),
        ("3:cpu,cpuacct:/job", []),
    ],
)
def test_groups_of_both_versions(
    line: str, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda path: f"{line}\n" if "proc" in path.parts else read(path))
    assert list(limits._cgroups()) == [tmp_path / folder for folder in folders]


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert limits.available_memory_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limits.available_cpus() >= 1
    assert limits.resident_bytes() == 0
