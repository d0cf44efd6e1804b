"""A pipeline file as plain data in which every value remembers its place.

YAML is read from PyYAML's event stream rather than its finished tree, so that the limits below hold before
anything is nested or expanded. Scalars follow the YAML 1.2 core schema: ``on``, ``yes``, ``12:30:45``, ``010`` and
``2024-05-01`` are text, ``1e-3`` is a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from pipeline.errors import PipelineError, UsageError, unknown

MAX_BYTES = 1 << 20
"""Size of a pipeline file, and of the text that `${VAR}` adds to it."""
MAX_DEPTH = 50
MAX_NODES = 100_000
"""Values in a file, with every alias counted as often as it is used."""
MAX_INTEGER = 1 << 64

KeyPath = tuple[str | int, ...]
Position = tuple[int, int]

_TOO_LARGE = "the number is too large: an integer has 64 bits at most"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE
_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(?P<word>inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|(?P<bad>\{))"
)
_INDEX = re.compile(r"\[([0-9]+)\]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass
class Document:
    """The data of a pipeline file, where they stand, and what the command line changed.

    Attributes
    ----------
    data
        Mappings, lists and scalars; `${VAR}` is expanded.
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
    """

    data: dict[str, Any]
    name: str = ""
    folder: Path = field(default_factory=lambda: Path.cwd())
    positions: dict[KeyPath, Position] = field(default_factory=dict)
    key_positions: dict[KeyPath, Position] = field(default_factory=dict)
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], folder: Path | None = None) -> Document:
        """Return the document of a mapping built in Python; `${VAR}` is expanded in it as in a file."""
        return cls(_copy_mapping(data, (), _Budget()), folder=(folder or Path.cwd()).resolve())

    def set(self, assignment: str, option: str = "--set", origin: str = "") -> None:
        """Apply ``steps.smooth.size=5``: list items by name or by index from 0, the value in YAML.

        `origin` is what messages call it, the option and the assignment by default.
        Raises UsageError where the path leads nowhere. Missing keys of a mapping are created, missing steps not.
        """
        origin = origin or f"{option} {assignment}"
        dotted, equals, text = assignment.partition("=")
        keys = _INDEX.sub(r".\1", dotted.strip()).split(".")
        if not equals or not all(keys):
            raise UsageError(f"{origin}: must read KEY=VALUE, for example {option} steps.smooth.size=5")
        self.put(keys, _parse_value(text, origin), origin)

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
        inputs = self.data.get("inputs")
        if isinstance(inputs, dict) and isinstance(inputs.get(name), dict):
            inputs[name].pop("stack", None)
        self.put(("inputs", name, "path"), path, origin)

    def origin(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return ``file:line:column`` of a value (or its key), else of what holds it; or the option that set it."""
        place = self._nearest(path, of_key)
        return place if isinstance(place, str) else _place(self.name, place) if place else ""

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
        outside = any(path[:length] in self.overridden for length in range(len(path) + 1))
        return Path.cwd() if outside else self.folder

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
        return os.path.abspath(self.base_folder(path) / os.path.expanduser(text))

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

    def _forget(self, path: KeyPath) -> None:
        places: tuple[dict[KeyPath, Any], ...] = (self.positions, self.key_positions, self.overridden)
        for place in places:
            for other in [other for other in place if other[: len(path)] == path]:
                del place[other]


def load(path: str | os.PathLike[str]) -> Document:
    """Read a pipeline file; raise PipelineError with file, line and column where it is no such thing."""
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
        place = _position_at(content[: error.start].decode("utf-8", "replace"))
        raise PipelineError(f"{_place(name, place)}: the file is not UTF-8 text; save it as UTF-8") from None
    return parse(text, name, Path(path).parent)


def parse(text: str, name: str = "pipeline.yaml", folder: Path | None = None) -> Document:
    """Return the document of a YAML text; `name` is what messages call it, `folder` where its paths begin."""
    root = _compose(text, name)
    if root is None:
        raise PipelineError(f"{name}: the file is empty; `rasterpipe schema` shows what belongs in it")
    builder = _Builder(name)
    data = builder.build(root, ())
    if not isinstance(data, dict):
        raise PipelineError(f"{_place(name, root.position)}: a pipeline file is a mapping: inputs, steps, output, run")
    return Document(data, name, (folder or Path.cwd()).resolve(), builder.positions, builder.key_positions)


