"""calc, mask, select, cast from pipelines: several rasters of different dims, names, refusals with their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import api
from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block
from pipeline.model.errors import PipelineError
from pipeline.model.raster import array_slices
from pipeline.model.region import Region
from pipeline.testing.draws import draws
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Raster, same_bits, to_planes

HEIGHT, WIDTH = 23, 37


def scene(dtype: str = "uint16", num_bands: int = 8, seed: int = 0) -> np.ndarray:
    """Return (band, y, x)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (num_bands, HEIGHT, WIDTH)).astype(dtype)


def put(folder: Path, name: str, planes: np.ndarray, dims: tuple[str, ...], nodata: Any = None) -> str:
    values = planes if dims[0] == "band" else np.moveaxis(planes, 0, -1)
    values = np.ascontiguousarray(values if "band" in dims else values[..., 0])
    chunks = tuple({"y": 7, "x": 11, "band": 2}[dim] for dim in dims)
    return harness.store(Raster(values, dims, nodata, chunks), folder / f"{name}.zarr")


def compute(folder: Path, inputs: dict[str, str], *steps: dict[str, Any], **run: Any) -> np.ndarray:
    """Run steps; return what the last one gives, as (band, y, x)."""
    named = [{"name": f"s{number}", **step} for number, step in enumerate(steps)]
    target = folder / "out.zarr"
    config = {"inputs": inputs, "steps": named, "output": {"path": str(target)}, "run": run}
    api.run(config, overwrite=True, quiet=True)
    return harness.read(target, f"{named[-1]['name']}/value")


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x")], ids=",".join)
def test_ndvi_of_unsigned_integers(tmp_path: Path, dims: tuple[str, ...]) -> None:
    planes = scene()
    planes[3, 0], planes[7, 0] = 0, 0  # 0 / 0
    source = put(tmp_path, "image", planes, dims)
    got = compute(tmp_path, {"image": source}, {"op": "calc", "expression": "(b8 - b4) / (b8 + b4)"})
    nir, red = planes[7].astype(np.float32), planes[3].astype(np.float32)
    with np.errstate(invalid="ignore"):
        assert same_bits(got, ((nir - red) / (nir + red))[np.newaxis])
    assert np.isnan(got[0, 0]).all()
    assert not np.isnan(got[0, 1:][nir[1:] + red[1:] > 0]).any()
    assert got[~np.isnan(got)].min() < 0


def test_differences_of_unsigned_integers_do_not_wrap(tmp_path: Path) -> None:
    planes = scene("uint8", 2)
    got = compute(
        tmp_path, {"image": put(tmp_path, "image", planes, ("y", "x", "band"))}, {"op": "calc", "expression": "b1 - b2"}
    )
    np.testing.assert_array_equal(got[0], planes[0].astype(int) - planes[1])
    assert got.dtype == np.float32


@settings(max_examples=draws(25), deadline=None)
@given(data=st.data())
def test_rasters_of_different_dims_and_dtypes(data: st.DataObject) -> None:
    """uint16 y,x,band, float64 band,y,x with NaN, uint8 y,x with nodata: 3 bands, 3 bands, 1."""
    a, b, c = scene("uint16", 3), scene("float64", 3, 1), scene("uint8", 1, 2)
    b[1, 5:9, 3:] = np.nan
    dims = [data.draw(st.sampled_from([("y", "x", "band"), ("band", "y", "x")])) for _ in range(2)]
    run = {"halo": data.draw(st.sampled_from(["read", "exchange"])), "workers": 2}
    with harness.workspace() as folder:
        inputs = {
            "a": put(folder, "a", a, dims[0]),
            "b": put(folder, "b", b, dims[1]),
            "c": put(folder, "c", c, ("y", "x"), 7),
        }
        keys = data.draw(st.permutations(sorted(inputs)))
        step = {"op": "calc", "inputs": {key: key for key in keys}, "expression": "where(c > 90, a - b, b * a.b2 + c)"}
        got = compute(folder, inputs, step, **run)
        masked = {
            "op": "mask",
            "input": "a",
            "inputs": {"c": "c", "b": "b"},
            "where": "c > 90 or b.b2 == 3",
            "nodata": 9,
        }
        kept = compute(folder, inputs, masked, **run)
        each = compute(folder, inputs, {**masked, "where": "c > 90 or b == 3"}, **run)
    wide = c.astype(np.float64)
    wide[c == 7] = np.nan
    expected = np.where(wide > 90, a - b, b * a[1].astype(float) + wide)
    assert same_bits(got, np.where(np.isnan(wide), np.nan, expected))
    known = ~np.isnan(wide)
    assert same_bits(kept, np.where(((wide > 90) | (b[1] == 3)) & known & ~np.isnan(b[1]), a, 9).astype("uint16"))
    assert same_bits(each, np.where(((wide > 90) | (b == 3)) & known & ~np.isnan(b), a, 9).astype("uint16"))


