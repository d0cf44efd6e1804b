"""What workers say before a run, in one message; answers made up where no machine here could give them."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline.execution.cluster import look
from pipeline.execution.cluster.probe import PACKAGES, probe
from pipeline.execution.cluster.sight import difference, local_files
from pipeline.model.errors import PipelineError
from pipeline.planning.plan import UNKNOWN, Capacity
from pipeline.storage.compose import open_input
from pipeline.storage.input import Input, Scale
from pipeline.storage.open import open_raster
from tests import harness

HERE = look.look([], [], "", PACKAGES)
GIB = 2**30


class Workers:
    """Stands in for a dask client: workers with what they answer, by address."""

    def __init__(self, answers: dict[str, Any], limit: int = 4 * GIB, python: str = platform.python_version()) -> None:
        self.answers, self.limit, self.python = answers, limit, python

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        facts = {"memory_limit": self.limit, "host": "127.0.0.1"}
        return {"workers": {address: facts | {"nthreads": i + 1} for i, address in enumerate(self.answers)}}

    def get_versions(self, check: bool) -> dict[str, Any]:
        return {"workers": {address: {"host": {"python": f"{self.python}.final.0"}} for address in self.answers}}

    def run(self, *args: Any, on_error: str) -> dict[str, Any]:
        return self.answers


def complaint(answers: dict[str, Any], **options: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        probe(Workers(answers, **options), [], [])
    assert caught.value.path == ("run", "scheduler")
    return str(caught.value)


def test_the_smallest_worker_and_the_most_threads_count() -> None:
    assert probe(Workers({"a": HERE, "b": HERE}), [], []) == Capacity(4 * GIB, 2, 2)
    shared = Capacity(HERE["memory_bytes"] // 2, 2, 2)
    assert probe(Workers({"a": HERE, "b": HERE}, limit=0), [], []) == shared


def test_versions_are_compared() -> None:
    text = complaint({"a": HERE | {"versions": HERE["versions"] | {"numba": "0.1", "zarrs": ""}}, "b": HERE})
    assert text.splitlines()[1:] == [
        f"  a: numba 0.1, here {HERE['versions']['numba']}; install the same",
        f"  a: zarrs is missing, here {HERE['versions']['zarrs']}; install the same",
    ]


def test_another_python_is_told_without_sending_it_code() -> None:
    text = complaint({"a": RuntimeError(), "b": RuntimeError()}, python="3.9.1")
    assert text.splitlines()[1:] == [
        f"  a, b: Python 3.9, here {'.'.join(platform.python_version_tuple()[:2])}; install the same"
    ]


def test_another_source_is_told() -> None:
    text = complaint({"a": HERE | {"source": {}}, "b": HERE | {"source": HERE["source"] | {"digest": "0"}}})
    assert "  a: rasterpipe is not installed; install rasterpipe" in text
    assert f"in {HERE['source']['folder']} is not the one of here" in text


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_folder_is_told_from_others_by_metadata_and_chunks(tmp_path: Path, zarr_format: int) -> None:
    raster = harness.Raster(np.arange(64, dtype=np.uint16).reshape(8, 8), ("y", "x"), None, (2, 2), None, zarr_format)
    path = Path(harness.store(raster, tmp_path / "scene.zarr", with_labels=False))
    (evidence,) = open_raster(str(path)).evidence()
    here = look.marks(local_files(evidence))
    assert difference(evidence, here, here) is None
    assert evidence.metadata == (("zarr.json",) if zarr_format == 3 else (".zarray", ".zattrs"))
    assert [name[-3:] for name in evidence.data] == [f"{a}{'./'[zarr_format - 2]}{b}" for a, b in CORNER_TO_CORNER]
    for name, act in ((evidence.data[-1], os.utime), (evidence.metadata[0], add_a_byte), (evidence.data[2], os.unlink)):
        act(path / name)
        there = look.marks(local_files(evidence))
        words = f"sees another raster at {path} ({name} is another one); put it where all see it"
        assert difference(evidence, here, there) == words
        here = there
    shutil.rmtree(path)
    there = look.marks(local_files(evidence))
    assert difference(evidence, here, there) == f"finds nothing at {path}; put it where all see it"


CORNER_TO_CORNER = [(0, 0), (0, 3), (1, 3), (2, 3), (3, 3)]
"""Of 4 x 4 chunks, those that are looked at."""


def add_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def test_a_file_is_told_from_others_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8))
    (evidence,) = open_raster(str(path)).evidence()
    here = look.marks(local_files(evidence))
    assert here == {str(path): [path.stat().st_size, path.stat().st_mtime_ns]}
    os.utime(path)
    assert difference(evidence, here, look.marks(local_files(evidence))) == (
        f"sees another raster at {path}; put it where all see it"
    )
    refused = {str(path): "Permission denied"}
    assert difference(evidence, here, refused) == f"cannot read {path}: Permission denied; put it where all see it"


def test_each_raster_of_a_stack_is_looked_at(tmp_path: Path) -> None:
    raster = harness.Raster(np.zeros((8, 8), np.uint16), ("y", "x"), chunks=(8, 8))
    paths = [harness.store(raster, tmp_path / f"{name}.zarr", with_labels=False) for name in "ab"]
    reader = open_input(Input(stack=tuple(paths), bands=(2, 1), nodata=3, scale=Scale(factor=2.0, offset=1.0)))
    assert [evidence.path for evidence in reader.evidence()] == paths


def test_a_worker_that_fails_to_answer_is_named() -> None:
    assert "  b: does not answer: OSError('gone')" in complaint({"a": HERE, "b": OSError("gone")})


def test_more_memory_than_a_worker_has_is_refused() -> None:
    assert UNKNOWN.grant(64 * GIB) == 64 * GIB
    assert Capacity(2 * GIB, 1, 1).grant(2 * GIB) == 2 * GIB
    assert Capacity(2 * GIB, 1, 1).grant(None) == int(0.6 * 2 * GIB)
    # dask loses a byte of `--memory-limit 2GiB` here and there
    assert Capacity(2 * GIB - 1, 1, 1).grant(2 * GIB) == 2 * GIB - 1
    with pytest.raises(PipelineError, match=r"8.0 GiB is more than the smallest worker has \(4.0 GiB\)") as caught:
        Capacity(4 * GIB, 1, 1).grant(8 * GIB)
    assert "give `--memory` with that or less, or leave run.memory out for 2.4 GiB" in str(caught.value)
    with pytest.raises(PipelineError, match=r"2.1 GiB is more than the smallest worker has \(2.0 GiB\)"):
        Capacity(2 * GIB - 1, 1, 1).grant(2 * GIB + 3 * 2**20)