def format_path(path: KeyPath, data: Any = None) -> str:
    """Return a path in words; with `data`, a step also bears its name.

    Examples
    --------
    >>> format_path(("steps", 0, "size"), {"steps": [{"name": "smooth"}]})
    'steps[0] (smooth).size'
    """
    text = ""
    for position, part in enumerate(path):
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        if position == 1 and path[0] == "steps":
            name = look_up(data, (*path[:2], "name"))
            text += f" ({name})" if isinstance(name, str) and name else ""
    return text


def look_up(data: Any, path: KeyPath) -> Any:
    """Return the value at a path, None where there is none."""
    for part in path:
        if not holds(data, part):
            return None
        data = data[part]
    return data


def holds(data: Any, part: str | int) -> bool:
    """Return whether a mapping has the key, or a list the index."""
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)


def expand(text: str, where: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text with ``${VAR}`` and ``${VAR:-default}`` (also if VAR is empty) replaced, and ``$$`` by ``$``.

    Examples
    --------
    >>> expand("${SCENES:-/data}/a.tif costs 5$", "here", {})
    '/data/a.tif costs 5$'
    """
    variables = os.environ if environment is None else environment

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["dollar"]:
            return "$"
        if match["bad"]:
            remedy = "write ${NAME} or ${NAME:-default}, and $$ for $"
            raise PipelineError(f"{where}: cannot read `{_excerpt(text)}`; {remedy}")
        if default is not None:
            return variables.get(name) or default
        if name not in variables:
            remedy = f"set it, or write ${{{name}:-default}}"
            raise PipelineError(f"{where}: the environment variable '{name}' is not set; {remedy}")
        return variables[name]

    return _VARIABLE.sub(replace, text)


def resolve_scalar(text: str) -> Any:
    """Return the value of a plain YAML scalar; raise ValueError for an integer beyond 64 bits.

    Examples
    --------
    >>> [resolve_scalar(text) for text in ("5", "1e-3", "true", "yes", "010", "12:30:45", "~")]
    [5, 0.001, True, 'yes', '010', '12:30:45', None]
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) or _HEX.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _SPECIAL.fullmatch(text):
        return float((match["sign"] or "") + (match["word"] or "nan"))
    return text


def _integer(text: str) -> int:
    value = int(text[:40], 0)  # so many digits suffice to see that it is too large
    if abs(value) >= MAX_INTEGER:
        raise ValueError(_TOO_LARGE)
    return value


@dataclass(slots=True)
class _Node:
    """A YAML node: a scalar (`text`), or a collection (`children`; those of a mapping are keys and values)."""

    position: Position
    tag: str | None
    text: str = ""
    plain: bool = False
    children: list[_Node] | None = None
    is_mapping: bool = False
    is_open: bool = False


