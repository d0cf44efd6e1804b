"""Colour tables of indices: what a viewer makes of the file is the raster of colours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import pipeline
from pipeline import api
from pipeline.model.errors import OutputError
from pipeline.model.raster import RasterSpec
from pipeline.output.color_table import ColorTable, color_table
from tests.tiff_bytes import write_tiff

COLORS, PHOTOMETRIC = 320, 262


def make_image(path: Path, dtype: str = "uint8", bands: int = 3) -> str:
    top = 256 if dtype == "uint8" else 60_000
    values = np.random.default_rng(2).integers(0, top, (bands, 40, 50)).astype(dtype)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    tifffile.imwrite(path, values, **options, extratags=[(42113, 2, 2, "7", True)])
    return str(path)


def document(tmp_path: Path, image: str, colors: Any, **options: Any) -> dict[str, Any]:
    palette = {"name": "colors", "op": "palette", "input": "image", **colors} if isinstance(colors, dict) else None
    poster = {"name": "poster", "op": "quantize", "input": "image", "outputs": ["index", "color"], **options}
    poster["palette"] = colors if palette is None else "colors"
    return {
        "inputs": {"image": image},
        "steps": [*([palette] if palette else []), poster],
        "output": {"path": str(tmp_path / "out.zarr"), "geotiff": str(tmp_path / "maps")},
        "run": {"memory": "600 MiB", "workers": 2},
    }


def expanded(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of a file, whether they are valid, and their colours by its table, (band, y, x)."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        assert page.tags.valueof(PHOTOMETRIC) == 3
        index, table = page.asarray(), np.asarray(page.colormap)
    nodata = api.info(path).nodata
    return index, np.ones(index.shape, bool) if nodata is None else index != nodata, table[:, index]


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 16), ("uint8", 255), ("uint8", 1000), ("uint16", 30)])
def test_indices_by_their_table_are_the_colours(tmp_path: Path, dtype: str, count: int) -> None:
    image = make_image(tmp_path / "a.tif", dtype)
    facts = pipeline.run(document(tmp_path, image, {"colors": count, "dtype": dtype}, nodata=7))
    assert not any("rounded" in text for text in facts.warnings)
    index, valid, colors = expanded(tmp_path / "maps/poster_index.tif")
    assert index.dtype == ("uint8" if count < 256 else "uint16")
    color = tifffile.imread(tmp_path / "maps/poster_color.tif")
    np.testing.assert_array_equal(colors[:, valid], color[:, valid].astype("int64") * (257 if dtype == "uint8" else 1))
    assert not valid.all()


def test_gdal_reads_the_colours(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    pipeline.run(document(tmp_path, make_image(tmp_path / "a.tif"), {"colors": 40, "dtype": "uint8"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "maps/poster_index.tif") as file:
            index, table = file.read(1), file.colormap(1)
            assert file.colorinterp == (rasterio.enums.ColorInterp.palette,)
            valid = index != file.nodata
    color = tifffile.imread(tmp_path / "maps/poster_color.tif")
    drawn = np.array([table[value][:3] for value in range(256)], np.uint8)[index]
    np.testing.assert_array_equal(np.moveaxis(drawn, -1, 0)[:, valid], color[:, valid])


def change_colors(path: Path) -> None:
    """Give a file other colours, as somebody may who edits its tags."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages.first.tags[COLORS]
        values = np.array(tag.value, np.uint16).ravel()
        values[3] ^= 1
        tag.overwrite(tuple(values.tolist()))


def test_the_table_of_a_computed_palette_is_verified_with_all(tmp_path: Path) -> None:
    pipeline.run(document(tmp_path, make_image(tmp_path / "a.tif"), {"colors": 40, "dtype": "uint8"}))
    path = tmp_path / "maps/poster_index.tif"
    with pytest.raises(OutputError, match="may depend on tables"):
        api.verify(path)
    assert api.verify(path, everything=True).agrees
    change_colors(path)
    (problem,) = api.verify(path, everything=True).problems
    assert "the tag ColorMap is" in problem


