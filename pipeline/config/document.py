"""A pipeline file as plain data in which every value remembers its place, and what the command line changes in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.builder import Builder
from pipeline.config.node import MAX_BYTES, MAX_DEPTH, Budget, compose
from pipeline.config.place import KeyPath, Position, format_path, place_text, position_at
from pipeline.config.scalar import MAX_INTEGER, TOO_LARGE, check_characters
from pipeline.model.errors import PipelineError, UsageError, unknown

_INDEX = re.compile(r"\[([0-9]+)\]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


Setting = tuple[str, Any, str]
"""A place in a pipeline such as `steps.smooth.size`, what it gets (a text is YAML), and what messages call that."""


@dataclass
class Document:
    """The data of a pipeline file, where they stand, and what the command line changed.

    Attributes
    ----------
    data
        Mappings, lists and scalars; in a file, `${VAR}` is expanded.
    name
        The file as the user called it, for messages; empty for a mapping given from Python.
    folder
        Absolute; the file's relative paths begin here.
    positions
        Path of a value -> line and column from 1, where the value is written (for an alias: at its anchor).
    key_positions
        Path of a value in a mapping -> line and column of its key.
    overridden
        Path of a value set from outside -> the option that did, e.g. ``--set run.workers=2``.
    secrets
        Path of a value -> the variable in it that speaks of a secret and is not expanded.
    """

    data: dict[str, Any]
    name: str = ""
    folder: Path = field(default_factory=lambda: Path.cwd())
    positions: dict[KeyPath, Position] = field(default_factory=dict)
    key_positions: dict[KeyPath, Position] = field(default_factory=dict)
    overridden: dict[KeyPath, str] = field(default_factory=dict)
    secrets: dict[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], folder: Path | None = None) -> Document:
        """Return the document of a mapping built in Python, whose texts mean what they are: no `$` is expanded."""
        return cls(_copy_mapping(data, (), Budget()), folder=(folder or Path.cwd()).resolve())

    def override(self, settings: Iterable[str | Setting], inputs: Mapping[str, str], output: str | None) -> None:
        """Apply what the command line gives: paths of inputs and of the output, then all else."""
        for name, path in inputs.items():
            self.put_input(name, path)
        if output is not None:
            self.put(("output", "path"), output, f"-o {output}")
        for setting in settings:
            self.set(setting)

    def set(self, assignment: str | Setting) -> None:
        """Apply ``steps.smooth.size=5``, as ``--set`` takes it, or a setting.

        Raises UsageError where the path leads nowhere. Missing keys of a mapping are created, missing steps not.
        """
        if isinstance(assignment, str):
            key, equals, text = assignment.partition("=")
            assignment = (key if equals else "", text, f"--set {assignment}")
        place, value, origin = assignment
        keys = _INDEX.sub(r".\1", place.strip()).split(".")
        if not all(keys):
            raise UsageError(f"{origin}: must read KEY=VALUE, for example --set steps.smooth.size=5")
        value = _parse_value(value, origin) if isinstance(value, str) else _copy(value, tuple(keys), Budget())
        self.put(keys, value, origin)

    def put(self, keys: Sequence[str], value: Any, origin: str) -> None:
        """Set a value that comes from outside the file; `origin` is the option that messages name."""
        node: Any = self.data
        path: KeyPath = ()
        for key in keys[:-1]:
            part = _find(node, key, path, origin)
            path = (*path, part)
            node = self._enter(node, part, path, origin)
        part = _find(node, keys[-1], path, origin)
        path = (*path, part)
        self._forget(path)
        node[part] = value
        self.overridden[path] = origin

    def put_input(self, name: str, path: str) -> None:
        """Let an input read another file (``--input NAME=PATH``), or add it; its other settings stay."""
        origin = f"--input {name}={path}"
        check_characters(path, f"--input {name}")
        inputs = self.data.get("inputs")
        if isinstance(inputs, dict) and isinstance(inputs.get(name), dict):
            inputs[name].pop("stack", None)
            self._forget(("inputs", name, "stack"))
        self.put(("inputs", name, "path"), path, origin)

    def origin(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return ``file:line:column`` of a value (or its key), else of what holds it; or the option that set it."""
        place = self._nearest(path, of_key)
        return place if isinstance(place, str) else place_text(self.name, place) if place else ""

    def order(self, path: KeyPath, *, of_key: bool = False) -> tuple[bool, Position]:
        """Return a sort key: in the file's order, then what the command line set."""
        place = self._nearest(path, of_key)
        return isinstance(place, str), place if isinstance(place, tuple) else (0, 0)

    def _nearest(self, path: KeyPath, of_key: bool) -> Position | str | None:
        if of_key and path in self.key_positions:
            return self.key_positions[path]
        if path and path not in self.positions:  # not in the file: perhaps put together from outside
            for other, origin in self.overridden.items():
                if other[: len(path)] == path:
                    return origin
        for length in range(len(path), -1, -1):
            part = path[:length]
            if part in self.overridden or part in self.positions:
                return self.overridden.get(part) or self.positions[part]
        return None

    def base_folder(self, path: KeyPath) -> Path:
        """Return where a relative path begins: at the file, or at the working directory if it was overridden."""
        return Path.cwd() if self.is_from_outside(path) else self.folder

    def is_from_outside(self, path: KeyPath) -> bool:
        """Return whether a value, or what holds it, was set from outside the file."""
        return any(path[:length] in self.overridden for length in range(len(path) + 1))

    def resolve_path(self, text: str, path: KeyPath) -> str:
        """Return the absolute path that `text`, standing at `path`, means; a URL stays as it is.

        Examples
        --------
        >>> Document({}, folder=Path("/project/configs")).resolve_path("../data/scene.zarr", ("inputs", "image"))
        '/project/data/scene.zarr'
        >>> Document({}).resolve_path("s3://bucket/scene.zarr", ("inputs", "image"))
        's3://bucket/scene.zarr'
        """
        if _URL.match(text):
            return text
        absolute = os.path.abspath(self.base_folder(path) / os.path.expanduser(text))
        check_characters(absolute, format_path(path))
        return absolute

    def _enter(self, node: Any, part: str | int, path: KeyPath, origin: str) -> Any:
        """Return what is below an entry, made a mapping if there is nothing yet."""
        child = node.get(part) if isinstance(node, dict) else node[part]
        if child is None and path == ("steps",):
            raise UsageError(f"{origin}: there are no steps yet, and an override adds none")
        if child is None:
            child = {}
        elif isinstance(child, str) and len(path) == 2 and path[0] == "inputs":
            child = {"path": child}  # the short form of an input is about to get a second setting
            self._move(path, (*path, "path"))
        node[part] = child
        return child

    def _move(self, path: KeyPath, to: KeyPath) -> None:
        if path in self.positions:
            self.positions[to] = self.positions[path]
        if path in self.overridden:
            self.overridden[to] = self.overridden.pop(path)
        if path in self.secrets:
            self.secrets[to] = self.secrets.pop(path)

    def _forget(self, path: KeyPath) -> None:
        places: tuple[dict[KeyPath, Any], ...] = (self.positions, self.key_positions, self.overridden, self.secrets)
        for place in places:
            for other in [other for other in place if other[: len(path)] == path]:
                del place[other]


