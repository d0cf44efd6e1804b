"""What the engine asks of some operations alone: base classes beside `Operation`, one for each family.

An operation inherits from those that it needs; the engine asks by `isinstance`, here or where it acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.model.region import Region
from pipeline.model.table import Table, TableSpec
from pipeline.model.total import Total
from pipeline.operations.base import Block, Operation, Specs
from pipeline.storage.matrix import read_matrix


class KeepsValues(Operation):
    """The outputs' values are the source's, so that what its file says of them still holds."""


class HasUnits(Operation):
    """Knows in which units some outputs are."""

    def units(self) -> dict[str, str]:
        """Return the units of outputs, `model.raster.SAME` where they are the input's; others' are not known."""
        raise NotImplementedError(f"{type(self).__name__}.units")


class NeedsGrid(Operation):
    """Needs what only the grid of its sources tells: the size of a pixel, say."""

    def placed(self, specs: Specs, notes: list[str]) -> Operation:
        """Return the step with what the grid tells, and add what the user should know: before all else is asked."""
        raise NotImplementedError(f"{type(self).__name__}.placed")


class HasBorder(Operation):
    """Has a rim of the raster that the engine sets to 0 in all outputs, where they are valid."""

    def border(self) -> int:
        """Return how many pixels wide it is."""
        raise NotImplementedError(f"{type(self).__name__}.border")


class ReadsMatrices(Operation):
    """Has fields that may name a file with a matrix; the engine puts the matrix in its place before it plans."""

    matrices: ClassVar[tuple[str, ...]]
    """These fields, of the type `fields.MatrixOrPath`."""

    @staticmethod
    def read_file(path: str) -> Any:
        """Return what such a file holds; raise InputError where it is none."""
        return read_matrix(path)

    def matrix_files(self) -> dict[str, str]:
        """Return the files that fields name instead of a matrix, by field."""
        return {field: path for field in self.matrices if isinstance(path := getattr(self, field), str)}


class WritesTableFiles(Operation):
    """Has fields that name a file to which a table is written besides."""

    def table_files(self) -> dict[str, str]:
        """Return these files, by field."""
        raise NotImplementedError(f"{type(self).__name__}.table_files")


class HasTableBeside(Operation):
    """Has a table that belongs beside the outputs: the `palette` that indices point into."""

    indices: ClassVar[str]
    """The output whose values are places in it."""

    def table_beside(self, tables: Mapping[str, Table], specs: Specs) -> tuple[Table, TableSpec]:
        raise NotImplementedError(f"{type(self).__name__}.table_beside")


class DescribesOutputs(Operation):
    """Knows of its table, once that is finished, what readers of its outputs should know."""

    def attributes(self, table: Table) -> dict[str, Any]:
        """Return attributes of the outputs' arrays in the store, ready for JSON."""
        raise NotImplementedError(f"{type(self).__name__}.attributes")


class IsMeasured(Operation):
    """Returns a total of each block, which it makes facts of: how good a result is."""

    def apply_measured(
        self,
        blocks: Mapping[str, Block],
        tables: Mapping[str, Any],
        out: Mapping[str, Block],
        region: Region,
        own: Region,
    ) -> Total:
        """Compute as `apply`; return a total of the pixels of `own`, the part of `region` that no other block has."""
        raise NotImplementedError(f"{type(self).__name__}.apply_measured")

    def quality(self, total: Total, tables: Mapping[str, Table], specs: Specs) -> dict[str, float | None]:
        """Return what the total of all blocks says of the outputs, for the run's summary and their attributes."""
        raise NotImplementedError(f"{type(self).__name__}.quality")

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        self.apply_measured(blocks, tables, out, region, _NOWHERE)


_NOWHERE = Region(0, 0, 0, 0)


def matrix_files(step: Operation) -> dict[str, str]:
    """Return the files that a step names instead of a matrix, by field."""
    return step.matrix_files() if isinstance(step, ReadsMatrices) else {}


def read_matrix_file(step: Operation, path: str) -> Any:
    """Return what a file holds that a step names instead of a matrix."""
    assert isinstance(step, ReadsMatrices)
    return step.read_file(path)


def table_files(step: Operation) -> dict[str, str]:
    """Return the files that a step's table is written to besides, by field."""
    return step.table_files() if isinstance(step, WritesTableFiles) else {}
