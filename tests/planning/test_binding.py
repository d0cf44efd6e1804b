"""What a plan says of the steps that it binds to their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from tests import harness
from tests.harness import Raster


@pytest.mark.parametrize(
    ("step", "nodata", "is_said"),
    [
        ({"op": "window", "size": 3, "statistics": ["max"]}, 0, True),
        ({"op": "components", "where": "b1 > 3"}, 0, False),
        ({"op": "threshold", "value": 3}, 255, False),
        ({"op": "quantize", "palette": [[1], [9]], "outputs": ["index"]}, 255, False),
        ({"op": "terrain", "spacing": 1, "outputs": ["hillshade"]}, 0, False),
    ],
)
def test_results_that_count_as_invalid_are_said_where_there_can_be_such(
    step: dict[str, Any], nodata: int, is_said: bool, tmp_path: Path
) -> None:
    """Not of outputs whose nodata no valid pixel has."""
    raster = Raster(np.arange(30, dtype=np.uint8).reshape(5, 6), ("y", "x"), nodata)
    source = harness.store(raster, tmp_path / "in.zarr")
    notes = api.plan(harness.document(source, [{"name": "made"} | step], tmp_path / "out.zarr")).notes
    assert any("counts as invalid too" in note for note in notes) == is_said
