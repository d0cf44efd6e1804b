"""Objects: across blocks and the lattice by which they are painted, at seams, by size; what is refused and said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy import ndimage
from skimage import measure, morphology

from pipeline import api
from pipeline.model.errors import InputUnfit, PipelineError
from pipeline.operations import lattice
from pipeline.operations.components import Components
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Layout, Raster, same_bits
from tests.references import REFERENCES

STEP: dict[str, Any] = {"name": "cells", "op": "components", "input": "image"}


RUN = "import json, sys; from pipeline import api; print(json.dumps(api.run(json.loads(sys.argv[1])).to_dict()))"


def spiral(side: int) -> np.ndarray:
    """Return a line, two pixels from itself, that winds through the whole raster: one object."""
    image = np.zeros((side, side), np.uint8)
    top, bottom, left, right = 0, side - 1, 0, side - 1
    while top <= bottom and left <= right:
        image[top, left : right + 1] = 1
        image[top : bottom + 1, right] = 1
        image[bottom, left + 2 : right + 1] = 1
        image[top + 2 : bottom + 1, left + 2 if left + 2 < side else left] = 1
        top, bottom, left, right = top + 2, bottom - 2, left + 2, right - 2
    return image


def scene(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    if kind == "noise":
        return rng.integers(0, 3, (150, 173)).astype(np.uint8)
    if kind == "blobs":
        return (ndimage.gaussian_filter(rng.normal(size=(210, 160)), 2.5) > 0.03).astype(np.uint8)
    if kind == "checkerboard":
        return (np.indices((140, 135)).sum(axis=0) % 2).astype(np.uint8)
    return spiral(141)


@pytest.mark.parametrize("kind", ["noise", "blobs", "checkerboard", "spiral"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_objects_across_blocks_have_the_numbers_of_the_whole(kind: str, connectivity: int, tmp_path: Path) -> None:
    """On rasters that the lattice crosses, by blocks smaller and larger than its cells."""
    image = scene(kind)
    step = STEP | {"connectivity": connectivity}
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    expected = REFERENCES["components"](Components.model_validate(step), image[np.newaxis].astype(float), image.dtype)
    numbers = np.nan_to_num(expected["labels"][0])
    first = harness.whole(source, [step], tmp_path)
    for chunks in ((17, 31), (64, 64), (100, 9)):
        got = harness.run(source, [step], tmp_path, Layout(block=(1, 1), chunks=chunks, workers=2))
        assert got["cells/labels"].dtype == np.uint32
        assert np.array_equal(got["cells/labels"], numbers)
        assert all(same_bits(got[path], values) for path, values in first.items())


@pytest.mark.parametrize("seed", range(12))
def test_any_lattice_gives_the_same_numbers(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(lattice, "LATTICE", int(rng.choice([2, 3, 7, 16])))
    image = rng.integers(0, 3, rng.integers(1, 60, 2)).astype(np.int16)
    step = STEP | {"connectivity": int(rng.choice([4, 8])), "min_size": int(rng.choice([1, 3]))}
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    planes = image[np.newaxis].astype(float)
    expected = REFERENCES["components"](Components.model_validate(step), planes, image.dtype)["labels"][0]
    chunks = int(rng.integers(3, 30)), int(rng.integers(3, 30))
    got = harness.run(source, [step], tmp_path, Layout(block=(1, 1), chunks=chunks))
    assert np.array_equal(got["cells/labels"], np.nan_to_num(expected))


@pytest.mark.parametrize("seed", range(16))
def test_holes_are_filled_and_small_objects_given_away_across_blocks(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On any lattice, by any blocks: the bits of the whole, and those of the reference."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(lattice, "LATTICE", int(rng.choice([2, 3, 7, 16])))
    if seed % 2:
        image = rng.integers(0, 3, rng.integers(5, 50, 2)).astype(np.int16)
    else:
        image = (ndimage.gaussian_filter(rng.normal(size=rng.integers(20, 60, 2)), 1.2) * 8).astype(np.int16)
    step = STEP | {"connectivity": int(rng.choice([4, 8]))}
    step |= {"fill_holes": int(rng.choice([2, 10, 100]))} if seed % 5 else {}
    step |= {"min_size": int(rng.choice([2, 4, 9])), "removed": str(rng.choice(["drop", "largest_neighbour"]))}
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    planes = image[np.newaxis].astype(float)
    expected = REFERENCES["components"](Components.model_validate(step), planes, image.dtype)
    first = harness.whole(source, [step], tmp_path)
    assert np.array_equal(first["cells/labels"], np.nan_to_num(expected["labels"][0]))
    assert np.array_equal(first["cells/table/pixels"], expected["table/pixels"][0])
    for _ in range(2):
        chunks = int(rng.integers(3, 30)), int(rng.integers(3, 30))
        got = harness.run(source, [step], tmp_path, Layout(block=(1, 1), chunks=chunks))
        assert all(same_bits(got[path], values) for path, values in first.items())


@pytest.mark.parametrize("connectivity", [4, 8])
def test_filled_holes_are_those_of_scikit_image(connectivity: int, tmp_path: Path) -> None:
    """But for what reaches the edge of the raster, which is no hole."""
    rng = np.random.default_rng(2)
    mask = ndimage.gaussian_filter(rng.normal(size=(210, 160)), 2) > -0.04
    mask[0] = mask[-1] = True
    mask[:, 0] = mask[:, -1] = True
    step = STEP | {"connectivity": connectivity, "where": "input == 1", "fill_holes": 60}
    source = harness.store(Raster(mask.astype(np.uint8), ("y", "x")), tmp_path / "in.zarr")
    got = harness.run(source, [step], tmp_path, Layout(block=(1, 1), chunks=(33, 40)))
    filled = morphology.remove_small_holes(mask, max_size=59, connectivity=1 if connectivity == 8 else 2)
    assert np.count_nonzero(filled & ~mask) > 20
    expected = ndimage.label(filled, np.ones((3, 3)) if connectivity == 8 else None)[0]
    assert np.array_equal(got["cells/labels"][0], expected)


def test_small_objects_are_given_as_gdal_sieves(tmp_path: Path) -> None:
    """Where each of them lies in one larger one, which is what GDAL's order cannot change."""
    features = pytest.importorskip("rasterio.features")
    rng = np.random.default_rng(4)
    image = np.repeat(np.repeat(np.array([[1, 2], [3, 1]], np.uint8), 60, axis=0), 65, axis=1)
    for row, column in [*rng.integers(2, 55, (40, 2)), *rng.integers(2, 55, (40, 2)) + 60]:
        image[row : row + 1 + row % 2, column : column + 2] = 9
    step = STEP | {"min_size": 40, "removed": "largest_neighbour"}
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    got = harness.run(source, [step], tmp_path, Layout(block=(1, 1), chunks=(33, 40)))["cells/labels"][0]
    sieved = features.sieve(image, 40)
    assert np.unique(sieved).tolist() == [1, 2, 3]
    assert np.array_equal(got, np.array([0, 1, 2, 3])[sieved] + 3 * ((got == 4) & (sieved == 1)))


