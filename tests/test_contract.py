"""The contract of exactness, for every operation in the registry."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline import api
from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block
from pipeline.execution.process import peak_rss_bytes, trim_heap
from pipeline.model.errors import PipelineError
from pipeline.model.region import Region
from pipeline.operations.base import Block, Reduction
from pipeline.operations.registry import registry
from pipeline.verbs.load import load
from tests import harness, strategies
from tests.draws import draws
from tests.harness import Layout, Raster, same_bits
from tests.references import REFERENCES

SLOW = settings(
    deadline=None,
    max_examples=draws(12),
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)],  # runs are slow, layouts small
)
OPERATIONS = sorted(registry())
MAPS = [op for op in OPERATIONS if not issubclass(registry()[op], Reduction)]
UNFIT = (
    *("cannot occur", "has no value for them", "does not exist: the raster has", "band counts do not fit"),
    *(
        "holds fractions",
        "no band axis",
        "and the band there is called",
        "the palette has",
        "no pixel is valid in all bands",
        "holds whole numbers only up to 2^53",
    ),
)
"""What refusals say that a drawn raster meets by chance."""


def test_every_operation_has_a_reference_and_a_strategy() -> None:
    assert set(OPERATIONS) == set(REFERENCES) == set(strategies.STEPS)


def loadable(source: str, steps: list[dict[str, Any]], folder: Any, raster: Raster | None = None) -> bool:
    """Return whether the drawn parameters fit the drawn raster; a refusal is not what these tests are about."""
    chooses_colors = any(step["op"] == "palette" for step in steps)
    if raster is not None and chooses_colors and not np.isfinite(raster.planes()).all(axis=0).any():
        return False  # no pixel is valid
    try:
        load(harness.document(source, steps, folder / "x.zarr"))
    except PipelineError as error:
        if any(words in str(error) for words in UNFIT):
            return False
        raise
    return True


def whole_of(raster: Raster, step: dict[str, Any], folder: Any) -> tuple[str, dict[str, np.ndarray]] | None:
    """Store a drawn raster; return its path and the results of a step on the whole, None where they do not fit."""
    source = harness.store(raster, folder / "in.zarr")
    return (source, harness.whole(source, [step], folder)) if loadable(source, [step], folder, raster) else None


@pytest.mark.parametrize("op", OPERATIONS)
@SLOW
@given(data=st.data())
def test_equals_the_reference(op: str, data: st.DataObject) -> None:
    raster = data.draw(strategies.rasters())
    step = data.draw(strategies.declared_dtypes(data.draw(strategies.STEPS[op]())))
    with harness.workspace() as folder:
        if (found := whole_of(raster, step, folder)) is None:
            return
        source, got = found
        job = load(harness.document(source, [step], folder / "x.zarr"))
    operation = job.pipeline.steps[0]
    expected = REFERENCES[op](operation, raster.planes(), raster.values.dtype)
    assert got.keys() == {f"step/{name}" for name in expected}
    for name, (values, bound) in expected.items():
        if values is None:  # without a naive reference
            continue
        if f"step/{name}" not in job.plan.kept:  # of a table
            check_close(got[f"step/{name}"], values, bound, None)
            continue
        result, spec = got[f"step/{name}"], job.plan.kept[f"step/{name}"].spec
        assert result.dtype == spec.dtype
        assert result.shape == (spec.num_bands, spec.height, spec.width)
        if bound is not None and result.dtype.kind == "f" and result.dtype == step.get("dtype"):  # rounded once more
            bound = bound + np.finfo(result.dtype).eps / 2 * np.abs(values)
        check_close(result, values, bound, spec.nodata)


def check_close(result: np.ndarray, expected: np.ndarray, bound: np.ndarray | None, nodata: Any) -> None:
    invalid = np.isnan(expected)
    if result.dtype.kind == "f":
        result = np.where(result == nodata, np.nan, result)
        np.testing.assert_array_equal(np.isnan(result), invalid)
    elif invalid.any():
        assert nodata is not None
        assert np.all(result[invalid] == nodata)
    if result.dtype.kind in "iu":
        # rounded to the working dtype, half to even to whole numbers, to the nearest end
        info = np.iinfo(result.dtype)
        rounding = np.finfo(np.float32).eps * np.where(expected == np.rint(expected), 0, np.abs(expected))
        slack = np.where(np.isfinite(expected), rounding if bound is None else bound, 0)
        low, high = (np.rint(np.clip(side, info.min, info.max)) for side in (expected - slack, expected + slack))
        assert np.all((low <= result)[~invalid])
        assert np.all((result <= high)[~invalid])
    elif bound is None:
        # exact means the exact value rounded once: max - min of float32 values need not be one
        np.testing.assert_array_equal(result[~invalid], expected[~invalid].astype(result.dtype))
    else:
        with np.errstate(invalid="ignore"):
            error = np.abs(result.astype(np.float64) - expected)
        error = np.where(result == expected, 0, error)[~invalid]  # infinity is infinity
        tiny = np.finfo(result.dtype).tiny
        assert np.all(error <= bound[~invalid] + tiny), (error - bound[~invalid]).max()


@pytest.mark.parametrize("op", OPERATIONS)
@SLOW
@given(data=st.data())
def test_same_bits_for_every_layout(op: str, data: st.DataObject) -> None:
    raster, layout = data.draw(strategies.rasters(extreme=True)), data.draw(strategies.layouts())
    step = data.draw(strategies.STEPS[op]())
    with harness.workspace() as folder:
        if (found := whole_of(raster, step, folder)) is None:
            return
        source, expected = found
        check_same(harness.run(source, [step], folder, layout), expected)


def check_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for path, values in expected.items():
        assert same_bits(got[path], values), path


@settings(SLOW, max_examples=draws(24))
@given(data=st.data())
def test_fused_equals_step_by_step_and_both_halo_ways(data: st.DataObject) -> None:
    raster, layout = data.draw(strategies.rasters(extreme=True)), data.draw(strategies.layouts())
    steps = data.draw(strategies.chains())
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if not loadable(source, steps, folder):
            return
        keep = [step["name"] for step in steps]
        expected = step_by_step(source, steps, folder)
        check_same(harness.run(source, steps, folder, layout, keep=keep), expected)
        last = {f"{steps[-1]['name']}/{output}" for output in strategies.outputs_of(steps[-1])}
        fused = harness.run(source, steps, folder, layout, keep=sorted(last))
        assert last <= fused.keys()  # besides the last step's rasters all tables are kept
        check_same(fused, {path: expected[path] for path in fused})
        wide = dataclasses.replace(layout, halo="exchange", block=(40, 40))  # blocks no thinner than any halo
        check_same(harness.run(source, steps, folder, wide, keep=keep), expected)


def step_by_step(source: str, steps: list[dict[str, Any]], folder: Any) -> dict[str, np.ndarray]:
    """Run every step as a pipeline of its own, from the stored results of those it reads."""
    stored, results = {"image": source, "labels": f"{source}{harness.LABELS}"}, {}
    for step in steps:
        target = folder / f"alone-{step['name']}.zarr"
        references = {**step.get("inputs", {}), **{key: step[key] for key in ("input", "labels") if key in step}}
        names = {reference: f"i{number}" for number, reference in enumerate(dict.fromkeys(references.values()))}
        alone = {**step}
        if "inputs" in step:
            alone["inputs"] = {key: names[reference] for key, reference in step["inputs"].items()}
        alone |= {key: names[step[key]] for key in ("input", "labels") if key in step}
        inputs = {name: stored[reference] for reference, name in names.items()}
        api.run({"inputs": inputs, "steps": [alone], "output": {"path": str(target)}})
        for output in (*strategies.outputs_of(step), *strategies.columns_of(step)):
            path = f"{step['name']}/{output}"
            stored[path] = str(target / path)
            results[path] = harness.read(target, path, is_table=output not in strategies.outputs_of(step))
        results |= harness.read_qualities(target)
    return results


@pytest.mark.parametrize("op", OPERATIONS)
@settings(SLOW, max_examples=draws(6))
@given(data=st.data())
def test_exchange_of_halos_gives_the_bits_of_reading_them(op: str, data: st.DataObject) -> None:
    raster = data.draw(strategies.rasters(largest=60))
    step = data.draw(strategies.STEPS[op]())
    strip = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if not loadable(source, [step], folder, raster):
            return
        passes = load(harness.document(source, [step], folder / "x.zarr")).plan.passes
        if not passes:  # of a palette that is given
            return
        plan = passes[0]
        halo = plan.halos[plan.stored[0]]
        chunks = max(6, halo.top, halo.bottom), max(6, halo.left, halo.right)  # no block is thinner than the halo
        layout = Layout(block=(1, 1), chunks=chunks, strip=strip, workers=2)
        expected = harness.run(source, [step], folder, layout)
        exchanged = dataclasses.replace(layout, halo="exchange")
        check_same(harness.run(source, [step], folder, exchanged), expected)


@pytest.mark.parametrize("op", MAPS)
@SLOW
@given(data=st.data())
def test_a_region_and_lazy_blocks_have_the_bits_of_the_whole(op: str, data: st.DataObject) -> None:
    """A region at the edge has no neighbour whose pixels it could share; lazy blocks are as thin as the array's."""
    raster = data.draw(strategies.rasters(extreme=True))
    step = data.draw(strategies.STEPS[op]())
    with harness.workspace() as folder:
        if (found := whole_of(raster, step, folder)) is None:
            return
        source, expected = found
        rasters = {path: values for path, values in expected.items() if not path.endswith("/quality")}
        region = data.draw(strategies.regions(raster))
        config = harness.document(source, [step], folder / "x.zarr")
        config["region"] = {"rows": [region.top, region.bottom], "columns": [region.left, region.right]}
        part = harness.compute(load(config), lambda planned: [(planned.grid.region, Fresh())])
    array = dask.array.from_array(raster.values, chunks=raster.chunks)
    lazy = pipeline.apply(step, array, dims=",".join(raster.dims), nodata=raster.nodata)
    lazy = lazy if isinstance(lazy, dict) else {next(iter(rasters)): lazy}
    for path, values in rasters.items():
        assert same_bits(part[path], values[(slice(None), *region.slices())]), path
        dims = raster.dims if lazy[path].ndim == len(raster.dims) else ("band", "y", "x")[3 - lazy[path].ndim :]
        assert same_bits(harness.to_planes(lazy[path].compute(scheduler="synchronous"), dims), values), path


