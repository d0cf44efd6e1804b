"""Cloud Optimized GeoTIFFs: the layout of GDAL's driver, all levels to the bit, resumed after a kill."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling as GdalResampling
from rio_cogeo.cogeo import cog_validate

from pipeline.execution.progress import Progress
from pipeline.model.raster import RasterSpec, array_slices
from pipeline.model.region import Region
from pipeline.storage.input import Choice
from pipeline.storage.tiff import writer
from pipeline.storage.tiff.reader import TiffReader
from pipeline.storage.tiff.tiling import plan_tiles
from pipeline.storage.tiff.writer import GeoTiffForm, write_geotiff

TOKEN = "a" * 32
QUIET = Progress(quiet=True)
DIMS = {"plane": (("y", "x"), 1), "planar": (("band", "y", "x"), 3), "pixels": (("y", "x", "band"), 3)}
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def spec_of(shape: tuple[int, int], dtype: str, dims: str, **more: Any) -> RasterSpec:
    order, count = DIMS[dims]
    return RasterSpec(*shape, np.dtype(dtype), order, tuple(f"B{i}" for i in range(more.pop("count", count))), **more)


class Source:
    """A raster in memory."""

    def __init__(self, spec: RasterSpec) -> None:
        self.spec = spec
        self.values = np.random.default_rng(1).integers(0, 100, spec.shape).astype(spec.dtype)

    def read(self, region: Region, out: np.ndarray, bands: Any = None) -> None:
        part = self.values[array_slices(self.spec.dims, region)]
        out[...] = part if bands is None else part[list(bands)]

    @property
    def planes(self) -> np.ndarray:
        if self.spec.dims == ("y", "x"):
            return self.values[np.newaxis]
        return self.values if self.spec.dims[0] == "band" else np.moveaxis(self.values, -1, 0)


def write(path: Path, source: Source, codec: str = "fast", is_cog: bool = True, **options: Any) -> None:
    tiling = plan_tiles(source.spec, (100, 130), 2, options.pop("memory", 2**30), options.pop("resampling", "average"))
    write_geotiff(path, TOKEN, source.read, tiling, GeoTiffForm(codec, "{}", is_cog), QUIET)


SHAPES = {"some tiles": (700, 900), "one row": (1, 5000), "one column": (3000, 1), "less than a tile": (50, 40)}


@pytest.mark.parametrize("codec", ["fast", "balanced", "small", "none"])
@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gdal_and_rio_cogeo_take_it_for_one(tmp_path: Path, shape: str, dims: str, codec: str) -> None:
    dtype = {"fast": "uint8", "balanced": "int16", "small": "float32", "none": "float64"}[codec]
    source = Source(spec_of(SHAPES[shape], dtype, dims, nodata=0))
    write(tmp_path / "a.tif", source, codec)
    is_valid, errors, warnings = cog_validate(tmp_path / "a.tif", strict=True, quiet=True)
    if shape == "one column":  # rio-cogeo asks the width alone how small a level is: GDAL's own files fail, too
        errors = [error for error in errors if "Invalid Decimation 1" not in error]
    assert (is_valid or shape == "one column", errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.read().tobytes() == source.planes.tobytes()
        assert float(file.tags(1)["STATISTICS_MINIMUM"]) == source.planes[0][source.planes[0] != 0].min()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        sizes = [(page.imagelength, page.imagewidth) for page in tif.pages]
    assert max(sizes[-1]) <= 256
    assert [(n + 1) // 2 for n in sizes[0]] == list(sizes[1]) if len(sizes) > 1 else shape == "less than a tile"


@pytest.mark.parametrize("count", [1, 4, 200])
@pytest.mark.parametrize("dims", ["planar", "pixels"])
def test_many_bands(tmp_path: Path, dims: str, count: int) -> None:
    source = Source(spec_of((150, 170), "uint16", dims, count=count))
    write(tmp_path / "a.tif", source)
    assert cog_validate(tmp_path / "a.tif", strict=True, quiet=True)[0]
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.read().tobytes() == source.planes.tobytes()


@pytest.mark.parametrize("dims", DIMS)
def test_tiles_lie_as_the_header_says(tmp_path: Path, dims: str) -> None:
    """Directories first, full resolution first of them; tiles of the smallest level first, between size and trailer."""
    write(tmp_path / "a.tif", Source(spec_of((700, 900), "uint16", dims)))
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        pages = [(page.offset, page.dataoffsets, page.databytecounts) for page in tif.pages]
    starts = [offset for offset, _, _ in pages]
    assert starts == sorted(starts)
    assert data[8:].startswith(b"GDAL_STRUCTURAL_METADATA_SIZE=")
    places = [place for _, offsets, _ in reversed(pages) for place in offsets]
    assert places == sorted(places)
    assert places[0] > starts[-1]
    for _, offsets, counts in pages:
        for offset, count in zip(offsets, counts, strict=True):
            assert struct.unpack("<I", data[offset - 4 : offset]) == (count,)
            assert data[offset + count : offset + count + 4] == data[offset + count - 4 : offset + count]


@pytest.mark.parametrize("is_cog", [True, False])
@pytest.mark.parametrize("dims", DIMS)
def test_levels_do_not_depend_on_memory(tmp_path: Path, dims: str, is_cog: bool) -> None:
    source = Source(spec_of((1100, 600), "uint8", dims, nodata=7))
    write(tmp_path / "a.tif", source, is_cog=is_cog)
    write(tmp_path / "b.tif", source, is_cog=is_cog, memory=0)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.tif", "b.tif"))
    assert first == second if is_cog else len(first) == len(second)
    planes = source.planes.astype(np.float64)
    planes[planes == 7] = np.nan
    for level in (1, 2, 3):
        reader = TiffReader.open(tmp_path / "b.tif", None, Choice(level=level))
        found = np.empty(reader.spec.shape, np.uint8)
        reader.read(reader.spec.region, found)
        size = 1 << level
        height, width = (-(-n // size) for n in planes.shape[1:])
        padded = np.full((len(planes), height * size, width * size), np.nan)
        padded[:, : planes.shape[1], : planes.shape[2]] = planes
        means = np.nanmean(padded.reshape(len(planes), height, size, width, size), axis=(2, 4))
        due = np.rint(means)
        due = np.where(due == 7, np.where(means < 7, 6, 8), due).astype(np.uint8)
        found = found[np.newaxis] if found.ndim == 2 else found if dims == "planar" else np.moveaxis(found, -1, 0)
        np.testing.assert_array_equal(found, due)


def test_gdal_reads_a_level_for_a_small_picture(tmp_path: Path) -> None:
    source = Source(spec_of((1024, 1024), "uint8", "plane"))
    write(tmp_path / "a.tif", source, resampling="max")
    with rasterio.open(tmp_path / "a.tif") as file:
        small = file.read(1, out_shape=(256, 256), resampling=GdalResampling.nearest)
    np.testing.assert_array_equal(small, source.values.reshape(256, 4, 256, 4).max(axis=(1, 3)))


def test_without_overviews_and_layout(tmp_path: Path) -> None:
    source = Source(spec_of((700, 900), "uint16", "pixels"))
    write(tmp_path / "a.tif", source, resampling=None, is_cog=False)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.overviews(1) == []
        assert "LAYOUT" not in file.tags(ns="IMAGE_STRUCTURE")
        assert file.read().tobytes() == source.planes.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("is_cog", [True, False])
def test_beyond_four_gibibytes_it_is_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cog: bool) -> None:
    source = Source(spec_of((700, 900), "uint16", "planar"))
    monkeypatch.setattr(writer, "CLASSIC_BYTES", 1000)
    write(tmp_path / "a.tif", source, is_cog=is_cog)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II\x2b\x00"
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.read().tobytes() == source.planes.tobytes()
    assert not is_cog or cog_validate(tmp_path / "a.tif", strict=True, quiet=True)[0]


# --- resumed -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As a kill: nothing is tidied up."""


