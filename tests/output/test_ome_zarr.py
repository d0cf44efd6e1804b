"""OME-Zarr images of what a run keeps: pixels, levels, what they say, when they are written, and who reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import pipeline
from pipeline import api
from pipeline.cli.main import main
from pipeline.model.errors import OutputError, PipelineError, RunInterrupted, RunStopped
from pipeline.output.exports import ome_zarr
from pipeline.output.provenance import provenance_of
from pipeline.storage.folder import disk
from pipeline.storage.georeference.ome_format import format_channels, window_of
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.pyramid import plan_walk
from pipeline.storage.zarr import ome
from pipeline.verbs import run as run_module
from pipeline.verbs.load import load
from tests import harness
from tests.georeference import UTM, WKT
from tests.zarr_files import group, pixels

CHANNELS = {"Name": ["DAPI", "GFP", "BF"], "Color": [0x0000FFFF, 0x00FF00FF, 0xFF]}
SHAPE = (3, 150, 211)


def microscope(path: Path, dtype: str = "uint16") -> Path:
    """Write an OME-TIFF of three channels, with pixels of 0.5 x 0.25 micrometres."""
    values = np.random.default_rng(3).integers(0, 200, SHAPE).astype(dtype)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "Channel": CHANNELS}
    tifffile.imwrite(path, values, ome=True, photometric="minisblack", metadata=metadata)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return microscope(tmp_path / "a.ome.tif")


def pipeline_of(source: Path | str, output: Path, *steps: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": str(source)},
        "steps": list(steps),
        "output": {"path": str(output), "chunks": [64, 64], **options},
        "run": {"memory": "600 MiB", "workers": 2},
    }


SMOOTH: dict[str, Any] = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}
SAME: dict[str, Any] = {"name": "same", "op": "select", "input": "image", "bands": [1, 2, 3]}
POSTER: dict[str, Any] = {
    "name": "poster",
    "op": "quantize",
    "input": "same",
    "palette": [[0, 0, 0], [100, 50, 20], [20, 150, 90], [200, 200, 200]],
}


def said(path: Path) -> dict[str, Any]:
    """Return what an image says, 0.5 or 0.4."""
    if (path / "zarr.json").exists():
        return dict(json.loads((path / "zarr.json").read_text())["attributes"]["ome"])
    return dict(json.loads((path / ".zattrs").read_text()))


def level(path: Path | str, number: int) -> tuple[np.ndarray, Any]:
    reader = open_raster(str(path), Choice(level=number))
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    return out, reader.spec


def averaged(values: np.ndarray, nodata: float | None, size: int) -> np.ndarray:
    """Return the naive level of which each pixel stands for size x size: the mean of the valid ones, rounded once."""
    down, across = (-(-n // size) for n in values.shape[1:])
    found = np.empty((values.shape[0], down, across), values.dtype)
    for band, row, column in np.ndindex(found.shape):
        part = values[band, row * size : (row + 1) * size, column * size : (column + 1) * size].astype(np.float64)
        valid = part[~np.isnan(part) & (part != (np.nan if nodata is None else nodata))]
        mean = valid.sum() / valid.size if valid.size else nodata
        found[band, row, column] = np.rint(mean) if values.dtype.kind != "f" else mean
    return found


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_an_image_and_its_levels(tmp_path: Path, image: Path, version: str) -> None:
    target = tmp_path / "y.ome.zarr"
    api.convert(str(image), str(target), output={"chunks": "[64, 64]", "ome_version": version})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "y.ome.zarr"]
    assert (target / "zarr.json").exists() == (version == "0.5")
    values = tifffile.imread(image)
    for number, (height, width) in enumerate([(150, 211), (75, 106), (38, 53)]):
        found, spec = level(target, number)
        assert spec.shape == (3, height, width)
        assert harness.same_bits(found, values if number == 0 else averaged(values, None, 2**number))
        assert spec.transform == (0.25 * 2**number, 0, 0, 0, 0.5 * 2**number, 0)
        assert (spec.unit, spec.bands, spec.dims) == ("micrometer", ("DAPI", "GFP", "BF"), ("band", "y", "x"))
    assert open_raster(str(target)).describe()["levels"] == 3
    scales = said(target)["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert scales["datasets"][1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1, 1, 0.5]},
        {"type": "translation", "translation": [0, 0.25, 0.125]},
    ]
    assert (scales["name"], scales["type"]) == ("y", "average")
    channels = said(target)["omero"]["channels"]
    assert [channel["color"] for channel in channels] == ["0000FF", "00FF00", "0000FF"]  # black shows nothing
    smallest, _ = level(target, 2)
    for band, channel in enumerate(channels):
        window = channel["window"]
        assert (window["min"], window["max"]) == (values[band].min(), values[band].max())
        ends = np.percentile(smallest[band], [1, 99], method="nearest")
        assert [window["start"], window["end"]] == ends.tolist()


def test_what_is_nodata_has_no_part_in_levels(tmp_path: Path) -> None:
    values = pixels((2, 100, 90), "float32")
    values[0, :70, :33] = -1
    values[1, 3, 5] = np.nan
    attributes = {"_FillValue": -1.0}
    source = group(tmp_path / "a.zarr", image=(("band", "y", "x"), values, attributes), band=(("band",), ["r", "g"]))
    api.convert(source, str(tmp_path / "y.ome.zarr"), output={"chunks": "[32, 32]"})
    for number in range(3):
        found, spec = level(tmp_path / "y.ome.zarr", number)
        assert spec.nodata == -1
        assert harness.same_bits(found, averaged(values, -1, 2**number) if number else values)
    window = said(tmp_path / "y.ome.zarr")["omero"]["channels"][0]["window"]
    assert window["min"] == values[0][values[0] >= 0].min()


@pytest.mark.parametrize("dims", ["y,x,band", "band,y,x"])
def test_the_same_bits_for_every_layout(tmp_path: Path, image: Path, dims: str) -> None:
    """Blocks, the store's order and chunks, memory and workers: the images do not know them."""
    files: list[dict[str, Any]] = []
    for number, run in enumerate([{"memory": "400 MiB", "workers": 1}, {"memory": "2 GiB", "workers": 3}]):
        folder = tmp_path / str(number)
        document = pipeline_of(image, folder / "out.zarr", SMOOTH, dims=dims, ome_zarr=str(folder / "images"))
        document["output"]["chunks"] = "auto"
        api.run({**document, "run": run})
        files.append(harness.stored_files(folder / "images"))
    assert files[0].keys() == files[1].keys()
    for name, found in files[0].items():
        if name.endswith("zarr.json"):
            for each in (found, files[1][name]):
                each.get("attributes", {}).pop("rasterpipe", None)
        assert found == files[1][name], name


