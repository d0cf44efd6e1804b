"""What a file that is sent on tells of the machine that made it: no folders, no users, no hosts."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

import pipeline
from pipeline import api
from pipeline.cli.main import main
from pipeline.model.errors import InputError, UsageError
from pipeline.output import provenance
from pipeline.output.provenance import beside, from_beside, provenance_of
from pipeline.storage.tiff.writer import read_description


def make_image(path: Path, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 200, (40, 50)).astype("uint8")
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None)
    return str(path)


def document(tmp_path: Path) -> dict[str, Any]:
    """A pipeline that writes to `out` what it reads far from there."""
    secret = tmp_path / "anna" / "secret"
    (secret / "kernels").mkdir(parents=True)
    (secret / "kernels" / "blur.csv").write_text("1,2,1\n")
    pair = [make_image(secret / "pair" / f"{name}.tif", seed) for seed, name in enumerate(("one", "two"))]
    labels = make_image(secret / "labels.tif", 3)
    return {
        "inputs": {"image": make_image(secret / "x.tif"), "pair": {"stack": pair}, "labels": labels},
        "steps": [
            {"name": "a", "op": "convolve", "input": "image", "kernel": str(secret / "kernels" / "blur.csv")},
            {"name": "b", "op": "calc", "inputs": {"x": "a", "y": "pair"}, "expression": "x + y"},
            {
                "name": "c",
                "op": "label_stats",
                "input": "image",
                "labels": "labels",
                "table": str(tmp_path / "out/c.csv"),
            },
        ],
        "output": {"path": str(secret / "store.zarr"), "geotiff": str(tmp_path / "out" / "maps"), "keep": ["a", "b"]},
        "run": {"scratch": str(secret / "scratch"), "memory": "600 MiB", "workers": 2},
    }


def test_no_file_tells_folders_users_or_hosts(tmp_path: Path) -> None:
    config = document(tmp_path)
    pipeline.run(config, quicklook=tmp_path / "out" / "look.png")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["a.tif", "b.tif", "c.csv", "look.png"]
    telling = ["anna", "secret", "scratch", str(tmp_path), tmp_path.name]
    # shorter ones stand in compressed pixels by chance
    telling += [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4]
    for path in files:
        data = path.read_bytes()
        assert [word for word in telling if word.encode() in data] == [], path
    stored = json.loads((tmp_path / "anna/secret/store.zarr/zarr.json").read_text())["attributes"]["rasterpipe"]
    assert stored["config"]["inputs"]["image"]["path"] == config["inputs"]["image"]
    assert stored["config"]["run"]["scratch"] == config["run"]["scratch"]


def test_verify_asks_where_the_inputs_of_a_file_lie(tmp_path: Path) -> None:
    config = document(tmp_path)
    config["steps"].pop()
    config["inputs"].pop("labels")
    pipeline.run(config)
    path, secret = tmp_path / "out/maps/b.tif", tmp_path / "anna/secret"
    asked = r"b\.tif: a file tells no folders far from its own; say where image, pair lie: --input image=x\.tif "
    with pytest.raises(InputError, match=asked + "--input pair=FOLDER$"):
        api.verify(path)
    with pytest.raises(InputError, match=r"say where pair lies: --input pair=FOLDER$"):
        api.verify(path, inputs={"image": str(secret / "x.tif")})
    with pytest.raises(UsageError, match=r"--input imag=a\.tif: .*imag.*image"):
        api.verify(path, inputs={"imag": "a.tif"})
    shutil.move(path, tmp_path / "sent.tif")
    shutil.copytree(secret, tmp_path / "of others")  # keeps the times
    for folder in (secret, tmp_path / "of others"):
        given = {"image": str(folder / "x.tif"), "pair": str(folder / "pair")}
        assert api.verify(tmp_path / "sent.tif", inputs=given).agrees
        assert api.verify(tmp_path / "sent.tif", inputs=given, everything=True).agrees
    make_image(tmp_path / "wrong" / "x.tif", 9)
    with pytest.raises(InputError, match="the input image is not the one that it was made of: "):
        api.verify(tmp_path / "sent.tif", inputs={**given, "image": str(tmp_path / "wrong" / "x.tif")})
    options = [f"--input={name}={place}" for name, place in given.items()]
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "sent.tif"), *options])
    assert done.exit_code == 0, done.stderr
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "sent.tif")]).exit_code == 4


def test_a_store_whose_inputs_were_moved_is_verified_too(tmp_path: Path) -> None:
    config = document(tmp_path)
    pipeline.run(config)
    secret, there = tmp_path / "anna/secret", tmp_path / "there"
    there.mkdir()
    for name in ("x.tif", "pair", "labels.tif"):
        shutil.move(secret / name, there / name)
    with pytest.raises(InputError, match="no such file"):
        api.verify(secret / "store.zarr")
    given = {"image": str(there / "x.tif"), "pair": str(there / "pair"), "labels": str(there / "labels.tif")}
    assert api.verify(secret / "store.zarr", inputs=given).agrees


RECORD: dict[str, Any] = {"config": {"inputs": {}, "output": {}, "run": {}}}


@pytest.mark.parametrize(
    ("file", "text", "told", "back"),
    [
        ("/p/maps/a.tif", "/p/maps/x.tif", "${file}/x.tif", "/p/maps/x.tif"),
        ("/p/maps/a.tif", "/p/maps/deep/x.tif", "${file}/deep/x.tif", "/p/maps/deep/x.tif"),
        ("/p/maps/a.tif", "/p/data/x.zarr/image", "${file}/../data/x.zarr/image", "/p/data/x.zarr/image"),
        ("/p/q/maps/a.tif", "/p/data/x.tif", "${elsewhere}/x.tif", "/dev/null/x.tif"),
        ("/p/q/maps/a.tif", "/p/q.tif", "${elsewhere}/q.tif", "/dev/null/q.tif"),
        ("/maps/a.tif", "/homes/anna/x.tif", "${elsewhere}/x.tif", "/dev/null/x.tif"),
        ("/a.tif", "/homes/anna/x.tif", "${elsewhere}/x.tif", "/dev/null/x.tif"),
        ("/homes/bob/a.tif", "/homes/anna/x.tif", "${elsewhere}/x.tif", "/dev/null/x.tif"),
        ("/homes/bob/a.tif", "/homes/bob/data/x.tif", "${file}/data/x.tif", "/homes/bob/data/x.tif"),
        ("/p/maps/a.tif", "s3://bucket/private/x.zarr/", "${elsewhere}/x.zarr", "/dev/null/x.zarr"),
        ("/p/maps/a.tif", "http://intern.example:9000/b/x.zarr", "${elsewhere}/x.zarr", "/dev/null/x.zarr"),
        ("/p/maps/a.tif", "(a - b) / (a + b)", "(a - b) / (a + b)", "(a - b) / (a + b)"),
    ],
)
def test_what_lies_far_is_told_by_its_last_name(
    file: str, text: str, told: str, back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/homes/anna"))
    record = beside(Path(file), {**RECORD, "parts": {"x": [text]}})
    assert record["parts"] == {"x": [told]}
    assert from_beside(Path(file), record)["parts"] == {"x": [back]}


def test_a_last_name_of_a_stranger_leads_nowhere() -> None:
    assert from_beside(Path("/p/a.tif"), ["${elsewhere}/../../etc/passwd"]) == [f"{provenance.NOWHERE}passwd"]


def test_a_link_to_the_folder_is_not_far(tmp_path: Path) -> None:
    image = make_image(tmp_path / "project" / "data" / "x.tif")
    (tmp_path / "link").symlink_to(tmp_path / "project")
    step = {"name": "s", "op": "window", "size": 3}
    place = Path(str(tmp_path / "link" / "maps" / "s.tif"))
    pipeline.run({"inputs": {"image": image}, "steps": [step], "output": {"path": str(place)}})
    record = provenance_of(place)
    assert record is not None
    assert record["config"]["inputs"]["image"]["path"] == image
    assert api.verify(place).agrees


def test_the_server_of_a_store_is_not_told() -> None:
    storage = {"endpoint": "http://intern.example:9000", "region": "eu-central-1", "anonymous": True}
    config = {
        "inputs": {"image": {"path": "s3://bucket/x.zarr", "storage": storage}},
        "output": {"path": "/p/b.tif", "storage": storage},
        "run": {"memory": 5, "scratch": "/homes/anna/scratch"},
    }
    told = beside(Path("/p/b.tif"), {"config": config})["config"]
    assert told == {
        "inputs": {"image": {"path": "${elsewhere}/x.zarr", "storage": {"region": "eu-central-1", "anonymous": True}}},
        "output": {"path": "${file}/b.tif"},
        "run": {"memory": 5},
    }


def test_the_description_is_read_by_people_too(tmp_path: Path) -> None:
    image = make_image(tmp_path / "data" / "x.tif")
    api.convert(image, tmp_path / "maps" / "b.tif")
    text = read_description(tmp_path / "maps" / "b.tif")
    assert text is not None
    assert json.loads(text)["rasterpipe"]["config"]["inputs"]["source"]["path"] == "${file}/../data/x.tif"
