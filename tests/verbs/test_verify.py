"""`verify`: what a run wrote agrees, by whatever layout it is computed again; what is wrong with an output is found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner, Result

import pipeline
from pipeline import api
from pipeline.cli.main import main
from pipeline.execution import partials
from pipeline.model.errors import InputError, OutputError, PipelineError
from pipeline.operations.window import Window
from pipeline.output.provenance import hash_parts
from pipeline.storage.zarr.store import root_attributes
from pipeline.verbs import recompute as recomputation
from tests import harness
from tests.georeference import UTM
from tests.zarr_files import group

HEIGHT, WIDTH = 90, 110
STEPS: list[dict[str, Any]] = [
    {"name": "smooth", "op": "window", "input": "image", "size": 5, "statistics": ["mean", "std"]},
    {"name": "bend", "op": "hessian", "input": "smooth/mean"},
    {"name": "around", "op": "window", "input": "smooth/mean", "size": 3, "boundary": "wrap", "statistics": ["max"]},
    {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "statistics": ["mean"]},
]
STEPS[-1]["recolor"] = ["mean"]
KEEP = ["smooth", "bend", "around", "zones"]

Config = dict[str, Any]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    values = np.random.default_rng(5).integers(0, 4000, (HEIGHT, WIDTH, 2), dtype=np.uint16)
    source = harness.store(harness.Raster(values, ("y", "x", "band"), 7, (40, 40, 2)), tmp_path / "scene.zarr")
    return {
        "inputs": {"image": source, "labels": f"{source}{harness.LABELS}"},
        "steps": STEPS,
        "output": {"path": str(tmp_path / "result.zarr"), "keep": KEEP, "chunks": [40, 40]},
        "run": {"workers": 2},
    }


@pytest.fixture
def output(config: Config) -> Path:
    """A finished output."""
    api.run(config)
    return Path(config["output"]["path"])


@pytest.fixture
def simple(config: Config) -> Path:
    """A finished output of one step."""
    del config["inputs"]["labels"]
    api.run({**config, "steps": STEPS[:1], "output": {**config["output"], "keep": ["smooth"]}})
    return Path(config["output"]["path"])


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"]["rasterpipe"])
    (path / "zarr.json").write_text(json.dumps(metadata))


def check(output: Path, **options: Any) -> dict[str, Any]:
    return api.verify(output, **{"seed": 1, **options})


# --- what agrees -----------------------------------------------------------------------------------------------


def test_regions_agree(output: Path) -> None:
    before = harness.stored_files(output)
    facts = check(output)
    assert (facts["agrees"], facts["problems"], facts["differing_pixels"]) == (True, [], 0)
    assert 0 < facts["pixels_compared"] < 8 * facts["pixels"]
    assert facts["pixels"] == HEIGHT * WIDTH * 7
    assert facts["plan_hash"] == (root_attributes(str(output)) or {})["plan_hash"]
    assert harness.stored_files(output) == before
    assert sorted(p.name for p in output.parent.iterdir()) == ["result.zarr", "scene.zarr", "scene.zarr-labels.zarr"]


def test_all_agrees(output: Path) -> None:
    facts = check(output, everything=True)
    assert facts["agrees"]
    assert facts["pixels_compared"] == facts["pixels"]


def test_tables_that_lie_on_the_disk_agree(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "stored_bytes", lambda folders: 2**60)  # all are taken for large
    assert check(output, everything=True)["agrees"]


@pytest.mark.parametrize(
    "changes",
    [
        {"region": {"rows": [13, 77], "columns": [5, 100]}},
        {"output": {"shards": [80, 80], "chunks": [40, 40]}},
        {"output": {"dims": "band,y,x", "codec": "small"}},
    ],
    ids=["region", "shards", "dims"],
)
@pytest.mark.parametrize("everything", [False, True])
def test_outputs_of_all_kinds_agree(changes: Any, everything: bool, config: Config) -> None:
    whole = {**config, **changes, "output": {**config["output"], **changes.get("output", {})}}
    api.run(whole)
    facts = check(Path(config["output"]["path"]), everything=everything, samples=4)
    assert facts["agrees"], facts["problems"]
    rows, columns = changes.get("region", {"rows": [0, HEIGHT], "columns": [0, WIDTH]}).values()
    assert facts["pixels"] == (rows[1] - rows[0]) * (columns[1] - columns[0]) * 7


def test_an_output_of_a_tiff_that_was_moved_agrees(tmp_path: Path) -> None:
    values = np.random.default_rng(5).integers(0, 4000, (HEIGHT, WIDTH), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "scene.tif", values, tile=(32, 32))
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}
    api.run(harness.document(str(tmp_path / "scene.tif"), [step], tmp_path / "result.zarr"))
    shutil.move(tmp_path / "result.zarr", tmp_path / "moved.zarr")
    assert check(tmp_path / "moved.zarr")["agrees"]


# --- GeoTIFFs --------------------------------------------------------------------------------------------------


@pytest.fixture
def maps(config: Config, tmp_path: Path) -> Path:
    """The GeoTIFFs of a finished run without tables, whose store is gone."""
    del config["inputs"]["labels"]
    api.run(
        {
            **config,
            "steps": STEPS[:-1],
            "output": {**config["output"], "keep": KEEP[:-1], "geotiff": f"{tmp_path}/maps"},
        }
    )
    shutil.rmtree(config["output"]["path"])
    return tmp_path / "maps"


@pytest.mark.parametrize("everything", [False, True])
def test_each_geotiff_of_a_run_agrees(maps: Path, everything: bool) -> None:
    paths = sorted(maps.iterdir())
    assert [path.stem for path in paths] == [
        "around_max",
        "bend_dxx",
        "bend_dxy",
        "bend_dyy",
        "smooth_mean",
        "smooth_std",
    ]
    for path in paths[-2:] if everything else paths:
        facts = check(path, everything=everything, samples=2)
        assert (facts["agrees"], facts["problems"]) == (True, [])
        assert facts["pixels"] == HEIGHT * WIDTH
        assert 0 < facts["pixels_compared"] <= 2 * facts["pixels"]
    assert not list(maps.parent.glob("*.work"))


def test_a_geotiff_that_is_the_output_agrees(config: Config, tmp_path: Path) -> None:
    del config["inputs"]["labels"]
    path = tmp_path / "smooth.tif"
    region = {"rows": [13, 77], "columns": [5, 100]}
    step = {**STEPS[0], "statistics": ["mean"], "bands": [2]}
    api.run({**config, "region": region, "steps": [step], "output": {"path": str(path), "dims": "band,y,x"}})
    moved = path.rename(tmp_path / "moved.tif")
    assert check(moved)["agrees"]
    assert check(moved, everything=True)["pixels_compared"] == (77 - 13) * (100 - 5)


PLAIN: dict[str, Any] = {"metadata": None, "photometric": "minisblack", "planarconfig": "contig"}
TAGS = (33550, 33922, 34735, 34736, 34737, 42112, 42113)


def change_file(path: Path, change: Callable[[np.ndarray], None], **tags: Any) -> None:
    """Write a GeoTIFF again with other pixels, or with other tags: `t42113`, None for one that is left out."""
    with tifffile.TiffFile(path) as tif:
        page, values = tif.pages.first, tif.asarray()
        stored = {code: (page.tags[code].dtype, page.tags.valueof(code)) for code in TAGS if code in page.tags}
        tile, text = page.tile, page.description
    change(values)
    stored |= {int(code[1:]): (stored[int(code[1:])][0], value) for code, value in tags.items()}
    extra = [
        (code, kind, len(value) + isinstance(value, str), value, True)
        for code, (kind, value) in sorted(stored.items())
        if value is not None
    ]
    tifffile.imwrite(path, values, tile=tile[-2:], description=text, extrasamples=[0], extratags=extra, **PLAIN)


def test_a_changed_pixel_of_a_geotiff_is_found(maps: Path) -> None:
    path = maps / "smooth_mean.tif"
    change_file(path, lambda values: values.__setitem__((17, 23, 1), np.nextafter(values[17, 23, 1], 0)))
    facts = check(path, everything=True)
    assert not facts["agrees"]
    assert "smooth/mean: 1 pixel differs" in facts["problems"][0]
    assert "row 17, column 23" in facts["problems"][0]


@pytest.mark.parametrize("value", [None, "5"])
def test_a_changed_nodata_of_a_geotiff_is_found(value: Any, maps: Path) -> None:
    path = maps / "smooth_mean.tif"
    change_file(path, lambda values: None)
    assert check(path)["agrees"]
    change_file(path, lambda values: None, t42113=value)
    assert check(path)["problems"] == [f"{path}: the tag GDAL_NODATA is {value or 'nothing'}, and nan by its plan"]


def test_a_georeference_of_a_geotiff_is_compared(tmp_path: Path) -> None:
    source = group(
        tmp_path / "in.zarr",
        {"proj:code": "EPSG:32633", "spatial:transform": list(UTM)},
        image=(("y", "x"), harness.labels(30, 40).astype("int16")),
    )
    api.run(harness.document(source, [{"name": "smooth", "op": "window", "size": 3}], tmp_path / "out.tif"))
    assert check(tmp_path / "out.tif")["agrees"]
    with tifffile.TiffFile(tmp_path / "out.tif", mode="r+b") as tif:
        tag = tif.pages.first.tags[33922]
        tag.overwrite((*tag.value[:3], tag.value[3] + 10, *tag.value[4:]))
    (problem,) = check(tmp_path / "out.tif")["problems"]
    assert "out.tif: the tag ModelTiepointTag is [0.0, 0.0, 0.0, 500010.0, " in problem


def test_the_record_of_a_geotiff_is_compared(maps: Path) -> None:
    path = maps / "smooth_mean.tif"

    def record(change: Callable[[dict[str, Any]], None]) -> None:
        with tifffile.TiffFile(path, mode="r+b") as tif:
            described = json.loads(tif.pages.first.description)
            change(described["rasterpipe"])
            tif.pages.first.tags[270].overwrite(json.dumps(described))

    count = check(path)["pixels"] * 2
    record(lambda record: record["valid"].update({"smooth/mean": 9}))
    assert check(path)["agrees"]
    (problem,) = check(path, everything=True)["problems"]
    assert problem.startswith(f"{path}: the valid values of smooth/mean are recorded as 9, and computed as ")
    record(lambda record: record["valid"].update({"smooth/mean": count + 1}))
    assert f"are recorded as {count + 1}, and {count:,} are stored" in check(path)["problems"][0]
    record(lambda record: record.update(raster=None))
    with pytest.raises(OutputError, match="'raster' in its record is null, and must be a text"):
        check(path)
    record(lambda record: record.update(raster="smooth/none"))
    with pytest.raises(OutputError, match=r"pipeline in its record cannot be planned: .* unknown output"):
        check(path)


def test_a_geotiff_of_another_shape_is_found(maps: Path) -> None:
    path = maps / "smooth_mean.tif"
    with tifffile.TiffFile(path) as tif:
        values, text = tif.asarray(), tif.pages.first.description
    tifffile.imwrite(path, values[1:], description=text, **PLAIN)
    assert (
        "the shape of smooth/mean is y 89, x 110, band 2, by its plan y 90, x 110, band 2" in check(path)["problems"][0]
    )


def test_a_geotiff_painted_by_a_table_is_computed_as_a_whole(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "zones.tif"
    api.run({**config, "steps": STEPS[-1:], "output": {"path": str(path)}})
    with pytest.raises(
        OutputError, match=r"may depend on tables \(zones\), which a GeoTIFF .*; verify the store .*--all"
    ):
        check(path)
    assert check(path, everything=True)["agrees"]


def test_a_tiff_of_others_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(OutputError, match=r"is not an output of rasterpipe; give the store or the GeoTIFF"):
        check(tmp_path / "a.tif")


def test_only_a_table(config: Config) -> None:
    step = {key: value for key, value in STEPS[-1].items() if key != "recolor"}
    api.run({**config, "steps": [step], "output": {"path": config["output"]["path"]}})
    assert check(Path(config["output"]["path"]))["pixels_compared"] == 0
    assert check(Path(config["output"]["path"]), everything=True)["agrees"]


def test_samples_are_other_regions_by_other_layouts(simple: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []
    execute = recomputation.execute

    def spy(plan: Any, *args: Any) -> Any:
        jobs.append(plan)
        return execute(plan, *args)

    monkeypatch.setattr(recomputation, "execute", spy)
    for seed in range(6):
        assert check(simple, seed=seed, samples=4)["agrees"]
    arrays = [array for plan in jobs for array in plan.kept.values()]
    assert len({array.region for array in arrays}) == len(jobs) == 24
    assert len({array.chunks for array in arrays}) > 20
    assert {planned.halo for plan in jobs for planned in plan.passes} == {"read", "exchange"}
    assert {plan.settings.workers for plan in jobs} == {1, 2}
    assert sum(plan.num_blocks > 1 for plan in jobs) > 8
    tops = {array.region.top for array in arrays}
    assert 0 in tops
    assert len(tops) > 8
    check(simple, seed=0, samples=4)
    again = [array for plan in jobs[24:] for array in plan.kept.values()]
    assert [(a.region, a.chunks) for a in again] == [(a.region, a.chunks) for a in arrays[: len(again)]]


class Most:
    """Draws the largest of all numbers, and to read halos."""

    def integers(self, low: int, high: int) -> int:
        return high - 1

    def random(self) -> float:
        return 0.9


@pytest.mark.parametrize("options", [{"everything": True}, {"samples": 2}])
def test_a_layout_that_needs_more_memory_gives_way(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that just fits its memory is verified within it, whatever is drawn."""
    values = np.random.default_rng(5).integers(0, 4000, (500, 520, 4), dtype=np.uint16)
    raster = harness.Raster(values, ("y", "x", "band"), 7, (40, 40, 4))
    source = harness.store(raster, tmp_path / "scene.zarr", with_labels=False)
    config = harness.document(source, STEPS[:1], tmp_path / "result.zarr", chunks=[40, 40])
    memory = 348 * 2**20
    api.run({**config, "run": {"workers": 2, "memory": memory}})
    refused: list[str] = []
    load = recomputation.load

    def spy(*arguments: Any, **given: Any) -> Any:
        try:
            job = load(*arguments, **given)
        except PipelineError as error:
            refused.append(str(error))
            raise
        assert max(planned.cost.peak_bytes for planned in job.plan.passes) <= memory
        return job

    monkeypatch.setattr(recomputation, "load", spy)
    monkeypatch.setattr(recomputation, "SAMPLE_SIDE", 500)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Most())
    assert check(tmp_path / "result.zarr", **options)["agrees"]
    assert refused
    assert all(" may use 348.0 MiB" in text for text in refused), refused


