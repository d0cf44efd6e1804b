"""What the user should know of a run before it begins, beside what the planner notes of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.block.plan import Pass
from pipeline.config import Pipeline
from pipeline.model.stored import StoredArray
from pipeline.operations.traits import table_files
from pipeline.output.address import is_ome_zarr, is_one_raster
from pipeline.planning.plan import Plan
from pipeline.storage.folder.address import is_url
from pipeline.storage.reader import Reader

AMPLIFIED = 1.5
"""Times that a pass decodes what it reads, from which on that is said."""


def input_notes(config: Pipeline, readers: Mapping[str, Reader]) -> list[str]:
    """Return what the files say that the pipeline file ignores."""
    notes = []
    for name, reader in readers.items():
        if reader.scales and config.inputs[name].scale == "ignore":
            said = dict.fromkeys(f"scale {factor:g} and offset {offset:g}" for factor, offset in reader.scales)
            differ = " (they differ between the bands)" if len(said) > 1 else ""
            notes.append(
                f"input {name}: the file records {', '.join(list(said)[:5])}{differ}; they are ignored "
                "(`scale: apply` uses them)"
            )
        facts = reader.describe()
        notes += [f"input {name}: {warning}" for warning in facts.get("warnings", [])]
        if facts.get("mask") and config.inputs[name].series != "mask":
            notes.append(f"input {name}: the file has an internal mask, which is not applied; `series: mask` reads it")
    return notes


def output_notes(config: Pipeline, plan: Plan) -> list[str]:
    """Return how the output differs from what was asked for."""
    notes = []
    lost = [name for name, step in plan.reductions.items() if not table_files(step.operation)]
    if is_one_raster(config.output.path) and lost:
        kind = "an image" if is_ome_zarr(config.output.path) else "a .tif"
        notes.append(
            f"output.path: {kind} holds no tables, those of {', '.join(lost)} are lost; write a .zarr for them"
        )
    if config.output.ome_version != "0.5" and not (config.output.ome_zarr or is_ome_zarr(config.output.path)):
        notes.append("output.ome_version: no OME-Zarr image is written; `ome_zarr: FOLDER/` writes them")
    if is_url(config.output.path):
        notes.append(
            "output.path: an object store has no renames: an older result there is replaced only by --overwrite "
            "--in-place, and is gone before the new one is complete"
        )
    shards, arrays = plan.settings.shards, list(plan.kept.values())
    if arrays and config.region and config.region.bbox:
        notes += _beyond(config.region.bbox, arrays[0])
    if isinstance(shards, str) or not arrays:
        return notes
    region = arrays[0].region
    if shards[0] > region.height or shards[1] > region.width:
        sides, size = (f"{rows} x {columns}" for rows, columns in (shards[:2], region.shape))
        notes.append(f"output.shards: {sides} pixels are more than the {size} of the result; a shard ends at its edge")
    return notes


def _beyond(box: tuple[float, float, float, float], array: StoredArray) -> Iterator[str]:
    """Yield that a box reaches beyond the raster, where it does so by a pixel or more."""
    spec = array.spec
    assert spec.transform is not None
    (left, right), (bottom, top) = spec.transform.spans(spec.height, spec.width)
    across = max(left - box[0], box[2] - right) / abs(spec.transform.a)
    down = max(bottom - box[1], box[3] - top) / abs(spec.transform.e)
    if max(across, down) >= 1:
        yield (
            f"region.bbox: reaches beyond the raster, which spans x {left:g} to {right:g}, y {bottom:g} to {top:g}; "
            f"the result is what lies within, {array.region}"
        )


def reading_notes(plan: Plan) -> list[str]:
    """Return which TIFFs are laid out so badly that parts of them are decoded again and again, with the remedy."""
    notes = []
    for planned in plan.passes:
        if planned.cost.amplification < AMPLIFIED:
            continue
        for name in _badly_shaped(plan, planned):
            entry = plan.inputs[name]
            rows, columns = entry.chunk
            notes.append(
                f"input {name}: parts of {rows} x {columns} pixels can only be decoded whole, and blocks of "
                f"{' x '.join(map(str, planned.grid.largest))} make the run decode "
                f"{planned.cost.amplification:.1f} times what it reads; convert it once: rasterpipe convert "
                f"{entry.path or name} {name}.zarr"
            )
    return list(dict.fromkeys(notes))


def _badly_shaped(plan: Plan, planned: Pass) -> list[str]:
    """Return the TIFFs whose strips or tiles are larger than the blocks of a pass, down or across."""
    sides = planned.grid.largest
    tiffs = [name for name in planned.stored if name in plan.inputs and plan.inputs[name].format == "tiff"]
    return [name for name in tiffs if any(n > side for n, side in zip(plan.inputs[name].chunk, sides, strict=True))]
