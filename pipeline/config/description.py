"""What is said of the keys of a pipeline file: the text below each field in the source."""

from __future__ import annotations

import ast
import inspect
from functools import cache

from pydantic import BaseModel


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what is said of each field of a model: in its `Field`, or below it, there or where it is inherited from.

    Read from the source when it is asked for: pydantic's `use_attribute_docstrings` reads it for each class at each
    start, which took a tenth of the time of `plan`.
    """
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            texts |= _texts_of_module(cls.__module__, inspect.getsourcefile(cls) or "").get(cls.__qualname__, {})
    return texts | {name: field.description for name, field in model.model_fields.items() if field.description}


@cache
def _texts_of_module(name: str, file: str) -> dict[str, dict[str, str]]:
    """Return the texts below the fields of all classes of a module, by qualified name."""
    found: dict[str, dict[str, str]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = _texts_of_class(node)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                visit(node.body, f"{prefix}{node.name}.<locals>.")

    with open(file, encoding="utf-8") as source:
        visit(ast.parse(source.read()).body, "")
    return found


def _texts_of_class(node: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                texts[name] = inspect.cleandoc(said)
    return texts