@pytest.mark.parametrize("op", MAPS)
@SLOW
@given(data=st.data())
def test_halo_is_sufficient_and_minimal(op: str, data: st.DataObject) -> None:
    """A pixel just outside of the halo of a block changes nothing; one at its rim does, for some raster."""
    step = strategies.plain(data.draw(strategies.STEPS[op]()))
    values = np.random.default_rng(0).normal(size=(60, 60))
    block = Region(25, 31, 27, 33)
    with harness.workspace() as folder:
        source = harness.store(Raster(values, ("y", "x")), folder / "in.zarr")
        if not loadable(source, [step], folder):
            return
        planned = load(harness.document(source, [step], folder / "x.zarr")).plan.passes[0]
    halo = planned.halos["image"]

    def compute(array: np.ndarray) -> np.ndarray:
        def fetch(raster: str, region: Region, out: np.ndarray, periodic: bool) -> None:
            out[...] = array[region.slices()]

        arrays = compute_block(planned, block, fetch, Fresh())
        return np.concatenate([values.reshape(-1).astype(np.float64) for values in arrays.values()])

    expected, grown = compute(values), block.grow(halo)
    outside = values + 1e3
    outside[grown.slices()] = values[grown.slices()]
    assert same_bits(compute(outside), expected)
    rims = {
        "top": (grown.top, slice(grown.left, grown.right)) if halo.top else None,
        "bottom": (grown.bottom - 1, slice(grown.left, grown.right)) if halo.bottom else None,
        "left": (slice(grown.top, grown.bottom), grown.left) if halo.left else None,
        "right": (slice(grown.top, grown.bottom), grown.right - 1) if halo.right else None,
    }
    for side, rim in rims.items():
        if rim is not None:
            changed = values.copy()
            changed[rim] += np.random.default_rng(1).normal(size=changed[rim].shape) * 1e3
            assert not same_bits(compute(changed), expected), side


