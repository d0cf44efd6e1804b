"""The node tree of a YAML text, read from PyYAML's event stream rather than its finished tree.

So the limits hold before anything is nested or expanded.
"""

from __future__ import annotations

from dataclasses import dataclass
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

from pipeline.config.place import Position, excerpt, place_text, position_at
from pipeline.model.errors import PipelineError, unknown

MAX_BYTES = 1 << 20
"""Size of a pipeline file, and of the text that `${VAR}` adds to it."""
MAX_DEPTH = 50
MAX_NODES = 30_000
"""Values in a file, with every alias counted as often as it is used."""
TAG = "tag:yaml.org,2002:"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE


@dataclass(slots=True)
class Node:
    """A YAML node: a scalar (`text`), or a collection (`children`; those of a mapping are keys and values)."""

    position: Position
    tag: str | None
    text: str = ""
    plain: bool = False
    style: str | None = None
    """How a scalar is quoted."""
    children: list[Node] | None = None
    is_mapping: bool = False
    is_open: bool = False


def compose(text: str, name: str) -> Node | None:
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


class Budget:
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


class _Composer:
    """Builds the node tree from the event stream without recursion, whatever the nesting."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.anchors: dict[str, Node] = {}
        self.budget = Budget()
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
        self.budget.count(lambda: place_text(self.name, _mark(event)))
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

    def node(self, event: NodeEvent) -> Node:
        if isinstance(event, ScalarEvent):
            node = Node(
                _mark(event), event.tag, event.value, plain=event.implicit[0] and not event.tag, style=event.style
            )
        else:
            assert isinstance(event, CollectionStartEvent)
            is_mapping = isinstance(event, MappingStartEvent)
            node = Node(_mark(event), event.tag, children=[], is_mapping=is_mapping, is_open=True)
        self.check_tag(node, event)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: AliasEvent) -> Node:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            raise self.error(event, unknown("anchor", event.anchor, self.anchors))
        if node.is_open:
            raise self.error(event, f"the alias *{event.anchor} stands inside its own anchor")
        return node

    def check_tag(self, node: Node, event: Event) -> None:
        kinds = ("str", "int", "float", "bool", "null") if node.children is None else ()
        allowed = {"!", *(TAG + kind for kind in (*kinds, "map" if node.is_mapping else "seq"))}
        if node.tag and node.tag not in allowed:
            shown = excerpt(node.tag.replace(TAG, "!!"))
            raise self.error(event, f"the tag {shown} is not allowed; a pipeline file holds plain values only")

    def error(self, event: Event, message: str) -> PipelineError:
        return PipelineError(f"{place_text(self.name, _mark(event))}: {message}")


def _check_text(text: str, name: str) -> None:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise PipelineError(f"{name}: larger than {MAX_BYTES:,} bytes; this is not a pipeline file")
    if bad := _UNPRINTABLE.search(text):
        place = place_text(name, position_at(text[: bad.start()]))
        raise PipelineError(f"{place}: the character {bad.group()!r} is not allowed in YAML")


def _syntax_message(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{name}: {error.problem}"
    message = f"{place_text(name, (mark.line + 1, mark.column + 1))}: not YAML: {error.problem}"
    lines = text.splitlines()
    if "${" in "".join(lines[max(0, mark.line - 1) : mark.line + 1]):
        message += '; inside { } and [ ] a variable needs quotes: "${NAME}"'
    return message


def _mark(event: Event) -> Position:
    mark = event.start_mark
    assert mark is not None  # only events made by hand have none
    return mark.line + 1, mark.column + 1
