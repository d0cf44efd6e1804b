"""The commands that let people see rasters."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import choice_options, debug_option, json_option, quiet_option
from pipeline.cli.printing import print_summary
from pipeline.cli.startup import import_api


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULT...", type=click.Path(readable=False))
@click.option("-o", "--output", "target", metavar="PNG", required=True, help="The picture to write.")
@click.option("--size", type=int, help="About the pixels of the longer side of each. Default: 1000; of several 500.")
@click.option("--overwrite", is_flag=True, help="Replace an existing PNG.")
@choice_options
@quiet_option
@json_option
@debug_option
def show(results: tuple[str, ...], target: str, as_json: bool, **options: Any) -> None:
    """Draw RESULTs (output stores, arrays in them, TIFFs, what else is an input) side by side into a PNG.

    Examples: rasterpipe show results/out.zarr -o out.png; rasterpipe show scene.tif results/out.zarr/smooth/mean -o
    both.png --size 800
    """
    import_api()
    from pipeline import api

    facts = api.show(results, target, **options)
    drawn = f"{len(facts.rasters)} raster{'s' if len(facts.rasters) > 1 else ''}"
    print_summary(facts.to_dict(), as_json, [f"{facts.path}: {drawn}, {facts.size[1]} x {facts.size[0]} pixels"])