def load(path: str | os.PathLike[str]) -> Document:
    """Read a pipeline file; raise PipelineError with file, line and column where it is no such thing."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"a pipeline is a path or a mapping, got {type(path).__name__}")
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PipelineError(f"{name}: cannot read the pipeline file: {reason}") from None
    except ValueError as error:  # a zero byte in the path
        raise PipelineError(f"{name!r}: cannot read the pipeline file: {error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = position_at(content[: error.start].decode("utf-8", "replace"))
        raise PipelineError(f"{place_text(name, place)}: the file is not UTF-8 text; save it as UTF-8") from None
    return parse(text, name, Path(path).parent)


def parse(text: str, name: str = "pipeline.yaml", folder: Path | None = None) -> Document:
    """Return the document of a YAML text; `name` is what messages call it, `folder` where its paths begin."""
    root = compose(text, name)
    if root is None:
        raise PipelineError(f"{name}: the file is empty; `rasterpipe schema` shows what belongs in it")
    builder = Builder(name)
    data = builder.build(root, ())
    if not isinstance(data, dict):
        raise PipelineError(
            f"{place_text(name, root.position)}: a pipeline file is a mapping: inputs, steps, output, run"
        )
    where = (folder or Path.cwd()).resolve()
    return Document(data, name, where, builder.positions, builder.key_positions, secrets=builder.secrets)


def _parse_value(text: str, origin: str) -> Any:
    try:
        root = compose(text, "value")
        return None if root is None else Builder("value", has_variables=False).build(root, ())
    except PipelineError as error:
        raise UsageError(f"{origin}: {error} (the value is read as YAML)") from None


def _find(node: Any, key: str, path: KeyPath, origin: str) -> str | int:
    """Return the key or index that a word of an override means."""
    where = format_path(path) or "the file"
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise UsageError(f"{origin}: {where} is a single value and has no '{key}'")
    if key.isdecimal() and int(key[:9]) < len(node):
        return int(key[:9])
    names = [item.get("name") if isinstance(item, dict) else item for item in node]
    if key in names:
        return names.index(key)
    known = [name for name in names if isinstance(name, str)] or range(len(node))
    raise UsageError(f"{origin}: {unknown('step' if path == ('steps',) else f'entry of {where}', key, known)}")


def _copy_mapping(data: Mapping[str, Any], path: KeyPath, budget: Budget) -> dict[str, Any]:
    for key in data:
        if not isinstance(key, str):
            raise PipelineError(f"{format_path(path) or 'pipeline'}: keys must be text, got {key!r}")
    return {str(key): _copy(value, (*path, str(key)), budget) for key, value in data.items()}


def _copy(value: Any, path: KeyPath, budget: Budget) -> Any:
    """Return plain data for what a Python caller may hand in: tuples, paths, numpy numbers and arrays."""
    budget.count(lambda: format_path(path[:2]))
    if len(path) > MAX_DEPTH:
        raise PipelineError(f"{format_path(path[:2])}: nested deeper than {MAX_DEPTH} levels")
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return _copy_mapping(value, path, budget)
    if isinstance(value, list | tuple):
        return [_copy(item, (*path, index), budget) for index, item in enumerate(value)]
    if isinstance(value, str):
        check_characters(value, format_path(path))
        return value
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise PipelineError(f"{format_path(path)}: {TOO_LARGE}")
    if value is None or isinstance(value, int | float):
        return value
    raise PipelineError(f"{format_path(path)}: a {type(value).__name__} cannot stand in a pipeline; use plain values")