def test_the_table_of_a_given_palette_is_verified(tmp_path: Path) -> None:
    colors = np.random.default_rng(5).integers(0, 255, (20, 3)).tolist()
    pipeline.run(document(tmp_path, make_image(tmp_path / "a.tif"), colors))
    path = tmp_path / "maps/poster_index.tif"
    assert api.info(path).color_table == 256
    assert api.verify(path).agrees
    api.convert(path, tmp_path / "b.tif")
    np.testing.assert_array_equal(expanded(tmp_path / "b.tif")[2], expanded(path)[2])
    change_colors(path)
    (problem,) = api.verify(path).problems
    assert "the tag ColorMap is" in problem


def test_the_store_knows_the_colours_too(tmp_path: Path) -> None:
    pipeline.run(document(tmp_path, make_image(tmp_path / "a.tif"), {"colors": 40, "dtype": "uint8"}))
    assert api.info(tmp_path / "out.zarr/poster/index").color_table == 40
    assert api.verify(tmp_path / "out.zarr").agrees
    api.convert(tmp_path / "out.zarr/poster/index", tmp_path / "b.tif")
    for first, second in zip(expanded(tmp_path / "b.tif"), expanded(tmp_path / "maps/poster_index.tif"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_colours_of_fractions_are_rounded_aloud(tmp_path: Path) -> None:
    config = document(tmp_path, make_image(tmp_path / "a.tif"), {"colors": 40}, outputs=["index"])
    facts = pipeline.run(config | {"output": {"path": str(tmp_path / "b.tif")}})
    said = [text for text in facts.warnings if "poster/index" in text and "nodata" not in text]
    (text,) = said
    assert text.endswith("rounded: `dtype: uint8` of the palette makes them equal")
    pipeline.run(config)
    palette = zarr.open_array(tmp_path / "out.zarr", path="poster/palette")[...]
    index, valid, colors = expanded(tmp_path / "b.tif")
    np.testing.assert_array_equal(colors[:, valid], np.rint(palette).astype("int64")[index[valid]].T * 257)


BYTES = np.array([[0, 1, 255], [2, 3, 4]], np.uint8)


@pytest.mark.parametrize(
    ("palette", "source", "index", "lost"),
    [
        (BYTES.astype("float32"), "float32", "uint8", ""),
        (BYTES.astype("float32"), "int16", "uint8", ""),
        (BYTES[:, :2], "uint8", "uint8", ""),
        (BYTES, "uint8", "int16", ""),
        (BYTES, "uint8", "uint32", ""),
        (np.zeros((257, 3), np.uint8), "uint8", "uint8", ""),
        (BYTES - 0.75, "uint8", "uint8", "some colours of the palette are beyond uint8"),
        (BYTES + 0.75, "uint8", "uint8", "some colours of the palette are beyond uint8"),
    ],
)
def test_what_no_table_can_hold(palette: np.ndarray, source: str, index: str, lost: str) -> None:
    table = color_table(palette, np.dtype(source), RasterSpec(2, 2, np.dtype(index)))
    assert table.colors == ()
    assert lost in table.lost
    assert bool(lost) == bool(table.lost)


def test_sixteen_bits_are_taken_as_they_are() -> None:
    colors = np.array([[0, 1, 65535], [300, 2, 3]], np.uint16)
    table = color_table(colors, np.dtype(np.float32), RasterSpec(2, 2, np.dtype(np.uint8)))
    assert table == ColorTable(table.colors, "")
    assert table.colors == (0, 300, 1, 2, 65535, 3)


def test_a_table_of_few_bits_is_kept(tmp_path: Path) -> None:
    """Samples of 4 bits become bytes, of which 16 have colours."""
    rng = np.random.default_rng(4)
    values, colors = rng.integers(0, 16, (8, 10), dtype=np.uint8), rng.integers(0, 2**16, 48)
    packed = (values[:, ::2] << 4 | values[:, 1::2]).tobytes()
    tags = {"t258": (3, [4]), "t262": (3, [3]), "t320": (3, colors.tolist()), "t259": (3, [1]), "t278": (4, [8])}
    write_tiff(tmp_path / "a.tif", 10, 8, [packed], **tags)
    assert api.info(tmp_path / "a.tif").color_table == 16
    api.convert(tmp_path / "a.tif", tmp_path / "b.tif")
    index, _, drawn = expanded(tmp_path / "b.tif")
    np.testing.assert_array_equal(index, values)
    np.testing.assert_array_equal(drawn, colors.reshape(3, 16)[:, values])
