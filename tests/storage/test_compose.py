"""Rasters made of several files: stacks by name, patterns, mosaics, dates, masks, slices."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import api
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.region import Region
from pipeline.storage.compose import open_input
from pipeline.storage.files import expand
from pipeline.storage.input import Input
from pipeline.storage.reader import Reader
from pipeline.testing.draws import draws
from tests import harness
from tests.georeference import placed_tiff as tiff
from tests.zarr_files import group, pixels, read

DRAWN = settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))


def open_as(**entry: Any) -> Reader:
    reader = open_input(expand(Input(**entry))[0])
    copy: Reader = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(read(copy), read(reader))
    return reader


def message(**entry: Any) -> str:
    with pytest.raises((InputError, PipelineError)) as caught:
        open_as(**entry)
    return str(caught.value)


# --- stacks and patterns --------------------------------------------------------------------------------------


def test_a_stack_names_its_bands(tmp_path: Path) -> None:
    red, nir = pixels((6, 7), "uint16"), pixels((6, 7), "uint16", 1)
    paths = {"red": tiff(tmp_path / "a.tif", red), "nir": tiff(tmp_path / "b.tif", nir)}
    reader = open_as(stack=paths)
    assert reader.spec.bands == ("red", "nir")
    np.testing.assert_array_equal(read(reader), [red, nir])
    assert read(open_as(stack=paths, bands=("nir",))).tolist() == [nir.tolist()]


def test_a_pattern_is_a_stack_of_the_bands_that_names_tell_in_natural_order(tmp_path: Path) -> None:
    values = {band: pixels((4, 5), "uint16", seed) for seed, band in enumerate(("B02", "B08", "B11"))}
    for band, each in values.items():
        tiff(tmp_path / f"T33UUP_20240601T100031_{band}_10m.tif", each)
    tiff(tmp_path / "T33UUP_20240601T100031_TCI_10m.txt", pixels((4, 5), "uint8"))
    entry, notes = expand(Input(stack=str(tmp_path / "*_B*_10m.tif")))
    assert notes == (
        f"stack {str(tmp_path / '*_B*_10m.tif')!r}: "
        "B02 is T33UUP_20240601T100031_B02_10m.tif, B08 is T33UUP_20240601T100031_B08_10m.tif, "
        "B11 is T33UUP_20240601T100031_B11_10m.tif",
    )
    reader = open_input(entry)
    assert reader.spec.bands == ("B02", "B08", "B11")
    np.testing.assert_array_equal(read(reader), list(values.values()))


def test_numbers_in_names_are_sorted_by_their_value(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        tiff(tmp_path / f"slice{number}.tif", np.full((2, 2), number, "uint8"))
    reader = open_as(stack=str(tmp_path / "slice*.tif"))
    assert reader.spec.bands == ("slice1", "slice2", "slice10")


def test_a_pattern_that_meets_nothing_says_what_lies_there(tmp_path: Path) -> None:
    tiff(tmp_path / "scene" / "B04.tif", pixels((2, 2), "uint8"))
    words = message(stack=str(tmp_path / "scene" / "B*.jp2"))
    assert words == f"{tmp_path}/scene/B*.jp2: no file has such a name; in {tmp_path}/scene lie B04.tif"
    assert f"in {tmp_path} lie scene" in message(mosaic=str(tmp_path / "other" / "*.tif"))


def test_two_files_of_one_band_are_refused(tmp_path: Path) -> None:
    for place in ("a", "b"):
        tiff(tmp_path / place / "B04.tif", pixels((2, 2), "uint8"))
    assert "meets several files of the band B04" in message(stack=str(tmp_path / "*" / "B*.tif"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a[1].tif", pixels((2, 2), "uint8"))
    assert read(open_as(mosaic=[path])).tolist() == pixels((2, 2), "uint8").tolist()


def test_coarser_bands_of_a_stack_are_repeated_and_that_is_said(tmp_path: Path) -> None:
    fine, coarse = pixels((6, 8), "uint16"), pixels((3, 4), "uint16", 1)
    paths = {"B04": tiff(tmp_path / "a.tif", fine), "B11": tiff(tmp_path / "b.tif", coarse, size=20)}
    reader = open_as(stack=paths)
    np.testing.assert_array_equal(read(reader), [fine, coarse.repeat(2, 0).repeat(2, 1)])
    assert "B11: each pixel 2 x 2 times" in reader.describe()["warnings"]


# --- masks ---------------------------------------------------------------------------------------------------------


def test_classes_of_a_band_of_the_stack_make_pixels_invalid(tmp_path: Path) -> None:
    red, nir = pixels((6, 8), "uint16") % 1000 + 1, pixels((6, 8), "uint16", 1) % 1000 + 1
    scl = pixels((3, 4), "uint8", 2) % 12
    paths = {
        "B04": tiff(tmp_path / "a.tif", red, nodata=0),
        "B08": tiff(tmp_path / "b.tif", nir, nodata=0),
        "SCL": tiff(tmp_path / "c.tif", scl, size=20),
    }
    reader = open_as(stack=paths, mask={"SCL": (3, 8, 9)})
    is_masked = np.isin(scl, (3, 8, 9)).repeat(2, 0).repeat(2, 1)
    assert reader.spec.bands == ("B04", "B08")
    np.testing.assert_array_equal(read(reader), np.where(is_masked, 0, [red, nir]))
    part = Region(1, 4, 3, 7)
    np.testing.assert_array_equal(read(reader, part, [1]), read(reader)[[1]][:, 1:4, 3:7])
    assert "need one: `nodata: VALUE`" in message(
        stack={**paths, "B04": tiff(tmp_path / "d.tif", red), "B08": tiff(tmp_path / "e.tif", nir)}, mask={"SCL": (3,)}
    )
    assert "'QA' is no band of the stack (B04, B08, SCL)" in message(stack=paths, mask={"QA": (3,)})


def test_a_band_of_the_file_masks_the_others(tmp_path: Path) -> None:
    values = pixels((3, 6, 8), "int16")
    reader = open_as(path=tiff(tmp_path / "a.tif", values), nodata=-1, mask={"b2": tuple(range(2000))})
    expected = np.where((values[1] >= 0) & (values[1] < 2000), -1, values[[0, 2]])
    np.testing.assert_array_equal(read(reader), expected)
    assert reader.spec.bands == ("b1", "b3")


# --- mosaics -------------------------------------------------------------------------------------------------------


def merged(tiles: list[tuple[tuple[int, int], np.ndarray]], nodata: float, *, last: bool) -> np.ndarray:
    """Return the naive mosaic of tiles (band, y, x) at rows and columns: pixel by pixel."""
    top, left = (min(corner[axis] for corner, _ in tiles) for axis in (0, 1))
    bottom = max(corner[0] + values.shape[1] for corner, values in tiles)
    right = max(corner[1] + values.shape[2] for corner, values in tiles)
    whole = np.full((tiles[0][1].shape[0], bottom - top, right - left), nodata, tiles[0][1].dtype)
    for (row, column), values in tiles[::-1] if last else tiles:
        view = whole[:, row - top : row - top + values.shape[1], column - left : column - left + values.shape[2]]
        empty = np.isnan(view) if view.dtype.kind == "f" else view == nodata
        view[empty] = values[empty]
    return whole


@DRAWN
@given(data=st.data())
def test_drawn_mosaics_are_the_merged_raster(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("mosaic")
    dtype, num_bands = data.draw(st.sampled_from(["uint8", "int16", "float32"])), data.draw(st.integers(1, 3))
    nodata, overlap = 0, data.draw(st.sampled_from(["first", "last"]))
    tiles, paths = [], []
    for number in range(data.draw(st.integers(1, 5))):
        corner = data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
        shape = (num_bands, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
        values = pixels(shape, dtype, data.draw(st.integers(0, 99)))
        values[pixels(shape, "uint8", number) < 64] = np.nan if dtype == "float32" else 0
        options = {} if dtype == "float32" else {"nodata": 0}
        paths.append(tiff(folder / f"{number}.tif", values[0] if num_bands == 1 else values, corner, **options))
        tiles.append((corner, values))
    reader = open_as(mosaic=paths, overlap=overlap)
    expected = merged(tiles, np.nan if dtype == "float32" else nodata, last=overlap == "last")
    np.testing.assert_array_equal(np.reshape(read(reader), expected.shape), expected)
    height, width = expected.shape[1:]
    rows, columns = (
        sorted(
            data.draw(
                st.tuples(
                    *[st.integers(0, n)] * 2,
                )
            )
        )
        for n in (height, width)
    )
    part = Region(rows[0], max(rows[1], rows[0] + 1), columns[0], max(columns[1], columns[0] + 1)).clip(
        reader.spec.region
    )
    bands = data.draw(st.lists(st.integers(0, num_bands - 1), min_size=1, max_size=3)) if num_bands > 1 else None
    found = read(reader, part, bands)
    picked = expected[bands or [0]][:, part.top : part.bottom, part.left : part.right]
    np.testing.assert_array_equal(np.reshape(found, picked.shape), picked)


def test_a_run_over_a_mosaic_is_the_run_over_the_merged_raster(tmp_path: Path) -> None:
    whole = pixels((40, 50), "uint16")
    parts = [
        ((0, 0), whole[:23, :31]),
        ((0, 31), whole[:23, 31:]),
        ((23, 0), whole[23:, :31]),
        ((23, 31), whole[23:, 31:]),
    ]
    for number, (corner, values) in enumerate(parts):
        tiff(tmp_path / f"tile{number}.tif", np.ascontiguousarray(values), corner)
    one = tiff(tmp_path / "whole.tif", whole)
    steps = [
        {"name": "smooth", "op": "window", "input": "image", "size": 7, "statistics": ["mean", "median"]},
        {"name": "slope", "op": "gradient", "input": "image", "spacing": 1, "outputs": ["magnitude"]},
    ]
    stores = []
    for name, entry in (("mosaic", {"mosaic": str(tmp_path / "tile*.tif")}), ("whole", {"path": one})):
        stores.append(str(tmp_path / f"{name}.zarr"))
        api.run(
            {
                "inputs": {"image": entry},
                "steps": steps,
                "output": {"path": stores[-1], "chunks": [16, 16]},
            }
        )
    for raster in ("smooth/mean", "smooth/median", "slope/magnitude"):
        found, expected = (harness.read(store, raster) for store in stores)
        np.testing.assert_array_equal(found, expected)
    assert api.verify(stores[0]).agrees


def test_convert_and_apply_merge_what_a_pattern_meets(tmp_path: Path) -> None:
    whole = pixels((8, 12), "uint16")
    for number in range(3):
        part = np.ascontiguousarray(whole[:, 4 * number : 4 * number + 4])
        tiff(tmp_path / f"tile{number}.tif", part, (0, 4 * number), nodata=0)
    api.convert(str(tmp_path / "tile*.tif"), tmp_path / "merged.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "merged.tif"), whole)
    assert open_as(path=str(tmp_path / "merged.tif")).spec.nodata == 0
    api.apply_operation("window", {"size": 3}, str(tmp_path / "tile*.tif"), str(tmp_path / "a.zarr"))
    api.apply_operation("window", {"size": 3}, str(tmp_path / "merged.tif"), str(tmp_path / "b.zarr"))
    first, second = (harness.read(str(tmp_path / f"{name}.zarr"), "window/mean") for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_mosaics_that_do_not_fit_are_refused_with_what_mends_them(tmp_path: Path) -> None:
    a = tiff(tmp_path / "a.tif", pixels((4, 4), "uint8"))
    half = tiff(tmp_path / "half.tif", pixels((4, 4), "uint8"), (0, 0), 10)
    assert "overlap in 16 pixels" in message(mosaic=[a, half], overlap="error")
    far = tiff(tmp_path / "far.tif", pixels((4, 4), "uint8"), (10, 10))
    assert "164 of 196 pixels of the mosaic lie in none of its files" in message(mosaic=[a, far])
    assert open_as(mosaic=[a, far], nodata=255).spec.region.shape == (14, 14)
    assert open_as(mosaic=[a, far], extent="of first").spec.region.shape == (4, 4)
    other = tiff(tmp_path / "other.tif", pixels((4, 4), "uint8"), (0, 4), 20)
    words = message(mosaic=[a, other])
    assert "pixels of 10 x -10 against 20 x -20" in words
    assert "gdalwarp -tr 10.0 10.0 -te 500080.0 5399920.0 500160.0 5400000.0 -r near" in words
    wide = tiff(tmp_path / "wide.tif", pixels((4, 4), "uint16"), (0, 4))
    assert "uint8 with nodata None" in message(mosaic=[a, wide])


def test_an_extent_by_a_box(tmp_path: Path) -> None:
    values = pixels((10, 10), "uint8")
    path = tiff(tmp_path / "a.tif", values)
    reader = open_as(mosaic=[path], extent=(500020, 5399950, 500120, 5399980), nodata=0)
    assert reader.spec.region.shape == (3, 10)
    assert reader.spec.transform.f == 5399980.0
    np.testing.assert_array_equal(read(reader), np.pad(values[2:5, 2:], ((0, 0), (0, 2))))


def test_bands_are_told_by_name_where_their_order_differs(tmp_path: Path) -> None:
    first, second = pixels((2, 4, 4)), pixels((2, 4, 4), seed=1)
    paths = []
    for name, values, bands, corner in (("a", first, ["r", "n"], 0), ("b", second, ["n", "r"], 4)):
        paths.append(
            group(
                tmp_path / f"{name}.zarr",
                value=(("band", "y", "x"), values, {"crs": "EPSG:32633"}),
                band=(("band",), bands),
                y=(("y",), 95 - 10.0 * np.arange(4)),
                x=(("x",), 5 + 10.0 * (corner + np.arange(4))),
            )
        )
    np.testing.assert_array_equal(read(open_as(mosaic=paths)), np.concatenate([first, second[::-1]], axis=2))


# --- dates ---------------------------------------------------------------------------------------------------------


def test_dates_are_bands_in_the_order_of_time(tmp_path: Path) -> None:
    late, early = pixels((2, 4, 5), "uint16"), pixels((2, 4, 5), "uint16", 1)
    entries = [
        {"time": "2024-06-11", "path": tiff(tmp_path / "late.tif", late)},
        {"time": "2024-06-01", "path": tiff(tmp_path / "early.tif", early)},
    ]
    reader = open_as(dates=entries)
    np.testing.assert_array_equal(read(reader), np.concatenate([early, late]))
    assert reader.spec.bands == ("b1 2024-06-01", "b2 2024-06-01", "b1 2024-06-11", "b2 2024-06-11")
    assert dict(reader.spec.band_coordinates) == {
        "time": ("2024-06-01", "2024-06-01", "2024-06-11", "2024-06-11"),
        "source_band": ("b1", "b2", "b1", "b2"),
    }
    np.testing.assert_array_equal(read(reader, None, [3, 0, 1]), np.concatenate([early, late])[[3, 0, 1]])
    np.testing.assert_array_equal(read(open_as(dates=entries, bands=(2,))), [early[1], late[1]])


def test_a_pattern_tells_dates_bands_and_tiles(tmp_path: Path) -> None:
    """Two granules of two dates, as Sentinel-2 delivers them, clouds masked: as one raster."""
    whole: dict[tuple[str, str], np.ndarray] = {}
    for day in ("20240601", "20240611"):
        scl = pixels((4, 8), "uint8", int(day) % 97) % 12
        for band in ("B04", "B08"):
            whole[day, band] = pixels((8, 16), "uint16", hash((day, band)) % 1000) % 5000 + 1
        for tile, corner in (("T33UUP", 0), ("T33UVP", 8)):
            folder = tmp_path / f"S2A_MSIL2A_{day}T100031_N0510_R122_{tile}.SAFE" / "GRANULE" / "L2A" / "IMG_DATA"
            for band in ("B04", "B08"):
                part = np.ascontiguousarray(whole[day, band][:, corner : corner + 8])
                tiff(folder / "R10m" / f"{tile}_{day}T100031_{band}_10m.tif", part, (0, corner), nodata=0)
            part = np.ascontiguousarray(scl[:, corner // 2 : corner // 2 + 4])
            tiff(folder / "R20m" / f"{tile}_{day}T100031_SCL_20m.tif", part, (0, corner // 2), size=20)
        is_cloud = np.isin(scl, (3, 8, 9, 10)).repeat(2, 0).repeat(2, 1)
        for band in ("B04", "B08"):
            whole[day, band][is_cloud] = 0
    pattern = str(tmp_path / "*.SAFE" / "**" / "*_{time:%Y%m%d}T*_*.tif")
    entry, notes = expand(Input(dates=pattern, mask={"SCL": (3, 8, 9, 10)}))
    assert notes == (f"dates {pattern!r}: 12 files, 2 dates, 2024-06-01 to 2024-06-11",)
    reader = open_input(entry)
    np.testing.assert_array_equal(read(reader), list(whole.values()))
    assert reader.spec.bands == tuple(f"{band} {day[:4]}-{day[4:6]}-{day[6:]}" for day, band in whole)


def test_dates_that_cover_other_parts_are_nodata_elsewhere_and_cost_no_read(tmp_path: Path) -> None:
    first, second = pixels((4, 4), "uint8") | 1, pixels((4, 4), "uint8", 1) | 1
    paths = [tiff(tmp_path / "a.tif", first, nodata=0), tiff(tmp_path / "b.tif", second, (0, 4), nodata=0)]
    reader = open_as(dates=[{"time": f"2024-0{n + 1}-01", "path": path} for n, path in enumerate(paths)])
    expected = np.zeros((2, 4, 8), "uint8")
    expected[0, :, :4], expected[1, :, 4:] = first, second
    np.testing.assert_array_equal(read(reader), expected)
    Path(paths[1]).unlink()
    np.testing.assert_array_equal(read(reader, Region(0, 4, 0, 4)), expected[:, :, :4])


def test_expressions_over_a_band_hold_for_each_date(tmp_path: Path) -> None:
    """NDVI of each date, kept where it is large, for all bands of the date; then the median over time."""
    days = ("2024-06-01", "2024-06-11", "2024-06-21")
    values = np.stack([pixels((2, 12, 14), "uint16", seed) % 900 + 1 for seed in range(3)])
    names = ({f"B0{4 * band}": values[n, band - 1] for band in (1, 2)} for n in range(3))
    dates = [
        {"time": day, "stack": {name: tiff(tmp_path / f"{day}_{name}.tif", band) for name, band in bands.items()}}
        for day, bands in zip(days, names, strict=True)
    ]
    index = "(B08 - B04) / (B08 + B04)"
    steps: list[dict[str, Any]] = [
        {"name": "ndvi", "op": "calc", "input": "image", "expression": index},
        {"name": "season", "op": "composite", "input": "ndvi", "statistics": ["median"]},
        {"name": "green", "op": "mask", "input": "image", "where": f"{index} > 0", "nodata": 0},
        {"name": "other", "op": "mask", "input": "image", "inputs": {"n": "ndvi"}, "where": "n > 0", "nodata": 0},
    ]
    output = {"path": str(tmp_path / "out.zarr"), "keep": ["ndvi", "season", "green", "other"], "chunks": [8, 8]}
    api.run({"inputs": {"image": {"dates": dates}}, "steps": steps, "output": output})
    red, nir = (values[:, band].astype("float32") for band in (0, 1))
    ndvi = (nir - red) / (nir + red)
    np.testing.assert_array_equal(harness.read(output["path"], "ndvi/value"), ndvi)
    np.testing.assert_array_equal(harness.read(output["path"], "season/median").squeeze(), np.median(ndvi, axis=0))
    green = np.where((ndvi > 0)[:, np.newaxis], values, 0).reshape(6, 12, 14)
    np.testing.assert_array_equal(harness.read(output["path"], "green/value"), green)
    np.testing.assert_array_equal(harness.read(output["path"], "other/value"), green)
    spec = open_as(path=output["path"], array="ndvi/value").spec
    assert spec.bands == tuple(f"ndvi {day}" for day in days)
    assert dict(spec.band_coordinates) == {"time": days, "source_band": ("ndvi",) * 3}
    assert api.verify(output["path"]).agrees


def test_dates_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    a = tiff(tmp_path / "a.tif", pixels((4, 4), "uint8"))
    wide = tiff(tmp_path / "b.tif", pixels((4, 4), "uint16"))
    assert "2024-01-01 and 2024-02-01 differ: uint8" in message(
        dates=[{"time": "2024-01-01", "path": a}, {"time": "2024-02-01", "path": wide}]
    )
    assert "time 2024-01-01 is there twice" in message(dates=[{"time": "2024-01-01", "path": a}] * 2)
    assert "says no time" in message(dates=str(tmp_path / "*.tif"))
    assert "2 files have such a name, and none has a time as %Y%m%d" in message(
        dates=str(tmp_path / "{time:%Y%m%d}.tif")
    )
    assert "%b is not read; use %Y, %m" in message(dates=str(tmp_path / "{time:%b}.tif"))


def test_dates_of_other_bands_are_no_series(tmp_path: Path) -> None:
    for name in ("s_20240601_B04", "s_20240611_B08"):
        tiff(tmp_path / f"{name}.tif", pixels((4, 4), "uint8"))
    assert "2024-06-01 and 2024-06-11 differ: bands B04 against B08" in message(
        dates=f"{tmp_path}/s_{{time:%Y%m%d}}_*.tif"
    )
    assert "says not how the time is written" in message(dates=f"{tmp_path}/s_{{time}}_*.tif")


def test_a_list_of_no_files_is_refused() -> None:
    for entry in ({"mosaic": []}, {"stack": []}, {"stack": {}}, {"dates": []}):
        with pytest.raises(ValueError, match="at least 1 item"):
            Input(**entry)


# --- further dims --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "chunks"),
    [
        (("time", "band", "y", "x"), (1, 2, 3, 4)),
        (("time", "band", "y", "x"), (3, 1, 5, 6)),
        (("band", "time", "y", "x"), (2, 2, 5, 6)),
        (("y", "x", "band", "time"), (5, 6, 2, 5)),
        (("time", "y", "x"), (2, 5, 6)),
        (("y", "x", "time"), (5, 6, 2)),
    ],
)
def test_a_dim_of_a_store_is_read_as_bands(tmp_path: Path, dims: tuple[str, ...], chunks: tuple[int, ...]) -> None:
    sizes = {"time": 5, "band": 2, "y": 5, "x": 6}
    values = pixels(tuple(sizes[dim] for dim in dims), "int16")
    days = np.array([0, 10, 20, 30, 41], "int64")
    path = group(
        tmp_path / "cube.zarr",
        value=(dims, values, {"chunks": chunks}),
        time=(("time",), days, {"units": "days since 2024-06-01"}),
        **({"band": (("band",), ["B04", "B08"])} if "band" in dims else {}),
    )
    reader = open_as(path=path, along="time")
    order = [dims.index(dim) for dim in ("time", "band", "y", "x") if dim in dims]
    expected = np.transpose(values, order).reshape(-1, 5, 6)
    np.testing.assert_array_equal(read(reader), expected)
    assert dict(reader.spec.band_coordinates)["time"][0] == "2024-06-01"
    assert dict(reader.spec.band_coordinates)["time"][-1] == "2024-07-12"
    picked = [4, 1, 2, 3, 0]
    np.testing.assert_array_equal(read(reader, Region(1, 4, 2, 6), picked), expected[picked][:, 1:4, 2:6])
    assert "`along`: unknown dim 'z'" in message(path=path, along="z") or "band" not in dims


def test_slices_of_a_microscope_are_read_as_bands(tmp_path: Path) -> None:
    values = pixels((4, 2, 6, 7), "uint16")
    path = str(tmp_path / "a.ome.tif")
    tifffile.imwrite(path, values, metadata={"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}})
    reader = open_as(path=path, along="z")
    np.testing.assert_array_equal(read(reader), values.reshape(8, 6, 7))
    assert dict(reader.spec.band_coordinates)["z"] == (0, 0, 1, 1, 2, 2, 3, 3)
    assert reader.spec.bands[:2] == ("DAPI 0", "GFP 0")
    assert "or read all of them as bands: `along: z`" in message(path=path)
