"""Words to the person at the terminal: a stream that is full, or closed, costs words and no result."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO


def open_streams() -> None:
    """Open stdin, stdout and stderr where they were closed (`2>&-`): else a file of the run would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def say(text: str) -> None:
    """Write a line to stderr, where that takes it."""
    if sys.stderr is None:  # print would take stdout
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        close(sys.stderr)


def write(text: str) -> str:
    """Write lines to stdout; return why that failed, else nothing."""
    try:
        print(text, end="", flush=True)
    except (OSError, ValueError) as error:
        close(sys.stdout)
        return getattr(error, "strerror", None) or str(error)
    return ""


def close(stream: IO[str]) -> None:
    """Let what a stream still holds go nowhere, so that Python does not complain of it in the end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
