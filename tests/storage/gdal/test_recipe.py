"""VRTs: what lies below their folder is read, and nothing that leads elsewhere or runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.model.errors import ChunkAway, InputChanged, InputError
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from tests.gdal_files import make, rasterio
from tests.zarr_files import read

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
RECT = "<SrcRect xOff='0' yOff='0' xSize='60' ySize='40'/><DstRect xOff='{x}' yOff='0' xSize='60' ySize='40'/>"


def source(name: str, x: int = 0, relative: str = "1") -> str:
    return (
        f"<SimpleSource><SourceFilename relativeToVRT='{relative}'>{name}</SourceFilename><SourceBand>1</SourceBand>"
        f"{RECT.format(x=x)}</SimpleSource>"
    )


def band(content: str, more: str = "") -> str:
    return f"<VRTRasterBand dataType='Byte' band='1' {more}>{content}</VRTRasterBand>"


def vrt(path: Path, content: str, more: str = "", width: int = 60) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<VRTDataset rasterXSize='{width}' rasterYSize='40' {more}>{content}</VRTDataset>")
    return path


def opened(path: Path) -> Reader:
    return open_raster(str(path), Choice(driver="VRT"))


def test_a_vrt_takes_a_name(tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    path = vrt(tmp_path / "a.vrt", band(source("a.tif")))
    with pytest.raises(InputError, match="a VRT is a recipe that reads other files; `driver: VRT` at the input reads"):
        open_raster(str(path))
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(read(opened(path)), file.read(1))


def test_files_side_by_side_and_a_vrt_in_a_vrt(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    make(tmp_path / "tiles" / "a.tif", dtype="uint8")
    make(tmp_path / "tiles" / "b.tif", dtype="uint8", nodata=9)
    vrt(tmp_path / "tiles" / "inner.vrt", band(source("b.tif")))
    absolute = str(tmp_path / "tiles" / "a.tif")
    path = vrt(tmp_path / "a.vrt", band(source(absolute, relative="0") + source("tiles/inner.vrt", 60)), width=120)
    reader = opened(path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(read(reader), file.read(1))
    (evidence,) = reader.evidence()
    assert evidence.data == ("a.vrt", "tiles/a.tif", "tiles/b.tif", "tiles/inner.vrt")
    first = reader.identity()
    os.utime(tmp_path / "tiles" / "b.tif", (1, 1))
    assert opened(path).identity() != first
    with pytest.raises(InputChanged, match=r"b.tif: is not as it was when the run began"):
        read(reader)
    (tmp_path / "tiles" / "b.tif").unlink()
    with pytest.raises(ChunkAway, match=r"b.tif: was there when the run began"):
        read(reader)
    with pytest.raises(InputError, match=r"inner.vrt: source 1: .*b.tif cannot be read: No such file"):
        opened(path)


CODE = "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>f</PixelFunctionType>"
REFUSED: dict[str, tuple[str, str]] = {
    "up": (band(source("../else/a.tif")), r"source 1, '../else/a.tif': leads out of its folder with `..`"),
    "up and back": (band(source("sub/../a.tif")), "leads out of its folder"),
    "absolute": (band(source("{else}/a.tif", relative="0")), "source 1, .*: does not lie below the VRT's folder"),
    "absolute though relative": (band(source("{else}/a.tif")), "does not lie below the VRT's folder"),
    "of the working directory": (band(source("a.tif", relative="0")), "is no path from the VRT on"),
    "the network": (band(source("/vsicurl/http://localhost/a.tif", relative="0")), "does not lie below"),
    "a virtual file": (band(source("/vsizip/a.zip/a.tif")), "does not lie below"),
    "a connection": (band(source("NETCDF:a.nc:x")), "is no plain path; name files alone"),
    "a space before": (band(source(" a.tif")), "is no plain path"),
    "the second of two": (band(source("a.tif") + source("../b.tif")), r"source 2, '../b.tif'"),
    "not there": (band(source("none.tif")), "source 1: .*none.tif cannot be read: No such file"),
    "a folder": (band(source("folder")), "source 1: .*folder is not a file"),
    "a text": (band(source("notes.txt")), "is no TIFF, JPEG 2000, PNG, JPEG or VRT"),
    "a service": (band(source("wms.xml")), r"wms.xml: is no VRT: it begins with <GDAL_WMS>"),
    "a VRT that leads out": (band(source("inner.vrt")), r"inner.vrt: source 1, '../else/a.tif': leads out"),
    "Python": (band(CODE + source("a.tif"), "subClass='VRTDerivedRasterBand'"), "VRTDerivedRasterBand.*is not read"),
    "pixel functions": (band("<PixelFunctionType>sum</PixelFunctionType>"), "<PixelFunctionType> is not read"),
    "raw bytes": (band(source("a.tif"), "subClass='VRTRawRasterBand'"), "VRTRawRasterBand.*is not read"),
    "options of drivers": (band("<OpenOptions/>"), "<OpenOptions> is not read"),
    "overviews": (band("<Overview><SourceFilename>a.tif</SourceFilename></Overview>"), "<Overview> is not read"),
    "warping": ("<GDALWarpOptions/>", "<GDALWarpOptions> is not read: of a VRT only sources side by side are"),
    "processing": ("<ProcessingSteps/>", "<ProcessingSteps> is not read"),
    "capitals": (band("<simplesource/>"), "<simplesource> is not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leads_elsewhere_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    here, other = tmp_path / "here", tmp_path / "else"
    (here / "folder").mkdir(parents=True)
    other.mkdir()
    for folder in (here, other):
        make(folder / "a.tif")
    (here / "notes.txt").write_text("mine")
    (here / "wms.xml").write_text("<?xml version='1.0'?><GDAL_WMS/>")
    vrt(here / "inner.vrt", band(source("../else/a.tif")))
    content, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        opened(vrt(here / "a.vrt", content.replace("{else}", str(other))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><VRTDataset/>", "declares a document type, which is not safe to read"),
        ("<VRTDataset", "is no VRT that can be read"),
        ("<VRTDataset subClass='VRTWarpedDataset'/>", 'subClass="VRTWarpedDataset"> is not read'),
        ("<GDAL_WMS/>", "is no VRT: it begins with <GDAL_WMS>"),
        ("<VRTDataset rasterXSize='60' rasterYSize='40'/>", "cannot be opened: Missing one of"),
    ],
)
def test_texts_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.vrt").write_text(text)
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "a.vrt")


def test_a_vrt_of_itself_ends(tmp_path: Path) -> None:
    vrt(tmp_path / "a.vrt", band(source("b.vrt")))
    vrt(tmp_path / "b.vrt", band(source("a.vrt")))
    with pytest.raises(InputError, match=r"a.vrt"):
        read(opened(tmp_path / "a.vrt"))


def test_many_sources_are_looked_through_in_seconds(tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    for number in range(2000):
        (tmp_path / f"{number}.tif").write_bytes(data)
    content = "".join(source(f"{number}.tif", 60 * number) for number in range(2000))
    reader = opened(vrt(tmp_path / "a.vrt", band(content), width=60 * 2000))
    assert reader.spec.width == 120_000
    assert len(reader.evidence()[0].data) == 2001


def test_a_spill_file_elsewhere_is_refused(tmp_path: Path) -> None:
    """Erdas Imagine keeps the name of the file that holds the pixels in the one that tells of them."""
    shutil = pytest.importorskip("rasterio.shutil")
    (tmp_path / "here").mkdir()
    make(tmp_path / "a.tif")
    shutil.copy(tmp_path / "a.tif", tmp_path / "here" / "abcdefg.img", driver="HFA", USE_SPILL="YES")
    assert open_raster(str(tmp_path / "here" / "abcdefg.img")).spec.num_bands == 1
    data = (tmp_path / "here" / "abcdefg.img").read_bytes()
    assert data.count(b"abcdefg.ige") > 0
    (tmp_path / "here" / "abcdefg.img").write_bytes(data.replace(b"abcdefg.ige", b"../ghij.ige"))
    (tmp_path / "here" / "abcdefg.ige").rename(tmp_path / "ghij.ige")
    with pytest.raises(InputError, match=r"ghij.ige, which does not lie below its folder|abcdefg.img"):
        read(open_raster(str(tmp_path / "here" / "abcdefg.img")))  # newer GDAL refuses to read from there
