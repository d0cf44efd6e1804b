"""The command that writes a pipeline file to begin with."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.command import command
from pipeline.cli.options import choice_options, debug_option, json_option, pairs
from pipeline.cli.printing import print_facts, print_summary
from pipeline.cli.startup import import_api
from pipeline.execution.terminal import say


def _complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    from pipeline.verbs.start.template import NAMES

    return [name for name in NAMES if name.startswith(begun)]


@command(
    "rasterpipe init",
    "rasterpipe init ndvi --input image=scene.tif",
    "rasterpipe init zonal --input image=scene.tif --input labels=fields.gpkg -o fields.yaml",
)
@click.argument("name", required=False, shell_complete=_complete)
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=PATH", help="Your raster: image=scene.tif. Also labels."
)
@click.option("-o", "--output", "target", metavar="FILE", help="The file to write. Default: NAME.yaml.")
@choice_options
@json_option
@debug_option
def init(name: str | None, inputs: tuple[str, ...], target: str | None, chosen: dict[str, Any], as_json: bool) -> None:
    """Write a pipeline file to begin with, from the template NAME; without NAME, list the templates.

    It fits the bands and the georeference of your raster, and names the schema that editors complete and check it by.
    --array, --along and others of that kind say which raster of the image's file is meant.
    """
    import_api()
    from pipeline import api
    from pipeline.verbs.start import init as start

    if name is None:
        known = start.templates()
        lines = [f"{each:{max(map(len, known))}}  {title}" for each, title in known.items()]
        print_facts({"templates": known}, as_json, [*lines, "next: rasterpipe init NAME --input image=PATH"])
        return
    named = pairs(inputs)

    def describe(key: str) -> start.Described:
        return api.info(named[key], **(chosen if key == "image" else {}))

    facts = start.init(name, named, target, describe, chosen.get("along"))
    for note in facts.notes:
        say(f"note: {note}")
    print_summary(facts.to_dict(), as_json, [f"{facts.path}: written", f"next: {facts.next}"])