def test_labels_lie_in_the_image_that_they_were_made_of(tmp_path: Path, image: Path) -> None:
    document = pipeline_of(image, tmp_path / "out.zarr", SAME, POSTER, SMOOTH, ome_zarr=str(tmp_path / "images"))
    document["output"]["keep"] = ["same", "poster", "smooth"]
    facts = api.run(document)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "same.ome.zarr",
        "smooth_mean.ome.zarr",
    ]
    assert [file.labels for file in facts.ome_zarrs] == [("poster/index",), ()]
    labels = tmp_path / "images" / "same.ome.zarr" / "labels"
    listed = json.loads((labels / "zarr.json").read_text())["attributes"]["ome"]
    assert listed == {"version": "0.5", "labels": ["poster_index"]}
    index = harness.read(tmp_path / "out.zarr", "poster/index")
    path = labels / "poster_index"
    assert said(path)["image-label"] == {"source": {"image": "../../"}}
    assert "omero" not in said(path)
    assert len(said(path)["multiscales"][0]["datasets"]) == 3
    for number in range(3):
        found, spec = level(path, number)
        assert harness.same_bits(found, index.reshape(SHAPE[1:])[:: 2**number, :: 2**number])
        assert spec.transform == (0.25 * 2**number, 0, 0, 0, 0.5 * 2**number, 0)
    # labels are never averaged, whatever is asked for
    document["output"] |= {"ome_zarr": str(tmp_path / "max"), "resampling": "max", "path": str(tmp_path / "max.zarr")}
    api.run(document)
    found, _ = level(tmp_path / "max" / "same.ome.zarr" / "labels" / "poster_index", 1)
    assert harness.same_bits(found, index.reshape(SHAPE[1:])[::2, ::2])
    document["output"]["resampling"] = "auto"
    # of what is not kept, indices are an image of their own
    document["output"] |= {"keep": ["poster"], "path": str(tmp_path / "poster.ome.zarr"), "ome_zarr": None}
    document["output"]["ome_version"] = 0.4  # as YAML has it without quotes
    api.run(document)
    found, _ = level(tmp_path / "poster.ome.zarr", 1)
    assert harness.same_bits(found[0], index.reshape(SHAPE[1:])[::2, ::2])


