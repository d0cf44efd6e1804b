"""Operations of other packages: found by the entry points of what is installed, and looked at before they are used.

What is installed, its user trusts: its code runs when the operations are first asked for. A pipeline file can name
operations alone, never a module.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from pipeline.operations.base import Operation, Reduction

GROUP = "rasterpipe.operations"
"""Of entry points, each a module or a class: ``power = "rasterpipe_power:Power"``."""
OP_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Owner:
    """The distribution that an operation comes with."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


class UnfitError(Exception):
    """What is no operation, and why."""


def op_of(operation: type[Operation]) -> str:
    """Return what an operation is called in pipeline files: the literal of its `op` field."""
    annotation = operation.model_fields["op"].annotation
    names = get_args(annotation) if get_origin(annotation) is Literal else ()
    if len(names) != 1 or not isinstance(names[0], str) or not OP_PATTERN.fullmatch(names[0]):
        raise UnfitError(f'{operation.__name__} does not say what it is called; give it a field `op: Literal["name"]`')
    return names[0]


def installed() -> Iterator[tuple[Owner, type[Operation] | str]]:
    """Yield the operations of other packages, and in words what is wrong with those that cannot be used."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        owner = Owner(str(point.dist.name), str(point.dist.version)) if point.dist else Owner("an unknown package")
        try:
            candidates = list(_candidates(point))
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
            yield owner, f"{owner}: {point.name} = {point.value} cannot be used: {reason}"
            continue
        for candidate in candidates:
            try:
                yield owner, _checked(candidate)
            except UnfitError as error:
                yield owner, f"{owner}: {point.name} = {point.value} cannot be used: {error}"


def _candidates(point: EntryPoint) -> Iterator[Any]:
    """Yield what an entry point names: a class, or those of a module that no other class there is made of."""
    found = point.load()
    if not isinstance(found, ModuleType):
        yield found
        return
    classes = [
        value
        for value in dict.fromkeys(value for _, value in inspect.getmembers(found, inspect.isclass))
        if issubclass(value, Operation) and f"{value.__module__}.".startswith(f"{found.__name__}.")
    ]
    if not classes:
        raise UnfitError("the module has no operations")
    yield from (cls for cls in classes if not any(cls is not other and issubclass(other, cls) for other in classes))


def _checked(operation: Any) -> type[Operation]:
    """Return an operation that has what the engine needs before anything else of it is asked; UnfitError otherwise."""
    if not isinstance(operation, type) or not issubclass(operation, Operation):
        raise UnfitError(f"{getattr(operation, '__name__', repr(operation))} is no Operation")
    op_of(operation)
    name = operation.__name__
    needed = ("output_specs", "apply")
    if issubclass(operation, Reduction):
        needed = ("table_spec", "partial", "merge", "fold", "partial_bytes")  # type: ignore[assignment]
    if missing := [hook for hook in needed if _is_of_the_contract(operation, hook)]:
        raise UnfitError(f"{name} does not say {' and '.join(missing)}")
    if operation.domain not in ("float", "native"):
        raise UnfitError(f"{name}.domain must be 'float' or 'native', got {operation.domain!r}")
    if isinstance(operation.version, bool) or not isinstance(operation.version, int):
        raise UnfitError(f"{name}.version must be a whole number, got {operation.version!r}")
    try:
        operation.model_json_schema()
    except Exception as error:
        raise UnfitError(f"{name} has fields without a JSON schema: {error}") from None
    return operation


def _is_of_the_contract(operation: type[Operation], hook: str) -> bool:
    return getattr(operation, hook) is getattr(Reduction if issubclass(operation, Reduction) else Operation, hook)
