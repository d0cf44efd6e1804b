"""Faults of the world around a run: what passes leaves no trace, what lasts stops the run, which is then resumed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from pipeline import api
from pipeline.cli.text import format_run
from pipeline.execution.strip import Strip
from pipeline.model.errors import InputError, OutputError, RunInterrupted, RunStopped
from pipeline.model.region import Axis, Grid
from pipeline.output.journal import Journal
from pipeline.planning import fitting
from pipeline.storage.folder import retry
from pipeline.storage.folder.retry import Retry, is_transient
from pipeline.storage.zarr.reader import ZarrReader
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs.load import Cut
from tests import harness
from tests.process import Run, after_writes

SIDE, CHUNK, BLOCKS = 128, 16, 64
GRIDS = (Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31),)
SMOOTH = {"name": "smooth", "op": "window", "size": 5, "statistics": ["mean", "max"]}
RASTERS = 2
"""Written per block."""

Config = dict[str, Any]


def scene(folder: Path) -> str:
    values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
    return harness.store(harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2)), folder / "scene.zarr")


def tiff(folder: Path) -> str:
    values = np.random.default_rng(5).integers(0, 4000, (2, SIDE, SIDE), dtype=np.uint16)
    tifffile.imwrite(folder / "scene.tif", values, tile=(CHUNK, CHUNK), compression="zlib", photometric="minisblack")
    return str(folder / "scene.tif")


def pipeline(source: str, output: Path, **run: Any) -> Config:
    """Return a pipeline of uncompressed chunks, so that their sizes are known."""
    document = harness.document(source, [SMOOTH], output, chunks=[CHUNK, CHUNK], codec="none")
    return document | {"run": {"workers": 2, "halo": "read"} | run}


@pytest.fixture(autouse=True)
def fine_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every chunk by itself, although they are small."""
    monkeypatch.setattr(fitting, "_coarse_unit", lambda chunk, raster, pixel_bytes: chunk)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return pipeline(scene(tmp_path), tmp_path / "result.zarr")


@pytest.fixture
def output(config: Config) -> Path:
    return Path(config["output"]["path"])


