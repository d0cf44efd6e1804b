"""Arithmetic on tiles of pixels: a program of ufuncs over a few registers that stay in the cache.

A register is one flat array of whole grains. An element's result depends on nothing but its operands: every loop runs
over whole grains of contiguous elements, so none is ever computed by the remainder of a vector loop, whose `exp` or
`pow` may round differently from the loop's main part.

NaN is an invalid pixel. It stays one through everything but `isvalid`, `coalesce` and the branch that `where` does not
take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TILE_ELEMENTS = 32_768
"""Elements of a register: large enough that calls cost little, small enough that some registers share a cache."""
GRAIN = 1_024
"""Every loop runs over a multiple of this many elements, what lies beyond the tile's end included."""

Argument = int | np.floating
"""A register, or a number."""
Layer = tuple[np.ndarray, np.ndarray | None]
"""A source as (plane, row, column), and where it is valid (None: everywhere, NaN apart); one plane serves all."""

PLAIN: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(np, name)
        for name in ("add", "subtract", "multiply", "negative", "absolute", "minimum", "maximum")
    },
    **{name: getattr(np, name) for name in ("floor", "ceil", "rint", "sqrt", "exp", "sin", "cos", "tan")},
    **{name: getattr(np, name) for name in ("arcsin", "arccos", "arctan", "arctan2")},
    "and": np.multiply,  # conditions are 1 and 0
    "or": np.maximum,
    "not": lambda condition, out: np.subtract(1, condition, out=out),
}
"""What numpy computes as it is wanted here: NaN for an invalid operand and outside of the domain."""
QUOTIENTS: dict[str, Callable[..., Any]] = {name: getattr(np, name) for name in ("divide", "floor_divide", "remainder")}
LOGARITHMS: dict[str, Callable[..., Any]] = {name: getattr(np, name) for name in ("log", "log2", "log10")}
COMPARISONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation on registers; `load` brings the source with the number `args[0]`."""

    op: str
    args: tuple[Argument, ...]
    out: int
    """Never one of the arguments."""
    unsure: tuple[bool, ...] = ()
    """For each argument, whether it can hold NaN."""


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions in order, over `num_registers` registers of a floating-point dtype."""

    dtype: np.dtype
    instructions: tuple[Instruction, ...]
    num_registers: int
    result: int
    """The register that holds the result at the end."""

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the registers and of the flags beside them."""
        return TILE_ELEMENTS * (self.num_registers * self.dtype.itemsize + 2)


def evaluate(
    program: Program, layers: Sequence[Layer], shape: tuple[int, int, int]
) -> Iterator[tuple[int, slice, slice, np.ndarray]]:
    """Yield the result tile by tile: plane, rows, columns, and the values (row, column), which hold until the next.

    Parameters
    ----------
    layers
        The sources that the program loads, by number; of any dtype, of any strides.
    shape
        Planes, rows and columns of the result.
    """
    num_planes, height, width = shape
    registers = np.ones((program.num_registers, TILE_ELEMENTS), program.dtype)
    flags = np.empty((2, TILE_ELEMENTS), bool)
    for rows, columns in tiles(height, width):
        for plane in range(num_planes):
            parts = [
                (_part(values, plane, rows, columns), _part(valid, plane, rows, columns)) for values, valid in layers
            ]
            yield plane, rows, columns, _run(program, parts, (rows, columns), registers, flags)


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Cut a plane into whole rows of at most `TILE_ELEMENTS` elements together, or a wider row into pieces.

    Examples
    --------
    >>> [(rows.stop - rows.start, columns.stop) for rows, columns in tiles(40, 1000)]
    [(32, 1000), (8, 1000)]
    """
    num_rows, num_columns = max(1, TILE_ELEMENTS // width), min(width, TILE_ELEMENTS)
    for top in range(0, height, num_rows):
        for left in range(0, width, num_columns):
            yield slice(top, min(top + num_rows, height)), slice(left, min(left + num_columns, width))


def _part(planes: np.ndarray | None, plane: int, rows: slice, columns: slice) -> Any:
    return None if planes is None else planes[plane if len(planes) > 1 else 0, rows, columns]


def _run(
    program: Program,
    parts: Sequence[tuple[np.ndarray, np.ndarray | None]],
    tile: tuple[slice, slice],
    registers: np.ndarray,
    flags: np.ndarray,
) -> np.ndarray:
    height, width = (side.stop - side.start for side in tile)
    count = height * width
    whole = -(-count // GRAIN) * GRAIN
    registers, flags = registers[:, :whole], flags[:, :whole]
    with np.errstate(all="ignore"):
        for instruction in program.instructions:
            out = registers[instruction.out]
            if instruction.op == "load":
                values, valid = parts[int(instruction.args[0])]
                _load(values, valid, out[:count].reshape(height, width), flags[0, :count].reshape(height, width))
            else:
                args = [registers[arg] if isinstance(arg, int) else arg for arg in instruction.args]
                compute(instruction.op, args, instruction.unsure, out, flags)
    result: np.ndarray = registers[program.result, :count].reshape(height, width)
    return result


def _load(values: np.ndarray, valid: np.ndarray | None, out: np.ndarray, flag: np.ndarray) -> None:
    np.copyto(out, values, casting="unsafe")
    if valid is not None:
        np.logical_not(valid, out=flag)
        np.copyto(out, np.nan, where=flag)


def compute(op: str, args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flags: np.ndarray) -> None:
    """Compute one operation; `out` is none of the arguments, `flags` two arrays of booleans of its length."""
    if op in PLAIN:
        PLAIN[op](*args, out=out)
    elif op in QUOTIENTS:
        QUOTIENTS[op](*args, out=out)
        _mark(out, np.equal(args[1], 0, out=flags[0]))
    elif op in LOGARITHMS:
        LOGARITHMS[op](*args, out=out)
        _mark(out, np.equal(args[0], 0, out=flags[0]))
    elif op in COMPARISONS:
        np.copyto(out, COMPARISONS[op](*args, out=flags[0]))
        _mark_unsure(args, unsure, out, flags[0])
    else:
        _OTHERS[op](args, unsure, out, flags)


def _power(args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flags: np.ndarray) -> None:
    np.power(args[0], args[1], out=out)
    np.equal(args[0], 0, out=flags[0])
    flags[0] &= np.less(args[1], 0, out=flags[1])  # 1 / 0
    _mark(out, flags[0])
    _mark_unsure(args, unsure, out, flags[0])  # for IEEE, NaN ** 0 and 1 ** NaN are 1


def _where(args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flags: np.ndarray) -> None:
    condition, then, otherwise = args
    np.copyto(out, otherwise)
    np.copyto(out, then, where=np.not_equal(condition, 0, out=flags[0]))
    _mark_unsure(args[:1], unsure[:1], out, flags[0])


def _coalesce(args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flags: np.ndarray) -> None:
    np.copyto(out, args[0])
    np.copyto(out, args[1], where=np.isnan(args[0], out=flags[0]))


def _isvalid(args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flags: np.ndarray) -> None:
    np.isnan(args[0], out=flags[0])
    np.copyto(out, np.logical_not(flags[0], out=flags[0]))


def _mark(out: np.ndarray, flag: np.ndarray) -> None:
    np.copyto(out, np.nan, where=flag)


def _mark_unsure(args: Sequence[Any], unsure: Sequence[bool], out: np.ndarray, flag: np.ndarray) -> None:
    for arg, can_be_nan in zip(args, unsure, strict=True):
        if can_be_nan:
            _mark(out, np.isnan(arg, out=flag))


_OTHERS: dict[str, Callable[[Sequence[Any], Sequence[bool], np.ndarray, np.ndarray], None]] = {
    "power": _power,
    "where": _where,
    "isvalid": _isvalid,
    "coalesce": _coalesce,
}
