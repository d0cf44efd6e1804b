"""Damaged files of all kinds: the outcome is a raster, a plan, or an error of ours; in time, in little memory.

Real files changed at random (`tests.fuzz`), and whatever hypothesis makes up. A seed that fails is tried again by
`python -m tests.fuzz KIND SEED 1 FOLDER`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import load_pipeline
from pipeline.execution.process import peak_rss_bytes
from pipeline.model.errors import InputError, PipelineError
from pipeline.storage.color_ramp import read_ramp
from pipeline.storage.matrix import read_matrix
from pipeline.testing.draws import draws
from tests import fuzz, harness

MOST_SECONDS = 10
"""Of CPU time, for one file; of wall time it may take more where others compute, too."""
MOST_BYTES = 400 * 2**20
"""By which the process grows at its highest."""
DRAWN = settings(max_examples=draws(100), deadline=None, suppress_health_check=list(HealthCheck))


class Hang(BaseException):
    """What no `except Exception` catches."""


@contextmanager
def in_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {MOST_SECONDS} s of CPU time")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


@pytest.fixture(autouse=True)
def in_little_memory() -> Iterator[None]:
    logger = logging.getLogger("asyncio")  # says what tasks of zarr an error leaves behind; the command line is silent
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    before = harness.reset_peak_bytes()
    yield
    logger.setLevel(level)
    assert peak_rss_bytes() - before < MOST_BYTES


# --- real files, damaged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("yaml", 300), ("zarr", 200), ("tiff", 500), ("shared", 60)])
def test_damaged_files(tmp_path: Path, kind: str, count: int) -> None:
    skip_without_originals(kind)
    outcomes = []
    for seed in range(count):
        with in_time():
            try:
                outcomes.append(fuzz.attempt(kind, seed, tmp_path) is None)
            except BaseException as error:
                error.add_note(f"the seed is {seed}")
                raise
    assert 0 < sum(outcomes) < count, "the damage leaves either nothing or everything to be read"


def skip_without_originals(kind: str) -> None:
    if kind == "shared" and not any(fuzz.SHARED.glob("*.tif")):
        pytest.skip(f"needs the TIFF files in {fuzz.SHARED}, which are absent")


def test_undamaged_files_pass(tmp_path: Path) -> None:
    originals = fuzz.originals(tmp_path / "originals")
    for path in originals["zarr"] + originals["tiff"]:
        fuzz.open_and_read(path)
    known = [path for path in originals["yaml"] if path.stem in ("further", "window", "gradient")]
    assert len(known) == 3
    for path in known:
        fuzz.plan_file(path)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "count"), [("yaml", 20_000), ("zarr", 20_000), ("tiff", 60_000), ("shared", 5_000)])
def test_damaged_files_by_the_thousand(tmp_path: Path, kind: str, count: int) -> None:
    """In a process of its own, watched from outside: it may crash, hang or grow, and must not."""
    skip_without_originals(kind)
    for first in range(10**6, 10**6 + count, 5_000):
        watch([kind, str(first), str(min(5_000, count)), str(tmp_path)], tmp_path / "seed")


def watch(arguments: list[str], seed: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz", *arguments]
    process = subprocess.Popen(command, cwd=fuzz.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(process, seed)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (seed.read_text(), process.returncode, err[-3000:])
    print(arguments, out.strip())


def wait_for(process: subprocess.Popen[str], seed: Path) -> None:
    """Wait for the end of a process that says in a file what it is at; fail if it grows or stays there."""
    here, since, base = "", 0.0, 0
    while process.poll() is None:
        time.sleep(0.05)
        try:
            seconds, num_bytes = used(process.pid)
            now = seed.read_text() if seed.exists() else ""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if now != here:
            base = base or num_bytes
            here, since = now, seconds
        assert seconds - since < MOST_SECONDS or not here, f"seed {here} takes more than {MOST_SECONDS} s of CPU time"
        assert num_bytes - base < MOST_BYTES or not here, f"seed {here} takes {(num_bytes - base) >> 20} MiB"


def used(process: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident bytes of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


# --- what hypothesis makes up ----------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from(fuzz.NUMBERS) | st.sampled_from(fuzz.WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(fuzz.WORDS), inner, max_size=4),
    max_leaves=12,
)
SIZES = st.lists(st.sampled_from((1, 4, 16, 0, -1, 2**31, 2**62, 2**64)), max_size=4) | JSON_VALUES


@settings(DRAWN)
@given(st.lists(st.sampled_from((*fuzz.FRAGMENTS, "inputs", "steps", "op", "\n", "\n  ", " ")) | st.text(max_size=6)))
def test_texts_for_pipeline_files(tmp_path: Path, parts: list[str]) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes("".join(parts).encode("utf-8", "surrogatepass"))
    with in_time(), fuzz.refused((PipelineError,)) as texts:
        load_pipeline(path)
    assert texts[0].startswith(str(path))


@settings(DRAWN)
@given(st.binary(max_size=200))
def test_bytes_for_pipeline_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(data)
    with in_time(), fuzz.refused((PipelineError,)) as texts:
        load_pipeline(path)
    assert texts


def hostile_yaml() -> dict[str, str]:
    doubled = "\n".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))
    merged = "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}" for i in range(1, 40))
    return {
        "nested": "inputs: " + "[" * 100_000,
        "mappings": "{a: " * 100_000,
        "indented": "\n".join(" " * i + "a:" for i in range(1300)),
        "laughs": f"a0: &a0 [x, x]\n{doubled}",
        "merges": f"a0: &a0 {{k: 1}}\n{merged}",
        "itself": "a: &a [*a]",
        "scalar": "inputs: " + "x" * 900_000,
        "number": "run: {memory: " + "9" * 900_000 + "}",
        "key": "x" * 900_000 + ": 1",
        "keys": "\n".join(f"k{i}: 1" for i in range(60_000)),
        "doubled": "inputs: {a: 1, a: 2}",
        "comments": "#\n" * 400_000,
        "lines": "\n" * 900_000,
        "tag": "inputs: !!python/object/apply:os.system [touch ran]",
        "name": "inputs: !!python/name:os.system",
        "anchor": "&" + "a" * 900_000 + " b",
        "variable": "output: " + "${HOME}" * 100_000,
        "binary": "inputs: !!binary aGVsbG8=",
        "large": "a: 1\n" * 300_000,
    }


@pytest.mark.parametrize("name", list(hostile_yaml()))
def test_pipeline_files_made_to_hurt(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pipeline.yaml"
    path.write_text(hostile_yaml()[name])
    with in_time(), fuzz.refused((PipelineError,)) as texts:
        load_pipeline(path)
    assert texts
    assert list(tmp_path.iterdir()) == [path]


@settings(DRAWN)
@given(JSON_VALUES, st.sampled_from(fuzz.METADATA))
def test_any_json_as_metadata(tmp_path: Path, value: Any, name: str) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir(exist_ok=True)
    for each in fuzz.METADATA:
        (path / each).unlink(missing_ok=True)
    (path / name).write_text(json.dumps(value))
    with in_time(), fuzz.refused((InputError,)) as texts:
        fuzz.open_and_read(path)
    assert texts


@settings(DRAWN)
@given(
    st.fixed_dictionaries(
        {"zarr_format": st.just(2), "shape": SIZES, "chunks": SIZES},
        optional={
            "dtype": st.sampled_from(("<f4", "|u1", ">i8", "<U4", "|O", "|V9", "<M8[ns]", "<c8")) | JSON_VALUES,
            "fill_value": JSON_VALUES,
            "order": st.sampled_from("CF") | JSON_VALUES,
            "filters": st.none() | st.lists(st.fixed_dictionaries({"id": st.sampled_from(fuzz.WORDS)})) | JSON_VALUES,
            "compressor": st.none() | st.fixed_dictionaries({"id": st.sampled_from(fuzz.WORDS)}) | JSON_VALUES,
            "dimension_separator": st.sampled_from("./") | JSON_VALUES,
        },
    )
)
def test_arrays_of_zarr_2(tmp_path: Path, metadata: dict[str, Any]) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir(exist_ok=True)
    defaults = {"dtype": "<f4", "fill_value": 0, "order": "C", "filters": None, "compressor": None}
    (path / ".zarray").write_text(json.dumps(defaults | metadata))
    (path / "0.0").write_bytes(bytes(64))
    with in_time(), fuzz.refused((InputError,)):
        fuzz.open_and_read(path)


@settings(DRAWN)
@given(SIZES, SIZES, JSON_VALUES, JSON_VALUES | st.just(["y", "x"]), JSON_VALUES)
def test_arrays_of_zarr_3(tmp_path: Path, shape: Any, chunks: Any, fill: Any, names: Any, attributes: Any) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir(exist_ok=True)
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": fill if fill is not None else 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": names,
        "attributes": attributes,
    }
    (path / "zarr.json").write_text(json.dumps(metadata))
    with in_time(), fuzz.refused((InputError,)):
        fuzz.open_and_read(path)
    with in_time(), fuzz.refused((InputError, PipelineError)):
        fuzz.plan_raster(path)


@settings(DRAWN)
@given(st.sampled_from((b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"")), st.binary(max_size=300))
def test_bytes_for_tiff_files(tmp_path: Path, head: bytes, data: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(head + data)
    with in_time(), fuzz.refused((InputError,)) as texts:
        fuzz.open_and_read(path)
    assert texts


@settings(DRAWN)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.sampled_from((".npy", ".csv", ".txt")))
def test_bytes_for_matrices(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    magic = b"\x93NUMPY\x01\0" if suffix == ".npy" else b""
    path.write_bytes(magic + data)
    with in_time(), fuzz.refused((InputError,)):
        read_matrix(str(path))


@settings(DRAWN)
@given(st.binary(max_size=300) | st.text("0123456789.%nvred ,:#\n-einf", max_size=100).map(str.encode))
def test_bytes_for_colour_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.clr"
    path.write_bytes(data)
    with in_time(), fuzz.refused((InputError,)):
        read_ramp(str(path))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "(" * 5000 + "}",
        "__import__('os').system('touch ran')",
    ],
)
def test_headers_of_matrices(tmp_path: Path, header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npy"
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + bytes(32))
    with in_time(), fuzz.refused((InputError,)) as texts:
        read_matrix(str(path))
    assert texts
    assert list(tmp_path.iterdir()) == [path]
