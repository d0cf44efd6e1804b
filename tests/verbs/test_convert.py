"""Parts that a conversion cuts out, against slices of the arrays that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from pipeline import api
from pipeline.cli.main import main
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from tests import zarr_files

SMALL = [("run.memory", "600 MiB", "--memory"), ("run.workers", 2, "--workers")]
NAMED = b'<GDALMetadata><Item name="DESCRIPTION" sample="0" role="description">red</Item></GDALMetadata>\0'


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A TIFF of three bands with a level of half and one of a quarter the size."""
    values = np.random.default_rng(5).integers(0, 60000, (3, 64, 96), dtype=np.uint16)
    tags = [
        (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632), True),
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 6e6, 0.0), True),
        (42112, 2, len(NAMED), NAMED, True),
    ]
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(values, subifds=2, tile=(16, 16), extratags=tags, **options)
        for step in (2, 4):
            writer.write(values[:, ::step, ::step].copy(), subfiletype=1, tile=(16, 16), **options)
    return tmp_path / "p.tif"


def pixels_of(path: Path, level: int = 0) -> tuple[np.ndarray, RasterSpec]:
    reader = open_raster(str(path), Choice(level=level))
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    return out, reader.spec


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("way", [("tif",), ("zarr",), ("zarr", "tif"), ("tif", "tif")])
def test_a_part_is_cut_out(pyramid: Path, tmp_path: Path, level: int, way: tuple[str, ...]) -> None:
    """By rows and columns, and by the box of these: the pixels, and the transform of their corner."""
    whole, spec = pixels_of(pyramid, level)
    assert spec.transform is not None
    side, rows, columns = 10 * 2**level, (3, 21), (7, 40)
    box = [5e5 + columns[0] * side, 6e6 - rows[1] * side, 5e5 + columns[1] * side, 6e6 - rows[0] * side]
    for number, part in enumerate(({"region": {"rows": rows, "columns": columns}}, {"bbox": box})):
        source = pyramid
        for step, suffix in enumerate(way):
            target = tmp_path / f"{number}{step}.{suffix}"
            if step == len(way) - 1:
                own = {"level": level} if source == pyramid else {}
                api.convert(source, target, bands=[3, 1], limits=SMALL, **part, **own)
            else:  # by a copy of all of the level
                api.convert(source, target, level=level, limits=SMALL)
            source = target
        found, cut = pixels_of(source)
        np.testing.assert_array_equal(found, whole[[2, 0], slice(*rows), slice(*columns)])
        assert cut.transform == spec.transform.shift(rows[0], columns[0])
        assert (cut.crs, cut.bands) == (spec.crs, ("b3", "red"))


def test_a_part_on_the_command_line(pyramid: Path, tmp_path: Path) -> None:
    def call(*options: str, target: str = "c.tif", command: tuple[str, ...] = ("convert",)) -> Any:
        arguments = [*command, str(pyramid), str(tmp_path / target), "-q", *options, "--memory", "600 MiB"]
        return CliRunner().invoke(main, arguments)

    done = call("--region", "3:9", ":", "--level", "1")
    assert done.exit_code == 0, done.stderr
    np.testing.assert_array_equal(pixels_of(tmp_path / "c.tif")[0], pixels_of(pyramid, 1)[0][:, 3:9])
    done = call("--bbox", "499000", "5999800", "500050", "6000000", target="d.zarr")
    np.testing.assert_array_equal(pixels_of(tmp_path / "d.zarr")[0], pixels_of(pyramid)[0][:, :20, :5])
    done = call("--region", "3:9", "0:8", target="e.zarr", command=("apply", "window", "size=3"))
    assert done.exit_code == 0, done.stderr
    assert zarr.open_array(tmp_path / "e.zarr", path="window/mean").shape == (3, 6, 8)
    for options, code, words in (
        (("--region", "3:9", "90:97"), 3, "--region: region: rows 3:9, columns 90:97 is not a part of the raster, which"
                                          " has rows 0:64, columns 0:96"),
        (("--region", "9:3", ":"), 3, "--region: region: rows must be [first, end] with first < end, got [9, 3]"),
        (("--region", "3", ":"), 2, "rows must be FIRST:END, counted from 0, or : for all of them, got '3'"),
        (("--bbox", "0", "0", "1", "1"), 3, "does not meet the raster, which spans x 500000 to 500960, y "),
        (("--bbox", "0", "0", "1", "1", "--region", ":", "0:3"), 2, "--region and --bbox both say which part"),
        (("--level", "3"), 4, "`level: 3`: the file has levels up to 2"),
        (("--series", "x"), 2, "must be a number from 0 on, or mask, got 'x'"),
        (("--series", "7"), 4, "`series: 7`: the file has 1 images"),
    ):  # fmt: skip
        refused = call(*options, target="f.tif")
        assert (refused.exit_code, words in " ".join(refused.stderr.split())) == (code, True), refused.stderr
    assert not (tmp_path / "f.tif").exists()


