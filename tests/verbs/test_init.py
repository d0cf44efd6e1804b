"""Pipeline files that are written from templates, and fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from pipeline.model.facts import InfoFacts
from pipeline.verbs.demo.synth import synth
from pipeline.verbs.start import template
from pipeline.verbs.start.fit import values_of
from tests.sources import PROJECT

RASTERS = {
    "moving-average": ["smooth/mean"],
    "ndvi": ["ndvi/value", "rough/std", "green/value", "contrast/value"],
    "texture": ["texture/mean", "texture/var"],
    "zonal": ["zones/mean"],
    "terrain": ["relief/slope", "relief/aspect", "relief/hillshade", "relief/roughness"],
    "cells": ["nuclei/labels"],
    "composite": ["clear/median", "clear/count"],
    "poster": ["poster/index", "poster/color"],
    "all-systems": ["smooth/mean", "zones/mean", "poster/index"],
}
"""Of each template, rasters that its run makes."""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    synth("scene.zarr", size=(40, 50), bands=4, dtype="uint16", labels="labels.zarr", num_labels=9, seed=1)
    return tmp_path


def test_the_configs_are_made_of_templates() -> None:
    for name, config in template.CONFIGS.items():
        made = (PROJECT / "configs" / f"{config}.yaml").read_text()
        assert made == template.example_of(name), "run `python -m pipeline.verbs.start.template`"


def test_every_template_is_known() -> None:
    assert sorted(path.stem for path in template.FOLDER.iterdir()) == sorted(template.NAMES) == sorted(RASTERS)
    listed = json.loads(call("init", "--json").stdout)["templates"]
    assert list(listed) == list(template.NAMES)
    assert all(f"{name} " in call("init").stdout for name in listed)


@pytest.mark.parametrize("name", template.NAMES)
def test_what_is_written_fits_and_runs(name: str, here: Path) -> None:
    labels = ["--input", "labels=labels.zarr"] if template.is_asked_for(name, "labels") else []
    result = call("init", name, "--input", "image=scene.zarr", *labels, "-o", "sub/my file.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("next: rasterpipe run 'sub/my file.yaml' --quicklook 'sub/my file.png'\n")
    text = (here / "sub" / "my file.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=pipeline.schema.json\n# $schema: pipeline.schema.json\n# ")
    assert "# image: 40 x 50 pixels, 4 bands (b1, b2, b3, b4), uint16, nodata none\n" in text
    assert json.loads((here / "sub" / "pipeline.schema.json").read_text()) == json.loads(call("schema").stdout)
    ran = call("run", "sub/my file.yaml", "--memory", "1 GiB", "--workers", "1", "--json")
    assert ran.exit_code == 0, ran.stderr
    made = {output["path"]: output["shape"] for output in json.loads(ran.stdout)["outputs"]}
    assert set(RASTERS[name]) <= set(made)
    assert all(shape[:2] == [40, 50] for shape in made.values())
    assert (here / "sub" / "results" / "my file.zarr").is_dir()


def test_a_file_is_never_replaced(here: Path) -> None:
    Path("ndvi.yaml").write_text("mine")
    Path("pipeline.schema.json").write_text("mine, too")
    result = call("init", "ndvi", "--input", "image=scene.zarr")
    assert result.exit_code == 5
    assert "ndvi.yaml: exists, and is never replaced; give another name: -o FILE" in result.stderr
    assert call("init", "ndvi", "-o", "other.yaml").exit_code == 0
    assert Path("ndvi.yaml").read_text() == "mine"
    assert Path("pipeline.schema.json").read_text() == "mine, too"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("terain", 2, "unknown template 'terain'; did you mean 'terrain'?"),
        ("ndvi --input imag=scene.zarr", 2, "unknown input of ndvi 'imag'; did you mean 'image'?"),
        ("ndvi --input image=labels.zarr", 2, "labels.zarr: has one band, and a vegetation index needs two"),
        ("ndvi --input image=gone.tif", 4, "gone.tif"),
        ("ndvi -o scene.tif", 5, "scene.tif: a pipeline file is YAML; give a name that ends in .yaml"),
        ("terrain --input image=.", 2, "no single raster; `rasterpipe info .` says how to name one of them"),
    ],
)
def test_what_is_refused_writes_nothing(words: str, code: int, message: str, here: Path) -> None:
    before = sorted(here.iterdir())
    result = call("init", *words.split())
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert sorted(here.iterdir()) == before


def test_without_inputs_there_are_names_to_replace(here: Path) -> None:
    result = call("init", "zonal")
    assert result.exit_code == 0
    assert "put your image and labels into zonal.yaml first" in result.stderr
    assert yaml.safe_load(Path("zonal.yaml").read_text())["inputs"] == {"image": "image.tif", "labels": "labels.tif"}


def facts(*bands: str, **more: object) -> InfoFacts:
    given = {
        "path": "a.tif", "dims": ("y", "x", "band"), "shape": (9, 9, len(bands)), "dtype": "uint16", "bands": bands,
        "nodata": None, "size": (9, 9), "num_bands": len(bands), "bytes": 1, "scale": None, "scales": None,
        "chunk": (9, 9), "crs": None, "transform": None, "stored": {}, "inputs_line": "  image: a.tif", **more,
    }  # fmt: skip
    return InfoFacts(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bands", "red", "nir", "colors", "is_guessed"),
    [
        (("B02", "B03", "B04", "B08"), "B04", "B08", "[3, 2, 1]", False),
        (("red", "green", "blue", "near infrared"), "red", "b4", "[1, 2, 3]", False),
        (("b1", "b2", "b3", "b4", "b5"), "b3", "b4", "[3, 2, 1]", True),
        (("b1", "b2"), "b1", "b2", "[1, 2]", True),
        (("b1",), "b1", "b1", "[1]", True),
    ],
)
def test_bands_are_found_by_name(bands: tuple[str, ...], red: str, nir: str, colors: str, is_guessed: bool) -> None:
    values = values_of(facts(*bands), "band")
    assert (values["red"], values["nir"], values["colors"]) == (red, nir, colors)
    assert values["bands"].startswith("guessed") == is_guessed


def test_the_size_of_pixels_is_what_the_file_says() -> None:
    transform = (2.0, 0.0, 0.0, 0.0, -3.0, 0.0)
    assert values_of(facts("b1", crs="EPSG:32633", transform=transform), "band")["spacing"] == "geo"
    assert values_of(facts("b1", transform=transform), "band")["spacing"] == "[3, 2]"
    assert values_of(facts("b1", pixel_size=(0.5, 0.5), pixel_unit="micrometer"), "band")["spacing"] == "geo"
    assert values_of(facts("b1"), "band")["spacing"] == "1"


def test_a_guess_and_what_does_not_fit_are_said(here: Path) -> None:
    assert "guessed: red is band 3" in call("init", "ndvi", "--input", "image=scene.zarr").stderr
    tifffile.imwrite("wide.tif", np.zeros((2, 9, 9), np.int64), photometric="minisblack", planarconfig="separate")
    result = call("init", "moving-average", "--input", "image=wide.tif")
    assert result.exit_code == 0
    assert "moving-average.yaml does not fit yet: " in result.stderr
    assert "allow_inexact" in result.stderr


def test_a_folder_of_dates_is_a_composite(here: Path) -> None:
    Path("a $$ ${B}").mkdir()
    for day in (1, 2, 3):
        tifffile.imwrite(f"a $$ ${{B}}/2024-06-0{day}.tif", np.full((9, 9), day, np.uint16))
    result = call("init", "composite", "--input", "image=a $$ ${B}", "-o", "sub/c$1.yaml")
    assert result.exit_code == 0, result.stderr
    assert "does not fit" not in result.stderr
    assert "over: time" in Path("sub/c$1.yaml").read_text()
    assert call("run", "sub/c$1.yaml", "--workers", "1").exit_code == 0
    assert (zarr.open_array("sub/results/c$1.zarr", path="clear/median", mode="r")[...] == 2).all()
