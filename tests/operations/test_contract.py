"""The contract of exactness, for every operation of ours; the tests themselves are those of `pipeline.testing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.operations.registry import our_operations
from pipeline.testing import strategy
from pipeline.testing.check import check_chain
from pipeline.testing.contract import SLOW
from pipeline.testing.draws import draws
from tests import harness, strategies
from tests.harness import Layout, Raster
from tests.our_contract import Ours, loadable
from tests.references import REFERENCES

for op, operation in our_operations().items():
    members = {"operation": operation, "steps": strategies.STEPS[op](), "reference": staticmethod(REFERENCES[op])}
    members |= {"costly": strategies.SCRATCH_STEPS.get(op, {})}
    globals()[f"Test{operation.__name__}"] = type(f"Test{operation.__name__}", (Ours,), members)


def test_every_operation_has_a_reference_and_a_strategy() -> None:
    assert set(our_operations()) == set(REFERENCES) == set(strategies.STEPS)


@settings(SLOW, max_examples=draws(24))
@given(data=st.data())
def test_fused_equals_step_by_step_and_both_halo_ways(data: st.DataObject) -> None:
    raster, layout = data.draw(strategy.rasters(extreme=True)), data.draw(strategy.layouts())
    steps = data.draw(strategies.chains())
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if loadable(source, steps, folder, raster):
            check_chain(source, steps, folder, layout)


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
