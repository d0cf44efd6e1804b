"""From an expression and the rasters that its names mean to a program of instructions on registers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.kernels.expression import Argument, Instruction, Program
from pipeline.model.raster import OVERLAPPING, DTypeName, largest, working_dtype
from pipeline.operations.expression.grammar import CONDITIONS, Expression, Node, parse
from pipeline.operations.expression.names import Leaf, Scope

WHOLE = frozenset(
    {"add", "subtract", "multiply", "power", "negative", "absolute", "minimum", "maximum", "where", "coalesce"}
)
"""What makes whole numbers of whole numbers, however large (a power may not, but then is small)."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program and what it loads."""

    program: Program
    leaves: tuple[Leaf, ...]
    """The sources of its `load` instructions, by number."""
    num_bands: int
    """Bands of the result: those of the rasters taken as a whole, else 1."""
    wide: Leaf | None
    """The first raster taken as a whole that has them, or the band of all dates."""
    can_be_invalid: bool
    limit: float
    """A bound on the absolute value of the result; infinite where nothing is known."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a value beforehand: whether it can be NaN, a bound on its absolute value."""

    can_be_nan: bool
    limit: float = math.inf
    is_whole: bool = False
    """Whether it is a whole number, made of whole numbers."""


@lru_cache(maxsize=256)
def compile_expression(text: str, scope: Scope, declared: DTypeName | None = None) -> Compiled:
    """Bind an expression to rasters.

    It is computed in one dtype, the working dtype of the rasters that it uses and of the dtype that the step
    declares; so differences of unsigned integers do not wrap.

    Raises
    ------
    ValueError
        Where a name means nothing, band counts do not fit, or a number does not fit the dtype.
    """
    expression = parse(text)
    found = {name: scope.find(name) for name in expression.names}
    leaves = tuple(dict.fromkeys(found.values()))
    wanted = [] if declared is None else [np.dtype(declared)]
    dtype = working_dtype(*(scope.source(leaf.key).dtype for leaf in leaves), *wanted)
    num_bands, wide = _bands(leaves, scope)
    numbers = {index: _to_dtype(expression.nodes[index].number, dtype) for index in _numbers(expression)}
    facts = _facts(expression, found, scope, dtype)
    loads = {name: leaves.index(leaf) for name, leaf in found.items()}
    program = _Writer(expression, dtype, numbers, facts, loads).write()
    root = facts[expression.root]
    limit = sys.float_info.max if root.is_whole and root.limit == math.inf else root.limit
    return Compiled(program, leaves, num_bands, wide, root.can_be_nan, limit)


def _bands(leaves: Iterable[Leaf], scope: Scope) -> tuple[int, Leaf | None]:
    counts = {leaf: len(leaf.series or scope.source(leaf.key).bands) for leaf in leaves if leaf.band is None}
    wide = {leaf: count for leaf, count in counts.items() if count > 1}
    layered = [leaf.key for leaf in wide if scope.source(leaf.key).are_layers]
    if layered and len(layered) < len(wide):
        raise ValueError(f"band counts do not fit: {OVERLAPPING.format(layered[0])}")
    if len(set(wide.values())) > 1:
        names = {
            leaf: scope.source(leaf.key).source_bands[leaf.series[0]] if leaf.series else leaf.key for leaf in wide
        }
        listed = ", ".join(f"{names[leaf]} has {count}" for leaf, count in wide.items())
        raise ValueError(f"band counts do not fit: {listed}; take one band (raster.b1), or select as many of each")
    return next(((count, leaf) for leaf, count in wide.items()), (1, next(iter(counts), None)))


def _is_number(node: Node) -> bool:
    return node.op == "number"


def _numbers(expression: Expression) -> set[int]:
    """Return the numbers that meet pixels; others went into them while the text was read."""
    used = {arg for node in expression.nodes for arg in node.args}
    return {index for index in used if _is_number(expression.nodes[index])}


def _to_dtype(value: float, dtype: np.dtype) -> np.floating:
    with np.errstate(over="ignore", under="ignore"):
        number: np.floating = dtype.type(value)
    if not np.isfinite(number) or (number == 0) != (value == 0):
        raise ValueError(f"{value:g} does not fit {dtype.name}, in which this is computed; say `dtype: float64`")
    return number


# --- what is known beforehand ----------------------------------------------------------------------------------