def test_a_scene_classification_masks_all_bands(tmp_path: Path) -> None:
    planes, scl = scene("int16", 4), (scene("uint8", 1, 3) % 11).astype("uint8")
    planes[2, 3, 4] = -1
    inputs = {
        "image": put(tmp_path, "image", planes, ("band", "y", "x"), -1),
        "scl": put(tmp_path, "scl", scl, ("y", "x")),
    }
    got = compute(
        tmp_path, inputs, {"op": "mask", "input": "image", "inputs": {"scl": "scl"}, "where": "scl != 3 and scl != 8"}
    )
    assert same_bits(got, np.where((scl != 3) & (scl != 8), planes, -1).astype("int16"))


def test_mask_without_a_nodata_value_becomes_floating_point(tmp_path: Path) -> None:
    planes = scene("uint16", 2)
    inputs = {"image": put(tmp_path, "image", planes, ("y", "x", "band"))}
    got = compute(tmp_path, inputs, {"op": "mask", "where": "image > 50"})
    assert same_bits(got, np.where(planes > 50, planes, np.nan).astype(np.float32))


def test_select_keeps_infinity_and_names(tmp_path: Path) -> None:
    planes = scene("float32", 4)
    planes[3, 0, 0] = np.inf
    inputs = {"image": put(tmp_path, "image", planes, ("y", "x", "band"))}
    assert same_bits(compute(tmp_path, inputs, {"op": "select", "bands": [4, 2]}), planes[[3, 1]])
    got = compute(tmp_path, inputs, {"op": "select", "bands": ["b4", 2]}, {"op": "calc", "expression": "b4 - b2"})
    assert same_bits(got, (planes[3] - planes[1])[np.newaxis])
    with pytest.raises(PipelineError, match=r"steps\[1\] \(s1\)\.expression: 'b1' is position 1, .* called 'b4'"):
        compute(tmp_path, inputs, {"op": "select", "bands": [4, 2]}, {"op": "calc", "expression": "b1 + 1"})


@pytest.mark.parametrize(
    ("source", "step", "expected"),
    [
        (np.array([-5, 0, 200, 300], "int16"), {"dtype": "uint8"}, [0, 0, 200, 255]),
        (np.array([2**63, 2**64 - 1, 5], "uint64"), {"dtype": "int64"}, [2**63 - 1, 2**63 - 1, 5]),
        (np.array([-(2**63), -1, 2**63 - 1], "int64"), {"dtype": "uint64"}, [0, 0, 2**63 - 1]),
        (np.array([2**53 + 1, 7], "int64"), {"dtype": "int64", "clip": [10, 2**60]}, [2**53 + 1, 10]),
        (np.array([0, 255], "uint8"), {"dtype": "int16", "clip": [300, 400]}, [300, 300]),
        (np.array([0, 255], "uint8"), {"dtype": "int16", "clip": [-9, -5]}, [-5, -5]),
        (np.array([0, 1, 3, 5], "uint8"), {"dtype": "uint8", "scale": 0.5}, [0, 0, 2, 2]),
        (np.array([0, 1, 3, 5], "uint8"), {"dtype": "uint8", "scale": 0.5, "rounding": "ceil"}, [0, 1, 2, 3]),
        (np.array([1, 3, 5], "uint8"), {"dtype": "int8", "scale": -0.5, "rounding": "truncate"}, [0, -1, -2]),
        (np.array([1, 3, 5], "uint8"), {"dtype": "int8", "scale": -0.5, "rounding": "floor"}, [-1, -2, -3]),
        (np.array([1, 2], "uint8"), {"dtype": "float32", "scale": 0.1, "offset": -0.05}, [0.05, 0.15]),
        (np.array([1, 1000], "uint16"), {"dtype": "float16", "scale": 0.1}, [0.1, 100]),
        (np.array([-1e30, 1e30, 2.5], "float64"), {"dtype": "int64", "nodata": 0}, [-(2**63), 2**63 - 1, 2]),
        (np.array([np.inf, -np.inf, np.nan], "float32"), {"dtype": "int16", "nodata": -1}, [32767, -32768, -1]),
        (np.array([1e300, np.inf], "float64"), {"dtype": "float32"}, [np.inf, np.inf]),
        (np.array([-0.0, 0.0], "float64"), {"dtype": "float32"}, [-0.0, 0.0]),
    ],
)
def test_cast(tmp_path: Path, source: np.ndarray, step: dict[str, Any], expected: list[float]) -> None:
    inputs = {"image": harness.store(Raster(source[np.newaxis], ("y", "x")), tmp_path / "in.zarr")}
    got = compute(tmp_path, inputs, {"op": "cast", **step})
    with np.errstate(over="ignore"):
        assert same_bits(got, np.array([[expected]], step["dtype"]))


