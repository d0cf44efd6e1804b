"""palette and quantize as their users run them: what a run says of them, refusals, resumed runs."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import pipeline
from pipeline.cli.main import main
from pipeline.cli.text import format_run
from pipeline.execution import run as execution
from pipeline.kernels.cell_ranges import CellRanges
from pipeline.model.errors import InputError, PipelineError, RunStopped
from tests import harness
from tests.harness import Raster

Config = dict[str, Any]


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 30, (90, 110, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    return values


@pytest.fixture
def config(image: np.ndarray, tmp_path: Path) -> Config:
    source = harness.store(Raster(image, ("y", "x", "band"), chunks=(20, 20, 3)), tmp_path / "image.zarr")
    return {
        "inputs": {"image": source},
        "steps": [
            {"name": "colors", "op": "palette", "input": "image", "colors": 20},
            {"name": "poster", "op": "quantize", "input": "image", "palette": "colors", "outputs": ["index", "color"]},
        ],
        "output": {"path": str(tmp_path / "out.zarr"), "chunks": [20, 20]},
        "run": {"workers": 2, "memory": "1 GiB"},
    }


def naive(image: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, Fraction]:
    """The loop over the pixels, with the distances to all colours; the index (-1: invalid) and the squared error."""
    index, total, count = np.full(image.shape[:2], -1), Fraction(0), 0
    for place in np.ndindex(*index.shape):
        pixel = image[place].astype(np.float64)
        if np.isfinite(pixel).all():
            index[place] = np.linalg.norm(palette - pixel, axis=1).argmin()
            squares = (pixel - palette[index[place]]) ** 2
            total += Fraction(float(squares[0] + squares[1] + squares[2]))
            count += len(pixel)
    return index, total / count


def test_the_palette_loop(config: Config, image: np.ndarray) -> None:
    facts = pipeline.run(config)
    store = zarr.open_group(config["output"]["path"], mode="r")
    palette = np.asarray(store["colors/palette"][...], np.float64)
    index, error = naive(image, palette)
    found = store["poster/index"]
    nodata = found.attrs["_FillValue"]
    np.testing.assert_array_equal(np.where(found[...] == nodata, -1, found[...].astype(int)), index)
    np.testing.assert_array_equal(store["poster/color"][...][index >= 0], palette[index[index >= 0]])
    np.testing.assert_array_equal(store["poster/palette"][...], palette)
    peak = palette.max() - palette.min()
    psnr = 10 * math.log10(peak**2 / error)
    quality = facts["quality"]["poster"]
    assert quality == {"mean_squared_error": float(error), "psnr": pytest.approx(psnr, rel=1e-14), "peak": peak}
    for name in ("index", "color"):
        assert {key: store["poster"][name].attrs[key] for key in quality} == quality
    assert pipeline.run(config, resume=True)["quality"] == facts["quality"]  # read from the finished store


def test_verify_computes_the_error_again(config: Config) -> None:
    pipeline.run(config)
    assert pipeline.verify(config["output"]["path"], everything=True, seed=2)["agrees"]
    file = Path(config["output"]["path"]) / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["rasterpipe"]["quality"]["poster"]["mean_squared_error"] = 1.5
    file.write_text(json.dumps(metadata))
    problems = pipeline.verify(config["output"]["path"], everything=True, seed=2)["problems"]
    assert any("poster" in problem and "mean_squared_error" in problem for problem in problems), problems


@pytest.mark.parametrize(("dtype", "peak"), [("uint8", 255), ("int16", 32767)])
def test_the_error_of_integers_is_scikit_images(dtype: str, peak: int, config: Config, tmp_path: Path) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    image = np.random.default_rng(1).integers(0, 128, (50, 60, 3)).astype(dtype)
    config["inputs"]["image"] = harness.store(Raster(image, ("y", "x", "band")), tmp_path / "whole.zarr")
    quality = pipeline.run(config)["quality"]["poster"]
    color = zarr.open_array(config["output"]["path"], path="poster/color")[...].astype(np.float64)
    assert quality["mean_squared_error"] == pytest.approx(np.mean((image - color) ** 2), rel=1e-14)
    expected = metrics.peak_signal_noise_ratio(image.astype(np.float64), color, data_range=peak)
    assert (quality["psnr"], quality["peak"]) == (pytest.approx(expected, rel=1e-12), peak)


SOME = [(50, "read"), (70, "exchange")]
OTHERS = [(3, "read"), (70, "read"), (3, "exchange"), (50, "exchange")]


@pytest.mark.parametrize(
    ("stop_after", "halo"), [*SOME, *(pytest.param(*case, marks=pytest.mark.thorough) for case in OTHERS)]
)
def test_killed_and_resumed_it_says_the_same(
    config: Config, tmp_path: Path, halo: str, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the colours are needed around each block: a pixel counts for the block that writes it."""
    config["steps"].append({"name": "smooth", "op": "window", "input": "poster/color", "size": 5})
    config["output"]["keep"] = ["poster", "smooth"]
    config["run"]["halo"] = halo
    whole = pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])  # 30 blocks a pass
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    calls = []
    run = execution.PassWorker._run

    def failing(self: Any, number: int, fetch: Any) -> Any:
        calls.append(number)
        if len(calls) > stop_after:
            raise OSError("the power is gone")
        return run(self, number, fetch)

    monkeypatch.setattr(execution.PassWorker, "_run", failing)
    with pytest.raises(RunStopped):
        pipeline.run(config)
    monkeypatch.setattr(execution.PassWorker, "_run", run)
    resumed = pipeline.run(config, resume=True)
    assert resumed["blocks_skipped"] > 0 or stop_after == 3
    assert resumed["quality"] == whole["quality"]
    assert list(whole["quality"]["poster"]) == ["mean_squared_error", "psnr", "peak"]


