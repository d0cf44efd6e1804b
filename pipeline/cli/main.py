"""The command `rasterpipe`: arguments and exit codes; the work is done by `pipeline.api`."""

from __future__ import annotations

import errno
import gc
import json
import logging
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from pipeline.execution.terminal import say, write
from pipeline.model.errors import NO_MEMORY, Terminated, interruption
from pipeline.model.version import __version__

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Keeps the commands in the order in which they are defined, and answers our errors with their exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        _quiet_libraries()
        _check_working_folder()
        try:
            with _stoppable():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt as error:
            name, code = interruption(error)
            _fail(f"stopped by {name}", code)
        except Exception as error:
            from pipeline.model.errors import RasterpipeError

            if ctx.meta.get(_DEBUG):
                raise
            if isinstance(error, MemoryError) or "can't start new thread" in str(error):
                _fail(f"{NO_MEMORY}; give --memory less, or raise the limit", 1)
            if isinstance(error, RasterpipeError):
                _fail(str(error), error.exit_code)
            _fail(f"a fault of {_whose(error)}: {type(error).__name__}: {error}; --debug shows where", 1)


def _whose(error: Exception) -> str:
    """Return who made what failed."""
    registry = sys.modules.get("pipeline.operations.registry")  # else no operation was asked for yet
    return str((registry and registry.owner_at_fault(error.__traceback__)) or "rasterpipe")


_DEBUG = "rasterpipe.debug"


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
        _fail("the folder in which the command was given is gone: somebody has removed it; `cd` to another one", 2)


def _quiet_libraries() -> None:
    """Say nothing of zarr's tasks that an error leaves behind, nor of its way to read: nobody can act on it."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    warnings.filterwarnings("ignore", "Array is unsupported by ZarrsCodecPipeline")  # read without it


def _fail(message: str, code: int) -> NoReturn:
    # what a file says of itself must not steer the terminal
    message = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in message)
    say(f"error: {message}" if "\n" not in message else f"error:\n{message}")
    sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rasterpipe")
def main() -> None:
    """Process rasters larger than memory, chunk by chunk: the same bits for any chunking."""


def _combined(options: Iterable[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


_json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
_debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, parameter, value: ctx.meta.__setitem__(_DEBUG, value),
    help="Show where an error comes from.",
)
_quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")

_trust_option = click.option("--trust", is_flag=True, help="Let the file run code, open ports, use your credentials.")

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
        _trust_option,
    ]
)
_exists_options = _combined(
    [
        click.option("--in-place", is_flag=True, help="With --overwrite: in an object store, which has no renames."),
        click.option("--resume", is_flag=True, help="Continue an unfinished run; start if there is none."),
        click.option("--overwrite", is_flag=True, help="Replace an existing output once the new one is complete."),
    ]
)


def _with_load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gather the overriding options into the keyword `options` that `pipeline.api` takes."""

    @wraps(command)
    def wrapper(
        overrides: tuple[str, ...],
        inputs: tuple[str, ...],
        output: str | None,
        memory: str | None,
        workers: int | None,
        scheduler: str | None,
        trust: bool,
        **rest: Any,
    ) -> Any:
        limits = _limits(memory=memory, workers=workers, scheduler=scheduler)
        options: dict[str, Any] = {"overrides": [*overrides, *limits], "inputs": _pairs(inputs), "output": output}
        options["trust"] = trust or None  # what is not said, the user's settings say
        return command(options=options, **rest)

    return _override_options(wrapper)


def _limits(**values: Any) -> list[tuple[str, str]]:
    """Return overrides of `run`, each with the option that messages name."""
    given = {key: value for key, value in values.items() if value is not None}
    return [(f"run.{key}={value}", f"--{key} {value}") for key, value in given.items()]


def _pairs(texts: Iterable[str], form: str = "NAME=PATH") -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.UsageError(f"expected {form}, got {text!r}")
        pairs[name] = value
    return pairs


