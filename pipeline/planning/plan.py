"""What a plan consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.operation import Reduction, Table
from pipeline.passes import PassPlan, Slots, StepPlan
from pipeline.raster import Dims, RasterSpec
from pipeline.region import Grid, Region


@dataclass(frozen=True)
class InputSpec:
    """An input as the planner sees it: its spec, and the rows and columns that are decoded together."""

    name: str
    spec: RasterSpec
    chunk: tuple[int, int]
    format: Literal["zarr", "tiff"] = "zarr"
    path: str = ""
    """For messages."""
    codec: str = ""
    """How a TIFF is compressed: some codecs are kernels of ours, compiled before the run."""


ECONOMIES: tuple[tuple[int, bool], ...] = ((1, True), (1, False), (2, False), (4, False))
"""What the sides of automatic chunks are divided by, and whether shards may be chosen; tried until a block fits."""


@dataclass(frozen=True)
class Settings:
    """Everything else that a plan depends on."""

    memory_bytes: int
    """Of each process."""
    workers: int
    """Blocks that a process computes at once."""
    is_remote: bool = False
    """Whether the result goes to an object store."""
    remote_inputs: frozenset[str] = frozenset()
    """Inputs that lie in one."""
    keep: tuple[str, ...] | None = None
    region: Region | None = None
    chunks: tuple[int, ...] | Literal["auto"] = "auto"
    shards: tuple[int, ...] | Literal["auto", "none"] = "auto"
    codec: str = "fast"
    dims: Dims | Literal["auto"] = "auto"
    halo: Literal["auto", "read", "exchange"] = "auto"
    economy: int | None = None
    """How far automatic chunks and shards give way to the memory, an index into `ECONOMIES`; None: as far as needed."""
    grids: tuple[Grid, ...] | None = None
    """Block grids of a run that is resumed (with its economy); its finished blocks count only on the same grids."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """step -> its table, where that is known: it is then not made again."""
    processes: int = 1
    """Workers of a cluster; they share the blocks, each within its own memory."""


@dataclass(frozen=True)
class StoredArray:
    """A raster that a run writes: how it is stored, and whether it belongs to the result or to the run."""

    raster: str
    spec: RasterSpec
    """Over the whole raster; the stored array spans `region` of it."""
    region: Region
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str
    is_kept: bool

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of what is written whole: a shard, else a chunk."""
        sizes = dict(zip(self.spec.dims, self.shards or self.chunks, strict=True))
        return sizes["y"], sizes["x"]

    @property
    def num_bytes(self) -> int:
        return self.region.num_pixels * self.spec.pixel_bytes

    @property
    def num_chunks(self) -> int:
        return math.prod(-(-n // c) for n, c in zip(self.spec.shape_of(self.region), self.chunks, strict=True))


@dataclass(frozen=True)
class PassCost:
    """What a pass takes, predicted."""

    block_bytes: int
    """Per block in work: buffers, scratch, codec buffers."""
    in_flight: int
    """Blocks in work at once."""
    cache_bytes: int
    peak_bytes: int
    read_bytes: int
    """Decoded bytes, chunks decoded more than once counted each time."""
    source_bytes: int
    """Decoded bytes if each chunk that is needed were decoded once."""
    write_bytes: int
    table_bytes: int
    """Of partial tables at once, beyond which they go to the disk, and of the tables that are read."""
    num_tasks: int
    seconds: float
    """A rough prediction, for comparing plans."""

    @property
    def amplification(self) -> float:
        return self.read_bytes / self.source_bytes if self.source_bytes else 1.0


@dataclass(frozen=True)
class PlannedPass:
    """A pass with how it will be run."""

    plan: PassPlan
    arrays: Mapping[str, StoredArray]
    """What it writes, by raster id."""
    units: Mapping[str, tuple[int, int]]
    """Rows and columns of each stored raster that are decoded and kept as one."""
    slots: Slots
    cost: PassCost
    halo: Literal["read", "exchange"]
    strip: tuple[int, int]
    """Block rows and block columns of a strip (exchange), or (1, blocks) (read)."""


@dataclass(frozen=True)
class Plan:
    """The whole run, frozen before anything runs."""

    passes: tuple[PlannedPass, ...]
    inputs: Mapping[str, InputSpec]
    settings: Settings
    notes: tuple[str, ...]
    """What the user should know: dtypes that were widened, nodata chosen, guesses made."""
    reductions: Mapping[str, StepPlan] = field(default_factory=dict)
    """The steps that make tables."""

    @property
    def arrays(self) -> list[StoredArray]:
        """All that is written, for the result and for the run alone."""
        return [array for planned in self.passes for array in planned.arrays.values()]

    @property
    def kept(self) -> dict[str, StoredArray]:
        return {array.raster: array for array in self.arrays if array.is_kept}

    @property
    def peak_bytes(self) -> int:
        return max((p.cost.peak_bytes for p in self.passes), default=0)

    def first_tables(self) -> dict[str, Table]:
        """Return the tables that are known, and of the others the states before their first sweeps."""
        tables = dict(self.settings.tables)
        for name, step in self.reductions.items():
            if name not in tables:
                assert isinstance(step.operation, Reduction)
                tables[name] = step.operation.start(step.sources)
        return tables

    @property
    def num_blocks(self) -> int:
        return sum(len(p.plan.grid) for p in self.passes)


def format_bytes(count: float, *, up: bool = False) -> str:
    """Return bytes in the unit a person would choose.

    Examples
    --------
    >>> format_bytes(3 * 2**30), format_bytes(1536), format_bytes(2**20 + 1, up=True)
    ('3.0 GiB', '1.5 KiB', '1.1 MiB')
    """
    unit, size = next(
        ((u, s) for u, s in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)) if count >= s),
        ("bytes", 1),
    )
    if unit == "bytes":
        return f"{int(count)} bytes"
    tenths = math.ceil(count / size * 10) if up else round(count / size * 10)
    return f"{tenths / 10:.1f} {unit}"
