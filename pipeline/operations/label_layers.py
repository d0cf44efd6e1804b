"""Labels in blocks: layers in each of which a pixel bears one at most, and what its values weigh there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.kernels.frame import Patch
from pipeline.kernels.label_table import partial_table
from pipeline.kernels.label_weights import weighted_table
from pipeline.model.errors import InputUnfit
from pipeline.model.region import Region
from pipeline.model.table import Table
from pipeline.operations.base import Block


def label_layers(labels: Block, ignore: tuple[int, ...] = ()) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield the labels of each layer, (row, column), and where there are some; None: everywhere."""
    valid = None if labels.valid is None else labels.by_band(labels.valid)
    for k, layer in enumerate(labels.by_band()):
        plane = np.ascontiguousarray(layer)
        yield plane, _where(plane, None if valid is None else np.ascontiguousarray(valid[k]), ignore)


def ignored(labels: tuple[int, ...]) -> tuple[int, ...]:
    """Return labels to ignore, as far as 64 bits with a sign hold them; `label_layers` leaves out the others."""
    return tuple(label for label in labels if -(2**63) <= label < 2**63)


def _where(plane: np.ndarray, mask: np.ndarray | None, ignore: tuple[int, ...]) -> np.ndarray | None:
    """Return where labels are valid, and none of those to ignore that only uint64 holds."""
    large = [label for label in ignore if 2**63 <= label < 2**64]
    if not large or plane.dtype != np.uint64:
        return mask
    kept: np.ndarray = np.ones(plane.shape, bool) if mask is None else mask.copy()
    for label in large:
        kept &= plane != np.uint64(label)
    return kept


def layer_table(
    name: str,
    wanted: tuple[Sequence[str], np.ndarray],
    layer: tuple[int, np.ndarray, np.ndarray | None],
    blocks: Mapping[str, Block],
    ignore: Sequence[int],
    region: Region,
) -> Table:
    """Return the partial table of a step's region.

    Wanted are some statistics, and counts in bins with these edges (none: no bins); of a layer there are its number,
    its labels and where there are some.
    """
    (number, plane, mask), (statistics, edges), labels, source = layer, wanted, blocks["labels"], blocks["input"]
    there, patch = region.slices(labels.origin), patch_of(labels, source, region)
    _check_largest(name, plane[there], None if mask is None else mask[there])
    values, valid = source.planes(), None if source.valid is None else source.planes(source.valid)
    if "weights" not in blocks:
        return partial_table(
            plane,
            values,
            patch,
            statistics,
            valid=valid,
            labels_valid=mask,
            ignore=ignore,
            within=labels.raster.shift(-labels.origin[0], -labels.origin[1]),
            edges=edges if len(edges) else None,
        ).to_columns()
    weights = _weights(name, blocks["weights"], number, region)
    try:
        found = weighted_table(plane, values, patch, statistics, weights, valid=valid, labels_valid=mask, ignore=ignore)
    except OverflowError as error:
        raise InputUnfit(
            f"weights times values of step {name!r} (for var and std times values again) are too large or too small to "
            "be summed exactly, beyond 2^1000 or below 2^-900; scale them with calc"
        ) from error
    return found.to_columns()


def _check_largest(name: str, plane: np.ndarray, mask: np.ndarray | None) -> None:
    """Refuse labels of a step that 64 bits with a sign do not hold; both are of a region."""
    if plane.dtype != np.uint64:
        return
    most = int(np.max(plane, initial=0, where=True if mask is None else mask))
    if most >= 2**63:
        raise InputUnfit(f"the labels of step {name!r} reach {most}; labels go up to 2^63 - 1")


def _weights(name: str, weights: Block, layer: int, region: Region) -> np.ndarray:
    """Return the weights of a step in a layer of its labels, (row, column); 0 where they are not valid.

    Raises InputUnfit where one is below 0.
    """
    band = layer if weights.by_band().shape[0] > 1 else 0
    there = region.slices(weights.origin)
    values = weights.by_band()[band][there]
    valid = None if weights.valid is None else weights.by_band(weights.valid)[band][there]
    if values.dtype.kind != "u":
        below = values < 0 if valid is None else (values < 0) & valid
        if below.any():
            row, column = np.argwhere(below)[0].tolist()
            raise InputUnfit(
                f"the weights of step {name!r} are {values[row, column]} in row {region.top + row}, column "
                f"{region.left + column}; weights are 0 or more: {{op: calc, expression: max(w, 0)}}"
            )
    return values if valid is None else np.where(valid, values, 0)


def patch_of(labels: Block, values: Block, region: Region) -> Patch:
    """Return where a region lies in labels and in values."""
    return Patch(
        region.shape,
        (region.top - labels.origin[0], region.left - labels.origin[1]),
        (region.top - values.origin[0], region.left - values.origin[1]),
        values.lanes,
        (region.top, region.left),
    )
