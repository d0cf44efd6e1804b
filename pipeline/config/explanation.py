"""What pydantic finds wrong with a pipeline file, in our words."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails, ValidationError

from pipeline.config.message import (
    OWN_TYPE,
    REMEDIES,
    Problem,
    either,
    meant_key,
    missing,
    unknown_key,
    unknown_value,
)
from pipeline.config.place import KeyPath, holds, look_up
from pipeline.model.errors import show
from pipeline.operations.base import Operation

SHAPES: Mapping[KeyPath, str] = {
    ("inputs",): "a mapping such as `{image: FILE}`",
    ("steps",): "a list of steps such as `- {name: smooth, op: window, size: 3, statistics: [mean]}`",
    ("output",): "a mapping such as `{path: result.zarr}`",
}
"""What is wanted where something else stands."""
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
}
_TYPE_ERROR = re.compile(
    r"(int|float|bool|string|list|tuple|dict|mapping|model)_(?:type|parsing|parsing_size|from_float|attributes_type)"
)
_SPOKEN_BOOLS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def explain(
    error: ValidationError, data: Any, root: type[BaseModel], operations: Mapping[str, type[Operation]]
) -> list[Problem]:
    """Return pydantic's errors about `data` in our words.

    Left out is what only follows from another error: a list with wrong items counts as too short, and a misspelt key
    as missing too. A union reports every branch it tried, its labels in the path. Of those about one value, only the
    telling ones are kept: what a branch found inside the value, else a literal's words, else what is wrong with a value
    of the right type, else all types together.
    """
    findings = [_Finding.of(detail, data) for detail in error.errors(include_url=False)]
    holders = {f.path[:length] for f in findings for length in range(len(f.path))}
    branch_holders = {f.path[:length] for f in findings if f.is_branch for length in range(len(f.path))}
    branches: dict[KeyPath, list[_Finding]] = {}
    problems = []
    for finding in findings:
        if finding.is_branch:
            branches.setdefault(finding.path, []).append(finding)
        elif finding.detail["type"] != "too_short" or finding.path not in holders:
            problems.append(finding.problem(root, data, operations))
    for path, found in branches.items():
        if path not in branch_holders:
            problems += _merge_branches(found, root, data, operations)
    meant = {(*problem.path[:-1], problem.meant) for problem in problems if problem.meant}
    return [problem for problem in problems if problem.path not in meant or problem.text != missing(problem.path)]


@dataclass(frozen=True)
class _Finding:
    """One error of pydantic's, its path cleared of the labels of unions and validators."""

    path: KeyPath
    detail: ErrorDetails
    is_branch: bool

    @classmethod
    def of(cls, detail: ErrorDetails, data: Any) -> _Finding:
        path: list[str | int] = []
        for position, part in enumerate(detail["loc"]):
            is_last = position == len(detail["loc"]) - 1
            if holds(data, part):
                data = data[part]
                path.append(part)
            elif is_last and detail["type"] in ("missing", OWN_TYPE) and isinstance(part, str):
                path.append(part)
        return cls(tuple(path), detail, len(path) < len(detail["loc"]))

    def problem(self, root: type[BaseModel], data: Any, operations: Mapping[str, type[Operation]]) -> Problem:
        if self.detail["type"] == "extra_forbidden":
            valid = _keys_at(root, self.path[:-1], data, operations)
            key = str(self.path[-1])
            return Problem(self.path, unknown_key(key, valid), of_key=True, meant=meant_key(key, valid) or "")
        return Problem(self.path, _describe(self.path, self.detail))


def _merge_branches(
    findings: list[_Finding], root: type[BaseModel], data: Any, operations: Mapping[str, type[Operation]]
) -> list[Problem]:
    value = findings[0].detail["input"]
    literals = [finding for finding in findings if finding.detail["type"] == "literal_error"]
    if isinstance(value, str) and literals:
        findings = literals
    findings = [finding for finding in findings if not _expected(finding.detail)] or findings
    expected = [_expected(finding.detail) for finding in findings]
    if "a number" in expected:
        expected = [words for words in expected if words != "a whole number"]
    if len(findings) > 1 and all(expected):
        return [Problem(findings[0].path, f"must be {either(expected)}, got {show(value)}")]
    return [finding.problem(root, data, operations) for finding in findings]