def undisturbed(config: Config, folder: Path) -> dict[str, Any]:
    """Return the files of a run that nothing happens to."""
    target = folder / "undisturbed" / "result.zarr"
    api.run({**config, "output": {**config["output"], "path": str(target)}}, cut=Cut(GRIDS))
    return harness.stored_files(target)


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less before trying again, but in tests of the waiting."""
    if "waits" not in request.keywords:
        monkeypatch.setattr(retry, "FIRST_SECONDS", 1e-3)


# --- which errors may pass -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), True),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (ConnectionResetError("peer"), True),
        (TimeoutError(), True),
        (RuntimeError("Input/output error (os error 5)"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (RuntimeError("No space left on device (os error 28)"), False),
        (OSError("incomplete frame"), False),
        (ValueError("wrong"), False),
    ],
)
def test_errors_that_may_pass(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient
    wrapped = InputError(f"x.zarr: cannot be read: {error}")
    wrapped.__cause__ = error
    assert is_transient(wrapped) is transient


@pytest.mark.waits
def test_waiting_grows_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: waited.append(seconds))
    clock = itertools.count(step=retry.POLL_SECONDS)
    monkeypatch.setattr(retry.time, "monotonic", lambda: next(clock))

    def fail() -> None:
        raise OutputError("broken (os error 5)")

    retrying = Retry()
    with pytest.raises(OutputError, match=r"broken \(os error 5\) \(tried 4 times\)"):
        retrying(fail)
    assert retrying.count == 3
    assert 1 < sum(waited) < 5


def test_nothing_is_tried_again_once_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 60.0)
    stop = threading.Event()
    retrying = Retry(stopped=stop.is_set)
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        retrying(partial(os.fspath, _Broken()))
    assert time.monotonic() - started < 2
    assert retrying.count == 0


class _Broken(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise ConnectionResetError("peer")


# --- faults that pass ------------------------------------------------------------------------------------------

Method = Callable[..., Any]
IO_ERROR = OSError(errno.EIO, "Input/output error")
CONNECTION_ERROR = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
ZARRS_ERROR = RuntimeError("Stale file handle (os error 116)")


def at_first(method: Method, key: Callable[..., object], spoil: Callable[..., None], *errors: Exception) -> Method:
    """Return a method of which every other task fails twice, after it did its work and `spoil` spoiled it."""
    calls: Counter[object] = Counter()
    lock, faults = threading.Lock(), itertools.cycle(errors)

    def faulty(*args: Any, **options: Any) -> Any:
        result, task = method(*args, **options), key(*args)
        with lock:
            calls[task] += 1
            fails = calls[task] <= 2 and list(calls).index(task) % 2 == 0
        if fails:
            spoil(*args, **options)
            raise next(faults)
        return result

    return faulty


def garble(array: zarr.Array[Any], part: Any, *, out: Any) -> None:
    out.as_ndarray_like().fill(7)


def truncate_a_chunk(writer: ZarrWriter, region: Any, values: np.ndarray) -> None:
    name = harness.chunk_file(writer.array, region)
    file = Path(str(writer.store), writer.array.raster, name)
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_faults_that_pass_leave_no_trace(
    halo: str, config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["run"]["halo"] = halo
    expected = undisturbed(config, tmp_path)
    with monkeypatch.context() as patch:
        get = zarr.Array.get_basic_selection
        get = at_first(get, lambda array, part: str(part), garble, ZARRS_ERROR, IO_ERROR)
        patch.setattr(zarr.Array, "get_basic_selection", get)
        write = ZarrWriter.write
        write = at_first(
            write, lambda w, region, _: (w.array.raster, region), truncate_a_chunk, CONNECTION_ERROR, IO_ERROR
        )
        patch.setattr(ZarrWriter, "write", write)
        facts = api.run(config, cut=Cut(GRIDS))
    assert facts["retries"] >= BLOCKS * (RASTERS + 1)
    assert any("repeated after errors that passed" in line for line in format_run(facts))
    assert harness.stored_files(output) == expected
    assert api.run(config, resume=True)["retries"] == 0


def test_faults_of_a_tiff_that_pass_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pipeline(tiff(tmp_path), tmp_path / "result.zarr")
    expected = undisturbed(config, tmp_path)
    pread, count = os.pread, itertools.count(1)

    def faulty(file: int, length: int, offset: int) -> bytes:
        number = next(count)
        if number % 7 == 0:
            raise OSError(errno.EIO, "Input/output error")
        return pread(file, length if number % 3 else max(1, length // 2), offset)  # less than was asked for

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", faulty)
        facts = api.run(config, cut=Cut(GRIDS))
    assert facts["retries"] > 5
    assert harness.stored_files(tmp_path / "result.zarr") == expected


def test_a_slow_disk_changes_nothing(
    config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(config, tmp_path)
    random = np.random.default_rng(1)

    def slow(method: Method) -> Method:
        def wrapper(*args: Any, **options: Any) -> Any:
            time.sleep(random.choice([0, 0, 0, 0.01, 0.05]))
            return method(*args, **options)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(ZarrReader, "read", slow(ZarrReader.read))
        patch.setattr(ZarrWriter, "write", slow(ZarrWriter.write))
        assert api.run({**config, "run": {"workers": 5, "halo": "read"}}, cut=Cut(GRIDS))["retries"] == 0
    assert harness.stored_files(output) == expected


# --- faults that last ------------------------------------------------------------------------------------------


def from_call(method: Method, number: int, error: Exception) -> tuple[Method, list[int]]:
    """Return a method that fails from its n-th call on, and the calls that failed."""
    count, failed = itertools.count(1), []

    def faulty(*args: Any, **options: Any) -> Any:
        if (call := next(count)) >= number:
            failed.append(call)
            raise error
        return method(*args, **options)

    return faulty, failed


LASTING = (
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    OSError(errno.EROFS, "Read-only file system"),
)


@pytest.mark.parametrize(
    "error",
    [LASTING[0], *(pytest.param(error, marks=pytest.mark.thorough) for error in LASTING[1:])],
    ids=lambda error: errno.errorcode[error.errno],
)
@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_a_fault_that_lasts_stops_the_run_at_once(
    halo: str, kind: str, error: OSError, config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["run"]["halo"] = halo
    owner = ZarrReader if kind == "read" else ZarrWriter
    with monkeypatch.context() as patch:
        method, failed = from_call(getattr(owner, kind), 20, error)
        patch.setattr(owner, kind, method)
        started = time.monotonic()
        with pytest.raises(RunStopped) as caught:
            api.run(config, cut=Cut(GRIDS))
    assert time.monotonic() - started < 5
    assert caught.value.exit_code == 6
    assert f"of {BLOCKS} (rows " in str(caught.value)
    assert f"; step smooth): {error}" in str(caught.value)
    assert str(caught.value).endswith("the run stopped, and --resume continues it once that is mended")
    assert len(failed) <= 4  # each block in work once: not tried again, and no block begun after
    facts = api.run(config, resume=True)
    assert facts["blocks"] + facts["blocks_skipped"] == BLOCKS
    assert facts["blocks_skipped"] >= (5 if halo == "read" or kind == "write" else 0)
    assert harness.stored_files(output) == undisturbed(config, tmp_path)


@pytest.mark.waits
def test_a_fault_that_does_not_pass_stops_the_run_within_seconds(
    config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        method, failed = from_call(ZarrWriter.write, 20, OSError(errno.EIO, "Input/output error"))
        patch.setattr(ZarrWriter, "write", method)
        started = time.monotonic()
        with pytest.raises(RunStopped, match=r"block \d+ of 64 \(rows .*; step smooth\): .*Input/output error"):
            api.run(config, cut=Cut(GRIDS))
    assert 1 < time.monotonic() - started < 8
    assert 4 <= len(failed) <= 4 * 3
    api.run(config, resume=True)
    assert harness.stored_files(output) == undisturbed(config, tmp_path)


def test_retries_can_be_switched_off(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    method, failed = from_call(ZarrWriter.write, 1, ConnectionResetError(errno.ECONNRESET, "Connection reset"))
    monkeypatch.setattr(ZarrWriter, "write", method)
    with pytest.raises(RunStopped, match="Connection reset; the run stopped"):
        api.run(config, overrides=["run.retries=0"])
    assert len(failed) <= 3


def test_the_first_failure_of_two_strips_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block of a strip fails while the next strip is at work: that one stops, and is not the cause."""
    strips = [Strip(tuple(range(first, first + 16))) for first in range(0, BLOCKS, 16)]
    monkeypatch.setattr("pipeline.execution.run.split_into_strips", lambda *args: iter(strips))
    compute, begun = "pipeline.execution.worker.PassWorker._compute", []
    from pipeline.execution.worker import PassWorker

    plain = PassWorker._compute

    def slow(self: PassWorker, number: int, fetch: Any) -> Any:
        begun.append(number)
        if number == 15:
            time.sleep(0.3)
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(0.02)
        return plain(self, number, fetch)

    monkeypatch.setattr(compute, slow)
    with pytest.raises(RunStopped, match=r"^block 15 of 64 .*No space left"):
        api.run(config, cut=Cut(GRIDS))
    assert max(begun) < 2 * 16 + 3  # the third strip did not begin


