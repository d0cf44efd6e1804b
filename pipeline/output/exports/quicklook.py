"""A small PNG of the input and the outputs of a run, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.execution.process import trim_heap
from pipeline.execution.progress import Progress
from pipeline.model.errors import OutputError, PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray
from pipeline.output.exports.base import Export, Written
from pipeline.output.job import Job
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.disk import replace_file
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from pipeline.storage.zarr.reader import open_written

SIDE = 384
GAP = 8
MAX_PANELS = 8
PIECE_BYTES = 16 * 2**20
"""What is read of a chunk at once."""
PANEL_BYTES = 48 * 2**20
"""Of the panels, what they are stretched with, and the picture."""


class Quicklook(Export):
    """The picture at a path that ends in .png."""

    name = "quicklook"

    def __init__(self, path: str) -> None:
        self.path = path

    def files(self, job: Job) -> list[Written]:
        return [Written(self.path, "the quicklook", "picture")]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        if Path(self.path).suffix.lower() != ".png":
            raise OutputError(f"{self.path}: a quicklook is a PNG; give a name that ends in .png")
        needed_bytes(job)

    def write(self, job: Job, progress: Progress) -> str:
        with progress:
            return draw(job, self.path, progress)


def needed_bytes(job: Job) -> int:
    """Return the memory that drawing takes at most, the process itself counted.

    Raises
    ------
    PipelineError
        Where the run may not use as much.
    """
    first = next(iter(job.readers.values()))
    drawn = [(first.spec, first.chunk), *((array.spec, array.unit) for array in _drawn(job))]
    chunk = max(math.prod(unit) * spec.pixel_bytes for spec, unit in drawn)
    piece = max(PIECE_BYTES, *(spec.pixel_bytes for spec, _ in drawn))
    # a chunk as it is stored, sent and decoded; a piece in the reader's order of bands, in ours, and what is kept of it
    need, have = BASE_BYTES + 3 * chunk + 3 * piece + PANEL_BYTES, job.plan.settings.memory_bytes
    if need > have:
        raise PipelineError(
            f"the quicklook takes {format_bytes(need)}, the run may use {format_bytes(have)}; set it to "
            f"{format_bytes(need, up=True)} or more, or leave the quicklook out",
            ("run", "memory"),
        )
    return need


def draw(job: Job, path: str, progress: Progress) -> str:
    """Draw the first input and up to seven outputs, each stretched between its 2nd and 98th percentile."""
    import imagecodecs

    trim_heap()  # of what the blocks left
    progress.start(1 + len(_drawn(job)), what=f"panels of {Path(path).name}")
    panels = [_panel(next(iter(job.readers.values())), job.plan.passes[0].grid.region)]
    for array in _drawn(job):
        progress.advance()
        folder = job.place.folder  # where the output is a GeoTIFF, its store is gone once that is written
        is_stored = folder.exists("zarr.json")
        reader = open_written(folder, array.raster) if is_stored else open_raster(job.result)
        panels.append(_panel(reader, reader.spec.region))
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] + GAP for panel in panels) - GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for panel in panels:
        sheet[: panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), bytes(imagecodecs.png_encode(sheet)))
    except OSError as error:
        raise OutputError(f"{path}: the result {job.output} is complete, but the quicklook failed: {error}") from error
    return path


def _drawn(job: Job) -> list[StoredArray]:
    return list(job.plan.kept.values())[: MAX_PANELS - 1]


def _panel(reader: Reader, region: Region) -> np.ndarray:
    """Return a part of a raster as (rows, columns, 3) bytes: three bands in colour, else the first in grey."""
    spec = reader.spec
    bands = [2, 1, 0] if spec.num_bands >= 3 else [0]
    step = max(1, -(-max(region.shape) // SIDE))
    values = _decimate(reader, region, step, bands)
    rgb = np.stack([_stretch(values[..., i], spec) for i in range(len(bands))], axis=-1)
    return np.repeat(rgb, 3, axis=-1) if len(bands) == 1 else rgb


def _decimate(reader: Reader, region: Region, step: int, bands: list[int]) -> np.ndarray:
    """Read every step-th pixel, a piece of a chunk at a time: the raster may be larger than memory."""
    spec = reader.spec
    rows, columns = (range(*ends, step) for ends in ((region.top, region.bottom), (region.left, region.right)))
    result = np.empty((len(rows), len(columns), len(bands)), np.float64)
    width = min(reader.chunk[1], max(1, PIECE_BYTES // spec.pixel_bytes))
    height = min(reader.chunk[0], max(1, PIECE_BYTES // (width * spec.pixel_bytes)))
    # pieces do not cross chunks, so that none is decoded for a part of a piece
    for top, bottom, i in _pieces(rows, reader.chunk[0], height):
        for left, right, j in _pieces(columns, reader.chunk[1], width):
            piece = Region(top, bottom, left, right).clip(region)
            shape = [len(bands) if dim == "band" else n for dim, n in zip(spec.dims, spec.shape_of(piece), strict=True)]
            values = np.empty(shape, spec.dtype)
            reader.read(piece, values, bands)
            planes = np.moveaxis(values, 0, -1) if spec.dims[0] == "band" else values.reshape((*piece.shape, -1))
            result[i, j] = planes[rows[i.start] - piece.top :: step, columns[j.start] - piece.left :: step]
    return result


def _pieces(places: range, chunk: int, size: int) -> Iterator[tuple[int, int, slice]]:
    """Yield pieces of chunks in which places lie: where each begins and ends, and which of the places these are."""
    for first in range(places.start // chunk * chunk, places.stop, chunk):
        for begin in range(first, min(first + chunk, places.stop), size):
            end = min(begin + size, first + chunk, places.stop)
            i, j = (max(0, -(-(at - places.start) // places.step)) for at in (begin, end))
            if i < j:
                yield begin, end, slice(i, min(j, len(places)))


def _stretch(values: np.ndarray, spec: RasterSpec) -> np.ndarray:
    invalid = ~np.isfinite(values)
    if spec.nodata is not None:
        invalid |= values == spec.nodata
    if invalid.all():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[~invalid], (2, 98))
    scaled = np.clip((values - low) / (high - low if high > low else 1), 0, 1) * 255
    return np.where(invalid, 0, np.nan_to_num(scaled)).astype(np.uint8)
