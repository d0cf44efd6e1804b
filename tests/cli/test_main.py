"""The command line as its user meets it: exit codes, messages, what is on stdout, what is written, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner, Result
from scipy import ndimage

import pipeline
from pipeline import api
from pipeline.cli.command import Command
from pipeline.cli.main import _show_error, main
from pipeline.operations.registry import registry
from pipeline.output.work_folder import work_folder
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs.demo.synth import synth
from tests import harness

PIPELINE = """\
inputs:
  image: scene.zarr
steps:
  - {name: smooth, op: window, size: 3, statistics: [mean]}
output: {path: result.zarr, chunks: [32, 32]}
run: {workers: 2, halo: read}
"""


def call(*arguments: Any) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def call_json(*arguments: Any) -> dict[str, Any]:
    """Return the one JSON object on stdout."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    facts = json.loads(result.stdout, parse_constant=refuse)
    assert isinstance(facts, dict)
    return facts


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def write_array(path: Path, values: np.ndarray, **options: Any) -> None:
    options = {"chunks": values.shape, "dimension_names": ("y", "x"), **options}
    array = zarr.create_array(str(path), shape=values.shape, dtype=values.dtype, **options)
    if values.size:
        array[...] = values


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scene and a pipeline file, to work in."""
    synth(tmp_path / "scene.zarr", size=(128, 128), bands=2, dtype="uint16", seed=1)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that a user may take for an input or an output; nothing in it may ever change."""
    zoo = tmp_path_factory.mktemp("zoo")
    synth(zoo / "scene.zarr", size=(60, 70), bands=2, dtype="uint16", seed=1)
    pixels = np.arange(36, dtype=np.uint16).reshape(6, 6)
    for name, values in {
        "small": pixels,
        "bytes": pixels.astype(np.uint8),
        "complex": pixels.astype(np.complex64),
        "flat": np.zeros((0, 5), np.float32),
        "narrow": np.zeros((5, 0), np.float32),
        "other": pixels[:, :5].copy(),
    }.items():
        chunks = tuple(max(1, side) for side in values.shape)
        write_array(zoo / f"{name}.zarr", values, chunks=chunks)
    zarr.create_array(str(zoo / "line.zarr"), shape=(5,), dtype="f4", chunks=(5,))
    zarr.create_array(str(zoo / "text.zarr"), shape=(5, 5), dtype=str, chunks=(5, 5))
    group = zarr.create_group(str(zoo / "group.zarr"))
    for name in ("red", "nir"):
        group.create_array(name, shape=(6, 6), dtype="u2", chunks=(6, 6), dimension_names=("y", "x"))
    zarr.create_group(str(zoo / "hollow.zarr"))
    (zoo / "broken.zarr").mkdir()
    (zoo / "broken.zarr" / "zarr.json").write_text('{"zarr_format": 3, ')
    (zoo / "folder").mkdir()
    (zoo / "folder" / "notes.txt").write_text("mine")
    tifffile.imwrite(zoo / "good.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64), tile=(16, 16))
    whole = (zoo / "good.tif").read_bytes()
    (zoo / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (zoo / "stub.tif").write_bytes(whole[:6])
    (zoo / "empty.tif").write_bytes(b"")
    (zoo / "notes.txt").write_text("mine")
    (zoo / "notes").write_text("mine")
    for suffix in ("vrt", "jp2", "zip"):
        (zoo / f"image.{suffix}").write_bytes(b"something")
    (zoo / "pipeline.yaml").write_text(PIPELINE)
    return zoo


def refused(folder: Path, arguments: list[str], code: int, message: str) -> None:
    """Check exit code, message, an empty stdout, and that nothing was written."""
    before = listing(folder)
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert message.replace("{zoo}", str(folder)) in result.stderr
    assert result.stderr.startswith(("error: ", "error:\n", "Usage: "))
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert listing(folder) == before


STEP = "{name: smooth, op: window, size: 3, statistics: [mean]}"

# what stands in the file instead of what, and what the user reads
FILES: dict[str, tuple[str, str, int, str]] = {
    "even window": (
        "size: 3",
        "size: 14",
        3,
        "pipeline.yaml:4:38: steps[0] (smooth).size: must be odd, got 14; try 13 or 15",
    ),
    "key": ("size: 3", "sise: 3", 3, "pipeline.yaml:4:32: steps[0] (smooth): unknown key 'sise'; did you mean 'size'?"),
    "operation": (
        "op: window",
        "op: windwo",
        3,
        "steps[0] (smooth).op: unknown operation 'windwo'; did you mean 'window'?",
    ),
    "statistic": (
        "[mean]",
        "[maen]",
        3,
        "statistics[0]: unknown statistic 'maen'; did you mean 'mean'? (valid: mean, sum, var,",
    ),
    "neighbour's statistic": ("[mean]", "[stddev]", 3, "unknown statistic 'stddev'; here it is called 'std'"),
    "boundary": (
        "size: 3",
        "size: 3, boundary: wrp",
        3,
        "boundary: unknown boundary 'wrp'; did you mean 'wrap'? (valid: reflect,",
    ),
    "band position": (
        "size: 3",
        "size: 3, bands: [3]",
        3,
        "bands: band 3 does not exist: the raster has 2 (positions from 1 to 2: b1, b2)",
    ),
    "band name": ("size: 3", "size: 3, bands: [b3]", 3, "bands: unknown band 'b3' (valid: b1, b2)"),
    "band of an input": (
        "image: scene.zarr",
        "image: {path: scene.zarr, bands: [9]}",
        3,
        "pipeline.yaml:2:36: inputs.image.bands: band 9",
    ),
    "input": (
        "size: 3",
        "size: 3, input: imge",
        3,
        "unknown input or step 'imge'; did you mean 'image'? (valid: image)",
    ),
    "itself": ("size: 3", "size: 3, input: smooth", 3, "step 'smooth' reads itself; choose one of: image"),
    "later step": (
        STEP,
        "{name: a, op: window, size: 3, input: b}\n  - {name: b, op: window, size: 3, input: image}",
        3,
        "steps[0] (a).input: reads 'b', a later step; a step reads earlier ones: move 'b' before 'a'",
    ),
    "cycle": (
        STEP,
        "{name: a, op: window, size: 3, input: b}\n  - {name: b, op: window, size: 3, input: a}",
        3,
        "steps[0] (a).input: a cycle: a -> b -> a (each reads the next); break it",
    ),
    "two of one name": (
        STEP,
        f"{STEP}\n  - {STEP}",
        3,
        "pipeline.yaml:5:12: steps[1] (smooth).name: the name 'smooth' is taken by steps[0]",
    ),
    "no steps": (f"steps:\n  - {STEP}", "steps: []", 3, "pipeline.yaml:3:8: steps: empty; add `steps:` and under it"),
    "kept": (
        "path: result.zarr",
        "path: result.zarr, keep: [smoth]",
        3,
        "output.keep[0]: unknown step 'smoth'; did you mean 'smooth'?",
    ),
    "kept output": ("path: result.zarr", "path: result.zarr, keep: [smooth/var]", 3, "output.keep[0]: unknown output"),
    "region": (
        "run:",
        "region: {rows: [0, 999]}\nrun:",
        3,
        "pipeline.yaml:6:9: region: rows 0:999, columns 0:70 is not a part of the raster",
    ),
    "bbox": (
        "run:",
        "region: {bbox: [0, 0, 1, 1]}\nrun:",
        3,
        "region.bbox: [0.0, 0.0, 1.0, 1.0] does not meet the raster",
    ),
    "memory": (
        "workers: 2",
        "memory: 3 MiB",
        3,
        "pipeline.yaml:6:15: run.memory: the run may use 3.0 MiB, but needs at least ",
    ),
    "shards": (
        "[32, 32]",
        "[32, 32], shards: [40, 40]",
        3,
        "output.shards: a shard of (40, 40, 2) is not whole chunks of (32, 32, 2)",
    ),
    "scheduler": (
        "workers: 2",
        "scheduler: thrads",
        3,
        "run.scheduler: unknown scheduler 'thrads'; did you mean 'threads'?",
    ),
    "version": ("inputs:", "version: 9\ninputs:", 3, "this rasterpipe reads up to 1; upgrade rasterpipe"),
    "no YAML": ("steps:", "steps: [", 3, "pipeline.yaml:4:3: not YAML"),
    "missing input": (
        "scene.zarr",
        "sceen.zarr",
        4,
        "pipeline.yaml:2:10: inputs.image: {zoo}/sceen.zarr: no such file or folder",
    ),
    "two grids": (
        "image: scene.zarr\nsteps:",
        "image: scene.zarr\n  more: other.zarr\n"
        "steps:\n  - {name: d, op: calc, inputs: {a: image, b: more}, expression: a - b}",
        3,
        "inputs.more: 'image' and 'more' lie on different grids: 60 x 70 pixels against 6 x 5",
    ),
    "grids of a stack": (
        "image: scene.zarr",
        "image: {stack: [small.zarr, other.zarr]}",
        3,
        "inputs.image.stack: small and other lie on different grids",
    ),
    "dtypes of a stack": (
        "image: scene.zarr",
        "image: {stack: [small.zarr, bytes.zarr]}",
        3,
        "small is uint16 with nodata None, bytes is uint8",
    ),
    "bands of a stack": (
        "image: scene.zarr",
        "image: {stack: [small.zarr, scene.zarr]}",
        3,
        "scene has 2 bands; a stack takes rasters of one band",
    ),
    "nodata": (
        "image: scene.zarr",
        "image: {path: scene.zarr, nodata: -1}",
        3,
        "nodata -1 cannot occur in uint16 pixels; give a value that can",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_refused(case: str, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, code, message = FILES[case]
    assert old in PIPELINE
    for entry in zoo.iterdir():  # the file must lie beside what it names, and the zoo must not change
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "pipeline.yaml").unlink()
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, ["run", "pipeline.yaml"], code, message)
    refused(tmp_path, ["run", "pipeline.yaml", "--json", "--overwrite", "--resume"], code, message)
    refused(tmp_path, ["validate", "pipeline.yaml"], code, message)
    refused(tmp_path, ["plan", "pipeline.yaml", "--json"], code, message)


def test_all_faults_of_a_file_are_told_at_once(here: Path) -> None:
    Path("pipeline.yaml").write_text(PIPELINE.replace("size: 3", "sise: 3").replace("[mean]", "[maen]"))
    result = call("validate", "pipeline.yaml")
    assert result.exit_code == 3
    step = "      - {name: smooth, op: window, sise: 3, statistics: [maen]}"
    title, *lines = result.stderr.splitlines()
    assert title == "error:"
    assert [line.partition(" ")[0] for line in lines[::3]] == ["pipeline.yaml:4:32:", "pipeline.yaml:4:54:"]
    assert lines[1::3] == [step, step]
    assert lines[2::3] == [f"{'':{4 + 31}}^~~~", f"{'':{4 + 53}}^~~~"]


# what is given as the input, and what the user reads
INPUTS = {
    "nothing.zarr": "{zoo}/nothing.zarr: no such file or folder",
    "nothing.tif": "{zoo}/nothing.tif: no such file or folder",
    "folder": "{zoo}/folder: is not a Zarr array or group (no zarr.json, .zarray or .zgroup in it)",
    "notes.txt": "{zoo}/notes.txt: is no raster that is known, neither TIFF nor what GDAL's drivers read",
    "cut.tif": "{zoo}/cut.tif: tile 15 ends at byte 8560, the file at byte 4280: it is truncated; copy it again",
    "stub.tif": "{zoo}/stub.tif: is not a readable TIFF file",
    "empty.tif": "{zoo}/empty.tif: is empty (0 bytes); copy it again",
    "broken.zarr": "{zoo}/broken.zarr: cannot be opened as Zarr: JSONDecodeError",
    "complex.zarr": "the array has dtype complex64; rasters are integers or floating point up to 64 bit (store real",
    "text.zarr": "the array has dtype StringDType(); rasters are integers or floating point",
    "flat.zarr": "{zoo}/flat.zarr: the raster is empty: shape (0, 5)",
    "narrow.zarr": "{zoo}/narrow.zarr: the raster is empty: shape (5, 0)",
    "line.zarr": "the array has 1 dimension(s); a raster has y and x",
    "group.zarr": "is a group and holds 2 rasters: nir, red; name one: `{zoo}/group.zarr/nir` as the path",
    "hollow.zarr": "is a group and holds no raster; name a group or an array that is one",
    "image.vrt": "{zoo}/image.vrt: is no raster that is known, neither TIFF nor what GDAL's drivers read",
    "image.jp2": "{zoo}/image.jp2: is no raster that is known, neither TIFF nor what GDAL's drivers read",
    "image.zip": "{zoo}/image.zip: an archive is not read; unpack it first",
    "ftp://host/scene.zarr": "ftp://host...: is no object store that is known (s3://, gs://, az://, http://, https://)",
}


def test_an_input_that_may_not_be_read_is_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be root, who may read all."""

    def deny(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(zoo)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", deny)
        result = call("info", "scene.zarr")
    assert (result.exit_code, result.stderr) == (4, "error: scene.zarr: cannot be opened: Permission denied\n")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.storage.zarr.reader.ZarrReader.identity", deny)
        result = call("plan", "pipeline.yaml")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: the input image cannot be read: [Errno 13] Permission denied")


@pytest.mark.parametrize("source", INPUTS)
def test_a_wrong_input_is_refused(source: str, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo)
    message = INPUTS[source]
    refused(zoo, ["run", "pipeline.yaml", "--input", f"image={source}"], 4, f"--input image={source}: inputs.image")
    refused(zoo, ["run", "pipeline.yaml", "--input", f"image={source}"], 4, message)
    refused(zoo, ["apply", "window", "size=3", source, "new.zarr"], 4, message)
    if source == "group.zarr":  # `info` says what there is
        assert "  red  6 x 6 uint16\n" in call("info", source).stdout
    else:
        refused(
            zoo, ["info", source], 4, "no raster lies there" if source == "folder" else message.replace("{zoo}/", "")
        )


# what is given as the output, and what the user reads
OUTPUTS = {
    "scene.zarr": "{zoo}/scene.zarr: is also an input; choose another output path",
    "scene.zarr/scene": "scene.zarr/scene: lies inside the input {zoo}/scene.zarr; choose an output path beside it",
    "scene.zarr/new.zarr": "scene.zarr/new.zarr: lies inside the input {zoo}/scene.zarr; choose",
    "folder/../scene.zarr": "{zoo}/scene.zarr: is also an input",
    ".": "{zoo}: lies around the input {zoo}/scene.zarr; choose an output path beside it",
    "/": "/: lies around the input {zoo}/scene.zarr",
    "small.zarr": "small.zarr: exists and is not an output of rasterpipe, so it is never replaced; move it away",
    "small.zarr/new.zarr": "small.zarr/new.zarr: lies inside another Zarr store; choose a path outside of it",
    "folder": "folder: exists and is not an output of rasterpipe",
    "notes": "notes: exists and is not an output of rasterpipe",
    "notes.txt/new.zarr": "{zoo}/notes.txt is a file, not a folder",
    "ftp://host/new.zarr": "ftp://host...: is no object store that is known (s3://, gs://, az://, http://, https://)",
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_wrong_output_is_refused(output: str, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo)
    for flags in ([], ["--overwrite"], ["--resume"], ["--resume", "--overwrite"]):
        refused(zoo, ["run", "pipeline.yaml", "-o", output, *flags], 5, OUTPUTS[output])
    refused(zoo, ["apply", "window", "size=3", "scene.zarr", output, "--overwrite"], 5, OUTPUTS[output])


def test_an_input_by_another_name_is_not_overwritten(here: Path) -> None:
    Path("link.zarr").symlink_to("scene.zarr")
    refused(here, ["run", "pipeline.yaml", "-o", "link.zarr", "--overwrite"], 5, "link.zarr: is also an input")
    Path("up").symlink_to(".")
    refused(here, ["run", "pipeline.yaml", "-o", "up/scene.zarr", "--overwrite"], 5, "is also an input")


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"], ["--overwrite", "--resume"]], ids="".join)
@pytest.mark.parametrize("target", ["old.zarr", "nowhere.zarr"])
def test_an_output_that_is_a_link_is_neither_replaced_nor_followed(target: str, options: list[str], here: Path) -> None:
    assert call("run", "pipeline.yaml", "-o", "old.zarr").exit_code == 0
    Path("link.zarr").symlink_to(target)
    message = f"link.zarr: is a symbolic link to {target}; give {here}/{target} itself as the output"
    refused(here, ["run", "pipeline.yaml", "-o", "link.zarr", *options], 5, message)
    Path("folder").mkdir()
    Path("shortcut").symlink_to("folder")  # to a folder that holds the output
    assert call("run", "pipeline.yaml", "-o", "shortcut/result.zarr", *options).exit_code == 0
    assert (root_attributes("folder/result.zarr") or {})["complete"] is True


# arguments, exit code, and what the user reads
ARGUMENTS: dict[str, tuple[list[str], int, str]] = {
    "no such command": (["rnu"], 2, "No such command 'rnu'"),
    "no file": (["run"], 2, "Missing argument 'FILE'"),
    "missing file": (
        ["run", "nothing.yaml"],
        3,
        "nothing.yaml: cannot read the pipeline file: no such file or directory",
    ),
    "folder as file": (["plan", "."], 3, ".: cannot read the pipeline file: is a directory"),
    "raster as file": (["run", "good.tif"], 3, "good.tif:1:79: the file is not UTF-8 text; save it as UTF-8"),
    "no such option": (["run", "pipeline.yaml", "--overwirte"], 2, "No such option"),
    "workers": (["run", "pipeline.yaml", "--workers", "0"], 2, "0 is not in the range x>=1"),
    "workers in words": (["run", "pipeline.yaml", "--workers", "two"], 2, "'two' is not a valid integer"),
    "memory": (
        ["run", "pipeline.yaml", "--memory", "lots"],
        3,
        "--memory lots: run.memory: must be a size such as `2 GiB`",
    ),
    "memory without unit": (
        ["plan", "pipeline.yaml", "--memory", "4"],
        3,
        "--memory 4: run.memory: must be at least 1 MiB, got 4 bytes; give",
    ),
    "little memory": (
        ["run", "pipeline.yaml", "--memory", "3 MiB"],
        3,
        "--memory 3 MiB: run.memory: the run may use 3.0 MiB, but needs at least",
    ),
    "scheduler": (
        ["run", "pipeline.yaml", "--scheduler", "clouds"],
        3,
        "--scheduler clouds: run.scheduler: unknown scheduler 'clouds' (valid: threads, tcp://HOST:PORT, ",
    ),
    "input without path": (["run", "pipeline.yaml", "--input", "image"], 2, "expected NAME=PATH, got 'image'"),
    "set without value": (
        ["run", "pipeline.yaml", "--set", "steps.smooth.size"],
        2,
        "--set steps.smooth.size: must read KEY=VALUE",
    ),
    "set of no step": (
        ["plan", "pipeline.yaml", "--set", "steps.smoth.size=5"],
        2,
        "unknown step 'smoth'; did you mean 'smooth'? (valid: smooth)",
    ),
    "set to a wrong value": (
        ["run", "pipeline.yaml", "--set", "steps.smooth.size=4"],
        3,
        "--set steps.smooth.size=4: steps[0] (smooth).size: must be odd, got 4; try 3 or 5",
    ),
    "set of no key": (
        ["run", "pipeline.yaml", "--set", "steps.smooth.sise=5"],
        3,
        "--set steps.smooth.sise=5: steps[0] (smooth): unknown key 'sise'; did you mean 'size'?",
    ),
    "set to no YAML": (["run", "pipeline.yaml", "--set", "steps.smooth.size=[3"], 2, "(the value is read as YAML)"),
    "set of a region": (
        ["plan", "pipeline.yaml", "--set", "region.rows=[0, 999]"],
        3,
        "--set region.rows=[0, 999]: region: rows 0:999, columns 0:70 is not a part of the raster",
    ),
    "long output": (["run", "pipeline.yaml", "-o", "a" * 300], 5, ": File name too long; choose another output path"),
    "long input": (["info", "a" * 300], 4, ": cannot be opened: File name too long"),
    "set of a band": (
        ["plan", "pipeline.yaml", "--set", "inputs.image.bands=[7]"],
        3,
        "--set inputs.image.bands=[7]: inputs.image.bands: band 7 does not exist",
    ),
    "quicklook": (
        ["run", "pipeline.yaml", "--quicklook", "look.jpg"],
        5,
        "look.jpg: a quicklook is a PNG; give a name that ends in .png",
    ),
    "quicklook in a file": (
        ["run", "pipeline.yaml", "--quicklook", "notes.txt/look.png"],
        5,
        "notes.txt is a file, not a folder",
    ),
    "operation to apply": (
        ["apply", "windwo", "scene.zarr", "new.zarr"],
        3,
        "unknown operation 'windwo'; did you mean 'window'?",
    ),
    "nothing to apply": (["apply", "window"], 2, "Missing argument '[KEY=VALUE ...] SRC DST'"),
    "apply without DST": (["apply", "window", "scene.zarr"], 2, "give SRC and DST at the end"),
    "apply with parameters only": (["apply", "window", "size=3", "scene.zarr"], 2, "give SRC and DST at the end"),
    "apply with parameters behind": (
        ["apply", "window", "scene.zarr", "new.zarr", "size=3"],
        2,
        "the raster to read and the store to write, and size=3 before them",
    ),
    "apply without value": (["apply", "window", "size", "scene.zarr", "new.zarr"], 2, "expected KEY=VALUE, got 'size'"),
    "apply with an even window": (
        ["apply", "window", "size=4", "scene.zarr", "new.zarr"],
        3,
        "error: size=4: steps[0] (window).size: must be odd, got 4; try 3 or 5",
    ),
    "apply with a wrong key": (
        ["apply", "window", "sise=5", "scene.zarr", "new.zarr"],
        3,
        "error: sise=5: steps[0] (window): unknown key 'sise'; did you mean 'size'?",
    ),
    "apply without a parameter": (
        ["apply", "window", "scene.zarr", "new.zarr"],
        3,
        "steps[0] (window).size: missing; add `size: 3`",
    ),
    "apply with little memory": (
        ["apply", "window", "size=3", "scene.zarr", "new.zarr", "--memory", "2MiB"],
        3,
        "--memory 2MiB: run.memory: the run may use 2.0 MiB",
    ),
    "operation to show": (["ops", "windwo"], 2, "unknown operation 'windwo'; did you mean 'window'? (valid: "),
    "info of nothing": (["info", "nothing.zarr", "--json"], 4, "nothing.zarr: no such file or folder"),
    "info of no array": (
        ["info", "group.zarr", "--array", "rde"],
        4,
        "group.zarr: unknown array 'rde'; did you mean 'red'?",
    ),
    "array of a file": (
        ["info", "good.tif", "--array", "red"],
        4,
        "`array` and `at` are for Zarr groups; this is a file",
    ),
    "synth without size": (["synth", "new.zarr"], 2, "Missing option '--size'"),
    "synth of nothing": (
        ["synth", "new.zarr", "--size", "0", "9"],
        2,
        "size must be at least 1 row and 1 column, got 0 9",
    ),
    "synth dtype": (
        ["synth", "new.zarr", "--size", "9", "9", "--dtype", "flota32"],
        2,
        "unknown dtype 'flota32'; did you mean 'float32'?",
    ),
    "synth over a scene": (
        ["synth", "scene.zarr", "--size", "9", "9"],
        5,
        "scene.zarr exists; use --overwrite to replace it",
    ),
    "synth over a folder": (
        ["synth", "folder", "--size", "9", "9", "--overwrite"],
        5,
        "folder exists and is not a synthetic scene",
    ),
    "synth labels": (
        ["synth", "new.zarr", "--size", "9", "9", "--labels", "new.zarr", "--num-labels", "5"],
        2,
        "the labels {zoo}/new.zarr and the scene {zoo}/new.zarr overlap; give two",
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_wrong_arguments_are_refused(case: str, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo)
    arguments, code, message = ARGUMENTS[case]
    refused(zoo, arguments, code, message)


def test_a_fault_of_ours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(api, "plan", fail)
    refused(
        here,
        ["plan", "pipeline.yaml"],
        1,
        "error: a fault of rasterpipe: ZeroDivisionError: of all things; --debug shows where\n",
    )
    with pytest.raises(ZeroDivisionError):
        call("plan", "pipeline.yaml", "--debug")


def test_debug_shows_where_an_error_comes_from(here: Path) -> None:
    with pytest.raises(pipeline.model.errors.PipelineError, match="must be odd"):
        call("plan", "pipeline.yaml", "--set", "steps.smooth.size=2", "--debug")


# --- what works ------------------------------------------------------------------------------------------------


def test_run(here: Path) -> None:
    result = call("run", "pipeline.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"result: {here}/result.zarr"
    assert "  smooth/mean: 128 x 128 x 2 float32, 100.00 % valid" in result.stdout.splitlines()
    assert sorted(os.listdir(here)) == ["pipeline.yaml", "result.zarr", "scene.zarr"]
    mean = zarr.open_array("result.zarr", path="smooth/mean", mode="r")
    assert mean.chunks == (32, 32, 2)


def test_run_json(here: Path) -> None:
    facts = call_json("run", "pipeline.yaml")
    assert set(facts) >= {
        "seconds", "compile_seconds", "peak_rss_bytes", "planned_peak_bytes", "bytes_read", "bytes_written", "blocks",
        "blocks_skipped", "output", "outputs", "warnings", "plan_hash", "version",
    }  # fmt: skip
    assert facts["outputs"] == [
        {"path": "smooth/mean", "dtype": "float32", "shape": [128, 128, 2], "bytes": 131072, "valid_fraction": 1.0}
    ]
    assert facts["output"] == str(here / "result.zarr")
    assert facts["bytes_written"] == 131072
    assert facts["bytes_read"] >= 65536
    assert facts["blocks"] >= 1
    assert facts["blocks_skipped"] == 0
    assert facts["version"] == pipeline.__version__
    assert facts["plan_hash"] == (root_attributes("result.zarr") or {})["plan_hash"]
    again = call_json("run", "pipeline.yaml", "--resume")
    assert (again["blocks"], again["blocks_skipped"], again["outputs"]) == (0, facts["blocks"], facts["outputs"])
    assert set(again) == set(facts)


def test_every_command_prints_one_json_object(here: Path) -> None:
    assert set(call_json("plan", "pipeline.yaml")) >= {"plan_hash", "planned_peak_bytes", "blocks", "passes", "outputs"}
    assert call_json("validate", "pipeline.yaml") == {"valid": True, "steps": 1, "inputs_checked": True}
    assert call_json("info", "scene.zarr")["size"] == [128, 128]
    assert [entry["op"] for entry in call_json("ops")["operations"]] == list(registry())
    assert call_json("ops", "window")["op"] == "window"
    assert "$schema" in call_json("schema")
    assert call_json("synth", "new.zarr", "--size", 9, 8, "--bands", 1)["shape"] == [9, 8, 1]
    assert call_json("apply", "window", "size=3", "scene.zarr", "applied.zarr")["blocks"] >= 1
    assert call_json("run", "pipeline.yaml", "-q")["blocks"] >= 1


def test_json_knows_neither_nan_nor_infinity(here: Path) -> None:
    for word in ("inf", "nan"):
        nodata = (42113, "s", 0, word, True)  # GDAL_NODATA
        tifffile.imwrite(here / f"{word}.tif", np.ones((8, 8), np.float32), extratags=[nodata])
        assert call_json("info", f"{word}.tif")["nodata"] == word
        facts = call_json("plan", "pipeline.yaml", "--input", f"image={word}.tif")
        assert facts["inputs"]["image"]["nodata"] == word


def test_plan_and_validate_write_nothing(here: Path) -> None:
    before = listing(here)
    result = call("plan", "pipeline.yaml", "--memory", "1 GiB", "--workers", 1)
    assert result.exit_code == 0
    assert "of 1.0 GiB" in result.stdout
    assert "base + 1 block x" in result.stdout
    assert call("validate", "pipeline.yaml").stdout == "pipeline.yaml: valid, 1 step\n"
    assert call("info", "scene.zarr").exit_code == 0
    assert listing(here) == before


def test_validate_without_inputs(here: Path) -> None:
    arguments = ["validate", "pipeline.yaml", "--input", "image=nothing.zarr"]
    assert call(*arguments).exit_code == 4
    assert call(*arguments, "--no-inputs").stdout == "pipeline.yaml: valid, 1 step (inputs not opened)\n"


def test_a_plan_is_what_runs(here: Path) -> None:
    planned, done = call_json("plan", "pipeline.yaml"), call_json("run", "pipeline.yaml")
    for key in ("plan_hash", "planned_peak_bytes", "blocks", "output"):
        assert planned[key] == done[key]


def test_notes_are_on_stderr(here: Path) -> None:
    write_array(here / "scaled.zarr", np.ones((64, 64), np.int16), attributes={"scale_factor": 0.01})
    arguments = ["run", "pipeline.yaml", "--input", "image=scaled.zarr", "--overwrite", "--json"]
    note = "input image: the file records scale 0.01 and offset 0; they are ignored (`scale: apply` uses them)"
    result = call(*arguments)
    assert json.loads(result.stdout)["warnings"] == [note]
    said = [line for line in result.stderr.splitlines() if not line.startswith("compiling")]  # where none has yet
    assert said == [f"note: {note}"]
    quiet = call(*arguments, "-q")
    assert json.loads(quiet.stdout)["warnings"] == [note]
    assert quiet.stderr == ""
    resumed = call("run", "pipeline.yaml", "--input", "image=scaled.zarr", "--resume", "--json")
    assert json.loads(resumed.stdout)["warnings"] == [note]


def test_shards_larger_than_the_result_are_told(here: Path) -> None:
    shards = ["--set", "output.shards=[256, 64]"]
    note = "output.shards: 256 x 64 pixels are more than the 128 x 128 of the result; a shard ends at its edge"
    assert f"note: {note}\n" in call("plan", "pipeline.yaml", *shards).stdout
    assert call_json("run", "pipeline.yaml", *shards)["warnings"] == [note]
    assert num_chunks() == 2
    (said,) = call_json("plan", "pipeline.yaml", "--set", "output.shards=[128, 64]")["notes"]
    assert said.startswith("smooth/mean: GDAL up to 3.12, and QGIS with it, opens no array in shards")
    region = ["--set", "region={rows: [5, 40]}"]
    said, _ = call_json("plan", "pipeline.yaml", "--set", "output.shards=[64, 64]", *region)["notes"]
    assert "64 x 64 pixels are more than the 35 x 128 of the result" in said


def test_paths_begin_at_the_file_or_where_we_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "configs").mkdir()
    (here / "work").mkdir()
    text = PIPELINE.replace("scene.zarr", "../scene.zarr").replace("result.zarr", "../results/result.zarr")
    (here / "configs" / "pipeline.yaml").write_text(text)
    monkeypatch.chdir(here / "work")
    file = "../configs/pipeline.yaml"
    assert call_json("run", file)["output"] == str(here / "results" / "result.zarr")
    assert call_json("run", file, "-o", "mine.zarr")["output"] == str(here / "work" / "mine.zarr")
    set_path = ["--set", "output.path=set.zarr"]
    assert call_json("run", file, *set_path)["output"] == str(here / "work" / "set.zarr")
    for option in (["--input", "image=mine.zarr"], ["--set", "inputs.image=mine.zarr"]):
        result = call("plan", file, *option)
        assert result.exit_code == 0, result.stderr
    assert call("plan", file, "--input", "image=scene.zarr").exit_code == 4


def test_overrides(here: Path) -> None:
    sizes = ["--set", "steps.smooth.size=5", "--set", "steps.smooth.statistics=[mean, max]"]
    facts = call_json("plan", "pipeline.yaml", *sizes, "--memory", "1GiB", "--workers", 1, "-o", "other.zarr")
    assert facts["memory_bytes"] == 2**30
    assert facts["workers"] == 1
    assert facts["output"] == str(here / "other.zarr")
    assert [entry["path"] for entry in facts["outputs"]] == ["smooth/mean", "smooth/max"]
    assert facts["passes"][0]["halo_pixels"] == {"image": [2, 2, 2, 2]}


def test_apply(here: Path) -> None:
    result = call("apply", "window", "size=5", "statistics=[mean, max]", "scene.zarr", "smooth.zarr")
    assert result.exit_code == 0, result.stderr
    scene = np.asarray(zarr.open_array("scene.zarr", path="scene", mode="r")[...])
    largest = zarr.open_array("smooth.zarr", path="window/max", mode="r")[...]
    assert np.array_equal(largest, ndimage.maximum_filter(scene, (5, 5, 1)))
    refused(
        here, ["apply", "window", "size=5", "scene.zarr", "smooth.zarr"], 5, "smooth.zarr: exists; --overwrite replaces"
    )
    assert (
        call_json("apply", "window", "size=5", "statistics=[mean, max]", "scene.zarr", "smooth.zarr", "--resume")[
            "blocks"
        ]
        == 0
    )
    assert call("apply", "window", "size=7", "scene.zarr", "smooth.zarr", "--overwrite").exit_code == 0


def test_info_tells_the_line_to_write(here: Path) -> None:
    group = zarr.create_group("group.zarr")
    for name in ("red", "nir"):
        group.create_array(name, shape=(8, 8), dtype="u2", chunks=(8, 8), dimension_names=("y", "x"))[0, 0] = 1
    for arguments in (["scene.zarr"], ["group.zarr", "--array", "nir"]):
        *_, head, line = call("info", *arguments).stdout.splitlines()
        steps = "steps: [{name: smooth, op: window, size: 3}]\noutput: {path: new.zarr}\n"
        Path("said.yaml").write_text(f"{head}\n{line}\n{steps}")
        result = call("validate", "said.yaml")
        assert result.exit_code == 0, result.stderr


def test_the_advice_about_a_store_of_several_outputs_works(here: Path) -> None:
    assert call("run", "pipeline.yaml", "--set", "steps.smooth.statistics=[mean, max]").exit_code == 0
    advice = (
        f"is a group and holds 2 rasters: smooth/max, smooth/mean; name one: `{here}/result.zarr/smooth/max` as the "
        "path, `array: smooth/max` in a pipeline file, or `info --array smooth/max`\n"
    )
    result = call("convert", "result.zarr", "one.tif")
    assert (result.exit_code, result.stderr.partition("result.zarr: ")[2]) == (4, advice)
    for arguments in (["result.zarr/smooth/max"], ["result.zarr", "--array", "smooth/max"]):
        assert call_json("info", *arguments)["dtype"] == "uint16"
    source = "inputs.image={path: result.zarr, array: smooth/max}"
    assert call("validate", "pipeline.yaml", "--set", source).exit_code == 0


def test_ops_shows_what_an_operation_takes(here: Path) -> None:
    listed = call("ops").stdout
    assert all(f"{name} " in listed for name in registry())
    shown = call("ops", "window").stdout
    assert "  size (default none): Height and width of the window" in shown
    assert "one of: reflect, nearest, mirror, constant, wrap, shrink" in shown


def test_what_a_person_reads_at_the_end(here: Path) -> None:
    write_array(here / "scaled.zarr", np.ones((64, 64), np.int16), attributes={"scale_factor": 0.01})
    plan = call("plan", "pipeline.yaml", "--input", "image=scaled.zarr").stdout
    assert "note: input image: the file records scale 0.01 and offset 0" in plan
    assert call("run", "pipeline.yaml").exit_code == 0
    done = call("run", "pipeline.yaml", "--resume").stdout
    assert done.startswith(f"{here}/result.zarr: complete; all ")
    assert done.endswith(" blocks were done before\n")
    made = call("synth", "new.zarr", "--size", 30, 40, "--bands", 1, "--labels", "l.zarr", "--num-labels", 7).stdout
    assert made.splitlines()[0].startswith("new.zarr: 30 x 40 x 1 float32 in ")
    assert made.splitlines()[1] == "l.zarr: 8 labels, int32"


def test_a_command_in_a_thread(here: Path) -> None:
    """Only the main thread may handle signals; the others leave them alone."""
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call_json, "validate", "pipeline.yaml").result()["valid"] is True
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-m", "pipeline", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 1)


def test_a_quicklook_is_drawn(here: Path) -> None:
    facts = call_json("run", "pipeline.yaml", "--quicklook", "looks/look.png")
    assert facts["quicklook"] == "looks/look.png"
    assert Path("looks/look.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("boundary", ["reflect", "nearest", "mirror", "constant", "wrap", "shrink"])
def test_a_window_larger_than_the_raster_works_by_the_boundarys_rule(boundary: str, here: Path) -> None:
    values = np.random.default_rng(3).random((6, 9)).astype(np.float32)
    write_array(here / "small.zarr", values)
    parameters = ["size=[41, 7]", f"boundary={boundary}", *(["cval=0.5"] if boundary == "constant" else [])]
    result = call("apply", "window", *parameters, "small.zarr", "new.zarr")
    assert result.exit_code == 0, result.stderr
    got = zarr.open_array("new.zarr", path="window/mean", mode="r")[...]
    if boundary == "shrink":
        inside = ndimage.uniform_filter(np.ones((6, 9)), (41, 7), mode="constant")
        expected = ndimage.uniform_filter(values.astype(np.float64), (41, 7), mode="constant") / inside
    else:
        expected = ndimage.uniform_filter(values.astype(np.float64), (41, 7), mode=boundary, cval=0.5)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_help_is_there_for_all() -> None:
    assert call("--version").stdout == f"rasterpipe, version {pipeline.__version__}\n"
    listed = call("--help").stdout
    for command in main.commands:
        assert f"  {command} " in listed
        assert call(command, "--help").stdout.startswith(f"Usage: main {command} ")


@pytest.mark.parametrize("name", main.commands)
def test_every_help_begins_with_two_examples(name: str) -> None:
    command = main.commands[name]
    assert isinstance(command, Command)
    assert len(command.examples) >= 2
    usage, _, rest = call(name, "--help").stdout.partition("\n\nExamples:\n")
    assert usage.startswith("Usage: ")
    assert rest.startswith("".join(f"  {example}\n" for example in command.examples))
    for example in command.examples:
        program, called, *arguments = shlex.split(example.partition(" > ")[0])
        assert (program, called) == ("rasterpipe", name)
        command.make_context(name, arguments)  # which refuses what is no argument of it


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rasterpipe ver", ["verify"]),
        ("rasterpipe init te", ["texture", "terrain"]),
        ("rasterpipe run --qu", ["--quicklook", "--quiet"]),
    ],
)
def test_a_shell_completes(words: str, expected: list[str]) -> None:
    variables = {"_RASTERPIPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "pipeline"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == expected, done.stderr


# --- a run that stops ------------------------------------------------------------------------------------------


def test_a_damaged_chunk_stops_the_run(here: Path) -> None:
    values = np.random.default_rng(3).random((64, 64)).astype(np.float32)
    write_array(here / "damaged.zarr", values, chunks=(16, 16))
    chunk = Path("damaged.zarr/c/1/1")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40])
    arguments = ["run", "pipeline.yaml", "--input", "image=damaged.zarr"]
    result = call(*arguments)
    assert result.exit_code == 6
    assert re.match(
        rf"error: block 0 of \d+ \(rows [0-9:]+, columns [0-9:]+; step smooth\): {here}/damaged.zarr: "
        r"cannot read rows [0-9:]+, columns [0-9:]+: chunk c/1/1 claims or decodes to [0-9,]+ bytes or more, ",
        result.stderr,
    )
    assert "; the run stopped: --resume continues it if the input is as it was, else --overwrite" in result.stderr
    assert (root_attributes(harness.unfinished("result.zarr")) or {})["complete"] is False
    assert call(*arguments, "--resume").exit_code == 6
    chunk.write_bytes(whole)
    result = call(*arguments, "--resume")
    assert result.exit_code == 5
    assert "the unfinished run is of another plan: the input image has changed since" in result.stderr
    assert call(*arguments, "--overwrite").exit_code == 0
    assert not work_folder("result.zarr").exists()


UNFINISHED = "no such file or folder; a run that writes it has not ended: finish that with --resume first"


def test_an_unfinished_output_is_no_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ZarrWriter, *args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ZarrWriter, "write", full)
        assert call("run", "pipeline.yaml").exit_code == 6
    for source in ("result.zarr", "result.zarr/smooth", "result.zarr/smooth/mean"):
        arguments = ["apply", "window", "size=3", source, "next.zarr"]
        refused(
            here,
            arguments,
            4,
            f"{source}: {UNFINISHED}",
        )
    assert call("run", "pipeline.yaml", "--resume").exit_code == 0
    assert call(*arguments).exit_code == 0


@pytest.mark.parametrize("fault", ["OSError", "zarrs"])
def test_a_full_disk_stops_the_run(fault: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = ZarrWriter.write

    def full(self: ZarrWriter, *args: Any) -> None:
        if fault == "OSError":
            raise OSError(28, "No space left on device")
        (harness.unfinished("result.zarr") / "smooth" / "mean" / "c").write_text("in the way")
        write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrWriter, "write", full)
        result = call("run", "pipeline.yaml")
    assert result.exit_code == 6, result.stderr
    assert "--resume continues it" in result.stderr
    (harness.unfinished("result.zarr") / "smooth" / "mean" / "c").unlink(missing_ok=True)
    assert call("run", "pipeline.yaml", "--resume").exit_code == 0


# --- real processes --------------------------------------------------------------------------------------------

DRIVER = """\
import signal, sys, time
from dataclasses import replace
from pathlib import Path
from pipeline import api
from pipeline.execution import executor
from pipeline.output import journal
from pipeline.verbs import load as job
from pipeline.model.region import Axis, Grid
from pipeline.storage.zarr.store import ZarrWriter

journal.FLUSH_SECONDS = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
point = sys.argv.pop(1)
settings, write, compile_kernels = job._settings, ZarrWriter.write, executor.compile_kernels

def cut(config, spec, given):
    grids = given.grids or (Grid(Axis(0, 128, 32), Axis(0, 128, 32), 2**31),)
    return settings(config, spec, replace(given, grids=grids))

def slow_write(self, *args):
    if point == "blocks":
        time.sleep(0.25)
    return write(self, *args)

def slow_compile(plan, progress):
    if point == "compile":
        Path("compiling").touch()
        time.sleep(30)
    return compile_kernels(plan, progress)

job._settings, executor.compile_kernels, ZarrWriter.write = cut, slow_compile, slow_write
from pipeline.cli.main import main
main(prog_name="rasterpipe")
"""
"""The command with 16 blocks of 0.25 s, or with a slow compiler."""


class Process:
    """A run in its own process."""

    def __init__(self, point: str, *arguments: str) -> None:
        command = [sys.executable, "-c", DRIVER, point, "run", "pipeline.yaml", *arguments]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < deadline, "the run does not get on"
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        stdout, stderr = self.popen.communicate(timeout=60)
        return self.popen.returncode, stdout, stderr


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    processes = []

    def begin(point: str, *arguments: str) -> Process:
        processes.append(Process(point, *arguments))
        return processes[-1]

    yield begin
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


def num_chunks() -> int:
    """Return how many chunks or shards there are of a result, finished or not."""
    return sum(len(list(Path().glob(f"{store}/smooth/mean/c/*/*/*"))) for store in ("result.zarr", "*.work/*/store"))


def pixels(path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(path, path="smooth/mean", mode="r")[...])


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "error: stopped by Ctrl-C; --resume continues the run\n"),
        (signal.SIGTERM, 143, "error: stopped by SIGTERM; --resume continues the run\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_a_run_that_is_stopped_continues(
    number: int, code: int, words: str, here: Path, start: Callable[..., Process]
) -> None:
    assert call("run", "pipeline.yaml", "-o", "expected.zarr").exit_code == 0
    process = start("blocks", "--json")
    process.wait_for(lambda: num_chunks() >= 4)
    if number == signal.SIGTERM:
        second = call("run", "pipeline.yaml", "--overwrite", "--resume")
        assert second.exit_code == 5
        assert (
            f"result.zarr: another run writes it (host {os.uname().nodename}, pid {process.popen.pid})" in second.stderr
        )
    process.popen.send_signal(number)
    assert process.end() == (code, "", words)
    assert (root_attributes(harness.unfinished("result.zarr")) or {})["complete"] is False
    assert call("run", "pipeline.yaml").exit_code == 5
    way = ["--set", "run.halo=exchange"] if number == signal.SIGKILL else []  # the file says read
    facts = call_json("run", "pipeline.yaml", "--resume", *way)
    assert facts["blocks_skipped"] >= 2
    assert facts["blocks"] + facts["blocks_skipped"] == 16
    assert (root_attributes("result.zarr") or {})["complete"] is True
    assert harness.same_bits(pixels("result.zarr"), pixels("expected.zarr"))
    assert sorted(os.listdir(here)) == ["expected.zarr", "pipeline.yaml", "result.zarr", "scene.zarr"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_before_its_first_block(
    number: int, code: int, here: Path, start: Callable[..., Process]
) -> None:
    process = start("compile")
    process.wait_for(lambda: Path("compiling").exists())
    process.popen.send_signal(number)
    returned, stdout, stderr = process.end()
    assert (returned, stdout) == (code, "")
    assert stderr.startswith("error: stopped by ")
    assert (root_attributes(harness.unfinished("result.zarr")) or {})["complete"] is False
    assert call("run", "pipeline.yaml", "--resume").exit_code == 0


def test_streams_and_exit_codes_of_the_installed_command(here: Path) -> None:
    command = [sys.executable, "-m", "pipeline"]

    def execute(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    done = execute("run", "pipeline.yaml", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["blocks"] >= 1
    assert done.stderr == ""
    done = execute("run", "pipeline.yaml", "--json")
    assert (done.returncode, done.stdout) == (5, "")
    assert (
        done.stderr == f"error: {here}/result.zarr: exists; --overwrite replaces it once the new result is complete\n"
    )
    assert execute("run", "--nonsense").returncode == 2


def test_answers_after_the_end_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """What obstore's threads print where an answer comes when the event loop is closed: last words were not ours."""
    _show_error(RuntimeError, RuntimeError("Event loop is closed"), None)
    assert capsys.readouterr().err == ""
    _show_error(RuntimeError, RuntimeError("anything else"), None)
    assert capsys.readouterr().err == "RuntimeError: anything else\n"
