"""Expressions computed on blocks, whatever the order of their dims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, StrictStr

from pipeline.kernels.expression import evaluate
from pipeline.model.errors import PipelineError, unknown
from pipeline.model.raster import SOURCE_BAND
from pipeline.model.region import Region
from pipeline.operations.base import Block, Operation, Specs
from pipeline.operations.exact import require_exact
from pipeline.operations.expression.grammar import parse
from pipeline.operations.expression.names import WHOLE, Leaf, Scope, Source, check_key, is_writable
from pipeline.operations.expression.program import Compiled, compile_expression
from pipeline.operations.series import HasBands, are_layers


def check_expression(text: str) -> str:
    """Return the text if it is an expression; ValueError says what is wrong."""
    parse(text)
    return text


def check_keys(inputs: dict[str, str]) -> dict[str, str]:
    for key in inputs:
        check_key(key)
    return inputs


ExpressionText = Annotated[StrictStr, AfterValidator(check_expression)]
Reference = Annotated[StrictStr, Field(min_length=1)]
NamedInputs = Annotated[dict[str, Reference], Field(min_length=1), AfterValidator(check_keys)]


def check_names(field: str, text: str, inputs: Mapping[str, str], plain: bool) -> None:
    """Refuse rasters that the expression does not use and, unless band names stand alone (`plain`), unknown ones."""
    heads = dict.fromkeys(name[0] for name in parse(text).names)
    for key in inputs:
        if key not in heads:
            raise PipelineError(f"{key!r} is not used in `{field}`; leave it out", ("inputs", key))
    for head in heads:
        if not plain and head not in inputs:
            raise PipelineError(unknown("raster", head, inputs), (field,))


def aliases(reference: str | None) -> tuple[str, ...]:
    """Return the names of the input as a whole: `input`, and that of the raster it refers to."""
    name = (reference or "").partition("/")[0]
    return (WHOLE, name) if is_writable(name) else (WHOLE,)


def bind(
    operation: Operation, field: str, text: str, specs: Specs, plain: str | None, whole: tuple[str, ...]
) -> Compiled:
    """Bind an expression to the rasters of a step; PipelineError says what does not fit."""
    sources = tuple(
        (key, Source(spec.bands, spec.dtype, spec.can_be_invalid, source_bands(spec), are_layers(spec)))
        for key, spec in specs.items()
    )
    try:
        compiled = compile_expression(text, Scope(sources, plain, whole), operation.dtype)
    except ValueError as error:
        raise PipelineError(str(error), (field,)) from None
    for leaf in compiled.leaves:
        require_exact(operation, specs[leaf.key], leaf.key)
    return compiled


def bind_blocks(
    operation: Operation, text: str, blocks: Mapping[str, Block], plain: str | None, whole: tuple[str, ...]
) -> Compiled:
    """Bind an expression to blocks as `bind` did to their specs."""
    sources = tuple((key, _source(block)) for key, block in blocks.items())
    return compile_expression(text, Scope(sources, plain, whole), operation.dtype)


def _source(block: Block) -> Source:
    can_be_invalid = block.valid is not None or block.values.dtype.kind == "f"
    return Source(block.bands, block.values.dtype, can_be_invalid, source_bands(block))


def source_bands(raster: HasBands) -> tuple[str, ...]:
    """Return which band of each date the bands of a series are; none of a raster that is no series."""
    return tuple(map(str, dict(raster.band_coordinates).get(SOURCE_BAND, ())))


def is_flat(compiled: Compiled, blocks: Mapping[str, Block], out: Block) -> bool:
    """Return whether bands need not be told apart: all rasters have those of the result, in the same order of dims."""
    if len(out.by_band()) != compiled.num_bands:
        return False
    if compiled.num_bands > 1 and any(leaf.band is not None or leaf.series for leaf in compiled.leaves):
        return False
    used = [blocks[leaf.key] for leaf in compiled.leaves]
    return all(len(block.bands) == compiled.num_bands and block.lanes == out.lanes for block in used)


def planes(block: Block, region: Region, flat: bool, array: np.ndarray | None = None) -> np.ndarray:
    """Return `region` of a block (or of `array` of its shape) as (plane, row, column x lane) or (band, row, column)."""
    whole = block.planes(array) if flat else block.by_band(array)
    rows, columns = region.slices(block.origin)
    lanes = block.lanes if flat else 1
    return whole[:, rows, columns.start * lanes : columns.stop * lanes]


def _slice(leaf: Leaf) -> slice | list[int]:
    """Return what picks the bands of a leaf: a slice, which copies nothing, where they lie in even steps."""
    if leaf.band is not None:
        return slice(leaf.band, leaf.band + 1)
    if not leaf.series:
        return slice(None)
    first, step = leaf.series[0], leaf.series[1] - leaf.series[0]
    last = first + step * (len(leaf.series) - 1)
    return slice(first, last + 1, step) if leaf.series == tuple(range(first, last + 1, step)) else list(leaf.series)


def results(
    compiled: Compiled, blocks: Mapping[str, Block], region: Region, flat: bool
) -> Iterator[tuple[int, slice, slice, np.ndarray]]:
    """Yield the result over `region` tile by tile, as `pipeline.kernels.expression.evaluate` does."""
    layers = []
    for leaf in compiled.leaves:
        block = blocks[leaf.key]
        band = slice(None) if flat else _slice(leaf)
        valid = None if block.valid is None else planes(block, region, flat, block.valid)[band]
        layers.append((planes(block, region, flat)[band], valid))
    lanes = blocks[compiled.leaves[0].key].lanes if flat else 1
    num_planes = compiled.num_bands // lanes
    return evaluate(compiled.program, layers, (num_planes, region.height, region.width * lanes))


def check_one_band(operation: Operation, where: str | None, specs: Specs) -> Compiled | None:
    """Return the condition of a step that looks at one band: at that of its input, or at what its condition makes."""
    source = specs["input"]
    if where is None:
        if source.num_bands != 1:
            raise PipelineError(
                f"one band is looked at, and the input has {source.num_bands} ({', '.join(source.bands[:4])}, ...); "
                "pick one with `bands: [1]`, or give a condition with `where`",
                ("bands",),
            )
        return None
    compiled = bind(operation, "where", where, specs, "input", aliases(operation.input))
    if compiled.num_bands != 1:
        raise PipelineError(f"the condition has {compiled.num_bands} bands; name one, as in b1 > 300", ("where",))
    return compiled


def pixels_where(operation: Operation, where: str, blocks: Mapping[str, Block], region: Region) -> np.ndarray:
    """Return (row, column) whether a condition of one band holds, which it does not where an operand is invalid."""
    found = np.zeros(region.shape, bool)
    compiled = bind_blocks(operation, where, blocks, "input", aliases(operation.input))
    for _, rows, columns, condition in results(compiled, blocks, region, False):
        found[rows, columns] = np.abs(condition) > 0
    return found
