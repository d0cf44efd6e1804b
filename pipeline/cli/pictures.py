"""The commands that let people see rasters."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from pipeline.cli.command import command
from pipeline.cli.options import choice_options, debug_option, json_option, quiet_option
from pipeline.cli.printing import print_facts, print_summary
from pipeline.cli.startup import import_api


@command(
    "rasterpipe show results/out.zarr -o out.png",
    "rasterpipe show scene.tif results/out.zarr/smooth/mean -o both.png --size 800",
)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...", type=click.Path(readable=False))
@click.option("-o", "--output", "target", metavar="PNG", required=True, help="The picture to write.")
@click.option("--size", type=int, help="About the pixels of the longer side of each. Default: 1000; of several 500.")
@click.option("--overwrite", is_flag=True, help="Replace an existing PNG.")
@choice_options
@quiet_option
@json_option
@debug_option
def show(results: tuple[str, ...], target: str, as_json: bool, **options: Any) -> None:
    """Draw RESULTs (output stores, arrays in them, TIFFs, what else is an input) side by side into a PNG."""
    import_api()
    from pipeline import api

    facts = api.show(results, target, **options)
    drawn = f"{len(facts.rasters)} raster{'s' if len(facts.rasters) > 1 else ''}"
    print_summary(facts.to_dict(), as_json, [f"{facts.path}: {drawn}, {facts.size[1]} x {facts.size[0]} pixels"])


@command("rasterpipe view results/out.zarr", "rasterpipe view scene.tif results/out.zarr --no-browser --port 8000")
@click.argument("results", nargs=-1, required=True, metavar="OUTPUT...", type=click.Path(readable=False))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of 127.0.0.1. Default: one that is free.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@choice_options
@json_option
@debug_option
def view(results: tuple[str, ...], port: int, no_browser: bool, as_json: bool, **ways: Any) -> None:
    """Look at OUTPUTs (output stores, arrays in them, TIFFs, what else is an input) on a map in the browser.

    The server listens to this machine alone, until Ctrl-C.
    """
    import_api()
    from pipeline import api

    def tell(url: str) -> None:
        print_facts({"url": url}, as_json, [f"{url} (Ctrl-C ends it)"])

    with suppress(KeyboardInterrupt):
        api.view(results, port=port, browser=not no_browser, started=tell, **ways)