def _print(facts: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print what a command found out; where nobody takes it, the command has failed."""
    if failure := write(_text(facts, as_json, lines)):
        if failure != os.strerror(errno.EPIPE):  # `| head` has seen enough
            say(f"error: stdout takes nothing: {failure}")
        sys.exit(1)


def _print_summary(facts: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print what a command has done; where nobody takes it, it is done all the same."""
    if failure := write(_text(facts, as_json, lines)):
        place = facts.get("output") or facts["path"]
        say(f"note: {place} is complete, but stdout takes no summary of it: {failure}")


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


def _import_api() -> None:
    """Import what most commands need, and never look for garbage among it: that took a sixth of a short run."""
    if "pipeline.api" in sys.modules:
        return
    gc.disable()
    try:
        import pipeline.api  # noqa: F401
        from pipeline.kernels.compile import leave_out_blas

        leave_out_blas()
    finally:
        gc.freeze()
        gc.enable()


@main.command()
@click.argument("file", type=click.Path(readable=False))
@_exists_options
@click.option(
    "--quicklook", metavar="PNG", type=click.Path(readable=False), help="Draw input and outputs, small, into a PNG."
)
@click.option(
    "--performance-report", metavar="HTML", type=click.Path(readable=False), help="Dask's report of a cluster's work."
)
@_with_load_options
@_quiet_option
@_json_option
@_debug_option
def run(file: str, as_json: bool, options: dict[str, Any], **ways: Any) -> None:
    """Run a pipeline FILE."""
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    facts = api.run(file, **ways, **options)
    _print_summary(facts, as_json, report.format_run(facts))


@main.command()
@click.argument("file", type=click.Path(readable=False))
@_with_load_options
@_json_option
@_debug_option
def plan(file: str, as_json: bool, options: dict[str, Any]) -> None:
    """Say what a run of FILE would do: blocks, memory, bytes, outputs. Writes nothing."""
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    facts = api.plan(file, **options)
    _print(facts, as_json, report.format_plan(facts))


@main.command()
@click.argument("file", type=click.Path(readable=False))
@click.option("--no-inputs", is_flag=True, help="Check the file alone; open no input.")
@_with_load_options
@_json_option
@_debug_option
def validate(file: str, no_inputs: bool, as_json: bool, options: dict[str, Any]) -> None:
    """Check a pipeline FILE, and that it fits its inputs."""
    _import_api()
    from pipeline import api

    facts = api.validate(file, check_inputs=not no_inputs, **options)
    steps = "1 step" if facts["steps"] == 1 else f"{facts['steps']} steps"
    _print(facts, as_json, [f"{file}: valid, {steps}" + (" (inputs not opened)" if no_inputs else "")])


@main.command()
@click.argument("path", type=click.Path(readable=False))
@click.option("--array", help="The array in a Zarr group that holds several.")
@_json_option
@_debug_option
def info(path: str, array: str | None, as_json: bool) -> None:
    """Say what a raster is: dims, bands, dtype, nodata, chunks, CRS; and the line that makes it an input."""
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    facts = api.info(path, array)
    _print(facts, as_json, report.format_info(facts))


@main.command()
@click.argument("output", type=click.Path(readable=False))
@click.option("--samples", type=click.IntRange(min=0), default=8, show_default=True, help="Regions to compute again.")
@click.option("--all", "everything", is_flag=True, help="Compute all of it again, tables too.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the regions. Default: others each time.")
@click.option("--memory", metavar="SIZE", help="What computing again stays below. Default: as the run was told.")
@click.option("--workers", type=click.IntRange(min=1), help="Blocks computed at once.")
@_trust_option
@_quiet_option
@_json_option
@_debug_option
def verify(output: str, trust: bool, as_json: bool, **options: Any) -> None:
    """Check a finished OUTPUT: its files, its record, and regions of it, computed again by another layout.

    OUTPUT is a store, or a GeoTIFF that a run wrote. Exits with 0 if all agrees, with 5 if not.
    """
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    facts = api.verify(output, trust=trust or None, **options)
    _print(facts, as_json, report.format_verify(facts))
    if not facts["agrees"]:
        _fail("\n".join(facts["problems"]), 5)


@main.command()
@click.argument("name", required=False)
@_json_option
@_debug_option
def ops(name: str | None, as_json: bool) -> None:
    """List the operations, or show the parameters of one."""
    from pipeline.cli import catalogue

    facts = catalogue.describe_operations() if name is None else catalogue.describe_operation(name)
    _print(facts, as_json, catalogue.format_operations(facts) if name is None else catalogue.format_operation(facts))


@main.command()
@click.option("--json", is_flag=True, expose_value=False, help="It is JSON in any case.")
@_debug_option
def schema() -> None:
    """Print the JSON schema of pipeline files, for editors."""
    from pipeline.config import schema as build

    _print(build(), True, ())


@main.command()
@click.argument("path", type=click.Path(readable=False))
@click.option("--size", nargs=2, type=int, required=True, metavar="H W", help="Height and width in pixels.")
@click.option("--bands", type=int, default=16, show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--labels", type=click.Path(readable=False), help="Write a raster of labelled segments there, too.")
@click.option("--num-labels", type=int, default=1000, show_default=True, help="About how many segments.")
@click.option("--overwrite", is_flag=True, help="Replace what synth wrote there before.")
@_json_option
@_debug_option
def synth(path: str, as_json: bool, **options: Any) -> None:
    """Write a plausible scene (fields, woods, rivers, hills, noise) to a Zarr store at PATH."""
    from pipeline.verbs.demo.synth import synth as write

    facts = write(path, **options)
    lines = [f"{facts['path']}: {' x '.join(map(str, facts['shape']))} {facts['dtype']} in {facts['seconds']:.1f} s"]
    if labels := facts["labels"]:
        lines.append(f"{labels['path']}: {labels['num_labels']} labels, {labels['dtype']}")
    _print_summary(facts, as_json, lines)


@main.command()
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.argument("target", metavar="DST", type=click.Path(readable=False))
@click.option("--array", help="The array in a Zarr group that holds several.")
@click.option("--bands", metavar="LIST", help="Positions from 1, or names: '[4, 3, 2]'.")
@click.option("--dtype", help="Another dtype: integers are rounded half to even and saturate.")
@click.option("--nodata", metavar="VALUE", help="Another value for invalid pixels; none: all are valid.")
@click.option("--chunks", metavar="SIDES", help="'[y, x]' or '[y, x, band]'.")
@click.option("--shards", metavar="SIDES", help="'[y, x]', '[y, x, band]' or none.")
@click.option("--codec", help="fast, balanced, small or none.")
@click.option("--dims", help="y,x,band or band,y,x.")
@_exists_options
@_limit_options
@_quiet_option
@_json_option
@_debug_option
def convert(source: str, target: str, memory: str | None, workers: int | None, as_json: bool, **options: Any) -> None:
    """Convert a raster from SRC to DST: TIFF to Zarr, Zarr to TIFF (DST ends in .tif), Zarr to Zarr.

    Pixels, georeference and what else the file says are kept. Example: rasterpipe convert scene.tif scene.zarr
    """
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    output = {key: options.pop(key) for key in ("chunks", "shards", "codec", "dims")}
    facts = api.convert(source, target, output=output, limits=_limits(memory=memory, workers=workers), **options)
    _print_summary(facts, as_json, report.format_run(facts))


@main.command()
@click.argument("operation", metavar="OP")
@click.argument("arguments", nargs=-1, required=True, metavar="[KEY=VALUE ...] SRC DST")
@_exists_options
@_limit_options
@_quiet_option
@_json_option
@_debug_option
def apply(
    operation: str,
    arguments: tuple[str, ...],
    in_place: bool,
    resume: bool,
    overwrite: bool,
    memory: str | None,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run one operation without a pipeline file: from SRC to DST.

    Example: rasterpipe apply window size=5 statistics=[mean,std] scene.zarr smooth.zarr
    """
    _import_api()
    from pipeline import api
    from pipeline.verbs import facts as report

    *assignments, source, target = arguments if len(arguments) > 1 else (*arguments, "")
    for path in (source, target):
        if not path or ("=" in path and not Path(path).exists()):
            raise click.UsageError("give SRC and DST at the end: the raster to read and the store to write")
    facts = api.apply_operation(
        operation,
        _pairs(assignments, "KEY=VALUE"),
        str(Path(source).absolute()) if "://" not in source else source,
        target,
        limits=_limits(memory=memory, workers=workers),
        resume=resume,
        overwrite=overwrite,
        in_place=in_place,
        quiet=quiet,
    )
    _print_summary(facts, as_json, report.format_run(facts))
