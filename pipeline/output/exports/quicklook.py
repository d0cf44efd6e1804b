"""A PNG of the input and the outputs of a run, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.execution.process import trim_heap
from pipeline.execution.progress import Progress
from pipeline.model.errors import OutputError, PipelineError
from pipeline.model.stored import StoredArray
from pipeline.output.exports.base import Export, Written
from pipeline.output.job import Job
from pipeline.output.levels import levels_of
from pipeline.picture.render import to_png
from pipeline.picture.sample import PIECE_BYTES, Levelled
from pipeline.picture.sheet import Subject, draw_sheet
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.disk import replace_file
from pipeline.storage.open import open_raster
from pipeline.storage.zarr.reader import open_written

MAX_PANELS = 8
PANEL_BYTES = 96 * 2**20
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
    """Draw the first input and up to seven outputs; what is not drawn is said."""
    trim_heap()  # of what the blocks left
    progress.start(1 + len(_drawn(job)), what=f"panels of {Path(path).name}")
    image = to_png(draw_sheet(_subjects(job, progress), 1 + len(_drawn(job))))
    if left_out := len(job.plan.kept) - len(_drawn(job)):
        progress.say(f"note: {path} has no room for the last {left_out} rasters; `rasterpipe show` draws them")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), image)
    except OSError as error:
        raise OutputError(f"{path}: the result {job.output} is complete, but the quicklook failed: {error}") from error
    return path


def _subjects(job: Job, progress: Progress) -> Iterator[Subject]:
    name, first = next(iter(job.readers.items()))
    yield Subject(name, Levelled([first]), job.plan.passes[0].grid.region)
    folder, levels = job.place.folder, levels_of(job)
    for array in _drawn(job):
        progress.advance()
        below = levels[array.raster].arrays if array.raster in levels else ()
        names = [array.raster, *(each.raster for each in below)]
        # where the output is a GeoTIFF, its store is gone once that is written
        is_stored = folder.exists("zarr.json")
        readers = [open_written(folder, name) for name in names] if is_stored else [open_raster(job.result)]
        yield Subject(array.raster, Levelled(readers), readers[0].spec.region)


def _drawn(job: Job) -> list[StoredArray]:
    return list(job.plan.kept.values())[: MAX_PANELS - 1]
