"""Kernels that are compiled before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import api
from pipeline.kernels.machine_code import cached_only
from pipeline.operations.registry import our_operations
from pipeline.operations.window import Window
from pipeline.verbs import warm
from tests import harness


def test_what_is_warmed_for_a_pipeline_is_what_its_run_needs(tmp_path: Path) -> None:
    raster = harness.Raster(np.ones((8, 9), np.uint16), ("y", "x"), chunks=(4, 4))
    source = harness.store(raster, tmp_path / "a.zarr", with_labels=False)
    steps = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}]
    document = {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "b.zarr")}}
    assert api.warm(document) >= 0
    assert not (tmp_path / "b.zarr").exists()
    with cached_only():
        api.run(document)


@pytest.mark.parametrize("op", our_operations())
@pytest.mark.parametrize("dims", [("band", "y", "x"), ("y", "x", "band")])
def test_every_operation_has_a_plan_to_be_warmed_by(op: str, dims: tuple[str, ...]) -> None:
    for dtype in warm.DTYPES:
        (plan,) = warm._plan_of(next(warm.variants(our_operations()[op])), dims, np.dtype(dtype))
        assert op in {step.operation.op for planned in plan.passes for step in planned.steps} | {
            sweep.step.operation.op for planned in plan.passes for sweep in planned.sweeps
        }


def test_warming_everything_compiles_each_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    monkeypatch.setattr(warm, "compute_pixels", plans.append)
    api.warm()
    num_steps = sum(len(list(warm.variants(operation))) for operation in our_operations().values())
    assert 5 * len(our_operations()) < num_steps
    # of the indices most name bands that are not there, and need no kernels but those of the others
    assert 0.8 * 2 * len(warm.DTYPES) * num_steps < len(plans) <= 2 * len(warm.DTYPES) * num_steps


def test_a_statistic_is_warmed_alone_and_with_those_of_the_example() -> None:
    found = {step.statistics for step in warm.variants(Window)}
    assert {("mean", "std"), ("min",), ("median",), ("mean", "std", "median")} <= found
    assert {step.boundary for step in warm.variants(Window)} > {"reflect", "wrap"}
