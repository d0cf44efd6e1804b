"""The names of inputs and steps: what they may be, and that each is taken once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config.document import Document
from pipeline.config.message import Problem, missing
from pipeline.config.place import KeyPath, format_path
from pipeline.model.errors import show, unknown

RESERVED = ("y", "x", "band", "label", "spatial_ref", "table", "palette", "report")
"""Names that mean something inside an output store."""
NAME_PATTERN = "[A-Za-z][A-Za-z0-9_-]*"


def name_problems(document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the names of inputs and steps, looked up in the data: models may not exist yet."""
    taken: dict[str, KeyPath] = {}
    steps_by_letters: dict[str, str] = {}
    inputs, steps = document.data.get("inputs"), document.data.get("steps")
    for name in inputs if isinstance(inputs, dict) else ():
        taken[name] = ("inputs", name)
        if text := _name_fault(name) or _mistyped(name, document):
            yield Problem(("inputs", name), text, of_key=True)
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if not isinstance(step, dict):
            continue
        path, name = ("steps", index, "name"), step.get("name")
        if "name" not in step:
            yield Problem(path, missing(path, f"add `name: {_free_name(step.get('op'), index, taken)}`"))
        elif isinstance(name, str) and (text := _name_fault(name)):
            yield Problem(path, text)
        elif isinstance(name, str) and name in taken:
            place = document.origin(taken[name], of_key=taken[name][0] == "inputs")
            words = format_path(taken[name]) + (f" at {place}" if place else "")
            yield Problem(path, f"the name '{name}' is taken by {words}; names are unique over inputs and steps")
        elif isinstance(name, str):
            taken[name] = path
            if (other := steps_by_letters.setdefault(name.casefold(), name)) != name:
                yield Problem(
                    path,
                    f"the name '{name}' differs from that of the step '{other}' in capitals alone, and some file "
                    "systems and readers of Zarr take both for one; choose another",
                )


def _name_fault(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        return f"a name begins with a letter and holds letters, digits, _ and -, got {show(name)}"
    return f"the name '{name}' is reserved ({', '.join(RESERVED)}); choose another" if name in RESERVED else ""


def _mistyped(name: str, document: Document) -> str:
    """Return what is wrong with an input that the command line sets something of, and nothing says where it lies."""
    inputs = document.data["inputs"]
    entry = inputs[name]
    if not isinstance(entry, dict) or not entry or entry.keys() & {"path", "stack"}:
        return ""
    if not all(document.is_from_outside(("inputs", name, key)) for key in entry):
        return ""
    return unknown("input", name, [other for other in inputs if other != name])


def _free_name(op: Any, index: int, taken: Mapping[str, Any]) -> str:
    base = op if isinstance(op, str) and not _name_fault(op) else "step"
    return f"{base}_{index}" if base in taken else base
