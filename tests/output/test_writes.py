"""What belongs to the user is never overwritten: all that a run writes, in all places where it must not be."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import pipeline
from pipeline import api
from pipeline.model.errors import OutputError, PipelineError
from pipeline.verbs.demo.synth import synth
from tests import harness
from tests.process import Run

SUFFIXES = {
    "store": ".zarr",
    "GeoTIFF": ".tif",
    "GeoTIFF folder": "",
    "table": ".csv",
    "parquet": ".parquet",
    "picture": ".png",
    "report": ".html",
    "scratch": "",
}
"""What a run writes, and how its name ends."""
FILES = ("GeoTIFF", "table", "parquet", "picture", "report")
BESIDE = ("GeoTIFF folder", "table", "parquet", "picture", "report", "scratch")
"""What is written beside an output store."""
NEEDS = {"parquet": "pyarrow", "report": "bokeh"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A scene, labels, a kernel, another result, and a folder."""
    values = np.random.default_rng(3).integers(0, 99, (12, 10), dtype=np.uint16)
    harness.store(harness.Raster(values, ("y", "x"), chunks=(4, 5)), tmp_path / "scene.zarr")
    harness.store(harness.Raster((values % 4).astype("uint8"), ("y", "x"), chunks=(4, 5)), tmp_path / "marks.zarr")
    (tmp_path / "kernel.csv").write_text("0,1,0\n1,1,1\n0,1,0\n")
    (tmp_path / "folder").mkdir()
    api.run(document(tmp_path) | {"output": {"path": str(tmp_path / "other.zarr")}})
    return tmp_path


def document(here: Path) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"name": "sharp", "op": "convolve", "input": "image", "kernel": str(here / "kernel.csv")},
        {"name": "zones", "op": "label_stats", "input": "image", "labels": "marks", "recolor": ["mean"]},
    ]
    return {
        "inputs": {"image": str(here / "scene.zarr"), "marks": str(here / "marks.zarr")},
        "steps": steps,
        "output": {"path": str(here / "out.zarr"), "keep": ["sharp"]},
        "run": {"workers": 1, "memory": "1 GiB"},
    }


def run(here: Path, writer: str, path: Path, **options: Any) -> dict[str, Any]:
    """Run a pipeline that writes one thing to a path."""
    if (module := NEEDS.get(writer)) and importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    config = document(here)
    match writer:
        case "store" | "GeoTIFF":
            config["output"]["path"] = str(path)
        case "GeoTIFF folder":
            config["output"]["geotiff"] = str(path)
        case "table" | "parquet":
            config["steps"][1]["table"] = str(path)
        case "picture":
            options["quicklook"] = path
        case "report":  # nobody listens there: what is refused is so before anybody is asked
            config["run"]["scheduler"] = "tcp://127.0.0.1:9"
            options["performance_report"] = path
        case "scratch":
            config["run"]["scratch"] = str(path)
    return api.run(config, **options)


def refused(here: Path, writer: str, path: Path, words: str, **options: Any) -> None:
    """Check that a run is refused, and that it changes nothing."""
    before = contents(here)
    with pytest.raises(OutputError, match=words) as caught:
        run(here, writer, path, **options)
    assert caught.value.exit_code == 5
    assert contents(here) == before


def contents(here: Path) -> dict[str, Any]:
    return {
        str(path): os.readlink(path)
        if path.is_symlink()
        else path.is_file() and (path.read_bytes(), path.stat().st_ino)
        for path in here.rglob("*")
    }


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that all users may write to, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("case", ["result", "array", "sticky folder", "table in a sticky folder", "work folder"])
def test_what_belongs_to_another_user(case: str, shared: Path) -> None:
    """Whether it can be replaced is known before the work, not after it."""
    source = harness.store(harness.Raster(np.ones((8, 8), np.uint8), ("y", "x")), shared / "scene.zarr")
    table = {"table": str(shared / "zones.csv")} if "table" in case else {}
    step = {"name": "zones", "op": "label_stats", "labels": "image", "input": "image", "recolor": ["mean"], **table}
    output = "new.zarr" if "table" in case else "out.zarr"
    config = {"inputs": {"image": source}, "steps": [step], "output": {"path": str(shared / output)}}
    api.run(config)
    if case == "table in a sticky folder":
        os.rename(shared / "new.zarr", shared / "moved.zarr")
        shutil.rmtree(shared / "moved.zarr")
    if case == "work folder":
        shutil.rmtree(shared / "out.zarr")
        (shared / "out.zarr.work").mkdir()
    if case == "array":
        os.chown(shared / "out.zarr", 65534, -1)
    shared.chmod(0o1777 if "sticky" in case else 0o777)
    if case == "sticky folder":
        os.chmod(shared / "out.zarr", 0o777)
        for path in shared.rglob("out.zarr/*"):
            path.chmod(0o777)
    before = contents(shared)
    ended = Run(config, partial(os.seteuid, 65534), overwrite=True).wait()
    assert ended.code == 5, ended
    assert re.search(
        "may not move or remove what is there, which belongs to user 0; choose another", ended.message
    ) or (
        case == "array" and re.search("out.zarr/zones: you may not move or remove what is there; choose", ended.message)
    )
    assert contents(shared) == before


