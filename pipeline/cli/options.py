"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
DEBUG = "rasterpipe.debug"
"""Where a command's context says that errors are to be shown with their traceback."""


def _combined(options: Iterable[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, parameter, value: ctx.meta.__setitem__(DEBUG, value),
    help="Show where an error comes from.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")

trust_option = click.option("--trust", is_flag=True, help="Let the file run code, open ports, use your credentials.")

_limit_options = _combined(
    [
        click.option("--memory", metavar="SIZE", help="What the whole run stays below, e.g. '2 GiB'."),
        click.option("--workers", type=click.IntRange(min=1), help="Blocks computed at once."),
    ]
)
_override_options = _combined(
    [
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set, e.g. steps.smooth.size=5."),
        click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help="Replace an input."),
        click.option("-o", "--output", metavar="PATH", help="Replace the output path."),
        _limit_options,
        click.option("--scheduler", metavar="WHERE", help="threads, or a dask scheduler: tcp://HOST:PORT."),
        trust_option,
    ]
)
exists_options = _combined(
    [
        click.option("--in-place", is_flag=True, help="With --overwrite: in an object store, which has no renames."),
        click.option("--resume", is_flag=True, help="Continue an unfinished run; start if there is none."),
        click.option("--overwrite", is_flag=True, help="Replace an existing output once the new one is complete."),
    ]
)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gather the overriding options into the keyword `changes`, of those that `pipeline.api` takes."""

    @wraps(command)
    def wrapper(overrides: tuple[str, ...], inputs: tuple[str, ...], output: str | None, **rest: Any) -> Any:
        settings = gather_settings(rest, ("memory", "workers", "scheduler"))
        changes = {"overrides": [*overrides, *settings], "inputs": pairs(inputs), "output": output}
        changes["trust"] = rest.pop("trust") or None  # what is not said, the user's settings say
        return command(changes=changes, **rest)

    return _override_options(wrapper)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gather the limits into the keyword `limits`."""

    @wraps(command)
    def wrapper(**rest: Any) -> Any:
        return command(limits=gather_settings(rest, ("memory", "workers")), **rest)

    return _limit_options(wrapper)


def gather_settings(options: dict[str, Any], names: Iterable[str]) -> list[tuple[str, Any, str]]:
    """Take options that belong to `run` out of all; return those that are given, as settings of a pipeline."""
    values = {name: options.pop(name) for name in names}
    return [(f"run.{name}", value, f"--{name} {value}") for name, value in values.items() if value is not None]


def pairs(texts: Iterable[str], form: str = "NAME=PATH") -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.UsageError(f"expected {form}, got {text!r}")
        pairs[name] = value
    return pairs
