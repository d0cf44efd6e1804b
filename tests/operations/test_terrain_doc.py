"""The example of docs/terrain.md, on a drawn DEM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter

from pipeline import api
from pipeline.config import parse
from tests import harness
from tests.georeference import placed_tiff

PAGE = Path(__file__).parents[2] / "docs" / "terrain.md"


def draw_dem(folder: Path) -> np.ndarray:
    heights = gaussian_filter(np.random.default_rng(0).normal(size=(90, 120)), 5) * 2500 + 500
    placed_tiff(folder / "dem.tif", heights.astype(np.float32))
    return heights.astype(np.float32).astype(float)


def example(number: int) -> dict[str, Any]:
    document: dict[str, Any] = parse(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]).data
    return document


def test_slope_and_hillshade_of_a_dem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights = draw_dem(tmp_path)
    monkeypatch.chdir(tmp_path)
    facts = api.run(example(0))
    assert any("a pixel is 10 m high and 10 m wide; heights are in m" in text for text in facts.warnings)
    found = {}
    for name in ("slope", "aspect", "hillshade"):
        with rasterio.open(tmp_path / "maps" / f"relief_{name}.tif") as file:
            found[name] = file.read(1)[1:-1, 1:-1]
    windows = np.lib.stride_tricks.sliding_window_view(heights, (3, 3))
    weights = np.array([1, 2, 1]) / 80
    east = ((windows[..., :, 2] - windows[..., :, 0]) * weights).sum(-1)
    north = ((windows[..., 0, :] - windows[..., 2, :]) * weights).sum(-1)
    np.testing.assert_allclose(found["slope"], np.degrees(np.arctan(np.hypot(east, north))), rtol=1e-6)
    np.testing.assert_allclose(found["aspect"], np.degrees(np.arctan2(-east, -north)) % 360, rtol=1e-6)
    normal = np.stack([-east, -north, np.ones(east.shape)]) / np.sqrt(1 + east**2 + north**2)
    light = np.array([-0.5, 0.5, np.sqrt(0.5)])  # from the north-west, 45 degrees high
    shade = 1 + 254 * np.clip(np.tensordot(light, normal, 1), 0, 1)
    assert np.all(np.abs(found["hillshade"] - shade) <= 0.5 + 1e-9)


def test_in_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights = draw_dem(tmp_path)
    monkeypatch.chdir(tmp_path)
    document = example(1)
    api.run(document)
    api.run({**document, "output": {"path": "steps.zarr", "keep": ["tinted", "ground"]}})
    shade = harness.read(tmp_path / "steps.zarr", "ground/hillshade")
    tinted = harness.read(tmp_path / "steps.zarr", "tinted/color").astype(float)
    at = np.array([heights.min(), (heights.min() + heights.max()) / 2, heights.max()])
    for band, channels in enumerate([(0, 255, 255), (90, 255, 255), (160, 0, 255)]):
        assert np.all(np.abs(tinted[band] - np.interp(heights, at, channels)) <= 0.5 + 1e-6)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.nodata is None
        assert np.array_equal(file.read(), np.rint(tinted * shade / 255))