REFUSED = {
    "no input": ({"inputs": {"a": "nope"}, "expression": "a + 1"}, "inputs.a: unknown input or step 'nope'"),
    "outputs of an input": ({"inputs": {"a": "image/x"}, "expression": "a + 1"}, "inputs.a: 'image' is an input"),
    "both": ({"input": "image", "inputs": {"a": "image"}, "expression": "a"}, "inputs: `input` and `inputs` exclude"),
    "bands": ({"bands": [1], "inputs": {"a": "image"}, "expression": "a"}, "bands: `bands` goes with `input`"),
    "not used": ({"inputs": {"a": "image", "b": "wide"}, "expression": "a"}, "inputs.b: 'b' is not used"),
    "not there": (
        {"inputs": {"a": "image", "bb": "wide"}, "expression": "a + b + bb"},
        "expression: unknown raster 'b'; did you mean 'bb'? (valid: a, bb)",
    ),
    "no band": ({"inputs": {"a": "image", "b": "wide"}, "expression": "a.b3 - b"}, "unknown band of 'a' 'b3'"),
    "counts": (
        {"inputs": {"a": "image", "b": "wide"}, "expression": "a - b"},
        "expression: band counts do not fit: a has 2, b has 3",
    ),
    "key": ({"inputs": {"my-step": "image"}, "expression": "a"}, "inputs: 'my-step' is not a name in expressions"),
    "taken key": ({"inputs": {"max": "image"}, "expression": "max"}, "inputs: 'max' means something else"),
    "syntax": ({"expression": "b1 +"}, "expression: cannot read `b1 +`"),
    "constant": ({"expression": "1 + pi"}, "expression: `1 + pi` names no raster"),
    "name": ({"expression": "b1 + b7"}, "expression: unknown name 'b7'"),
    "exact": ({"input": "large", "expression": "large + 1"}, "input: the input is int64"),
    "exact among inputs": (
        {"inputs": {"n": "large", "a": "image"}, "expression": "n + a"},
        "inputs.n: the input is int64",
    ),
    "text": ({"expression": 3}, "expression: must be text, got 3"),
    "integers": ({"expression": "b1 / b2", "dtype": "uint8"}, "uint8 has no value for them"),
    "mask counts": (
        {"op": "mask", "input": "image", "inputs": {"w": "wide"}, "where": "w > 3"},
        "where: band counts do not fit",
    ),
    "mask name": (
        {"op": "mask", "input": "image", "inputs": {"b1": "wide"}, "where": "b1 > 3"},
        "where: 'b1' is a raster and a band of the input; write input.b1 for the band",
    ),
    "cast nodata": (
        {"op": "cast", "input": "floats", "dtype": "uint8"},
        "dtype: the input can have invalid pixels, and uint8 has",
    ),
    "cast unfit": ({"op": "cast", "input": "floats", "dtype": "uint8", "nodata": 256}, "nodata: the input can"),
    "cast clip": ({"op": "cast", "dtype": "uint8", "clip": [3, 1]}, "clip: must be [low, high], two numbers"),
    "cast scale": ({"op": "cast", "dtype": "uint8", "scale": 0}, "scale: must not be 0"),
    "cast rounding": ({"op": "cast", "dtype": "float32", "rounding": "floor"}, "rounding: is for integers"),
    "cast exact": ({"op": "cast", "input": "large", "dtype": "float64"}, "input: the input is int64"),
    "cast dtype": ({"op": "cast"}, "dtype: missing"),
    "select": ({"op": "select"}, "bands: missing"),
    "select twice": (
        {"op": "select", "input": "floats", "bands": [1, 1]},
        "bands: the raster has one band and no band",
    ),
    "select band": ({"op": "select", "bands": [3]}, "bands: band 3 does not exist"),
}


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rasters")
    return {
        "image": put(folder, "image", scene("uint16", 2), ("y", "x", "band")),
        "wide": put(folder, "wide", scene("uint16", 3), ("band", "y", "x")),
        "floats": put(folder, "floats", scene("float32", 1), ("y", "x")),
        "large": put(folder, "large", scene("int64", 1), ("y", "x")),
    }


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, rasters: dict[str, str]) -> None:
    step, message = REFUSED[case]
    steps = [{"name": "step", "op": "calc", **step}]
    steps += [{"name": f"read_{name}", "op": "window", "input": name, "size": 3} for name in rasters]
    with pytest.raises(PipelineError) as caught:
        load({"inputs": rasters, "steps": steps, "output": {"path": "never.zarr"}})
    assert message in str(caught.value)
    assert str(caught.value).startswith("steps[0] (step).")


