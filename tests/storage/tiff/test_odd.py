"""TIFF files as no library writes them, made by hand: what libtiff makes of them, or a clear refusal."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import api
from pipeline.model.errors import InputError
from pipeline.storage.tiff.reader import TiffReader
from pipeline.testing.draws import draws
from tests.tiff_bytes import page, write_pages, write_tiff

CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: imagecodecs.packbits_encode,
    34925: lzma.compress,
    50000: imagecodecs.zstd_encode,
}
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
PREDICTED = (5, 8, 34925, 50000)
HEIGHT, WIDTH = 20, 31


def pixels(dtype: str = "uint8", top: int = 256) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(HEIGHT, WIDTH)).astype(dtype)
    return rng.integers(0, top, (HEIGHT, WIDTH)).astype(dtype)


def differences(values: np.ndarray) -> np.ndarray:
    """Return what the horizontal predictor makes of pixels: of their bits as whole numbers."""
    bits = values.view(f"u{values.itemsize}")
    return np.diff(bits, axis=1, prepend=bits[:, :1] * 0)


def strips(values: np.ndarray, rows: int, codec: int, order: str = "<") -> list[bytes]:
    stored = values.astype(values.dtype.newbyteorder(order))
    return [CODECS[codec](stored[i : i + rows].tobytes()) for i in range(0, len(values), rows)]


def read(path: str) -> tuple[np.ndarray, list[str]]:
    reader = TiffReader.open(path)
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    return out, reader.describe()["warnings"]


def libtiff(path: str) -> np.ndarray:
    """Return the first band as GDAL reads it."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    with rasterio.open(path) as file:
        band: np.ndarray = file.read(1)
    return band


# --- predictors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [1, 32773])
def test_a_predictor_where_the_codec_has_none_is_ignored(tmp_path: Path, codec: int) -> None:
    values = pixels()
    path = write_tiff(
        tmp_path / "a.tif", WIDTH, HEIGHT, strips(values, 7, codec), t259=(3, [codec]), t278=(4, [7]), t317=(3, [2])
    )
    found, warnings = read(path)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(libtiff(path), values)
    assert "the Predictor tag (2) is ignored, as GDAL does" in warnings[0]


def test_the_predictor_that_tifffile_writes_with_packbits_is_undone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"compression": "packbits", "predictor": True, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", pixels(), **options)
    found, warnings = read(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(found, pixels())
    assert "the predictor is undone: tifffile wrote the file" in warnings[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codec", PREDICTED)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float16", "float32", "float64"])
def test_differences_are_of_the_bits_also_of_floats(tmp_path: Path, dtype: str, codec: int, order: str) -> None:
    values = pixels(dtype)
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {"t258": (3, [8 * values.itemsize]), "t339": (3, [kind]), "t259": (3, [codec]), "t317": (3, [2])}
    path = write_tiff(
        tmp_path / "a.tif", WIDTH, HEIGHT, strips(differences(values), 7, codec, order), order, t278=(4, [7]), **tags
    )
    np.testing.assert_array_equal(read(path)[0], values)
    np.testing.assert_array_equal(libtiff(path), values)


@pytest.mark.parametrize("codec", PREDICTED)
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"t317": (3, [3])}, "Predictor is 3, which is for floating point, and its samples are uint8"),
        ({"t317": (3, [2]), "t258": (3, [4])}, "Predictor is 2, which is for whole bytes, and its samples have 4 bits"),
    ],
)
def test_predictors_that_are_not_of_the_samples_are_refused(
    tmp_path: Path, codec: int, tags: dict[str, Any], message: str
) -> None:
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, strips(pixels(), HEIGHT, codec), t259=(3, [codec]), **tags)
    with pytest.raises(InputError, match=message):
        api.info(path)


# --- strips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_last_strip_may_be_filled_up(tmp_path: Path, codec: int, dtype: str) -> None:
    values = pixels(dtype)
    padded = np.pad(values, ((0, 12), (0, 0)))
    for rows, stored in ((7, padded[:21]), (32, padded)):
        path = write_tiff(
            tmp_path / "a.tif",
            WIDTH,
            HEIGHT,
            strips(stored, rows, codec),
            t258=(3, [8 * values.itemsize]),
            t339=(3, [3 if dtype == "float32" else 1]),
            t259=(3, [codec]),
            t278=(4, [rows]),
        )
        np.testing.assert_array_equal(read(path)[0], values)
        np.testing.assert_array_equal(libtiff(path), values)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [2**32 - 1, None])
def test_rows_of_strips_without_end(tmp_path: Path, codec: int, rows: int | None) -> None:
    entry = None if rows is None else (4, [rows])
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, strips(pixels(), 20, codec), t259=(3, [codec]), t278=entry)
    np.testing.assert_array_equal(read(path)[0], pixels())
    np.testing.assert_array_equal(libtiff(path), pixels())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [5, 20])
