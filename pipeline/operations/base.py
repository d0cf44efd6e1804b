"""The contract between an operation and the engine, and the registry of operations.

An operation is one frozen class in one file of `pipeline/operations`; its fields are its parameters in the
pipeline file. It is told what its sources are (specs) and says what its outputs are; it is handed blocks with
their halo and fills the part without it. It opens no file, knows no dask, and never sees the raster's edge:
there the engine has filled the halo by the operation's own edge rule.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from pipeline.model.raster import (
    BandCoordinates,
    BandKey,
    Dims,
    DTypeName,
    Number,
    RasterSpec,
    array_slices,
    working_dtype,
)
from pipeline.model.region import Halo, Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations.fields import _refuse_none

Domain = Literal["float", "native"]
EdgeRule = Literal["reflect", "nearest", "mirror", "constant", "wrap", "linear", "quadratic", "invalid"]
Boundary = Literal["reflect", "nearest", "mirror", "constant", "wrap", "shrink"]


class Specs(dict[str, RasterSpec]):
    """What an operation reads: the rasters by source key (only the bands asked for), and the tables."""

    def __init__(self, rasters: Mapping[str, RasterSpec], tables: Mapping[str, TableSpec] | None = None) -> None:
        super().__init__(rasters)
        self.tables: Mapping[str, TableSpec] = tables or {}


@dataclass(frozen=True, slots=True)
class Edge:
    """How the halo is filled beyond the raster: a rule, and the value for ``constant``.

    ``linear`` and ``quadratic`` continue the line or the parabola through the 2 or 3 outermost pixels (floating
    point only). A quadratic edge needs a halo of 2 or more, which holds these three pixels in every block.
    """

    rule: EdgeRule = "reflect"
    cval: Number = 0


_NOWHERE = Region(0, 0, 0, 0)


@dataclass(slots=True)
class Block:
    """Pixels of one raster around a region.

    `values` is C-contiguous in the raster's dims; its first pixel is raster row and column `origin`. An invalid
    pixel is NaN in floating-point values; in integer values it is False in `valid` (None: all are valid). In a
    block that an operation fills, an invalid integer pixel is written as `fill`. `raster` is the whole raster's
    region: an operation of two stages fills the edges of its own intermediate by it; of a block that is swept it is the
    region that tables are made of. `bands` are the names of a
    source's bands, `band_coordinates` what else is known of them (`RasterSpec.band_coordinates`).
    """

    values: np.ndarray
    origin: tuple[int, int]
    dims: Dims
    valid: np.ndarray | None = None
    fill: Number | None = None
    raster: Region = _NOWHERE
    bands: tuple[str, ...] = ()
    band_coordinates: BandCoordinates = ()

    @property
    def region(self) -> Region:
        sizes = dict(zip(self.dims, self.values.shape, strict=True))
        row, column = self.origin
        return Region(row, row + sizes["y"], column, column + sizes["x"])

    @property
    def lanes(self) -> int:
        """Neighbouring elements that belong to one pixel: the bands of ``y, x, band``, else 1."""
        return self.values.shape[-1] if self.dims[-1] == "band" else 1

    def part(self, region: Region, array: np.ndarray | None = None) -> np.ndarray:
        """Return the values (or `array` of their shape) over a region, in the raster's dims, without a copy."""
        array = self.values if array is None else array
        return array[array_slices(self.dims, region, self.origin)]

    def planes(self, array: np.ndarray | None = None) -> np.ndarray:
        """Return the values (or `array` of their shape) as (plane, row, column x lane), without a copy.

        Both band orders look alike to a kernel: bands are planes when they come first and lanes when last.
        """
        array = self.values if array is None else array
        if self.dims[-1] == "band":
            height, width, lanes = array.shape
            return array.reshape(1, height, width * lanes)
        return array.reshape((-1, *array.shape[-2:]))

    def by_band(self, array: np.ndarray | None = None) -> np.ndarray:
        """Return the values (or `array` of their shape) as (band, row, column), a view in any band order."""
        array = self.values if array is None else array
        if self.dims[-1] == "band":
            return np.moveaxis(array, -1, 0)
        return array.reshape((-1, *array.shape[-2:]))


