"""What the blocks of a pass will ask of object stores: told by the way through each, without a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.block.buffers import SlotPlanner
from pipeline.block.plan import Pass
from pipeline.block.walk import Actor, walk
from pipeline.execution.worker import cached_reader
from pipeline.model.region import Region
from pipeline.operations.base import Block
from pipeline.planning.plan import Settings
from pipeline.storage.cache import ChunkCache, Key
from pipeline.storage.reader import NO_TRAFFIC, Reader, Traffic
from pipeline.storage.view import Selected

BLOCK_LIMIT = 50_000
"""Of a pass that is gone through: some 0.2 ms each."""


class _Asked(Actor):
    """Notes which regions of a stored raster a block asks for."""

    def __init__(self, raster: str) -> None:
        self.raster, self.regions = raster, list[Region]()

    def fetch(self, raster: str, region: Region, block: Block, periodic: bool) -> None:
        if raster == self.raster:
            self.regions.append(region)


def predict_traffic(planned: Pass, readers: Mapping[str, Reader], settings: Settings) -> Traffic | None:
    """Return what the blocks of a pass ask of object stores while they are read; None where nobody knows before.

    That is where readers do not say; where it is chance who decodes a shared chunk (rims that are exchanged, several
    processes) or how long it is kept (a raster that wraps); and of very many blocks.
    """
    remote = settings.remote_inputs.intersection(planned.stored)
    stored_there = settings.is_remote and any(raster not in readers for raster in planned.stored)
    if not remote and not stored_there:
        return NO_TRAFFIC
    is_chance = planned.halo == "exchange" or settings.processes > 1 or not planned.periodic.isdisjoint(remote)
    if stored_there or is_chance or len(planned.grid) > BLOCK_LIMIT:
        return None
    total = NO_TRAFFIC
    for raster in remote:
        bands = planned.bands.get(raster)
        reader = readers[raster] if bands is None else Selected(readers[raster], bands)
        for region in _regions(planned, raster, reader):
            if (traffic := reader.traffic(region)) is None:
                return None
            total += traffic
    return total


def _regions(planned: Pass, raster: str, reader: Reader) -> Iterator[Region]:
    """Yield what is read of a stored raster, in all blocks: each shared chunk once."""
    cached, known = cached_reader(planned, raster, reader, ChunkCache(0)), set[Key]()
    for number in range(len(planned.grid)):
        asked = _Asked(raster)
        walk(planned, planned.grid.block(number), SlotPlanner(), asked)
        for region in asked.regions:
            for part, key, _ in cached.pieces(region, planned.grid.panel_of(number)):
                if key not in known:
                    yield part
                if key is not None:
                    known.add(key)
