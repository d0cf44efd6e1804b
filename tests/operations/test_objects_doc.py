"""The example of docs/objects.md, on an image of drawn nuclei."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage import filters

from pipeline import api
from pipeline.config import parse
from tests import harness

PAGE = Path(__file__).parents[2] / "docs" / "objects.md"


def draw_nuclei() -> np.ndarray:
    """Return (channel, row, column): discs and specks in noise, and a marker."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:150, :180]
    nuclei = rng.normal(200, 20, (150, 180))
    for row, column in rng.integers(8, 142, (25, 2)):
        nuclei[(rows - row) ** 2 + (columns - column) ** 2 <= rng.integers(16, 60)] += 900
    nuclei[rng.integers(0, 150, 20), rng.integers(150, 180, 20)] += 6000  # specks
    return np.stack([nuclei, rng.normal(500, 50, (150, 180))]).clip(0, 65535).astype(np.uint16)


def test_a_fluorescence_image_to_a_table_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw_nuclei()
    tifffile.imwrite(
        tmp_path / "cells.ome.tif", image[:, np.newaxis].repeat(2, axis=1), metadata={"axes": "CZYX"}, tile=(64, 64)
    )
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    document = parse(found[1]).data
    document["output"]["keep"] = ["smooth", "bright", "nuclei"]
    facts = api.run(document)
    smooth = harness.read(tmp_path / "cells.zarr", "smooth/value")[0]
    threshold = filters.threshold_otsu(smooth)
    assert f"bright: otsu finds the threshold {threshold:.9g}" in facts.warnings
    labels, num = ndimage.label(smooth > threshold, np.ones((3, 3)))
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