class Parameters(BaseModel):
    """The parameters that every step takes; the engine answers to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    name: str = Field(default="", description="Name of the step; later steps and `keep` refer to it.")
    input: str | None = Field(
        default=None, description="An input, a step with one raster output, or step/output. Default: the step before."
    )
    bands: Annotated[tuple[BandKey, ...], Field(min_length=1)] | None = Field(
        default=None, description="Bands of the input to use: positions from 1, or names. Default: all."
    )
    dtype: DTypeName | None = Field(
        default=None, description="dtype of the outputs; integers are rounded half to even and saturate."
    )
    nodata: Annotated[Number | None, BeforeValidator(_refuse_none)] = Field(
        default=None, description="Value that marks invalid pixels in the outputs, also where none is invalid yet."
    )
    allow_inexact: StrictBool = Field(
        default=False, description="Allow 64-bit integers to be rounded to floating point."
    )

    def working_dtype(self, source: np.dtype) -> np.dtype:
        """Return the dtype in which results from pixels of this dtype are computed.

        float64 also where the step's own `dtype` has values that float32 does not hold.
        """
        return working_dtype(source) if self.dtype is None else working_dtype(source, np.dtype(self.dtype))

    def source_path(self, key: str) -> tuple[str, ...]:
        """Return where the step says what the source of this key is: for messages."""
        inputs = getattr(self, "inputs", None) or {}
        return ("inputs", key) if key in inputs else (key,)


class Operation(Parameters):
    """Base of all operations: what the engine asks of each; what it asks of some stands in `operations.traits`."""

    domain: ClassVar[Domain] = "float"
    """"float": values come in the working dtype, invalid ones as NaN; "native": values as stored, and `valid`."""
    version: ClassVar[int] = 1
    """Counted up when the results change, so that `--resume` notices."""
    example: ClassVar[str] = ""
    """One line of YAML, shown by `rasterpipe ops`."""
    outputs_text: ClassVar[Mapping[str, str]] = {}
    """What each output is, with its dtype; shown by `rasterpipe ops`."""
    not_averaged: ClassVar[frozenset[str]] = frozenset()
    """Outputs whose values have no mean, as indices or angles: overviews take pixels of them as they are."""
    never_nodata: ClassVar[frozenset[str]] = frozenset()
    """Outputs in which no valid pixel can have the value of the nodata that the operation chooses."""

    def sources(self) -> dict[str, str | None]:
        """Return the references of the rasters this reads, by key; None is the default input."""
        return {"input": self.input}

    def tables(self) -> dict[str, str]:
        """Return the steps whose tables this reads, by key."""
        return {}

    def halo(self, specs: Specs) -> dict[str, Halo]:
        """Return what a block needs around it, per source.

        Each side counts by itself: what a mirrored edge needs from the other side, the engine adds.
        """
        return dict.fromkeys(specs, Halo())

    def edges(self, specs: Specs) -> dict[str, Edge]:
        """Return how the halo is filled beyond the raster, per source."""
        return dict.fromkeys(specs, Edge())

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        """Return the specs of the outputs, as this computes them; raise PipelineError where it cannot."""
        raise NotImplementedError(f"{type(self).__name__}.output_specs")

    def limits(self, specs: Specs) -> dict[str, float]:
        """Return bounds of the absolute values that are computed, by output, where those of the sources have some.

        By them, results that float64 rounds are refused where 64-bit integers are asked for.
        """
        return {}

    def notes(self, specs: Specs) -> Iterator[str]:
        """Yield what the user should know before the run."""
        return iter(())

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        """Return the bytes that `apply` allocates at most for a block of this shape, beside what it is handed."""
        return 0

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        """Compute the outputs that `out` holds over `region`; the blocks hold `region` with its halo, maybe more."""
        raise NotImplementedError(f"{type(self).__name__}.apply")


class Reduction(Operation):
    """An operation that makes a table of the whole region, in one or more sweeps over the blocks.

    A sweep makes a partial table of every block (`partial`), merges them (`merge`) and folds the result into the
    state (`fold`); the state after the last sweep is the table. Merging is associative and commutative to the bit,
    so that the table does not depend on the blocks or on their order. A reduction may also make rasters of its
    table, in a later pass: `apply` finds it among the tables as ``self``.
    """

    row_key: ClassVar[str | None] = None
    """The column by whose values the rows of a partial table are sorted, where each row stands for itself:
    partial tables too large for the memory are then merged, and the table made, range by range."""
    painted_from: ClassVar[frozenset[str] | None] = None
    """Keys of the sources that `apply` reads besides the table; None: all. Those that only sweeps read are then
    neither read nor computed again where the table is painted."""

    def table_spec(self, specs: Specs) -> TableSpec:
        """Return what the table will be."""
        raise NotImplementedError(f"{type(self).__name__}.table_spec")

    def num_sweeps(self, specs: Specs) -> int:
        return 1

    def sweep_halo(self, specs: Specs) -> dict[str, Halo]:
        """Return what `partial` reads around a region, per source; it never lies outside `Block.raster`."""
        return {}

    def start(self, specs: Specs) -> Table:
        """Return the state before the first sweep; without sweeps, the table."""
        return {}

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        """Return the partial table of a region; the blocks hold the region with its halo, maybe more."""
        raise NotImplementedError(f"{type(self).__name__}.partial")

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        raise NotImplementedError(f"{type(self).__name__}.merge")

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        """Return the state after a sweep."""
        raise NotImplementedError(f"{type(self).__name__}.fold")

    def fold_stored(self, partials: Sequence[Table], state: Table, sweep: int, limit_bytes: int) -> Table:
        """Return the state after a sweep whose partial tables lie on the disk; `limit_bytes` is what merging may take.

        One after the other: where rows do not stand for themselves, all tables together may not fit.
        """
        loaded: Iterator[Table] = ({name: np.array(table[name]) for name in table} for table in partials)
        return self.fold(functools.reduce(lambda a, b: self.merge(a, b, sweep), loaded), state, sweep)

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        """Return the bytes of a partial table of so many pixels, whatever these are."""
        raise NotImplementedError(f"{type(self).__name__}.partial_bytes")

    def most_bytes(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> int:
        """Return a bound of the bytes of the partial table of a region, cheaply: too large a region is divided."""
        return 0

    def table_notes(self, table: Table) -> Iterator[str]:
        """Yield what the user should know of the finished table."""
        return iter(())

    def merged_bytes(self, tables: Sequence[Table]) -> int:
        """Return a bound of the bytes of the merge of partial tables."""
        return sum(column.nbytes for table in tables for column in table.values())

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        return {}
