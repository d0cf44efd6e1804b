"""STAC items as inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.model.errors import InputError, PipelineError
from pipeline.storage.compose import open_input
from pipeline.storage.files import expand
from pipeline.storage.input import Input
from pipeline.storage.reader import Reader
from tests import harness
from tests.georeference import placed_tiff as tiff
from tests.zarr_files import pixels, read

pytest.importorskip("pystac", reason="pystac is not installed")


def asset(href: str, name: str, common: str | None = None, **band: Any) -> dict[str, Any]:
    told = {"name": name} | ({"common_name": common} if common else {})
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    return {"href": href, "type": kind, "roles": ["data"], "eo:bands": [told], "raster:bands": [band]}


def item(name: str, day: str, assets: dict[str, Any], version: str = "1.0.0") -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": version,
        "stac_extensions": [],
        "id": name,
        "geometry": None,
        "properties": {"datetime": f"{day}T10:00:31Z"},
        "links": [],
        "assets": assets,
    }


def written(path: Path, data: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return str(path)


def open_as(**entry: Any) -> tuple[Reader, tuple[str, ...]]:
    found, notes = expand(Input(**entry))
    return open_input(found), notes


def message(**entry: Any) -> str:
    with pytest.raises((InputError, PipelineError)) as caught:
        open_as(**entry)
    return str(caught.value)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return an item of a scene whose files lie beside it, and its bands."""
    bands = {"B04": pixels((6, 8), "uint16") | 1, "B08": pixels((6, 8), "uint16", 1) | 1}
    assets = {}
    for key, common in (("B04", "red"), ("B08", "nir")):
        tiff(tmp_path / "scene" / f"{key}.tif", bands[key])
        assets[key] = asset(f"./{key}.tif", key, common, nodata=0, scale=0.0001, offset=-0.1)
    tiff(tmp_path / "scene" / "SCL.tif", np.arange(12, dtype="uint8").reshape(3, 4), size=20)
    assets["SCL"] = asset("SCL.tif", "SCL", nodata=0) | {"roles": ["metadata"]}
    assets["thumbnail"] = {"href": "preview.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    return written(tmp_path / "scene" / "item.json", item("S2A_T33UUP", "2024-06-01", assets)), bands


def test_assets_of_an_item_are_bands_with_what_it_says_of_them(scene: tuple[str, dict[str, np.ndarray]]) -> None:
    path, bands = scene
    reader, notes = open_as(stac=path)
    assert reader.spec.bands == ("B04", "B08")
    assert reader.spec.nodata == 0  # the files record none
    np.testing.assert_array_equal(read(reader), list(bands.values()))
    assert notes == (
        "stac: 1 item of 1 day, 2 files: B04, B08",
        "stac: scale and offset are (0.0001, -0.1); they are ignored (`scale: apply` uses them)",
    )
    reader, _ = open_as(stac=path, assets=("nir",), scale="apply")
    expected = (bands["B08"] * np.float64(0.0001) - 0.1).astype("float32")
    np.testing.assert_array_equal(read(reader).squeeze(), expected)


def test_an_asset_masks_the_others(scene: tuple[str, dict[str, np.ndarray]]) -> None:
    path, bands = scene
    reader, _ = open_as(stac=path, assets=("red", "nir"), mask={"SCL": (3, 8, 9, 10)})
    assert reader.spec.bands == ("red", "nir")
    is_masked = np.isin(np.arange(12).reshape(3, 4), (3, 8, 9, 10)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read(reader), np.where(is_masked, 0, [bands["B04"], bands["B08"]]))


def test_items_of_one_day_are_tiles_and_of_several_days_dates(tmp_path: Path) -> None:
    values = {(day, column): pixels((6, 8), "uint16", day + column) | 1 for day in (1, 11) for column in (0, 8)}
    features = []
    for (day, column), each in values.items():
        name = f"{day}_{column}"
        path = tiff(tmp_path / "data" / f"{name}.tif", each, (0, column))
        assets = {"visual": asset(Path(path).name, "B04", nodata=0)}
        features.append(item(name, f"2024-06-{day:02}", assets))
    for name, feature in zip(values, features, strict=True):
        written(tmp_path / "data" / f"{name}.json", feature)
    collection = written(tmp_path / "data" / "all.json", {"type": "FeatureCollection", "features": features})
    reader, notes = open_as(stac=collection, assets=("B04",))
    assert notes[0] == "stac: 4 items of 2 days, 4 files: B04"
    expected = [np.hstack([values[day, 0], values[day, 8]]) for day in (1, 11)]
    np.testing.assert_array_equal(read(reader), expected)
    assert dict(reader.spec.band_coordinates)["time"] == ("2024-06-01", "2024-06-11")
    listed = tuple(str(tmp_path / "data" / f"{name}.json") for name in values)
    np.testing.assert_array_equal(read(open_as(stac=listed, assets=("B04",))[0]), expected)


def test_a_run_over_items_is_recorded_by_its_files_and_verified(
    tmp_path: Path, scene: tuple[str, dict[str, np.ndarray]]
) -> None:
    path, bands = scene
    store = str(tmp_path / "out.zarr")
    facts = api.plan(
        document := {
            "inputs": {"image": {"stac": path, "assets": ["red", "nir"]}},
            "steps": [{"name": "ndvi", "op": "calc", "input": "image", "expression": "(nir - red) / (nir + red)"}],
            "output": {"path": store},
        }
    )
    assert "input image: stac: 1 item of 1 day, 2 files: red, nir" in facts.notes
    api.run(document)
    red, nir = (bands[key].astype("float32") for key in ("B04", "B08"))
    np.testing.assert_array_equal(harness.read(store, "ndvi/value").squeeze(), (nir - red) / (nir + red))
    Path(path).unlink()  # the record names the files
    assert api.verify(store).agrees


def test_alternate_places(scene: tuple[str, dict[str, np.ndarray]], tmp_path: Path) -> None:
    path, bands = scene
    data = json.loads(Path(path).read_text())
    data["assets"]["B04"]["href"] = "https://example.com/B04.tif"
    data["assets"]["B04"]["alternate"] = {"local": {"href": "scene/B04.tif"}}
    path = written(tmp_path / "other.json", data)
    np.testing.assert_array_equal(read(open_as(stac=path, assets=("B04",), alternate="local")[0]), bands["B04"])
    assert "the asset B08 has no alternate 'local' (none)" in message(stac=path, assets=("B08",), alternate="local")


def test_what_is_no_item_is_refused(scene: tuple[str, dict[str, np.ndarray]], tmp_path: Path) -> None:
    path, _ = scene
    assert "unknown asset 'B05' (valid: B04, red, B08, nir, SCL, thumbnail)" in message(stac=path, assets=("B05",))
    assert message(stac=str(tmp_path / "none.json")) == f"{tmp_path}/none.json: no such file"
    (tmp_path / "text.json").write_text("{")
    assert "text.json: is not JSON" in message(stac=str(tmp_path / "text.json"))
    assert "is no STAC item" in message(stac=written(tmp_path / "list.json", [1]))
    assert "is no STAC item" in message(stac=written(tmp_path / "b.json", {"type": "Feature"}))
    assert "has no items" in message(stac=written(tmp_path / "c.json", {"type": "FeatureCollection", "features": []}))
    data = json.loads(Path(path).read_text())
    data["assets"]["B08"]["raster:bands"][0]["nodata"] = 65535
    path = written(tmp_path / "scene" / "d.json", data)
    assert "the items say several nodata values: 0, 65535; say which: `nodata: VALUE`" in message(stac=path)
    open_as(stac=path, nodata=0)
    with pytest.raises(ValueError, match="`assets` is of a `stac`, and there is none"):
        Input(path="a.tif", assets=("B04",))
