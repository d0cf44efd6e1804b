"""Pipeline files that are as large as they may be: read, checked and planned in a few seconds, or refused in a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.model.errors import LINE_LENGTH, PipelineError
from tests import harness

Steps = list[dict[str, Any]]


def windows(count: int, chained: bool = False, **parameters: Any) -> Steps:
    sources = ["image", *(f"s{i}" for i in range(count))] if chained else ["image"] * count
    plain = {"op": "window", "size": 3, **parameters}
    return [{"name": f"s{i}", "input": source, **plain} for i, source in zip(range(count), sources, strict=False)]


def bank(name: str, count: int, sigma: float = 3.0) -> dict[str, Any]:
    orientations = [180 * i / count for i in range(count)]
    return {"name": name, "op": "gabor", "input": "image", "frequencies": [0.2], "orientations": orientations,
            "sigma": sigma}  # fmt: skip


@pytest.fixture
def image(tmp_path: Path) -> str:
    return harness.store(harness.Raster(np.ones((32, 32), np.float32), ("y", "x")), tmp_path / "image.zarr")


LARGE: dict[str, Callable[[], Steps]] = {
    "steps": lambda: windows(1000),
    "chain": lambda: windows(1000, chained=True),
    "passes": lambda: windows(1000, chained=True, boundary="wrap"),
    "percentiles": lambda: windows(1, statistics=[], percentiles=[i / 10 for i in range(1000)]),
    "outputs": lambda: windows(244, statistics=[], percentiles=list(range(90))),
    "filters": lambda: [bank("s", 1024)],
    "banks": lambda: [bank(f"s{i}", 90, 3 + i / 100) for i in range(200)],
    "kernel": lambda: [{"name": "s", "op": "convolve", "kernel": [[1.0] * 9901] * 3}],
}


SOME = ("chain", "percentiles", "kernel")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in SOME else pytest.mark.thorough) for case in LARGE]
)
def test_a_large_pipeline_is_planned_in_seconds(case: str, image: str, tmp_path: Path) -> None:
    document = {"inputs": {"image": image}, "steps": LARGE[case](), "output": {"path": str(tmp_path / "out.zarr")}}
    started = time.process_time()
    assert pipeline.plan(document)["passes"]
    assert time.process_time() - started < 10


def test_a_raster_of_many_names_is_opened_once(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def opening(path: str, *arguments: Any) -> Any:
        opened.append(path)
        return open_raster(path, *arguments)

    from pipeline.storage import compose as inputs

    open_raster = inputs.open_raster
    monkeypatch.setattr(inputs, "open_raster", opening)
    document = {
        "inputs": {"image": {"stack": [image] * 500}, "other": {"stack": [image] * 300}},
        "steps": [{"name": f"s_{name}", "op": "window", "input": name, "size": 3} for name in ("image", "other")],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    pipeline.plan(document)
    assert opened == [image]


REFUSED: dict[str, tuple[Callable[[], Steps], str]] = {
    "steps": (lambda: windows(1001), r"^steps: must have at most 1,000 entries, got 1,001$"),
    "percentiles": (
        lambda: windows(1, percentiles=[i / 500 for i in range(29_000)]),
        r"percentiles: must have at most 1,000 entries, got 29,000$",
    ),
    "filters": (
        lambda: [bank("s", 20_000)],
        r"1 frequencies and 20,000 orientations are 20,000 filters, and a bank has at most 1,024; take fewer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pipeline_that_is_too_large(case: str, image: str, tmp_path: Path) -> None:
    steps, message = REFUSED[case]
    document = {"inputs": {"image": image}, "steps": steps(), "output": {"path": str(tmp_path / "out.zarr")}}
    with pytest.raises(PipelineError, match=message):
        pipeline.validate(document)


def test_too_many_inputs(image: str, tmp_path: Path) -> None:
    inputs = {f"i{i}": image for i in range(1001)}
    document = {"inputs": inputs, "steps": windows(1), "output": {"path": str(tmp_path / "out.zarr")}}
    with pytest.raises(PipelineError, match="inputs: must have at most 1,000 entries, got 1,001"):
        pipeline.validate(document)


def test_no_message_is_longer_than_a_person_reads(image: str, tmp_path: Path) -> None:
    """The names of a thousand steps, and notes about as many frequencies."""
    steps = [*windows(999), {"name": "last", "op": "window", "size": 3, "input": "nothing_like_it"}]
    document = {"inputs": {"image": image}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}
    with pytest.raises(PipelineError) as caught:
        pipeline.validate(document)
    assert max(map(len, str(caught.value).split("\n"))) <= LINE_LENGTH
    fast = bank("s", 1)
    fast["frequencies"] = [0.6 + i / 10_000 for i in range(1000)]
    notes = pipeline.plan({**document, "steps": [fast]})["notes"]
    (note,) = [note for note in notes if note.startswith("s: frequency")]
    assert len(note) <= LINE_LENGTH
    assert note.endswith("pixels show a slower wave instead")