@pytest.mark.parametrize("is_cog", [True, False])
@pytest.mark.parametrize("dims", DIMS)
def test_tiles_that_are_there_are_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: str, is_cog: bool
) -> None:
    source = Source(spec_of((1000, 1000), "uint16", dims))
    write(tmp_path / "whole.tif", source, is_cog=is_cog, memory=0)
    encoded = count_encoded(monkeypatch)
    stop_after(monkeypatch, 9)
    with pytest.raises(Killed):
        write(tmp_path / "a.tif", source, is_cog=is_cog, memory=0)
    assert not (tmp_path / "a.tif").exists()
    monkeypatch.setattr(writer.Spool, "add", ADD)
    before = len(encoded)
    write(tmp_path / "a.tif", source, is_cog=is_cog, memory=0)
    total = sum(plan_tiles(source.spec, (100, 130), 2, 0).num_tiles(level) for level in (0, 1, 2))
    assert len(encoded) - before == total - 9
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "whole.tif"]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tiles", lambda data: data[:-1]),
        ("tiles", lambda data: data[: len(data) // 2] + b"X" + data[len(data) // 2 + 1 :]),
        ("tiles", lambda data: b""),
        ("index", lambda data: data[:-1]),
        ("index", lambda data: data + b"\xff" * 32),
        ("index", lambda data: data[:40] + b"\xff" * 8 + data[48:]),
        ("index", lambda data: b"Y" * 32 + data[32:]),
        ("index", lambda data: b""),
    ],
)
def test_what_a_crash_has_torn_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Any
) -> None:
    source = Source(spec_of((1000, 1000), "uint16", "planar"))
    write(tmp_path / "whole.tif", source, memory=0)
    stop_after(monkeypatch, 9)
    with pytest.raises(Killed):
        write(tmp_path / "a.tif", source, memory=0)
    monkeypatch.setattr(writer.Spool, "add", ADD)
    path = tmp_path / f".a.tif.{TOKEN}.{file}"
    path.write_bytes(change(path.read_bytes()))
    write(tmp_path / "a.tif", source, memory=0)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_tiles_of_another_form_or_run_are_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(spec_of((1000, 1000), "uint16", "planar"))
    (tmp_path / f".a.tif.{'b' * 32}.tiles").write_bytes(b"of a run that was given up")
    (tmp_path / ".a.tif.mine.tiles").write_bytes(b"the user's")
    stop_after(monkeypatch, 9)
    with pytest.raises(Killed):
        write(tmp_path / "a.tif", source, codec="none", memory=0)
    monkeypatch.setattr(writer.Spool, "add", ADD)
    write(tmp_path / "a.tif", source, codec="fast")
    with rasterio.open(tmp_path / "a.tif") as tif:
        assert tif.read().tobytes() == source.planes.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.tif.mine.tiles", "a.tif"]


ADD = writer.Spool.add


def stop_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    added: list[int] = []

    def add(self: writer.Spool, level: int, tile: int, data: bytes) -> None:
        if len(added) == number:
            raise Killed
        added.append(tile)
        ADD(self, level, tile, data)

    monkeypatch.setattr(writer.Spool, "add", add)


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, encoded = writer._encode, list[int]()
    monkeypatch.setattr(writer, "_encode", lambda *args: (encoded.append(1), real(*args))[1])
    return encoded
