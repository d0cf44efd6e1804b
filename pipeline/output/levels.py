"""The levels of the rasters of a store: made of what its blocks have written, before the store is complete.

Full resolution is read once more, tile by tile (see `storage.pyramid`): so levels depend on the pixels alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.execution.progress import Progress
from pipeline.kernels.overview import Resampling, State
from pipeline.model.errors import PipelineError
from pipeline.model.stored import StoredArray, StoredLevels, level_name
from pipeline.output.address import is_one_raster
from pipeline.output.job import Job
from pipeline.output.provenance import running_code
from pipeline.output.work_folder import work_folder
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import boot_id
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.georeference.geotiff_format import has_colors
from pipeline.storage.pyramid import Bands, Part, Place, Pyramid, Walk, depth, plan_walk
from pipeline.storage.reader import Reader
from pipeline.storage.spool import Spool
from pipeline.storage.zarr.reader import open_written
from pipeline.storage.zarr.store import ZarrWriter, root_attributes

LARGE = 4096
"""Rows or columns from which on a raster gets levels unasked."""
CHUNK_SIDE = 1024
"""Rows and columns of a chunk of a level at most: a larger one is half as large, and so on."""


def resampling_of(job: Job, array: StoredArray) -> Resampling:
    """Return how levels are made of a raster: what has no mean, as an index of colours, is not averaged."""
    asked = job.pipeline.output.resampling
    if asked != "auto":
        return asked
    name, _, output = array.raster.partition("/")
    step = next(step for step in job.pipeline.steps if step.name == name)
    return "nearest" if output in step.not_averaged or has_colors(array.spec) else "average"


def levels_of(job: Job) -> dict[str, StoredLevels]:
    """Return the levels that a store holds, by raster.

    Raises
    ------
    PipelineError
        Where more are asked for than there are.
    """
    asked = job.pipeline.output.pyramid
    if asked == "none" or is_one_raster(job.result):
        return {}
    found = {}
    for raster, array in job.plan.kept.items():
        sides = array.region.shape
        if asked != "auto" or max(sides) >= LARGE:
            pyramid = _pyramid(array, resampling_of(job, array))
            arrays = tuple(_level(pyramid, array, level) for level in range(1, _number(asked, pyramid, raster) + 1))
            if arrays:
                found[raster] = StoredLevels(arrays, pyramid.resampling)
    return found


def _number(asked: str | int, pyramid: Pyramid, raster: str) -> int:
    if not isinstance(asked, int):
        return pyramid.depth
    if asked > pyramid.depth:
        raise PipelineError(
            f"level {pyramid.depth} of {raster} is one chunk already; give at most {pyramid.depth}, or auto",
            ("output", "pyramid"),
        )
    return asked


def _pyramid(array: StoredArray, resampling: Resampling) -> Pyramid:
    """Return a raster and all its levels, in tiles of whole chunks of each."""
    spec = array.stored
    rows, columns = _chunk_sides(array)
    tile = rows * (1 + rows % 2), columns * (1 + columns % 2)  # a tile is made of quarters
    return Pyramid(spec, tile, depth(spec, tile), resampling)


def _chunk_sides(array: StoredArray) -> tuple[int, int]:
    sizes = dict(zip(array.spec.dims, array.chunks, strict=True))
    sides = []
    for side in (sizes["y"], sizes["x"]):
        while side > CHUNK_SIDE:
            side = -(-side // 2)
        sides.append(side)
    return sides[0], sides[1]


def _level(pyramid: Pyramid, array: StoredArray, level: int) -> StoredArray:
    spec = pyramid.level_spec(level)
    if spec.transform is None:  # what else tells its place tells that of full resolution
        spec = replace(spec, recorded=None)
    sides = dict(zip(("y", "x"), _chunk_sides(array), strict=True))
    chunks = tuple(
        min(sides.get(dim, chunk), size) for dim, chunk, size in zip(spec.dims, array.chunks, spec.shape, strict=True)
    )
    return StoredArray(level_name(array.raster, level), spec, chunks, None, array.codec, spec.region)


def walk_of(job: Job, array: StoredArray, levels: StoredLevels) -> Walk:
    """Return how the levels of a raster are made.

    Raises
    ------
    PipelineError
        Where the run may not use as much memory as that takes.
    """
    settings = job.plan.settings
    pyramid = replace(_pyramid(array, resampling_of(job, array)), num_levels=len(levels.arrays))
    chunk = dict(zip(array.spec.dims, array.chunks, strict=True))
    walk = plan_walk(pyramid, (chunk["y"], chunk["x"]), settings.workers, (settings.memory_bytes - BASE_BYTES) // 2)
    walk = replace(walk, groups=(sum(walk.groups, ()),), is_measured=False)  # a chunk is written with all its bands
    need = BASE_BYTES + walk.num_bytes
    if need > settings.memory_bytes:
        raise PipelineError(
            f"the levels of {array.raster} take {format_bytes(need)}, the run may use "
            f"{format_bytes(settings.memory_bytes)}; set it to {format_bytes(need, up=True)} or more, give smaller "
            "`chunks`, or leave levels out: `pyramid: none`",
            ("run", "memory"),
        )
    return walk


def check_levels(job: Job) -> None:
    """Refuse levels that cannot be made within the memory, before anything is written."""
    for raster, levels in levels_of(job).items():
        walk_of(job, job.plan.kept[raster], levels)


def write_levels(job: Job, store: Folder, progress: Progress) -> None:
    """Write all levels of a store whose full resolution is written."""
    found: Mapping[str, StoredLevels] = levels_of(job)
    walks = {raster: walk_of(job, job.plan.kept[raster], levels) for raster, levels in found.items()}
    if walks:
        progress.start(sum(walk.num_pieces for walk in walks.values()), what="parts of the levels")
    for number, (raster, walk) in enumerate(walks.items()):
        writers = [ZarrWriter(store, array) for array in found[raster].arrays]
        reader = open_written(store, raster)
        if not isinstance(store, LocalFolder):
            _write(walk, reader, writers, progress, None)
            continue
        place, token = work_folder(job.output) / f"levels-{number}", str((root_attributes(store) or {}).get("run_id"))
        with Spool(place, token, _key(walk, raster), [math.prod(walk.pyramid.grid(walk.kept_level))]) as spool:
            _write(walk, reader, writers, progress, _Finished(walk, writers, store, spool))


def _write(
    walk: Walk, reader: Reader, writers: Sequence[ZarrWriter], progress: Progress, finished: _Finished | None
) -> None:
    read_through = walk.through_cache(reader, reader.chunk)

    def read(*piece: Any) -> None:
        read_through(*piece)
        progress.advance()

    def write(place: Place, bands: Bands, tile: np.ndarray) -> None:
        if place.level:
            writers[place.level - 1].write(walk.pyramid.region(place), tile)

    def make(place: Place, bands: Bands, tile: np.ndarray) -> None:
        if threading.current_thread() is caller and place.level:  # which adds up what the others read
            beside.submit(write, place, bands, tile.copy())
        else:
            write(place, bands, tile)

    caller, beside = threading.current_thread(), _Writes()
    with beside:
        if finished is not None:
            finished.wait = beside.wait
        for _ in walk.run(read, make, finished):
            pass
        beside.wait()


class _Writes:
    """Tiles that are written beside other work, two at once."""

    def __init__(self) -> None:
        self._pool, self._waiting = ThreadPoolExecutor(2), deque[Future[None]]()

    def submit(self, write: Callable[..., None], *arguments: Any) -> None:
        while len(self._waiting) > 1:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write, *arguments))

    def wait(self) -> None:
        """Return when all are written; raise what went wrong."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def _key(walk: Walk, raster: str) -> bytes:
    """Return what stands for all that finished tiles depend on; on another start of the machine, files may be lost."""
    facts = [raster, walk.kept_level, walk.pyramid.tile, walk.pyramid.num_levels, walk.pyramid.resampling]
    return hashlib.sha256(json.dumps([facts, running_code(), boot_id()]).encode()).digest()


