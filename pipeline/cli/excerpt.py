"""The line of a file that a message speaks of, with a mark under the word."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from itertools import islice

PLACE = re.compile(r"(?P<file>.+?):(?P<line>[0-9]{1,6}):(?P<column>[0-9]{1,6}): ")
WORD = re.compile(r"\"[^\"]*\"?|'[^']*'?|[^\s,\[\]{}:]+|.")
WIDTH, BEFORE = 100, 60
"""Characters of a line that are shown; of those, before the word, where the line is longer."""

MOST_BYTES = 2**20
"""Of a file that is read for an excerpt; no pipeline file is larger."""


def with_excerpts(message: str, files: Collection[str]) -> str:
    """Return a message whose lines that begin with a place in one of some files are followed by what stands there."""
    return "\n".join(part for line in message.split("\n") for part in _lines(line, files))


def _lines(line: str, files: Collection[str]) -> Iterator[str]:
    yield line
    place = PLACE.match(line)
    if place is None or place["file"] not in files:
        return
    text, column = _line_of(place["file"], int(place["line"])), int(place["column"]) - 1
    if text is None or not 0 <= column < len(text) or _may_hold_a_secret(text):
        return
    begin = max(0, column - BEFORE) if len(text) > WIDTH else 0
    word = WORD.match(text, column)
    length = min(len(word[0]) if word else 1, begin + WIDTH - column)
    yield f"    {text[begin : begin + WIDTH]}"
    yield f"    {'':{column - begin}}^{'~' * (length - 1)}"


def _may_hold_a_secret(text: str) -> bool:
    """Return whether a line may hold what is not for a log: a URL, which may have a signature, or a password."""
    from pipeline.config.scalar import speaks_of_secrets

    return "://" in text or any(speaks_of_secrets(word.upper()) for word in re.findall(r"\w+", text))


def _line_of(file: str, number: int) -> str | None:
    """Return a line of a file, from 1; None where it is there no more, or cannot be read twice, as a pipe."""
    try:
        if not os.path.isfile(file) or os.path.getsize(file) > MOST_BYTES:
            return None
        with open(file, encoding="utf-8-sig", errors="replace") as lines:
            found = next(islice(lines, number - 1, number), None)
    except (OSError, ValueError):
        return None
    return None if found is None else found.rstrip("\n").replace("\t", " ")
