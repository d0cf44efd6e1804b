"""Levels of a store: made of its pixels whatever the blocks, described, read back, verified, and asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
import zarr_cm

import pipeline
from pipeline import api
from pipeline.model.errors import InputError, OutputError, PipelineError, RunInterrupted
from pipeline.output import levels
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.verbs.demo.synth import synth

SHAPE = (1301, 1100)


@pytest.fixture
def scene(tmp_path: Path) -> str:
    path = tmp_path / "scene.zarr"
    synth(str(path), size=SHAPE, bands=2, dtype="uint16")
    return str(path)


def document(scene: str, path: Path, **output: Any) -> dict[str, Any]:
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean", "max"]}
    chosen = {"path": str(path), "pyramid": "auto", "chunks": [125, 300]} | output
    return {"inputs": {"image": scene}, "steps": [step], "output": chosen, "run": {"memory": "1 GiB", "workers": 2}}


def due(values: np.ndarray, level: int) -> np.ndarray:
    """Return the means of (y, x, band) over squares, naively."""
    size = 1 << level
    height, width = (-(-n // size) for n in values.shape[:2])
    padded = np.full((height * size, width * size, values.shape[2]), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    means = np.nanmean(padded.reshape(height, size, width, size, -1), axis=(1, 3))
    return (np.rint(means) if values.dtype.kind in "iu" else means).astype(values.dtype)


@pytest.mark.parametrize("dims", ["y,x,band", "band,y,x"])
@pytest.mark.parametrize("region", [None, {"rows": [7, 1200], "columns": [100, 1001]}])
def test_levels_are_means_of_full_resolution(scene: str, tmp_path: Path, dims: str, region: Any) -> None:
    config = document(scene, tmp_path / "a.zarr", pyramid=3, dims=dims) | ({"region": region} if region else {})
    pipeline.run(config)
    for name in ("mean", "max"):
        whole = zarr.open_array(tmp_path / "a.zarr", path=f"smooth/{name}")[...]
        values = whole if dims == "y,x,band" else np.moveaxis(whole, 0, -1)
        for level in (1, 2, 3):
            array = zarr.open_array(tmp_path / "a.zarr", path=f"smooth/{level}/{name}")
            found = array[...] if dims == "y,x,band" else np.moveaxis(array[...], 0, -1)
            expected = due(values, level)
            if name == "max":
                np.testing.assert_array_equal(found, expected)
            else:  # sums of float32 in another order: float64 holds them to 1e-12
                np.testing.assert_allclose(found, expected, rtol=2e-7)
    assert not (tmp_path / "a.zarr/smooth/4").exists()


def test_no_bit_depends_on_the_layout(scene: str, tmp_path: Path) -> None:
    """The chunks of a level are those of its raster; blocks, workers, halo way and memory are others."""
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=3))
    other = document(scene, tmp_path / "b.zarr", pyramid=3)
    other["run"] = {"memory": "600 MiB", "workers": 1, "halo": "exchange"}
    pipeline.run(other)
    first, second = ({str(p.relative_to(f)): p.read_bytes() for p in f.rglob("c/*/*/*")} for f in folders(tmp_path))
    assert len(first) > 100
    assert first == second


def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / "a.zarr", tmp_path / "b.zarr"]


def test_what_has_no_mean_is_not_averaged(scene: str, tmp_path: Path) -> None:
    steps = [
        {"name": "colours", "op": "palette", "input": "image", "colors": 5},
        {"name": "poster", "op": "quantize", "input": "image", "palette": "colours", "outputs": ["index"]},
    ]
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=2) | {"steps": steps})
    whole, small = (zarr.open_array(tmp_path / "a.zarr", path=f"poster/{name}")[...] for name in ("index", "2/index"))
    np.testing.assert_array_equal(small, whole[::4, ::4])
    layout = attributes(tmp_path / "a.zarr/poster")["multiscales"]["layout"]
    assert [entry.get("resampling_method") for entry in layout] == [None, "nearest", "nearest"]


def attributes(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "zarr.json").read_text())["attributes"])


def test_they_are_described_by_the_convention(scene: str, tmp_path: Path) -> None:
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=2))
    found = attributes(tmp_path / "a.zarr/smooth")
    halved = {"transform": {"scale": [2.0, 2.0]}, "resampling_method": "average"}
    assert found["multiscales"]["layout"] == [
        {"asset": "mean"},
        {"asset": "1/mean", "derived_from": "mean", **halved},
        {"asset": "2/mean", "derived_from": "1/mean", **halved},
        {"asset": "max"},
        {"asset": "1/max", "derived_from": "max", **halved},
        {"asset": "2/max", "derived_from": "1/max", **halved},
    ]
    assert [each["name"] for each in found["zarr_conventions"]] == ["proj", "spatial", "multiscales"]
    whole, small = (xarray.open_zarr(tmp_path / "a.zarr", group=f"smooth{level}") for level in ("", "/2"))
    assert small["mean"].shape == (326, 275, 2)
    np.testing.assert_allclose(small.x[:2], whole.x[0].item() + np.array([1.5, 5.5]) * 10)
    for name in ("smooth", "smooth/1"):
        node = json.loads((tmp_path / "a.zarr" / name / "zarr.json").read_text())
        for convention in (zarr_cm.spatial, zarr_cm.proj, *([zarr_cm.multiscales] if name == "smooth" else [])):
            convention.validate_group_metadata(node)


def test_a_level_is_an_input(scene: str, tmp_path: Path) -> None:
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=2))
    for path, array in ((f"{tmp_path}/a.zarr/smooth/mean", None), (f"{tmp_path}/a.zarr", "smooth/mean")):
        reader = open_raster(path, Choice(array, level=2))
        assert (reader.spec.shape, reader.spec.transform and reader.spec.transform.pixel_size) == (
            (326, 275, 2),
            (40, 40),
        )
        assert reader.describe()["levels"] == 3
        with pytest.raises(InputError, match="mean has levels 0 to 2"):
            open_raster(path, Choice(array, level=3))
    assert open_raster(f"{tmp_path}/a.zarr/smooth/mean", Choice()).describe()["levels"] == 3
    step = {"name": "copy", "op": "select", "bands": [1, 2]}
    entry = {"path": f"{tmp_path}/a.zarr", "array": "smooth/mean", "level": 1}
    pipeline.run({"inputs": {"image": entry}, "steps": [step], "output": {"path": str(tmp_path / "b.zarr")}})
    first, second = (
        zarr.open_array(tmp_path / "a.zarr", path="smooth/1/mean"),
        zarr.open_array(tmp_path / "b.zarr", path="copy/value"),
    )
    np.testing.assert_array_equal(first[...], second[...])


def test_groups_that_are_levels_are_read(tmp_path: Path) -> None:
    """As other writers lay it out: a group for each level, full resolution, too."""
    root = zarr.create_group(tmp_path / "a.zarr")
    for level, side in enumerate((64, 32, 16)):
        group = root.create_group(f"r{level}")
        group.create_array("data", data=np.full((side, side), level, np.uint8), dimension_names=("y", "x"))
    layout = [{"asset": "r0"}, *({"asset": f"r{n}", "derived_from": f"r{n - 1}"} for n in (1, 2))]
    root.update_attributes({"multiscales": {"layout": layout}})
    for level, side in enumerate((64, 32, 16)):
        reader = open_raster(str(tmp_path / "a.zarr"), Choice(level=level))
        out = np.empty((side, side), np.uint8)
        reader.read(reader.spec.region, out)
        assert (out == level).all()


@pytest.mark.parametrize(
    "layout",
    [
        None,
        "mean",
        [None, 3],
        [{"asset": "a", "derived_from": "a"}],
        [{"asset": "../up", "derived_from": "value"}],
        [{"asset": "value"}, {"asset": "b", "derived_from": "value"}, {"asset": "value", "derived_from": "b"}],
    ],
)
def test_a_layout_that_is_none_is_refused(tmp_path: Path, layout: Any) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", attributes={"multiscales": {"layout": layout}})
    root.create_array("value", data=np.zeros((4, 4), np.uint8), dimension_names=("y", "x"))
    with pytest.raises(InputError):
        open_raster(str(tmp_path / "a.zarr/value"), Choice(level=1))


def test_how_many(scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(pyramid: Any, **more: Any) -> int:
        return api.plan(document(scene, tmp_path / "a.zarr", pyramid=pyramid) | more).outputs[0].levels

    assert planned("auto") == 0  # fewer than 4096 rows and columns
    assert planned("none") == 0
    assert planned(2) == 2
    with pytest.raises(PipelineError, match="level 3 of smooth/mean is one chunk already; give at most 3, or auto"):
        planned(4)
    monkeypatch.setattr(levels, "LARGE", 1301)
    assert planned("auto") == 3


def test_a_result_without_levels_is_another_one(scene: str, tmp_path: Path) -> None:
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=2))
    assert pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=2), resume=True)["blocks"] == 0
    with pytest.raises(OutputError, match="levels"):
        pipeline.run(document(scene, tmp_path / "a.zarr", pyramid=1), resume=True)
    pipeline.run(document(scene, tmp_path / "a.zarr", pyramid="none"), overwrite=True)
    assert sorted(p.name for p in (tmp_path / "a.zarr/smooth").iterdir() if p.name.isdigit()) == []


def test_too_little_memory_is_refused_before_anything_is_written(scene: str, tmp_path: Path) -> None:
    config = document(scene, tmp_path / "a.zarr", pyramid=1, chunks=[1024, 1024])
    config["run"] = {"memory": "400 MiB", "workers": 2}
    with pytest.raises(PipelineError, match=r"the levels of smooth/mean take .*, the run may use 400.0 MiB"):
        pipeline.run(config)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.zarr"]


def test_a_store_that_was_made_without_levels_has_none_in_its_way(scene: str, tmp_path: Path) -> None:
    """A .tif is made of a store that goes: it needs no levels."""
    config = document(scene, tmp_path / "a.tif", pyramid=2)
    config["steps"][0]["statistics"] = ["mean"]
    assert api.plan(config).outputs[0].levels == 0


@pytest.mark.parametrize("harm", [None, "lost", "changed"])
def test_killed_while_levels_are_made_it_goes_on_from_the_finished_tiles(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str | None
) -> None:
    pipeline.run(document(scene, tmp_path / "whole.zarr", pyramid=3))
    config = document(scene, tmp_path / "a.zarr", pyramid=3)
    real, pieces = levels._Finished.keep, list[Any]()

    def stop(self: Any, place: Any, state: Any) -> None:
        if len(pieces) == 2:
            raise KeyboardInterrupt
        pieces.append(place)
        real(self, place, state)

    monkeypatch.setattr(levels._Finished, "keep", stop)
    with pytest.raises(RunInterrupted, match="--resume continues the run"):
        pipeline.run(config)
    assert not (tmp_path / "a.zarr").exists()
    monkeypatch.setattr(levels._Finished, "keep", real)
    recalled, recall = list[bool](), levels._Finished.recall

    def count(self: Any, place: Any) -> Any:
        part = recall(self, place)
        recalled.append(part is not None)
        return part

    monkeypatch.setattr(levels._Finished, "recall", count)
    if harm:
        lost = next(path for path in sorted(tmp_path.rglob("1/mean/c/*/*/*")) if path.is_file())
        lost.unlink() if harm == "lost" else lost.write_bytes(lost.read_bytes() + b"x")
    facts = pipeline.run(config, resume=True)
    assert facts.blocks == 0
    assert sum(recalled) == (2 if harm is None else 1)
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("c/*/*/*")}
        for folder in (tmp_path / "whole.zarr", tmp_path / "a.zarr")
    )
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "scene.zarr", "whole.zarr"]


@pytest.mark.parametrize("everything", [True, False])
def test_verify_compares_levels(scene: str, tmp_path: Path, everything: bool) -> None:
    output = tmp_path / "a.zarr"
    pipeline.run(document(scene, output, pyramid=3))
    assert api.verify(str(output), everything=everything).agrees
    array = zarr.open_array(output, path="smooth/2/max", mode="r+")
    array[5:, 7] = array[5:, 7] + 1
    facts = api.verify(str(output), everything=everything, samples=40)
    assert [problem for problem in facts.problems if "smooth/max: level 2: " in problem] == list(facts.problems) != []
    shutil.rmtree(output / "smooth/3/mean/c/0")
    assert any(
        "lacks what a finished run has written: smooth/3/mean/c/0" in text for text in api.verify(str(output)).problems
    )