def test_a_raster_on_a_map_keeps_its_place(tmp_path: Path) -> None:
    attributes = {"spatial:transform": list(UTM), "proj:wkt2": WKT}
    source = group(tmp_path / "a.zarr", attributes, image=(("y", "x"), pixels((101, 90), "uint8")))
    document = pipeline_of(source, tmp_path / "y.ome.zarr", {**SAME, "bands": [1]}, chunks=[32, 32])
    document["region"] = {"rows": [10, 101], "columns": [5, 90]}
    api.run(document)
    axes = said(tmp_path / "y.ome.zarr")["multiscales"][0]["axes"]
    assert [axis.get("unit") for axis in axes] == [None, "meter", "meter"]
    scales = said(tmp_path / "y.ome.zarr")["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert scales == [{"type": "scale", "scale": [1, 20, 20]}, {"type": "translation", "translation": [0, 5, 5]}]
    for number in range(3):
        _, spec = level(tmp_path / "y.ome.zarr", number)
        size = 10 * 2**number
        assert spec.transform == (size, 0, 500050, 0, -size, 4999900)
        assert (spec.crs, spec.unit) == (WKT, None)
    (channel,) = said(tmp_path / "y.ome.zarr")["omero"]["channels"]
    assert channel["color"] == "FFFFFF"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
def test_there_and_back(tmp_path: Path, dtype: str) -> None:
    """From a TIFF to an image and back, with the names, the unit and every bit."""
    source = microscope(tmp_path / "a.ome.tif", dtype)
    api.convert(str(source), str(tmp_path / "b.ome.zarr"))
    api.convert(str(tmp_path / "b.ome.zarr"), str(tmp_path / "c.tif"))
    assert harness.same_bits(tifffile.imread(tmp_path / "c.tif"), tifffile.imread(source))
    for path in ("b.ome.zarr", "c.tif"):
        facts = api.info(str(tmp_path / path))
        assert facts["bands"] == ["DAPI", "GFP", "BF"]
        assert (facts["pixel_size"], facts["pixel_unit"]) == ([0.5, 0.25], "micrometer")


def test_shards_are_those_of_the_store(tmp_path: Path, image: Path) -> None:
    document = pipeline_of(image, tmp_path / "y.ome.zarr", SMOOTH, chunks=[32, 32], shards=[64, 96])
    api.run(document)
    array = zarr.open_array(tmp_path / "y.ome.zarr", path="0")
    assert (array.chunks, array.shards) == ((1, 32, 32), (1, 64, 96))
    found, _ = level(tmp_path / "y.ome.zarr", 1)
    assert harness.same_bits(found, averaged(level(tmp_path / "y.ome.zarr", 0)[0], None, 2))


# --- windows and colours -----------------------------------------------------------------------------------------


def test_windows_are_finite_and_not_empty() -> None:
    inf, nan = float("inf"), float("nan")
    assert window_of((-inf, inf), (2.0, 5.0)) == (2.0, 5.0, 2.0, 5.0)
    assert window_of((nan, nan), (nan, nan)) == (0, 1, 0, 1)
    low, high = window_of((1e300, 1e300), (1e300, 1e300))[:2]
    assert low < high


def test_colours_that_nobody_says(tmp_path: Path) -> None:
    source = group(tmp_path / "a.zarr", image=(("band", "y", "x"), pixels((8, 9, 9), "uint8")))
    spec = open_raster(source).spec
    channels = format_channels(spec, [window_of((0, 9), (1, 8))] * 8)["channels"]
    assert [channel["color"] for channel in channels[:3]] == ["FF0000", "00FF00", "0000FF"]
    assert channels[6]["color"] == "FF0000"
    assert [channel["active"] for channel in channels] == [True] * 3 + [False] * 5


# --- begun, stopped, replaced ------------------------------------------------------------------------------------


def test_folders_of_others_are_never_replaced(tmp_path: Path, image: Path) -> None:
    theirs = tmp_path / "images" / "smooth_mean.ome.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {}}}')
    document = pipeline_of(image, tmp_path / "out.zarr", SMOOTH, ome_zarr=str(tmp_path / "images"))
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"smooth_mean\.ome\.zarr: exists and is not an output of rasterpipe"):
            pipeline.run(document, **flags)
    (theirs / "zarr.json").unlink()
    theirs.rmdir()
    theirs.write_text("mine")
    with pytest.raises(OutputError, match=r"exists and is not an output of rasterpipe"):
        pipeline.run(document, overwrite=True)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_resume_and_overwrite(tmp_path: Path, image: Path, version: str) -> None:
    def with_size(size: int) -> dict[str, Any]:
        return pipeline_of(image, tmp_path / "b.ome.zarr", {**SMOOTH, "size": size}, ome_version=version)

    pipeline.run(with_size(3))
    record = provenance_of(tmp_path / "b.ome.zarr")
    assert record is not None
    assert (record["complete"], record["raster"]) == (True, "smooth/mean")
    assert pipeline.run(with_size(3), resume=True)["blocks"] == 0
    assert provenance_of(tmp_path / "b.ome.zarr") == record
    with pytest.raises(OutputError, match=r"exists; --overwrite replaces it"):
        pipeline.run(with_size(5))
    with pytest.raises(OutputError, match=r"of another plan: steps\[0\]\.size\[0\] was 3, is 5"):
        pipeline.run(with_size(5), resume=True)
    pipeline.run(with_size(5), overwrite=True)
    assert (provenance_of(tmp_path / "b.ome.zarr") or {})["run_id"] != record["run_id"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "b.ome.zarr"]


