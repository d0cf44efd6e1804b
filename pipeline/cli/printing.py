"""What a command prints: facts to stdout, words and errors to stderr; nothing heavy is imported for that."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pipeline.execution.terminal import say, write


def print_facts(facts: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print what a command found out; where nobody takes it, the command has failed."""
    if failure := write(_text(facts, as_json, lines)):
        if failure != os.strerror(errno.EPIPE):  # `| head` has seen enough
            say(f"error: stdout takes nothing: {failure}")
        sys.exit(1)


def print_summary(facts: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print what a command has done; where nobody takes it, it is done all the same."""
    if failure := write(_text(facts, as_json, lines)):
        place = facts.get("output") or facts["path"]
        say(f"note: {place} is complete, but stdout takes no summary of it: {failure}")


def fail(message: str, code: int) -> NoReturn:
    # what a file says of itself must not steer the terminal
    message = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in message)
    say(f"error: {message}" if "\n" not in message else f"error:\n{message}")
    sys.exit(code)


def _text(facts: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> str:
    if as_json:
        return json.dumps(_plain(facts), indent=2, allow_nan=False) + "\n"
    return "".join(f"{line}\n" for line in lines)


def _plain(value: Any) -> Any:
    """Return data that JSON can hold: NaN and the infinities become text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