def test_every_reference_among_inputs_has_its_place_in_the_file(tmp_path: Path) -> None:
    text = """\
inputs: {image: a.zarr}
steps:
  - {name: one, op: calc, inputs: {a: image, b: two}, expression: a + b}
  - {name: two, op: calc, inputs: {a: one, b: nope}, expression: a + b}
  - {name: three, op: mask, inputs: {name: three}, where: name > 1}
  - {name: four, op: calc, inputs: {a: five}, expression: a * 2}
  - {name: five, op: calc, inputs: {a: image}, expression: a * 2}
output: {path: out.zarr}
"""
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        load(tmp_path / "p.yaml")
    words = ("two}", "nope", "three}", "five")
    places = [line.index(word) + 1 for line, word in zip(text.splitlines()[2:6], words, strict=True)]
    assert [line.partition("p.yaml:")[2] for line in str(caught.value).splitlines()] == [
        f"3:{places[0]}: steps[0] (one).inputs.b: a cycle: one -> two -> one (each reads the next); break it",
        f"4:{places[1]}: steps[1] (two).inputs.b: unknown input or step 'nope' (valid: image, one)",
        f"5:{places[2]}: steps[2] (three).inputs.name: step 'three' reads itself; choose one of: image, one, two",
        f"6:{places[3]}: steps[3] (four).inputs.a: reads 'five', a later step; a step reads earlier ones: "
        "move 'five' before 'four'",
    ]


def test_a_result_of_one_band_is_named_after_its_step(rasters: dict[str, str]) -> None:
    steps = [
        {"name": "ndvi", "op": "calc", "input": "image", "expression": "b2 / b1"},
        {"name": "both", "op": "calc", "inputs": {"f": "floats", "i": "image"}, "expression": "f + i"},
        {"name": "one", "op": "calc", "inputs": {"f": "floats", "i": "image"}, "expression": "f + i.b1"},
    ]
    inputs = {name: rasters[name] for name in ("image", "floats")}
    job = load({"inputs": inputs, "steps": steps, "output": {"path": "never.zarr"}})
    specs = {path: array.spec for path, array in job.plan.kept.items()}
    assert {path: (spec.bands, spec.dims) for path, spec in specs.items()} == {
        "ndvi/value": (("ndvi",), ("y", "x", "band")),
        "both/value": (("b1", "b2"), ("y", "x", "band")),
        "one/value": (("one",), ("y", "x", "band")),
    }


