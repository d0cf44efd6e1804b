"""What our tests share beside `pipeline.testing`: unfinished runs, files of stores, high-water marks of memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.model.region import Region
from pipeline.model.stored import StoredArray
from pipeline.output.work_folder import work_folder
from pipeline.testing.layout import (
    Dirty,
    Layout,
    compute,
    document,
    execute_job,
    read,
    read_qualities,
    read_tables,
    run,
    table_columns,
    whole,
)
from pipeline.testing.memory import reset_peak_bytes
from pipeline.testing.raster import LABELS, Raster, labels, same_bits, store, to_planes, workspace

__all__ = [
    "LABELS",
    "Dirty",
    "Layout",
    "Raster",
    "compute",
    "document",
    "execute_job",
    "labels",
    "read",
    "read_qualities",
    "read_tables",
    "reset_peak_bytes",
    "run",
    "same_bits",
    "store",
    "table_columns",
    "to_planes",
    "whole",
    "workspace",
]


def unfinished(output: Path | str) -> Path:
    """Return the store that an unfinished run builds."""
    (store,) = work_folder(str(output)).glob("*/store")
    return store


VOLATILE = ("run_id", "started", "finished")
"""What two runs of one plan do not have in common."""


def stored_files(path: Path) -> dict[str, Any]:
    """Return every file of an output store: the bytes of chunks; metadata without times, id and place of the run."""
    files: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = str(file.relative_to(path))
            files[name] = _without_run(json.loads(file.read_text())) if file.name == "zarr.json" else file.read_bytes()
    return files


def _without_run(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_run(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_run(item) for key, item in value.items() if key not in VOLATILE}
    if "config" in kept and "plan_hash" in kept:
        output = {key: value for key, value in kept["config"]["output"].items() if key != "path"}
        kept["config"] = {**{key: value for key, value in kept["config"].items() if key != "run"}, "output": output}
    return kept


def chunk_file(plan: StoredArray, region: Region) -> str:
    """Return the file of the first chunk or shard of a region, which is in rows and columns of the array."""
    first = {"y": region.top, "x": region.left, "band": 0}
    sizes = plan.shards or plan.chunks
    return "/".join(["c", *(str(first[dim] // size) for dim, size in zip(plan.spec.dims, sizes, strict=True))])
