"""What a plan consists of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pipeline.block.plan import Pass, StepPlan
from pipeline.model.errors import PipelineError
from pipeline.model.raster import Dims, RasterSpec
from pipeline.model.region import Grid, Region
from pipeline.model.stored import StoredArray
from pipeline.model.table import Table
from pipeline.operations.base import Reduction
from pipeline.operations.registry import owner_of


@dataclass(frozen=True)
class InputSpec:
    """An input as the planner sees it: its spec, and the rows and columns that are decoded together."""

    name: str
    spec: RasterSpec
    chunk: tuple[int, int]
    format: Literal["zarr", "tiff"] = "zarr"
    path: str = ""
    """For messages."""
    chunk_bands: int | None = None
    """Bands that are decoded together; None: all."""
    compile_decoder: Callable[[], None] | None = None
    """What compiles the kernels that decode it, where there are such; it pickles."""


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
    library_bytes: int = 0
    """What the libraries take of a process by which inputs are read."""
    decoder_bytes: Mapping[str, int] = field(default_factory=dict)
    """Input -> what such a library holds to decode a chunk, for each block in work."""
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
class Plan:
    """The whole run, frozen before anything runs."""

    passes: tuple[Pass, ...]
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
    def steps(self) -> dict[str, StepPlan]:
        """The steps that are computed, by name."""
        return {step.name: step for planned in self.passes for step in planned.steps}

    @cached_property
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
        return sum(len(p.grid) for p in self.passes)

    @property
    def distributions(self) -> list[str]:
        """The other packages whose operations compute here."""
        steps = [*self.reductions.values(), *(step for planned in self.passes for step in planned.steps)]
        owners = (owner_of(type(step.operation)) for step in steps)
        return sorted({owner.name for owner in owners if owner and owner.version})


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


MEMORY_SHARE = 0.6
"""Of a worker's limit: from there on dask begins to move data to the disk."""


ROUNDING = 1e-3
"""Of a limit: dask rounds what it was told, and `2 GiB` of a file is meant to be the 2 GiB of a worker."""


@dataclass(frozen=True)
class Capacity:
    """What the workers of a cluster have, as a plan must know it."""

    limit_bytes: int
    """Of the smallest worker."""
    threads: int
    """Of the worker with most."""
    processes: int

    @property
    def memory_bytes(self) -> int:
        """What each worker may use where nothing else is said."""
        return int(MEMORY_SHARE * self.limit_bytes)

    def grant(self, wanted: int | None) -> int:
        """Return what each worker may use; more than the smallest has is refused: it would be killed there."""
        if wanted is None:
            return self.memory_bytes
        if wanted > self.limit_bytes * (1 + ROUNDING):
            raise PipelineError(
                f"{format_bytes(wanted, up=True)} is more than the smallest worker has "
                f"({format_bytes(self.limit_bytes)}); on a cluster this is what each worker may use: give "
                f"`--memory` with that or less, or leave run.memory out for {format_bytes(self.memory_bytes)}",
                ("run", "memory"),
            )
        return min(wanted, self.limit_bytes)


UNKNOWN = Capacity(2**50, 1, 1)
"""Before the workers are there."""