def test_bits_do_not_depend_on_the_block(tmp_path: Path) -> None:
    """Blocks of one pixel, of odd sizes, and the whole: transcendental functions included."""
    planes = (scene("float32", 3) / 17).astype("float32")
    source = put(tmp_path, "image", planes, ("y", "x", "band"))
    expression = "exp(b1 / 7) * log(b2 + 1) ** 1.3 - sin(input) / arctan2(b3, 2)"
    step = {"name": "s", "op": "calc", "expression": expression}
    planned = load(harness.document(source, [step], tmp_path / "x.zarr")).plan.passes[0]
    values = np.ascontiguousarray(np.moveaxis(planes, 0, -1))

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        out[...] = values[array_slices(("y", "x", "band"), region)]

    def block(region: Region) -> np.ndarray:
        (result,) = compute_block(planned, region, fetch, Fresh()).values()
        return to_planes(result, ("y", "x", "band")).copy()

    whole = block(Region(0, HEIGHT, 0, WIDTH))
    for region in (Region(3, 4, 5, 6), Region(0, 1, 0, WIDTH), Region(2, 19, 7, 8), Region(1, 18, 3, 34)):
        assert same_bits(block(region), whole[:, region.top : region.bottom, region.left : region.right])


@pytest.mark.parametrize("dims", [("y", "x"), ("y", "x", "band"), ("band", "y", "x")], ids=",".join)
@pytest.mark.parametrize(
    "step",
    [
        {"op": "select", "bands": [1]},
        {"op": "cast", "dtype": "int16"},
        {"op": "cast", "dtype": "float32"},
        {"op": "window", "size": 1, "dtype": "uint8"},
        {"op": "calc", "expression": "b1 + 0"},
    ],
    ids=lambda step: f"{step['op']}-{step.get('dtype')}",
)
def test_nodata_is_given_where_none_is_recorded(tmp_path: Path, step: dict[str, Any], dims: tuple[str, ...]) -> None:
    source = put(tmp_path, "image", np.arange(24, dtype="uint8").reshape(1, 4, 6), dims)
    first = {"name": "s", "input": "image", **step, "nodata": 3}
    facts = api.run(harness.document(source, [first], tmp_path / "a.zarr"), quiet=True)
    assert facts["outputs"][0]["valid_fraction"] == 23 / 24
    assert api.info(tmp_path / "a.zarr")["nodata"] == 3
    api.run(harness.document(source, [first], tmp_path / "a.tif"), quiet=True)
    assert api.info(tmp_path / "a.tif")["nodata"] == 3
    count = {"name": "n", "op": "window", "size": 1, "statistics": ["count"]}
    api.run(harness.document(source, [first, count], tmp_path / "b.zarr"), quiet=True)
    np.testing.assert_array_equal(harness.read(tmp_path / "b.zarr", "n/count").ravel(), np.arange(24) != 3)


def test_nodata_is_given_to_what_can_be_invalid(tmp_path: Path) -> None:
    source = put(tmp_path, "image", scene("uint8", 1), ("y", "x"), nodata=0)
    step = {"name": "s", "op": "window", "input": "image", "size": 3, "statistics": ["mean", "count"], "nodata": -1}
    job = load(harness.document(source, [step], tmp_path / "a.zarr"))
    assert {path: array.spec.nodata for path, array in job.plan.kept.items()} == {"s/mean": -1, "s/count": None}


@pytest.mark.parametrize(
    ("nodata", "message"),
    [
        (-1, r"steps\[0\] \(s\)\.nodata: -1 cannot occur in uint8 \(value\); give a value that can"),
        ("none", r"steps\[0\] \(s\)\.nodata: must be a number; `nodata: none` stands at an input"),
    ],
)
def test_nodata_that_a_step_cannot_give(tmp_path: Path, nodata: Any, message: str) -> None:
    source = put(tmp_path, "image", scene("uint8", 1), ("y", "x"))
    step = {"name": "s", "op": "select", "input": "image", "bands": [1], "nodata": nodata}
    with pytest.raises(PipelineError, match=message):
        load(harness.document(source, [step], tmp_path / "a.zarr"))
