"""Distances: equal to scipy's within the radius by any blocks; spacing; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from pipeline import api
from pipeline.kernels.distance import reach
from pipeline.model.errors import PipelineError
from pipeline.verbs.load import load
from tests import harness
from tests.georeference import placed_tiff
from tests.harness import Layout, Raster

STEP: dict[str, Any] = {"name": "away", "op": "distance", "input": "image"}


def specks(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((97, 83)) < 0.002).astype(np.uint8)


@pytest.mark.parametrize(("radius", "spacing"), [(5, 1.0), (13.5, 1.0), (9, [0.5, 2.0]), (200, 1.0)])
def test_distances_are_those_of_scipy(radius: float, spacing: Any, tmp_path: Path) -> None:
    image = specks()
    source = harness.store(Raster(image, ("y", "x")), tmp_path / "in.zarr")
    step = STEP | {"radius": radius, "spacing": spacing, "dtype": "float64"}
    layout = Layout(block=(1, 1), chunks=(17, 23), workers=2)
    got = harness.run(source, [step], tmp_path, layout)["away/value"][0]
    expected = distance_transform_edt(image == 0, sampling=spacing)
    assert np.array_equal(got, np.where(expected <= radius, expected, np.nan), equal_nan=True)
    assert harness.same_bits(got, harness.whole(source, [step], tmp_path)["away/value"][0])


def test_the_radius_counts_itself() -> None:
    """Pythagoras: 3, 4, 5; and sides that binary fractions do not hold."""
    assert reach(5, 1) == 5
    assert reach(0.3, 0.1) in (2, 3)
    assert reach(0.3, 0.1) * 0.1 * (reach(0.3, 0.1) * 0.1) <= 0.3 * 0.3
    assert reach(0.99, 1) == 0


def test_nodata_is_not_looked_for_and_has_a_distance(tmp_path: Path) -> None:
    image = np.array([[9, 9, 0, 0, 1]], np.uint8)
    source = harness.store(Raster(image, ("y", "x"), 9), tmp_path / "in.zarr")
    got = harness.run(source, [STEP | {"radius": 3}], tmp_path)["away/value"][0, 0]
    assert got.dtype == np.float32
    assert np.array_equal(got, [np.nan, 3, 2, 1, 0], equal_nan=True)


def test_spacing_geo_is_metres(tmp_path: Path) -> None:
    image = np.zeros((20, 20), np.uint16)
    image[10, 10] = 500
    placed_tiff(tmp_path / "scene.tif", image, (0, 0))
    step = STEP | {"where": "b1 > 300", "spacing": "geo", "radius": 25}
    api.run(harness.document(str(tmp_path / "scene.tif"), [step], tmp_path / "out.zarr"))
    found = harness.read(tmp_path / "out.zarr", "away/value")[0]
    assert found[10, 8:13].tolist() == [20, 10, 0, 10, 20]
    assert np.isnan(found[10, 7])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"radius": 0}, "radius"),
        ({"radius": 20_000}, "20000 is 20,000 pixels of 1; at most 10,000"),
        ({"radius": 5, "spacing": 0}, "must be positive"),
        ({"radius": 5, "spacing": "geo"}, "spacing"),
        ({"radius": 5, "where": "input +"}, "where"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = harness.store(Raster(specks(), ("y", "x")), tmp_path / "in.zarr")
    with pytest.raises(PipelineError, match=words):
        load(harness.document(source, [STEP | change], tmp_path / "out.zarr"))