@pytest.mark.parametrize("listed", ["missing", "zero"])
def test_counts_that_lack_are_estimated(tmp_path: Path, codec: int, rows: int, listed: str) -> None:
    stored = strips(pixels(), rows, codec)
    counts = None if listed == "missing" else (4, [0] * len(stored))
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, stored, t259=(3, [codec]), t278=(4, [rows]), t279=counts)
    found, warnings = read(path)
    np.testing.assert_array_equal(found, pixels())
    assert any("are missing or 0, and estimated" in text for text in warnings) == (codec != 1)
    if rows == 20:  # of several, GDAL refuses the file or fills what lacks with zeros
        np.testing.assert_array_equal(libtiff(path), pixels())


@pytest.mark.parametrize("codec", CODECS)
def test_too_few_counts_are_refused(tmp_path: Path, codec: int) -> None:
    stored = strips(pixels(), 5, codec)
    counts = [len(strip) for strip in stored[:2]]
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, stored, t259=(3, [codec]), t279=(4, counts))
    with pytest.raises(InputError, match="lists 2 strips or tiles, 4 are due: it is damaged"):
        api.info(path)


def test_strips_that_are_left_out_are_nodata(tmp_path: Path) -> None:
    stored = strips(pixels(), 5, 8)
    path = write_tiff(
        tmp_path / "a.tif",
        WIDTH,
        HEIGHT,
        stored,
        t259=(3, [8]),
        t273=(4, [8, 0, 0, 0]),
        t279=(4, [len(stored[0]), 0, 0, 0]),
    )
    np.testing.assert_array_equal(read(path)[0][:5], pixels()[:5])
    assert not read(path)[0][5:].any()


@pytest.mark.parametrize("kind", [1, 6, 8, 9, 16])
def test_counts_of_odd_whole_types(tmp_path: Path, kind: int) -> None:
    stored = strips(pixels(), 1, 8)
    path = write_tiff(
        tmp_path / "a.tif", WIDTH, HEIGHT, stored, t259=(3, [8]), t279=(kind, [len(strip) for strip in stored])
    )
    np.testing.assert_array_equal(read(path)[0], pixels())


@pytest.mark.parametrize("kind", [5, 11, 12])
def test_counts_of_no_whole_numbers_are_refused_at_once(tmp_path: Path, kind: int) -> None:
    stored = strips(pixels(), 5, 8)
    counts = [number for strip in stored for number in ([len(strip), 1] if kind == 5 else [len(strip)])]
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, stored, t259=(3, [8]), t279=(kind, counts))
    with pytest.raises(InputError, match=r"StripByteCounts is of type (RATIONAL|FLOAT|DOUBLE), no whole numbers"):
        api.info(path)


# --- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("fill_order", [1, 2])
def test_samples_of_a_few_bits(tmp_path: Path, codec: int, bits: int, fill_order: int) -> None:
    values = pixels(top=2**bits)
    unpacked = np.unpackbits(values[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
    rows = [np.packbits(row).tobytes() for row in unpacked]
    stored = [CODECS[codec](b"".join(rows[i : i + 7])) for i in range(0, HEIGHT, 7)]
    if fill_order == 2:
        stored = [imagecodecs.bitorder_encode(strip) for strip in stored]
    tags = {"t258": (3, [bits]), "t259": (3, [codec]), "t278": (4, [7]), "t266": (3, [fill_order])}
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, stored, **tags)
    np.testing.assert_array_equal(read(path)[0], values)
    np.testing.assert_array_equal(libtiff(path), values)


@pytest.mark.parametrize("codec", [1, 5, 8, 32773])
def test_colours_that_are_differences_are_refused(tmp_path: Path, codec: int) -> None:
    values = np.zeros((HEIGHT, WIDTH * 3), "uint8")
    tags = {"t258": (3, [8, 8, 8]), "t277": (3, [3]), "t262": (3, [6]), "t530": (3, [1, 1]), "t259": (3, [codec])}
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, strips(values, 20, codec), **tags)
    with pytest.raises(InputError, match=r"luminance and differences of colour \(YCbCr, .*\), not red, green and blue"):
        api.info(path)


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_jpegs_of_single_bands(tmp_path: Path, photometric: str) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    values = np.stack([np.add.outer(np.arange(48), np.arange(64)) * k for k in (1, 2, 1)]).astype("uint8")
    options: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 16, "photometric": photometric}
    options |= {"width": 64, "height": 48, "count": 3, "dtype": "uint8", "compress": "jpeg", "interleave": "band"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **options) as file:
        file.write(values)
    found, _ = read(str(tmp_path / "a.tif"))
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(found, file.read())


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 8])
def test_an_orientation_is_said(tmp_path: Path, orientation: int) -> None:
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, strips(pixels(), 20, 1), t274=(3, [orientation]))
    found, warnings = read(path)
    np.testing.assert_array_equal(found, pixels())
    np.testing.assert_array_equal(libtiff(path), pixels())
    assert warnings[0].startswith(f"Orientation is {orientation} and not 1")
    assert read(write_tiff(tmp_path / "b.tif", WIDTH, HEIGHT, strips(pixels(), 20, 1), t274=(3, [1])))[1] == []


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "num_bands"),
    [
        ({}, {}, 2),
        ({"t33922": (12, [0, 0, 0, 500, 900, 0])}, {"t33922": (12, [0, 0, 0, 500, 900, 0])}, 2),
        ({"t33922": (12, [0, 0, 0, 500, 900, 0]), "t42113": (2, b"0\0")}, {}, 2),
        ({"t42113": (2, b"0\0")}, {"t42113": (2, b"0.0\0")}, 2),
        ({"t33922": (12, [0, 0, 0, 500, 900, 0])}, {"t33922": (12, [0, 0, 0, 600, 900, 0])}, 1),
        ({}, {"t33922": (12, [0, 0, 0, 600, 900, 0])}, 1),
        ({"t42113": (2, b"0\0")}, {"t42113": (2, b"255\0")}, 1),
    ],
)
def test_pages_of_another_place_or_nodata_are_no_bands(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], num_bands: int
) -> None:
    scale = {"t33550": (12, [10, 10, 0])}
    pages = [
        page(WIDTH, HEIGHT, strips(pixels(), 20, 1), {**tags, **(scale if "t33922" in tags else {})})
        for tags in (first, second)
    ]
    reader = TiffReader.open(write_pages(tmp_path / "a.tif", pages))
    assert reader.spec.num_bands == num_bands
    said = "1 of 2 pages are ignored: bands are pages of one sample, one place and one nodata value"
    assert any(said in text for text in reader.describe()["warnings"]) == (num_bands == 1)