def test_only_the_region_is_measured(config: Config, image: np.ndarray) -> None:
    config["region"] = {"rows": [7, 33], "columns": [5, 90]}
    config["steps"][0:1] = []
    config["steps"][0] |= {"palette": [[80, 100, 90], [120, 90, 110.5]], "outputs": ["distance"]}
    error = naive(image[7:33, 5:90], np.array(config["steps"][0]["palette"]))[1]
    quality = pipeline.run(config)["quality"]["poster"]
    assert (quality["mean_squared_error"], quality["peak"]) == (float(error), 40)


def test_a_raster_of_its_colours_and_one_without_a_valid_pixel(config: Config, tmp_path: Path) -> None:
    config["steps"][0:1] = []
    config["steps"][0] |= {"palette": [[0, 0], [7, 7]]}
    for name, value, expected in (("equal", 7.0, (0, "inf")), ("none", np.nan, (None, None))):
        image = np.full((9, 9, 2), value)
        config["inputs"]["image"] = harness.store(Raster(image, ("y", "x", "band")), tmp_path / f"{name}.zarr")
        config["output"]["path"] = str(tmp_path / f"{name}-out.zarr")
        facts = pipeline.run(config)
        assert facts["quality"]["poster"] == {"mean_squared_error": expected[0], "psnr": expected[1], "peak": 7}
        assert json.loads(json.dumps(facts.to_dict(), allow_nan=False)) == facts.to_dict()
        text = "\n".join(format_run(facts))
        assert ("no valid pixel to measure" if name == "none" else "error 0, PSNR inf dB (peak 7)") in text


def test_fewer_colours_than_asked_for_are_said(config: Config, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 2, (30, 40, 2)).astype(np.uint8) * 100
    config["inputs"]["image"] = harness.store(Raster(image, ("y", "x", "band")), tmp_path / "few.zarr")
    (tmp_path / "few.yaml").write_text(json.dumps(config))
    command = ["run", str(tmp_path / "few.yaml")]
    result = CliRunner().invoke(main, [*command, "--json"])
    note = "colors: the palette has 4 entries, not the 20 asked for"
    assert f"note: {note}" in result.stderr
    facts = json.loads(result.stdout)
    assert facts["warnings"][-1].startswith(note)
    assert facts["tables"][0]["rows"] == 4
    again = CliRunner().invoke(main, [*command, "--resume", "--json"])
    assert json.loads(again.stdout)["warnings"] == facts["warnings"]


def test_colours_that_rounding_makes_equal_count_once(config: Config) -> None:
    config["steps"][0] |= {"dtype": "int8", "colors": 300, "bands": [1]}
    config["steps"][1] |= {"bands": [1]}
    facts = pipeline.run(config)
    palette = zarr.open_array(config["output"]["path"], path="colors/palette")[...]
    assert len(palette) == len(np.unique(palette)) < 200
    assert f"colors: the palette has {len(palette)} entries, not the 300" in facts["warnings"][-1]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("1,2,3\n4,nan,6", InputError, r"steps\[1\] \(poster\).palette: .*colors.csv: row 2 holds nan; all .* finite"),
        ("", InputError, r"steps\[1\] \(poster\).palette: .*colors.csv: holds no numbers"),
        ("1,2,3", PipelineError, "must have 2 to 65536 colours, got 1"),
        ("1,2\n3,4", PipelineError, r"the palette has 2 bands, the raster 3 \(b1, b2, b3\); pick as many"),
    ],
)
def test_palette_files_that_are_refused(
    config: Config, tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "colors.csv").write_text(content)
    config["steps"][1]["palette"] = str(tmp_path / "colors.csv")
    with pytest.raises(error, match=message):
        pipeline.run(config)
    config["steps"][0] |= {"method": "file", "values": str(tmp_path / "colors.csv")}
    config["steps"][1]["palette"] = "colors"
    with pytest.raises(error, match=message.replace("1\\] \\(poster\\).palette", "0\\] \\(colors\\).values")):
        pipeline.run(config)
    assert not Path(config["output"]["path"]).exists()


