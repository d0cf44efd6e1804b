"""The expression language of `calc` and `mask`: text in, a graph of nodes out.

The text is parsed by Python's own parser and never run: the syntax tree is walked here, and everything that is not
on the lists of this module is refused. Numbers become floating point at once, and parts without names are computed
while the text is read, in float64.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.kernels.expression import COMPARISONS, compute
from pipeline.kernels.selection_network import selection_network
from pipeline.model.errors import unknown
from pipeline.operations.expression.syntax import BINARY, COMPARE, FOREIGN, is_condition, short, syntax_tree

DEEPEST = 100
"""Nested parts."""
MOST_NODES = 2_000

CONSTANTS = {"pi": float(np.pi)}
FUNCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("abs", "sqrt", "exp", "log", "log10", "log2", "floor", "ceil", "round", "isvalid"), (1, 1)),
    **dict.fromkeys(("sin", "cos", "tan", "arcsin", "arccos", "arctan"), (1, 1)),
    "arctan2": (2, 2),
    **dict.fromkeys(("min", "max"), (2, None)),
    **dict.fromkeys(("mean", "median", "coalesce"), (1, None)),
    **dict.fromkeys(("where", "clip"), (3, 3)),
}
"""Name -> the fewest and the most arguments."""
CONDITIONS = frozenset({*COMPARISONS, "and", "or", "not", "isvalid"})
"""Nodes that are 1 (true), 0 (false), or invalid."""

_RENAMED = {"abs": "absolute", "round": "rint", "min": "minimum", "max": "maximum"}


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression: a number, a name, or an operation on other nodes (their indices)."""

    op: str
    args: tuple[int, ...] = ()
    number: float = 0.0
    name: tuple[str, ...] = ()
    """("a",) or ("a", "B08")."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Nodes, each after those that it uses; equal parts are one node."""

    nodes: tuple[Node, ...]
    root: int

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        return tuple(node.name for node in self.nodes if node.op == "name")


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """Return the expression that a text means.

    Raises
    ------
    ValueError
        Where the text is not an expression, or holds no name: the fact and the remedy.

    Examples
    --------
    >>> [node.op for node in parse("(b8 - b4) / (b8 + b4)").nodes]
    ['name', 'name', 'subtract', 'add', 'divide']
    >>> parse("lambda: 1")
    Traceback (most recent call last):
    ...
    ValueError: `lambda: 1` is not part of expressions, which have numbers, names, + - * / // % **, comparisons, and, \
or, not, and functions
    """
    reader = _Reader(text)
    expression = reader.read()
    if not expression.names:
        raise ValueError(f"{short(text)} names no raster and no band; an expression computes from pixels")
    return expression