PLACES: dict[str, tuple[str, str]] = {
    "in an input": ("scene.zarr/new", "lies inside the input|lies inside another Zarr store"),
    "deep in an input": ("scene.zarr/c/0/new", "lies inside the input|lies inside another Zarr store"),
    "in another result": ("other.zarr/new", "lies inside another Zarr store"),
    "deep in another result": ("other.zarr/sharp/new", "lies inside another Zarr store"),
    "in a file": ("kernel.csv/new", "kernel.csv (is a file|is also an input)|lies inside the input"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("writer", SUFFIXES)
def test_nothing_is_written_into_inputs_and_other_results(here: Path, writer: str, place: str) -> None:
    name, words = PLACES[place]
    (here / "link").symlink_to(here)
    for folder in (here, here / "link"):
        for options in ({}, {"overwrite": True}):
            refused(here, writer, folder / f"{name}{SUFFIXES[writer]}", words, **options)


@pytest.mark.parametrize("name", ["out.zarr", "out.zarr.work", "out.zarr/sharp", "out.zarr.work/more"])
@pytest.mark.parametrize("writer", BESIDE)
def test_what_a_run_writes_is_not_in_each_other(here: Path, writer: str, name: str) -> None:
    path = here / name / f"new{SUFFIXES[writer]}"
    for is_there in (False, True):
        refused(here, writer, path, "would lie inside|lies inside another Zarr store", overwrite=True)
        if not is_there:
            api.run(document(here))


def test_two_things_are_not_written_to_one_path(here: Path) -> None:
    config = document(here)
    config["output"] |= {"path": str(here / "sharp.tif"), "geotiff": str(here)}
    with pytest.raises(OutputError, match=r"GeoTIFF of sharp.* would both be written there"):
        api.run(config)
    refused(here, "scratch", here / "out.zarr", "the output and run.scratch would both be written there")


@pytest.mark.parametrize("writer", SUFFIXES)
def test_inputs_are_not_written_over(here: Path, writer: str) -> None:
    for name in ("scene.zarr", "kernel.csv"):
        linked = here / f"linked{SUFFIXES[writer]}"
        linked.symlink_to(here / name)
        for path in (linked, here / name):
            if path.suffix == SUFFIXES[writer] or writer == "report" or (writer == "store" and path.suffix != ".csv"):
                refused(here, writer, path, "is also an input|lies inside the input", overwrite=True)
        linked.unlink()


@pytest.mark.parametrize("target", ["precious", "nowhere"])
@pytest.mark.parametrize("writer", [name for name in SUFFIXES if name not in ("scratch", "GeoTIFF folder")])
def test_links_are_neither_followed_nor_replaced(here: Path, writer: str, target: str) -> None:
    (here / "precious").write_text("kept")
    link = here / f"link{SUFFIXES[writer]}"
    link.symlink_to(here / target)
    for options in ({}, {"overwrite": True}):
        refused(here, writer, link, f"is a symbolic link to .*{target}", **options)


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "a text": lambda path: path.write_text("0,1,0\n1,1,1\n"),
    "nothing": lambda path: path.touch(),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("writer", FILES)
def test_files_of_another_kind_are_never_replaced(here: Path, writer: str, foreign: str) -> None:
    path = here / f"theirs{SUFFIXES[writer]}"
    FOREIGN[foreign](path)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        refused(here, writer, path, "is never replaced; move it away|is a folder", **options)


@pytest.mark.parametrize("writer", ["GeoTIFF", "table", "parquet", "picture"])
def test_files_of_the_kind_are_replaced_where_that_is_asked_for(here: Path, writer: str) -> None:
    path = here / "new" / f"mine{SUFFIXES[writer]}"
    run(here, writer, path)
    before = path.stat().st_ino
    if writer != "GeoTIFF":
        (here / "away").mkdir()
        (here / "out.zarr").rename(here / "away" / "out.zarr")
    refused(here, writer, path, "exists; --overwrite replaces it")
    run(here, writer, path, overwrite=True)
    assert path.stat().st_ino != before
    run(here, writer, path, resume=True)
    assert not list(path.parent.glob(".*"))


def test_a_report_is_replaced_by_a_report_where_that_is_asked_for(here: Path) -> None:
    (page := here / "report.html").write_text("\n<!DOCTYPE html>\n<html></html>")
    refused(here, "report", page, "exists; --overwrite replaces it")


@pytest.mark.parametrize("writer", BESIDE)
def test_what_is_written_to_a_disk_has_no_url(here: Path, writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    before = contents(here)
    for name in ("s3://bucket/new", "file:///new"):
        with pytest.raises(OutputError, match="is written to a disk, not to a URL"):
            run(here, writer, name + SUFFIXES[writer])  # type: ignore[arg-type]
    assert contents(here) == before


def test_a_link_in_the_folder_that_a_run_works_in(here: Path) -> None:
    (here / "precious").write_text("kept")
    (here / "out.zarr.work").mkdir()
    (here / "out.zarr.work" / "owner").symlink_to(here / "precious")
    (here / "out.zarr.work" / "journal").write_text(json.dumps({"rasterpipe": "journal"})[:-1] + ", ")
    refused(here, "store", here / "out.zarr", "is in the way", overwrite=True)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    tifffile.imwrite(folder / "a.tif", np.zeros((20, 30), "uint8"), metadata=None)
    monkeypatch.chdir(folder)
    step = {"name": "s", "op": "window", "size": 3}
    message = r"the byte 0xE9 in '.*' is not UTF-8 \(of a name in Latin-1\?\); rename the file or folder"
    for source, target in ((str(folder / "a.tif"), str(tmp_path / "o.zarr")), ("a.tif", "o.zarr")):
        with pytest.raises(PipelineError, match=message):
            pipeline.run({"inputs": {"image": source}, "steps": [step], "output": {"path": target}}, quiet=True)
    with pytest.raises(PipelineError, match=message):
        api.convert("a.tif", "o.zarr", quiet=True)
    with pytest.raises(PipelineError, match=message):
        synth("s.zarr", size=(20, 30))
    assert [path.name for path in folder.iterdir()] == ["a.tif"]
