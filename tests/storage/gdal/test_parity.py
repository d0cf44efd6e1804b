"""TIFFs read by our own reader and through GDAL: the same spec, the same pixels."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import tifffile

from pipeline.model.raster import RasterSpec
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from tests.gdal_files import CASES, make
from tests.georeference import assert_same_crs
from tests.harness import same_bits
from tests.zarr_files import pixels, read

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
SHARED = Path(__file__).parents[3].parent / "shared" / "data"
MORE: dict[str, dict[str, Any]] = {
    "RGB, side by side": {"count": 3, "photometric": "rgb"},
    "RGB, separate": {"count": 3, "photometric": "rgb", "interleave": "band", "dtype": "uint16"},
    "JPEG": {"count": 3, "photometric": "ycbcr", "compress": "jpeg", "tiled": True, "blockxsize": 16, "blockysize": 16},
    "bits": {"NBITS": 3},
    "half": {"dtype": "float32", "NBITS": 16},
    "LERC": {"dtype": "float32", "compress": "lerc_zstd"},
    "sparse": {"dtype": "uint16", "nodata": 7, "sparse_ok": True, "tiled": True, "blockxsize": 16, "blockysize": 16},
    "nodata that does not fit": {"dtype": "float32", "nodata": 0.1},
    "white is 0": {"photometric": "miniswhite"},
    "deflate, many rows a strip": {"compress": "deflate", "blockysize": 7, "count": 2},
}

DIFFERENT: dict[str, dict[str, str]] = {
    "half": {"dtype": "GDAL 3.10 has no float16 and makes float32 of it", "pixels": "the same values, as float32"},
    "JPEG": {
        "recorded.photometric": "GDAL says what is decoded, the file how it is stored",
        "pixels": "colours at half the resolution: we interpolate, GDAL repeats",
    },
    "white is 0": {"recorded.photometric": "GDAL knows no name for it"},
    "a colour table": {"recorded.photometric": "the tag says gray, the colour table something else"},
    "a system that we do not read": {"crs": "GDAL knows more projection methods; we say that we do not"},
    "a vertical system": {"recorded.items": "GDAL takes the unit of the vertical system for that of the pixels"},
}
"""Case -> what is not the same, and why."""
WRITTEN_ANOTHER_WAY = {"tags", "nodata", "carried"}
"""Of what is recorded: tags of the place as they stand in the file, nodata as it spells it; GDAL hands on neither."""
BOOKKEEPING = ("colorinterp", "IMAGE_STRUCTURE")
"""Items by which GDAL's TIFF driver reminds itself: it tells what they say by other names."""


def differences(own: Reader, gdal: Reader) -> set[str]:
    """Return the names of what two readers say otherwise."""
    found = {field.name for field in fields(RasterSpec) if field.name not in ("crs", "recorded")}
    found = {name for name in found if repr(getattr(own.spec, name)) != repr(getattr(gdal.spec, name))}  # NaN
    first, second = (recorded_of(reader.spec) for reader in (own, gdal))
    for name in {field.name for field in fields(Recorded)} - WRITTEN_ANOTHER_WAY - {"items"}:
        found |= set() if getattr(first, name) == getattr(second, name) else {f"recorded.{name}"}
    found |= set() if items_of(first) == items_of(second) else {"recorded.items"}
    found |= set() if are_same(own.spec.crs, gdal.spec.crs) else {"crs"}
    found |= set() if own.scales == gdal.scales else {"scales"}
    return found | (set() if same_bits(read(own), read(gdal)) else {"pixels"})


def items_of(recorded: Recorded) -> set[tuple[Any, ...]]:
    """Return the items, numbers as such: GDAL writes 0.1 as 0.10000000000000001."""
    kept = [item for item in recorded.items if not {item.role, item.domain} & set(BOOKKEEPING)]
    numbers = ("scale", "offset")
    return {
        (item.name, float(item.text) if item.role in numbers else item.text, item.band, item.domain) for item in kept
    }


def are_same(first: str | None, second: str | None) -> bool:
    """Return whether two systems put points at the same place: of those without a code, names differ."""
    if first == second or first is None or second is None or "EPSG" in (first[:4], second[:4]):
        return first == second
    assert_same_crs(pyproj.CRS(first), pyproj.CRS(second))
    return True


def both(path: Path | str, level: int = 0) -> tuple[Reader, Reader]:
    return tuple(open_raster(str(path), Choice(driver=driver, level=level)) for driver in (None, "GTiff"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", CASES | MORE)
def test_both_readers_of_tiff_agree(tmp_path: Path, name: str) -> None:
    make(tmp_path / "a.tif", **(CASES | MORE)[name])
    assert differences(*both(tmp_path / "a.tif")) <= DIFFERENT.get(name, {}).keys()  # newer GDAL has fewer


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
@pytest.mark.parametrize("name", ["RGB.byte.tif", "float_raster_with_nodata.tif"])
def test_both_readers_agree_on_real_files(name: str) -> None:
    assert differences(*both(SHARED / name)) == set()


def test_both_readers_agree_on_overviews(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    make(tmp_path / "a.tif", dtype="uint16", tiled=True, blockxsize=16, blockysize=16, height=96, width=80)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2, 4])
    for level in (1, 2):
        own, gdal = both(tmp_path / "a.tif", level)
        assert own.spec.shape == (96 // 2**level, 80 // 2**level)
        assert differences(own, gdal) == set()


def test_of_pages_gdal_reads_the_first(tmp_path: Path) -> None:
    """Pages of one kind are bands to us; to GDAL each is a raster of its own."""
    values = pixels((3, 20, 30), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata=None)
    own, gdal = both(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(own), values)
    np.testing.assert_array_equal(read(gdal), values[0])