def _compose(text: str, name: str) -> _Node | None:
    """Return the tree of the only document of a text, aliases shared, None if it is empty."""
    _check_text(text, name)
    composer = _Composer(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise PipelineError(_syntax_message(error, text, name)) from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{name}: {error}") from None
    # `---` alone, or only comments, is one empty scalar, or no document at all
    root = composer.root
    return None if root is None or (root.children is None and root.plain and not root.text) else root


class _Composer:
    """Builds the node tree from the event stream without recursion, whatever the nesting."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: _Node | None = None
        self.stack: list[_Node] = []
        self.anchors: dict[str, _Node] = {}
        self.budget = _Budget()
        self.num_documents = 0

    def take(self, event: Event) -> None:
        if isinstance(event, DocumentStartEvent):
            self.num_documents += 1
            if self.num_documents > 1:
                raise self.error(event, "a second document begins here; a pipeline file holds one")
        elif isinstance(event, CollectionEndEvent):
            self.stack.pop().is_open = False
        elif isinstance(event, NodeEvent):
            self.take_node(event)

    def take_node(self, event: NodeEvent) -> None:
        node = self.alias(event) if isinstance(event, AliasEvent) else self.node(event)
        self.budget.count(lambda: _place(self.name, _mark(event)))
        if self.stack:
            children = self.stack[-1].children
            assert children is not None  # only collections are on the stack
            children.append(node)
        else:
            self.root = node
        if isinstance(event, CollectionStartEvent):
            if len(self.stack) >= MAX_DEPTH:
                raise self.error(event, f"nested deeper than {MAX_DEPTH} levels")
            self.stack.append(node)

    def node(self, event: NodeEvent) -> _Node:
        if isinstance(event, ScalarEvent):
            node = _Node(_mark(event), event.tag, event.value, plain=event.implicit[0] and not event.tag)
        else:
            assert isinstance(event, CollectionStartEvent)
            is_mapping = isinstance(event, MappingStartEvent)
            node = _Node(_mark(event), event.tag, children=[], is_mapping=is_mapping, is_open=True)
        self.check_tag(node, event)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: AliasEvent) -> _Node:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            raise self.error(event, unknown("anchor", event.anchor, self.anchors))
        if node.is_open:
            raise self.error(event, f"the alias *{event.anchor} stands inside its own anchor")
        return node

    def check_tag(self, node: _Node, event: Event) -> None:
        kinds = ("str", "int", "float", "bool", "null") if node.children is None else ()
        allowed = {"!", *(_TAG + kind for kind in (*kinds, "map" if node.is_mapping else "seq"))}
        if node.tag and node.tag not in allowed:
            shown = _excerpt(node.tag.replace(_TAG, "!!"))
            raise self.error(event, f"the tag {shown} is not allowed; a pipeline file holds plain values only")

    def error(self, event: Event, message: str) -> PipelineError:
        return PipelineError(f"{_place(self.name, _mark(event))}: {message}")


class _Budget:
    """Counts what aliases, merges and variables expand to, and refuses the flood."""

    def __init__(self) -> None:
        self.num_nodes = 0
        self.num_characters = 0

    def count(self, where: Any, nodes: int = 1, characters: int = 0) -> None:
        self.num_nodes += nodes
        self.num_characters += characters
        if self.num_nodes > MAX_NODES:
            raise PipelineError(f"{where()}: more than {MAX_NODES:,} values, aliases expanded")
        if self.num_characters > MAX_BYTES:
            raise PipelineError(f"{where()}: the environment variables expand to more than {MAX_BYTES:,} characters")


class _Builder:
    """Turns the node tree into data and positions: aliases, merge keys and variables expanded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: dict[KeyPath, Position] = {}
        self.key_positions: dict[KeyPath, Position] = {}
        self.budget = _Budget()
        # Merged once each: a chain of merges of merges would otherwise grow exponentially.
        self.merged: dict[int, dict[str, tuple[_Node, _Node]]] = {}

    def build(self, node: _Node, path: KeyPath) -> Any:
        self.budget.count(lambda: self.where(node, path))
        if len(path) > MAX_DEPTH:
            where = self.where(node, path[:2])
            raise PipelineError(f"{where}: nested deeper than {MAX_DEPTH} levels, aliases expanded")
        self.positions[path] = node.position
        if node.children is None:
            return self.scalar(node, path)
        if not node.is_mapping:
            return [self.build(child, (*path, index)) for index, child in enumerate(node.children)]
        result = {}
        for key, (key_node, value) in self.pairs(node).items():
            self.key_positions[(*path, key)] = key_node.position
            result[key] = self.build(value, (*path, key))
        return result

    def scalar(self, node: _Node, path: KeyPath) -> Any:
        text = node.text
        variable = _VARIABLE.fullmatch(text)
        if "$" in text:
            text = expand(text, self.where(node, path))
            self.budget.count(lambda: self.where(node, path), 0, len(text))
        if node.tag in ("!", _TAG + "str"):
            return text
        is_value = node.plain and (text is node.text or (variable is not None and not variable["dollar"]))
        if not is_value and not node.tag:
            return text
        try:
            value = resolve_scalar(text)
        except ValueError as error:
            raise PipelineError(f"{self.where(node, path)}: {error}") from None
        if node.tag and not _has_tag(value, node.tag):
            raise PipelineError(f"{self.where(node, path)}: {_excerpt(text)!r} is no {node.tag.replace(_TAG, '!!')}")
        return value

    def pairs(self, node: _Node, depth: int = 0) -> dict[str, tuple[_Node, _Node]]:
        """Return key -> (key node, value node) of a mapping, `<<` merged; its own keys win, then the first merged."""
        if id(node) in self.merged:
            return self.merged[id(node)]
        if depth > MAX_DEPTH:
            raise PipelineError(f"{_place(self.name, node.position)}: merged over more than {MAX_DEPTH} levels")
        own: dict[str, tuple[_Node, _Node]] = {}
        merged: dict[str, tuple[_Node, _Node]] = {}
        children = node.children or []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if key.children is not None:
                raise PipelineError(f"{_place(self.name, key.position)}: a key must be a word, not a list or mapping")
            if key.text == "<<" and key.plain:
                for pair in self.merge_pairs(value, depth + 1):
                    merged.setdefault(*pair)
            elif key.text in own:
                here, first = (_place(self.name, place.position) for place in (key, own[key.text][0]))
                raise PipelineError(f"{here}: the key '{_excerpt(key.text)}' is given twice; first at {first}")
            else:
                own[key.text] = key, value
        self.merged[id(node)] = {**merged, **own}
        return self.merged[id(node)]

    def merge_pairs(self, value: _Node, depth: int) -> list[tuple[str, tuple[_Node, _Node]]]:
        sources = [value] if value.is_mapping else value.children or [value]
        found: list[tuple[str, tuple[_Node, _Node]]] = []
        for source in sources:
            if not source.is_mapping:
                raise PipelineError(f"{_place(self.name, source.position)}: `<<` takes a mapping or a list of mappings")
            pairs = self.pairs(source, depth)
            self.budget.count(lambda: _place(self.name, value.position), 1 + len(pairs))
            found += pairs.items()
        return found

    def where(self, node: _Node, path: KeyPath) -> str:
        words = format_path(path)
        return _place(self.name, node.position) + (f": {words}" if words else "")


def _has_tag(value: Any, tag: str) -> bool:
    kinds = {"int": int, "float": (float, int), "bool": bool, "null": type(None)}
    kind = tag.removeprefix(_TAG)
    return isinstance(value, kinds[kind]) and (kind == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]


def _parse_value(text: str, origin: str) -> Any:
    try:
        root = _compose(text, "value")
        return None if root is None else _Builder("value").build(root, ())
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


def _copy_mapping(data: Mapping[str, Any], path: KeyPath, budget: _Budget) -> dict[str, Any]:
    for key in data:
        if not isinstance(key, str):
            raise PipelineError(f"{format_path(path) or 'pipeline'}: keys must be text, got {key!r}")
    return {str(key): _copy(value, (*path, str(key)), budget) for key, value in data.items()}


def _copy(value: Any, path: KeyPath, budget: _Budget) -> Any:
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
        return expand(value, format_path(path))
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise PipelineError(f"{format_path(path)}: {_TOO_LARGE}")
    if value is None or isinstance(value, int | float):
        return value
    raise PipelineError(f"{format_path(path)}: a {type(value).__name__} cannot stand in a pipeline; use plain values")


def _check_text(text: str, name: str) -> None:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise PipelineError(f"{name}: larger than {MAX_BYTES:,} bytes; this is not a pipeline file")
    if bad := _UNPRINTABLE.search(text):
        place = _place(name, _position_at(text[: bad.start()]))
        raise PipelineError(f"{place}: the character {bad.group()!r} is not allowed in YAML")


def _syntax_message(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{name}: {error.problem}"
    message = f"{_place(name, (mark.line + 1, mark.column + 1))}: not YAML: {error.problem}"
    lines = text.splitlines()
    if "${" in "".join(lines[max(0, mark.line - 1) : mark.line + 1]):
        message += '; inside { } and [ ] a variable needs quotes: "${NAME}"'
    return message


def _position_at(before: str) -> Position:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _mark(event: Event) -> Position:
    mark = event.start_mark
    assert mark is not None  # only events made by hand have none
    return mark.line + 1, mark.column + 1


def _place(name: str, position: Position) -> str:
    return f"{name}:{position[0]}:{position[1]}"


def _excerpt(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
