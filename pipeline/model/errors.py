"""The error tree: every failure that a user can cause or must know of, each with its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
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
    near = [name for name in names if name.lower() == str(value).lower()]
    near = near or difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


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
