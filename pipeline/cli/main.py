"""The command `rasterpipe`: its exit codes, and what Ctrl-C and SIGTERM do to it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import click

from pipeline.cli.commands import COMMANDS
from pipeline.cli.excerpt import with_excerpts
from pipeline.cli.options import DEBUG
from pipeline.cli.printing import fail
from pipeline.model.errors import NO_MEMORY, RasterpipeError, Terminated, interruption
from pipeline.model.version import __version__


class _Group(click.Group):
    """Keeps the commands in the order in which they are defined, and answers our errors with their exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        _quiet_libraries()
        _check_working_folder()
        given = set(ctx.args)  # an excerpt is of a file that the user has named
        try:
            with _stoppable():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt as error:
            name, code = interruption(error)
            fail(f"stopped by {name}", code)
        except Exception as error:
            if ctx.meta.get(DEBUG):
                raise
            if isinstance(error, MemoryError) or "can't start new thread" in str(error):
                fail(f"{NO_MEMORY}; give --memory less, or raise the limit", 1)
            if isinstance(error, RasterpipeError):
                fail(with_excerpts(str(error), given), error.exit_code)
            fail(f"a fault of {_whose(error)}: {type(error).__name__}: {error}; --debug shows where", 1)


def _whose(error: Exception) -> str:
    """Return who made what failed."""
    registry = sys.modules.get("pipeline.operations.registry")  # else no operation was asked for yet
    return str((registry and registry.owner_at_fault(error.__traceback__)) or "rasterpipe")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the command, whatever server it waits for."""

    def stop(number: int, frame: FrameType | None) -> None:
        if requests := sys.modules.get("pipeline.storage.folder.request"):  # else nothing has been asked for yet
            requests.hurry()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # a shell lets what runs in its background ignore Ctrl-C
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        fail("the folder in which the command was given is gone: somebody has removed it; `cd` to another one", 2)


def _quiet_libraries() -> None:
    """Say nothing of zarr's tasks that an error leaves behind, nor of its way to read: nobody can act on it."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    warnings.filterwarnings("ignore", "Array is unsupported by ZarrsCodecPipeline")  # read without it
    sys.excepthook = _show_error


def _show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error that nobody caught, but for what obstore prints of answers that come after the end."""
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


@click.group(
    cls=_Group, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="rasterpipe")
def main() -> None:
    """Process rasters larger than memory, chunk by chunk: the same bits for any chunking."""