REFERENCES = {
    "colours": r"unknown step 'colours'; did you mean 'colors'\? \(valid: colors\)",
    "image": r"unknown step 'image' \(valid: colors\)",
    "poster": r"step 'poster' makes no table; name one before .*: colors\)",
    "later": r"reads 'later', a later step; .*move 'later' before 'poster'",
    "round": r"a cycle: poster -> round -> poster \(each reads the next\)",
    "[]": r"must be rows of numbers",
    "[[1, .nan, 2], [1, 2, 3]]": r"must hold finite numbers, got nan",
}


@pytest.mark.parametrize(("palette", "message"), REFERENCES.items())
@pytest.mark.parametrize("options", [{}, {"check_inputs": False}])
def test_references_to_tables_that_lead_nowhere(
    config: Config, tmp_path: Path, palette: str, message: str, options: dict[str, bool]
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        f"""steps:
  - {{name: colors, op: palette, input: image}}
  - {{name: poster, op: quantize, input: image, outputs: [index], bands: [1, 2, 3], palette: {palette}}}
  - {{name: later, op: palette, input: image}}
  - {{name: round, op: palette, input: poster}}
inputs: {{image: {config["inputs"]["image"]}}}
output: {{path: {tmp_path / "x.zarr"}}}
"""
    )
    with pytest.raises(PipelineError, match=rf"p\.yaml:3:93: steps\[1\] \(poster\)\.palette: {message}"):
        pipeline.validate(str(file), **options)


def test_a_step_whose_table_is_no_palette(config: Config, tmp_path: Path) -> None:
    config["inputs"]["marks"] = config["inputs"]["image"] + harness.LABELS
    config["steps"].insert(0, {"name": "zones", "op": "label_stats", "input": "image", "labels": "marks"})
    config["steps"][2]["palette"] = "zones"
    with pytest.raises(PipelineError, match=r"steps\[2\] \(poster\)\.palette: 'zones' makes no palette"):
        pipeline.plan(config)


def test_what_is_lazy_reads_known_palettes_only(image: np.ndarray) -> None:
    array = da.from_array(image, chunks=(40, 40, 3))
    given = {"name": "colors", "op": "palette", "method": "inline", "values": [[0, 0, 0], [100, 100, 100]]}
    quantize = {"op": "quantize", "input": "image", "palette": "colors", "nodata": 255}
    index = pipeline.apply([given, quantize], array).compute()
    expected = naive(image, np.array(given["values"]))[0]
    np.testing.assert_array_equal(index, np.where(expected < 0, 255, expected))
    with pytest.raises(PipelineError, match=r"step 'colors' \(palette\) makes a table of the whole raster, which"):
        pipeline.apply([{"name": "colors", "op": "palette"}, quantize], array)
    with pytest.raises(PipelineError, match="the steps make no raster, only tables"):
        pipeline.apply(given, array)


@pytest.mark.parametrize("method", ["median_cut", pytest.param("kmeans", marks=pytest.mark.thorough)])
def test_wide_sums_of_colours_go_to_the_disk_before_they_fill_the_memory(
    config: Config, image: np.ndarray, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two values far from all others widen the sums of all cells: they are merged in parts, to the same bits."""
    wide = image.astype(np.float64)
    wide[5, 5], wide[70, 9] = 1e300, 1e-300
    config["inputs"]["image"] = harness.store(Raster(wide, ("y", "x", "band"), chunks=(20, 20, 3)), tmp_path / "wide")
    config["steps"][0] |= {"method": method, "max_cells": 1000}
    pipeline.run({**config, "output": {**config["output"], "path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr("pipeline.planning.cost.MAX_TABLE_BYTES", 2**19)
    parts: list[int] = []
    read = CellRanges._part

    def watched(self: Any, *bounds: int) -> Any:
        part = read(self, *bounds)
        parts.append(part.nbytes)
        return part

    monkeypatch.setattr(CellRanges, "_part", watched)
    pipeline.run(config)
    assert len(parts) > 10
    assert max(parts) <= 2**17
    whole, divided = (zarr.open_group(tmp_path / name, mode="r") for name in ("whole.zarr", "out.zarr"))
    for path in ("colors/palette", "poster/index"):
        np.testing.assert_array_equal(whole[path][...], divided[path][...])
