"""relief: gdaldem's colours, colour files, percentages of the whole raster, refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr

from pipeline import api
from pipeline.model.errors import InputError, InputUnfit, PipelineError
from pipeline.storage.color_ramp import MAX_BYTES, NAMES
from tests import harness, zarr_files
from tests.georeference import placed_tiff

RAMP = """# heights of a valley
nv 10 20 30 0
0%  0 90 160
300,  green   128
500: 255:255:0
80% white
100% 40 0 0 255 peaks
"""
NODATA = -9999


def heights(dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).normal(400, 200, (40, 50)).astype(dtype)
    values[:3, :4] = NODATA
    values[5, 5:9] = [300, 500, 300, 500]
    return values


def compute(source: str, output: Path, colors: Any, **parameters: Any) -> np.ndarray:
    """Return (band, y, x)."""
    step = {"name": "tinted", "op": "relief", "colors": colors, **parameters}
    api.run({"inputs": {"image": source}, "steps": [step], "output": {"path": str(output)}}, overwrite=True)
    return harness.read(output, "tinted/color")


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="gdaldem (Debian's gdal-bin) is not installed")
@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(("option", "pick"), [(None, "interpolate"), ("-nearest_color_entry", "nearest")])
def test_it_is_gdaldems(option: str | None, pick: str, dtype: str, tmp_path: Path) -> None:
    """Up to 1 where a fraction is a half or little more: GDAL 3.6 rounds up from 0.55 on, and finds nothing exact."""
    source = placed_tiff(tmp_path / "dem.tif", heights(dtype), nodata=NODATA)
    (tmp_path / "ramp.txt").write_text(RAMP)
    line = ["gdaldem", "color-relief", source, str(tmp_path / "ramp.txt"), str(tmp_path / "gdal.tif"), "-alpha", "-q"]
    subprocess.run(line + ([option] if option else []), check=True, capture_output=True)
    with rasterio.open(tmp_path / "gdal.tif") as file:
        expected = file.read()
    found = compute(source, tmp_path / "out.zarr", str(tmp_path / "ramp.txt"), pick=pick, alpha=True)
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= (1 if pick == "interpolate" else 0)
    assert (apart > 0).mean() < 0.05


def test_colors_between_and_beyond(tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "dem.zarr", np.array([[-5.0, 0, 5, 10, 15], [np.nan, 2.5, 7.5, 10, 99]]))
    ramp = [[0, 0, 0, 0], [10, 100, 200, 50]]
    found = compute(source, tmp_path / "out.zarr", ramp)
    assert found[1].tolist() == [[0, 0, 100, 200, 200], [0, 50, 150, 200, 200]]
    assert found[0].tolist() == [[0, 0, 50, 100, 100], [0, 25, 75, 100, 100]]
    assert found[2][1].tolist() == [0, 13, 38, 50, 50]  # halves are rounded up
    found = compute(source, tmp_path / "out.zarr", ramp, pick="nearest", alpha=True)
    assert found[1].tolist() == [[0, 0, 200, 200, 200], [0, 0, 200, 200, 200]]
    assert found[3].tolist() == [[255] * 5, [0, 255, 255, 255, 255]]
    found = compute(source, tmp_path / "out.zarr", [*ramp, ["nv", "red"]], pick="exact", alpha=True)
    assert found[:, 0].T.tolist() == [[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0], [100, 200, 50, 255], [0, 0, 0, 0]]
    assert found[:, 1, 0].tolist() == [255, 0, 0, 255]


def test_equal_values_are_a_step(tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "dem.zarr", np.array([[4.0, 5, 5.5, 10]]))
    ramp = [[0, 0, 0, 0], [5, 50, 50, 50], [5, 200, 200, 200], [10, 250, 250, 250]]
    found = compute(source, tmp_path / "out.zarr", ramp)
    assert found[0].tolist() == [[40, 50, 205, 250]]


def test_percentages_are_of_the_whole_raster(tmp_path: Path) -> None:
    values = np.arange(1000, 3000, dtype=np.float32).reshape(40, 50)
    source = zarr_files.write(tmp_path / "dem.zarr", values)
    found = compute(source, tmp_path / "out.zarr", "grey")
    assert np.array_equal(found[0], np.floor((values.astype(float) - 1000) / 1999 * 255 + 0.5))
    table = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")["tinted/table/value"]
    assert np.asarray(table[...]).tolist() == [1000, 2999]  # type: ignore[index]
    assert api.verify(tmp_path / "out.zarr").agrees
    empty = zarr_files.write(tmp_path / "empty.zarr", np.full((4, 5), np.nan, np.float32))
    with pytest.raises(InputUnfit, match=r"no pixel has a finite value, .* named ramps are; give values"):
        compute(empty, tmp_path / "none.zarr", "elevation")


def test_the_ends_of_floating_point(tmp_path: Path) -> None:
    values = np.array([[-1.7e308, -8.5e307, 0, 8.5e307, 1.7e308, np.inf, -np.inf]])
    source = zarr_files.write(tmp_path / "dem.zarr", values)
    due = [[0, 64, 128, 191, 255, 255, 0]]
    assert compute(source, tmp_path / "out.zarr", "grey")[0].tolist() == due
    ramp = [[-1.7e308, 0, 0, 0], [1.7e308, 255, 255, 255]]
    assert compute(source, tmp_path / "out.zarr", ramp)[0].tolist() == due
    tiny = zarr_files.write(tmp_path / "tiny.zarr", np.array([[0, 1e-310, 2e-310]]))
    assert compute(tiny, tmp_path / "out.zarr", "grey")[0].tolist() == [[0, 128, 255]]


def test_a_colour_file_beside_the_pipeline_file(tmp_path: Path) -> None:
    zarr_files.write(tmp_path / "dem.zarr", np.array([[1.0, 2, 3]]))
    (tmp_path / "qgis.txt").write_text("INTERPOLATION:INTERPOLATED\n1,255,0,0,255,low: 1\n3,0,0,255,255,high\n")
    (tmp_path / "p.yaml").write_text(
        "inputs: {image: dem.zarr}\nsteps:\n  - {name: t, op: relief, colors: qgis.txt}\noutput: {path: out.zarr}\n"
    )
    api.run(tmp_path / "p.yaml")
    assert harness.read(tmp_path / "out.zarr", "t/color")[:, 0].T.tolist() == [[255, 0, 0], [128, 0, 128], [0, 0, 255]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"line 1: must have red, green and blue, or the name of a colour: '1 2 3'"),
        ("1 red\n2 rose\n", r"line 2: 'rose' is no whole number from 0 to 255, nor one of the names white, .*'2 rose'"),
        ("1 256 0 0\n", "line 1: '256' is no whole number from 0 to 255"),
        ("one 1 2 3\n", "line 1: 'one' is neither a number, a percentage from 0 to 100, nor nv"),
        ("inf 1 2 3\n", "line 1: 'inf' is neither"),
        ("110% 1 2 3\n", "line 1: '110%' is neither a number, a percentage from 0 to 100, nor nv"),
        ("INTERPOLATION:DISCRETE\n1 red\n", "line 1: 'INTERPOLATION' is neither"),
        ("7\n", "line 1: must be a value and a colour"),
        (" " * (MAX_BYTES + 1), f"a colour file has at most {MAX_BYTES}"),
        ("\x00\xff", "is not a text file|is neither|must be a value"),
    ],
)
def test_a_bad_colour_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "dem.zarr", np.zeros((3, 3)))
    (tmp_path / "ramp.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        compute(source, tmp_path / "out.zarr", str(tmp_path / "ramp.txt"))
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ("rainbow", "must be one of grey, elevation, terrain, a colour file"),
        ([], "must have 1 to 4096 colours, got 0"),
        ([["nv", 1, 2, 3]], "got only that of nv"),
        ([["nv", "red"], ["nv", "blue"], [1, "red"]], "must have one colour for nv, got several"),
        ([[1, 2]], "must have red, green and blue|is no whole number"),
        ("missing.txt", "missing.txt: cannot be read"),
    ],
)
def test_what_is_no_ramp_is_refused(colors: Any, message: str, tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "dem.zarr", np.zeros((3, 3)))
    with pytest.raises((PipelineError, InputError), match=message):
        compute(source, tmp_path / "out.zarr", colors)


def test_one_band_is_coloured(tmp_path: Path) -> None:
    source = zarr_files.write(tmp_path / "rgb.zarr", np.ones((4, 4, 3)), ("y", "x", "band"))
    with pytest.raises(PipelineError, match=r"bands: the raster's bands are b1, b2, b3; pick the one.*`bands: \[1\]`"):
        compute(source, tmp_path / "out.zarr", "grey")
    assert compute(source, tmp_path / "out.zarr", [[0, "brown"]], bands=[2])[:, 0, 0].tolist() == list(NAMES["brown"])
