"""Polygons, objects and percentiles of labels from file to file, against what others take for them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks import whole_runs
from benchmarks.child import in_own_process
from benchmarks.rounds import Measured, Row, at_least
from benchmarks.rows import zone_peers
from benchmarks.rows.files import Scenes, fresh, ours
from benchmarks.rows.labels import segments

FIELDS, BANDS, PIXEL = 10_000, 4, 10.0
LABELS, PERCENTILES = 100_000, (10, 50, 90)
CHUNK = 512
BRIGHT = 140
"""Above which pixels are of an object, a tenth of all."""


def zone_rows(scenes: Scenes) -> Iterator[Row]:
    """Row 19: the means of fields."""
    image, fields = _image(scenes), _fields(scenes)
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "fields", "statistics": ["mean"]}
    config = scenes.config(step, scene=image)
    config["inputs"]["fields"] = {"vector": fields, "id": "field_id"}
    result = config["output"]["path"]
    mine = fresh(result, in_own_process, whole_runs.run_all, config, answer=(result, "zones/table"))
    others = {
        "rasterstats": _peer(scenes, zone_peers.rasterstats_means, image, fields),
        "exactextract (shares of pixels)": _peer(scenes, zone_peers.exactextract_means, image, fields),
    }
    size = f"{scenes.size} x {scenes.size} x {BANDS} uint16"
    name = f"19. means of {_side(scenes) ** 2:,} polygons, {size}, GeoTIFF and GeoPackage"
    aims = tuple(at_least(peer, 5) for peer in others)
    yield Row(name, mine, others, _same_means, aims, frozenset({"rasterstats"}))


def object_rows(scenes: Scenes) -> Iterator[Row]:
    """Row 20: connected pixels above a threshold."""
    source = _blobs(scenes)
    step = {"name": "cells", "op": "components", "input": "image", "where": f"b1 > {BRIGHT}", "connectivity": 8}
    config, result = scenes.config(step, scene=source), str(scenes.path("peer.zarr"))
    scipy = "scipy.ndimage.label, in memory, file to file"
    others: dict[str, Callable[[], Measured]] = {
        scipy: fresh(
            result, in_own_process, zone_peers.scipy_objects, source, result, BRIGHT, answer=(result, "labels")
        )
    }
    if importlib.util.find_spec("dask_image"):
        work = zone_peers.dask_image_objects
        others["dask-image"] = fresh(result, in_own_process, work, source, result, BRIGHT, answer=(result, "labels"))
    name = f"20. objects of {scenes.size} x {scenes.size} uint8"
    yield Row(name, ours(config, "cells/labels"), others, _same_objects, (at_least(scipy, 2),))


def percentile_rows(scenes: Scenes) -> Iterator[Row]:
    """Row 21: three percentiles of many labels."""
    image, labels = _band(scenes), _segments(scenes)
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "statistics": []}
    config = scenes.config(step | {"percentiles": list(PERCENTILES)}, scene=image)
    config["inputs"]["labels"] = labels
    result = config["output"]["path"]
    mine = fresh(result, in_own_process, whole_runs.run, config, answer=(result, "zones/table"))
    others = {}
    for library, work in (("pandas", zone_peers.pandas_percentiles), ("flox", zone_peers.flox_percentiles)):
        if importlib.util.find_spec(library):
            others[library] = _peer(scenes, work, image, labels, PERCENTILES)
    size = f"{scenes.size} x {scenes.size} float32"
    name = f"21. {len(PERCENTILES)} percentiles of {_num_labels(scenes):,} labels, {size}, file to file"
    yield Row(name, mine, others, _same_percentiles)


def _peer(scenes: Scenes, work: Callable[..., float], *arguments: Any) -> Callable[[], Measured]:
    """Return a call of work whose last argument is the file (.npy) that it leaves, a row a label."""
    place = str(scenes.path(f"{work.__name__}.npy"))
    return partial(in_own_process, work, *arguments, place, answer=place)


# --- what they work on


def _image(scenes: Scenes) -> str:
    import rasterio

    place = scenes.path("fields.tif")
    if not place.exists():
        rng, size = np.random.default_rng(0), scenes.size
        options = {"tiled": True, "blockxsize": CHUNK, "blockysize": CHUNK, "compress": "deflate"}
        transform = rasterio.Affine(PIXEL, 0, 600_000, 0, -PIXEL, 5_000_000)
        with rasterio.open(
            place, "w", "GTiff", size, size, BANDS, "EPSG:32632", transform, "uint16", **options
        ) as target:
            for band in range(BANDS):
                target.write(rng.integers(200, 4000, (size, size), np.uint16), band + 1)
    return str(place)


def _side(scenes: Scenes) -> int:
    """Return how many fields lie beside each other."""
    return min(round(FIELDS**0.5), scenes.size // 5)


def _fields(scenes: Scenes) -> str:
    """Return a file of quadrilaterals that leave paths between them, their corners nowhere in particular."""
    import pyogrio
    import shapely

    place = scenes.path("fields.gpkg")
    if not place.exists():
        rng, side = np.random.default_rng(1), _side(scenes)
        cell = scenes.size * PIXEL / side
        column, row = (axis.reshape(-1, 1) for axis in np.meshgrid(np.arange(side), np.arange(side)))
        x, y = np.array([0.1, 0.9, 0.9, 0.1]), np.array([0.1, 0.1, 0.9, 0.9])
        shifts = rng.uniform(-0.08, 0.08, (2, side**2, 4))
        corners = np.stack([(column + x + shifts[0]) * cell + 600_000, 5_000_000 - (row + y + shifts[1]) * cell], -1)
        pyogrio.raw.write(
            place,
            geometry=shapely.to_wkb(shapely.polygons(corners)),
            field_data=[np.arange(1, side**2 + 1, dtype=np.int64)],
            fields=["field_id"],
            geometry_type="Polygon",
            crs="EPSG:32632",
        )
    return str(place)


def _stored(place: Path, values: Callable[[], np.ndarray]) -> str:
    """Return an array of one band, made where it is not there yet."""
    if not place.exists():
        made = values()
        chunks = tuple(min(CHUNK, side) for side in made.shape)
        unfinished = place.with_suffix(".new")
        array = zarr.create_array(
            str(unfinished), shape=made.shape, dtype=made.dtype, chunks=chunks, dimension_names=("y", "x")
        )
        array[...] = made
        shutil.move(unfinished, place)
    return str(place)


def _blobs(scenes: Scenes) -> str:
    from scipy.ndimage import gaussian_filter

    def values() -> np.ndarray:
        noise = np.random.default_rng(2).normal(size=(scenes.size,) * 2).astype(np.float32)
        smooth = gaussian_filter(noise, 3)
        return (100 + 30 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)

    return _stored(scenes.path("blobs.zarr"), values)


def _band(scenes: Scenes) -> str:
    shape = (scenes.size,) * 2
    make = partial(np.random.default_rng(3).normal, 100, 20, shape)
    return _stored(scenes.path("band.zarr"), lambda: make().astype(np.float32))


def _num_labels(scenes: Scenes) -> int:
    return int(segments(scenes.size, min(LABELS, scenes.size**2 // 25)).max()) + 1


def _segments(scenes: Scenes) -> str:
    return _stored(
        scenes.path("segments.zarr"), lambda: segments(scenes.size, min(LABELS, scenes.size**2 // 25)) + np.int32(1)
    )


# --- whether answers agree


def _table(answer: tuple[str, str]) -> dict[str, np.ndarray]:
    path, group = answer
    return {name: np.asarray(array[...]) for name, array in zarr.open_group(path, path=group, mode="r").arrays()}


def _same_means(ours: tuple[str, str], theirs: str) -> bool:
    return bool(np.allclose(_table(ours)["mean"], np.load(theirs), rtol=1e-9))


def _same_objects(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
    """Whether each object of one is an object of the other, whatever its number."""
    a, b = (zarr.open_array(path, path=array, mode="r")[...].astype(np.int64) for path, array in (ours, theirs))
    inside = a > 0
    pairs = np.unique(a[inside] * (int(b.max()) + 1) + b[inside])
    return np.array_equal(inside, b > 0) and int(a.max()) == int(b.max()) == len(pairs)


def _same_percentiles(ours: tuple[str, str], theirs: str) -> bool:
    table, found = _table(ours), np.load(theirs)
    mine = np.stack([table[f"p{percent}"][:, 0] for percent in PERCENTILES], axis=1)
    return bool(np.allclose(mine, found, rtol=1e-6))
