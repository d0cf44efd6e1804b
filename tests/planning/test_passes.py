"""The planner: passes, halos, blocks of whole chunks, memory; no pixels."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.block.buffers import Arena, SlotPlanner
from pipeline.block.plan import Pass
from pipeline.config import load_pipeline, resolve
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Axis, Grid, Halo, Region
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings, format_bytes
from pipeline.testing import strategy
from pipeline.testing.draws import draws
from pipeline.verbs.load import load
from tests import harness, strategies
from tests.harness import Raster
from tests.our_contract import loadable

GIB = 2**30
BANDS = tuple(f"b{i + 1}" for i in range(16))
SCENE = RasterSpec(5000, 5000, np.dtype("float32"), ("y", "x", "band"), BANDS)


def plan(
    steps: list[dict[str, Any]], spec: RasterSpec = SCENE, chunk: tuple[int, int] = (500, 500), **changes: Any
) -> Plan:
    output = {"path": "x.zarr", **({"keep": changes.pop("keep")} if "keep" in changes else {})}
    config, _ = load_pipeline({"inputs": {"image": "x.zarr"}, "steps": steps, "output": output})
    values = {"memory_bytes": GIB, "workers": 2, "keep": config.output.keep} | changes
    return make_plan(config.steps, resolve(config), {"image": InputSpec("image", spec, chunk)}, Settings(**values))


def window(name: str, source: str = "image", size: int = 3, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "op": "window", "input": source, "size": size, **parameters}


def test_the_main_job_decodes_few_chunks_twice_within_its_memory() -> None:
    (planned,) = plan([window("smooth")]).passes
    assert planned.cost.amplification <= 1.2
    assert planned.cost.peak_bytes <= GIB
    assert planned.halo == "read"
    assert planned.grid.rows.step % 500 == planned.grid.columns.step % 500 == 0


def test_the_peak_does_not_grow_with_the_raster() -> None:
    sides = (2500, 5000, 10_000, 100_000)
    specs = [dataclasses.replace(SCENE, height=side, width=side) for side in sides]
    peaks = [plan([window("smooth")], spec).peak_bytes for spec in specs]
    assert max(peaks) <= 1.1 * min(peaks)


def test_halos_of_a_chain_are_summed_and_of_a_fork_are_joined() -> None:
    chain = plan([window("a", size=3), window("b", "a", size=7), window("c", "b", size=5)])
    assert chain.passes[0].halos["image"] == Halo.around(6, 6)
    fork = plan([window("a", size=3), window("b", "a", size=7), window("c", "a", size=15)])
    assert fork.passes[0].halos["image"] == Halo.around(8, 8)
    assert list(fork.kept) == ["b/mean", "c/mean"]


def test_a_step_that_wraps_begins_a_pass_and_its_source_is_stored() -> None:
    steps = [window("a"), window("b", "a", boundary="wrap"), window("c", "b")]
    planned = plan(steps)
    assert [p.writes for p in planned.passes] == [("a/mean",), ("c/mean",)]
    assert [array.is_kept for array in planned.arrays] == [False, True]
    assert planned.passes[1].stored == ("a/mean",)
    kept = plan(steps, keep=("a", "c"))
    assert [array.is_kept for array in kept.arrays] == [True, True]


def test_a_kept_region_is_no_source_for_what_wraps() -> None:
    steps = [window("a"), window("b", "a", boundary="wrap")]
    planned = plan(steps, keep=("a", "b"), region=Region(0, 1000, 0, 1000))
    assert [(a.raster, a.is_kept, a.region.height) for a in planned.arrays] == [
        ("a/mean", False, 5000),
        ("a/mean", True, 1000),
        ("b/mean", True, 1000),
    ]


def test_what_a_later_pass_needs_is_computed_again_unless_it_is_stored() -> None:
    steps = [window("a"), window("b", boundary="wrap"), window("c", "b", boundary="wrap"), window("d", "a")]
    planned = plan(steps, keep=("c", "d"))
    assert [[s.name for s in p.steps] for p in planned.passes] == [["a", "b", "d"], ["c"]]


def test_only_outputs_that_somebody_needs_are_computed() -> None:
    planned = plan([window("a", statistics=["mean", "var", "max"])], keep=("a/var",))
    assert planned.passes[0].wanted == {"a": ("var",)}


@pytest.mark.parametrize("memory", [700 * 2**20, GIB, 4 * GIB])
def test_the_plan_stays_below_the_memory_and_grows_no_further_than_it_pays(memory: int) -> None:
    planned = plan([window("a", size=15, statistics=["mean", "var"])], memory_bytes=memory)
    assert BASE_BYTES < planned.peak_bytes <= memory


def test_too_little_memory_is_refused_with_both_numbers_and_the_step() -> None:
    steps = [window("small"), window("big", "small", size=101, statistics=["mean", "var", "std", "min", "max"])]
    with pytest.raises(
        PipelineError, match=r"may use 350\.0 MiB, but needs at least \d+\.\d [MG]iB: .*step 'big'"
    ) as caught:
        plan(steps, memory_bytes=350 * 2**20)
    assert caught.value.path == ("run", "memory")


def asked_for(caught: pytest.ExceptionInfo[PipelineError]) -> int:
    """Return the memory that a refusal names as enough."""
    match = re.search(r"(?:set it to|--memory) (\d+\.\d) ([MG]iB)`? or more", str(caught.value))
    assert match is not None, caught.value
    return int(float(match[1]) * {"MiB": 2**20, "GiB": GIB}[match[2]])


PALETTE = [{"name": "p", "op": "palette", "input": "image", "colors": 16}]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    "steps", [[window("small"), window("big", "small", size=101, boundary="wrap")], PALETTE], ids=["passes", "tables"]
)
def test_the_memory_that_a_refusal_names_is_enough(steps: list[dict[str, Any]], workers: int) -> None:
    """For all passes, and though tables take a share of what there is."""
    options: dict[str, Any] = {"workers": workers, "chunks": (500, 500)}
    with pytest.raises(PipelineError, match="needs at least") as caught:
        plan(steps, memory_bytes=350 * 2**20, **options)
    assert ("use fewer workers" in str(caught.value)) is (workers > 1)
    assert ("smaller output chunks" in str(caught.value)) is (steps is not PALETTE)
    enough = asked_for(caught)
    assert plan(steps, memory_bytes=enough, **options).peak_bytes <= enough
    with pytest.raises(PipelineError, match="needs at least"):
        plan(steps, memory_bytes=9 * enough // 10, **options)


@pytest.mark.parametrize("workers", [1, 4])
def test_blocks_of_an_unfinished_run_that_do_not_fit_say_what_they_need(workers: int) -> None:
    steps, options = [window("big", size=101)], {"workers": workers, "chunks": (500, 500)}
    grids = (Grid(Axis(0, 5000, 1000), Axis(0, 5000, 1000), 2),)
    with pytest.raises(PipelineError, match=r"the unfinished run's blocks need at least \d") as caught:
        plan(steps, memory_bytes=800 * 2**20, grids=grids, **options)
    assert str(caught.value).endswith("or more, or fewer workers" if workers > 1 else "or more")
    assert "output chunks" not in str(caught.value)
    assert plan(steps, memory_bytes=asked_for(caught), grids=grids, **options).passes[0].grid == grids[0]


def test_a_plan_for_a_million_blocks_takes_seconds() -> None:
    spec = RasterSpec(1_000_000, 1_000_000, np.dtype("float32"))
    planned = plan([window("a")], spec, (500, 500))
    assert planned.num_blocks > 50_000
    assert planned.arrays[0].shards is not None  # not millions of files


def test_wrong_pipelines_are_refused_in_words() -> None:
    integers = RasterSpec(100, 100, np.dtype("int64"))
    cases = [
        (
            [window("a", statistics=["mean", "var"]), window("b", "a")],
            SCENE,
            r"'a' has several outputs; name one: a/mean, a/var",
        ),
        ([window("a"), window("b", "a/var")], SCENE, r"unknown output of 'a' 'var'"),
        ([window("a", bands=[17])], SCENE, r"band 17 does not exist: the raster has 16"),
        ([window("a", bands=["B4"])], SCENE, r"unknown band 'B4'; did you mean 'b4'\?"),
        ([window("a")], integers, r"int64, and floating point holds whole numbers only up to 2\^53"),
        (
            [window("a", dtype="uint8")],
            SCENE,
            r"can have invalid pixels, and uint8 has no value for them; say which with `nodata:`",
        ),
        ([window("a", dtype="uint8", nodata=300)], SCENE, r"300 cannot occur in uint8"),
        (
            [window("a", boundary="constant", cval=0.5)],
            RasterSpec(9, 9, np.dtype("uint8")),
            r"0\.5 cannot occur in uint8",
        ),
    ]
    for steps, spec, message in cases:
        with pytest.raises(PipelineError, match=message):
            plan(steps, spec)
    with pytest.raises(PipelineError, match="unknown step 'c'"):
        plan([window("a")], keep=("a",), region=None) and plan([window("a")], keep=("c",))
    with pytest.raises(PipelineError, match=r"rows 0:6000.* is not a part of the raster"):
        plan([window("a")], region=Region(0, 6000, 0, 5000))


def test_int64_passes_where_nothing_is_rounded() -> None:
    integers = RasterSpec(100, 100, np.dtype("int64"))
    specs = plan([window("a", statistics=["min", "count"])], integers).kept
    assert specs["a/min"].spec.dtype == np.int64
    assert plan([window("a", allow_inexact=True)], integers).kept["a/mean"].spec.dtype == np.float64


def test_shards_are_whole_chunks_and_blocks_whole_shards() -> None:
    (planned,) = plan([window("a")], chunks=(250, 250), shards=(1000, 500), memory_bytes=2 * GIB).passes
    assert planned.grid.rows.step % 1000 == planned.grid.columns.step % 500 == 0
    with pytest.raises(PipelineError, match="not whole chunks"):
        plan([window("a")], chunks=(250, 250), shards=(600, 500))


@settings(deadline=None, max_examples=draws(40))
@given(data=st.data())
def test_buffers_of_every_block_fit_the_planned_slots(data: st.DataObject) -> None:
    """Every block of a chain is computed in the planned buffers: none is too small, none is asked for too early."""
    raster = data.draw(strategy.rasters())
    steps, layout = data.draw(strategies.chains()), data.draw(strategy.layouts())
    with harness.workspace() as folder:
        source = harness.store(raster, folder / "in.zarr")
        if not loadable(source, steps, folder):
            return
        config = harness.document(source, steps, folder / "x.zarr", chunks=list(layout.chunks or (8, 8)))
        got = harness.compute(load(config | {"run": {"memory": "4 GiB"}}), blocks_in_an_arena)
        expected = harness.whole(source, steps, folder)
    for name, values in expected.items():
        assert harness.same_bits(got[name], values), name


def blocks_in_an_arena(planned: Pass) -> Iterator[tuple[Region, Arena]]:
    arena = Arena(planned.slots)
    for number in range(len(planned.grid)):
        arena.begin()
        yield planned.grid.block(number), arena


def test_only_the_bands_that_are_used_are_read() -> None:
    steps = [window("a", "image", bands=[3]), window("b", "image", bands=["b9", 3])]
    every, some = plan([window("a", "image")]), plan(steps)
    (planned,) = some.passes
    assert planned.bands == {"image": (2, 8)}
    assert planned.specs["image"].bands == ("b3", "b9")
    assert [step.uses[0].bands for step in planned.steps] == [(0,), (1, 0)]
    assert some.peak_bytes < every.peak_bytes
    assert not plan([*steps, window("c", "image")]).passes[0].bands


DATES = tuple(f"2023-{1 + i // 5:02}-{1 + 5 * (i % 5):02}" for i in range(60))


def series(dims: tuple[str, ...]) -> RasterSpec:
    """Return 60 dates of 4 bands, 10000 x 10000."""
    names = ("B02", "B03", "B04", "B08")
    coordinates = (("time", tuple(date for date in DATES for _ in names)), ("source_band", names * len(DATES)))
    bands = tuple(f"{date} {name}" for date in DATES for name in names)
    return RasterSpec(10_000, 10_000, np.dtype("uint16"), dims, bands, 0, coordinates)


@pytest.mark.parametrize(
    ("dims", "side", "chunk_bands"), [(("y", "x", "band"), 128, None), (("band", "y", "x"), 512, 1)]
)
def test_a_composite_of_sixty_dates_fits_its_memory(dims: tuple[str, ...], side: int, chunk_bands: int | None) -> None:
    """What is decoded of chunks of one band is a chunk for each worker, not all bands; results keep such chunks."""
    step = {"name": "c", "op": "composite", "statistics": ["median", "mean", "std"], "percentiles": [10, 90]}
    config, _ = load_pipeline({"inputs": {"image": "x.zarr"}, "steps": [step], "output": {"path": "x.zarr"}})
    inputs = {"image": InputSpec("image", series(dims), (side, side), chunk_bands=chunk_bands)}
    settings = Settings(memory_bytes=GIB, workers=2, keep=config.output.keep)
    made = make_plan(config.steps, resolve(config), inputs, settings)
    (planned,) = made.passes
    assert planned.cost.peak_bytes <= GIB
    assert planned.halo == "read"
    assert planned.cost.amplification == 1
    assert {array.chunks[-2:] if dims[0] == "band" else array.chunks[:2] for array in planned.arrays.values()} == {
        (side, side)
    }


def test_slots_are_used_again() -> None:
    planner = SlotPlanner()
    first = planner.take((10, 10), np.dtype("float64"))
    planner.give(first)
    planner.take((5,), np.dtype("uint8"))
    planner.take((200, 10), np.dtype("float64"))
    assert planner.slots.sizes == (800, 16000)
    assert planner.slots.order == (0, 0, 1)


def test_bytes_are_said_as_a_person_would() -> None:
    assert [format_bytes(n) for n in (0, 1023, 2048, 1.5 * GIB)] == ["0 bytes", "1023 bytes", "2.0 KiB", "1.5 GiB"]


@pytest.mark.thorough
@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_measured_peak_is_below_the_planned_one(tmp_path: Path, halo: str) -> None:
    """A raster larger than the memory that its run may use, in a process of its own."""
    size = 2560
    values = np.random.default_rng(0).integers(0, 1000, (size, size, 8)).astype("float32")
    source = harness.store(Raster(values, ("y", "x", "band"), chunks=(256, 256, 8)), tmp_path / "in.zarr")
    del values
    steps = [window("a", size=9, statistics=["mean", "std"]), window("b", "a/std", size=5, statistics=["max"])]
    config = harness.document(source, steps, tmp_path / "out.zarr", keep=["a/mean", "b"])
    config["run"] = {"memory": "512 MiB", "workers": 2, "halo": halo}
    code = "import json, sys, pipeline; print(json.dumps(pipeline.run(json.loads(sys.argv[1])).to_dict()))"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config)], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 512 * 2**20
    assert facts["blocks"] > 1
