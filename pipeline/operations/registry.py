"""Which operations there are: one file each in this package, and those that other installed packages bring."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from pipeline.model.errors import PipelineError
from pipeline.model.version import __version__
from pipeline.operations import plugin
from pipeline.operations.base import Operation
from pipeline.operations.plugin import Owner
from pipeline.operations.synonyms import unknown_operation

OURS = Owner("rasterpipe", __version__)
_registered: dict[str, type[Operation]] = {}
"""Module and name of a class -> the class: one that is defined again takes the place of the older."""


def register(operation: type[Operation]) -> type[Operation]:
    """Register an operation class under the literal of its `op` field (a class decorator)."""
    plugin.op_of(operation)
    _registered[_key(operation)] = operation
    known.cache_clear()
    return operation


@contextmanager
def registered(operation: type[Operation]) -> Iterator[None]:
    """Have an operation known for a while, unless it is anyhow."""
    if operation in known().operations.values():
        yield
        return
    register(operation)
    try:
        yield
    finally:
        del _registered[_key(operation)]
        known.cache_clear()


def _key(operation: type[Operation]) -> str:
    return f"{operation.__module__}.{operation.__qualname__}"


@dataclass(frozen=True)
class Known:
    """What is known of operations."""

    operations: Mapping[str, type[Operation]]
    """By name."""
    owners: Mapping[type[Operation], Owner]
    """Of those that are not ours."""
    refused: Mapping[str, str]
    """Names that are taken twice, and in words by whom."""
    faults: tuple[str, ...]
    """In words, what is installed and cannot be used."""


@functools.cache
def known() -> Known:
    """Return all operations; the first call imports every module of `pipeline.operations`, and the plug-ins."""
    package = importlib.import_module("pipeline.operations")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    owners = {cls: OURS if is_ours(cls) else Owner(cls.__module__) for cls in _registered.values()}
    faults = []
    for owner, found in plugin.installed():
        if isinstance(found, str):
            faults.append(found)
        else:
            owners[found] = owner
    takers: dict[str, list[type[Operation]]] = {}
    for cls in owners:
        takers.setdefault(plugin.op_of(cls), []).append(cls)
    operations = {op: classes[0] for op, classes in sorted(takers.items()) if len(classes) == 1}
    refused = {op: _taken_twice(op, [owners[cls] for cls in each]) for op, each in takers.items() if len(each) > 1}
    others = {cls: owner for cls, owner in owners.items() if owner is not OURS}
    return Known(operations, others, refused, (*faults, *refused.values()))


def is_ours(operation: type[Operation]) -> bool:
    return operation.__module__.startswith("pipeline.operations.")


def _taken_twice(op: str, owners: list[Owner]) -> str:
    return f"the operation {op!r} is taken twice, by {' and by '.join(map(str, owners))}; uninstall all but one"


def registry() -> Mapping[str, type[Operation]]:
    """Return all operations by name."""
    return known().operations


def our_operations() -> dict[str, type[Operation]]:
    """Return the operations of this package, by name, whatever else is installed."""
    known()  # imports them
    return {plugin.op_of(cls): cls for cls in sorted(filter(is_ours, _registered.values()), key=plugin.op_of)}


def owner_of(operation: type[Operation]) -> Owner | None:
    """Return whose an operation is that is not ours."""
    return None if is_ours(operation) else known().owners.get(operation)


def owner_at_fault(traceback: TracebackType | None) -> Owner | None:
    """Return whose operation an error comes from that is not ours."""
    modules = {cls.__module__: owner for cls, owner in known().owners.items()}
    found = None
    while traceback is not None:
        found = modules.get(traceback.tb_frame.f_globals.get("__name__", ""), found)
        traceback = traceback.tb_next
    return found


def why_unknown(op: object, text: str) -> str:
    """Return why there is no operation of this name; `text` says that there is none."""
    if isinstance(op, str) and op in known().refused:
        return known().refused[op]
    return "; ".join((text, *sorted(known().faults, key=lambda fault: str(op) not in fault)))  # the likely ones first


def find_operation(name: str) -> type[Operation]:
    operations = registry()
    if name not in operations:
        raise PipelineError(why_unknown(name, unknown_operation(name, list(operations))), ("op",))
    return operations[name]