class _Reader:
    """Walks the syntax tree of one expression and collects its nodes."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        self.nodes: list[Node] = []
        self.index: dict[Node, int] = {}

    def read(self) -> Expression:
        tree = syntax_tree(self.text)
        root = self.walk(tree, 1)
        return Expression(tuple(self.nodes), root)

    def walk(self, node: ast.expr, depth: int) -> int:
        """Return the index of a node, after those of its parts."""
        if depth > DEEPEST:
            raise ValueError(f"the expression is nested more than {DEEPEST} deep; split it into steps")
        if type(node) not in _WALKS:
            raise self.foreign(node)
        return _WALKS[type(node)](self, node, depth)

    def foreign(self, node: ast.AST) -> ValueError:
        words = FOREIGN.get(type(node))
        listed = "which have numbers, names, + - * / // % **, comparisons, and, or, not, and functions"
        return ValueError(words or f"{self.quote(node)} is not part of expressions, {listed}")

    def quote(self, node: ast.AST) -> str:
        return short(ast.get_source_segment(self.text, node) or self.text)

    def add(self, node: Node) -> int:
        if node not in self.index:
            if len(self.nodes) >= MOST_NODES:
                raise self.too_many()
            self.index[node] = len(self.nodes)
            self.nodes.append(node)
        return self.index[node]

    def too_many(self) -> ValueError:
        return ValueError(f"the expression has more than {MOST_NODES} parts; split it into steps")

    def combine(self, source: ast.AST, op: str, *args: int) -> int:
        """Add an operation; one on numbers alone is computed at once."""
        if any(self.nodes[arg].op != "number" for arg in args):
            return self.add(Node(op, args))
        numbers, out = [np.float64(self.nodes[arg].number) for arg in args], np.empty(1)
        with np.errstate(all="ignore"):
            compute(op, numbers, [True] * len(args), out, np.empty((2, 1), bool))
        return self.number(source, float(out[0]))

    def number(self, source: ast.AST, value: float) -> int:
        if not np.isfinite(value):
            raise ValueError(f"{self.quote(source)} is not a finite number")
        return self.add(Node("number", number=value + 0.0))

    def truth(self, source: ast.AST, index: int) -> int:
        """Return a node as a condition: what is not 0 is true."""
        if self.nodes[index].op in CONDITIONS:
            return index
        return self.combine(source, "not_equal", index, self.add(Node("number")))

    # --- one method per kind of syntax

    def constant(self, node: ast.Constant, depth: int) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self.foreign(node)
        try:
            return self.number(node, float(node.value))
        except OverflowError:
            raise ValueError(f"{self.quote(node)} is not a finite number") from None

    def plain_name(self, node: ast.Name, depth: int) -> int:
        if node.id in CONSTANTS:
            return self.number(node, CONSTANTS[node.id])
        return self.add(Node("name", name=(_public(node.id),)))

    def dotted_name(self, node: ast.Attribute, depth: int) -> int:
        if not isinstance(node.value, ast.Name):
            raise self.foreign(node)
        return self.add(Node("name", name=(_public(node.value.id), _public(node.attr))))

    def unary(self, node: ast.UnaryOp, depth: int) -> int:
        if isinstance(node.op, ast.Invert):
            self.check_condition(node.operand, "~", "not")
        operand = self.walk(node.operand, depth + 1)
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, ast.USub):
            return self.combine(node, "negative", operand)
        return self.combine(node, "not", self.truth(node.operand, operand))

    def binary(self, node: ast.BinOp, depth: int) -> int:
        """Walk a + b + c + ... along its left side without recursion: a sum of 200 bands is not nested."""
        chain: list[ast.BinOp] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            chain.append(left)
            left = left.left
        result = self.walk(left, depth + 1)
        for part in reversed(chain):
            right = self.walk(part.right, depth + 1)
            result = self.join(part, result, right)
        return result

    def join(self, node: ast.BinOp, left: int, right: int) -> int:
        op = BINARY.get(type(node.op))
        if op is None:
            raise self.foreign(node.op if type(node.op) in FOREIGN else node)
        if op in ("and", "or"):
            symbol = "&" if op == "and" else "|"
            self.check_condition(node.left, symbol, op)
            self.check_condition(node.right, symbol, op)
            left, right = self.truth(node.left, left), self.truth(node.right, right)
        return self.combine(node, op, left, right)

    def check_condition(self, node: ast.expr, symbol: str, word: str) -> None:
        """Refuse numbers beside & | ~, which bind tighter than comparisons: a > 1 & b > 2 is a > (1 & b) > 2."""
        if not is_condition(node):
            raise ValueError(
                f"{self.quote(node)} beside {symbol} is not a condition; write `{word}`, "
                f"or put the conditions in parentheses: (a > 1) {symbol if symbol != '~' else '&'} (b > 2)"
            )

    def boolean(self, node: ast.BoolOp, depth: int) -> int:
        op = "and" if isinstance(node.op, ast.And) else "or"
        result, *others = [self.truth(value, self.walk(value, depth + 1)) for value in node.values]
        for other in others:
            result = self.combine(node, op, result, other)
        return result

    def compare(self, node: ast.Compare, depth: int) -> int:
        parts = [self.walk(part, depth + 1) for part in (node.left, *node.comparators)]
        results = []
        for op, left, right in zip(node.ops, parts, parts[1:], strict=False):
            if type(op) not in COMPARE:
                raise self.foreign(node)
            results.append(self.combine(node, COMPARE[type(op)], left, right))
        result, *others = results
        for other in others:
            result = self.combine(node, "and", result, other)
        return result

    def call(self, node: ast.Call, depth: int) -> int:
        name = self.function(node)
        args = [self.walk(arg, depth + 1) for arg in node.args]
        if name == "where":
            args[0] = self.truth(node.args[0], args[0])
        if name == "clip":
            return self.combine(node, "minimum", self.combine(node, "maximum", args[0], args[1]), args[2])
        if name == "mean":
            return self.combine(node, "divide", self.chain(node, "add", args), self.number(node, len(args)))
        if name == "median":
            return self.median(node, args)
        if name in ("min", "max", "coalesce"):
            return self.chain(node, _RENAMED.get(name, name), args)
        return self.combine(node, _RENAMED.get(name, name), *args)

    def chain(self, node: ast.Call, op: str, args: list[int]) -> int:
        result, *others = args
        for other in others:
            result = self.combine(node, op, result, other)
        return result

    def median(self, node: ast.Call, args: list[int]) -> int:
        """Add a network of minima and maxima: each argument reaches the result, and with it nodata."""
        num = len(args)
        if num > MOST_NODES // 10:  # the network has far more parts, and takes long to make
            raise self.too_many()
        middle = tuple(sorted({(num - 1) // 2, num // 2}))
        network = selection_network((tuple(range(num)),), middle, num)
        rows = dict(enumerate(args))
        for a, _, b, _, least, most, _ in network.steps.tolist():
            pair = rows[a], rows[b]
            for op, row in (("minimum", least), ("maximum", most)):
                if row >= 0:
                    rows[row] = self.combine(node, op, *pair)
        found = [rows[row] for row, _ in network.results.tolist()]
        if len(found) == 1:
            return found[0]
        return self.combine(node, "divide", self.combine(node, "add", *found), self.number(node, 2.0))

    def function(self, node: ast.Call) -> str:
        """Return the name of a function that is called as it may be."""
        if not isinstance(node.func, ast.Name):
            raise ValueError(f"{self.quote(node.func)} cannot be called; functions are {', '.join(FUNCTIONS)}")
        name = node.func.id
        if name not in FUNCTIONS:
            raise ValueError(unknown("function", name[:60], FUNCTIONS))
        fewest, most = FUNCTIONS[name]
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise ValueError(f"{self.quote(node)}: arguments are given by position")
        if len(node.args) < fewest or (most is not None and len(node.args) > most):
            count = f"{fewest}" if most == fewest else f"{fewest} or more"
            raise ValueError(f"{name} takes {count} argument{'s' * (count != '1')}, got {len(node.args)}")
        return name


_WALKS: dict[type[ast.expr], Callable[[_Reader, Any, int], int]] = {
    ast.Constant: _Reader.constant,
    ast.Name: _Reader.plain_name,
    ast.Attribute: _Reader.dotted_name,
    ast.UnaryOp: _Reader.unary,
    ast.BinOp: _Reader.binary,
    ast.BoolOp: _Reader.boolean,
    ast.Compare: _Reader.compare,
    ast.Call: _Reader.call,
}
"""All the syntax there is."""


def _public(name: str) -> str:
    if name.startswith("__"):
        raise ValueError(f"`{name[:60]}` is not a name of a raster or band")
    return name