def test_chunks_that_gave_way_to_the_memory_agree_within_more(tmp_path: Path) -> None:
    values = np.random.default_rng(5).integers(0, 4000, (500, 520, 4), dtype=np.uint16)
    raster = harness.Raster(values, ("y", "x", "band"), 7, (500, 520, 4))
    source = harness.store(raster, tmp_path / "scene.zarr", with_labels=False)
    config = harness.document(source, STEPS[:1], tmp_path / "result.zarr")
    api.run({**config, "run": {"workers": 1, "memory": 350 * 2**20}})
    array = zarr.open_array(tmp_path / "result.zarr", path="smooth/mean", mode="r")
    assert array.chunks[0] < 500
    assert check(tmp_path / "result.zarr", memory="2 GiB", samples=1)["agrees"]
    metadata = json.loads((tmp_path / "result.zarr" / "smooth" / "mean" / "zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [500, 520, 4]
    (tmp_path / "result.zarr" / "smooth" / "mean" / "zarr.json").write_text(json.dumps(metadata))
    refuted(tmp_path / "result.zarr", "smooth/mean/zarr.json: chunk_grid.configuration.chunk_shape.0 is 500, and ")


# --- what does not agree ---------------------------------------------------------------------------------------


def refuted(output: Path, *texts: str, **options: Any) -> dict[str, Any]:
    facts = check(output, **options)
    assert facts["agrees"] is False
    for text in texts:
        assert any(text in problem for problem in facts["problems"]), facts["problems"]
    return facts


@pytest.mark.thorough
def test_a_wrong_pixel_is_found(output: Path) -> None:
    array = zarr.open_array(output, path="bend/dxx", mode="r+")
    array[50, 61, 1] = np.nextafter(array[50, 61, 1], 1e9)
    facts = refuted(output, "bend/dxx: 1 pixel differs in rows ", "the first at row 50, column 61", everything=True)
    assert (facts["differing_pixels"], len(facts["problems"])) == (1, 1)
    refuted(output, "bend/dxx: 1 pixel differs", samples=30)


def test_wrong_pixels_in_several_blocks_are_counted(output: Path) -> None:
    zarr.open_array(output, path="smooth/mean", mode="r+")[10:80, 7:9] = 3
    facts = refuted(output, "the first at row 10, column 7", everything=True)
    (problem,) = (text for text in facts["problems"] if text.startswith("smooth/mean"))
    assert " 140 " in problem
    assert any(text.startswith("around/max") for text in facts["problems"])  # it is computed from what is stored


def test_a_pixel_that_became_nodata_is_found(output: Path) -> None:
    zarr.open_array(output, path="around/max", mode="r+")[3, 4] = np.nan
    refuted(output, "around/max: 1 pixel differs", everything=True)


def test_a_wrong_table_is_found(output: Path) -> None:
    array = zarr.open_array(output, path="zones/table/mean", mode="r+")
    array[0, 0] = np.nextafter(array[0, 0], 1e9)
    refuted(output, "zones/table/mean: the table differs", everything=True)


@pytest.mark.parametrize("way", ["lost", "empty"])
def test_files_that_are_lost_are_named(way: str, output: Path) -> None:
    for name in ("smooth/std/c/1/2/0", "zones/table/label/c/0"):
        (output / name).unlink()
        if way == "empty":
            (output / name).touch()
    refuted(
        output,
        "lacks what a finished run has written: smooth/std/c/1/2/0",
        "lacks what a finished run has written: zones/table/label/c/0",
    )
    for path in (output / "around" / "max" / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    refuted(output, "around/max/c/1/1/0, ...")
    shutil.rmtree(output / "bend" / "dyy")
    refuted(output, "bend/dyy")


def test_a_damaged_chunk_is_found(output: Path) -> None:
    chunk = output / "bend" / "dxy" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:60])
    facts = refuted(output, "bend/dxy: rows ", "chunk bend/dxy/c/1/0/0 is damaged", everything=True)
    assert facts["differing_pixels"] >= 40 * 40


def test_a_record_that_was_changed_is_found(output: Path) -> None:
    edit(output / "bend", lambda record: record.update(run_id="another"))
    refuted(output, 'bend/zarr.json: attributes.rasterpipe.run_id is "another", and ')
    edit(output, lambda record: record["parts"]["steps"][0].update(size=[3, 3]))
    refuted(output, "the plan hash is not that of the recorded plan: its record was changed")
    edit(output, lambda record: record.update(plan_hash=hash_parts(record["parts"])))
    with pytest.raises(OutputError, match=r"was made by another version .*: steps\[0\]\.size\[0\] was 3, is 5"):
        check(output)


def test_an_array_of_another_shape_is_found(simple: Path) -> None:
    shutil.rmtree(simple / "smooth" / "mean")
    root = zarr.open_group(simple, mode="r+", use_consolidated=False)
    root.create_array("smooth/mean", shape=(9, 8), dtype="int8", dimension_names=("y", "x"))[...] = 1
    refuted(
        simple,
        "smooth/mean/zarr.json: shape.0 is 9, and 90 by its plan; ",
    )


def test_a_result_that_depends_on_its_layout_is_found(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `verify` is for: a fault that the run itself would repeat."""
    apply = Window.apply

    def faulty(self: Window, blocks: Any, tables: Any, out: Any, region: Any) -> None:
        apply(self, blocks, tables, out, region)
        for block in out.values():
            block.values[region.top - block.origin[0], region.left - block.origin[1]] += 1  # of each block

    monkeypatch.setattr(Window, "apply", faulty)
    del config["inputs"]["labels"]
    api.run({**config, "steps": STEPS[:1], "output": {**config["output"], "keep": ["smooth"]}})
    refuted(Path(config["output"]["path"]), "smooth/mean: ", "smooth/std: ")


# --- what cannot be checked ------------------------------------------------------------------------------------


def test_what_is_no_finished_output(tmp_path: Path, simple: Path) -> None:
    for path in (tmp_path / "nothing.zarr", tmp_path / "scene.zarr"):
        with pytest.raises(OutputError, match=f"{path.name}: is not an output of rasterpipe"):
            check(path)
    edit(simple, lambda record: record.update(complete=False))
    with pytest.raises(OutputError, match="is the unfinished output of a run; finish that with --resume"):
        check(simple)


def test_inputs_that_are_gone_or_changed(config: Config, simple: Path) -> None:
    source = Path(config["inputs"]["image"])
    os.utime(source / "zarr.json", ns=(1, 2**62))
    with pytest.raises(InputError, match=r"the input image is not the one .* image\.files was "):
        check(simple)
    shutil.rmtree(source)
    with pytest.raises(InputError, match="no such file or folder"):
        check(simple)


def test_an_operation_of_another_version(simple: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was = Window.version
    monkeypatch.setattr(Window, "version", was + 1)
    with pytest.raises(
        OutputError, match=rf"made by another version .*: operations\.window was {was}, is {was + 1}; verify it with"
    ):
        check(simple)


# --- the command -----------------------------------------------------------------------------------------------


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_the_command(output: Path) -> None:
    result = call(output, "--samples", 2, "--seed", 5, "--memory", "1 GiB")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "agrees; 2 regions (seed 5) computed again by another layout, " in result.stdout
    assert "not compared:\n  when, by which version, " in result.stdout
    assert "  the tables of zones: what is made of them is compared with them as they are stored\n" in result.stdout
    result = call(output, "--all", "--json", "-q", "--workers", 1)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["everything"] is True
    zarr.open_array(output, path="smooth/std", mode="r+")[0, 0] = -5
    result = call(output, "--all", "--json", "-q")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["differing_pixels"] == 1
    assert "smooth/std: 1 pixel differs in rows " in result.stderr
    result = call(output, "--all", "-q")
    assert (result.exit_code, result.stdout) == (5, "")
    assert call(f"{output}-none").exit_code == 5


def test_it_is_of_the_python_face_too(simple: Path) -> None:
    assert pipeline.verify(simple, samples=1)["agrees"]
    assert pipeline.verify(simple, samples=1)["agrees"]
