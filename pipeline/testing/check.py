"""What the contract tests compare, and what they say where it differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray

from pipeline import api
from pipeline.block.plan import Pass
from pipeline.model.region import Halo, Region
from pipeline.output.job import Job
from pipeline.testing import layout as runs
from pipeline.testing import observation
from pipeline.testing.layout import Layout
from pipeline.testing.raster import LABELS, Raster, same_bits, to_planes
from pipeline.testing.reference import check_close
from pipeline.verbs import lazy
from pipeline.verbs.load import load

MORE = 2
"""Pixels that a block is handed beyond its halo, to see whether the result depends on them."""
Step = dict[str, Any]
Results = dict[str, np.ndarray]


def check_output(
    job: Job, name: str, result: np.ndarray, values: np.ndarray, bound: np.ndarray | None, step: Step
) -> None:
    """Compare an output with its reference, and with what was declared of it."""
    if f"step/{name}" not in job.plan.kept:  # of a table
        check_close(name, result, values, bound, None)
        return
    spec = job.plan.kept[f"step/{name}"].spec
    assert result.dtype == spec.dtype, f"{name} is {result.dtype.name}, declared as {spec.dtype.name}"
    assert result.shape == (spec.num_bands, spec.height, spec.width), f"{name} has the shape {result.shape}"
    if bound is not None and result.dtype.kind == "f" and result.dtype == step.get("dtype"):  # rounded once more
        bound = bound + np.finfo(result.dtype).eps / 2 * np.abs(values)
    check_close(name, result, values, bound, spec.nodata)


def check_same(got: Results, expected: Results, what: str) -> None:
    """Raise AssertionError, in words, where results have other bits than the whole raster's."""
    assert got.keys() == expected.keys(), f"{sorted(got)} are there {what}, else {sorted(expected)}"
    for path, values in expected.items():
        if same_bits(got[path], values):
            continue
        assert got[path].dtype == values.dtype, f"{path} is {got[path].dtype.name} {what}, else {values.dtype.name}"
        assert got[path].shape == values.shape, f"{path} has the shape {got[path].shape} {what}, else {values.shape}"
        other = ~((got[path] == values) | ((got[path] != got[path]) & (values != values)))
        raise AssertionError(
            f"{path}: {max(1, int(other.sum()))} of {values.size} numbers have other bits {what} than on the whole "
            "raster; every pixel must be an expression fixed by its raster coordinates, of nothing but the halo: no "
            "running sum over a block, no padding within"
        )


def check_halo(plan: Pass, values: np.ndarray, block: Region) -> None:
    """Raise AssertionError, in words, where a block needs more than its operation's halo, or less."""
    step = plan.steps[0]
    halo = step.operation.halo(step.sources).get("input", Halo())
    says = f"halo() says {halo.top} rows above, {halo.bottom} below, {halo.left} columns left, {halo.right} right"
    with_more = observation.widened(plan, MORE)
    expected = observation.computed(with_more, block, values)
    try:
        alone = observation.computed(observation.widened(plan, 0), block, values)
    except Exception as error:
        raise AssertionError(
            f"the halo is too small: {says}, with which apply fails ({type(error).__name__}: {error}); it does not "
            f"with {MORE} pixels more on each side"
        ) from error
    grown = block.grow(halo)
    outside = values + 1e3
    outside[grown.slices()] = values[grown.slices()]
    is_enough = same_bits(alone, expected) and same_bits(observation.computed(with_more, block, outside), expected)
    assert is_enough, f"the halo is too small: {says}, and pixels beyond that change the result"
    rows, columns = slice(grown.top, grown.bottom), slice(grown.left, grown.right)
    rims: dict[str, tuple[int, Any]] = {
        "top": (halo.top, (grown.top, columns)),
        "bottom": (halo.bottom, (grown.bottom - 1, columns)),
        "left": (halo.left, (rows, grown.left)),
        "right": (halo.right, (rows, grown.right - 1)),
    }
    for side, (width, rim) in rims.items():
        changed = values.copy()
        changed[rim] += np.random.default_rng(1).normal(size=changed[rim].shape) * 1e3
        is_used = not width or not same_bits(observation.computed(plan, block, changed), alone)
        assert is_used, f"the halo is too large: {says}, and the outermost pixels at the {side} change nothing"


def check_chain(source: str, steps: Sequence[Step], folder: Path, drawn: Layout) -> None:
    """Compare steps in one pipeline with each run from the stored results of those it reads, in both halo ways."""
    keep = [step["name"] for step in steps]
    expected = step_by_step(source, steps, folder)
    check_same(runs.run(source, steps, folder, drawn, keep=keep), expected, "in one pipeline, all kept,")
    if last := sorted(path for path in expected if path.startswith(f"{keep[-1]}/") and is_raster(path, expected)):
        fused = runs.run(source, steps, folder, drawn, keep=last)
        assert set(last) <= fused.keys()  # besides the last step's rasters all tables are kept
        check_same(fused, {path: expected[path] for path in fused}, "in one pipeline, the last kept,")
    wide = dataclasses.replace(drawn, halo="exchange", block=(40, 40))  # blocks no thinner than any halo
    check_same(runs.run(source, steps, folder, wide, keep=keep), expected, "in one pipeline that exchanges halos")


def is_raster(path: str, results: Results) -> bool:
    return results[path].ndim == 3 and "/table/" not in path


def step_by_step(source: str, steps: Sequence[Step], folder: Path) -> Results:
    """Run every step as a pipeline of its own, from the stored results of those it reads."""
    stored, results = {"image": source, "labels": f"{source}{LABELS}"}, {}
    for step in steps:
        target = folder / f"alone-{step['name']}.zarr"
        references = {**step.get("inputs", {}), **{key: step[key] for key in ("input", "labels") if key in step}}
        names = {reference: f"i{number}" for number, reference in enumerate(dict.fromkeys(references.values()))}
        alone = {**step}
        if "inputs" in step:
            alone["inputs"] = {key: names[reference] for key, reference in step["inputs"].items()}
        alone |= {key: names[step[key]] for key in ("input", "labels") if key in step}
        paths = {name: stored.get(reference) or stored[f"{reference}/"] for reference, name in names.items()}
        config = {"inputs": paths, "steps": [alone], "output": {"path": str(target)}}
        job = load(config)
        api.run(config)
        for path in job.plan.kept:
            stored[path] = str(target / path)
            stored.setdefault(f"{step['name']}/", stored[path])  # the step's name alone is its only output
            results[path] = runs.read(target, path)
        results |= runs.read_tables(target, job) | runs.read_qualities(target)
    return results


def lazy_array(raster: Raster) -> Any:
    """Return a raster as the lazy Python face takes it: a dask array, or one of xarray where bands have coordinates."""
    array: Any = dask.array.from_array(raster.values, chunks=raster.chunks)
    if not raster.coordinates:
        return array
    coordinates = {name: ("band", list(values)) for name, values in raster.coordinates}
    return xarray.DataArray(array, dims=raster.dims, coords=coordinates)


def lazily(raster: Raster, step: Step, like: Results) -> Results:
    """Return what the lazy Python face makes of a raster, as (band, y, x)."""
    made = lazy.apply(step, lazy_array(raster), dims=",".join(raster.dims), nodata=raster.nodata)
    arrays = made if isinstance(made, dict) else {next(iter(like)): made}
    planes = {}
    for path in like:
        dims = raster.dims if arrays[path].ndim == len(raster.dims) else ("band", "y", "x")[3 - arrays[path].ndim :]
        planes[path] = to_planes(np.asarray(arrays[path].compute(scheduler="synchronous")), dims)
    return planes
