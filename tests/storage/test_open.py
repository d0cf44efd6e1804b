"""Inputs as the pipeline file describes them, and the cache of decoded chunks that blocks share."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import api
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import RasterSpec, array_slices, grid_difference
from pipeline.model.region import Axis, Grid, Halo, Region
from pipeline.planning.touches import Touches
from pipeline.storage.cache import CachedReader, ChunkCache
from pipeline.storage.compose import open_input
from pipeline.storage.driver import FORMATS
from pipeline.storage.input import Choice, Input
from pipeline.storage.open import local_paths, open_raster
from pipeline.storage.reader import Evidence, Reader
from pipeline.storage.tiff.descriptor import Descriptor, Descriptors
from pipeline.testing import strategy
from pipeline.testing.draws import draws
from tests import harness
from tests.georeference import UTM, WKT, geo_text
from tests.zarr_files import group, pixels, read, write

DRAWN = settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))


def open_as(*paths: str, **options: Any) -> Reader:
    """Open an input, and check that it survives a pickle and describes itself in JSON."""
    source = {"stack": paths} if len(paths) > 1 else {"path": paths[0]}
    reader = open_input(Input(**source, **options))
    json.dumps([reader.identity(), reader.describe()])
    copy: Reader = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(read(copy), read(reader))
    return reader


def tiff(path: Path, values: np.ndarray, **options: Any) -> str:
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **options)
    return str(path)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, np.ndarray]:
    values = pixels((8, 9, 4), "int16")
    values[0, 0, 1] = -1
    path = group(
        tmp_path / "scene.zarr",
        image=(("y", "x", "band"), values, {"missing_value": -1, "scale_factor": 0.1, "add_offset": -2.0}),
        band=(("band",), ["B02", "B03", "B04", "B08"]),
        y=(("y",), np.arange(8) * -10.0 + 95),
        x=(("x",), np.arange(9) * 10.0 + 5),
    )
    return path, values


def test_numbers_that_are_names_and_positions(tmp_path: Path) -> None:
    values = pixels((3, 8, 9))
    path = group(tmp_path / "a.zarr", image=(("band", "y", "x"), values), band=(("band",), [4, 3, 2]))
    reader = open_as(path, bands=("2", "4"))
    np.testing.assert_array_equal(read(reader), values[[2, 0]])
    with pytest.raises(PipelineError, match=r"2 is the name of a band, and the band at position 2 is called '3'"):
        open_as(path, bands=(2,))
    np.testing.assert_array_equal(read(open_as(path, bands=(1,))), values[:1])  # no band is called 1
    api.convert(path, str(tmp_path / "b.zarr"), quiet=True)
    assert open_as(str(tmp_path / "b.zarr")).spec.bands == ("4", "3", "2")


def test_files_of_one_name_make_bands_without_names(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tiff(tmp_path / folder / "B02.tif", pixels((8, 9), "uint8")))
    reader = open_as(*paths)
    assert reader.spec.bands == ("b1", "b2")
    assert reader.describe()["warnings"] == ["the band names are ignored: they are not unique (B02, B02)"]


# --- bands, nodata, scale --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bands", "indices"),
    [((1,), [0]), ((4, 3, 2), [3, 2, 1]), (("B08", 1), [3, 0]), ((2, 3), [1, 2]), ((1, 1), [0, 0])],
)
def test_bands_by_position_and_by_name(scene: Any, bands: tuple[Any, ...], indices: list[int]) -> None:
    path, values = scene
    reader = open_as(path, bands=bands)
    assert reader.spec.bands == tuple(("B02", "B03", "B04", "B08")[i] for i in indices)
    np.testing.assert_array_equal(read(reader), values[..., indices])
    np.testing.assert_array_equal(read(reader, Region(1, 3, 4, 9), [len(indices) - 1]), values[1:3, 4:, indices[-1:]])


def test_bands_that_do_not_exist(scene: Any) -> None:
    with pytest.raises(PipelineError, match="band 5 does not exist: the raster has 4"):
        open_as(scene[0], bands=(5,))
    with pytest.raises(PipelineError, match="unknown band 'B8'; did you mean 'B08'"):
        open_as(scene[0], bands=("B8",))


def test_the_bands_of_a_raster_without_a_band_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", pixels((4, 5)))
    np.testing.assert_array_equal(read(open_as(path, bands=(1,))), pixels((4, 5)))


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("int16", None, -1),
        ("int16", "none", None),
        ("int16", -7, -7),
        ("int16", 3.0, 3),
        ("float32", "nan", math.nan),
        ("float32", 0.1, float(np.float32(0.1))),
        ("float32", "none", None),
    ],
)
def test_nodata_of_the_pipeline_file(tmp_path: Path, dtype: str, nodata: Any, expected: Any) -> None:
    path = write(tmp_path / "a.zarr", pixels((4, 5), dtype), attributes={"missing_value": -1})
    reader = open_as(path, nodata=nodata)
    assert repr(reader.spec.nodata) == repr(expected)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -1), ("uint8", 0.5), ("int16", "nan"), ("float16", 1e6)])
def test_nodata_that_cannot_occur_is_refused(tmp_path: Path, dtype: str, nodata: Any) -> None:
    path = write(tmp_path / "a.zarr", pixels((4, 5), dtype))
    with pytest.raises(PipelineError, match=rf"nodata {nodata} cannot occur in {dtype} pixels"):
        open_as(path, nodata=nodata)


def test_scale_is_ignored_aloud_or_applied_or_replaced(scene: Any, tmp_path: Path) -> None:
    path, values = scene
    ignored = open_as(path)
    assert (ignored.spec.dtype, ignored.scale) == (np.dtype("int16"), (0.1, -2.0))
    applied, replaced = open_as(path, scale="apply"), open_as(path, scale={"factor": 2.0, "offset": 0.5}, bands=(2,))
    expected = (values * 0.1 - 2.0).astype("float32")
    expected[0, 0, 1] = np.nan
    assert applied.spec.dtype == np.float32
    assert math.isnan(applied.spec.nodata or 0)
    assert applied.scale is None
    np.testing.assert_array_equal(read(applied), expected)
    np.testing.assert_array_equal(read(replaced)[1:, 1:, 0], (values * 2.0 + 0.5)[1:, 1:, 1])
    notes = api.plan(harness.document(path, [{"name": "s", "op": "window", "size": 3}], tmp_path / "out.zarr"))["notes"]
    assert any("records scale 0.1 and offset -2; they are ignored (`scale: apply` uses them)" in note for note in notes)


def test_scaling_rounds_once(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (30, 40), "uint16")
    reader = open_as(write(tmp_path / "a.zarr", values), scale={"factor": 1.0001, "offset": -30000.0})
    assert harness.same_bits(read(reader), (values * 1.0001 - 30000.0).astype("float32"))
    assert np.isinf(
        read(open_as(write(tmp_path / "b.zarr", values.astype("float32")), scale={"factor": 1e300, "offset": 0.0}))
    ).all()


# --- several stores as one raster ------------------------------------------------------------------------------


def test_stacks_of_stores_tiffs_and_arrays(tmp_path: Path) -> None:
    planes = [pixels((8, 9), "uint16", seed) for seed in range(3)]
    zarrs = [write(tmp_path / f"B0{i}.zarr", plane) for i, plane in enumerate(planes)]
    tiffs = [tiff(tmp_path / f"B0{i}.tif", plane) for i, plane in enumerate(planes)]
    store = group(tmp_path / "all.zarr", **{f"B0{i}": (("y", "x"), plane) for i, plane in enumerate(planes)})
    one_band = write(tmp_path / "B00.axis.zarr", planes[0][..., np.newaxis], ("y", "x", "band"))
    for reader in (
        open_as(*zarrs),
        open_as(*tiffs),
        open_as(zarrs[0], tiffs[1], zarrs[2]),
        open_as(store, arrays=("B00", "B01", "B02")),
        open_as(one_band, *zarrs[1:]),
    ):
        assert (reader.spec.dims, reader.spec.bands) == (("band", "y", "x"), ("B00", "B01", "B02"))
        np.testing.assert_array_equal(read(reader), np.stack(planes))
        np.testing.assert_array_equal(read(reader, Region(2, 5, 3, 4), [2, 0]), np.stack(planes)[[2, 0], 2:5, 3:4])
    np.testing.assert_array_equal(read(open_as(*zarrs, bands=("B02", 1))), np.stack(planes)[[2, 0]])
    assert local_paths(open_as(*zarrs)) == zarrs
    assert local_paths(open_as(*zarrs, bands=(1,), scale={"factor": 2.0, "offset": 0.0})) == zarrs
    assert open_as(zarrs[0], zarrs[0]).spec.bands == ("b1", "b2")


def test_stacks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", pixels((8, 9), "uint16"))
    others = {
        "8 x 9 pixels against 9 x 9": write(tmp_path / "b.zarr", pixels((9, 9), "uint16")),
        "c is uint8 with nodata None": write(tmp_path / "c.zarr", pixels((8, 9), "uint8")),
        "d is uint16 with nodata 3": write(tmp_path / "d.zarr", pixels((8, 9), "uint16"), attributes={"_FillValue": 3}),
        "e has 2 bands": write(tmp_path / "e.zarr", pixels((8, 9, 2), "uint16"), ("y", "x", "band")),
    }
    for words, path in others.items():
        with pytest.raises(PipelineError, match=words):
            open_as(first, path)


def test_stacks_compare_grids_by_what_they_mean(tmp_path: Path) -> None:
    image = (("y", "x"), pixels((5, 6)))
    mapping = {"crs_wkt": WKT, "GeoTransform": geo_text(UTM)}
    wkt = group(tmp_path / "a.zarr", image=image, spatial_ref=((), 0, mapping))
    code = group(tmp_path / "b.zarr", {"proj:code": "EPSG:32633", "spatial:transform": list(UTM)}, image=image)
    assert open_as(wkt, code).spec.transform == UTM
    other = group(tmp_path / "c.zarr", {"proj:code": "EPSG:32634", "spatial:transform": list(UTM)}, image=image)
    with pytest.raises(PipelineError, match="different grids: CRS"):
        open_as(wkt, other)
    moved = group(tmp_path / "d.zarr", {"spatial:transform": [10, 0, 500010, 0, -10, 5000000]}, image=image)
    with pytest.raises(PipelineError, match="different grids: upper left corner at"):
        open_as(wkt, moved)
    spec = open_as(code).spec
    assert grid_difference(spec, RasterSpec(5, 6, np.dtype("uint8"), crs="no CRS at all")).startswith("CRS EPSG:32633")


def test_grids_are_compared_in_words() -> None:
    north_up = (10.0, 0.0, 500.0, 0.0, -10.0, 800.0)
    spec = RasterSpec(5, 6, np.dtype("uint8"), transform=north_up)

    def against(*transform: float) -> str:
        return grid_difference(spec, replace(spec, transform=transform))

    assert against(10, 0, 500 + 1e-9, 0, -10, 800) == ""
    assert against(20, 0, 500, 0, -20, 800) == "pixels of 10 x -10 against 20 x -20"
    assert against(10, 0, 505, 0, -10, 800) == "upper left corner at (500, 800) against (505, 800)"
    assert against(10, 1, 500, 1, -10, 800).startswith(f"transform {north_up} against (10, 1, 500,")
    larger = replace(spec, height=9, transform=(30.0, 0.0, 500.0, 0.0, -30.0, 800.0))
    assert grid_difference(spec, larger) == "5 x 6 pixels against 9 x 6; pixels of 10 x -10 against 30 x -30"


@pytest.mark.parametrize("kind", ["stack", "arrays", "tiff", "pages", "lists", "from-tiff"])
@pytest.mark.parametrize("bands", [None, (3, 1)])
def test_scales_that_differ_between_bands_are_applied_band_by_band(tmp_path: Path, kind: str, bands: Any) -> None:
    values, scales = pixels((3, 4, 5), "int16"), [(0.1, 0.0), (0.1, -2.0), (0.25, 3.0)]
    values[1, 0, 0] = -1
    each = [{"scale_factor": a, "add_offset": b, "_FillValue": -1} for a, b in scales]
    arrays: dict[str, Any] = {f"B{i}": (("y", "x"), values[i], each[i]) for i in range(3)}
    items = "".join(
        f'<Item name="{name}" sample="{i}" role="{name.lower()}">{value}</Item>'
        for i, pair in enumerate(scales)
        for name, value in zip(("SCALE", "OFFSET"), pair, strict=True)
    )
    tags = [(42112, 2, 0, f"<GDALMetadata>{items}</GDALMetadata>", True), (42113, 2, 2, "-1", True)]
    options: dict[str, Any] = {"bands": bands, "scale": "apply"}
    path = str(tmp_path / "a.zarr")
    match kind:
        case "stack":
            paths = [group(tmp_path / f"{name}.zarr", image=array) for name, array in arrays.items()]
            reader = open_as(*paths, **options)
        case "arrays":
            reader = open_as(group(Path(path), **arrays), arrays=tuple(arrays), **options)
        case "lists":
            attributes = {"scales": [a for a, _ in scales], "offsets": [b for _, b in scales], "nodata": -1}
            reader = open_as(group(Path(path), image=(("band", "y", "x"), values, attributes)), **options)
        case "pages":
            with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
                for i, (a, b) in enumerate(scales):
                    text = f'<Item name="SCALE" sample="0">{a}</Item><Item name="OFFSET" sample="0">{b}</Item>'
                    extra = [(42112, 2, 0, f"<GDALMetadata>{text}</GDALMetadata>", True), tags[1]]
                    writer.write(values[i], photometric="minisblack", metadata=None, extratags=extra)
            reader = open_as(str(tmp_path / "a.tif"), **options)
        case _:
            source = tiff(tmp_path / "a.tif", values, planarconfig="separate", extratags=tags)
            if kind == "from-tiff":
                api.convert(source, path, quiet=True)
                cut = open_as(path, at={"band": 2}, scale="apply")
                np.testing.assert_array_equal(read(cut), (values[2] * 0.25 + 3).astype("float32"))
            reader = open_as(path if kind == "from-tiff" else source, **options)
    due = np.stack([plane * a + b for plane, (a, b) in zip(values.astype(float), scales, strict=True)])
    due[1, 0, 0] = np.nan
    due = due[[2, 0]] if bands else due
    found = read(reader)
    np.testing.assert_array_equal(found, due.astype("float32"))
    np.testing.assert_array_equal(read(reader, bands=[1]), found[[1]])


def test_scales_of_bands_that_lie_side_by_side(tmp_path: Path) -> None:
    values = pixels((4, 5, 3), "uint8")
    attributes = {"scale_factor": [0.5, 2.0, 1.0], "add_offset": 1}
    path = group(tmp_path / "a.zarr", image=(("y", "x", "band"), values, attributes))
    due = values * np.array([0.5, 2.0, 1.0], "float32") + 1
    np.testing.assert_array_equal(read(open_as(path, scale="apply")), due)
    np.testing.assert_array_equal(read(open_as(path, scale="apply"), bands=[2, 0]), due[..., [2, 0]])
    notes = api.plan(harness.document(path, [{"name": "s", "op": "window", "size": 3}], tmp_path / "out.zarr"))["notes"]
    assert any("scale 0.5 and offset 1, scale 2 and offset 1, scale 1 and offset 1 (they differ" in n for n in notes)
    attributes["scale_factor"] = [0.5, 2.0]
    odd = open_as(group(tmp_path / "b.zarr", image=(("y", "x", "band"), values, attributes)))
    assert "there are 2 and 1 of them, and the bands are 3" in odd.describe()["warnings"][0]


def test_a_scale_that_nothing_records_is_said(tmp_path: Path) -> None:
    reader = open_as(tiff(tmp_path / "a.tif", pixels((4, 5), "uint8")), scale="apply")
    assert reader.spec.dtype == np.uint8
    assert "`scale: apply` changes nothing" in reader.describe()["warnings"][0]


def test_an_array_of_a_store_and_a_path_inside_it(scene: Any) -> None:
    path, values = scene
    zarr.open_group(path).create_array("other", data=values[..., 0], dimension_names=("y", "x"))
    for reader in (open_as(path, arrays=("image",)), open_as(f"{path}/image"), open_as(f"{path}/image/")):
        assert reader.spec.bands == ("B02", "B03", "B04", "B08")
        assert reader.spec.transform == (10.0, 0.0, 0.0, 0.0, -10.0, 100.0)
        np.testing.assert_array_equal(read(reader), values)


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*sorted(FORMATS), ".xyz"])
def test_without_the_extra_other_formats_are_refused_with_two_ways_in(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    (tmp_path / f"scene{suffix}").write_bytes(b"something")
    with pytest.raises(InputError, match=rf"scene\{suffix}: .*pip install 'rasterpipe\[gdal\]', .*: gdal_translate /"):
        open_raster(str(tmp_path / f"scene{suffix}"))


def test_missing_files_urls_and_misplaced_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_raster(str(tmp_path / "nothing.tif"))
    with pytest.raises(InputError, match=r"only Zarr and TIFF are read from object stores"):
        open_raster("s3://bucket/scene.jp2")
    with pytest.raises(InputError, match=r"^ftp://host\.\.\.: is no object store that is known \(s3://"):
        open_raster("ftp://host/scene.zarr")
    with pytest.raises(InputError, match="`array` and `at` are for Zarr groups"):
        open_raster(tiff(tmp_path / "a.tif", pixels((4, 5), "uint8")), Choice("image"))


# --- the cache -------------------------------------------------------------------------------------------------


class Recorded(Reader):
    """A raster in memory that counts how often each pixel is read, and may fail."""

    def __init__(self, values: np.ndarray, dims: tuple[str, ...], chunk: tuple[int, int], delay: float = 0) -> None:
        sizes = dict(zip(dims, values.shape, strict=True))
        bands = tuple(f"b{i + 1}" for i in range(sizes.get("band", 1)))
        self.spec = RasterSpec(sizes["y"], sizes["x"], values.dtype, dims, bands)
        self.values, self.chunk, self.delay = values, chunk, delay
        self.count = np.zeros((sizes["y"], sizes["x"]), int)
        self.failures = 0
        self.lock = threading.Lock()

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        with self.lock:
            self.count[region.slices()] += 1
            failing = self.failures > 0
            self.failures -= failing
        time.sleep(self.delay)
        if failing:
            out[...] = 99
            raise InputError("a damaged chunk")
        np.copyto(out, self.values[array_slices(self.spec.dims, region)])

    def identity(self) -> dict[str, Any]:
        return {}

    def evidence(self) -> list[Evidence]:
        return []

    def describe(self) -> dict[str, Any]:
        return {}


def recorded(
    shape: tuple[int, ...], dims: tuple[str, ...] = ("y", "x"), chunk: tuple[int, int] = (4, 4), delay: float = 0
) -> Recorded:
    return Recorded(np.random.default_rng(0).normal(size=shape).astype("float32"), dims, chunk, delay)


def read_block(cached: CachedReader, number: int) -> None:
    spec = cached.reader.spec
    extent = cached.grid.block(number).grow(cached.halo).clip(spec.region)
    out = np.full(spec.shape_of(extent), 77, spec.dtype)
    cached.read(extent, out)
    assert isinstance(cached.reader, Recorded)
    np.testing.assert_array_equal(out, cached.reader.values[array_slices(spec.dims, extent)])


@st.composite
def cached_readers(draw: st.DrawFn) -> CachedReader:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    dims = draw(st.sampled_from(strategy.DIMS))
    sizes = {"y": height, "x": width, "band": draw(st.integers(1, 3))}
    reader = recorded(tuple(sizes[dim] for dim in dims), dims)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    rows = Axis(top, draw(st.integers(top + 1, height)), draw(st.integers(1, 20)), draw(st.integers(1, 4)))
    columns = Axis(left, draw(st.integers(left + 1, width)), draw(st.integers(1, 20)), draw(st.integers(1, 4)))
    grid = Grid(rows, columns, draw(st.sampled_from([1, 2, 2**31])))
    halo = Halo(*(draw(st.integers(0, 9)) for _ in range(4)))
    unit = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    return CachedReader("raster", reader, ChunkCache(draw(st.sampled_from([0, 500, 2**20]))), grid, halo, unit)


@DRAWN
@given(cached_readers(), st.data())
def test_cached_reads_equal_plain_ones(cached: CachedReader, data: st.DataObject) -> None:
    for number in data.draw(st.permutations(range(len(cached.grid)))):
        read_block(cached, number)
    spec = cached.reader.spec  # any region, as a step that wraps reads it
    top, left = data.draw(st.integers(0, spec.height - 1)), data.draw(st.integers(0, spec.width - 1))
    region = Region(top, spec.height, left, spec.width)
    out = np.empty(spec.shape_of(region), spec.dtype)
    cached.read(region, out)
    assert isinstance(cached.reader, Recorded)
    np.testing.assert_array_equal(out, cached.reader.values[array_slices(spec.dims, region)])


@DRAWN
@given(cached_readers())
def test_each_chunk_is_decoded_once_in_planned_order(cached: CachedReader) -> None:
    cached.cache.capacity = 2**20
    for number in range(len(cached.grid)):
        read_block(cached, number)
    assert isinstance(cached.reader, Recorded)
    assert cached.reader.count.max() == 1
    assert not cached.cache._entries  # nothing is kept once the last block that needs it is done
    assert cached.bytes_read == cached.reader.count.sum() * cached.reader.spec.pixel_bytes


@DRAWN
@given(cached_readers())
def test_the_planned_capacity_gives_the_planned_decodings(cached: CachedReader) -> None:
    unit, spec = cached.unit, cached.reader.spec
    touches = Touches(cached.grid, unit, cached.halo, spec)
    cached.cache.capacity = touches.cached_chunks * unit[0] * unit[1] * spec.pixel_bytes
    for number in range(len(cached.grid)):
        read_block(cached, number)
    assert isinstance(cached.reader, Recorded)
    decoded = cached.reader.count[:: unit[0], :: unit[1]].sum()
    assert decoded <= touches.decoded
    assert cached.cache.peak_bytes <= cached.cache.capacity


@pytest.mark.parametrize("capacity_chunks", [0, 1, 5, 40])
def test_threads_in_random_order_with_a_tiny_capacity(capacity_chunks: int) -> None:
    reader = recorded((64, 64, 2), ("y", "x", "band"), delay=1e-5)
    chunk_bytes, threads = 4 * 4 * 2 * 4, 8
    cache = ChunkCache(capacity_chunks * chunk_bytes)
    cached = CachedReader("raster", reader, cache, Grid(Axis(0, 64, 8), Axis(0, 64, 8), 3), Halo(5, 2, 3, 5), (4, 4))
    numbers = [number for number in range(64) for _ in range(4)]
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: read_block(cached, number), numbers))
    # a thread holds one chunk at a time: no more than its threads hold is beyond the capacity
    assert cache.peak_bytes <= max(cache.capacity, threads * chunk_bytes)
    assert cache._bytes <= cache.peak_bytes
    held = sum(e.decoded.result().nbytes for e in cache._entries.values()) + sum(s.nbytes for s in cache._spare)
    assert cache._bytes == held
    assert all(entry.users == 0 for entry in cache._entries.values())


def test_threads_share_one_decoding() -> None:
    reader = recorded((8, 8), chunk=(8, 8), delay=0.05)
    grid = Grid(Axis(0, 8, 4), Axis(0, 8, 4), 2)
    cached = CachedReader("raster", reader, ChunkCache(2**20), grid, Halo(), (8, 8))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: read_block(cached, number), range(4)))
    assert reader.count.max() == 1


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    reader = recorded((8, 8), chunk=(8, 8), delay=0.05)
    reader.failures = 1
    grid = Grid(Axis(0, 8, 4), Axis(0, 8, 4), 2)
    cached = CachedReader("raster", reader, ChunkCache(2**20), grid, Halo(), (8, 8))
    with ThreadPoolExecutor(4) as pool:  # all four ask while the first decodes
        waiting = [pool.submit(read_block, cached, number) for number in range(4)]
        assert [str(future.exception()) for future in waiting] == ["a damaged chunk"] * 4
    for number in range(4):
        read_block(cached, number)


def test_failures_do_not_eat_the_capacity() -> None:
    reader = recorded((8, 8), chunk=(4, 4))
    cached = CachedReader("raster", reader, ChunkCache(4 * 64), Grid(Axis(0, 8, 2), Axis(0, 8, 2), 4), Halo(), (4, 4))
    reader.failures = 50
    for _ in range(50):
        with pytest.raises(InputError, match="a damaged chunk"):
            read_block(cached, 0)
    assert cached.cache._bytes <= 64
    for number in range(16):
        read_block(cached, number)
    assert cached.cache.peak_bytes <= 4 * 64


@DRAWN
@given(st.data())
def test_spare_buffers_serve_any_dtype_and_shape(data: st.DataObject) -> None:
    """Rasters of a pass share the cache: a chunk of one may lie where a chunk of another was."""
    rng = np.random.default_rng(0)
    cache = ChunkCache(data.draw(st.sampled_from([0, 300, 1000, 2**20])))
    readers = []
    for number in range(3):
        dtype = np.dtype(data.draw(st.sampled_from(["uint8", "int16", "float16", "float32", "float64"])))
        dims = data.draw(st.sampled_from(strategy.DIMS))
        shape = tuple({"y": 12, "x": 16, "band": data.draw(st.integers(1, 3))}[dim] for dim in dims)
        reader = Recorded(rng.integers(0, 200, shape).astype(dtype), dims, (4, 4))
        unit = data.draw(st.sampled_from([(4, 4), (8, 2), (16, 16), (5, 3)]))
        grid = Grid(Axis(0, 12, 4), Axis(0, 16, 4), 2)
        readers.append(CachedReader(f"raster {number}", reader, cache, grid, Halo(1, 2, 3, 0), unit))
    for number in range(12):
        for cached in readers:
            read_block(cached, number)


@pytest.mark.parametrize("nodata", [0, "none"])
def test_arrays_of_different_fill_values_with_nodata(tmp_path: Path, nodata: Any) -> None:
    values = pixels((2, 4, 5), "int16")
    each = [(("y", "x"), values[i], {"_FillValue": fill}) for i, fill in enumerate((-1, -2))]
    path = group(tmp_path / "a.zarr", a=each[0], b=each[1])
    with pytest.raises(PipelineError, match="the rasters of a stack must agree"):
        open_as(path, arrays=("a", "b"))
    reader = open_as(path, arrays=("a", "b"), nodata=nodata)
    assert reader.spec.nodata == (None if nodata == "none" else 0)
    np.testing.assert_array_equal(read(reader), values)


def test_a_stack_of_more_files_than_may_be_open(tmp_path: Path) -> None:
    """Files that were read longest ago are closed, also while threads read."""
    count, values = 100, np.arange(100 * 64, dtype=np.uint16).reshape(100, 8, 8)
    paths = [str(tmp_path / f"{number:03}.tif") for number in range(count)]
    for path, plane in zip(paths, values, strict=True):
        tifffile.imwrite(path, plane, tile=(16, 16))
    config = {
        "inputs": {"image": {"stack": paths}},
        "steps": [{"name": "same", "op": "cast", "dtype": "uint16"}],
        "output": {"path": str(tmp_path / "out.zarr"), "chunks": [4, 4, 100]},
        "run": {"workers": 4},
    }
    source = (
        "import json, resource, sys; import pipeline; config = json.load(open(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); pipeline.run(config)\n"
    )
    (tmp_path / "pipeline.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "pipeline.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
    stored = zarr.open_array(tmp_path / "out.zarr/same/value", mode="r")[...]
    np.testing.assert_array_equal(stored if stored.shape[0] == count else np.moveaxis(stored, -1, 0), values)


def test_descriptors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    files: Descriptors[Descriptor] = Descriptors(2)

    def opener() -> Descriptor:
        return Descriptor(os.open(tmp_path / "file", os.O_RDONLY))

    first = files.get(1, opener)
    assert files.get(1, opener) is first
    number = first.number
    files.get(2, opener)
    files.get(3, opener)  # the first is dropped, and held here
    assert os.pread(number, 3, 0) == b"abc"
    assert files.get(1, opener) is not first
    del first
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
