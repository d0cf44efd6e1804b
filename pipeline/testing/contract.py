"""The contract of exactness, as tests that an operation inherits: our own and those of other packages.

A test says in words what is broken. What is drawn and does not fit together (a value that the raster's dtype does not
hold, say) is left out: `OperationContract.unfit` has what such refusals say.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.block.buffers import Fresh
from pipeline.block.plan import Pass
from pipeline.config import parse
from pipeline.model.errors import PipelineError
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Operation, Reduction
from pipeline.operations.plugin import op_of
from pipeline.operations.registry import registered
from pipeline.output.job import Job
from pipeline.testing import layout as runs
from pipeline.testing import observation, strategy
from pipeline.testing.check import Step, check_chain, check_halo, check_output, check_same, lazily
from pipeline.testing.draws import draws
from pipeline.testing.layout import Layout
from pipeline.testing.raster import Raster, store, workspace
from pipeline.testing.reference import Reference
from pipeline.verbs.load import load

SLOW = settings(
    deadline=None,
    max_examples=draws(12),
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)],  # runs are slow, layouts small
)
UNFIT = (
    *("cannot occur", "has no value for them", "does not exist: the raster has", "and the band there is called"),
    *("no band axis", "holds whole numbers only up to 2^53"),
)
BEFORE = {"name": "before", "op": "window", "size": 3, "input": "image"}
AFTER = {"name": "after", "op": "window", "size": [1, 3], "statistics": ["max"]}
MIB = 2**20
SLACK_BYTES = 4 * MIB
"""What numpy and the interpreter take; one plane of the block that is measured has as much."""


class OperationContract:
    """What the engine and the user rely on, for one operation: inherit, and say which and by what it is measured.

    Attributes
    ----------
    operation
        The class.
    steps
        A hypothesis strategy of its parameters, without `name` and `op`; by default those of the example, with other
        words and switches. A step may read ``image``, and ``labels`` where it says ``labels: labels``.
    reference
        What it should compute, see `reference.Reference`; without one, that is not tested.
    unfit
        What refusals say of parameters that do not fit a drawn raster, beside `UNFIT`.
    costly
        Parameters with which much is allocated; by default those of the example.
    """

    operation: ClassVar[type[Operation]]
    steps: ClassVar[st.SearchStrategy[Mapping[str, Any]] | None] = None
    reference: ClassVar[Reference | None] = None
    unfit: ClassVar[tuple[str, ...]] = ()
    costly: ClassVar[Mapping[str, Any] | None] = None

    def plain(self, step: Step) -> Step:
        """Return a step changed so that every pixel around a block changes the result of some raster."""
        return step

    def fits(self, raster: Raster, steps: Sequence[Step]) -> bool:
        """Return whether a run of these steps can end; whether they can be planned is asked of the engine."""
        return True

    @pytest.fixture(autouse=True)
    def _known(self) -> Iterator[None]:
        with registered(type(self).operation):
            yield

    def draw(self, data: st.DataObject) -> Step:
        steps = strategy.steps_of(self.operation) if self.steps is None else self.steps
        return {"name": "step", "op": op_of(self.operation), **data.draw(steps)}

    def example(self) -> Step:
        step = parse(f"step: {self.operation.example}").data["step"]
        return {**step, "name": "step", "op": op_of(self.operation)}

    def only_maps(self) -> None:
        if issubclass(self.operation, Reduction):
            pytest.skip("a reduction has no block of its own")

    def loaded(self, source: str, steps: Sequence[Step], folder: Path, raster: Raster) -> Job | None:
        """Return drawn steps planned, None where they do not fit; a refusal is not what these tests are about."""
        if not self.fits(raster, steps):
            return None
        try:
            return load(runs.document(source, steps, folder / "x.zarr"))
        except PipelineError as error:
            if any(words in str(error) for words in (*UNFIT, *self.unfit)):
                return None
            raise

    def planned(self, data: st.DataObject, folder: Path, raster: Raster, step: Step) -> Pass | None:
        """Return the one pass of a step."""
        job = self.loaded(store(raster, folder / "in.zarr"), [step], folder, raster)
        return None if job is None else job.plan.passes[0]

    def test_explains_itself(self) -> None:
        """Its example is a step of it, and `outputs_text` says what each output is."""
        cls = self.operation
        assert cls.example, f"{cls.__name__} has no example; `rasterpipe ops {op_of(cls)}` shows it"
        step = self.example()
        try:
            cls.model_validate(step)
        except (ValidationError, PipelineError) as error:
            pytest.fail(f"the example of {cls.__name__} is no step of it: {error}")
        assert (cls.__doc__ or "").strip(), f"{cls.__name__} has no docstring, which `ops` and the schema show"
        assert cls.outputs_text, f"{cls.__name__} has no outputs_text"

    @SLOW
    @given(data=st.data())
    def test_survives_pickling_and_yaml(self, data: st.DataObject) -> None:
        operation = self.operation.model_validate(self.draw(data))
        try:
            again = pickle.loads(pickle.dumps(operation))
        except Exception as error:
            pytest.fail(
                f"cannot be pickled, and so cannot go to workers and compilers: {type(error).__name__}: {error}"
            )
        assert again == operation, "is another step after it was pickled"
        text = operation.model_dump_json(exclude_none=True)
        assert type(operation).model_validate(json.loads(text)) == operation, f"is another step as its own JSON: {text}"

    @SLOW
    @given(data=st.data())
    def test_equals_the_reference(self, data: st.DataObject) -> None:
        reference = type(self).reference
        if reference is None:
            pytest.skip("no reference says what the operation should compute")
        raster = data.draw(strategy.rasters())
        step = data.draw(self.declared_dtypes(self.draw(data)))
        with workspace() as folder:
            source = store(raster, folder / "in.zarr")
            if (job := self.loaded(source, [step], folder, raster)) is None:
                return
            got = runs.whole(source, [step], folder)
        expected = reference(job.pipeline.steps[0], raster.planes(), raster.values.dtype)
        assert got.keys() == {f"step/{name}" for name in expected}, "the outputs are others than the reference's"
        for name, (values, bound) in expected.items():
            if values is not None:
                check_output(job, name, got[f"step/{name}"], values, bound, step)

    def declared_dtypes(self, step: Step) -> st.SearchStrategy[Step]:
        """Give some steps a dtype, narrower or wider than what they compute in, or than their input."""
        nodata = {"int16": -999, "int32": -(2**31), "uint32": 2**32 - 1, "int64": -(2**63)}
        dtypes = st.sampled_from([*nodata, "float32", "float64"])
        others = dtypes.map(lambda d: step | {"dtype": d} | ({"nodata": nodata[d]} if d in nodata else {}))
        return st.just(step) if "dtype" in step else st.one_of(st.just(step), others)

    @SLOW
    @given(data=st.data())
    def test_same_bits_for_every_layout(self, data: st.DataObject) -> None:
        raster, drawn = data.draw(strategy.rasters(extreme=True)), data.draw(strategy.layouts())
        step = self.draw(data)
        with workspace() as folder:
            source = store(raster, folder / "in.zarr")
            if self.loaded(source, [step], folder, raster) is not None:
                check_same(runs.run(source, [step], folder, drawn), runs.whole(source, [step], folder), f"by {drawn}")

    @settings(SLOW, max_examples=draws(6))
    @given(data=st.data())
    def test_exchange_of_halos_gives_the_bits_of_reading_them(self, data: st.DataObject) -> None:
        raster = data.draw(strategy.rasters(largest=60))
        step = self.draw(data)
        strip = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        with workspace() as folder:
            source = store(raster, folder / "in.zarr")
            job = self.loaded(source, [step], folder, raster)
            if job is None or not job.plan.passes:  # of a palette that is given
                return
            halo = Halo()
            for planned in job.plan.passes:
                halo |= planned.halos[planned.stored[0]]
            chunks = max(6, halo.top, halo.bottom), max(6, halo.left, halo.right)  # no block is thinner than the halo
            read = Layout(block=(1, 1), chunks=chunks, strip=strip, workers=2)
            exchange = dataclasses.replace(read, halo="exchange")
            expected = runs.run(source, [step], folder, read)
            check_same(runs.run(source, [step], folder, exchange), expected, "where halos are exchanged")

    @settings(SLOW, max_examples=draws(6))
    @given(data=st.data())
    def test_fused_equals_step_by_step(self, data: st.DataObject) -> None:
        """Between a step that it reads, and one that reads its first output."""
        raster, drawn = data.draw(strategy.rasters()), data.draw(strategy.layouts())
        step = self.draw(data)
        with workspace() as folder:
            source = store(raster, folder / "in.zarr")
            if (job := self.loaded(source, [step], folder, raster)) is None:
                return
            if "input" in self.operation.model_validate(step).sources():
                step["input"] = "before"
            steps = [BEFORE, step] if "input" in step else [step]
            if outputs := [path for path in job.plan.kept if path.startswith("step/")]:
                steps.append(
                    {"name": "after", "op": "window", "size": [1, 3], "statistics": ["max"], "input": outputs[0]}
                )
            if self.loaded(source, steps, folder, raster) is not None:
                check_chain(source, steps, folder, drawn)

    @SLOW
    @given(data=st.data())
    def test_a_region_and_lazy_blocks_have_the_bits_of_the_whole(self, data: st.DataObject) -> None:
        """A region at the edge has no neighbour whose pixels it could share; lazy blocks are as thin as the array's."""
        self.only_maps()
        raster = data.draw(strategy.rasters(extreme=True))
        step = self.draw(data)
        with workspace() as folder:
            source = store(raster, folder / "in.zarr")
            if self.loaded(source, [step], folder, raster) is None:
                return
            whole = runs.whole(source, [step], folder)
            rasters = {path: values for path, values in whole.items() if not path.endswith("/quality")}
            region = data.draw(strategy.regions(raster))
            config = runs.document(source, [step], folder / "x.zarr")
            config["region"] = {"rows": [region.top, region.bottom], "columns": [region.left, region.right]}
            part = runs.compute(load(config), lambda planned: [(planned.grid.region, Fresh())])
        expected = {path: values[(slice(None), *region.slices())] for path, values in rasters.items()}
        check_same({path: part[path] for path in rasters}, expected, f"in the region {region} alone")
        check_same(lazily(raster, step, rasters), rasters, "as lazy blocks")

    @SLOW
    @given(data=st.data())
    def test_halo_is_sufficient_and_minimal(self, data: st.DataObject) -> None:
        """A pixel just outside of the halo of a block changes nothing; one at its rim does, for some raster."""
        self.only_maps()
        step = self.plain(self.draw(data))
        values = np.random.default_rng(0).normal(size=(60, 60))
        with workspace() as folder:
            found = self.planned(data, folder, Raster(values, ("y", "x")), step)
        if found is not None:
            check_halo(found, values, Region(25, 31, 27, 33))

    @SLOW
    @given(data=st.data())
    def test_leaves_its_input_alone_and_writes_what_it_declares(self, data: st.DataObject) -> None:
        self.only_maps()
        step = self.draw(data)
        with workspace() as folder:
            found = self.planned(data, folder, data.draw(strategy.rasters()), step)
        if found is not None:
            assert not (faults := observation.faults_of_a_block(found)), "; ".join(faults)

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory cannot be reset here")
    @pytest.mark.parametrize("dtype", ["uint16", "float32"])
    @pytest.mark.parametrize("dims", [("y", "x", "band"), ("band", "y", "x")], ids=",".join)
    def test_scratch_bytes_are_not_exceeded(self, dims: tuple[str, ...], dtype: str) -> None:
        self.only_maps()
        step = self.example() | {"input": "image"} if self.costly is None else self.example_of(self.costly)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
            used, promised = pool.submit(observation.scratch_bytes, self.operation, step, dims, dtype).result()
        assert used <= promised + SLACK_BYTES, (
            f"apply allocates {used / MIB:.1f} MiB for a block of 1024 x 1024 x 3 {dtype}, and scratch_bytes says "
            f"{promised / MIB:.1f} MiB; the plan counts on that"
        )

    def example_of(self, parameters: Mapping[str, Any]) -> Step:
        return {"name": "step", "op": op_of(self.operation), **parameters}