def test_objects_end_at_the_region(tmp_path: Path) -> None:
    """Two parts of one object that are connected outside of the region alone are two."""
    image = np.zeros((90, 90), np.uint8)
    image[70:80, 10] = image[70:80, 30] = image[85, 10:31] = image[80:86, 10] = image[80:86, 30] = 1
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    config = harness.document(source, [STEP], tmp_path / "out.zarr") | {"region": {"rows": [60, 83]}}
    api.run(config)
    found = harness.read(tmp_path / "out.zarr", "cells/labels")[0]
    assert np.unique(found[:, 10]).tolist() == [0, 1]
    assert np.unique(found[:, 30]).tolist() == [0, 2]


@pytest.mark.parametrize("more", [{}, {"fill_holes": 9}, {"min_size": 4, "removed": "largest_neighbour"}])
@pytest.mark.parametrize("part", [None, {"rows": [20, 131], "columns": [5, 150]}])
def test_steps_that_look_around_find_no_object_beyond_the_pixels_looked_at(
    part: dict[str, Any] | None, more: dict[str, Any], tmp_path: Path
) -> None:
    """In a region, and where kernels are compiled, which is by a few pixels: with the halo of a later step."""
    source = harness.store(Raster(scene("noise"), ("y", "x")), tmp_path / "in.zarr")
    steps = [
        STEP | more,
        {"name": "near", "op": "distance", "input": "cells", "where": "b1 > 0", "radius": 4},
        {"name": "shape", "op": "label_stats", "input": "image", "labels": "cells", "geometry": ["perimeter"]},
    ]
    output = {"path": str(tmp_path / "out.zarr"), "keep": ["cells", "near"], "chunks": [40, 70]}
    api.run({"inputs": {"image": str(source)}, "steps": steps, "output": output} | ({"region": part} if part else {}))
    labels, near, perimeters = (
        harness.read(tmp_path / "out.zarr", name)[0] for name in ("cells/labels", "near/value", "shape/table/perimeter")
    )
    expected = ndimage.distance_transform_edt(labels == 0)
    assert np.array_equal(near, np.where(expected > 4, np.nan, expected), equal_nan=True)
    assert np.allclose(perimeters, [measure.perimeter(np.pad(labels == k + 1, 2), 4) for k in range(len(perimeters))])


