"""How a run begins and ends: an existing output, `--resume`, `--overwrite`, the journal, crashes at bad moments."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import api
from pipeline.execution.receipt import BlockDone
from pipeline.model.errors import InputError, OutputError, RasterpipeError, RunStopped
from pipeline.model.facts import RunFacts
from pipeline.model.region import Axis, Grid
from pipeline.output import local
from pipeline.output.journal import Journal
from pipeline.output.provenance import difference
from pipeline.output.store import RunStore
from pipeline.output.work_folder import work_folder
from pipeline.storage.zarr import document as zarr_document
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs import run as run_module
from pipeline.verbs.load import Cut
from tests import harness

SIDE, CHUNK, BLOCKS = 128, 32, 16
GRIDS = (Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31),)

Config = dict[str, Any]


@pytest.fixture
def scene(tmp_path: Path) -> str:
    values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
    raster = harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2))
    return harness.store(raster, tmp_path / "scene.zarr", with_labels=False)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "result.zarr"


@pytest.fixture
def config(scene: str, output: Path) -> Config:
    step = {"name": "smooth", "op": "window", "size": 5, "statistics": ["mean", "max"]}
    return {
        "inputs": {"image": scene},
        "steps": [step],
        "output": {"path": str(output), "chunks": [CHUNK, CHUNK]},
        "run": {"workers": 2, "halo": "read"},
    }


@pytest.fixture
def other(config: Config) -> Config:
    """The same output from other steps."""
    return {**config, "steps": [{**config["steps"][0], "size": 9}]}


@pytest.fixture
def expected(config: Config, tmp_path: Path) -> dict[str, np.ndarray]:
    undisturbed = {**config, "output": {"path": str(tmp_path / "expected" / "result.zarr")}}
    api.run(undisturbed)
    return read(tmp_path / "expected" / "result.zarr")


def run(config: Config, **options: Any) -> RunFacts:
    return api.run(config, cut=Cut(GRIDS), **options)


def read(path: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(zarr.open_array(path, path=f"smooth/{name}", mode="r")[...]) for name in ("mean", "max")}


def is_equal(path: Path, expected: dict[str, np.ndarray]) -> bool:
    result = read(path)
    return all(harness.same_bits(result[name], expected[name]) for name in expected)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every path below a folder with its size and time of change."""
    stats = {str(path.relative_to(folder)): path.stat() for path in sorted(folder.rglob("*"))}
    return {name: (0 if (folder / name).is_dir() else stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def complete(path: Path) -> Any:
    return (root_attributes(str(path)) or {}).get("complete")


def break_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the disk be full after some blocks."""
    write, written = ZarrWriter.write, []

    def limited(self: ZarrWriter, *args: Any) -> Any:
        if len(written) >= 2 * count:  # two rasters a block
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self)
        return write(self, *args)

    monkeypatch.setattr(ZarrWriter, "write", limited)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a pipeline until the disk is full, and makes room again."""

    def interrupted(config: Config, **options: Any) -> None:
        with monkeypatch.context() as patch:
            break_after(patch, 6)
            with pytest.raises(RunStopped, match="No space left on device; the run stopped, and --resume continues"):
                run(config, **options)

    return interrupted


Interrupt = Callable[..., None]


def refused(config: Config, message: str, **options: Any) -> None:
    """Check that a run is refused on the output side, and that nothing was written, changed or removed."""
    folder = Path(config["output"]["path"]).parent
    before = listing(folder)
    with pytest.raises(OutputError) as caught:
        run(config, **options)
    assert message in str(caught.value)
    after = listing(folder)
    work = f"{Path(config['output']['path']).name}.work"  # a begun run's lock is taken, and its owner noted
    assert {k: v for k, v in after.items() if not k.startswith(work)} == {
        k: v for k, v in before.items() if not k.startswith(work)
    }
    assert set(after) == set(before)


# --- start, resume, overwrite ----------------------------------------------------------------------------------


def test_a_run_leaves_its_output_and_nothing_else(config: Config, output: Path) -> None:
    facts = run(config)
    assert (facts["blocks"], facts["blocks_skipped"], complete(output)) == (BLOCKS, 0, True)
    assert sorted(os.listdir(output.parent)) == ["result.zarr", "scene.zarr"]


def test_resume_with_nothing_there_starts(config: Config, output: Path) -> None:
    assert run(config, resume=True)["blocks"] == BLOCKS
    assert complete(output)


def test_resume_of_a_finished_output_does_nothing(config: Config, output: Path) -> None:
    first = run(config)
    before = listing(output.parent)
    facts = run(config, resume=True)
    assert (facts["blocks"], facts["blocks_skipped"]) == (0, BLOCKS)
    assert listing(output.parent) == before
    assert facts["outputs"] == first["outputs"]
    assert facts["plan_hash"] == first["plan_hash"]
    assert set(facts.to_dict()) == set(first.to_dict())


def test_an_existing_output_is_kept(config: Config) -> None:
    run(config)
    refused(config, "result.zarr: exists; --overwrite replaces it once the new result is complete")


def test_resume_of_another_plan_names_the_difference(config: Config, other: Config) -> None:
    run(config)
    refused(other, "the finished output is of another plan: steps[0].size[0] was 5, is 9; undo", resume=True)


def test_resume_after_the_input_changed(config: Config, scene: str) -> None:
    run(config)
    os.utime(Path(scene, "zarr.json"), ns=(1, 2**62))
    refused(config, "is of another plan: the input image has changed since (files); undo", resume=True)


def test_an_interrupted_run_continues(
    config: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    interrupt(config)
    assert not output.exists()
    assert complete(harness.unfinished(output)) is False
    facts = api.run(config, resume=True)  # on the grids of the journal, whatever would be planned now
    assert facts["blocks_skipped"] >= 5
    assert facts["blocks"] + facts["blocks_skipped"] == BLOCKS
    assert facts["bytes_written"] == facts["blocks"] * CHUNK * CHUNK * 2 * (4 + 2)
    assert [entry["valid_fraction"] for entry in facts["outputs"]] == [1, 1]
    assert complete(output)
    assert is_equal(output, expected)
    assert not work_folder(str(output)).exists()


def test_a_run_interrupted_twice_continues(
    config: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    interrupt(config)
    interrupt(config, resume=True)
    facts = run(config, resume=True)
    assert 0 < facts["blocks"] <= BLOCKS - 10
    assert is_equal(output, expected)


def test_an_interrupted_run_is_neither_resumed_nor_replaced_unasked(config: Config, interrupt: Interrupt) -> None:
    interrupt(config)
    refused(config, "an unfinished run is there; --resume continues it, --overwrite starts it anew")


def test_resume_of_another_unfinished_plan_names_the_difference(
    config: Config, other: Config, interrupt: Interrupt
) -> None:
    interrupt(config)
    refused(other, "the unfinished run is of another plan: steps[0].size[0] was 5, is 9", resume=True)


def test_overwrite_keeps_the_old_result_until_the_new_one_is_complete(
    config: Config, other: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    run(other)
    before = listing(output)
    interrupt(config, overwrite=True)
    assert listing(output) == before
    assert complete(harness.unfinished(output)) is False
    refused(config, "an unfinished run is there")
    facts = run(config, resume=True)
    assert 0 < facts["blocks"] < BLOCKS
    assert is_equal(output, expected)
    assert sorted(os.listdir(output.parent)) == ["expected", "result.zarr", "scene.zarr"]


def test_overwrite_starts_an_interrupted_run_anew(
    config: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    interrupt(config)
    assert run(config, overwrite=True)["blocks"] == BLOCKS
    assert is_equal(output, expected)
    assert sorted(os.listdir(output.parent)) == ["expected", "result.zarr", "scene.zarr"]


def test_resume_and_overwrite_together(
    config: Config, other: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    both = {"resume": True, "overwrite": True}
    assert run(other, **both)["blocks"] == BLOCKS  # nothing there: starts
    assert run(other, **both)["blocks"] == 0  # finished
    interrupt(config, **both)  # finished, of another plan: rebuilds
    facts = run(config, **both)  # unfinished, of this plan: continues
    assert 0 < facts["blocks"] < BLOCKS
    assert is_equal(output, expected)
    interrupt(other, **both)
    assert run(other, overwrite=True, resume=True)["blocks"] < BLOCKS
    interrupt(config, **both)
    facts = run({**config, "steps": [{**config["steps"][0], "size": 3}]}, **both)  # unfinished, of another: rebuilds
    assert (facts["blocks"], facts["blocks_skipped"]) == (BLOCKS, 0)
    assert sorted(os.listdir(output.parent)) == ["expected", "result.zarr", "scene.zarr"]


def test_a_journal_whose_store_was_deleted_is_void(config: Config, output: Path, interrupt: Interrupt) -> None:
    interrupt(config)
    shutil.rmtree(harness.unfinished(output))
    facts = run(config, resume=True)
    assert (facts["blocks"], facts["blocks_skipped"]) == (BLOCKS, 0)
    assert complete(output)


def test_a_journal_of_another_store_is_void(
    config: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    interrupt(config)
    journal = work_folder(str(output)) / "journal"
    stale = journal.read_bytes()
    interrupt(config, overwrite=True)
    journal.write_bytes(stale)  # its run id is that of the store that --overwrite gave up
    facts = run(config, resume=True)
    assert (facts["blocks"], facts["blocks_skipped"]) == (BLOCKS, 0)
    assert is_equal(output, expected)


def test_a_store_whose_journal_was_deleted_is_void(
    config: Config, output: Path, interrupt: Interrupt, expected: dict[str, np.ndarray]
) -> None:
    interrupt(config)
    (work_folder(str(output)) / "journal").unlink()
    (work_folder(str(output)) / "owner").unlink()
    assert run(config, resume=True)["blocks"] == BLOCKS
    assert is_equal(output, expected)
    assert not work_folder(str(output)).exists()


def test_a_finished_result_does_not_cost_the_unfinished_one_its_journal(
    config: Config, other: Config, output: Path, interrupt: Interrupt
) -> None:
    run(config)
    interrupt(other, overwrite=True)
    assert run(config, resume=True)["blocks"] == 0
    assert 0 < run(other, resume=True, overwrite=True)["blocks"] < BLOCKS


def test_an_interrupted_chain_of_passes_continues(config: Config, output: Path, interrupt: Interrupt) -> None:
    """The step that wraps reads the first one's intermediate result, beside the output or in `scratch`."""
    steps = [
        {"name": "first", "op": "window", "size": 3},
        {"name": "smooth", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["mean", "max"]},
    ]
    for scratch in (None, str(output.parent / "scratch")):
        chain = {**config, "steps": steps, "run": {**config["run"], **({"scratch": scratch} if scratch else {})}}
        results = []
        for disturbed in (False, True):
            if disturbed:
                with pytest.MonkeyPatch.context() as patch:
                    break_after(patch, 11)
                    with pytest.raises(RunStopped):
                        api.run(chain, cut=Cut(GRIDS * 2))
            facts = api.run(chain, cut=Cut(GRIDS * 2), resume=disturbed)
            assert facts["blocks"] + facts["blocks_skipped"] == 2 * BLOCKS
            results.append(read(output))
            shutil.rmtree(output)
        assert all(harness.same_bits(results[0][name], results[1][name]) for name in results[0])
    assert not list((output.parent / "scratch").iterdir())


WAYS = [("read", "exchange", "read"), ("exchange", "read", "exchange")]


@pytest.mark.parametrize("ways", WAYS, ids="-".join)
@pytest.mark.parametrize("by_option", [False, True], ids=["file", "option"])
def test_a_run_continues_by_another_halo_way(
    ways: tuple[str, str, str], by_option: bool, config: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way is no part of the plan hash: nothing depends on it. Killed in the first pass and in the second."""
    config["steps"] = [
        {"name": "first", "op": "window", "size": 3},
        {"name": "second", "op": "window", "size": [5, 3], "boundary": "nearest"},
        {"name": "smooth", "op": "window", "size": 7, "boundary": "wrap", "statistics": ["mean", "max"]},
    ]

    def attempt(way: str, resume: bool = True) -> dict[str, Any]:
        source = config if by_option else {**config, "run": {"workers": 2, "halo": way}}
        options: dict[str, Any] = {"cut": Cut(GRIDS * 2), "overrides": [f"run.halo={way}"] if by_option else []}
        assert [planned["halo"] for planned in api.plan(source, **options)["passes"]] == [way, way]
        return api.run(source, resume=resume, **options)

    undisturbed = attempt(ways[0], resume=False)
    expected = read(output)
    shutil.rmtree(output)
    for way, count in zip(ways, (3, 9), strict=False):
        with monkeypatch.context() as patch:
            break_after(patch, count)
            with pytest.raises(RunStopped):
                attempt(way)
    facts = attempt(ways[2])
    assert facts["plan_hash"] == undisturbed["plan_hash"]
    assert 0 < facts["blocks"] < 2 * BLOCKS
    assert facts["blocks"] + facts["blocks_skipped"] == 2 * BLOCKS
    assert is_equal(output, expected)


def test_intermediate_results_of_a_run_given_up(config: Config, other: Config, output: Path) -> None:
    steps = [
        {"name": "first", "op": "window", "size": 3},
        {"name": "smooth", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["mean", "max"]},
    ]
    chain = {**config, "steps": steps}
    for changed in ({"overwrite": True}, {"resume": True, "overwrite": True, "overrides": ["steps.first.size=5"]}):
        with pytest.MonkeyPatch.context() as patch:
            break_after(patch, 11)
            with pytest.raises(RunStopped):
                api.run(chain, cut=Cut(GRIDS * 2), overwrite=True)
        assert api.run(chain, cut=Cut(GRIDS * 2), **changed)["blocks"] == 2 * BLOCKS


def test_scratch_that_is_gone_is_told(config: Config, output: Path) -> None:
    steps = [
        {"name": "first", "op": "window", "size": 3},
        {"name": "smooth", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["mean", "max"]},
    ]
    scratch = output.parent / "scratch"
    chain = {**config, "steps": steps, "run": {**config["run"], "scratch": str(scratch)}}
    with pytest.MonkeyPatch.context() as patch:
        break_after(patch, 11)
        with pytest.raises(RunStopped):
            api.run(chain, cut=Cut(GRIDS * 2))
    shutil.rmtree(scratch)
    with pytest.raises(OutputError, match=r"intermediate results .* are gone; --overwrite starts anew"):
        api.run(chain, resume=True)
    assert api.run(chain, overwrite=True)["blocks"] > 0


@pytest.mark.parametrize("number", [1, 2])
def test_complete_is_written_last(
    number: int, config: Config, output: Path, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the metadata of the step (1) or of the root (2) are gathered."""
    consolidate, calls = zarr_document.consolidate, []

    def failing(*args: Any) -> None:
        calls.append(args)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        consolidate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(zarr_document, "consolidate", failing)
        with pytest.raises(RunStopped, match="No space left on device; the run stopped, and --resume continues"):
            run(config)
    assert complete(harness.unfinished(output)) is False
    facts = run(config, resume=True)
    assert (facts["blocks"], facts["blocks_skipped"], complete(output)) == (0, BLOCKS, True)
    assert is_equal(output, expected)
    gathered = json.loads((output / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert {"smooth", "smooth/mean", "smooth/max"} <= set(gathered)
    assert gathered["smooth"]["attributes"]["rasterpipe"]["complete"] is True
    times = listing(output)
    assert times["zarr.json"][1] == max(time for _, time in times.values())


# --- the swap, and crashes in it -------------------------------------------------------------------------------


class Crash(BaseException):
    """A process that dies: nothing catches it, nothing is cleaned up."""


Rename = Callable[[Any, Any], None]


@pytest.fixture
def crash_at_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function that lets the process die before its n-th rename in the swap, or (3) right after both."""
    rename, remove = os.rename, shutil.rmtree

    def arm(number: int) -> None:
        count = 0

        def renamed(source: Any, destination: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                raise Crash
            rename(source, destination)

        def removed(path: Any, *args: Any, **options: Any) -> None:
            if count == 2:
                raise Crash
            remove(path, *args, **options)

        monkeypatch.setattr(local.os, "rename", renamed)
        monkeypatch.setattr(local.shutil, "rmtree", removed)

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("flags", [{"resume": True}, {"resume": True, "overwrite": True}], ids=["resume", "both"])
def test_a_crash_in_the_swap_is_made_good(
    number: int,
    flags: dict[str, bool],
    config: Config,
    other: Config,
    output: Path,
    crash_at_rename: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[str, np.ndarray],
) -> None:
    run(other)
    crash_at_rename(number)
    with pytest.raises(Crash):
        run(config, overwrite=True)
    monkeypatch.undo()
    new, old = (list(work_folder(str(output)).glob(f"*/{name}")) for name in ("store", "replaced"))
    assert (output.exists(), len(new), len(old)) == (number != 2, number != 3, number != 1)
    assert run(config, **flags)["blocks"] == 0
    assert is_equal(output, expected)
    assert sorted(os.listdir(output.parent)) == ["expected", "result.zarr", "scene.zarr"]


def test_a_swap_that_fails_keeps_the_old_result(
    config: Config, other: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(other)
    before = read(output)
    rename = os.rename

    def failing(source: Any, destination: Any) -> None:
        if str(source).endswith("/store"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(local.os, "rename", failing)
        with pytest.raises(RunStopped, match="Operation not permitted"):
            run(config, overwrite=True)
    assert is_equal(output, before)
    assert run(config, resume=True)["blocks"] == 0
    assert not is_equal(output, before)


def test_a_backup_beside_the_output_is_left_alone(config: Config, other: Config, output: Path) -> None:
    run(other)
    backup = Path(f"{output}.old")
    os.rename(output, backup)
    before = listing(backup)
    run(config)
    run(other, overwrite=True)
    assert listing(backup) == before


@pytest.mark.parametrize("name", ["notes.txt", "old/zarr.json", "journal", "owner", "tables/a.csv"])
def test_a_folder_in_the_way_that_no_run_made_is_left_alone(name: str, config: Config, output: Path) -> None:
    for options in ({}, {"overwrite": True}, {"resume": True}):
        mine = work_folder(str(output)) / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
        refused(config, "result.zarr.work: is in the way", **options)
        assert mine.read_text() == "mine"
    shutil.rmtree(work_folder(str(output)))
    run(config)
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refused(config, "result.zarr.work: is in the way", overwrite=True)


def test_what_came_in_the_place_of_the_result_meanwhile_is_left_alone(
    config: Config, other: Config, output: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, np.ndarray]
) -> None:
    finish = RunStore.complete

    def meddle(self: Any, *args: Any) -> None:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        (output / "notes.txt").write_text("mine")
        finish(self, *args)

    for options in ({}, {"overwrite": True}):
        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "complete", meddle)
            with pytest.raises(OutputError, match=r"is not what lay there .* in .*work/[0-9a-f]+/store: move"):
                run(config, **options)
        assert (output / "notes.txt").read_text() == "mine"
        shutil.rmtree(output)
        assert run(config, resume=True)["blocks"] == 0
        assert is_equal(output, expected)
        shutil.rmtree(output)
        run(other)


@pytest.mark.parametrize("suffix", [".work/input.zarr"])
def test_an_input_where_the_run_builds_is_refused(suffix: str, config: Config, output: Path, scene: str) -> None:
    source = Path(f"{output}{suffix}")
    shutil.copytree(scene, source)
    refused({**config, "inputs": {"image": str(source)}}, "which holds the input", overwrite=True)


def test_an_old_result_comes_back_when_the_new_one_is_gone(
    config: Config, other: Config, output: Path, crash_at_rename: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(other)
    crash_at_rename(2)
    with pytest.raises(Crash):
        run(config, overwrite=True)
    monkeypatch.undo()
    shutil.rmtree(harness.unfinished(output))
    assert run(other, resume=True)["blocks"] == 0
    assert complete(output)


# --- the journal -----------------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_kept(config: Config, output: Path) -> None:
    work_folder(str(output)).write_text("mine")
    with pytest.raises(OutputError, match=r"result\.zarr\.work: is in the way"):
        run(config)
    assert work_folder(str(output)).read_text() == "mine"
    assert not output.exists()


def recorded(journal: Journal) -> dict[int, tuple[set[int], list[int]]]:
    """Return the blocks and the valid values that a journal has, per pass."""
    return {n: ({b for b in range(100) if b in record.done}, record.valid) for n, record in journal.passes.items()}


PASSES = [[6, 1], [3, 2]]
HEADER = {"rasterpipe": "journal", "format": 2, "passes": PASSES}


def test_a_journal_remembers(tmp_path: Path) -> None:
    path = str(tmp_path / "out.zarr")
    journal = Journal(path)
    journal.start({"run_id": "a", "passes": PASSES})
    for block in range(3):
        journal.record(BlockDone(1, block, 99, (block, 7)))
    journal.close()
    again = Journal(path)
    assert again.header == HEADER | {"run_id": "a"}
    assert recorded(again) == {1: ({0, 1, 2}, [3, 21])}
    again.start({"run_id": "b", "passes": PASSES})
    again.close()
    third = Journal(path)
    assert (third.header, recorded(third)) == (HEADER | {"run_id": "b"}, {})
    third.remove()
    assert not (tmp_path / "out.zarr.work").exists()


@pytest.mark.parametrize("cut", [1, 5, 11])
@pytest.mark.parametrize("tail", [b"", b"\xff\xfe", b"\0" * 40, b"[0, 9", b"{}\n", b"[0, 6, 99, 1]\n", b"[0, 3, 9]\n"])
def test_a_torn_journal_is_read_up_to_the_tear(tmp_path: Path, cut: int, tail: bytes) -> None:
    path = str(tmp_path / "out.zarr")
    journal = Journal(path)
    journal.start({"run_id": "a", "passes": PASSES})
    for block in range(3):
        journal.record(BlockDone(0, block, 99, (100,)))
    journal.close()
    file = work_folder(path) / "journal"
    file.write_bytes(file.read_bytes()[:-cut] + tail)
    torn = Journal(path)
    assert recorded(torn) == {0: ({0, 1}, [200])}
    torn.record(BlockDone(0, 5, 99, (1,)))
    torn.close()
    again = Journal(path)
    assert recorded(again) == {0: ({0, 1, 5}, [201])}
    again.close()
    assert [json.loads(line) for line in file.read_text().splitlines()][2:] == [
        [0, 0, 99, 100],
        [0, 1, 99, 100],
        [0, 5, 99, 1],
    ]


def test_an_empty_journal_has_no_header(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "out.zarr"))
    assert (journal.header, recorded(journal)) == (None, {})
    journal.close()


def test_a_second_run_on_one_output_is_refused(config: Config, output: Path) -> None:
    first = Journal(str(output))
    try:
        for options in ({}, {"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True}):
            with pytest.raises(
                OutputError, match=rf"result\.zarr: another run writes it \(host .+, pid {os.getpid()}\)"
            ):
                run(config, **options)
    finally:
        first.close()
    assert run(config)["blocks"] == BLOCKS


def test_a_lock_on_a_journal_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run ends between the second one's opening of the file and its lock."""
    path = str(tmp_path / "out.zarr")
    first = Journal(path)
    import fcntl

    flock = fcntl.flock

    def late(file: Any, operation: int) -> None:
        if not first._file.closed:
            first.remove()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = Journal(path)
    assert (work_folder(path) / "journal").exists()
    with pytest.raises(OutputError, match="another run writes it"):
        Journal(path)
    second.remove()


# --- what goes wrong at the start and at the end ---------------------------------------------------------------


def test_an_input_that_changes_during_the_run(
    config: Config, output: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = run_module.execute

    def meddle(*args: Any, **options: Any) -> Any:
        os.utime(Path(scene, "zarr.json"), ns=(1, 2**62))
        return execute(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "execute", meddle)
        with pytest.raises(InputError, match=r"the input image .* changed while the run read it; .*--overwrite"):
            run(config)
    assert complete(harness.unfinished(output)) is False
    os.utime(Path(scene, "zarr.json"), ns=(1, 2**60))  # as it was, or another one: who knows what was read
    with pytest.raises(OutputError, match=r"the unfinished run cannot be continued: the input image .* changed"):
        run(config, resume=True)
    assert run(config, resume=True, overwrite=True)["blocks"] == BLOCKS


def test_a_disk_that_is_too_small(config: Config, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config["output"]["path"] = str(output.parent / "new" / "result.zarr")
    Usage = type(shutil.disk_usage("/"))
    with monkeypatch.context() as patch:
        patch.setattr(local.shutil, "disk_usage", lambda folder: Usage(10**6, 10**6, 1000))
        before = listing(output.parent)
        with pytest.raises(
            OutputError, match=r"the result has 192.0 KiB before compression, and only 1000 bytes are free"
        ):
            run(config)
        assert listing(output.parent) == before
        patch.setattr(local.shutil, "disk_usage", lambda folder: Usage(10**6, 10**6, 150_000))
        assert any("before compression" in text for text in run(config)["warnings"])


def test_a_disk_that_is_full_when_a_run_continues_does_not_matter(
    config: Config, output: Path, interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(config)
    Usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(local.shutil, "disk_usage", lambda folder: Usage(10**6, 10**6, 1000))
    assert run(config, resume=True)["blocks"] < BLOCKS


@pytest.mark.parametrize("point", ["create", "journal"])
def test_a_store_that_cannot_be_created_is_removed(
    point: str, config: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = listing(output.parent)
    with monkeypatch.context() as patch:
        if point == "create":
            patch.setattr("pipeline.output.store.create_store", fail)
        else:
            patch.setattr(RunStore, "journal_header", fail)
        with pytest.raises(OutputError, match=r"result\.zarr: cannot be written: .*No space left"):
            run(config)
    assert set(listing(output.parent)) == set(before)


def test_errors_at_the_end_can_be_resumed(config: Config, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.output.store.finish_store", fail)
        with pytest.raises(RunStopped, match="--resume continues it"):
            run(config)
    assert complete(harness.unfinished(output)) is False
    facts = run(config, resume=True)
    assert (facts["blocks"], facts["blocks_skipped"]) == (0, BLOCKS)
    assert complete(output)


def test_every_error_of_the_output_side_has_its_exit_code() -> None:
    assert {kind.__name__: kind.exit_code for kind in RasterpipeError.__subclasses__()} == {
        "UsageError": 2,
        "PipelineError": 3,
        "InputError": 4,
        "OutputError": 5,
        "RunStopped": 6,
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3]}, "b[1] was 2, is 3"),
        ({"a": 1}, {"a": 1, "b": {"c": 2}}, 'b was null, is {"c": 2}'),
        ({"steps": [1]}, {"steps": [1, 2]}, "steps was [1], is [1, 2]"),
        ({"a": {"b": "x" * 100}}, {"a": {"b": "y"}}, f'a.b was "{"x" * 56}..., is "y"'),
    ],
)
def test_differences_in_words(old: Any, new: Any, words: str) -> None:
    assert difference(old, new) == words
