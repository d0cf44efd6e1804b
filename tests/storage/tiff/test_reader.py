"""The TIFF reader against tifffile, for drawn layouts, damaged files, and what the tags say."""

from __future__ import annotations

import logging
import math
import os
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.model.errors import InputError
from pipeline.model.raster import array_slices
from pipeline.model.region import Region
from pipeline.storage.tiff import reader as tiff
from pipeline.storage.tiff.layout import RAW_READ_BYTES
from pipeline.storage.tiff.reader import TiffReader
from pipeline.testing.draws import draws
from tests.sources import SHARED

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
PREDICTED = {"uint8": 2, "uint16": 2, "int16": 2, "int32": 2, "float32": 3, "float64": 3}


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the shared data file {path}, which is absent")
    return str(path)


def pixels(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


def write(path: Path, array: np.ndarray, **options: Any) -> str:
    options = {"photometric": "minisblack", "metadata": None} | options
    tifffile.imwrite(path, array, **options)
    return str(path)


def read(reader: TiffReader, region: Region | None = None, bands: list[int] | None = None) -> np.ndarray:
    """Read into a non-contiguous array that is filled with rubbish first."""
    spec = reader.spec.select(None if bands is None else [band + 1 for band in bands])[0]
    region = region or spec.region
    shape = spec.shape_of(region)
    out = np.full((*shape[:-1], shape[-1] * 2), 77, spec.dtype)[..., ::2]
    reader.read(region, out, bands)
    return out


def as_file(reader: TiffReader, path: str) -> np.ndarray:
    """Return the whole raster as tifffile reads it, in our dims."""
    return tifffile.imread(path).reshape(reader.spec.shape)


def draw_region(rng: random.Random, height: int, width: int) -> Region:
    top, bottom = sorted(rng.sample(range(height + 1), 2))
    left, right = sorted(rng.sample(range(width + 1), 2))
    return Region(top, bottom, left, right)


@settings(max_examples=draws(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_regions_equal_tifffile(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    height, width = data.draw(st.integers(2, 90)), data.draw(st.integers(2, 90))
    layout, bands = data.draw(st.sampled_from(["one", "contig", "separate", "pages"])), data.draw(st.integers(2, 4))
    compression = data.draw(st.sampled_from([None, None, "zlib", "lzw", "zstd", "packbits"]))
    options: dict[str, Any] = {
        "compression": compression,
        "byteorder": data.draw(st.sampled_from(["<", ">"])),
        "bigtiff": data.draw(st.booleans()),
    }
    if compression in ("zlib", "zstd") and dtype in PREDICTED and data.draw(st.booleans()):
        options["predictor"] = PREDICTED[dtype]
    if data.draw(st.booleans()):
        options["tile"] = data.draw(st.sampled_from([(16, 16), (32, 16), (16, 48)]))
    else:
        options["rowsperstrip"] = data.draw(st.integers(1, height))
    shape: tuple[int, ...] = (height, width)
    if layout in ("separate", "pages"):
        shape = (bands, *shape)
    elif layout == "contig":
        shape = (*shape, bands)
    if layout in ("separate", "contig"):
        options["planarconfig"] = layout
    path = write(tmp_path / "a.tif", pixels(shape, dtype), **options)

    reader = TiffReader.open(path)
    spec = reader.spec
    assert spec.dims == {"one": ("y", "x"), "contig": ("y", "x", "band")}.get(layout, ("band", "y", "x"))
    assert (spec.shape, spec.dtype) == (shape, np.dtype(dtype))
    assert spec.dtype.isnative
    expected = as_file(reader, path)
    np.testing.assert_array_equal(read(reader), expected)
    rng = random.Random(data.draw(st.integers(0, 999)))
    for _ in range(3):
        region = draw_region(rng, height, width)
        wanted = [rng.randrange(spec.num_bands) for _ in range(rng.randint(1, 4))] if layout != "one" else [0]
        part = expected[array_slices(spec.dims, region)]
        part = np.take(part, wanted, axis=spec.dims.index("band")) if layout != "one" else part
        np.testing.assert_array_equal(read(reader, region, wanted), part)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (pixels((70, 80, 3), "uint8"), {"compression": "jpeg", "tile": (32, 32), "photometric": "rgb"}),
        (pixels((70, 80), "uint8"), {"compression": "jpeg", "rowsperstrip": 16}),
        (pixels((70, 80)), {"compression": "lerc", "tile": (32, 32)}),
        (pixels((70, 80)), {"compression": "lerc", "rowsperstrip": 9, "compressionargs": {"compression": "zstd"}}),
        (pixels((70, 80, 2)), {"compression": "lerc", "rowsperstrip": 9, "planarconfig": "contig"}),
        (pixels((70, 80), "uint16"), {"compression": "jpeg2000", "tile": (32, 32)}),
        (pixels((70, 80, 4), "uint8"), {"compression": "webp", "photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (pixels((70, 83)) > 0, {}),
        (pixels((70, 83)) > 0, {"compression": "zlib", "rowsperstrip": 7}),
        (pixels((70, 80), "int16"), {"extratags": [(317, "H", 1, 2, True)], "rowsperstrip": 7}),
        (pixels((70, 80), "uint8"), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
    ],
    ids=[
        "jpeg-rgb",
        "jpeg",
        "lerc",
        "lerc-zstd",
        "lerc-contig",
        "jpeg2000",
        "webp",
        "bits",
        "bits-zlib",
        "predicted",
        "palette",
    ],
)
def test_further_codecs(tmp_path: Path, array: np.ndarray, options: dict[str, Any]) -> None:
    path = write(tmp_path / "a.tif", array, **options)
    reader = TiffReader.open(path)
    expected = tifffile.imread(path).reshape(reader.spec.shape).astype(reader.spec.dtype)
    np.testing.assert_array_equal(read(reader), expected)
    region = Region(13, 41, 31, 66)
    np.testing.assert_array_equal(read(reader, region), expected[region.slices()])


def test_lerc_mask_is_nan(tmp_path: Path) -> None:
    """tifffile reads a masked pixel as 0; libtiff, which writes NaN that way, as NaN."""
    import imagecodecs

    array, valid = pixels((32, 32)), np.ones((32, 32), bool)
    valid[3:6, 4:9] = False
    blob = bytes(imagecodecs.lerc_encode(array, level=0, masks=valid))
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, iter([blob]), shape=(32, 32), dtype="float32", compression="lerc", tile=(32, 32), metadata=None
    )
    np.testing.assert_array_equal(read(TiffReader.open(str(path))), np.where(valid, array, np.nan))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    original = os.pread

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        counts.append(count)
        return original(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    return counts


def test_only_what_meets_the_region_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pixels((3, 256, 256), "uint8")
    tiles = TiffReader.open(write(tmp_path / "t.tif", array, tile=(64, 64), planarconfig="separate", compression="lzw"))
    counts = count_reads(monkeypatch)
    out = np.zeros((2, 10, 10), np.uint8)
    tiles.read(Region(60, 70, 0, 10), out, [2, 0])
    assert len(counts) == 4  # two tiles of each band, each of them once
    np.testing.assert_array_equal(out, array[[2, 0], 60:70, :10])


@pytest.mark.parametrize("width", [300, 30_000])
def test_big_raw_strip_is_read_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    array = pixels((1200 if width == 300 else 40, width), "float64")
    reader = TiffReader.open(write(tmp_path / "s.tif", array, rowsperstrip=len(array), byteorder=">"))
    counts = count_reads(monkeypatch)
    region = Region(11, 31, 50, 60)
    np.testing.assert_array_equal(read(reader, region), array[region.slices()])
    assert sum(counts) <= 20 * (300 * 8 if width == 300 else 10 * 8)
    assert max(counts) <= RAW_READ_BYTES
    assert reader.chunk == ((436, 300) if width == 300 else (4, 30_000))
    assert reader.describe()["layout"] == f"strips of {len(array)} rows"


def test_chunks(tmp_path: Path) -> None:
    array = pixels((100, 90), "uint8")
    assert TiffReader.open(write(tmp_path / "a.tif", array, rowsperstrip=7)).chunk == (7, 90)
    assert TiffReader.open(write(tmp_path / "b.tif", array, rowsperstrip=7, compression="zstd")).chunk == (7, 90)
    assert TiffReader.open(write(tmp_path / "c.tif", array, tile=(32, 64))).chunk == (32, 64)
    assert TiffReader.open(write(tmp_path / "d.tif", array, tile=(512, 512))).chunk == (100, 90)


def test_missing_segments_are_nodata(tmp_path: Path) -> None:
    blocks = [b"\x05" * 256, b"", b"\x07" * 256, b""]
    for nodata, fill in ((None, 0), ("9", 9), ("300", 0)):
        extra = [(42113, 2, 0, nodata, True)] if nodata else []
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path, iter(blocks), shape=(32, 32), dtype="uint8", tile=(16, 16), metadata=None, extratags=extra
        )
        reader = TiffReader.open(str(path))
        assert (reader._layout.counts == 0).sum() == 2
        np.testing.assert_array_equal(read(reader), np.repeat(np.repeat([[5, fill], [7, fill]], 16, 0), 16, 1))


def test_overviews_and_masks_are_no_bands(tmp_path: Path) -> None:
    array = pixels((64, 64), "uint8")
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
        writer.write(array, **options)
        writer.write(array[::2, ::2], subfiletype=1, **options)
        writer.write(array > 50, subfiletype=4, **options)
        writer.write(array[::4, ::4], subfiletype=1, **options)
        writer.write(array + 1, **options)
        writer.write(array[:8], **options)
    reader = TiffReader.open(str(path))
    facts = reader.describe()
    assert (reader.spec.num_bands, facts["levels"], facts["pages"], facts["planar"]) == (2, 2, 6, "pages")
    assert facts["warnings"] == ["1 of 3 pages are ignored: bands are pages of one sample"]
    np.testing.assert_array_equal(read(reader), [array, array + 1])


def test_subifds_are_no_bands(tmp_path: Path) -> None:
    array = pixels((64, 64, 3), "uint8")
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, photometric="rgb", subifds=1, metadata=None)
        writer.write(array[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    reader = TiffReader.open(str(path))
    assert reader.spec.shape == (64, 64, 3)
    assert reader.describe()["levels"] == 1


def test_describe_and_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.tif", pixels((64, 64)), tile=(32, 16), compression="zlib", predictor=3, bigtiff=True)
    reader = TiffReader.open("a.tif")
    facts = reader.describe()
    assert {key: facts[key] for key in ("format", "codec", "layout", "planar", "byteorder", "pages", "levels")} == {
        "format": "BigTIFF",
        "codec": "deflate",
        "layout": "tiles 32 x 16",
        "planar": "contiguous",
        "byteorder": "little",
        "pages": 1,
        "levels": 0,
    }
    assert facts["warnings"] == []
    assert facts["predictor"] == "floatingpoint"
    identity = reader.identity()
    status = (tmp_path / "a.tif").stat()
    assert identity["path"] == str(tmp_path / "a.tif")
    assert (identity["size"], identity["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert identity == TiffReader.open("a.tif").identity()
    tags = [(42113, 2, 0, "1", True)]
    write(tmp_path / "a.tif", pixels((64, 64)), tile=(32, 16), compression="zlib", predictor=3, extratags=tags)
    assert TiffReader.open("a.tif").identity()["metadata"] != identity["metadata"]


def test_pickles_and_refuses_a_changed_file(tmp_path: Path) -> None:
    array = pixels((64, 64))
    path = write(tmp_path / "a.tif", array, tile=(16, 16), compression="zstd")
    reader = TiffReader.open(path)
    read(reader)
    packed = pickle.dumps(reader)
    assert len(packed) < 1000
    np.testing.assert_array_equal(read(pickle.loads(packed)), array)
    unread = TiffReader.open(path)
    write(tmp_path / "a.tif", array[:32], tile=(16, 16), compression="zstd")
    tiff._reopen.cache_clear()
    with pytest.raises(InputError, match=r"a\.tif: is not as it was when the run began"):
        read(unread)
    with pytest.raises(InputError, match=r"a\.tif: is not as it was when the run began"):
        pickle.loads(packed)


@pytest.mark.parametrize("compression", [None, "zstd", "jpeg"])
def test_threads(tmp_path: Path, compression: str | None) -> None:
    path = write(tmp_path / "a.tif", pixels((400, 400), "uint8"), tile=(32, 32), compression=compression)
    reader = TiffReader.open(path)
    expected = tifffile.imread(path)
    barrier = threading.Barrier(2)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        barrier.wait()
        for _ in range(30):
            region = draw_region(rng, 400, 400)
            np.testing.assert_array_equal(read(reader, region), expected[region.slices()])

    with ThreadPoolExecutor(2) as executor:
        list(executor.map(work, (1, 2)))


def test_empty_region_and_region_outside(tmp_path: Path) -> None:
    reader = TiffReader.open(write(tmp_path / "a.tif", pixels((10, 10))))
    reader.read(Region(3, 3, 0, 10), np.empty((0, 10), np.float32))
    with pytest.raises(ValueError, match="is not inside the raster"):
        reader.read(Region(0, 11, 0, 10), np.empty((11, 10), np.float32))


# --- georeference, nodata, names --------------------------------------------------------------------------------


def geokeys(**keys: int) -> tuple[int, str, int, tuple[int, ...], bool]:
    values = [1, 1, 0, len(keys)]
    for key, value in sorted(keys.items()):
        values += [int(key[1:]), 0, 1, value]
    return (34735, "H", len(values), tuple(values), True)


SCALE = (33550, "d", 3, (10.0, 20.0, 0.0), True)
TIEPOINT = (33922, "d", 6, (0.0, 0.0, 0.0, 1000.0, 5000.0, 0.0), True)
MATRIX = (34264, "d", 16, (2.0, 1.0, 0.0, 100.0, 1.0, -2.0, 0.0, 200.0, *[0.0] * 7, 1.0), True)


def opened(tmp_path: Path, *tags: Any, dtype: str = "uint8", bands: int = 1) -> TiffReader:
    shape = (8, 8) if bands == 1 else (8, 8, bands)
    return TiffReader.open(
        write(tmp_path / "a.tif", pixels(shape, dtype), extratags=list(tags), planarconfig="contig")
        if bands > 1
        else write(tmp_path / "a.tif", pixels(shape, dtype), extratags=list(tags))
    )


@pytest.mark.parametrize(
    ("tags", "transform", "crs"),
    [
        ([], None, None),
        ([SCALE, TIEPOINT], (10, 0, 1000, 0, -20, 5000), None),
        ([SCALE, TIEPOINT, geokeys(k1024=1, k1025=1, k3072=32618)], (10, 0, 1000, 0, -20, 5000), "EPSG:32618"),
        ([SCALE, TIEPOINT, geokeys(k1024=2, k1025=2, k2048=4326)], (10, 0, 995, 0, -20, 5010), "EPSG:4326"),
        ([SCALE, (*TIEPOINT[:3], (2.0, 3.0, 0, 1000.0, 5000.0, 0), True)], (10, 0, 980, 0, -20, 5060), None),
        ([MATRIX], (2, 1, 100, 1, -2, 200), None),
        ([MATRIX, geokeys(k1025=2, k2048=4258, k3072=3035)], (2, 1, 98.5, 1, -2, 200.5), "EPSG:3035"),
    ],
)
def test_georeference(tmp_path: Path, tags: list[Any], transform: Any, crs: str | None) -> None:
    reader = opened(tmp_path, *tags)
    assert (reader.spec.transform, reader.spec.crs) == (transform, crs)
    assert reader.describe()["warnings"] == []


@pytest.mark.parametrize(
    ("tags", "warning"),
    [
        ([geokeys(k1024=1, k2048=4326, k3072=32767)], r"left out: .*key 3072 is 32767"),
        ([geokeys(k1024=1, k2048=4326)], "key 3072 is missing"),
        ([(33922, "d", 12, (0.0,) * 12, True)], "ground control points"),
        ([(*MATRIX[:3], (0.0,) * 16, True)], "cannot be inverted"),
        ([(33550, "d", 3, (math.nan, 1.0, 0.0), True), TIEPOINT], "cannot be inverted"),
    ],
)
def test_unusable_georeference(tmp_path: Path, tags: list[Any], warning: str) -> None:
    reader = opened(tmp_path, *tags)
    assert (reader.spec.transform, reader.spec.crs) == (None, None)
    [found] = reader.describe()["warnings"]
    with pytest.raises(AssertionError, match=warning):
        raise AssertionError(found)


def test_negative_scale_is_north_up(tmp_path: Path) -> None:
    reader = opened(tmp_path, (33550, "d", 3, (10.0, -20.0, 0.0), True), TIEPOINT)
    assert reader.spec.transform == (10, 0, 1000, 0, -20, 5000)
    assert "north up" in reader.describe()["warnings"][0]


@pytest.mark.parametrize(
    ("dtype", "text", "nodata"),
    [
        ("uint8", "0", 0),
        ("uint8", "255.0", 255),
        ("uint8", "-9999", None),
        ("uint8", "1.5", None),
        ("uint8", "nan", None),
        ("int16", "-9999 ", -9999),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("float32", "nan", math.nan),
        ("float32", "0.1", float(np.float32(0.1))),
        ("float32", "-3.4028234663852886e+38", float(np.finfo("float32").min)),
        ("float32", "-3.4e+38", float(np.float32(-3.4e38))),
        ("float32", "-1.7976931348623157e+308", None),
        ("float64", "-1.7976931348623157e+308", float(np.finfo("float64").min)),
        ("float64", "-inf", -math.inf),
        ("float32", "none", None),
        ("float32", "1.#INF", math.inf),
        ("float64", "-1.#INF00", -math.inf),
        ("float32", "-1.#IND", math.nan),
        ("float32", "1.#QNAN", math.nan),
        ("float32", "-nan(ind)", math.nan),
        ("float32", "1" + "0" * 400, None),
        ("uint8", "1" + "0" * 400, None),
    ],
)
def test_nodata(tmp_path: Path, dtype: str, text: str, nodata: float | None) -> None:
    reader = opened(tmp_path, (42113, 2, 0, text, True), dtype=dtype)
    found = reader.spec.nodata
    assert found == nodata or (math.isnan(nodata or 0) and math.isnan(found or 0))
    assert type(found) is type(nodata)
    facts = reader.describe()
    assert facts["recorded_nodata"] == text.strip()
    assert (nodata is None) == any(f"{text.strip()!r} is ignored: {dtype}" in line for line in facts["warnings"])


def metadata(*items: str) -> tuple[int, int, int, str, bool]:
    return (42112, 2, 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>", True)


def item(name: str, sample: int, text: object) -> str:
    return f'<Item name="{name}" sample="{sample}" role="{name.lower()}">{text}</Item>'


def test_band_names(tmp_path: Path) -> None:
    named = opened(tmp_path, metadata(item("DESCRIPTION", 0, "red"), item("DESCRIPTION", 2, "nir")), bands=3)
    assert named.spec.bands == ("red", "b2", "nir")
    same = opened(tmp_path, metadata(item("DESCRIPTION", 0, "b2")), bands=3)
    assert same.spec.bands == ("b1", "b2", "b3")
    assert "not unique" in same.describe()["warnings"][0]


def test_band_names_of_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for name in ("red", "nir"):
            extra = [metadata(item("DESCRIPTION", 0, name))]
            writer.write(pixels((8, 8)), photometric="minisblack", metadata=None, extratags=extra)
    assert TiffReader.open(str(path)).spec.bands == ("red", "nir")


def test_scale(tmp_path: Path) -> None:
    def scale(*items: str) -> tuple[float, float] | None:
        return opened(tmp_path, metadata(*items), bands=2).scale

    assert scale() is None
    assert scale(*(item("SCALE", i, 1) + item("OFFSET", i, 0) for i in range(2))) is None
    assert scale(*(item("SCALE", i, 0.1) + item("OFFSET", i, -5) for i in range(2))) == (0.1, -5)
    assert scale(item("SCALE", 0, 0.1)) is None
    assert scale(item("SCALE", 0, "x"), item("SCALE", 1, "x")) is None


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('<!DOCTYPE a [<!ENTITY b "red">]><a><Item name="DESCRIPTION" sample="0">&b;</Item></a>', "document type"),
        ("<GDALMetadata><Item", "not XML"),
    ],
)
def test_unsafe_or_broken_metadata(tmp_path: Path, text: str, warning: str) -> None:
    reader = opened(tmp_path, (42112, 2, 0, text, True))
    assert reader.spec.bands == ("b1",)
    assert warning in reader.describe()["warnings"][0]


# --- what is refused --------------------------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    empty, text, short = tmp_path / "empty.tif", tmp_path / "text.tif", tmp_path / "short.tif"
    empty.write_bytes(b"")
    text.write_text("no TIFF, but of some length" * 9)
    short.write_bytes(b"II*\0")
    for path, message in {
        tmp_path / "none.tif": "no such file",
        tmp_path: "is not a file",
        empty: r"is empty \(0 bytes\); copy it again",
        text: "is not a TIFF file; check the path",
        short: "is not a readable TIFF file",
    }.items():
        with pytest.raises(InputError, match=f"{path}: {message}"):
            TiffReader.open(str(path))


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        ("complex64", {}, "samples of 64 bits, format COMPLEXIEEEFP, are not supported"),
        ("uint8", {"volumetric": True}, r"volume \(ImageDepth 3\)"),
    ],
)
def test_unsupported_kinds(tmp_path: Path, dtype: str, options: dict[str, Any], message: str) -> None:
    shape = (3, 16, 16) if "volumetric" in options else (16, 16)
    path = write(tmp_path / "a.tif", np.ones(shape, dtype), **options)
    with pytest.raises(InputError, match=message):
        TiffReader.open(path)


def patch(path: str, code: int, value: int) -> None:
    """Overwrite the value of a tag in place."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags[code].overwrite(value)


def test_unknown_codec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels((16, 16)))
    patch(path, 259, 34712 + 999)
    with pytest.raises(InputError, match=r"compression 35711 cannot be decoded: .*COMPRESS=ZSTD"):
        TiffReader.open(path)


def test_giant_segments(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels((1, 1), "uint8"), tile=(16, 16), compression="zlib")
    patch(path, 322, 2**20)
    patch(path, 323, 2**20)
    with pytest.raises(InputError, match=r"tiles of 1048576 x 1048576 pixels decode to 1,099,511,627,776 bytes"):
        TiffReader.open(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated(tmp_path: Path, compression: str | None) -> None:
    path = write(tmp_path / "a.tif", pixels((64, 64)), rowsperstrip=16, compression=compression)
    size = os.path.getsize(path)
    os.truncate(path, size - 100)
    with pytest.raises(InputError, match=rf"strip 3 ends at byte {size}.*file at byte {size - 100}: it is truncated"):
        TiffReader.open(path)


@pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**62])
@pytest.mark.parametrize("codes", [(273,), (279,), (273, 279)])
def test_absurd_offsets(tmp_path: Path, value: int, codes: tuple[int, ...]) -> None:
    """Their sum wraps around in 64 bits; it must not pass for one inside the file."""
    path = write(tmp_path / "a.tif", pixels((64, 64)), compression="zlib", rowsperstrip=64, bigtiff=True)
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages.first.tags[code].offset for code in codes]
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place + 2)
            file.write((16).to_bytes(2, "little") + (1).to_bytes(8, "little") + value.to_bytes(8, "little"))
    with pytest.raises(InputError, match=r"strip 0 ends at byte .*truncated"):
        TiffReader.open(path)


def test_truncated_while_open(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels((64, 64)), rowsperstrip=16)
    reader = TiffReader.open(path)
    reader.read(Region(0, 1, 0, 64), np.empty((1, 64), np.float32))
    os.truncate(path, os.path.getsize(path) - 100)
    with pytest.raises(InputError, match="is not as it was when the run began"):
        read(reader)


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lerc", "jpeg"])
def test_damaged_segment(tmp_path: Path, compression: str) -> None:
    array = pixels((2, 64, 64), "uint8")
    path = write(tmp_path / "a.tif", array, tile=(32, 32), compression=compression, planarconfig="separate")
    reader = TiffReader.open(path)
    offset, count = int(reader._layout.offsets[1, 2]), int(reader._layout.counts[1, 2])
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xee" * min(60, count))
    reader = TiffReader.open(path)
    with pytest.raises(InputError, match=rf"{path}: tile 2 of band 2 is damaged: .*copy"):
        read(reader)
    read(reader, Region(0, 32, 0, 64))


def test_loop_of_directories(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(120):
            writer.write(pixels((4, 4), "uint8"), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        offsets = [page.offset for page in tif.pages]
        tagno = len(tif.pages.first.tags)
    with open(path, "r+b") as file:
        file.seek(offsets[119] + 2 + 12 * tagno)
        file.write(offsets[110].to_bytes(4, "little"))
    reader = TiffReader.open(str(path))
    assert reader.spec.num_bands == 120
    assert "leads back to an earlier one" in reader.describe()["warnings"][0]


def test_tifffile_logs_stay_off_stderr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.tif", pixels((16, 16)), rowsperstrip=4)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags[279]
        place = tag.offset + 4
    with open(path, "r+b") as file:
        file.seek(place)
        file.write((3).to_bytes(4, "little"))
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="lists 3 strips or tiles, 4 are due"):
        TiffReader.open(path)
    assert caplog.records == []


FUZZED: tuple[dict[str, Any], ...] = (
    {"rowsperstrip": 5},
    {"tile": (16, 16), "compression": "zlib", "predictor": 2, "bigtiff": True},
    {"rowsperstrip": 9, "compression": "lzw", "byteorder": ">", "planarconfig": "contig"},
)


@pytest.mark.parametrize("options", FUZZED, ids=["raw", "zlib", "lzw"])
def test_mutated_headers(tmp_path: Path, options: dict[str, Any]) -> None:
    """Whatever a damaged header says, the outcome is a raster or an InputError."""
    shape = (40, 30, 3) if "planarconfig" in options else (40, 30)
    tags = [SCALE, TIEPOINT, geokeys(k1024=1, k3072=32618), (42113, 2, 0, "0", True)]
    tags.append(metadata(item("DESCRIPTION", 0, "red")))
    original = Path(write(tmp_path / "a.tif", pixels(shape, "uint16"), extratags=tags, **options)).read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        header = min(min(tif.pages.first.dataoffsets), 700)
    rng = random.Random(1)
    path = tmp_path / "b.tif"
    refused = 0
    for _ in range(250):
        mutated = bytearray(original)
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutated[rng.randrange(header)] = rng.choice([0, 1, 2, 3, 127, 128, 255, rng.randrange(256)])
        path.write_bytes(mutated)
        message = refusal(str(path))
        assert message is None or message.startswith(f"{path}: ")
        refused += message is not None
    assert 20 < refused < 250


def refusal(path: str) -> str | None:
    """Open and read a file; return the text of the InputError, if that is what comes of it."""
    try:
        reader = TiffReader.open(path)
        if reader.spec.num_bands * reader.spec.region.num_pixels < 10**6:
            read(reader)
    except InputError as error:
        return str(error)
    return None


# --- real files -------------------------------------------------------------------------------------------------


def test_shared_rgb() -> None:
    path = shared("RGB.byte.tif")
    reader = TiffReader.open(path)
    spec = reader.spec
    assert (spec.shape, spec.dtype.name, spec.nodata, spec.crs) == ((718, 791, 3), "uint8", 0, "EPSG:32618")
    assert spec.transform == pytest.approx((300.0379266750948, 0, 101985, 0, -300.041782729805, 2826915))
    assert reader.describe()["layout"] == "strips of 3 rows"
    assert reader.chunk == (3, 791)
    np.testing.assert_array_equal(read(reader), tifffile.imread(path))
    np.testing.assert_array_equal(read(reader, bands=[2, 0]), tifffile.imread(path)[..., [2, 0]])


def test_shared_float() -> None:
    path = shared("float_raster_with_nodata.tif")
    reader = TiffReader.open(path)
    assert (reader.spec.shape, reader.spec.dtype.name) == ((12, 13), "float32")
    assert reader.spec.nodata == float(np.float32(-3.4e38))
    assert reader.spec.crs is not None
    assert "Lambert Azimuthal Equal Area" in reader.spec.crs
    assert reader.describe()["warnings"] == []
    np.testing.assert_array_equal(read(reader), tifffile.imread(path))
