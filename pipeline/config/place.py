"""Places in a pipeline file: paths of values in its data, lines and columns in its text."""

from __future__ import annotations

from typing import Any

KeyPath = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, from 1."""


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


def place_text(name: str, position: Position) -> str:
    """Return a place as messages begin with it: ``pipeline.yaml:12:5``."""
    return f"{name}:{position[0]}:{position[1]}"


def position_at(before: str) -> Position:
    """Return the position that follows a text."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def excerpt(text: str, length: int = 60) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= length else text[: length - 3] + "..."
