"""Power cuts: what had not reached the disk is gone, what the journal says of it is not believed."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.errors import RunStopped
from pipeline.model.facts import RunFacts
from pipeline.output import journal
from pipeline.storage.folder.disk import FileSystems
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs import run as run_module
from pipeline.verbs.load import Cut
from tests import harness
from tests.two_pipelines import GRIDS, Config, Pair, two_pipelines


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_pipelines() as pair:
        yield pair


class Disk(FileSystems):
    """A disk that keeps what lay in a folder at the last sync; the journal, by bad luck, also what came after."""

    def __init__(self, folder: Path, fails_at: int = 0) -> None:
        self.folder, self.fails_at = folder, fails_at
        self.num_syncs = 0
        self.kept: dict[int, bytes] = {}
        """What lies on the disk, by the number of the file, which a new name does not change."""

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Stay open."""

    def sync_path(self, path: Path) -> None:
        if path.is_file():
            self.kept[path.stat().st_ino] = path.read_bytes()

    def sync(self) -> None:
        self.num_syncs += 1
        if self.num_syncs == self.fails_at:
            raise OSError(errno.EIO, "what was written did not reach the disk: Input/output error")
        for file in self.folder.rglob("*"):
            self.sync_path(file)

    def cut_power(self, random: np.random.Generator) -> None:
        """Lose what was written since the last sync, all of it or not: a file is gone, empty, torn or there."""
        for file in sorted(self.folder.rglob("*")):
            if not file.is_file() or file.name == "journal":
                continue
            data, kept = file.read_bytes(), self.kept.get(file.stat().st_ino)
            fate = random.integers(4)
            if data != kept and fate == 0 and kept is None:
                file.unlink()
            elif data != kept and fate < 3:
                file.write_bytes(data[: fate * len(data) // 4])


@pytest.fixture
def disk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(pair.cleared().parent)
    monkeypatch.setattr(run_module, "FileSystems", lambda folders: disk)
    for module in ("folder.disk", "folder.local", "tables"):
        monkeypatch.setattr(f"pipeline.storage.{module}.sync_path", disk.sync_path)
    return disk


def stop_at(patch: pytest.MonkeyPatch, count: int, disk: Disk, every: int) -> None:
    """Let a run checkpoint after some writes, again and again, and stop at one."""
    write, calls = ZarrWriter.write, itertools.count(1)

    def limited(*args: Any) -> Any:
        if (number := next(calls)) >= count:
            raise OSError(errno.ENOSPC, "No space left on device")
        marks = write(*args)
        if number % every == 0:
            (opened,) = journals
            opened.checkpoint(disk)
        return marks

    patch.setattr(ZarrWriter, "write", limited)
    journals: list[journal.Journal] = []
    start = journal.Journal.__init__
    patch.setattr(journal.Journal, "__init__", lambda self, path: (start(self, path), journals.append(self))[0])


def run(plan: Config, **flags: bool) -> RunFacts:
    return api.run({**plan, "run": {**plan["run"], "workers": 1}}, cut=Cut(GRIDS), **flags)


@pytest.mark.parametrize("stop", [5, 40, 90, 150])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_cut(
    stop: int, seed: int, pair: Pair, disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at(patch, stop, disk, every=30)
        with pytest.raises(RunStopped):
            run(pair.plans[0])
    disk.cut_power(np.random.default_rng(seed))
    monkeypatch.setattr(journal, "boot_id", lambda: "after the power cut")
    facts = run(pair.plans[0], resume=True)
    assert (facts["blocks_skipped"] > 0) == (stop > 30)
    pair.check_ended(0)


def test_without_a_restart_all_that_is_recorded_counts(pair: Pair, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what shows that the power cut of these tests does harm: what is not as it was written is computed again."""
    with monkeypatch.context() as patch:
        stop_at(patch, 55, disk, every=30)
        with pytest.raises(RunStopped):
            run(pair.plans[0])
    disk.cut_power(np.random.default_rng(1))
    facts = run(pair.plans[0], resume=True)
    assert 0 < facts["blocks_recomputed"] <= 55
    pair.check_ended(0)


def test_what_did_not_reach_the_disk_is_computed_again(pair: Pair, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells once that it could not write; what it was is not known."""
    disk.fails_at = 2
    with monkeypatch.context() as patch:
        stop_at(patch, 100, disk, every=30)
        with pytest.raises(RunStopped, match="what was written did not reach the disk: Input/output error; the run"):
            run(pair.plans[0])
    disk.cut_power(np.random.default_rng(1))
    facts = run(pair.plans[0], resume=True)
    assert 0 < facts["blocks_skipped"] <= 30
    pair.check_ended(0)


def test_nothing_is_called_complete_before_it_is_on_the_disk(pair: Pair, disk: Disk) -> None:
    disk.fails_at = 1
    with pytest.raises(RunStopped, match="did not reach the disk"):
        run(pair.plans[0])
    assert (root_attributes(harness.unfinished(pair.output)) or {})["complete"] is False
    run(pair.plans[0], resume=True)
    disk.cut_power(np.random.default_rng(1))
    pair.check_ended(0)


def test_checkpoints_come_by_themselves(pair: Pair, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHECKPOINT_SECONDS", 0.02)
    run(pair.plans[0])
    assert disk.num_syncs > 2
    assert api.run(pair.plans[1], overwrite=True, overrides=["run.durable=false"])["blocks"] > 0
    disk.fails_at = disk.num_syncs + 1
    with pytest.raises(RunStopped, match="did not reach the disk"):
        run(pair.plans[0], overwrite=True)
