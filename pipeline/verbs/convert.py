"""From one form of a raster to another, by a pipeline of one step: blocks, memory and resume are those of any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pipeline.config import Setting
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster

STEP = "raster"


class Wanted(TypedDict, total=False):
    """What a result is to be, see `conversion`."""

    bands: Sequence[int | str] | str | None
    dtype: str | None
    nodata: float | int | str | None
    output: Mapping[str, Any]


def conversion(
    source: str, target: str, array: str | None = None, **wanted: Unpack[Wanted]
) -> tuple[dict[str, Any], list[Setting]]:
    """Return the pipeline that converts a raster, and settings of it, each with the option that messages name.

    Parameters
    ----------
    source
        A Zarr store or a TIFF.
    target
        A Zarr store, or a path that ends in .tif or .ome.zarr.
    array
        The array in a store that holds several.
    bands, dtype, nodata
        Of the result. Default: as they are. Without `dtype` and `nodata`, pixels are handed on to the bit; with
        `nodata` "none" too, and none is recorded. A text is YAML.
    output
        `chunks`, `shards`, `codec`, `dims`, `ome_version`, as in a pipeline file; a text is YAML.
    """
    bands, dtype, nodata = wanted.get("bands"), wanted.get("dtype"), wanted.get("nodata")
    entry: dict[str, Any] = {"path": source} | ({"array": array} if array else {})
    step: dict[str, Any] = {"name": STEP, "op": "cast" if dtype else "select", "input": "source"}
    if not dtype and not bands:
        step["bands"] = list(_bands_of(source, array))
    if isinstance(nodata, str) and nodata.lower() == "none":
        entry["nodata"], nodata = "none", None
    elif not dtype and nodata is None:
        entry["nodata"] = "carry"
    document = {"inputs": {"source": entry}, "steps": [step], "output": {"path": target}}
    values = {f"steps.{STEP}.{key}": value for key, value in (("bands", bands), ("dtype", dtype), ("nodata", nodata))}
    values |= {f"output.{key}": value for key, value in wanted.get("output", {}).items()}
    named = ((place, value, place.rpartition(".")[2]) for place, value in values.items() if value is not None)
    return document, [(place, value, f"--{key.replace('_', '-')} {value}") for place, value, key in named]


def _bands_of(source: str, array: str | None) -> tuple[str, ...]:
    return open_raster(source if "://" in source else str(Path(source).absolute()), Choice(array)).spec.bands
