"""What the verbs return: data with names, which are the keys of `--json` as they always were."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

import pipeline
from pipeline.cli.main import main
from pipeline.model.facts import WorkerFacts
from pipeline.verbs.demo.synth import synth

ALL = """\
inputs: {image: scene.zarr, labels: labels.zarr}
steps:
  - {name: smooth, op: window, size: 3, statistics: [mean]}
  - {name: zones, op: label_stats, labels: labels, input: image, statistics: [mean], table: zones.csv}
  - {name: colors, op: palette, input: image, colors: 4}
  - {name: poster, op: quantize, input: image, palette: colors}
output: {path: all.zarr, geotiff: maps, chunks: [32, 32]}
run: {workers: 2, halo: read, memory: 1 GiB}
"""
ONE = """\
inputs: {image: scene.zarr}
steps:
  - {name: smooth, op: window, size: 3, statistics: [mean]}
output: {path: one.tif}
run: {workers: 2, memory: 1 GiB}
"""
RASTER = "dims shape dtype bands nodata"
INFO = f"path {RASTER} size num_bands bytes scale scales chunk crs transform"
MEASURED = (
    "output seconds compile_seconds peak_rss_bytes planned_peak_bytes bytes_read bytes_written blocks blocks_skipped "
    "blocks_recomputed retries requests bytes_fetched outputs.path outputs.dtype outputs.shape outputs.bytes "
    "outputs.valid_fraction"
)
RUN = f"{MEASURED} tables quality warnings plan_hash version"
QUALITY = "quality.poster.mean_squared_error quality.poster.psnr quality.poster.peak"
EXPORTS = "geotiffs ome_zarrs polygon_files table_files"
GEOTIFF = f"geotiffs.path geotiffs.raster geotiffs.file_bytes geotiffs.warnings {EXPORTS.removeprefix('geotiffs ')}"
FULL = f"{MEASURED} tables.path tables.rows tables.columns {QUALITY} warnings plan_hash version {GEOTIFF}"
VERIFY = (
    "output agrees problems everything samples seed pixels_compared pixels differing_pixels not_compared plan_hash "
    "version seconds"
)
PASS = (
    "steps reads writes halo halo_pixels.image halo_pixels.labels block blocks panel_blocks tasks in_flight "
    "block_bytes cache_bytes planned_peak_bytes read_bytes read_amplification write_bytes requests fetch_bytes"
)


def each(prefix: str, keys: str) -> str:
    return " ".join(f"{prefix}.{key}" for key in keys.split())


COMMANDS = {
    "plan all.yaml": (
        "output plan_hash version workers memory_bytes planned_peak_bytes blocks tasks read_bytes write_bytes "
        f"requests fetch_bytes disk_bytes {each('inputs.image', f'{RASTER} chunk')} "
        f"{each('inputs.labels', f'{RASTER} chunk')} "
        f"{each('passes', PASS)} {each('outputs', f'path {RASTER} chunks shards codec bytes levels')} "
        f"{each('files', 'path raster bytes scratch_bytes')} notes"
    ),
    "validate all.yaml": "valid steps inputs_checked",
    "validate all.yaml --no-inputs": "valid steps inputs_checked",
    "run all.yaml --quicklook look.png": f"{FULL} quicklook",
    "run all.yaml --resume": FULL,
    "run one.yaml": f"{RUN} {GEOTIFF}",
    "run one.yaml --resume": RUN,
    "info scene.zarr": (
        f"{INFO} format array chunks shards codec stored_shape stored_dims levels gdal warnings inputs_line"
    ),
    "info units.tif": (
        f"{INFO} pages levels mask format codec predictor layout planar byteorder recorded_nodata warnings inputs_line "
        "units color_table"
    ),
    "info one.tif": (
        f"{INFO} pages levels mask format codec predictor layout planar byteorder recorded_nodata warnings inputs_line"
    ),
    "verify all.zarr --samples 1 --seed 3": VERIFY,
    "verify one.tif --all --seed 3": VERIFY,
    "convert scene.zarr scene.tif --memory 1GiB --workers 2": f"{RUN} {GEOTIFF}",
    "apply window size=3 scene.zarr applied.zarr --memory 1GiB --workers 2": f"{RUN} {EXPORTS}",
}
"""Each command with the keys of its facts and of those that these hold, in their order."""


def paths(value: Any, above: str = "") -> Iterator[str]:
    for key, item in value.items():
        entries = item if isinstance(item, list) else [item]
        below = dict.fromkeys(p for e in entries if isinstance(e, dict) for p in paths(e, f"{above}{key}."))
        yield from below or [f"{above}{key}"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    synth("scene.zarr", size=(64, 64), bands=3, labels="labels.zarr", num_labels=9, seed=1)
    Path("all.yaml").write_text(ALL)
    Path("one.yaml").write_text(ONE)
    units = b'<GDALMetadata><Item name="UNITTYPE" sample="0" role="unittype">m</Item></GDALMetadata>\0'
    options: dict[str, Any] = {"colormap": np.zeros((3, 256), np.uint16), "metadata": None}
    options["extratags"] = [(42112, 2, len(units), units, True)]
    tifffile.imwrite("units.tif", np.zeros((9, 9), np.uint8), photometric="palette", **options)
    return tmp_path


def test_the_keys_of_json_are_those_of_always(here: Path) -> None:
    for command, keys in COMMANDS.items():
        result = CliRunner().invoke(main, [*command.split(), "--json"])
        assert result.exit_code == 0, result.stderr
        assert list(paths(json.loads(result.stdout))) == keys.split(), command


def test_units_and_colour_tables_are_told_in_a_line_each(here: Path) -> None:
    lines = CliRunner().invoke(main, ["info", "units.tif"]).stdout.splitlines()
    assert [line for line in lines if "m" in line.split() or "colours" in line] == [
        "  units: m",
        "  color_table: 256 colours",
    ]
    pipeline.convert("units.tif", "units.zarr")
    stored = pipeline.info("units.zarr")
    assert (stored["units"], stored["color_table"]) == (["m"], 256)
    plain = CliRunner().invoke(main, ["info", "scene.zarr"]).stdout
    assert "units:" not in plain
    assert "color_table" not in plain


def test_facts_are_data(here: Path) -> None:
    planned = pipeline.plan("one.yaml")
    assert planned.passes[0].halo_pixels["image"] == (1, 1, 1, 1)
    assert planned["passes"] == planned.to_dict()["passes"]
    facts = pipeline.run("one.yaml")
    assert facts.outputs[0].shape == (64, 64, 3)
    assert facts["outputs"][0]["shape"] == [64, 64, 3]
    assert pickle.loads(pickle.dumps(facts)) == facts
    with pytest.raises(FrozenInstanceError):
        facts.blocks = 7  # type: ignore[misc]
    with pytest.raises(KeyError):
        facts["workers"]  # of a cluster
    on_cluster = replace(facts, scheduler="tcp://a:1", workers=(WorkerFacts("tcp://b:2", 3, 4),))
    assert [*paths(on_cluster.to_dict())][-4:] == [
        "scheduler", "workers.address", "workers.blocks", "workers.peak_rss_bytes"
    ]  # fmt: skip
