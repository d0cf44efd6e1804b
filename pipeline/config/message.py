"""What a wrong pipeline file is told: the place, the fact, the value got, the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from pipeline.config.document import Document
from pipeline.config.place import KeyPath, format_path, look_up
from pipeline.model.errors import PipelineError, RasterpipeError, nearest, show, unknown
from pipeline.operations.registry import owner_of, registry

MAX_PROBLEMS = 20
OWN_TYPE = "rasterpipe"
"""The pydantic error type of messages that are ours already."""

KEY_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "mode": ("boundary",),
    "kernel_size": ("size", "window"),
    "cellsize": ("spacing",),
    "theta": ("orientations",),
    "channel": ("bands",),
    "channels": ("bands",),
    "dim": ("over",),
    "along": ("over",),
    "period": ("window",),
}
"""The neighbours' words for a key, and ours; the first that the step has is meant."""
VALUE_SYNONYMS = {"average": "mean", "stddev": "std", "variance": "var", "maximum": "max", "minimum": "min"}
UNITS = {"orientations": " (degrees)"}
REMEDIES: Mapping[KeyPath, str] = {
    ("inputs",): "add `inputs: {image: FILE}`",
    ("steps",): "add `steps:` and under it `- {name: smooth, op: window, size: 3, statistics: [mean]}`",
    ("output",): "add `output: {path: result.zarr}`, or give -o PATH",
    ("output", "path"): "add `path: result.zarr`, or give -o PATH",
}
"""What to write for a missing key, where that is known better than `key: ...`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the file: where (the value, or its key) and what."""

    path: KeyPath
    text: str
    of_key: bool = False
    meant: str = ""
    """The key that an unknown one stands for."""

    def render(self, document: Document) -> str:
        """Return ``file:line:column: path in words: text``."""
        words = format_path(self.path[:-1] if self.of_key else self.path, document.data)
        parts = (document.origin(self.path, of_key=self.of_key), words, self.text + _whose(document, self.path))
        return ": ".join(part for part in parts if part)


def _whose(document: Document, path: KeyPath) -> str:
    """Return whose operation a step is, where that is another package's."""
    op = look_up(document.data, (*path[:2], "op")) if path[:1] == ("steps",) else None
    owner = owner_of(registry()[op]) if isinstance(op, str) and op in registry() else None
    return f" ({op} is an operation of {owner})" if owner else ""


class InvalidPipeline(PipelineError):
    """Everything that is wrong with a pipeline file, one line each, in the file's order.

    Its text is complete; `problems` has the parts.
    """

    def __init__(self, document: Document, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = sorted(unique, key=lambda problem: document.order(problem.path, of_key=problem.of_key))
        lines = [problem.render(document) for problem in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            lines.append(f"... and {len(self.problems) - MAX_PROBLEMS} more")
        super().__init__("\n".join(lines))


def locate(document: Document, error: RasterpipeError) -> str:
    """Return an error's text with its place in the file, if it knows the path (``("steps", 3, "window")``)."""
    path = getattr(error, "path", ())
    return Problem(tuple(path), str(error)).render(document) if path else str(error)


@contextmanager
def locating(document: Document) -> Iterator[None]:
    """Give the errors of what a file names their place in it."""
    try:
        yield
    except PipelineError as error:
        raise PipelineError(locate(document, error), error.path) from error.__cause__


def own_error(text: str) -> PydanticCustomError:
    """Return an error for pydantic whose text is complete."""
    return PydanticCustomError(OWN_TYPE, "{text}", {"text": text})


def own_failure(title: str, path: KeyPath, text: str, value: object) -> ValidationError:
    """Return the ValidationError with one complete message about a field below the one being validated."""
    line = InitErrorDetails(type=own_error(text), loc=path, input=value)
    return ValidationError.from_exception_data(title, [line])


def missing(path: KeyPath, remedy: str = "") -> str:
    return f"missing; {remedy or REMEDIES.get(path) or f'add `{path[-1]}: ...`'}"


def meant_key(key: str, valid: Sequence[str]) -> str | None:
    """Return the valid key that an unknown one stands for: its synonym, else the nearest."""
    synonyms = [ours for ours in KEY_SYNONYMS.get(key, ()) if ours in valid]
    return synonyms[0] if synonyms else nearest(key, valid)


def unknown_key(key: str, valid: Sequence[str]) -> str:
    """Return the message for a key that does not exist.

    Examples
    --------
    >>> unknown_key("sise", ["size", "statistics"])
    "unknown key 'sise'; did you mean 'size'?"
    >>> unknown_key("theta", ["frequencies", "orientations"])
    "unknown key 'theta'; here it is called 'orientations' (degrees)"
    """
    ours = meant_key(key, valid)
    if ours and ours in KEY_SYNONYMS.get(key, ()):
        return f"unknown key '{key}'; here it is called '{ours}'{UNITS.get(ours, '')}"
    if ours:
        return f"unknown key {show(key)}; did you mean '{ours}'?"
    return f"unknown key {show(key)} (valid: {', '.join(valid) or 'none'})"


def unknown_value(kind: str, value: object, valid: Sequence[object]) -> str:
    """Return the message for a value that is not among the valid ones."""
    ours = VALUE_SYNONYMS.get(value) if isinstance(value, str) else None
    if ours in valid:
        return f"unknown {kind} '{value}'; here it is called '{ours}'"
    if isinstance(value, str) and all(isinstance(name, str) for name in valid):
        return unknown(kind, value if len(value) <= 60 else value[:57] + "...", valid)
    return f"must be {either([show(name) for name in valid])}, got {show(value)}"


def either(words: Sequence[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last
