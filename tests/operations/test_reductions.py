"""What all reductions owe: tables do not depend on the order of blocks, nor on how they are merged; chains of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import api
from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block
from pipeline.block.plan import Pass, Sweep
from pipeline.model.region import Region
from pipeline.model.table import Table
from pipeline.operations.base import Reduction
from pipeline.operations.registry import our_operations
from pipeline.output.job import Job
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Layout, Raster, same_bits

Step = dict[str, Any]

MEANS: Step = {"op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]}
EVERY: Step = {
    "name": "zones",
    "op": "label_stats",
    "input": "image",
    "labels": "labels",
    "statistics": ["count", "sum", "mean", "var", "min", "max"],
    "geometry": ["centroid", "centroid_weighted", "bbox", "area", "perimeter", "major_axis", "orientation"],
    "histogram": {"bins": 5, "range": [0, 300]},
    "recolor": ["mean"],
}
SELECTED: Step = MEANS | {"name": "zones", "statistics": ["median", "range"], "percentiles": [10, 97.5]}
COUNTED: Step = MEANS | {"name": "zones", "bands": [2], "statistics": ["mode", "variety"], "recolor": ["mode"]}
PALETTE: Step = {"name": "colors", "op": "palette", "input": "image", "colors": 9, "bands": [1, 2, 3]}
QUANTIZE: Step = {"op": "quantize", "palette": "colors", "bands": [1, 2, 3], "input": "image"}

TABLES: dict[str, Step] = {
    "label_stats": EVERY,
    "percentiles": SELECTED | {"recolor": ["median", "p10"]},
    "median cut": PALETTE,
    "few cells": PALETTE | {"max_cells": 256},
    "components": {"name": "cells", "op": "components", "input": "image", "where": "b1 > 120", "connectivity": 8},
    "threshold": {"name": "bright", "op": "threshold", "input": "image", "method": "otsu"},
    "percentages of a ramp": {"name": "tinted", "op": "relief", "input": "image", "bands": [1]}
    | {"colors": [["0%", 0, 0, 255], ["50%", 255, 255, 0], ["100%", 255, 0, 0]]},
    "k-means": PALETTE | {"method": "kmeans", "sweeps": 2},
}
"""A reduction of each kind."""

CHAINS: dict[str, list[Step]] = {
    "label_stats of a texture": [
        {"name": "texture", "op": "gabor", "input": "image", "bands": [1], "frequencies": [0.2], "window": 5}
        | {"orientations": [0, 60], "statistics": ["mean"]},
        MEANS | {"name": "zones", "input": "texture/mean"},
    ],
    "quantize of a calc": [
        {"name": "ratio", "op": "calc", "input": "image", "expression": "input / (b1 + 1)"},
        PALETTE | {"input": "ratio/value"},
        QUANTIZE | {"name": "poster", "input": "ratio/value"},
    ],
    "two reductions one after the other": [
        MEANS | {"name": "zones"},
        PALETTE | {"input": "zones/mean", "method": "kmeans", "sweeps": 1},
        QUANTIZE | {"name": "poster", "input": "zones/mean", "outputs": ["index"]},
        MEANS | {"name": "back", "labels": "poster/index", "statistics": ["mean", "var"]},
    ],
    "modes of modes": [
        {"name": "rounded", "op": "cast", "input": "image", "dtype": "uint8"},
        COUNTED | {"input": "rounded/value"},
        SELECTED | {"name": "back", "input": "zones/mode", "recolor": ["p97.5"]},
    ],
    "three readers of one table": [
        PALETTE,
        QUANTIZE | {"name": "poster", "outputs": ["index", "color"]},
        {"name": "smooth", "op": "window", "input": "image", "size": 5},
        QUANTIZE | {"name": "calm", "input": "smooth/mean", "outputs": ["index"]},
        {"name": "rough", "op": "window", "input": "poster/color", "size": 3, "statistics": ["var"]},
        QUANTIZE | {"name": "far", "outputs": ["distance"]},
    ],
}


OTHERS = [pytest.param(dtype, marks=pytest.mark.thorough) for dtype in ("uint16", "float32")]


@pytest.fixture(scope="module", params=["uint8", *OTHERS])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(3)
    image = rng.normal(120, 30, (43, 52, 3)).clip(0, 255).astype(request.param)
    raster = Raster(image, ("y", "x", "band"), 0, chunks=(20, 20, 3))
    return harness.store(raster, tmp_path_factory.mktemp("scene") / f"{request.param}.zarr")


def test_every_reduction_is_here() -> None:
    reductions = {name for name, operation in our_operations().items() if issubclass(operation, Reduction)}
    assert reductions == {step["op"] for step in TABLES.values()}


def rectangles(region: Region, seed: int) -> list[Region]:
    """Return a partition of a region in any order."""
    rng = np.random.default_rng(seed)
    rows = [region.top, *sorted(rng.choice(np.arange(1, region.height), 4, replace=False).tolist()), region.bottom]
    columns = [region.left, *sorted(rng.choice(np.arange(1, region.width), 3, replace=False).tolist()), region.right]
    parts = [Region(*r, *c) for r, c in itertools.product(itertools.pairwise(rows), itertools.pairwise(columns))]
    return [parts[i] for i in rng.permutation(len(parts))]


@pytest.mark.parametrize("kind", TABLES)
def test_any_order_of_any_blocks_gives_the_same_table(kind: str, source: str, tmp_path: Path) -> None:
    step = TABLES[kind]
    expected = harness.whole(source, [step], tmp_path)
    job = load(harness.document(source, [step], tmp_path / "x.zarr"))
    for seed in range(5):

        def cut(planned: Pass, seed: int = seed) -> Iterator[tuple[Region, Fresh]]:
            for part in rectangles(planned.grid.region, seed):
                yield part, Fresh()

        got = harness.compute(job, cut)
        assert got.keys() == expected.keys()
        for path, values in expected.items():
            assert same_bits(got[path], values), path


@pytest.mark.parametrize("kind", TABLES)
def test_merging_is_associative_and_commutative_to_the_bit(kind: str, source: str, tmp_path: Path) -> None:
    """Of the partial tables of every sweep, three at a time."""
    job = load(harness.document(source, [TABLES[kind]], tmp_path / "x.zarr"))
    tables = job.plan.first_tables()
    for planned in (planned for planned in job.plan.passes if planned.sweeps):
        (sweep,) = planned.sweeps
        partials = [partial(job, planned, part, tables) for part in rectangles(planned.grid.region, 0)]

        def merge(a: Table, b: Table, sweep: Sweep = sweep) -> Table:
            return sweep.reduction.merge(a, b, sweep.number)

        for a, b, c in zip(partials, partials[1:], partials[2:], strict=False):
            expected = merge(merge(a, b), c)
            for other in (merge(a, merge(b, c)), merge(merge(b, a), c), merge(c, merge(a, b)), merge(merge(c, a), b)):
                check_same(other, expected)
        merged = partials[0]
        for other in partials[1:]:
            merged = merge(merged, other)
        tables[sweep.step.name] = sweep.reduction.fold(merged, tables[sweep.step.name], sweep.number)


def partial(job: Job, planned: Pass, part: Region, tables: Any) -> Table:
    """Return the partial table of a part."""
    found: list[Table] = []

    class Keep:
        limit_bytes = 2**62

        def add(self, sweep: int, table: Table) -> None:
            found.append(table)

        def add_total(self, step: str, total: Any) -> None:
            raise AssertionError("no step is measured here")

    def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        reader = job.readers[raster]
        bands = [reader.spec.bands.index(band) for band in planned.specs[raster].bands]
        reader.read(region, out, bands if len(bands) < reader.spec.num_bands else None)

    compute_block(planned, part, fetch, Fresh(), tables=tables, collector=Keep())
    return found[0]


def check_same(a: Table, b: Table) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert same_bits(np.asarray(a[name]), np.asarray(b[name])), name


@pytest.mark.parametrize("kind", CHAINS)
def test_chains_give_the_same_bits_for_every_layout(kind: str, source: str, tmp_path: Path) -> None:
    steps = CHAINS[kind]
    keep = [step["name"] for step in steps if step["op"] != "palette"]
    expected = harness.whole(source, steps, tmp_path, keep=keep)
    for layout in (
        Layout(block=(1, 2), chunks=(9, 13), strip=(1, 3), workers=2),
        Layout(block=(2, 1), chunks=(10, 10), panel=2, dims="band,y,x"),
        Layout(block=(1, 1), chunks=(20, 20), strip=(2, 2), halo="exchange"),
    ):
        got = harness.run(source, steps, tmp_path, layout, keep=keep)
        assert got.keys() == expected.keys()
        for path, values in expected.items():
            assert same_bits(got[path], values), (path, layout)
    last = harness.run(source, steps, tmp_path, keep=[steps[-1]["name"]])  # the others are computed again, not stored
    for path, values in last.items():
        assert same_bits(values, expected[path]), path


@pytest.mark.parametrize("kind", CHAINS)
def test_chains_are_their_steps_one_by_one(kind: str, source: str, tmp_path: Path) -> None:
    """Each step run alone on what the steps before it stored, given the palette as a list."""
    steps = CHAINS[kind]
    keep = [step["name"] for step in steps if step["op"] != "palette"]
    expected = harness.run(source, steps, tmp_path, keep=keep)
    stored = {"image": source, "labels": f"{source}{harness.LABELS}"}
    colors: list[list[float]] = []
    for step in steps:
        alone = step | ({"palette": colors} if step["op"] == "quantize" else {})
        names = {step[key]: f"in{number}" for number, key in enumerate(("input", "labels")) if key in step}
        alone |= {key: names[step[key]] for key in ("input", "labels") if key in step}
        target = tmp_path / f"{step['name']}.zarr"
        inputs = {name: stored[reference] for reference, name in names.items()}
        job_facts = api.run({"inputs": inputs, "steps": [alone], "output": {"path": str(target)}})
        for path in (path for path in expected if path.startswith(f"{step['name']}/") and "/quality" not in path):
            found = zarr.open_array(str(target), path=path, mode="r")
            values = (
                found[...] if path.partition("/")[2].startswith(("table", "palette")) else harness.read(target, path)
            )
            # a palette in a list may have colours in a wider dtype than the raster's
            assert same_bits(np.asarray(values).astype(expected[path].dtype), expected[path]), path
            stored[path] = f"{target}/{path}"
            if path == "colors/palette":
                colors = np.asarray(values).tolist()
        for name, quality in job_facts["quality"].items():
            assert list(quality.values()) == expected[f"{name}/quality"].tolist()


@pytest.mark.parametrize("nodata", [None, 7])
def test_a_mark_for_no_label_that_only_the_dtype_asked_for_can_hold(tmp_path: Path, nodata: int | None) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    harness.store(Raster(values, ("y", "x"), nodata=nodata), tmp_path / "scene.zarr")
    labels = np.array([[0, 1], [2, 2]], np.int16).repeat(2, axis=0).repeat(2, axis=1)
    zarr.create_array(str(tmp_path / "labels.zarr"), data=labels, dimension_names=("y", "x"))
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "statistics": ["max"]}
    config = {
        "inputs": {"image": str(tmp_path / "scene.zarr"), "labels": str(tmp_path / "labels.zarr")},
        "steps": [step | {"ignore": [0], "recolor": ["max"], "dtype": "float32", "nodata": -1}],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    api.run(config)
    found = zarr.open_array(str(tmp_path / "out.zarr"), path="zones/max", mode="r")[...]
    highest = 6 if nodata == 7 else 7
    np.testing.assert_array_equal(found[::2, ::2], [[-1, highest], [15, 15]])


@pytest.mark.parametrize("step", ["label_stats", "median_cut", "kmeans"])
def test_a_block_with_rows_of_millions_of_pixels(tmp_path: Path, step: str) -> None:
    """A row has more pixels of a label, or of a colour, than the digits of one sum can take."""
    num, high = 9_000_000, 2**40 - 1
    values = np.full((1, num), high)
    values[:, ::2] = high - 2
    values[:, -1] = 5
    source = harness.store(Raster(values, ("y", "x"), chunks=(1, 2**20)), tmp_path / "in", with_labels=False)
    labels = harness.store(Raster(np.ones((1, num), np.int8), ("y", "x")), tmp_path / "labels", with_labels=False)
    table = {"op": "label_stats", "labels": "labels", "statistics": ["mean", "var"], "recolor": ["mean"]}
    cut = {"op": "palette", "colors": 2, "method": step, "allow_inexact": True, "dtype": "float64"}
    document = {
        "inputs": {"image": source, "labels": labels} if step == "label_stats" else {"image": source},
        "steps": [{"name": "s", "input": "image", **(table if step == "label_stats" else cut)}],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    got = harness.compute(load(document), lambda planned: [(planned.grid.region, Fresh())])
    even, odd = num // 2, num // 2 - 1
    total = even * (high - 2) + odd * high + 5
    if step == "label_stats":
        mean = Fraction(total, num)
        squares = even * (high - 2 - mean) ** 2 + odd * (high - mean) ** 2 + (5 - mean) ** 2
        assert got["s/table/mean"].tolist() == [[float(mean)]]
        assert got["s/table/var"][0, 0] == pytest.approx(float(squares / num), rel=1e-15)
        assert set(np.unique(got["s/mean"]).tolist()) == {float(mean)}
    else:
        assert sorted(got["s/palette"].ravel().tolist()) == [5, float(Fraction(total - 5, num - 1))]