def test_verify_paints_samples_by_the_stored_table(tmp_path: Path) -> None:
    source = harness.store(Raster(scene("blobs"), ("y", "x")), tmp_path / "in.zarr")
    api.run(harness.document(source, [STEP], tmp_path / "out.zarr", chunks=[30, 30]))
    assert not api.verify(str(tmp_path / "out.zarr"), samples=8).problems


def test_64_bit_values_and_signed_zeros_are_told_apart_exactly(tmp_path: Path) -> None:
    wide = np.array([[2**53, 2**53 + 1, 2**53 + 1, 0]], np.int64).repeat(70, axis=0)
    source = harness.store(Raster(wide, ("y", "x")), tmp_path / "wide.zarr")
    got = harness.run(source, [STEP], tmp_path, Layout(block=(1, 1), chunks=(1, 1)))
    assert got["cells/labels"][0, 0].tolist() == [1, 2, 2, 0]
    zeros = np.array([[-0.0, 0.0, np.nan, np.inf]], np.float32)
    source = harness.store(Raster(zeros, ("y", "x")), tmp_path / "zeros.zarr")
    got = harness.run(source, [STEP | {"background": 7}], tmp_path, Layout(block=(1, 1), chunks=(1, 1)))
    assert got["cells/labels"][0, 0].tolist() == [1, 1, 0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bands": [1, 2]}, "one band is looked at"),
        ({"where": "input > 3"}, "the condition has 3 bands; name one"),
        ({"where": "b1 > 3", "background": 0}, "leave it out beside `where`"),
        ({"bands": [1], "min_size": 5, "max_size": 4}, "no object is left"),
        ({"bands": [1], "nodata": 5}, "is the number of an object"),
        ({"bands": [1], "removed": "largest_neighbour"}, "no object is, without min_size"),
        (
            {"where": "b1 > 3", "min_size": 3, "removed": "largest_neighbour"},
            "objects of a condition lie beside",
        ),
        ({"bands": [1], "fill_holes": 0}, "fill_holes"),
        ({"bands": [1], "connectivity": 6}, "connectivity"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((5, 5, 3), np.uint8), ("y", "x", "band")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match=words):
        load(harness.document(source, [STEP | change], tmp_path / "out.zarr"))
    assert not (tmp_path / "out.zarr").exists()


def test_more_objects_than_the_dtype_numbers_are_an_error(tmp_path: Path) -> None:
    source = harness.store(Raster(scene("checkerboard"), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(InputUnfit, match="9450 objects are found, and uint8 numbers up to 255"):
        api.run(harness.document(source, [STEP | {"dtype": "uint8"}], tmp_path / "out.zarr"))


def test_more_objects_than_the_memory_joins_are_an_error() -> None:
    step = Components.model_validate(STEP)
    table = {"first": np.arange(10**5), "start": np.arange(10)}
    with pytest.raises(InputUnfit, match="joining 100,000 objects of blocks takes 9 MiB, and may take 8; give"):
        step.fold_stored([table], {}, 0, 2**20)


@pytest.mark.long
def test_ten_million_objects_within_2_gib(tmp_path: Path) -> None:
    """Some 20 seconds on two shared cores, and what scipy takes."""
    side, rng = 10_500, np.random.default_rng(0)
    names: Any = {"chunks": (500, 500), "dimension_names": ("y", "x")}
    image = zarr.create_array(tmp_path / "in.zarr", shape=(side, side), dtype="uint16", **names)
    for top in range(0, side, 500):
        image[top : top + 500] = rng.integers(0, 1000, (500, side), dtype="uint16")
    document = harness.document(str(tmp_path / "in.zarr"), [STEP | {"where": "b1 > 880"}], tmp_path / "out.zarr")
    document["run"] = {"memory": "2 GiB", "workers": 2}
    command = [sys.executable, "-c", RUN, json.dumps(document)]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 2 * 2**30
    expected, num = ndimage.label(image[...] > 880)  # numbered by first pixels
    assert num >= 10**7
    found = zarr.open_array(tmp_path / "out.zarr", path="cells/labels", mode="r")
    for top in range(0, side, 500):
        assert np.array_equal(found[top : top + 500], expected[top : top + 500])


def test_a_raster_without_objects_says_so(tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((9, 9), np.uint8), ("y", "x")), tmp_path / "in.zarr")
    result = api.run(harness.document(source, [STEP], tmp_path / "out.zarr"))
    assert any("there is no object" in note for note in result.warnings)
    assert not harness.read(tmp_path / "out.zarr", "cells/labels").any()
