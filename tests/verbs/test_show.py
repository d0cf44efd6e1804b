"""`rasterpipe show`: what is drawn of results, and where a picture is not written."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import pipeline
from pipeline.cli.main import main
from pipeline.model.errors import InputError, OutputError, UsageError
from pipeline.picture.legend import Legend
from pipeline.picture.sheet import MARGIN
from pipeline.picture.style import Style
from pipeline.verbs.demo.synth import synth
from pipeline.verbs.rasters import find_rasters


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result of several rasters and levels, a TIFF, and an array."""
    folder = tmp_path_factory.mktemp("show")
    synth(folder / "scene.zarr", size=(300, 200), bands=2, dtype="uint16", seed=1)
    document = {
        "inputs": {"image": str(folder / "scene.zarr")},
        "steps": [
            {"name": "smooth", "op": "window", "input": "image", "size": 3},
            {"name": "kinds", "op": "calc", "input": "image", "expression": "where(b1 > 500, 1, 2)"},
        ],
        "output": {"path": str(folder / "out.zarr"), "pyramid": 1, "chunks": [64, 64]},
    }
    pipeline.run(document)
    tifffile.imwrite(folder / "photo.tif", np.random.default_rng(2).integers(0, 255, (40, 60, 3)).astype("u1"))
    return folder


def test_all_rasters_of_a_result(place: Path) -> None:
    facts = pipeline.show(place / "out.zarr", place / "all.png")
    assert facts.rasters == ("kinds/value", "smooth/mean")
    image = imagecodecs.png_decode((place / "all.png").read_bytes())
    assert facts.size == image.shape[:2]
    again = pipeline.show([place / "out.zarr"], place / "new" / "all.png")
    assert Path(again.path).read_bytes() == (place / "all.png").read_bytes()


def test_pixels_are_those_of_the_raster(place: Path) -> None:
    """A photograph of 40 x 60, each of its pixels 5 x 5 times, untouched."""
    pipeline.show(place / "photo.tif", place / "photo.png", size=300)
    image = imagecodecs.png_decode((place / "photo.png").read_bytes())
    photo = np.repeat(np.repeat(tifffile.imread(place / "photo.tif"), 5, axis=0), 5, axis=1)
    windows = [top for top in range(image.shape[0] - 200) if (image[top, MARGIN + 1 : MARGIN + 301] == photo[0]).all()]
    assert windows[0] > MARGIN
    np.testing.assert_array_equal(image[windows[0] : windows[0] + 200, MARGIN + 1 : MARGIN + 301], photo)


def test_what_is_meant(place: Path) -> None:
    def names(*paths: str, **chosen: object) -> list[str]:
        return [each.name for each in find_rasters([str(place / path) for path in paths], chosen)]

    assert names("out.zarr/smooth/mean") == ["smooth/mean"]
    assert names("out.zarr", array="smooth/mean") == ["smooth/mean"]
    assert names("photo.tif", "scene.zarr") == ["photo", "scene"]
    assert names("out.zarr/smooth/mean", "out.zarr/smooth/mean")[0].endswith(":smooth/mean")
    image = str(place / "photo.ome.zarr")
    pipeline.convert(place / "photo.tif", image)
    (found,) = find_rasters([image])
    assert found.name == "photo"
    (level,) = find_rasters([str(place / "out.zarr")], {"array": "smooth/mean", "level": 1})
    assert level.source.full.spec.height == 150


