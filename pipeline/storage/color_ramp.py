"""Files that give colours to values, as gdaldem color-relief and QGIS write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.model.errors import InputError

MAX_BYTES = 2**20
MAX_ENTRIES = 4096
SUFFIXES = (".txt", ".clr", ".csv")
NOTHING = "nv"
"""In the place of a value: the colour of invalid pixels."""

Entry = tuple[float | str, int, int, int, int]
"""A value (a number, `50%` of the way from the smallest to the largest, or `nv`), and red, green, blue, alpha."""

NAMES = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "aqua": (0, 191, 191),
    "grey": (191, 191, 191),
    "gray": (191, 191, 191),
    "orange": (255, 127, 0),
    "brown": (191, 127, 63),
    "purple": (127, 0, 255),
    "violet": (127, 0, 255),
    "indigo": (0, 127, 255),
}
"""GRASS's, which gdaldem takes too."""


def read_ramp(path: str) -> tuple[Entry, ...]:
    """Return the entries of a colour file: a value and its colour a line, `#` begins a comment.

    Raises
    ------
    InputError
        Where the file cannot be read, or a line is no entry.
    """
    file = Path(path)
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: {size} bytes; a colour file has at most {MAX_BYTES}")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text or text.upper() == "INTERPOLATION:INTERPOLATED":  # QGIS's heading
            continue
        try:
            entries.append(parse_entry(re.split(r"[\s,:]+", text)))
        except ValueError as error:
            raise InputError(f"{path}: line {number}: {error}: {text[:60]!r}") from None
    return tuple(entries)


def parse_entry(words: Sequence[object]) -> Entry:
    """Return an entry of a value and a colour: its name, or red, green and blue from 0 to 255; alpha may follow.

    What follows alpha is a label, and left out, as in QGIS's files.

    Examples
    --------
    >>> parse_entry(["50%", "red"]), parse_entry(["nv", 0, 0, 0, 0])
    (('50.0%', 255, 0, 0, 255), ('nv', 0, 0, 0, 0))
    """
    if len(words) < 2:
        raise ValueError("must be a value and a colour, as `1200 255 200 0` or `50% red`")
    value = _value(str(words[0]))
    name = NAMES.get(str(words[1]).lower())
    rest = words[2:] if name else words[4:]
    color = name or tuple(_channel(word) for word in words[1:4])
    if len(color) < 3:
        raise ValueError("must have red, green and blue, or the name of a colour")
    return value, color[0], color[1], color[2], _channel(rest[0]) if rest else 255


def _value(word: str) -> float | str:
    if word.lower() == NOTHING:
        return NOTHING
    number = word.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (number != word and not 0 <= value <= 100):
        raise ValueError(f"{word[:30]!r} is neither a number, a percentage from 0 to 100, nor nv")
    return value if number == word else f"{value!r}%"


def _channel(word: object) -> int:
    try:
        number = int(str(word))
    except ValueError:
        number = -1
    if not 0 <= number <= 255:
        known = ", ".join(NAMES)
        raise ValueError(f"{str(word)[:30]!r} is no whole number from 0 to 255, nor one of the names {known}")
    return number
