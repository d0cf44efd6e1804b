"""The examples of docs/inputs.md, run on scenes in the names of Sentinel-2: in a folder, a bucket, on a web server."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline import api
from pipeline.config import parse
from tests import harness
from tests.georeference import placed_tiff as tiff
from tests.range_server import range_server
from tests.s3_server import CREDENTIALS, S3, s3_server
from tests.zarr_files import pixels

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"
DAYS = ("20240601", "20240611", "20240621")
CLOUDS = (0, 1, 3, 8, 9, 10)
SIDE = 24
WANTED = ("driver", "width", "height", "count", "dtype", "crs", "transform", "QUALITY", "REVERSIBLE")


def example(heading: str) -> dict[str, Any]:
    """Return the pipeline under a heading of the page."""
    text = PAGE.read_text().partition(f"## {heading}\n")[2]
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    return parse(found[1]).data


def jpeg_2000(path: Path, values: np.ndarray) -> None:
    """Write what lies at a path with .tif as JPEG 2000 without loss, as Sentinel-2 is delivered, and remove that."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    with rasterio.open(path) as source:
        profile = {**source.profile, "driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "nodata": None}
        profile = {key: value for key, value in profile.items() if key in WANTED}
        with rasterio.open(path.with_suffix(".jp2"), "w", **profile) as target:
            target.write(values if values.ndim == 3 else values[np.newaxis])
    path.unlink()


def make_scenes(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write two granules of three dates, bands at 10 m and classes at 20 m; return bands and classes of each date."""
    found = {}
    for seed, day in enumerate(DAYS):
        bands = (pixels((2, SIDE, 2 * SIDE), "uint16", seed) % 4000 + 1).astype("uint16")
        scl = (pixels((SIDE // 2, SIDE), "uint8", 9 + seed) % 12).astype("uint8")
        found[day] = bands, scl
        for tile, column in (("T33UUP", 0), ("T33UVP", SIDE)):
            place = folder / f"S2A_MSIL2A_{day}T100031_N0510_R122_{tile}.SAFE" / "GRANULE" / "L2A_X" / "IMG_DATA"
            for band, values in zip(("B04", "B08"), bands, strict=True):
                part = np.ascontiguousarray(values[:, column : column + SIDE])
                tiff(place / "R10m" / f"{tile}_{day}T100031_{band}_10m.tif", part, (0, column))
            part = np.ascontiguousarray(scl[:, column // 2 : (column + SIDE) // 2])
            tiff(place / "R20m" / f"{tile}_{day}T100031_SCL_20m.tif", part, (0, column // 2), size=20)
            # what else is delivered, and not asked for: coarser copies, a picture
            tiff(place / "R20m" / f"{tile}_{day}T100031_B04_20m.tif", part.astype("uint16"), (0, column // 2), size=20)
            tiff(place / "R10m" / f"{tile}_{day}T100031_TCI_10m.tif", np.zeros((3, SIDE, SIDE), "uint8"), (0, column))
    return found


def check(store: Path, scenes: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Compare a result of the first example with numpy's."""
    bands = np.stack([bands for bands, _ in scenes.values()]).astype("float32")
    is_cloud = np.stack([np.isin(scl, CLOUDS).repeat(2, 0).repeat(2, 1) for _, scl in scenes.values()])
    red, nir = bands[:, 0], bands[:, 1]
    ndvi = np.where(is_cloud, np.nan, (nir - red) / (nir + red))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels that are clouds on all dates
        median = np.nanmedian(ndvi, axis=0)
    np.testing.assert_array_equal(harness.read(str(store), "season/median").squeeze(), median)
    np.testing.assert_array_equal(harness.read(str(store), "season/count").squeeze(), (~is_cloud).sum(axis=0))
    best = np.where(np.isnan(ndvi), -np.inf, ndvi).argmax(axis=0)
    taken = np.where(is_cloud.all(axis=0), 0, np.take_along_axis(bands, best[np.newaxis, np.newaxis], 0)[0])
    np.testing.assert_array_equal(harness.read(str(store), "best/value"), taken)


def test_a_folder_of_scenes_to_a_composite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = make_scenes(tmp_path)
    for path in tmp_path.rglob("*.tif"):
        jpeg_2000(path, tifffile.imread(path))
    document = example("From Sentinel-2 scenes to a cloud-free composite")
    monkeypatch.chdir(tmp_path)
    notes = api.plan(document).notes
    assert any(note.endswith("30 files, 3 dates, 2024-06-01 to 2024-06-21") for note in notes)
    api.run(document)
    check(tmp_path / "season.zarr", scenes)
    assert tifffile.imread(tmp_path / "maps" / "season_count.tif").shape == (SIDE, 2 * SIDE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    pytest.importorskip("moto", reason="moto is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def test_a_bucket_of_scenes_to_a_composite(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore.store

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    scenes, url = make_scenes(tmp_path / "scenes"), server.make_bucket("scenes")
    bucket = obstore.store.from_url(
        url, endpoint=server.endpoint, region="us-east-1", client_options={"allow_http": True}
    )
    for path in sorted((tmp_path / "scenes").rglob("*.tif")):
        bucket.put(str(path.relative_to(tmp_path / "scenes")), path.read_bytes())
    document = example("From Sentinel-2 scenes to a cloud-free composite")
    image = document["inputs"]["image"]
    image |= {"dates": f"{url}/{image['dates'].replace('jp2', 'tif')}", "storage": server.storage}
    monkeypatch.chdir(tmp_path)
    api.run(document, trust=True)
    check(tmp_path / "season.zarr", scenes)
    assert api.verify(tmp_path / "season.zarr", trust=True).agrees


def test_items_on_a_web_server_to_a_composite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pystac", reason="pystac is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    scenes = make_scenes(tmp_path / "scenes")
    features = []
    for folder in sorted((tmp_path / "scenes").iterdir()):
        _, _, day, _, _, tile = folder.stem.split("_")
        day = day[:8]
        assets = {
            band: {
                "href": str(min(folder.rglob(f"*_{band}_*.tif")).relative_to(tmp_path / "scenes")),
                "roles": ["data"],
            }
            for band in ("B04", "B08", "SCL")
        }
        time = f"{day[:4]}-{day[4:6]}-{day[6:]}T10:00:31Z"
        features.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"{tile}_{day}",
                "geometry": None,
                "links": [],
                "properties": {"datetime": time},
                "assets": assets,
            }
        )
    (tmp_path / "scenes" / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    document = example("From Sentinel-2 scenes to a cloud-free composite")
    image = document["inputs"]["image"]
    monkeypatch.chdir(tmp_path)
    with range_server(tmp_path / "scenes") as (url, _):
        image |= {"stac": f"{url}/items.json", "assets": ["B04", "B08"]}
        del image["dates"]
        api.run(document)
    check(tmp_path / "season.zarr", scenes)


def test_a_stack_of_slices_to_its_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pixels((5, 2, 12, 14), "uint16")
    tifffile.imwrite(tmp_path / "cells.ome.tif", values, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.5})
    monkeypatch.chdir(tmp_path)
    api.run(example("From a z-stack to its projection"))
    np.testing.assert_array_equal(harness.read("projection.zarr", "projection/max"), values.max(axis=0))
    assert (tmp_path / "images" / "projection_max.ome.zarr").is_dir()