def test_a_signal_ends_the_waiting(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 60.0)
    method, failed = from_call(ZarrWriter.write, 20, OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(ZarrWriter, "write", method)

    def interrupt() -> None:
        while not failed:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    started = time.monotonic()
    thread.start()
    with pytest.raises(RunInterrupted) as caught:
        api.run(config, cut=Cut(GRIDS))
    thread.join()
    assert caught.value.exit_code == 143
    assert time.monotonic() - started < 10
    monkeypatch.undo()
    assert api.run(config, resume=True)["blocks_skipped"] >= 5


def test_a_journal_that_cannot_be_written_stops_the_run(
    config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", from_call(Journal._write, 10, LASTING[0])[0])
        patch.setattr(Journal, "flush", from_call(Journal.flush, 2, LASTING[0])[0])
        with pytest.raises(RunStopped, match="No space left on device; the run stopped"):
            api.run(config, cut=Cut(GRIDS))
    assert api.run(config, resume=True)["blocks_skipped"] > 0
    assert harness.stored_files(output) == undisturbed(config, tmp_path)


# --- the disk, the rights, the inputs: for real ----------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.output.local.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 0, 2**30))
    config = pipeline(scene(tmp_path), small_disk / "result.zarr")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(850_000))
    for options in ({}, {"resume": True}):
        with pytest.raises(RunStopped, match="No space left on device") as caught:
            api.run(config, cut=Cut(GRIDS), **options)
        assert caught.value.exit_code == 6
    ballast.unlink()
    facts = api.run(config, resume=True)
    assert facts["blocks"] + facts["blocks_skipped"] == BLOCKS
    assert harness.stored_files(small_disk / "result.zarr") == undisturbed(config, tmp_path)
    assert sorted(os.listdir(small_disk)) == ["result.zarr"]


@pytest.mark.thorough
def test_kernels_that_cannot_be_kept(small_disk: Path, tmp_path: Path) -> None:
    """The run compiles its own, and says so."""
    steps = [{"name": "slope", "op": "gradient", "spacing": 1}]
    config = {"inputs": {"image": scene(tmp_path)}, "steps": steps, "output": {"path": str(tmp_path / "result.zarr")}}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(config))
    (small_disk / "ballast").write_bytes(bytes(850_000))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(tmp_path / "pipeline.yaml")],
        env=os.environ | {"NUMBA_CACHE_DIR": str(small_disk)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"note: compiled kernels cannot be kept \(.*small.*: No space left on device\), so each run compiles its own\n",
        done.stderr,
    )
    assert api.verify(tmp_path / "result.zarr")["agrees"]