@pytest.mark.parametrize("op", MAPS)
@SLOW
@given(data=st.data())
def test_survives_pickling_and_yaml_and_leaves_its_input_alone(op: str, data: st.DataObject) -> None:
    operation = registry()[op].model_validate(data.draw(strategies.STEPS[op]()))
    assert pickle.loads(pickle.dumps(operation)) == operation
    assert type(operation).model_validate(json.loads(operation.model_dump_json(exclude_none=True))) == operation
    raster = data.draw(strategies.rasters())
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        step = json.loads(operation.model_dump_json(exclude_none=True))
        if not loadable(source, [step], folder):
            return
        planned = load(harness.document(source, [step], folder / "x.zarr")).plan.passes[0]
    seen: list[tuple[Block, np.ndarray]] = []
    bound = planned.steps[0].operation

    class Watched(type(bound)):  # type: ignore[misc]
        def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
            copies = {key: block.values.copy() for key, block in blocks.items()}
            super().apply(blocks, tables, out, region)
            seen.extend((blocks[key], copies[key]) for key in blocks)

    steps = (dataclasses.replace(planned.steps[0], operation=Watched.model_construct(**dict(bound))),)
    plan = dataclasses.replace(planned, steps=steps)

    def fetch(name: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        out[...] = 3

    compute_block(plan, planned.grid.region, fetch, Fresh())
    assert seen
    for block, before in seen:
        assert same_bits(block.values, before)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory cannot be reset here")
@pytest.mark.parametrize("dtype", ["uint16", pytest.param("float32", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "dims", [("y", "x", "band"), pytest.param(("band", "y", "x"), marks=pytest.mark.thorough)], ids=",".join
)
@pytest.mark.parametrize("op", MAPS)
def test_scratch_bytes_are_not_exceeded(op: str, dims: tuple[str, ...], dtype: str) -> None:
    """In a process of its own: what the heap of one holds that has run many tests comes and goes as it likes."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        used, promised = pool.submit(_scratch_bytes, op, dims, dtype).result()
    assert used <= promised + 4 * 2**20  # what numpy and the interpreter take; one plane of this block has as much


def _scratch_bytes(op: str, dims: tuple[str, ...], dtype: str) -> tuple[int, int]:
    """Return what `apply` allocates for 1024 x 1024 x 3, by the process's high-water mark, and what it promises."""
    step = strategies.scratch_step(op)
    values = np.random.default_rng(0).integers(0, 1000, (1024, 1024, 3)).astype(dtype)
    values = np.ascontiguousarray(values if dims[0] == "y" else np.moveaxis(values, -1, 0))
    with harness.workspace() as folder:
        source = harness.store(Raster(values, dims, 7), folder / "in.zarr")
        planned = load(harness.document(source, [step], folder / "x.zarr")).plan.passes[0]
    grown: list[tuple[int, int]] = []
    bound = planned.steps[0].operation

    class Watched(type(bound)):  # type: ignore[misc]
        def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
            super().apply(blocks, tables, out, region)  # compiles, and touches every buffer
            trim_heap()
            before = harness.reset_peak_bytes()
            super().apply(blocks, tables, out, region)
            grown.append((peak_rss_bytes() - before, self.scratch_bytes(planned.steps[0].sources, region.shape)))

    steps = (dataclasses.replace(planned.steps[0], operation=Watched.model_construct(**dict(bound))),)
    plan = dataclasses.replace(planned, steps=steps)

    def fetch(name: str, region: Region, out: np.ndarray, periodic: bool) -> None:
        read = np.take(values, planned.bands.get(name, range(3)), axis=dims.index("band"))
        out[...] = read[tuple(region.slices()) if dims[0] == "y" else (slice(None), *region.slices())]

    compute_block(plan, planned.grid.region, fetch, Fresh())
    return grown[0]


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x")], ids=",".join)
@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_the_bands_that_are_read_have_the_bits_they_have_among_all(tmp_path: Path, dims: Any, halo: str) -> None:
    """Two steps that choose different bands, one of them wrapping; in no order, not neighbours."""
    values = np.random.default_rng(0).random((33, 41, 6)).astype("float32")
    if dims[0] == "band":
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    source = harness.store(
        Raster(values, dims, chunks=tuple(2 if dim == "band" else 16 for dim in dims)), tmp_path / "in"
    )
    steps = [
        {"name": "a", "op": "window", "input": "image", "size": 5},
        {"name": "b", "op": "hessian", "input": "image", "outputs": ["dxy"]},
        {"name": "c", "op": "window", "input": "a", "size": 3, "boundary": "wrap"},
    ]
    chosen = {"a": [5, 2], "b": [6], "c": [2]}
    layout = Layout(block=(1, 1), chunks=(16, 16), halo=halo)
    every = harness.run(source, steps, tmp_path / "every", layout, keep=["a", "b", "c"])
    some = harness.run(
        source,
        [step | {"bands": chosen[step["name"]]} for step in steps],
        tmp_path / "some",
        layout,
        keep=["a", "b", "c"],
    )
    picked = {"a": [4, 1], "b": [5], "c": [1]}
    for path, planes in some.items():
        assert harness.same_bits(planes, every[path][picked[path.partition("/")[0]]]), path
