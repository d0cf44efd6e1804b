"""What a pass costs: memory and seconds, predicted from what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.block.plan import Pass, PassCost
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray
from pipeline.planning.plan import Settings
from pipeline.storage.folder.address import RANGE_BYTES, REQUESTS_AT_ONCE

MIB = 2**20


BASE_BYTES = 336 * MIB
"""Python, libraries and compiled kernels (compiled by another process): measured, see docs/design.md."""


EXCHANGE_BASE_BYTES = 96 * MIB
"""dask.array, which only an exchange of halos imports."""


EXCHANGE_COPIES = 5
"""Of a strip: blocks as read, with rims pasted above and below, with rims all around, and what is not yet freed.

Measured for 64 MB on two workers: 3.2 to 4.8.
"""


TABLE_SHARE = 0.125


MAX_TABLE_BYTES = 1024 * MIB
"""What tables may take of the memory at most; what is larger goes to the disk."""


PARTIAL_BYTES = 32 * 2**20
"""What a partial table of a block may have: larger ones are made in parts, so that blocks need not be small."""


PARTIAL_COPIES = 3
"""While a partial table is made or merged: its parts and itself."""


TABLES_AT_ONCE = 8
"""Partial tables that wait to be merged, besides those of the blocks in work."""


DECODE_RATE = 1.7e9


COMPUTE_RATE = 2.5e9


COPY_RATE = 5e9


BLOCK_SECONDS = 2e-3


CALL_SECONDS = 5e-4


EXCHANGE_TASKS = 15


EXCHANGE_SECONDS = 4e-4


EXCHANGE_RATE = 1.7e8
"""Bytes a second and worker: what is exchanged is copied several times, always into fresh memory.

Measured: 5.5 s more for 1.6 GB on two workers than where halos are read with the blocks (`python -m benchmarks.halo`).
"""


WAITING = 1.1
"""What blocks that wait for I/O cost when no other block is in work meanwhile."""


REMOTE_BYTES = 64 * 2**20
"""What the libraries of object stores take, and what is on its way."""


def remote_bytes(settings: Settings) -> int:
    return REMOTE_BYTES if settings.is_remote or settings.remote_inputs else 0


@dataclass(frozen=True)
class Traffic:
    """What goes through a pass, by the way in which its blocks come by their halos."""

    shared_bytes: int
    """Of the cache, or of a strip whose blocks exchange their rims."""
    read_bytes: int
    """Decoded, chunks that are decoded more than once counted each time."""
    source_bytes: int
    """Decoded if each chunk were decoded once."""
    num_tasks: int
    seconds: float
    """Beside decoding, copying and computing."""
    in_flight: int
    """Blocks in work at once."""


@dataclass(frozen=True)
class CostModel:
    """Predicts what a pass takes, whatever its blocks."""

    arrays: Mapping[str, StoredArray]
    """What it writes."""
    units: Mapping[str, tuple[int, int]]
    """Rows and columns of each stored raster that are decoded as one."""
    decoded_bytes: Mapping[str, int]
    """Of a pixel of the stored rasters with all bands that are decoded at once, also where only some are read."""
    settings: Settings
    region: Region

    def of(self, plan: Pass, traffic: Traffic) -> PassCost:
        """Return what a pass takes with these blocks and buffers."""
        workers = min(self.settings.workers * self.settings.processes, len(plan.grid))
        written = sum(array.num_bytes for array in self.arrays.values())
        height, width = plan.grid.largest
        grown = max(
            ((height + h.top + h.bottom) * (width + h.left + h.right) / (height * width)) for h in plan.halos.values()
        )
        read, source = traffic.read_bytes, traffic.source_bytes
        busy = read / DECODE_RATE + read / COPY_RATE + (source + written) * grown / COMPUTE_RATE
        busy *= WAITING if 1 < traffic.in_flight <= self.settings.workers else 1
        rounds = -(-len(plan.grid) // workers)
        idle = rounds * workers / len(plan.grid)
        total = (busy * idle + len(plan.grid) * BLOCK_SECONDS) / workers + traffic.seconds
        tables, block = self.table_bytes(plan), self.block_bytes(plan)
        base = BASE_BYTES + remote_bytes(self.settings) + self.settings.library_bytes
        peak = base + traffic.in_flight * block + traffic.shared_bytes + tables
        return PassCost(
            block,
            traffic.in_flight,
            traffic.shared_bytes,
            peak,
            read,
            source,
            written,
            tables,
            traffic.num_tasks,
            total,
        )

    def block_bytes(self, plan: Pass) -> int:
        """Return what a block in work holds: buffers, scratch of the operations, buffers of codecs."""
        return plan.slots.num_bytes + self.scratch_bytes(plan, plan.grid.largest) + self.codec_bytes(plan)

    def table_bytes(self, plan: Pass) -> int:
        """Return what partial tables that wait to be merged, and tables that are read, may hold in memory."""
        share = min(MAX_TABLE_BYTES, int(self.settings.memory_bytes * TABLE_SHARE))
        read = [spec.num_bytes for step in plan.steps for spec in step.table_specs.values()]
        swept = [
            TABLES_AT_ONCE * sweep.reduction.partial_bytes(sweep.step.sources, self.region.num_pixels)
            for sweep in plan.sweeps
        ]
        return sum(min(share, share if size is None else size) for size in (*read, *swept))

    def scratch_bytes(self, plan: Pass, shape: tuple[int, int]) -> int:
        needs = plan.needs(Region(0, shape[0], 0, shape[1]), everywhere=True)
        scratch = [step.operation.scratch_bytes(step.sources, needs.compute[step.name].shape) for step in plan.steps]
        return max(scratch, default=0) + self.partial_bytes(plan, shape[0] * shape[1])

    def partial_bytes(self, plan: Pass, num_pixels: int) -> int:
        """Return what the partial tables of a block hold; larger ones are made in parts, but no pixel is divided."""
        limit, total = min(self.table_bytes(plan) // TABLES_AT_ONCE, PARTIAL_BYTES), 0
        for sweep in plan.sweeps:
            whole, least = (sweep.reduction.partial_bytes(sweep.step.sources, num) for num in (num_pixels, 1))
            total += PARTIAL_COPIES * max(least, min(limit, whole))
        return total

    def codec_bytes(self, plan: Pass) -> int:
        """Return what encoding or decoding holds beside the block: a chunk as it is, encoded, and as read of it."""
        is_remote = not self.settings.remote_inputs.isdisjoint(plan.stored)
        copies = 2 + (self.settings.is_remote or is_remote)
        read = [
            (copies + (raster in plan.bands)) * math.prod(self.units[raster]) * self.decoded_bytes[raster]
            + self.settings.decoder_bytes.get(raster, 0)
            for raster in plan.stored
        ]
        written = [self.encoding_bytes(array, plan.grid.largest) for array in self.arrays.values()]
        return max(read + written, default=0) + (REQUESTS_AT_ONCE * RANGE_BYTES if is_remote else 0)

    def encoding_bytes(self, array: StoredArray, block: tuple[int, int]) -> int:
        """Return what writing a block of an array holds: a chunk or shard as it is, and encoded.

        To an object store, several go at once, each as it is sent besides.
        """
        sizes = array.shards or array.chunks
        num_bytes = math.prod(sizes) * array.spec.dtype.itemsize
        if not self.settings.is_remote:
            return 2 * num_bytes
        count = math.prod(
            -(-n // size) for n, size in zip(array.spec.shape_of(Region(0, block[0], 0, block[1])), sizes, strict=True)
        )
        return 3 * min(REQUESTS_AT_ONCE, count) * num_bytes