def _describe(path: KeyPath, detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == OWN_TYPE:
        return str(context["text"])
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "literal_error":
        return unknown_value(_kind(path), value, _literals(detail))
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]}, got {show(value)}"
    if kind == "missing":
        # a list that is too short lacks an item; the label of its index is not part of the path
        return missing(path) if detail["loc"][-1:] == path[-1:] else f"too few entries: got {show(_list_of(value))}"
    if kind in ("too_short", "too_long"):
        return _length_text(path, kind, context, value)
    if (expected := _expected(detail)) and path in SHAPES:
        return f"must be {SHAPES[path]}, got {show(value)}"
    if expected:
        return f"must be {expected}, got {show(value)}{_rewrite(expected, value)}"
    return _OTHER.get(kind, _plain)(detail)


def _length_text(path: KeyPath, kind: str, context: Mapping[str, Any], value: object) -> str:
    if path in REMEDIES and not value:
        return f"empty; {REMEDIES[path]}"
    words, count = ("at least", context["min_length"]) if kind == "too_short" else ("at most", context["max_length"])
    got = f"{len(value):,}" if kind == "too_long" and isinstance(value, Sized) else show(value)
    return f"must have {words} {count:,} {'entry' if count == 1 else 'entries'}, got {got}"


def _plain(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Input ").replace("should be", "must be")
    return f"{text[:1].lower()}{text[1:]}, got {show(detail['input'])}"


_OTHER: dict[str, Callable[[ErrorDetails], str]] = {
    "finite_number": lambda detail: f"must be finite, got {show(detail['input'])}",
    "string_pattern_mismatch": lambda detail: f"must match {detail['ctx']['pattern']}, got {show(detail['input'])}",
    "string_too_short": lambda detail: f"must not be empty, got {show(detail['input'])}",
    "none_required": lambda detail: f"must be left out, got {show(detail['input'])}",
}


def _expected(detail: ErrorDetails) -> str:
    """Return what a type error wants, as in "must be ..."; empty for other errors."""
    if detail["type"] == "literal_error":
        return either([show(name) for name in _literals(detail)])
    match = _TYPE_ERROR.fullmatch(detail["type"])
    return _EXPECTED[match[1]] if match else ""


def _rewrite(expected: str, value: object) -> str:
    if expected == "true or false" and str(value).lower() in _SPOKEN_BOOLS:
        return f"; write {_SPOKEN_BOOLS[str(value).lower()]}"
    if expected == "a list" and isinstance(value, int | float | str) and value != "":
        return f"; write [{value}]" if len(str(value)) <= 40 else ""
    if expected == "text" and isinstance(value, int | float):
        return f"; write '{show(value)}' in quotes"
    return ""


def _kind(path: KeyPath) -> str:
    """Return what a value is called: the field's name, in the singular for an item of its list."""
    named = [part for part in path if isinstance(part, str)]
    name = named[-1] if named else "value"
    return name.removesuffix("s") if path and isinstance(path[-1], int) else name


def _literals(detail: ErrorDetails) -> list[object]:
    text = str(detail.get("ctx", {}).get("expected", ""))
    return list(re.findall(r"'([^']*)'", text)) or [_number(word) for word in re.split(r", | or ", text)]


def _number(text: str) -> object:
    return int(text) if text.lstrip("-").isdecimal() else text


def _list_of(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else value


def _keys_at(root: type[BaseModel], path: KeyPath, data: Any, operations: Mapping[str, type[Operation]]) -> list[str]:
    """Return the keys that the mapping at `path` may have."""
    options: list[Any] = [root]
    for depth, part in enumerate(path):
        options = [inner for option in options for inner in _descend(option, part)]
        op = look_up(data, (*path[: depth + 1], "op"))
        if isinstance(op, str) and op in operations:
            options = [operations[op] if option is Operation else option for option in options]
    models = [option for option in options if _is_model(option)]
    return [field.alias or key for model in models for key, field in model.model_fields.items()]


def _descend(annotation: Any, part: str | int) -> Iterator[Any]:
    """Yield the types that a value of this type may have at a key or index."""
    if _is_model(annotation) and part in annotation.model_fields:
        yield from _options(annotation.model_fields[part].annotation)
    elif get_origin(annotation) is dict:
        yield from _options(get_args(annotation)[1])
    elif get_origin(annotation) in (tuple, list):
        yield from _options(get_args(annotation)[0])


def _options(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