class _Finished:
    """Tiles whose levels are written, with their states and marks of their files: a killed run goes on from them."""

    def __init__(self, walk: Walk, writers: Sequence[ZarrWriter], store: LocalFolder, spool: Spool) -> None:
        self.walk, self.writers, self.spool, self.mark_of = walk, writers, spool, store.marks()
        self.wait: Callable[[], None] = lambda: None
        """Returns when all levels of a tile are written."""

    def recall(self, place: Place) -> Part[Any] | None:
        if not (data := self.spool.tile(0, self._number(place))):
            return None
        marks, *state = _unpacked(data)
        return Part(place, tuple(state) or None, [], []) if list(marks) == [*self._marks(place)] else None

    def keep(self, place: Place, state: State | None) -> None:
        number = self._number(place)
        if not self.spool.has(0, number):
            self.wait()
            marks = np.array([*self._marks(place)], np.uint64)
            self.spool.add(0, number, _packed([marks, *(state or ())]))

    def _marks(self, place: Place) -> Iterator[int]:
        """Yield what stands for the files of a tile and of those below it; 0 for one that is not there."""
        pyramid = self.walk.pyramid
        for level in range(1, min(place.level, pyramid.num_levels) + 1):
            for tile in pyramid.places(level, place):
                for name in self.writers[level - 1].array.files(pyramid.region(tile)):
                    yield self.mark_of(name) or 0

    def _number(self, place: Place) -> int:
        return place.row * self.walk.pyramid.grid(place.level)[1] + place.column


def _packed(arrays: Sequence[np.ndarray]) -> bytes:
    file = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> list[np.ndarray]:
    file, arrays = io.BytesIO(data), list[np.ndarray]()
    while file.tell() < len(data):
        arrays.append(np.lib.format.read_array(file, allow_pickle=False))
    return arrays