def test_images_and_slices(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tifffile.TiffWriter(place / "several.tif") as file:
        for size in (20, 30):
            file.write(np.zeros((size, size), "u1"))
    pipeline.show(place / "several.tif", place / "several.png", quiet=False)
    assert "note: several: " in capsys.readouterr().err  # that it holds another image
    (second,) = find_rasters([str(place / "several.tif")], {"series": 1})
    assert (second.name, second.source.full.spec.height) == ("several 1", 30)
    stack = zarr.create_array(
        str(place / "stack.zarr"), shape=(3, 8, 9), chunks=(1, 8, 9), dtype="u1", dimension_names=("time", "y", "x")
    )
    stack[...] = 1
    (found,) = find_rasters([str(place / "stack.zarr")])
    assert found.source.full.spec.num_bands == 3


def test_refusals(place: Path) -> None:
    result = place / "out.zarr" / "smooth" / "mean"
    with pytest.raises(OutputError, match=r"x\.jpg: a picture is a PNG; give a name that ends in \.png"):
        pipeline.show(result, place / "x.jpg")
    with pytest.raises(OutputError, match="lies inside"):
        pipeline.show(result, place / "out.zarr" / "x.png")
    with pytest.raises(UsageError, match="--size must be from 50 to 2000 pixels, got 9"):
        pipeline.show(result, place / "x.png", size=9)
    with pytest.raises(InputError, match="no such file"):
        pipeline.show(place / "away.zarr", place / "x.png")
    (place / "mine.png").write_text("my own notes")
    with pytest.raises(OutputError, match="exists and is not a PNG"):
        pipeline.show(result, place / "mine.png", overwrite=True)
    pipeline.show(result, place / "twice.png")
    with pytest.raises(OutputError, match=r"twice\.png: exists; --overwrite replaces it"):
        pipeline.show(result, place / "twice.png")
    pipeline.show(result, place / "twice.png", overwrite=True)


def test_many_rasters(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = zarr.create_group(place / "many.zarr")
    for number in range(18):
        array = root.create_array(f"a{number:02}", shape=(4, 4), dtype="u1", dimension_names=("y", "x"))
        array[...] = number
    facts = pipeline.show(place / "many.zarr", place / "many.png", quiet=False)
    assert facts.not_drawn == ("a16", "a17")
    assert "room for 16 rasters; not drawn: a16, a17; name those that you want" in capsys.readouterr().err


def test_the_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = CliRunner().invoke(main, ["show", "out.zarr", "photo.tif", "-o", "command.png", "--json"])
    facts = json.loads(done.stdout)
    assert (facts["path"], facts["rasters"]) == ("command.png", ["kinds/value", "smooth/mean", "photo"])
    plain = CliRunner().invoke(main, ["show", "out.zarr", "photo.tif", "-o", "one.png"])
    assert plain.stdout == f"one.png: 3 rasters, {facts['size'][1]} x {facts['size'][0]} pixels\n"
    assert CliRunner().invoke(main, ["show", "away.tif", "-o", "two.png"]).exit_code == 4


def test_levels_of_every_format(tmp_path: Path) -> None:
    """A store, a GeoTIFF and an OME-Zarr image give what they have between full resolution and the step."""
    synth(tmp_path / "scene.zarr", size=(1100, 700), bands=1, dtype="uint16", seed=4)
    for target in ("out.zarr", "out.tif", "out.ome.zarr"):
        output = {"pyramid": "1", "chunks": "[256, 256]"} if target == "out.zarr" else {}
        pipeline.convert(tmp_path / "scene.zarr", tmp_path / target, output=output)
        (found,) = find_rasters([str(tmp_path / target)])
        factor, level = found.source.level_for(2)
        assert (factor, level.spec.height, level.spec.width) == (2, 550, 350), target
        stored = np.empty(level.spec.shape, np.uint16)
        level.read(level.spec.region, stored)
        pixels = found.source.pixels(np.arange(0, 1100, 2), np.arange(0, 700, 2), [0], 2)
        np.testing.assert_array_equal(pixels[..., 0], stored.reshape(550, 350))


def test_scaled_values_are_told_as_their_unit_has_them(tmp_path: Path) -> None:
    """The colour bar of a raster that stores centimetres and says so in metres."""
    attributes = {"scale_factor": 0.01, "add_offset": -5.0, "units": "m"}
    array = zarr.create_array(
        str(tmp_path / "in.zarr"), shape=(9, 9), dtype="i2", attributes=attributes, dimension_names=("y", "x")
    )
    array[...] = np.arange(81).reshape(9, 9)
    (found,) = find_rasters([str(tmp_path / "in.zarr")])
    style = Style("sequential", limits=((0.0, 80.0),))
    legend = Legend(found.source.full.spec, [0], style, np.zeros((1, 1, 1), "i2"), found.source.scale_of(0))
    assert legend.ticks == ["-5", "-4.6", "-4.2 m"]


def test_a_raster_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    """Of a raster without levels every k-th pixel is drawn, those between are not held."""
    array = zarr.create_array(
        str(tmp_path / "large.zarr"), shape=(6000, 6000), chunks=(500, 500), dtype="u1", dimension_names=("y", "x")
    )
    array[:500, :500] = 9
    (found,) = find_rasters([str(tmp_path / "large.zarr")])
    rows = np.arange(0, 6000, 6)
    values = found.source.pixels(rows, rows, [0], 6)
    assert values.shape == (1000, 1000, 1)
    assert (values == 9).sum() == 84 * 84
    assert Style("categorical").paint(values).shape == (1000, 1000, 3)