def test_a_truncated_stack_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"photometric": "minisblack", "truncate": True}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 20, 30), "uint8"), **options)
    with pytest.raises(InputError, match=r"5 images of shape \[5, 20, 30\] behind one directory"):
        TiffReader.open(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", pixels(), **options)
    np.testing.assert_array_equal(read(str(tmp_path / "b.tif"))[0], pixels())


def test_old_jpeg_with_tables_apart_is_refused(tmp_path: Path) -> None:
    tags = {"t259": (3, [6]), "t519": (4, [8]), "t520": (4, [8]), "t521": (4, [8])}
    path = write_tiff(tmp_path / "a.tif", WIDTH, HEIGHT, [bytes(64)], **tags)
    with pytest.raises(InputError, match="old-style JPEG with its tables apart"):
        api.info(path)


# --- drawn -------------------------------------------------------------------------------------------------------


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_files_are_read_as_by_libtiff_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Draw any tags with any strips, also those that do not fit: what GDAL reads are our pixels, or it is said."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    height, width, order = (
        data.draw(st.integers(1, 24)),
        data.draw(st.integers(1, 24)),
        data.draw(st.sampled_from("<>")),
    )
    codec, rows = data.draw(st.sampled_from(sorted(CODECS))), data.draw(st.integers(1, 26))
    kind, bits = data.draw(
        st.sampled_from([(1, 8), (1, 16), (2, 16), (2, 32), (1, 64), (3, 16), (3, 32), (3, 64), (1, 4), (1, 1)])
    )
    predictor, fill_order = data.draw(st.sampled_from([None, 1, 2, 3])), data.draw(st.sampled_from([None, 1, 2]))
    samples, orientation = data.draw(st.sampled_from([1, 1, 3])), data.draw(st.sampled_from([None, 1, 3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    padded = height + (-height % rows if data.draw(st.booleans()) else 0)
    row_bytes = -(-width * samples * bits // 8)
    stored = rng.integers(0, 120, (padded, row_bytes), dtype="uint8")  # no NaN, whatever the format
    pieces = [CODECS[codec](stored[top : top + rows].tobytes()) for top in range(0, padded, rows)]
    if fill_order == 2:
        pieces = [imagecodecs.bitorder_encode(piece) for piece in pieces]
    entry = {"t317": predictor, "t266": fill_order, "t274": orientation}
    tags: dict[str, Any] = {key: (3, [value]) for key, value in entry.items() if value is not None}
    tags |= {"t258": (3, [bits] * samples), "t339": (3, [kind] * samples), "t277": (3, [samples])}
    counts = data.draw(st.sampled_from(["right", "right", "zero", "missing"]))
    if counts != "right":
        tags["t279"] = None if counts == "missing" else (4, [0] * len(pieces))
    path = write_tiff(
        tmp_path_factory.mktemp("drawn") / "a.tif",
        width,
        height,
        pieces,
        order,
        t259=(3, [codec]),
        t278=(4, [rows]),
        **tags,
    )
    try:
        with rasterio.open(path) as file:
            expected = file.read()
    except rasterio.errors.RasterioError:
        expected = None
    try:
        found, warnings = read(path)
    except InputError:
        assert expected is None or counts != "right"
        return
    if expected is None or (counts != "right" and len(pieces) > 1):  # GDAL takes what has no bytes for empty
        return
    planes = found[np.newaxis] if found.ndim == 2 else np.moveaxis(found, -1, 0)
    np.testing.assert_array_equal(planes, expected.astype(found.dtype))
    assert (predictor in (2, 3) and codec not in PREDICTED) == any("Predictor tag" in text for text in warnings)
    assert (orientation == 3) == any("Orientation is 3" in text for text in warnings)
