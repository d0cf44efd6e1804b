"""The output store: as xarray opens it, its chunks, provenance and regions, and as the input of a next pipeline."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline import api
from pipeline.model.errors import PipelineError, RunStopped
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Axis, Grid, Region
from pipeline.model.stored import StoredArray, with_region
from pipeline.model.table import TableSpec
from pipeline.planning import fitting
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.georeference import cf
from pipeline.storage.zarr.document import CODECS, TablePlan, documents, fill_value
from pipeline.storage.zarr.reader import ZarrReader, configure
from pipeline.storage.zarr.store import (
    ZarrWriter,
    create_store,
    finish_store,
    root_attributes,
)
from pipeline.testing import strategy
from pipeline.testing.draws import draws
from pipeline.verbs.load import Cut, load
from tests import harness, strategies
from tests.georeference import ROTATED, UTM, WKT, geo_text
from tests.harness import Raster, same_bits
from tests.zarr_files import group, pixels, write

DRAWN = settings(max_examples=draws(12), deadline=None, suppress_health_check=list(HealthCheck))
SMOOTH = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean", "max", "count"]}
BANDS = ["B02", "B03", "B04"]


@pytest.fixture
def scene(tmp_path: Path) -> str:
    """A georeferenced scene of integers with nodata, in a group with coordinates."""
    values = pixels((40, 50, 3), "int16")
    values[5:9, 5:9] = -1
    attributes = {"missing_value": -1, "grid_mapping": "crs", "coordinates": "wavelength crs"}
    return group(
        tmp_path / "scene.zarr",
        image=(("y", "x", "band"), values, attributes),
        band=(("band",), BANDS),
        wavelength=(("band",), [490, 560, 665]),
        crs=((), 0, {"crs_wkt": WKT, "GeoTransform": geo_text(UTM)}),
    )


def run(source: str, target: Path, *steps: dict[str, Any], region: Any = None, **output: Any) -> str:
    document = harness.document(source, steps or [SMOOTH], target, **{"chunks": [16, 16], **output})
    pipeline.run(document | ({"region": region} if region else {}))
    return str(target)


def values_of(store: str, path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(store, path=path, mode="r")[...])


# --- as xarray opens it ----------------------------------------------------------------------------------------


def test_xarray_opens_a_step_without_warnings(scene: str, tmp_path: Path) -> None:
    store = run(scene, tmp_path / "out.zarr")
    step = xr.open_zarr(store, group="smooth")  # any warning is an error here
    assert set(step.data_vars) == {"mean", "max", "count"}
    assert set(step.coords) == {"y", "x", "band", "wavelength", "spatial_ref"}
    assert all(array.dims == ("y", "x", "band") for array in step.data_vars.values())
    np.testing.assert_array_equal(step.y, 5000000 - 10 * (np.arange(40) + 0.5))
    np.testing.assert_array_equal(step.x, 500000 + 10 * (np.arange(50) + 0.5))
    assert step.band.values.tolist() == BANDS
    assert step.wavelength.values.tolist() == [490, 560, 665]
    assert step.spatial_ref.attrs["crs_wkt"] == WKT
    assert step.spatial_ref.attrs["GeoTransform"] == "500000.0 10.0 0.0 5000000.0 0.0 -10.0"
    assert {array.encoding["grid_mapping"] if "grid_mapping" in array.encoding else array.attrs["grid_mapping"]
            for array in step.data_vars.values()} == {"spatial_ref"}  # fmt: skip
    masked = np.isnan(step["mean"].values)
    np.testing.assert_array_equal(np.isnan(step["max"].values), masked)  # int16 with _FillValue, as xarray masks it
    assert masked[6:8, 6:8].all()
    assert not masked[20:].any()
    assert step["count"].dtype == np.uint32
    assert xr.open_zarr(store).attrs["rasterpipe"]["complete"] is True


def test_xarray_opens_a_raster_without_bands_or_georeference(tmp_path: Path) -> None:
    store = run(write(tmp_path / "in.zarr", pixels((40, 50), "uint8")), tmp_path / "out.zarr")
    step = xr.open_zarr(store, group="smooth")
    assert set(step.coords) == {"y", "x"}
    np.testing.assert_array_equal(step.y, np.arange(40))
    assert step["max"].dtype == np.uint8  # nothing can be invalid: no mask


@pytest.mark.parametrize(
    ("dtype", "nodata", "fill", "recorded"),
    [
        ("float32", None, np.nan, None),
        ("float32", np.nan, np.nan, "AAAAAAAA+H8="),
        ("float64", -9999.0, -9999.0, "AAAAAICHw8A="),
        ("uint8", None, 255, None),
        ("int64", None, 2**63 - 1, None),
        ("uint64", 2**64 - 1, 2**64 - 1, 2**64 - 1),
        ("int16", -1, -1, -1),
        ("uint8", 0, 0, 0),
    ],
)
def test_fill_values(tmp_path: Path, dtype: str, nodata: Any, fill: Any, recorded: Any) -> None:
    spec = RasterSpec(4, 5, np.dtype(dtype), nodata=nodata)
    np.testing.assert_equal(fill_value(spec), fill)
    create_store(str(tmp_path / "a.zarr"), {}, [StoredArray("s/value", spec, (2, 2), None, "fast", spec.region)])
    array = zarr.open_array(str(tmp_path / "a.zarr"), path="s/value", mode="r")
    np.testing.assert_array_equal(array[...], np.full((4, 5), fill, dtype))
    assert array.attrs.get("_FillValue") == (fill if recorded is None and np.dtype(dtype).kind != "f" else recorded)
    opened = xr.open_dataset(str(tmp_path / "a.zarr"), group="s", engine="zarr", consolidated=False)["value"]
    assert np.isnan(opened).all()
    finish_store(
        LocalFolder(tmp_path / "a.zarr"),
        documents({}, [StoredArray("s/value", spec, (2, 2), None, "fast", spec.region)], of_groups={}),
        [],
    )
    array = zarr.open_array(str(tmp_path / "a.zarr"), path="s/value", mode="r")
    assert array.attrs.get("_FillValue") == recorded
    assert repr(ZarrReader(str(tmp_path / "a.zarr")).spec.nodata) == repr(nodata)
    opened = xr.open_dataset(str(tmp_path / "a.zarr"), group="s", engine="zarr", consolidated=False)["value"]
    assert np.isnan(opened).all() if nodata is not None else opened.dtype == np.dtype(dtype)


@pytest.mark.parametrize(("crs", "transform"), [(None, UTM), ("EPSG:32633", None), ("EPSG:32633", ROTATED), (WKT, UTM)])
def test_georeference_comes_through_a_run(tmp_path: Path, crs: str | None, transform: Any) -> None:
    attributes = {"proj:code" if crs and len(crs) < 20 else "proj:wkt2": crs} if crs else {}
    attributes |= {"spatial:transform": transform} if transform else {}
    source = group(tmp_path / "in.zarr", attributes, image=(("y", "x"), pixels((20, 30))))
    store = run(source, tmp_path / "out.zarr")
    smooth = zarr.open_group(store, path="smooth", mode="r")
    by_attributes = cf.parse_georeference(smooth.attrs, {}, [])
    by_grid_mapping = cf.parse_georeference({}, smooth["spatial_ref"].attrs, [])
    assert by_attributes == (transform, crs)
    assert by_grid_mapping == (transform, crs and cf.crs_wkt(crs))
    named = {convention["name"] for convention in smooth.attrs["zarr_conventions"]}
    assert named == ({"proj"} if crs else set()) | ({"spatial"} if transform else set())
    assert ("y" in smooth) == (transform is not ROTATED)
    xr.open_zarr(store, group="smooth")
    spec = ZarrReader(f"{store}/smooth/mean").spec
    assert (spec.transform, spec.crs) == (transform, crs)


# --- chunks, shards, codecs ------------------------------------------------------------------------------------


def num_files(store: str, path: str) -> int:
    return sum(1 for file in Path(store, path, "c").rglob("*") if file.is_file())


@pytest.mark.parametrize("codec", [*CODECS])
@pytest.mark.parametrize(
    ("chunks", "shards", "dims", "stored", "files"),
    [
        ([16, 16], "none", "auto", (16, 16, 3), 3 * 4),
        ([16, 16, 2], "none", "auto", (16, 16, 2), 3 * 4 * 2),
        ([16, 16, 1], "none", "band,y,x", (1, 16, 16), 3 * 4 * 3),
        ([8, 8], [16, 32], "auto", (8, 8, 3), 3 * 2),
        ([8, 8, 1], [16, 32, 2], "band,y,x", (1, 8, 8), 3 * 2 * 2),
        ([100, 100, 9], "none", "y,x,band", (40, 50, 3), 1),
    ],
)
def test_every_chunk_is_written(
    tmp_path: Path, codec: str, chunks: Any, shards: Any, dims: str, stored: Any, files: int
) -> None:
    """Also those that hold nodata only, which is the fill value; and the same values whatever the storage."""
    values = pixels((40, 50, 3), "int16")
    values[:35] = -1
    source = write(tmp_path / "in.zarr", values, ("y", "x", "band"), attributes={"missing_value": -1})
    store = run(source, tmp_path / "out.zarr", chunks=chunks, shards=shards, dims=dims, codec=codec)
    expected = harness.whole(source, [SMOOTH], tmp_path)
    for name in SMOOTH["statistics"]:
        array = zarr.open_array(store, path=f"smooth/{name}", mode="r")
        assert array.chunks == stored
        assert (array.shards is None) == (shards == "none")
        assert num_files(store, f"smooth/{name}") == files
        if CODECS[codec] is None:
            assert array.compressors == ()
        else:
            (compressor,) = array.compressors
            assert compressor.to_dict()["configuration"]["cname"] == CODECS[codec]["cname"]
        assert same_bits(harness.read(Path(store), f"smooth/{name}"), expected[f"smooth/{name}"])


@DRAWN
@given(st.data())
def test_dims_are_converted_with_all_that_belongs_to_them(data: st.DataObject) -> None:
    raster = data.draw(strategy.rasters(largest=20))
    dims = data.draw(st.sampled_from(["y,x,band", "band,y,x"]))
    with harness.workspace() as folder:
        store = run(harness.store(raster, folder / "in.zarr"), folder / "out.zarr", dims=dims, chunks=[8, 8])
        plain = run(harness.store(raster, folder / "in2.zarr"), folder / "out2.zarr", chunks=[5, 9])
        reader = ZarrReader(f"{store}/smooth/mean")
        assert reader.spec.dims == (tuple(dims.split(",")) if "band" in raster.dims else ("y", "x"))
        for name in SMOOTH["statistics"]:
            path = f"smooth/{name}"
            assert same_bits(harness.read(Path(store), path), harness.read(Path(plain), path))


def test_tables_and_coordinates_have_every_chunk(tmp_path: Path) -> None:
    """Also those of nothing but the fill value, which a reader could not tell from lost ones."""
    configure(2)  # zarrs, as in a run
    target = str(tmp_path / "out.zarr")
    spec = RasterSpec(1, 1, np.dtype("uint8"), ("y", "x", "band"), ("b1",), transform=UTM)
    create_store(target, {}, [StoredArray("s/value", spec, (1, 1, 1), None, "fast", spec.region)])
    table = {"label": np.arange(2), "mean": np.zeros((2, 1))}
    table_spec = TableSpec({"label": ("label",), "mean": ("label", "band")}, ("b1",))
    plan = TablePlan("s", table, table_spec)
    arrays = [StoredArray("s/value", spec, (1, 1, 1), None, "fast", spec.region)]
    finish_store(LocalFolder(target), documents({}, arrays, [plan]), [plan])
    chunks = {str(path.relative_to(target)) for path in Path(target).rglob("*") if path.name != "zarr.json"}
    names = {"s/y/c/0", "s/x/c/0", "s/band/c/0", "s/spatial_ref/c"}
    columns = {f"s/table/{name}" for name in ("label/c/0", "mean/c/0/0", "band/c/0")}
    assert {name for name in chunks if Path(target, name).is_file()} == names | columns


# --- provenance ------------------------------------------------------------------------------------------------


def test_root_and_steps_carry_provenance(scene: str, tmp_path: Path) -> None:
    second = {"name": "again", "op": "window", "size": 5, "input": "smooth/mean", "nodata": -5}
    store = run(scene, tmp_path / "out.zarr", SMOOTH, second, keep=["smooth/mean", "again"])
    root = root_attributes(store)
    assert root is not None
    keep = ["smooth/mean", "again"]
    document = harness.document(scene, [SMOOTH, second], Path(store), chunks=[16, 16], keep=keep)
    job = load(document)
    assert root["plan_hash"] == api.plan(document)["plan_hash"]
    assert root["version"] == pipeline.__version__
    assert root["complete"] is True
    assert root["config"]["steps"][0]["name"] == "smooth"
    assert root["parts"]["identities"] == {"image": job.readers["image"].identity()}
    for name in ("smooth", "again"):
        step = zarr.open_group(store, path=name, mode="r").attrs["rasterpipe"]
        assert step["complete"] is True
        assert step["step"]["name"] == name
        assert {key: step[key] for key in ("version", "run_id", "plan_hash")} == {
            key: root[key] for key in ("version", "run_id", "plan_hash")
        }
    assert sorted(zarr.open_group(store, path="smooth", mode="r").array_keys()) == [
        "band", "mean", "spatial_ref", "wavelength", "x", "y",
    ]  # fmt: skip
    for file in Path(store).rglob("zarr.json"):  # no NaN, which is no JSON
        json.loads(file.read_text(), parse_constant=pytest.fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "scene.zarr"]


def test_a_store_that_is_not_finished_does_not_say_complete(tmp_path: Path) -> None:
    create_store(str(tmp_path / "a.zarr"), {"complete": False}, [])
    assert root_attributes(str(tmp_path / "a.zarr")) == {"complete": False}
    assert root_attributes(write(tmp_path / "b.zarr", pixels((3, 4)))) is None
    assert root_attributes(str(tmp_path)) is None


# --- regions ---------------------------------------------------------------------------------------------------

PARTS = {
    "rows and columns": ({"rows": [7, 31], "columns": [11, 42]}, Region(7, 31, 11, 42)),
    "rows": ({"rows": [39, 40]}, Region(39, 40, 0, 50)),
    "bbox": ({"bbox": [500110.0, 4999690.0, 500420.0, 4999930.0]}, Region(7, 31, 11, 42)),
    "bbox within pixels": ({"bbox": [500115.0, 4999695.0, 500415.0, 4999925.0]}, Region(7, 31, 11, 42)),
    "bbox beyond": ({"bbox": [0.0, 4999690.0, 500420.0, 9e9]}, Region(0, 31, 0, 42)),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_region_is_that_part_of_the_whole_run(scene: str, tmp_path: Path, name: str) -> None:
    config, region = PARTS[name]
    steps = [SMOOTH, {"name": "wide", "op": "window", "size": [9, 5], "input": "smooth/mean", "boundary": "wrap"}]
    keep = {"keep": ["smooth", "wide"]}
    whole, part = run(scene, tmp_path / "whole.zarr", *steps, **keep), tmp_path / "part.zarr"
    run(scene, part, *steps, region=config, chunks=[10, 12], **keep)
    check_part(whole, str(part), region, ["smooth/mean", "smooth/max", "smooth/count", "wide/mean"])


def check_part(whole: str, part: str, region: Region, paths: list[str]) -> None:
    for path in paths:
        assert same_bits(values_of(part, path), values_of(whole, path)[region.slices()]), path
    for step in {path.partition("/")[0] for path in paths}:
        rows, columns = region.slices()
        assert same_bits(values_of(part, f"{step}/y"), values_of(whole, f"{step}/y")[rows])
        assert same_bits(values_of(part, f"{step}/x"), values_of(whole, f"{step}/x")[columns])
        opened = xr.open_zarr(part, group=step)
        merged = xr.open_zarr(whole, group=step).sel(y=opened.y, x=opened.x)  # labels agree to the bit
        assert merged.sizes == opened.sizes


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (None, "region.bbox: the raster has no georeference; give rows and columns instead"),
        (ROTATED, "region.bbox: the raster is rotated; give rows and columns instead"),
        (UTM, "region.bbox: [0.0, 0.0, 1.0, 1.0] does not meet the raster, which spans x 500000 to "),
    ],
)
def test_a_box_that_says_nothing_is_refused(tmp_path: Path, transform: Any, message: str) -> None:
    grid = {"grid_mapping": "crs"} if transform else {}
    mapping = {"crs_wkt": WKT} | ({"GeoTransform": geo_text(transform)} if transform else {})
    source = group(tmp_path / "in.zarr", image=(("y", "x"), pixels((20, 30)), grid), crs=((), 0, mapping))
    with pytest.raises(PipelineError) as caught:
        run(source, tmp_path / "out.zarr", region={"bbox": [0, 0, 1, 1]})
    assert message in str(caught.value)


TRANSFORMS = {"none": None, "decimal": (0.1, 0.0, 13.37, 0.0, -0.1, 47.11), "rotated": ROTATED}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_the_georeference_of_a_region_is_shifted(tmp_path: Path, name: str) -> None:
    """Without a georeference too: rows and columns count on from those of the whole raster."""
    transform = TRANSFORMS[name]
    attributes = {"spatial:transform": transform} if transform else {}
    source = group(tmp_path / "in.zarr", attributes, image=(("y", "x"), pixels((40, 50))))
    region = Region(7, 31, 11, 42)
    whole = run(source, tmp_path / "whole.zarr")
    part = run(source, tmp_path / "part.zarr", region={"rows": [7, 31], "columns": [11, 42]})
    if transform != ROTATED:
        check_part(whole, part, region, ["smooth/mean"])
    if transform:
        a, b, c, d, e, f = transform
        expected = (a, b, c + a * 11 + b * 7, d, e, f + d * 11 + e * 7)
        assert ZarrReader(f"{part}/smooth/mean").spec.transform == expected
        assert zarr.open_group(part, path="smooth").attrs["spatial:transform"] == list(expected)
    else:
        assert values_of(part, "smooth/y").tolist() == list(range(7, 31))
        assert "spatial_ref" not in zarr.open_group(part, path="smooth")


def test_a_region_of_a_region_counts_on(tmp_path: Path) -> None:
    source = write(tmp_path / "in.zarr", pixels((40, 50)))
    first = run(source, tmp_path / "first.zarr", region={"rows": [10, 30]})
    again = {**SMOOTH, "name": "again"}
    run(f"{first}/smooth/mean", tmp_path / "second.zarr", again, region={"rows": [5, 15], "columns": [20, 40]})
    assert values_of(str(tmp_path / "second.zarr"), "again/y").tolist() == list(range(15, 25))
    assert values_of(str(tmp_path / "second.zarr"), "again/x").tolist() == list(range(20, 40))


# --- as the input of a next pipeline ---------------------------------------------------------------------------


@DRAWN
@given(st.data())
def test_a_kept_output_as_input_equals_the_chain(data: st.DataObject) -> None:
    raster = data.draw(strategy.rasters(largest=25))
    first = data.draw(strategies.window_steps("first"))
    second = data.draw(strategies.window_steps("second"))
    if first["statistics"]:
        first.pop("percentiles", None)
    else:
        first["percentiles"] = first["percentiles"][:1]
    first["statistics"] = first["statistics"][:1]
    path = f"first/{strategies.outputs_of(first)[0]}"
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        chain = run(source, folder / "chain.zarr", first, {**second, "input": "first"}, keep=["first", "second"])
        alone = run(source, folder / "first.zarr", first, chunks=[7, 11])
        form = data.draw(st.sampled_from([f"{alone}/{path}", f"{alone}/first", alone]))
        result = run(form, folder / "second.zarr", second)
        for name in strategies.outputs_of(second):
            assert same_bits(values_of(result, f"second/{name}"), values_of(chain, f"second/{name}"))


def test_names_and_georeference_survive_the_chain(scene: str, tmp_path: Path) -> None:
    first = run(scene, tmp_path / "first.zarr", {**SMOOTH, "statistics": ["mean"]})
    second = run(first, tmp_path / "second.zarr", {**SMOOTH, "name": "again", "bands": ["B04", "B02"]})
    before, after = xr.open_zarr(first, group="smooth"), xr.open_zarr(second, group="again")
    assert after.band.values.tolist() == ["B04", "B02"]
    assert after.wavelength.values.tolist() == [665, 490]
    assert after.spatial_ref.attrs == before.spatial_ref.attrs
    for axis in ("y", "x"):
        assert same_bits(after[axis].values, before[axis].values)


def test_a_coordinate_named_as_an_output_gives_way(tmp_path: Path) -> None:
    source = group(
        tmp_path / "in.zarr",
        image=(("band", "y", "x"), pixels((2, 20, 30)), {"coordinates": "mean max kind"}),
        mean=(("band",), [1.0, 2.0]),
        kind=(("band",), ["a", "b"]),
    )
    store = run(source, tmp_path / "out.zarr", {**SMOOTH, "statistics": ["mean"]})
    assert values_of(store, "smooth/mean").shape == (2, 20, 30)
    assert xr.open_zarr(store, group="smooth").kind.values.tolist() == ["a", "b"]


# --- the writer ------------------------------------------------------------------------------------------------


def writer(folder: Path, shards: tuple[int, ...] | None = None, region: Region | None = None) -> ZarrWriter:
    spec = RasterSpec(20, 30, np.dtype("uint8"), nodata=9)
    plan = StoredArray("s/value", spec, (4, 5), shards, "fast", region or spec.region)
    create_store(str(folder / "a.zarr"), {}, [plan])
    return ZarrWriter(str(folder / "a.zarr"), plan)


@pytest.mark.parametrize("shards", [None, (8, 10)])
def test_whole_chunks_or_shards_are_written_and_nothing_else(tmp_path: Path, shards: Any) -> None:
    out = writer(tmp_path, shards)
    rows, columns = out.array.unit
    edges = [
        sorted({-step, 0, 1, step - 1, step, 2 * step, size - 1, size, size + step})
        for step, size in ((rows, 20), (columns, 30))
    ]
    written = np.full((20, 30), 9, "uint8")
    for top, bottom in itertools.product(edges[0], repeat=2):
        for left, right in itertools.product(edges[1], repeat=2):
            region = Region(top, bottom, left, right)
            values = np.full((max(0, region.height), max(0, region.width)), 1, "uint8")
            inside = 0 <= top < bottom <= 20 and 0 <= left < right <= 30
            whole = all(
                start % step == 0 and (stop % step == 0 or stop == size)
                for start, stop, step, size in ((top, bottom, rows, 20), (left, right, columns, 30))
            )
            if inside and whole:
                out.write(region, values)
                written[region.slices()] = 1
            else:
                with pytest.raises(ValueError, match="is not whole chunks or shards"):
                    out.write(region, values)
    np.testing.assert_array_equal(values_of(str(tmp_path / "a.zarr"), "s/value"), written)


def test_values_of_another_shape_or_dtype_are_refused(tmp_path: Path) -> None:
    out = writer(tmp_path, region=Region(3, 11, 2, 12))
    assert out.array.stored.shape == (8, 10)
    for values in (np.zeros((4, 4), "uint8"), np.zeros((4, 5), "float32"), np.zeros((4, 5, 1), "uint8")):
        with pytest.raises(ValueError, match=r"s/value: rows 0:4, columns 0:5 takes \(4, 5\) uint8, not"):
            out.write(Region(0, 4, 0, 5), values)


@given(st.tuples(*[st.integers(-5, 5)] * 6), st.integers(0, 9), st.integers(0, 9))
def test_with_region_keeps_every_pixel_where_it_was(transform: tuple[int, ...], top: int, left: int) -> None:
    spec = RasterSpec(20, 20, np.dtype("uint8"), transform=transform)
    part = with_region(spec, Region(top, 15, left, 18))
    assert part.shape == (15 - top, 18 - left)
    (a, b, c, d, e, f), (a2, b2, c2, d2, e2, f2) = transform, part.transform or ()
    for row, column in ((0, 0), (3, 1)):
        assert a2 * column + b2 * row + c2 == a * (column + left) + b * (row + top) + c
        assert d2 * column + e2 * row + f2 == d * (column + left) + e * (row + top) + f


def test_nothing_is_lost_with_random_rasters_and_regions(tmp_path: Path) -> None:
    raster = Raster(pixels((33, 47, 2), "float32"), ("y", "x", "band"), chunks=(10, 10, 2))
    source = harness.store(raster, tmp_path / "in.zarr")
    whole = run(source, tmp_path / "whole.zarr", chunks=[7, 9])
    rng = np.random.default_rng(0)
    for number in range(5):
        (top, bottom), (left, right) = (sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in (33, 47))
        part = run(source, tmp_path / f"{number}.zarr", region={"rows": [top, bottom], "columns": [left, right]})
        check_part(whole, part, Region(top, bottom, left, right), ["smooth/mean", "smooth/count"])


@pytest.mark.parametrize("nodata", [None, 7])
def test_what_is_not_written_yet_reads_as_nodata(
    nodata: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an unfinished result can be seen, no reader takes chunks that are not there for pixels."""
    values = np.full((8, 8), 3, np.uint8)
    source = harness.store(harness.Raster(values, ("y", "x"), nodata, chunks=(4, 4)), tmp_path / "scene.zarr")
    output = tmp_path / "out.zarr"
    config = {
        "inputs": {"image": source},
        "steps": [{"name": "low", "op": "window", "size": 1, "statistics": ["min", "count"]}],
        "output": {"path": str(output), "chunks": [4, 4]},
        "run": {"workers": 1, "retries": 0},
    }
    write, calls = ZarrWriter.write, itertools.count()

    def failing(writer: ZarrWriter, *arguments: Any) -> Any:
        if next(calls) >= 2:
            raise OSError(28, "No space left on device")
        return write(writer, *arguments)

    monkeypatch.setattr(fitting, "_coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr(ZarrWriter, "write", failing)
    with pytest.raises(RunStopped):
        api.run(config, cut=Cut((Grid(Axis(0, 8, 4), Axis(0, 8, 4), 2**31),)))
    building = harness.unfinished(output)
    with xr.open_dataset(building / "low", engine="zarr", consolidated=False) as found:
        assert [int(found[name].notnull().sum()) for name in ("min", "count")] == [16, 16]
    monkeypatch.setattr(ZarrWriter, "write", write)
    api.run(config, resume=True)
    with xr.open_dataset(output / "low", engine="zarr", consolidated=False) as found:
        assert found["count"].dtype == np.uint32
        assert int(found["min"].notnull().sum()) == 64


def test_coordinates_of_all_rasters_of_a_step(tmp_path: Path) -> None:
    """Also where the first has no bands."""
    values = np.random.default_rng(0).integers(0, 99, (8, 8, 3)).astype(np.uint8)
    array = xr.DataArray(values, dims=("y", "x", "band"), coords={"wavelength": ("band", [490.0, 560.0, 665.0])})
    array.to_dataset(name="scene").to_zarr(tmp_path / "waves.zarr", zarr_format=3, consolidated=False)
    config = {
        "inputs": {"image": str(tmp_path / "waves.zarr")},
        "steps": [
            {"name": "colors", "op": "palette", "colors": 4},
            {"name": "poster", "op": "quantize", "input": "image", "palette": "colors", "outputs": ["index", "color"]},
        ],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    api.run(config)
    with xr.open_dataset(tmp_path / "out.zarr/poster", engine="zarr", consolidated=False) as found:
        assert found["color"].wavelength.values.tolist() == [490.0, 560.0, 665.0]
        assert found["index"].dims == ("y", "x")
