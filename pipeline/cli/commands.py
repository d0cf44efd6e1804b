"""The commands: each hands its arguments to `pipeline.api` and prints what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.command import command
from pipeline.cli.doctor import doctor
from pipeline.cli.first import init
from pipeline.cli.options import (
    change_options,
    choice_options,
    debug_option,
    exists_options,
    json_option,
    limit_options,
    pairs,
    part_options,
    quiet_option,
    trust_option,
)
from pipeline.cli.pictures import show, view
from pipeline.cli.printing import fail, print_facts, print_summary
from pipeline.cli.startup import import_api


@command(
    "rasterpipe run pipeline.yaml",
    "rasterpipe run pipeline.yaml --input image=scene.tif -o out.zarr --quicklook out.png",
)
@click.argument("file", type=click.Path(readable=False))
@exists_options
@click.option(
    "--quicklook", metavar="PNG", type=click.Path(readable=False), help="Draw input and outputs, small, into a PNG."
)
@click.option(
    "--performance-report", metavar="HTML", type=click.Path(readable=False), help="Dask's report of a cluster's work."
)
@change_options
@quiet_option
@json_option
@debug_option
def run(file: str, as_json: bool, changes: dict[str, Any], **ways: Any) -> None:
    """Run a pipeline FILE."""
    import_api()
    from pipeline import api
    from pipeline.cli import text

    facts = api.run(file, **ways, **changes)
    print_summary(facts.to_dict(), as_json, text.format_run(facts))


@command("rasterpipe plan pipeline.yaml", "rasterpipe plan pipeline.yaml --memory '2 GiB' --set steps.smooth.size=5")
@click.argument("file", type=click.Path(readable=False))
@change_options
@json_option
@debug_option
def plan(file: str, as_json: bool, changes: dict[str, Any]) -> None:
    """Say what a run of FILE would do: blocks, memory, bytes, outputs. Writes nothing."""
    import_api()
    from pipeline import api
    from pipeline.cli import text

    facts = api.plan(file, **changes)
    print_facts(facts.to_dict(), as_json, text.format_plan(facts))


@command("rasterpipe validate pipeline.yaml", "rasterpipe validate pipeline.yaml --no-inputs")
@click.argument("file", type=click.Path(readable=False))
@click.option("--no-inputs", is_flag=True, help="Check the file alone; open no input.")
@change_options
@json_option
@debug_option
def validate(file: str, no_inputs: bool, as_json: bool, changes: dict[str, Any]) -> None:
    """Check a pipeline FILE, and that it fits its inputs."""
    import_api()
    from pipeline import api
    from pipeline.cli import text

    facts = api.validate(file, check_inputs=not no_inputs, **changes)
    print_facts(facts.to_dict(), as_json, text.format_validate(facts, file))


@command("rasterpipe info scene.tif", "rasterpipe info cube.nc --array temperature --at time=2024-06-01")
@click.argument("path", type=click.Path(readable=False))
@choice_options
@json_option
@debug_option
def info(path: str, chosen: dict[str, Any], as_json: bool) -> None:
    """Say what a raster is: dims, bands, dtype, nodata, chunks, CRS; and the line that makes it an input.

    Of a folder, or of a file that holds several, say what there is, and the lines that make inputs of it.
    """
    import_api()
    from pipeline import api
    from pipeline.cli import text
    from pipeline.model.facts import InfoFacts

    facts = api.info(path, **chosen)
    lines = text.format_info(facts) if isinstance(facts, InfoFacts) else text.format_contents(facts)
    print_facts(facts.to_dict(), as_json, lines)


@command("rasterpipe verify results/out.zarr", "rasterpipe verify results/out.tif --samples 50 --input image=scene.tif")
@click.argument("output", type=click.Path(readable=False))
@click.option("--samples", type=click.IntRange(min=0), default=8, show_default=True, help="Regions to compute again.")
@click.option("--all", "everything", is_flag=True, help="Compute all of it again, tables too.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the regions. Default: others each time.")
@click.option("--memory", metavar="SIZE", help="What computing again stays below. Default: as the run was told.")
@click.option("--workers", type=click.IntRange(min=1), help="Blocks computed at once.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help="Where an input lies now.")
@trust_option
@quiet_option
@json_option
@debug_option
def verify(output: str, inputs: tuple[str, ...], trust: bool, as_json: bool, **options: Any) -> None:
    """Check a finished OUTPUT: its files, its record, and regions of it, computed again by another layout.

    OUTPUT is a store, or a GeoTIFF that a run wrote. Exits with 0 if all agrees, with 5 if not.
    """
    import_api()
    from pipeline import api
    from pipeline.cli import text

    facts = api.verify(output, inputs=pairs(inputs), trust=trust or None, **options)
    print_facts(facts.to_dict(), as_json, text.format_verify(facts))
    if not facts.agrees:
        fail("\n".join(facts.problems), 5)


@command("rasterpipe ops", "rasterpipe ops window")
@click.argument("name", required=False)
@json_option
@debug_option
def ops(name: str | None, as_json: bool) -> None:
    """List the operations, or show the parameters of one; of a word of others (focal, zonal, otsu), which it is."""
    from pipeline.cli import catalogue

    if name is None:
        facts = catalogue.describe_operations()
        print_facts(facts, as_json, catalogue.format_operations(facts))
    elif (word := catalogue.describe_word(name)) is not None:
        print_facts(word, as_json, catalogue.format_word(word))
    else:
        facts = catalogue.describe_operation(name)
        print_facts(facts, as_json, catalogue.format_operation(facts))


@command("rasterpipe schema", "rasterpipe schema > pipeline.schema.json")
@click.option("--json", is_flag=True, expose_value=False, help="It is JSON in any case.")
@debug_option
def schema() -> None:
    """Print the JSON schema of pipeline files, for editors."""
    from pipeline.config import schema as build

    print_facts(build(), True, ())


@command(
    "rasterpipe synth scene.zarr --size 5000 5000",
    "rasterpipe synth scene.zarr --size 1000 1000 --bands 4 --labels segments.zarr",
)
@click.argument("path", type=click.Path(readable=False))
@click.option("--size", nargs=2, type=int, required=True, metavar="H W", help="Height and width in pixels.")
@click.option("--bands", type=int, default=16, show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--labels", type=click.Path(readable=False), help="Write a raster of labelled segments there, too.")
@click.option("--num-labels", type=int, default=1000, show_default=True, help="About how many segments.")
@click.option("--overwrite", is_flag=True, help="Replace what synth wrote there before.")
@json_option
@debug_option
def synth(path: str, as_json: bool, **options: Any) -> None:
    """Write a plausible scene (fields, woods, rivers, hills, noise) to a Zarr store at PATH."""
    from pipeline.verbs.demo.synth import synth as write

    facts = write(path, **options)
    lines = [f"{facts['path']}: {' x '.join(map(str, facts['shape']))} {facts['dtype']} in {facts['seconds']:.1f} s"]
    if labels := facts["labels"]:
        lines.append(f"{labels['path']}: {labels['num_labels']} labels, {labels['dtype']}")
    print_summary(facts, as_json, lines)


OUTPUT = ("chunks", "shards", "codec", "dims", "pyramid", "overviews", "resampling", "cog", "ome_version")
"""Options of `convert` that are keys of `output` in a pipeline file."""


@command(
    "rasterpipe convert scene.tif scene.zarr",
    "rasterpipe convert scene.zarr part.tif --region 0:2000 500:2500",
    "rasterpipe convert 'tiles/*.tif' merged.tif",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.argument("target", metavar="DST", type=click.Path(readable=False))
@part_options
@click.option("--bands", metavar="LIST", help="Positions from 1, or names: '[4, 3, 2]'.")
@click.option("--dtype", help="Another dtype: integers are rounded half to even and saturate.")
@click.option("--nodata", metavar="VALUE", help="Another value for invalid pixels; none: all are valid.")
@click.option("--chunks", metavar="SIDES", help="'[y, x]' or '[y, x, band]'.")
@click.option("--shards", metavar="SIDES", help="'[y, x]', '[y, x, band]' or none.")
@click.option("--codec", help="fast, balanced, small or none.")
@click.option("--dims", help="y,x,band or band,y,x.")
@click.option("--pyramid", metavar="LEVELS", help="Levels of a Zarr store: auto, none, or how many.")
@click.option("--overviews", help="Of a TIFF: auto or none.")
@click.option("--resampling", help="Of levels and overviews: auto, average, nearest (for labels), mode, min, max.")
@click.option("--cog/--no-cog", default=None, help="Lay a TIFF out as a Cloud Optimized GeoTIFF (the default), or not.")
@click.option("--ome-version", metavar="VERSION", help="Of a DST that ends in .ome.zarr: 0.5 or 0.4.")
@exists_options
@limit_options
@quiet_option
@json_option
@debug_option
def convert(source: str, target: str, as_json: bool, part: dict[str, Any], **options: Any) -> None:
    """Convert a raster, or a part of it, from SRC to DST: to Zarr, TIFF (.tif) or OME-Zarr (.ome.zarr).

    Pixels, georeference and what else the file says are kept. Of a pattern, the files that it meets are merged.
    """
    import_api()
    from pipeline import api
    from pipeline.cli import text

    output = {key: options.pop(key) for key in OUTPUT}
    facts = api.convert(source, target, output=output, **part, **options)
    print_summary(facts.to_dict(), as_json, text.format_run(facts))


@command(
    "rasterpipe apply window size=5 scene.zarr smooth.zarr",
    "rasterpipe apply window size=5 'statistics=[mean,std]' scene.tif smooth.tif --region 0:500 :",
)
@click.argument("operation", metavar="OP")
@click.argument("arguments", nargs=-1, required=True, metavar="[KEY=VALUE ...] SRC DST")
@part_options
@exists_options
@limit_options
@quiet_option
@json_option
@debug_option
def apply(operation: str, arguments: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Run one operation without a pipeline file: from SRC to DST."""
    import_api()
    from pipeline import api
    from pipeline.cli import text

    *assignments, source, target = arguments if len(arguments) > 1 else (*arguments, "")
    for path in (source, target):
        if not path or ("=" in path and not Path(path).exists()):
            found = f", and {path} before them" if path else ""
            raise click.UsageError(f"give SRC and DST at the end: the raster to read and the store to write{found}")
    source = source if "://" in source else str(Path(source).absolute())
    facts = api.apply_operation(operation, pairs(assignments, "KEY=VALUE"), source, target, **options)
    print_summary(facts.to_dict(), as_json, text.format_run(facts))


@command("rasterpipe warm", "rasterpipe warm pipeline.yaml")
@click.argument("file", type=click.Path(readable=False), required=False)
@change_options
@quiet_option
@json_option
@debug_option
def warm(file: str | None, quiet: bool, as_json: bool, changes: dict[str, Any]) -> None:
    """Compile the kernels that FILE needs, so that its first run begins at once; without FILE, those of all operations.

    For images and clusters. Kernels are kept for this processor, in NUMBA_CACHE_DIR if that is set.
    """
    import_api()
    from pipeline import api

    seconds = api.warm(file, quiet=quiet, **changes)
    print_facts({"seconds": seconds}, as_json, [f"all kernels are there, after {seconds:.1f} s"])


COMMANDS = (init, run, plan, validate, info, show, view, verify, ops, schema, synth, convert, apply, warm, doctor)
"""In the order in which they are listed."""