def _facts(
    expression: Expression, found: Mapping[tuple[str, ...], Leaf], scope: Scope, dtype: np.dtype
) -> list[_Facts]:
    facts: list[_Facts] = []
    most = float(np.finfo(dtype).max) / 2
    for node in expression.nodes:
        if node.op == "number":
            fact = _Facts(False, abs(node.number), float(node.number).is_integer())
        elif node.op == "name":
            source = scope.source(found[node.name].key)
            fact = _Facts(source.can_be_invalid, largest(source.dtype), source.dtype.kind != "f")
        else:
            last = expression.nodes[node.args[-1]]
            args = [facts[arg] for arg in node.args]
            fact = _derive(node.op, args, last.number if _is_number(last) else None)
            fact = replace(fact, is_whole=node.op in WHOLE and all(arg.is_whole for arg in args))
        facts.append(fact if fact.limit < most else replace(fact, limit=math.inf))
    return facts


def _derive(op: str, args: list[_Facts], number: float | None) -> _Facts:
    """Return what follows for a result, `number` being the last operand if it is one.

    inf - inf and 0 * inf are NaN, so an unbounded operand can make one.
    """
    can_be_nan, limits = any(arg.can_be_nan for arg in args), [arg.limit for arg in args]
    if op == "isvalid":
        return _Facts(False, 1)
    if op in CONDITIONS:
        return _Facts(can_be_nan, 1)
    if op in ("add", "subtract"):
        return _Facts(can_be_nan or min(limits) == math.inf, sum(limits))
    if op == "multiply":
        return _Facts(can_be_nan or math.inf in limits, limits[0] * limits[1] if math.inf not in limits else math.inf)
    if op == "divide" and number:
        return _Facts(can_be_nan, limits[0] / abs(number))
    if op == "power" and number is not None and number >= 0 and number.is_integer():
        return _Facts(can_be_nan, limits[0] ** number if number * math.log2(limits[0] + 1) < 1000 else math.inf)
    if op in ("negative", "absolute", "floor", "ceil", "rint"):
        return _Facts(can_be_nan, limits[0] + 1)
    if op in ("minimum", "maximum"):
        return _Facts(can_be_nan, max(limits))
    if op == "where":
        return _Facts(can_be_nan, max(limits[1:]))
    if op == "coalesce":
        return _Facts(all(arg.can_be_nan for arg in args), max(limits))
    if op in ("exp", "arctan", "arctan2"):
        return _Facts(can_be_nan)
    return _Facts(True)


# --- instructions ----------------------------------------------------------------------------------------------


class _Writer:
    """Writes instructions; a register is free again after the last use of what it holds."""

    def __init__(
        self,
        expression: Expression,
        dtype: np.dtype,
        numbers: Mapping[int, np.floating],
        facts: list[_Facts],
        loads: Mapping[tuple[str, ...], int],
    ) -> None:
        self.expression, self.dtype, self.numbers, self.facts, self.loads = expression, dtype, numbers, facts, loads
        self.last_use = {arg: index for index, node in enumerate(expression.nodes) for arg in node.args}
        self.registers: dict[int, int] = {}
        self.free: list[int] = []
        self.num_registers = 0

    def write(self) -> Program:
        instructions = [
            self.instruction(index, node) for index, node in enumerate(self.expression.nodes) if not _is_number(node)
        ]
        result = self.registers[self.expression.root]
        return Program(self.dtype, tuple(instructions), self.num_registers, result)

    def instruction(self, index: int, node: Node) -> Instruction:
        if node.op == "name":
            return Instruction("load", (self.loads[node.name],), self.take(index))
        args = tuple(self.argument(arg) for arg in node.args)
        out = self.take(index)  # before the arguments' registers are free: never one of them
        for arg in set(node.args):
            if arg in self.registers and self.last_use[arg] == index:
                self.free.append(self.registers[arg])
        return Instruction(node.op, args, out, tuple(self.facts[arg].can_be_nan for arg in node.args))

    def argument(self, arg: int) -> Argument:
        return self.numbers[arg] if arg in self.numbers else self.registers[arg]

    def take(self, index: int) -> int:
        if self.free:
            self.registers[index] = self.free.pop()
        else:
            self.registers[index] = self.num_registers
            self.num_registers += 1
        return self.registers[index]
