"""From the node tree to plain data in which every value knows its place: aliases, merge keys, variables expanded."""

from __future__ import annotations

from typing import Any

from pipeline.config.node import MAX_DEPTH, TAG, Budget, Node
from pipeline.config.place import KeyPath, Position, excerpt, format_path, place_text
from pipeline.config.scalar import VARIABLE, check_characters, expand, resolve_scalar, secret_variable
from pipeline.model.errors import PipelineError


class Builder:
    """Turns the node tree into data and positions: aliases, merge keys and, in a file, variables expanded."""

    def __init__(self, name: str, *, has_variables: bool = True) -> None:
        self.name, self.has_variables = name, has_variables
        self.positions: dict[KeyPath, Position] = {}
        self.key_positions: dict[KeyPath, Position] = {}
        self.secrets: dict[KeyPath, str] = {}
        """Variables that speak of secrets, which are left as they stand."""
        self.budget = Budget()
        # Merged once each: a chain of merges of merges would otherwise grow exponentially.
        self.merged: dict[int, dict[str, tuple[Node, Node]]] = {}

    def build(self, node: Node, path: KeyPath) -> Any:
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

    def scalar(self, node: Node, path: KeyPath) -> Any:
        text = node.text
        check_characters(text, self.where(node, path))
        variable = VARIABLE.fullmatch(text)
        if "$" in text and self.has_variables:
            text = self.expanded(text, node, path)
        if node.tag in ("!", TAG + "str"):
            return text
        is_variable = variable is not None and not variable["dollar"]
        # inside { } and [ ] a variable needs quotes, and its value may be a number all the same
        is_value = (
            is_variable if node.style == '"' and not node.tag else node.plain and (text is node.text or is_variable)
        )
        if not is_value and not node.tag:
            return text
        try:
            value = resolve_scalar(text)
        except ValueError as error:
            raise PipelineError(f"{self.where(node, path)}: {error}") from None
        if node.tag and not _has_tag(value, node.tag):
            raise PipelineError(f"{self.where(node, path)}: {excerpt(text)!r} is no {node.tag.replace(TAG, '!!')}")
        return value

    def expanded(self, text: str, node: Node, path: KeyPath) -> str:
        if name := secret_variable(text):
            self.secrets[path] = name
            return text
        text = expand(text, self.where(node, path))
        self.budget.count(lambda: self.where(node, path), 0, len(text))
        return text

    def pairs(self, node: Node, depth: int = 0) -> dict[str, tuple[Node, Node]]:
        """Return key -> (key node, value node) of a mapping, `<<` merged; its own keys win, then the first merged."""
        if id(node) in self.merged:
            return self.merged[id(node)]
        if depth > MAX_DEPTH:
            raise PipelineError(f"{place_text(self.name, node.position)}: merged over more than {MAX_DEPTH} levels")
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        children = node.children or []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if key.children is not None:
                raise PipelineError(
                    f"{place_text(self.name, key.position)}: a key must be a word, not a list or mapping"
                )
            if key.text == "<<" and key.plain:
                for pair in self.merge_pairs(value, depth + 1):
                    merged.setdefault(*pair)
            elif key.text in own:
                here, first = (place_text(self.name, place.position) for place in (key, own[key.text][0]))
                raise PipelineError(f"{here}: the key '{excerpt(key.text)}' is given twice; first at {first}")
            else:
                own[key.text] = key, value
        self.merged[id(node)] = {**merged, **own}
        return self.merged[id(node)]

    def merge_pairs(self, value: Node, depth: int) -> list[tuple[str, tuple[Node, Node]]]:
        sources = [value] if value.is_mapping else value.children or [value]
        found: list[tuple[str, tuple[Node, Node]]] = []
        for source in sources:
            if not source.is_mapping:
                raise PipelineError(
                    f"{place_text(self.name, source.position)}: `<<` takes a mapping or a list of mappings"
                )
            pairs = self.pairs(source, depth)
            self.budget.count(lambda: place_text(self.name, value.position), 1 + len(pairs))
            found += pairs.items()
        return found

    def where(self, node: Node, path: KeyPath) -> str:
        words = format_path(path)
        return place_text(self.name, node.position) + (f": {words}" if words else "")


def _has_tag(value: Any, tag: str) -> bool:
    kinds = {"int": int, "float": (float, int), "bool": bool, "null": type(None)}
    kind = tag.removeprefix(TAG)
    return isinstance(value, kinds[kind]) and (kind == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]
