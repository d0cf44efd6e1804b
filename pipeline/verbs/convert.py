"""From one form of a raster to another, by a pipeline of one step: blocks, memory and resume are those of any run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from pipeline.config import Setting, load_pipeline
from pipeline.model.errors import UsageError
from pipeline.storage.compose import open_input
from pipeline.storage.files import expand, is_pattern
from pipeline.storage.input import Series

STEP = "raster"
SOURCE = "source"


class Read(TypedDict, total=False):
    """How a file or a store is read: keys of an input, see `pipeline.storage.input.Input`."""

    at: Mapping[str, int | float | str] | None
    along: str | None
    level: int | None
    series: Series | None
    driver: str | None
    sidecar: bool | None


class Chosen(Read, total=False):
    """Which raster of a file or a store is meant."""

    array: str | None


class Part(Chosen, total=False):
    """What of a raster is meant: see `part_settings`."""

    region: Mapping[str, Sequence[int]] | None
    bbox: Sequence[float] | None


class Wanted(Part, total=False):
    """What a result is to be, see `conversion`."""

    bands: Sequence[int | str] | str | None
    dtype: str | None
    nodata: float | int | str | None
    output: Mapping[str, Any]


def part_settings(
    region: Mapping[str, Sequence[int]] | None = None,
    bbox: Sequence[float] | None = None,
    **chosen: Unpack[Chosen],
) -> list[Setting]:
    """Return settings of a pipeline that reads its input `source`, by which it makes a part of the raster.

    Parameters
    ----------
    region
        ``rows`` and ``columns``, [first, end] each, as in a pipeline file. Default: all.
    bbox
        xmin, ymin, xmax, ymax in the raster's coordinates, instead of `region`: the pixels that it touches.
    chosen
        Which raster of a file or a store. The region counts pixels of the `level` that is read.
    """
    if region is not None and bbox is not None:
        raise UsageError("--region and --bbox both say which part is meant; give one of them")
    found: list[Setting] = []
    if region is not None:
        found.append(("region", region, "--region"))
    if bbox is not None:
        found.append(("region", {"bbox": list(bbox)}, "--bbox"))
    given: Any = {key: value for key, value in chosen.items() if value is not None}
    return found + [(f"inputs.{SOURCE}.{key}", value, f"--{key} {value}") for key, value in given.items()]


def entry_of(source: str) -> dict[str, Any]:
    """Return the input that a source means: a file or store, or the mosaic of all files that a pattern meets."""
    return {"mosaic": source} if is_pattern(source) else {"path": source}


def conversion(source: str, target: str, **wanted: Unpack[Wanted]) -> tuple[dict[str, Any], list[Setting]]:
    """Return the pipeline that converts a raster, and settings of it, each with the option that messages name.

    Parameters
    ----------
    source
        A Zarr store or a TIFF, or a pattern of files that make up a mosaic.
    target
        A Zarr store, or a path that ends in .tif or .ome.zarr.
    region, bbox, array, at, along, level, series, driver, sidecar
        The part to convert, see `part_settings`. Default: all of the first image at full resolution.
    bands, dtype, nodata
        Of the result. Default: as they are. Without `dtype` and `nodata`, pixels are handed on to the bit; with
        `nodata` "none" too, and none is recorded. A text is YAML.
    output
        `chunks`, `shards`, `codec`, `dims`, `pyramid`, `overviews`, `resampling`, `cog`, `ome_version`, as in a
        pipeline file; a text is YAML.
    """
    dtype, nodata = wanted.get("dtype"), wanted.get("nodata")
    entry = entry_of(source)
    step: dict[str, Any] = {"name": STEP, "op": "cast" if dtype else "select", "input": SOURCE}
    if isinstance(nodata, str) and nodata.lower() == "none":
        entry["nodata"], nodata = "none", None
    elif not dtype and nodata is None and "path" in entry:
        entry["nodata"] = "carry"
    document = {"inputs": {SOURCE: entry}, "steps": [step], "output": {"path": target}}
    settings = list(_settings({**wanted, "nodata": nodata}))
    if not dtype and wanted.get("bands") is None:
        step["bands"] = [1]  # until what is meant is known to be sound
        step["bands"] = list(open_input(expand(load_pipeline(document, settings)[0].inputs[SOURCE])[0]).spec.bands)
    return document, settings


def _settings(wanted: Wanted) -> Iterator[Setting]:
    """Yield what is wanted as settings."""
    part: Any = {key: value for key, value in wanted.items() if key in Part.__annotations__}
    yield from part_settings(**part)
    values: dict[str, Any] = {f"steps.{STEP}.bands": wanted.get("bands"), f"steps.{STEP}.dtype": wanted.get("dtype")}
    values[f"steps.{STEP}.nodata"] = wanted.get("nodata")
    values |= {f"output.{key}": value for key, value in wanted.get("output", {}).items()}
    for place, value in values.items():
        if value is not None:
            yield place, value, f"--{place.rpartition('.')[2].replace('_', '-')} {value}"
