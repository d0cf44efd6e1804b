"""Runs in processes of their own, which may lose the disk or their rights, or be killed at any moment.

The processes are forked from one that has imported everything and done nothing: a run begins within a tenth of a
second, and what happens to one reaches no other.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pipeline import api
from pipeline.model.errors import RasterpipeError
from pipeline.storage.zarr.store import ZarrWriter

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preload", __name__])

SECONDS = 60
"""What no run of these tests takes."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal that killed it), and what it had to say."""

    code: int
    message: str
    facts: Mapping[str, Any]


class Run:
    """A run of a pipeline in a process of its own."""

    def __init__(self, config: Mapping[str, Any], arm: Callable[[], None] | None = None, **options: Any) -> None:
        self._said, say = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_run, args=(config, say, arm, options))
        self.process.start()
        say.close()

    def kill(self, after: float) -> None:
        """Kill the process after some seconds, unless it has ended by then."""
        self.process.join(after)
        if self.process.is_alive():
            self.process.kill()

    def wait(self) -> Ended:
        self.process.join(SECONDS)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"a run takes longer than {SECONDS} s")
        code = self.process.exitcode
        assert code is not None
        with self._said:
            said = self._said.recv() if self._said.poll() and code >= 0 else {}
        return Ended(code, said.get("message", ""), said.get("facts", {}))


def _run(
    config: Mapping[str, Any], say: Connection, arm: Callable[[], None] | None, options: Mapping[str, Any]
) -> None:
    """Run a pipeline; the exit codes are those of the command line."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    if arm is not None:
        arm()
    try:
        said: dict[str, Any] = {"facts": api.run(config, **options)}
        code = 0
    except RasterpipeError as error:
        said, code = {"message": str(error)}, error.exit_code
    except Exception as error:
        said, code = {"message": repr(error)}, 1
    say.send(said)
    os._exit(code)


def after_writes(count: int, act: Callable[[], None]) -> None:
    """Let something happen to this process once it has written some rasters of blocks."""
    write, calls = ZarrWriter.write, itertools.count(1)

    def counting(*args: Any) -> Any:
        if next(calls) == count:
            act()
        return write(*args)

    ZarrWriter.write = counting  # type: ignore[method-assign]
