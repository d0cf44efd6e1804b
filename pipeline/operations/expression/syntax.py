"""The text of an expression as a syntax tree, by Python's own parser; the tree is never run."""

from __future__ import annotations

import ast

LONGEST = 10_000
"""Characters of an expression."""
BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder",
    ast.Pow: "power",
    ast.BitAnd: "and",
    ast.BitOr: "or",
}
COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
FOREIGN: dict[type[ast.AST], str] = {
    ast.IfExp: "`a if c else b` is written where(c, a, b)",
    ast.Subscript: "[...] is not part of expressions; a band is written raster.B08 or raster.b2",
    ast.BitXor: "^ is not part of expressions; a power is written **",
}


def syntax_tree(text: str) -> ast.expr:
    """Return the tree of one expression; ValueError where the text is none."""
    if not text:
        raise ValueError("the expression is empty")
    if len(text) > LONGEST:
        raise ValueError(f"the expression has {len(text)} characters, more than {LONGEST}; split it into steps")
    if "#" in text:
        raise ValueError("# begins a comment, which an expression cannot have")
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        hint = "; conditions are joined by `and`, `or`, `not`" if any(s in text for s in ("&&", "||", "!")) else ""
        near = text[: max(0, (error.offset or 1) - 1)][-30:]
        place = f" after `{near}`" if near else ""
        fault = "a number has too many digits" if "integer string conversion" in error.msg else error.msg
        raise ValueError(f"cannot read {short(text)}{place}: {fault}{hint}") from None
    except (ValueError, MemoryError, RecursionError):
        raise ValueError(f"{short(text)} cannot be read: nested too deep, or not text; split it into steps") from None


def is_condition(node: ast.expr) -> bool:
    """Return whether a part reads as a condition."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("isvalid", "where")
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not | ast.Invert)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitAnd | ast.BitOr)
    return isinstance(node, ast.Compare | ast.BoolOp)


def short(text: str, length: int = 60) -> str:
    return f"`{text}`" if len(text) <= length else f"`{text[: length - 3]}...`"
