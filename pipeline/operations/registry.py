"""Which operations there are: one file each in this package."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline.model.errors import PipelineError, unknown
from pipeline.operations.base import Operation

_registry: dict[str, type[Operation]] = {}


def register(operation: type[Operation]) -> type[Operation]:
    """Register an operation class under the literal of its `op` field (a class decorator)."""
    (name,) = operation.model_fields["op"].annotation.__args__  # type: ignore[union-attr]
    if name in _registry and _registry[name] is not operation:
        raise ValueError(f"two operations are called {name!r}: {_registry[name]} and {operation}")
    _registry[name] = operation
    return operation


def registry() -> dict[str, type[Operation]]:
    """Return all operations by name; the first call imports every module of `pipeline.operations`."""
    package = importlib.import_module("pipeline.operations")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_registry.items()))


def find_operation(name: str) -> type[Operation]:
    operations = registry()
    if name not in operations:
        raise PipelineError(unknown("operation", name, operations), ("op",))
    return operations[name]
