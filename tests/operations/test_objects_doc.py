"""The examples of docs/objects.md, on images of drawn nuclei."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage
from skimage import filters, morphology

from pipeline import api
from pipeline.config import parse
from tests import harness
from tests.georeference import placed_tiff

PAGE = Path(__file__).parents[2] / "docs" / "objects.md"


def draw_nuclei() -> np.ndarray:
    """Return (channel, row, column): discs and specks in noise, and a marker."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:150, :180]
    nuclei = rng.normal(200, 20, (150, 180))
    for row, column in rng.integers(8, 142, (25, 2)):
        nuclei[(rows - row) ** 2 + (columns - column) ** 2 <= rng.integers(16, 60)] += 900
    nuclei[20:24, 30:33] = nuclei[100:130, 60:90] = 1100
    nuclei[108:112, 70:80] = nuclei[120:123, 66:69] = 200  # holes
    nuclei[rng.integers(0, 150, 20), rng.integers(150, 180, 20)] += 6000  # specks
    return np.stack([nuclei, rng.normal(500, 50, (150, 180))]).clip(0, 65535).astype(np.uint16)


def example(number: int) -> dict[str, Any]:
    """Return a pipeline of the page."""
    return dict(parse(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]).data)


def test_a_fluorescence_image_to_a_table_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw_nuclei()
    tifffile.imwrite(
        tmp_path / "cells.ome.tif", image[:, np.newaxis].repeat(2, axis=1), metadata={"axes": "CZYX"}, tile=(64, 64)
    )
    monkeypatch.chdir(tmp_path)
    document = example(0)
    facts = api.run(document)
    # of several kept images, the one last before the labels has them; a mask is none
    document["steps"].pop()
    document["output"] = {"path": "smooth.zarr", "keep": ["plane", "smooth", "bright", "nuclei"], "ome_zarr": "smooth/"}
    again = api.run(document)
    assert [(Path(file.path).name, file.labels) for file in again.ome_zarrs] == [
        ("plane.ome.zarr", ()),
        ("smooth.ome.zarr", ("nuclei/labels",)),
        ("bright_mask.ome.zarr", ()),
    ]
    smooth = harness.read(tmp_path / "smooth.zarr", "smooth/value")[0]
    threshold = filters.threshold_otsu(smooth)
    assert f"bright: otsu finds the threshold {threshold:.9g}" in facts.warnings
    filled = morphology.remove_small_holes(smooth > threshold, max_size=49, connectivity=1)
    assert np.count_nonzero(filled & (smooth <= threshold)) > 10
    labels, num = ndimage.label(filled, np.ones((3, 3)))
    pixels = np.bincount(labels.reshape(-1))
    kept = [label for label in range(1, num + 1) if pixels[label] >= 20]
    assert 5 < len(kept) < num
    expected = np.zeros_like(labels)
    for number, label in enumerate(kept):
        expected[labels == label] = number + 1
    assert np.array_equal(harness.read(tmp_path / "cells.zarr", "nuclei/labels")[0], expected)
    with (tmp_path / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == list(range(1, len(kept) + 1))
    assert [int(row["pixels"]) for row in rows] == [pixels[label] for label in kept]
    means = [next(float(row[key]) for key in row if key.startswith("mean_")) for row in rows]
    np.testing.assert_allclose(means, [image[0][labels == label].mean() for label in kept], rtol=1e-12)
    stored = zarr.open_group(tmp_path / "images" / "plane.ome.zarr", mode="r")
    assert np.array_equal(stored["0"][...], image)
    assert np.array_equal(stored["labels/nuclei_labels/0"][...], expected)
    listed: Any = stored["labels"].attrs["ome"]
    assert listed["labels"] == ["nuclei_labels"]
    said: Any = stored["labels/nuclei_labels"].attrs["ome"]
    assert said["image-label"] == {"source": {"image": "../../"}}


def test_outlines_of_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pytest.importorskip("pyogrio.raw")
    classes = np.random.default_rng(1).integers(0, 4, (9, 11)).repeat(8, axis=0).repeat(7, axis=1).astype(np.uint8)
    placed_tiff(tmp_path / "classes.tif", classes)
    monkeypatch.chdir(tmp_path)
    api.run(example(2))
    _, _, _, (label, pixels) = raw.read(tmp_path / "patches.gpkg")
    found = harness.read(tmp_path / "patches.zarr", "patches/labels")[0]
    assert np.array_equal(label, np.arange(1, found.max() + 1))
    assert np.array_equal(pixels, np.bincount(found.reshape(-1))[1:])


def test_touching_cells_and_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    rows, columns = np.mgrid[:150, :180]
    image = rng.normal(200, 10, (150, 180))
    centres = [(30, 30), (30, 50), (46, 41), (100, 60), (100, 80), (80, 140)]  # 3, 2 and 1 that touch
    for row, column in centres:
        image[(rows - row) ** 2 + (columns - column) ** 2 <= 10**2] = 1000
    tifffile.imwrite(tmp_path / "nuclei.tif", image.astype(np.uint16))
    monkeypatch.chdir(tmp_path)
    api.run(example(1))
    bright = image > 600
    assert ndimage.label(bright)[1] == 3
    cores, num = ndimage.label(ndimage.distance_transform_edt(bright) > 5)
    assert num == len(centres)
    assert np.array_equal(harness.read(tmp_path / "cores.zarr", "cores/labels")[0], cores)
    ring = ~bright & (ndimage.distance_transform_edt(~bright) <= 4)
    found = harness.read(tmp_path / "cores.zarr", "ring/value").reshape(image.shape)
    assert np.array_equal(found[ring], image.astype(np.uint16)[ring])
    assert np.isnan(found[~ring].astype(float)).all() or not found[~ring].any()
