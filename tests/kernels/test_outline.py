"""Outlines: simple rings, one around each connected part, whatever rows come at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.kernels.outline import Outliner, Rings


def rings(labels: np.ndarray, nodata: int | None, rows: int) -> tuple[Rings, np.ndarray]:
    outliner, found = Outliner(labels.shape[1], nodata), []
    for top in range(0, len(labels), rows):
        found += outliner.add(np.ascontiguousarray(labels[top : top + rows]))
    found += outliner.finish()
    names = ("keys", "count", "label", "part", "area")
    return Rings(*(np.concatenate([getattr(each, name) for each in found]) for name in names)), outliner.parts()


@pytest.mark.parametrize("seed", range(40))
def test_rings_are_simple_and_one_lies_around_each_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(2, 5), rng.integers(1, 30, 2))
    nodata = [None, 0, 1][seed % 3]
    found, parts = rings(labels, nodata, 1)
    again, _ = rings(labels, nodata, 7)
    for name in ("keys", "count", "label", "part", "area"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
    ends = np.cumsum(found.count)
    assert all(len(np.unique(found.keys[end - n : end])) == n for end, n in zip(ends, found.count, strict=True))
    assert set(found.label) == set(np.unique(labels)) - {nodata}
    for label in np.unique(found.label):
        its = found.label == label
        num = ndimage.label(labels == label)[1]
        assert found.area[its].sum() == np.count_nonzero(labels == label)
        assert np.count_nonzero(found.area[its] > 0) == len(np.unique(parts[found.part[its]])) == num
