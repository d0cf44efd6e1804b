"""JPEG 2000 read without GDAL: the pixels and the place that GDAL finds; what is damaged or of other kinds."""

from __future__ import annotations

import json
import pickle
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.errors import InputChanged, InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.jpeg2000.reader import Jpeg2000Reader
from pipeline.storage.open import open_raster
from tests import harness
from tests.zarr_files import pixels, read

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 600000, 0, -10, 5300040)}


def make(path: Path, values: np.ndarray, **options: Any) -> str:
    """Write (band, y, x) by GDAL; tiles of 64 x 64, without loss, if not said otherwise."""
    form = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    wanted = {
        "QUALITY": 100,
        "REVERSIBLE": "YES",
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        **PLACE,
        **options,
    }
    with rasterio.open(path, "w", driver="JP2OpenJPEG", **form, **wanted) as file:
        file.write(values)
    return str(path)


def by_gdal(path: str) -> tuple[np.ndarray, Any, Any]:
    with rasterio.open(path) as file:
        return file.read(), file.transform, file.crs


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((1, 150, 200), "uint16", {}),
        ((3, 130, 64), "uint8", {}),
        ((4, 65, 129), "uint8", {"YCC": "NO"}),
        ((1, 150, 200), "uint16", {"QUALITY": 30, "REVERSIBLE": "NO"}),
        ((1, 100, 100), "int16", {}),
        ((2, 150, 200), "uint16", {"RESOLUTIONS": 3, "PROGRESSION": "RPCL"}),
        ((1, 150, 200), "uint16", {"NBITS": 12}),
        ((1, 150, 200), "uint16", {"GMLJP2": "NO"}),
        ((1, 150, 200), "uint16", {"GeoJP2": "NO"}),
        ((1, 150, 200), "uint8", {"CODEC": "J2K"}),
    ],
)
def test_pixels_and_place_are_those_of_gdal(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, options: dict[str, Any]
) -> None:
    values = pixels(shape, dtype) % 4000 if dtype != "uint8" else pixels(shape, dtype)
    path = make(tmp_path / ("a.j2k" if "CODEC" in options else "a.jp2"), values.astype(dtype), **options)
    expected, transform, system = by_gdal(path)
    reader = Jpeg2000Reader.open(path)
    found = read(reader).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    if "CODEC" in options:
        assert reader.spec.transform is None
    else:
        np.testing.assert_allclose(tuple(reader.spec.transform or ()), tuple(transform)[:6], rtol=1e-12)
        assert reader.spec.crs == f"EPSG:{system.to_epsg()}"
    part = Region(shape[1] // 3, shape[1], shape[2] // 4, max(shape[2] // 4 + 1, shape[2] - 1))
    rows, columns = part.slices()
    np.testing.assert_array_equal(read(reader, part).reshape(shape[0], *part.shape), expected[:, rows, columns])
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(read(copy), read(reader))
    json.dumps([reader.identity(), reader.describe()])


def test_some_bands_and_alpha(tmp_path: Path) -> None:
    values = pixels((4, 70, 80), "uint8")
    path = make(tmp_path / "a.jp2", values, ALPHA="YES")
    reader = Jpeg2000Reader.open(path)
    assert reader.spec.bands == ("b1", "b2", "b3", "alpha")
    np.testing.assert_array_equal(read(reader, Region(0, 70, 0, 80), [3, 1]), values[[3, 1]])


def test_degrees_are_told_with_the_latitude_first(tmp_path: Path) -> None:
    transform = rasterio.Affine(0.001, 0, 13, 0, -0.002, 52)
    path = make(tmp_path / "a.jp2", pixels((1, 70, 80), "uint8"), crs="EPSG:4326", transform=transform, GeoJP2="NO")
    reader = Jpeg2000Reader.open(path)
    assert reader.spec.crs == "EPSG:4326"
    np.testing.assert_allclose(tuple(reader.spec.transform or ()), tuple(transform)[:6], rtol=1e-9, atol=1e-12)


def test_without_gdal_a_run_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pixels((2, 150, 200), "uint16")
    path = make(tmp_path / "a.jp2", values)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["max"]}
    document = {
        "inputs": {"image": path},
        "steps": [step],
        "output": {"path": str(tmp_path / "a.zarr"), "chunks": [48, 48]},
    }
    api.run(document)
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    shifted = [padded[:, dy : dy + 150, dx : dx + 200] for dy in range(3) for dx in range(3)]
    np.testing.assert_array_equal(harness.read(str(tmp_path / "a.zarr"), "smooth/max"), np.max(shifted, axis=0))
    assert api.verify(tmp_path / "a.zarr").agrees
    with pytest.raises(InputError, match="pip install 'rasterpipe"):
        open_raster(path, api.Choice(level=1))


def test_what_is_damaged_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = Path(make(tmp_path / "a.jp2", pixels((1, 150, 200), "uint16")))
    whole = path.read_bytes()
    for cut in (20, 60, 200, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"a\.jp2"):
            read(Jpeg2000Reader.open(path))
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(12, len(data), 4):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        with suppress(InputError):  # nothing else
            read(Jpeg2000Reader.open(path))
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"tiles of 64 x 64 pixels decode to 8,192 bytes each"):
        Jpeg2000Reader.open(
            path, ReadLimits.model_construct(tile_bytes=8000, allocation_bytes=2**20, decompression_ratio=1e6)
        )
    siz = whole.index(b"\xff\x4f\xff\x51") + 4
    path.write_bytes(whole[: siz + 4] + struct.pack(">I", 2**31) + whole[siz + 8 :])
    with pytest.raises(InputError, match=r"tiles, at most|no part of tile"):
        Jpeg2000Reader.open(path)


def test_a_file_that_changes_is_seen(tmp_path: Path) -> None:
    path = Path(make(tmp_path / "a.jp2", pixels((1, 150, 200), "uint16")))
    reader = Jpeg2000Reader.open(path)
    read(reader)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputChanged):
        read(reader)
