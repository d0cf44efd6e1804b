"""What the viewer answers of rasters: tiles, pixels, rows of tables and histograms are those of the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

import pipeline
from pipeline.model.raster import RasterSpec
from pipeline.picture.color_map import class_colors
from pipeline.picture.render import render
from pipeline.picture.style import Style
from pipeline.storage.open import open_raster
from pipeline.verbs.view import gallery as galleries
from pipeline.verbs.view.gallery import TILE, Gallery
from pipeline.verbs.view.server import Server
from tests import zarr_files
from tests.sources import PROJECT
from tests.views import STYLE, get, names


def test_what_there_is(server: Server) -> None:
    rasters = {each["name"]: each for each in get(server, "rasters.json")["rasters"]}
    assert set(rasters) == {
        *("bands/value", "slope/dy", "slope/direction", "poster/index", "cells/labels", "photo", "scene"),
    }
    bands = rasters["bands/value"]
    assert (bands["height"], bands["width"], bands["levels"]) == (600, 523, [1, 2, 4])
    assert rasters["slope/direction"]["units"] == ["°"] * 3
    assert len(bands["alike"]) == 6
    assert len(rasters["photo"]["alike"]) == 1


def test_tiles_are_the_stored_pixels_through_the_colours(server: Server, folder: Path) -> None:
    """At full resolution, at a level, and where a level is strided; transparent beyond the raster."""
    number = names(server).index("slope/dy")
    store = zarr.open_group(folder / "out.zarr", mode="r")
    style = Style("diverging", "blue-red", ((-50.0, 50.0),))
    fields = {"raster": number, "bands": 1, "kind": "diverging", "map": "blue-red", "limits": "-50,50"}
    cases = [(0, "slope/dy", 1), (1, "slope/1/dy", 1), (2, "slope/2/dy", 1), (3, "slope/2/dy", 2)]
    for power, path, stride in cases:
        stored: Any = store[path]
        values = np.asarray(stored[...])[::stride, ::stride, 1:2]
        spec = RasterSpec(*values.shape[:2], values.dtype, ("y", "x"), nodata=float("nan"))
        expected = render(values, spec, style)
        for row in range(-(-values.shape[0] // TILE)):
            for column in range(-(-values.shape[1] // TILE)):
                tile = get(server, "tile.png", power=power, row=row, column=column, **fields)
                part = expected[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                assert tile.shape == (TILE, TILE, 4)
                np.testing.assert_array_equal(tile[: part.shape[0], : part.shape[1], :3], part)
                assert (tile[: part.shape[0], : part.shape[1], 3] == 255).all()
                assert not tile[part.shape[0] :].any()
                assert not tile[:, part.shape[1] :].any()


def test_a_photograph_is_what_it_is(server: Server, folder: Path) -> None:
    number = names(server).index("photo")
    style = get(server, "style.json", raster=number, bands="0,1,2")
    assert style == {"kind": "color", "map": "viridis", "limits": [[0, 255]] * 3}
    fields = {"bands": "0,1,2", "kind": "color", "map": "viridis", "limits": "0,255,0,255,0,255"}
    tile = get(server, "tile.png", raster=number, power=0, row=0, column=0, **fields)
    np.testing.assert_array_equal(tile[:40, :60, :3], tifffile.imread(folder / "photo.tif"))


def test_a_palette_in_its_own_colours(server: Server) -> None:
    number = names(server).index("poster/index")
    assert get(server, "style.json", raster=number, bands=0)["kind"] == "palette"
    fields = {"bands": 0, "kind": "palette", "map": "viridis", "limits": "0,1"}
    tile = get(server, "tile.png", raster=number, power=0, row=0, column=0, **fields)
    assert 1 < len(np.unique(tile[..., :3].reshape(-1, 3), axis=0)) <= 8


def test_a_pixel_of_all_rasters(server: Server, folder: Path) -> None:
    found = get(server, "pixel.json", raster=names(server).index("scene"), row=123, column=77)
    told = {names(server)[each["raster"]]: each for each in found["rasters"]}
    assert set(told) == {"bands/value", "slope/dy", "slope/direction", "poster/index", "cells/labels", "scene"}
    store: Any = zarr.open_group(folder / "out.zarr", mode="r")
    for name in ("bands/value", "slope/dy", "slope/direction"):
        stored = np.asarray(store[name][123, 77])
        assert [stored.dtype.type(each["value"]) for each in told[name]["bands"]] == stored.tolist()
    assert found["point"] == pytest.approx([399960 + 775, 5800020 - 1235])


def test_a_pixel_of_a_raster_on_another_grid(folder: Path) -> None:
    """By coordinates of the same system: a part that was cut out, turned about, and what lies beyond it."""
    scene, part, turned = (str(folder / f"{name}.zarr") for name in ("scene", "part", "turned"))
    pipeline.convert(scene, part, region={"rows": [100, 200], "columns": [50, 90]}, overwrite=True)
    reader = open_raster(part)
    values = np.empty((100, 40, 3), np.uint16)
    reader.read(reader.spec.region, values)
    group = zarr.create_group(turned, overwrite=True)
    array = group.create_array("image", shape=(40, 100, 3), dtype="u2", dimension_names=("y", "x", "band"))
    array[...] = np.moveaxis(values, 0, 1)
    transform = reader.spec.transform
    assert transform is not None
    array.attrs["spatial:transform"] = [transform.b, transform.a, transform.c, transform.e, transform.d, transform.f]
    array.attrs["proj:code"] = "EPSG:32633"
    gallery = Gallery([scene, part, turned])
    assert [each["alike"] for each in gallery.describe()] == [[0], [1], [2]]
    inside, outside = gallery.pixel(0, 130, 77)["rasters"], gallery.pixel(0, 130, 90)["rasters"]
    assert [(each["row"], each["column"]) for each in inside] == [(130, 77), (30, 27), (27, 30)]
    assert len({tuple(band["value"] for band in each["bands"]) for each in inside}) == 1
    assert [each["raster"] for each in outside] == [0]


def test_a_row_of_the_table_of_a_label(server: Server, folder: Path) -> None:
    store: Any = zarr.open_group(folder / "out.zarr", mode="r")
    labels = np.asarray(store["cells/labels"][...])
    row, column = (int(each[0]) for each in np.nonzero(labels == 1))
    found = get(server, "pixel.json", raster=names(server).index("cells/labels"), row=row, column=column)
    told = next(each for each in found["rasters"] if names(server)[each["raster"]] == "cells/labels")
    tables = {each["table"]: each["row"] for each in told["tables"]}
    place = np.nonzero(np.asarray(store["stats/table/label"][...]) == 1)[0][0]
    assert tables["stats/table"]["label"] == "1"
    assert int(tables["stats/table"]["pixels"]) == int(store["stats/table/pixels"][place])
    assert float(tables["stats/table"]["mean_b2"]) == pytest.approx(float(store["stats/table/mean"][place, 1]))
    others = [each for each in found["rasters"] if each is not told]
    assert not any(each["tables"] for each in others)


def test_a_histogram_of_a_part(server: Server, folder: Path) -> None:
    store: Any = zarr.open_group(folder / "out.zarr", mode="r")
    part = np.asarray(store["bands/value"][100:150, 200:290, 2])
    fields = {"raster": names(server).index("bands/value"), "bands": 2, "top": 100, "bottom": 150, **STYLE}
    found = get(server, "histogram.json", left=200, right=290, **fields)
    (band,) = found["bands"]
    assert (found["pixels"], found["valid"], band["minimum"], band["maximum"]) == (4500, 4500, part.min(), part.max())
    low, high = int(part.min()), int(part.max())
    places = [min(63, 64 * (int(value) - low) // (high - low)) for value in part.ravel()]
    assert band["counts"] == [places.count(place) for place in range(64)]
    fields |= {"raster": names(server).index("cells/labels"), "bands": 0, "kind": "categorical", "bottom": 112}
    found = get(server, "histogram.json", left=200, right=240, **fields)
    labels = np.asarray(store["cells/labels"][100:112, 200:240])
    numbers, counts = np.unique(labels[labels != server.gallery.spec(fields["raster"]).nodata], return_counts=True)
    assert 1 < len(numbers) <= galleries.MOST_CLASSES
    assert (found["num_classes"], found["valid"]) == (len(numbers), counts.sum())
    assert found["classes"] == [
        {"value": str(number), "pixels": count, "color": class_colors(number).tolist()}
        for number, count in zip(numbers, counts, strict=True)
    ]


def test_a_view_without_finite_values_has_no_extremes(tmp_path: Path) -> None:
    values = np.full((4, 5), np.inf, "f4")
    values[0] = np.nan
    gallery = Gallery([zarr_files.write(tmp_path / "ends.zarr", values)])
    found = gallery.histogram(0, gallery.spec(0).region, [0], Style("sequential"))
    assert (found["pixels"], found["valid"], found["finite"]) == (20, 15, 0)


def test_a_raster_without_levels_is_read_coarsely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of all of it decodes no more than its share; at full resolution nothing is left out."""
    array = zarr.create_array(
        str(tmp_path / "large.zarr"), shape=(2048, 2048), chunks=(64, 64), dtype="u1", dimension_names=("y", "x")
    )
    array[...] = np.random.default_rng(0).integers(0, 255, (2048, 2048)).astype("u1")
    monkeypatch.setattr(galleries, "TILE_BYTES", 64 * 64 * 16)
    gallery = Gallery([str(tmp_path / "large.zarr")])
    style, read = Style("sequential", "grey", ((0.0, 255.0),)), []
    reader = gallery.shown[0].source.full
    own_read = type(reader).read

    def count(self: Any, region: Any, *rest: Any) -> None:
        read.append(region.num_pixels)
        own_read(self, region, *rest)

    monkeypatch.setattr(type(reader), "read", count)
    whole = imagecodecs.png_decode(gallery.tile(0, (3, 0, 0), [0], style) or b"")
    assert sum(read) <= 64 * 64 * 16
    stored = np.asarray(array[...])
    assert set(np.unique(whole[:, :, 0])) <= set(np.unique(stored))
    full = imagecodecs.png_decode(gallery.tile(0, (0, 1, 2), [0], style) or b"")
    np.testing.assert_array_equal(full[..., 0], stored[256:512, 512:768])


LARGE = """\
import sys
from pipeline.execution.process import peak_rss_bytes
from pipeline.picture.style import Style
from pipeline.storage.open import open_raster
from pipeline.storage.zarr.reader import configure
from pipeline.verbs.view.gallery import Gallery
configure(2)
gallery = Gallery([sys.argv[1]])
style = Style("color", limits=((0.0, 1.0),) * 3)
for place in ((6, 0, 0), (5, 1, 1), (0, 40, 30)):
    assert gallery.tile(0, place, [2, 1, 0], style)
print(peak_rss_bytes())
"""


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    """Tiles of 3 GiB of pixels without levels, within the cache and a few pieces beside it."""
    path = tmp_path / "large.zarr"
    zarr.create_array(
        str(path), shape=(16384, 16384, 6), chunks=(512, 512, 6), dtype="u2", dimension_names=("y", "x", "band")
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", LARGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) < 700 * 2**20