def test_images_that_lack_are_written_of_the_store(tmp_path: Path, image: Path) -> None:
    document = pipeline_of(image, tmp_path / "out.zarr", SMOOTH)
    api.run(document)
    document["output"] |= {"ome_zarr": str(tmp_path / "images"), "geotiff": str(tmp_path / "maps")}
    assert api.run(document, resume=True).blocks == 0
    assert (tmp_path / "maps" / "smooth_mean.tif").exists()
    document["output"]["ome_version"] = "0.4"
    assert api.run(document, resume=True).blocks == 0
    assert (tmp_path / "images" / "smooth_mean.ome.zarr" / ".zattrs").exists()
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["smooth_mean.ome.zarr"]


@pytest.mark.parametrize("single", [True, False])
def test_what_stops_the_writing_loses_nothing(
    tmp_path: Path, image: Path, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {} if single else {"ome_zarr": str(tmp_path)}
    document = pipeline_of(image, tmp_path / ("y.ome.zarr" if single else "y.zarr"), SMOOTH, **options)
    target = tmp_path / ("y.ome.zarr" if single else "smooth_mean.ome.zarr")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ome_zarr, "finish_group", fail)
    with pytest.raises(RunStopped, match=r"No space left on device; the store .* is complete"):
        pipeline.run(document)
    monkeypatch.undo()
    assert not target.exists()
    assert not list(tmp_path.rglob("*partial*"))
    assert pipeline.run(document, resume=True)["blocks"] == 0
    assert level(target, 0)[1].shape == SHAPE
    assert not list(tmp_path.glob("*.work"))