def test_a_box_needs_a_georeference_and_says_what_it_leaves_out(pyramid: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((20, 30), np.uint8), metadata=None)
    with pytest.raises(PipelineError, match=r"--bbox: region\.bbox: .* has no georeference; give rows and columns"):
        api.convert(tmp_path / "plain.tif", tmp_path / "b.tif", bbox=[0, 0, 9, 9])
    facts = api.convert(pyramid, tmp_path / "b.tif", bbox=[499000, 5999800, 500050, 6000000], limits=SMALL)
    assert any("reaches beyond the raster, which spans x 500000 to 500960" in text for text in facts["warnings"])
    facts = api.convert(pyramid, tmp_path / "c.tif", bbox=[500000, 5999800, 500050, 6000000], limits=SMALL)
    assert not any("beyond" in text for text in facts["warnings"])


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_a_part_of_a_level_of_a_store(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(1).integers(0, 99, (40, 60)).astype(np.uint8)
    scales = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}, {"path": "1"}]}]
    attributes = {"ome": {"multiscales": scales}, "spatial:transform": [10, 0, 500, 0, -10, 900]}
    levels = {"0": (("y", "x"), values), "1": (("y", "x"), values[::2, ::2])}
    path = zarr_files.group(tmp_path / "a.zarr", attributes, **levels)
    target = tmp_path / f"b.{suffix}"
    api.convert(path, target, level=1, region={"rows": [2, 9], "columns": [4, 30]}, limits=SMALL)
    found, spec = pixels_of(target)
    np.testing.assert_array_equal(found, values[::2, ::2][2:9, 4:])
    assert spec.transform == (20, 0, 580, 0, -20, 860)


def test_a_part_of_an_internal_mask(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    mask = (values % 7 > 2).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, photometric="minisblack", metadata=None)
        writer.write(mask.astype(bool), photometric="mask", subfiletype=4, metadata=None)
    api.convert(tmp_path / "a.tif", tmp_path / "b.tif", series="mask", region={"rows": [2, 9]}, limits=SMALL)
    found, spec = pixels_of(tmp_path / "b.tif")
    np.testing.assert_array_equal(found != 0, mask[2:9] != 0)
    assert spec.bands == ("mask",)


def test_how_overviews_are_made_is_an_option(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (600, 700)).astype(np.int32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    base = ["convert", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "-q", "--overwrite"]
    for options, expected in (
        (["--resampling", "nearest"], [(600, 700), (300, 350), (150, 175)]),
        (["--resampling", "max", "--no-cog"], [(600, 700), (300, 350), (150, 175)]),
        (["--overviews", "none"], [(600, 700)]),
    ):
        done = CliRunner().invoke(main, [*base, *options])
        assert done.exit_code == 0, done.stderr
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            assert [page.shape for page in tif.pages] == expected
            is_cog = b"LAYOUT=IFDS_BEFORE_DATA" in (tmp_path / "b.tif").read_bytes()[:200]
            assert is_cog == ("--no-cog" not in options)
            if "nearest" in options:
                np.testing.assert_array_equal(tif.pages[1].asarray(), values[::2, ::2])
    wrong = CliRunner().invoke(main, [*base, "--resampling", "cubic"])
    assert (wrong.exit_code, "--resampling cubic" in wrong.stderr) == (3, True)
    levels = ["convert", str(tmp_path / "a.tif"), str(tmp_path / "b.zarr"), "-q", "--pyramid", "1"]
    assert CliRunner().invoke(main, levels).exit_code == 0
    assert zarr.open_array(tmp_path / "b.zarr", path="raster/1/value").shape[-2:] == (300, 350)
