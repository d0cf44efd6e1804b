"""Options that several commands take."""

from __future__ import annotations

import re
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
_choice_options = _combined(
    [
        click.option("--array", help="The array in a Zarr group, NetCDF or HDF5 file that holds several."),
        click.option("--at", multiple=True, metavar="DIM=PLACE", help="Cut a further dim, e.g. z=3, time=2024-06-01."),
        click.option("--along", metavar="DIM", help="Read a further dim (time, z) as bands."),
        click.option("--level", type=click.IntRange(min=0), help="Of a pyramid; 0 (default) is full resolution."),
        click.option(
            "--series",
            metavar="N",
            callback=lambda ctx, parameter, value: value and _to_series(value),
            help="The image in a TIFF that holds several, from 0; mask: its internal mask.",
        ),
        click.option("--driver", metavar="NAME", help="GDAL's, to read it by: VRT, netCDF, HDF5, ..."),
        click.option("--sidecar", is_flag=True, help="With world files and .aux.xml beside it, by GDAL."),
    ]
)
_part_options = _combined(
    [
        click.option(
            "--region",
            nargs=2,
            metavar="ROWS COLUMNS",
            callback=lambda ctx, parameter, value: value and _to_region(value),
            help="Only this part: FIRST:END from 0, or : for all, e.g. 0:2000 500:2500.",
        ),
        click.option("--bbox", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="The same in coordinates."),
        _choice_options,
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


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gather which raster of a file or store is meant into the keyword `chosen`, of `pipeline.verbs.convert.Chosen`."""

    @wraps(command)
    def wrapper(**rest: Any) -> Any:
        return command(chosen=_chosen(rest), **rest)

    return _choice_options(wrapper)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options that say which raster is meant out of all; return those that are given."""
    given = {name: options.pop(name) for name in ("array", "at", "along", "level", "series", "driver", "sidecar")}
    given["sidecar"] = given["sidecar"] or None
    given["at"] = {dim: _to_place(text) for dim, text in pairs(given["at"], "DIM=PLACE").items()} or None
    return {name: value for name, value in given.items() if value is not None}


def _to_place(text: str) -> int | str:
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else text


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gather which part of a raster is meant into the keyword `part`, of `pipeline.verbs.convert.Part`."""

    @wraps(command)
    def wrapper(**rest: Any) -> Any:
        part = {name: rest.pop(name) for name in ("region", "bbox")}
        return command(part={**part, **_chosen(rest)}, **rest)

    return _part_options(wrapper)


def _to_region(texts: tuple[str, str]) -> dict[str, list[int]] | None:
    """Return rows and columns as a pipeline file has them; None for all of both."""
    region = {}
    for name, text in zip(("rows", "columns"), texts, strict=True):
        if text == ":":
            continue
        if not (span := re.fullmatch("([0-9]{1,18}):([0-9]{1,18})", text)):
            raise click.BadParameter(f"{name} must be FIRST:END, counted from 0, or : for all of them, got {text!r}")
        region[name] = [int(span[1]), int(span[2])]
    return region or None


def _to_series(text: str) -> int | str:
    if text == "mask":
        return text
    if not re.fullmatch("[0-9]{1,9}", text):
        raise click.BadParameter(f"must be a number from 0 on, or mask, got {text!r}")
    return int(text)


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
