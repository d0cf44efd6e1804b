"""What a finished OME-Zarr image holds besides pixels of full resolution, made anew and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.kernels.statistics import Statistics
from pipeline.model.stored import StoredArray
from pipeline.output.exports.ome_zarr import folders_of, images_of, open_level
from pipeline.output.exports.raster import RasterFile, file_name
from pipeline.output.job import Job
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.metadata import METADATA
from pipeline.storage.georeference.ome_format import Window
from pipeline.storage.zarr.ome import OmeImage, Sides, finish_group, finish_labels, windows_of
from pipeline.verbs.expectation import document_difference, missing_problems, read_document
from pipeline.verbs.levels import Levels

UNKNOWN = Window(0, 1, 0, 1)


def _images(job: Job, file: RasterFile) -> Iterator[tuple[StoredArray, OmeImage, Path]]:
    """Yield an image and its labels as their chunks and shards are stored: automatic ones follow the memory."""
    sides: Sides | None = None
    try:
        full = LocalFolder(file.path).open_array("0")
        chunk, tile = full.chunks[-2:], (full.shards or full.chunks)[-2:]
        sides = (chunk[0], chunk[1]), (tile[0], tile[1])
    except Exception:  # zarr raises anything on damaged metadata, which are compared later
        pass
    for (array, image), folder in zip(images_of(job, file, sides), folders_of(file, file.path), strict=True):
        yield array, image, folder


def image_levels(job: Job, file: RasterFile) -> Iterator[Levels]:
    """Yield the levels of an image, and of its labels."""
    for array, image, folder in _images(job, file):
        open_one = partial(open_level, file.path, array)
        yield Levels(str(folder), image.walk, open_one, partial(_window_differences, file.path, array, image, folder))


def _window_differences(
    path: Path, array: StoredArray, image: OmeImage, folder: Path, statistics: Statistics
) -> Iterator[str]:
    reader = open_level(path, array, image.pyramid.num_levels)
    smallest = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, smallest)
    due = [window._asdict() for window in windows_of(image, statistics, smallest)]
    is_old = image.form.version == "0.4"
    document = read_document(LocalFolder(folder), ".zattrs" if is_old else "zarr.json")
    said = document if is_old else document["attributes"]["ome"]  # as they should be, but for windows: see below
    found = [channel.get("window") for channel in said.get("omero", {"channels": []})["channels"]]
    if text := document_difference(found, due):
        yield f"the window of channel {text}"


def image_problems(job: Job, file: RasterFile) -> Iterator[str]:
    """Yield where an image lacks chunks, or says what its run does not say: but for windows, which pixels tell."""
    images = list(_images(job, file))
    for _, image, folder in images:
        for level in range(image.pyramid.num_levels + 1):
            yield from missing_problems(str(folder), str(level))
    with tempfile.TemporaryDirectory(prefix="rasterpipe-verify-", dir=job.pipeline.run.scratch) as temporary:
        expected, version = Path(temporary, "image"), job.pipeline.output.ome_version
        for (_, image, _), folder in zip(images, folders_of(file, expected), strict=True):
            image.create(folder)
            finish_group(folder, image.attributes([UNKNOWN] * image.spec.num_bands), version)
        if file.labels:
            finish_labels(expected, [file_name(array) for array in file.labels], version)
        for name in sorted(str(found.relative_to(expected)) for found in expected.rglob("*") if found.name in METADATA):
            stored, due = (_without_windows(read_document(LocalFolder(f), name)) for f in (file.path, expected))
            if problem := document_difference(stored, due):
                yield f"{file.path}/{name}: {problem}"


def _without_windows(document: Any) -> Any:
    """Return metadata without the record of the run and the windows of channels."""
    if isinstance(document, list):
        return [_without_windows(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {key: _without_windows(value) for key, value in document.items() if key not in ("rasterpipe", "window")}