def die(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["tiles", "renames", "store"])
def test_what_was_killed_is_never_taken_for_whole(
    tmp_path: Path, image: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The death of the process while tiles are written, between the renames of an older image, and before the end."""
    document = pipeline_of(image, tmp_path / "y.ome.zarr", SMOOTH)
    if when == "renames":
        pipeline.run({**document, "steps": [{**SMOOTH, "size": 5}]})
    with monkeypatch.context() as patch:
        if when == "tiles":
            patch.setattr(ome, "windows_of", die)
            patch.setattr(disk.shutil, "rmtree", lambda *_, **__: None)
        elif when == "renames":
            real = disk.os.rename
            patch.setattr(disk.os, "rename", lambda a, b: die() if str(a).endswith(".partial") else real(a, b))
            patch.setattr(disk.shutil, "rmtree", lambda *_, **__: None)
        else:
            patch.setattr(run_module, "remove_store", die)
        with pytest.raises(RunInterrupted):
            pipeline.run(document, overwrite=when == "renames")
    assert (tmp_path / "y.ome.zarr").exists() == (when == "store")
    assert pipeline.run(document, resume=True)["blocks"] == 0
    assert level(tmp_path / "y.ome.zarr", 0)[1].shape == SHAPE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "y.ome.zarr"]


def test_an_image_holds_one_raster(tmp_path: Path, image: Path) -> None:
    two = {**SMOOTH, "statistics": ["min", "max"]}
    with pytest.raises(
        PipelineError, match=r"a \.ome\.zarr holds one raster, and 2 are kept \(smooth/min, smooth/max\)"
    ):
        pipeline.run(pipeline_of(image, tmp_path / "b.ome.zarr", two))
    (note,) = api.plan(pipeline_of(image, tmp_path / "b.zarr", SMOOTH, ome_version="0.4")).notes
    assert note == "output.ome_version: no OME-Zarr image is written; `ome_zarr: FOLDER/` writes them"
    with pytest.raises(PipelineError, match=r"GeoTIFFs and OME-Zarr images are written to folders"):
        pipeline.run({**pipeline_of(image, tmp_path / "b", SMOOTH), "output": {"path": "s3://bucket/b.ome.zarr"}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif"]


def test_an_input_is_never_the_output(tmp_path: Path, image: Path) -> None:
    api.convert(str(image), str(tmp_path / "b.ome.zarr"))
    before = harness.stored_files(tmp_path / "b.ome.zarr")
    with pytest.raises(OutputError, match="is also an input"):
        pipeline.run(pipeline_of(tmp_path / "b.ome.zarr", tmp_path / "b.ome.zarr", SMOOTH), overwrite=True)
    assert harness.stored_files(tmp_path / "b.ome.zarr") == before


def test_of_a_store_that_goes_nothing_is_said(tmp_path: Path, image: Path) -> None:
    """What GDAL cannot open of it, for one."""
    notes = {
        suffix: api.plan(pipeline_of(image, tmp_path / f"b{suffix}", SMOOTH, dims="y,x,band")).notes
        for suffix in (".zarr", ".ome.zarr")
    }
    assert any("GDAL" in note for note in notes[".zarr"])
    assert not any("GDAL" in note for note in notes[".ome.zarr"])


def test_an_image_publishes_no_absolute_paths(tmp_path: Path, image: Path) -> None:
    api.convert(str(image), str(tmp_path / "b.ome.zarr"))
    assert str(tmp_path) not in (tmp_path / "b.ome.zarr" / "zarr.json").read_text()


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("dims", ["y,x,band", "band,y,x"])
def test_verify(tmp_path: Path, image: Path, version: str, dims: str) -> None:
    """All of an image is compared: pixels of full resolution, levels, windows, labels and what else it says."""
    target = tmp_path / "y.ome.zarr"
    document = pipeline_of(image, target, SAME, POSTER, SMOOTH, ome_version=version, dims=dims)
    document["output"]["keep"] = ["same", "poster"]
    document["steps"] = document["steps"][:2]
    api.run(document)
    for options in ({"samples": 3}, {"everything": True}):
        assert api.verify(str(target), **options).problems == ()

    def problem(**options: Any) -> str:
        return "; ".join(api.verify(str(target), **options).problems)

    for number, words in ((0, "same/value: 1 pixel differs"), (2, "y.ome.zarr: level 2: a tile differs")):
        array = zarr.open_array(target, path=str(number), mode="r+")
        before = int(array[1, 5, 6])
        array[1, 5, 6] = before ^ 1
        assert words in problem(everything=True)
        array[1, 5, 6] = before
    array = zarr.open_array(target, path="labels/poster_index/1", mode="r+")
    before = int(array[5, 6])
    array[5, 6] = before ^ 1
    assert "poster_index: level 1: a tile differs" in problem(everything=True)
    array[5, 6] = before
    name = "zarr.json" if version == "0.5" else ".zattrs"
    text = (target / name).read_text()
    window = said(target)["omero"]["channels"][0]["window"]
    (target / name).write_text(text.replace(f'"start": {window["start"]},', '"start": 77,'))
    assert problem(samples=2) == ""  # as it says
    assert "the window of channel 0.start is 77" in problem(everything=True)
    (target / name).write_text(text.replace('"GFP"', '"RFP"'))
    assert "omero.channels.1.label is" in problem(samples=1)
    (target / name).write_text(text)
    file = next(path for path in (target / "1").rglob("*") if path.is_file() and path.name[0] not in "z.")
    file.unlink()
    assert "lacks what a finished run has written: 1/" in problem(samples=1)


def test_convert_on_the_command_line(tmp_path: Path, image: Path) -> None:
    target = str(tmp_path / "b.ome.zarr")
    done = CliRunner().invoke(main, ["convert", str(image), target, "--ome-version", "0.4", "--json", "-q"])
    assert done.exit_code == 0, done.stderr
    (file,) = json.loads(done.stdout)["ome_zarrs"]
    assert (file["path"], file["labels"]) == (target, [])
    assert said(Path(target))["multiscales"][0]["version"] == "0.4"
    wrong = CliRunner().invoke(main, ["convert", str(image), str(tmp_path / "c.ome.zarr"), "--ome-version", "0.3"])
    assert wrong.exit_code == 3
    assert "--ome-version 0.3" in wrong.stderr


# --- other readers -----------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path, image: Path) -> dict[str, Path]:
    """An image with labels of each version."""
    found = {}
    for version in ("0.5", "0.4"):
        document = pipeline_of(image, tmp_path / f"{version}.ome.zarr", SAME, POSTER, ome_version=version)
        document["output"]["keep"] = ["same", "poster"]
        api.run(document)
        found[version] = tmp_path / f"{version}.ome.zarr"
    return found


def test_images_are_valid(images: dict[str, Path]) -> None:
    models = pytest.importorskip("ome_zarr_models")
    for version, path in images.items():
        module = f"ome_zarr_models.v{version.replace('.', '')}"
        found = models.open_ome_zarr(zarr.open_group(path, mode="r"))
        assert type(found).__module__.startswith(module)
        assert type(found).__name__ == "Image"
        label = models.open_ome_zarr(zarr.open_group(path / "labels" / "poster_index", mode="r"))
        assert type(label).__name__ == "ImageLabel"


def test_ome_zarr_reads_images(images: dict[str, Path], image: Path) -> None:
    reader = pytest.importorskip("ome_zarr.reader")
    from ome_zarr.io import parse_url

    for path in images.values():
        nodes = {str(node.zarr.basename()): node for node in reader.Reader(parse_url(str(path)))()}
        shown = nodes[path.name]
        assert [level.shape for level in shown.data] == [(3, 150, 211), (3, 75, 106), (3, 38, 53)]
        assert shown.metadata["channel_names"] == ["DAPI", "GFP", "BF"]
        assert harness.same_bits(np.asarray(shown.data[0]), tifffile.imread(image))
        assert "poster_index" in nodes


def test_ngff_zarr_reads_images(images: dict[str, Path], image: Path) -> None:
    ngff_zarr = pytest.importorskip("ngff_zarr")
    for path in images.values():
        found = ngff_zarr.from_ngff_zarr(str(path))
        assert [(each.scale["y"], each.scale["x"]) for each in found.images] == [(0.5, 0.25), (1, 0.5), (2, 1)]
        assert [each.translation["y"] for each in found.images] == [0, 0.25, 0.75]
        assert found.images[0].axes_units["y"] == "micrometer"
        assert harness.same_bits(np.asarray(found.images[0].data), tifffile.imread(image))


@pytest.mark.parametrize(
    "values",
    [
        pixels((1, 300), "float32"),
        pixels((1, 1), "uint8"),
        np.full((70, 90), np.nan, "float32"),
        np.where(pixels((70, 90)) > 50, np.inf, -np.inf),
        np.full((70, 90, 2), 2**64 - 1, "uint64"),
    ],
    ids=["a row", "a pixel", "nothing valid", "infinities", "large integers"],
)
@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_odd_rasters(tmp_path: Path, values: np.ndarray, version: str) -> None:
    source = group(tmp_path / "a.zarr", image=(("y", "x", "band")[: values.ndim], values))
    target = tmp_path / "b.ome.zarr"
    api.convert(source, str(target), output={"chunks": "[32, 32]", "ome_version": version})
    planes = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[np.newaxis]
    assert harness.same_bits(level(target, 0)[0], np.ascontiguousarray(planes))
    for channel in said(target)["omero"]["channels"]:
        window = channel["window"]
        assert -np.inf < window["min"] < window["max"] < np.inf
        assert -np.inf < window["start"] < window["end"] < np.inf
    assert api.verify(str(target), everything=True).agrees


def test_bands_are_read_some_at_a_time_where_all_take_too_much(tmp_path: Path) -> None:
    """Of chunks that hold all bands in each pixel; and no more memory is asked for than there is."""
    values = pixels((70, 600, 24), "float64")
    source = group(tmp_path / "a.zarr", image=(("y", "x", "band"), values))
    document = pipeline_of(source, tmp_path / "b.ome.zarr", {**SAME, "bands": [*range(1, 25)]}, dims="y,x,band")
    job = load({**document, "run": {"memory": "370 MiB", "workers": 2}})
    (file,) = ome_zarr.OmeZarrs().rasters(job)
    ((_, image),) = ome_zarr.images_of(job, file)
    small = replace(image, walk=plan_walk(image.pyramid, (64, 64), 2, 3 * 2**20))
    assert len(small.walk.groups) > 1
    attributes = ome.write_image(tmp_path / "c.ome.zarr", small, open_raster(source), lambda: None)
    ome.finish_group(tmp_path / "c.ome.zarr", attributes, "0.5")
    api.run(document)
    for number in range(3):
        assert harness.same_bits(level(tmp_path / "c.ome.zarr", number)[0], level(tmp_path / "b.ome.zarr", number)[0])
    first, second = said(tmp_path / "c.ome.zarr"), said(tmp_path / "b.ome.zarr")
    assert first == second