def limit_files() -> None:
    after_writes(30, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))


def lose_rights() -> None:
    after_writes(30, lambda: os.seteuid(65534))


def lose_folders(output: str) -> None:
    def forbid() -> None:
        for folder in harness.unfinished(output).rglob("*"):
            if folder.is_dir():
                folder.chmod(0o500)

    after_writes(30, forbid)


def test_a_limit_on_files(config: Config, output: Path, tmp_path: Path) -> None:
    ended = Run(config, limit_files, cut=Cut(GRIDS)).wait()
    assert ended.code == 6
    assert "File too large" in ended.message
    api.run(config, resume=True)  # the journal, too, was held up
    assert harness.stored_files(output) == undisturbed(config, tmp_path)


def test_rights_that_are_lost(config: Config, output: Path, tmp_path: Path) -> None:
    arm = lose_rights if os.geteuid() == 0 else partial(lose_folders, str(output))
    ended = Run(config, arm, cut=Cut(GRIDS)).wait()
    assert ended.code == 6
    assert "ermission denied" in ended.message
    assert "step smooth" in ended.message
    for folder in harness.unfinished(output).rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    assert api.run(config, resume=True)["blocks_skipped"] > 0
    assert harness.stored_files(output) == undisturbed(config, tmp_path)


@pytest.mark.parametrize("way", ["pixels", "gone"])
def test_an_input_that_changes_during_the_run(way: str, config: Config, output: Path, tmp_path: Path) -> None:
    source = Path(config["inputs"]["image"])
    act = partial(_change_a_chunk, source) if way == "pixels" else partial(shutil.rmtree, source)
    ended = Run(config, partial(after_writes, 40, act), cut=Cut(GRIDS)).wait()
    assert (root_attributes(harness.unfinished(output)) or {})["complete"] is False
    if way == "pixels":
        assert ended.code == 4
        assert re.search("changed while the run read it|is not as it was when the run began", ended.message)
        with pytest.raises(OutputError, match="the unfinished run cannot be continued: "):
            api.run(config, resume=True)
    else:
        assert ended.code in (4, 6)
        assert str(source) in ended.message


def _change_a_chunk(source: Path) -> None:
    array = zarr.open_array(source, mode="r+")
    array[-1, -1] = array[-1, -1] + 1


def test_a_lost_chunk_of_an_output_is_no_fill_value(config: Config, output: Path, tmp_path: Path) -> None:
    """Zarr allows chunks that are not there; a run writes all of them."""
    api.run(config, cut=Cut(GRIDS))
    (output / "smooth" / "mean" / "c" / "3" / "4" / "0").unlink()
    next_config = pipeline(f"{output}/smooth/mean", tmp_path / "next.zarr")
    with pytest.raises(
        InputError, match=r"is the output of a run and lacks 1 of 64 chunk files, the first of them c/3/4/0"
    ):
        api.run(next_config)


def test_a_lost_chunk_of_an_input_is_told(config: Config) -> None:
    (Path(config["inputs"]["image"]) / "c" / "3" / "4" / "0").unlink()
    assert any("lacks 1 of 64 chunk files, the first of them c/3/4/0" in text for text in api.plan(config)["notes"])
