"""Thresholds: equal to scikit-image's, with the same bits by any blocks; what is said and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from skimage import filters

from pipeline import api
from pipeline.execution import worker
from pipeline.model.errors import PipelineError, RunStopped
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Layout, Raster

SKIMAGE = {"otsu": filters.threshold_otsu, "triangle": filters.threshold_triangle, "li": filters.threshold_li}
STEP: dict[str, Any] = {"name": "bright", "op": "threshold", "input": "image"}


def cells(dtype: str, seed: int = 0) -> np.ndarray:
    """Return an image of two populations."""
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((83, 71)) < 0.2, rng.normal(160, 20, (83, 71)), rng.normal(60, 15, (83, 71)))
    return (image.clip(0, 255) * (1 if dtype == "uint8" else 37)).astype(dtype)


@pytest.mark.parametrize("method", SKIMAGE)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_thresholds_are_those_of_scikit_image(method: str, dtype: str, tmp_path: Path) -> None:
    if method == "li" and dtype.startswith("float"):
        pytest.skip("of integers only")
    image = cells(dtype)
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    layout = Layout(block=(1, 1), chunks=(13, 29), workers=2)
    got = harness.run(source, [STEP | {"method": method}], tmp_path, layout)
    expected = float(SKIMAGE[method](image))
    found = got["bright/table/threshold"]
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(expected, abs=1e-9) if method == "li" else found[0, 0] == expected
    assert got["bright/mask"].dtype == np.uint8
    assert np.array_equal(got["bright/mask"][0], image > expected)


def test_each_band_has_its_own_and_nodata_stays(tmp_path: Path) -> None:
    image = np.stack([cells("uint8"), cells("uint8", 1) // 2])
    image[:, :20] = 7
    source = harness.store(Raster(image, ("band", "y", "x"), 7), tmp_path / "in.zarr")
    facts = api.run(harness.document(source, [STEP | {"method": "otsu"}], tmp_path / "out.zarr"))
    found = harness.read(tmp_path / "out.zarr", "bright/table/threshold", is_table=True)
    assert found.tolist() == [[float(filters.threshold_otsu(band[band != 7])) for band in image]]
    assert facts.warnings[-1] == f"bright: otsu finds the thresholds {found[0, 0]:g}, {found[0, 1]:g}"
    assert (harness.read(tmp_path / "out.zarr", "bright/mask")[:, :20] == 255).all()
    assert zarr.open_array(tmp_path / "out.zarr", path="bright/mask").attrs["threshold"] == found[0].tolist()
    assert not api.verify(str(tmp_path / "out.zarr")).problems


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [("uint8", 2.5, [0, 0, 1]), ("int64", 2**53, [0, 0, 1]), ("float32", 2, [0, 0, 1]), ("float32", 1e300, [0, 0, 0])],
)
def test_a_given_threshold(dtype: str, value: float, expected: list[int], tmp_path: Path) -> None:
    """Whole numbers are compared as such, also beyond 2^53."""
    top = 2**53 + 1 if dtype == "int64" else 3
    source = harness.store(Raster(np.array([[1, 2, top]], dtype), ("y", "x")), tmp_path / "in.zarr")
    got = harness.run(source, [STEP | {"value": value}], tmp_path)
    assert got["bright/mask"][0, 0].tolist() == expected


def test_a_resumed_run_says_its_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it paints the mask, when the threshold is known; a band without valid pixels has none."""
    image = np.stack([cells("float32"), np.full((83, 71), np.nan, np.float32)])
    source = harness.store(Raster(image, ("band", "y", "x")), tmp_path / "in.zarr")
    document = harness.document(source, [STEP | {"method": "otsu"}], tmp_path / "out.zarr")
    run_block = worker.PassWorker.run_block

    def failing(self: Any, number: int) -> Any:
        if self.planned.writes:
            raise OSError("the power is gone")
        return run_block(self, number)

    monkeypatch.setattr(worker.PassWorker, "run_block", failing)
    with pytest.raises(RunStopped):
        api.run(document)
    monkeypatch.setattr(worker.PassWorker, "run_block", run_block)
    api.run(document, resume=True)
    attributes = zarr.open_array(tmp_path / "out.zarr", path="bright/mask").attrs
    assert attributes["threshold"] == [float(filters.threshold_otsu(image[0])), "nan"]
    assert not api.verify(str(tmp_path / "out.zarr")).problems


@pytest.mark.parametrize(
    ("dtype", "change", "words"),
    [
        ("uint8", {}, "give `method`"),
        ("uint8", {"method": "otsu", "value": 3}, "one of them"),
        ("int32", {"method": "otsu"}, "histograms are of 8 and 16 bits"),
        ("float32", {"method": "li"}, "li is for 8 and 16 bits"),
    ],
)
def test_what_does_not_fit_is_refused(dtype: str, change: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = harness.store(Raster(np.zeros((5, 5), dtype), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match=words):
        load(harness.document(source, [STEP | change], tmp_path / "out.zarr"))
