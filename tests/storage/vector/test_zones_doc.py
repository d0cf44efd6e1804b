"""The examples of docs/zones.md, on drawn fields."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline import api
from pipeline.config import parse

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyogrio")

from tests import harness  # noqa: E402
from tests.georeference import placed_tiff  # noqa: E402
from tests.vector_files import write  # noqa: E402
from tests.zarr_files import pixels  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "zones.md"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Return an image of 60 x 50 in a folder with three fields, the second over the first."""
    monkeypatch.chdir(tmp_path)
    values = pixels((60, 50), "uint16")
    placed_tiff(tmp_path / "image.tif", values)
    corners = [(0, 0, 20, 20), (10, 10, 30.25, 30), (40, 40, 45, 45)]
    fields = [
        shapely.box(500000 + 10 * left, 5400000 - 10 * bottom, 500000 + 10 * right, 5400000 - 10 * top)
        for left, top, right, bottom in corners
    ]
    columns = {"field_id": [12, 7, 9], "crop": ["wheat", "wheat", "maize"], "nitrogen": [40, 80, 100]}
    write(tmp_path / "fields.gpkg", fields, columns)
    return values


def examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_a_geopackage_of_fields_to_a_table(image: np.ndarray, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio.raw")
    whole, shares = examples()[0], examples()[1].strip()
    for line, pixels_of in (("", [400, 400]), (shares, [400, 420])):
        document = parse(whole).data
        if line:
            document["inputs"]["fields"] = parse(line).data["fields"]
        api.run(document, overwrite=True)
        meta, _, _, columns = pyogrio.read(tmp_path / "wheat.gpkg")
        table = dict(zip(meta["fields"], columns, strict=True))
        assert table["label"].tolist() == ([7, 9, 12] if line else [7, 12])
        rows = [list(table["label"]).index(label) for label in (12, 7)]
        assert table["pixels"][rows].tolist() == pixels_of
        assert table["count_b1"][rows].tolist() == [400, 405 if line else 400]
        assert table["mean_b1"][rows[0]] == image[:20, :20].mean()


def test_rasters_of_polygons(image: np.ndarray, tmp_path: Path) -> None:
    api.run(parse(examples()[2]).data)
    one, inner, effect = (
        harness.read(tmp_path / "fields.zarr", f"{name}/value")[0] for name in ("one", "inner", "effect")
    )
    own = np.zeros((60, 50), bool)
    own[:20, :20], own[10:30, 10:30] = True, False
    assert (one[own] == image[own]).all()
    assert (inner[:20, :20] == image[:20, :20]).all()
    assert (effect[own] == image[own] / np.float64(40)).all()
    assert (effect[10:30, 10:30] == image[10:30, 10:30] / np.float64(80)).all()
    assert np.isnan(effect[50:, 48:]).all()
