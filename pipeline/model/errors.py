"""The error tree: every failure that a user can cause or must know of, each with its exit code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

NO_MEMORY = "the machine, or a limit (`ulimit -v`), gives the process no more memory"
LINE_LENGTH = 1000
"""Characters of a line of a message; a file may list thousands of names."""


def cut(text: str) -> str:
    """Return a message with what is too long left out from the middle of its lines: its end holds the remedy.

    Examples
    --------
    >>> len(cut("a" * 20_000)), cut("short")
    (1000, 'short')
    """
    if len(text) <= LINE_LENGTH:
        return text
    return "\n".join(
        line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 305]} ... {line[-300:]}"
        for line in text.split("\n")
    )


class RasterpipeError(Exception):
    """Base of all our errors; its text is one message: the fact, the value got, the remedy."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message))


class UsageError(RasterpipeError):
    """The command line or the call is wrong."""

    exit_code = 2


class PipelineError(RasterpipeError):
    """The pipeline is wrong, or does not fit its inputs once their metadata is known.

    Parameters
    ----------
    message
        Fact, value and remedy.
    path
        Keys and indices into the pipeline file, e.g. ``("steps", 3, "window")``.
        The command line turns it into ``pipeline.yaml:12:5: steps[3] (texture).window``.
    """

    exit_code = 3

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class InputError(RasterpipeError):
    """An input cannot be opened or read, or exceeds a limit."""

    exit_code = 4


class SeveralRasters(InputError):
    """A file, or a store, holds several rasters, and nothing says which is meant."""

    def __init__(
        self, message: str, choices: Sequence[Mapping[str, Any]] = (), members: Sequence[tuple[str, str]] = ()
    ) -> None:
        """`choices` are keys of an input that pick one each; `members` name the rasters, and say what they are."""
        super().__init__(message)
        self.choices, self.members = choices, members


class ChunkAway(InputError):
    """A part of an input that was there is not: it may come back."""


class InputUnfit(InputError):
    """The pixels of an input do not fit the pipeline: to continue is in vain until one of the two is another."""


class InputChanged(InputError):
    """An input is not the one that the run began with: what is computed cannot be continued."""


class OutputError(RasterpipeError):
    """The output exists, is unsafe, is locked, or does not fit the disk."""

    exit_code = 5


class RunStopped(RasterpipeError):
    """A started run stopped; ``--resume`` continues it."""

    exit_code = 6


class Terminated(KeyboardInterrupt):
    """SIGTERM: means what Ctrl-C means."""


class RunInterrupted(RunStopped):
    """Ctrl-C (130) or SIGTERM (143) stopped a started run; ``--resume`` continues it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def interruption(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return what stopped a command, and its exit code."""
    return ("SIGTERM", 143) if isinstance(error, Terminated) else ("Ctrl-C", 130)


def unknown(kind: str, value: object, valid: Iterable[object]) -> str:
    """Return the message for a name that is not among the valid ones, with the nearest.

    Examples
    --------
    >>> unknown("statistic", "maen", ["mean", "max"])
    "unknown statistic 'maen'; did you mean 'mean'? (valid: mean, max)"
    >>> unknown("band", 7, ["red", "nir"])
    "unknown band '7' (valid: red, nir)"
    """
    names = [str(name) for name in valid]
    hint = did_you_mean(value, names)
    listed = ", ".join(names) if names else "none"
    return f"unknown {kind} {str(value)!r}{hint} (valid: {listed})"


def did_you_mean(value: object, names: Sequence[str]) -> str:
    """Return the question for the name nearest to a value, empty where none is near.

    Examples
    --------
    >>> did_you_mean("imag", ["image", "labels"]), did_you_mean("IMAGE", ["image", "labels"])
    ("; did you mean 'image'?", "; did you mean 'image'?")
    """
    near = nearest(str(value), names)
    return f"; did you mean {near!r}?" if near is not None else ""


LONGEST_NAME = 60
"""Characters of a name that is compared with others."""
MOST_NAMES = 2000
"""Names that are compared: a file may list more."""


def nearest(value: str, names: Iterable[str]) -> str | None:
    """Return the name that is most likely meant: written a little otherwise, or the beginning of the other.

    A slip is a character more, less, another one, or two in turn. There may be one, in longer names one for three
    characters; names of two characters have theirs in turn. What differs in its numbers is another thing: B04 is not
    B05, but B4 is B04.

    Examples
    --------
    >>> nearest("maen", ["min", "mean", "median"]), nearest("mean", ["tan", "min"]), nearest("B4", ["B04", "B05"])
    ('mean', None, 'B04')
    """
    word = _plain(value[:LONGEST_NAME])
    ranked = sorted(
        (distance, place, name)
        for place, name in enumerate(islice(names, MOST_NAMES))
        if (distance := _distance(word, _plain(name[:LONGEST_NAME]))) is not None
    )
    return ranked[0][2] if ranked else None


def _plain(name: str) -> str:
    """Return a name without what people write in several ways: capitals, separators, zeros before numbers."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[-_ ]", "", name.casefold()))


def _distance(word: str, name: str) -> int | None:
    """Return how far a name is, 0 for what is written otherwise alone; None where it is too far."""
    numbers = ["".join(re.findall(r"[0-9]", text)) for text in (word, name)]
    if all(numbers) and sorted(numbers[0]) != sorted(numbers[1]):
        return None
    shorter, longer = sorted((word, name), key=len)
    is_begun = longer.startswith(shorter) and (len(shorter) >= 3 or len(longer) == len(shorter) + 1)
    has_no_vowels = len(word) >= 3 and word == name[:1] + re.sub("[aeiou]", "", name[1:])
    most = max(1, len(shorter) // 3) if len(shorter) > 2 or sorted(word) == sorted(name) else 0
    if is_begun or has_no_vowels:
        return len(longer) - len(shorter)
    if len(longer) - len(shorter) > most:
        return None
    slips = _slips(word, name)
    return slips if slips <= most else None


def _slips(a: str, b: str) -> int:
    """Return how many slips lie between two texts (Damerau and Levenshtein's distance, of neighbours in turn)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, y) == (b[j - 2], a[i - 2]):
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]


def show(value: object, length: int = 60) -> str:
    """Return a value as a message quotes it.

    Examples
    --------
    >>> [show(value) for value in (14, "maen", True, None, {"a": 1})]
    ['14', "'maen'", 'true', 'nothing', 'a mapping']
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(show(item, length) for item in value[:10])}{', ...' if len(value) > 10 else ''}]"
        return text if len(text) <= length else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= length else text[: length - 4] + "...'"
