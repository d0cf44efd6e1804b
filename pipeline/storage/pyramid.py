"""A raster and its levels, tile by tile, in one pass over the pixels and in flat memory.

Tiles are walked in Morton order: a tile of a level follows the up to four tiles that it is made of, so that of each
level one unfinished tile is held, however large the raster. Threads read pieces of 2^p x 2^p tiles, and make all tiles
of a piece; what lies above pieces is made as they come. Nothing depends on pieces or threads: neither levels nor
statistics, which are merged tile by tile in the same tree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from pipeline.kernels.overview import Overview, Resampling, State
from pipeline.kernels.statistics import Statistics, merge, of_pixels
from pipeline.model.raster import RasterSpec, array_shape, array_slices
from pipeline.model.region import Axis, Grid, Halo, Region
from pipeline.storage.cache import CachedReader, ChunkCache
from pipeline.storage.reader import Reader
from pipeline.storage.thread_buffers import ThreadBuffers

Read = Callable[[Region, np.ndarray, Sequence[int] | None], None]
"""How pixels come, as from `Reader.read`."""
PIECE_BYTES = 64 * 2**20
"""What is read at once, where a tile is not larger."""
Bands = tuple[int, ...]
T = TypeVar("T")


class Place(NamedTuple):
    """A tile: of which level, and in which row and column of its tiles."""

    level: int
    row: int
    column: int

    @property
    def parent(self) -> Place:
        return Place(self.level + 1, self.row // 2, self.column // 2)


@dataclass(frozen=True)
class Pyramid:
    """A raster and its levels, cut into tiles of one size."""

    spec: RasterSpec
    tile: tuple[int, int]
    """Rows and columns."""
    num_levels: int
    """Below full resolution, which is level 0."""
    resampling: Resampling = "average"

    @property
    def depth(self) -> int:
        """The first level that is one tile."""
        return depth(self.spec, self.tile)

    @cached_property
    def overview(self) -> Overview:
        return Overview(self.resampling, self.spec.dtype, self.spec.nodata, self.spec.dims.index("y"))

    def level_spec(self, level: int) -> RasterSpec:
        """Return the raster of a level: its sides by ceiling, its pixels larger."""
        height, width = self._sides(level)
        transform = self.spec.transform and self.spec.transform.scale(1 << level, 1 << level)
        return replace(self.spec, height=height, width=width, transform=transform)

    def _sides(self, level: int) -> tuple[int, int]:
        size = 1 << level
        return -(-self.spec.height // size), -(-self.spec.width // size)

    def grid(self, level: int) -> tuple[int, int]:
        """Return how many tiles a level has down and across."""
        height, width = self._sides(level)
        return -(-height // self.tile[0]), -(-width // self.tile[1])

    def region(self, place: Place) -> Region:
        """Return the pixels of a tile, in rows and columns of its level."""
        (rows, columns), (height, width) = self.tile, self._sides(place.level)
        top, left = place.row * rows, place.column * columns
        return Region(top, min(top + rows, height), left, min(left + columns, width))

    def covers(self, place: Place) -> Region:
        """Return the pixels of full resolution that a tile stands for."""
        part, size = self.region(place), 1 << place.level
        return Region(part.top * size, part.bottom * size, part.left * size, part.right * size).clip(self.spec.region)

    def places(self, level: int, top: Place | None = None) -> Iterator[Place]:
        """Yield the tiles of a level, or those of them that a tile of another level is made of, in Morton order."""
        waiting = [top or Place(max(self.depth, level), 0, 0)]
        while waiting:
            place = waiting.pop()
            if place.level == level:
                yield place
            else:
                waiting += reversed(self.children(place))

    def children(self, place: Place) -> list[Place]:
        """Return the tiles that a tile is made of."""
        down, across = self.grid(place.level - 1)
        rows, columns = (range(2 * i, min(2 * i + 2, n)) for i, n in ((place.row, down), (place.column, across)))
        return [Place(place.level - 1, row, column) for row in rows for column in columns]


def depth(spec: RasterSpec, tile: tuple[int, int]) -> int:
    """Return how often a raster is halved until it is one tile."""
    return max((-(-side // n) - 1).bit_length() for side, n in zip((spec.height, spec.width), tile, strict=True))


class Made(NamedTuple, Generic[T]):
    """What was made of a tile."""

    place: Place
    bands: Bands
    result: T


Make = Callable[[Place, Bands, np.ndarray], T]
"""Makes something of the pixels of a tile, of some bands, which hold until it returns; called by threads."""


class Part(NamedTuple, Generic[T]):
    """What a tile, or all below it, gives to the tile above."""

    place: Place
    state: State | None
    statistics: list[Statistics]
    made: Sequence[Made[T]] = ()


class Known(Protocol):
    """Tiles of `Walk.kept_level` that an earlier walk has finished, with all below; nothing of them is measured."""

    def recall(self, place: Place) -> Part[Any] | None:
        """Return what a tile gives to the tile above it, if it is known; nothing is made of it again."""

    def keep(self, place: Place, state: State | None) -> None:
        """Take note of a finished tile, and of what it gives."""


@dataclass(frozen=True)
class Walk:
    """How a pyramid is walked: how much is read at once."""

    pyramid: Pyramid
    piece_level: int
    """A piece stands for one tile of this level."""
    groups: tuple[Bands, ...]
    """Bands that are read together."""
    threads: int
    cache_bytes: int = 0
    """Of chunks that neighbouring pieces share."""
    is_measured: bool = True
    """Whether statistics are made, too."""

    @property
    def num_pieces(self) -> int:
        """How often something is read."""
        return math.prod(self.pyramid.grid(self.piece_level)) * len(self.groups)

    @property
    def piece_values(self) -> int:
        """Values that are read at once."""
        pyramid = self.pyramid
        sides = zip(pyramid.tile, (pyramid.spec.height, pyramid.spec.width), strict=True)
        return math.prod(min(n << self.piece_level, side) for n, side in sides) * max(map(len, self.groups))

    @property
    def num_bytes(self) -> int:
        """What walking takes of the memory, what is made of tiles included if it is no larger than they are."""
        overview, itemsize = self.pyramid.overview, self.pyramid.spec.dtype.itemsize
        values, bands = self.piece_values, max(map(len, self.groups))
        tile = math.prod(self.pyramid.tile) * bands
        # pixels as they are decoded and as they are read, what is made of them and of their levels, and the top's state
        piece = (3 * values + values // 3) * itemsize + overview.state_bytes((values >> 2 * (self.piece_level + 1)) + 1)
        rooms = overview.state_bytes(tile) * (self.threads * self.piece_level + self.pyramid.depth + 1)
        return (self.threads + 1) * piece + self.threads * 2 * tile * 8 + rooms + self.cache_bytes

    def through_cache(self, reader: Reader, chunk: tuple[int, int]) -> Read:
        """Return how to read so that chunks at the rims of pieces, of these sides, are not decoded for each of them."""
        if not self.cache_bytes:
            return reader.read
        sides = (n << self.piece_level for n in self.pyramid.tile)
        rows, columns = (Axis(0, n, side) for n, side in zip(self._sides, sides, strict=True))
        cache = ChunkCache(self.cache_bytes)
        return CachedReader("", reader, cache, Grid(rows, columns, len(columns)), Halo(), chunk).read  # type: ignore[return-value]

    @property
    def _sides(self) -> tuple[int, int]:
        return self.pyramid.spec.height, self.pyramid.spec.width

    def run(self, read: Read, make: Make[T], known: Known | None = None) -> Iterator[Made[T] | Statistics]:
        """Yield what was made of every tile, each group of bands by itself, and last the statistics."""
        found: list[Statistics] = []
        with ThreadPoolExecutor(self.threads) as pool:
            for bands in self.groups:
                spare: list[State] = []
                climb = _Climb(self.pyramid, bands, make, self.pyramid.depth)
                climb.kept_level, climb.known = self.kept_level, known
                for part in _in_order(pool, self._jobs(read, make, bands, known, spare), self.threads):
                    yield from part.made
                    for target, state in zip(climb.quarter(part.place) or (), part.state or (), strict=True):
                        np.copyto(target, state)
                    climb.keep(part.place, part.state)
                    spare += [part.state] if part.state is not None else []
                    yield from climb.add(part.place, part.statistics)
                found += climb.statistics
        if found:
            yield Statistics(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    @property
    def kept_level(self) -> int:
        """The level whose finished tiles are worth to be kept: the state of one of level 2 is 1/16 of its pixels."""
        return min(self.pyramid.depth, max(2, self.piece_level))

    def _jobs(
        self, read: Read, make: Make[T], bands: Bands, known: Known | None, spare: list[State]
    ) -> Iterator[Callable[[], Part[T]]]:
        """Yield what gives the next part: pieces to be read, or all below a tile that is known."""
        for above in self.pyramid.places(self.kept_level):
            if known is not None and (part := known.recall(above)) is not None:
                yield partial(_given, part)
                continue
            for place in self.pyramid.places(self.piece_level, above):
                yield partial(self.piece, read, make, bands, place, spare)

    def piece(self, read: Read, make: Make[T], bands: Bands, place: Place, spare: list[State] | None = None) -> Part[T]:
        """Read a piece, and make something of its tiles; `spare` are states whose room may be used again."""
        pyramid, spec, region = self.pyramid, self.pyramid.spec, self.pyramid.covers(place)
        shape = array_shape(spec.dims, region, len(bands))
        values = _BUFFERS.take("pixels", math.prod(shape) * spec.dtype.itemsize).view(spec.dtype).reshape(shape)
        read(region, values, None if len(bands) == spec.num_bands else bands)
        climb, made = _Climb(pyramid, bands, make, place.level, spare), list[Made[T]]()
        for below in pyramid.places(0, place):
            tile = values[array_slices(spec.dims, pyramid.region(below), (region.top, region.left))]
            made.append(Made(below, bands, make(below, bands, tile)))
            if (quarter := climb.quarter(below)) is not None:
                pyramid.overview.first(tile, quarter)
            statistics = [of_pixels(tile, pyramid.overview, spec.num_bands)] if self.is_measured else []
            made += climb.add(below, statistics)
        return Part(place, climb.top_state, climb.statistics, made)


class _Climb(Generic[T]):
    """Tiles that wait for those that they are made of, one of each level up to that of the top."""

    statistics: list[Statistics]
    """Of the top, once it is complete; none where nothing is measured."""
    kept_level: int
    known: Known | None
    """Takes note of finished tiles of `kept_level`."""

    def __init__(
        self, pyramid: Pyramid, bands: Bands, make: Make[T], top: int, spare: list[State] | None = None
    ) -> None:
        self.pyramid, self.bands, self.make, self.top = pyramid, bands, make, top
        self.spare: list[State] = [] if spare is None else spare
        self.top_state: State | None = None
        self.kept_level, self.known = -1, None
        self.waiting: dict[int, tuple[State | None, list[list[Statistics]]]] = {}

    def quarter(self, place: Place) -> State | None:
        """Return where a tile puts the state of its quarter of the tile above; None where no level is made there."""
        pyramid, region = self.pyramid, self.pyramid.region(place)
        if place.level >= pyramid.num_levels:
            return None
        half = Region(region.top // 2, -(-region.bottom // 2), region.left // 2, -(-region.right // 2))
        if place.level == self.top:  # it leaves this thread, whose buffers are used again
            self.top_state = self._top_room(array_shape(pyramid.spec.dims, half, len(self.bands)))
            return self.top_state
        whole = pyramid.region(place.parent)
        slices = array_slices(pyramid.spec.dims, half, (whole.top, whole.left))
        return tuple(part[slices] for part in self._above(place)[0] or ())

    def keep(self, place: Place, state: State | None) -> None:
        if self.known is not None and place.level == self.kept_level:
            self.known.keep(place, state)

    def _top_room(self, shape: tuple[int, ...]) -> State:
        """Return room for what is handed on: fresh memory, page by page, would take as long as the sums."""
        while self.spare:
            try:
                state = self.spare.pop()
            except IndexError:  # another thread was faster
                break
            if state[0].shape == shape:
                return state
        return self.pyramid.overview.room(shape)

    def _above(self, place: Place) -> tuple[State | None, list[list[Statistics]]]:
        """Return the tile above one, as far as it is made."""
        parent, pyramid = place.parent, self.pyramid
        if parent.level not in self.waiting:
            shape = array_shape(pyramid.spec.dims, pyramid.region(parent), len(self.bands))
            is_made = parent.level <= pyramid.num_levels
            room = pyramid.overview.room(shape, partial(_take, parent.level)) if is_made else None
            self.waiting[parent.level] = room, []
        return self.waiting[parent.level]

    def add(self, place: Place, statistics: list[Statistics]) -> Iterator[Made[T]]:
        """Take in the next tile, in Morton order; yield what is made of the tiles that it completes."""
        if place.level == self.top:
            self.statistics = statistics
            return
        pyramid, parent = self.pyramid, place.parent
        state, found = self._above(place)
        found.append(statistics)
        if len(found) < len(pyramid.children(parent)):
            return
        del self.waiting[parent.level]
        if state is not None:
            yield Made(parent, self.bands, self.make(parent, self.bands, pyramid.overview.pixels(state)))
        quarter = self.quarter(parent) if state is not None else None
        if state is not None and quarter is not None:
            pyramid.overview.halve(state, quarter)
        self.keep(parent, quarter)
        yield from self.add(parent, [reduce(merge, parts) for parts in zip(*found, strict=True)])


def _given(part: Part[T]) -> Part[T]:
    return part


_BUFFERS = ThreadBuffers()


def _take(level: int, name: str, size: int) -> np.ndarray:
    return _BUFFERS.take(f"{level}.{name}", size)


def _in_order(pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], Part[T]]], threads: int) -> Iterator[Part[T]]:
    """Yield results in the order of the jobs, one more than there are threads in work at once."""
    waiting: deque[Future[Part[T]]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def plan_walk(pyramid: Pyramid, chunk: tuple[int, int], threads: int, memory_bytes: int) -> Walk:
    """Return the walk that decodes the chunks of a store seldom, within a memory, if the smallest fits.

    A piece is at least twice as wide and high as a chunk where that fits, since those at its rim are decoded for its
    neighbours too; where not even a tile of all bands fits, bands are read group by group.
    """
    spec, bands = pyramid.spec, tuple(range(pyramid.spec.num_bands))
    wanted = max((-(-2 * c // n) - 1).bit_length() for c, n in zip(chunk, pyramid.tile, strict=True))
    for level in reversed(range(min(pyramid.depth, wanted) + 1)):
        walk = Walk(pyramid, level, (bands,), threads)
        is_small = level == 0 or walk.piece_values * spec.dtype.itemsize <= PIECE_BYTES
        if is_small and walk.num_bytes <= memory_bytes:
            return _with_cache(walk, chunk, memory_bytes)
    size = 1 if spec.dims[0] == "band" else len(bands)
    while size < len(bands):
        groups = tuple(bands[i : i + 2 * size] for i in range(0, len(bands), 2 * size))
        if Walk(pyramid, 0, groups, threads).num_bytes > memory_bytes:
            break
        size *= 2
    return Walk(pyramid, 0, tuple(bands[i : i + size] for i in range(0, len(bands), size)), threads)


def _with_cache(walk: Walk, chunk: tuple[int, int], memory_bytes: int) -> Walk:
    """Return a walk with a cache for the chunks around a piece and its neighbours, if there is memory for it."""
    spec = walk.pyramid.spec
    chunk_bytes = math.prod(chunk) * spec.pixel_bytes
    across = max((n << walk.piece_level) // c + 2 for n, c in zip(walk.pyramid.tile, chunk, strict=True))
    cache_bytes = min(4 * across * chunk_bytes, memory_bytes - walk.num_bytes)
    return (
        replace(walk, cache_bytes=cache_bytes)
        if cache_bytes >= (walk.threads + 2) * across * chunk_bytes // 2
        else walk
    )
